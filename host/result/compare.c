/* Machines held against each other: a row per metric, the first set being the reference. */
#include "host/result/compare.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/price.h"
#include "host/result/record.h"

#define LEVEL 0.95
#define POWER 0.8
/* Sets side by side. */
#define SETS_MAX 16

struct comparison {
    const struct cm_compare_request *request;
    struct cm_set sets[SETS_MAX];
    struct cm_price prices[SETS_MAX];
    size_t count;
    struct cm_differences differences;
    json_t *document;
};

/* "2=..." or "name=...", the sets that are meant; without a name all of them. */
static enum cm_status find_set(const struct comparison *comparison, const char *option,
                               const char *text, size_t *first, size_t *last, const char **rest)
{
    const char *equals = strchr(text, '=');
    *first = 0;
    *last = comparison->count;
    *rest = text;
    if (equals == NULL)
        return CM_OK;
    size_t length = (size_t)(equals - text);
    *rest = equals + 1;
    for (size_t i = 0; i < comparison->count; i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i + 1);
        const char *names[] = {number, comparison->sets[i].name};
        for (size_t k = 0; k < 2; k++) {
            if (strlen(names[k]) == length && strncmp(names[k], text, length) == 0) {
                *first = i;
                *last = i + 1;
                return CM_OK;
            }
        }
    }
    return cm_error(CM_USAGE,
                    "%s: no results called '%.*s'; give a number from 1 to %zu, or a name", option,
                    length > 60 ? 60 : (int)length, text, comparison->count);
}

static enum cm_status
set_prices(struct comparison *comparison, const char *option, const struct cm_texts *texts,
           enum cm_status (*read)(const char *, const char *, struct cm_price *))
{
    for (size_t i = 0; i < texts->count; i++) {
        size_t first, last;
        const char *rest;
        struct cm_price price;
        enum cm_status status = find_set(comparison, option, texts->items[i], &first, &last, &rest);
        if (status == CM_OK)
            status = read(rest, option, &price);
        if (status != CM_OK)
            return status;
        for (size_t s = first; s < last; s++)
            comparison->prices[s] = price;
    }
    return CM_OK;
}

static enum cm_status add_prices(struct comparison *comparison)
{
    const struct cm_compare_request *request = comparison->request;
    const struct cm_price *first = NULL;
    enum cm_status status =
        set_prices(comparison, "--instance", &request->instances, cm_price_find);
    if (status == CM_OK)
        status = set_prices(comparison, "--price", &request->prices, cm_price_parse);
    for (size_t i = 0; status == CM_OK && i < comparison->count; i++) {
        const struct cm_price *price = &comparison->prices[i];
        if (!(price->per_hour > 0))
            continue;
        first = first != NULL ? first : price;
        if (strcmp(price->currency, first->currency) != 0)
            return cm_error(CM_USAGE,
                            "prices in %s and %s cannot be compared; give all in one currency",
                            first->currency, price->currency);
        status = cm_price_add(&comparison->sets[i], price);
    }
    return status;
}

static enum cm_status load_sets(struct comparison *comparison)
{
    const struct cm_texts *paths = &comparison->request->paths;
    if (paths->count < 2 || paths->count > SETS_MAX)
        return cm_error(CM_USAGE, "compare: %zu results; give 2 to %d files or folders",
                        paths->count, SETS_MAX);
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < paths->count; i++) {
        status = cm_set_add_paths(&comparison->sets[i], &paths->items[i], 1);
        comparison->count = i + 1;
        if (status == CM_OK)
            cm_set_trim(&comparison->sets[i], CM_RUNS_LIMIT);
    }
    return status;
}

static json_t *price_json(const struct cm_price *price)
{
    if (!(price->per_hour > 0))
        return json_null();
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "per_hour", cm_json_real(price->per_hour));
    cm_put(&status, object, "currency", json_string(price->currency));
    if (price->instance[0] != '\0')
        cm_put(&status, object, "instance", cm_result_string(price->instance));
    cm_put(&status, object, "date", cm_result_string(price->date));
    cm_put(&status, object, "source", cm_result_string(price->source));
    return object;
}

/* ---- a metric ---- */

const char *const cm_level_names[CM_LEVELS] = {"node", "session", "run", "iteration"};

