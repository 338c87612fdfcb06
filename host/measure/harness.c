/*
 * One case on one rank: setup, warm-up, the timed parts with their checks, teardown. Every phase
 * ends with a round in which the ranks learn of each other's failures (vote.h).
 *
 * Functions return CM_OK while the ranks can agree; `over` tells whether the case goes on.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/measure/clock.h"
#include "host/measure/harness.h"
#include "host/measure/sync.h"

static bool over(const struct cm_harness *harness)
{
    return harness->vote.agreed.status != CM_OK || harness->run.status != CM_CASE_OK;
}

static void enter(struct cm_harness *harness, const char *phase)
{
    harness->phase = phase;
    if (harness->bench->phase != NULL)
        harness->bench->phase(harness->bench->phase_arg, phase);
}

static void open_context(struct cm_harness *harness, uint64_t run_index)
{
    struct cm_bench *bench = harness->bench;
    const struct cm_run_settings *settings = &harness->item->settings;
    uint64_t limit = bench->device->info.memory_bytes;
    uint64_t own = cm_vote_bytes(bench->comm->size);
    limit = limit > own ? limit - own : 0;
    if (bench->memory_bytes > 0 && bench->memory_bytes < limit)
        limit = bench->memory_bytes;
    harness->hidden = (struct cm_context_private){.vote = &harness->vote, .limit_bytes = limit};
    harness->context = (struct cm_context){
        .device = bench->device,
        .comm = bench->comm,
        .seed = cm_random_seed(settings->seed, harness->item->name, 0, run_index),
        .timeout_s = settings->timeout_s,
        .hidden = &harness->hidden,
    };
}

/* What is needed before the ranks can speak to each other. */
static enum cm_status open_streams(struct cm_harness *harness)
{
    struct cm_context *context = &harness->context;
    const struct cm_device_ops *device = context->device->ops;
    enum cm_status status = device->stream_create(context->device, 0, &context->stream);
    if (status == CM_OK)
        status = device->stream_create(context->device, 1, &context->side);
    if (status == CM_OK)
        status = cm_vote_open(context->device, context->comm, context->stream, context->timeout_s,
                              &harness->vote);
    return status;
}

static void close_streams(struct cm_harness *harness)
{
    struct cm_context *context = &harness->context;
    cm_vote_close(&harness->vote);
    context->device->ops->stream_destroy(context->side);
    context->device->ops->stream_destroy(context->stream);
}

/* The parts from what there are already to `count`. */
static enum cm_status list_parts(struct cm_harness *harness, unsigned count)
{
    const struct cm_workload *workload = harness->item->workload;
    struct cm_case_run *run = &harness->run;
    unsigned before = run->part_count;
    if (count == 0)
        return cm_error(CM_INTERNAL, "%s has no parts", workload->name);
    struct cm_part_samples *parts = cm_resize(run->parts, count, sizeof *parts);
    if (parts == NULL)
        return CM_NO_MEMORY;
    run->parts = parts;
    double *pace_s = cm_resize(harness->pace_s, count, sizeof *pace_s);
    if (pace_s == NULL)
        return CM_NO_MEMORY;
    harness->pace_s = pace_s;
    memset(parts + before, 0, (count - before) * sizeof *parts);
    run->part_count = count;
    for (unsigned p = before; p < count; p++) {
        pace_s[p] = 0;
        if (workload->part != NULL)
            workload->part(harness->state, p, &parts[p].part);
        workload->work(harness->state, p, &parts[p].work);
        if (parts[p].work.operations <= 0)
            parts[p].work.operations = 1;
    }
    return CM_OK;
}

static enum cm_status make_events(struct cm_harness *harness)
{
    struct cm_device *device = harness->context.device;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < CM_EVENTS && status == CM_OK; i++)
        status = device->ops->event_create(device, &harness->events[i]);
    return status;
}

static enum cm_status prepare(struct cm_harness *harness)
{
    const struct cm_workload *workload = harness->item->workload;
    harness->state = cm_alloc(1, workload->state_size);
    if (harness->state == NULL)
        return CM_NO_MEMORY;
    harness->set_up = true;
    enum cm_status status =
        workload->setup(&harness->context, harness->item->params, harness->state);
    if (status == CM_OK)
        status = list_parts(
            harness, workload->part_count != NULL ? workload->part_count(harness->state) : 1);
    if (status == CM_OK)
        status = make_events(harness);
    return status;
}

/* Ranks with different parts would wait for each other in different places. */
static enum cm_status agree_parts(struct cm_harness *harness)
{
    struct cm_vote *vote = &harness->vote;
    double *values = cm_vote_values(vote);
    values[0] = harness->run.part_count;
    values[1] = -(double)harness->run.part_count;
    enum cm_status status = cm_vote_round(vote, 2);
    if (status == CM_OK && values[0] != -values[1])
        cm_vote_note(vote,
                     cm_error(CM_INTERNAL, "the ranks see %g to %g parts", -values[1], values[0]));
    return status == CM_OK ? cm_vote_phase(vote) : status;
}

