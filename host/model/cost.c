/* Operators of one layer on one GPU: products, attention, what only moves memory, and the
 * collectives among them. */
#include <math.h>

#include "host/model/cost_private.h"

/* Watts per FLOP/s of half at which the families' shares are stated: H100 SXM, GB200. */
#define HOPPER_REFERENCE    (700.0 / 989.4e12)
#define BLACKWELL_REFERENCE (1200.0 / 2500e12)
/* Passes over memory, in elements of the residual stream: two norms, two residual additions with
 * their dropout or scaling. Backward moves more: gradients and what was kept. */
#define STREAM_PASSES 12.0
#define QKV_PASSES    3.0
/* Of a token's copies: sorted, sent, received, and back. */
#define ROUTED_PASSES   4.0
#define BACKWARD_PASSES 1.6
/* Scores in memory: written, softmax read and written, dropout, read again; backward more. */
#define SCORE_PASSES          6.0
#define SCORE_BACKWARD_PASSES 8.0
/* A conversion to a narrow type reads, writes and often transposes. */
#define CAST_PASSES 3.0
/* Fused attention's backward against its forward, in FLOPs: 5 products for 2. */
#define ATTENTION_BACKWARD 2.5
/* A tensor group waits for the slowest of its hosts: more for every doubling of its ranks. */
#define REFERENCE_RELEASE 25.5
#define HOST_PER_DOUBLING 0.10
/* Of own software, in each direction: elements read and written. */
#define OWN_NORM_PASSES   8.0
#define OWN_ROPE_PASSES   2.0
#define OWN_ROUTED_PASSES 4.0
#define LOGIT_BYTES       8.0 /* of the loss, per logit and pass */
/* Volta's fused attention is none; its matrix units do this share of Ampere's. */
#define VOLTA_ATTENTION 0.7
/* A score takes one exponential, whatever the heads' width; an SM makes 16 in a clock, and 2048,
 * 4096, 8192 FLOPs of products (Ampere, Hopper, Blackwell): their time over the products' with
 * heads of 128, for which the shares are stated. */
#define REFERENCE_HEAD 128.0
static const double exponentials[] = {0.25, 0.25, 0.5, 1};

static double power_factor(const struct cm_cost_job *job, const double *v)
{
    const struct cm_gpu_spec *gpu = job->gpu;
    if (gpu->family != CM_GPU_HOPPER && gpu->family != CM_GPU_BLACKWELL)
        return 1;
    double reference = gpu->family == CM_GPU_HOPPER ? HOPPER_REFERENCE : BLACKWELL_REFERENCE;
    double relative = gpu->power / gpu->half / reference;
    return fabs(relative - 1) < 1e-3 ? 1 : pow(relative, v[CM_COST_power_exponent]);
}

static double half_share(const struct cm_cost_job *job, const double *v)
{
    static const enum cm_cost_parameter shares[] = {CM_COST_gemm_volta, CM_COST_gemm_ampere,
                                                    CM_COST_gemm_hopper, CM_COST_gemm_blackwell};
    return v[shares[job->gpu->family]] * power_factor(job, v);
}

double cm_half_rate(const struct cm_cost_job *job, const double *v)
{
    return job->gpu->half * half_share(job, v);
}

double cm_cost_product_rate(const struct cm_cost_job *job, const double *v)
{
    const struct cm_gpu_spec *gpu = job->gpu;
    double share = half_share(job, v);
    double blackwell = gpu->family == CM_GPU_BLACKWELL ? v[CM_COST_ratio_fp8_blackwell] : 1;
    switch (job->precision) {
    case CM_PRECISION_FP8:
        return gpu->fp8 * share * v[CM_COST_ratio_fp8] * blackwell;
    case CM_PRECISION_MXFP8:
        return gpu->fp8 * share * v[CM_COST_ratio_mxfp8];
    case CM_PRECISION_NVFP4:
        return gpu->fp4 * share * v[CM_COST_ratio_nvfp4];
    default:
        return gpu->half * share;
    }
}

double cm_memory_rate(const struct cm_cost_job *job, const double *v)
{
    return job->gpu->memory_rate * v[CM_COST_memory_share];
}

