/*
 * question.h: a model, a plan and a cluster, checked and completed, with the calibration to answer
 * by.
 */
#ifndef HOST_PROJECT_QUESTION_H
#define HOST_PROJECT_QUESTION_H

#include "clustermark/project.h"
#include "host/project/cluster.h"
#include "host/project/measured.h"
#include "host/project/predict.h"

extern const char *const cm_recompute_names[]; /* by enum cm_recompute */

struct cm_question {
    struct cm_project_options asked;
    const struct cm_project_options *options; /* the same */
    struct cm_gpu_catalogue catalogue;
    struct cm_calibration calibration;
    struct cm_transformer model;
    struct cm_cluster cluster;
    uint64_t size; /* GPUs that were asked about; 0: each of the cluster's sizes */
    struct cm_parallel plan;
    struct cm_cost_job job;
    uint64_t batch, micro_batch;
    unsigned assumed;
    struct cm_memory_cost memory;
    struct cm_measured measured;
    json_t *assumptions;
    enum cm_status noted; /* of writing them */
};

/* CM_USAGE: what does not divide, does not fit, is not known. */
enum cm_status cm_question_open(const struct cm_project_options *options, struct cm_question *q);
void cm_question_close(struct cm_question *q);
/* Whether the fullest GPU has room for the job. */
bool cm_question_fits(const struct cm_question *q, const struct cm_cost_job *job);
/* The job, which is q->job or one like it, with what simple rules make of the model's own one and
 * two replicas; training steps that were measured are its anchors. */
enum cm_status cm_question_predict(const struct cm_question *q, const struct cm_cost_job *job,
                                   bool same_batch, struct cm_prediction *prediction);

#endif
