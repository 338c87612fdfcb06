/* Rows predicted and held against what was measured. */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/project/document.h"
#include "host/project/fit.h"
#include "host/project/predict.h"

const char *const cm_leave_out_names[] = {"none", "release", "family", "half", NULL};

/* A cluster begins at this many GPUs for the summary's bar. */
#define MANY_GPUS 64

struct scored {
    struct cm_prediction prediction;
    double measured_s; /* 0: there is none */
};
struct validation {
    const struct cm_validate_options *options;
    struct cm_gpu_catalogue catalogue;
    struct cm_run_table runs, anchor_runs;
    struct cm_calibration calibration;
    struct scored *scored;
};

/* ---- predictions ---- */

static const char *left_out(const struct cm_run_row *row, int leave_out)
{
    return leave_out == CM_LEAVE_HALF     ? row->half
           : leave_out == CM_LEAVE_FAMILY ? row->family
                                          : row->release;
}

struct others {
    const char *name;
    int leave_out;
};

static bool is_other(const struct cm_run_row *row, const void *context)
{
    const struct others *others = context;
    return strcmp(left_out(row, others->leave_out), others->name) != 0;
}

/* Columns of measured values are not looked at here, but for anchors' and, with leave_out, other
 * sources' rows. */
static enum cm_status predict_row(struct validation *v, size_t i,
                                  const struct cm_calibration *calibration)
{
    const struct cm_run_row *row = &v->runs.rows[i];
    struct cm_anchors anchors = {.jobs = NULL};
    enum cm_status status = CM_OK;
    if (row->reason[0] != '\0')
        return CM_OK;
    if (v->options->anchors != NULL)
        status = cm_anchors_find(&v->anchor_runs, &v->runs, row, &anchors);
    if (status == CM_OK)
        cm_predict(&row->job, calibration, row->assumed, &anchors, &v->scored[i].prediction);
    cm_anchors_release(&anchors);
    return status;
}

static bool is_first_of_group(const struct validation *v, size_t i)
{
    int by = v->options->leave_out;
    for (size_t k = 0; k < i; k++)
        if (strcmp(left_out(&v->runs.rows[k], by), left_out(&v->runs.rows[i], by)) == 0)
            return false;
    return true;
}

static enum cm_status predict_without(struct validation *v, size_t first)
{
    struct cm_calibration calibration;
    int by = v->options->leave_out;
    struct others others = {.name = left_out(&v->runs.rows[first], by), .leave_out = by};
    enum cm_status status = cm_run_table_fit(&v->runs, is_other, &others, &calibration);
    for (size_t i = first; status == CM_OK && i < v->runs.count; i++)
        if (!is_other(&v->runs.rows[i], &others))
            status = predict_row(v, i, &calibration);
    return status;
}

static enum cm_status predict_all(struct validation *v)
{
    enum cm_status status = CM_OK;
    if (v->options->leave_out == CM_LEAVE_NONE) {
        status = cm_calibration_load(v->options->calibration, &v->calibration);
        for (size_t i = 0; status == CM_OK && i < v->runs.count; i++)
            status = predict_row(v, i, &v->calibration);
        return status;
    }
    for (size_t i = 0; status == CM_OK && i < v->runs.count; i++)
        if (is_first_of_group(v, i))
            status = predict_without(v, i);
    return status;
}

/* ---- scores ---- */

struct tally {
    struct cm_samples errors;
    size_t rows, predicted, inside;
    size_t wins[3], contests[3];
    double rule_errors[3], own_errors[3];
};
static const char *const rule_names[] = {"null", "bubble_only", "two_anchor"};

static enum cm_status tally_row(const struct scored *scored, struct tally *tally)
{
    const struct cm_prediction *p = &scored->prediction;
    const double rules[] = {p->baselines.null_s, p->baselines.bubble_s, p->baselines.two_anchor_s};
    tally->rows++;
    if (!(p->step_s > 0))
        return CM_OK;
    tally->predicted++;
    if (!(scored->measured_s > 0))
        return CM_OK;
    double error = fabs(p->step_s / scored->measured_s - 1);
    tally->inside += scored->measured_s >= p->p10_s && scored->measured_s <= p->p90_s;
    for (int i = 0; i < 3; i++) {
        double other = fabs(rules[i] / scored->measured_s - 1);
        if (rules[i] <= 0)
            continue;
        tally->contests[i]++;
        tally->wins[i] += error < other;
        tally->rule_errors[i] += other;
        tally->own_errors[i] += error;
    }
    return cm_samples_add(&tally->errors, error);
}

