/*
 * A case run from a line of JSON. Types, ranges and lengths of everything are checked, for the line
 * comes from another process.
 */
#include <math.h>

#include "clustermark/dtype.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/measure/wire.h"

static enum cm_status get_array(const json_t *object, const char *key, const json_t **array)
{
    *array = json_object_get(object, key);
    return json_is_array(*array) ? CM_OK : cm_error(CM_USAGE, "\"%s\" is not a list", key);
}

/* A list with one entry per rank. */
static enum cm_status get_per_rank(const json_t *object, const char *key, unsigned ranks,
                                   const json_t **array)
{
    enum cm_status status = get_array(object, key, array);
    if (status == CM_OK && json_array_size(*array) != ranks)
        return cm_error(CM_USAGE, "\"%s\" has %zu entries for %u ranks", key,
                        json_array_size(*array), ranks);
    return status;
}

static enum cm_status read_reals(const json_t *array, const char *key, double *values)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_number(value) && !json_is_null(value))
            return cm_error(CM_USAGE, "\"%s\" holds something that is not a number", key);
        values[i] = json_is_null(value) ? (double)NAN : json_number_value(value);
    }
    return CM_OK;
}

static enum cm_status read_samples(const json_t *array, const char *key, struct cm_samples *samples)
{
    if (!json_is_array(array))
        return cm_error(CM_USAGE, "\"%s\" is not a list", key);
    size_t count = json_array_size(array);
    if (count == 0)
        return CM_OK;
    if (cm_grow(&samples->values, &samples->capacity, count, sizeof *samples->values) != 0)
        return CM_NO_MEMORY;
    samples->count = count;
    return read_reals(array, key, samples->values);
}

static enum cm_status read_part_ranks(const json_t *object, struct cm_part_samples *part)
{
    const json_t *ranks, *medians;
    enum cm_status status = get_array(object, "ranks_s", &ranks);
    if (status != CM_OK)
        return status;
    size_t samples = json_array_size(ranks);
    size_t count = json_array_size(json_object_get(object, "rank_median_s"));
    if (count > UINT32_MAX || samples > UINT32_MAX)
        return cm_error(CM_USAGE, "\"ranks_s\" has %zu entries", samples);
    /* Of very many ranks the medians come alone. */
    count = samples != 0 ? samples : count;
    status = get_per_rank(object, "rank_median_s", (unsigned)count, &medians);
    if (status != CM_OK || count == 0)
        return status;
    part->ranks = samples > 0 ? cm_alloc(count, sizeof *part->ranks) : NULL;
    part->rank_median_s = cm_alloc(count, sizeof *part->rank_median_s);
    if ((samples > 0 && part->ranks == NULL) || part->rank_median_s == NULL)
        return CM_NO_MEMORY;
    part->rank_count = (unsigned)count;
    for (size_t r = 0; r < samples && status == CM_OK; r++) {
        status = read_samples(json_array_get(ranks, r), "ranks_s", &part->ranks[r]);
        if (status == CM_OK && part->ranks[r].count != 0 &&
            part->ranks[r].count != part->slowest.count)
            status = cm_error(CM_USAGE, "\"ranks_s\" differ in length from \"slowest_s\"");
    }
    return status == CM_OK ? read_reals(medians, "rank_median_s", part->rank_median_s) : status;
}

static enum cm_status read_part(const json_t *object, struct cm_part_samples *part)
{
    enum cm_status status = cm_fields_read(cm_wire_part, object, &part->part);
    if (status == CM_OK)
        status = cm_fields_read_in(cm_wire_work, object, "work", &part->work);
    if (status == CM_OK)
        status = cm_fields_read(cm_wire_median, object, part);
    if (status == CM_OK)
        status = read_samples(json_object_get(object, "slowest_s"), "slowest_s", &part->slowest);
    return status == CM_OK ? read_part_ranks(object, part) : status;
}

static enum cm_status read_parts(const json_t *object, struct cm_case_run *run)
{
    const json_t *array;
    enum cm_status status = get_array(object, "parts", &array);
    if (status != CM_OK)
        return status;
    size_t count = json_array_size(array);
    run->parts = cm_alloc(count, sizeof *run->parts);
    if (run->parts == NULL)
        return CM_NO_MEMORY;
    run->part_count = (unsigned)count;
    for (size_t p = 0; p < count && status == CM_OK; p++) {
        struct cm_part_samples *part = &run->parts[p];
        status = read_part(json_array_get(array, p), part);
        if (status == CM_OK && part->rank_count != 0 && part->rank_count != run->rank_count)
            status =
                cm_error(CM_USAGE, "a part has %u ranks of %u", part->rank_count, run->rank_count);
    }
    return status;
}

