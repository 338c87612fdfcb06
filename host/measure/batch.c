/* Warm-up and timed series: batches of iterations, each timed by the device's events. */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/measure/clock.h"
#include "host/measure/harness.h"
#include "host/measure/sync.h"

/* The values of the round after a batch. */
enum { VALUE_ELAPSED, VALUE_OVER_BUDGET, VALUE_EARLY, VALUE_TIMES };
/* How much later than the batch the event of the side stream may happen, being recorded itself. */
#define JOINED_S 50e-6

struct batch {
    unsigned part;
    uint64_t first; /* iteration */
    size_t count;
    bool each;         /* time every iteration, not only the whole */
    bool first_of_all; /* libraries connect, register and load then, which a held stream may stop */
    bool broken;       /* it could not be queued whole */
    bool early;        /* it began before it was queued whole: the device's queue was full */
};

static bool idle(const struct cm_harness *harness, unsigned part)
{
    return harness->run.parts[part].part.idle;
}

static bool live(const struct cm_harness *harness, unsigned part)
{
    return harness->run.parts[part].part.live;
}

/* An injected slowdown: in stream order, the time is noted before an iteration, and after it a
 * share of what went by is spun away. */
struct spin {
    double *began_s;
    double share;
};

static enum cm_status note_time(const void *args)
{
    struct spin spin;
    memcpy(&spin, args, sizeof spin);
    *spin.began_s = cm_clock_s();
    return CM_OK;
}

static enum cm_status spin_share(const void *args)
{
    struct spin spin;
    memcpy(&spin, args, sizeof spin);
    double now_s = cm_clock_s(), until_s = now_s + spin.share * (now_s - *spin.began_s);
    while (cm_clock_s() < until_s)
        ;
    return CM_OK;
}

static enum cm_status enqueue(struct cm_harness *harness, const struct batch *batch, uint64_t i)
{
    const struct cm_workload *workload = harness->item->workload;
    const struct cm_device_ops *device = harness->context.device->ops;
    struct cm_stream *stream = harness->context.stream;
    struct spin spin = {.began_s = &harness->began_s, .share = harness->item->settings.inject};
    if (spin.share <= 0 || !batch->each)
        return workload->enqueue(harness->state, batch->part, i);
    enum cm_status status = device->call(stream, note_time, &spin, sizeof spin, "injected spin");
    if (status == CM_OK)
        status = workload->enqueue(harness->state, batch->part, i);
    if (status == CM_OK)
        status = device->call(stream, spin_share, &spin, sizeof spin, "injected spin");
    return status;
}

/* The end of an iteration; in a live part the next is not queued before it has happened. */
static enum cm_status mark(struct cm_harness *harness, unsigned part, size_t event)
{
    const struct cm_device_ops *device = harness->context.device->ops;
    struct cm_stream *stream = harness->context.stream;
    enum cm_status status = device->event_record(harness->events[event], stream);
    if (status == CM_OK && live(harness, part))
        status = cm_context_wait(&harness->context);
    return status;
}

static enum cm_status queue_iterations(struct cm_harness *harness, const struct batch *batch)
{
    struct cm_stream *stream = harness->context.stream;
    struct cm_comm *comm = harness->context.comm;
    /* The ranks start together: a message of one number that needs all of them. */
    enum cm_status status = comm->ops->all_reduce(comm, stream, harness->vote.shared,
                                                  harness->vote.shared, 1, CM_F64, CM_REDUCE_MAX);
    if (status != CM_OK || idle(harness, batch->part))
        return status;
    status = mark(harness, batch->part, 0);
    for (size_t i = 0; i < batch->count && status == CM_OK; i++) {
        status = enqueue(harness, batch, batch->first + i);
        if (status == CM_OK && (batch->each || i + 1 == batch->count))
            status = mark(harness, batch->part, batch->each ? i + 1 : 1);
    }
    if (status == CM_OK && stream->device->ops->stream_waits != NULL)
        status = stream->device->ops->event_record(harness->events[CM_SIDE_EVENT],
                                                   harness->context.side);
    return status;
}

/* Work on the side stream is timed only where the timed stream waits for it. Its last event then
 * comes before that of the timed stream, if both were queued before anything ran; threads of the
 * host may be late in saying that they are done. */
