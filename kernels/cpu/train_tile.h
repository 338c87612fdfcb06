/*
 * train_tile.h: small matrix products in the nearest caches: the inner loop of attention. Their
 * elements are f32, or pairs of bf16 of two steps that follow one another, where the CPU multiplies
 * those; sums are f32.
 */
#ifndef KERNELS_CPU_TRAIN_TILE_H
#define KERNELS_CPU_TRAIN_TILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the sizes of a product are multiples of. */
#define CM_TILE_ROWS  8
#define CM_TILE_LANES 32

/* Two bf16, the lower half first; lies in buffers of floats. */
typedef uint32_t cm_pair __attribute__((may_alias));

/* c[row][lane] = or += the sum over step of a(row, step) * b[step][lane]. Element a(row, step) lies
 * at a[row * a_stride + step], or where `a_turned` at a[step * a_stride + row]. With `pairs` a and
 * b are arrays of cm_pair, and a step is a pair. */
struct cm_tile {
    size_t rows, lanes, steps;
    const void *a, *b;
    float *c;
    size_t a_stride, b_stride, c_stride;
    bool a_turned, add, pairs;
};

/* Whether this CPU has `pairs`. */
bool cm_tile_has_pairs(void);

void cm_tile_multiply(const struct cm_tile *tile);

#endif
