/*
 * What a case tells of its devices: how far apart they are, and what their telemetry saw.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/result/fold.h"
#include "host/result/record.h"

/* {"rank": 3, "value": ..., "bus_id": ..., "uuid_hash": ...} */
static void put_place(enum cm_status *status, json_t *object, unsigned rank,
                      const struct cm_rank_names *names)
{
    const struct cm_rank_name *name = rank < names->count ? &names->items[rank] : NULL;
    if (name != NULL && name->bus_id[0] != '\0')
        cm_put(status, object, "bus_id", cm_result_string(name->bus_id));
    if (name != NULL && name->uuid[0] != '\0')
        cm_put(status, object, "uuid_hash", cm_result_string(name->uuid));
}

static void put_rank(enum cm_status *status, json_t *spread, const char *key, unsigned rank,
                     double value, const struct cm_rank_names *names)
{
    json_t *object = cm_put_object(status, spread, key);
    cm_put(status, object, "rank", json_integer(rank));
    cm_put(status, object, "value", cm_json_real(value));
    put_place(status, object, rank, names);
}

/* Whether there are figures `name`.rank<r>: seen at once, however many ranks there are. */
static bool has_ranks(json_t *metrics, const char *name)
{
    char prefix[96];
    const char *key;
    json_t *value;
    snprintf(prefix, sizeof prefix, "%.70s.rank", name);
    json_object_foreach(metrics, key, value)
    {
        if (strncmp(key, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

/* Where at least two ranks have a figure; its object, or NULL. */
static json_t *put_spread(enum cm_status *status, json_t *all, const char *name, bool lower,
                          const double *values, unsigned ranks, const struct cm_rank_names *names)
{
    struct cm_samples known = {.values = NULL};
    unsigned low = 0, high = 0;
    double least = INFINITY, most = -INFINITY;
    json_t *spread = NULL;
    for (unsigned rank = 0; rank < ranks && *status == CM_OK; rank++) {
        if (!isfinite(values[rank]))
            continue;
        *status = cm_samples_add(&known, values[rank]);
        low = values[rank] < least ? rank : low;
        high = values[rank] > most ? rank : high;
        least = fmin(least, values[rank]);
        most = fmax(most, values[rank]);
    }
    if (*status == CM_OK && known.count >= 2) {
        spread = cm_put_object(status, all, name);
        put_rank(status, spread, "worst", lower ? high : low, lower ? most : least, names);
        cm_put(status, spread, "median", cm_json_real(cm_median(known.values, known.count)));
        put_rank(status, spread, "best", lower ? low : high, lower ? least : most, names);
    }
    cm_samples_release(&known);
    return spread;
}

/* Of the figures `name`.rank<r> of few ranks. */
static enum cm_status fill_few(json_t *item, json_t *all, const struct cm_rank_names *names)
{
    enum cm_status status = CM_OK;
    const char *name;
    json_t *metric;
    json_t *metrics = json_object_get(item, "metrics");
    double values[CM_FOLD_ABOVE], ranks = cm_get_number(item, "ranks");
    unsigned count = ranks > CM_FOLD_ABOVE ? CM_FOLD_ABOVE : ranks > 1 ? (unsigned)ranks : 0;
    json_object_foreach(metrics, name, metric)
    {
        if (status != CM_OK || strchr(name, '.') != NULL || !has_ranks(metrics, name))
            continue;
        for (unsigned rank = 0; rank < count; rank++) {
            char label[96];
            snprintf(label, sizeof label, "%.70s.rank%u", name, rank);
            values[rank] = cm_get_number(json_object_get(metrics, label), "value");
        }
        put_spread(&status, all, name, strcmp(cm_get_text(metric, "better"), "lower") == 0, values,
                   count, names);
    }
    return status;
}

/* Of very many ranks: their distribution besides. */
static enum cm_status fill_many(json_t *item, json_t *all, const struct cm_rank_names *names,
                                const struct cm_rank_figures *figures)
{
    enum cm_status status = CM_OK;
    size_t index;
    json_t *outlier;
    double *values = cm_alloc(figures->ranks, sizeof *values);
    if (values == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < figures->count && status == CM_OK; i++) {
        const struct cm_rank_figure *figure = &figures->items[i];
        if (json_object_get(json_object_get(item, "metrics"), figure->name) == NULL)
            continue;
        cm_rank_figure_medians(figures, i, values);
        json_t *spread = put_spread(&status, all, figure->name, figure->better == CM_LOWER, values,
                                    figures->ranks, names);
        if (spread == NULL)
            continue;
        cm_fold_put(&status, spread, values, figures->ranks, figure->better);
        json_array_foreach(json_object_get(spread, "outliers"), index, outlier)
            put_place(&status, outlier, (unsigned)cm_get_number(outlier, "rank"), names);
    }
    cm_free(values);
    return status;
}

enum how { MEDIAN, LEAST, MOST };
static const struct {
    const char *name;
    enum how how;
} telemetry_fields[] = {{"clock", MEDIAN},         {"lowest_clock", LEAST},
                        {"power", MEDIAN},         {"temperature_c", MOST},
                        {"ecc_uncorrected", MOST}, {"throttled_fraction", MOST}};

static const char *const folded_names[] = {
    [MEDIAN] = "median", [LEAST] = "minimum", [MOST] = "maximum"};

/* The largest value's text; of a folded run, that of most ranks. */
static const char *reason_of(const json_t *folded)
{
    const json_t *texts = json_object_get(folded, "throttle_reasons");
    return cm_get_text(json_array_get(texts, 0), "text");
}

/* One field of all ranks in the ok runs, or, of folded ones, what `how` takes of their
 * distribution; the text that belongs to the largest value. */
static enum cm_status collect(const json_t *runs, const char *name, enum how how,
                              struct cm_samples *values, const char **reasons)
{
    enum cm_status status = CM_OK;
    size_t index, rank;
    const json_t *run, *row;
    double most = 0;
    cm_samples_clear(values);
    *reasons = "";
    json_array_foreach(runs, index, run)
    {
        const json_t *folded = json_object_get(json_object_get(run, "folded"), "telemetry");
        double value = cm_get_number(json_object_get(folded, name), folded_names[how]);
        if (strcmp(cm_get_text(run, "status"), cm_case_status_names[CM_CASE_OK]) != 0)
            continue;
        if (isfinite(value) && status == CM_OK)
            status = cm_samples_add(values, value);
        if (value > most) {
            most = value;
            *reasons = reason_of(folded);
        }
        json_array_foreach(json_object_get(run, "telemetry"), rank, row)
        {
            value = cm_get_number(row, name);
            if (!isfinite(value) || status != CM_OK)
                continue;
            status = cm_samples_add(values, value);
            if (value > most) {
                most = value;
                *reasons = cm_get_text(row, "throttle_reasons");
            }
        }
    }
    return status;
}

static enum cm_status fill_telemetry(json_t *item)
{
    enum cm_status status = CM_OK;
    struct cm_samples values = {.values = NULL};
    const char *reasons = "";
    json_t *object = cm_put_object(&status, item, "telemetry");
    for (size_t i = 0; i < sizeof telemetry_fields / sizeof *telemetry_fields; i++) {
        enum how how = telemetry_fields[i].how;
        if (status == CM_OK)
            status = collect(json_object_get(item, "runs"), telemetry_fields[i].name, how, &values,
                             &reasons);
        if (status == CM_OK && values.count > 0)
            cm_put(&status, object, telemetry_fields[i].name,
                   cm_json_real(cm_quantile(values.values, values.count,
                                            how == LEAST  ? 0
                                            : how == MOST ? 1
                                                          : 0.5)));
    }
    /* The last field's. */
    if (reasons[0] != '\0')
        cm_put(&status, object, "throttle_reasons", json_string(reasons));
    cm_samples_release(&values);
    return status;
}

enum cm_status cm_devices_fill(json_t *item, const struct cm_rank_names *names,
                               const struct cm_rank_figures *figures)
{
    enum cm_status status = CM_OK;
    json_t *all = cm_put_object(&status, item, "spread_ranks");
    if (status == CM_OK && figures->count > 0)
        status = fill_many(item, all, names, figures);
    else if (status == CM_OK)
        status = fill_few(item, all, names);
    return status == CM_OK ? fill_telemetry(item) : status;
}

enum cm_status cm_rank_names_note(struct cm_rank_names *names, const struct cm_device_info *devices,
                                  unsigned count)
{
    if (names->items != NULL || devices == NULL || count == 0)
        return CM_OK;
    names->items = cm_alloc(count, sizeof *names->items);
    if (names->items == NULL)
        return CM_NO_MEMORY;
    names->count = count;
    for (unsigned rank = 0; rank < count; rank++) {
        snprintf(names->items[rank].bus_id, sizeof names->items[rank].bus_id, "%s",
                 devices[rank].bus_id);
        snprintf(names->items[rank].uuid, sizeof names->items[rank].uuid, "%s", devices[rank].uuid);
    }
    return CM_OK;
}
