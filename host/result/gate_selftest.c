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
#define RUNS_MAX   150
/* What is detectable is asked in so many gates: each asks it of hundreds of samples. */
#define ASKED 200
/* Shares in percent, then what is said to be found with 80 %, and twice that beyond the margin. */
static const double fixed[] = {0.03, 0.05, 0.10};
enum { AT_DETECTABLE = 3, AT_TWICE = 4 };

/* A metric's runs on its scale, and what became of it over the trials. */
struct subject {
    struct cm_pair pair; /* of the series with itself */
    double margin, deviation;
    struct cm_samples detectable; /* of each gate that was asked */
    size_t alarms, found[INJECTIONS];
    struct cm_pair slowed; /* the base with results that are really worse */
    size_t found_slowed;
};

/* A gate's runs of one metric. */
struct drawn {
    double values[2][RUNS_MAX];
    size_t sessions[2][RUNS_MAX];
    struct cm_runs x, y;
    double offset; /* that has to be passed: the margin, and what sessions add */
};

/* Runs in the order in which a trial takes them. */
struct order {
    const size_t *sessions; /* of each run */
    size_t *places, *firsts;
    size_t runs; /* that every subject has */
};

struct selftest {
    const struct cm_selftest_request *request;
    struct cm_set base, slowed; /* slowed: no files when there are none */
    struct cm_gate_rules rules;
    struct subject subjects[CM_GATED_MAX];
    struct drawn drawn[CM_GATED_MAX];
    struct order order, slowed_order;
    bool by_session;
    double risk_each; /* of Holm's first step */
    uint64_t seed;
    size_t asked, alarms; /* gates with a false alarm */
};

/* ---- drawing ---- */

static enum cm_status make_order(const struct cm_runs *runs, size_t count, struct order *order)
{
    *order = (struct order){.sessions = runs->sessions,
                            .places = cm_alloc(count, sizeof *order->places),
                            .firsts = cm_alloc(count, sizeof *order->firsts),
                            .runs = count};
    return order->places != NULL && order->firsts != NULL ? CM_OK : CM_NO_MEMORY;
}

static void release_order(struct order *order)
{
    cm_free(order->places);
    cm_free(order->firsts);
}

static void shuffle(uint64_t *seed, size_t *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t other = i + cm_draw(seed, count - i), kept = items[i];
        items[i] = items[other];
        items[other] = kept;
    }
}

/* The first run of each session; returns how many, and the runs of the largest. */
static size_t find_sessions(const struct order *order, size_t *firsts, size_t *largest)
{
    size_t count = 0;
    *largest = 0;
    for (size_t i = 0; i < order->runs; i++) {
        size_t same = 0, before = 0;
        for (size_t k = 0; k < order->runs; k++) {
            same += order->sessions[k] == order->sessions[i];
            before += k < i && order->sessions[k] == order->sessions[i];
        }
        *largest = same > *largest ? same : *largest;
        if (before == 0)
            firsts[count++] = i;
    }
    return count;
}

/* All runs in any order; or the sessions in any order, each with its runs as they were made. */
static void draw_order(struct selftest *test, struct order *order)
{
    size_t largest, count = 0;
    if (!test->by_session) {
        for (size_t i = 0; i < order->runs; i++)
            order->places[i] = i;
        shuffle(&test->seed, order->places, order->runs);
        return;
    }
    size_t sessions = find_sessions(order, order->firsts, &largest);
    shuffle(&test->seed, order->firsts, sessions);
    for (size_t s = 0; s < sessions; s++) {
        for (size_t i = 0; i < order->runs; i++) {
            if (order->sessions[i] == order->sessions[order->firsts[s]])
                order->places[count++] = i;
        }
    }
}

/* Runs that are drawn one by one are of no session: as those of files that hold one each. */
static void take(const struct cm_runs *from, const size_t *places, size_t count, bool by_session,
                 struct drawn *drawn, size_t side)
{
    struct cm_runs *runs = side == 0 ? &drawn->x : &drawn->y;
    for (size_t i = 0; i < count; i++) {
        drawn->values[side][i] = from->values[places[i]];
        drawn->sessions[side][i] = by_session ? from->sessions[places[i]] : i;
    }
    *runs = (struct cm_runs){drawn->values[side], drawn->sessions[side], count};
}

/* The new runs come first in the order, then those of the baseline, of other sessions. */
static enum cm_status draw_metric(struct selftest *test, size_t index, const struct cm_runs *fresh,
                                  const struct order *fresh_order)
{
    const struct subject *subject = &test->subjects[index];
    struct drawn *drawn = &test->drawn[index];
    struct cm_sessions sessions;
    const size_t *places = test->order.places;
    size_t begin = test->request->fresh_runs;
    while (test->by_session &&
           test->order.sessions[places[begin]] == test->order.sessions[places[begin - 1]])
        begin++;
    take(&subject->pair.x, places + begin, test->request->baseline_runs, test->by_session, drawn,
         0);
    take(fresh, fresh_order->places, test->request->fresh_runs, test->by_session, drawn, 1);
    enum cm_status status = cm_session_widening(&drawn->x, &drawn->y, test->risk_each, &sessions);
    drawn->offset = subject->margin + sessions.widening;
    return status;
}

