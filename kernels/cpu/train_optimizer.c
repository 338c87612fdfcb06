/* The gradient's norm, the factor that clips it, and AdamW. */
#include "kernels/cpu/train.h"

/* A sum is made of at most so many parts (cm_sum_scratch_bytes), each of at least so many elements.
 */
#define PARTS_MAX 4096
#define PART_MIN  16384

/* ---- sum ---- */

struct sum_job {
    const float *x;
    uint64_t count, part_size;
    bool squares, accumulate;
    float factor;
    float *sum, *parts;
};

static CM_INLINE void sum_parts_body(const struct sum_job *job, uint64_t begin, uint64_t end)
{
    for (uint64_t part = begin; part < end; part++) {
        uint64_t first = part * job->part_size, left = job->count - first;
        size_t count = (size_t)(left < job->part_size ? left : job->part_size);
        const float *x = job->x + first;
        float sum = 0;
        if (job->squares) {
            CM_SUMS(sum)
            for (size_t i = 0; i < count; i++)
                sum += x[i] * x[i];
        } else {
            CM_SUMS(sum)
            for (size_t i = 0; i < count; i++)
                sum += x[i];
        }
        job->parts[part] = sum;
    }
}
CM_LEVELS(sum_parts, struct sum_job)

static enum cm_status run_sum(const void *args)
{
    struct sum_job job = *(const struct sum_job *)args;
    job.part_size = (job.count + PARTS_MAX - 1) / PARTS_MAX;
    job.part_size = job.part_size < PART_MIN ? PART_MIN : job.part_size;
    uint64_t parts = (job.count + job.part_size - 1) / job.part_size;
    if (parts > 0)
        cm_team_run(sum_parts, &job, parts, 1);
    double sum = 0;
    for (uint64_t part = 0; part < parts; part++)
        sum += (double)job.parts[part];
    float value = (float)((double)job.factor * sum);
    *job.sum = job.accumulate ? *job.sum + value : value;
    return CM_OK;
}

enum cm_status cm_cpu_sum(struct cm_stream *stream, const float *x, uint64_t count, bool squares,
                          float factor, bool accumulate, float *sum, void *scratch)
{
    struct sum_job job = {.x = x,
                          .count = count,
                          .squares = squares,
                          .accumulate = accumulate,
                          .factor = factor,
                          .sum = sum,
                          .parts = scratch};
    return stream->device->ops->call(stream, run_sum, &job, sizeof job, "sum");
}

/* ---- clip_factor ---- */

struct clip_job {
    const float *sum_of_squares;
    float limit;
    float *factor;
};

static enum cm_status run_clip(const void *args)
{
    const struct clip_job *job = args;
    float norm = sqrtf(*job->sum_of_squares);
    *job->factor = job->limit > 0 && norm > job->limit ? job->limit / norm : 1;
    return CM_OK;
}

enum cm_status cm_cpu_clip_factor(struct cm_stream *stream, const float *sum_of_squares,
                                  float limit, float *factor)
{
    struct clip_job job = {sum_of_squares, limit, factor};
    return stream->device->ops->call(stream, run_clip, &job, sizeof job, "clip_factor");
}

/* ---- AdamW ---- */

struct adamw_job {
    struct cm_adamw adamw;
    const float *gradient, *factor;
    float *master, *m, *v;
    void *weights;
};

/* What all elements share. */
struct rates {
    float factor, beta1, beta2, rest1, rest2, rate, root, epsilon, decay;
};

static struct rates rates_of(const struct adamw_job *job)
{
    const struct cm_adamw *adamw = &job->adamw;
    double step = (double)adamw->step, rate = (double)adamw->learning_rate;
    double beta1 = (double)adamw->beta1, beta2 = (double)adamw->beta2;
    return (struct rates){
        .factor = *job->factor,
        .beta1 = adamw->beta1,
        .beta2 = adamw->beta2,
        .rest1 = (float)(1 - beta1),
        .rest2 = (float)(1 - beta2),
        .rate = (float)(rate / (1 - pow(beta1, step))),
        .root = (float)(1 / (1 - pow(beta2, step))),
        .epsilon = adamw->epsilon,
        .decay = (float)(rate * (double)adamw->weight_decay),
    };
}

static CM_INLINE void round_weights(const struct adamw_job *job, uint64_t at, size_t count,
                                    const float *master)
{
    const struct cm_adamw *adamw = &job->adamw;
    if (adamw->dtype == CM_F32) {
        if (job->weights != job->master)
            memcpy((float *)job->weights + at, master, count * sizeof *master);
        return;
    }
    uint16_t *to = (uint16_t *)job->weights + at;
    if (!adamw->stochastic) {
        cm_narrow(to, master, count);
        return;
    }
    uint16_t random[CM_BLOCK];
    cm_cpu_random_bits(adamw->seed, adamw->first + at, count, random);
    CM_INDEPENDENT for (size_t i = 0; i < count; i++)
    {
        uint32_t bits;
        memcpy(&bits, &master[i], sizeof bits);
        bool finite = (bits & 0x7f800000u) != 0x7f800000u;
        uint16_t rounded = (uint16_t)((bits + random[i]) >> 16);
        to[i] = finite ? rounded : cm_bf16_of(master[i]);
    }
}

static CM_INLINE void adamw_range_body(const struct adamw_job *job, uint64_t begin, uint64_t end)
{
    struct rates rates = rates_of(job);
    for (uint64_t at = begin; at < end; at += CM_BLOCK) {
        size_t count = cm_block_at(at, end);
        const float *gradient = job->gradient + at;
        float *master = job->master + at, *m = job->m + at, *v = job->v + at;
        CM_INDEPENDENT for (size_t i = 0; i < count; i++)
        {
            float g = gradient[i] * rates.factor;
            float mean = rates.beta1 * m[i] + rates.rest1 * g;
            float square = rates.beta2 * v[i] + rates.rest2 * (g * g);
            m[i] = mean;
            v[i] = square;
            float move = rates.rate * mean / (sqrtf(square * rates.root) + rates.epsilon);
            master[i] -= move + rates.decay * master[i];
        }
        round_weights(job, at, count, master);
    }
}
CM_LEVELS(adamw_range, struct adamw_job)

static enum cm_status run_adamw(const void *args)
{
    struct adamw_job job = *(const struct adamw_job *)args;
    cm_team_run(adamw_range, &job, job.adamw.count, CM_GRAIN);
    return CM_OK;
}

enum cm_status cm_cpu_adamw(struct cm_stream *stream, const struct cm_adamw *adamw,
                            const float *gradient, const float *factor, float *master, float *m,
                            float *v, void *weights)
{
    struct adamw_job job = {*adamw, gradient, factor, master, m, v, weights};
    return stream->device->ops->call(stream, run_adamw, &job, sizeof job, "adamw");
}
