/* train_tile.h: small matrix products of f32 in the nearest caches: the inner loop of attention. */
#ifndef KERNELS_CPU_TRAIN_TILE_H
#define KERNELS_CPU_TRAIN_TILE_H

#include <stdbool.h>
#include <stddef.h>

/* What the sizes of a product are multiples of. */
#define CM_TILE_ROWS  8
#define CM_TILE_LANES 32

/* c[row][lane] = or += the sum over step of a(row, step) * b[step][lane]. Element a(row, step) lies
 * at a[row * a_stride + step], or where `a_turned` at a[step * a_stride + row]. */
struct cm_tile {
    size_t rows, lanes, steps;
    const float *a, *b;
    float *c;
    size_t a_stride, b_stride, c_stride;
    bool a_turned, add;
};

void cm_tile_multiply(const struct cm_tile *tile);

#endif
