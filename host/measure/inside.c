/*
 * A whole plan inside a process that an outside launcher started. Rank 0 decides what the budget
 * allows and feeds the sink; after each case the ranks agree to go on.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/measure/bind.h"
#include "host/measure/budget.h"
#include "host/measure/clock.h"
#include "host/measure/meet.h"
#include "host/measure/vote.h"
#include "host/measure/watchdog.h"
#include "host/measure/world_check.h"
#include "host/measure/world_map.h"

#define SETUP_SHARE 1.1 /* of a deadline, before a rank that keeps none is stalled */

struct inside {
    const struct cm_plan *plan;
    const struct cm_run_request *request;
    const struct cm_world *world;
    struct cm_sink *sink; /* NULL but on rank 0 */
    struct cm_str binding;
    struct cm_device *device;
    struct cm_comm *comm;
    struct cm_stream *stream;
    struct cm_world_record *records; /* of every rank: what it is and where */
    bool refused;                    /* they are not one world */
    struct cm_vote vote;
    struct cm_watchdog *dog; /* NULL: nobody watches */
    struct cm_budget budget; /* rank 0 */
    uint64_t *recorded;      /* rank 0: runs per case */
    double timeout_s;
    size_t index;
    uint64_t run;
};

static bool reporting(const struct inside *inside)
{
    return inside->world->rank == 0;
}

/* Where this rank is, for whoever looks for the one that hangs. */
static void note_phase(void *arg, const char *phase)
{
    const struct inside *inside = arg;
    const struct cm_case *item = &inside->plan->cases[inside->index];
    double timeout_s = item->settings.timeout_s;
    cm_watchdog_note(inside->dog,
                     &(struct cm_watch_note){.name = item->name,
                                             .case_index = inside->index,
                                             .run = inside->run,
                                             .phase = phase,
                                             .allowed_s = timeout_s + fmax(1, 0.1 * timeout_s)});
}

/* Outside of a case. */
static void note(const struct inside *inside, const char *what)
{
    cm_watchdog_note(
        inside->dog,
        &(struct cm_watch_note){.phase = what, .allowed_s = SETUP_SHARE * inside->timeout_s + 1});
}

/* The node's devices are its ranks' in their order, unless the launcher shows each rank its own. */
static void choose_device(const struct inside *inside, struct cm_device_config *config,
                          char ***bus_ids)
{
    const struct cm_device_ops *device = inside->request->device;
    const struct cm_world *world = inside->world;
    struct cm_device_probe probe;
    *bus_ids = NULL;
    config->index = 0;
    if (device->is_host || (cm_device_ask(device, &probe) == CM_OK && probe.count == 1))
        return;
    config->index = world->local_rank;
    *bus_ids = cm_bus_ids_locate(device, 0, world->local_size);
}

/* A machine that cannot be looked at is measured unbound, and the result says so. */
static void bind_process(struct inside *inside, struct cm_device_config *config)
{
    const struct cm_world *world = inside->world;
    char **bus_ids;
    choose_device(inside, config, &bus_ids);
    enum cm_status status =
        cm_bind_rank(world, (const char *const *)bus_ids, &inside->binding, config);
    cm_bus_ids_free(bus_ids, world->local_size);
    if (status == CM_OK)
        return;
    cm_warn("rank %u is not bound to cores: %s", world->rank, cm_error_text());
    cm_str_reset(&inside->binding);
    cm_str_addf(&inside->binding, "not bound: %s", cm_error_text());
}

static enum cm_status open_device(struct inside *inside)
{
    const struct cm_device_ops *device = inside->request->device;
    struct cm_device_config config = {.rank = inside->world->rank, .far_node = -1};
    bind_process(inside, &config);
    if (!device->is_host)
        config.memory_bytes = 0;
    return device->open(&config, &inside->device);
}

