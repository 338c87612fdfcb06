/* Cross-entropy over a vocabulary that may be split: what a part knows, then loss and gradient. */
#include <float.h>

#include "kernels/cpu/train.h"

struct job {
    struct cm_cross_entropy cross;
    const void *logits;
    void *gradient; /* the logits again */
    const int32_t *targets;
    const struct cm_softmax_part *parts;
    struct cm_softmax_part *made;
    float *loss;
};

/* The target's column among these logits; false where another part has it. */
static CM_INLINE bool find_target(const struct job *job, uint64_t row, uint64_t *column)
{
    int64_t place = (int64_t)job->targets[row] - (int64_t)job->cross.vocabulary_first;
    *column = (uint64_t)place;
    return job->targets[row] >= 0 && place >= 0 && place < (int64_t)job->cross.vocabulary_count;
}

static CM_INLINE float one_element(enum cm_dtype dtype, const void *base, uint64_t index)
{
    float buffer[1];
    return *cm_view(dtype, base, index, 1, buffer);
}

/* By lanes, since compilers keep to the order of a plain maximum. */
static CM_INLINE float largest_of(const float *x, size_t count, float least)
{
    enum { LANES = 64 };
    float lanes[LANES];
    size_t i = 0;
    for (size_t l = 0; l < LANES; l++)
        lanes[l] = least;
    for (; i + LANES <= count; i += LANES)
        CM_INDEPENDENT for (size_t l = 0; l < LANES; l++) lanes[l] =
            x[i + l] > lanes[l] ? x[i + l] : lanes[l];
    for (; i < count; i++)
        lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
    for (size_t half = LANES / 2; half > 0; half /= 2)
        CM_INDEPENDENT for (size_t l = 0; l < half; l++) lanes[l] =
            lanes[l + half] > lanes[l] ? lanes[l + half] : lanes[l];
    return lanes[0];
}

/* One pass: the sum follows the largest value so far. */
static CM_INLINE struct cm_softmax_part part_of(const struct job *job, uint64_t row)
{
    enum cm_dtype dtype = job->cross.dtype;
    struct cm_softmax_part part = {-FLT_MAX, 0, 0};
    float buffer[CM_BUFFER];
    uint64_t begin = row * job->cross.columns;
    for (uint64_t c = 0; c < job->cross.vocabulary_count; c += CM_BLOCK) {
        size_t count = cm_block_at(c, job->cross.vocabulary_count);
        const float *x = cm_view(dtype, job->logits, begin + c, count, buffer);
        float largest = largest_of(x, count, part.max), sum = 0;
        /* Not in the loop of the sum: there compilers keep what exp is made of in memory. */
        CM_INDEPENDENT for (size_t i = 0; i < count; i++) buffer[i] = cm_exp(x[i] - largest);
        CM_SUMS(sum)
        for (size_t i = 0; i < count; i++)
            sum += buffer[i];
        part.sum = part.sum * cm_exp(part.max - largest) + sum;
        part.max = largest;
    }
    uint64_t column;
    if (find_target(job, row, &column))
        part.target = one_element(dtype, job->logits, begin + column);
    return part;
}

static CM_INLINE void parts_body(const struct job *job, uint64_t begin, uint64_t end)
{
    for (uint64_t row = begin; row < end; row++)
        job->made[row] = part_of(job, row);
}
CM_LEVELS(parts, struct job)

static enum cm_status run_parts(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(parts, &job, job.cross.rows, cm_row_grain(job.cross.vocabulary_count));
    return CM_OK;
}

enum cm_status cm_cpu_softmax_parts(struct cm_stream *stream, const struct cm_cross_entropy *cross,
                                    const void *logits, const int32_t *targets,
                                    struct cm_softmax_part *made)
{
    struct job job = {.cross = *cross, .logits = logits, .targets = targets, .made = made};
    return stream->device->ops->call(stream, run_parts, &job, sizeof job, "softmax_parts");
}

/* The log of the row's whole sum, and its target's logit. */
static CM_INLINE float join_parts(const struct job *job, uint64_t row, float *target)
{
    float largest = -FLT_MAX, sum = 0;
    *target = 0;
    for (uint32_t p = 0; p < job->cross.parts; p++) {
        const struct cm_softmax_part *part = &job->parts[p * job->cross.rows + row];
        largest = part->max > largest ? part->max : largest;
        *target += part->target;
    }
    for (uint32_t p = 0; p < job->cross.parts; p++) {
        const struct cm_softmax_part *part = &job->parts[p * job->cross.rows + row];
        sum += part->sum * expf(part->max - largest);
    }
    return largest + logf(sum);
}

static CM_INLINE void write_gradient(const struct job *job, uint64_t row, float lse)
{
    enum cm_dtype dtype = job->cross.dtype;
    float x_buffer[CM_BUFFER], out_buffer[CM_BUFFER], scale = job->cross.scale;
    uint64_t begin = row * job->cross.columns, target;
    bool here = find_target(job, row, &target);
    for (uint64_t c = 0; c < job->cross.vocabulary_count; c += CM_BLOCK) {
        size_t count = cm_block_at(c, job->cross.vocabulary_count);
        const float *x = cm_view(dtype, job->gradient, begin + c, count, x_buffer);
        float *out = cm_place(dtype, job->gradient, begin + c, out_buffer);
        CM_INDEPENDENT for (size_t i = 0; i < count; i++) out[i] = cm_exp(x[i] - lse) * scale;
        if (here && target >= c && target - c < count)
            out[target - c] -= scale;
        cm_keep(dtype, job->gradient, begin + c, count, out);
    }
}

static CM_INLINE void finish_body(const struct job *job, uint64_t begin, uint64_t end)
{
    size_t size = cm_dtype_size(job->cross.dtype);
    for (uint64_t row = begin; row < end; row++) {
        char *line = (char *)job->gradient + row * job->cross.columns * size;
        if (job->targets[row] < 0) {
            memset(line, 0, job->cross.columns * size);
            job->loss[row] = 0;
            continue;
        }
        float target, lse = join_parts(job, row, &target);
        job->loss[row] = lse - target;
        write_gradient(job, row, lse);
        memset(line + job->cross.vocabulary_count * size, 0,
               (job->cross.columns - job->cross.vocabulary_count) * size);
    }
}
CM_LEVELS(finish, struct job)

static enum cm_status run_finish(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(finish, &job, job.cross.rows, cm_row_grain(job.cross.columns));
    return CM_OK;
}

enum cm_status cm_cpu_cross_entropy(struct cm_stream *stream, const struct cm_cross_entropy *cross,
                                    void *logits, const int32_t *targets,
                                    const struct cm_softmax_part *all, float *loss)
{
    struct job job = {
        .cross = *cross, .gradient = logits, .targets = targets, .parts = all, .loss = loss};
    return stream->device->ops->call(stream, run_finish, &job, sizeof job, "cross_entropy");
}
