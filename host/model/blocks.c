/* Matrices in which neighbours share a scale: layout, quantising, and back. */
#include "clustermark/blocks.h"

#include <math.h>
#include <string.h>

#include "clustermark/model.h"

enum { TILE_ROWS = 128, TILE_BLOCKS = 4, TILE_BYTES = TILE_ROWS * TILE_BLOCKS };
#define E4M3_MOST 448.0f
#define E2M1_MOST 6.0f

/* An nvfp4 element without its sign. */
static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

unsigned cm_block_size(enum cm_dtype dtype)
{
    return dtype == CM_MXFP8 ? 32 : dtype == CM_NVFP4 ? 16 : 0;
}

static uint64_t round_up(uint64_t value, uint64_t step)
{
    return (value + step - 1) / step * step;
}

static uint64_t blocks_across(const struct cm_block_matrix *matrix)
{
    return round_up(matrix->columns, cm_block_size(matrix->dtype)) / cm_block_size(matrix->dtype);
}

uint64_t cm_block_scales(const struct cm_block_matrix *matrix)
{
    uint64_t bits = matrix->rows * matrix->columns * cm_dtype_bits(matrix->dtype);
    return round_up((bits + 7) / 8, CM_BLOCK_ALIGN);
}

uint64_t cm_block_scale_bytes(const struct cm_block_matrix *matrix)
{
    return round_up(matrix->rows, TILE_ROWS) * round_up(blocks_across(matrix), TILE_BLOCKS);
}

bool cm_matrix_bytes(enum cm_dtype dtype, uint64_t rows, uint64_t columns, uint64_t *bytes)
{
    const struct cm_block_matrix matrix = {dtype, rows, columns};
    uint64_t elements;
    if (cm_multiply_size(rows, columns, &elements))
        return false;
    if (cm_block_size(dtype) == 0)
        return cm_multiply_size(elements, cm_dtype_size(dtype), bytes) == 0;
    /* Tiles are whole, so even a narrow matrix has 4 scales a row and at least 128 rows of them. */
    if (elements > UINT64_C(1) << 59 || rows > UINT64_C(1) << 50 || columns > UINT64_C(1) << 50 ||
        cm_multiply_size(round_up(rows, TILE_ROWS), round_up(blocks_across(&matrix), TILE_BLOCKS),
                         &elements))
        return false;
    *bytes = cm_block_scales(&matrix) + cm_block_scale_bytes(&matrix);
    return *bytes <= INT64_MAX;
}

static uint64_t scale_place(const struct cm_block_matrix *matrix, uint64_t row, uint64_t block)
{
    uint64_t across = round_up(blocks_across(matrix), TILE_BLOCKS) / TILE_BLOCKS;
    uint64_t tile = row / TILE_ROWS * across + block / TILE_BLOCKS;
    return tile * TILE_BYTES + row % 32 * 16 + row % TILE_ROWS / 32 * 4 + block % TILE_BLOCKS;
}

/* f8e4m3 of a number from 0 to 448, to nearest even. */
static uint8_t to_e4m3(float magnitude)
{
    uint32_t bits;
    if (magnitude < 0x1p-6f)
        return (uint8_t)rintf(magnitude * 0x1p9f);
    memcpy(&bits, &magnitude, sizeof bits);
    bits += 0x7ffff + (bits >> 20 & 1);
    return (uint8_t)((bits >> 20) - (120u << 3));
}

static uint8_t to_e2m1(float magnitude)
{
    /* Halfway between two numbers, the even one of the two codes wins. */
    static const float middles[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
    unsigned code = 0;
    for (unsigned i = 0; i < 7; i++)
        code += magnitude > middles[i] || (magnitude == middles[i] && i % 2 == 1);
    return (uint8_t)code;
}

/* The scale's byte, and what it is worth. */
static uint8_t choose_scale(enum cm_dtype dtype, float most, float *scale)
{
    if (dtype == CM_NVFP4) {
        uint8_t byte = to_e4m3(fminf(most / E2M1_MOST, E4M3_MOST));
        *scale = (float)cm_dtype_load(CM_F8E4M3, &byte);
        return byte;
    }
    int exponent = -127;
    if (most > 0) {
        /* most / 448 = f * 2^exponent with f from 0.5 up to below 1. */
        float fraction = frexpf(most / E4M3_MOST, &exponent);
        exponent -= fraction == 0.5f;
    }
    exponent = exponent < -127 ? -127 : exponent > 127 ? 127 : exponent;
    *scale = ldexpf(1, exponent);
    return (uint8_t)(exponent + 127);
}

static void quantise_block(enum cm_dtype dtype, const float *values, uint8_t *elements,
                           uint8_t *scale_byte)
{
    unsigned size = cm_block_size(dtype);
    float most = 0, scale;
    for (unsigned i = 0; i < size; i++)
        most = fmaxf(most, fabsf(values[i]));
    *scale_byte = choose_scale(dtype, most, &scale);
    float factor = scale > 0 ? 1 / scale : 0;
    for (unsigned i = 0; i < size; i++) {
        float magnitude = fabsf(values[i]) * factor;
        unsigned sign = signbit(values[i]) ? 1 : 0;
        if (dtype == CM_MXFP8) {
            elements[i] = (uint8_t)(to_e4m3(fminf(magnitude, E4M3_MOST)) | sign << 7);
        } else {
            unsigned code = to_e2m1(magnitude) | sign << 3;
            elements[i / 2] = (uint8_t)(i % 2 == 0 ? code : elements[i / 2] | code << 4);
        }
    }
}

void cm_block_quantise(const struct cm_block_matrix *matrix, uint64_t first, uint64_t count,
                       const float *values, void *memory)
{
    unsigned size = cm_block_size(matrix->dtype), bytes = size * cm_dtype_bits(matrix->dtype) / 8;
    if (size == 0) /* no type of blocks */
        return;
    uint64_t across = matrix->columns / size;
    uint8_t *elements = memory, *scales = elements + cm_block_scales(matrix);
    if (first == 0)
        memset(scales, 0, cm_block_scale_bytes(matrix));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t block = first + i;
        quantise_block(matrix->dtype, values + i * size, elements + block * bytes,
                       scales + scale_place(matrix, block / across, block % across));
    }
}

static double element(enum cm_dtype dtype, const uint8_t *elements, uint64_t index)
{
    if (dtype == CM_MXFP8)
        return cm_dtype_load(CM_F8E4M3, elements + index);
    unsigned code = elements[index / 2] >> (index % 2 * 4) & 15;
    return code & 8 ? -(double)e2m1[code & 7] : (double)e2m1[code];
}

void cm_block_load(const struct cm_block_matrix *matrix, const void *memory, uint64_t row,
                   uint64_t first, uint64_t count, double *values)
{
    unsigned size = cm_block_size(matrix->dtype);
    const uint8_t *elements = memory, *scales = elements + cm_block_scales(matrix);
    double scale = 0;
    if (size == 0) /* no type of blocks */
        return;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t column = first + i;
        if (i == 0 || column % size == 0) {
            const uint8_t *byte = scales + scale_place(matrix, row, column / size);
            scale = matrix->dtype == CM_NVFP4 ? fabs(cm_dtype_load(CM_F8E4M3, byte))
                                              : ldexp(1, *byte - 127);
        }
        values[i] = scale * element(matrix->dtype, elements, row * matrix->columns + column);
    }
}
