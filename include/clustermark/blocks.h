/*
 * blocks.h: matrices in which neighbours share a scale: mxfp8 and nvfp4 (dtype.h).
 *
 * `rows` rows of `columns` elements; a block is cm_block_size neighbours of a row, and columns are
 * a multiple of it. In memory: all elements, row after row, packed (of two in a byte the first is
 * its low half). Then, from the next multiple of 128 bytes on, the scales, a byte each, where
 * matrix units look for them: in tiles of 128 rows x 4 blocks, tile after tile of the same rows;
 * within one the scale of row r, block b stands at r % 32 * 16 + r / 32 * 4 + b. Tiles are whole:
 * what is beyond the matrix is 0.
 */
#ifndef CLUSTERMARK_BLOCKS_H
#define CLUSTERMARK_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/dtype.h"

#define CM_BLOCK_MAX   32 /* elements of the largest block */
#define CM_BLOCK_ALIGN 128

struct cm_block_matrix {
    enum cm_dtype dtype;
    uint64_t rows, columns;
};

/* Elements of a block; 0 for types of elements. */
unsigned cm_block_size(enum cm_dtype dtype);

/* Bytes of a matrix of any type, scales included. False when they do not fit in 63 bits. */
bool cm_matrix_bytes(enum cm_dtype dtype, uint64_t rows, uint64_t columns, uint64_t *bytes);

/* Where the scales begin, and their bytes. */
uint64_t cm_block_scales(const struct cm_block_matrix *matrix);
uint64_t cm_block_scale_bytes(const struct cm_block_matrix *matrix);

/* Blocks `first` ... first + count - 1, counted along the rows, from `values` (count blocks of
 * them). The scale is what brings the largest of the block to the largest element: for mxfp8 the
 * next power of two, for nvfp4 the nearest that there is. */
void cm_block_quantise(const struct cm_block_matrix *matrix, uint64_t first, uint64_t count,
                       const float *values, void *memory);

/* What `count` elements of a row are worth, from `first` on. */
void cm_block_load(const struct cm_block_matrix *matrix, const void *memory, uint64_t row,
                   uint64_t first, uint64_t count, double *values);

#endif
