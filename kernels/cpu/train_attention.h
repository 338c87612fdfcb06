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

/* Where rows lie: the first one's element, and how far it is to the next row. */
struct cm_rows {
    const void *base;
    uint64_t index, step;
    size_t count;
};

/* to[element][lane] = row of the lane, 0 beyond the last. */
static CM_INLINE void cm_load_turned(enum cm_dtype dtype, struct cm_rows rows, size_t size,
                                     size_t lanes, float *to)
{
    float buffer[8][CM_HEAD_SIZE_MAX];
    for (size_t lane = 0; lane < lanes; lane += 8) {
        const float *row[8];
        for (size_t l = 0; l < 8; l++) {
            size_t query = lane + l < rows.count ? lane + l : rows.count - 1;
            row[l] = cm_view(dtype, rows.base, rows.index + query * rows.step, size, buffer[l]);
        }
        for (size_t i = 0; i < size; i++)
            for (size_t l = 0; l < 8; l++)
                to[i * CM_LANES + lane + l] = lane + l < rows.count ? row[l][i] : 0;
    }
}

/* to[row][element] = row, zeros beyond the last up to `all`, and beyond `size` elements up to
 * `stride`. */
static CM_INLINE void cm_load_rows(enum cm_dtype dtype, struct cm_rows rows, size_t size,
                                   size_t all, float *to, size_t stride)
{
    float buffer[CM_HEAD_SIZE_MAX];
    for (size_t r = 0; r < rows.count; r++) {
        const float *row = cm_view(dtype, rows.base, rows.index + r * rows.step, size, buffer);
        memcpy(to + r * stride, row, size * sizeof *to);
        memset(to + r * stride + size, 0, (stride - size) * sizeof *to);
    }
    memset(to + rows.count * stride, 0, (all - rows.count) * stride * sizeof *to);
}

/* The same of bf16, as pairs of elements that follow one another: to[element / 2][lane]. */
static CM_INLINE void cm_pairs_turned(struct cm_rows rows, size_t size, size_t lanes, cm_pair *to)
{
    for (size_t lane = 0; lane < lanes; lane += 8) {
        const uint16_t *row[8];
        for (size_t l = 0; l < 8; l++) {
            size_t query = lane + l < rows.count ? lane + l : rows.count - 1;
            row[l] = (const uint16_t *)rows.base + rows.index + query * rows.step;
        }
        for (size_t i = 0; i < size / 2; i++)
            for (size_t l = 0; l < 8; l++) {
                uint32_t pair;
                memcpy(&pair, row[l] + 2 * i, sizeof pair);
                to[i * CM_LANES + lane + l] = lane + l < rows.count ? pair : 0;
            }
    }
}

/* to[row][element / 2]: rows as they are, zeros beyond the last up to `all`. */
static CM_INLINE void cm_pairs_along(struct cm_rows rows, size_t size, size_t all, cm_pair *to)
{
    size_t stride = size / 2;
    for (size_t r = 0; r < rows.count; r++)
        memcpy(to + r * stride, (const uint16_t *)rows.base + rows.index + r * rows.step,
               size * sizeof(uint16_t));
    memset(to + rows.count * stride, 0, (all - rows.count) * stride * sizeof *to);
}

/* to[row / 2][element]: pairs of rows that follow one another, zeros as for cm_load_rows; `all` is
 * even. */
static CM_INLINE void cm_pairs_across(struct cm_rows rows, size_t size, size_t all, cm_pair *to,
                                      size_t stride)
{
    static const uint16_t zeros[CM_HEAD_SIZE_MAX];
    for (size_t r = 0; r < all; r += 2) {
        const uint16_t *row = (const uint16_t *)rows.base + rows.index + r * rows.step;
        const uint16_t *low = r < rows.count ? row : zeros;
        const uint16_t *high = r + 1 < rows.count ? row + rows.step : zeros;
        cm_pair *line = to + r / 2 * stride;
        CM_INDEPENDENT for (size_t i = 0; i < size; i++) line[i] = low[i] | (uint32_t)high[i] << 16;
        memset(line + size, 0, (stride - size) * sizeof *line);
    }
}

/* To nearest even; of finite numbers. */
static CM_INLINE uint32_t cm_half_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

/* Weights, or what has their form: [key][lane] to [key / 2][lane] and to [key][lane / 2]. */
static CM_INLINE void cm_pair_keys(const float *from, size_t keys, cm_pair *to)
{
    for (size_t key = 0; key < keys; key += 2) {
        const float *low = from + key * CM_LANES, *high = low + CM_LANES;
        cm_pair *line = to + key / 2 * CM_LANES;
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++) line[lane] =
            cm_half_of(low[lane]) | cm_half_of(high[lane]) << 16;
    }
}

static CM_INLINE void cm_pair_lanes(const float *from, size_t keys, cm_pair *to)
{
    uint16_t line[CM_LANES];
    for (size_t key = 0; key < keys; key++) {
        const float *row = from + key * CM_LANES;
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++) line[lane] =
            (uint16_t)cm_half_of(row[lane]);
        memcpy(to + key * CM_LANES / 2, line, sizeof line);
    }
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
