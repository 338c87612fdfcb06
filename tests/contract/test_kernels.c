/*
 * The memory, random and comparison kernels of every backend against formulas written again here.
 * Outputs are poisoned before and guarded on both sides; counts are odd, starts unaligned.
 */
#include "array.h"

#include <inttypes.h>
#include <math.h>

/* ---- copy, scale, add, triad ---- */

static const size_t counts[] = {1, 2, 3, 7, 8, 9, 31, 64, 65, 1000, 4099, 50001};
#define COUNTS (sizeof counts / sizeof counts[0])

static void check_arithmetic(enum cm_dtype dtype, size_t count, size_t shift)
{
    const double factor = 1.7;
    size_t size = cm_dtype_size(dtype);
    const struct cm_kernels *kernels = bench.device->kernels;
    struct array a = new_array(count * size, shift * size);
    struct array b = new_array(count * size, 0);
    fill_random(&a, dtype, count);
    fill_random(&b, dtype, count + 1);
    for (int op = 0; op < 3; op++) {
        struct array to = new_array(count * size, (shift * 3 % 4) * size);
        if (op == 0)
            assert_ok(kernels->scale(bench.stream, to.device, a.device, factor, count, dtype));
        else if (op == 1)
            assert_ok(kernels->add(bench.stream, to.device, a.device, b.device, count, dtype));
        else
            assert_ok(
                kernels->triad(bench.stream, to.device, a.device, b.device, factor, count, dtype));
        download(&to);
        for (size_t i = 0; i < count; i++) {
            double x = element(&a, dtype, i), y = element(&b, dtype, i);
            double exact = op == 0 ? factor * x : op == 1 ? x + y : x + factor * y;
            double scale = fabs(factor * x) + fabs(factor * y);
            double found = element(&to, dtype, i);
            if (!(fabs(found - exact) <= 2 * cm_dtype_step(dtype) * scale))
                fail_msg("op %d, %s, element %zu of %zu: %.17g, not %.17g", op,
                         cm_dtype_name(dtype), i, count, found, exact);
        }
        free_array(&to);
    }
    free_array(&a);
    free_array(&b);
}

static void arithmetic_is_right(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        for (size_t shift = 0; shift < 3; shift++) {
            check_arithmetic(CM_F32, counts[c], shift);
            check_arithmetic(CM_F64, counts[c], shift);
        }
    }
}

static void arithmetic_works_in_place(void **state)
{
    (void)state;
    enum { COUNT = 40003 };
    struct array a = new_array(COUNT * sizeof(float), 4), b = new_array(COUNT * sizeof(float), 0);
    fill_random(&a, CM_F32, 1);
    fill_random(&b, CM_F32, 2);
    float *before = malloc(a.size);
    assert_non_null(before);
    memcpy(before, host_of(&a), a.size);
    assert_ok(bench.device->kernels->triad(bench.stream, a.device, a.device, b.device, 0.5, COUNT,
                                           CM_F32));
    download(&a);
    for (size_t i = 0; i < COUNT; i++)
        assert_near(element(&a, CM_F32, i), (double)before[i] + 0.5 * element(&b, CM_F32, i), 1e-4);
    free(before);
    free_array(&a);
    free_array(&b);
}

static void arithmetic_is_for_floats(void **state)
{
    (void)state;
    struct array a = new_array(64, 0);
    const struct cm_kernels *kernels = bench.device->kernels;
    assert_status(kernels->triad(bench.stream, a.device, a.device, a.device, 1, 4, CM_I8),
                  CM_UNSUPPORTED, "i8");
    assert_status(kernels->scale(bench.stream, a.device, a.device, 1, 4, CM_BF16), CM_UNSUPPORTED,
                  "bf16");
    free_array(&a);
}

static void copy_takes_every_type(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < CM_ELEMENT_COUNT; dtype++) {
        for (size_t c = 0; c < COUNTS; c++) {
            size_t size = cm_dtype_size((enum cm_dtype)dtype), bytes = counts[c] * size;
            struct array a = new_array(bytes, size), to = new_array(bytes, 2 * size);
            uint64_t seed = c;
            for (size_t i = 0; i < bytes; i++)
                host_of(&a)[i] = (unsigned char)mix(&seed);
            upload(&a);
            assert_ok(bench.device->kernels->copy(bench.stream, to.device, a.device, counts[c],
                                                  (enum cm_dtype)dtype));
            download(&to);
            assert_memory_equal(host_of(&to), host_of(&a), bytes);
            free_array(&a);
            free_array(&to);
        }
    }
}