static enum cm_status check_joined(struct cm_harness *harness, const struct batch *batch)
{
    const struct cm_context *context = &harness->context;
    const struct cm_device_ops *device = context->device->ops;
    double late_s = 0;
    bool whole = !live(harness, batch->part) && !batch->first_of_all && !batch->early;
    if (device->stream_waits == NULL || !whole || idle(harness, batch->part))
        return CM_OK;
    enum cm_status status = device->elapsed(harness->events[batch->each ? batch->count : 1],
                                            harness->events[CM_SIDE_EVENT], &late_s);
    if (status == CM_OK && late_s > JOINED_S)
        status = cm_error(CM_INTERNAL,
                          "part %s: the side stream went on for %.3g s after the timed one, which "
                          "did not wait for it: what was timed is not all of the work",
                          harness->run.parts[batch->part].part.name, late_s);
    return status;
}

/* Queue the batch whole before it starts (unless the part is live or it is the very first), and
 * wait for its end. */
static enum cm_status run_batch(struct cm_harness *harness, struct batch *batch)
{
    struct cm_stream *stream = harness->context.stream;
    const struct cm_device_ops *device = harness->context.device->ops;
    struct cm_vote *vote = &harness->vote;
    bool hold = !live(harness, batch->part) && !batch->first_of_all;
    enum cm_status held = hold ? device->stream_hold(stream) : CM_OK;
    cm_vote_note(vote, held);
    enum cm_status status = queue_iterations(harness, batch);
    cm_vote_note(vote, status);
    batch->broken = status != CM_OK;
    if (hold && held == CM_OK) {
        batch->early = device->stream_waits != NULL && !device->stream_waits(stream);
        enum cm_status released = device->stream_release(stream);
        cm_vote_note(vote, released);
        if (released != CM_OK)
            return released;
    }
    enum cm_status synced = cm_context_sync(&harness->context);
    if (status == CM_OK && synced == CM_OK)
        synced = check_joined(harness, batch);
    cm_vote_note(vote, synced);
    return status != CM_OK ? status : synced;
}

static enum cm_status read_events(struct cm_harness *harness, const struct batch *batch,
                                  double *values)
{
    const struct cm_device_ops *device = harness->context.device->ops;
    struct cm_event **events = harness->events;
    size_t last = batch->each ? batch->count : 1;
    enum cm_status status = device->elapsed(events[0], events[last], &values[VALUE_ELAPSED]);
    for (size_t i = 0; batch->each && i < batch->count && status == CM_OK; i++)
        status = device->elapsed(events[i], events[i + 1], &values[VALUE_TIMES + i]);
    return status;
}

/* Run a batch and agree on its times: the slowest rank's of each iteration. `own` gets this rank's
 * (room is there already), or is NULL. */
static enum cm_status agree_batch(struct cm_harness *harness, struct batch *batch,
                                  struct cm_samples *own)
{
    double *values = cm_vote_values(&harness->vote);
    size_t count = VALUE_TIMES + (batch->each ? batch->count : 0);
    if (harness->bench->phase != NULL) /* this rank lives */
        harness->bench->phase(harness->bench->phase_arg, harness->phase);
    batch->early = batch->broken = false;
    enum cm_status status = run_batch(harness, batch);
    /* The others wait for messages that this rank will not send, and would take a vote for one. */
    if (batch->broken && harness->run.parts[batch->part].work.message_bytes > 0 &&
        harness->context.comm->size > 1 && harness->vote.own.status != CM_OK)
        return cm_error(harness->vote.own.status, "%s", harness->vote.own.text);
    /* The barrier used the first number of the round's memory; nothing else has touched it. */
    for (size_t i = 0; i < count; i++)
        values[i] = 0;
    if (status == CM_OK && !idle(harness, batch->part)) {
        cm_vote_note(&harness->vote, read_events(harness, batch, values));
        if (own != NULL && own->capacity - own->count >= batch->count) {
            memcpy(own->values + own->count, values + VALUE_TIMES, batch->count * sizeof *values);
            own->count += batch->count;
        }
    }
    double wall_s = cm_clock_s() - harness->started_s;
    values[VALUE_OVER_BUDGET] = wall_s > harness->bench->time_limit_s ? 1 : 0;
    values[VALUE_EARLY] = batch->early ? 1 : 0;
    status = cm_vote_round(&harness->vote, count);
    if (status == CM_OK && values[VALUE_EARLY] > 0 && batch->count > 1)
        harness->batch_most = batch->count / 2; /* what all ranks can queue whole */
    return status;
}

static bool failed(const struct cm_harness *harness)
{
    return harness->vote.agreed.status != CM_OK || harness->vote.own.status != CM_OK;
}

static size_t batch_size(const struct cm_harness *harness, double pace_s, double left_s,
                         uint64_t left, size_t previous)
{
    size_t count = cm_batch_size(pace_s, left_s, left, previous);
    return harness->batch_most > 0 && count > harness->batch_most ? harness->batch_most : count;
}

