/*
 * trainstep: who computes attention: this project's kernels, or a library of the device. Both are
 * timed where the step has it, on the step's own buffers, and the faster one is taken by all ranks:
 * a step is as slow as its slowest rank.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/kernels.h"
#include "clustermark/train_kernels.h"
#include "host/workload/trainstep.h"

enum { ROUNDS = 3, OWN = 0, LIBRARY = 1, WAYS = 2 };

/* What one rank found. */
struct trial {
    double seconds[WAYS]; /* of all attention of a step */
    bool refused;
    char reason[160]; /* why */
    char version[CM_LIBRARY_VERSION_MAX];
};

struct timer {
    struct cm_trainstep_state *state;
    struct cm_event *start, *end;
};

static bool is_attention(const struct cm_bound_op *bound)
{
    return bound->op->kind == CM_OP_ATTENTION || bound->op->kind == CM_OP_ATTENTION_BACKWARD;
}

static void use(struct cm_trainstep_state *state, const struct cm_attention_library *library)
{
    for (uint32_t i = 0; i < state->schedule.op_count; i++) {
        if (is_attention(&state->executor.ops[i]))
            state->executor.ops[i].u.by = library;
    }
}

static void release(struct cm_trainstep_state *state, const struct cm_attention_library *library)
{
    for (uint32_t i = 0; i < state->schedule.op_count; i++) {
        if (is_attention(&state->executor.ops[i]))
            library->release(state->context->device, &state->schedule.ops[i].u.attention);
    }
}

/* What the library refuses, or fails in, is a reason to go on without it. */
static enum cm_status note(struct trial *trial, enum cm_status status)
{
    if (status != CM_UNSUPPORTED)
        return status;
    trial->refused = true;
    snprintf(trial->reason, sizeof trial->reason, "%s", cm_error_text());
    return CM_OK;
}

static enum cm_status prepare(struct cm_trainstep_state *state,
                              const struct cm_attention_library *library, struct trial *trial)
{
    enum cm_status status = CM_OK;
    for (uint32_t i = 0; i < state->schedule.op_count && status == CM_OK && !trial->refused; i++) {
        if (is_attention(&state->executor.ops[i]))
            status =
                note(trial, library->prepare(state->context->device,
                                             &state->schedule.ops[i].u.attention, trial->version));
    }
    return status;
}

/* ---- times ---- */

/* Random numbers, as attention will read: what a GPU draws depends on the bits. */
static enum cm_status fill(const struct timer *timer, const struct cm_bound_op *bound)
{
    const struct cm_attention *a = &bound->op->u.attention;
    uint64_t rows = (uint64_t)a->batch * a->q_length, keys = (uint64_t)a->batch * a->k_length;
    uint64_t width = (uint64_t)a->heads * a->head_size;
    uint64_t kv_width = (uint64_t)a->kv_heads * a->head_size;
    const struct {
        void *at;
        uint64_t count;
    } inputs[] = {
        {bound->at[0], (rows - 1) * a->q_stride + width},
        {bound->at[1], (keys - 1) * a->kv_stride + kv_width},
        {bound->at[2], (keys - 1) * a->kv_stride + kv_width},
        {bound->at[5], (rows - 1) * a->o_stride + width},
    };
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs && status == CM_OK; i++)
        status = bound->kernels->fill_normal(timer->state->context->stream, inputs[i].at,
                                             inputs[i].count, a->dtype, i + 1, 0);
    return status;
}

/* The kernel alone, forward or backward on the operands of a gradient. */
static enum cm_status time_one(const struct timer *timer, const struct cm_bound_op *bound,
                               const struct cm_attention_library *library, enum cm_op_kind kind,
                               double *seconds)
{
    struct cm_context *context = timer->state->context;
    const struct cm_device_ops *device = context->device->ops;
    struct cm_bound_op op = *bound;
    const struct cm_moment moment = {.step = 1};
    op.u.by = library;
    enum cm_status status = device->event_record(timer->start, context->stream);
    if (status == CM_OK)
        status = cm_op_function(kind)(&op, &moment);
    if (status == CM_OK)
        status = device->event_record(timer->end, context->stream);
    enum cm_status synced = cm_context_sync(context);
    if (synced != CM_OK)
        return synced;
    if (status == CM_DEVICE && library != NULL) /* alone: the device is well */
        return CM_UNSUPPORTED;
    return status == CM_OK ? device->elapsed(timer->start, timer->end, seconds) : status;
}

/* All attention of a rank has one shape. A round goes through both ways, and the first does not
 * count. */
