/* train_attention.h: what attention's two passes share: tiles of queries times blocks of keys, with
 * the queries side by side in vectors ("lanes"), so that softmax runs along the keys. */
#ifndef KERNELS_CPU_TRAIN_ATTENTION_H
#define KERNELS_CPU_TRAIN_ATTENTION_H

#include "kernels/cpu/train.h"
#include "kernels/cpu/train_tile.h"

/* Queries of a tile, keys of a block, the largest head. */
#define CM_LANES         64
#define CM_KEYS          64
#define CM_HEAD_SIZE_MAX 256
/* A score that is hidden: its exp is 0. */
#define CM_HIDDEN -1e30f

#define CM_ALIGNED __attribute__((aligned(64)))

/* Queries of one head that are worked on together. */
struct cm_query_tile {
    uint64_t first; /* local position */
    size_t count, lanes;
    uint64_t lowest, highest; /* positions in the sequence */
    uint32_t position[CM_LANES];
};

static CM_INLINE size_t cm_round_up(size_t count, size_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

/* Lanes beyond the last query stand where it does, and their results go nowhere. */
static CM_INLINE void cm_query_tile_at(const struct cm_attention *attention, uint64_t tile,
                                       struct cm_query_tile *queries)
{
    uint64_t left = attention->q_length - tile * CM_LANES;
    queries->first = tile * CM_LANES;
    queries->count = left < CM_LANES ? (size_t)left : CM_LANES;
    queries->lanes = cm_round_up(queries->count, CM_TILE_LANES);
    queries->lowest = UINT64_MAX;
    queries->highest = 0;
    for (size_t lane = 0; lane < CM_LANES; lane++) {
        size_t query = lane < queries->count ? lane : queries->count - 1;
        uint64_t position = cm_position(&attention->positions, queries->first + query);
        queries->position[lane] = (uint32_t)position;
        queries->lowest = position < queries->lowest ? position : queries->lowest;
        queries->highest = position > queries->highest ? position : queries->highest;
    }
}

/* The first key that none of the tile sees. */
static CM_INLINE uint64_t cm_key_end(const struct cm_attention *attention,
                                     const struct cm_query_tile *queries)
{
    uint64_t end = queries->highest + 1;
    return end < attention->k_length ? end : attention->k_length;
}

/* to[element][lane] = factor * row of the lane, 0 beyond the last. `index` is of the first row's
 * element, `step` leads to the next row's. */
static CM_INLINE void cm_load_turned(enum cm_dtype dtype, const void *base, uint64_t index,
                                     uint64_t step, size_t size,
                                     const struct cm_query_tile *queries, float factor, float *to)
{
    float buffer[8][CM_HEAD_SIZE_MAX];
    for (size_t lane = 0; lane < queries->lanes; lane += 8) {
        const float *row[8];
        for (size_t l = 0; l < 8; l++) {
            size_t query = lane + l < queries->count ? lane + l : queries->count - 1;
            row[l] = cm_view(dtype, base, index + query * step, size, buffer[l]);
        }
        for (size_t i = 0; i < size; i++)
            for (size_t l = 0; l < 8; l++)
                to[i * CM_LANES + lane + l] = lane + l < queries->count ? factor * row[l][i] : 0;
    }
}

/* to[row][element] = factor * row, zeros beyond `count` rows up to `rows`, and beyond `size`
 * elements up to `stride`. */
static CM_INLINE void cm_load_rows(enum cm_dtype dtype, const void *base, uint64_t index,
                                   uint64_t step, size_t size, size_t count, size_t rows,
                                   float factor, float *to, size_t stride)
{
    float buffer[CM_HEAD_SIZE_MAX];
    for (size_t r = 0; r < count; r++) {
        const float *row = cm_view(dtype, base, index + r * step, size, buffer);
        float *line = to + r * stride;
        CM_INDEPENDENT for (size_t i = 0; i < size; i++) line[i] = factor * row[i];
        for (size_t i = size; i < stride; i++)
            line[i] = 0;
    }
    memset(to + count * stride, 0, (rows - count) * stride * sizeof *to);
}

/* Hides keys first ... of which a lane does not see. */
static CM_INLINE void cm_hide(float *scores, const struct cm_query_tile *queries, uint64_t first,
                              size_t keys)
{
    for (size_t key = 0; key < keys; key++) {
        float *line = scores + key * CM_LANES;
        uint32_t place = (uint32_t)(first + key);
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++) line[lane] =
            place > queries->position[lane] ? CM_HIDDEN : line[lane];
    }
}

#endif
