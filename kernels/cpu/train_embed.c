/* The embedding of tokens and of learned positions. */
#include "kernels/cpu/train.h"

/* Columns that are worth another core in the backward pass: a cache line of the narrowest type at
 * least. */
#define GRAIN_COLUMNS 64

struct job {
    struct cm_embed embed;
    const int32_t *tokens;
    const void *table, *learned, *dout;
    void *out;
    float *dtable, *dlearned;
};

/* The table's row of a token; false where another rank has it. */
static CM_INLINE bool find_row(const struct cm_embed *embed, int32_t token, uint64_t *row)
{
    int64_t place = (int64_t)token - (int64_t)embed->vocabulary_first;
    *row = (uint64_t)place;
    return place >= 0 && place < (int64_t)embed->vocabulary_count;
}

static CM_INLINE uint64_t position_of(const struct cm_embed *embed, uint64_t row)
{
    return cm_position(&embed->positions, row / embed->positions.batch);
}

/* One row with its learned position, in blocks. */
static CM_INLINE void add_learned(const struct job *job, uint64_t row, bool found, uint64_t place)
{
    const struct cm_embed *embed = &job->embed;
    float token_buffer[CM_BUFFER], learned_buffer[CM_BUFFER], out_buffer[CM_BUFFER];
    uint64_t from = place * embed->columns, to = row * embed->columns;
    uint64_t learned_from = position_of(embed, row) * embed->columns;
    for (uint64_t c = 0; c < embed->columns; c += CM_BLOCK) {
        size_t count = cm_block_at(c, embed->columns);
        const float *learned =
            cm_view(embed->dtype, job->learned, learned_from + c, count, learned_buffer);
        float *out = cm_place(embed->dtype, job->out, to + c, out_buffer);
        if (found) {
            const float *token = cm_view(embed->dtype, job->table, from + c, count, token_buffer);
            CM_INDEPENDENT for (size_t i = 0; i < count; i++) out[i] = token[i] + learned[i];
        } else {
            memcpy(out, learned, count * sizeof *out);
        }
        cm_keep(embed->dtype, job->out, to + c, count, out);
    }
}

static CM_INLINE void embed_rows_body(const struct job *job, uint64_t begin, uint64_t end)
{
    size_t size = job->embed.columns * cm_dtype_size(job->embed.dtype);
    for (uint64_t row = begin; row < end; row++) {
        uint64_t place;
        bool found = find_row(&job->embed, job->tokens[row], &place);
        if (job->learned != NULL)
            add_learned(job, row, found, place);
        else if (found)
            memcpy((char *)job->out + row * size, (const char *)job->table + place * size, size);
        else
            memset((char *)job->out + row * size, 0, size);
    }
}
CM_LEVELS(embed_rows, struct job)

static enum cm_status run_embed(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(embed_rows, &job, job.embed.rows, cm_row_grain(job.embed.columns));
    return CM_OK;
}

enum cm_status cm_cpu_embed(struct cm_stream *stream, const struct cm_embed *embed,
                            const int32_t *tokens, const void *table, const void *learned,
                            void *out)
{
    struct job job = {
        .embed = *embed, .tokens = tokens, .table = table, .learned = learned, .out = out};
    return stream->device->ops->call(stream, run_embed, &job, sizeof job, "embed");
}

/* Each thread has columns of its own and goes through the rows in order, so that equal tokens meet
 * in row order. */
static CM_INLINE void embed_backward_columns_body(const struct job *job, uint64_t begin,
                                                  uint64_t end)
{
    const struct cm_embed *embed = &job->embed;
    float buffer[CM_BUFFER];
    for (uint64_t row = 0; row < embed->rows; row++) {
        uint64_t place;
        bool found = find_row(embed, job->tokens[row], &place);
        if (!found && job->dlearned == NULL)
            continue;
        for (uint64_t c = begin; c < end; c += CM_BLOCK) {
            size_t count = cm_block_at(c, end);
            const float *dout =
                cm_view(embed->dtype, job->dout, row * embed->columns + c, count, buffer);
            if (found) {
                float *sum = job->dtable + place * embed->columns + c;
                CM_INDEPENDENT for (size_t i = 0; i < count; i++) sum[i] += dout[i];
            }
            if (job->dlearned != NULL) {
                float *sum = job->dlearned + position_of(embed, row) * embed->columns + c;
                CM_INDEPENDENT for (size_t i = 0; i < count; i++) sum[i] += dout[i];
            }
        }
    }
}
CM_LEVELS(embed_backward_columns, struct job)

static enum cm_status run_embed_backward(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(embed_backward_columns, &job, job.embed.columns, GRAIN_COLUMNS);
    return CM_OK;
}

enum cm_status cm_cpu_embed_backward(struct cm_stream *stream, const struct cm_embed *embed,
                                     const int32_t *tokens, const void *dout, float *dtable,
                                     float *dlearned, void *scratch)
{
    (void)scratch;
    struct job job = {
        .embed = *embed, .tokens = tokens, .dout = dout, .dtable = dtable, .dlearned = dlearned};
    return stream->device->ops->call(stream, run_embed_backward, &job, sizeof job,
                                     "embed_backward");
}