static double by_software(const struct cm_cost_job *job, const double *v, double fused,
                          double unfused, double eager)
{
    (void)v;
    return job->software == CM_SOFTWARE_UNFUSED ? unfused
           : job->software == CM_SOFTWARE_EAGER ? eager
                                                : fused;
}

/* Of one pass forward. */
struct forward {
    double tokens, keys; /* on this GPU; width of keys */
    double gemm, elementwise, cast, attention, attention_backward;
    double gemm_again, elementwise_again; /* recomputed */
    double elementwise_backward;
};

double cm_product_fixed(const struct cm_cost_job *job, const double *v)
{
    return by_software(job, v, v[CM_COST_gemm_fixed_fused], v[CM_COST_gemm_fixed_unfused],
                       v[CM_COST_gemm_fixed_eager]);
}

double cm_pass_bytes(const struct cm_cost_job *job, const double *v)
{
    return by_software(job, v, v[CM_COST_bytes_fused], v[CM_COST_bytes_unfused],
                       v[CM_COST_bytes_eager]);
}

double cm_attention_rate(const struct cm_cost_job *job, const double *v)
{
    static const enum cm_cost_parameter shares[] = {
        CM_COST_attention_ampere, CM_COST_attention_ampere, CM_COST_attention_hopper,
        CM_COST_attention_blackwell};
    double share = v[shares[job->gpu->family]] * power_factor(job, v);
    double width = job->head_size / REFERENCE_HEAD, exponents = exponentials[job->gpu->family];
    share *= width * (1 + exponents) / (width + exponents);
    return job->gpu->half * share * (job->gpu->family == CM_GPU_VOLTA ? VOLTA_ATTENTION : 1);
}

double cm_tensor_visible(const struct cm_cost_job *job, const double *v)
{
    bool hidden = job->software == CM_SOFTWARE_FUSED && job->sequence_parallel;
    return hidden ? v[CM_COST_tensor_visible] : 1;
}

/* Of own software, whose experts have places of a fixed number: those over the least. */
static double places(const struct cm_cost_job *job)
{
    double most = job->experts / fmax(1, job->top_k);
    return job->capacity > 0 ? fmin(job->capacity, most) : most;
}

static void products(const struct cm_cost_job *job, const double *v, struct forward *f)
{
    double h = job->hidden, inner = (job->gated ? 3 : 2) * h * job->ffn;
    double own = cm_projection(job) + (job->experts > 0 ? job->shared * inner : inner);
    double routed = job->experts > 0 ? job->top_k * inner : 0;
    routed *= (job->ffn + v[CM_COST_expert_half]) / job->ffn;
    bool own_software = job->software == CM_SOFTWARE_OWN;
    if (own_software)
        routed *= places(job);
    double flops = 2 * f->tokens * (own + routed + h * job->experts) / job->tp;
    double count = job->experts > 0 ? 2 + 2 * (job->experts / job->ep) : 4;
    f->gemm = flops / cm_cost_product_rate(job, v) + count * cm_product_fixed(job, v);
    f->gemm_again = f->gemm;
    if (own_software) { /* the last product's output is not needed again */
        double last = 2 * f->tokens * h * job->ffn / job->tp / cm_cost_product_rate(job, v);
        f->gemm_again -= job->experts > 0 ? 0 : last + cm_product_fixed(job, v);
    }
}

static void attention(const struct cm_cost_job *job, const double *v, struct forward *f)
{
    double flops = 4 * f->tokens * job->sequence * job->heads * job->head_size / job->tp;
    if (job->software == CM_SOFTWARE_UNFUSED) {
        double products = flops / cm_half_rate(job, v);
        double scores = CM_ACTIVATION_BYTES * f->tokens * job->sequence * job->heads / job->tp;
        double pass = v[CM_COST_bytes_scores] * scores / cm_memory_rate(job, v);
        f->attention = products + SCORE_PASSES * pass;
        f->attention_backward = 2 * products + SCORE_BACKWARD_PASSES * pass;
        return;
    }
    f->attention = flops / 2 / cm_attention_rate(job, v);
    f->attention_backward = ATTENTION_BACKWARD * f->attention;
}

/* As schedule_block.c and schedule_attention.c have them: two norms with their residuals, rotary
 * positions, the activation function, experts' places. */
