/* Element types: names, and conversions that are exact one way and round to nearest even the other,
 * over every bit pattern of the small types. */
#include "test.h"

#include <math.h>
#include <stdint.h>

#include "clustermark/dtype.h"

static void names(void **state)
{
    (void)state;
    enum cm_dtype dtype;
    for (int i = 0; i < CM_DTYPE_COUNT; i++) {
        assert_string_equal(cm_dtype_names[i], cm_dtype_name((enum cm_dtype)i));
        assert_true(cm_dtype_parse(cm_dtype_names[i], &dtype));
        assert_int_equal(dtype, i);
    }
    assert_null(cm_dtype_names[CM_DTYPE_COUNT]);
    assert_true(cm_dtype_parse("BFloat16", &dtype));
    assert_int_equal(dtype, CM_BF16);
    assert_false(cm_dtype_parse("", &dtype));
    assert_false(cm_dtype_parse("f3", &dtype));
    assert_false(cm_dtype_parse("f321", &dtype));
    assert_int_equal(dtype, CM_BF16);
    static const size_t sizes[CM_ELEMENT_COUNT] = {8, 4, 4, 2, 2, 1, 1, 4, 1};
    for (int i = 0; i < CM_ELEMENT_COUNT; i++) {
        assert_int_equal(cm_dtype_size((enum cm_dtype)i), sizes[i]);
        assert_int_equal(cm_dtype_bits((enum cm_dtype)i), 8 * sizes[i]);
    }
    assert_int_equal(cm_dtype_bits(CM_MXFP8), 8);
    assert_int_equal(cm_dtype_bits(CM_NVFP4), 4);
}

/* The step is the distance from 1 to the next number of the type. */
static void steps(void **state)
{
    (void)state;
    for (int i = 0; i < CM_ELEMENT_COUNT; i++) {
        enum cm_dtype dtype = (enum cm_dtype)i;
        double step = cm_dtype_step(dtype);
        if (step == 0 || dtype == CM_TF32) /* tf32 is stored as f32 */
            continue;
        uint64_t element = 0;
        cm_dtype_store(dtype, 1 + step, &element);
        assert_true(cm_dtype_load(dtype, &element) == 1 + step);
        cm_dtype_store(dtype, 1 + 0.49 * step, &element);
        assert_true(cm_dtype_load(dtype, &element) == 1);
    }
}

/* A value that each format must have, from its specification. */
static void known_values(void **state)
{
    (void)state;
    static const struct {
        enum cm_dtype dtype;
        unsigned bits;
        double value;
    } cases[] = {
        {CM_F16, 0x3c00, 1},
        {CM_F16, 0x7bff, 65504},
        {CM_F16, 0x0001, 0x1p-24},
        {CM_F16, 0x0400, 0x1p-14},
        {CM_F16, 0xc500, -5},
        {CM_F16, 0x7c00, (double)INFINITY},
        {CM_BF16, 0x3f80, 1},
        {CM_BF16, 0x7f7f, 0x1.fep127},
        {CM_BF16, 0x0001, 0x1p-133},
        {CM_BF16, 0xff80, -(double)INFINITY},
        {CM_F8E4M3, 0x38, 1},
        {CM_F8E4M3, 0x7e, 448},
        {CM_F8E4M3, 0x01, 0x1p-9},
        {CM_F8E4M3, 0x08, 0x1p-6},
        {CM_F8E4M3, 0x78, 256},
        {CM_F8E5M2, 0x3c, 1},
        {CM_F8E5M2, 0x7b, 57344},
        {CM_F8E5M2, 0x01, 0x1p-16},
        {CM_F8E5M2, 0x7c, (double)INFINITY},
        {CM_I8, 0x80, -128},
        {CM_I8, 0x7f, 127},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint16_t element = (uint16_t)cases[i].bits;
        double value = cm_dtype_load(cases[i].dtype, &element);
        if (value != cases[i].value)
            fail_msg("%s 0x%x is %g, not %g", cm_dtype_name(cases[i].dtype), cases[i].bits, value,
                     cases[i].value);
    }
    uint8_t nan8 = 0x7f;
    assert_true(isnan(cm_dtype_load(CM_F8E4M3, &nan8)));
    nan8 = 0xff;
    assert_true(isnan(cm_dtype_load(CM_F8E4M3, &nan8)));
    assert_true(isnan(cm_dtype_load(CM_F8E5M2, &nan8)));
}

