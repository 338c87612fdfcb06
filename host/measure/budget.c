/* Shares out the time of a run. */
#include "host/measure/budget.h"

#include <math.h>
#include <string.h>

#include "clustermark/memory.h"

#define FIRST_LAUNCH_S  1.0  /* before one was seen */
#define FIRST_OVERRUN_S 0.05 /* setup, check and teardown of a small case */
#define LEAST_LIMIT_S   0.05 /* less is not worth a run */

enum cm_status cm_budget_make(const struct cm_plan *plan, double total_s, double now_s,
                              struct cm_budget *budget)
{
    struct cm_budget made = {.total_s = total_s > 0 ? total_s : INFINITY,
                             .launch_s = FIRST_LAUNCH_S,
                             .overrun_s = FIRST_OVERRUN_S,
                             .count = plan->count};
    made.cases = cm_alloc(plan->count, sizeof *made.cases);
    if (made.cases == NULL)
        return CM_NO_MEMORY;
    /* The last moments belong to ending processes, the result file and the report. */
    made.end_s = now_s + made.total_s - fmin(1.5, 0.05 * made.total_s);
    if (isinf(made.total_s))
        made.end_s = INFINITY;

    size_t section = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct cm_run_settings *settings = &plan->cases[i].settings;
        if (i > 0 && strcmp(plan->cases[i].section, plan->cases[i - 1].section) != 0)
            section++;
        double shortest = fmin(settings->min_time_s, settings->max_time_s);
        double typical = fmin(2 * settings->min_time_s, settings->max_time_s);
        made.cases[i] = (struct cm_budget_case){
            .runs = settings->runs,
            .section = section,
            .least_s = settings->warmup_time_s + shortest + FIRST_OVERRUN_S,
            .most_s = settings->warmup_time_s + settings->max_time_s + FIRST_OVERRUN_S,
            .expected_s = settings->warmup_time_s + typical + FIRST_OVERRUN_S,
        };
    }
    *budget = made;
    return CM_OK;
}

void cm_budget_release(struct cm_budget *budget)
{
    cm_free(budget->cases);
    *budget = (struct cm_budget){.count = 0};
}

/* Runs of a case that are still to be made in the rounds before `rounds`. */
static double runs_left(const struct cm_budget *budget, struct cm_budget_place place, size_t index,
                        uint64_t rounds)
{
    uint64_t first = place.run + (index < place.index ? 1 : 0);
    uint64_t last = budget->cases[index].runs < rounds ? budget->cases[index].runs : rounds;
    return last > first ? (double)(last - first) : 0;
}

/* Starts of processes that are still to be made: one per section and round that has a case. */
static double launches_left(const struct cm_budget *budget, struct cm_budget_place place,
                            uint64_t rounds)
{
    double launches = place.launch ? 1 : 0;
    for (size_t i = 0; i < budget->count;) {
        size_t next = i;
        uint64_t most = 0;
        for (; next < budget->count && budget->cases[next].section == budget->cases[i].section;
             next++)
            most = budget->cases[next].runs > most ? budget->cases[next].runs : most;
        /* The round of this place: sections that begin after it. */
        uint64_t first = place.run + (i <= place.index ? 1 : 0);
        uint64_t last = most < rounds ? most : rounds;
        if (last > first)
            launches += (double)(last - first);
        i = next;
    }
    return launches;
}

/* Time for the cases themselves. */
static double time_left(const struct cm_budget *budget, struct cm_budget_place place,
                        uint64_t rounds, double now_s)
{
    double left = budget->end_s - now_s;
    return left - launches_left(budget, place, rounds) * budget->launch_s;
}

/* The time that all runs left take together when each gets `level`, within what it needs. */
static double total_at(const struct cm_budget *budget, struct cm_budget_place place,
                       uint64_t rounds, double level)
{
    double total = 0;
    for (size_t i = 0; i < budget->count; i++) {
        const struct cm_budget_case *item = &budget->cases[i];
        double each = fmax(item->least_s, fmin(item->most_s, level));
        total += runs_left(budget, place, i, rounds) * each;
    }
    return total;
}

