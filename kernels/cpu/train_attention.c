/* Attention, forward: blocks of keys with an online softmax. */
#include "kernels/cpu/train_attention.h"

struct job {
    struct cm_attention attention;
    const void *q, *k, *v;
    void *o;
    float *lse;
    uint64_t tiles; /* of a head's queries */
    float scale;    /* of scores */
    bool pairs;     /* bf16 is multiplied as it is */
};

/* What belongs to a tile. `q` and `out` are [element][lane], `scores` [key][lane]; with pairs, what
 * is multiplied has half of the rows. Scores and their max are not scaled yet. */
struct state {
    struct cm_query_tile queries;
    float q[CM_HEAD_SIZE_MAX * CM_LANES] CM_ALIGNED;
    float out[CM_HEAD_SIZE_MAX * CM_LANES] CM_ALIGNED;
    float keys[CM_KEYS * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float values[CM_KEYS * CM_HEAD_SIZE_MAX] CM_ALIGNED;
    float scores[CM_KEYS * CM_LANES] CM_ALIGNED;
    float weights[CM_KEYS / 2 * CM_LANES] CM_ALIGNED;
    float max[CM_LANES] CM_ALIGNED;
    float sum[CM_LANES] CM_ALIGNED;
};

/* A block of keys or values as floats: where they lie if that is possible. Rows beyond the last up
 * to a whole number of tiles are zeros. */
static CM_INLINE const float *block_rows(const struct cm_attention *attention, struct cm_rows rows,
                                         float *buffer, size_t *stride)
{
    size_t all = cm_round_up(rows.count, CM_TILE_ROWS);
    if (attention->dtype == CM_F32 && all == rows.count) {
        *stride = (size_t)rows.step;
        return (const float *)rows.base + rows.index;
    }
    *stride = attention->head_size;
    cm_load_rows(attention->dtype, rows, attention->head_size, all, buffer, *stride);
    return buffer;
}

/* Scores become weights, exp(scale * (score - max)), with what was summed so far following the new
 * max. */
static CM_INLINE void soften(struct state *state, size_t keys, size_t head_size, float scale)
{
    float max[CM_LANES] CM_ALIGNED, factor[CM_LANES] CM_ALIGNED, sum[CM_LANES] CM_ALIGNED;
    memcpy(max, state->max, sizeof max);
    for (size_t key = 0; key < keys; key++) {
        const float *line = state->scores + key * CM_LANES;
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++) max[lane] =
            line[lane] > max[lane] ? line[lane] : max[lane];
    }
    /* Bits: a maximum that did not change is the same number. */
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c) */
    bool moved = memcmp(max, state->max, sizeof max) != 0;
    CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++)
    {
        factor[lane] = cm_exp((state->max[lane] - max[lane]) * scale);
        sum[lane] = state->sum[lane] * factor[lane];
    }
    for (size_t key = 0; key < keys; key++) {
        float *line = state->scores + key * CM_LANES;
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++)
        {
            float weight = cm_exp((line[lane] - max[lane]) * scale);
            line[lane] = weight;
            sum[lane] += weight;
        }
    }
    memcpy(state->max, max, sizeof max);
    memcpy(state->sum, sum, sizeof sum);
    for (size_t i = 0; moved && i < head_size; i++) {
        float *line = state->out + i * CM_LANES;
        CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++) line[lane] *= factor[lane];
    }
}

/* scores = keys . q. */
static CM_INLINE void score(const struct job *job, struct state *state, struct cm_rows keys,
                            size_t all)
{
    size_t size = job->attention.head_size;
    struct cm_tile tile = {.rows = all,
                           .lanes = state->queries.lanes,
                           .steps = job->pairs ? size / 2 : size,
                           .pairs = job->pairs,
                           .b = state->q,
                           .b_stride = CM_LANES,
                           .c = state->scores,
                           .c_stride = CM_LANES};
    if (job->pairs) {
        cm_pairs_along(keys, size, all, (cm_pair *)state->keys);
        tile.a = state->keys;
        tile.a_stride = size / 2;
    } else {
        tile.a = block_rows(&job->attention, keys, state->keys, &tile.a_stride);
    }
    cm_tile_multiply(&tile);
}

/* out += values . weights, which are what the scores became. */
static CM_INLINE void gather(const struct job *job, struct state *state, struct cm_rows values,
                             size_t all)
{
    size_t size = job->attention.head_size;
    struct cm_tile tile = {.rows = size,
                           .lanes = state->queries.lanes,
                           .steps = job->pairs ? all / 2 : all,
                           .pairs = job->pairs,
                           .a_turned = true,
                           .b = job->pairs ? state->weights : state->scores,
                           .b_stride = CM_LANES,
                           .c = state->out,
                           .c_stride = CM_LANES,
                           .add = true};
    if (job->pairs) {
        cm_pairs_across(values, size, all, (cm_pair *)state->values, size);
        cm_pair_keys(state->scores, all, (cm_pair *)state->weights);
        tile.a = state->values;
        tile.a_stride = size;
    } else {
        tile.a = block_rows(&job->attention, values, state->values, &tile.a_stride);
    }
    cm_tile_multiply(&tile);
}

