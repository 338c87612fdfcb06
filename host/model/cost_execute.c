/* A step of the cost model executed on the virtual clock. */
#include <math.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/virtual_clock.h"
#include "host/model/cost_private.h"

/* Megatron-Core's least message of gradients: 40 million parameters, and a million for each rank
 * of the data group, so that rings have work. */
#define BUCKET_PARAMETERS 40e6
#define BUCKET_PER_RANK   1e6

void cm_cost_step(const struct cm_transformer *model, const struct cm_parallel *plan,
                  const struct cm_cost_job *job, struct cm_step *step)
{
    cm_step_defaults(step);
    step->model = *model;
    step->parallel = *plan;
    step->micro_batches = (uint64_t)job->micro_batches;
    step->micro_batch = (uint64_t)job->micro_batch;
    step->dtype = CM_BF16;
    step->recompute = job->recompute;
    step->overlap = true;
    step->fp8 = job->precision != CM_PRECISION_HALF;
    step->bucket_bytes =
        (uint64_t)(4 * fmax(BUCKET_PARAMETERS, BUCKET_PER_RANK * job->dp * job->cp));
}

/* Time of the head and the embedding, of each stage. */
struct ends {
    double *seconds;
};

static void add_ends(void *impl, const struct cm_virtual_interval *interval)
{
    struct ends *ends = impl;
    const struct cm_op *op = interval->op;
    if (op == NULL || interval->lane != CM_LANE_COMPUTE || interval->layer >= 0)
        return;
    if (cm_op_infos[op->kind].class == CM_CLASS_GEMM)
        ends->seconds[interval->stage] += interval->end_s - interval->start_s;
}

/* Waits inside blocks, by whose messages they were for. */
static void split_waits(const struct cm_virtual_stage *stage, struct cm_step_cost *cost)
{
    double tensor = stage->transfer_s[CM_GROUP_TENSOR];
    double context = stage->transfer_s[CM_GROUP_CONTEXT];
    double expert = stage->transfer_s[CM_GROUP_EXPERT];
    double all = tensor + context + expert, wait_s = stage->wait_s[CM_VIRTUAL_WAIT_LAYER];
    if (!(all > 0))
        return;
    cost->tensor = wait_s * tensor / all;
    cost->context = wait_s * context / all;
    cost->expert = wait_s * expert / all;
}

static void split_stage(const struct cm_cost_job *job, const struct cm_virtual_result *result,
                        const struct cm_virtual_stage *stage, double head_products_s, double tax,
                        struct cm_step_cost *cost)
{
    const double *class_s = stage->class_s;
    cost->head = head_products_s + class_s[CM_CLASS_LOSS] + class_s[CM_CLASS_EMBEDDING];
    cost->gemm = class_s[CM_CLASS_GEMM] - head_products_s;
    cost->attention = class_s[CM_CLASS_ATTENTION];
    cost->cast = class_s[CM_CLASS_CAST];
    cost->elementwise = class_s[CM_CLASS_NORM] + class_s[CM_CLASS_ROPE] +
                        class_s[CM_CLASS_ACTIVATION] + class_s[CM_CLASS_EXPERTS] +
                        class_s[CM_CLASS_MEMORY];
    cost->optimizer = class_s[CM_CLASS_OPTIMIZER];
    split_waits(stage, cost);
    /* The world meets for the norm: waiting for it is for other stages. */
    double met_s = stage->comm_s[CM_GROUP_WORLD] - stage->transfer_s[CM_GROUP_WORLD];
    *(job->zero >= 3 ? &cost->shards : &cost->data) =
        fmax(0, stage->wait_s[CM_VIRTUAL_WAIT_DATA] - met_s);
    double messages_s = stage->transfer_s[CM_GROUP_DATA] + stage->transfer_s[CM_GROUP_EXPERT_DATA];
    cost->overlap = tax * fmax(0, messages_s - cost->data - cost->shards);
    /* The rest: for other stages, and after its own end. */
    cost->bubble =
        fmax(0, result->step_s - (cost->head + cost->gemm + cost->attention + cost->cast +
                                  cost->elementwise + cost->optimizer + cost->tensor +
                                  cost->context + cost->expert + cost->shards + cost->data));
}

static void conclude(const struct cm_cost_job *job, const double *value,
                     const struct cm_virtual_result *result, const struct ends *ends,
                     struct cm_step_cost *cost)
{
    unsigned longest = 0;
    memset(cost, 0, sizeof *cost);
    for (unsigned i = 1; i < result->stage_count; i++)
        if (result->stages[i].lanes[CM_LANE_COMPUTE].busy_s >
            result->stages[longest].lanes[CM_LANE_COMPUTE].busy_s)
            longest = i;
    split_stage(job, result, &result->stages[longest], ends->seconds[longest],
                cm_data_tax(job, value), cost);
    cm_add_fixed(job, value, result->step_s + cost->overlap, cost);
    cost->slots = job->micro_batches + (job->pp - 1) / job->vpp;
    cost->micro = (result->step_s - cost->data - cost->optimizer) / cost->slots;
}

enum cm_status cm_cost_execute(const struct cm_step *step, const struct cm_cost_job *job,
                               const double *value, struct cm_step_cost *cost, uint64_t *operations)
{
    struct cm_cost_clock clock;
    struct cm_virtual *program = NULL;
    struct cm_virtual_result result;
    struct ends ends = {.seconds = cm_alloc(step->parallel.pp, sizeof *ends.seconds)};
    const struct cm_virtual_observer observer = {.interval = add_ends, .impl = &ends};
    if (ends.seconds == NULL)
        return CM_NO_MEMORY;
    cm_cost_clock_open(job, value, &clock);
    const struct cm_virtual_times times = {.time_s = cm_cost_time, .impl = &clock};
    enum cm_status status = cm_virtual_open(step, &program);
    if (status == CM_OK)
        status = cm_virtual_execute(program, &times, &observer, &result);
    if (status == CM_OK) {
        conclude(job, value, &result, &ends, cost);
        *operations = result.operations;
        cm_virtual_result_release(&result);
    }
    cm_virtual_close(program);
    cm_free(ends.seconds);
    return status;
}
