/* Variance components of nodes, runs and iterations. */
#include <math.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"

/* Of a median against a mean of normal values, pi / 2. */
#define MEDIAN_VARIANCE M_PI_2

struct node {
    double sum;
    size_t runs;
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

/* Sums of squares between and within the nodes. */
static void add_squares(const struct cm_variance_run *runs, size_t count, const struct node *nodes,
                        double *between, double *within)
{
    double mean = 0;
    *between = *within = 0;
    for (size_t i = 0; i < count; i++)
        mean += runs[i].value / (double)count;
    for (size_t i = 0; i < count; i++) {
        const struct node *node = &nodes[runs[i].node];
        double own = node->sum / (double)node->runs;
        *between += (own - mean) * (own - mean);
        *within += (runs[i].value - own) * (runs[i].value - own);
    }
}

enum cm_status cm_variance_components(const struct cm_variance_run *runs, size_t count,
                                      struct cm_variances *variances)
{
    struct node *nodes = cm_alloc(count, sizeof *nodes);
    double between, within, squares = 0;
    if (nodes == NULL)
        return CM_NO_MEMORY;
    struct cm_variances out = {.node = (double)NAN, .run = (double)NAN, .runs = count};
    for (size_t i = 0; i < count; i++) {
        nodes[runs[i].node].sum += runs[i].value;
        nodes[runs[i].node].runs++;
    }
    for (size_t i = 0; i < count; i++) {
        out.nodes += nodes[i].runs > 0;
        squares += (double)nodes[i].runs * (double)nodes[i].runs;
    }
    out.iteration = iteration_part(runs, count);
    if (count > out.nodes) {
        add_squares(runs, count, nodes, &between, &within);
        double within_mean = within / (double)(count - out.nodes);
        double of_iterations = isfinite(out.iteration) ? out.iteration : 0;
        out.run = fmax(within_mean - of_iterations, 0);
        double size = ((double)count - squares / (double)count) / (double)(out.nodes - 1);
        if (out.nodes > 1)
            out.node = fmax((between / (double)(out.nodes - 1) - within_mean) / size, 0);
    }
    cm_free(nodes);
    *variances = out;
    return CM_OK;
}
