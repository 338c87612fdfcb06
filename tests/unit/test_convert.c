/* bf16 to f32 and back: every bf16, rounding against the exact conversion, rows with strides. */
#include "clustermark/dtype.h"
#include "host/device/convert.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

static void every_bf16_survives(void **state)
{
    (void)state;
    enum { COUNT = 65536 };
    uint16_t *from = malloc(COUNT * sizeof *from), *back = malloc(COUNT * sizeof *back);
    float *wide = malloc(COUNT * sizeof *wide);
    assert_true(from != NULL && back != NULL && wide != NULL);
    for (unsigned i = 0; i < COUNT; i++)
        from[i] = (uint16_t)i;
    cm_bf16_to_f32(wide, COUNT, from, COUNT, 1, COUNT);
    cm_f32_to_bf16(back, COUNT, wide, COUNT, 1, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        double exact = cm_dtype_load(CM_BF16, &from[i]);
        if (isnan(exact)) {
            assert_true(isnan(wide[i]));
            assert_true(isnan(cm_dtype_load(CM_BF16, &back[i])));
        } else {
            assert_true((double)wide[i] == exact);
            assert_int_equal(back[i], from[i]);
        }
    }
    free(from);
    free(back);
    free(wide);
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    uint32_t bits = 1;
    for (int i = 0; i < 200000; i++) {
        bits = bits * 1664525u + 1013904223u;
        /* Now and then exactly between two, or one step beside it. */
        uint32_t pattern =
            i % 4 == 0 ? (bits & 0xffff0000u) + 0x7fffu + (uint32_t)(i / 4 % 3) : bits;
        float value;
        memcpy(&value, &pattern, sizeof value);
        uint16_t found, expected;
        cm_f32_to_bf16(&found, 1, &value, 1, 1, 1);
        cm_dtype_store(CM_BF16, (double)value, &expected);
        if (isnan(value))
            assert_true(isnan(cm_dtype_load(CM_BF16, &found)));
        else
            assert_int_equal(found, expected);
    }
    /* A NAN whose bits are all in the lower half must not become infinite. */
    uint32_t low = 0x7f800001;
    float nan_value;
    uint16_t found;
    memcpy(&nan_value, &low, sizeof low);
    cm_f32_to_bf16(&found, 1, &nan_value, 1, 1, 1);
    assert_true(isnan(cm_dtype_load(CM_BF16, &found)));
}

static void rows_keep_to_their_strides(void **state)
{
    (void)state;
    enum { ROWS = 37, COLUMNS = 41, FROM = 50, TO = 45 };
    uint16_t from[ROWS * FROM], back[ROWS * FROM];
    float wide[ROWS * TO];
    for (unsigned i = 0; i < ROWS * FROM; i++)
        from[i] = (uint16_t)(0x3f80 + i);
    for (unsigned i = 0; i < ROWS * TO; i++)
        wide[i] = -1;
    memset(back, 0xff, sizeof back);
    cm_bf16_to_f32(wide, TO, from, FROM, ROWS, COLUMNS);
    cm_f32_to_bf16(back, FROM, wide, TO, ROWS, COLUMNS);
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t column = 0; column < FROM; column++) {
            size_t i = row * FROM + column;
            assert_int_equal(back[i], column < COLUMNS ? from[i] : 0xffff);
        }
        for (size_t column = COLUMNS; column < TO; column++)
            assert_true(wide[row * TO + column] == -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bf16_survives),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(rows_keep_to_their_strides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
