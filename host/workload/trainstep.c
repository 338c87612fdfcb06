/*
 * trainstep: a whole training step of a transformer: forward, backward, optimizer, over all ranks.
 *
 * What one step is, a schedule says (schedule.h); this file makes it run. Every step trains on the
 * same batch. Parts:
 *
 *   step      the whole, whose loss is kept after each step
 *   no_comm   the same without communication, where there are several ranks: what communication
 *             costs is the difference
 *
 * Before each timed series the state is that of before the first step, so the first loss of every
 * series is the same. The check (trainstep_check.c) holds the losses against what they must be;
 * then one more step is taken apart by events (trainstep_profile.c), and what it does is timed
 * alone (trainstep_ceiling.c).
 */
#include "host/workload/trainstep.h"
#include "host/workload/slow_ranks.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/kernels.h"

size_t cm_trainstep_slot(uint64_t iteration)
{
    return iteration == 0 ? 0 : (size_t)(1 + (iteration - 1) % (CM_HISTORY - 1));
}

static enum cm_status make_history(struct cm_trainstep_state *state)
{
    struct cm_context *context = state->context;
    const uint64_t bytes = CM_HISTORY * sizeof(struct cm_step_result);
    void *history = NULL, *host = NULL, *meeting = NULL;
    enum cm_status status = cm_context_alloc(context, CM_MEMORY_DEVICE, bytes, &history);
    if (status == CM_OK)
        status = cm_context_alloc(context, CM_MEMORY_HOST, bytes, &host);
    if (status == CM_OK)
        status = cm_context_alloc(context, CM_MEMORY_COMM, sizeof(double), &meeting);
    if (status == CM_OK)
        status = cm_context_output(context, history, bytes);
    state->history = history;
    state->host_history = host;
    state->meeting = meeting;
    return status;
}

/* What a step computes before it is read: a number that was not would be found in the loss. */
static enum cm_status declare_outputs(struct cm_trainstep_state *state)
{
    const struct cm_schedule *schedule = &state->schedule;
    enum cm_status status = CM_OK;
    for (uint32_t i = 0; i < schedule->buffer_count && status == CM_OK; i++) {
        const struct cm_buffer *buffer = &schedule->buffers[i];
        bool made = buffer->use == CM_USE_ACTIVATIONS || buffer->use == CM_USE_LOGITS ||
                    buffer->use == CM_USE_WORKSPACE;
        if (made && buffer->size_bytes > 0)
            status =
                cm_context_output(state->context, state->executor.buffers[i], buffer->size_bytes);
    }
    return status;
}

/* Where GELU is computed, unless by a kernel. */
static const char *gelu_note(const struct cm_step *step)
{
    static const char *const notes[2][2] = {{"", "; gelu fused backward"},
                                            {"; gelu fused forward", "; gelu fused"}};
    bool has = step->model.activation == CM_ACTIVATION_GELU && step->model.experts == 0;
    return has ? notes[step->gelu_fused][step->gelu_backward_fused] : "";
}

void cm_trainstep_label(const struct cm_step *step, char *label, size_t size)
{
    struct cm_str plan = CM_STR_INIT;
    char model[64];
    cm_transformer_label(&step->model, model, sizeof model);
    cm_parallel_write(&step->parallel, &plan);
    snprintf(label, size, "%s; %.30s%s", model, cm_str_text(&plan),
             step->fp8 ? "; fp8" : gelu_note(step));
    cm_str_release(&plan);
}

static enum cm_status trainstep_setup(struct cm_context *context, const void *params, void *memory)
{
    struct cm_trainstep_state *state = memory;
    state->context = context;
    enum cm_status status = cm_trainstep_build(context, params, &state->step, &state->schedule);
    if (status != CM_OK)
        return status;
    cm_trainstep_label(&state->step, state->label, sizeof state->label);
    status = make_history(state);
    if (status == CM_OK)
        status = cm_executor_open(context, &state->schedule, context->seed, &state->executor);
    if (status == CM_OK)
        status = declare_outputs(state);
    if (status == CM_OK)
        status = cm_initialiser_open(&state->executor, &state->initialiser);
    if (status == CM_OK)
        status = cm_trainstep_choose_attention(
            state,
            (enum cm_attention_wanted)((const struct cm_trainstep_params *)params)->attention);
    return status == CM_OK ? cm_initialise(&state->executor, &state->initialiser) : status;
}

static unsigned trainstep_part_count(const void *memory)
{
    const struct cm_trainstep_state *state = memory;
    return state->context->comm->size > 1 ? 2 : 1;
}

void cm_trainstep_name_part(unsigned index, struct cm_part *part)
{
    snprintf(part->name, sizeof part->name, "%s", index == CM_TRAIN_STEP ? "step" : "no_comm");
}

