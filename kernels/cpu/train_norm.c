/* LayerNorm and RMSNorm with the residual added before them, forward and backward. */
#include "kernels/cpu/train.h"

/* The rows of the backward pass are cut into at most so many parts, each with sums of its own for
 * the gradients of weight and bias, and of at least so many rows. */
#define PARTS_MAX     64
#define PART_ROWS_MIN 16
/* Columns of those sums that are worth another core. */
#define GRAIN_COLUMNS 512

struct job {
    struct cm_norm norm;
    const void *x, *delta, *weight, *bias;
    void *sum, *out;
    float *stats;
};

/* sum = x + delta, rounded to the type of the step, with the sum of its elements, and of their
 * squares. */
static CM_INLINE void add_rows(const struct job *job, uint64_t row, enum cm_dtype dtype,
                               float *total, float *squares)
{
    const void *x = job->x, *delta = job->delta;
    void *to = job->sum;
    uint64_t columns = job->norm.columns;
    float buffer[CM_BUFFER], sum_1 = 0, sum_2 = 0;
    for (uint64_t c = 0; c < columns; c += CM_BLOCK) {
        size_t count = cm_block_at(c, columns);
        uint64_t at = row * columns + c;
        const float *sum = cm_view(dtype, x, at, count, buffer);
        if (delta != NULL && to != NULL) { /* both or none */
            float *rounded = cm_place(dtype, to, at, buffer);
            CM_INDEPENDENT for (size_t i = 0; i < count; i++) rounded[i] =
                cm_round(dtype, sum[i] + cm_get(dtype, delta, at + i));
            cm_keep_rounded(dtype, to, at, count, rounded);
            sum = rounded;
        } else {
            size_t size = cm_dtype_size(dtype);
            if (to != NULL && to != x)
                memcpy((char *)to + at * size, (const char *)x + at * size, count * size);
        }
        CM_SUMS(sum_1, sum_2)
        for (size_t i = 0; i < count; i++) {
            sum_1 += sum[i];
            sum_2 += sum[i] * sum[i];
        }
    }
    *total = sum_1;
    *squares = sum_2;
}

/* The sum of squares about the mean, of a row that is in the cache. */
static CM_INLINE float squares_about(enum cm_dtype dtype, const void *x, uint64_t at,
                                     uint64_t columns, float mean)
{
    float buffer[CM_BUFFER], squares = 0;
    for (uint64_t c = 0; c < columns; c += CM_BLOCK) {
        size_t count = cm_block_at(c, columns);
        const float *part = cm_view(dtype, x, at + c, count, buffer);
        CM_SUMS(squares)
        for (size_t i = 0; i < count; i++)
            squares += (part[i] - mean) * (part[i] - mean);
    }
    return squares;
}

static CM_INLINE void write_row(const struct job *job, const void *from, uint64_t row,
                                enum cm_dtype dtype, float mean, float scale)
{
    const void *weight = job->weight, *bias = job->bias;
    void *out = job->out;
    uint64_t columns = job->norm.columns, at = row * columns;
    if (bias != NULL) {
        CM_INDEPENDENT for (uint64_t i = 0; i < columns; i++)
        {
            float unit = (cm_get(dtype, from, at + i) - mean) * scale;
            cm_put(dtype, out, at + i, unit * cm_get(dtype, weight, i) + cm_get(dtype, bias, i));
        }
    } else {
        CM_INDEPENDENT for (uint64_t i = 0; i < columns; i++)
        {
            float unit = (cm_get(dtype, from, at + i) - mean) * scale;
            cm_put(dtype, out, at + i, unit * cm_get(dtype, weight, i));
        }
    }
}

static CM_INLINE void norm_rows_body(const struct job *job, uint64_t begin, uint64_t end,
                                     enum cm_dtype dtype)
{
    const struct cm_norm *norm = &job->norm;
    const void *from = job->sum != NULL ? job->sum : job->x;
    for (uint64_t row = begin; row < end; row++) {
        float total, squares, mean = 0;
        add_rows(job, row, dtype, &total, &squares);
        if (norm->layer) {
            mean = total / (float)norm->columns;
            squares = squares_about(dtype, from, row * norm->columns, norm->columns, mean);
        }
        float scale = 1 / sqrtf(squares / (float)norm->columns + norm->epsilon);
        write_row(job, from, row, dtype, mean, scale);
        job->stats[row] = mean;
        job->stats[norm->rows + row] = scale;
    }
}
CM_TYPED_LEVELS(norm_rows, struct job, norm.dtype)

static enum cm_status run_norm(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(norm_rows, &job, job.norm.rows, cm_row_grain(job.norm.columns));
    return CM_OK;
}

enum cm_status cm_cpu_norm(struct cm_stream *stream, const struct cm_norm *norm, const void *x,
                           const void *delta, const void *weight, const void *bias, void *sum,
                           void *out, float *stats)
{
    struct job job = {*norm, x, delta, weight, bias, sum, out, stats};
    return stream->device->ops->call(stream, run_norm, &job, sizeof job, "norm");
}

/* ---- backward ---- */

struct back_job {
    struct cm_norm norm;
    const void *dout, *x, *weight, *dresidual;
    const float *stats;
    void *dx;
    float *dweight, *dbias, *parts;
    uint64_t part_rows, part_count;
};

/* What a row's gradient needs: means of dout * weight, and of that times the normalised x. */
struct back_sums {
    float plain, product;
};