static enum cm_status open_comm(struct inside *inside)
{
    const struct cm_world *world = inside->world;
    const char *name = cm_comm_default(inside->request->device, world->size);
    const struct cm_comm_ops *comm = cm_comm_find(name);
    if (comm == NULL)
        return cm_error(CM_UNSUPPORTED, "no communication by %s: %s", name, cm_comm_missing(name));
    struct cm_meeting meeting;
    bool needed;
    enum cm_status status = cm_meeting_outside(world, name, &meeting, &needed);
    if (status != CM_OK)
        return status;
    /* Where the ranks meet by other means than the library's, they compare what they are before it
     * sees them: it may have its own word on what does not fit together. */
    struct cm_world_record own;
    cm_world_describe(inside->plan, world, inside->device, NULL, &own);
    cm_meeting_compare(&own, &inside->refused);
    status = comm->open(inside->device, world, needed ? &meeting : NULL, inside->timeout_s,
                        &inside->comm);
    cm_meeting_compare(NULL, NULL);
    return status;
}

static enum cm_status tell_topology(struct inside *inside)
{
    struct cm_comm *comm = inside->comm;
    const struct cm_sink *sink = inside->sink;
    const char *text = comm->ops->topology_dump != NULL ? comm->ops->topology_dump(comm) : NULL;
    if (!reporting(inside) || text == NULL || sink->topology == NULL)
        return CM_OK;
    return sink->topology(sink->impl, text);
}

static struct cm_exchange exchange(const struct inside *inside)
{
    return (struct cm_exchange){.device = inside->device,
                                .comm = inside->comm,
                                .stream = inside->stream,
                                .timeout_s = inside->timeout_s};
}

/* All ranks get the same answer, and rank 0 gives it to the user. */
static enum cm_status check_world(struct inside *inside)
{
    struct cm_world_record own;
    const struct cm_exchange among = exchange(inside);
    inside->records = cm_alloc(inside->comm->size, sizeof *inside->records);
    if (inside->records == NULL)
        return CM_NO_MEMORY;
    cm_world_describe(inside->plan, inside->world, inside->device, inside->comm, &own);
    enum cm_status status = cm_world_check(&among, &own, inside->records);
    inside->refused = status == CM_USAGE;
    return status;
}

static enum cm_status tell_cluster(struct inside *inside)
{
    struct cm_cluster_map cluster;
    const struct cm_exchange among = exchange(inside);
    const struct cm_sink *sink = inside->sink;
    enum cm_status status = cm_world_map(&among, inside->records, &cluster);
    if (status == CM_OK && reporting(inside) && sink->cluster != NULL)
        status = sink->cluster(sink->impl, &cluster);
    cm_cluster_release(&cluster);
    return status;
}

static enum cm_status open_vote(struct inside *inside)
{
    struct cm_device *device = inside->device;
    enum cm_status status = device->ops->stream_create(device, 0, &inside->stream);
    if (status == CM_OK)
        status = check_world(inside);
    if (status == CM_OK)
        status =
            cm_vote_open(device, inside->comm, inside->stream, inside->timeout_s, &inside->vote);
    return status;
}

static enum cm_status open_budget(struct inside *inside)
{
    if (!reporting(inside))
        return CM_OK;
    inside->recorded = cm_alloc(inside->plan->count, sizeof *inside->recorded);
    if (inside->recorded == NULL)
        return CM_NO_MEMORY;
    return cm_budget_make(inside->plan, inside->request->budget_s, cm_clock_s(), &inside->budget);
}

static enum cm_status record(struct inside *inside, struct cm_case_run *run)
{
    run->case_index = inside->index;
    run->run = inside->run;
    inside->recorded[inside->index]++;
    cm_watchdog_hold(inside->dog);
    enum cm_status status = inside->sink->done(inside->sink->impl, inside->plan, run);
    cm_watchdog_release(inside->dog);
    return status;
}

