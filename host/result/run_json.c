/* One run of one case as JSON. */
#include <math.h>
#include <string.h>

#include "clustermark/dtype.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/result/fold.h"
#include "host/result/record.h"

static json_t *discard(json_t *value)
{
    json_decref(value);
    return NULL;
}

static json_t *option_value(const struct cm_option *option, const void *fields)
{
    const char *field = (const char *)fields + option->offset;
    switch (option->type) {
    case CM_OPTION_BOOL:
        return json_boolean(*(const bool *)field);
    case CM_OPTION_COUNT:
    case CM_OPTION_SIZE:
        return json_integer((json_int_t) * (const uint64_t *)(const void *)field);
    case CM_OPTION_TIME:
    case CM_OPTION_REAL:
        return cm_json_real(*(const double *)(const void *)field);
    case CM_OPTION_CHOICE:
        return json_string(option->choices[*(const int *)(const void *)field]);
    case CM_OPTION_TEXT:
        return cm_result_string(field);
    }
    return NULL;
}

json_t *cm_params_json(const struct cm_option *table, const void *fields)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    for (; table->name != NULL; table++)
        cm_put(&status, object, table->name, option_value(table, fields));
    return status == CM_OK ? object : discard(object);
}

static json_t *peak_json(const struct cm_peak *peak)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "value", peak->value > 0 ? cm_json_real(peak->value) : json_null());
    cm_put(&status, object, "measured", json_boolean(peak->measured));
    cm_put(&status, object, "source", cm_result_string(peak->source));
    return status == CM_OK ? object : discard(object);
}

static json_t *device_json(const struct cm_device_info *info, unsigned rank)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "rank", json_integer(rank));
    cm_put(&status, object, "name", cm_result_string(info->name));
    cm_put(&status, object, "kind", cm_result_string(info->kind));
    cm_put(&status, object, "bus_id", cm_result_string(info->bus_id));
    if (info->uuid[0] != '\0')
        cm_put(&status, object, "uuid_hash", cm_result_string(info->uuid));
    cm_put(&status, object, "features", cm_result_string(info->features));
    cm_put(&status, object, "units", json_integer(info->units));
    cm_put(&status, object, "clock",
           info->clock_hz > 0 ? cm_json_real(info->clock_hz) : json_null());
    cm_put(&status, object, "memory", json_integer((json_int_t)info->memory_total_bytes));
    cm_put(&status, object, "memory_usable", json_integer((json_int_t)info->memory_bytes));
    cm_put(&status, object, "cache", json_integer((json_int_t)info->cache_bytes));
    cm_put(&status, object, "memory_rate", peak_json(&info->memory_rate));
    json_t *rates = cm_put_object(&status, object, "flop_rate");
    for (int i = 0; i < CM_DTYPE_COUNT; i++) {
        if (info->flop_rate[i].value > 0)
            cm_put(&status, rates, cm_dtype_names[i], peak_json(&info->flop_rate[i]));
    }
    return status == CM_OK ? object : discard(object);
}

/* Devices that are alike but for where they are, for what they call themselves and for what was
 * measured of them. */
static bool alike(const struct cm_device_info *a, const struct cm_device_info *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->kind, b->kind) == 0 &&
           strcmp(a->features, b->features) == 0 && a->units == b->units;
}

/* Rates of the members: those that are measured differ a little, and so may memory. */
static void put_middle(struct cm_device_info *info, const struct cm_device_info *devices,
                       const unsigned *members, size_t count, double *room)
{
    for (size_t m = 0; m < count; m++)
        room[m] = (double)devices[members[m]].memory_total_bytes;
    info->memory_total_bytes = (uint64_t)cm_median(room, count);
    for (size_t m = 0; m < count; m++)
        room[m] = devices[members[m]].memory_rate.value;
    info->memory_rate.value = cm_median(room, count);
    for (int type = 0; type < CM_DTYPE_COUNT; type++) {
        for (size_t m = 0; m < count; m++)
            room[m] = devices[members[m]].flop_rate[type].value;
        info->flop_rate[type].value = cm_median(room, count);
    }
}

/* A row for all devices like that of rank `first`. */
static json_t *group_json(const struct cm_device_info *devices, unsigned count, unsigned first,
                          bool *done, unsigned *members, double *room)
{
    enum cm_status status = CM_OK;
    struct cm_device_info info = devices[first];
    struct cm_ranges ranges = {.first = 0};
    size_t size = 0;
    for (unsigned i = first; i < count; i++) {
        if (done[i] || !alike(&devices[i], &devices[first]))
            continue;
        done[i] = true;
        members[size++] = i;
        cm_ranges_add(&ranges, i);
    }
    put_middle(&info, devices, members, size, room);
    info.bus_id[0] = info.uuid[0] = '\0';
    json_t *object = device_json(&info, first);
    cm_put(&status, object, "count", json_integer((json_int_t)size));
    cm_put(&status, object, "ranks", json_string(cm_ranges_end(&ranges)));
    return status == CM_OK ? object : discard(object);
}