static void put_variances(enum cm_status *status, json_t *object, const struct cm_set *set,
                          const struct cm_series *series)
{
    struct cm_variances parts = {.nodes = 0};
    if (*status == CM_OK)
        *status = cm_series_variances(set, series, &parts);
    double sum = 0;
    const double values[] = {parts.node, parts.session, parts.run, parts.iteration};
    for (size_t i = 0; i < CM_LEVELS; i++)
        sum += isfinite(values[i]) ? values[i] : 0;
    json_t *shares = cm_put_object(status, object, "variance_shares");
    for (size_t i = 0; i < CM_LEVELS; i++)
        cm_put(status, shares, cm_level_names[i], cm_json_real(sum > 0 ? values[i] / sum : NAN));
    cm_put(status, object, "nodes", json_integer((json_int_t)parts.nodes));
    cm_put(status, object, "sessions", json_integer((json_int_t)parts.sessions));
}

/* What one set says of a metric; null where it has none. */
static json_t *figure_json(enum cm_status *status, const struct cm_set *set,
                           const struct cm_series *series)
{
    double *values = series != NULL && series->count > 0 ? cm_series_values(series) : NULL;
    if (values == NULL)
        return json_null();
    json_t *object = json_object();
    cm_put_figures(status, object, values, series->count);
    cm_free(values);
    put_variances(status, object, set, series);
    return object;
}

enum cm_status cm_put_more(const struct cm_pair *pair, const struct cm_more *more, json_t *row)
{
    struct cm_power power = {.deviation = pair->deviation, .risk = more->risk, .power = POWER};
    size_t runs = 4; /* the fewest of each that can decide at 5 % on two sides */
    enum cm_status status = CM_OK;
    if (isfinite(pair->deviation))
        status = cm_runs_needed(&power, more->both ? 0 : pair->x.count, more->distance, &runs);
    if (status != CM_OK)
        return status;
    size_t base = more->both && runs > pair->x.count ? runs - pair->x.count : 0;
    size_t other = runs > pair->y.count ? runs - pair->y.count : 0;
    size_t most = base > other ? base : other;
    /* What the estimate calls enough was not. */
    most = most == 0 && runs > 0 ? 1 : most;
    double base_s = cm_series_run_s(pair->base), other_s = cm_series_run_s(pair->other);
    cm_put(&status, row, "more_runs", runs > 0 ? json_integer((json_int_t)most) : json_null());
    cm_put(&status, row, "more_s",
           cm_json_real(runs > 0 ? (double)most * fmax(more->both ? base_s : 0, other_s) : NAN));
    return status;
}

static enum cm_status paired_shift(const struct cm_pair *pair, struct cm_shift *shift, double *p)
{
    double differences[20];
    if (pair->x.count != pair->y.count || pair->x.count > 20 || pair->x.count < 2) {
        return cm_error(CM_USAGE,
                        "--paired: %s has %zu and %zu runs; pairs need the same number, 2 to 20",
                        pair->base->key, pair->x.count, pair->y.count);
    }
    for (size_t i = 0; i < pair->x.count; i++)
        differences[i] = pair->y.values[i] - pair->x.values[i];
    return cm_sign_flip(differences, pair->x.count, 0, LEVEL, shift, p);
}

static void put_shift(enum cm_status *status, json_t *row, const struct cm_pair *pair,
                      const struct cm_shift *shift)
{
    struct cm_interval changes = cm_pair_changes(pair, &shift->interval);
    cm_put(status, row, "change", cm_json_real(cm_pair_change(pair, shift->estimate)));
    cm_put(status, row, "relative", json_boolean(pair->logarithmic));
    json_t *interval = json_null();
    if (changes.coverage > 0)
        interval = json_pack("{s:f, s:f, s:f}", "low", changes.low, "high", changes.high,
                             "coverage", changes.coverage);
    cm_put(status, row, "interval", interval);
}