enum cm_status cm_warm_up(struct cm_harness *harness, unsigned part)
{
    const struct cm_run_settings *settings = &harness->item->settings;
    const double *values = cm_vote_values(&harness->vote);
    double time_s = settings->warmup_time_s / harness->run.part_count;
    double elapsed_s = 0;
    struct batch batch = {.part = part, .count = 1, .first_of_all = true};
    for (;;) {
        enum cm_status status = agree_batch(harness, &batch, NULL);
        if (status != CM_OK || failed(harness))
            return status;
        double batch_s = values[VALUE_ELAPSED];
        batch.first_of_all = false;
        elapsed_s += batch_s;
        batch.first += batch.count;
        harness->pace_s[part] = batch_s / (double)batch.count;
        bool enough = elapsed_s >= time_s && batch.first >= settings->warmup_iterations;
        if (enough || values[VALUE_OVER_BUDGET] > 0 || batch.first >= CM_ITERATIONS_MAX)
            break;
        uint64_t left = batch.first < settings->warmup_iterations
                            ? settings->warmup_iterations - batch.first
                            : CM_BATCH_MAX;
        if (elapsed_s < time_s && left < CM_BATCH_MAX)
            left = CM_BATCH_MAX;
        double left_s = elapsed_s < time_s ? time_s - elapsed_s : INFINITY;
        batch.count = batch_size(harness, harness->pace_s[part], left_s, left, batch.count);
    }
    harness->run.warmup_iterations += batch.first;
    harness->run.warmup_s += elapsed_s;
    return CM_OK;
}

/* Room for a batch, before it runs: a rank that has none still runs it with the others. */
static void reserve(struct cm_harness *harness, struct cm_samples *samples, size_t count)
{
    if (cm_grow(&samples->values, &samples->capacity, samples->count + count,
                sizeof *samples->values) != 0)
        cm_vote_note(&harness->vote, CM_NO_MEMORY);
}

/* All ranks stop or none: they see the same times, but one may fail to judge them. */
static enum cm_status agree_steady(struct cm_harness *harness, const struct cm_stop_rule *rule,
                                   const struct cm_samples *samples, bool *steady)
{
    bool own = false;
    cm_vote_note(&harness->vote, cm_stop_steady(rule, samples->values, samples->count, &own));
    cm_vote_values(&harness->vote)[0] = own ? 0 : 1;
    enum cm_status status = cm_vote_round(&harness->vote, 1);
    *steady = cm_vote_values(&harness->vote)[0] == 0;
    return status;
}

enum cm_status cm_time_part(struct cm_harness *harness, unsigned part, struct cm_samples *own)
{
    struct cm_part_samples *out = &harness->run.parts[part];
    const double *values = cm_vote_values(&harness->vote);
    struct cm_stop_rule rule = cm_stop_rule_of(&harness->item->settings, &out->part);
    double time_s = 0, pace_s = harness->pace_s[part];
    struct batch batch = {.part = part, .each = true};
    uint64_t evaluated = 0;
    enum cm_stop stop = CM_STOP_NOT_YET;
    while (stop == CM_STOP_NOT_YET) {
        double left_s = (rule.fixed_time ? rule.min_time_s : rule.max_time_s) - time_s;
        batch.count =
            batch_size(harness, pace_s, left_s, rule.max_iterations - batch.first, batch.count);
        reserve(harness, own, batch.count);
        reserve(harness, &out->slowest, batch.count);
        enum cm_status status = agree_batch(harness, &batch, own);
        if (status != CM_OK || failed(harness))
            return status;
        memcpy(out->slowest.values + out->slowest.count, values + VALUE_TIMES,
               batch.count * sizeof *values);
        out->slowest.count += batch.count;
        batch.first += batch.count;
        time_s += values[VALUE_ELAPSED];
        pace_s = values[VALUE_ELAPSED] / (double)batch.count;
        stop = cm_stop_limit(&rule, time_s, batch.first, values[VALUE_OVER_BUDGET] > 0);
        if (stop == CM_STOP_NOT_YET && cm_stop_due(&rule, time_s, batch.first, evaluated)) {
            bool steady;
            evaluated = batch.first;
            status = agree_steady(harness, &rule, &out->slowest, &steady);
            if (status != CM_OK || failed(harness))
                return status;
            stop = steady ? CM_STOP_STEADY : CM_STOP_NOT_YET;
        }
    }
    if (harness->stop == CM_STOP_NOT_YET || harness->stop == CM_STOP_STEADY ||
        harness->stop == CM_STOP_FIXED_TIME)
        harness->stop = stop;
    return CM_OK;
}