static enum cm_status read_metrics(const json_t *object, struct cm_metrics *metrics)
{
    const json_t *array;
    enum cm_status status = get_array(object, "metrics", &array);
    for (size_t i = 0; status == CM_OK && i < json_array_size(array); i++) {
        struct cm_metric metric, *added;
        status = cm_fields_read(cm_wire_metric, json_array_get(array, i), &metric);
        if (status == CM_OK && metric.name[0] == '\0')
            status = cm_error(CM_USAGE, "a metric has no name");
        if (status == CM_OK && cm_metrics_find(metrics, metric.name) != NULL)
            status = cm_error(CM_USAGE, "metric \"%s\" is there twice", metric.name);
        if (status == CM_OK)
            status = cm_metrics_add(metrics, metric.name, metric.value, metric.unit, metric.better,
                                    &added);
        if (status == CM_OK)
            *added = metric;
    }
    return status;
}

/* Ranks that there are not would be looked up later. */
static enum cm_status read_suspects(const json_t *object, struct cm_case_run *run)
{
    const json_t *array;
    enum cm_status status = get_array(object, "suspects", &array);
    for (size_t i = 0; status == CM_OK && i < json_array_size(array); i++) {
        struct cm_suspect suspect;
        status = cm_fields_read(cm_wire_suspect, json_array_get(array, i), &suspect);
        if (status == CM_OK && (suspect.rank >= run->rank_count ||
                                (suspect.peer >= run->rank_count && suspect.peer != CM_NO_PEER)))
            status =
                cm_error(CM_USAGE, "a suspect is rank %u of %u", suspect.rank, run->rank_count);
        if (status == CM_OK)
            status = cm_suspects_add(&run->suspects, &suspect);
    }
    return status;
}

static enum cm_status read_device(const json_t *object, struct cm_device_info *device)
{
    const json_t *rates;
    enum cm_status status = cm_fields_read(cm_wire_device, object, device);
    if (status == CM_OK)
        status = cm_fields_read_in(cm_wire_peak, object, "memory_rate", &device->memory_rate);
    if (status == CM_OK)
        status = get_array(object, "flop_rate", &rates);
    if (status == CM_OK && json_array_size(rates) != CM_DTYPE_COUNT)
        return cm_error(CM_USAGE, "\"flop_rate\" has %zu entries, not one per type",
                        json_array_size(rates));
    for (size_t i = 0; status == CM_OK && i < CM_DTYPE_COUNT; i++)
        status = cm_fields_read(cm_wire_peak, json_array_get(rates, i), &device->flop_rate[i]);
    return status;
}

static enum cm_status read_per_rank(const json_t *object, struct cm_case_run *run)
{
    const json_t *telemetry, *devices, *bindings;
    unsigned ranks = run->rank_count;
    enum cm_status status = get_per_rank(object, "telemetry", ranks, &telemetry);
    if (status == CM_OK)
        status = get_per_rank(object, "devices", ranks, &devices);
    if (status == CM_OK)
        status = get_per_rank(object, "bindings", ranks, &bindings);
    if (status != CM_OK)
        return status;
    run->telemetry = cm_alloc(ranks, sizeof *run->telemetry);
    run->devices = cm_alloc(ranks, sizeof *run->devices);
    run->bindings = cm_alloc(ranks, sizeof *run->bindings);
    if (run->telemetry == NULL || run->devices == NULL || run->bindings == NULL)
        return CM_NO_MEMORY;
    for (unsigned r = 0; r < ranks && status == CM_OK; r++) {
        const char *binding = json_string_value(json_array_get(bindings, r));
        status =
            cm_fields_read(cm_wire_telemetry, json_array_get(telemetry, r), &run->telemetry[r]);
        if (status == CM_OK)
            status = read_device(json_array_get(devices, r), &run->devices[r]);
        if (status == CM_OK && binding == NULL)
            status = cm_error(CM_USAGE, "\"bindings\" holds something that is not a text");
        if (status == CM_OK && (run->bindings[r] = cm_strdup(binding)) == NULL)
            status = CM_NO_MEMORY;
    }
    return status;
}

static enum cm_status read_run(const json_t *object, struct cm_case_run *run)
{
    uint64_t started_us;
    const struct cm_field started[] = {
        {.key = "started_us", .type = CM_FIELD_COUNT, .size = sizeof started_us}, {.key = NULL}};
    enum cm_status status = cm_fields_read(cm_wire_run, object, run);
    if (status == CM_OK)
        status = cm_fields_read(started, object, &started_us);
    if (status != CM_OK)
        return status;
    run->started_unix_s = (double)started_us * 1e-6;
    status = cm_fields_read_in(cm_wire_check, object, "check", &run->check);
    if (status == CM_OK)
        status = read_metrics(object, &run->metrics);
    if (status == CM_OK)
        status = read_suspects(object, run);
    if (status == CM_OK)
        status = read_per_rank(object, run);
    return status == CM_OK ? read_parts(object, run) : status;
}

enum cm_status cm_case_run_read(const char *text, size_t length, struct cm_case_run *run)
{
    json_t *object;
    struct cm_case_run fresh = {0};
    enum cm_status status = cm_json_parse(text, length, "a rank's message", &object);
    if (status != CM_OK)
        return status;
    status = read_run(object, &fresh);
    json_decref(object);
    if (status == CM_OK)
        *run = fresh;
    else {
        cm_case_run_release(&fresh);
        cm_error_at(status, "a rank's message: ");
    }
    return status;
}