/* Those means; adds the row to the sums for weight and bias on the way. */
static CM_INLINE struct back_sums sum_row(const struct back_job *job, uint64_t row,
                                          enum cm_dtype dtype, float *dweight, float *dbias)
{
    float dout_buffer[CM_BUFFER], x_buffer[CM_BUFFER], weight_buffer[CM_BUFFER];
    uint64_t columns = job->norm.columns;
    float mean = job->stats[row], scale = job->stats[job->norm.rows + row];
    float plain = 0, product = 0;
    for (uint64_t c = 0; c < columns; c += CM_BLOCK) {
        size_t count = cm_block_at(c, columns);
        uint64_t at = row * columns + c;
        const float *dout = cm_view(dtype, job->dout, at, count, dout_buffer);
        const float *x = cm_view(dtype, job->x, at, count, x_buffer);
        const float *weight = cm_view(dtype, job->weight, c, count, weight_buffer);
        float *sums = dweight + c;
        CM_SUMS(plain, product)
        for (size_t i = 0; i < count; i++) {
            float unit = (x[i] - mean) * scale;
            sums[i] += dout[i] * unit;
            plain += dout[i] * weight[i];
            product += dout[i] * weight[i] * unit;
        }
        if (dbias == NULL)
            continue;
        sums = dbias + c;
        CM_INDEPENDENT for (size_t i = 0; i < count; i++) sums[i] += dout[i];
    }
    return (struct back_sums){plain / (float)columns, product / (float)columns};
}

static CM_INLINE void write_gradient(const struct back_job *job, uint64_t row, enum cm_dtype dtype,
                                     struct back_sums sums)
{
    const void *dout = job->dout, *x = job->x, *weight = job->weight, *residual = job->dresidual;
    void *dx = job->dx;
    uint64_t columns = job->norm.columns, at = row * columns;
    float mean = job->stats[row], scale = job->stats[job->norm.rows + row];
    float off = job->norm.layer ? sums.plain : 0, product = sums.product;
    if (residual != NULL) {
        CM_INDEPENDENT for (uint64_t i = 0; i < columns; i++)
        {
            float unit = (cm_get(dtype, x, at + i) - mean) * scale;
            float weighted = cm_get(dtype, dout, at + i) * cm_get(dtype, weight, i);
            cm_put(dtype, dx, at + i,
                   cm_get(dtype, residual, at + i) + scale * (weighted - off - unit * product));
        }
    } else {
        CM_INDEPENDENT for (uint64_t i = 0; i < columns; i++)
        {
            float unit = (cm_get(dtype, x, at + i) - mean) * scale;
            float weighted = cm_get(dtype, dout, at + i) * cm_get(dtype, weight, i);
            cm_put(dtype, dx, at + i, scale * (weighted - off - unit * product));
        }
    }
}

static CM_INLINE void norm_back_parts_body(const struct back_job *job, uint64_t begin, uint64_t end,
                                           enum cm_dtype dtype)
{
    uint64_t columns = job->norm.columns;
    for (uint64_t part = begin; part < end; part++) {
        float *dweight = job->parts + 2 * part * columns;
        float *dbias = job->dbias != NULL ? dweight + columns : NULL;
        /* The parts lie in scratch, which there is. */
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
        memset(dweight, 0, (dbias != NULL ? 2 : 1) * columns * sizeof(float));
        uint64_t last = (part + 1) * job->part_rows;
        last = last < job->norm.rows ? last : job->norm.rows;
        for (uint64_t row = part * job->part_rows; row < last; row++)
            write_gradient(job, row, dtype, sum_row(job, row, dtype, dweight, dbias));
    }
}
CM_TYPED_LEVELS(norm_back_parts, struct back_job, norm.dtype)

static CM_INLINE void gather_body(const struct back_job *job, uint64_t begin, uint64_t end)
{
    uint64_t columns = job->norm.columns;
    for (uint64_t part = 0; part < job->part_count; part++) {
        const float *dweight = job->parts + 2 * part * columns;
        CM_INDEPENDENT for (uint64_t i = begin; i < end; i++) job->dweight[i] += dweight[i];
        if (job->dbias == NULL)
            continue;
        const float *dbias = dweight + columns;
        CM_INDEPENDENT for (uint64_t i = begin; i < end; i++) job->dbias[i] += dbias[i];
    }
}
CM_LEVELS(gather, struct back_job)

static enum cm_status run_norm_backward(const void *args)
{
    struct back_job job = *(const struct back_job *)args;
    uint64_t rows = job.norm.rows;
    job.part_rows = (rows + PARTS_MAX - 1) / PARTS_MAX;
    job.part_rows = job.part_rows < PART_ROWS_MIN ? PART_ROWS_MIN : job.part_rows;
    job.part_count = (rows + job.part_rows - 1) / job.part_rows;
    cm_team_run(norm_back_parts, &job, job.part_count, 1);
    cm_team_run(gather, &job, job.norm.columns, GRAIN_COLUMNS);
    return CM_OK;
}

enum cm_status cm_cpu_norm_backward(struct cm_stream *stream, const struct cm_norm *norm,
                                    const void *dout, const void *x, const void *weight,
                                    const float *stats, const void *dresidual, void *dx,
                                    float *dweight, float *dbias, void *scratch)
{
    struct back_job job = {.norm = *norm,
                           .dout = dout,
                           .x = x,
                           .weight = weight,
                           .dresidual = dresidual,
                           .stats = stats,
                           .dx = dx,
                           .dweight = dweight,
                           .dbias = dbias,
                           .parts = scratch};
    return stream->device->ops->call(stream, run_norm_backward, &job, sizeof job, "norm_backward");
}
