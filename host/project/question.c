/* A question about a cluster: everything that is asked, checked and completed. */
#include "host/project/question.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "host/project/document.h"
#include "host/project/search.h"

/* Llama 3's batch in the main part of its training (2407.21783, section 3.4.1). */
#define BATCH_TOKENS (16.0 * 1024 * 1024)
/* Simple rules go by runs on no fewer than this part of the GPUs. */
#define RULES_REACH 16.0
/* NCCL, allocator and context; measured systems have 2 to 6 GB. */
#define RESERVED_BYTES 4e9

const char *const cm_recompute_names[] = {"none", "selective", "full"};

static void assume(struct cm_question *q, const char *text)
{
    cm_document_append(&q->noted, q->assumptions, json_string(text));
}

static bool names(const char *plan, const char *key)
{
    size_t length = strlen(key);
    for (const char *at = plan; at != NULL; at = strchr(at, ',')) {
        at += strspn(at, ", ");
        if (strncmp(at, key, length) == 0 && at[length] == '=')
            return true;
    }
    return false;
}

/* What the plan leaves open: dp takes the GPUs that are left, the optimizer is sharded, norms are
 * split with the tensor group. */
static enum cm_status complete_plan(struct cm_question *q)
{
    const char *text = q->options->plan;
    enum cm_status status = cm_parallel_parse(text, "--plan", &q->plan);
    if (status != CM_OK)
        return status;
    uint64_t replica = (uint64_t)q->plan.tp * q->plan.cp * q->plan.pp;
    uint64_t gpus = q->options->gpus;
    if (!names(text, "dp") && (gpus % replica != 0 || gpus / replica > UINT32_MAX))
        return cm_error(CM_USAGE,
                        "--plan: tp %u x cp %u x pp %u take %" PRIu64
                        " GPUs, which do not divide --gpus %" PRIu64,
                        q->plan.tp, q->plan.cp, q->plan.pp, replica, gpus);
    if (!names(text, "dp"))
        q->plan.dp = (unsigned)(gpus / replica);
    if (replica * q->plan.dp != gpus)
        return cm_error(CM_USAGE, "--plan takes %" PRIu64 " GPUs; --gpus says %" PRIu64,
                        replica * q->plan.dp, gpus);
    if (!names(text, "zero"))
        q->plan.zero = (uint64_t)q->plan.dp * q->plan.cp > 1;
    if (!names(text, "sp"))
        q->plan.sp = q->plan.tp > 1;
    return CM_OK;
}

static enum cm_status choose_batch(struct cm_question *q)
{
    uint64_t each = (uint64_t)q->plan.dp * q->micro_batch;
    q->batch = q->options->batch;
    if (q->batch == 0) {
        uint64_t unit = each * (q->plan.vpp > 1 ? q->plan.pp : 1);
        uint64_t wanted = (uint64_t)fmax(1, BATCH_TOKENS / (double)q->model.sequence);
        char text[120];
        q->batch = (wanted + unit - 1) / unit * unit;
        snprintf(text, sizeof text,
                 "batch %" PRIu64 " sequences: 16 Mi tokens, up to what the plan divides",
                 q->batch);
        assume(q, text);
    }
    if (q->batch % each != 0)
        return cm_error(CM_USAGE,
                        "--batch: %" PRIu64
                        " sequences are no multiple of dp %u x micro-batch %" PRIu64,
                        q->batch, q->plan.dp, q->micro_batch);
    return cm_parallel_check(&q->plan, &q->model, q->batch / each, q->micro_batch, "--plan");
}

static enum cm_status choose_types(struct cm_question *q)
{
    const char *dtype = q->options->dtype, *recompute = q->options->recompute;
    const struct cm_gpu_spec *gpu = q->cluster.spec;
    int found = strcmp(dtype, "bf16") == 0 ? CM_PRECISION_HALF : -1;
    for (int i = 0; cm_precision_names[i] != NULL; i++)
        if (strcmp(cm_precision_names[i], dtype) == 0)
            found = i;
    if (found < 0)
        return cm_error(CM_USAGE, "--dtype: '%.20s'; bf16, fp8, mxfp8 or nvfp4", dtype);
    if ((found != CM_PRECISION_HALF && gpu->fp8 == 0) ||
        (found == CM_PRECISION_NVFP4 && gpu->fp4 == 0))
        return cm_error(CM_USAGE, "--dtype: %s has no unit for %s", gpu->name, dtype);
    q->job.precision = (enum cm_precision)found;
    for (int i = 0; i < 3; i++)
        if (strcmp(cm_recompute_names[i], recompute) == 0) {
            q->job.recompute = (enum cm_recompute)i;
            return CM_OK;
        }
    return cm_error(CM_USAGE, "--recompute: '%.20s'; none, selective or full", recompute);
}

bool cm_question_fits(const struct cm_question *q, const struct cm_cost_job *job)
{
    struct cm_memory_cost memory;
    cm_memory_cost(job, &memory);
    return memory.total + RESERVED_BYTES <= q->cluster.spec->memory;
}