static double load(enum cm_dtype dtype, unsigned bits)
{
    uint16_t element = (uint16_t)bits;
    return cm_dtype_load(dtype, &element);
}

static unsigned store(enum cm_dtype dtype, double value)
{
    uint16_t element = 0;
    cm_dtype_store(dtype, value, &element);
    return element;
}

static void check_format(enum cm_dtype dtype)
{
    unsigned sign = cm_dtype_size(dtype) == 1 ? 0x80 : 0x8000;
    for (unsigned bits = 0; bits < sign; bits++) {
        double value = load(dtype, bits);
        if (isnan(value)) {
            assert_true(isnan(load(dtype, store(dtype, value))));
            continue;
        }
        assert_int_equal(store(dtype, value), bits);
        assert_int_equal(store(dtype, -value), bits | sign);
        double next = load(dtype, bits + 1);
        if (!isfinite(value) || !isfinite(next) || bits + 1 == sign)
            continue;
        assert_true(next > value);
        double middle = value + (next - value) / 2;
        unsigned even = bits % 2 == 0 ? bits : bits + 1;
        assert_int_equal(store(dtype, middle), even);
        assert_int_equal(store(dtype, -middle), even | sign);
        assert_int_equal(store(dtype, nextafter(middle, 0)), bits);
        assert_int_equal(store(dtype, nextafter(middle, (double)INFINITY)), bits + 1);
    }
}

static void every_pattern(void **state)
{
    (void)state;
    check_format(CM_F16);
    check_format(CM_BF16);
    check_format(CM_F8E4M3);
    check_format(CM_F8E5M2);
}

static void beyond_the_largest(void **state)
{
    (void)state;
    assert_int_equal(store(CM_F16, 65519), 0x7bff);
    assert_int_equal(store(CM_F16, 65520), 0x7c00);
    assert_int_equal(store(CM_F16, -1e300), 0xfc00);
    assert_int_equal(store(CM_BF16, 0x1.feffp127), 0x7f7f);
    assert_int_equal(store(CM_BF16, 0x1.ffp127), 0x7f80);
    assert_int_equal(store(CM_F8E4M3, 449), 0x7e);
    assert_int_equal(store(CM_F8E4M3, 1e300), 0x7e);
    assert_int_equal(store(CM_F8E4M3, -(double)INFINITY), 0xfe);
    assert_int_equal(store(CM_F8E5M2, 1e300), 0x7b);
    assert_int_equal(store(CM_F8E5M2, -65535), 0xfb);
}

static void whole_numbers(void **state)
{
    (void)state;
    static const double given[] = {0, 1.5, 2.5, -1.5, 126.6, 127.5, 1e300, -128.5, -1e300, -0.5};
    static const int8_t small[] = {0, 2, 2, -2, 127, 127, 127, -128, -128, 0};
    for (size_t i = 0; i < sizeof small; i++) {
        int8_t i8;
        cm_dtype_store(CM_I8, given[i], &i8);
        assert_int_equal(i8, small[i]);
    }
    int32_t i32;
    cm_dtype_store(CM_I32, 3e9, &i32);
    assert_int_equal(i32, INT32_MAX);
    cm_dtype_store(CM_I32, -3e9, &i32);
    assert_int_equal(i32, INT32_MIN);
    cm_dtype_store(CM_I32, -123456.7, &i32);
    assert_int_equal(i32, -123457);
    assert_true(cm_dtype_load(CM_I32, &i32) == -123457);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(steps),
        cmocka_unit_test(known_values),
        cmocka_unit_test(every_pattern),
        cmocka_unit_test(beyond_the_largest),
        cmocka_unit_test(whole_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