/* A set against the first. */
static enum cm_status judge(const struct comparison *comparison, const struct cm_series *base,
                            const struct cm_series *other, json_t *row)
{
    static const char *const names[] = {"better", "worse", "same", "unknown", "none"};
    struct cm_pair pair;
    struct cm_shift shift = {.estimate = NAN};
    double p = NAN, margin = comparison->request->margin;
    enum cm_status status = cm_pair_make(base, other, &pair);
    if (status != CM_OK)
        return status;
    if (comparison->request->paired)
        status = paired_shift(&pair, &shift, &p);
    else
        status = cm_hodges_lehmann(pair.x.values, pair.x.count, pair.y.values, pair.y.count, LEVEL,
                                   &shift);
    if (status == CM_OK) {
        enum cm_pair_verdict verdict = cm_pair_judge(&pair, &shift, margin);
        put_shift(&status, row, &pair, &shift);
        cm_put(&status, row, "verdict", json_string(names[verdict]));
        cm_put(&status, row, "word", json_string(cm_pair_word(verdict, base->unit)));
        if (isfinite(p))
            cm_put(&status, row, "paired_p", cm_json_real(fmin(2 * fmin(p, 1 - p), 1)));
        double own = cm_pair_margin(&pair, margin), seen = fabs(shift.estimate);
        struct cm_more more = {
            .risk = (1 - LEVEL) / 2, .distance = fmax(seen, own - seen), .both = true};
        if (status == CM_OK && verdict == CM_PAIR_UNKNOWN)
            status = cm_put_more(&pair, &more, row);
    }
    cm_pair_release(&pair);
    return status;
}

/* Whether set `best` is better than set `other`, at a level that allows for asking all others. */
static enum cm_status beats(const struct cm_series *best, const struct cm_series *other,
                            size_t others, bool *yes)
{
    struct cm_pair pair;
    struct cm_shift shift;
    enum cm_status status = cm_pair_make(best, other, &pair);
    if (status != CM_OK)
        return status;
    status = cm_hodges_lehmann(pair.x.values, pair.x.count, pair.y.values, pair.y.count,
                               1 - (1 - LEVEL) / (double)others, &shift);
    *yes = status == CM_OK && shift.interval.coverage > 0 && shift.interval.low > 0;
    cm_pair_release(&pair);
    return status;
}

/* The index of the best set, where it is better than every other that has the metric; else null. */
static enum cm_status find_best(const struct cm_series *const *series, size_t count, json_t *row)
{
    size_t best = count, having = 0;
    double best_value = 0;
    for (size_t i = 0; i < count; i++) {
        double *values =
            series[i] != NULL && series[i]->count > 0 ? cm_series_values(series[i]) : NULL;
        if (values == NULL)
            continue;
        double median = cm_median(values, series[i]->count);
        if (having++ == 0 ||
            (series[i]->better == CM_HIGHER ? median > best_value : median < best_value)) {
            best = i;
            best_value = median;
        }
        cm_free(values);
    }
    bool alone = having > 1 && series[best]->better != CM_NEITHER;
    enum cm_status status = CM_OK;
    for (size_t i = 0; alone && status == CM_OK && i < count; i++) {
        if (i != best && series[i] != NULL && series[i]->count > 0)
            status = beats(series[best], series[i], having - 1, &alone);
    }
    cm_put(&status, row, "best", alone ? json_integer((json_int_t)best) : json_null());
    return status;
}

static enum cm_status metric_json(struct comparison *comparison, const char *key, json_t *row)
{
    const struct cm_series *series[SETS_MAX], *first = NULL;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < comparison->count; i++) {
        series[i] = cm_set_find(&comparison->sets[i], key);
        first = first == NULL ? series[i] : first;
    }
    static const char *const better[] = {
        [CM_LOWER] = "lower", [CM_HIGHER] = "higher", [CM_NEITHER] = "neither"};
    cm_put(&status, row, "key", cm_result_string(key));
    cm_put(&status, row, "subject", cm_result_string(first->subject));
    cm_put(&status, row, "metric", cm_result_string(first->metric));
    cm_put(&status, row, "workload", cm_result_string(first->workload));
    cm_put(&status, row, "unit", cm_result_string(first->unit));
    cm_put(&status, row, "better", json_string(better[first->better]));
    json_t *figures = cm_put_array(&status, row, "sets");
    json_t *against = cm_put_array(&status, row, "against_first");
    for (size_t i = 0; i < comparison->count; i++) {
        const struct cm_series *base = series[0];
        bool both =
            i > 0 && base != NULL && series[i] != NULL && base->count > 0 && series[i]->count > 0;
        json_t *object = both ? json_object() : json_null();
        cm_push(&status, figures, figure_json(&status, &comparison->sets[i], series[i]));
        cm_push(&status, against, object);
        if (both && status == CM_OK)
            status = judge(comparison, base, series[i], object);
    }
    return status == CM_OK ? find_best(series, comparison->count, row) : status;
}

