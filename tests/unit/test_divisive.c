/*
 * Change points: against vectors from an independent implementation (make_divisive.py), and how
 * often they are seen where there are none, or missed where there is one.
 */
#include <math.h>

#include "clustermark/json.h"
#include "clustermark/stats.h"
#include "test.h"

#define VALUES_MAX 4001

static json_t *vectors;

static int load(void **state)
{
    (void)state;
    json_error_t error;
    vectors = json_load_file(CM_TEST_FIXTURES "/stats/divisive.json", 0, &error);
    if (vectors == NULL)
        fail_msg("%d: %s", error.line, error.text);
    return 0;
}

static int release(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

static size_t read(const json_t *array, double *values)
{
    for (size_t i = 0; i < json_array_size(array); i++)
        values[i] = json_number_value(json_array_get(array, i));
    return json_array_size(array);
}

static void near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance * fmax(1e-300, fabs(expected))))
        fail_msg("%.17g, expected %.17g", value, expected);
}

static void test_t(void **state)
{
    (void)state;
    double x[64], y[64];
    size_t index;
    json_t *row;
    assert_int_equal(json_array_size(json_object_get(vectors, "t_tests")), 200);
    json_array_foreach(json_object_get(vectors, "t_tests"), index, row)
    {
        size_t n = read(json_array_get(row, 0), x), m = read(json_array_get(row, 1), y);
        /* The tail of a far shift loses digits in the logarithms of the gamma function. */
        near(cm_t_test(x, n, y, m), json_number_value(json_array_get(row, 2)), 1e-9);
    }
}

static void test_vectors(void **state)
{
    (void)state;
    static double values[VALUES_MAX];
    static struct cm_change_point points[VALUES_MAX];
    size_t index, with = 0;
    json_t *row;
    json_array_foreach(json_object_get(vectors, "series"), index, row)
    {
        size_t found = 99, count = read(json_object_get(row, "values"), values);
        const json_t *changes = json_object_get(row, "changes");
        assert_ok(cm_divisive(values, count, json_number_value(json_object_get(row, "p")),
                              json_number_value(json_object_get(row, "least")), points, &found));
        if (found != json_array_size(changes))
            fail_msg("series %zu: %zu changes, expected %zu", index, found,
                     json_array_size(changes));
        with += found > 0;
        for (size_t i = 0; i < found; i++) {
            const json_t *change = json_array_get(changes, i);
            assert_int_equal(points[i].index, json_integer_value(json_array_get(change, 0)));
            assert_true(fabs(points[i].before - json_number_value(json_array_get(change, 1))) <
                        1e-12);
            assert_true(fabs(points[i].after - json_number_value(json_array_get(change, 2))) <
                        1e-12);
            double p = json_number_value(json_array_get(change, 3));
            assert_true(fabs(points[i].p - p) <= 1e-8 * p + 1e-15);
        }
    }
    assert_true(index > 150 && with > 60);
}

static uint64_t seed = 1;

/* Box and Muller over a 64-bit congruential generator. */
static double normal(void)
{
    double uniform[2];
    for (int i = 0; i < 2; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uniform[i] = ((double)(seed >> 11) + 0.5) / 0x1p53;
    }
    return sqrt(-2 * log(uniform[0])) * cos(2 * M_PI * uniform[1]);
}

/* Of 2,000 series of 30 runs with nothing in them at most 2 % have a change above one standard
 * deviation; a step of four of them is found in at least 99 %, within one run of its place. */
static void test_rates(void **state)
{
    (void)state;
    double values[30];
    struct cm_change_point points[30];
    size_t false_alarms = 0, seen = 0, found;
    for (int trial = 0; trial < 2000; trial++) {
        for (int i = 0; i < 30; i++)
            values[i] = 0.01 * normal();
        assert_ok(cm_divisive(values, 30, 0.001, 0.01, points, &found));
        false_alarms += found > 0;
        for (int i = 20; i < 30; i++)
            values[i] += 0.04;
        assert_ok(cm_divisive(values, 30, 0.001, 0.01, points, &found));
        for (size_t i = 0; i < found; i++)
            seen += points[i].index >= 19 && points[i].index <= 21;
    }
    if (false_alarms > 40 || seen < 1980)
        fail_msg("%zu false alarms, %zu steps seen", false_alarms, seen);
}

static void test_bad_input(void **state)
{
    (void)state;
    static double values[VALUES_MAX];
    static struct cm_change_point points[VALUES_MAX];
    size_t found = 7;
    assert_status(cm_divisive(values, VALUES_MAX, 0.001, 0, points, &found), CM_USAGE, "at most");
    values[2] = NAN;
    assert_status(cm_divisive(values, 10, 0.001, 0, points, &found), CM_USAGE, "value 2");
    assert_int_equal(found, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_t),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, load, release);
}