static enum cm_status set_up(struct cm_harness *harness)
{
    struct cm_vote *vote = &harness->vote;
    enter(harness, "setup");
    enum cm_status status = cm_gather_devices(harness);
    if (status != CM_OK)
        return status;
    enum cm_status prepared = prepare(harness);
    cm_vote_note(vote, prepared);
    cm_vote_note(vote, cm_context_sync(&harness->context));
    status = cm_vote_phase(vote);
    return status == CM_OK && !over(harness) ? agree_parts(harness) : status;
}

static enum cm_status warm_up(struct cm_harness *harness, unsigned first)
{
    enter(harness, "warm-up");
    enum cm_status status = CM_OK;
    for (unsigned p = first; p < harness->run.part_count && status == CM_OK && !over(harness); p++)
        status = cm_warm_up(harness, p);
    return status;
}

/* Telemetry is beside the point: without it the case is still measured, and its fields unknown. */
static void open_telemetry(struct cm_harness *harness)
{
    struct cm_device *device = harness->context.device;
    if (device->ops->telemetry_begin == NULL || device->ops->telemetry_end == NULL ||
        harness->telemetry_failed)
        return;
    harness->telemetry = device->ops->telemetry_begin(device) == CM_OK;
    harness->telemetry_failed = !harness->telemetry;
    if (!harness->telemetry)
        cm_warn("no telemetry: %s", cm_error_text());
}

static bool close_telemetry(struct cm_harness *harness, struct cm_telemetry *telemetry)
{
    struct cm_device *device = harness->context.device;
    if (!harness->telemetry)
        return false;
    harness->telemetry = false;
    bool known = device->ops->telemetry_end(device, telemetry) == CM_OK;
    if (!known)
        cm_warn("no telemetry: %s", cm_error_text());
    return known;
}

/* A workload that begins anew may do so with all ranks: none goes on alone. */
static enum cm_status begin_part(struct cm_harness *harness, unsigned part)
{
    struct cm_vote *vote = &harness->vote;
    const struct cm_workload *workload = harness->item->workload;
    cm_vote_note(vote, cm_context_poison(&harness->context));
    if (workload->begin == NULL)
        return CM_OK;
    if (vote->own.status == CM_OK)
        cm_vote_note(vote, workload->begin(harness->state, part));
    return cm_vote_phase(vote);
}

static enum cm_status time_part(struct cm_harness *harness, unsigned part)
{
    struct cm_vote *vote = &harness->vote;
    struct cm_samples own = {0};
    struct cm_telemetry telemetry;
    enter(harness, "measure");
    enum cm_status status = begin_part(harness, part);
    if (status != CM_OK || over(harness))
        return status;
    open_telemetry(harness);
    status = cm_time_part(harness, part, &own);
    bool known = close_telemetry(harness, &telemetry);
    if (status == CM_OK && !over(harness))
        status = cm_gather_samples(harness, part, &own);
    if (status == CM_OK)
        status = cm_gather_telemetry(harness, part, known ? &telemetry : NULL);
    cm_samples_release(&own);
    return status == CM_OK ? cm_vote_phase(vote) : status;
}

static enum cm_status check_part(struct cm_harness *harness, unsigned part)
{
    struct cm_vote *vote = &harness->vote;
    const struct cm_workload *workload = harness->item->workload;
    struct cm_check check = {0};
    enter(harness, "check");
    enum cm_status checked =
        workload->check(harness->state, part, harness->run.parts[part].slowest.count, &check);
    cm_vote_note(vote, checked);
    cm_vote_note(vote, cm_context_sync(&harness->context));
    enum cm_status status = cm_vote_phase(vote);
    if (status == CM_OK && !over(harness))
        status = cm_gather_check(harness, part, &check);
    return status;
}

/* All parts from `first` on. */
static enum cm_status measure_parts(struct cm_harness *harness, unsigned first)
{
    enum cm_status status = warm_up(harness, first);
    for (unsigned p = first; p < harness->run.part_count && status == CM_OK && !over(harness);
         p++) {
        status = time_part(harness, p);
        if (status == CM_OK && !over(harness))
            status = check_part(harness, p);
    }
    return status;
}

/* Parts that follow from what the others took; *first is that of the new ones. */
static enum cm_status extend(struct cm_harness *harness, unsigned *first)
{
    struct cm_vote *vote = &harness->vote;
    const struct cm_workload *workload = harness->item->workload;
    unsigned count = *first = harness->run.part_count;
    if (workload->extend == NULL)
        return CM_OK;
    enum cm_status extended = workload->extend(harness->state, harness->run.parts, &count);
    cm_vote_note(vote, extended);
    enum cm_status status = cm_vote_phase(vote);
    if (status != CM_OK || over(harness) || count <= *first)
        return status;
    cm_vote_note(vote, list_parts(harness, count));
    return agree_parts(harness);
}

