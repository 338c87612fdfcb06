/* Element by element comparison with a tolerance. */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "clustermark/simd.h"
#include "clustermark/team.h"
#include "kernels/cpu/kernels.h"

/* Elements that are converted to double and compared together: both copies stay in the cache. */
#define BATCH 512
/* A range that is worth another core, in elements. */
#define GRAIN (16 * BATCH)

struct job {
    const unsigned char *x, *y;
    uint64_t count;
    enum cm_dtype dtype;
    double absolute, relative;
    struct cm_verify_result *result;
};

struct shared_job {
    struct job job;
    pthread_mutex_t lock;
    struct cm_verify_result sum;
};

static CM_INLINE void load_f32(const unsigned char *from, size_t count, double *to)
{
    for (size_t i = 0; i < count; i++) {
        float value;
        memcpy(&value, from + i * sizeof value, sizeof value);
        to[i] = (double)value;
    }
}

/* A bf16 is the upper half of an f32. */
static CM_INLINE void load_bf16(const unsigned char *from, size_t count, double *to)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, from + i * sizeof half, sizeof half);
        uint32_t bits = (uint32_t)half << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        to[i] = (double)value;
    }
}

static CM_INLINE void load(enum cm_dtype dtype, const unsigned char *from, size_t count, double *to)
{
    size_t size = cm_dtype_size(dtype);
    if (dtype == CM_F64)
        memcpy(to, from, count * size);
    else if (dtype == CM_F32 || dtype == CM_TF32)
        load_f32(from, count, to);
    else if (dtype == CM_BF16)
        load_bf16(from, count, to);
    else
        for (size_t i = 0; i < count; i++)
            to[i] = cm_dtype_load(dtype, from + i * size);
}

static CM_INLINE bool matches(double x, double y, double absolute, double relative)
{
    return fabs(x - y) <= absolute + relative * fabs(y);
}

/* Error in units of the tolerance. Equal values have none even where nothing is tolerated. */
static CM_INLINE double error_of(double x, double y, double absolute, double relative)
{
    double difference = fabs(x - y);
    return difference == 0 ? 0 : difference / (absolute + relative * fabs(y));
}

/* A batch with few branches: how many differ, and the largest error. */
static CM_INLINE uint64_t compare(const struct job *job, const double *x, const double *y,
                                  size_t count, double *worst)
{
    uint64_t mismatches = 0;
    double largest = *worst, absolute = job->absolute, relative = job->relative;
    for (size_t i = 0; i < count; i++) {
        mismatches += matches(x[i], y[i], absolute, relative) ? 0 : 1;
        double error = error_of(x[i], y[i], absolute, relative);
        largest = error > largest ? error : largest;
    }
    *worst = largest;
    return mismatches;
}

static CM_INLINE void verify_body(const struct job *job, uint64_t begin, uint64_t end,
                                  struct cm_verify_result *result)
{
    double x[BATCH], y[BATCH];
    size_t size = cm_dtype_size(job->dtype);
    for (uint64_t at = begin; at < end; at += BATCH) {
        size_t count = end - at < BATCH ? (size_t)(end - at) : BATCH;
        load(job->dtype, job->x + at * size, count, x);
        load(job->dtype, job->y + at * size, count, y);
        uint64_t mismatches = compare(job, x, y, count, &result->worst);
        for (size_t i = 0; mismatches > 0 && result->mismatches == 0 && i < count; i++) {
            if (!matches(x[i], y[i], job->absolute, job->relative)) {
                result->first_index = at + i;
                break;
            }
        }
        result->mismatches += mismatches;
        result->checked += count;
    }
}

static void verify_base(const struct job *job, uint64_t begin, uint64_t end,
                        struct cm_verify_result *result)
{
    verify_body(job, begin, end, result);
}

CM_WIDE static void verify_wide(const struct job *job, uint64_t begin, uint64_t end,
                                struct cm_verify_result *result)
{
    verify_body(job, begin, end, result);
}

static void verify_range(void *job_arg, uint64_t begin, uint64_t end)
{
    struct shared_job *shared = job_arg;
    struct cm_verify_result part = {0, 0, UINT64_MAX, 0};
    (cm_wide() ? verify_wide : verify_base)(&shared->job, begin, end, &part);
    pthread_mutex_lock(&shared->lock);
    shared->sum.checked += part.checked;
    shared->sum.mismatches += part.mismatches;
    if (part.first_index < shared->sum.first_index)
        shared->sum.first_index = part.first_index;
    if (part.worst > shared->sum.worst)
        shared->sum.worst = part.worst;
    pthread_mutex_unlock(&shared->lock);
}

static enum cm_status run_verify(const void *args)
{
    struct shared_job shared = {.job = *(const struct job *)args, .sum = {0, 0, UINT64_MAX, 0}};
    pthread_mutex_init(&shared.lock, NULL);
    cm_team_run(verify_range, &shared, shared.job.count, GRAIN);
    pthread_mutex_destroy(&shared.lock);
    *shared.job.result = shared.sum;
    return CM_OK;
}

enum cm_status cm_cpu_verify(struct cm_stream *stream, const void *x, const void *y, uint64_t count,
                             enum cm_dtype dtype, double absolute, double relative,
                             struct cm_verify_result *result)
{
    struct job job = {x, y, count, dtype, absolute, relative, result};
    return stream->device->ops->call(stream, run_verify, &job, sizeof job, "verify");
}
