/*
 * budget.h: how much time each case run gets. Pure: the caller tells the time.
 *
 * The runs are made in rounds: every case once, then every case again. A round is begun when all
 * of it fits at the least that its cases need; what is left above that is shared out: cases that
 * need little get all they can use, the others equal parts. Estimates begin with the settings and
 * become what was measured.
 */
#ifndef HOST_MEASURE_BUDGET_H
#define HOST_MEASURE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/measure.h"
#include "clustermark/status.h"

struct cm_budget_case {
    uint64_t runs;
    size_t section;     /* consecutive numbers; a section is one start of processes per round */
    double least_s;     /* warm-up and shortest measurement, or the shortest run seen */
    double most_s;      /* until it stops by itself */
    double expected_s;  /* for the estimate of time left */
    double longest_s;   /* run that was seen; 0 for none */
    uint64_t completed; /* runs seen */
};

struct cm_budget {
    double total_s;  /* INFINITY for none */
    double end_s;    /* on the caller's clock: nothing may run after it */
    double launch_s; /* start and end of a world of processes: mean of those seen, or a guess */
    uint64_t launches;
    double overrun_s; /* by how much a limited case passed its limit: mean, or a guess */
    uint64_t limited;
    uint64_t rounds; /* begun */
    bool closed;     /* no other will be */
    struct cm_budget_case *cases;
    size_t count;
};

/* `total_s` 0 for none. */
enum cm_status cm_budget_make(const struct cm_plan *plan, double total_s, double now_s,
                              struct cm_budget *budget);
void cm_budget_release(struct cm_budget *budget);

/* Where the supervisor stands: about to measure this case in this run; `launch` when processes must
 * be started for it first. */
struct cm_budget_place {
    uint64_t run;
    size_t index;
    bool launch;
};

/* Whether to measure it, and for how long at most (INFINITY when there is no budget). */
bool cm_budget_grant(struct cm_budget *budget, struct cm_budget_place place, double now_s,
                     double *limit_s);

/* What was seen. */
void cm_budget_launched(struct cm_budget *budget, double took_s);
void cm_budget_ran(struct cm_budget *budget, size_t index, double took_s, double limit_s);

/* Estimate of the time from now to the end of all runs. */
double cm_budget_left(const struct cm_budget *budget, struct cm_budget_place place, double now_s);

#endif
