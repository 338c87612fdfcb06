/* New results against a rolling baseline: the gated metrics, the advisory ones, the outcome. */
#include "host/result/gate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/result/record.h"

#define POWER 0.8

struct gate {
    const struct cm_gate_request *request;
    struct cm_set sets[2]; /* baseline, new */
    struct cm_gate_rules rules;
    struct cm_gate_row rows[CM_GATED_MAX];
    struct cm_differences differences;
    unsigned look, looks;
    double risk; /* of this look */
    json_t *document;
};

enum cm_status cm_gate_load(const struct cm_texts *paths, const char *name, struct cm_set *set)
{
    set->name = cm_strdup(name);
    if (set->name == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_set_add_paths(set, paths->items, paths->count);
    cm_set_trim(set, CM_RUNS_LIMIT);
    return status;
}

enum cm_status cm_gate_check_baseline(const struct cm_set *base)
{
    for (size_t i = 0; i < base->file_count; i++) {
        const char *path = base->files[i].path;
        if (json_object_get(base->files[i].facts, "injected") != NULL)
            return cm_error(CM_NOT_COMPARABLE,
                            "%s was slowed down on purpose (inject); it is no baseline", path);
        if (json_object_get(base->files[i].facts, "simulated") != NULL)
            return cm_error(CM_NOT_COMPARABLE,
                            "%s was simulated: its times mean nothing, and it is no baseline",
                            path);
    }
    return CM_OK;
}

static enum cm_status check_twice(const struct gate *gate)
{
    for (size_t i = 0; i < gate->sets[0].file_count; i++) {
        for (size_t k = 0; k < gate->sets[1].file_count; k++) {
            if (gate->sets[0].files[i].digest == gate->sets[1].files[k].digest)
                return cm_error(CM_USAGE,
                                "%s is in the baseline and new (%s); a result cannot be "
                                "held against itself",
                                gate->sets[0].files[i].path, gate->sets[1].files[k].path);
        }
    }
    return CM_OK;
}

static enum cm_status load(struct gate *gate)
{
    const struct cm_gate_request *request = gate->request;
    if (request->baseline.count == 0)
        return cm_error(CM_MISSING, "gate: no baseline; name files or folders of earlier results");
    if (request->fresh.count == 0)
        return cm_error(CM_USAGE, "gate: no new results; name them with --new");
    enum cm_status status = cm_gate_load(&request->baseline, "baseline", &gate->sets[0]);
    if (status == CM_OK)
        status = cm_gate_load(&request->fresh, "new", &gate->sets[1]);
    if (status == CM_OK)
        status = cm_gate_check_baseline(&gate->sets[0]);
    if (status == CM_OK)
        status = check_twice(gate);
    if (status == CM_OK)
        status = cm_gate_rules_make(request, &gate->sets[0], &gate->sets[1], &gate->rules);
    if (status == CM_OK && gate->rules.count == 0)
        status = cm_error(CM_MISSING, "gate: none of the rules' metrics is in the baseline; name "
                                      "metrics with --metric, as case/metric");
    if (status == CM_OK)
        status = cm_differences_find(gate->sets, 2, CM_USE_GATE, request->allowed.items,
                                     request->allowed.count, &gate->differences);
    return status;
}

/* ---- gated metrics ---- */

/* Units and directions that changed are verdicts of their metrics, and no reason to refuse the
 * others. */
static bool unit_changed(struct gate *gate, const char *key, char *reason, size_t size)
{
    for (size_t i = 0; i < gate->differences.count; i++) {
        struct cm_difference *row = &gate->differences.rows[i];
        if (strncmp(row->key, "unit:", 5) != 0 || strcmp(row->key + 5, key) != 0)
            continue;
        snprintf(reason, size, "%.50s in %.50s, %.50s in %.50s", row->left, row->left_in,
                 row->right, row->right_in);
        return true;
    }
    return false;
}

static void release_units(struct gate *gate)
{
    for (size_t i = 0; i < gate->differences.count; i++) {
        struct cm_difference *row = &gate->differences.rows[i];
        if (strncmp(row->key, "unit:", 5) == 0 && row->role == CM_MUST_MATCH && !row->allowed) {
            gate->differences.forbidden--;
            row->role = CM_RECORD;
        }
    }
}

static void begin_row(struct gate *gate, size_t index)
{
    struct cm_gate_row *row = &gate->rows[index];
    row->metric = &gate->rules.metrics[index];
    row->base = cm_set_find(&gate->sets[0], row->metric->key);
    row->fresh = cm_set_find(&gate->sets[1], row->metric->key);
    if (row->base != NULL && row->base->count == 0)
        row->base = NULL;
    if (row->fresh != NULL && row->fresh->count == 0)
        row->fresh = NULL;
    for (size_t s = 0; s < 2; s++) {
        const struct cm_series *any = row->fresh != NULL ? row->fresh : row->base;
        if (any != NULL && cm_gate_invalid(&gate->sets[1 - s], any, &row->verdict, row->reason,
                                           sizeof row->reason))
            return;
    }
    if (unit_changed(gate, row->metric->key, row->reason, sizeof row->reason))
        row->verdict = CM_GATE_UNIT;
    else if (row->fresh == NULL)
        row->verdict = CM_GATE_MISSING;
    else if (row->base == NULL)
        row->verdict = CM_GATE_NEW;
    if (row->fresh == NULL && row->verdict == CM_GATE_MISSING)
        snprintf(row->reason, sizeof row->reason, "no such metric in %s",
                 row->base == NULL ? "any result" : "the new results");
    if (row->verdict == CM_GATE_NEW)
        snprintf(row->reason, sizeof row->reason, "no such metric in the baseline");
}

static void put_median(enum cm_status *status, json_t *object, const char *key,
                       const struct cm_series *series)
{
    double *values = series != NULL ? cm_series_values(series) : NULL;
    json_t *figure = values != NULL ? json_object() : json_null();
    if (values != NULL)
        cm_put_figures(status, figure, values, series->count);
    cm_put(status, object, key, figure);
    cm_free(values);
}

static enum cm_status put_test(const struct gate *gate, const struct cm_gate_row *row,
                               json_t *object)
{
    const struct cm_pair *pair = &row->pair;
    const struct cm_sessions *sessions = &row->sessions;
    struct cm_interval bounds = cm_pair_changes(pair, &row->shift.interval);
    struct cm_power power = {
        .risk = gate->risk / (double)gate->rules.count, .power = POWER, .margin = row->margin};
    double detectable = NAN;
    enum cm_status status = CM_OK;
    cm_put(&status, object, "change", cm_json_real(cm_pair_change(pair, row->shift.estimate)));
    cm_put(&status, object, "relative", json_boolean(pair->logarithmic));
    cm_put(&status, object, "tolerated", cm_json_real(cm_pair_change(pair, row->margin)));
    cm_put(&status, object, "bounds",
           bounds.coverage > 0 ? json_pack("{s:f, s:f, s:f}", "low", bounds.low, "high",
                                           bounds.high, "risk", row->risk)
                               : json_null());
    cm_put(&status, object, "p", cm_json_real(row->p));
    cm_put(&status, object, "p_adjusted", cm_json_real(row->adjusted));
    if (status == CM_OK)
        status = cm_resampled_shift(&pair->x, &pair->y, &power, &detectable);
    cm_put(&status, object, "sessions",
           json_pack("{s:I, s:o, s:o}", "baseline", (json_int_t)sessions->count, "deviation",
                     cm_json_real(cm_pair_size(pair, sessions->deviation)), "widening",
                     cm_json_real(cm_pair_size(pair, sessions->widening))));
    cm_put(&status, object, "detectable",
           cm_json_real(isfinite(detectable) ? cm_pair_change(pair, detectable) : NAN));
    if (status != CM_OK || row->verdict != CM_GATE_INCONCLUSIVE)
        return status;
    struct cm_more more = {.risk = power.risk,
                           .distance = fmax(fabs(row->margin - row->shift.estimate), 1e-9)};
    return cm_put_more(pair, &more, object);
}

static enum cm_status row_json(const struct gate *gate, const struct cm_gate_row *row,
                               json_t *object)
{
    enum cm_status status = CM_OK;
    const struct cm_series *any = row->base != NULL ? row->base : row->fresh;
    cm_put(&status, object, "key", cm_result_string(row->metric->key));
    cm_put(&status, object, "unit", cm_result_string(any != NULL ? any->unit : ""));
    cm_put(&status, object, "better",
           json_string(any == NULL                ? ""
                       : any->better == CM_HIGHER ? "higher"
                                                  : "lower"));
    cm_put(&status, object, "margin", cm_json_real(row->metric->margin));
    cm_put(&status, object, "floor", cm_json_real(row->metric->floor));
    cm_put(&status, object, "verdict", json_string(cm_gate_verdict_names[row->verdict]));
    cm_put(&status, object, "exit_code",
           json_integer(cm_status_exit_code(cm_gate_verdict_statuses[row->verdict])));
    cm_put(&status, object, "reason", cm_result_string(row->reason));
    put_median(&status, object, "baseline", row->base);
    put_median(&status, object, "new", row->fresh);
    if (status == CM_OK && row->tested)
        status = put_test(gate, row, object);
    return status;
}

/* ---- the others ---- */

static bool is_gated(const struct gate *gate, const char *key)
{
    for (size_t i = 0; i < gate->rules.count; i++) {
        if (strcmp(gate->rules.metrics[i].key, key) == 0)
            return true;
    }
    return false;
}

struct advisory {
    const struct cm_series *base, *fresh;
    double change;
};

/* Both sides of everything else that is better one way; p of a regression beyond the margin. */
static enum cm_status test_others(struct gate *gate, struct advisory *rows, double *p,
                                  size_t *count)
{
    const struct cm_set *base = &gate->sets[0];
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < base->series_count; i++) {
        const struct cm_series *series = &base->series[i];
        const struct cm_series *other = cm_set_find(&gate->sets[1], series->key);
        struct cm_pair pair;
        struct cm_shift shift;
        char unused[240];
        if (series->better == CM_NEITHER || series->count == 0 || is_gated(gate, series->key) ||
            other == NULL || other->count == 0 ||
            unit_changed(gate, series->key, unused, sizeof unused))
            continue;
        status = cm_pair_make(series, other, &pair);
        if (status != CM_OK)
            break;
        status = cm_mann_whitney(pair.x.values, pair.x.count, pair.y.values, pair.y.count,
                                 cm_pair_margin(&pair, gate->rules.advisory_margin), &p[*count]);
        if (status == CM_OK)
            status = cm_hodges_lehmann(pair.x.values, pair.x.count, pair.y.values, pair.y.count,
                                       0.95, &shift);
        if (status == CM_OK)
            rows[(*count)++] =
                (struct advisory){series, other, cm_pair_change(&pair, shift.estimate)};
        cm_pair_release(&pair);
    }
    return status;
}