static enum cm_status check_memory(struct cm_question *q)
{
    cm_memory_cost(&q->job, &q->memory);
    double limit = q->cluster.spec->memory;
    if (cm_question_fits(q, &q->job))
        return CM_OK;
    return cm_error(
        CM_USAGE,
        "%s does not fit: %.1f GB on the fullest GPU (weights %.1f, gradients %.1f, "
        "optimizer %.1f, activations %.1f, logits %.1f) and %.0f reserved; %s has %.0f. "
        "Raise tp, pp or recompute",
        q->model.name, q->memory.total / 1e9, q->memory.weights / 1e9, q->memory.gradients / 1e9,
        q->memory.optimizer / 1e9, q->memory.activations / 1e9, q->memory.logits / 1e9,
        RESERVED_BYTES / 1e9, q->cluster.spec->name, limit / 1e9);
}

static enum cm_status measure(struct cm_question *q)
{
    const struct cm_project_options *options = q->options;
    if (options->result_count == 0)
        return CM_OK;
    enum cm_status status = cm_measured_load(options->results, options->result_count, &q->catalogue,
                                             options->model, &q->measured);
    if (status == CM_OK && q->measured.spec != q->cluster.spec)
        status = cm_error(CM_USAGE, "the results are of a %s; cluster %s has %s",
                          q->measured.spec->name, q->cluster.name, q->cluster.spec->name);
    if (status == CM_OK)
        cm_measured_apply(&q->measured, &q->calibration);
    return status;
}

static enum cm_status search_plan(struct cm_question *q)
{
    struct cm_found_plan found;
    char text[120];
    struct cm_search search = {.model = &q->model,
                               .base = q->job,
                               .value = q->calibration.value,
                               .gpus = q->options->gpus,
                               .batch = q->options->batch,
                               .memory = q->cluster.spec->memory - RESERVED_BYTES};
    if (search.batch == 0) {
        search.batch = (uint64_t)fmax(1, BATCH_TOKENS / (double)q->model.sequence);
        snprintf(text, sizeof text, "batch %" PRIu64 " sequences: 16 Mi tokens", search.batch);
        assume(q, text);
    }
    enum cm_status status = cm_plan_search(&search, &found);
    if (status != CM_OK)
        return status;
    snprintf(text, sizeof text, "the quickest of %" PRIu64 " plans, of which %" PRIu64 " fit",
             found.tried, found.fitting);
    assume(q, text);
    q->plan = found.plan;
    q->batch = search.batch;
    q->micro_batch = found.micro_batch;
    q->job.recompute = found.recompute;
    return CM_OK;
}

static enum cm_status choose_plan(struct cm_question *q)
{
    if (q->options->search)
        return search_plan(q);
    q->micro_batch = q->options->micro_batch;
    enum cm_status status = complete_plan(q);
    return status == CM_OK ? choose_batch(q) : status;
}

/* The cluster, and what it says where nothing is asked. A job of it takes the place of all. */
static enum cm_status choose_cluster(struct cm_question *q)
{
    struct cm_project_options *asked = &q->asked;
    const struct cm_cluster *cluster = &q->cluster;
    enum cm_status status =
        cm_cluster_load(asked->cluster, asked->sets, asked->set_count, &q->catalogue, &q->cluster);
    if (status != CM_OK)
        return status;
    if (asked->model == NULL && cluster->model[0] == '\0')
        return cm_error(CM_USAGE, "cluster %s has no model of its own; give --model",
                        cluster->name);
    if (asked->model == NULL)
        asked->model = cluster->model;
    if (asked->gpus == 0 && cluster->sizes[0] == '\0')
        return cm_error(CM_USAGE, "cluster %s has no sizes of its own; give --gpus", cluster->name);
    if (cluster->gpus > 0 && asked->gpus > cluster->gpus)
        return cm_error(CM_USAGE, "--gpus: cluster %s has %" PRIu64, cluster->name, cluster->gpus);
    q->size = asked->gpus;
    if (cluster->job_gpus > 0) {
        asked->search = asked->search || asked->plan == NULL;
        if (asked->gpus == 0 || asked->gpus > cluster->job_gpus)
            asked->gpus = cluster->job_gpus;
    }
    if (asked->plan == NULL)
        asked->plan = "tp=1";
    return CM_OK;
}

static enum cm_status build(struct cm_question *q)
{
    struct cm_cost_job chosen;
    enum cm_status status = choose_cluster(q);
    if (status == CM_OK)
        status = cm_transformer_load(q->asked.model, 0, &q->model);
    if (status != CM_OK)
        return status;
    q->job.gpu = q->cluster.spec;
    q->job.network_rate = q->cluster.network_rate;
    q->job.domain = (double)q->cluster.domain;
    q->job.host_spread = q->cluster.host_spread;
    q->job.slow_by = q->cluster.slow_by;
    q->job.slow_share = q->cluster.slow_share;
    status = choose_types(q);
    if (status == CM_OK)
        status = measure(q);
    if (status == CM_OK)
        status = choose_plan(q);
    if (status != CM_OK)
        return status;
    chosen = q->job;
    cm_cost_job_from(&q->model, &q->plan, q->cluster.spec, &q->job);
    q->job.micro_batch = (double)q->micro_batch;
    q->job.micro_batches = (double)q->batch / q->plan.dp / q->job.micro_batch;
    q->job.network_rate = chosen.network_rate;
    q->job.domain = chosen.domain;
    q->job.host_spread = chosen.host_spread;
    q->job.slow_by = chosen.slow_by;
    q->job.slow_share = chosen.slow_share;
    q->job.precision = chosen.precision;
    q->job.recompute = chosen.recompute;
    return check_memory(q);
}

