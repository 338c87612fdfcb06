/*
 * Attention, backward: each sequence and kv head for itself, where there are few of them in several
 * shares of the kv head's queries. For each tile of queries the blocks of keys are gone through in
 * order: the weights are made again from lse, dq is summed in the tile, dk and dv in scratch, by
 * share; then the shares are summed in order.
 */
#include "kernels/cpu/train_attention.h"

/* So many units of work keep the cores busy. */
#define UNITS_WANTED 64

struct job {
    struct cm_attention attention;
    uint32_t shares; /* of the heads that use a kv head */
    const void *q, *k, *v, *o, *dout;
    const float *lse;
    void *dq, *dk, *dv;
    float *scratch;
    float scale; /* of scores */
    bool pairs;  /* bf16 is multiplied as it is */
};

/* What belongs to a tile and a block; each row of a head has `padded` elements where rows are
 * vectors. With pairs, what is multiplied is made of pairs, along the sum that it is for. */
struct state {
    struct cm_query_tile queries;
    size_t padded;
    float q[CM_LANES * CM_HEAD_SIZE_MAX] CM_ALIGNED; /* [query][element] */
    float dout[CM_LANES * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float q_turned[CM_HEAD_SIZE_MAX * CM_LANES] CM_ALIGNED; /* [element][query] */
    float dout_turned[CM_HEAD_SIZE_MAX * CM_LANES] CM_ALIGNED;
    float dq[CM_LANES * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float keys[CM_KEYS * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float values[CM_KEYS * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float key_pairs[CM_KEYS / 2 * CM_HEAD_SIZE_MAX] CM_ALIGNED; /* [key / 2][element] */
    float weights[CM_KEYS * CM_LANES] CM_ALIGNED;               /* [key][query] */
    float dscores[CM_KEYS * CM_LANES] CM_ALIGNED;
    float narrow[CM_KEYS * CM_LANES / 2] CM_ALIGNED; /* pairs of either */
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

/* A query's lse, and delta. */
static CM_INLINE void load_sums(const struct job *job, struct state *state, struct cm_rows o,
                                struct cm_rows dout, uint64_t row, uint32_t head)
{
    const struct cm_attention *attention = &job->attention;
    size_t size = attention->head_size;
    float o_buffer[CM_HEAD_SIZE_MAX], dout_buffer[CM_HEAD_SIZE_MAX];
    memset(state->lse, 0, sizeof state->lse);
    memset(state->delta, 0, sizeof state->delta);
    for (size_t lane = 0; lane < o.count; lane++) {
        const float *x = cm_view(attention->dtype, o.base, o.index + lane * o.step, size, o_buffer);
        const float *y =
            cm_view(attention->dtype, dout.base, dout.index + lane * dout.step, size, dout_buffer);
        float sum = 0;
        CM_SUMS(sum)
        for (size_t i = 0; i < size; i++)
            sum += x[i] * y[i];
        state->delta[lane] = sum;
        state->lse[lane] = job->lse[(row + lane * attention->batch) * attention->heads + head];
    }
}

static CM_INLINE void load_tile(const struct job *job, struct state *state, uint32_t sequence,
                                uint32_t head)
{
    const struct cm_attention *attention = &job->attention;
    const struct cm_query_tile *queries = &state->queries;
    size_t size = attention->head_size, lanes = queries->lanes, count = queries->count;
    uint64_t row = row_of(attention, queries->first, sequence), offset = (uint64_t)head * size;
    uint64_t o_at = row * attention->o_stride + offset;
    uint64_t o_step = attention->batch * attention->o_stride;
    struct cm_rows q = {job->q, row * attention->q_stride + offset,
                        attention->batch * attention->q_stride, count};
    struct cm_rows dout = {job->dout, o_at, o_step, count}, o = {job->o, o_at, o_step, count};
    if (job->pairs) {
        cm_pairs_across(q, size, lanes, (cm_pair *)state->q, state->padded);
        cm_pairs_across(dout, size, lanes, (cm_pair *)state->dout, state->padded);
        cm_pairs_turned(q, size, lanes, (cm_pair *)state->q_turned);
        cm_pairs_turned(dout, size, lanes, (cm_pair *)state->dout_turned);
    } else {
        cm_load_rows(attention->dtype, q, size, lanes, state->q, state->padded);
        cm_load_rows(attention->dtype, dout, size, lanes, state->dout, state->padded);
        cm_load_turned(attention->dtype, q, size, lanes, state->q_turned);
        cm_load_turned(attention->dtype, dout, size, lanes, state->dout_turned);
    }
    load_sums(job, state, o, dout, row, head);
    memset(state->dq, 0, lanes * state->padded * sizeof(float));
}

static CM_INLINE void load_block(const struct job *job, struct state *state, struct cm_rows keys,
                                 struct cm_rows values, size_t all)
{
    size_t size = job->attention.head_size;
    if (job->pairs) {
        cm_pairs_along(keys, size, all, (cm_pair *)state->keys);
        cm_pairs_along(values, size, all, (cm_pair *)state->values);
        cm_pairs_across(keys, size, all, (cm_pair *)state->key_pairs, state->padded);
    } else {
        cm_load_rows(job->attention.dtype, keys, size, all, state->keys, state->padded);
        cm_load_rows(job->attention.dtype, values, size, all, state->values, state->padded);
    }
}

/* to[key][query] = rows . turned, over the elements of a head. */
static CM_INLINE void score(const struct job *job, const struct state *state, const float *rows,
                            size_t keys, const float *turned, float *to)
{
    size_t size = job->attention.head_size;
    cm_tile_multiply(&(struct cm_tile){.rows = keys,
                                       .lanes = state->queries.lanes,
                                       .steps = job->pairs ? size / 2 : size,
                                       .pairs = job->pairs,
                                       .a = rows,
                                       .a_stride = job->pairs ? size / 2 : state->padded,
                                       .b = turned,
                                       .b_stride = CM_LANES,
                                       .c = to,
                                       .c_stride = CM_LANES});
}

/* Scores become weights, and the weights' gradients those of the scores. */
static CM_INLINE void soften(struct state *state, size_t keys, float scale)
{
    for (size_t key = 0; key < keys; key++) {
        float *weights = state->weights + key * CM_LANES;
        float *dscores = state->dscores + key * CM_LANES;
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++)
        {
            float weight = cm_exp(weights[lane] * scale - state->lse[lane]);
            weights[lane] = weight;
            dscores[lane] = weight * (dscores[lane] - state->delta[lane]);
        }
    }
}

/* sum[key][element] += factors[key][query] * rows[query][element]. */
static CM_INLINE void gather(const struct job *job, struct state *state, const float *factors,
                             size_t keys, const float *rows, float *sum)
{
    if (job->pairs)
        cm_pair_lanes(factors, keys, (cm_pair *)state->narrow);
    cm_tile_multiply(&(struct cm_tile){.rows = keys,
                                       .lanes = state->padded,
                                       .steps = job->pairs ? (state->queries.count + 1) / 2
                                                           : state->queries.count,
                                       .pairs = job->pairs,
                                       .a = job->pairs ? state->narrow : factors,
                                       .a_stride = job->pairs ? CM_LANES / 2 : CM_LANES,
                                       .b = rows,
                                       .b_stride = state->padded,
                                       .c = sum,
                                       .c_stride = state->padded,
                                       .add = true});
}

/* dq[query][element] += dscores[key][query] * keys[key][element]. */
static CM_INLINE void gather_queries(const struct job *job, struct state *state, size_t keys)
{
    if (job->pairs)
        cm_pair_keys(state->dscores, keys, (cm_pair *)state->narrow);
    cm_tile_multiply(&(struct cm_tile){.rows = cm_round_up(state->queries.count, CM_TILE_ROWS),
                                       .lanes = state->padded,
                                       .steps = job->pairs ? keys / 2 : keys,
                                       .pairs = job->pairs,
                                       .a = job->pairs ? state->narrow : state->dscores,
                                       .a_stride = CM_LANES,
                                       .a_turned = true,
                                       .b = job->pairs ? state->key_pairs : state->keys,
                                       .b_stride = state->padded,
                                       .c = state->dq,
                                       .c_stride = state->padded,
                                       .add = true});
}

static CM_INLINE void do_block(const struct job *job, struct state *state, const struct pair *pair,
                               uint64_t first, size_t count)
{
    const struct cm_attention *attention = &job->attention;
    size_t keys = cm_round_up(count, CM_TILE_ROWS);
    uint64_t at = row_of(attention, first, pair->sequence) * attention->kv_stride +
                  (uint64_t)pair->kv_head * attention->head_size;
    uint64_t step = attention->batch * attention->kv_stride;
    load_block(job, state, (struct cm_rows){job->k, at, step, count},
               (struct cm_rows){job->v, at, step, count}, keys);
    score(job, state, state->keys, keys, state->q_turned, state->weights);
    score(job, state, state->values, keys, state->dout_turned, state->dscores);
    if (first + keys - 1 > state->queries.lowest)
        cm_hide(state->weights, &state->queries, first, keys);
    soften(state, keys, job->scale);
    gather(job, state, state->weights, keys, state->dout, pair->dv + first * state->padded);
    gather(job, state, state->dscores, keys, state->q, pair->dk + first * state->padded);
    gather_queries(job, state, keys);
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
                   attention->batch * attention->dq_stride, size, state->queries.count, job->scale,
                   state->dq, state->padded);
    }
}

/* Floats of one share's dk, and of its dv. */
static CM_INLINE size_t sum_floats(const struct cm_attention *attention)
{
    return cm_round_up(attention->k_length, CM_TILE_ROWS) *
           cm_round_up(attention->head_size, CM_TILE_LANES);
}

static CM_INLINE void shares_body(const struct job *job, uint64_t begin, uint64_t end)
{
    const struct cm_attention *attention = &job->attention;
    struct state state;
    state.padded = cm_round_up(attention->head_size, CM_TILE_LANES);
    size_t floats = sum_floats(attention);
    uint32_t group = attention->heads / attention->kv_heads;
    for (uint64_t unit = begin; unit < end; unit++) {
        float *sums = job->scratch + 2 * unit * floats;
        uint64_t kv = unit / job->shares, share = unit % job->shares;
        struct pair pair = {(uint32_t)(kv / attention->kv_heads),
                            (uint32_t)(kv % attention->kv_heads), sums, sums + floats};
        uint32_t first = pair.kv_head * group;
        memset(sums, 0, 2 * floats * sizeof *sums);
        for (uint64_t head = share * group / job->shares; head < (share + 1) * group / job->shares;
             head++)
            do_head(job, &state, &pair, first + (uint32_t)head);
    }
}
CM_LEVELS(shares, struct job)

/* Blocks of keys of every sequence and kv head: the shares' sums, to dk and dv. */
static CM_INLINE void join_body(const struct job *job, uint64_t begin, uint64_t end)
{
    const struct cm_attention *attention = &job->attention;
    size_t padded = cm_round_up(attention->head_size, CM_TILE_LANES);
    size_t floats = sum_floats(attention);
    uint64_t blocks = (attention->k_length + CM_KEYS - 1) / CM_KEYS;
    uint64_t step = attention->batch * attention->dkv_stride;
    for (uint64_t unit = begin; unit < end; unit++) {
        uint64_t kv = unit / blocks, key = unit % blocks * CM_KEYS,
                 left = attention->k_length - key;
        size_t count = left < CM_KEYS ? (size_t)left : CM_KEYS;
        uint64_t at = key * step + kv / attention->kv_heads * attention->dkv_stride +
                      kv % attention->kv_heads * attention->head_size;
        for (int which = 0; which < 2; which++) {
            float *sum = job->scratch + (2 * kv * job->shares + (size_t)which) * floats;
            sum += key * padded;
            for (uint32_t share = 1; share < job->shares; share++) {
                const float *other = sum + 2 * (size_t)share * floats;
                CM_INDEPENDENT for (size_t i = 0; i < count * padded; i++) sum[i] += other[i];
            }
            write_rows(attention->dtype, which == 0 ? job->dk : job->dv, at, step,
                       attention->head_size, count, which == 0 ? job->scale : 1, sum, padded);
        }
    }
}
CM_LEVELS(join, struct job)

/* As many as there is scratch for, which has dq's size at least, and as the cores may need; by the
 * sizes alone, so that the number of threads does not show in the results. */
static uint32_t count_shares(const struct cm_attention *attention)
{
    uint64_t kvs = (uint64_t)attention->batch * attention->kv_heads;
    uint64_t room = (uint64_t)attention->batch * attention->heads * attention->q_length *
                    attention->head_size / (2 * kvs * sum_floats(attention));
    uint64_t wanted = (UNITS_WANTED + kvs - 1) / kvs,
             group = attention->heads / attention->kv_heads;
    uint64_t shares = room < wanted ? room : wanted;
    shares = shares < group ? shares : group;
    return shares > 1 ? (uint32_t)shares : 1;
}

static enum cm_status run_attention_backward(const void *args)
{
    struct job job = *(const struct job *)args;
    job.scratch += (64 - (uintptr_t)job.scratch % 64) % 64 / sizeof(float);
    job.scale = 1 / sqrtf((float)job.attention.head_size);
    job.pairs = job.attention.dtype == CM_BF16 && cm_tile_has_pairs();
    job.shares = count_shares(&job.attention);
    uint64_t kvs = (uint64_t)job.attention.batch * job.attention.kv_heads;
    cm_team_run(shares, &job, kvs * job.shares, 1);
    cm_team_run(join, &job, kvs * ((job.attention.k_length + CM_KEYS - 1) / CM_KEYS), 1);
    return CM_OK;
}

enum cm_status cm_cpu_attention_backward(struct cm_stream *stream,
                                         const struct cm_attention *attention, const void *q,
                                         const void *k, const void *v, const void *o,
                                         const float *lse, const void *dout, void *dq, void *dk,
                                         void *dv, void *scratch)
{
    struct job job = {.attention = *attention,
                      .q = q,
                      .k = k,
                      .v = v,
                      .o = o,
                      .dout = dout,
                      .lse = lse,
                      .dq = dq,
                      .dk = dk,
                      .dv = dv,
                      .scratch = scratch};
    return stream->device->ops->call(stream, run_attention_backward, &job, sizeof job,
                                     "attention_backward");
}