static bool skipped(const struct comparison *comparison, const struct cm_series *series)
{
    const char *only = comparison->request->only;
    if (only != NULL && fnmatch(only, series->key, 0) != 0)
        return true;
    for (size_t i = 0; i < comparison->differences.count; i++) {
        const char *key = comparison->differences.rows[i].key;
        if (strncmp(key, "unit:", 5) == 0 && strcmp(key + 5, series->key) == 0)
            return true;
    }
    return false;
}

/* Metrics in the order of the first set, then what only later ones have. */
static enum cm_status add_metrics(struct comparison *comparison, json_t *metrics)
{
    enum cm_status status = CM_OK;
    json_t *done = json_object();
    for (size_t s = 0; s < comparison->count; s++) {
        const struct cm_set *set = &comparison->sets[s];
        for (size_t i = 0; status == CM_OK && i < set->series_count; i++) {
            const struct cm_series *series = &set->series[i];
            if (json_object_get(done, series->key) != NULL || skipped(comparison, series))
                continue;
            json_t *row = json_object();
            cm_put(&status, done, series->key, json_true());
            cm_push(&status, metrics, row);
            if (status == CM_OK)
                status = metric_json(comparison, series->key, row);
        }
    }
    json_decref(done);
    return status;
}

static enum cm_status build(struct comparison *comparison)
{
    enum cm_status status = CM_OK;
    const struct cm_compare_request *request = comparison->request;
    json_t *document = comparison->document = json_object(), *rows = NULL;
    bool comparable = comparison->differences.forbidden == 0;
    cm_put(&status, document, "schema", json_string("clustermark.compare"));
    cm_put(&status, document, "version", json_string("1.0"));
    cm_put(&status, document, "margin", cm_json_real(request->margin));
    cm_put(&status, document, "level", cm_json_real(LEVEL));
    cm_put(&status, document, "paired", json_boolean(request->paired));
    cm_put(&status, document, "comparable", json_boolean(comparable));
    json_t *sets = cm_put_array(&status, document, "sets");
    for (size_t i = 0; i < comparison->count; i++) {
        json_t *object = cm_set_json(&comparison->sets[i]);
        cm_push(&status, sets, object);
        cm_put(&status, object, "price", price_json(&comparison->prices[i]));
    }
    if (status == CM_OK)
        status = cm_differences_json(&comparison->differences, &rows);
    cm_put(&status, document, "differences", rows);
    json_t *metrics = cm_put_array(&status, document, "metrics");
    if (status == CM_OK && comparable)
        status = add_metrics(comparison, metrics);
    return status;
}

enum cm_status cm_compare(const struct cm_compare_request *request, json_t **document)
{
    struct comparison *comparison = cm_alloc(1, sizeof *comparison);
    if (comparison == NULL)
        return CM_NO_MEMORY;
    comparison->request = request;
    enum cm_status status = load_sets(comparison);
    if (status == CM_OK && request->paired && comparison->count != 2)
        status =
            cm_error(CM_USAGE, "--paired: pairs need two sets of runs, not %zu", comparison->count);
    if (status == CM_OK)
        status = add_prices(comparison);
    if (status == CM_OK)
        status = cm_differences_find(comparison->sets, comparison->count, CM_USE_COMPARE,
                                     request->allowed.items, request->allowed.count,
                                     &comparison->differences);
    if (status == CM_OK)
        status = build(comparison);
    if (status == CM_OK) {
        *document = comparison->document;
        comparison->document = NULL;
    }
    json_decref(comparison->document);
    cm_differences_release(&comparison->differences);
    for (size_t i = 0; i < comparison->count; i++)
        cm_set_release(&comparison->sets[i]);
    cm_free(comparison);
    return status;
}
