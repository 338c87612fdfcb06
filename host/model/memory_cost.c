/* Memory of the fullest GPU in closed form. */
#include <math.h>
#include <string.h>

#include "host/model/cost_private.h"

/* With scores in memory, a layer keeps this many bytes per token and element of the residual
 * stream, whole and split by the tensor group, and so many per score (Korthikanti et al., equation
 * 2). */
#define OLD_WHOLE 10.0
#define OLD_SPLIT 24.0
#define OLD_SCORE 5.0
/* Tensors of the residual stream's width: inputs of two norms, and their outputs. */
#define NORM_INPUTS  2.0
#define NORM_OUTPUTS 2.0
#define LOGIT_KEPT   6.0 /* half for the product, float for the loss */

static double unfused_bytes(const struct cm_cost_job *job, double tokens)
{
    double split = job->sequence_parallel ? job->tp : 1;
    double bytes = (OLD_WHOLE / split + OLD_SPLIT / job->tp) * tokens * job->hidden;
    if (job->recompute == CM_RECOMPUTE_NONE)
        bytes += OLD_SCORE * tokens * job->sequence * job->heads / job->tp;
    return bytes;
}

/* What one layer keeps of one micro-batch from forward to backward. */
static double layer_bytes(const struct cm_cost_job *job, double tokens)
{
    double split = job->sequence_parallel ? job->tp : 1, width = CM_ACTIVATION_BYTES * tokens;
    bool less = job->recompute == CM_RECOMPUTE_SELECTIVE;
    if (job->recompute == CM_RECOMPUTE_FULL)
        return width * job->hidden / split;
    if (job->software == CM_SOFTWARE_UNFUSED)
        return unfused_bytes(job, tokens);
    double norms = (NORM_INPUTS + (less ? 0 : NORM_OUTPUTS)) * job->hidden / split;
    double heads = 2 * (job->heads + job->kv_heads) * job->head_size / job->tp;
    double experts = job->experts > 0 ? job->top_k + job->shared : 1;
    double inner = ((job->gated ? 2 : 1) + (less ? 0 : 1)) * job->ffn * experts / job->tp;
    return width * (norms + heads + inner);
}

/* Micro-batches whose activations the first stage keeps, in layers' worth of its own. */
static double in_flight(const struct cm_cost_job *job)
{
    double most = fmin(job->micro_batches, job->pp);
    if (job->vpp > 1)
        most = fmin(job->micro_batches, job->pp * (1 + (job->pp - 1) / (job->pp * job->vpp)));
    return most;
}

/* Weights that are spread over ranks are whole while they are used: two units at a time, and their
 * gradients. */
static void add_gathered(const struct cm_cost_job *job, double layers, double gradient_bytes,
                         struct cm_memory_cost *memory)
{
    double unit = fmax(layers * job->pp / job->layers, job->vocabulary * job->hidden / job->tp);
    memory->weights += 2 * CM_ACTIVATION_BYTES * unit;
    memory->gradients += 2 * gradient_bytes * unit;
}

void cm_memory_cost(const struct cm_cost_job *job, struct cm_memory_cost *memory)
{
    double layers, parameters = cm_local_parameters(job, &layers);
    double ranks = job->dp * job->cp, tokens = job->micro_batch * job->sequence / job->cp;
    double shard = job->shard > 0 ? job->shard : ranks;
    double gradient_bytes = job->software == CM_SOFTWARE_FUSED ? 4 : 2;
    struct cm_cost_job whole = *job;
    memset(memory, 0, sizeof *memory);
    /* Experts' state is shared by those ranks that have the same ones, which are ep times fewer. */
    double sharded = parameters + cm_expert_parameters(job) * (fmin(job->ep, shard) - 1);
    sharded /= shard;
    memory->weights = CM_ACTIVATION_BYTES * (job->zero >= 3 ? sharded : parameters);
    memory->gradients = gradient_bytes * (job->zero >= 2 ? sharded : parameters);
    memory->optimizer = 12 * (job->zero >= 1 ? sharded : parameters);
    if (job->zero >= 3)
        add_gathered(job, layers, gradient_bytes, memory);
    memory->activations = layer_bytes(job, tokens) * job->layers / job->pp * in_flight(job);
    /* What is computed again is there once more, of one layer. */
    whole.recompute = CM_RECOMPUTE_NONE;
    memory->activations += layer_bytes(&whole, tokens) - layer_bytes(job, tokens);
    memory->logits = job->pp <= 1 ? LOGIT_KEPT * tokens * job->vocabulary / job->tp : 0;
    memory->total = memory->weights + memory->gradients + memory->optimizer + memory->activations +
                    memory->logits;
}