static void own_passes(const struct cm_cost_job *job, const double *v, double element,
                       struct forward *f)
{
    double split = job->sequence_parallel ? job->tp : 1, up = job->gated ? 2 : 1;
    double experts = job->experts > 0 ? job->top_k * places(job) : 1;
    double norms = OWN_NORM_PASSES * job->hidden / split;
    double rope = job->gated ? OWN_ROPE_PASSES * (job->heads * job->head_size + f->keys) : 0;
    double inner = job->ffn * experts / job->tp;
    double routed =
        job->experts > 0 ? v[CM_COST_bytes_experts] * OWN_ROUTED_PASSES * job->hidden * experts : 0;
    bool full = job->recompute == CM_RECOMPUTE_FULL;
    rope /= job->tp;
    f->elementwise = element * (norms + rope + (up + 1) * inner + routed);
    f->elementwise_backward = element * (norms + rope + (2 * up + 1) * inner + routed);
    f->elementwise_again =
        element * (norms / 2 + (up + 1) * inner + (full ? norms / 2 + rope + routed / 2 : 0));
}

static void memory_passes(const struct cm_cost_job *job, const double *v, struct forward *f)
{
    double rate = cm_memory_rate(job, v);
    double more = cm_pass_bytes(job, v);
    double matrices = job->gated ? 3 : 2;
    double experts = job->experts > 0 ? job->top_k + job->shared : 1;
    double split = job->sequence_parallel ? job->tp : 1;
    double stream = STREAM_PASSES * job->hidden / split;
    double inner = (2 * (matrices - 1) + 1) * job->ffn * experts / job->tp;
    double heads = QKV_PASSES * (job->heads * job->head_size + 2 * f->keys) / job->tp;
    double routed = job->experts > 0 ? v[CM_COST_bytes_experts] * ROUTED_PASSES * job->hidden *
                                           job->top_k / split
                                     : 0;
    double element = more * CM_ACTIVATION_BYTES * f->tokens / rate;
    f->elementwise = f->elementwise_again = element * (stream + inner + heads + routed);
    f->elementwise_backward = BACKWARD_PASSES * f->elementwise;
    if (job->software == CM_SOFTWARE_OWN)
        own_passes(job, v, element, f);
    if (job->precision != CM_PRECISION_HALF)
        f->cast = v[CM_COST_bytes_cast] * CAST_PASSES * f->tokens *
                  (2 * job->hidden + (matrices - 1) * job->ffn * experts / job->tp +
                   2 * job->hidden / job->tp) /
                  rate;
}

/* An all-gather and a reduce-scatter (or the all-reduce that is both), twice per pass. */
static double tensor_pass(const struct cm_cost_job *job, const double *v, double tokens)
{
    if (job->tp <= 1)
        return 0;
    double message = CM_ACTIVATION_BYTES * tokens * job->hidden;
    double rate = cm_group_rate(job, v, job->tp, 1, message);
    double pair = 2 * message * (job->tp - 1) / job->tp / rate + v[CM_COST_tensor_fixed];
    return 2 * pair * cm_tensor_visible(job, v);
}

/* Keys and values go round while attention works on those that are here. */
static double context(const struct cm_cost_job *job, const double *v, const struct forward *f,
                      double *all)
{
    *all = 0;
    if (job->cp <= 1)
        return 0;
    double bytes = 2 * CM_ACTIVATION_BYTES * f->tokens * f->keys / job->tp * (job->cp - 1);
    double time = bytes / cm_group_rate(job, v, job->cp, job->tp, bytes);
    *all = 3 * time;
    if (job->software == CM_SOFTWARE_OWN) /* at once, keys and values back in, gradients out */
        return 3 * time;
    return fmax(0, time - f->attention) + fmax(0, 2 * time - f->attention_backward);
}

/* Dispatch and combine, forward and backward. */
static double expert_messages(const struct cm_cost_job *job, const double *v, double tokens)
{
    if (job->experts <= 0 || job->ep <= 1)
        return 0;
    double bytes = CM_ACTIVATION_BYTES * tokens * job->top_k * job->hidden / job->tp;
    if (job->software == CM_SOFTWARE_OWN) /* all places, on every rank of a tensor group */
        bytes *= places(job) * job->tp;
    double rate = cm_group_rate(job, v, job->ep, job->tp, bytes * job->ep);
    return 4 * bytes * (job->ep - 1) / job->ep / rate;
}

