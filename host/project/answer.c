/* One plan on a cluster, answered. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "host/project/document.h"
#include "host/project/outlook.h"
#include "host/project/question.h"
#include "host/project/sweep.h"

static void put_rate(enum cm_status *status, json_t *document, const char *name, double per_step,
                     const struct cm_prediction *p, const char *unit)
{
    cm_document_set(status, document, name,
                    cm_document_figure(status, per_step / p->step_s, per_step / p->p90_s,
                                       per_step / p->p10_s, unit));
}

static void put_breakdown(enum cm_status *status, const struct cm_step_cost *cost, json_t *document)
{
    const struct {
        const char *name;
        double seconds;
    } parts[] = {{"gemm", cost->gemm},
                 {"attention", cost->attention},
                 {"elementwise", cost->elementwise},
                 {"cast", cost->cast},
                 {"head", cost->head},
                 {"host", cost->host},
                 {"tensor", cost->tensor},
                 {"context", cost->context},
                 {"expert", cost->expert},
                 {"overlap", cost->overlap},
                 {"stages", cost->stages},
                 {"shards", cost->shards},
                 {"imbalance", cost->imbalance},
                 {"bubble", cost->bubble},
                 {"data", cost->data},
                 {"optimizer", cost->optimizer},
                 {"fixed", cost->fixed},
                 {"straggler", cost->straggler}};
    json_t *breakdown = json_object();
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cm_document_set(status, breakdown, parts[i].name, cm_json_real(parts[i].seconds));
    cm_document_set(status, document, "breakdown", breakdown);
}

static void put_memory(enum cm_status *status, const struct cm_memory_cost *memory,
                       json_t *document)
{
    json_t *entry = cm_document_figure(status, memory->total, memory->total, memory->total, "B");
    cm_document_set(status, entry, "weights", cm_json_real(memory->weights));
    cm_document_set(status, entry, "gradients", cm_json_real(memory->gradients));
    cm_document_set(status, entry, "optimizer", cm_json_real(memory->optimizer));
    cm_document_set(status, entry, "activations", cm_json_real(memory->activations));
    cm_document_set(status, entry, "logits", cm_json_real(memory->logits));
    cm_document_set(status, document, "memory", entry);
}

static double peak_of(const struct cm_question *q)
{
    const struct cm_gpu_spec *gpu = q->cluster.spec;
    return q->job.precision == CM_PRECISION_HALF    ? gpu->half
           : q->job.precision == CM_PRECISION_NVFP4 ? gpu->fp4
                                                    : gpu->fp8;
}

static void put_plan(enum cm_status *status, const struct cm_question *q, json_t *document)
{
    struct cm_str plan = CM_STR_INIT;
    cm_parallel_write(&q->plan, &plan);
    if (*status == CM_OK)
        *status = cm_str_status(&plan);
    json_t *entry = json_object();
    cm_document_set(status, entry, "plan", json_string(cm_str_text(&plan)));
    cm_document_set(status, entry, "gpus", json_integer((json_int_t)q->options->gpus));
    cm_document_set(status, entry, "batch", json_integer((json_int_t)q->batch));
    cm_document_set(status, entry, "micro_batch", json_integer((json_int_t)q->micro_batch));
    cm_document_set(status, entry, "micro_batches", cm_json_real(q->job.micro_batches));
    cm_document_set(status, entry, "precision", json_string(cm_precision_names[q->job.precision]));
    cm_document_set(status, entry, "recompute", json_string(cm_recompute_names[q->job.recompute]));
    cm_str_release(&plan);
    cm_document_set(status, document, "plan", entry);
}

static json_t *rule(double seconds)
{
    return cm_json_real(seconds > 0 ? seconds : (double)NAN);
}

/* What simple rules say, and which runs they go by; null: nothing. */
static void put_rules(enum cm_status *status, const struct cm_baselines *said, json_t *document)
{
    char from[120];
    json_t *rules = json_object();
    cm_document_set(status, rules, "null", rule(said->null_s));
    cm_document_set(status, rules, "bubble_only", rule(said->bubble_s));
    cm_document_set(status, rules, "two_anchor", rule(said->two_anchor_s));
    cm_document_set(status, document, "baselines", rules);
    if (!(said->gpus[0] > 0))
        snprintf(from, sizeof from, "none: no smaller run of this plan has the same links");
    else if (!(said->gpus[1] > 0))
        snprintf(from, sizeof from, "the model's own step on %.0f GPUs", said->gpus[0]);
    else if (said->gpus[1] > said->gpus[0])
        snprintf(from, sizeof from, "the model's own steps on %.0f and %.0f GPUs", said->gpus[0],
                 said->gpus[1]);
    else
        snprintf(from, sizeof from, "the model's own steps on %.0f GPUs, of two batches",
                 said->gpus[0]);
    cm_document_set(status, document, "baselines_from", json_string(from));
}

