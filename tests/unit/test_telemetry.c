/* Several windows of telemetry as one account. */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include "host/measure/telemetry.h"

static struct cm_telemetry window(double clock_hz, double power_w, double energy_j,
                                  double temperature_c)
{
    struct cm_telemetry telemetry = cm_telemetry_unknown;
    telemetry.clock_hz = telemetry.lowest_clock_hz = clock_hz;
    telemetry.power_w = power_w;
    telemetry.energy_j = energy_j;
    telemetry.temperature_c = temperature_c;
    return telemetry;
}

static void test_two_windows(void **state)
{
    (void)state;
    struct cm_telemetry sum = cm_telemetry_unknown;
    struct cm_telemetry first = window(1e9, 300, 30, 60), second = window(2e9, 700, 70, 50);
    first.throttled_fraction = 0.5;
    second.throttled_fraction = 0;
    snprintf(first.throttle_reasons, sizeof first.throttle_reasons, "power cap");
    cm_telemetry_merge(&sum, &first, 1);
    assert_near(sum.clock_hz, 1e9, 0);
    /* The second took three quarters of the time. */
    cm_telemetry_merge(&sum, &second, 0.75);
    assert_near(sum.clock_hz, 1.75e9, 1e-12);
    assert_near(sum.lowest_clock_hz, 1e9, 0);
    assert_near(sum.power_w, 600, 1e-12);
    assert_near(sum.energy_j, 100, 1e-12);
    assert_near(sum.temperature_c, 60, 0);
    assert_near(sum.throttled_fraction, 0.125, 1e-12);
    assert_string_equal(sum.throttle_reasons, "power cap");
    assert_true(isnan(sum.steal_fraction));
}

/* What one window knows stays known. */
static void test_unknown(void **state)
{
    (void)state;
    struct cm_telemetry sum = cm_telemetry_unknown;
    struct cm_telemetry first = window(1e9, 300, (double)NAN, 60);
    struct cm_telemetry second = window((double)NAN, 500, 7, (double)NAN);
    cm_telemetry_merge(&sum, &first, 1);
    cm_telemetry_merge(&sum, &second, 0.5);
    assert_near(sum.clock_hz, 1e9, 0);
    assert_near(sum.power_w, 400, 1e-12);
    assert_near(sum.energy_j, 7, 0);
    assert_near(sum.temperature_c, 60, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_windows),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