static json_t *groups_json(const struct cm_device_info *devices, unsigned count)
{
    enum cm_status status = CM_OK;
    json_t *array = json_array();
    bool *done = cm_alloc(count, sizeof *done);
    unsigned *members = cm_alloc(count, sizeof *members);
    double *room = cm_alloc(count, sizeof *room);
    if (done == NULL || members == NULL || room == NULL)
        status = CM_NO_MEMORY;
    for (unsigned i = 0; i < count && status == CM_OK; i++) {
        if (!done[i])
            cm_push(&status, array, group_json(devices, count, i, done, members, room));
    }
    cm_free(done);
    cm_free(members);
    cm_free(room);
    return status == CM_OK ? array : discard(array);
}

json_t *cm_devices_json(const struct cm_device_info *devices, unsigned count)
{
    enum cm_status status = CM_OK;
    if (devices != NULL && cm_folds(count))
        return groups_json(devices, count);
    json_t *array = json_array();
    for (unsigned i = 0; devices != NULL && i < count; i++)
        cm_push(&status, array, device_json(&devices[i], i));
    return status == CM_OK ? array : discard(array);
}

static json_t *numbers_json(const double *values, size_t count)
{
    enum cm_status status = CM_OK;
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        cm_push(&status, array, cm_json_real(values[i]));
    return status == CM_OK ? array : discard(array);
}

static void put_samples(enum cm_status *status, json_t *object, const struct cm_part_samples *part)
{
    cm_put(status, object, "samples_s", numbers_json(part->slowest.values, part->slowest.count));
    if (part->rank_median_s != NULL && cm_folds(part->rank_count)) {
        json_t *folded = cm_put_object(status, object, "folded");
        cm_put(status, folded, "rank_median_s",
               cm_fold_json(part->rank_median_s, part->rank_count, CM_LOWER));
    } else if (part->rank_median_s != NULL) {
        cm_put(status, object, "rank_median_s",
               numbers_json(part->rank_median_s, part->rank_count));
    }
    if (part->ranks == NULL || part->rank_count > CM_RANK_SAMPLES_MAX)
        return;
    json_t *ranks = cm_put_array(status, object, "rank_samples_s");
    for (unsigned i = 0; i < part->rank_count; i++)
        cm_push(status, ranks, numbers_json(part->ranks[i].values, part->ranks[i].count));
}

static json_t *work_json(const struct cm_work *work)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "flops", cm_json_real(work->flops));
    cm_put(&status, object, "bytes", cm_json_real(work->bytes));
    cm_put(&status, object, "message_bytes", cm_json_real(work->message_bytes));
    cm_put(&status, object, "operations",
           cm_json_real(work->operations > 0 ? work->operations : 1));
    return status == CM_OK ? object : discard(object);
}

static json_t *part_json(const struct cm_part_samples *part)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "name", cm_result_string(part->part.name));
    cm_put(&status, object, "work", work_json(&part->work));
    put_samples(&status, object, part);
    return status == CM_OK ? object : discard(object);
}

static json_t *metrics_json(const struct cm_metrics *metrics, bool fold)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    for (size_t i = 0; i < metrics->count; i++) {
        const struct cm_metric *metric = &metrics->items[i];
        unsigned rank;
        if (fold && cm_rank_label(metric->name, &rank) > 0)
            continue;
        json_t *row = cm_put_object(&status, object, metric->name);
        cm_put(&status, row, "value", cm_json_real(metric->value));
        cm_put(&status, row, "unit", cm_result_string(metric->unit));
        cm_put(&status, row, "better", json_string(cm_better_name(metric->better)));
        if (metric->ceiling > 0)
            cm_put(&status, row, "ceiling", cm_json_real(metric->ceiling));
        if (metric->ceiling_source[0] != '\0')
            cm_put(&status, row, "ceiling_source", cm_result_string(metric->ceiling_source));
    }
    return status == CM_OK ? object : discard(object);
}

/* A field that is not known is left out. */
static void put_known(enum cm_status *status, json_t *object, const char *key, double value)
{
    if (isfinite(value))
        cm_put(status, object, key, cm_json_real(value));
}

