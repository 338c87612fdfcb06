/* The step in closed form, and how far it may be off. */
#include <math.h>
#include <string.h>

#include "host/model/cost_private.h"

#define HOST_GPUS 8.0
/* DeepSpeed gathers weights in messages of this size; others by layer. */
#define GATHER_BYTES 2e8
/* Adam reads 16 bytes of every parameter and writes 14. */
#define OPTIMIZER_BYTES 30.0
/* The gradients' norm before that. */
#define NORM_BYTES 4.0
/* The step of a parameter's logarithm by which its effect on a step is measured. */
#define SENSITIVITY_STEP 1e-3
/* What a free choice of the plan moves a step by. */
#define ASSUMED_SPREAD 0.08

double cm_cost_gpus(const struct cm_cost_job *job)
{
    return job->tp * job->cp * job->pp * job->dp;
}

double cm_projection(const struct cm_cost_job *job)
{
    if (job->projection > 0)
        return job->projection;
    return job->hidden * (2 * job->heads + 2 * job->kv_heads) * job->head_size;
}

static double layer_parameters(const struct cm_cost_job *job, double experts)
{
    double h = job->hidden, matrices = job->gated ? 3 : 2;
    return cm_projection(job) + matrices * h * job->ffn * experts + h * job->experts;
}

double cm_cost_parameter_count(const struct cm_cost_job *job, double *active)
{
    double ends = 2 * job->vocabulary * job->hidden;
    bool dense = job->experts <= 0;
    *active = job->layers * layer_parameters(job, dense ? 1 : job->top_k + job->shared) + ends;
    return job->layers * layer_parameters(job, dense ? 1 : job->experts + job->shared) + ends;
}

double cm_local_parameters(const struct cm_cost_job *job, double *layers)
{
    double experts = job->experts > 0 ? job->experts / job->ep + job->shared : 1;
    *layers = job->layers / job->pp * layer_parameters(job, experts) / job->tp;
    double ends = (job->pp > 1 ? 1 : 2) * job->vocabulary * job->hidden / job->tp;
    return *layers + ends;
}

double cm_expert_parameters(const struct cm_cost_job *job)
{
    double matrices = job->gated ? 3 : 2;
    return job->layers / job->pp * matrices * job->hidden * job->ffn * job->experts / job->ep /
           job->tp;
}

/* Of a layer's time. */
static double forward_share(const struct cm_cost_job *job)
{
    return job->recompute == CM_RECOMPUTE_FULL ? 0.25 : 1 / 3.0;
}

/* Of one micro-batch: the slowest stage, the mean over all. */
struct stages {
    double slowest, mean;
    double layers; /* of the slowest, as if the head were none */
};

/* Where layers do not divide but would with two more, embedding and head take a layer's place each,
 * as Megatron-Core can. */
static void stage_times(const struct cm_cost_job *job, double layer, double head, double embedding,
                        struct stages *stages)
{
    double rest = fmod(job->layers, job->pp);
    bool places = rest > 0 && fmod(job->layers + 2, job->pp) == 0;
    double each = places ? (job->layers + 2) / job->pp : ceil(job->layers / job->pp);
    double last = (places ? each - 1 : each) * layer + head;
    stages->layers = each;
    stages->slowest = fmax(each * layer, last);
    if (job->pp <= 1)
        stages->slowest = job->layers * layer + head + embedding;
    stages->mean = (job->layers * layer + head + embedding) / job->pp;
}

static double power4(double x)
{
    x *= x;
    return x * x;
}

double cm_shard_unit(const struct cm_cost_job *job)
{
    double layers, parameters = cm_local_parameters(job, &layers);
    double unit = CM_ACTIVATION_BYTES * parameters / fmax(1, job->layers / job->pp);
    return job->software == CM_SOFTWARE_UNFUSED ? fmin(unit, GATHER_BYTES) : unit;
}

double cm_data_tax(const struct cm_cost_job *job, const double *v)
{
    double ranks = job->zero >= 3 && job->shard > 0 ? job->shard : job->dp * job->cp;
    return cm_overlap_tax(job, v, ranks, job->tp);
}

/* Of own software: while a unit computes, the next one's weights come, and the last one's gradients
 * go out in float; the embedding has nothing to hide behind. */
static double own_shards(const struct cm_cost_job *job, const double *v, double layer, double *all)
{
    double layers, parameters = cm_local_parameters(job, &layers);
    double ranks = fmax(1, job->dp * job->cp), forward = layer * forward_share(job);
    double second = (ranks - 1) / ranks / cm_group_rate(job, v, ranks, job->tp, cm_shard_unit(job));
    double here = job->layers / job->pp, gather = CM_ACTIVATION_BYTES * layers / here * second;
    double ends = (parameters - layers) / (job->pp > 1 ? 1 : 2) * second; /* s for each byte */
    *all = 4 * here * gather + 4 * CM_ACTIVATION_BYTES * ends;
    double pass = fmax(0, gather - forward) + fmax(0, 3 * gather - (layer - forward));
    return here * pass + gather + 3 * CM_ACTIVATION_BYTES * ends;
}