/* The reporting rank alone; what fails is told when the ranks part. */
static void find_suspects(struct cm_harness *harness)
{
    struct cm_case_run *run = &harness->run;
    const struct cm_workload *workload = harness->item->workload;
    if (workload->find == NULL || run->status != CM_CASE_OK || harness->context.comm->rank != 0)
        return;
    cm_vote_note(&harness->vote, workload->find(harness->state, run->parts, run->part_count,
                                                &run->suspects, &run->metrics));
    for (size_t i = 0; i < run->suspects.count; i++) {
        struct cm_suspect *suspect = &run->suspects.items[i];
        memcpy(suspect->host, harness->hosts[suspect->rank], sizeof suspect->host);
        if (suspect->peer != CM_NO_PEER)
            memcpy(suspect->peer_host, harness->hosts[suspect->peer], sizeof suspect->peer_host);
    }
}

static enum cm_status measure(struct cm_harness *harness)
{
    const struct cm_workload *workload = harness->item->workload;
    unsigned first = 0;
    enum cm_status status = set_up(harness);
    while (status == CM_OK && !over(harness) && first < harness->run.part_count) {
        status = measure_parts(harness, first);
        if (status == CM_OK && !over(harness))
            status = extend(harness, &first);
    }
    if (status == CM_OK && !over(harness) && workload->algorithm != NULL)
        snprintf(harness->run.algorithm, sizeof harness->run.algorithm, "%s",
                 workload->algorithm(harness->state));
    if (status == CM_OK && !over(harness) && workload->observe != NULL)
        workload->observe(harness->state, harness->observed);
    if (status == CM_OK && !over(harness))
        find_suspects(harness);
    return status;
}

static void undo_setup(struct cm_harness *harness)
{
    if (harness->set_up)
        harness->item->workload->teardown(harness->state);
    harness->set_up = false;
}

static void release_case(struct cm_harness *harness)
{
    struct cm_device *device = harness->context.device;
    undo_setup(harness);
    for (size_t i = 0; i < CM_EVENTS; i++)
        device->ops->event_destroy(harness->events[i]);
    cm_context_release(&harness->context);
    cm_free(harness->state);
    cm_free(harness->pace_s);
    cm_free(harness->rank_measured_s);
    cm_free(harness->nodes);
    cm_free(harness->hosts);
    /* The ranks may fail to agree after this, and then come here again. */
    memset(harness->events, 0, sizeof harness->events);
    harness->state = NULL;
    harness->pace_s = NULL;
    harness->rank_measured_s = NULL;
    harness->nodes = NULL;
    harness->hosts = NULL;
}

/* The ranks leave together, and nobody's memory goes while another may still have it imported. */
static enum cm_status tear_down(struct cm_harness *harness)
{
    struct cm_vote *vote = &harness->vote;
    bool already = over(harness);
    if (!already)
        enter(harness, "teardown");
    enum cm_status status = cm_context_sync(&harness->context);
    cm_vote_note(vote, status);
    if (status == CM_TIMEOUT)
        return status;
    undo_setup(harness);
    status = cm_vote_phase(vote);
    if (status == CM_OK)
        release_case(harness);
    return status;
}

static void tell_failure(struct cm_harness *harness, const struct cm_failure *failure,
                         const char *who)
{
    struct cm_case_run *run = &harness->run;
    run->status = failure->status == CM_UNSUPPORTED ? CM_CASE_SKIPPED
                  : failure->status == CM_WRONG     ? CM_CASE_WRONG
                                                    : CM_CASE_FAILED;
    if (run->status == CM_CASE_SKIPPED)
        snprintf(run->reason, sizeof run->reason, "%s%.440s", who, failure->text);
    else
        snprintf(run->reason, sizeof run->reason, "%s: %s%.440s", harness->phase, who,
                 failure->text);
}

/* What the ranks agreed on becomes the case's outcome. */
static void conclude(struct cm_harness *harness)
{
    const struct cm_vote *vote = &harness->vote;
    char who[24] = "";
    if (vote->agreed.status == CM_OK || harness->run.status != CM_CASE_OK)
        return;
    if (harness->context.comm->size > 1)
        snprintf(who, sizeof who, "rank %u: ", vote->agreed_rank);
    tell_failure(harness, &vote->agreed, who);
}

/* The ranks cannot agree any more. What is still under way must not lose its memory: then all of it
 * is left to the end of the process. */