static json_t *telemetry_json(const struct cm_telemetry *row)
{
    const struct {
        const char *name;
        double value;
    } fields[] = {
        {"clock", row->clock_hz},
        {"lowest_clock", row->lowest_clock_hz},
        {"memory_clock", row->memory_clock_hz},
        {"power", row->power_w},
        {"power_limit", row->power_limit_w},
        {"energy", row->energy_j},
        {"temperature_c", row->temperature_c},
        {"steal_fraction", row->steal_fraction},
        {"switches_per_s", row->switches_per_s},
        {"throttled_fraction", row->throttled_fraction},
        {"ecc_corrected", row->ecc_corrected},
        {"ecc_uncorrected", row->ecc_uncorrected},
        {"remapped_rows", row->remapped_rows},
        {"pcie_generation", row->pcie_generation},
        {"pcie_width", row->pcie_width},
        {"nvlinks_active", row->nvlinks_active},
        {"samples", row->samples},
    };
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        put_known(&status, object, fields[i].name, fields[i].value);
    if (row->throttle_reasons[0] != '\0')
        cm_put(&status, object, "throttle_reasons", cm_result_string(row->throttle_reasons));
    if (row->modes[0] != '\0')
        cm_put(&status, object, "modes", cm_result_string(row->modes));
    return status == CM_OK ? object : discard(object);
}

static json_t *check_json(const struct cm_check *check)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "checked", json_integer((json_int_t)check->checked));
    cm_put(&status, object, "mismatches", json_integer((json_int_t)check->mismatches));
    cm_put(&status, object, "worst", cm_json_real(check->worst));
    if (check->nothing[0] != '\0')
        cm_put(&status, object, "nothing", cm_result_string(check->nothing));
    if (check->detail[0] != '\0')
        cm_put(&status, object, "detail", cm_result_string(check->detail));
    return status == CM_OK ? object : discard(object);
}

/* How far the middle half of the iterations lies apart, relative to their median. Several parts
 * have no common spread. */
static json_t *spread_json(const struct cm_case_run *run)
{
    const struct cm_samples *samples = &run->parts[0].slowest;
    double median = cm_median(samples->values, samples->count);
    if (run->part_count != 1 || samples->count < 2 || !(median > 0))
        return json_null();
    return cm_json_real((cm_quantile(samples->values, samples->count, 0.75) -
                         cm_quantile(samples->values, samples->count, 0.25)) /
                        median);
}

static void put_parts(enum cm_status *status, json_t *object, const struct cm_case_run *run)
{
    if (run->parts == NULL || run->part_count == 0)
        return;
    put_samples(status, object, &run->parts[0]);
    cm_put(status, object, "spread", spread_json(run));
    if (run->part_count == 1) {
        cm_put(status, object, "work", work_json(&run->parts[0].work));
        return;
    }
    json_t *parts = cm_put_array(status, object, "parts");
    for (unsigned i = 0; i < run->part_count; i++)
        cm_push(status, parts, part_json(&run->parts[i]));
}

static void put_ranks(enum cm_status *status, json_t *object, const struct cm_case_run *run)
{
    if (cm_folds(run->rank_count)) {
        cm_fold_run(status, object, run);
        return;
    }
    if (run->telemetry != NULL) {
        json_t *telemetry = cm_put_array(status, object, "telemetry");
        for (unsigned i = 0; i < run->rank_count; i++)
            cm_push(status, telemetry, telemetry_json(&run->telemetry[i]));
    }
    if (run->bindings != NULL) {
        json_t *bindings = cm_put_array(status, object, "bindings");
        for (unsigned i = 0; i < run->rank_count; i++)
            cm_push(status, bindings,
                    run->bindings[i] != NULL ? cm_result_string(run->bindings[i]) : json_null());
    }
}

json_t *cm_run_json(const struct cm_case_run *run)
{
    enum cm_status status = CM_OK;
    char stamp[CM_STAMP_MAX];
    json_t *object = json_object();
    cm_result_stamp(run->started_unix_s, false, stamp);
    cm_put(&status, object, "run", json_integer((json_int_t)run->run));
    cm_put(&status, object, "status", json_string(cm_case_status_names[run->status]));
    cm_put(&status, object, "reason", cm_result_string(run->reason));
    cm_put(&status, object, "started", json_string(stamp));
    cm_put(&status, object, "wall_s", cm_json_real(run->wall_s));
    json_t *warmup = cm_put_object(&status, object, "warmup");
    cm_put(&status, warmup, "iterations", json_integer((json_int_t)run->warmup_iterations));
    cm_put(&status, warmup, "time_s", cm_json_real(run->warmup_s));
    cm_put(&status, object, "stop_reason", cm_result_string(run->stop_reason));
    cm_put(&status, object, "algorithm", cm_result_string(run->algorithm));
    put_parts(&status, object, run);
    cm_put(&status, object, "metrics", metrics_json(&run->metrics, cm_folds(run->rank_count)));
    put_ranks(&status, object, run);
    cm_put(&status, object, "check", check_json(&run->check));
    return status == CM_OK ? object : discard(object);
}
