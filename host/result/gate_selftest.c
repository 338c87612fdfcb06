/*
 * The gate held against itself: equals drawn from real runs, in which every alarm is false, and the
 * same with one metric made worse by a known share, which it should find.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/gate.h"
#include "host/result/record.h"

#define POWER      0.8
#define INJECTIONS 5
/* Shares in percent, then what is said to be found with 80 %, and twice that beyond the margin. */
static const double fixed[] = {0.03, 0.05, 0.10};
enum { AT_DETECTABLE = 3, AT_TWICE = 4 };

/* A metric's runs on its scale, and what became of it over the trials. */
struct subject {
    struct cm_pair pair; /* of the series with itself */
    double margin, deviation, detectable;
    double shifts[INJECTIONS];
    size_t alarms, found[INJECTIONS];
    struct cm_pair slowed; /* the base with results that are really worse */
    size_t found_slowed;
};

struct selftest {
    const struct cm_selftest_request *request;
    struct cm_set base, slowed; /* slowed: no files when there are none */
    struct cm_gate_rules rules;
    struct subject subjects[CM_GATED_MAX];
    size_t runs; /* that every subject has */
    size_t slowed_runs;
    size_t *order, *slowed_order;
    uint64_t seed;
    size_t alarms, undecided; /* gates with a false alarm; metrics that were not decided */
};

static uint64_t draw(uint64_t *seed, uint64_t limit)
{
    uint64_t z = *seed += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % limit;
}

