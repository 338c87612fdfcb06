/*
 * trainstep: where a step's time goes: one step with an event after each operation, on every lane.
 * The time of an operation is from the event before it on its lane to its own, so a wait's is how
 * long the lane stood still.
 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/workload/trainstep.h"

enum { PASSES = 3 };

/* After each operation, and one before the first of each lane. */
struct marks {
    struct cm_device *device;
    struct cm_event **after, *before[CM_LANE_COUNT];
    uint32_t count;
    enum cm_lane *recorded_on; /* scratch, by event of the schedule */
};

static void drop_marks(struct marks *marks)
{
    for (uint32_t i = 0; marks->after != NULL && i < marks->count; i++)
        marks->device->ops->event_destroy(marks->after[i]);
    for (enum cm_lane lane = 0; lane < CM_LANE_COUNT; lane++)
        marks->device->ops->event_destroy(marks->before[lane]);
    cm_free(marks->after);
    cm_free(marks->recorded_on);
}

static enum cm_status make_marks(const struct cm_executor *executor, struct marks *marks)
{
    const struct cm_schedule *schedule = executor->schedule;
    *marks = (struct marks){.device = executor->context->device, .count = schedule->op_count};
    marks->after = cm_alloc(marks->count, sizeof(struct cm_event *));
    marks->recorded_on = cm_alloc(schedule->event_count, sizeof *marks->recorded_on);
    enum cm_status status =
        marks->after != NULL && marks->recorded_on != NULL ? CM_OK : CM_NO_MEMORY;
    for (uint32_t i = 0; i < marks->count && status == CM_OK; i++)
        status = marks->device->ops->event_create(marks->device, &marks->after[i]);
    for (enum cm_lane lane = 0; lane < CM_LANE_COUNT && status == CM_OK; lane++)
        status = marks->device->ops->event_create(marks->device, &marks->before[lane]);
    return status;
}

static enum cm_status queue_marked(struct cm_executor *executor, struct marks *marks, uint32_t step)
{
    const struct cm_device_ops *device = marks->device->ops;
    bool begun[CM_LANE_COUNT] = {false};
    enum cm_status status = CM_OK;
    for (uint32_t i = 0; i < marks->count && status == CM_OK; i++) {
        enum cm_lane lane = executor->schedule->ops[i].lane;
        struct cm_stream *stream = executor->streams[lane];
        if (!begun[lane])
            status = device->event_record(marks->before[lane], stream);
        begun[lane] = true;
        if (status == CM_OK)
            status = cm_executor_enqueue_op(executor, i, step);
        if (status == CM_OK)
            status = device->event_record(marks->after[i], stream);
    }
    return status;
}

static double host_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The ranks begin together, each with the whole step queued; without marks *queue_s is the host's
 * time for that. */
static enum cm_status run_held(struct cm_trainstep_state *state, struct marks *marks, uint32_t step,
                               double *queue_s)
{
    struct cm_context *context = state->context;
    const struct cm_device_ops *device = context->device->ops;
    enum cm_status status = device->stream_hold(context->stream);
    if (status != CM_OK)
        return status;
    status = context->comm->ops->all_reduce(context->comm, context->stream, state->meeting,
                                            state->meeting, 1, CM_F64, CM_REDUCE_MAX);
    double begin_s = host_now_s();
    if (status == CM_OK)
        status = marks != NULL ? queue_marked(&state->executor, marks, step)
                               : cm_executor_enqueue(&state->executor, step, CM_EXTENT_STEP);
    if (marks == NULL)
        *queue_s = host_now_s() - begin_s;
    enum cm_status released = device->stream_release(context->stream);
    return cm_context_finish(context, status == CM_OK ? released : status);
}

static unsigned wait_kind(enum cm_lane lane)
{
    return lane == CM_LANE_LAYER  ? CM_WAIT_LAYER
           : lane == CM_LANE_DATA ? CM_WAIT_DATA
                                  : CM_WAIT_PIPELINE;
}