/* The fewest replicas that someone would measure before: a sixteenth, as the longest published
 * series span; with messages between nodes where the job has them, or a line through two such runs
 * takes a change of links for one of work; and room for the experts' groups. */
static double small_replicas(const struct cm_cost_job *job)
{
    double replica = job->tp * job->cp * job->pp;
    double domain = job->domain > 0 ? job->domain : (double)job->gpu->domain;
    double least = fmax(ceil(job->dp / RULES_REACH), ceil(job->ep / job->cp));
    if (job->dp * replica > domain)
        least = fmax(least, floor(domain / replica) + 1);
    return least;
}

/* What the simple rules would make of two small runs, of the model's own: of so many and twice as
 * many replicas, or where there are no more, of two batches. None for a job as small as those. */
static enum cm_status compare_rules(const struct cm_question *q, const struct cm_cost_job *job,
                                    bool same_batch, struct cm_baselines *baselines)
{
    struct cm_cost_job small[2];
    struct cm_anchors anchors = {.jobs = NULL};
    enum cm_status status = CM_OK;
    double least = small_replicas(job);
    memset(baselines, 0, sizeof *baselines);
    for (int i = 0; status == CM_OK && i < 2 && least < job->dp; i++) {
        struct cm_step_cost cost;
        bool more = same_batch && 2 * least < job->dp;
        small[i] = *job;
        small[i].dp = i == 1 && more ? 2 * least : least;
        if (same_batch)
            small[i].micro_batches = job->micro_batches * job->dp / small[i].dp;
        if (i == 1 && !more)
            small[i].micro_batches *= 2;
        cm_step_cost(&small[i], q->calibration.value, &cost);
        status = cm_anchors_add(&anchors, &small[i], cost.step);
    }
    if (status == CM_OK)
        cm_simple_rules(job, &anchors, baselines);
    cm_anchors_release(&anchors);
    return status;
}

static void tell_measured(struct cm_question *q)
{
    const struct cm_measured *m = &q->measured;
    char text[240];
    double half = m->products[CM_PRECISION_HALF];
    if (q->options->result_count == 0) {
        assume(q, "rates from the catalogue and from published runs, not from this machine");
        return;
    }
    snprintf(text, sizeof text,
             "measured on %s: products of half %.0f TFLOP/s, memory %.0f GB/s, all-reduce %.0f "
             "GB/s, %zu training steps; 0: not measured, from the catalogue",
             m->device, half / 1e12, m->memory_rate / 1e9, m->all_reduce / 1e9, m->step_count);
    assume(q, text);
}

enum cm_status cm_question_predict(const struct cm_question *q, const struct cm_cost_job *job,
                                   bool same_batch, struct cm_prediction *prediction)
{
    struct cm_anchors anchors = {.jobs = NULL};
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < q->measured.step_count; i++)
        if (job->precision == CM_PRECISION_HALF)
            status = cm_anchors_add(&anchors, &q->measured.steps[i], q->measured.steps_s[i]);
    if (status == CM_OK)
        cm_predict(job, &q->calibration, q->assumed, &anchors, prediction);
    cm_anchors_release(&anchors);
    return status == CM_OK ? compare_rules(q, job, same_batch, &prediction->baselines) : status;
}

static void tell_assumptions(struct cm_question *q)
{
    if (q->model.experts > 0)
        assume(q, "experts: what software makes of a mixture differs by far more than else");
    tell_measured(q);
    assume(q, "software as Megatron-Core's of mid-2025: fused attention, communication beside "
              "compute");
}

enum cm_status cm_question_open(const struct cm_project_options *options, struct cm_question *q)
{
    memset(q, 0, sizeof *q);
    q->asked = *options;
    q->options = &q->asked;
    q->assumptions = json_array();
    enum cm_status status = q->assumptions != NULL ? cm_gpu_catalogue_load(&q->catalogue)
                                                   : cm_error(CM_NO_MEMORY, "project");
    if (status == CM_OK)
        status = cm_calibration_load(options->calibration, &q->calibration);
    if (status == CM_OK)
        status = build(q);
    if (status == CM_OK)
        tell_assumptions(q);
    if (status == CM_OK)
        status = q->noted;
    if (status != CM_OK)
        cm_question_close(q);
    return status;
}

void cm_question_close(struct cm_question *q)
{
    json_decref(q->assumptions);
    cm_measured_release(&q->measured);
    cm_gpu_catalogue_release(&q->catalogue);
    memset(q, 0, sizeof *q);
}