static void trainstep_part(const void *memory, unsigned index, struct cm_part *part)
{
    if (trainstep_part_count(memory) > 1)
        cm_trainstep_name_part(index, part);
}

enum cm_status cm_trainstep_restart(struct cm_trainstep_state *state)
{
    uint64_t unused;
    enum cm_status status = cm_initialise(&state->executor, &state->initialiser);
    return status == CM_OK ? cm_context_memory_left(state->context, &unused) : status;
}

/* Without communication what others would send is missing: then memory holds what a whole step
 * left, not poison, which takes other power to compute with. */
static enum cm_status trainstep_begin(void *memory, unsigned part)
{
    struct cm_trainstep_state *state = memory;
    enum cm_status status = cm_trainstep_restart(state);
    if (part == CM_TRAIN_NO_COMM && status == CM_OK)
        status = cm_executor_enqueue(&state->executor, 1, CM_EXTENT_STEP);
    if (part == CM_TRAIN_NO_COMM && status == CM_OK)
        status = cm_context_sync(state->executor.context);
    return status;
}

enum cm_status cm_trainstep_queue(struct cm_trainstep_state *state, uint64_t iteration,
                                  enum cm_extent extent)
{
    const struct cm_device_ops *device = state->context->device->ops;
    struct cm_stream *stream = state->context->stream;
    struct cm_step_result *result = &state->history[cm_trainstep_slot(iteration)];
    enum cm_status status =
        cm_executor_enqueue(&state->executor, (uint32_t)(iteration + 1), extent);
    if (status == CM_OK)
        status = device->copy(stream, &result->loss,
                              cm_executor_at(&state->executor, state->schedule.loss),
                              sizeof result->loss);
    if (status == CM_OK)
        status = device->copy(stream, &result->square,
                              cm_executor_at(&state->executor, state->schedule.gradient_norm),
                              sizeof result->square);
    return status;
}

static enum cm_status trainstep_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    return cm_trainstep_queue(memory, iteration,
                              part == CM_TRAIN_STEP ? CM_EXTENT_STEP : CM_EXTENT_NO_COMM);
}

static void trainstep_work(const void *memory, unsigned part, struct cm_work *work)
{
    const struct cm_trainstep_state *state = memory;
    for (uint32_t i = 0; i < state->schedule.op_count; i++) {
        const struct cm_op *op = &state->schedule.ops[i];
        bool message = cm_op_infos[op->kind].class == CM_CLASS_COMM;
        work->flops += op->flops;
        if (!message)
            work->bytes += op->bytes;
        else if (part == CM_TRAIN_STEP)
            work->message_bytes += op->bytes;
    }
}

static const char *trainstep_algorithm(const void *memory)
{
    return ((const struct cm_trainstep_state *)memory)->label;
}

static void trainstep_observe(const void *memory, double observed[CM_OBSERVED_MAX])
{
    const struct cm_trainstep_state *state = memory;
    memcpy(observed, state->observed, sizeof state->observed);
}

static void trainstep_teardown(void *memory)
{
    struct cm_trainstep_state *state = memory;
    if (state->context == NULL)
        return;
    cm_trainstep_release_attention(state);
    cm_executor_close(&state->executor);
    cm_schedule_release(&state->schedule);
}

/* Without communication a rank waits for nobody. Stages of a pipeline have different work, and are
 * not held against each other. */
static enum cm_status trainstep_find(const void *memory, const struct cm_part_samples *parts,
                                     unsigned part_count, struct cm_suspects *suspects,
                                     struct cm_metrics *metrics)
{
    const struct cm_trainstep_state *state = memory;
    (void)metrics;
    if (part_count <= CM_TRAIN_NO_COMM || state->step.parallel.pp > 1)
        return CM_OK;
    return cm_slow_ranks_find(&parts[CM_TRAIN_NO_COMM], "computing a training step", suspects);
}

const struct cm_workload cm_workload_trainstep = {
    .name = "trainstep",
    .summary = "a training step of a transformer: forward, backward, optimizer, over all ranks",
    .options = cm_trainstep_options,
    .params_size = sizeof(struct cm_trainstep_params),
    .state_size = sizeof(struct cm_trainstep_state),
    .headline = "tokens_per_s",
    .validate = cm_trainstep_validate,
    .explain = cm_trainstep_explain,
    .spread = cm_trainstep_spread,
    .simulate = cm_trainstep_simulate,
    .setup = trainstep_setup,
    .part_count = trainstep_part_count,
    .part = trainstep_part,
    .begin = trainstep_begin,
    .enqueue = trainstep_enqueue,
    .work = trainstep_work,
    .check = cm_trainstep_check,
    .algorithm = trainstep_algorithm,
    .observe = trainstep_observe,
    .find = trainstep_find,
    .teardown = trainstep_teardown,
    .metrics = cm_trainstep_metrics,
};