static double deviation_of(const double *values, size_t count)
{
    double mean = 0, sum = 0;
    for (size_t i = 0; i < count; i++)
        mean += values[i] / (double)count;
    for (size_t i = 0; i < count; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return sqrt(sum / (double)(count - 1));
}

static enum cm_status make_order(size_t count, size_t **order)
{
    *order = cm_alloc(count, sizeof **order);
    for (size_t i = 0; *order != NULL && i < count; i++)
        (*order)[i] = i;
    return *order != NULL ? CM_OK : CM_NO_MEMORY;
}

static void shuffle(uint64_t *seed, size_t *order, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t other = i + draw(seed, count - i), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

static enum cm_status prepare_subject(struct selftest *test, size_t index)
{
    struct subject *subject = &test->subjects[index];
    const struct cm_gate_metric *metric = &test->rules.metrics[index];
    const struct cm_series *series = cm_set_find(&test->base, metric->key);
    const struct cm_selftest_request *request = test->request;
    if (series == NULL || series->count == 0)
        return cm_error(CM_MISSING, "gate: the baseline has no %.120s", metric->key);
    enum cm_status status = cm_pair_make(series, series, &subject->pair);
    if (status != CM_OK)
        return status;
    test->runs = index == 0 || series->count < test->runs ? series->count : test->runs;
    subject->margin = cm_pair_margin(&subject->pair, metric->margin);
    if (metric->floor > 0 && subject->pair.logarithmic)
        subject->margin =
            fmax(subject->margin,
                 log1p(metric->floor / exp(subject->pair.sign *
                                           cm_median(subject->pair.x, subject->pair.x_count))));
    subject->deviation = deviation_of(subject->pair.x, subject->pair.x_count);
    struct cm_power power = {.deviation = subject->deviation,
                             .risk = test->rules.risk / (double)test->rules.count,
                             .power = POWER,
                             .margin = subject->margin};
    status = cm_detectable_shift(&power, request->baseline_runs, request->fresh_runs,
                                 &subject->detectable);
    for (size_t i = 0; i < AT_DETECTABLE; i++)
        subject->shifts[i] = cm_pair_margin(&subject->pair, fixed[i]);
    subject->shifts[AT_DETECTABLE] = subject->detectable;
    subject->shifts[AT_TWICE] = 2 * subject->detectable - subject->margin;
    return status;
}

/* Results that were really slowed down, of which each trial draws its new runs. */
static enum cm_status prepare_slowed(struct selftest *test)
{
    const struct cm_selftest_request *request = test->request;
    enum cm_status status = CM_OK;
    if (request->gate.fresh.count == 0)
        return CM_OK;
    status = cm_gate_load(&request->gate.fresh, "new", &test->slowed);
    for (size_t i = 0; status == CM_OK && i < test->rules.count; i++) {
        const char *key = test->rules.metrics[i].key;
        const struct cm_series *base = cm_set_find(&test->base, key);
        const struct cm_series *fresh = cm_set_find(&test->slowed, key);
        if (fresh == NULL || fresh->count < request->fresh_runs)
            return cm_error(CM_MISSING, "gate: the new results have fewer than %llu runs of %.120s",
                            (unsigned long long)request->fresh_runs, key);
        status = cm_pair_make(base, fresh, &test->subjects[i].slowed);
        test->slowed_runs =
            i == 0 || fresh->count < test->slowed_runs ? fresh->count : test->slowed_runs;
    }
    if (status == CM_OK)
        status = make_order(test->slowed_runs, &test->slowed_order);
    return status;
}

static enum cm_status prepare(struct selftest *test)
{
    const struct cm_selftest_request *request = test->request;
    size_t wanted = request->baseline_runs + request->fresh_runs;
    enum cm_status status = cm_gate_load(&request->gate.baseline, "baseline", &test->base);
    if (status == CM_OK && test->base.file_count == 0)
        status = cm_error(CM_MISSING, "gate: no baseline; name files or folders of results");
    if (status == CM_OK)
        status = cm_gate_check_baseline(&test->base);
    if (status == CM_OK)
        status = cm_gate_rules_make(&request->gate, &test->base, NULL, &test->rules);
    if (status == CM_OK && test->rules.count == 0)
        status = cm_error(CM_MISSING, "gate: none of the rules' metrics is in the baseline; name "
                                      "metrics with --metric, as case/metric");
    for (size_t i = 0; status == CM_OK && i < test->rules.count; i++)
        status = prepare_subject(test, i);
    if (status == CM_OK && test->runs < wanted)
        status = cm_error(CM_USAGE,
                          "gate: %zu runs of each gated metric; drawing %llu and %llu without "
                          "putting any back needs %zu",
                          test->runs, (unsigned long long)request->baseline_runs,
                          (unsigned long long)request->fresh_runs, wanted);
    if (status != CM_OK)
        return status;
    status = make_order(test->runs, &test->order);
    return status == CM_OK ? prepare_slowed(test) : status;
}

/* p of a subject whose new runs are worse by `shift`. */
static enum cm_status p_of(const struct selftest *test, const struct subject *subject, double shift,
                           double *p)
{
    double x[150], y[150];
    size_t base = test->request->baseline_runs, fresh = test->request->fresh_runs;
    for (size_t i = 0; i < base; i++)
        x[i] = subject->pair.x[test->order[i]];
    for (size_t i = 0; i < fresh; i++)
        y[i] = subject->pair.x[test->order[base + i]] + shift;
    return cm_mann_whitney(x, base, y, fresh, subject->margin, p);
}

/* One gate of equals, then with each metric in turn made worse while the others are as they are. */
static enum cm_status try_once(struct selftest *test)
{
    double p[CM_GATED_MAX] = {0}, adjusted[CM_GATED_MAX] = {0};
    size_t count = test->rules.count;
    enum cm_status status = CM_OK;
    shuffle(&test->seed, test->order, test->runs);
    for (size_t i = 0; status == CM_OK && i < count; i++)
        status = p_of(test, &test->subjects[i], 0, &p[i]);
    if (status == CM_OK)
        status = cm_holm(p, count, adjusted);
    bool alarm = false;
    for (size_t i = 0; i < count; i++) {
        bool own = adjusted[i] <= test->rules.risk + 1e-12;
        test->subjects[i].alarms += own;
        alarm = alarm || own;
    }
    test->alarms += status == CM_OK && alarm;
    for (size_t i = 0; i < count; i++) {
        double as_it_is = p[i];
        for (size_t k = 0; status == CM_OK && k < INJECTIONS; k++) {
            status = p_of(test, &test->subjects[i], test->subjects[i].shifts[k], &p[i]);
            if (status == CM_OK)
                status = cm_holm(p, count, adjusted);
            test->subjects[i].found[k] += adjusted[i] <= test->rules.risk + 1e-12;
        }
        p[i] = as_it_is;
    }
    return status;
}

/* A gate of new runs that are really worse, all metrics at once. */
static enum cm_status try_slowed(struct selftest *test)
{
    double p[CM_GATED_MAX] = {0}, adjusted[CM_GATED_MAX] = {0}, x[150], y[150];
    size_t base = test->request->baseline_runs, fresh = test->request->fresh_runs;
    enum cm_status status = CM_OK;
    shuffle(&test->seed, test->slowed_order, test->slowed_runs);
    for (size_t i = 0; status == CM_OK && i < test->rules.count; i++) {
        const struct subject *subject = &test->subjects[i];
        for (size_t k = 0; k < base; k++)
            x[k] = subject->slowed.x[test->order[k]];
        for (size_t k = 0; k < fresh; k++)
            y[k] = subject->slowed.y[test->slowed_order[k]];
        status = cm_mann_whitney(x, base, y, fresh, subject->margin, &p[i]);
    }
    if (status == CM_OK)
        status = cm_holm(p, test->rules.count, adjusted);
    for (size_t i = 0; i < test->rules.count; i++)
        test->subjects[i].found_slowed += adjusted[i] <= test->rules.risk + 1e-12;
    return status;
}

/* By how much they are worse: the shift between all runs of both. */
static double really_worse(const struct subject *subject)
{
    struct cm_shift shift = {.estimate = NAN};
    if (cm_hodges_lehmann(subject->slowed.x, subject->slowed.x_count, subject->slowed.y,
                          subject->slowed.y_count, 0.95, &shift) != CM_OK)
        return NAN;
    return expm1(shift.estimate);
}

static json_t *share_json(size_t hits, uint64_t trials)
{
    struct cm_interval interval = cm_binomial_interval(hits, (size_t)trials, 0.95);
    return json_pack("{s:I, s:I, s:f, s:f, s:f}", "hits", (json_int_t)hits, "trials",
                     (json_int_t)trials, "share", (double)hits / (double)trials, "low",
                     interval.low, "high", interval.high);
}

static json_t *subject_json(const struct selftest *test, size_t index)
{
    enum cm_status status = CM_OK;
    const struct subject *subject = &test->subjects[index];
    json_t *object = json_object();
    cm_put(&status, object, "key", cm_result_string(test->rules.metrics[index].key));
    cm_put(&status, object, "runs", json_integer((json_int_t)subject->pair.x_count));
    cm_put(&status, object, "relative", json_boolean(subject->pair.logarithmic));
    cm_put(&status, object, "deviation", cm_json_real(expm1(subject->deviation)));
    cm_put(&status, object, "margin", cm_json_real(expm1(subject->margin)));
    cm_put(&status, object, "false_alarms", share_json(subject->alarms, test->request->trials));
    json_t *rows = cm_put_array(&status, object, "injected");
    for (size_t k = 0; k < INJECTIONS; k++) {
        json_t *row = share_json(subject->found[k], test->request->trials);
        cm_put(&status, row, "worse_by", cm_json_real(expm1(subject->shifts[k])));
        if (k >= AT_DETECTABLE)
            cm_put(&status, row, "what",
                   json_string(k == AT_DETECTABLE ? "detectable" : "twice detectable"));
        cm_push(&status, rows, row);
    }
    if (test->slowed_runs > 0) {
        json_t *row = share_json(subject->found_slowed, test->request->trials);
        cm_put(&status, row, "worse_by", cm_json_real(really_worse(subject)));
        cm_put(&status, object, "really_injected", row);
    }
    return object;
}

/* The promise is broken when the alarms could hardly be so many with the promised risk, or when
 * what is said to be found with 80 % surely is not. */
static void judge(enum cm_status *status, const struct selftest *test, json_t *document)
{
    struct cm_interval alarms =
        cm_binomial_interval(test->alarms, (size_t)test->request->trials, 0.98);
    const char *reason = NULL;
    if (alarms.low > test->rules.risk)
        reason = "false alarms are more than the risk that was promised";
    for (size_t i = 0; i < test->rules.count; i++) {
        const struct subject *subject = &test->subjects[i];
        struct cm_interval found =
            cm_binomial_interval(subject->found[AT_TWICE], (size_t)test->request->trials, 0.98);
        if (isfinite(subject->detectable) && found.high < POWER)
            reason = "a metric that got twice as bad as detectable was mostly not found";
    }
    cm_put(status, document, "outcome", json_string(reason == NULL ? "holds" : "does not hold"));
    cm_put(status, document, "exit_status",
           json_string(cm_status_name(reason == NULL ? CM_OK : CM_WRONG)));
    cm_put(status, document, "exit_reason",
           json_sprintf("the gate's selftest: %s", reason == NULL ? "holds" : reason));
}

static enum cm_status report(const struct selftest *test, json_t **document)
{
    enum cm_status status = CM_OK;
    json_t *made = json_object();
    cm_put(&status, made, "schema", json_string("clustermark.gate-selftest"));
    cm_put(&status, made, "version", json_string("1.0"));
    cm_put(&status, made, "baseline", cm_set_json(&test->base));
    cm_put(&status, made, "baseline_runs", json_integer((json_int_t)test->request->baseline_runs));
    cm_put(&status, made, "new_runs", json_integer((json_int_t)test->request->fresh_runs));
    cm_put(&status, made, "seed", json_integer((json_int_t)test->request->seed));
    cm_put(&status, made, "risk", cm_json_real(test->rules.risk));
    cm_put(&status, made, "false_alarms", share_json(test->alarms, test->request->trials));
    json_t *metrics = cm_put_array(&status, made, "metrics");
    for (size_t i = 0; i < test->rules.count; i++)
        cm_push(&status, metrics, subject_json(test, i));
    judge(&status, test, made);
    if (status != CM_OK) {
        json_decref(made);
        return status;
    }
    *document = made;
    return CM_OK;
}

enum cm_status cm_gate_selftest(const struct cm_selftest_request *request, json_t **document)
{
    struct selftest *test = cm_alloc(1, sizeof *test);
    if (test == NULL)
        return CM_NO_MEMORY;
    test->request = request;
    test->seed = request->seed;
    enum cm_status status = prepare(test);
    for (uint64_t i = 0; status == CM_OK && i < request->trials; i++) {
        status = try_once(test);
        if (status == CM_OK && test->slowed_runs > 0)
            status = try_slowed(test);
    }
    if (status == CM_OK)
        status = report(test, document);
    for (size_t i = 0; i < CM_GATED_MAX; i++) {
        cm_pair_release(&test->subjects[i].pair);
        cm_pair_release(&test->subjects[i].slowed);
    }
    cm_free(test->order);
    cm_free(test->slowed_order);
    cm_set_release(&test->slowed);
    cm_gate_rules_release(&test->rules);
    cm_set_release(&test->base);
    cm_free(test);
    return status;
}

/* ---- in words ---- */

static void share_text(const json_t *share, char *text, size_t size)
{
    snprintf(text, size, "%.1f %% (%.1f .. %.1f)", 100 * cm_get_number(share, "share"),
             100 * cm_get_number(share, "low"), 100 * cm_get_number(share, "high"));
}

static void put_metric(struct cm_table *table, const json_t *row)
{
    char text[64];
    size_t index;
    const json_t *injected;
    cm_table_row(table);
    cm_table_put(table, 0, CM_PLAIN, "%s", cm_get_text(row, "key"));
    cm_table_put(table, 1, CM_PLAIN, "%.2f %%", 100 * cm_get_number(row, "deviation"));
    cm_table_put(table, 2, CM_PLAIN, "%.3g %%", 100 * cm_get_number(row, "margin"));
    share_text(json_object_get(row, "false_alarms"), text, sizeof text);
    cm_table_put(table, 3, CM_PLAIN, "%s", text);
    json_array_foreach(json_object_get(row, "injected"), index, injected)
    {
        double by = cm_get_number(injected, "worse_by");
        if (!isfinite(by)) {
            cm_table_put(table, 4 + index, CM_PLAIN, "never");
            continue;
        }
        double share = 100 * cm_get_number(injected, "share");
        if (index >= AT_DETECTABLE)
            cm_table_put(table, 4 + index, CM_PLAIN, "%.3g %%: %.0f %%", 100 * by, share);
        else
            cm_table_put(table, 4 + index, CM_PLAIN, "%.0f %%", share);
    }
    const json_t *real = json_object_get(row, "really_injected");
    if (real != NULL)
        cm_table_put(table, 9, CM_PLAIN, "%.3g %%: %.0f %%", 100 * cm_get_number(real, "worse_by"),
                     100 * cm_get_number(real, "share"));
}

enum cm_status cm_gate_selftest_text(const json_t *document, const struct cm_report_style *style,
                                     struct cm_str *out)
{
    struct cm_table table = {.style = style};
    static const char *const titles[] = {"metric",     "noise",      "margin",     "false alarms",
                                         "3 % found",  "5 % found",  "10 % found", "detectable",
                                         "twice that", "new results"};
    static const int ranks[] = {0, 0, 2, 1, 0, 0, 0, 0, 0, 0};
    size_t index;
    const json_t *row;
    char text[64];
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        cm_table_column(&table, titles[i], i == 0, ranks[i]);
    json_array_foreach(json_object_get(document, "metrics"), index, row) put_metric(&table, row);
    enum cm_status status = cm_table_write(&table, out);
    cm_table_release(&table);
    const json_t *alarms = json_object_get(document, "false_alarms");
    share_text(alarms, text, sizeof text);
    cm_str_addf(out,
                "\n%lld gates of %lld against %lld runs, drawn from the baseline's own: %lld gave "
                "a false alarm, %s\n",
                (long long)json_integer_value(json_object_get(alarms, "trials")),
                (long long)json_integer_value(json_object_get(document, "new_runs")),
                (long long)json_integer_value(json_object_get(document, "baseline_runs")),
                (long long)json_integer_value(json_object_get(alarms, "hits")), text);
    cm_str_add(out,
               "In brackets: 95 % interval, as if the draws were independent; they share runs, "
               "so it is too narrow.\nfound: that metric alone made worse by so much. "
               "detectable: what is said to be found with 80 %.\nnoise: deviation between "
               "runs.\n");
    cm_str_addf(out, "\nverdict: %s\n", cm_get_text(document, "exit_reason"));
    return status == CM_OK ? cm_str_status(out) : status;
}
