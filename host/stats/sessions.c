/* Runs of one session are alike; what that adds to the uncertainty of a shift. */
#include "host/stats/sessions.h"

#include <math.h>

#include "clustermark/memory.h"

/* A run that lies further from its session's median is taken as lying there, in deviations within
 * sessions: a few that something else stopped tell nothing of sessions, and squares feel them most.
 */
#define FAR 3
/* What a median absolute deviation is of a normal one; and the fewest that tell. */
#define NORMAL_MAD 0.6745
#define TELLING    6

/* Distances from the medians of their sessions; returns how many are of sessions that have one of
 * which some lie on either side. */
static size_t measure(const struct cm_variance_run *rows, size_t count, double *values,
                      double *medians, double *distances)
{
    size_t telling = 0;
    for (size_t i = 0; i < count; i++) {
        size_t size = 0;
        for (size_t k = 0; k < count; k++) {
            if (rows[k].session == rows[i].session)
                values[size++] = rows[k].value;
        }
        medians[i] = cm_median(values, size);
        if (size >= 3)
            distances[telling++] = fabs(rows[i].value - medians[i]);
    }
    return telling;
}

static enum cm_status pull_in(const struct cm_variance_run *rows, size_t count,
                              struct cm_variance_run *pulled)
{
    double *memory = cm_alloc(3 * count, sizeof *memory), *medians = memory + count;
    if (memory == NULL)
        return CM_NO_MEMORY;
    size_t telling = measure(rows, count, memory, medians, memory + 2 * count);
    double deviation = cm_median(memory + 2 * count, telling) / NORMAL_MAD;
    double far = telling >= TELLING ? FAR * deviation : (double)INFINITY;
    for (size_t i = 0; i < count; i++) {
        pulled[i] = rows[i];
        pulled[i].value = fmin(fmax(rows[i].value, medians[i] - far), medians[i] + far);
    }
    cm_free(memory);
    return CM_OK;
}

enum cm_status cm_session_model_of(const struct cm_variance_run *rows, size_t count,
                                   struct cm_session_model *model)
{
    struct cm_variances parts;
    struct cm_variance_run *pulled = cm_alloc(count, sizeof *pulled);
    enum cm_status status = pulled != NULL ? pull_in(rows, count, pulled) : CM_NO_MEMORY;
    if (status == CM_OK)
        status = cm_variance_components(pulled, count, &parts);
    cm_free(pulled);
    if (status != CM_OK)
        return status;
    double sum = parts.session + parts.run;
    *model = (struct cm_session_model){.count = parts.sessions,
                                       .deviation = sqrt(parts.session),
                                       .share = sum > 0 ? parts.session / sum : 0};
    return CM_OK;
}

enum cm_status cm_session_model_make(const struct cm_runs *runs, struct cm_variance_run *rows,
                                     struct cm_session_model *model)
{
    for (size_t i = 0; i < runs->count; i++) {
        size_t first = 0;
        while (runs->sessions[first] != runs->sessions[i])
            first++;
        rows[i] = (struct cm_variance_run){.session = first,
                                           .value = runs->values[i],
                                           .iteration_variance = NAN,
                                           .iterations = NAN};
    }
    return cm_session_model_of(rows, runs->count, model);
}

/* The chance that two runs, each drawn from all, are of one session: the variance of their mean in
 * variances of a session. */
static double alike(const struct cm_runs *runs)
{
    size_t same = 0;
    for (size_t i = 0; i < runs->count; i++) {
        for (size_t k = 0; k < runs->count; k++)
            same += runs->sessions[i] == runs->sessions[k];
    }
    return (double)same / (double)runs->count / (double)runs->count;
}

double cm_session_reach(const struct cm_runs *x, const struct cm_runs *y, size_t sessions,
                        double risk)
{
    if (sessions < 2)
        return 0;
    return cm_t_quantile(1 - risk, (double)(sessions - 1)) * sqrt(alike(x) + alike(y));
}

double cm_session_widen(const struct cm_shift *shift, double deviation, double reach)
{
    double own = shift->estimate - shift->interval.low;
    return isfinite(deviation) ? hypot(own, deviation * reach) - own : 0;
}

enum cm_status cm_session_widening(const struct cm_runs *x, const struct cm_runs *y, double risk,
                                   struct cm_sessions *sessions)
{
    struct cm_variance_run *rows = cm_alloc(x->count, sizeof *rows);
    struct cm_session_model model;
    struct cm_shift shift;
    enum cm_status status = rows != NULL ? cm_session_model_make(x, rows, &model) : CM_NO_MEMORY;
    cm_free(rows);
    if (status == CM_OK)
        status = cm_hodges_lehmann(x->values, x->count, y->values, y->count, 1 - 2 * risk, &shift);
    if (status != CM_OK)
        return status;
    double reach = cm_session_reach(x, y, model.count, risk);
    *sessions = (struct cm_sessions){.count = model.count,
                                     .deviation = model.deviation,
                                     .widening = cm_session_widen(&shift, model.deviation, reach)};
    return CM_OK;
}
