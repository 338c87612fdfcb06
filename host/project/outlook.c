/* A cluster under failures, for each of its sizes and ways to share it out. */
#include "host/project/outlook.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/energy_cost.h"
#include "clustermark/error.h"
#include "clustermark/goodput.h"
#include "clustermark/json.h"
#include "host/project/document.h"

#define DRAWS     1000
#define SEED      UINT64_C(1)
#define PLAYED    20000 /* failures of the check by events */
#define DAY_S     86400.0
#define DAY_HOURS 24.0
#define MILLION   1e6
#define MEBI      1048576.0

/* Of jobs that share a cluster: about what MegaScale (2402.15627) and Llama 3 (2407.21783) had, and
 * twice that. */
#define JOB_SIZES 3
static const double job_sizes[JOB_SIZES] = {8192, 16384, 32768};

/* A way to use a cluster. */
struct scenario {
    double gpus; /* of the cluster */
    double jobs;
    bool replicas; /* recover one by one */
    struct cm_cost_job job;
    struct cm_prediction step;
};

enum figure { GOODPUT, STILL, TOKENS, RUN, ENERGY, COST, POWER, PRICE, FIGURE_COUNT };
static const struct {
    const char *name, *unit;
} figures[FIGURE_COUNT] = {
    [GOODPUT] = {"goodput", "1"},
    [STILL] = {"still_hours_per_day", "h"},
    [TOKENS] = {"tokens_per_day", "tokens"},
    [RUN] = {"run_days", "d"},
    [ENERGY] = {"energy", "J/token"},
    [COST] = {"cost", "USD/1e6 tokens"},
    [POWER] = {"power", "W"},
    [PRICE] = {"price", "USD/GPU-hour"},
};

static double watts_of_gpu(const struct cm_question *q, const char **from)
{
    const struct cm_measured *m = &q->measured;
    *from = m->step_w > 0 ? "measured in training steps" : "measured in products";
    if (m->step_w > 0 || m->product_w > 0)
        return m->step_w > 0 ? m->step_w : m->product_w;
    *from = q->cluster.spec->source;
    return q->cluster.spec->power;
}

static double price_of(const struct cm_cluster *cluster, double gpus, double price)
{
    struct cm_deal deal = {.usd = cluster->deal_usd,
                           .years = cluster->deal_years,
                           .delay_months = cluster->delay_months,
                           .gpus = gpus};
    if (price > 0)
        return price;
    return cluster->deal_usd > 0 ? cm_deal_usd_per_gpu_hour(&deal) : (double)NAN;
}

static struct cm_failing_job failing(const struct scenario *s, const double *assumed)
{
    double gpus = cm_cost_gpus(&s->job);
    struct cm_failing_job job = {.mtbf_s = cm_job_mtbf_s(assumed[CM_ASSUME_mtbf_gpu_days], gpus),
                                 .restart_s = assumed[CM_ASSUME_restart_s],
                                 .checkpoint_s = assumed[CM_ASSUME_checkpoint_s],
                                 .stall_s = assumed[CM_ASSUME_stall_s]};
    if (s->replicas)
        job.replicas = gpus / assumed[CM_ASSUME_replica_gpus];
    return job;
}