static json_t *write_tally(enum cm_status *status, const char *name, const struct tally *tally)
{
    const struct cm_samples *errors = &tally->errors;
    double sum = 0, worst = 0;
    json_t *entry = json_object(), *wins = json_object();
    for (size_t i = 0; i < errors->count; i++) {
        sum += errors->values[i];
        worst = fmax(worst, errors->values[i]);
    }
    double count = (double)errors->count;
    cm_document_set(status, entry, "name", json_string(name));
    cm_document_set(status, entry, "rows", json_integer((json_int_t)tally->rows));
    cm_document_set(status, entry, "predicted", json_integer((json_int_t)tally->predicted));
    cm_document_set(status, entry, "scored", json_integer((json_int_t)errors->count));
    cm_document_set(status, entry, "mape", cm_json_real(sum / count));
    cm_document_set(status, entry, "p90",
                    cm_json_real(errors->count > 0 ? cm_quantile(errors->values, errors->count, 0.9)
                                                   : (double)NAN));
    cm_document_set(status, entry, "worst", cm_json_real(errors->count > 0 ? worst : (double)NAN));
    cm_document_set(status, entry, "coverage", cm_json_real((double)tally->inside / count));
    for (int i = 0; i < 3; i++) {
        json_t *rule = json_object();
        double contests = (double)tally->contests[i];
        cm_document_set(status, rule, "rows", json_integer((json_int_t)tally->contests[i]));
        cm_document_set(status, rule, "win_rate", cm_json_real((double)tally->wins[i] / contests));
        cm_document_set(status, rule, "mape", cm_json_real(tally->rule_errors[i] / contests));
        cm_document_set(status, rule, "own_mape", cm_json_real(tally->own_errors[i] / contests));
        cm_document_set(status, wins, rule_names[i], rule);
    }
    cm_document_set(status, entry, "against", wins);
    return entry;
}

typedef bool (*row_test)(const struct cm_run_row *row, const void *context);

static enum cm_status score(const struct validation *v, const char *name, row_test test,
                            const void *context, json_t *into)
{
    struct tally tally = {.rows = 0};
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < v->runs.count; i++)
        if (test(&v->runs.rows[i], context))
            status = tally_row(&v->scored[i], &tally);
    if (status == CM_OK) {
        json_t *entry = write_tally(&status, name, &tally);
        cm_document_append(&status, into, entry);
    }
    cm_samples_release(&tally.errors);
    return status;
}

static bool is_any(const struct cm_run_row *row, const void *context)
{
    (void)row;
    (void)context;
    return true;
}

static bool is_large(const struct cm_run_row *row, const void *context)
{
    (void)context;
    return cm_run_specified(row) && cm_cost_gpus(&row->job) >= MANY_GPUS;
}

static bool is_large_dense(const struct cm_run_row *row, const void *context)
{
    return is_large(row, context) && !row->mixture;
}

static bool is_large_mixture(const struct cm_run_row *row, const void *context)
{
    return is_large(row, context) && row->mixture;
}

static bool is_release(const struct cm_run_row *row, const void *context)
{
    return strcmp(row->release, context) == 0;
}

static enum cm_status summarise(const struct validation *v, json_t *document)
{
    json_t *summary = json_array();
    enum cm_status status = cm_json_set(document, "summary", summary);
    if (status == CM_OK)
        status = score(v, "all", is_any, NULL, summary);
    if (status == CM_OK)
        status = score(v, "fully specified, 64 GPUs or more", is_large, NULL, summary);
    if (status == CM_OK)
        status = score(v, "  dense", is_large_dense, NULL, summary);
    if (status == CM_OK)
        status = score(v, "  mixtures of experts", is_large_mixture, NULL, summary);
    for (size_t i = 0; status == CM_OK && i < v->runs.count; i++) {
        const char *release = v->runs.rows[i].release;
        size_t before = 0;
        while (before < i && strcmp(v->runs.rows[before].release, release) != 0)
            before++;
        if (before == i)
            status = score(v, release, is_release, release, summary);
    }
    return status;
}

/* ---- the document ---- */

