/*
 * cost.h: what a training step takes on GPUs that are not here: a closed form of its schedule over
 * modelled operation times. Pure: numbers in, numbers out; nothing allocates and nothing fails
 * but what loads files.
 *
 * The step: m micro-batches pass p stages of v chunks each. With t the time of one micro-batch in
 * the slowest stage (forward, backward, recomputation, collectives that are not hidden),
 *
 *     T = [m t + (p - 1) t_mean / v + T_data + T_optimizer + T_fixed] * S(N)
 *
 * where t_mean is the mean over the stages, T_data what stays visible of the gradients' and
 * weights' messages, S the slowest of N / 8 hosts. Structure as in Calculon (SC23) and the
 * schedules of Narayanan et al. (SC21); efficiencies are fitted, see struct cm_cost_parameter.
 */
#ifndef CLUSTERMARK_COST_H
#define CLUSTERMARK_COST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/parallel.h"
#include "clustermark/schedule.h"
#include "clustermark/status.h"
#include "clustermark/transformer.h"

/* ---- GPUs ---- */

enum cm_gpu_family { CM_GPU_VOLTA, CM_GPU_AMPERE, CM_GPU_HOPPER, CM_GPU_BLACKWELL };
/* Types that matrix products are made in. Half: bf16 and f16, which take the same time. */
enum cm_precision {
    CM_PRECISION_HALF,
    CM_PRECISION_FP8,
    CM_PRECISION_MXFP8,
    CM_PRECISION_NVFP4,
    CM_PRECISION_COUNT
};
extern const char *const cm_precision_names[];

/* What its makers say of one GPU, and how such GPUs are usually joined. Rates are of one direction;
 * FLOP rates are dense. From configs/gpus.ini. */
struct cm_gpu_spec {
    char name[40];
    char names[160];            /* how others write it: a list with commas */
    int family;                 /* enum cm_gpu_family */
    double half, fp8, fp4;      /* FLOP/s; 0: there is no unit for it */
    double memory_rate, memory; /* B/s, B */
    double nvlink_rate;         /* B/s of one GPU to all others in its domain */
    double network_rate;        /* B/s of one GPU's share of its node's network cards */
    uint64_t domain;            /* GPUs that NVLink joins */
    double power;               /* W, as sold */
    char source[240];
};
extern const struct cm_option cm_gpu_spec_options[];

struct cm_gpu_catalogue {
    struct cm_gpu_spec *specs;
    size_t count, capacity;
};
/* configs/gpus.ini. CM_USAGE with file and line. */
enum cm_status cm_gpu_catalogue_load(struct cm_gpu_catalogue *catalogue);
void cm_gpu_catalogue_release(struct cm_gpu_catalogue *catalogue);
/* The one whose name, or other name, makes up most of `name` from its beginning, up to the end of a
 * word; what stands in brackets does not count ("H100-SXM(p5)"). NULL when there is none. */
const struct cm_gpu_spec *cm_gpu_find(const struct cm_gpu_catalogue *catalogue, const char *name);

/* ---- what is run ---- */

/* How the step is programmed: it decides what attention costs, what is hidden and what the host
 * can keep up with. */
enum cm_software {
    CM_SOFTWARE_FUSED, /* Megatron-Core, NeMo, JAX: fused attention, communication beside compute */
    CM_SOFTWARE_UNFUSED, /* Megatron-LM until 2022: scores in memory, communication waited for */
    CM_SOFTWARE_EAGER,   /* PyTorch's FSDP, an operator at a time, fused attention */
    CM_SOFTWARE_OWN /* this program's trainstep (schedule.h): fused, but nothing within products;
                       rates and fixed times are those of fused software */
};
extern const char *const cm_software_names[];

struct cm_cost_job {
    const struct cm_gpu_spec *gpu;
    double layers, hidden, heads, kv_heads, head_size, ffn, vocabulary, sequence;
    double capacity;       /* places of an expert, as in struct cm_transformer; own software's */
    bool gated;            /* three matrices in the feed-forward layer, not two */
    double experts, top_k; /* 0: dense */
    double shared;         /* experts that every token passes, of the width `ffn` */
    double projection;     /* parameters of a layer's attention products; 0: by its heads */
    double tp, cp, pp, vpp, dp, ep;
    double micro_batches; /* of each data-parallel rank */
    double micro_batch;   /* sequences */
    double network_rate;  /* B/s of a GPU's share of its node's cards; 0: as the GPU's catalogue has
                             it */
    double domain;        /* GPUs that NVLink joins; 0: likewise */
    double shard;         /* ranks that the weights are split over with zero 3; 0: dp * cp */
    unsigned zero;        /* 1: optimizer, 3: weights as well */
    bool sequence_parallel;
    enum cm_recompute recompute;
    enum cm_precision precision;
    enum cm_software software;
    /* Hosts that differ: their standard deviation (0: the calibration's), and how much longer a
     * slow one takes, and which share of them are. */
    double host_spread, slow_by, slow_share;
    double release; /* of the software, in years since 2000: 25.5; 0: not known */
};
/* The job that a step is on that GPU; micro-batches, types and recomputation as there. */
void cm_cost_job_from(const struct cm_transformer *model, const struct cm_parallel *plan,
                      const struct cm_gpu_spec *gpu, struct cm_cost_job *job);