static enum cm_status time_both(const struct timer *timer,
                                const struct cm_attention_library *library, struct trial *trial)
{
    static const enum cm_op_kind kinds[] = {CM_OP_ATTENTION, CM_OP_ATTENTION_BACKWARD};
    const struct cm_schedule *schedule = &timer->state->schedule;
    const struct cm_bound_op *gradient = NULL;
    double counts[2] = {0}, best[WAYS][2] = {{(double)INFINITY, (double)INFINITY},
                                             {(double)INFINITY, (double)INFINITY}};
    for (uint32_t i = 0; i < schedule->op_count; i++) {
        for (int k = 0; k < 2; k++)
            counts[k] += schedule->ops[i].kind == kinds[k];
        if (schedule->ops[i].kind == CM_OP_ATTENTION_BACKWARD)
            gradient = &timer->state->executor.ops[i];
    }
    if (gradient == NULL)
        return CM_OK;
    enum cm_status status = fill(timer, gradient);
    for (int i = 0; i < (ROUNDS + 1) * WAYS * 2 && status == CM_OK; i++) {
        int way = i / 2 % WAYS, direction = i % 2;
        double seconds = 0;
        status =
            time_one(timer, gradient, way == LIBRARY ? library : NULL, kinds[direction], &seconds);
        if (i >= WAYS * 2)
            best[way][direction] = fmin(best[way][direction], seconds);
    }
    for (int way = 0; way < WAYS && status == CM_OK; way++)
        trial->seconds[way] = counts[0] * best[way][0] + counts[1] * best[way][1];
    return status;
}

static enum cm_status try_library(struct cm_trainstep_state *state,
                                  const struct cm_attention_library *library, struct trial *trial)
{
    struct cm_device *device = state->context->device;
    struct timer timer = {.state = state};
    enum cm_status status = prepare(state, library, trial);
    if (status != CM_OK || trial->refused)
        return status;
    status = device->ops->event_create(device, &timer.start);
    if (status == CM_OK)
        status = device->ops->event_create(device, &timer.end);
    if (status == CM_OK)
        status = time_both(&timer, library, trial);
    status = note(trial, status);
    device->ops->event_destroy(timer.end);
    device->ops->event_destroy(timer.start);
    return status;
}

/* ---- the choice ---- */

/* Of all ranks: the longest times, and the first one's reason. */
static enum cm_status agree(const struct cm_trainstep_state *state, struct trial *trial)
{
    const void *all;
    enum cm_status status = cm_context_gather(state->context, trial, sizeof *trial, &all);
    const struct trial *of_ranks = status == CM_OK ? all : NULL;
    for (unsigned rank = 0; of_ranks != NULL && rank < state->context->comm->size; rank++) {
        const struct trial *one = &of_ranks[rank];
        for (int way = 0; way < WAYS; way++)
            trial->seconds[way] = fmax(trial->seconds[way], one->seconds[way]);
        if (one->refused) {
            *trial = *one;
            return CM_OK;
        }
    }
    return status;
}

static void tell(struct cm_trainstep_state *state, const struct trial *trial)
{
    size_t length = strlen(state->label);
    char *end = state->label + length;
    if (trial->refused)
        snprintf(end, sizeof state->label - length, "; own attention: %s", trial->reason);
    else if (state->library != NULL)
        snprintf(end, sizeof state->label - length, "; attention by %s", trial->version);
    else
        snprintf(end, sizeof state->label - length, "; own attention, faster than %s",
                 trial->version);
    if (trial->refused)
        return;
    state->observed[CM_SEEN_ATTENTION_OWN_S] = trial->seconds[OWN];
    state->observed[CM_SEEN_ATTENTION_LIBRARY_S] = trial->seconds[LIBRARY];
}

enum cm_status cm_trainstep_choose_attention(struct cm_trainstep_state *state,
                                             enum cm_attention_wanted wanted)
{
    const struct cm_device *device = state->context->device;
    const struct cm_attention_library *library = device->kernels->train->attention_library;
    struct trial trial = {.refused = false};
    if (wanted == CM_ATTENTION_OWN || (wanted == CM_ATTENTION_AUTO && library == NULL))
        return CM_OK;
    if (library == NULL)
        return cm_error(CM_UNSUPPORTED, "attention = cudnn: %s devices have no cuDNN",
                        device->ops->name);
    enum cm_status status = try_library(state, library, &trial);
    bool prepared = !trial.refused;
    if (status == CM_OK)
        status = agree(state, &trial);
    if (status != CM_OK)
        return status;
    if (trial.refused && wanted == CM_ATTENTION_CUDNN)
        status = cm_error(CM_UNSUPPORTED, "attention = cudnn: %s", trial.reason);
    bool chosen = !trial.refused &&
                  (wanted == CM_ATTENTION_CUDNN || trial.seconds[LIBRARY] < trial.seconds[OWN]);
    state->library = chosen ? library : NULL;
    use(state, state->library);
    if (!chosen && prepared)
        release(state, library);
    tell(state, &trial);
    return status;
}

void cm_trainstep_release_attention(struct cm_trainstep_state *state)
{
    if (state->library != NULL)
        release(state, state->library);
    state->library = NULL;
}