static enum cm_status write_row(const struct validation *v, size_t i, json_t *rows)
{
    const struct cm_run_row *row = &v->runs.rows[i];
    const struct scored *scored = &v->scored[i];
    const struct cm_prediction *p = &scored->prediction;
    enum cm_status status = CM_OK;
    json_t *entry = json_object();
    cm_document_set(&status, entry, "line", json_integer((json_int_t)row->line));
    cm_document_set(&status, entry, "source", json_string(row->source));
    cm_document_set(&status, entry, "model", json_string(row->model));
    if (row->reason[0] != '\0') {
        cm_document_set(&status, entry, "reason", json_string(row->reason));
        cm_document_append(&status, rows, entry);
        return status;
    }
    const double rules[] = {p->baselines.null_s, p->baselines.bubble_s, p->baselines.two_anchor_s};
    cm_document_set(&status, entry, "gpus", json_integer((json_int_t)cm_cost_gpus(&row->job)));
    cm_document_set(&status, entry, "step_time_s", cm_json_real(p->step_s));
    cm_document_set(&status, entry, "p10_s", cm_json_real(p->p10_s));
    cm_document_set(&status, entry, "p90_s", cm_json_real(p->p90_s));
    cm_document_set(&status, entry, "measured_s",
                    cm_json_real(scored->measured_s > 0 ? scored->measured_s : (double)NAN));
    if (cm_run_check_measured(&v->runs, row) != CM_OK) {
        cm_document_set(&status, entry, "not_scored", json_string(cm_error_text()));
        cm_error_clear();
    }
    if (row->assumptions[0] != '\0')
        cm_document_set(&status, entry, "assumed", json_string(row->assumptions));
    cm_document_set(&status, entry, "anchors", json_integer((json_int_t)p->anchors));
    for (int k = 0; k < 3; k++)
        if (rules[k] > 0)
            cm_document_set(&status, entry, rule_names[k], cm_json_real(rules[k]));
    cm_document_append(&status, rows, entry);
    return status;
}

static enum cm_status write_document(const struct validation *v, json_t *document)
{
    json_t *rows = json_array();
    enum cm_status status = CM_OK;
    const char *anchors = v->options->anchors;
    cm_document_set(&status, document, "schema", json_string("clustermark.project-validate"));
    cm_document_set(&status, document, "runs", json_string(v->options->runs));
    cm_document_set(&status, document, "anchors",
                    anchors != NULL ? json_string(anchors) : json_null());
    cm_document_set(&status, document, "leave_out",
                    json_string(cm_leave_out_names[v->options->leave_out]));
    cm_document_set(&status, document, "rows", rows);
    for (size_t i = 0; status == CM_OK && i < v->runs.count; i++)
        status = write_row(v, i, rows);
    return status == CM_OK ? summarise(v, document) : status;
}

static enum cm_status validate(struct validation *v, json_t *document)
{
    enum cm_status status = cm_gpu_catalogue_load(&v->catalogue);
    if (status == CM_OK)
        status = cm_run_table_load(v->options->runs, &v->catalogue, &v->runs);
    if (status == CM_OK && v->options->anchors != NULL)
        status = cm_run_table_load(v->options->anchors, &v->catalogue, &v->anchor_runs);
    if (status == CM_OK && v->options->anchors != NULL)
        status = cm_run_table_check_measured(&v->anchor_runs);
    if (status == CM_OK && v->runs.count == 0)
        status = cm_error(CM_USAGE, "%s: no row below the names of the columns", v->options->runs);
    if (status == CM_OK) {
        v->scored = cm_alloc(v->runs.count, sizeof *v->scored);
        if (v->scored == NULL)
            status = CM_NO_MEMORY;
    }
    if (status == CM_OK)
        status = predict_all(v);
    for (size_t i = 0; status == CM_OK && i < v->runs.count; i++)
        v->scored[i].measured_s = cm_run_measured(&v->runs, &v->runs.rows[i]);
    return status == CM_OK ? write_document(v, document) : status;
}

enum cm_status cm_project_validate(const struct cm_validate_options *options, json_t **document)
{
    struct validation v = {.options = options};
    json_t *made = json_object();
    enum cm_status status = made != NULL ? validate(&v, made) : cm_error(CM_NO_MEMORY, "validate");
    cm_free(v.scored);
    cm_run_table_release(&v.runs);
    cm_run_table_release(&v.anchor_runs);
    cm_gpu_catalogue_release(&v.catalogue);
    if (status == CM_OK)
        *document = made;
    else
        json_decref(made);
    return status;
}
