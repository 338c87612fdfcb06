/*
 * pairs: which host, network card or device is slow, or which cable between two, in O(n log n)
 * transfers.
 *
 * Ranks meet in rounds, all pairs at once, another partner in each (pairs.h of include/ tells how).
 * A round has two parts, there and back: one message of `size` from the lower rank to the higher,
 * then the other way round; or one part with `both` at once. From the first rounds a fit gives each
 * rank's own share in its rates as sender and as receiver. Those that are slower than the margin
 * allows meet partners that are not, in a few more rounds at the end; who is as slow there is a
 * suspect that is confirmed. Rates count one direction's bytes, by the slower end's time.
 *
 * Between three nodes or more, ranks meet those with the same place on another node; else any rank
 * meets any.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/workload/auto_size.h"
#include "host/workload/pair_parts.h"
#include "host/workload/pairs.h"

enum { ALIGNMENT = 256, LABELS_MAX = 128 };

struct pairs_state {
    struct cm_context *context;
    struct cm_pairs_params params;
    struct cm_pairs_plan plan;
    uint64_t stride; /* bytes from one set's message to the next */
    unsigned sets;
    char *send, *recv, *scratch;
    struct cm_verify_result *verdict;
};

#define FIELD(name) offsetof(struct cm_pairs_params, name)
static const char *const betweens[] = {"auto", "nodes", "ranks", NULL};
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option pairs_options[] = {
    {"size", CM_OPTION_SIZE, FIELD(size_bytes), 0, 0, "0",
     "bytes of a message; 0 for a size that suits the device", NULL, 0, false},
    {"both", CM_OPTION_BOOL, FIELD(both), 0, 0, "no",
     "send in both directions at once; a host's sending and receiving are then one", NULL, 0,
     false},
    {"between", CM_OPTION_CHOICE, FIELD(between), 0, 0, "auto",
     "which ranks meet: those with the same place on other nodes, or all; auto: of nodes from "
     "three "
     "on",
     betweens, 0, false},
    {"rounds", CM_OPTION_COUNT, FIELD(rounds), 0, 1000, "0",
     "partners of each rank; 0 for as many as tell a slow rank from a slow partner", NULL, 0,
     false},
    {"retests", CM_OPTION_COUNT, FIELD(retests), 1, 100, "3",
     "rounds in which those that are suspected meet good partners", NULL, 0, false},
    {"margin", CM_OPTION_REAL, FIELD(margin), 0, 0.99, "5%",
     "how much slower than the others is still fine", NULL, 0, false},
    {"risk", CM_OPTION_REAL, FIELD(risk), 1e-9, 0.5, "1%",
     "of suspecting anybody in a run where nobody is slow", NULL, 0, false},
    {"rotate", CM_OPTION_BOOL, FIELD(rotate), 0, 0, "yes",
     "use further buffers in turn until caches cannot hold them", NULL, 0, false},
    {0},
};

static enum cm_status pairs_validate(const void *memory, const char *where)
{
    const struct cm_pairs_params *params = memory;
    return cm_two_sizes_check(params->size_bytes, 4, where);
}

static unsigned partner_in(const struct pairs_state *state, unsigned part, unsigned rank)
{
    unsigned round = part / cm_pairs_parts(&state->params);
    return state->plan.partner[(size_t)round * state->plan.ranks + rank];
}

static enum cm_status allocate(struct pairs_state *state)
{
    uint64_t slab = state->stride * state->sets;
    char *verdict = NULL;
    const struct {
        enum cm_memory_kind kind;
        uint64_t bytes;
        char **memory;
    } rows[] = {
        {CM_MEMORY_COMM, slab, &state->send},
        {CM_MEMORY_COMM, slab, &state->recv},
        {CM_MEMORY_DEVICE, state->stride, &state->scratch},
        {CM_MEMORY_HOST, sizeof *state->verdict, &verdict},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum cm_status status =
            cm_take_bytes(state->context, rows[i].kind, rows[i].bytes, rows[i].memory);
        if (status != CM_OK)
            return status;
    }
    state->verdict = (struct cm_verify_result *)(void *)verdict;
    return cm_context_output(state->context, state->recv, slab);
}

