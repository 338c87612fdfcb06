/* Element by element and block by block: add_to, convert, reorder. */
#include "kernels/cpu/train.h"

/* Bytes of moved blocks that are worth another core. */
#define GRAIN_BYTES 16384

/* ---- add_to ---- */

struct add_job {
    void *out;
    const void *a, *b;
    uint64_t count;
    enum cm_dtype dtype;
};

static CM_INLINE void add_body(const struct add_job *job, uint64_t begin, uint64_t end,
                               enum cm_dtype dtype)
{
    const void *a = job->a, *b = job->b;
    void *out = job->out;
    CM_INDEPENDENT for (uint64_t i = begin; i < end; i++)
        cm_put(dtype, out, i, cm_get(dtype, a, i) + cm_get(dtype, b, i));
}
CM_TYPED_LEVELS(add, struct add_job, dtype)

static enum cm_status run_add(const void *args)
{
    struct add_job job = *(const struct add_job *)args;
    cm_team_run(add, &job, job.count, CM_GRAIN);
    return CM_OK;
}

enum cm_status cm_cpu_add_to(struct cm_stream *stream, void *out, const void *a, const void *b,
                             uint64_t count, enum cm_dtype dtype)
{
    struct add_job job = {out, a, b, count, dtype};
    return stream->device->ops->call(stream, run_add, &job, sizeof job, "add_to");
}

/* ---- convert ---- */

struct convert_job {
    void *to;
    const void *from;
    enum cm_dtype to_dtype, from_dtype;
    uint64_t count;
};

static CM_INLINE void convert_body(const struct convert_job *job, uint64_t begin, uint64_t end)
{
    float buffer[CM_BUFFER];
    for (uint64_t at = begin; at < end; at += CM_BLOCK) {
        size_t count = cm_block_at(at, end);
        const float *from = cm_view(job->from_dtype, job->from, at, count, buffer);
        if (job->to_dtype == CM_F32)
            memmove((float *)job->to + at, from, count * sizeof(float));
        else
            cm_narrow((uint16_t *)job->to + at, from, count);
    }
}
CM_LEVELS(convert, struct convert_job)

static enum cm_status run_convert(const void *args)
{
    struct convert_job job = *(const struct convert_job *)args;
    cm_team_run(convert, &job, job.count, CM_GRAIN);
    return CM_OK;
}

enum cm_status cm_cpu_convert(struct cm_stream *stream, void *to, enum cm_dtype to_dtype,
                              const void *from, enum cm_dtype from_dtype, uint64_t count)
{
    bool known = (to_dtype == CM_F32 || to_dtype == CM_BF16) &&
                 (from_dtype == CM_F32 || from_dtype == CM_BF16);
    if (!known)
        return cm_error(CM_UNSUPPORTED, "convert of %s to %s: only f32 and bf16",
                        cm_dtype_name(from_dtype), cm_dtype_name(to_dtype));
    struct convert_job job = {to, from, to_dtype, from_dtype, count};
    return stream->device->ops->call(stream, run_convert, &job, sizeof job, "convert");
}

/* ---- reorder ---- */

struct reorder_job {
    struct cm_reorder reorder;
    const unsigned char *from;
    unsigned char *to;
};

/* Where block `index` of the output comes from. */
static uint64_t source_of(const struct cm_reorder *reorder, uint64_t index)
{
    uint64_t rows = reorder->rows, columns = reorder->columns;
    switch (reorder->kind) {
    case CM_REORDER_TRANSPOSE:
        return index % rows * columns + index / rows;
    case CM_REORDER_ZIGZAG:
        return index < rows ? 2 * index : 2 * (2 * rows - 1 - index) + 1;
    case CM_REORDER_UNZIGZAG:
        return index % 2 == 0 ? index / 2 : 2 * rows - 1 - index / 2;
    }
    return index;
}

static void reorder_range(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct reorder_job *job = job_arg;
    uint64_t size = job->reorder.block_bytes;
    for (uint64_t at = begin; at < end;) {
        uint64_t index = at / size, within = at % size;
        uint64_t take = size - within < end - at ? size - within : end - at;
        memcpy(job->to + at, job->from + source_of(&job->reorder, index) * size + within, take);
        at += take;
    }
}

static enum cm_status run_reorder(const void *args)
{
    struct reorder_job job = *(const struct reorder_job *)args;
    uint64_t blocks = (uint64_t)job.reorder.rows * job.reorder.columns;
    cm_team_run(reorder_range, &job, blocks * job.reorder.block_bytes, GRAIN_BYTES);
    return CM_OK;
}

enum cm_status cm_cpu_reorder(struct cm_stream *stream, const struct cm_reorder *reorder,
                              const void *from, void *to)
{
    struct reorder_job job = {*reorder, from, to};
    return stream->device->ops->call(stream, run_reorder, &job, sizeof job, "reorder");
}
