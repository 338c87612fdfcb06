/*
 * The CUDA kernels, run by the emulator, against formulas and against kernels/cpu. Inputs are
 * random and fresh in every case, outputs are poisoned before and guarded on both sides; counts are
 * odd, starts unaligned, threads come in several orders.
 */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "clustermark/cuda_kernels.h"
#include "test.h"

void simt_seed(uint64_t seed);

#define GUARD  64
#define POISON 0xa5

static uint64_t random_state;

static uint64_t next_random(void)
{
    uint64_t x = random_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Streams are only told apart here. */
static struct CUstream_st *stream(uintptr_t number)
{
    return (struct CUstream_st *)(16 * number);
}

#define assert_launched(call) assert_int_equal((call), 0)

/* ---- Arrays with guards ---- */

/* `size` bytes that begin `shift` bytes after a multiple of 64. */
struct array {
    unsigned char *at, *memory;
    size_t size, total;
};

static struct array new_array(size_t size, size_t shift)
{
    struct array array = {.size = size, .total = size + shift + 2 * GUARD};
    array.memory = aligned_alloc(64, (array.total + 63) / 64 * 64);
    assert_non_null(array.memory);
    array.at = array.memory + GUARD + shift;
    memset(array.memory, POISON, array.total);
    return array;
}

static void check_guards(const struct array *array)
{
    for (const unsigned char *p = array->memory; p < array->memory + array->total; p++) {
        bool inside = p >= array->at && p < array->at + array->size;
        if (!inside && *p != POISON)
            fail_msg("byte %td beside the output of %zu was changed", p - array->at, array->size);
    }
}

static void free_array(struct array *array)
{
    check_guards(array);
    free(array->memory);
}

static void fill_bytes(const struct array *array)
{
    for (size_t i = 0; i < array->size; i++)
        array->at[i] = (unsigned char)next_random();
}

/* Values in (-4, 4). */
static void fill_values(const struct array *array, enum cm_dtype dtype)
{
    size_t size = cm_dtype_size(dtype);
    for (size_t i = 0; i < array->size / size; i++)
        cm_dtype_store(dtype, (double)(int64_t)next_random() * 0x1p-61, array->at + i * size);
}

static double element(const struct array *array, enum cm_dtype dtype, size_t index)
{
    return cm_dtype_load(dtype, array->at + index * cm_dtype_size(dtype));
}

/* ---- copy, scale, add, triad ---- */

static const size_t counts[] = {1, 2, 3, 7, 8, 9, 31, 64, 257, 1000, 4099, 25001};
#define COUNTS (sizeof counts / sizeof counts[0])

static void check_arithmetic(int op, enum cm_dtype dtype, size_t count, const size_t shifts[3])
{
    const double factor = 1.75;
    size_t size = cm_dtype_size(dtype);
    struct array a = new_array(count * size, shifts[0] * size);
    struct array b = new_array(count * size, shifts[1] * size);
    struct array to = new_array(count * size, shifts[2] * size);
    fill_values(&a, dtype);
    fill_values(&b, dtype);
    if (op == 0)
        assert_launched(cm_cuda_scale(NULL, to.at, a.at, factor, count, dtype));
    else if (op == 1)
        assert_launched(cm_cuda_add(NULL, to.at, a.at, b.at, count, dtype));
    else
        assert_launched(cm_cuda_triad(NULL, to.at, a.at, b.at, factor, count, dtype));
    for (size_t i = 0; i < count; i++) {
        double x = element(&a, dtype, i), y = element(&b, dtype, i);
        double exact = op == 0 ? factor * x : op == 1 ? x + y : x + factor * y;
        double scale = fabs(factor * x) + fabs(factor * y), found = element(&to, dtype, i);
        if (!(fabs(found - exact) <= cm_dtype_step(dtype) * scale))
            fail_msg("op %d, %s, element %zu of %zu: %.17g, not %.17g", op, cm_dtype_name(dtype), i,
                     count, found, exact);
    }
    free_array(&a);
    free_array(&b);
    free_array(&to);
}

static void arithmetic_is_right(void **state)
{
    (void)state;
    static const size_t shifts[][3] = {{0, 0, 0}, {1, 1, 1}, {3, 3, 3}, {0, 1, 2}, {1, 0, 1}};
    for (size_t c = 0; c < COUNTS; c++) {
        for (size_t s = 0; s < sizeof shifts / sizeof shifts[0]; s++) {
            for (int op = 0; op < 3; op++) {
                check_arithmetic(op, CM_F32, counts[c], shifts[s]);
                check_arithmetic(op, CM_F64, counts[c], shifts[s]);
            }
        }
    }
}

static void arithmetic_works_in_place(void **state)
{
    (void)state;
    enum { COUNT = 20003 };
    struct array a = new_array(COUNT * sizeof(float), 4), b = new_array(COUNT * sizeof(float), 4);
    struct array before = new_array(COUNT * sizeof(float), 0);
    fill_values(&a, CM_F32);
    fill_values(&b, CM_F32);
    memcpy(before.at, a.at, a.size);
    assert_launched(cm_cuda_triad(NULL, a.at, a.at, b.at, 0.5, COUNT, CM_F32));
    for (size_t i = 0; i < COUNT; i++)
        assert_near(element(&a, CM_F32, i),
                    element(&before, CM_F32, i) + 0.5 * element(&b, CM_F32, i), 1e-4);
    free_array(&a);
    free_array(&b);
    free_array(&before);
}

static void arithmetic_is_for_floats(void **state)
{
    (void)state;
    struct array a = new_array(64, 0);
    assert_int_not_equal(cm_cuda_scale(NULL, a.at, a.at, 2, 4, CM_BF16), 0);
    assert_int_not_equal(cm_cuda_add(NULL, a.at, a.at, a.at, 4, CM_I32), 0);
    assert_int_not_equal(cm_cuda_triad(NULL, a.at, a.at, a.at, 2, 4, CM_TF32), 0);
    for (size_t i = 0; i < a.size; i++)
        assert_int_equal(a.at[i], POISON);
    free_array(&a);
}

static void copy_takes_every_alignment(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 15, 16, 17, 63, 100, 4099};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t place = 0; place < 16 * 16; place++) {
            struct array a = new_array(sizes[s], place % 16);
            struct array to = new_array(sizes[s], place / 16);
            fill_bytes(&a);
            assert_launched(cm_cuda_copy(NULL, to.at, a.at, sizes[s]));
            assert_memory_equal(to.at, a.at, sizes[s]);
            free_array(&a);
            free_array(&to);
        }
    }
    for (size_t shift = 0; shift < 3; shift++) {
        struct array a = new_array(300007, 4 * shift), to = new_array(300007, 8 * shift);
        fill_bytes(&a);
        assert_launched(cm_cuda_copy(NULL, to.at, a.at, a.size));
        assert_memory_equal(to.at, a.at, a.size);
        free_array(&a);
        free_array(&to);
    }
}

