/*
 * Attention, backward: each sequence and kv head for itself. For each tile of queries the blocks of
 * keys are gone through in order: the weights are made again from lse, dq is summed in the tile, dk
 * and dv in scratch.
 */
#include "kernels/cpu/train_attention.h"

struct job {
    struct cm_attention attention;
    const void *q, *k, *v, *o, *dout;
    const float *lse;
    void *dq, *dk, *dv;
    float *scratch;
};

/* What belongs to a tile and a block; each row of a head has `padded` elements where rows are
 * vectors. */
struct state {
    struct cm_query_tile queries;
    size_t padded;
    float q[CM_LANES * CM_HEAD_SIZE_MAX] CM_ALIGNED; /* scaled, [query][element] */
    float dout[CM_LANES * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float q_turned[CM_HEAD_SIZE_MAX * CM_LANES] CM_ALIGNED; /* [element][query] */
    float dout_turned[CM_HEAD_SIZE_MAX * CM_LANES] CM_ALIGNED;
    float dq[CM_LANES * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float keys[CM_KEYS * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float values[CM_KEYS * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float weights[CM_KEYS * CM_LANES] CM_ALIGNED; /* [key][query] */
    float dscores[CM_KEYS * CM_LANES] CM_ALIGNED;
    float lse[CM_LANES] CM_ALIGNED;
    float delta[CM_LANES] CM_ALIGNED; /* dout . o */
};

/* One sequence's kv head. */
struct pair {
    uint32_t sequence, kv_head;
    float *dk, *dv; /* [key][padded] */
};

static CM_INLINE uint64_t row_of(const struct cm_attention *attention, uint64_t position,
                                 uint32_t sequence)
{
    return position * attention->batch + sequence;
}

static CM_INLINE void load_tile(const struct job *job, struct state *state, uint32_t sequence,
                                uint32_t head)
{
    const struct cm_attention *attention = &job->attention;
    const struct cm_query_tile *queries = &state->queries;
    enum cm_dtype dtype = attention->dtype;
    size_t size = attention->head_size, rows = cm_round_up(queries->count, CM_TILE_LANES);
    float scale = 1 / sqrtf((float)size);
    uint64_t row = row_of(attention, queries->first, sequence), offset = (uint64_t)head * size;
    uint64_t q_at = row * attention->q_stride + offset, o_at = row * attention->o_stride + offset;
    uint64_t q_step = attention->batch * attention->q_stride;
    uint64_t o_step = attention->batch * attention->o_stride;
    cm_load_rows(dtype, job->q, q_at, q_step, size, queries->count, rows, scale, state->q,
                 state->padded);
    cm_load_rows(dtype, job->dout, o_at, o_step, size, queries->count, rows, 1, state->dout,
                 state->padded);
    cm_load_turned(dtype, job->q, q_at, q_step, size, queries, scale, state->q_turned);
    cm_load_turned(dtype, job->dout, o_at, o_step, size, queries, 1, state->dout_turned);
    memset(state->lse, 0, sizeof state->lse);
    memset(state->delta, 0, sizeof state->delta);
    memset(state->dq, 0, rows * state->padded * sizeof(float));
    float buffer[CM_HEAD_SIZE_MAX];
    for (size_t lane = 0; lane < queries->count; lane++) {
        const float *o = cm_view(dtype, job->o, o_at + lane * o_step, size, buffer);
        const float *dout = state->dout + lane * state->padded;
        float sum = 0;
        CM_SUMS(sum)
        for (size_t i = 0; i < size; i++)
            sum += o[i] * dout[i];
        state->delta[lane] = sum;
        state->lse[lane] = job->lse[(row + lane * attention->batch) * attention->heads + head];
    }
}

/* dst[key][query] = rows . turned, over the elements of a head. */
static CM_INLINE void score(const struct state *state, const float *rows, size_t keys,
                            const float *turned, size_t size, float *to)
{
    cm_tile_multiply(&(struct cm_tile){.rows = keys,
                                       .lanes = state->queries.lanes,
                                       .steps = size,
                                       .a = rows,
                                       .a_stride = state->padded,
                                       .b = turned,
                                       .b_stride = CM_LANES,
                                       .c = to,
                                       .c_stride = CM_LANES});
}

/* Scores become weights, and the weights' gradients those of the scores. */
static CM_INLINE void soften(struct state *state, size_t keys)
{
    for (size_t key = 0; key < keys; key++) {
        float *weights = state->weights + key * CM_LANES;
        float *dscores = state->dscores + key * CM_LANES;
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++)
        {
            float weight = cm_exp(weights[lane] - state->lse[lane]);
            weights[lane] = weight;
            dscores[lane] = weight * (dscores[lane] - state->delta[lane]);
        }
    }
}

/* sum[key][element] += factors[key][query] * rows[query][element]. */
static CM_INLINE void gather(const struct state *state, const float *factors, size_t keys,
                             const float *rows, float *sum)
{
    cm_tile_multiply(&(struct cm_tile){.rows = keys,
                                       .lanes = state->padded,
                                       .steps = state->queries.count,
                                       .a = factors,
                                       .a_stride = CM_LANES,
                                       .b = rows,
                                       .b_stride = state->padded,
                                       .c = sum,
                                       .c_stride = state->padded,
                                       .add = true});
}

static CM_INLINE void do_block(const struct job *job, struct state *state, const struct pair *pair,
                               uint64_t first, size_t count)
{
    const struct cm_attention *attention = &job->attention;
    size_t size = attention->head_size, keys = cm_round_up(count, CM_TILE_ROWS);
    uint64_t at = row_of(attention, first, pair->sequence) * attention->kv_stride +
                  (uint64_t)pair->kv_head * size;
    uint64_t step = attention->batch * attention->kv_stride;
    cm_load_rows(attention->dtype, job->k, at, step, size, count, keys, 1, state->keys,
                 state->padded);
    cm_load_rows(attention->dtype, job->v, at, step, size, count, keys, 1, state->values,
                 state->padded);
    score(state, state->keys, keys, state->q_turned, size, state->weights);
    score(state, state->values, keys, state->dout_turned, size, state->dscores);
    if (first + keys - 1 > state->queries.lowest)
        cm_hide(state->weights, &state->queries, first, keys);
    soften(state, keys);
    gather(state, state->weights, keys, state->dout, pair->dv + first * state->padded);
    gather(state, state->dscores, keys, state->q, pair->dk + first * state->padded);
    cm_tile_multiply(&(struct cm_tile){.rows = cm_round_up(state->queries.count, CM_TILE_ROWS),
                                       .lanes = state->padded,
                                       .steps = keys,
                                       .a = state->dscores,
                                       .a_stride = CM_LANES,
                                       .a_turned = true,
                                       .b = state->keys,
                                       .b_stride = state->padded,
                                       .c = state->dq,
                                       .c_stride = state->padded,
                                       .add = true});
}

static CM_INLINE void write_rows(enum cm_dtype dtype, void *base, uint64_t index, uint64_t step,
                                 size_t size, size_t count, float factor, const float *from,
                                 size_t stride)
{
    float buffer[CM_HEAD_SIZE_MAX];
    for (size_t r = 0; r < count; r++) {
        const float *line = from + r * stride;
        float *to = cm_place(dtype, base, index + r * step, buffer);
        CM_INDEPENDENT for (size_t i = 0; i < size; i++) to[i] = factor * line[i];
        cm_keep(dtype, base, index + r * step, size, to);
    }
}

static CM_INLINE void do_head(const struct job *job, struct state *state, const struct pair *pair,
                              uint32_t head)
{
    const struct cm_attention *attention = &job->attention;
    size_t size = attention->head_size;
    memset(state->weights, 0, sizeof state->weights);
    memset(state->dscores, 0, sizeof state->dscores);
    for (uint64_t tile = 0; tile * CM_LANES < attention->q_length; tile++) {
        cm_query_tile_at(attention, tile, &state->queries);
        load_tile(job, state, pair->sequence, head);
        uint64_t end = cm_key_end(attention, &state->queries);
        for (uint64_t key = 0; key < end; key += CM_KEYS)
            do_block(job, state, pair, key, end - key < CM_KEYS ? (size_t)(end - key) : CM_KEYS);
        write_rows(attention->dtype, job->dq,
                   row_of(attention, state->queries.first, pair->sequence) * attention->dq_stride +
                       (uint64_t)head * size,
                   attention->batch * attention->dq_stride, size, state->queries.count,
                   1 / sqrtf((float)size), state->dq, state->padded);
    }
}

static CM_INLINE void pairs_body(const struct job *job, uint64_t begin, uint64_t end,
                                 enum cm_level level)
{
    (void)level;
    const struct cm_attention *attention = &job->attention;
    struct state state;
    state.padded = cm_round_up(attention->head_size, CM_TILE_LANES);
    size_t keys = cm_round_up(attention->k_length, CM_TILE_ROWS), floats = keys * state.padded;
    uint32_t group = attention->heads / attention->kv_heads;
    for (uint64_t unit = begin; unit < end; unit++) {
        float *sums = job->scratch + 2 * unit * floats;
        struct pair pair = {(uint32_t)(unit / attention->kv_heads),
                            (uint32_t)(unit % attention->kv_heads), sums, sums + floats};
        memset(sums, 0, 2 * floats * sizeof *sums);
        for (uint32_t head = pair.kv_head * group; head < (pair.kv_head + 1) * group; head++)
            do_head(job, &state, &pair, head);
        uint64_t at = (uint64_t)pair.sequence * attention->dkv_stride +
                      (uint64_t)pair.kv_head * attention->head_size;
        uint64_t step = attention->batch * attention->dkv_stride;
        write_rows(attention->dtype, job->dk, at, step, attention->head_size, attention->k_length,
                   1, pair.dk, state.padded);
        write_rows(attention->dtype, job->dv, at, step, attention->head_size, attention->k_length,
                   1, pair.dv, state.padded);
    }
}
CM_LEVELS(pairs, struct job)

static enum cm_status run_attention_backward(const void *args)
{
    struct job job = *(const struct job *)args;
    job.scratch = (float *)(((uintptr_t)job.scratch + 63) / 64 * 64);
    cm_team_run(pairs, &job, (uint64_t)job.attention.batch * job.attention.kv_heads, 1);
    return CM_OK;
}

enum cm_status cm_cpu_attention_backward(struct cm_stream *stream,
                                         const struct cm_attention *attention, const void *q,
                                         const void *k, const void *v, const void *o,
                                         const float *lse, const void *dout, void *dq, void *dk,
                                         void *dv, void *scratch)
{
    struct job job = {*attention, q, k, v, o, dout, lse, dq, dk, dv, scratch};
    return stream->device->ops->call(stream, run_attention_backward, &job, sizeof job,
                                     "attention_backward");
}