static void work_out(const struct cm_question *q, const struct scenario *s, const double *assumed,
                     double step_s, double *value)
{
    const char *from;
    struct cm_goodput goodput;
    struct cm_failing_job job = failing(s, assumed);
    struct cm_watts watts = {.gpu_w = watts_of_gpu(q, &from),
                             .node_ratio = assumed[CM_ASSUME_node_ratio],
                             .network_ratio = assumed[CM_ASSUME_network_ratio],
                             .pue = assumed[CM_ASSUME_pue]};
    double out = cm_gpus_out(s->gpus, assumed[CM_ASSUME_mtbf_gpu_days],
                             assumed[CM_ASSUME_blast_gpus], assumed[CM_ASSUME_repair_hours]);
    double used = s->jobs * cm_cost_gpus(&s->job), there = fmin(1, (s->gpus - out) / used);
    double tokens = s->job.dp * s->job.micro_batches * s->job.micro_batch * s->job.sequence;
    cm_goodput(&job, &goodput);
    double useful = goodput.effective * there * tokens / step_s; /* per second and job */
    value[GOODPUT] = goodput.effective * there;
    value[STILL] = DAY_HOURS * (1 - value[GOODPUT]);
    value[TOKENS] = s->jobs * useful * DAY_S;
    value[RUN] = q->cluster.run_tokens > 0 ? q->cluster.run_tokens / (useful * DAY_S) : (double)NAN;
    value[POWER] = cm_watts_site(&watts) * s->gpus;
    value[ENERGY] = cm_token_j(cm_watts_site(&watts), s->gpus, s->jobs * useful);
    value[PRICE] = price_of(&q->cluster, s->gpus, assumed[CM_ASSUME_price]);
    value[COST] = MILLION * cm_token_usd(value[PRICE], s->gpus, s->jobs * useful);
}

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every figure with what is left of it when assumptions and step are other ones. */
static void put_figures(enum cm_status *status, const struct cm_question *q,
                        const struct scenario *s, json_t *entry)
{
    double drawn[FIGURE_COUNT][DRAWS];
    double assumed[CM_ASSUME_COUNT], value[FIGURE_COUNT];
    const struct cm_assumption *assumptions = q->cluster.assumptions;
    uint64_t seed = SEED;
    for (int n = 0; n < DRAWS; n++) {
        for (int i = 0; i < CM_ASSUME_COUNT; i++)
            assumed[i] = cm_assumption_at(&assumptions[i], cm_draw_normal(&seed));
        assumed[CM_ASSUME_pue] = fmax(1, assumed[CM_ASSUME_pue]);
        work_out(q, s, assumed, s->step.step_s * exp(s->step.spread * cm_draw_normal(&seed)),
                 value);
        for (int i = 0; i < FIGURE_COUNT; i++)
            drawn[i][n] = value[i];
    }
    for (int i = 0; i < CM_ASSUME_COUNT; i++)
        assumed[i] = assumptions[i].value;
    work_out(q, s, assumed, s->step.step_s, value);
    for (int i = 0; i < FIGURE_COUNT; i++) {
        if (isnan(value[i]))
            continue;
        qsort(drawn[i], DRAWS, sizeof *drawn[i], compare_numbers);
        cm_document_set(status, entry, figures[i].name,
                        cm_document_figure(status, value[i], drawn[i][DRAWS / 10],
                                           drawn[i][DRAWS - DRAWS / 10], figures[i].unit));
    }
}

static enum cm_status put_shares(const struct cm_question *q, const struct scenario *s,
                                 json_t *entry)
{
    double assumed[CM_ASSUME_COUNT], played = 0, error = 0;
    struct cm_goodput goodput;
    for (int i = 0; i < CM_ASSUME_COUNT; i++)
        assumed[i] = q->cluster.assumptions[i].value;
    struct cm_failing_job job = failing(s, assumed);
    cm_goodput(&job, &goodput);
    enum cm_status status = cm_goodput_simulate(&job, PLAYED, SEED, &played, &error);
    const struct {
        const char *name;
        double value;
    } shares[] = {{"effective", goodput.effective}, {"stalled", goodput.stalled},
                  {"lost", goodput.lost},           {"checkpoint", goodput.checkpoint},
                  {"away", goodput.away},           {"effective_simulated", played}};
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++)
        cm_document_set(&status, object, shares[i].name, cm_json_real(shares[i].value));
    cm_document_set(&status, entry, "shares", object);
    cm_document_set(&status, entry, "between_failures_s", cm_json_real(job.mtbf_s));
    if (goodput.interval_s > 0)
        cm_document_set(&status, entry, "between_checkpoints_s", cm_json_real(goodput.interval_s));
    return status;
}

