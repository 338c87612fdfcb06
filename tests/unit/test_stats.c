/* Statistics against numpy, scipy and exact arithmetic (fixtures/stats/make_vectors.py), and their
 * own laws on random samples. */
#include "test.h"

#include <math.h>
#include <stdlib.h>

#include <jansson.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"

static json_t *vectors;

static int read_vectors(void **state)
{
    (void)state;
    json_error_t error;
    vectors = json_load_file(CM_TEST_FIXTURES "/stats/vectors.json", 0, &error);
    return vectors == NULL;
}

static int release_vectors(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static double item(const json_t *array, size_t index)
{
    const json_t *value = json_array_get(array, index);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static struct cm_samples samples_of(const json_t *object, const char *key)
{
    const json_t *array = json_object_get(object, key);
    assert_true(json_array_size(array) > 0);
    struct cm_samples samples = {0};
    for (size_t i = 0; i < json_array_size(array); i++)
        assert_ok(cm_samples_add(&samples, item(array, i)));
    return samples;
}

static void samples_grow(void **state)
{
    (void)state;
    struct cm_samples samples = {0};
    for (int i = 0; i < 5000; i++)
        assert_ok(cm_samples_add(&samples, i));
    assert_int_equal(samples.count, 5000);
    for (int i = 0; i < 5000; i++)
        assert_true(samples.values[i] == i);
    cm_samples_clear(&samples);
    assert_int_equal(samples.count, 0);
    assert_ok(cm_samples_add(&samples, 7));
    assert_true(samples.values[0] == 7);
    cm_samples_release(&samples);
    assert_null(samples.values);
    cm_samples_release(&samples);
}

static void quantiles(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    const json_t *rows = json_object_get(vectors, "quantiles");
    assert_int_equal(json_array_size(rows), 9);
    json_array_foreach(rows, index, row)
    {
        struct cm_samples samples = samples_of(row, "values");
        double *before = cm_alloc(samples.count, sizeof *before);
        memcpy(before, samples.values, samples.count * sizeof *before);
        const json_t *pairs = json_object_get(row, "quantiles");
        for (size_t i = 0; i < json_array_size(pairs); i++) {
            const json_t *pair = json_array_get(pairs, i);
            assert_near(cm_quantile(samples.values, samples.count, item(pair, 0)), item(pair, 1),
                        1e-13);
        }
        assert_near(cm_mad(samples.values, samples.count), number(row, "mad"), 1e-13);
        assert_true(cm_median(samples.values, samples.count) ==
                    cm_quantile(samples.values, samples.count, 0.5));
        assert_memory_equal(before, samples.values, samples.count * sizeof *before);
        cm_free(before);
        cm_samples_release(&samples);
    }
    assert_true(isnan(cm_median(NULL, 0)));
    assert_true(isnan(cm_mad(NULL, 0)));
    assert_true(isnan(cm_quantile(NULL, 0, 0)));
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double random_value(int kind)
{
    static uint64_t seed = 42;
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    double unit = (double)(seed >> 11) * 0x1p-53;
    switch (kind) {
    case 0:
        return 1 + unit * 1e-9; /* differ in the last bits only */
    case 1:
        return floor(unit * 4) - 2; /* few different ones, zero among them */
    case 2:
        return ldexp(unit - 0.5, (int)(unit * 2000) - 1000);
    case 3:
        return unit < 0.97 ? 1e-3 : unit; /* nearly all equal */
    default:
        return unit * 1e-3;
    }
}

/* Every order statistic is what sorting gives. */
static void selection_agrees_with_sorting(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 63, 64, 65, 66, 129, 1000, 5000};
    static double values[5000], sorted[5000];
    for (int kind = 0; kind < 5; kind++) {
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            size_t count = counts[c];
            for (size_t i = 0; i < count; i++)
                sorted[i] = values[i] = random_value(kind);
            qsort(sorted, count, sizeof *sorted, compare);
            size_t step = count > 200 ? 97 : 1;
            for (size_t rank = 0; rank < count; rank += step) {
                double q = count > 1 ? (double)rank / (double)(count - 1) : 0;
                double place = q * (double)(count - 1);
                size_t low = (size_t)place;
                double expected = sorted[low];
                if (place > (double)low)
                    expected += (place - (double)low) * (sorted[low + 1] - sorted[low]);
                assert_true(cm_quantile(values, count, q) == expected);
            }
        }
    }
}

/* Of the values 1 ... n, the interval's ends are the ranks. */
static void median_intervals(void **state)
{
    (void)state;
    size_t largest = 1000000;
    double *values = cm_alloc(largest, sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < largest; i++)
        values[i] = (double)(i + 1);
    size_t index;
    json_t *row;
    const json_t *rows = json_object_get(vectors, "median_ranks");
    assert_true(json_array_size(rows) > 100);
    json_array_foreach(rows, index, row)
    {
        size_t count = (size_t)item(row, 0);
        double rank = item(row, 2);
        struct cm_interval interval = cm_median_interval(values, count, item(row, 1));
        assert_near(interval.coverage, item(row, 3), 1e-11);
        assert_true(interval.low == (rank > 0 ? rank : 1));
        assert_true(interval.high == (rank > 0 ? (double)count + 1 - rank : (double)count));
    }
    cm_free(values);
    /* 6 values are the fewest for 95 %; 31/32 is met exactly by their extremes. */
    static const double six[] = {3, 1, 2, 6, 5, 4};
    assert_true(cm_median_interval(six, 5, 0.95).coverage == 0);
    assert_near(cm_median_interval(six, 6, 0.96875).coverage, 0.96875, 1e-15);
    assert_true(cm_median_interval(six, 6, 0.97).coverage == 0);
    struct cm_interval none = cm_median_interval(NULL, 0, 0.95);
    assert_true(isnan(none.low) && isnan(none.high) && none.coverage == 0);
}

static void precision(void **state)
{
    (void)state;
    static const double values[] = {10, 12, 9, 11, 13, 8};
    assert_true(isinf(cm_median_precision(values, 5)));
    assert_true(isinf(cm_median_precision(NULL, 0)));
    assert_near(cm_median_precision(values, 6), 2.5 / 10.5, 1e-15);
    static const double negative[] = {-10, -12, -9, -11, -13, -8};
    assert_near(cm_median_precision(negative, 6), 2.5 / 10.5, 1e-15);
    static const double centred[] = {-3, -2, -1, 1, 2, 3};
    assert_true(isinf(cm_median_precision(centred, 6)));
    static const double equal[] = {5, 5, 5, 5, 5, 5};
    assert_true(cm_median_precision(equal, 6) == 0);
}

static void shifts(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    const json_t *rows = json_object_get(vectors, "shifts");
    assert_int_equal(json_array_size(rows), 36);
    json_array_foreach(rows, index, row)
    {
        struct cm_samples x = samples_of(row, "x"), y = samples_of(row, "y");
        struct cm_shift shift, back;
        assert_ok(
            cm_hodges_lehmann(x.values, x.count, y.values, y.count, number(row, "level"), &shift));
        assert_near(shift.estimate, number(row, "estimate"), 1e-12);
        assert_near(shift.interval.low, number(row, "low"), 1e-12);
        assert_near(shift.interval.high, number(row, "high"), 1e-12);
        assert_near(shift.interval.coverage, number(row, "coverage"), 1e-12);
        /* The other way round everything is mirrored. */
        assert_ok(
            cm_hodges_lehmann(y.values, y.count, x.values, x.count, number(row, "level"), &back));
        assert_near(back.estimate, -shift.estimate, 1e-12);
        assert_near(back.interval.low, -shift.interval.high, 0);
        assert_near(back.interval.high, -shift.interval.low, 0);
        cm_samples_release(&x);
        cm_samples_release(&y);
    }
}

static void shift_limits(void **state)
{
    (void)state;
    static double x[2001], y[2001];
    for (size_t i = 0; i < 2001; i++) {
        x[i] = random_value(4);
        y[i] = random_value(4) + 1;
    }
    struct cm_shift shift = {.estimate = 77};
    assert_status(cm_hodges_lehmann(x, 0, y, 5, 0.95, &shift), CM_USAGE, "5 against 0 values");
    assert_status(cm_hodges_lehmann(x, 5, y, 0, 0.95, &shift), CM_USAGE, "0 against 5 values");
    assert_status(cm_hodges_lehmann(x, 2001, y, 5, 0.95, &shift), CM_USAGE, "1 to 2000");
    assert_status(cm_hodges_lehmann(x, 5, y, 2001, 0.95, &shift), CM_USAGE, "1 to 2000");
    assert_true(shift.estimate == 77);
}

/* Differences that tell their own rank: y_j - x_i = j - 10000 i. */
static size_t rank_of(double difference, size_t x_count, size_t y_count)
{
    double i = ceil(-difference / 10000), j = difference + 10000 * i;
    assert_true(i >= 0 && i < (double)x_count && j >= 0 && j < (double)y_count);
    return (x_count - 1 - (size_t)i) * y_count + (size_t)j + 1;
}

/* Exactly right up to 200 values in the smaller sample; nearly, and never far, beyond. */
static void large_shifts(void **state)
{
    (void)state;
    static double x[2000], y[2000];
    for (size_t i = 0; i < 2000; i++) {
        x[i] = 10000.0 * (double)i;
        y[i] = (double)i;
    }
    size_t index;
    json_t *row;
    const json_t *rows = json_object_get(vectors, "large_ranks");
    assert_int_equal(json_array_size(rows), 5);
    json_array_foreach(rows, index, row)
    {
        size_t m = (size_t)item(row, 0), n = (size_t)item(row, 1);
        struct cm_shift shift;
        assert_ok(cm_hodges_lehmann(x, m, y, n, 0.95, &shift));
        double rank = (double)rank_of(shift.interval.low, m, n);
        double from_end = (double)(m * n + 1 - rank_of(shift.interval.high, m, n));
        assert_true(rank == from_end);
        if (n <= 200) {
            assert_true(rank == item(row, 2));
            assert_near(shift.interval.coverage, item(row, 3), 1e-11);
        } else {
            assert_true(fabs(rank - item(row, 2)) <= 2);
            assert_near(shift.interval.coverage, item(row, 3), 1e-4);
        }
        assert_true(shift.interval.coverage >= 0.95);
    }
    struct cm_shift largest;
    assert_ok(cm_hodges_lehmann(x, 2000, y, 2000, 0.95, &largest));
    assert_near(largest.interval.coverage, 0.95, 1e-5);
}

static void steadiness(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    const json_t *rows = json_object_get(vectors, "steadiness");
    assert_int_equal(json_array_size(rows), 6);
    json_array_foreach(rows, index, row)
    {
        struct cm_samples samples = samples_of(row, "values");
        double bound = fmax(-number(row, "low"), number(row, "high"));
        struct cm_steadiness result;
        assert_ok(cm_steadiness(samples.values, samples.count, bound * (1 + 1e-9), &result));
        assert_true(result.steady);
        assert_near(result.drift, number(row, "drift"), 1e-9);
        assert_ok(cm_steadiness(samples.values, samples.count, bound * (1 - 1e-9), &result));
        assert_false(result.steady);
        cm_samples_release(&samples);
    }
}

static void drift_of_long_series(void **state)
{
    (void)state;
    static double values[100000];
    struct cm_steadiness result;
    for (size_t i = 0; i < 100000; i++)
        values[i] = 1e-3 * (1 + 0.01 * random_value(4) * 1e3);
    assert_ok(cm_steadiness(values, 100000, 0.005, &result));
    assert_true(result.steady);
    assert_true(fabs(result.drift) < 0.005);
    for (size_t i = 0; i < 100000; i++)
        values[i] *= 1 + 0.03 * (double)i / 100000;
    assert_ok(cm_steadiness(values, 100000, 0.005, &result));
    assert_false(result.steady);
    assert_near(result.drift, 0.02, 0.15); /* two thirds of the series lie between the middles */
}

static void few_or_bad_values_are_not_steady(void **state)
{
    (void)state;
    static const double values[] = {1, 1, 1, 1, 0, -1, 1, 1, 1, 1, (double)NAN, 1};
    struct cm_steadiness result = {true, 5};
    assert_ok(cm_steadiness(values, 9, 0.1, &result));
    assert_false(result.steady);
    assert_true(result.drift == 0);
    assert_ok(cm_steadiness(values, 12, 0.1, &result));
    assert_true(result.steady);
    assert_true(result.drift == 0);
    assert_ok(cm_steadiness(NULL, 0, 0.1, &result));
    assert_false(result.steady);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_grow),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(selection_agrees_with_sorting),
        cmocka_unit_test(median_intervals),
        cmocka_unit_test(precision),
        cmocka_unit_test(shifts),
        cmocka_unit_test(shift_limits),
        cmocka_unit_test(large_shifts),
        cmocka_unit_test(steadiness),
        cmocka_unit_test(drift_of_long_series),
        cmocka_unit_test(few_or_bad_values_are_not_steady),
    };
    return cmocka_run_group_tests(tests, read_vectors, release_vectors);
}
