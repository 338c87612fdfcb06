/*
 * A case run as one line of JSON, and back. The layout follows from tables of fields; the reader
 * checks types, ranges and lengths of everything, for the line comes from another process.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/dtype.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/measure/fields.h"

const char *const cm_case_status_names[] = {"ok", "failed", "wrong", "skipped", NULL};

static const char *const better_names[] = {"lower", "higher", "neither", NULL};

#define ROW(structure, member, kind)                                                               \
    {                                                                                              \
#member, CM_FIELD_##kind, offsetof(struct structure, member),                              \
            sizeof(((struct structure *)0)->member), NULL                                          \
    }
#define ROW_NAME(structure, member, list)                                                          \
    {                                                                                              \
#member, CM_FIELD_NAME, offsetof(struct structure, member),                                \
            sizeof(((struct structure *)0)->member), list                                          \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, CM_FIELD_REAL, 0, 0, NULL                                                            \
    }

static const struct cm_field run_fields[] = {
    ROW(cm_case_run, case_index, COUNT),
    ROW(cm_case_run, run, COUNT),
    ROW_NAME(cm_case_run, status, cm_case_status_names),
    ROW(cm_case_run, reason, TEXT),
    ROW(cm_case_run, stop_reason, TEXT),
    ROW(cm_case_run, warmup_iterations, COUNT),
    ROW(cm_case_run, warmup_s, REAL),
    ROW(cm_case_run, wall_s, REAL),
    ROW(cm_case_run, rank_count, UNSIGNED),
    ROW(cm_case_run, comm, TEXT),
    ROW(cm_case_run, comm_library, TEXT),
    ROW(cm_case_run, algorithm, TEXT),
    END,
};
static const struct cm_field part_fields[] = {
    ROW(cm_part, name, TEXT),
    ROW(cm_part, min_time_s, REAL),
    ROW(cm_part, fixed_time, BOOL),
    ROW(cm_part, idle, BOOL),
    END,
};
static const struct cm_field median_fields[] = {
    ROW(cm_part_samples, median_s, REAL),
    END,
};
static const struct cm_field work_fields[] = {
    ROW(cm_work, flops, REAL),
    ROW(cm_work, bytes, REAL),
    ROW(cm_work, message_bytes, REAL),
    ROW(cm_work, operations, REAL),
    END,
};
static const struct cm_field metric_fields[] = {
    ROW(cm_metric, name, TEXT),
    ROW(cm_metric, value, REAL),
    ROW(cm_metric, unit, TEXT),
    ROW_NAME(cm_metric, better, better_names),
    ROW(cm_metric, ceiling, REAL),
    ROW(cm_metric, ceiling_source, TEXT),
    END,
};
static const struct cm_field check_fields[] = {
    ROW(cm_check, checked, COUNT), ROW(cm_check, mismatches, COUNT), ROW(cm_check, worst, REAL),
    ROW(cm_check, nothing, TEXT),  ROW(cm_check, detail, TEXT),      END,
};
static const struct cm_field telemetry_fields[] = {
    ROW(cm_telemetry, clock_hz, REAL),
    ROW(cm_telemetry, power_w, REAL),
    ROW(cm_telemetry, energy_j, REAL),
    ROW(cm_telemetry, temperature_c, REAL),
    ROW(cm_telemetry, steal_fraction, REAL),
    ROW(cm_telemetry, switches_per_s, REAL),
    ROW(cm_telemetry, throttled_fraction, REAL),
    ROW(cm_telemetry, throttle_reasons, TEXT),
    ROW(cm_telemetry, lowest_clock_hz, REAL),
    ROW(cm_telemetry, memory_clock_hz, REAL),
    ROW(cm_telemetry, power_limit_w, REAL),
    ROW(cm_telemetry, ecc_corrected, REAL),
    ROW(cm_telemetry, ecc_uncorrected, REAL),
    ROW(cm_telemetry, remapped_rows, REAL),
    ROW(cm_telemetry, pcie_generation, REAL),
    ROW(cm_telemetry, pcie_width, REAL),
    ROW(cm_telemetry, nvlinks_active, REAL),
    ROW(cm_telemetry, samples, REAL),
    ROW(cm_telemetry, modes, TEXT),
    END,
};
static const struct cm_field device_fields[] = {
    ROW(cm_device_info, name, TEXT),
    ROW(cm_device_info, kind, TEXT),
    ROW(cm_device_info, bus_id, TEXT),
    ROW(cm_device_info, uuid, TEXT),
    ROW(cm_device_info, features, TEXT),
    ROW(cm_device_info, units, UNSIGNED),
    ROW(cm_device_info, clock_hz, REAL),
    ROW(cm_device_info, memory_bytes, COUNT),
    ROW(cm_device_info, cache_bytes, COUNT),
    ROW(cm_device_info, virtual_clock, BOOL),
    END,
};
static const struct cm_field peak_fields[] = {
    ROW(cm_peak, value, REAL),
    ROW(cm_peak, measured, BOOL),
    ROW(cm_peak, source, TEXT),
    END,
};

void cm_case_run_release(struct cm_case_run *run)
{
    if (run == NULL)
        return;
    for (unsigned p = 0; p < run->part_count; p++) {
        struct cm_part_samples *part = &run->parts[p];
        cm_samples_release(&part->slowest);
        for (unsigned r = 0; r < part->rank_count; r++)
            cm_samples_release(&part->ranks[r]);
        cm_free(part->ranks);
        cm_free(part->rank_median_s);
    }
    cm_free(run->parts);
    cm_metrics_release(&run->metrics);
    cm_free(run->telemetry);
    cm_free(run->devices);
    for (unsigned r = 0; run->bindings != NULL && r < run->rank_count; r++)
        cm_free(run->bindings[r]);
    cm_free(run->bindings);
    *run = (struct cm_case_run){0};
}

/* Writing. Each function makes a new value; NULL after a recorded error. */

