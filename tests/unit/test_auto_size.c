/* Sizes of 0: what suits a device. */
#include "test.h"

#include "host/workload/auto_size.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

static void test_side(void **state)
{
    (void)state;
    const struct cm_peak fast = {.value = 800e12}, slow = {.value = 0.5e12}, none = {.value = 0};
    assert_int_equal(cm_auto_side(true, &fast, 100 * GIB), 1024);
    assert_int_equal(cm_auto_side(true, &none, 100 * GIB), 1024);
    assert_int_equal(cm_auto_side(false, &fast, 100 * GIB), 8192);
    assert_int_equal(cm_auto_side(false, &none, 100 * GIB), 8192);
    /* 2 * 2048^3 take 34 ms at this rate, 2 * 4096^3 275 ms. */
    assert_int_equal(cm_auto_side(false, &slow, 100 * GIB), 2048);
    /* Three matrices of doubles: 384 MiB at 4096. */
    assert_int_equal(cm_auto_side(false, &fast, 4 * 384 * MIB), 4096);
    assert_int_equal(cm_auto_side(false, &fast, 4 * 384 * MIB - 1), 2048);
    assert_int_equal(cm_auto_side(true, &fast, 0), 64);
}

static void test_message(void **state)
{
    (void)state;
    assert_int_equal(cm_auto_message(true, 100 * GIB), 16 * MIB);
    assert_int_equal(cm_auto_message(false, 100 * GIB), GIB);
    assert_int_equal(cm_auto_message(false, 4 * GIB), 512 * MIB);
    assert_int_equal(cm_auto_message(true, 64 * MIB), 8 * MIB);
    assert_int_equal(cm_auto_message(true, 0), 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_side),
        cmocka_unit_test(test_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
