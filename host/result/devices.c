/*
 * What a case tells of its devices: how far apart they are, and what their telemetry saw.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/stats.h"
#include "host/result/record.h"

/* {"rank": 3, "value": ..., "bus_id": ..., "uuid_hash": ...} */
static void put_rank(enum cm_status *status, json_t *spread, const char *key, unsigned rank,
                     double value, const json_t *devices)
{
    const json_t *device = json_array_get(devices, rank);
    json_t *object = cm_put_object(status, spread, key);
    cm_put(status, object, "rank", json_integer(rank));
    cm_put(status, object, "value", cm_json_real(value));
    static const char *const names[] = {"bus_id", "uuid_hash"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = cm_get_text(device, names[i]);
        if (text[0] != '\0')
            cm_put(status, object, names[i], json_string(text));
    }
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

/* Of the figures `name`.rank<r>, where at least two ranks have one. */
static enum cm_status put_spread(json_t *all, const json_t *metrics, const char *name,
                                 unsigned ranks, const json_t *devices)
{
    struct cm_samples values = {.values = NULL};
    enum cm_status status = CM_OK;
    unsigned low = 0, high = 0;
    double least = INFINITY, most = -INFINITY;
    for (unsigned rank = 0; rank < ranks && status == CM_OK; rank++) {
        char label[96];
        snprintf(label, sizeof label, "%.70s.rank%u", name, rank);
        double value = cm_get_number(json_object_get(metrics, label), "value");
        if (!isfinite(value))
            continue;
        status = cm_samples_add(&values, value);
        low = value < least ? rank : low;
        high = value > most ? rank : high;
        least = fmin(least, value);
        most = fmax(most, value);
    }
    if (status == CM_OK && values.count >= 2) {
        const char *better = cm_get_text(json_object_get(metrics, name), "better");
        bool lower = strcmp(better, "lower") == 0;
        json_t *spread = cm_put_object(&status, all, name);
        put_rank(&status, spread, "worst", lower ? high : low, lower ? most : least, devices);
        cm_put(&status, spread, "median", cm_json_real(cm_median(values.values, values.count)));
        put_rank(&status, spread, "best", lower ? low : high, lower ? least : most, devices);
    }
    cm_samples_release(&values);
    return status;
}

static enum cm_status fill_spreads(json_t *item, const json_t *devices)
{
    enum cm_status status = CM_OK;
    const char *name;
    json_t *metric;
    json_t *metrics = json_object_get(item, "metrics");
    double ranks = cm_get_number(item, "ranks");
    json_t *all = cm_put_object(&status, item, "spread_ranks");
    json_object_foreach(metrics, name, metric)
    {
        if (status == CM_OK && strchr(name, '.') == NULL && has_ranks(metrics, name))
            status = put_spread(all, metrics, name, ranks > 1 ? (unsigned)ranks : 0, devices);
    }
    return status;
}

enum how { MEDIAN, LEAST, MOST };
static const struct {
    const char *name;
    enum how how;
} telemetry_fields[] = {{"clock", MEDIAN},         {"lowest_clock", LEAST},
                        {"power", MEDIAN},         {"temperature_c", MOST},
                        {"ecc_uncorrected", MOST}, {"throttled_fraction", MOST}};

/* One field of all ranks in the ok runs; the text that belongs to the largest value. */
static enum cm_status collect(const json_t *runs, const char *name, struct cm_samples *values,
                              const char **reasons)
{
    enum cm_status status = CM_OK;
    size_t index, rank;
    const json_t *run, *row;
    double most = 0;
    cm_samples_clear(values);
    *reasons = "";
    json_array_foreach(runs, index, run)
    {
        if (strcmp(cm_get_text(run, "status"), cm_case_status_names[CM_CASE_OK]) != 0)
            continue;
        json_array_foreach(json_object_get(run, "telemetry"), rank, row)
        {
            double value = cm_get_number(row, name);
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
            status =
                collect(json_object_get(item, "runs"), telemetry_fields[i].name, &values, &reasons);
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

enum cm_status cm_devices_fill(json_t *cases, const json_t *devices)
{
    enum cm_status status = CM_OK;
    size_t index;
    json_t *item;
    json_array_foreach(cases, index, item)
    {
        if (status == CM_OK)
            status = fill_spreads(item, devices);
        if (status == CM_OK)
            status = fill_telemetry(item);
    }
    return status;
}