static CM_INLINE void add_block(const struct job *job, struct state *state, uint64_t index,
                                uint64_t first, size_t count)
{
    const struct cm_attention *attention = &job->attention;
    size_t all = cm_round_up(count, CM_TILE_ROWS);
    uint64_t step = (uint64_t)attention->batch * attention->kv_stride;
    score(job, state, (struct cm_rows){job->k, index, step, count}, all);
    if (first + all - 1 > state->queries.lowest)
        cm_hide(state->scores, &state->queries, first, all);
    soften(state, all, attention->head_size, job->scale);
    gather(job, state, (struct cm_rows){job->v, index, step, count}, all);
}

static CM_INLINE void write_tile(const struct job *job, struct state *state, uint32_t sequence,
                                 uint32_t head)
{
    const struct cm_attention *attention = &job->attention;
    size_t size = attention->head_size;
    float inverse[CM_LANES] CM_ALIGNED, buffer[CM_HEAD_SIZE_MAX] CM_ALIGNED;
    CM_INDEPENDENT for (size_t lane = 0; lane < CM_LANES; lane++) inverse[lane] =
        1 / state->sum[lane];
    for (size_t lane = 0; lane < state->queries.count; lane++) {
        uint64_t row = (state->queries.first + lane) * attention->batch + sequence;
        uint64_t at = row * attention->o_stride + (uint64_t)head * size;
        float *out = cm_place(attention->dtype, job->o, at, buffer);
        for (size_t i = 0; i < size; i++)
            out[i] = state->out[i * CM_LANES + lane] * inverse[lane];
        cm_keep(attention->dtype, job->o, at, size, out);
        job->lse[row * attention->heads + head] =
            state->max[lane] * job->scale + logf(state->sum[lane]);
    }
}

static CM_INLINE void do_tile(const struct job *job, struct state *state, uint64_t unit)
{
    const struct cm_attention *attention = &job->attention;
    uint64_t tile = unit % job->tiles, pair = unit / job->tiles;
    /* Later queries see more keys: early and late ones in turn, so that every range of units has
     * about the same work. */
    tile = tile % 2 == 0 ? tile / 2 : job->tiles - 1 - tile / 2;
    uint32_t sequence = (uint32_t)(pair / attention->heads);
    uint32_t head = (uint32_t)(pair % attention->heads);
    uint64_t kv_head = (uint64_t)head * attention->kv_heads / attention->heads;
    struct cm_query_tile *queries = &state->queries;
    cm_query_tile_at(attention, tile, queries);
    struct cm_rows rows = {job->q,
                           (queries->first * attention->batch + sequence) * attention->q_stride +
                               (uint64_t)head * attention->head_size,
                           attention->batch * attention->q_stride, queries->count};
    if (job->pairs)
        cm_pairs_turned(rows, attention->head_size, queries->lanes, (cm_pair *)state->q);
    else
        cm_load_turned(attention->dtype, rows, attention->head_size, queries->lanes, state->q);
    memset(state->out, 0, attention->head_size * CM_LANES * sizeof(float));
    /* Lanes that the products leave out. */
    memset(state->scores, 0, sizeof state->scores);
    for (size_t lane = 0; lane < CM_LANES; lane++) {
        state->max[lane] = CM_HIDDEN;
        state->sum[lane] = 0;
    }
    uint64_t end = cm_key_end(attention, queries);
    for (uint64_t key = 0; key < end; key += CM_KEYS) {
        size_t count = end - key < CM_KEYS ? (size_t)(end - key) : CM_KEYS;
        add_block(job, state,
                  (key * attention->batch + sequence) * attention->kv_stride +
                      kv_head * attention->head_size,
                  key, count);
    }
    write_tile(job, state, sequence, head);
}

static CM_INLINE void tiles_body(const struct job *job, uint64_t begin, uint64_t end)
{
    struct state state;
    for (uint64_t unit = begin; unit < end; unit++)
        do_tile(job, &state, unit);
}
CM_LEVELS(tiles, struct job)

static enum cm_status run_attention(const void *args)
{
    struct job job = *(const struct job *)args;
    const struct cm_attention *attention = &job.attention;
    job.scale = 1 / sqrtf((float)attention->head_size);
    job.pairs = attention->dtype == CM_BF16 && cm_tile_has_pairs();
    job.tiles = (attention->q_length + CM_LANES - 1) / CM_LANES;
    cm_team_run(tiles, &job, job.tiles * attention->batch * attention->heads, 1);
    return CM_OK;
}

enum cm_status cm_cpu_attention(struct cm_stream *stream, const struct cm_attention *attention,
                                const void *q, const void *k, const void *v, void *o, float *lse)
{
    struct job job = {.attention = *attention, .q = q, .k = k, .v = v, .o = o, .lse = lse};
    return stream->device->ops->call(stream, run_attention, &job, sizeof job, "attention");
}
