/* Variance components of nodes, sessions on a node, runs and iterations. */
#include <math.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"

/* Of a median against a mean of normal values, pi / 2. */
#define MEDIAN_VARIANCE M_PI_2

/* The runs of a node, or of a session. */
struct group {
    double sum;
    size_t runs;
};

/* Nested analysis of variance, as Searle's "Linear Models" (1971), chapter 11, has it for groups of
 * different sizes: sums of squares between nodes, between sessions within them, within sessions;
 * and sums of squared sizes over sizes. */
struct analysis {
    size_t count, nodes, sessions;
    double between, among, within;
    double node_squares;    /* sum over nodes of n_i^2 / N */
    double session_squares; /* sum over sessions of n_ij^2 / N */
    double session_in_node; /* sum over sessions of n_ij^2 / n_i */
};

/* The mean over runs of what iterations add to a run's median. */
static double iteration_part(const struct cm_variance_run *runs, size_t count)
{
    double sum = 0;
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        double part = MEDIAN_VARIANCE * runs[i].iteration_variance / runs[i].iterations;
        if (!isfinite(part))
            continue;
        sum += part;
        known++;
    }
    return known > 0 ? sum / (double)known : (double)NAN;
}

static double mean_of(const struct group *group)
{
    return group->sum / (double)group->runs;
}

/* Run by run: what is summed once for each run of a group is its square times its size. */
static void analyse(const struct cm_variance_run *runs, size_t count, struct group *nodes,
                    struct group *sessions, struct analysis *out)
{
    double mean = 0;
    *out = (struct analysis){.count = count};
    for (size_t i = 0; i < count; i++) {
        struct group *const own[] = {&nodes[runs[i].node], &sessions[runs[i].session]};
        mean += runs[i].value / (double)count;
        out->nodes += own[0]->runs == 0;
        out->sessions += own[1]->runs == 0;
        for (size_t k = 0; k < 2; k++) {
            own[k]->sum += runs[i].value;
            own[k]->runs++;
        }
    }
    for (size_t i = 0; i < count; i++) {
        const struct group *node = &nodes[runs[i].node], *session = &sessions[runs[i].session];
        double of_node = mean_of(node) - mean, of_session = mean_of(session) - mean_of(node);
        double own = runs[i].value - mean_of(session);
        out->between += of_node * of_node;
        out->among += of_session * of_session;
        out->within += own * own;
        out->node_squares += (double)node->runs / (double)count;
        out->session_squares += (double)session->runs / (double)count;
        out->session_in_node += (double)session->runs / (double)node->runs;
    }
}

/* From mean squares to variances; a level of which there is one of each is part of the next. */
static void solve(const struct analysis *a, struct cm_variances *out)
{
    double of_iterations = isfinite(out->iteration) ? out->iteration : 0;
    double within = 0, session = 0;
    bool has_runs = a->count > a->sessions, has_sessions = a->sessions > a->nodes;
    if (!has_runs && !has_sessions)
        return;
    if (has_runs)
        within = a->within / (double)(a->count - a->sessions);
    if (has_sessions) {
        double size = ((double)a->count - a->session_in_node) / (double)(a->sessions - a->nodes);
        double mean_square = a->among / (double)(a->sessions - a->nodes);
        session = has_runs ? (mean_square - within) / size : mean_square;
    }
    /* A run in each session: both are one, and count as runs. */
    if (has_runs && has_sessions)
        out->session = fmax(session, 0);
    out->run = fmax((has_runs ? within : session) - of_iterations, 0);
    if (a->nodes < 2)
        return;
    double freedom = (double)(a->nodes - 1);
    double size = ((double)a->count - a->node_squares) / freedom;
    double sessions = (a->session_in_node - a->session_squares) / freedom;
    double expected = has_runs ? within + (has_sessions ? sessions * session : 0) : session;
    out->node = fmax((a->between / freedom - expected) / size, 0);
}

enum cm_status cm_variance_components(const struct cm_variance_run *runs, size_t count,
                                      struct cm_variances *variances)
{
    struct group *groups = cm_alloc(2 * count, sizeof *groups);
    struct analysis analysis;
    if (groups == NULL)
        return CM_NO_MEMORY;
    analyse(runs, count, groups, groups + count, &analysis);
    cm_free(groups);
    struct cm_variances out = {.node = (double)NAN,
                               .session = (double)NAN,
                               .run = (double)NAN,
                               .iteration = iteration_part(runs, count),
                               .nodes = analysis.nodes,
                               .sessions = analysis.sessions,
                               .runs = count};
    solve(&analysis, &out);
    *variances = out;
    return CM_OK;
}