/* Weights that are gathered for every pass and whose gradients are scattered, for one micro-batch,
 * beyond the compute that they hide behind; *all of these messages. */
static double shard_cost(const struct cm_cost_job *job, const double *v, double compute,
                         double layer, double *all)
{
    *all = 0;
    if (job->zero < 3)
        return 0;
    if (job->software == CM_SOFTWARE_OWN)
        return own_shards(job, v, layer, all);
    double layers, parameters = cm_local_parameters(job, &layers);
    double ranks = fmax(1, job->shard > 0 ? job->shard : job->dp * job->cp);
    double rate = cm_group_rate(job, v, ranks, job->tp, cm_shard_unit(job));
    double time = 3 * CM_ACTIVATION_BYTES * parameters * (ranks - 1) / ranks / rate;
    *all = time;
    if (job->software == CM_SOFTWARE_UNFUSED)
        return time;
    double both = sqrt(sqrt(power4(compute) + power4(time)));
    return both + v[CM_COST_shard_visible] * 0.2 * fmin(compute, time) - compute;
}

/* Of own software: gradients go out in float while the last micro-batch goes backward (with zero 2
 * each), weights come while the first goes forward; the embedding's last and first. */
static double own_data(const struct cm_cost_job *job, const double *v, double compute,
                       double *total)
{
    double ranks = job->dp * job->cp, layers, local = cm_local_parameters(job, &layers);
    double experts = cm_expert_parameters(job), copies = ranks / job->ep;
    double rate = cm_group_rate(job, v, ranks, job->tp, CM_DATA_BYTES(job) * local);
    double expert_rate =
        cm_group_rate(job, v, copies, job->tp * job->ep, CM_DATA_BYTES(job) * local);
    double byte_s = (ranks - 1) / ranks / rate, expert_byte_s = (copies - 1) / copies / expert_rate;
    double all = (local - experts) * byte_s + experts * expert_byte_s; /* s for each byte */
    double latency = cm_group_latency(job, ranks, job->tp) / CM_DATA_BYTES(job);
    double ends = job->vocabulary * job->hidden / job->tp * byte_s;
    double forward = compute * forward_share(job);
    double out = job->zero == 0 ? 8 : 4, in = job->zero == 0 ? 0 : CM_ACTIVATION_BYTES;
    double scatter = fmax(out * ends, out * (all + latency) - (compute - forward));
    double gather = in > 0 ? fmax(in * ends, in * (all + latency) - forward) : 0;
    double times = job->zero == 2 ? job->micro_batches : 1;
    *total = (out * times + in) * (all + latency);
    return scatter * times + gather;
}

/* Gradients are reduced and weights gathered once per step: what is waited for of *all. */
static double data_cost(const struct cm_cost_job *job, const double *v, double compute, double *all)
{
    double ranks = job->dp * job->cp, layers;
    *all = 0;
    if (job->zero >= 3 || ranks <= 1)
        return 0;
    if (job->software == CM_SOFTWARE_OWN)
        return own_data(job, v, compute, all);
    bool unfused = job->software == CM_SOFTWARE_UNFUSED;
    double bytes = CM_DATA_BYTES(job) * cm_local_parameters(job, &layers);
    double rate = cm_group_rate(job, v, ranks, job->tp, bytes);
    double time = bytes * (ranks - 1) / ranks / rate + cm_group_latency(job, ranks, job->tp);
    *all = time;
    return time * v[unfused ? CM_COST_data_visible_unfused : CM_COST_data_visible_fused];
}

static double optimizer_cost(const struct cm_cost_job *job, const double *v)
{
    double layers, ranks = 1;
    if (job->zero >= 3 && job->shard > 0)
        ranks = job->shard;
    else if (job->zero >= 1)
        ranks = job->dp * job->cp;
    double local = cm_local_parameters(job, &layers);
    double bytes = OPTIMIZER_BYTES + (job->software == CM_SOFTWARE_OWN ? NORM_BYTES : 0);
    /* An expert's is shared by those that have it alone. */
    double experts = cm_expert_parameters(job) * (fmin(job->ep, ranks) - 1);
    return bytes * (local + experts) / ranks / cm_memory_rate(job, v);
}

