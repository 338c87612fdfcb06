/*
 * trainstep: where GELU is computed: within the products of the feed-forward layer, where the
 * device's library can, or by a kernel after them. Both ways are timed on the step's own shapes
 * before its schedule is built, and all ranks take what is faster on the slowest of them.
 */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/kernels.h"
#include "clustermark/stats.h"
#include "clustermark/train_kernels.h"
#include "host/workload/trainstep.h"

enum { REPEATS = 5 };
enum { IN, WEIGHTS, UP, ACT, MATRICES };
enum way { KERNEL, FUSED, WAYS };

struct trial {
    struct cm_context *context;
    struct cm_gemm_desc desc;
    struct cm_event *start, *end;
    void *matrices[MATRICES];
    struct cm_gemm *gemms[WAYS];
};

/* Both directions multiply the same shapes: rows of the residual stream by a matrix of ffn rows. */
static void describe(const struct cm_step *step, struct cm_gemm_desc *desc)
{
    const struct cm_parallel *parallel = &step->parallel;
    *desc = (struct cm_gemm_desc){.dtype = step->dtype,
                                  .out_dtype = step->dtype,
                                  .m = step->model.sequence / parallel->cp * step->micro_batch,
                                  .n = step->model.ffn / parallel->tp,
                                  .k = step->model.hidden,
                                  .batch = 1,
                                  .trans_b = true};
}

static void drop_trial(struct trial *trial)
{
    struct cm_device *device = trial->context->device;
    for (unsigned i = 0; i < WAYS; i++)
        device->kernels->gemm_free(trial->gemms[i]);
    for (unsigned i = 0; i < MATRICES; i++)
        device->ops->free(device, CM_MEMORY_DEVICE, trial->matrices[i]);
    device->ops->event_destroy(trial->end);
    device->ops->event_destroy(trial->start);
}

static enum cm_status make_trial(struct trial *trial)
{
    struct cm_device *device = trial->context->device;
    const struct cm_gemm_desc *desc = &trial->desc;
    const uint64_t counts[MATRICES] = {desc->m * desc->k, desc->n * desc->k, desc->m * desc->n,
                                       desc->m * desc->n};
    enum cm_status status = device->ops->event_create(device, &trial->start);
    if (status == CM_OK)
        status = device->ops->event_create(device, &trial->end);
    for (unsigned i = 0; i < MATRICES && status == CM_OK; i++) {
        status = device->ops->alloc(device, CM_MEMORY_DEVICE,
                                    counts[i] * cm_dtype_size(desc->dtype), &trial->matrices[i]);
        if (status == CM_OK)
            status = device->kernels->fill_normal(trial->context->stream, trial->matrices[i],
                                                  counts[i], desc->dtype, i, 0);
    }
    return status;
}

/* The product and GELU, or its gradient. */
static enum cm_status queue(const struct trial *trial, bool backward, enum way way)
{
    struct cm_stream *stream = trial->context->stream;
    const struct cm_kernels *kernels = trial->context->device->kernels;
    void *const *at = trial->matrices;
    struct cm_gemm *gemm = trial->gemms[way];
    if (way == FUSED)
        return kernels->gemm_with(stream, gemm, at[IN], at[WEIGHTS], at[ACT],
                                  &(const struct cm_gemm_extras){.beside = at[UP]});
    const struct cm_activation activation = {
        .dtype = trial->desc.dtype, .rows = trial->desc.m, .columns = trial->desc.n};
    enum cm_status status =
        kernels->gemm(stream, gemm, at[IN], at[WEIGHTS], at[backward ? ACT : UP]);
    if (status != CM_OK)
        return status;
    return backward
               ? kernels->train->activation_backward(stream, &activation, at[UP], at[ACT], at[UP])
               : kernels->train->activation(stream, &activation, at[UP], at[ACT]);
}

