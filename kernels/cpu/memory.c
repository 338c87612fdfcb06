/*
 * Memory kernels: plain loops that the compiler vectorises, shared out among the rank's cores.
 * No wider vectors are asked for than every CPU has: it would not make memory faster, and a plain
 * compiled loop is what the figures are compared with.
 * Stores are ordinary ones, as in STREAM. Only copy may differ: it is memcpy, which the C library
 * (and so any compiled copy loop) may serve with stores that go past the cache when it is large.
 */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/simd.h"
#include "clustermark/team.h"
#include "kernels/cpu/kernels.h"

/* A range that is worth another core, in bytes; a multiple of any element and of a cache line. */
#define GRAIN_BYTES 16384

struct job {
    void *to;
    const void *a, *b;
    double factor;
    uint64_t count;
    enum cm_dtype dtype;
};

#define DEFINE_LOOPS(type, name)                                                                   \
    static void scale_##name(type *to, const type *a, type factor, size_t count)                   \
    {                                                                                              \
        CM_INDEPENDENT for (size_t i = 0; i < count; i++) to[i] = factor * a[i];                   \
    }                                                                                              \
    static void add_##name(type *to, const type *a, const type *b, size_t count)                   \
    {                                                                                              \
        CM_INDEPENDENT for (size_t i = 0; i < count; i++) to[i] = a[i] + b[i];                     \
    }                                                                                              \
    static void triad_##name(type *to, const type *a, const type *b, type factor, size_t count)    \
    {                                                                                              \
        CM_INDEPENDENT for (size_t i = 0; i < count; i++) to[i] = a[i] + factor * b[i];            \
    }

DEFINE_LOOPS(float, f32)
DEFINE_LOOPS(double, f64)

static void copy_range(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    memcpy((char *)job->to + begin, (const char *)job->a + begin, end - begin);
}

static enum cm_status run_copy(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(copy_range, &job, job.count * cm_dtype_size(job.dtype), GRAIN_BYTES);
    return CM_OK;
}

/* Runs a job whose range is counted in elements. */
static void run_elements(void (*range)(void *, uint64_t, uint64_t), const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(range, &job, job.count, GRAIN_BYTES / cm_dtype_size(job.dtype));
}

static void scale_range(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    size_t count = end - begin;
    if (job->dtype == CM_F32)
        scale_f32((float *)job->to + begin, (const float *)job->a + begin, (float)job->factor,
                  count);
    else
        scale_f64((double *)job->to + begin, (const double *)job->a + begin, job->factor, count);
}

static void add_range(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    size_t count = end - begin;
    if (job->dtype == CM_F32)
        add_f32((float *)job->to + begin, (const float *)job->a + begin,
                (const float *)job->b + begin, count);
    else
        add_f64((double *)job->to + begin, (const double *)job->a + begin,
                (const double *)job->b + begin, count);
}

static void triad_range(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    size_t count = end - begin;
    if (job->dtype == CM_F32)
        triad_f32((float *)job->to + begin, (const float *)job->a + begin,
                  (const float *)job->b + begin, (float)job->factor, count);
    else
        triad_f64((double *)job->to + begin, (const double *)job->a + begin,
                  (const double *)job->b + begin, job->factor, count);
}

static enum cm_status run_scale(const void *args)
{
    run_elements(scale_range, args);
    return CM_OK;
}

static enum cm_status run_add(const void *args)
{
    run_elements(add_range, args);
    return CM_OK;
}

static enum cm_status run_triad(const void *args)
{
    run_elements(triad_range, args);
    return CM_OK;
}

static enum cm_status queue(struct cm_stream *stream, cm_call_fn function, const struct job *job,
                            const char *what)
{
    return stream->device->ops->call(stream, function, job, sizeof *job, what);
}

static enum cm_status queue_arithmetic(struct cm_stream *stream, cm_call_fn function,
                                       const struct job *job, const char *what)
{
    if (job->dtype != CM_F32 && job->dtype != CM_F64)
        return cm_error(CM_UNSUPPORTED, "%s works on f32 and f64, not on %s", what,
                        cm_dtype_name(job->dtype));
    return queue(stream, function, job, what);
}

enum cm_status cm_cpu_copy(struct cm_stream *stream, void *to, const void *from, uint64_t count,
                           enum cm_dtype dtype)
{
    struct job job = {.to = to, .a = from, .count = count, .dtype = dtype};
    return queue(stream, run_copy, &job, "copy");
}

enum cm_status cm_cpu_scale(struct cm_stream *stream, void *to, const void *from, double factor,
                            uint64_t count, enum cm_dtype dtype)
{
    struct job job = {.to = to, .a = from, .factor = factor, .count = count, .dtype = dtype};
    return queue_arithmetic(stream, run_scale, &job, "scale");
}

enum cm_status cm_cpu_add(struct cm_stream *stream, void *to, const void *a, const void *b,
                          uint64_t count, enum cm_dtype dtype)
{
    struct job job = {.to = to, .a = a, .b = b, .count = count, .dtype = dtype};
    return queue_arithmetic(stream, run_add, &job, "add");
}

enum cm_status cm_cpu_triad(struct cm_stream *stream, void *to, const void *a, const void *b,
                            double factor, uint64_t count, enum cm_dtype dtype)
{
    struct job job = {to, a, b, factor, count, dtype};
    return queue_arithmetic(stream, run_triad, &job, "triad");
}
