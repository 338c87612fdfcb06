/*
 * cost_private.h: what the cost model's files share. Times in s, sizes in bytes, rates per s; `v`
 * is struct cm_calibration's value.
 */
#ifndef HOST_MODEL_COST_PRIVATE_H
#define HOST_MODEL_COST_PRIVATE_H

#include "clustermark/cost.h"

#define CM_ACTIVATION_BYTES 2.0 /* of an element of activations and of weights */

/* One layer and one micro-batch on one GPU, forward and backward and what is recomputed. */
struct cm_layer_cost {
    double gemm, attention, elementwise, cast;
    double tensor, context, expert; /* not hidden */
    double overlap;                 /* that compute is slowed by what it hides */
    double total;                   /* not below what the host needs */
};
void cm_layer_cost(const struct cm_cost_job *job, const double *v, struct cm_layer_cost *cost);
/* Head, loss and embedding of one micro-batch. */
double cm_head_cost(const struct cm_cost_job *job, const double *v);
double cm_embedding_cost(const struct cm_cost_job *job, const double *v);

/* What one GPU's units reach in large products of half, and of the job's precision. */
double cm_half_rate(const struct cm_cost_job *job, const double *v);
double cm_memory_rate(const struct cm_cost_job *job, const double *v);

/* Seconds of every product beside its FLOPs. */
double cm_product_fixed(const struct cm_cost_job *job, const double *v);
/* FLOP/s of fused attention, counted causal. */
double cm_attention_rate(const struct cm_cost_job *job, const double *v);
/* Memory traffic of norms and activations over the least. */
double cm_pass_bytes(const struct cm_cost_job *job, const double *v);
/* Share of a tensor group's messages that compute waits for. */
double cm_tensor_visible(const struct cm_cost_job *job, const double *v);

/* Bytes per second at which a ring over `ranks` GPUs moves its data past each of them: they are
 * `stride` ranks apart, the message has `bytes`, and a node's cards serve all of the group's
 * members in that node together. */
double cm_group_rate(const struct cm_cost_job *job, const double *v, double ranks, double stride,
                     double bytes);
/* By how much of their time such messages slow what computes beside them: they take some of its
 * units (NCCL's kernels) and of its memory's rate. */
double cm_overlap_tax(const struct cm_cost_job *job, const double *v, double ranks, double stride);
/* A ring's steps between nodes, in seconds. */
double cm_group_latency(const struct cm_cost_job *job, double ranks, double stride);
/* Of a few bytes there and back over trees. */
double cm_tree_latency(const struct cm_cost_job *job, double ranks);
double cm_stage_message(const struct cm_cost_job *job);
/* Of one message between two stages. */
double cm_stage_time(const struct cm_cost_job *job, const double *v, double bytes);
double cm_stage_cost(const struct cm_cost_job *job, const double *v);

/* Of messages of gradients and weights. */
double cm_data_tax(const struct cm_cost_job *job, const double *v);

/* What is left of a step beside its schedule: fixed times and stragglers, added to `step` s. */
void cm_add_fixed(const struct cm_cost_job *job, const double *v, double step,
                  struct cm_step_cost *cost);

/* Of a layer's attention products. */
double cm_projection(const struct cm_cost_job *job);
/* Parameters of the fullest stage on one GPU; of its layers alone. */
double cm_local_parameters(const struct cm_cost_job *job, double *layers);
/* Those of experts among them. */
double cm_expert_parameters(const struct cm_cost_job *job);
/* Of a parameter, over the data group in a step: its gradient, and its weight that comes back. */
#define CM_DATA_BYTES(job) (((job)->software == CM_SOFTWARE_UNFUSED ? 2.0 : 4.0) + 2.0)
/* Bytes of weights that are gathered at once where they are split over the data group. */
double cm_shard_unit(const struct cm_cost_job *job);

#endif
