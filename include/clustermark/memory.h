/*
 * memory.h: host memory for the program's own structures (buffers that are measured come from a
 * device). All of it goes through here, so that a test can fail the Nth allocation.
 *
 * A failed allocation records CM_NO_MEMORY with the size, and the function returns NULL.
 */
#ifndef CLUSTERMARK_MEMORY_H
#define CLUSTERMARK_MEMORY_H

#include <stddef.h>

/* `count` zeroed elements of `size` bytes; an overflow of the product is a failed allocation. A
 * count of 0 gives memory too, to be freed like any other. */
void *cm_alloc(size_t count, size_t size);

/* Grow or shrink to `count` elements. New memory is not zeroed. On failure the old block stays as
 * it was and NULL comes back. */
void *cm_resize(void *block, size_t count, size_t size);

/* Make room for at least `needed` elements in a growing array: doubles *capacity as necessary and
 * moves *array. Returns 0 on success, -1 with CM_NO_MEMORY recorded (array and capacity kept). */
int cm_grow(void *array, size_t *capacity, size_t needed, size_t size);

char *cm_strdup(const char *text);
__attribute__((format(printf, 1, 2))) char *cm_strf(const char *format, ...);

/* Accepts NULL. */
void cm_free(void *block);

#endif