/* No time for this case in this run: nothing to say when it has runs already. */
static enum cm_status cut(struct inside *inside)
{
    char text[CM_UNITS_TEXT_MAX];
    struct cm_case_run run = {.status = CM_CASE_SKIPPED, .started_unix_s = cm_clock_unix_s()};
    if (inside->recorded[inside->index] > 0)
        return CM_OK;
    snprintf(run.reason, sizeof run.reason, "no time left in the budget of %s",
             cm_format_time(inside->request->budget_s, text));
    return record(inside, &run);
}

/* Rank 0's word on whether and how long to measure the case at hand. */
static enum cm_status ask_budget(struct inside *inside, bool *granted, double *limit_s)
{
    double *values = cm_vote_values(&inside->vote);
    values[0] = values[1] = 0;
    if (reporting(inside)) {
        struct cm_budget_place place = {.run = inside->run, .index = inside->index};
        double limit = INFINITY;
        bool grant = cm_budget_grant(&inside->budget, place, cm_clock_s(), &limit);
        values[0] = grant ? 1 : 0;
        values[1] = grant ? limit : 0;
    }
    enum cm_status status = cm_vote_round(&inside->vote, 2);
    *granted = values[0] > 0;
    *limit_s = values[1];
    return status;
}

static enum cm_status measure_case(struct inside *inside, double limit_s)
{
    struct cm_case_run run = {0};
    struct cm_bench bench = {.device = inside->device,
                             .comm = inside->comm,
                             .memory_bytes = inside->device->info.memory_bytes,
                             .time_limit_s = limit_s,
                             .binding = cm_str_text(&inside->binding),
                             .phase = note_phase,
                             .phase_arg = inside};
    double begin_s = cm_clock_s();
    enum cm_status status =
        cm_measure_case(&bench, &inside->plan->cases[inside->index], inside->run, &run);
    if (status != CM_OK) /* before it is recorded: others may know better why */
        cm_watchdog_give_up(inside->dog, status);
    note(inside, "ending a case");
    if (!reporting(inside))
        return status;
    char text[CM_ERROR_TEXT_MAX];
    snprintf(text, sizeof text, "%s", cm_error_text());
    cm_budget_ran(&inside->budget, inside->index, cm_clock_s() - begin_s, limit_s);
    enum cm_status recorded = record(inside, &run);
    cm_case_run_release(&run);
    if (status != CM_OK) /* its reason is the one that counts */
        return cm_error(status, "%s", text);
    cm_vote_note(&inside->vote, recorded);
    return CM_OK;
}

/* The case at hand, and the ranks' consent to go on. */
static enum cm_status one_case(struct inside *inside)
{
    bool granted;
    double limit_s;
    enum cm_status status = ask_budget(inside, &granted, &limit_s);
    if (status == CM_OK && granted)
        status = measure_case(inside, limit_s);
    else if (status == CM_OK && reporting(inside))
        cm_vote_note(&inside->vote, cut(inside));
    if (status != CM_OK)
        return cm_error_at(status, "case %s: ", inside->plan->cases[inside->index].name);
    return cm_vote_phase(&inside->vote);
}

static enum cm_status measure_all(struct inside *inside)
{
    const struct cm_plan *plan = inside->plan;
    const struct cm_failure *agreed = &inside->vote.agreed;
    cm_vote_note(&inside->vote, open_budget(inside));
    cm_vote_note(&inside->vote, tell_topology(inside));
    cm_vote_note(&inside->vote, tell_cluster(inside));
    enum cm_status status = cm_vote_phase(&inside->vote);
    for (inside->run = 0; inside->run < plan->runs; inside->run++) {
        for (inside->index = 0; inside->index < plan->count; inside->index++) {
            if (status != CM_OK || agreed->status != CM_OK)
                return status;
            if (plan->cases[inside->index].settings.runs > inside->run)
                status = one_case(inside);
        }
    }
    return status;
}

static void close_all(struct inside *inside)
{
    note(inside, "leaving the other ranks");
    cm_vote_close(&inside->vote);
    if (inside->device != NULL)
        inside->device->ops->stream_destroy(inside->stream);
    if (inside->comm != NULL)
        inside->comm->ops->close(inside->comm);
    if (inside->device != NULL)
        inside->device->ops->close(inside->device);
}