static enum cm_status add_scenario(const struct cm_question *q, const struct scenario *s,
                                   json_t *scenarios)
{
    json_t *entry = json_object();
    double sequences = s->job.dp * s->job.micro_batches * s->job.micro_batch;
    enum cm_status status = put_shares(q, s, entry);
    cm_document_set(&status, entry, "jobs", cm_json_real(s->jobs));
    cm_document_set(&status, entry, "gpus", cm_json_real(cm_cost_gpus(&s->job)));
    cm_document_set(&status, entry, "recovery",
                    json_string(s->replicas ? "replica" : "synchronous"));
    cm_document_set(&status, entry, "batch_tokens", cm_json_real(sequences * s->job.sequence));
    cm_document_set(&status, entry, "step_time_s",
                    cm_document_figure(&status, s->step.step_s, s->step.p10_s, s->step.p90_s, "s"));
    put_figures(&status, q, s, entry);
    cm_document_append(&status, scenarios, entry);
    return status;
}

/* The question's plan with as many replicas as there is room for; false: with none, or no memory.
 */
static enum cm_status scale(const struct cm_question *q, double gpus, struct scenario *s,
                            bool *possible)
{
    s->job = q->job;
    s->job.dp = floor(gpus / (q->job.tp * q->job.cp * q->job.pp));
    while (s->job.dp > 0 && fmod(s->job.dp * s->job.cp, s->job.ep) != 0)
        s->job.dp--;
    *possible = s->job.dp > 0 && cm_question_fits(q, &s->job);
    return *possible ? cm_question_predict(q, &s->job, false, &s->step) : CM_OK;
}

static enum cm_status add_jobs(const struct cm_question *q, double gpus, json_t *scenarios)
{
    struct scenario s = {.gpus = gpus};
    double jobs_of[JOB_SIZES + 1], before = 0, plan_gpus = (double)q->options->gpus;
    enum cm_status status = CM_OK;
    memcpy(jobs_of, job_sizes, sizeof job_sizes);
    jobs_of[JOB_SIZES] = plan_gpus;
    qsort(jobs_of, JOB_SIZES + 1, sizeof *jobs_of, compare_numbers);
    for (size_t i = 0; status == CM_OK && i <= JOB_SIZES; i++) {
        bool possible = false;
        s.jobs = floor(gpus / jobs_of[i]);
        bool own = jobs_of[i] == plan_gpus && s.jobs >= 1 && gpus > plan_gpus;
        if (jobs_of[i] > before && (s.jobs >= 2 || own))
            status = scale(q, jobs_of[i], &s, &possible);
        if (status == CM_OK && possible)
            status = add_scenario(q, &s, scenarios);
        before = jobs_of[i];
    }
    return status;
}

static enum cm_status add_size(const struct cm_question *q, double gpus, json_t *sizes)
{
    struct scenario s = {.gpus = gpus, .jobs = 1};
    bool possible;
    json_t *entry = json_object(), *scenarios = json_array();
    enum cm_status status = scale(q, gpus, &s, &possible);
    cm_document_set(&status, entry, "gpus", cm_json_real(gpus));
    cm_document_set(&status, entry, "scenarios", scenarios);
    if (status == CM_OK && possible) {
        status = add_scenario(q, &s, scenarios);
        s.replicas = true;
        if (status == CM_OK &&
            cm_cost_gpus(&s.job) >= 2 * q->cluster.assumptions[CM_ASSUME_replica_gpus].value)
            status = add_scenario(q, &s, scenarios);
    }
    if (status == CM_OK)
        status = add_jobs(q, gpus, scenarios);
    for (int i = POWER; i <= PRICE; i++) {
        json_t *figure = json_object_get(json_array_get(scenarios, 0), figures[i].name);
        if (figure != NULL)
            cm_document_set(&status, entry, figures[i].name, json_incref(figure));
    }
    cm_document_append(&status, sizes, entry);
    return status;
}