/* ---- read and write ---- */

static void read_and_write_take_all_bytes(void **state)
{
    (void)state;
    const uint64_t word = UINT64_C(0x0123456789abcdef);
    static const size_t sizes[] = {1, 5, 7, 8, 9, 15, 16, 63, 64, 65, 4001, 40003, 300007};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct array a = new_array(sizes[s], s % 3 * 8), sum = new_array(sizeof(uint64_t), 0);
        uint64_t seed = s, expected = 0;
        for (size_t i = 0; i < sizes[s]; i++) {
            host_of(&a)[i] = (unsigned char)mix(&seed);
            expected ^= (uint64_t)host_of(&a)[i] << 8 * (i % 8);
        }
        upload(&a);
        assert_ok(bench.device->kernels->read(bench.stream, (uint64_t *)(void *)sum.device,
                                              a.device, sizes[s]));
        download(&sum);
        uint64_t found;
        memcpy(&found, host_of(&sum), sizeof found);
        if (found != expected)
            fail_msg("read of %zu bytes: %016" PRIx64 ", not %016" PRIx64, sizes[s], found,
                     expected);
        assert_ok(bench.device->kernels->write(bench.stream, a.device, word, sizes[s]));
        download(&a);
        for (size_t i = 0; i < sizes[s]; i++)
            assert_int_equal(host_of(&a)[i], word >> 8 * (i % 8) & 0xff);
        free_array(&a);
        free_array(&sum);
    }
}

/* ---- fill_normal ---- */

static void check_fill(enum cm_dtype dtype, size_t count, uint64_t first, uint64_t seed)
{
    size_t size = cm_dtype_size(dtype);
    double scale = cm_dtype_step(dtype) > 0 ? 1 : 32;
    struct array to = new_array(count * size, size);
    assert_ok(
        bench.device->kernels->fill_normal(bench.stream, to.device, count, dtype, seed, first));
    download(&to);
    for (size_t i = 0; i < count; i++) {
        unsigned char expected[8];
        cm_dtype_store(dtype, scale * (double)cm_random_normal(seed, first + i), expected);
        if (memcmp(expected, host_of(&to) + i * size, size) != 0)
            fail_msg("%s: element %zu of %zu from %" PRIu64 ": %g, not %g", cm_dtype_name(dtype), i,
                     count, first, element(&to, dtype, i), cm_dtype_load(dtype, expected));
    }
    free_array(&to);
}

static void fill_gives_the_sequence(void **state)
{
    (void)state;
    static const uint64_t firsts[] = {0, 1, 5, 7, 8, 127, 128, (UINT64_C(1) << 35) - 3};
    for (int dtype = 0; dtype < CM_ELEMENT_COUNT; dtype++) {
        for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
            check_fill((enum cm_dtype)dtype, 1, firsts[f], 77);
            check_fill((enum cm_dtype)dtype, 129, firsts[f], UINT64_C(0xfedcba9876543210));
            check_fill((enum cm_dtype)dtype, 1003, firsts[f], f);
        }
        check_fill((enum cm_dtype)dtype, 30011, 3, 9);
    }
}

/* ---- verify ---- */

static struct cm_verify_result verify(const struct array *x, const struct array *y, uint64_t count,
                                      enum cm_dtype dtype, double absolute, double relative)
{
    struct cm_verify_result result;
    memset(&result, POISON, sizeof result);
    assert_ok(bench.device->kernels->verify(bench.stream, x->device, y->device, count, dtype,
                                            absolute, relative, &result));
    sync_stream(bench.stream);
    return result;
}

