/* Reductions of bf16 and f16 against exact conversions: every value as one operand. */
#include <math.h>

#include "clustermark/dtype.h"
#include "host/comm/half.h"
#include "test.h"

#define VALUES 65536

static uint16_t in[VALUES], inout[VALUES], left[VALUES];

static bool is_nan(enum cm_dtype dtype, uint16_t half)
{
    return isnan(cm_dtype_load(dtype, &half));
}

/* An f32 sum of two of these, rounded again, is the exact sum rounded once: 24 bits are at least
 * twice 11 and two more. */
static uint16_t expected_sum(enum cm_dtype dtype, uint16_t a, uint16_t b)
{
    uint16_t result;
    cm_dtype_store(dtype, cm_dtype_load(dtype, &a) + cm_dtype_load(dtype, &b), &result);
    return result;
}

static void check_sums(enum cm_dtype dtype, unsigned step)
{
    for (size_t i = 0; i < VALUES; i++) {
        in[i] = (uint16_t)i;
        left[i] = inout[i] = (uint16_t)(i * step + (step >> 3));
    }
    cm_half_reduce(dtype, CM_REDUCE_SUM, in, inout, VALUES);
    for (size_t i = 0; i < VALUES; i++) {
        uint16_t expected = expected_sum(dtype, in[i], left[i]);
        if (is_nan(dtype, expected) ? !is_nan(dtype, inout[i]) : inout[i] != expected)
            fail_msg("%s: %04x + %04x = %04x, not %04x", cm_dtype_name(dtype), in[i], left[i],
                     inout[i], expected);
    }
}

static void test_sums(void **state)
{
    (void)state;
    /* Odd steps pair each value with some other, over the whole range. */
    static const unsigned steps[] = {1, 3, 257, 30011, 32769, 65535};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        check_sums(CM_BF16, steps[i]);
        check_sums(CM_F16, steps[i]);
    }
}

static void check_order(enum cm_dtype dtype, enum cm_reduce reduce)
{
    for (size_t i = 0; i < VALUES; i++) {
        in[i] = (uint16_t)i;
        left[i] = inout[i] = (uint16_t)(i * 30011 + 7);
    }
    cm_half_reduce(dtype, reduce, in, inout, VALUES);
    for (size_t i = 0; i < VALUES; i++) {
        if (is_nan(dtype, in[i]) || is_nan(dtype, left[i]))
            continue;
        double a = cm_dtype_load(dtype, &in[i]), b = cm_dtype_load(dtype, &left[i]);
        double expected = reduce == CM_REDUCE_MAX ? fmax(a, b) : fmin(a, b);
        if (cm_dtype_load(dtype, &inout[i]) != expected)
            fail_msg("%s: of %04x and %04x not %04x", cm_dtype_name(dtype), in[i], left[i],
                     inout[i]);
    }
}

static void test_order(void **state)
{
    (void)state;
    check_order(CM_BF16, CM_REDUCE_MAX);
    check_order(CM_BF16, CM_REDUCE_MIN);
    check_order(CM_F16, CM_REDUCE_MAX);
    check_order(CM_F16, CM_REDUCE_MIN);
}

/* Lengths around those of vectors touch nothing beyond. */
static void test_lengths(void **state)
{
    (void)state;
    for (size_t count = 0; count < 70; count++) {
        for (size_t i = 0; i < 80; i++) {
            in[i] = 0x3f80; /* 1 as bf16 */
            inout[i] = 0x4000;
        }
        cm_half_reduce(CM_BF16, CM_REDUCE_SUM, in, inout, count);
        for (size_t i = 0; i < 80; i++)
            assert_int_equal(inout[i], i < count ? 0x4040 : 0x4000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