/* ---- read, write ---- */

static uint64_t xor_of(const struct array *array)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < array->size; i++)
        sum ^= (uint64_t)array->at[i] << 8 * (i % 8);
    return sum;
}

static uint64_t read_array(const struct array *array, uintptr_t on)
{
    struct array sum = new_array(sizeof(uint64_t), 0);
    uint64_t found;
    assert_launched(cm_cuda_read(stream(on), (uint64_t *)(void *)sum.at, array->at, array->size));
    memcpy(&found, sum.at, sizeof found);
    free_array(&sum);
    return found;
}

static const size_t word_sizes[] = {0, 1, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 4001, 40003, 300007};
#define WORD_SIZES (sizeof word_sizes / sizeof word_sizes[0])

static void read_takes_all_bytes(void **state)
{
    (void)state;
    for (size_t s = 0; s < WORD_SIZES; s++) {
        for (size_t shift = 0; shift < 16; shift++) {
            struct array a = new_array(word_sizes[s], shift);
            fill_bytes(&a);
            simt_seed(next_random());
            uint64_t found = read_array(&a, 1), expected = xor_of(&a);
            if (found != expected)
                fail_msg("read of %zu bytes, shift %zu: %016" PRIx64 ", not %016" PRIx64,
                         word_sizes[s], shift, found, expected);
            free_array(&a);
        }
    }
}

/* Each has its own place for what its blocks found; so many that places are used again. */
static void read_works_on_any_number_of_streams(void **state)
{
    (void)state;
    for (uintptr_t number = 0; number < 1000; number++) {
        struct array a = new_array(64 + number, 0);
        fill_bytes(&a);
        assert_true(read_array(&a, number) == xor_of(&a));
        free_array(&a);
    }
}

