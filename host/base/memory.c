/* Host memory with one message for its failure. */
#include "clustermark/memory.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"

static void out_of_memory(size_t count, size_t size)
{
    cm_error(CM_NO_MEMORY, "out of memory: asked for %zu x %zu bytes", count, size);
}

void *cm_alloc(size_t count, size_t size)
{
    void *block = calloc(count ? count : 1, size ? size : 1);
    if (block == NULL)
        out_of_memory(count, size);
    return block;
}

void *cm_resize(void *block, size_t count, size_t size)
{
    size_t bytes;
    void *grown = NULL;
    if (!__builtin_mul_overflow(count ? count : 1, size ? size : 1, &bytes))
        grown = realloc(block, bytes);
    if (grown == NULL)
        out_of_memory(count, size);
    return grown;
}

int cm_grow(void *array, size_t *capacity, size_t needed, size_t size)
{
    if (needed <= *capacity)
        return 0;
    size_t wanted = *capacity ? *capacity : 8;
    while (wanted < needed && wanted <= SIZE_MAX / 2)
        wanted *= 2;
    if (wanted < needed)
        wanted = needed;
    void *block;
    memcpy(&block, array, sizeof block);
    block = cm_resize(block, wanted, size);
    if (block == NULL)
        return -1;
    memcpy(array, &block, sizeof block);
    *capacity = wanted;
    return 0;
}

char *cm_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = cm_alloc(size, 1);
    if (copy != NULL)
        memcpy(copy, text, size);
    return copy;
}

char *cm_strf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0)
        return NULL;
    char *text = cm_alloc((size_t)length + 1, 1);
    if (text == NULL)
        return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

void cm_free(void *block)
{
    free(block);
}