static uint64_t message_seed(const struct pairs_state *state, unsigned sender)
{
    return cm_random_seed(state->context->seed, "pairs", sender, 0);
}

static enum cm_status pairs_setup(struct cm_context *context, const void *params, void *memory)
{
    struct pairs_state *state = memory;
    state->context = context;
    state->params = *(const struct cm_pairs_params *)params;
    uint64_t left;
    enum cm_status status = CM_OK;
    if (state->params.size_bytes == 0) {
        status = cm_context_memory_left(context, &left);
        state->params.size_bytes =
            cm_auto_message(context->device->ops->is_host, status == CM_OK ? left : 0);
    }
    state->stride = (state->params.size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    state->sets = 1;
    if (status == CM_OK && state->params.rotate)
        status = cm_context_rotation(context, 2 * state->stride, &state->sets);
    if (status == CM_OK)
        status =
            cm_pairs_plan_make(context->comm->size, context->node_of, state->params.between,
                               (unsigned)state->params.rounds,
                               cm_random_seed(context->seed, "pairs-plan", 0, 0), &state->plan);
    if (status == CM_OK && state->plan.rounds == 0)
        status = cm_error(CM_UNSUPPORTED, "pairs: no rank has another one to meet");
    if (status == CM_OK)
        status = allocate(state);
    if (status == CM_OK)
        status = context->device->kernels->fill_normal(context->stream, state->send,
                                                       state->stride * state->sets / 4, CM_F32,
                                                       message_seed(state, context->comm->rank), 0);
    return status == CM_OK ? cm_context_sync(context) : status;
}

static unsigned pairs_part_count(const void *memory)
{
    const struct pairs_state *state = memory;
    return (state->plan.rounds + state->plan.retests) * cm_pairs_parts(&state->params);
}

static void pairs_part(const void *memory, unsigned index, struct cm_part *part)
{
    const struct pairs_state *state = memory;
    unsigned round = index / cm_pairs_parts(&state->params);
    bool again = round >= state->plan.rounds;
    snprintf(part->name, sizeof part->name, "%s%u%s", again ? "retest" : "round",
             again ? round - state->plan.rounds : round,
             state->params.both ? ""
             : index % 2 == 0   ? ".there"
                                : ".back");
    part->idle = partner_in(state, index, state->context->comm->rank) == CM_NO_PARTNER;
}

static enum cm_status pairs_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    struct pairs_state *state = memory;
    struct cm_comm *comm = state->context->comm;
    struct cm_stream *stream = state->context->stream;
    unsigned peer = partner_in(state, part, comm->rank);
    if (peer == CM_NO_PARTNER)
        return CM_OK;
    uint64_t offset = iteration % state->sets * state->stride;
    uint64_t count = state->params.size_bytes / 4;
    bool sends = cm_pairs_sends(&state->params, part, comm->rank, peer);
    if (!state->params.both && sends)
        return comm->ops->send(comm, stream, state->send + offset, count, CM_F32, peer);
    if (!state->params.both)
        return comm->ops->recv(comm, stream, state->recv + offset, count, CM_F32, peer);
    return cm_pair_exchange(comm, stream, state->send + offset, state->recv + offset, count, peer);
}

static void pairs_work(const void *memory, unsigned part, struct cm_work *work)
{
    const struct pairs_state *state = memory;
    (void)part;
    work->message_bytes = (double)state->params.size_bytes;
}

static enum cm_status pairs_check(void *memory, unsigned part, uint64_t iterations,
                                  struct cm_check *check)
{
    struct pairs_state *state = memory;
    unsigned rank = state->context->comm->rank, peer = partner_in(state, part, rank);
    bool receives = peer != CM_NO_PARTNER && cm_pairs_sends(&state->params, part, peer, rank);
    if (!receives) {
        snprintf(check->nothing, sizeof check->nothing, "rank %u received nothing", rank);
        return CM_OK;
    }
    uint64_t used = iterations < state->sets ? iterations : state->sets;
    enum cm_status status = CM_OK;
    for (uint64_t set = 0; set < used && status == CM_OK; set++) {
        const struct cm_arrival arrival = {
            .memory = state->recv + set * state->stride,
            .seed = message_seed(state, peer),
            .first = set * state->stride / 4,
            .count = state->params.size_bytes / 4,
            .sender = peer,
            .set = (unsigned)set,
            .did = "sent",
            .scratch = state->scratch,
            .verdict = state->verdict,
        };
        status = cm_arrival_check(state->context, &arrival, check);
    }
    return status;
}