static enum cm_status add_advisory(struct gate *gate, json_t *array)
{
    size_t room = gate->sets[0].series_count, count = 0;
    struct advisory *rows = cm_alloc(room, sizeof *rows);
    double *p = cm_alloc(room, sizeof *p), *adjusted = cm_alloc(room, sizeof *adjusted);
    enum cm_status status = rows != NULL && p != NULL && adjusted != NULL ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK)
        status = test_others(gate, rows, p, &count);
    if (status == CM_OK)
        status = cm_benjamini_hochberg(p, count, adjusted);
    for (size_t i = 0; status == CM_OK && i < count; i++) {
        json_t *object = json_object();
        cm_put(&status, object, "key", cm_result_string(rows[i].base->key));
        cm_put(&status, object, "unit", cm_result_string(rows[i].base->unit));
        cm_put(&status, object, "change", cm_json_real(rows[i].change));
        cm_put(&status, object, "p", cm_json_real(p[i]));
        cm_put(&status, object, "q", cm_json_real(adjusted[i]));
        cm_put(&status, object, "slower", json_boolean(adjusted[i] <= CM_ADVISORY_RISK));
        put_median(&status, object, "baseline", rows[i].base);
        put_median(&status, object, "new", rows[i].fresh);
        cm_push(&status, array, object);
    }
    cm_free(rows);
    cm_free(p);
    cm_free(adjusted);
    return status;
}