/* The rounds to plan for: as many as fit at the least that their cases need, but never fewer than
 * what was begun. */
static uint64_t plan_rounds(const struct cm_budget *budget, struct cm_budget_place place,
                            double now_s)
{
    uint64_t low = place.run + 1, high = low;
    for (size_t i = 0; i < budget->count; i++)
        high = budget->cases[i].runs > high ? budget->cases[i].runs : high;
    while (low < high) {
        uint64_t middle = low + (high - low + 1) / 2;
        if (total_at(budget, place, middle, 0) <= time_left(budget, place, middle, now_s))
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* This case's share of `time`, which lies between what all need at least and at most. */
static double level_share(const struct cm_budget *budget, struct cm_budget_place place,
                          uint64_t rounds, double time)
{
    const struct cm_budget_case *item = &budget->cases[place.index];
    double low = 0, high = time;
    for (int i = 0; i < 50; i++) {
        double middle = (low + high) / 2;
        if (total_at(budget, place, rounds, middle) <= time)
            low = middle;
        else
            high = middle;
    }
    return fmax(item->least_s, fmin(item->most_s, low));
}

bool cm_budget_grant(struct cm_budget *budget, struct cm_budget_place place, double now_s,
                     double *limit_s)
{
    const struct cm_budget_case *item = &budget->cases[place.index];
    if (isinf(budget->total_s)) {
        *limit_s = INFINITY;
        return true;
    }
    bool begins = place.run >= budget->rounds;
    uint64_t rounds = plan_rounds(budget, place, now_s);
    double time = time_left(budget, place, rounds, now_s);
    double least = total_at(budget, place, rounds, 0);
    double most = total_at(budget, place, rounds, INFINITY);
    double share;
    if (begins && place.run > 0 && least > time)
        budget->closed = true;
    if (begins && budget->closed)
        return false;
    if (least > time)
        share = item->least_s * time / least; /* the first round must serve every case */
    else if (most <= time)
        share = item->most_s + (time - most); /* the surplus is free until the next one asks */
    else
        share = level_share(budget, place, rounds, time);

    double mine = budget->end_s - now_s - (place.launch ? budget->launch_s : 0);
    double limit = fmin(share, mine) - budget->overrun_s;
    if (limit < LEAST_LIMIT_S)
        limit = fmin(LEAST_LIMIT_S, mine - budget->overrun_s);
    if (limit < LEAST_LIMIT_S)
        return false;
    if (begins)
        budget->rounds = place.run + 1;
    *limit_s = limit;
    return true;
}

static void mean_in(double *mean, uint64_t *count, double value)
{
    *count += 1;
    /* The first replaces the guess; later ones weigh at least a quarter, to follow a change. */
    double weight = fmax(1.0 / (double)*count, 0.25);
    *mean += weight * (value - *mean);
}

void cm_budget_launched(struct cm_budget *budget, double took_s)
{
    mean_in(&budget->launch_s, &budget->launches, took_s);
}

void cm_budget_ran(struct cm_budget *budget, size_t index, double took_s, double limit_s)
{
    struct cm_budget_case *item = &budget->cases[index];
    /* Whether the limit cut it cannot be seen from here, but a run near its limit says how far it
     * goes beyond. */
    bool cut = took_s >= limit_s;
    if (cut)
        mean_in(&budget->overrun_s, &budget->limited, took_s - limit_s);
    item->longest_s = fmax(item->longest_s, took_s);
    mean_in(&item->expected_s, &item->completed, took_s);
    if (!cut) {
        /* It stopped by itself: so it will again, give or take a quarter. */
        item->most_s = 1.25 * item->longest_s;
        item->least_s = fmin(item->least_s, took_s);
    } else {
        item->most_s = fmax(item->most_s, item->longest_s);
    }
}

double cm_budget_left(const struct cm_budget *budget, struct cm_budget_place place, double now_s)
{
    double left = launches_left(budget, place, UINT64_MAX) * budget->launch_s;
    for (size_t i = 0; i < budget->count; i++)
        left += runs_left(budget, place, i, UINT64_MAX) * budget->cases[i].expected_s;
    return fmax(0, fmin(left, budget->end_s - now_s));
}