static void write_takes_all_bytes(void **state)
{
    (void)state;
    for (size_t s = 0; s < WORD_SIZES; s++) {
        for (size_t shift = 0; shift < 16; shift++) {
            struct array a = new_array(word_sizes[s], shift);
            uint64_t word = next_random();
            assert_launched(cm_cuda_write(NULL, a.at, word, a.size));
            for (size_t i = 0; i < a.size; i++) {
                if (a.at[i] != (unsigned char)(word >> 8 * (i % 8)))
                    fail_msg("write of %zu bytes, shift %zu: byte %zu is wrong", a.size, shift, i);
            }
            free_array(&a);
        }
    }
}

/* ---- fill_normal ---- */

/* A table whose values are those of the sequence times `factor`. */
static float *scaled_table(float factor)
{
    float *table = malloc(65536 * sizeof *table);
    assert_non_null(table);
    for (size_t i = 0; i < 65536; i++)
        table[i] = factor * cm_random_table()[i];
    return table;
}

struct fill {
    enum cm_dtype dtype;
    size_t count, shift;
    uint64_t first, seed;
    float factor;
};

static void check_fill(const struct fill *fill, const float *table)
{
    size_t size = cm_dtype_size(fill->dtype);
    double scale = cm_dtype_step(fill->dtype) > 0 ? 1 : 32;
    struct array to = new_array(fill->count * size, fill->shift * size);
    assert_launched(
        cm_cuda_fill_normal(NULL, to.at, fill->count, fill->dtype, fill->seed, fill->first, table));
    for (size_t i = 0; i < fill->count; i++) {
        unsigned char expected[8];
        float value = fill->factor * cm_random_normal(fill->seed, fill->first + i);
        cm_dtype_store(fill->dtype, scale * (double)value, expected);
        if (memcmp(expected, to.at + i * size, size) != 0)
            fail_msg("%s: element %zu of %zu from %" PRIu64 ", shift %zu: %g, not %g",
                     cm_dtype_name(fill->dtype), i, fill->count, fill->first, fill->shift,
                     element(&to, fill->dtype, i), cm_dtype_load(fill->dtype, expected));
    }
    free_array(&to);
}

static void fill_gives_the_sequence(void **state)
{
    (void)state;
    static const uint64_t firsts[] = {0, 1, 5, 7, 8, 15, 16, 128, (UINT64_C(1) << 35) - 3};
    static const size_t some[] = {1, 7, 16, 33, 1003};
    for (int dtype = 0; dtype < CM_ELEMENT_COUNT; dtype++) {
        for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
            for (size_t c = 0; c < sizeof some / sizeof some[0]; c++) {
                struct fill fill = {(enum cm_dtype)dtype, some[c], 0, firsts[f], next_random(), 1};
                check_fill(&fill, cm_random_table());
                fill.shift = (size_t)(firsts[f] % 16); /* whole blocks are aligned then */
                check_fill(&fill, cm_random_table());
            }
        }
        struct fill fill = {(enum cm_dtype)dtype, 30011, 3, 3, next_random(), 1};
        check_fill(&fill, cm_random_table());
        fill.shift = 2;
        check_fill(&fill, cm_random_table());
    }
}

/* Values from far below a type's smallest number to far above its largest. */
static void fill_rounds_like_the_host(void **state)
{
    (void)state;
    static const float factors[] = {0x1p-30f, 0x1p-17f, 0x1p-12f, 0x1p-6f, 100, 3e4f, 1e6f, 1e9f};
    for (size_t f = 0; f < sizeof factors / sizeof factors[0]; f++) {
        float *table = scaled_table(factors[f]);
        for (int dtype = 0; dtype < CM_ELEMENT_COUNT; dtype++) {
            struct fill fill = {(enum cm_dtype)dtype, 5003, 0, 0, next_random(), factors[f]};
            check_fill(&fill, table);
        }
        free(table);
    }
}

/* ---- verify ---- */

static struct cm_verify_result verify_slowly(const struct array *x, const struct array *y,
                                             size_t count, enum cm_dtype dtype, double absolute,
                                             double relative)
{
    struct cm_verify_result result = {count, 0, UINT64_MAX, 0};
    for (size_t i = 0; i < count; i++) {
        double a = element(x, dtype, i), b = element(y, dtype, i), difference = fabs(a - b);
        volatile double product = relative * fabs(b); /* rounded before it is added to */
        double tolerance = absolute + product;
        if (!(difference <= tolerance) && result.mismatches++ == 0)
            result.first_index = i;
        if (difference != 0 && difference / tolerance > result.worst)
            result.worst = difference / tolerance;
    }
    return result;
}

