/* trainstep: from parameters to a step, and whether it fits the memory there is. */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/parallel.h"
#include "clustermark/transformer.h"
#include "clustermark/units.h"
#include "host/workload/trainstep.h"

static const enum cm_dtype dtypes[] = {CM_BF16, CM_F32};
static const char *const dtype_choices[] = {"bf16", "f32", NULL};
static const char *const compute_choices[] = {"dtype", "fp8", NULL};
static const char *const gelu_choices[] = {"auto", "kernel", "fused", NULL};
const char *const cm_trainstep_recompute[] = {"none", "selective", "full", NULL};

enum { ON_ANY, ON_GPU };
static const char *const on_choices[] = {"any", "gpu", NULL};

static const char *const attention_choices[] = {"auto", "own", "cudnn", NULL};

#define FIELD(name)    offsetof(struct cm_trainstep_params, name)
#define CAPACITY(name) sizeof((struct cm_trainstep_params *)0)->name
/* name, type, field, least, most, default, help, choices, capacity, no_list */
const struct cm_option cm_trainstep_options[] = {
    {"model", CM_OPTION_TEXT, FIELD(model), 0, 0, "tiny",
     "a name of configs/models, or the path of such a file", NULL, CAPACITY(model), false},
    {"plan", CM_OPTION_TEXT, FIELD(plan), 0, 0, "",
     "dp=2,tp=2,pp=2,cp=1,ep=1,zero=1,sp=1,vpp=1; without it dp of all ranks and zero=1", NULL,
     CAPACITY(plan), true},
    {"micro_batches", CM_OPTION_COUNT, FIELD(micro_batches), 1, 1e6, "1",
     "of a step, on each data-parallel rank", NULL, 0, false},
    {"micro_batch", CM_OPTION_COUNT, FIELD(micro_batch), 1, 1e6, "1", "sequences of each", NULL, 0,
     false},
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), 0, 0, "bf16",
     "type of weights and activations; gradients and the optimizer have f32", dtype_choices, 0,
     false},
    {"compute", CM_OPTION_CHOICE, FIELD(compute), 0, 0, "dtype",
     "of products: that type, or in blocks 8-bit floats with a scale for each matrix",
     compute_choices, 0, false},
    {"recompute", CM_OPTION_CHOICE, FIELD(recompute), 0, 0, "none",
     "what the backward pass computes again: norms and activation functions, or all of a block",
     cm_trainstep_recompute, 0, false},
    {"attention", CM_OPTION_CHOICE, FIELD(attention), 0, 0, "auto",
     "by own kernels or by cuDNN's; auto: on GPUs the faster one", attention_choices, 0, false},
    {"layers", CM_OPTION_TEXT, FIELD(layers), 0, 0, "0",
     "a slice of the model; 0 for all, fit for as many as there is memory for", NULL,
     CAPACITY(layers), false},
    {"overlap", CM_OPTION_BOOL, FIELD(overlap), 0, 0, "on",
     "communication beside compute; off waits for it at once", NULL, 0, false},
    {"gelu", CM_OPTION_CHOICE, FIELD(gelu), 0, 0, "auto",
     "of dense layers: a kernel after products, fused into them where the GPU's library can, or "
     "what is faster",
     gelu_choices, 0, false},
    {"sequence", CM_OPTION_COUNT, FIELD(sequence), 0, 1e7, "0",
     "tokens of a sequence; 0 for the model's", NULL, 0, false},
    {"bucket", CM_OPTION_SIZE, FIELD(bucket_bytes), 0, 0, "0",
     "least bytes of a message of gradients; 0 for the usual 40 MB", NULL, 0, false},
    {"learning_rate", CM_OPTION_REAL, FIELD(learning_rate), 0, 1, "0",
     "0 for one that suits the model's width", NULL, 0, false},
    {"clip", CM_OPTION_REAL, FIELD(clip), 0, 1e6, "1", "limit of the gradients' norm; 0 for none",
     NULL, 0, false},
    {"stochastic", CM_OPTION_BOOL, FIELD(stochastic), 0, 0, "off",
     "stochastic rounding of bf16 weights", NULL, 0, false},
    {"on", CM_OPTION_CHOICE, FIELD(on), 0, 0, "any",
     "gpu: a step that takes a CPU minutes, and is skipped there", on_choices, 0, false},
    {0},
};