double cm_cost_gpus(const struct cm_cost_job *job);
/* Trained parameters, and those of them that one token meets. */
double cm_cost_parameter_count(const struct cm_cost_job *job, double *active);

/* FLOP/s that large products of the job's precision reach on its GPU. */
double cm_cost_product_rate(const struct cm_cost_job *job, const double *value);

/* ---- calibration ---- */

/* X(name, first guess, its spread as a standard deviation of the logarithm, help). All are
 * positive; the fit moves their logarithms away from the first guess only as far as rows ask. */
#define CM_COST_PARAMETERS(X)                                                                      \
    X(gemm_volta, 0.62, 0.2, "share of the half-precision peak that large products reach, Volta")  \
    X(gemm_ampere, 0.75, 0.15, "the same, Ampere")                                                 \
    X(gemm_hopper, 0.70, 0.15, "the same, Hopper at 700 W")                                        \
    X(gemm_blackwell, 0.65, 0.15, "the same, Blackwell at 1200 W")                                 \
    X(ratio_fp8, 0.85, 0.15, "what fp8 products reach of that share, Hopper")                      \
    X(ratio_fp8_blackwell, 1.0, 0.1, "a further factor on Blackwell")                              \
    X(ratio_mxfp8, 0.85, 0.15, "the same of mxfp8")                                                \
    X(ratio_nvfp4, 0.65, 0.2, "the same of nvfp4")                                                 \
    X(power_exponent, 0.7, 0.4, "rates go with watts per FLOP/s to this power")                    \
    X(gemm_fixed_fused, 6e-6, 0.5, "s, of every product, fused software")                          \
    X(gemm_fixed_unfused, 1.2e-5, 0.5, "the same, unfused")                                        \
    X(gemm_fixed_eager, 1.2e-5, 0.5, "the same, eager")                                            \
    X(host_fused, 2e-4, 0.5, "s that the host takes for a pass of a layer, fused software")        \
    X(host_unfused, 6e-4, 0.5, "the same, unfused")                                                \
    X(host_eager, 6e-4, 0.5, "the same, eager")                                                    \
    X(bytes_fused, 1.0, 0.3, "memory traffic of norms and activations over the least, fused")      \
    X(bytes_unfused, 1.2, 0.3, "the same, unfused")                                                \
    X(bytes_eager, 1.5, 0.3, "the same, eager")                                                    \
    X(bytes_scores, 1.0, 0.3, "the same of attention's scores, where they lie in memory")          \
    X(bytes_cast, 1.0, 0.5, "the same of conversions to fp8 and below")                            \
    X(attention_ampere, 0.40, 0.3, "share of the peak in fused attention, causal, Ampere")         \
    X(attention_hopper, 0.40, 0.3, "the same, Hopper")                                             \
    X(attention_blackwell, 0.40, 0.3, "the same, Blackwell")                                       \
    X(memory_share, 0.8, 0.1, "of the memory's rate that kernels reach")                           \
    X(nvlink_share, 0.75, 0.3, "of NVLink's rate that collectives reach")                          \
    X(tensor_fixed, 2.5e-5, 0.5, "s, of every collective of a tensor group")                       \
    X(tensor_visible, 0.4, 0.5, "share of those that fused software does not hide")                \
    X(network_share, 0.8, 0.15, "of the network's rate that collectives reach")                    \
    X(network_half, 1.2e7, 0.5, "bytes of a message per node at which half of that is reached")    \
    X(data_visible_unfused, 0.9, 0.3, "share of the gradients' messages that is not hidden")       \
    X(data_visible_fused, 0.3, 0.5, "the same, fused software")                                    \
    X(shard_visible, 0.3, 0.5, "share of gathering weights that is not hidden, beyond the longer") \
    X(expert_half, 1000, 0.5, "width of an expert whose products reach half of what others do")    \
    X(bytes_experts, 1.5, 0.7, "memory traffic of sorting tokens to experts over the least")       \
    X(host_experts, 2e-3, 1.0, "s that the host takes for a pass of a layer with experts, more")   \
    X(expert_visible, 0.6, 0.5, "share of messages to and from experts that is not hidden")        \
    X(stage_visible, 0.4, 0.5, "share of messages between stages that is not hidden")              \
    X(tax_nvlink, 0.15, 0.4, "share by which messages within a domain slow what computes beside")  \
    X(tax_network, 0.02, 0.4, "the same of messages between nodes")                                \
    X(host_spread, 0.006, 0.3, "standard deviation between hosts")                                 \
    X(progress, 1.02, 0.03, "how much faster a layer gets with a year of software")                \
    X(progress_experts, 1.15, 0.15, "the same of layers with experts, beyond that")                \
    X(fixed_layer, 3e-4, 1.0, "s of a step for each layer of a stage, outside its micro-batches")  \
    X(fixed, 0.02, 0.7, "s of a step outside its micro-batches, beside that")