static void count_time(const struct cm_op *op, enum cm_lane recorded_on, double time_s,
                       double *figures)
{
    enum cm_op_class class = cm_op_infos[op->kind].class;
    if (class == CM_CLASS_COMM) {
        enum cm_group group = op->u.comm.group;
        figures[CM_SEEN_COMM_S + (group < CM_TRAIN_GROUPS ? group : CM_TRAIN_GROUPS - 1)] += time_s;
    }
    if (op->lane != CM_LANE_COMPUTE)
        return;
    if (op->kind == CM_OP_WAIT && recorded_on != CM_LANE_COMPUTE)
        figures[CM_SEEN_WAIT_S + wait_kind(recorded_on)] += time_s;
    if (class == CM_CLASS_SYNC)
        return;
    figures[CM_SEEN_BUSY_S] += time_s;
    figures[CM_SEEN_PHASE_S + op->phase] += time_s;
    figures[CM_SEEN_CLASS_S + class] += time_s;
}

static enum cm_status read_marks(const struct cm_schedule *schedule, struct marks *marks,
                                 double *figures)
{
    struct cm_event *last[CM_LANE_COUNT];
    enum cm_status status = CM_OK;
    memcpy(last, marks->before, sizeof last);
    for (uint32_t i = 0; i < schedule->op_count && status == CM_OK; i++) {
        const struct cm_op *op = &schedule->ops[i];
        bool synchronises = op->kind == CM_OP_RECORD || op->kind == CM_OP_WAIT;
        double time_s = 0;
        status = marks->device->ops->elapsed(last[op->lane], marks->after[i], &time_s);
        last[op->lane] = marks->after[i];
        if (op->kind == CM_OP_RECORD)
            marks->recorded_on[op->event] = op->lane;
        count_time(op, synchronises ? marks->recorded_on[op->event] : CM_LANE_COMPUTE, time_s,
                   figures);
    }
    if (status == CM_OK)
        status = marks->device->ops->elapsed(marks->before[CM_LANE_COMPUTE], last[CM_LANE_COMPUTE],
                                             &figures[CM_SEEN_PROFILE_S]);
    return status;
}

enum cm_status cm_trainstep_time_queueing(struct cm_trainstep_state *state, uint32_t step,
                                          double *seconds)
{
    double times[PASSES];
    enum cm_status status = CM_OK;
    for (uint32_t pass = 0; pass < PASSES && status == CM_OK; pass++)
        status = run_held(state, NULL, step + pass, &times[pass]);
    if (status == CM_OK)
        *seconds = cm_median(times, PASSES);
    return status;
}

enum cm_status cm_trainstep_profile(struct cm_trainstep_state *state, uint32_t step,
                                    double figures[CM_SEEN_COUNT])
{
    struct marks marks;
    double passes[CM_SEEN_COUNT][PASSES] = {{0}};
    uint64_t unused;
    enum cm_status status = make_marks(&state->executor, &marks);
    if (status == CM_OK) /* nobody begins before all can */
        status = cm_context_memory_left(state->context, &unused);
    for (uint32_t pass = 0; pass < PASSES && status == CM_OK; pass++) {
        double one[CM_SEEN_COUNT] = {0};
        status = run_held(state, &marks, step + pass, NULL);
        if (status == CM_OK)
            status = read_marks(&state->schedule, &marks, one);
        for (unsigned i = 0; i < CM_SEEN_COUNT; i++)
            passes[i][pass] = one[i];
    }
    for (unsigned i = CM_SEEN_PROFILE_S; i < CM_SEEN_COUNT && status == CM_OK; i++)
        figures[i] = cm_median(passes[i], PASSES);
    drop_marks(&marks);
    return status;
}

/* ---- over all ranks ---- */

static const double *of_rank(const void *all, unsigned rank)
{
    return (const double *)all + (size_t)rank * CM_SEEN_COUNT;
}