/* Metrics of the baseline that the new results lack, and cases of them that went wrong. */
static enum cm_status add_missing(struct gate *gate, json_t *array)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < gate->sets[0].series_count; i++) {
        const struct cm_series *series = &gate->sets[0].series[i];
        const struct cm_series *other = cm_set_find(&gate->sets[1], series->key);
        if (!is_gated(gate, series->key) && (other == NULL || other->count == 0))
            cm_push(&status, array, cm_result_string(series->key));
    }
    return status;
}

static enum cm_status add_bad_cases(struct gate *gate, json_t *array)
{
    enum cm_status status = CM_OK;
    const struct cm_set *fresh = &gate->sets[1];
    for (size_t f = 0; f < fresh->file_count; f++) {
        size_t index;
        const json_t *item;
        json_array_foreach(json_object_get(fresh->files[f].result, "cases"), index, item)
        {
            const char *word = cm_get_text(item, "status");
            if (strcmp(word, cm_case_status_names[CM_CASE_WRONG]) != 0 &&
                strcmp(word, cm_case_status_names[CM_CASE_FAILED]) != 0)
                continue;
            json_t *object = json_object();
            cm_put(&status, object, "case", cm_result_string(cm_get_text(item, "name")));
            cm_put(&status, object, "status", json_string(word));
            cm_put(&status, object, "file", cm_result_string(fresh->files[f].path));
            cm_put(&status, object, "reason", cm_result_string(cm_get_text(item, "reason")));
            cm_push(&status, array, object);
        }
    }
    return status;
}