/* What messages inside a layer take of the units that compute meanwhile. */
static void add_overlap(const struct cm_cost_job *job, const double *v, double messages,
                        double context_all, struct cm_layer_cost *cost)
{
    double tensor = cost->tensor * (1 / cm_tensor_visible(job, v) - 1);
    double expert = messages * fmax(0, 1 - v[CM_COST_expert_visible]);
    cost->overlap = tensor * cm_overlap_tax(job, v, job->tp, 1) +
                    expert * cm_overlap_tax(job, v, job->ep, job->tp) +
                    (context_all - cost->context) * cm_overlap_tax(job, v, job->cp, job->tp);
}

static double power8(double x)
{
    x *= x;
    x *= x;
    return x * x;
}

/* A step of newer software takes less, to the release that the other parameters are stated for. */
static double software_age(const struct cm_cost_job *job, const double *v)
{
    if (job->release <= 0)
        return 1;
    double yearly = v[CM_COST_progress] * (job->experts > 0 ? v[CM_COST_progress_experts] : 1);
    return pow(yearly, REFERENCE_RELEASE - job->release);
}

void cm_layer_cost(const struct cm_cost_job *job, const double *v, struct cm_layer_cost *cost)
{
    struct forward f = {.tokens = job->micro_batch * job->sequence / job->cp,
                        .keys = job->kv_heads * job->head_size};
    products(job, v, &f);
    attention(job, v, &f);
    memory_passes(job, v, &f);
    double tensor = tensor_pass(job, v, f.tokens);
    bool full = job->recompute == CM_RECOMPUTE_FULL;
    bool selective = job->recompute == CM_RECOMPUTE_SELECTIVE;
    bool unfused = job->software == CM_SOFTWARE_UNFUSED;
    cost->gemm = 3 * f.gemm + (full ? f.gemm_again : 0);
    cost->cast = (full ? 4 : 3) * f.cast;
    cost->attention = (full || (selective && unfused) ? 2 : 1) * f.attention + f.attention_backward;
    cost->elementwise = f.elementwise + f.elementwise_backward +
                        (full || (selective && !unfused) ? f.elementwise_again : 0);
    cost->tensor = (full ? 3 : 2) * tensor;
    /* Inputs are kept split, so that backward gathers them again: two of a pair's halves. */
    if (job->sequence_parallel)
        cost->tensor += tensor / 2;
    double messages = expert_messages(job, v, f.tokens) * (full ? 1.5 : 1), context_all;
    cost->expert = v[CM_COST_expert_visible] * messages;
    cost->context = context(job, v, &f, &context_all);
    add_overlap(job, v, messages, context_all, cost);
    double device = cost->gemm + cost->cast + cost->attention + cost->elementwise + cost->tensor +
                    cost->overlap;
    double launch =
        by_software(job, v, v[CM_COST_host_fused], v[CM_COST_host_unfused], v[CM_COST_host_eager]) +
        (job->experts > 0 ? v[CM_COST_host_experts] : 0);
    double host = (full ? 3 : 2) * (1 + HOST_PER_DOUBLING * log2(job->tp)) * launch;
    double slower = sqrt(sqrt(sqrt(1 + power8(host / device)))) * device;
    cost->total = (slower + cost->context + cost->expert) * software_age(job, v);
}

double cm_head_cost(const struct cm_cost_job *job, const double *v)
{
    double tokens = job->micro_batch * job->sequence / job->cp;
    double logits = tokens * job->vocabulary / job->tp;
    return 3 * 2 * logits * job->hidden / cm_half_rate(job, v) +
           2 * LOGIT_BYTES * logits / cm_memory_rate(job, v);
}

double cm_embedding_cost(const struct cm_cost_job *job, const double *v)
{
    double tokens = job->micro_batch * job->sequence / job->cp;
    return 6 * CM_ACTIVATION_BYTES * tokens * job->hidden / cm_memory_rate(job, v);
}