static void check_verify(const struct array *x, const struct array *y, size_t count,
                         enum cm_dtype dtype, double absolute, double relative)
{
    struct array out = new_array(sizeof(struct cm_verify_result), 0);
    struct cm_verify_result found;
    struct cm_verify_result expected = verify_slowly(x, y, count, dtype, absolute, relative);
    assert_launched(cm_cuda_verify(stream(count % 3), x->at, y->at, count, dtype, absolute,
                                   relative, (struct cm_verify_result *)(void *)out.at));
    memcpy(&found, out.at, sizeof found);
    if (found.checked != expected.checked || found.mismatches != expected.mismatches ||
        found.first_index != expected.first_index || found.worst != expected.worst)
        fail_msg("%s, %zu elements, %g + %g: %" PRIu64 " of %" PRIu64 " from %" PRIu64
                 " on, worst %.17g; not %" PRIu64 " from %" PRIu64 " on, worst %.17g",
                 cm_dtype_name(dtype), count, absolute, relative, found.mismatches, found.checked,
                 found.first_index, found.worst, expected.mismatches, expected.first_index,
                 expected.worst);
    free_array(&out);
}

/* y is x but for some elements, which are near it, far off, or any bits at all. */
static void differ(const struct array *x, const struct array *y, enum cm_dtype dtype)
{
    size_t size = cm_dtype_size(dtype), count = x->size / size;
    memcpy(y->at, x->at, x->size);
    for (size_t i = 0; i < count; i++) {
        unsigned char *at = y->at + i * size;
        uint64_t choice = next_random() % 64;
        if (choice < 8)
            cm_dtype_store(dtype, element(x, dtype, i) * (1 + (double)choice / 512), at);
        else if (choice < 9)
            cm_dtype_store(dtype, 2 - element(x, dtype, i), at);
        else if (choice < 10)
            for (size_t k = 0; k < size; k++)
                at[k] = (unsigned char)next_random();
    }
}

static void verify_finds_what_differs(void **state)
{
    (void)state;
    static const double tolerances[][2] = {{0, 0}, {1e-3, 0}, {0, 0.01}, {0.5, 0.25}, {1e30, 1e30}};
    static const size_t some[] = {0, 1, 15, 16, 17, 300, 5003};
    for (int d = 0; d < CM_ELEMENT_COUNT; d++) {
        enum cm_dtype dtype = (enum cm_dtype)d;
        size_t size = cm_dtype_size(dtype);
        for (size_t shift = 0; shift < 9; shift++) {
            struct array x = new_array(5003 * size, shift / 3 * size);
            struct array y = new_array(5003 * size, shift % 3 * size);
            if (shift % 2 == 0)
                fill_values(&x, dtype);
            else
                fill_bytes(&x);
            for (size_t t = 0; t < sizeof tolerances / sizeof tolerances[0]; t++) {
                differ(&x, &y, dtype);
                simt_seed(next_random());
                check_verify(&x, &y, some[(t + shift) % 7], dtype, tolerances[t][0],
                             tolerances[t][1]);
                check_verify(&x, &y, 5003, dtype, tolerances[t][0], tolerances[t][1]);
            }
            memcpy(y.at, x.at, x.size);
            check_verify(&x, &y, 5003, dtype, 0, 0);
            free_array(&x);
            free_array(&y);
        }
    }
}

/* The reference itself says the same of all codes of the narrow types and of random ones. */
static void every_code_is_read_as_the_host_does(void **state)
{
    (void)state;
    static const enum cm_dtype types[] = {CM_BF16, CM_F16, CM_F8E4M3, CM_F8E5M2};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        size_t size = cm_dtype_size(types[t]), count = size == 1 ? 256 : 65536;
        struct array x = new_array(count * size, 0), y = new_array(count * size, 0);
        for (size_t i = 0; i < count; i++) {
            uint16_t code = (uint16_t)i;
            memcpy(x.at + i * size, &code, size);
        }
        memset(y.at, 0, y.size);
        /* The worst of x against 0 is |x|: halves of the codes, down to one. */
        for (size_t some = count; some > 0; some /= 2)
            check_verify(&x, &y, some, types[t], 1, 0);
        for (size_t i = 0; i < count; i++) {
            struct array one = {x.at + i * size, x.memory, size, size};
            if (size == 1 || i % 97 == 0)
                check_verify(&one, &y, 1, types[t], 1, 0);
        }
        free_array(&x);
        free_array(&y);
    }
}

