/*
 * array.h: device arrays of a test: poisoned before use, with guards on both sides that are looked
 * at whenever an array comes back.
 */
#ifndef TESTS_CONTRACT_ARRAY_H
#define TESTS_CONTRACT_ARRAY_H

#include "backend.h"

#define GUARD  64
#define POISON 0xa5

static inline uint64_t mix(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* A value in (-4, 4) that every dtype but the integers holds roughly. */
static inline double value_of(uint64_t *state)
{
    return (double)(int64_t)mix(state) * 0x1p-61;
}

/* A device array of `size` bytes that begins `shift` bytes after an aligned address, with guards.
 */
struct array {
    unsigned char *device, *host, *memory;
    size_t size, total;
};

static inline struct array new_array(size_t size, size_t shift)
{
    struct array array = {.size = size, .total = size + shift + 2 * GUARD};
    array.memory = device_alloc(array.total);
    array.device = array.memory + GUARD + shift;
    array.host = malloc(array.total);
    assert_non_null(array.host);
    memset(array.host, POISON, array.total);
    assert_ok(bench.ops->copy(bench.stream, array.memory, array.host, array.total));
    sync_stream(bench.stream);
    return array;
}

static inline void free_array(struct array *array)
{
    device_free(array->memory);
    free(array->host);
}

static inline size_t host_offset(const struct array *array)
{
    return (size_t)(array->device - array->memory);
}

static inline unsigned char *host_of(const struct array *array)
{
    return array->host + host_offset(array);
}

static inline void upload(const struct array *array)
{
    assert_ok(bench.ops->copy(bench.stream, array->device, host_of(array), array->size));
    sync_stream(bench.stream);
}

/* Brings the array back and looks at its guards. */
static inline void download(const struct array *array)
{
    assert_ok(bench.ops->copy(bench.stream, array->host, array->memory, array->total));
    sync_stream(bench.stream);
    for (size_t i = 0; i < array->total; i++) {
        bool inside = i >= host_offset(array) && i < host_offset(array) + array->size;
        if (!inside && array->host[i] != POISON)
            fail_msg("byte %zd beside the output was changed",
                     (ssize_t)i - (ssize_t)host_offset(array));
    }
}

static inline void fill_random(const struct array *array, enum cm_dtype dtype, uint64_t seed)
{
    size_t size = cm_dtype_size(dtype);
    for (size_t i = 0; i < array->size / size; i++)
        cm_dtype_store(dtype, value_of(&seed), host_of(array) + i * size);
    upload(array);
}

static inline double element(const struct array *array, enum cm_dtype dtype, size_t index)
{
    return cm_dtype_load(dtype, host_of(array) + index * cm_dtype_size(dtype));
}

#endif