/* ---- the outcome ---- */

/* What counts first: that nothing can be said, that results are wrong, that something is slower,
 * that something is missing, that something is not decided. */
static const enum cm_gate_verdict outcomes[] = {
    CM_GATE_UNIT,    CM_GATE_WRONG, CM_GATE_THROTTLED,    CM_GATE_REGRESSION,
    CM_GATE_MISSING, CM_GATE_NEW,   CM_GATE_INCONCLUSIVE,
};

static void put_exit(enum cm_status *status, json_t *document, const char *outcome,
                     enum cm_status exit_status, json_t *reason)
{
    cm_put(status, document, "outcome", json_string(outcome));
    cm_put(status, document, "exit_status", json_string(cm_status_name(exit_status)));
    cm_put(status, document, "exit_code", json_integer(cm_status_exit_code(exit_status)));
    cm_put(status, document, "exit_reason", reason);
}

static void put_outcome(enum cm_status *status, struct gate *gate, const json_t *bad)
{
    size_t improved = 0;
    const json_t *first_bad = json_array_get(bad, 0);
    for (size_t o = 0; o < sizeof outcomes / sizeof *outcomes; o++) {
        const struct cm_gate_row *first = NULL;
        const char *outcome = cm_gate_verdict_names[outcomes[o]];
        enum cm_status exit_status = cm_gate_verdict_statuses[outcomes[o]];
        size_t count = 0;
        for (size_t i = 0; i < gate->rules.count; i++) {
            if (gate->rows[i].verdict == outcomes[o] && count++ == 0)
                first = &gate->rows[i];
        }
        if (count == 0 && outcomes[o] == CM_GATE_WRONG && first_bad != NULL) {
            put_exit(status, gate->document, "wrong", CM_WRONG,
                     json_sprintf("%.100s %s in %.100s", cm_get_text(first_bad, "case"),
                                  cm_get_text(first_bad, "status"),
                                  cm_get_text(first_bad, "file")));
            return;
        }
        if (count == 0)
            continue;
        bool passes = exit_status == CM_INCONCLUSIVE && !gate->request->strict;
        put_exit(status, gate->document, outcome, passes ? CM_OK : exit_status,
                 json_sprintf("%zu of %zu gated metrics: %s: %.120s%s%.160s", count,
                              gate->rules.count, outcome, first->metric->key,
                              first->reason[0] != '\0' ? ": " : "", first->reason));
        return;
    }
    for (size_t i = 0; i < gate->rules.count; i++)
        improved += gate->rows[i].verdict == CM_GATE_IMPROVED;
    put_exit(status, gate->document, improved > 0 ? "improved" : "pass", CM_OK,
             json_sprintf("%zu gated metrics pass, %zu of them better than the margin",
                          gate->rules.count, improved));
}

