/* pairs: from the times of all rounds to those that are suspected, and to what the retest says. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/workload/pairs.h"

/* Of a median against the MAD of what it is of, for normal noise. */
#define MEDIAN_ERROR (1.2533 * 1.4826)

/* A lane's values and their fit. Where ranks of one node and of several meet, links within a node
 * are another kind: what such pairs have in common is taken off before. */
struct lane {
    unsigned count; /* units */
    const unsigned *members;
    struct cm_pair_value *values;
    size_t value_count;
    double offset[2]; /* of pairs of two nodes, of one */
    struct cm_pair_fit fit;
    const double *p_from, *p_to, *p_both, *p_rest; /* adjusted */
};

struct judge {
    const struct cm_pairs_params *params;
    const struct cm_pairs_plan *plan;
    const struct cm_part_samples *parts;
    double bytes;
    struct lane *lanes;
    double *units, *rest; /* p of all lanes' units and values, then adjusted */
    size_t unit_count, rest_count;
    struct cm_pairs_verdict *out;
};

double cm_pairs_rate(const struct cm_part_samples *part, double bytes, unsigned from, unsigned to)
{
    double time_s = fmax(part->rank_median_s[from], part->rank_median_s[to]);
    return time_s > 0 ? log(bytes / time_s) : (double)NAN;
}

static unsigned partner_of(const struct judge *judge, unsigned part, unsigned rank)
{
    const struct cm_pairs_plan *plan = judge->plan;
    return plan->partner[(size_t)(part / cm_pairs_parts(judge->params)) * plan->ranks + rank];
}

/* Whether `rank` begins a value of that part; of both at once the lower one does. */
static bool begins(const struct judge *judge, unsigned part, unsigned rank)
{
    unsigned partner = partner_of(judge, part, rank);
    if (partner == CM_NO_PARTNER)
        return false;
    return judge->params->both ? rank < partner
                               : cm_pairs_sends(judge->params, part, rank, partner);
}

static bool one_node(const struct judge *judge, unsigned a, unsigned b)
{
    const unsigned *nodes = judge->plan->node_of;
    return nodes != NULL && nodes[a] == nodes[b];
}

/* What a single value is uncertain by, as its part's iterations tell. */
static enum cm_status find_floor(const struct judge *judge, unsigned parts, double *floor)
{
    double *errors = cm_alloc(parts, sizeof *errors);
    if (errors == NULL)
        return CM_NO_MEMORY;
    for (unsigned p = 0; p < parts; p++) {
        const struct cm_samples *times = &judge->parts[p].slowest;
        errors[p] = MEDIAN_ERROR * cm_mad(times->values, times->count) /
                    (judge->parts[p].median_s * sqrt((double)times->count));
    }
    *floor = cm_median(errors, parts);
    cm_free(errors);
    return isfinite(*floor) ? CM_OK
                            : cm_error(CM_INTERNAL, "pairs: a part has no times to judge by");
}

static enum cm_status take_values(const struct judge *judge, struct lane *lane)
{
    unsigned parts = judge->plan->rounds * cm_pairs_parts(judge->params);
    lane->values = cm_alloc((size_t)lane->count * parts, sizeof *lane->values);
    if (lane->values == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < (size_t)lane->count * parts; i++) {
        unsigned part = (unsigned)(i / lane->count), unit = (unsigned)(i % lane->count);
        unsigned from = lane->members[unit];
        if (!begins(judge, part, from))
            continue;
        unsigned to = partner_of(judge, part, from);
        double rate = cm_pairs_rate(&judge->parts[part], judge->bytes, from, to);
        if (isfinite(rate))
            lane->values[lane->value_count++] =
                (struct cm_pair_value){unit, judge->plan->index_of[to], rate};
    }
    return CM_OK;
}

