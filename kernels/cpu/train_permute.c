/* Mixture of experts: rows of tokens into slots of experts, and back. */
#include "kernels/cpu/train.h"

struct job {
    struct cm_route route;
    const void *x, *slots;
    const int32_t *slot;
    const float *weight;
    void *out;
    float *dweight;
    int32_t *owner; /* of each slot: row * top_k + choice, or -1 */
};

static uint64_t slot_count(const struct cm_route *route)
{
    return route->experts * route->capacity;
}

static void clear_owners(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    memset(job->owner + begin, -1, (end - begin) * sizeof *job->owner);
}

/* No slot belongs to two. */
static void enter_owners(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    for (uint64_t i = begin; i < end; i++) {
        if (job->slot[i] >= 0)
            job->owner[job->slot[i]] = (int32_t)i;
        else if (job->dweight != NULL)
            job->dweight[i] = 0;
    }
}

static void find_owners(struct job *job)
{
    cm_team_run(clear_owners, job, slot_count(&job->route), CM_GRAIN);
    cm_team_run(enter_owners, job, job->route.rows * job->route.top_k, CM_GRAIN);
}

/* ---- permute ---- */

static void gather_slots(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    size_t size = job->route.columns * cm_dtype_size(job->route.dtype);
    for (uint64_t slot = begin; slot < end; slot++) {
        char *to = (char *)job->out + slot * size;
        if (job->owner[slot] < 0)
            memset(to, 0, size);
        else
            memcpy(to, (const char *)job->x + (uint64_t)job->owner[slot] / job->route.top_k * size,
                   size);
    }
}

static enum cm_status run_permute(const void *args)
{
    struct job job = *(const struct job *)args;
    find_owners(&job);
    cm_team_run(gather_slots, &job, slot_count(&job.route), cm_row_grain(job.route.columns));
    return CM_OK;
}

enum cm_status cm_cpu_permute(struct cm_stream *stream, const struct cm_route *route, const void *x,
                              const int32_t *slot, void *out, void *scratch)
{
    struct job job = {.route = *route, .x = x, .slot = slot, .out = out, .owner = scratch};
    return stream->device->ops->call(stream, run_permute, &job, sizeof job, "permute");
}

/* ---- unpermute ---- */

static CM_INLINE void sum_rows_body(const struct job *job, uint64_t begin, uint64_t end)
{
    enum cm_dtype dtype = job->route.dtype;
    uint64_t columns = job->route.columns, top_k = job->route.top_k;
    float buffer[CM_BUFFER], sum[CM_BUFFER];
    for (uint64_t row = begin; row < end; row++) {
        for (uint64_t c = 0; c < columns; c += CM_BLOCK) {
            size_t count = cm_block_at(c, columns);
            memset(sum, 0, count * sizeof *sum);
            for (uint64_t j = row * top_k; j < (row + 1) * top_k; j++) {
                if (job->slot[j] < 0)
                    continue;
                uint64_t at = (uint64_t)job->slot[j] * columns + c;
                const float *part = cm_view(dtype, job->slots, at, count, buffer);
                float weight = job->weight != NULL ? job->weight[j] : 1;
                CM_INDEPENDENT for (size_t i = 0; i < count; i++) sum[i] += weight * part[i];
            }
            if (dtype == CM_F32)
                memcpy((float *)job->out + row * columns + c, sum, count * sizeof *sum);
            cm_keep(dtype, job->out, row * columns + c, count, sum);
        }
    }
}
CM_LEVELS(sum_rows, struct job)

static enum cm_status run_unpermute(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(sum_rows, &job, job.route.rows, cm_row_grain(job.route.columns));
    return CM_OK;
}

enum cm_status cm_cpu_unpermute(struct cm_stream *stream, const struct cm_route *route,
                                const void *slots, const int32_t *slot, const float *weight,
                                void *out)
{
    struct job job = {.route = *route, .slots = slots, .slot = slot, .weight = weight, .out = out};
    return stream->device->ops->call(stream, run_unpermute, &job, sizeof job, "unpermute");
}

/* ---- its gradient ---- */

/* One slot that somebody has. */
static CM_INLINE float back_slot(const struct job *job, uint64_t slot, uint64_t row, float weight)
{
    enum cm_dtype dtype = job->route.dtype;
    uint64_t columns = job->route.columns;
    float dout_buffer[CM_BUFFER], slot_buffer[CM_BUFFER], out_buffer[CM_BUFFER], product = 0;
    for (uint64_t c = 0; c < columns; c += CM_BLOCK) {
        size_t count = cm_block_at(c, columns);
        uint64_t at = slot * columns + c;
        const float *dout = cm_view(dtype, job->x, row * columns + c, count, dout_buffer);
        const float *value = cm_view(dtype, job->slots, at, count, slot_buffer);
        CM_SUMS(product)
        for (size_t i = 0; i < count; i++)
            product += dout[i] * value[i];
        float *out = cm_place(dtype, job->out, at, out_buffer);
        CM_INDEPENDENT for (size_t i = 0; i < count; i++) out[i] = weight * dout[i];
        cm_keep(dtype, job->out, at, count, out);
    }
    return product;
}

static CM_INLINE void back_slots_body(const struct job *job, uint64_t begin, uint64_t end)
{
    size_t size = job->route.columns * cm_dtype_size(job->route.dtype);
    for (uint64_t slot = begin; slot < end; slot++) {
        if (job->owner[slot] < 0) {
            memset((char *)job->out + slot * size, 0, size);
            continue;
        }
        uint64_t owner = (uint64_t)job->owner[slot];
        job->dweight[owner] = back_slot(job, slot, owner / job->route.top_k, job->weight[owner]);
    }
}
CM_LEVELS(back_slots, struct job)

static enum cm_status run_unpermute_backward(const void *args)
{
    struct job job = *(const struct job *)args;
    find_owners(&job);
    cm_team_run(back_slots, &job, slot_count(&job.route), cm_row_grain(job.route.columns));
    return CM_OK;
}

enum cm_status cm_cpu_unpermute_backward(struct cm_stream *stream, const struct cm_route *route,
                                         const void *dout, const void *slots, const int32_t *slot,
                                         const float *weight, void *dslots, float *dweight,
                                         void *scratch)
{
    struct job job = {.route = *route,
                      .x = dout,
                      .slots = slots,
                      .slot = slot,
                      .weight = weight,
                      .out = dslots,
                      .dweight = dweight,
                      .owner = scratch};
    return stream->device->ops->call(stream, run_unpermute_backward, &job, sizeof job,
                                     "unpermute_backward");
}