static void pairs_teardown(void *memory)
{
    struct pairs_state *state = memory;
    cm_pairs_plan_release(&state->plan);
}

/* What the reporting rank decided, in what a gathering carries. More suspects than there is room
 * for are no longer news; the retest looks at the first. */
struct decision {
    unsigned suspects, apart, pairs;
    unsigned ranks[600]; /* suspects, then those apart */
    struct cm_pair_of pair[CM_PAIRS_SUSPECTED];
};
_Static_assert(sizeof(struct decision) <= 4096, "a decision fits a gathering");

static void write_decision(const struct cm_pairs_verdict *verdict, unsigned ranks,
                           struct decision *decision)
{
    unsigned used = 0;
    for (int state = CM_UNIT_SUSPECT; state <= CM_UNIT_APART; state++) {
        for (unsigned r = 0; r < ranks && used < sizeof decision->ranks / sizeof(unsigned); r++) {
            if (verdict->states[r] == state)
                decision->ranks[used++] = r;
        }
        if (state == CM_UNIT_SUSPECT)
            decision->suspects = used;
    }
    decision->apart = used - decision->suspects;
    decision->pairs = (unsigned)verdict->pair_count;
    for (size_t i = 0; i < verdict->pair_count; i++)
        decision->pair[i] = verdict->pairs[i];
}

/* The reporting rank judges; one that fails takes part all the same. */
static enum cm_status decide(struct pairs_state *state, const struct cm_part_samples *parts,
                             struct decision *decision)
{
    struct cm_context *context = state->context;
    enum cm_status judged = CM_OK;
    const void *all;
    memset(decision, 0, sizeof *decision);
    if (context->comm->rank == 0) {
        struct cm_pairs_verdict verdict = {0};
        judged = cm_pairs_judge(&state->params, &state->plan, (double)state->params.size_bytes,
                                parts, &verdict);
        if (judged == CM_OK)
            write_decision(&verdict, context->comm->size, decision);
        cm_pairs_verdict_release(&verdict);
    }
    unsigned any = decision->suspects + decision->pairs;
    enum cm_status status = cm_context_gather(context, &any, sizeof any, &all);
    if (status == CM_OK && *(const unsigned *)all > 0) {
        status = cm_context_gather(context, decision, sizeof *decision, &all);
        if (status == CM_OK)
            memcpy(decision, all, sizeof *decision);
    }
    return judged != CM_OK ? judged : status;
}

static enum cm_status plan_retest(struct pairs_state *state, const struct decision *decision)
{
    unsigned char *states = cm_alloc(state->plan.ranks, sizeof *states);
    if (states == NULL)
        return CM_NO_MEMORY;
    for (unsigned i = 0; i < decision->suspects + decision->apart; i++)
        states[decision->ranks[i]] = i < decision->suspects ? CM_UNIT_SUSPECT : CM_UNIT_APART;
    enum cm_status status = cm_pairs_plan_retest(
        &state->plan, states, decision->pair, decision->pairs, (unsigned)state->params.retests,
        cm_random_seed(state->context->seed, "pairs-retest", 0, 0));
    cm_free(states);
    return status;
}

static enum cm_status pairs_extend(void *memory, const struct cm_part_samples *parts,
                                   unsigned *part_count)
{
    struct pairs_state *state = memory;
    struct decision decision;
    if (state->plan.retests > 0)
        return CM_OK;
    enum cm_status status = decide(state, parts, &decision);
    if (status == CM_OK && decision.suspects + decision.pairs > 0)
        status = plan_retest(state, &decision);
    if (status == CM_OK)
        *part_count = pairs_part_count(state);
    return status;
}

