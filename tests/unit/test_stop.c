/* The stopping rule and the size of batches: pure functions. */
#include "test.h"

#include <math.h>

#include "host/measure/stop.h"

static const struct cm_run_settings settings = {
    .min_time_s = 1,
    .max_time_s = 10,
    .min_iterations = 20,
    .max_iterations = 5000,
    .precision = 0.01,
    .drift = 0.02,
};

static struct cm_stop_rule rule_of(double min_time_s, bool fixed_time)
{
    struct cm_part part = {.min_time_s = min_time_s, .fixed_time = fixed_time};
    return cm_stop_rule_of(&settings, &part);
}

static void test_limits(void **state)
{
    (void)state;
    struct cm_stop_rule rule = rule_of(0, false);
    assert_int_equal(cm_stop_limit(&rule, 0, 1, false), CM_STOP_NOT_YET);
    assert_int_equal(cm_stop_limit(&rule, 9.9, 4999, false), CM_STOP_NOT_YET);
    assert_int_equal(cm_stop_limit(&rule, 10, 5, false), CM_STOP_MAX_TIME);
    assert_int_equal(cm_stop_limit(&rule, 0.1, 5000, false), CM_STOP_MAX_ITERATIONS);
    assert_int_equal(cm_stop_limit(&rule, 0.1, 1, true), CM_STOP_BUDGET);
    assert_int_equal(cm_stop_limit(&rule, 11, 5000, true), CM_STOP_BUDGET);
    assert_string_equal(cm_stop_names[CM_STOP_STEADY], "steady");
    assert_string_equal(cm_stop_names[CM_STOP_FIXED_TIME], "fixed_time");
}

/* A soak runs its time: neither the limits of short cases nor a steady median end it. */
static void test_soak(void **state)
{
    (void)state;
    struct cm_stop_rule fixed = rule_of(60, true);
    assert_int_equal(cm_stop_limit(&fixed, 59, 100000, false), CM_STOP_NOT_YET);
    assert_int_equal(cm_stop_limit(&fixed, 60, 7, false), CM_STOP_FIXED_TIME);
    assert_int_equal(cm_stop_limit(&fixed, 59, 7, true), CM_STOP_BUDGET);
    assert_int_equal(cm_stop_limit(&fixed, 0, CM_ITERATIONS_MAX, false), CM_STOP_MAX_ITERATIONS);
    assert_false(cm_stop_due(&fixed, 59, 100000, 0));
    struct cm_stop_rule longer = rule_of(60, false);
    assert_int_equal(cm_stop_limit(&longer, 59, 5000, false), CM_STOP_NOT_YET);
    assert_false(cm_stop_due(&longer, 59, 5000, 0));
    assert_true(cm_stop_due(&longer, 60, 5000, 0));
    assert_int_equal(cm_stop_limit(&longer, 60, 5000, false), CM_STOP_MAX_TIME);
    struct cm_stop_rule brief = rule_of(0.2, true);
    assert_int_equal(cm_stop_limit(&brief, 0.2, 7, false), CM_STOP_FIXED_TIME);
}

static void test_due(void **state)
{
    (void)state;
    struct cm_stop_rule rule = rule_of(0, false);
    assert_false(cm_stop_due(&rule, 0.9, 100, 0));
    assert_false(cm_stop_due(&rule, 2, 19, 0));
    assert_true(cm_stop_due(&rule, 1, 20, 0));
    assert_false(cm_stop_due(&rule, 2, 109, 100));
    assert_true(cm_stop_due(&rule, 2, 110, 100));
}

/* 99 values around `level` that neither scatter nor drift by more than told. */
static void fill(double *values, size_t count, double scatter, double drift)
{
    for (size_t i = 0; i < count; i++) {
        double turn = (double)(i * 7 % 11) / 10 - 0.5;
        values[i] = 1 + scatter * turn + drift * (double)i / (double)count;
    }
}

static void test_steady(void **state)
{
    (void)state;
    struct cm_stop_rule rule = rule_of(0, false);
    double values[99];
    bool steady = false;
    fill(values, 99, 0.005, 0);
    assert_ok(cm_stop_steady(&rule, values, 99, &steady));
    assert_true(steady);
    fill(values, 99, 0.5, 0);
    assert_ok(cm_stop_steady(&rule, values, 99, &steady));
    assert_false(steady); /* not precise */
    fill(values, 99, 0.005, 0.06);
    rule.precision = 1;
    assert_ok(cm_stop_steady(&rule, values, 99, &steady));
    assert_false(steady); /* drifts */
    fill(values, 99, 0.005, 0);
    assert_ok(cm_stop_steady(&rule, values, 5, &steady));
    assert_false(steady); /* too few */
}

static void test_batch_size(void **state)
{
    (void)state;
    assert_int_equal(cm_batch_size(0.001, 10, 5000, 0), 30);
    assert_int_equal(cm_batch_size(0.001, 10, 5000, 2), 8);
    assert_int_equal(cm_batch_size(0.001, 0.01, 5000, 100), 10);
    assert_int_equal(cm_batch_size(0.001, 10, 7, 100), 7);
    assert_int_equal(cm_batch_size(5, 10, 5000, 1), 1);
    assert_int_equal(cm_batch_size(1e-9, 10, 5000, 512), CM_BATCH_MAX);
    assert_int_equal(cm_batch_size(0, 10, 5000, 3), 12);
    assert_int_equal(cm_batch_size(0.001, -1, 5000, 3), 1);
    assert_int_equal(cm_batch_size(0.001, INFINITY, 5000, 100), 30);
    assert_int_equal(cm_batch_size(0.001, 10, 0, 3), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),     cmocka_unit_test(test_soak),
        cmocka_unit_test(test_due),        cmocka_unit_test(test_steady),
        cmocka_unit_test(test_batch_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
