/*
 * trio.h: what the tests of the training kernels share: three copies of each output, two for the
 * CUDA kernel in two orders of its threads, which must give the same bits, and one for the
 * reference in kernels/cpu.
 */
#ifndef TESTS_SIMT_TRIO_H
#define TESTS_SIMT_TRIO_H

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clustermark/cuda_train.h"
#include "clustermark/kernels.h"
#include "clustermark/train_kernels.h"
#include "test.h"

void simt_seed(uint64_t seed);

#define GUARD  64
#define POISON 0xa5

static uint64_t random_state;

static inline uint64_t next_random(void)
{
    uint64_t x = random_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline unsigned below(unsigned n)
{
    return (unsigned)(next_random() % n);
}

/* ---- Arrays with guards ---- */

/* Memory that begins at a multiple of 16 and of no more. */
struct array {
    unsigned char *at, *memory;
    size_t count, size, total;
    enum cm_dtype dtype;
};

static inline struct array new_array(size_t count, enum cm_dtype dtype)
{
    struct array array = {.count = count, .size = count * cm_dtype_size(dtype), .dtype = dtype};
    array.total = (array.size + 2 * GUARD + 16 + 63) / 64 * 64;
    array.memory = aligned_alloc(64, array.total);
    assert_non_null(array.memory);
    array.at = array.memory + GUARD + 16;
    memset(array.memory, POISON, array.total);
    return array;
}

static inline void check_guards(const struct array *array)
{
    for (const unsigned char *p = array->memory; p < array->memory + array->total; p++) {
        bool inside = p >= array->at && p < array->at + array->size;
        if (!inside && *p != POISON)
            fail_msg("byte %td beside an array of %zu was changed", p - array->at, array->size);
    }
}

static inline void free_array(struct array *array)
{
    check_guards(array);
    free(array->memory);
}

static inline double element(const struct array *array, size_t index)
{
    return cm_dtype_load(array->dtype, array->at + index * cm_dtype_size(array->dtype));
}

static inline void set(const struct array *array, size_t index, double value)
{
    cm_dtype_store(array->dtype, value, array->at + index * cm_dtype_size(array->dtype));
}

/* Normal numbers of that mean and deviation. */
static inline struct array normal(size_t count, enum cm_dtype dtype, double mean, double deviation)
{
    struct array array = new_array(count, dtype);
    uint64_t seed = next_random();
    for (size_t i = 0; i < count; i++)
        set(&array, i, mean + deviation * (double)cm_random_normal(seed, i));
    return array;
}

/* Whole numbers, at least `low` and below `high`. */
static inline struct array integers(size_t count, int low, int high)
{
    struct array array = new_array(count, CM_I32);
    for (size_t i = 0; i < count; i++)
        set(&array, i, low + (int)below((unsigned)(high - low)));
    return array;
}

/* ---- Three of each output ---- */

struct trio {
    struct array of[3];
};

static inline struct trio new_trio(size_t count, enum cm_dtype dtype)
{
    struct trio trio;
    for (int i = 0; i < 3; i++)
        trio.of[i] = new_array(count, dtype);
    return trio;
}

/* The same in all of them; takes the array. */
static inline struct trio trio_of(struct array array)
{
    struct trio trio = new_trio(array.count, array.dtype);
    for (int i = 0; i < 3; i++)
        memcpy(trio.of[i].at, array.at, array.size);
    free_array(&array);
    return trio;
}

static inline void free_trio(struct trio *trio)
{
    for (int i = 0; i < 3; i++)
        free_array(&trio->of[i]);
}

/* The host's stream: what is queued is done at once. */
static inline enum cm_status call_at_once(struct cm_stream *stream, cm_call_fn function,
                                          const void *args, size_t size_bytes, const char *what)
{
    (void)stream;
    (void)size_bytes;
    (void)what;
    return function(args);
}

static const struct cm_device_ops host_ops = {.call = call_at_once};
static struct cm_device host_device = {.ops = &host_ops};
static struct cm_stream host_stream = {.device = &host_device};

/* Run 0 and 1 of a kernel are the CUDA launcher's, 2 the reference's. */
#define LAUNCH(run, name, ...)                                                                     \
    do {                                                                                           \
        simt_seed(next_random());                                                                  \
        if ((run) < 2)                                                                             \
            assert_int_equal(cm_cuda_##name(NULL, __VA_ARGS__), 0);                                \
        else                                                                                       \
            assert_ok(cm_train_kernels_cpu.name(&host_stream, __VA_ARGS__));                       \
    } while (0)

/* Both CUDA runs have the same bits, within absolute + relative * |y| of the reference y; relative
 * comes on top of one rounding of the type. Frees the trio. */
static inline void check(struct trio *trio, double absolute, double relative, const char *what)
{
    const struct array *found = &trio->of[0], *expected = &trio->of[2];
    double step = cm_dtype_step(found->dtype) + relative;
    for (size_t i = 0; i < found->count; i++) {
        double x = element(found, i), y = element(expected, i), again = element(&trio->of[1], i);
        if (memcmp(&x, &again, sizeof x) != 0)
            fail_msg("%s, %s: element %zu of %zu is %.9g in one order, %.9g in another", what,
                     cm_dtype_name(found->dtype), i, found->count, x, again);
        if (x != y && !(fabs(x - y) <= absolute + step * fabs(y)))
            fail_msg("%s, %s: element %zu of %zu is %.9g, not %.9g", what,
                     cm_dtype_name(found->dtype), i, found->count, x, y);
    }
    free_trio(trio);
}

/* All bits are the reference's. */
static inline void check_same(struct trio *trio, const char *what)
{
    for (int i = 0; i < 2; i++) {
        if (memcmp(trio->of[i].at, trio->of[2].at, trio->of[2].size) != 0) {
            for (size_t k = 0; k < trio->of[2].count; k++)
                if (element(&trio->of[i], k) != element(&trio->of[2], k))
                    fail_msg("%s: element %zu of %zu is %.9g, not %.9g", what, k, trio->of[2].count,
                             element(&trio->of[i], k), element(&trio->of[2], k));
            fail_msg("%s: other bits", what);
        }
    }
    free_trio(trio);
}

static const enum cm_dtype step_types[] = {CM_F32, CM_BF16};
#define TYPES              2
#define LENGTH(of_a_table) (sizeof(of_a_table) / sizeof(of_a_table)[0])

/* Seeds the inputs, from CM_TEST_SEED or the time. */
static inline void draw_inputs(void)
{
    random_state = (uint64_t)time(NULL);
    const char *seed = getenv("CM_TEST_SEED");
    if (seed != NULL)
        random_state = strtoull(seed, NULL, 0);
    print_message("CM_TEST_SEED=%" PRIu64 " draws the same inputs\n", random_state);
}

#endif