/* ---- preparing ---- */

static enum cm_status prepare_subject(struct selftest *test, size_t index)
{
    struct subject *subject = &test->subjects[index];
    const struct cm_gate_metric *metric = &test->rules.metrics[index];
    const struct cm_series *series = cm_set_find(&test->base, metric->key);
    if (series == NULL || series->count == 0)
        return cm_error(CM_MISSING, "gate: the baseline has no %.120s", metric->key);
    enum cm_status status = cm_pair_make(series, series, &subject->pair);
    if (status != CM_OK)
        return status;
    size_t *runs = &test->order.runs;
    *runs = index == 0 || series->count < *runs ? series->count : *runs;
    subject->margin = cm_gate_margin(metric, &subject->pair);
    subject->deviation = subject->pair.deviation;
    return CM_OK;
}

/* Results that were really slowed down, of which each trial draws its new runs. */
static enum cm_status prepare_slowed(struct selftest *test)
{
    const struct cm_selftest_request *request = test->request;
    enum cm_status status = CM_OK;
    size_t runs = 0;
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
        runs = i == 0 || fresh->count < runs ? fresh->count : runs;
    }
    if (status == CM_OK)
        status = make_order(&test->subjects[0].slowed.y, runs, &test->slowed_order);
    return status;
}

/* Whole sessions, as a new result is one, where there are some to spare. */
static enum cm_status choose_draw(struct selftest *test, size_t wanted)
{
    const char *draw = test->request->draw;
    size_t largest, sessions = find_sessions(&test->order, test->order.firsts, &largest);
    bool can = sessions > 2 && largest > 1 && test->order.runs >= wanted + 2 * largest - 1;
    if (draw != NULL && strcmp(draw, "runs") != 0 && strcmp(draw, "sessions") != 0)
        return cm_error(CM_USAGE, "gate: --draw '%.40s'; give runs or sessions", draw);
    if (draw != NULL && strcmp(draw, "sessions") == 0 && !can)
        return cm_error(CM_USAGE,
                        "gate: %zu runs in %zu sessions (files) are too few to draw whole ones; "
                        "with up to %zu in one it takes %zu",
                        test->order.runs, sessions, largest, wanted + 2 * largest - 1);
    test->by_session = can && (draw == NULL || strcmp(draw, "sessions") == 0);
    return CM_OK;
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
    size_t runs = test->order.runs;
    if (status == CM_OK && runs < wanted)
        status = cm_error(CM_USAGE,
                          "gate: %zu runs of each gated metric; drawing %llu and %llu without "
                          "putting any back needs %zu",
                          runs, (unsigned long long)request->baseline_runs,
                          (unsigned long long)request->fresh_runs, wanted);
    if (status != CM_OK)
        return status;
    test->risk_each = test->rules.risk / (double)test->rules.count;
    status = make_order(&test->subjects[0].pair.x, runs, &test->order);
    if (status == CM_OK)
        status = choose_draw(test, wanted);
    return status == CM_OK ? prepare_slowed(test) : status;
}

/* ---- trying ---- */

/* p of a metric whose new runs are worse by `shift`. */
static enum cm_status p_of(const struct drawn *drawn, double shift, double *p)
{
    return cm_mann_whitney(drawn->x.values, drawn->x.count, drawn->y.values, drawn->y.count,
                           drawn->offset - shift, p);
}

/* Whether Holm's procedure finds the metric. */
static enum cm_status find(const struct selftest *test, const double *p, size_t index, bool *found)
{
    double adjusted[CM_GATED_MAX] = {0};
    enum cm_status status = cm_holm(p, test->rules.count, adjusted);
    *found = status == CM_OK && adjusted[index] <= test->rules.risk + 1e-12;
    return status;
}

static enum cm_status inject(struct selftest *test, size_t index, const double *equal, size_t kind,
                             double shift)
{
    double p[CM_GATED_MAX];
    bool found = false;
    memcpy(p, equal, sizeof p);
    enum cm_status status = p_of(&test->drawn[index], shift, &p[index]);
    if (status == CM_OK)
        status = find(test, p, index, &found);
    test->subjects[index].found[kind] += found;
    return status;
}

/* What the gate says that it can see, and whether it does. */
static enum cm_status ask(struct selftest *test, size_t index, const double *equal)
{
    struct subject *subject = &test->subjects[index];
    const struct drawn *drawn = &test->drawn[index];
    struct cm_power power = {.risk = test->risk_each, .power = POWER, .margin = subject->margin};
    double shift = NAN;
    enum cm_status status = cm_resampled_shift(&drawn->x, &drawn->y, &power, &shift);
    if (status == CM_OK)
        status = cm_samples_add(&subject->detectable, shift);
    if (status == CM_OK)
        status = inject(test, index, equal, AT_DETECTABLE, shift);
    if (status == CM_OK)
        status = inject(test, index, equal, AT_TWICE, 2 * shift - subject->margin);
    return status;
}