static enum cm_status open_all(struct inside *inside)
{
    note(inside, "opening the device");
    enum cm_status status = open_device(inside);
    note(inside, "joining the other ranks");
    if (status == CM_OK)
        status = open_comm(inside);
    if (status == CM_OK)
        status = open_vote(inside);
    if (status == CM_OK)
        status = cm_watchdog_join(&inside->dog, &inside->vote);
    return status;
}

static enum cm_status be_rank(struct inside *inside, bool *agreed)
{
    enum cm_status status = open_all(inside);
    bool opened = status == CM_OK;
    if (opened)
        status = measure_all(inside);
    /* Ranks that cannot agree may have work under way: the process's end takes it along. */
    bool parted = inside->stream != NULL && status != CM_OK && !inside->refused;
    *agreed = !parted && (inside->refused || inside->vote.agreed.status != CM_OK);
    if (opened && parted)
        cm_watchdog_give_up(inside->dog, status);
    if (opened && status == CM_OK && inside->vote.agreed.status != CM_OK)
        status = cm_error(inside->vote.agreed.status, "rank %u: %s", inside->vote.agreed_rank,
                          inside->vote.agreed.text);
    if (!parted)
        close_all(inside);
    cm_watchdog_close(inside->dog);
    cm_budget_release(&inside->budget);
    cm_free(inside->recorded);
    cm_free(inside->records);
    cm_str_release(&inside->binding);
    return status;
}

/* What was not recorded, from a place on, in the order of measuring. */
static bool first_open(const struct inside *inside, size_t *index, uint64_t *run)
{
    const struct cm_plan *plan = inside->plan;
    const struct cm_sink *sink = inside->sink;
    for (; *run < plan->runs; *run += 1, *index = 0) {
        for (; *index < plan->count; *index += 1) {
            if (plan->cases[*index].settings.runs > *run && !sink->has(sink->impl, *index, *run))
                return true;
        }
    }
    return false;
}

/* In the watcher's process, after somebody was named: the case at hand has failed. */
static enum cm_status tell_loss(const struct inside *inside, const struct cm_watch_end *end)
{
    const struct cm_sink *sink = inside->sink;
    size_t index = end->place.case_index;
    uint64_t run = end->place.run;
    enum cm_status status = sink->resume(sink->impl);
    if (status == CM_OK && end->fate != CM_FATE_ENDED && first_open(inside, &index, &run)) {
        struct cm_case_run failed = {.case_index = index,
                                     .run = run,
                                     .status = CM_CASE_FAILED,
                                     .started_unix_s = cm_clock_unix_s()};
        snprintf(failed.reason, sizeof failed.reason, "%s",
                 inside->request->show_hosts ? end->text : end->reason);
        status = sink->done(sink->impl, inside->plan, &failed);
    }
    if (status != CM_OK)
        return status;
    return cm_error(end->fate == CM_FATE_ENDED ? CM_INTERRUPTED : CM_LOST, "%s", end->text);
}

enum cm_status cm_measure_inside(const struct cm_plan *plan, const struct cm_run_request *request,
                                 const struct cm_world *world, struct cm_sink *sink, bool *agreed)
{
    struct cm_watch_end end;
    *agreed = false;
    struct inside inside = {.plan = plan,
                            .request = request,
                            .world = world,
                            .sink = sink,
                            .binding = CM_STR_INIT,
                            .timeout_s = request->wait_s};
    double silence_s = 0;
    for (size_t i = 0; i < plan->count; i++) {
        inside.timeout_s = fmax(inside.timeout_s, plan->cases[i].settings.timeout_s);
        silence_s = fmax(silence_s, plan->cases[i].settings.silence_s);
    }
    enum cm_status status = cm_watchdog_open(world, silence_s, &inside.dog, &end);
    if (status != CM_OK)
        return status;
    return end.fate == CM_FATE_FINE ? be_rank(&inside, agreed) : tell_loss(&inside, &end);
}