static enum cm_status take_offsets(const struct judge *judge, struct lane *lane)
{
    double *rates = cm_alloc(lane->value_count, sizeof *rates);
    if (rates == NULL)
        return CM_NO_MEMORY;
    for (int same = 0; same < 2 && !judge->plan->between_nodes; same++) {
        size_t count = 0;
        for (size_t i = 0; i < lane->value_count; i++) {
            const struct cm_pair_value *value = &lane->values[i];
            if (one_node(judge, lane->members[value->from], lane->members[value->to]) == same)
                rates[count++] = value->value;
        }
        lane->offset[same] = count > 0 ? cm_median(rates, count) : 0;
    }
    for (size_t i = 0; i < lane->value_count; i++) {
        struct cm_pair_value *value = &lane->values[i];
        value->value -=
            lane->offset[one_node(judge, lane->members[value->from], lane->members[value->to])];
    }
    cm_free(rates);
    return CM_OK;
}

static enum cm_status fit_lane(const struct judge *judge, double floor, struct lane *lane)
{
    const struct cm_pair_options options = {
        .symmetric = judge->params->both, .margin = judge->params->margin, .floor = floor};
    enum cm_status status = take_values(judge, lane);
    if (status == CM_OK)
        status = take_offsets(judge, lane);
    if (status == CM_OK)
        status =
            cm_pair_fit_make(lane->values, lane->value_count, lane->count, &options, &lane->fit);
    return status;
}

