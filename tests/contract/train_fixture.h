/*
 * train_fixture.h: buffers of the training kernels' tests, with what they hold as doubles.
 *
 * Inputs are random normal numbers, rounded to their type; outputs hold NANs until they are
 * written. Whatever is fetched must have the same bits with one thread and with two: the groups run
 * in that order, and begin with fetched_anew.
 */
#ifndef TESTS_CONTRACT_TRAIN_FIXTURE_H
#define TESTS_CONTRACT_TRAIN_FIXTURE_H

#include <math.h>

#include "array.h"
#include "clustermark/hash.h"
#include "clustermark/train_kernels.h"

#define F32_STEP 0x1p-23

struct buffer {
    struct array array;
    enum cm_dtype dtype;
    size_t count;
    double *values;
};

static struct buffer *buffers[64];
static size_t buffer_count;
static uint64_t next_seed = 1;

/* What was fetched so far in this group, and in the group with one thread. */
static uint64_t digests[4096];
static size_t digest_count, fetched;
static const struct cm_device_ops *digests_of;
/* What is fetched comes from a library that may sum in any order. */
static bool any_bits;

static inline void fetched_anew(void **state)
{
    (void)state;
    fetched = 0;
    next_seed = 1;
    if (digests_of != bench.ops)
        digest_count = 0;
    digests_of = bench.ops;
}

static inline const struct cm_train_kernels *kernels(void)
{
    assert_non_null(bench.device->kernels->train);
    return bench.device->kernels->train;
}

/* Memory of any kind that free_buffers frees; all bytes 0xff, which are NANs. */
static inline struct buffer *new_buffer(enum cm_dtype dtype, size_t count)
{
    assert_true(buffer_count < sizeof buffers / sizeof buffers[0]);
    struct buffer *buffer = calloc(1, sizeof *buffer);
    assert_non_null(buffer);
    /* 16 bytes is all the alignment that kernels may count on. */
    buffer->array = new_array(count * cm_dtype_size(dtype), 16);
    buffer->dtype = dtype;
    buffer->count = count;
    buffer->values = calloc(count, sizeof(double));
    assert_non_null(buffer->values);
    memset(host_of(&buffer->array), 0xff, buffer->array.size);
    upload(&buffer->array);
    buffers[buffer_count++] = buffer;
    return buffer;
}

static inline void free_buffers(void)
{
    while (buffer_count > 0) {
        struct buffer *buffer = buffers[--buffer_count];
        free_array(&buffer->array);
        free(buffer->values);
        free(buffer);
    }
}

static inline void read_values(struct buffer *buffer)
{
    for (size_t i = 0; i < buffer->count; i++)
        buffer->values[i] = element(&buffer->array, buffer->dtype, i);
}

/* The buffer's values, rounded to its type, become what the device has. */
static inline void give(struct buffer *buffer)
{
    size_t size = cm_dtype_size(buffer->dtype);
    for (size_t i = 0; i < buffer->count; i++)
        cm_dtype_store(buffer->dtype, buffer->values[i], host_of(&buffer->array) + i * size);
    read_values(buffer);
    upload(&buffer->array);
}

static inline struct buffer *normal(enum cm_dtype dtype, size_t count, double mean,
                                    double deviation)
{
    struct buffer *buffer = new_buffer(dtype, count);
    uint64_t seed = next_seed++;
    for (size_t i = 0; i < count; i++)
        buffer->values[i] = mean + deviation * (double)cm_random_normal(seed, i);
    give(buffer);
    return buffer;
}

/* Whole numbers from `low` to `high`. */
static inline struct buffer *integers(size_t count, int low, int high)
{
    struct buffer *buffer = new_buffer(CM_I32, count);
    uint64_t state = next_seed++;
    for (size_t i = 0; i < count; i++)
        buffer->values[i] = low + (double)(mix(&state) % (uint64_t)(high - low + 1));
    give(buffer);
    return buffer;
}

static inline struct buffer *scratch(uint64_t size_bytes)
{
    assert_true(size_bytes > 0);
    return new_buffer(CM_I8, size_bytes);
}

static inline void *at(const struct buffer *buffer)
{
    return buffer != NULL ? buffer->array.device : NULL;
}

/* The device's bytes as values; they must be those that one thread made. */
static inline void fetch(struct buffer *buffer)
{
    download(&buffer->array);
    read_values(buffer);
    uint64_t digest = cm_hash(0, host_of(&buffer->array), buffer->array.size);
    assert_true(fetched < sizeof digests / sizeof digests[0]);
    if (fetched == digest_count)
        digests[digest_count++] = digest;
    else if (digests[fetched] != digest && !any_bits)
        fail_msg("other bits with %u threads", bench.threads);
    fetched++;
}

/* Scratch is looked at for its guards alone. */
static inline void fetch_scratch(struct buffer *buffer)
{
    download(&buffer->array);
}

/* An element that is expected to be a NAN was not to be written. Else
 * |found - expected| <= a rounding of the type + noise (per element; NULL: none). Rounding is once
 * for bf16, and for f32 as often as a short formula does. */
static inline void expect(struct buffer *buffer, const double *expected, const double *noise,
                          const char *what)
{
    double step = cm_dtype_step(buffer->dtype) * (buffer->dtype == CM_F32 ? 8 : 1);
    fetch(buffer);
    for (size_t i = 0; i < buffer->count; i++) {
        double allowed = step * fabs(expected[i]) + (noise != NULL ? noise[i] : 0) + 1e-37;
        if (isnan(expected[i]) && isnan(buffer->values[i]))
            continue;
        if (!(fabs(buffer->values[i] - expected[i]) <= allowed))
            fail_msg("%s, %s: element %zu of %zu is %.9g, not %.9g (within %.2g)", what,
                     cm_dtype_name(buffer->dtype), i, buffer->count, buffer->values[i], expected[i],
                     allowed);
    }
}

static inline double *new_doubles(size_t count)
{
    double *values = calloc(count > 0 ? count : 1, sizeof *values);
    assert_non_null(values);
    return values;
}

static const enum cm_dtype step_types[] = {CM_F32, CM_BF16};

#endif
