/*
 * gate.h: the pieces of the gate. Private to host/result.
 */
#ifndef CM_RESULT_GATE_H
#define CM_RESULT_GATE_H

#include "host/result/compare.h"

/* Gated metrics; more would each need more runs for the same risk. */
#define CM_GATED_MAX 8
/* Of any false alarm of a gate over all its looks, and of a false one among the advisory. */
#define CM_GATE_RISK     0.01
#define CM_ADVISORY_RISK 0.10

struct cm_gate_metric {
    char *key; /* "case/metric" */
    double margin, floor;
};
struct cm_gate_rules {
    struct cm_gate_metric metrics[CM_GATED_MAX];
    size_t count;
    double risk;            /* of any false alarm, over all looks */
    double advisory_margin; /* of what is not gated */
};
/* From --metric, --margin, what the suites declare and the rules' file, held against what the
 * baseline and the new results have. A pattern that neither has stays in it as it is: that metric
 * is missing. CM_USAGE: over CM_GATED_MAX, a margin that is none, a file that is no rules. */
enum cm_status cm_gate_rules_make(const struct cm_gate_request *request, const struct cm_set *base,
                                  const struct cm_set *fresh, struct cm_gate_rules *rules);
void cm_gate_rules_release(struct cm_gate_rules *rules);

enum cm_gate_verdict {
    CM_GATE_PASS,
    CM_GATE_IMPROVED,
    CM_GATE_REGRESSION,
    CM_GATE_INCONCLUSIVE,
    CM_GATE_MISSING,   /* not in the new results */
    CM_GATE_NEW,       /* not in the baseline */
    CM_GATE_WRONG,     /* computed wrong values, or failed */
    CM_GATE_THROTTLED, /* the hardware slowed itself down */
    CM_GATE_UNIT       /* unit or direction changed */
};
extern const char *const cm_gate_verdict_names[];
/* What each means for the exit code. */
extern const enum cm_status cm_gate_verdict_statuses[];

/* One gated metric. */
struct cm_gate_row {
    const struct cm_gate_metric *metric;
    const struct cm_series *base, *fresh; /* NULL: not there */
    enum cm_gate_verdict verdict;
    char reason[240];
    bool tested; /* the pair was made, and is to be released */
    struct cm_pair pair;
    double margin; /* on the pair's scale */
    double p, adjusted, risk;
    struct cm_sessions sessions;
    struct cm_shift shift; /* its interval has the risk on each side, and is widened for sessions */
};

/* What is tolerated, on the pair's scale. */
double cm_gate_margin(const struct cm_gate_metric *metric, const struct cm_pair *pair);
/* Test the rows together: Holm over all of them, at `risk` for the whole gate. */
enum cm_status cm_gate_judge(struct cm_gate_row *rows, size_t count, double risk);

/* Whether a case is the subject of a metric: itself, or a point of the sweep. */
bool cm_gate_is_subject(const json_t *result, const struct cm_series *series, const char *name);
/* Why a case's figures are not judged: its status or its telemetry in any file of the set. Returns
 * false where there is no reason. */
bool cm_gate_invalid(const struct cm_set *set, const struct cm_series *series,
                     enum cm_gate_verdict *verdict, char *reason, size_t size);

/* Two looks: the first writes what it saw, the second must see all of that and more, and nothing
 * else may have changed. *look is 1 or 2. */
enum cm_status cm_gate_look(const char *path, const struct cm_set *base, const struct cm_set *fresh,
                            const struct cm_gate_rules *rules, unsigned *look);
enum cm_status cm_gate_look_done(const char *path, const struct cm_set *base,
                                 const struct cm_set *fresh, const struct cm_gate_rules *rules,
                                 unsigned look, const char *outcome);

/* Load both sets and refuse what can be no baseline. */
enum cm_status cm_gate_load(const struct cm_texts *paths, const char *name, struct cm_set *set);
enum cm_status cm_gate_check_baseline(const struct cm_set *base);

#endif