/* "busbw.3-0": the median of what went from 3 to 0 in the first rounds. */
static enum cm_status add_pairs(const struct pairs_state *state,
                                const struct cm_part_samples *parts, struct cm_metrics *metrics)
{
    const struct cm_pairs_plan *plan = &state->plan;
    unsigned per_round = cm_pairs_parts(&state->params);
    enum cm_status status = CM_OK;
    for (unsigned from = 0; from < plan->ranks; from++) {
        for (unsigned to = state->params.both ? from + 1 : 0; to < plan->ranks; to++) {
            double rates[64];
            size_t count = 0;
            for (unsigned p = 0; p < plan->rounds * per_round && count < 64; p++) {
                if (partner_in(state, p, from) == to && cm_pairs_sends(&state->params, p, from, to))
                    rates[count++] =
                        exp(cm_pairs_rate(&parts[p], (double)state->params.size_bytes, from, to));
            }
            char name[CM_METRIC_NAME_MAX];
            struct cm_metric *metric;
            if (count == 0 || status != CM_OK)
                continue;
            snprintf(name, sizeof name, "busbw.%u-%u", from, to);
            status =
                cm_metrics_add(metrics, name, cm_median(rates, count), "B/s", CM_HIGHER, &metric);
            if (status == CM_OK)
                snprintf(metric->ceiling_source, sizeof metric->ceiling_source,
                         "not known: the rate of the link between the ranks");
        }
    }
    return status;
}

static enum cm_status pairs_find(const void *memory, const struct cm_part_samples *parts,
                                 unsigned part_count, struct cm_suspects *suspects,
                                 struct cm_metrics *metrics)
{
    const struct pairs_state *state = memory;
    struct cm_pairs_verdict verdict = {0};
    (void)part_count;
    size_t labels = (size_t)state->plan.ranks * state->plan.rounds;
    enum cm_status status = cm_pairs_judge(&state->params, &state->plan,
                                           (double)state->params.size_bytes, parts, &verdict);
    for (size_t i = 0; i < verdict.suspects.count && status == CM_OK; i++)
        status = cm_suspects_add(suspects, &verdict.suspects.items[i]);
    cm_pairs_verdict_release(&verdict);
    if (status == CM_OK && labels <= LABELS_MAX)
        status = add_pairs(state, parts, metrics);
    return status;
}

/* The headline, over all that met in the first rounds; the slowest of them beside it. */
static enum cm_status pairs_metrics(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    struct cm_samples rates = {.values = NULL};
    struct cm_metric *metric;
    enum cm_status status = CM_OK;
    for (unsigned p = 0; p < input->part_count; p++) {
        const struct cm_part_samples *part = &input->parts[p];
        for (unsigned r = 0; r < part->rank_count && strncmp(part->part.name, "round", 5) == 0;
             r++) {
            if (part->rank_median_s[r] > 0 && status == CM_OK)
                status = cm_samples_add(&rates, part->work.message_bytes / part->rank_median_s[r]);
        }
    }
    const struct {
        const char *name;
        double quantile;
    } rows[] = {{"busbw", 0.5}, {"busbw_lowest", 0}};
    for (size_t i = 0; i < 2 && status == CM_OK; i++) {
        status = cm_metrics_add(metrics, rows[i].name,
                                cm_quantile(rates.values, rates.count, rows[i].quantile), "B/s",
                                CM_HIGHER, &metric);
        if (status == CM_OK)
            snprintf(metric->ceiling_source, sizeof metric->ceiling_source,
                     "not known: the rate of the link between the ranks");
    }
    cm_samples_release(&rates);
    const struct cm_pairs_params *params = input->params;
    if (status == CM_OK && params->size_bytes == 0)
        status = cm_metrics_add(metrics, "size", input->parts[0].work.message_bytes, "B",
                                CM_NEITHER, NULL);
    return status;
}

const struct cm_workload cm_workload_pairs = {
    .name = "pairs",
    .summary = "which host, network card or device is slow: all pairs of a round at once",
    .options = pairs_options,
    .params_size = sizeof(struct cm_pairs_params),
    .state_size = sizeof(struct pairs_state),
    .needs = CM_NEEDS_PEERS,
    .headline = "busbw",
    .validate = pairs_validate,
    .setup = pairs_setup,
    .part_count = pairs_part_count,
    .part = pairs_part,
    .enqueue = pairs_enqueue,
    .work = pairs_work,
    .check = pairs_check,
    .extend = pairs_extend,
    .find = pairs_find,
    .teardown = pairs_teardown,
    .metrics = pairs_metrics,
};