void cm_add_fixed(const struct cm_cost_job *job, const double *v, double step,
                  struct cm_step_cost *cost)
{
    double hosts = fmax(1.0001, cm_cost_gpus(job) / HOST_GPUS);
    cost->fixed = v[CM_COST_fixed] + v[CM_COST_fixed_layer] * job->layers / job->pp;
    double spread = job->host_spread > 0 ? job->host_spread : v[CM_COST_host_spread];
    double slow = job->slow_by * (1 - pow(1 - job->slow_share, hosts));
    cost->straggler = (step + cost->fixed) * (spread * sqrt(2 * log(hosts)) + slow);
    cost->step = step + cost->fixed + cost->straggler;
}

void cm_step_cost(const struct cm_cost_job *job, const double *v, struct cm_step_cost *cost)
{
    struct cm_layer_cost layer;
    struct stages stages;
    memset(cost, 0, sizeof *cost);
    cm_layer_cost(job, v, &layer);
    double head = cm_head_cost(job, v), embedding = cm_embedding_cost(job, v);
    stage_times(job, layer.total, head, embedding, &stages);
    double between = cm_stage_cost(job, v), m = job->micro_batches;
    double all_shards, all_data;
    double shards = shard_cost(job, v, stages.slowest, layer.total, &all_shards);
    double own = m * job->layers / job->pp;
    cost->gemm = own * layer.gemm;
    cost->attention = own * layer.attention;
    cost->elementwise = own * layer.elementwise;
    cost->cast = own * layer.cast;
    cost->tensor = own * layer.tensor;
    cost->context = own * layer.context;
    cost->expert = own * layer.expert;
    cost->host = own * (layer.total - layer.gemm - layer.attention - layer.elementwise -
                        layer.cast - layer.tensor - layer.context - layer.expert - layer.overlap);
    cost->head = m * (head + embedding) / job->pp;
    cost->imbalance = m * (stages.slowest - stages.mean);
    cost->stages = m * between;
    cost->shards = m * shards;
    double tax = cm_data_tax(job, v), taken = tax * fmax(0, all_shards - shards);
    cost->micro = stages.slowest + between + shards + taken;
    cost->slots = m + (job->pp - 1) / job->vpp;
    cost->bubble = (job->pp - 1) * (stages.mean / job->vpp + between);
    cost->data = data_cost(job, v, stages.slowest, &all_data);
    double once = tax * fmax(0, all_data - cost->data);
    cost->overlap = own * layer.overlap + m * taken + once;
    cost->optimizer = optimizer_cost(job, v);
    cm_add_fixed(job, v, m * cost->micro + cost->bubble + cost->data + once + cost->optimizer,
                 cost);
}

double cm_cost_spread(const struct cm_cost_job *job, const struct cm_calibration *calibration,
                      unsigned assumed)
{
    struct cm_step_cost cost;
    double moved[CM_COST_PARAMETER_COUNT];
    cm_step_cost(job, calibration->value, &cost);
    double base = log(cost.step);
    double residual = job->experts > 0 ? calibration->residual_experts : calibration->residual;
    double variance = residual * residual + assumed * ASSUMED_SPREAD * ASSUMED_SPREAD;
    memcpy(moved, calibration->value, sizeof moved);
    for (size_t i = 0; i < CM_COST_PARAMETER_COUNT; i++) {
        moved[i] *= exp(SENSITIVITY_STEP);
        cm_step_cost(job, moved, &cost);
        double slope = (log(cost.step) - base) / SENSITIVITY_STEP * calibration->spread[i];
        variance += slope * slope;
        moved[i] = calibration->value[i];
    }
    return sqrt(variance);
}

void cm_cost_job_from(const struct cm_transformer *model, const struct cm_parallel *plan,
                      const struct cm_gpu_spec *gpu, struct cm_cost_job *job)
{
    memset(job, 0, sizeof *job);
    job->gpu = gpu;
    job->layers = (double)model->layers;
    job->hidden = (double)model->hidden;
    job->heads = (double)model->heads;
    job->kv_heads = (double)model->kv_heads;
    job->head_size = (double)model->head_size;
    job->ffn = (double)model->ffn;
    job->vocabulary = (double)model->vocabulary;
    job->sequence = (double)model->sequence;
    job->gated = model->activation == CM_ACTIVATION_SWIGLU;
    job->experts = (double)model->experts;
    job->top_k = (double)model->top_k;
    job->capacity = model->capacity_factor;
    job->tp = plan->tp;
    job->cp = plan->cp;
    job->pp = plan->pp;
    job->vpp = plan->vpp;
    job->dp = plan->dp;
    job->ep = plan->ep;
    job->zero = plan->zero;
    job->sequence_parallel = plan->sp != 0;
    job->micro_batches = job->micro_batch = 1;
}
