/*
 * predict.h: one run predicted, alone or after smaller runs of its series.
 */
#ifndef HOST_PROJECT_PREDICT_H
#define HOST_PROJECT_PREDICT_H

#include "host/project/rows.h"

/* Smaller runs of the row's series whose measured steps may be used. */
struct cm_anchors {
    const struct cm_cost_job **jobs;
    double *steps_s;
    size_t count, capacity;
};
/* The job must outlive the list. */
enum cm_status cm_anchors_add(struct cm_anchors *anchors, const struct cm_cost_job *job,
                              double step_s);
void cm_anchors_release(struct cm_anchors *anchors);
/* Rows of `from` in the series of `row` that are not that very row and have a measured step; only
 * those of its variant, where there are any. */
enum cm_status cm_anchors_find(const struct cm_run_table *from, const struct cm_run_table *of,
                               const struct cm_run_row *row, struct cm_anchors *anchors);

/* Of the same step by simple rules: 0 where they have nothing to go by. */
struct cm_baselines {
    double null_s;       /* tokens per second and GPU as in the smallest anchor */
    double bubble_s;     /* that, with the pipeline's idle share of each */
    double two_anchor_s; /* k u + c through the two smallest anchors, u = b (m + (p - 1) / v) */
    double gpus[2];      /* of the smallest anchor, and of the line's other; 0: there is none */
};
void cm_simple_rules(const struct cm_cost_job *job, const struct cm_anchors *anchors,
                     struct cm_baselines *baselines);

struct cm_prediction {
    struct cm_step_cost cost; /* before anchors */
    double step_s, p10_s, p90_s;
    double spread; /* standard deviation of the logarithm */
    size_t anchors;
    struct cm_baselines baselines;
};
void cm_predict(const struct cm_cost_job *job, const struct cm_calibration *calibration,
                unsigned assumed, const struct cm_anchors *anchors,
                struct cm_prediction *prediction);

#endif
