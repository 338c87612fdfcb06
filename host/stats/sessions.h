/*
 * sessions.h: what the runs of a sample tell of their sessions. Private to host/stats.
 */
#ifndef HOST_STATS_SESSIONS_H
#define HOST_STATS_SESSIONS_H

#include "clustermark/stats.h"

struct cm_session_model {
    size_t count;     /* of sessions */
    double deviation; /* between them; NAN where not known */
    double share;     /* of the variance of a run that is its session's; 0 where not known */
};
/* `rows` has room for the runs, and takes their values and sessions, these numbered from 0. */
enum cm_status cm_session_model_make(const struct cm_runs *runs, struct cm_variance_run *rows,
                                     struct cm_session_model *model);
/* Of the values in `rows`, their sessions numbered already. */
enum cm_status cm_session_model_of(const struct cm_variance_run *rows, size_t count,
                                   struct cm_session_model *model);

/* How many deviations between sessions the shift may be off with that risk, when the deviation is
 * an estimate from `sessions` of them. 0 for less than two. */
double cm_session_reach(const struct cm_runs *x, const struct cm_runs *y, size_t sessions,
                        double risk);

/* By how much an end of an interval moves when so much is added in squares. */
double cm_session_widen(const struct cm_shift *shift, double deviation, double reach);

#endif