enum cm_cost_parameter {
#define CM_COST_ENUM(name, guess, spread, help) CM_COST_##name,
    CM_COST_PARAMETERS(CM_COST_ENUM)
#undef CM_COST_ENUM
        CM_COST_PARAMETER_COUNT
};
struct cm_cost_parameter_info {
    const char *name;
    double guess, spread;
    const char *help;
};
extern const struct cm_cost_parameter_info cm_cost_parameter_infos[CM_COST_PARAMETER_COUNT];

struct cm_calibration {
    double value[CM_COST_PARAMETER_COUNT];
    double spread[CM_COST_PARAMETER_COUNT]; /* standard deviation of the logarithm, after the fit */
    double residual; /* the same of what rows differ from the model: of one run from another */
    double residual_experts; /* of mixtures of experts */
    uint64_t rows;           /* fitted on */
    char sources[2048];      /* those rows', with their counts */
};
void cm_calibration_guess(struct cm_calibration *calibration);
/* configs/calibration.ini, or the file of that path. CM_USAGE with file and line. */
enum cm_status cm_calibration_load(const char *path, struct cm_calibration *calibration);
void cm_calibration_write(const struct cm_calibration *calibration, struct cm_str *out);

/* ---- answers ---- */

/* Seconds. The first group adds up to `step`; `overlapped` lies within it. */
struct cm_step_cost {
    double step;
    double gemm, attention, elementwise, cast, head; /* of the slowest stage, all micro-batches */
    double host;                                     /* that the host was slower than these */
    double tensor, context, expert, stages, shards;  /* communication that is not hidden */
    double overlap;   /* what computes is slowed by the messages that it hides */
    double imbalance; /* the slowest stage against the layers it has */
    double bubble, data, optimizer, fixed, straggler;
    double micro; /* time of one micro-batch in the slowest stage */
    double slots; /* m + (p - 1) / v */
};
void cm_step_cost(const struct cm_cost_job *job, const double *value, struct cm_step_cost *cost);

/* The same model on the virtual clock (virtual_clock.h): times of single operations, and what of
 * them is hidden comes out of this program's own schedule. `value` must outlive the record. What
 * the closed form has as shares of tensor and expert messages that are not hidden stays a factor of
 * their times, since products hide them from within. */
struct cm_cost_clock {
    struct cm_cost_job job;
    const double *value;
    double slower; /* of a layer's operations: host and release */
    double data_bytes, shard_bytes, attention_rate;
};
void cm_cost_clock_open(const struct cm_cost_job *job, const double *value,
                        struct cm_cost_clock *clock);
/* A cm_op_time_fn; `clock` is a struct cm_cost_clock. */
double cm_cost_time(const void *clock, const struct cm_step *step, unsigned rank,
                    const struct cm_op *op);
/* The step that the job is, with all else as cm_step_defaults has it. */
void cm_cost_step(const struct cm_transformer *model, const struct cm_parallel *plan,
                  const struct cm_cost_job *job, struct cm_step *step);
/* As cm_step_cost, by executing the schedule; fixed times and stragglers as there. The parts are
 * those of the stage that computes longest: its operations and its waits. CM_USAGE and
 * CM_NO_MEMORY as cm_virtual_open. */
enum cm_status cm_cost_execute(const struct cm_step *step, const struct cm_cost_job *job,
                               const double *value, struct cm_step_cost *cost,
                               uint64_t *operations);

/* Standard deviation of the logarithm of a predicted step: the parameters' spreads, the residual,
 * and `assumed` further things that the plan left open. */
double cm_cost_spread(const struct cm_cost_job *job, const struct cm_calibration *calibration,
                      unsigned assumed);

/* Bytes of the fullest GPU by use; the formulas are those of Korthikanti et al. (2205.05198) and
 * Rajbhandari et al. (1910.02054), with the step's own rules for what is kept. */
struct cm_memory_cost {
    double weights, gradients, optimizer, activations, logits, total;
};
void cm_memory_cost(const struct cm_cost_job *job, struct cm_memory_cost *memory);

/* ---- fitting ---- */

struct cm_cost_sample {
    struct cm_cost_job job;
    double step_s; /* measured */
    double weight; /* of the row, 0..1 */
};
/* Least squares of logarithms with a loss that flattens beyond about three spreads, and what
 * *calibration says before as further rows, with its spreads (Levenberg-Marquardt). Sets value,
 * spread, and what the rows differ by afterwards. */
enum cm_status cm_cost_fit(const struct cm_cost_sample *samples, size_t count,
                           struct cm_calibration *calibration, double *residual);
/* First the jobs without experts; then, with all else held, what only mixtures of experts speak of.
 */
enum cm_status cm_cost_fit_all(const struct cm_cost_sample *samples, size_t count,
                               struct cm_calibration *calibration);

#endif