static enum cm_status fit_lanes(struct judge *judge)
{
    const struct cm_pairs_plan *plan = judge->plan;
    double floor = 0;
    judge->lanes = cm_alloc(plan->lanes, sizeof *judge->lanes);
    if (judge->lanes == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = find_floor(judge, plan->rounds * cm_pairs_parts(judge->params), &floor);
    for (unsigned i = 0; i < plan->lanes && status == CM_OK; i++) {
        struct lane *lane = &judge->lanes[i];
        lane->members = plan->members + plan->lane_begin[i];
        lane->count = plan->lane_begin[i + 1] - plan->lane_begin[i];
        status = fit_lane(judge, floor, lane);
        judge->unit_count += (judge->params->both ? 1 : 3) * (size_t)lane->count;
        judge->rest_count += lane->value_count;
    }
    return status;
}

static const double *put_p(double **at, const struct cm_pair_effect *effects, size_t count)
{
    const double *begin = *at;
    for (size_t i = 0; i < count; i++)
        *(*at)++ = effects[i].p;
    return begin;
}

/* All units of all lanes are one family, all pairs another; each has half of the risk. */
static enum cm_status adjust(struct judge *judge)
{
    judge->units = cm_alloc(judge->unit_count, sizeof(double));
    judge->rest = cm_alloc(judge->rest_count, sizeof(double));
    if (judge->units == NULL || judge->rest == NULL)
        return CM_NO_MEMORY;
    double *unit = judge->units, *rest = judge->rest;
    for (unsigned i = 0; i < judge->plan->lanes; i++) {
        struct lane *lane = &judge->lanes[i];
        lane->p_from = lane->p_to = lane->p_both = put_p(&unit, lane->fit.from, lane->count);
        if (!judge->params->both) {
            lane->p_to = put_p(&unit, lane->fit.to, lane->count);
            lane->p_both = put_p(&unit, lane->fit.both, lane->count);
        }
        lane->p_rest = put_p(&rest, lane->fit.rest, lane->value_count);
    }
    enum cm_status status = cm_holm(judge->units, judge->unit_count, judge->units);
    return status == CM_OK ? cm_holm(judge->rest, judge->rest_count, judge->rest) : status;
}

static bool suspected(const struct judge *judge, double p)
{
    return p <= judge->params->risk / 2;
}

/* Slow beyond its own noise: no good partner, though it may be none to suspect. */
static bool doubtful(const struct cm_pair_effect *effect, double limit)
{
    return effect->effect < limit && effect->effect + 2 * effect->error < 0;
}

static void set_states(struct judge *judge)
{
    double limit = log1p(-judge->params->margin);
    for (unsigned i = 0; i < judge->plan->lanes; i++) {
        const struct lane *lane = &judge->lanes[i];
        for (unsigned u = 0; u < lane->count; u++) {
            unsigned char *state = &judge->out->states[lane->members[u]];
            if (suspected(judge, lane->p_from[u]) || suspected(judge, lane->p_to[u]) ||
                suspected(judge, lane->p_both[u]))
                *state = CM_UNIT_SUSPECT;
            else if (doubtful(&lane->fit.from[u], limit) || doubtful(&lane->fit.to[u], limit))
                *state = CM_UNIT_APART;
        }
    }
}

/* --- what the retest says --------------------------------------------------------------------- */

/* What is measured again, beyond what is known of its ends; of an end that is asked about nothing
 * is known. */
static double beyond(const struct judge *judge, const struct lane *lane, unsigned part,
                     unsigned from, unsigned to, unsigned asked)
{
    unsigned a = judge->plan->index_of[from], b = judge->plan->index_of[to];
    double value = cm_pairs_rate(&judge->parts[part], judge->bytes, from, to) -
                   lane->offset[one_node(judge, from, to)] - lane->fit.mean;
    value -= from == asked ? 0 : lane->fit.from[a].effect;
    return value - (to == asked ? 0 : lane->fit.to[b].effect);
}

/* The median of good pairs at the same time: what has changed since the first rounds. */
static double controls(const struct judge *judge, const struct lane *lane, unsigned part,
                       double *room)
{
    size_t count = 0;
    for (unsigned u = 0; u < lane->count; u++) {
        unsigned from = lane->members[u];
        if (!begins(judge, part, from))
            continue;
        unsigned to = partner_of(judge, part, from);
        bool pair = false;
        for (size_t i = 0; i < judge->out->pair_count; i++) {
            const struct cm_pair_of *of = &judge->out->pairs[i];
            pair = pair || (of->from == from && of->to == to) || (of->to == from && of->from == to);
        }
        double value = beyond(judge, lane, part, from, to, CM_NO_PARTNER);
        if (!pair && judge->out->states[from] == CM_UNIT_GOOD &&
            judge->out->states[to] == CM_UNIT_GOOD && isfinite(value))
            room[count++] = value;
    }
    return count > 0 ? cm_median(room, count) : (double)NAN;
}

struct question {
    unsigned rank, peer; /* of a pair: its ends; else CM_NO_PEER */
    bool sends, receives;
};

/* Whether the value that `rank` begins in that part speaks of the question; *partner is the other
 * end. */
static bool speaks(const struct judge *judge, const struct question *question, unsigned part,
                   unsigned *from, unsigned *to)
{
    unsigned partner = partner_of(judge, part, question->rank);
    if (partner == CM_NO_PARTNER || (question->peer != CM_NO_PEER && partner != question->peer))
        return false;
    bool sends = begins(judge, part, question->rank);
    *from = sends ? question->rank : partner;
    *to = sends ? partner : question->rank;
    return judge->params->both || (sends ? question->sends : question->receives);
}

static void note_partner(struct cm_suspect *suspect, unsigned partner)
{
    char text[16];
    size_t used = strlen(suspect->partners);
    snprintf(text, sizeof text, "%s%u", used > 0 ? ", " : "", partner);
    const char *seen = strstr(suspect->partners, used > 0 ? text + 2 : text);
    if (seen == NULL && used + strlen(text) < sizeof suspect->partners)
        memcpy(suspect->partners + used, text, strlen(text) + 1);
}

/* By the noise of the first rounds: a median of few values, against one of as many controls. */
static bool still_slow(const struct judge *judge, const struct lane *lane, double middle,
                       size_t count)
{
    double error = lane->fit.scale * sqrt(2 * acos(-1) / 2 / (double)count);
    double reach = cm_t_quantile(1 - judge->params->risk, fmax(0.37 * lane->fit.freedom, 0.5));
    return middle + reach * error <= log1p(-judge->params->margin);
}

static enum cm_status ask_again(const struct judge *judge, const struct lane *lane,
                                const struct question *question, struct cm_suspect *suspect)
{
    const struct cm_pairs_plan *plan = judge->plan;
    unsigned per_round = cm_pairs_parts(judge->params), parts = plan->retests * per_round;
    double *values = cm_alloc(parts, sizeof *values);
    double *room = cm_alloc(lane->count, sizeof *room);
    size_t count = 0;
    for (unsigned i = 0; values != NULL && room != NULL && i < parts; i++) {
        unsigned part = plan->rounds * per_round + i, from, to;
        if (!speaks(judge, question, part, &from, &to))
            continue;
        bool pair = question->peer != CM_NO_PEER;
        double value = beyond(judge, lane, part, from, to, pair ? CM_NO_PARTNER : question->rank) -
                       controls(judge, lane, part, room);
        if (!isfinite(value))
            continue;
        values[count++] = value;
        note_partner(suspect, from == question->rank ? to : from);
    }
    double middle = count > 0 ? cm_median(values, count) : (double)NAN;
    suspect->retest = expm1(middle);
    suspect->confirmed = count > 0 && still_slow(judge, lane, middle, count);
    bool room_for_all = values != NULL && room != NULL;
    cm_free(values);
    cm_free(room);
    return room_for_all ? CM_OK : CM_NO_MEMORY;
}

/* --- suspects --------------------------------------------------------------------------------- */

static void set_effect(const struct lane *lane, const struct cm_pair_effect *effect, double p,
                       struct cm_suspect *suspect)
{
    double reach = cm_t_quantile(0.975, fmax(0.37 * lane->fit.freedom, 0.5)) * effect->error;
    suspect->effect = expm1(effect->effect);
    suspect->low = expm1(effect->effect - reach);
    suspect->high = expm1(effect->effect + reach);
    suspect->p = p;
}

/* Slow at both is who is so at each, or at their mean alone. */
static enum cm_status add_unit(struct judge *judge, const struct lane *lane, unsigned unit)
{
    bool sends = suspected(judge, lane->p_from[unit]);
    bool receives = suspected(judge, lane->p_to[unit]);
    struct cm_suspect suspect = {
        .rank = lane->members[unit], .peer = CM_NO_PEER, .retest = (double)NAN};
    if (!sends && !receives && !suspected(judge, lane->p_both[unit]))
        return CM_OK;
    if (sends == receives) {
        sends = receives = true;
        set_effect(lane, &lane->fit.both[unit], lane->p_both[unit], &suspect);
    } else {
        set_effect(lane, sends ? &lane->fit.from[unit] : &lane->fit.to[unit],
                   sends ? lane->p_from[unit] : lane->p_to[unit], &suspect);
    }
    const struct question question = {
        .rank = suspect.rank, .peer = CM_NO_PEER, .sends = sends, .receives = receives};
    snprintf(suspect.what, sizeof suspect.what, "%s%s%s", sends ? "sending" : "",
             sends && receives ? " and " : "", receives ? "receiving" : "");
    enum cm_status status = ask_again(judge, lane, &question, &suspect);
    return status == CM_OK ? cm_suspects_add(&judge->out->suspects, &suspect) : status;
}

/* A pair is to blame where its ends are not; of repeated meetings the first stands for all. */
static bool pair_suspected(const struct judge *judge, const struct lane *lane, size_t value)
{
    const struct cm_pair_value *of = &lane->values[value];
    if (!suspected(judge, lane->p_rest[value]) ||
        judge->out->states[lane->members[of->from]] != CM_UNIT_GOOD ||
        judge->out->states[lane->members[of->to]] != CM_UNIT_GOOD)
        return false;
    for (size_t i = 0; i < judge->out->pair_count; i++) {
        if (judge->out->pairs[i].from == lane->members[of->from] &&
            judge->out->pairs[i].to == lane->members[of->to])
            return false;
    }
    return judge->out->pair_count < CM_PAIRS_SUSPECTED;
}

static enum cm_status add_pair(struct judge *judge, const struct lane *lane, size_t value)
{
    const struct cm_pair_value *of = &lane->values[value];
    struct cm_suspect suspect = {.what = "link",
                                 .rank = lane->members[of->from],
                                 .peer = lane->members[of->to],
                                 .retest = (double)NAN};
    const struct question question = {
        .rank = suspect.rank, .peer = suspect.peer, .sends = true, .receives = false};
    set_effect(lane, &lane->fit.rest[value], lane->p_rest[value], &suspect);
    enum cm_status status = ask_again(judge, lane, &question, &suspect);
    return status == CM_OK ? cm_suspects_add(&judge->out->suspects, &suspect) : status;
}

static enum cm_status list_pairs(struct judge *judge)
{
    judge->out->pairs = cm_alloc(CM_PAIRS_SUSPECTED, sizeof *judge->out->pairs);
    if (judge->out->pairs == NULL)
        return CM_NO_MEMORY;
    for (unsigned i = 0; i < judge->plan->lanes; i++) {
        const struct lane *lane = &judge->lanes[i];
        for (size_t k = 0; k < lane->value_count; k++) {
            if (pair_suspected(judge, lane, k))
                judge->out->pairs[judge->out->pair_count++] = (struct cm_pair_of){
                    lane->members[lane->values[k].from], lane->members[lane->values[k].to]};
        }
    }
    return CM_OK;
}

/* The first value of a listed pair. */
static bool is_listed(const struct judge *judge, const struct lane *lane, size_t value,
                      unsigned char *told)
{
    const struct cm_pair_value *of = &lane->values[value];
    for (size_t i = 0; i < judge->out->pair_count; i++) {
        if (judge->out->pairs[i].from != lane->members[of->from] ||
            judge->out->pairs[i].to != lane->members[of->to])
            continue;
        bool first = suspected(judge, lane->p_rest[value]) && !told[i];
        told[i] = told[i] || first;
        return first;
    }
    return false;
}

static int by_effect(const void *left, const void *right)
{
    const struct cm_suspect *a = left, *b = right;
    if (a->effect != b->effect)
        return a->effect < b->effect ? -1 : 1;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

static enum cm_status list_suspects(struct judge *judge)
{
    unsigned char told[CM_PAIRS_SUSPECTED] = {0};
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < judge->plan->lanes && status == CM_OK; i++) {
        const struct lane *lane = &judge->lanes[i];
        for (unsigned unit = 0; unit < lane->count && status == CM_OK; unit++)
            status = add_unit(judge, lane, unit);
        for (size_t k = 0; k < lane->value_count && status == CM_OK; k++) {
            if (is_listed(judge, lane, k, told))
                status = add_pair(judge, lane, k);
        }
    }
    struct cm_suspects *suspects = &judge->out->suspects;
    if (suspects->count > 1)
        qsort(suspects->items, suspects->count, sizeof *suspects->items, by_effect);
    return status;
}

static void release(struct judge *judge)
{
    for (unsigned i = 0; judge->lanes != NULL && i < judge->plan->lanes; i++) {
        cm_free(judge->lanes[i].values);
        cm_pair_fit_release(&judge->lanes[i].fit);
    }
    cm_free(judge->lanes);
    cm_free(judge->units);
    cm_free(judge->rest);
}

enum cm_status cm_pairs_judge(const struct cm_pairs_params *params,
                              const struct cm_pairs_plan *plan, double bytes,
                              const struct cm_part_samples *parts, struct cm_pairs_verdict *verdict)
{
    struct judge judge = {
        .params = params, .plan = plan, .parts = parts, .bytes = bytes, .out = verdict};
    verdict->states = cm_alloc(plan->ranks, sizeof *verdict->states);
    enum cm_status status = verdict->states != NULL ? fit_lanes(&judge) : CM_NO_MEMORY;
    if (status == CM_OK)
        status = adjust(&judge);
    if (status == CM_OK) {
        set_states(&judge);
        status = list_pairs(&judge);
    }
    if (status == CM_OK)
        status = list_suspects(&judge);
    release(&judge);
    return status;
}

void cm_pairs_verdict_release(struct cm_pairs_verdict *verdict)
{
    cm_free(verdict->states);
    cm_free(verdict->pairs);
    cm_suspects_release(&verdict->suspects);
    *verdict = (struct cm_pairs_verdict){0};
}