static enum cm_status put_assumed(const struct cm_question *q, json_t *document)
{
    enum cm_status status = CM_OK;
    const char *from;
    double power_w = watts_of_gpu(q, &from);
    const struct cm_cluster *cluster = &q->cluster;
    json_t *assumed = json_object(),
           *entry = cm_document_figure(&status, power_w, power_w, power_w, "W");
    cm_document_set(&status, entry, "source", json_string(from));
    cm_document_set(&status, assumed, "gpu_power", entry);
    for (int i = 0; i < CM_ASSUME_COUNT; i++) {
        const struct cm_assumption *one = &cluster->assumptions[i];
        if (!(one->value > 0))
            continue;
        entry = cm_document_figure(&status, one->value, one->low, one->high,
                                   cm_assumption_infos[i].unit);
        cm_document_set(&status, entry, "source", json_string(one->source));
        cm_document_set(&status, assumed, cm_assumption_infos[i].name, entry);
    }
    if (cluster->deal_usd > 0 && !(cluster->assumptions[CM_ASSUME_price].value > 0)) {
        entry = json_object();
        cm_document_set(&status, entry, "usd", cm_json_real(cluster->deal_usd));
        cm_document_set(&status, entry, "years", cm_json_real(cluster->deal_years));
        cm_document_set(&status, entry, "delay_months", cm_json_real(cluster->delay_months));
        cm_document_set(&status, entry, "source", json_string(cluster->source));
        cm_document_set(&status, assumed, "deal", entry);
    }
    if (cluster->run_tokens > 0)
        cm_document_set(&status, assumed, "run_tokens", cm_json_real(cluster->run_tokens));
    cm_document_set(&status, document, "assumed", assumed);
    return status;
}

/* Goodput, energy and cost of the plan itself, in the first of the sizes. */
static enum cm_status put_own(const struct cm_question *q, json_t *document)
{
    static const int own[] = {GOODPUT, ENERGY, COST};
    enum cm_status status = CM_OK;
    size_t index;
    json_t *scenario, *first = json_array_get(json_object_get(document, "sizes"), 0);
    json_array_foreach(json_object_get(first, "scenarios"), index, scenario)
    {
        bool replica = strcmp(cm_document_text(scenario, "recovery"), "replica") == 0;
        if (replica || cm_document_number(scenario, "gpus") != (double)q->options->gpus)
            continue;
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
            json_t *figure = json_object_get(scenario, figures[own[i]].name);
            if (figure != NULL)
                cm_document_set(&status, document, figures[own[i]].name, json_incref(figure));
        }
        break;
    }
    return status;
}

/* What no key of the cluster says. */
static enum cm_status tell(const struct cm_question *q, const json_t *document)
{
    char text[200];
    size_t index;
    const json_t *size;
    enum cm_status status = CM_OK;
    double own = (double)q->batch * (double)q->model.sequence;
    json_array_foreach(json_object_get(document, "sizes"), index, size)
    {
        const json_t *one = json_array_get(json_object_get(size, "scenarios"), 0);
        double tokens = cm_document_number(one, "batch_tokens");
        if (tokens <= own * 1.5)
            continue;
        snprintf(
            text, sizeof text,
            "one job of %.0f GPUs has a batch of %.0f Mi tokens, so that a GPU does as much as "
            "in one of %.0f; that training bears it is assumed",
            cm_document_number(one, "gpus"), tokens / MEBI, (double)q->options->gpus);
        cm_document_append(&status, q->assumptions, json_string(text));
    }
    cm_document_append(&status, q->assumptions,
                       json_string("all GPUs draw what working ones do, idle and spare ones too; "
                                   "the price of GPU time is all that a token costs"));
    return status;
}

enum cm_status cm_outlook_write(const struct cm_question *q, json_t *document)
{
    json_t *sizes = json_array();
    const char *at = NULL;
    uint64_t gpus = q->size;
    enum cm_status status = CM_OK;
    cm_document_set(&status, document, "sizes", sizes);
    if (status == CM_OK && gpus == 0)
        status = cm_cluster_next_size(&q->cluster, &at, &gpus);
    while (status == CM_OK && gpus != 0) {
        status = add_size(q, (double)gpus, sizes);
        gpus = 0;
        if (status == CM_OK && q->size == 0)
            status = cm_cluster_next_size(&q->cluster, &at, &gpus);
    }
    if (status == CM_OK)
        status = put_assumed(q, document);
    if (status == CM_OK)
        status = tell(q, document);
    return status == CM_OK ? put_own(q, document) : status;
}
