/* The cost model's times of single operations, for the virtual clock: the same rates, fixed times
 * and shares as in the closed form, applied to what the schedule's operations do. */
#include <math.h>

#include "clustermark/model.h"
#include "host/model/cost_private.h"

/* Rows of the head's table on a rank are padded to a multiple of this at most. */
#define VOCABULARY_PADDING 128.0

void cm_cost_clock_open(const struct cm_cost_job *job, const double *value,
                        struct cm_cost_clock *clock)
{
    struct cm_layer_cost layer;
    double layers;
    cm_layer_cost(job, value, &layer);
    *clock = (struct cm_cost_clock){.job = *job, .value = value};
    clock->slower = layer.total / (layer.gemm + layer.cast + layer.attention + layer.elementwise +
                                   layer.tensor + layer.context + layer.expert);
    double local = cm_local_parameters(job, &layers);
    clock->data_bytes = CM_DATA_BYTES(job) * local;
    clock->shard_bytes = cm_shard_unit(job);
    clock->attention_rate = cm_attention_rate(job, value);
}

static bool of_head(const struct cm_step *step, const struct cm_gemm_desc *gemm)
{
    double rows = (double)step->model.vocabulary / step->parallel.tp;
    const double sides[] = {(double)gemm->m, (double)gemm->n, (double)gemm->k};
    for (int i = 0; i < 3; i++)
        if (sides[i] >= rows && sides[i] < rows + VOCABULARY_PADDING)
            return true;
    return false;
}

static bool of_experts(const struct cm_step *step, const struct cm_gemm_desc *gemm)
{
    uint64_t inner = step->model.ffn / step->parallel.tp;
    const uint64_t sides[] = {gemm->m, gemm->n, gemm->k};
    for (int i = 0; i < 3; i++)
        if (sides[i] == inner || sides[i] == 2 * inner)
            return true;
    return false;
}

static double product_time(const struct cm_cost_clock *clock, const struct cm_step *step,
                           const struct cm_op *op)
{
    const struct cm_cost_job *job = &clock->job;
    if (of_head(step, &op->u.gemm))
        return op->flops / cm_half_rate(job, clock->value);
    double narrow = op->flops / cm_cost_product_rate(job, clock->value);
    if (op->kind != CM_OP_GEMM_SCALED && job->precision != CM_PRECISION_HALF)
        narrow = op->flops / cm_half_rate(job, clock->value);
    if (job->experts > 0 && of_experts(step, &op->u.gemm))
        narrow *= (job->ffn + clock->value[CM_COST_expert_half]) / job->ffn;
    return clock->slower *
           (narrow + (double)op->u.gemm.batch * cm_product_fixed(job, clock->value));
}

static double memory_time(const struct cm_cost_clock *clock, const struct cm_op *op)
{
    const double *v = clock->value;
    double time = op->bytes / cm_memory_rate(&clock->job, v);
    double more = cm_pass_bytes(&clock->job, v);
    switch (cm_op_infos[op->kind].class) {
    case CM_CLASS_CAST:
        return clock->slower * v[CM_COST_bytes_cast] * time;
    case CM_CLASS_EXPERTS:
        return clock->slower * v[CM_COST_bytes_experts] * more * time;
    case CM_CLASS_NORM:
    case CM_CLASS_ROPE:
    case CM_CLASS_ACTIVATION:
        return clock->slower * more * time;
    default: /* once a step, and the ends */
        return time;
    }
}

/* What moves past each rank of so many, in bytes. */
static double moved(const struct cm_op *op, double ranks)
{
    return op->bytes * (op->kind == CM_OP_ALL_REDUCE ? 2 : 1) * (ranks - 1) / ranks;
}

static double tensor_time(const struct cm_cost_clock *clock, const struct cm_op *op, double ranks)
{
    const struct cm_cost_job *job = &clock->job;
    const double *v = clock->value;
    double halves = op->kind == CM_OP_ALL_REDUCE ? 2 : 1;
    double time = moved(op, ranks) / cm_group_rate(job, v, ranks, 1, op->bytes) +
                  halves / 2 * v[CM_COST_tensor_fixed];
    return clock->slower * time * cm_tensor_visible(job, v);
}

/* A group's messages follow each other, so that its ring need not be filled anew for each: they go
 * as parts of one long message. */
static double data_time(const struct cm_cost_clock *clock, const struct cm_op *op, double ranks,
                        double stride)
{
    const struct cm_cost_job *job = &clock->job;
    if (job->zero >= 3)
        return moved(op, ranks) /
               cm_group_rate(job, clock->value, ranks, stride, clock->shard_bytes);
    double rate = cm_group_rate(job, clock->value, ranks, stride, clock->data_bytes);
    return moved(op, ranks) / rate +
           op->bytes / clock->data_bytes * cm_group_latency(job, ranks, stride);
}

static double message_time(const struct cm_cost_clock *clock, const struct cm_step *step,
                           unsigned rank, const struct cm_op *op)
{
    const struct cm_cost_job *job = &clock->job;
    const double *v = clock->value;
    enum cm_group group = op->u.comm.group;
    double ranks = cm_parallel_group_size(&step->parallel, &step->model, rank, group);
    switch (group) {
    case CM_GROUP_WORLD:
        return cm_tree_latency(job, ranks);
    case CM_GROUP_TENSOR:
        return tensor_time(clock, op, ranks);
    case CM_GROUP_CONTEXT:
        return clock->slower * moved(op, ranks) / cm_group_rate(job, v, ranks, job->tp, op->bytes);
    case CM_GROUP_EXPERT:
        return clock->slower * v[CM_COST_expert_visible] * moved(op, ranks) /
               cm_group_rate(job, v, ranks, job->tp, op->bytes);
    case CM_GROUP_DATA:
        return data_time(clock, op, ranks, job->tp);
    case CM_GROUP_EXPERT_DATA:
        return data_time(clock, op, ranks, job->tp * job->ep);
    case CM_GROUP_TIED:
        return moved(op, ranks) /
               cm_group_rate(job, v, ranks, cm_cost_gpus(job) / job->pp, op->bytes);
    default:
        return cm_stage_time(job, v, op->bytes);
    }
}

double cm_cost_time(const void *impl, const struct cm_step *step, unsigned rank,
                    const struct cm_op *op)
{
    const struct cm_cost_clock *clock = impl;
    switch (cm_op_infos[op->kind].class) {
    case CM_CLASS_COMM:
        return message_time(clock, step, rank, op);
    case CM_CLASS_GEMM:
        return product_time(clock, step, op);
    case CM_CLASS_ATTENTION:
        return clock->slower * op->flops / clock->attention_rate;
    default:
        return memory_time(clock, op);
    }
}