bool cm_trainstep_fits(const struct cm_trainstep_params *params)
{
    return strcmp(params->layers, "fit") == 0 || strcmp(params->layers, "-1") == 0;
}

static enum cm_status load_model(const struct cm_trainstep_params *params, const char *where,
                                 struct cm_transformer *model)
{
    uint64_t layers = 0;
    if (!cm_trainstep_fits(params) && strcmp(params->layers, "all") != 0 &&
        cm_parse_count(params->layers, &layers) != CM_OK)
        return cm_error(CM_USAGE, "%s: layers \"%s\" is no number; 0 means all, fit as many as fit",
                        where, params->layers);
    enum cm_status status = cm_transformer_load(params->model, layers, model);
    if (status != CM_OK)
        return cm_error_at(status, "%s: ", where);
    if (params->sequence == 0)
        return CM_OK;
    model->sequence = params->sequence;
    return cm_transformer_validate(model, where);
}

/* What suits a narrow model makes a wide one jump: a step of AdamW moves every weight alike. */
#define USUAL_WIDTH 768.0

enum cm_status cm_trainstep_step(const struct cm_trainstep_params *params, unsigned ranks,
                                 const char *where, struct cm_step *step)
{
    char plan[64];
    cm_step_defaults(step);
    enum cm_status status = load_model(params, where, &step->model);
    snprintf(plan, sizeof plan, "%s", params->plan);
    if (plan[0] == '\0')
        snprintf(plan, sizeof plan, "dp=%u%s", ranks, ranks > 1 ? ",zero=1" : "");
    if (status == CM_OK)
        status = cm_parallel_parse(plan, where, &step->parallel);
    if (status != CM_OK)
        return status;
    step->micro_batches = params->micro_batches;
    step->micro_batch = params->micro_batch;
    step->dtype = dtypes[params->dtype];
    step->fp8 = params->compute == 1;
    if (step->fp8 && step->dtype != CM_BF16)
        return cm_error(CM_USAGE, "%s: compute = fp8 needs dtype = bf16", where);
    if (step->fp8 && params->gelu == CM_GELU_FUSED)
        return cm_error(CM_USAGE, "%s: compute = fp8 has no products with gelu = fused", where);
    step->recompute = (enum cm_recompute)params->recompute;
    step->overlap = params->overlap;
    step->stochastic = params->stochastic;
    step->clip = (float)params->clip;
    if (params->bucket_bytes > 0)
        step->bucket_bytes = params->bucket_bytes;
    if (params->learning_rate > 0)
        step->learning_rate = (float)params->learning_rate;
    else if ((double)step->model.hidden > USUAL_WIDTH)
        step->learning_rate *= (float)(USUAL_WIDTH / (double)step->model.hidden);
    return CM_OK;
}

enum cm_status cm_trainstep_validate(const void *memory, const char *where)
{
    const struct cm_trainstep_params *params = memory;
    struct cm_step step;
    enum cm_status status = cm_trainstep_step(params, 1, where, &step);
    return status == CM_OK ? cm_parallel_check(&step.parallel, &step.model, step.micro_batches,
                                               step.micro_batch, where)
                           : status;
}

/* ---- memory ---- */