static json_t *write_object(const struct cm_field *table, const void *fields)
{
    json_t *object = json_object();
    if (object == NULL)
        cm_error(CM_NO_MEMORY, "out of memory for a JSON object");
    else if (cm_fields_write(table, fields, object) != CM_OK) {
        json_decref(object);
        object = NULL;
    }
    return object;
}

static json_t *write_reals(const double *values, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; array != NULL && i < count; i++) {
        if (cm_json_append(array, cm_json_real(values[i])) != CM_OK) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* `count` structures of `size` bytes. */
static json_t *write_list(const struct cm_field *table, const void *items, size_t count,
                          size_t size)
{
    json_t *array = json_array();
    for (size_t i = 0; array != NULL && i < count; i++) {
        if (cm_json_append(array, write_object(table, (const char *)items + i * size)) != CM_OK) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *write_ranks(const struct cm_part_samples *part)
{
    json_t *array = json_array();
    for (unsigned r = 0; array != NULL && r < part->rank_count; r++) {
        json_t *samples = write_reals(part->ranks[r].values, part->ranks[r].count);
        if (cm_json_append(array, samples) != CM_OK) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *write_part(const struct cm_part_samples *part)
{
    json_t *object = write_object(part_fields, &part->part);
    if (object == NULL)
        return NULL;
    enum cm_status status = cm_json_set(object, "work", write_object(work_fields, &part->work));
    if (status == CM_OK)
        status = cm_json_set(object, "slowest_s",
                             write_reals(part->slowest.values, part->slowest.count));
    if (status == CM_OK)
        status = cm_json_set(object, "ranks_s", write_ranks(part));
    if (status == CM_OK)
        status = cm_json_set(object, "median_s", cm_json_real(part->median_s));
    if (status == CM_OK)
        status = cm_json_set(object, "rank_median_s",
                             write_reals(part->rank_median_s, part->rank_count));
    if (status == CM_OK)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *write_parts(const struct cm_case_run *run)
{
    json_t *array = json_array();
    for (unsigned p = 0; array != NULL && p < run->part_count; p++) {
        if (cm_json_append(array, write_part(&run->parts[p])) != CM_OK) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *write_device(const struct cm_device_info *device)
{
    json_t *object = write_object(device_fields, device);
    if (object == NULL)
        return NULL;
    json_t *rates =
        write_list(peak_fields, device->flop_rate, CM_DTYPE_COUNT, sizeof device->flop_rate[0]);
    enum cm_status status =
        cm_json_set(object, "memory_rate", write_object(peak_fields, &device->memory_rate));
    if (status == CM_OK)
        status = cm_json_set(object, "flop_rate", rates);
    else
        json_decref(rates);
    if (status == CM_OK)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *write_devices(const struct cm_case_run *run)
{
    json_t *array = json_array();
    for (unsigned r = 0; array != NULL && r < run->rank_count; r++) {
        if (cm_json_append(array, write_device(&run->devices[r])) != CM_OK) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *write_bindings(const struct cm_case_run *run)
{
    json_t *array = json_array();
    for (unsigned r = 0; array != NULL && r < run->rank_count; r++) {
        if (cm_json_append(array, cm_json_text(run->bindings[r])) != CM_OK) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static enum cm_status write_run(const struct cm_case_run *run, json_t *object)
{
    /* Seconds since 1970 with their fraction have more digits than a written real. */
    double started_us = fmin(fmax(round(run->started_unix_s * 1e6), 0), 0x1p53);
    enum cm_status status = cm_fields_write(run_fields, run, object);
    if (status == CM_OK)
        status = cm_json_set(object, "started_us", json_integer((json_int_t)started_us));
    if (status == CM_OK)
        status = cm_json_set(object, "check", write_object(check_fields, &run->check));
    if (status == CM_OK)
        status = cm_json_set(object, "metrics",
                             write_list(metric_fields, run->metrics.items, run->metrics.count,
                                        sizeof *run->metrics.items));
    if (status == CM_OK)
        status = cm_json_set(
            object, "telemetry",
            write_list(telemetry_fields, run->telemetry, run->rank_count, sizeof *run->telemetry));
    if (status == CM_OK)
        status = cm_json_set(object, "devices", write_devices(run));
    if (status == CM_OK)
        status = cm_json_set(object, "bindings", write_bindings(run));
    if (status == CM_OK)
        status = cm_json_set(object, "parts", write_parts(run));
    return status;
}

enum cm_status cm_case_run_write(const struct cm_case_run *run, char **text)
{
    json_t *object = json_object();
    if (object == NULL)
        return cm_error(CM_NO_MEMORY, "out of memory for a JSON object");
    enum cm_status status = write_run(run, object);
    if (status == CM_OK)
        status = cm_json_dump(object, 0, text);
    json_decref(object);
    return status;
}

/* Reading. */

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
    size_t count = json_array_size(ranks);
    if (count > UINT32_MAX)
        return cm_error(CM_USAGE, "\"ranks_s\" has %zu entries", count);
    status = get_per_rank(object, "rank_median_s", (unsigned)count, &medians);
    if (status != CM_OK || count == 0)
        return status;
    part->ranks = cm_alloc(count, sizeof *part->ranks);
    part->rank_median_s = cm_alloc(count, sizeof *part->rank_median_s);
    if (part->ranks == NULL || part->rank_median_s == NULL)
        return CM_NO_MEMORY;
    part->rank_count = (unsigned)count;
    for (size_t r = 0; r < count && status == CM_OK; r++) {
        status = read_samples(json_array_get(ranks, r), "ranks_s", &part->ranks[r]);
        if (status == CM_OK && part->ranks[r].count != 0 &&
            part->ranks[r].count != part->slowest.count)
            status = cm_error(CM_USAGE, "\"ranks_s\" differ in length from \"slowest_s\"");
    }
    return status == CM_OK ? read_reals(medians, "rank_median_s", part->rank_median_s) : status;
}

static enum cm_status read_part(const json_t *object, struct cm_part_samples *part)
{
    enum cm_status status = cm_fields_read(part_fields, object, &part->part);
    if (status == CM_OK)
        status = cm_fields_read_in(work_fields, object, "work", &part->work);
    if (status == CM_OK)
        status = cm_fields_read(median_fields, object, part);
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
        status = cm_fields_read(metric_fields, json_array_get(array, i), &metric);
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

static enum cm_status read_device(const json_t *object, struct cm_device_info *device)
{
    const json_t *rates;
    enum cm_status status = cm_fields_read(device_fields, object, device);
    if (status == CM_OK)
        status = cm_fields_read_in(peak_fields, object, "memory_rate", &device->memory_rate);
    if (status == CM_OK)
        status = get_array(object, "flop_rate", &rates);
    if (status == CM_OK && json_array_size(rates) != CM_DTYPE_COUNT)
        return cm_error(CM_USAGE, "\"flop_rate\" has %zu entries, not one per type",
                        json_array_size(rates));
    for (size_t i = 0; status == CM_OK && i < CM_DTYPE_COUNT; i++)
        status = cm_fields_read(peak_fields, json_array_get(rates, i), &device->flop_rate[i]);
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
        status = cm_fields_read(telemetry_fields, json_array_get(telemetry, r), &run->telemetry[r]);
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
    enum cm_status status = cm_fields_read(run_fields, object, run);
    if (status == CM_OK)
        status = cm_fields_read(started, object, &started_us);
    if (status != CM_OK)
        return status;
    run->started_unix_s = (double)started_us * 1e-6;
    status = cm_fields_read_in(check_fields, object, "check", &run->check);
    if (status == CM_OK)
        status = read_metrics(object, &run->metrics);
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
