/* cm_dtype_load_all gives what cm_dtype_load gives, for every bit pattern of the small types. */
#include "test.h"

#include <math.h>

#include "clustermark/dtype.h"

static void compare(enum cm_dtype dtype, const void *elements, size_t count, double *values)
{
    size_t size = cm_dtype_size(dtype);
    cm_dtype_load_all(dtype, elements, count, values);
    for (size_t i = 0; i < count; i++) {
        double expected = cm_dtype_load(dtype, (const char *)elements + i * size);
        if (values[i] != expected && !(isnan(values[i]) && isnan(expected)))
            fail_msg("%s element %zu is %g, not %g", cm_dtype_name(dtype), i, values[i], expected);
    }
}

static void test_small_types(void **state)
{
    (void)state;
    static uint16_t halves[65536];
    static uint8_t bytes[256];
    static double values[65536];
    for (unsigned i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (unsigned i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    compare(CM_BF16, halves, 65536, values);
    compare(CM_F16, halves, 65536, values);
    compare(CM_F8E4M3, bytes, 256, values);
    compare(CM_F8E5M2, bytes, 256, values);
    compare(CM_I8, bytes, 256, values);
}

static void test_wide_types(void **state)
{
    (void)state;
    const float f32[] = {0, -0.0f, 1, -3.5f, 0x1p-140f, 3e38f, INFINITY, NAN};
    const double f64[] = {0, 1, -1e300, 0x1p-1070, (double)INFINITY, (double)NAN};
    const int32_t i32[] = {0, 1, -1, INT32_MAX, INT32_MIN};
    double values[8];
    compare(CM_F32, f32, 8, values);
    compare(CM_TF32, f32, 8, values);
    compare(CM_F64, f64, 6, values);
    compare(CM_I32, i32, 5, values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_types),
        cmocka_unit_test(test_wide_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
