/* blocks.h: sizes, where scales stand, and what quantising does, against definitions. */
#include "test.h"

#include <math.h>
#include <stdlib.h>

#include "clustermark/blocks.h"
#include "clustermark/kernels.h"

static void *poisoned(const struct cm_block_matrix *matrix, uint64_t *bytes)
{
    assert_true(cm_matrix_bytes(matrix->dtype, matrix->rows, matrix->columns, bytes));
    void *memory = malloc(*bytes);
    assert_non_null(memory);
    memset(memory, 0xff, *bytes);
    return memory;
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        enum cm_dtype dtype;
        uint64_t rows, columns, bytes;
    } rows[] = {
        {CM_F64, 3, 5, 120},
        {CM_BF16, 3, 5, 30},
        {CM_I8, 0, 5, 0},
        {CM_MXFP8, 1, 32, 128 + 512},
        {CM_MXFP8, 128, 128, 128 * 128 + 512},
        {CM_MXFP8, 129, 160, 129 * 160 + 96 + 4 * 512},
        {CM_NVFP4, 1, 16, 128 + 512},
        {CM_NVFP4, 128, 64, 128 * 32 + 512},
        {CM_NVFP4, 200, 80, 200 * 40 + 64 + 4 * 512},
    };
    uint64_t bytes;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_true(cm_matrix_bytes(rows[i].dtype, rows[i].rows, rows[i].columns, &bytes));
        assert_int_equal(bytes, rows[i].bytes);
    }
    assert_false(cm_matrix_bytes(CM_NVFP4, UINT64_C(1) << 40, UINT64_C(1) << 40, &bytes));
    assert_false(cm_matrix_bytes(CM_MXFP8, UINT64_C(1) << 60, 1, &bytes));
    assert_false(cm_matrix_bytes(CM_F32, UINT64_C(1) << 32, UINT64_C(1) << 32, &bytes));
}

/* Each block has a largest number of its own, so that a scale in the wrong place shows. */
static float value_at(uint64_t row, uint64_t column, unsigned size)
{
    float most = ldexpf(1, (int)((row * 7 + column / size * 3) % 12) - 6);
    return column % size == row % size ? -most : most * 0.25f;
}

/* The layout is that of the description, walked tile by tile. */
static void scales_stand_in_tiles(void **state)
{
    (void)state;
    static const enum cm_dtype dtypes[] = {CM_MXFP8, CM_NVFP4};
    for (int d = 0; d < 2; d++) {
        unsigned size = cm_block_size(dtypes[d]);
        const struct cm_block_matrix matrix = {dtypes[d], 300, 9 * size};
        uint64_t bytes, place = cm_block_scales(&matrix);
        uint8_t *memory = poisoned(&matrix, &bytes);
        float *values = malloc(matrix.rows * matrix.columns * sizeof *values);
        assert_non_null(values);
        for (uint64_t i = 0; i < matrix.rows * matrix.columns; i++)
            values[i] = value_at(i / matrix.columns, i % matrix.columns, size);
        /* In pieces that end within a row. */
        for (uint64_t first = 0; first < matrix.rows * 9; first += 50)
            cm_block_quantise(&matrix, first, 50, values + first * size, memory);
        for (uint64_t tile = 0; tile < 3 * 3; tile++) {
            for (unsigned byte = 0; byte < 512; byte++, place++) {
                uint64_t row = tile / 3 * 128 + byte / 4 % 4 * 32 + byte / 16;
                uint64_t block = tile % 3 * 4 + byte % 4;
                bool inside = row < matrix.rows && block < 9;
                float most = inside ? -value_at(row, block * size + row % size, size) : 0;
                uint8_t expected = 0;
                if (inside && dtypes[d] == CM_NVFP4)
                    cm_dtype_store(CM_F8E4M3, (double)most / 6, &expected);
                else if (inside) /* 256 is the largest power of two of an f8e4m3 */
                    expected = (uint8_t)(ilogbf(most) - 8 + 127);
                assert_int_equal(memory[place], expected);
            }
        }
        assert_int_equal(place, bytes);
        free(values);
        free(memory);
    }
}

/* No element is farther from its value than half a step of its type, at its own size or at the
 * smallest that the scale leaves. */