static enum cm_status abandon(struct cm_harness *harness, enum cm_status status)
{
    struct cm_failure failure = {.status = cm_failure_status(status)};
    const struct cm_failure *own = &harness->vote.own;
    struct cm_context *context = &harness->context;
    struct cm_telemetry unused;
    snprintf(failure.text, sizeof failure.text, "%s", cm_error_text());
    /* A rank that failed and left out what the others wait for says what failed, not that they
     * could not agree after it. */
    if (own->status != CM_OK && harness->vote.agreed.status == CM_OK)
        failure = *own;
    if (harness->run.status == CM_CASE_OK)
        tell_failure(harness, &failure, "");
    close_telemetry(harness, &unused);
    cm_context_abort(context);
    context->timeout_s = fmin(context->timeout_s, 1);
    if (status != CM_TIMEOUT && cm_context_sync(context) != CM_TIMEOUT) {
        release_case(harness);
        close_streams(harness);
    }
    return cm_error(failure.status, "%s: %s", harness->phase, failure.text);
}

static enum cm_status run_case(struct cm_harness *harness)
{
    enum cm_status status = open_streams(harness);
    if (status != CM_OK) {
        struct cm_failure failure = {.status = status};
        snprintf(failure.text, sizeof failure.text, "%s", cm_error_text());
        close_streams(harness);
        tell_failure(harness, &failure, "");
        return cm_error(status, "%s: %s", harness->phase, failure.text);
    }
    status = measure(harness);
    conclude(harness);
    if (status == CM_OK)
        status = tear_down(harness);
    if (status != CM_OK)
        return abandon(harness, status);
    conclude(harness);
    close_streams(harness);
    return CM_OK;
}

/* The label of a part's energy fits the name of a metric. */
static enum cm_status add_energy(struct cm_case_run *run)
{
    enum cm_status status = CM_OK;
    if (run->part_count == 1)
        return cm_metrics_add_energy(&run->metrics, "energy_per_operation", &run->parts[0]);
    for (unsigned p = 0; p < run->part_count && status == CM_OK; p++) {
        char name[CM_METRIC_NAME_MAX];
        snprintf(name, sizeof name, "energy_per_operation.%.34s", run->parts[p].part.name);
        status = cm_metrics_add_energy(&run->metrics, name, &run->parts[p]);
    }
    return status;
}

/* The reporting rank alone; there is nobody to agree with. */
static void compute_metrics(struct cm_harness *harness)
{
    struct cm_case_run *run = &harness->run;
    struct cm_metric_input input = {
        .params = harness->item->params,
        .device = &harness->bench->device->info,
        .ranks = harness->bench->comm->size,
        .parts = run->parts,
        .part_count = run->part_count,
        .telemetry = run->telemetry,
    };
    struct cm_failure failure = {0};
    memcpy(input.observed, harness->observed, sizeof input.observed);
    harness->phase = "metrics";
    failure.status = harness->item->workload->metrics(&input, &run->metrics);
    if (failure.status == CM_OK)
        failure.status = add_energy(run);
    if (failure.status == CM_OK)
        return;
    snprintf(failure.text, sizeof failure.text, "%s", cm_error_text());
    cm_metrics_release(&run->metrics);
    tell_failure(harness, &failure, "");
}

static void begin(struct cm_harness *harness, uint64_t run_index)
{
    struct cm_case_run *run = &harness->run;
    const struct cm_comm *comm = harness->bench->comm;
    run->started_unix_s = cm_clock_unix_s();
    run->run = run_index;
    snprintf(run->comm, sizeof run->comm, "%s", comm->ops->name);
    snprintf(run->comm_library, sizeof run->comm_library, "%s", comm->implementation);
    harness->started_s = cm_clock_s();
    harness->phase = "setup";
}

enum cm_status cm_measure_case(struct cm_bench *bench, const struct cm_case *item,
                               uint64_t run_index, struct cm_case_run *run)
{
    struct cm_harness harness = {.bench = bench, .item = item};
    enum cm_status status = CM_OK;
    begin(&harness, run_index);
    if ((item->workload->needs & CM_NEEDS_PEERS) != 0 && bench->comm->size < 2) {
        harness.run.status = CM_CASE_SKIPPED;
        snprintf(harness.run.reason, sizeof harness.run.reason,
                 "%s needs at least two ranks, and this is one", item->workload->name);
    } else {
        open_context(&harness, run_index);
        status = run_case(&harness);
    }
    if (harness.run.status == CM_CASE_OK && bench->comm->rank == 0)
        compute_metrics(&harness);
    snprintf(harness.run.stop_reason, sizeof harness.run.stop_reason, "%s",
             cm_stop_names[harness.stop]);
    harness.run.wall_s = cm_clock_s() - harness.started_s;
    if (bench->comm->rank == 0)
        *run = harness.run;
    else
        cm_case_run_release(&harness.run);
    return status;
}
