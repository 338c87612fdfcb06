/* Memory of the fullest GPU in closed form. */
#include <math.h>
#include <string.h>

#include "host/model/cost_private.h"

/* Bytes per token and element of the residual stream that a layer keeps for backward, by Korthikanti
 * et al., equation 2: 10 are not split by tensor parallelism, 24 are. */
#define KEPT_WHOLE 10.0
#define KEPT_SPLIT 24.0
#define KEPT_INPUT 2.0 /* full recomputation keeps a block's input */
#define KEPT_SCORE 5.0 /* per score, where scores lie in memory */
#define FFN_SHARE  4.0 /* width of the feed-forward layer for which those 24 hold */
#define FFN_KEPT   16.0
#define LOGIT_KEPT 6.0 /* half for the product, float for the loss */

static double layer_bytes(const struct cm_cost_job *job, double tokens)
{
    double h = job->hidden, split = job->sequence_parallel ? job->tp : 1;
    if (job->recompute == CM_RECOMPUTE_FULL)
        return KEPT_INPUT * tokens * h / split;
    double wide = job->ffn / h * (job->gated ? 1.5 : 1) *
                  (job->experts > 0 ? job->top_k + job->shared : 1) / FFN_SHARE;
    double kept = KEPT_WHOLE / split + (KEPT_SPLIT - FFN_KEPT + FFN_KEPT * wide) / job->tp;
    double bytes = kept * tokens * h;
    if (job->software == CM_SOFTWARE_UNFUSED && job->recompute == CM_RECOMPUTE_NONE)
        bytes += KEPT_SCORE * tokens * job->sequence * job->heads / job->tp;
    return bytes;
}

/* Micro-batches whose activations the first stage keeps, in layers' worth of its own. */
static double in_flight(const struct cm_cost_job *job)
{
    double most = fmin(job->micro_batches, job->pp);
    if (job->vpp > 1)
        most = fmin(job->micro_batches, job->pp * (1 + (job->pp - 1) / (job->pp * job->vpp)));
    return most;
}

void cm_memory_cost(const struct cm_cost_job *job, struct cm_memory_cost *memory)
{
    double layers, parameters = cm_local_parameters(job, &layers);
    double ranks = job->dp * job->cp, tokens = job->micro_batch * job->sequence / job->cp;
    double shard = job->zero >= 3 ? (job->shard > 0 ? job->shard : ranks) : 1;
    bool head = job->pp <= 1;
    memset(memory, 0, sizeof *memory);
    memory->weights = CM_ACTIVATION_BYTES * parameters / shard;
    memory->gradients = (job->software == CM_SOFTWARE_FUSED ? 4 : 2) * parameters /
                        (job->zero >= 2 ? fmax(shard, job->zero == 2 ? ranks : 1) : 1);
    memory->optimizer =
        12 * parameters / (job->zero >= 3 ? shard : (job->zero >= 1 ? ranks : 1));
    memory->activations = layer_bytes(job, tokens) * job->layers / job->pp * in_flight(job);
    memory->logits = head ? LOGIT_KEPT * tokens * job->vocabulary / job->tp : 0;
    memory->total = memory->weights + memory->gradients + memory->optimizer + memory->activations +
                    memory->logits;
}