static enum cm_status time_once(const struct trial *trial, bool backward, enum way way,
                                double *seconds)
{
    struct cm_context *context = trial->context;
    const struct cm_device_ops *device = context->device->ops;
    enum cm_status status = device->stream_hold(context->stream);
    if (status != CM_OK)
        return status;
    status = device->event_record(trial->start, context->stream);
    if (status == CM_OK)
        status = queue(trial, backward, way);
    if (status == CM_OK)
        status = device->event_record(trial->end, context->stream);
    enum cm_status released = device->stream_release(context->stream);
    status = status != CM_OK ? status : released;
    if (status == CM_OK)
        status = cm_context_sync(context);
    return status == CM_OK ? device->elapsed(trial->start, trial->end, seconds) : status;
}

/* Median seconds of both ways in turn, after a round that does not count. */
static enum cm_status time_ways(struct trial *trial, bool backward, double seconds[WAYS])
{
    struct cm_device *device = trial->context->device;
    double times[WAYS][REPEATS];
    enum cm_status status = CM_OK;
    for (unsigned way = 0; way < WAYS && status == CM_OK; way++) {
        struct cm_gemm_desc desc = trial->desc;
        desc.epilogue = way == KERNEL ? CM_EPILOGUE_NONE
                        : backward    ? CM_EPILOGUE_GELU_BACKWARD
                                      : CM_EPILOGUE_GELU;
        device->kernels->gemm_free(trial->gemms[way]);
        trial->gemms[way] = NULL;
        status = device->kernels->gemm_plan(device, &desc, &trial->gemms[way]);
    }
    for (int i = -1; i < REPEATS; i++)
        for (unsigned way = 0; way < WAYS && status == CM_OK; way++)
            status = time_once(trial, backward, (enum way)way, &times[way][i < 0 ? 0 : i]);
    for (unsigned way = 0; way < WAYS && status == CM_OK; way++)
        seconds[way] = cm_median(times[way], REPEATS);
    return status;
}

/* Of both directions on this rank; INFINITY where there is no such way. */
static enum cm_status time_directions(struct cm_context *context, const struct cm_step *step,
                                      double seconds[2][WAYS])
{
    struct trial trial = {.context = context};
    describe(step, &trial.desc);
    enum cm_status status = make_trial(&trial);
    for (unsigned backward = 0; backward < 2 && status == CM_OK; backward++)
        status = time_ways(&trial, backward != 0, seconds[backward]);
    enum cm_status synced = cm_context_sync(context);
    status = status != CM_OK ? status : synced;
    drop_trial(&trial);
    if (status == CM_OK)
        return CM_OK;
    for (unsigned backward = 0; backward < 2; backward++)
        seconds[backward][FUSED] = (double)INFINITY;
    if (status != CM_UNSUPPORTED && status != CM_NO_MEMORY)
        return status;
    cm_error_clear();
    return CM_OK;
}

enum cm_status cm_trainstep_choose_gelu(struct cm_context *context, enum cm_gelu_way way,
                                        struct cm_step *step)
{
    double own[2][WAYS] = {{0}}, slowest[2][WAYS] = {{0}};
    const void *all;
    step->gelu_fused = step->gelu_backward_fused = way == CM_GELU_FUSED;
    if (way != CM_GELU_AUTO || step->fp8 || context->device->ops->is_host ||
        step->model.experts > 0 || step->model.activation != CM_ACTIVATION_GELU)
        return CM_OK;
    enum cm_status timed = time_directions(context, step, own);
    enum cm_status status = cm_context_gather(context, own, sizeof own, &all);
    for (unsigned rank = 0; status == CM_OK && rank < context->comm->size; rank++) {
        double theirs[2][WAYS];
        memcpy(theirs, (const char *)all + rank * sizeof theirs, sizeof theirs);
        for (unsigned i = 0; i < 2 * WAYS; i++)
            slowest[i / WAYS][i % WAYS] =
                fmax(slowest[i / WAYS][i % WAYS], theirs[i / WAYS][i % WAYS]);
    }
    step->gelu_fused = slowest[0][FUSED] < slowest[0][KERNEL];
    step->gelu_backward_fused = slowest[1][FUSED] < slowest[1][KERNEL];
    return timed != CM_OK ? timed : status;
}