static enum cm_status fit_layers(struct cm_context *context, unsigned part, uint64_t left,
                                 struct cm_step *step)
{
    uint64_t own = cm_trainstep_most_layers(*step, part, left);
    const void *all;
    enum cm_status status = cm_context_gather(context, &own, sizeof own, &all);
    for (unsigned rank = 0; status == CM_OK && rank < context->comm->size; rank++)
        own = ((const uint64_t *)all)[rank] < own ? ((const uint64_t *)all)[rank] : own;
    if (status == CM_OK)
        step->model.layers = own > 0 ? own : (uint64_t)step->parallel.pp * step->parallel.vpp;
    return status;
}

enum cm_status cm_trainstep_build(struct cm_context *context,
                                  const struct cm_trainstep_params *params, struct cm_step *step,
                                  struct cm_schedule *schedule)
{
    struct cm_comm *comm = context->comm;
    uint64_t left = 0, by_use[CM_USE_COUNT];
    unsigned part = comm->rank;
    if (context->device->kernels->train == NULL)
        return cm_error(CM_UNSUPPORTED, "%s devices have no kernels of a training step",
                        context->device->ops->name);
    if (params->on == ON_GPU && context->device->ops->is_host)
        return cm_error(CM_UNSUPPORTED, "on = gpu: a step for GPUs, and %s devices are the host",
                        context->device->ops->name);
    enum cm_status status = cm_trainstep_step(params, comm->size, "trainstep", step);
    unsigned ranks = status == CM_OK ? cm_parallel_ranks(&step->parallel) : 0;
    if (status == CM_OK && ranks != comm->size)
        status = cm_error(CM_UNSUPPORTED, "plan %s is for %u ranks, and there are %u", params->plan,
                          ranks, comm->size);
    if (status == CM_OK)
        status = cm_parallel_check(&step->parallel, &step->model, step->micro_batches,
                                   step->micro_batch, "trainstep");
    if (status == CM_OK)
        status = cm_trainstep_place(context, step->parallel.tp, &part);
    if (status == CM_OK)
        status = cm_trainstep_choose_gelu(context, (enum cm_gelu_way)params->gelu, step);
    if (status == CM_OK)
        status = cm_context_memory_left(context, &left);
    left -= left / 64; /* libraries round up, and have workspaces */
    if (status == CM_OK && cm_trainstep_fits(params))
        status = fit_layers(context, part, left, step);
    if (status != CM_OK)
        return status;
    uint64_t needed = cm_trainstep_bytes(step, part, by_use);
    /* Who asks for what fits is not refused anything where nothing does. */
    if (needed != UINT64_MAX && needed > left)
        return cm_trainstep_refuse(cm_trainstep_fits(params) ? CM_UNSUPPORTED : CM_NO_MEMORY, step,
                                   needed, left, by_use);
    return cm_schedule_build(step, part, schedule);
}

enum cm_status cm_trainstep_explain(const void *memory, unsigned ranks, unsigned rank,
                                    struct cm_str *out)
{
    struct cm_step step;
    struct cm_schedule schedule = {0};
    enum cm_status status = cm_trainstep_step(memory, ranks, "trainstep", &step);
    unsigned wanted = status == CM_OK ? cm_parallel_ranks(&step.parallel) : 1;
    if (status == CM_OK && rank >= wanted)
        status = cm_error(CM_USAGE, "trainstep: the plan has ranks 0 to %u, no rank %u", wanted - 1,
                          rank);
    if (status == CM_OK)
        status = cm_schedule_build(&step, rank, &schedule);
    if (status != CM_OK)
        return status;
    cm_schedule_explain(&schedule, out);
    cm_schedule_release(&schedule);
    return cm_str_status(out);
}

enum cm_status cm_trainstep_spread(const void *memory, bool host, unsigned ranks,
                                   const unsigned *node_of, struct cm_str *out)
{
    const struct cm_trainstep_params *params = memory;
    struct cm_step step;
    if ((host && params->on == ON_GPU) ||
        cm_trainstep_step(memory, ranks, "trainstep", &step) != CM_OK ||
        cm_parallel_ranks(&step.parallel) != ranks)
        return CM_OK;
    return cm_parallel_spread(&step.parallel, node_of, out);
}