static void verify_finds_what_differs(void **state)
{
    (void)state;
    enum { COUNT = 30011 };
    for (int d = 0; d < CM_ELEMENT_COUNT; d++) {
        enum cm_dtype dtype = (enum cm_dtype)d;
        size_t size = cm_dtype_size(dtype);
        struct array x = new_array(COUNT * size, size), y = new_array(COUNT * size, 0);
        uint64_t seed = 5;
        for (size_t i = 0; i < COUNT; i++)
            cm_dtype_store(dtype, value_of(&seed), host_of(&x) + i * size);
        memcpy(host_of(&y), host_of(&x), COUNT * size);
        upload(&x);
        upload(&y);
        struct cm_verify_result same = verify(&x, &y, COUNT, dtype, 0, 0);
        assert_int_equal(same.checked, COUNT);
        assert_int_equal(same.mismatches, 0);
        assert_true(same.first_index == UINT64_MAX);
        assert_true(same.worst == 0);
        static const size_t places[] = {29999, 12345, 30010};
        for (size_t p = 0; p < 3; p++) {
            /* From 16 on, steps of every type are whole numbers or smaller. */
            cm_dtype_store(dtype, 24, host_of(&x) + places[p] * size);
            cm_dtype_store(dtype, 16, host_of(&y) + places[p] * size);
        }
        upload(&x);
        upload(&y);
        struct cm_verify_result off = verify(&x, &y, COUNT, dtype, 0, 0.25);
        assert_int_equal(off.checked, COUNT);
        assert_int_equal(off.mismatches, 3);
        assert_int_equal(off.first_index, 12345);
        assert_near(off.worst, 2, 1e-12);
        /* Exactly on the tolerance is within it. */
        assert_int_equal(verify(&x, &y, COUNT, dtype, 8, 0).mismatches, 0);
        assert_int_equal(verify(&x, &y, COUNT, dtype, 0, 0.5).mismatches, 0);
        assert_int_equal(verify(&x, &y, COUNT, dtype, 4, 0.25).mismatches, 0);
        assert_int_equal(verify(&x, &y, COUNT, dtype, 7.999, 0).mismatches, 3);
        /* A shorter look does not see them. */
        assert_int_equal(verify(&x, &y, 12345, dtype, 0, 0).mismatches, 0);
        free_array(&x);
        free_array(&y);
    }
}

static void nan_never_matches(void **state)
{
    (void)state;
    static const enum cm_dtype types[] = {CM_F64, CM_F32, CM_BF16, CM_F16, CM_F8E4M3, CM_F8E5M2};
    enum { COUNT = 1001 };
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        size_t size = cm_dtype_size(types[t]);
        struct array x = new_array(COUNT * size, 0), y = new_array(COUNT * size, 0);
        fill_random(&x, types[t], 1);
        fill_random(&y, types[t], 1);
        cm_dtype_store(types[t], (double)NAN, host_of(&x) + 10 * size);
        cm_dtype_store(types[t], (double)NAN, host_of(&y) + 10 * size);
        cm_dtype_store(types[t], (double)NAN, host_of(&x) + 700 * size);
        cm_dtype_store(types[t], (double)NAN, host_of(&y) + 1000 * size);
        upload(&x);
        upload(&y);
        struct cm_verify_result result = verify(&x, &y, COUNT, types[t], 1e30, 1e30);
        assert_int_equal(result.mismatches, 3);
        assert_int_equal(result.first_index, 10);
        free_array(&x);
        free_array(&y);
    }
}

static void empty_does_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_ok(bench.device->kernels->empty(bench.stream));
    sync_stream(bench.stream);
}

static void a_count_of_zero_is_fine(void **state)
{
    (void)state;
    const struct cm_kernels *kernels = bench.device->kernels;
    struct array a = new_array(64, 0), sum = new_array(sizeof(uint64_t), 0);
    assert_ok(kernels->triad(bench.stream, a.device, a.device, a.device, 2, 0, CM_F32));
    assert_ok(kernels->copy(bench.stream, a.device, a.device + 32, 0, CM_F32));
    assert_ok(kernels->fill_normal(bench.stream, a.device, 0, CM_F32, 1, 1));
    assert_ok(kernels->write(bench.stream, a.device, 1, 0));
    assert_ok(kernels->read(bench.stream, (uint64_t *)(void *)sum.device, a.device, 0));
    struct cm_verify_result result = verify(&a, &a, 0, CM_F32, 0, 0);
    assert_int_equal(result.checked, 0);
    assert_int_equal(result.mismatches, 0);
    download(&a);
    for (size_t i = 0; i < a.size; i++)
        assert_int_equal(host_of(&a)[i], POISON);
    free_array(&a);
    free_array(&sum);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic_is_right),
        cmocka_unit_test(arithmetic_works_in_place),
        cmocka_unit_test(arithmetic_is_for_floats),
        cmocka_unit_test(copy_takes_every_type),
        cmocka_unit_test(read_and_write_take_all_bytes),
        cmocka_unit_test(fill_gives_the_sequence),
        cmocka_unit_test(verify_finds_what_differs),
        cmocka_unit_test(nan_never_matches),
        cmocka_unit_test(empty_does_nothing),
        cmocka_unit_test(a_count_of_zero_is_fine),
    };
    static const unsigned threads[] = {1, 3, 0};
    return cm_test_backends(tests, threads);
}