static void quantising_rounds_to_nearest(void **state)
{
    (void)state;
    static const struct {
        enum cm_dtype dtype;
        float most;
        double smallest; /* distance of two elements at 0, for scale 1 */
    } rows[] = {{CM_MXFP8, 448, 0x1p-9}, {CM_NVFP4, 6, 0.5}};
    for (int d = 0; d < 2; d++) {
        unsigned size = cm_block_size(rows[d].dtype);
        const struct cm_block_matrix matrix = {rows[d].dtype, 70, 3 * size};
        uint64_t bytes;
        uint8_t *memory = poisoned(&matrix, &bytes);
        float *values = malloc(matrix.rows * matrix.columns * sizeof *values);
        double *back = malloc(matrix.columns * sizeof *back);
        assert_true(values != NULL && back != NULL);
        for (uint64_t i = 0; i < matrix.rows * matrix.columns; i++)
            values[i] = cm_random_normal(5, i);
        values[7] = 0;
        cm_block_quantise(&matrix, 0, matrix.rows * 3, values, memory);
        for (uint64_t i = 0; i < matrix.rows * matrix.columns; i++) {
            uint64_t row = i / matrix.columns, block = i / size;
            float most = 0;
            for (unsigned j = 0; j < size; j++)
                most = fmaxf(most, fabsf(values[block * size + j]));
            /* mxfp8 takes a power of two up to twice what would do. */
            double scale = (double)(most / rows[d].most) * (d == 0 ? 2 : 1.07);
            double half = cm_dtype_step(rows[d].dtype) / 2 * fabs((double)values[i]);
            cm_block_load(&matrix, memory, row, i % matrix.columns, 1, back);
            double bound = fmax(half, rows[d].smallest / 2 * scale);
            /* nvfp4's scale is itself rounded, so that its largest element may fall short. */
            if (d == 1)
                bound = fmax(bound, 0.0625 * (double)most);
            assert_true(fabs(back[0] - (double)values[i]) <= bound * 1.0001);
        }
        cm_block_load(&matrix, memory, 1, 0, matrix.columns, back);
        for (uint64_t j = 0; j < matrix.columns; j++) {
            double one;
            cm_block_load(&matrix, memory, 1, j, 1, &one);
            assert_true(one == back[j]);
        }
        free(values);
        free(back);
        free(memory);
    }
}

/* With a scale of 1: every element, and the middles between neighbours. */
static void every_element(void **state)
{
    (void)state;
    static const float e2m1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const struct cm_block_matrix fours = {CM_NVFP4, 1, 16}, eights = {CM_MXFP8, 1, 32};
    uint64_t bytes;
    uint8_t *memory = poisoned(&fours, &bytes);
    for (unsigned i = 0; i + 1 < 8; i++) {
        float middle = (e2m1[i] + e2m1[i + 1]) / 2, values[16] = {e2m1[i], -e2m1[i], middle};
        values[3] = nextafterf(middle, 0);
        values[4] = nextafterf(middle, 9);
        values[15] = -6;
        cm_block_quantise(&fours, 0, 1, values, memory);
        assert_int_equal(memory[cm_block_scales(&fours)], 0x38);
        assert_int_equal(memory[0], i | (i | 8) << 4);
        assert_int_equal(memory[1], (i + i % 2) | i << 4);
        assert_int_equal(memory[2], i + 1);
        assert_int_equal(memory[7], 15 << 4);
    }
    free(memory);
    memory = poisoned(&eights, &bytes);
    for (unsigned code = 0; code < 0x7e; code++) {
        uint8_t byte = (uint8_t)code, next = (uint8_t)(code + 1), expected;
        double low = cm_dtype_load(CM_F8E4M3, &byte), high = cm_dtype_load(CM_F8E4M3, &next);
        float values[32] = {(float)low, -(float)low, (float)((low + high) / 2)};
        values[31] = 448;
        cm_block_quantise(&eights, 0, 1, values, memory);
        assert_int_equal(memory[cm_block_scales(&eights)], 127);
        assert_int_equal(memory[0], code);
        assert_int_equal(memory[1], code | 0x80);
        cm_dtype_store(CM_F8E4M3, (low + high) / 2, &expected);
        assert_int_equal(memory[2], expected);
    }
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(scales_stand_in_tiles),
        cmocka_unit_test(quantising_rounds_to_nearest),
        cmocka_unit_test(every_element),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