static enum cm_status judge(struct gate *gate)
{
    enum cm_status status = cm_gate_judge(gate->rows, gate->rules.count, gate->risk);
    json_t *document = gate->document;
    json_t *rows = cm_put_array(&status, document, "gated");
    for (size_t i = 0; i < gate->rules.count && status == CM_OK; i++) {
        json_t *object = json_object();
        cm_push(&status, rows, object);
        if (status == CM_OK)
            status = row_json(gate, &gate->rows[i], object);
    }
    json_t *advisory = cm_put_array(&status, document, "advisory");
    if (status == CM_OK)
        status = add_advisory(gate, advisory);
    json_t *missing = cm_put_array(&status, document, "missing");
    if (status == CM_OK)
        status = add_missing(gate, missing);
    json_t *bad = cm_put_array(&status, document, "bad_cases");
    if (status == CM_OK)
        status = add_bad_cases(gate, bad);
    put_outcome(&status, gate, bad);
    return status;
}

static enum cm_status build(struct gate *gate)
{
    enum cm_status status = CM_OK;
    json_t *document = gate->document = json_object(), *rows = NULL;
    for (size_t i = 0; i < gate->rules.count; i++)
        begin_row(gate, i);
    release_units(gate);
    bool comparable = gate->differences.forbidden == 0;
    cm_put(&status, document, "schema", json_string("clustermark.gate"));
    cm_put(&status, document, "version", json_string("1.0"));
    cm_put(&status, document, "comparable", json_boolean(comparable));
    cm_put(&status, document, "risk", cm_json_real(gate->risk));
    cm_put(&status, document, "strict", json_boolean(gate->request->strict));
    cm_put(&status, document, "look", json_integer(gate->look));
    cm_put(&status, document, "looks", json_integer(gate->looks));
    cm_put(&status, document, "advisory_margin", cm_json_real(gate->rules.advisory_margin));
    cm_put(&status, document, "baseline", cm_set_json(&gate->sets[0]));
    cm_put(&status, document, "new", cm_set_json(&gate->sets[1]));
    const json_t *injected = json_object_get(gate->sets[1].files[0].facts, "injected");
    cm_put(&status, document, "injected",
           injected != NULL ? json_incref((json_t *)injected) : json_null());
    if (status == CM_OK)
        status = cm_differences_json(&gate->differences, &rows);
    cm_put(&status, document, "differences", rows);
    if (status != CM_OK || comparable)
        return status == CM_OK ? judge(gate) : status;
    put_exit(&status, document, "not comparable", CM_NOT_COMPARABLE,
             json_string("the new results are of something else than the baseline"));
    return status;
}

static enum cm_status run(struct gate *gate)
{
    const char *state = gate->request->state;
    enum cm_status status = load(gate);
    gate->look = 1;
    gate->looks = state != NULL ? 2 : 1;
    if (status == CM_OK && state != NULL)
        status = cm_gate_look(state, &gate->sets[0], &gate->sets[1], &gate->rules, &gate->look);
    gate->risk = gate->rules.risk / gate->looks;
    if (status == CM_OK)
        status = build(gate);
    if (status == CM_OK && state != NULL)
        status = cm_gate_look_done(state, &gate->sets[0], &gate->sets[1], &gate->rules, gate->look,
                                   cm_get_text(gate->document, "outcome"));
    return status;
}

enum cm_status cm_gate(const struct cm_gate_request *request, json_t **document)
{
    struct gate *gate = cm_alloc(1, sizeof *gate);
    if (gate == NULL)
        return CM_NO_MEMORY;
    gate->request = request;
    enum cm_status status = run(gate);
    if (status == CM_OK) {
        *document = gate->document;
        gate->document = NULL;
    }
    json_decref(gate->document);
    for (size_t i = 0; i < gate->rules.count; i++) {
        if (gate->rows[i].tested)
            cm_pair_release(&gate->rows[i].pair);
    }
    cm_gate_rules_release(&gate->rules);
    cm_differences_release(&gate->differences);
    for (size_t i = 0; i < 2; i++)
        cm_set_release(&gate->sets[i]);
    cm_free(gate);
    return status;
}
