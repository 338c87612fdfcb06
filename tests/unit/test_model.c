/* Formulas of work and communication, against figures worked out by hand. */
#include "test.h"

#include <math.h>
#include <stdint.h>

#include "clustermark/model.h"

static void names(void **state)
{
    (void)state;
    static const char *const expected[] = {"all_reduce", "reduce_scatter", "all_gather",
                                           "all_to_all", "broadcast"};
    for (int i = 0; i < CM_COLLECTIVE_COUNT; i++)
        assert_string_equal(cm_collective_names[i], expected[i]);
    assert_null(cm_collective_names[CM_COLLECTIVE_COUNT]);
}

static void bus_factors(void **state)
{
    (void)state;
    static const struct {
        unsigned ranks;
        double all_reduce, part;
    } cases[] = {{1, 0, 0},        {2, 1, 0.5}, {4, 1.5, 0.75},
                 {8, 1.75, 0.875}, {0, 0, 0},   {1024, 2.0 * 1023 / 1024, 1023.0 / 1024}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_near(cm_bus_factor(CM_ALL_REDUCE, cases[i].ranks), cases[i].all_reduce, 1e-15);
        assert_near(cm_bus_factor(CM_REDUCE_SCATTER, cases[i].ranks), cases[i].part, 1e-15);
        assert_near(cm_bus_factor(CM_ALL_GATHER, cases[i].ranks), cases[i].part, 1e-15);
        assert_near(cm_bus_factor(CM_ALL_TO_ALL, cases[i].ranks), cases[i].part, 1e-15);
        assert_near(cm_bus_factor(CM_BROADCAST, cases[i].ranks), 1, 0);
    }
}

static void work(void **state)
{
    (void)state;
    assert_int_equal(cm_collective_bytes(1 << 20, 4), 4 << 20);
    assert_near(cm_gemm_flops(4096, 4096, 4096, 1), 137438953472.0, 0);
    assert_near(cm_gemm_flops(1, 2, 3, 4), 48, 0);
    assert_near(cm_gemm_flops(1000000, 1000000, 1000000, 1000), 2e21, 1e-15);
    assert_near(cm_gemm_flops(0, 5, 5, 5), 0, 0);
}

static void products_of_sizes(void **state)
{
    (void)state;
    uint64_t product = 77;
    assert_int_equal(cm_multiply_size(3, 5, &product), 0);
    assert_int_equal(product, 15);
    assert_int_equal(cm_multiply_size(0, UINT64_MAX, &product), 0);
    assert_int_equal(product, 0);
    assert_int_equal(cm_multiply_size(UINT64_C(1) << 31, (UINT64_C(1) << 32) - 1, &product), 0);
    assert_int_equal(product, (UINT64_C(1) << 63) - (UINT64_C(1) << 31));
    assert_int_equal(cm_multiply_size(UINT64_C(1) << 31, UINT64_C(1) << 32, &product), -1);
    assert_int_equal(cm_multiply_size(UINT64_MAX, 2, &product), -1);
    assert_int_equal(cm_multiply_size(UINT64_MAX, UINT64_MAX, &product), -1);
    assert_int_equal(product, (UINT64_C(1) << 63) - (UINT64_C(1) << 31));
}

static void half_peak(void **state)
{
    (void)state;
    static const double sizes[] = {1024, 2048, 4096, 8192, 16384};
    /* Halfway in bandwidth between 2 and 4 KiB is halfway in log2: 2048 * sqrt(2). */
    static const double rising[] = {1, 2, 8, 9, 10};
    assert_near(cm_half_peak_size(sizes, rising, 5), 2048 * sqrt(2), 1e-14);
    static const double exact[] = {1, 5, 8, 9, 10};
    assert_near(cm_half_peak_size(sizes, exact, 5), 2048, 1e-14);
    /* A dip after the peak does not matter. */
    static const double dip[] = {1, 2, 10, 1, 9};
    assert_near(cm_half_peak_size(sizes, dip, 5), 2048 * exp2(3.0 / 8), 1e-14);
    static const double above[] = {6, 7, 8, 9, 10};
    assert_true(isnan(cm_half_peak_size(sizes, above, 5)));
    static const double half[] = {5, 7, 8, 9, 10};
    assert_true(isnan(cm_half_peak_size(sizes, half, 5)));
    static const double zeros[] = {0, 0, 0, 0, 0};
    assert_true(isnan(cm_half_peak_size(sizes, zeros, 5)));
    static const double broken[] = {(double)NAN, 1, 2, 3, 4};
    assert_true(isnan(cm_half_peak_size(sizes, broken, 5)));
    static const double gap[] = {1, (double)NAN, 8, 9, 10};
    assert_true(isnan(cm_half_peak_size(sizes, gap, 5)));
    assert_true(isnan(cm_half_peak_size(sizes, rising, 1)));
    assert_true(isnan(cm_half_peak_size(sizes, rising, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),     cmocka_unit_test(bus_factors),
        cmocka_unit_test(work),      cmocka_unit_test(products_of_sizes),
        cmocka_unit_test(half_peak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