/* Who computed longest, waiting taken off: the others wait for that one. */
static enum cm_status find_straggler(struct cm_trainstep_state *state, const void *all)
{
    unsigned size = state->context->comm->size, worst = 0;
    double *busy_s = cm_alloc(size, sizeof *busy_s);
    if (busy_s == NULL)
        return CM_NO_MEMORY;
    for (unsigned rank = 0; rank < size; rank++) {
        busy_s[rank] = of_rank(all, rank)[CM_SEEN_BUSY_S];
        worst = busy_s[rank] > busy_s[worst] ? rank : worst;
    }
    state->observed[CM_SEEN_BUSY_WORST_S] = busy_s[worst];
    state->observed[CM_SEEN_BUSY_MEDIAN_S] = cm_median(busy_s, size);
    state->observed[CM_SEEN_BUSY_RANK] = worst;
    cm_free(busy_s);
    return CM_OK;
}

static enum cm_status agree(struct cm_trainstep_state *state, const double own[CM_SEEN_COUNT])
{
    static const unsigned largest[] = {CM_SEEN_PREDICTED, CM_SEEN_PEAK, CM_SEEN_CEILING_S,
                                       CM_SEEN_QUEUE_S, CM_SEEN_PROFILE_S};
    unsigned size = state->context->comm->size;
    double *seen = state->observed;
    const void *all;
    enum cm_status status =
        cm_context_gather(state->context, own, CM_SEEN_COUNT * sizeof *own, &all);
    if (status != CM_OK)
        return status;
    for (unsigned i = CM_SEEN_BUSY_S; i < CM_SEEN_COUNT; i++) {
        seen[i] = 0;
        for (unsigned rank = 0; rank < size; rank++)
            seen[i] += of_rank(all, rank)[i] / size;
    }
    for (size_t i = 0; i < sizeof largest / sizeof *largest; i++) {
        seen[largest[i]] = 0;
        for (unsigned rank = 0; rank < size; rank++)
            seen[largest[i]] = fmax(seen[largest[i]], of_rank(all, rank)[largest[i]]);
    }
    return find_straggler(state, all);
}

void cm_trainstep_count(const struct cm_step *step, double seen[CM_SEEN_COUNT])
{
    const struct cm_parallel *parallel = &step->parallel;
    struct cm_token_flops flops;
    cm_transformer_flops(&step->model, &flops);
    seen[CM_SEEN_TOKENS] = (double)parallel->dp * (double)step->micro_batches *
                           (double)step->micro_batch * (double)step->model.sequence;
    seen[CM_SEEN_FLOPS_FULL] = flops.full * seen[CM_SEEN_TOKENS];
    seen[CM_SEEN_FLOPS_CAUSAL] = flops.causal * seen[CM_SEEN_TOKENS];
    seen[CM_SEEN_LAYERS] = (double)step->model.layers;
    double idle = parallel->pp - 1, pieces = (double)step->micro_batches * (double)parallel->vpp;
    seen[CM_SEEN_BUBBLE_FORMULA] = idle / (pieces + idle);
}

enum cm_status cm_trainstep_observe(struct cm_trainstep_state *state, uint32_t step)
{
    double own[CM_SEEN_COUNT] = {0};
    uint64_t by_use[CM_USE_COUNT], predicted = 0;
    cm_trainstep_count(&state->step, state->observed);
    cm_schedule_memory(&state->schedule, by_use, &predicted);
    own[CM_SEEN_PREDICTED] = (double)predicted;
    own[CM_SEEN_PEAK] = (double)cm_context_memory_used(state->context);
    enum cm_status status = cm_trainstep_profile(state, step, own);
    if (status == CM_OK)
        status = cm_trainstep_time_queueing(state, step + PASSES, &own[CM_SEEN_QUEUE_S]);
    if (status == CM_OK)
        status = cm_trainstep_ceiling(state, &own[CM_SEEN_CEILING_S]);
    return status == CM_OK ? agree(state, own) : status;
}