/* One gate of equals, then with each metric in turn made worse while the others are as they are. */
static enum cm_status try_once(struct selftest *test)
{
    double p[CM_GATED_MAX] = {0};
    size_t count = test->rules.count;
    enum cm_status status = CM_OK;
    bool alarm = false, asks = test->asked < ASKED;
    draw_order(test, &test->order);
    for (size_t i = 0; status == CM_OK && i < count; i++) {
        status = draw_metric(test, i, &test->subjects[i].pair.x, &test->order);
        if (status == CM_OK)
            status = p_of(&test->drawn[i], 0, &p[i]);
    }
    for (size_t i = 0; status == CM_OK && i < count; i++) {
        bool own;
        status = find(test, p, i, &own);
        test->subjects[i].alarms += own;
        alarm = alarm || own;
        for (size_t k = 0; status == CM_OK && k < AT_DETECTABLE; k++)
            status = inject(test, i, p, k, cm_pair_margin(&test->subjects[i].pair, fixed[k]));
        if (status == CM_OK && asks)
            status = ask(test, i, p);
    }
    test->alarms += alarm;
    test->asked += asks;
    return status;
}

/* A gate of new runs that are really worse, all metrics at once. */
static enum cm_status try_slowed(struct selftest *test)
{
    double p[CM_GATED_MAX] = {0};
    enum cm_status status = CM_OK;
    draw_order(test, &test->slowed_order);
    for (size_t i = 0; status == CM_OK && i < test->rules.count; i++) {
        status = draw_metric(test, i, &test->subjects[i].slowed.y, &test->slowed_order);
        if (status == CM_OK)
            status = p_of(&test->drawn[i], 0, &p[i]);
    }
    for (size_t i = 0; status == CM_OK && i < test->rules.count; i++) {
        bool found;
        status = find(test, p, i, &found);
        test->subjects[i].found_slowed += found;
    }
    return status;
}

/* ---- telling ---- */

/* By how much they are worse: the shift between all runs of both. */
static double really_worse(const struct subject *subject)
{
    struct cm_shift shift = {.estimate = NAN};
    const struct cm_runs *x = &subject->slowed.x, *y = &subject->slowed.y;
    if (cm_hodges_lehmann(x->values, x->count, y->values, y->count, 0.95, &shift) != CM_OK)
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

/* The median of what the gates said. */
static double detectable_of(const struct subject *subject)
{
    return cm_median(subject->detectable.values, subject->detectable.count);
}

static json_t *subject_json(const struct selftest *test, size_t index)
{
    enum cm_status status = CM_OK;
    const struct subject *subject = &test->subjects[index];
    json_t *object = json_object();
    cm_put(&status, object, "key", cm_result_string(test->rules.metrics[index].key));
    cm_put(&status, object, "runs", json_integer((json_int_t)subject->pair.x.count));
    cm_put(&status, object, "relative", json_boolean(subject->pair.logarithmic));
    cm_put(&status, object, "deviation", cm_json_real(expm1(subject->deviation)));
    cm_put(&status, object, "margin", cm_json_real(expm1(subject->margin)));
    cm_put(&status, object, "false_alarms", share_json(subject->alarms, test->request->trials));
    json_t *rows = cm_put_array(&status, object, "injected");
    double detectable = detectable_of(subject);
    for (size_t k = 0; k < INJECTIONS; k++) {
        bool is_fixed = k < AT_DETECTABLE;
        json_t *row = share_json(subject->found[k], is_fixed ? test->request->trials : test->asked);
        cm_put(&status, row, "worse_by",
               cm_json_real(is_fixed             ? fixed[k]
                            : k == AT_DETECTABLE ? expm1(detectable)
                                                 : expm1(2 * detectable - subject->margin)));
        if (!is_fixed)
            cm_put(&status, row, "what",
                   json_string(k == AT_DETECTABLE ? "detectable" : "twice detectable"));
        cm_push(&status, rows, row);
    }
    if (test->slowed_order.runs > 0) {
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
            cm_binomial_interval(subject->found[AT_DETECTABLE], test->asked, 0.98);
        if (isfinite(detectable_of(subject)) && found.high < POWER)
            reason = "what is said to be found with 80 % is found less often";
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
    cm_put(&status, made, "draw", json_string(test->by_session ? "sessions" : "runs"));
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
        if (status == CM_OK && test->slowed_order.runs > 0)
            status = try_slowed(test);
    }
    if (status == CM_OK)
        status = report(test, document);
    for (size_t i = 0; i < CM_GATED_MAX; i++) {
        cm_pair_release(&test->subjects[i].pair);
        cm_pair_release(&test->subjects[i].slowed);
        cm_samples_release(&test->subjects[i].detectable);
    }
    release_order(&test->order);
    release_order(&test->slowed_order);
    cm_set_release(&test->slowed);
    cm_gate_rules_release(&test->rules);
    cm_set_release(&test->base);
    cm_free(test);
    return status;
}