/* ---- Counts of zero, empty, spin ---- */

static void a_count_of_zero_is_fine(void **state)
{
    (void)state;
    struct array a = new_array(64, 0);
    assert_launched(cm_cuda_copy(NULL, a.at, a.at + 32, 0));
    assert_launched(cm_cuda_scale(NULL, a.at, a.at, 2, 0, CM_F32));
    assert_launched(cm_cuda_add(NULL, a.at, a.at, a.at, 0, CM_F64));
    assert_launched(cm_cuda_triad(NULL, a.at, a.at, a.at, 2, 0, CM_F32));
    assert_launched(cm_cuda_write(NULL, a.at, 1, 0));
    assert_launched(cm_cuda_fill_normal(NULL, a.at, 0, CM_F32, 1, 1, cm_random_table()));
    for (size_t i = 0; i < a.size; i++)
        assert_int_equal(a.at[i], POISON);
    assert_launched(cm_cuda_empty(NULL));
    free_array(&a);
}

static uint64_t clock_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

#define LONG_NS UINT64_C(10000000000)

static void spin_ends_when_the_flag_has_come(void **state)
{
    (void)state;
    static const uint32_t flags[][2] = {{7, 7}, {8, 7}, {3, 0xfffffff0u}, {0x80000000u, 1}};
    for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++) {
        uint32_t expired = 0;
        uint64_t start = clock_ns();
        assert_launched(cm_cuda_spin(NULL, &flags[f][0], flags[f][1], LONG_NS, &expired));
        assert_int_equal(expired, 0);
        assert_true(clock_ns() - start < LONG_NS / 2);
    }
}

static void spin_ends_at_its_timeout(void **state)
{
    (void)state;
    static const uint32_t flags[][2] = {{6, 7}, {0xfffffff0u, 3}};
    for (size_t f = 0; f < sizeof flags / sizeof flags[0]; f++) {
        uint32_t expired = 0;
        uint64_t start = clock_ns();
        assert_launched(cm_cuda_spin(NULL, &flags[f][0], flags[f][1], 5000000, &expired));
        assert_int_equal(expired, 1);
        assert_true(clock_ns() - start >= 5000000);
    }
}

static uint32_t late_flag;

static void *raise_flag(void *arg)
{
    (void)arg;
    struct array a = new_array(4096, 0);
    fill_bytes(&a);
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL);
    /* Other streams go on meanwhile. */
    assert_true(read_array(&a, 5) == xor_of(&a));
    free_array(&a);
    __atomic_store_n(&late_flag, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void spin_waits_for_the_host(void **state)
{
    (void)state;
    uint32_t expired = 0;
    pthread_t thread;
    late_flag = 0;
    assert_int_equal(pthread_create(&thread, NULL, raise_flag, NULL), 0);
    assert_launched(cm_cuda_spin(NULL, &late_flag, 1, LONG_NS, &expired));
    assert_int_equal(__atomic_load_n(&late_flag, __ATOMIC_ACQUIRE), 1);
    assert_int_equal(expired, 0);
    pthread_join(thread, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_is_right),
        cmocka_unit_test(arithmetic_works_in_place),
        cmocka_unit_test(arithmetic_is_for_floats),
        cmocka_unit_test(copy_takes_every_alignment),
        cmocka_unit_test(read_takes_all_bytes),
        cmocka_unit_test(read_works_on_any_number_of_streams),
        cmocka_unit_test(write_takes_all_bytes),
        cmocka_unit_test(fill_gives_the_sequence),
        cmocka_unit_test(fill_rounds_like_the_host),
        cmocka_unit_test(verify_finds_what_differs),
        cmocka_unit_test(every_code_is_read_as_the_host_does),
        cmocka_unit_test(a_count_of_zero_is_fine),
        cmocka_unit_test(spin_ends_when_the_flag_has_come),
        cmocka_unit_test(spin_ends_at_its_timeout),
        cmocka_unit_test(spin_waits_for_the_host),
    };
    random_state = (uint64_t)time(NULL);
    const char *seed = getenv("CM_TEST_SEED");
    if (seed != NULL)
        random_state = strtoull(seed, NULL, 0);
    print_message("CM_TEST_SEED=%" PRIu64 " draws the same inputs\n", random_state);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