static enum cm_status write_document(const struct cm_question *q, const struct cm_prediction *p,
                                     json_t *document)
{
    enum cm_status status = CM_OK;
    struct cm_token_flops flops;
    char label[120];
    double tokens = (double)q->batch * (double)q->model.sequence;
    double peaks = peak_of(q) * (double)q->options->gpus;
    cm_transformer_flops(&q->model, &flops);
    cm_transformer_label(&q->model, label, sizeof label);
    cm_document_set(&status, document, "schema", json_string("clustermark.project"));
    cm_document_set(&status, document, "model", json_string(label));
    cm_document_set(&status, document, "cluster", json_string(q->cluster.name));
    cm_document_set(&status, document, "gpu", json_string(q->cluster.spec->name));
    cm_document_set(&status, document, "step_time_s",
                    cm_document_figure(&status, p->step_s, p->p10_s, p->p90_s, "s"));
    put_rate(&status, document, "tokens_per_s", tokens, p, "tokens/s");
    put_rate(&status, document, "mfu_full", flops.full * tokens / peaks, p, "1");
    put_rate(&status, document, "mfu_causal", flops.causal * tokens / peaks, p, "1");
    cm_document_set(&status, document, "peak", cm_json_real(peak_of(q)));
    put_memory(&status, &q->memory, document);
    put_breakdown(&status, &p->cost, document);
    put_rules(&status, &p->baselines, document);
    json_incref(q->assumptions);
    cm_document_set(&status, document, "assumptions", q->assumptions);
    put_plan(&status, q, document);
    return status;
}

/* The same prediction with the executed schedule's step in the place of the closed form's: interval
 * and what anchors say move along. */
static enum cm_status execute(struct cm_question *q, struct cm_prediction *p)
{
    struct cm_step step;
    struct cm_step_cost cost;
    uint64_t operations;
    char text[160];
    cm_cost_step(&q->model, &q->plan, &q->job, &step);
    enum cm_status status =
        cm_cost_execute(&step, &q->job, q->calibration.value, &cost, &operations);
    if (status != CM_OK)
        return status;
    double ratio = cost.step / p->cost.step;
    snprintf(text, sizeof text,
             "%" PRIu64 " operations of %u stages executed on a virtual clock; the closed form "
             "says %.3g s",
             operations, q->plan.pp, p->cost.step);
    p->cost = cost;
    p->step_s *= ratio;
    p->p10_s *= ratio;
    p->p90_s *= ratio;
    cm_document_append(&q->noted, q->assumptions, json_string(text));
    return q->noted;
}

enum cm_status cm_project_answer(const struct cm_project_options *options, json_t **document)
{
    struct cm_question q;
    struct cm_prediction prediction;
    enum cm_status status = cm_question_open(options, &q);
    if (status != CM_OK)
        return status;
    json_t *made = json_object();
    status = cm_question_predict(&q, &q.job, true, &prediction);
    if (status == CM_OK && options->execute)
        status = execute(&q, &prediction);
    if (status == CM_OK)
        status = write_document(&q, &prediction, made);
    if (status == CM_OK)
        status = cm_outlook_write(&q, made);
    if (status == CM_OK && options->sweep != NULL)
        status = cm_sweep_write(&q, made);
    if (status == CM_OK)
        *document = made;
    else
        json_decref(made);
    cm_question_close(&q);
    return status;
}
