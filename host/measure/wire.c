/*
 * A case run as one line of JSON; wire_read.c has the way back. The layout follows from tables of
 * fields.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/dtype.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/measure/wire.h"

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

const struct cm_field cm_wire_run[] = {
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
const struct cm_field cm_wire_part[] = {
    ROW(cm_part, name, TEXT),
    ROW(cm_part, min_time_s, REAL),
    ROW(cm_part, fixed_time, BOOL),
    ROW(cm_part, idle, BOOL),
    END,
};
const struct cm_field cm_wire_median[] = {
    ROW(cm_part_samples, median_s, REAL),
    END,
};
const struct cm_field cm_wire_work[] = {
    ROW(cm_work, flops, REAL),
    ROW(cm_work, bytes, REAL),
    ROW(cm_work, message_bytes, REAL),
    ROW(cm_work, operations, REAL),
    END,
};
const struct cm_field cm_wire_metric[] = {
    ROW(cm_metric, name, TEXT),
    ROW(cm_metric, value, REAL),
    ROW(cm_metric, unit, TEXT),
    ROW_NAME(cm_metric, better, better_names),
    ROW(cm_metric, ceiling, REAL),
    ROW(cm_metric, ceiling_source, TEXT),
    END,
};
const struct cm_field cm_wire_suspect[] = {
    ROW(cm_suspect, what, TEXT),
    ROW(cm_suspect, rank, UNSIGNED),
    ROW(cm_suspect, peer, UNSIGNED),
    ROW(cm_suspect, host, TEXT),
    ROW(cm_suspect, peer_host, TEXT),
    ROW(cm_suspect, effect, REAL),
    ROW(cm_suspect, low, REAL),
    ROW(cm_suspect, high, REAL),
    ROW(cm_suspect, p, REAL),
    ROW(cm_suspect, partners, TEXT),
    ROW(cm_suspect, retest, REAL),
    ROW(cm_suspect, confirmed, BOOL),
    END,
};
const struct cm_field cm_wire_check[] = {
    ROW(cm_check, checked, COUNT), ROW(cm_check, mismatches, COUNT), ROW(cm_check, worst, REAL),
    ROW(cm_check, nothing, TEXT),  ROW(cm_check, detail, TEXT),      END,
};
const struct cm_field cm_wire_telemetry[] = {
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
const struct cm_field cm_wire_device[] = {
    ROW(cm_device_info, name, TEXT),
    ROW(cm_device_info, kind, TEXT),
    ROW(cm_device_info, bus_id, TEXT),
    ROW(cm_device_info, uuid, TEXT),
    ROW(cm_device_info, features, TEXT),
    ROW(cm_device_info, software, TEXT),
    ROW(cm_device_info, units, UNSIGNED),
    ROW(cm_device_info, clock_hz, REAL),
    ROW(cm_device_info, memory_bytes, COUNT),
    ROW(cm_device_info, memory_total_bytes, COUNT),
    ROW(cm_device_info, cache_bytes, COUNT),
    ROW(cm_device_info, virtual_clock, BOOL),
    END,
};
const struct cm_field cm_wire_peak[] = {
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
        for (unsigned r = 0; part->ranks != NULL && r < part->rank_count; r++)
            cm_samples_release(&part->ranks[r]);
        cm_free(part->ranks);
        cm_free(part->rank_median_s);
        cm_free(part->rank_last_s);
    }
    cm_free(run->parts);
    cm_metrics_release(&run->metrics);
    cm_suspects_release(&run->suspects);
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
    for (unsigned r = 0; array != NULL && part->ranks != NULL && r < part->rank_count; r++) {
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
    json_t *object = write_object(cm_wire_part, &part->part);
    if (object == NULL)
        return NULL;
    enum cm_status status = cm_json_set(object, "work", write_object(cm_wire_work, &part->work));
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
    json_t *object = write_object(cm_wire_device, device);
    if (object == NULL)
        return NULL;
    json_t *rates =
        write_list(cm_wire_peak, device->flop_rate, CM_DTYPE_COUNT, sizeof device->flop_rate[0]);
    enum cm_status status =
        cm_json_set(object, "memory_rate", write_object(cm_wire_peak, &device->memory_rate));
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
    enum cm_status status = cm_fields_write(cm_wire_run, run, object);
    if (status == CM_OK)
        status = cm_json_set(object, "started_us", json_integer((json_int_t)started_us));
    if (status == CM_OK)
        status = cm_json_set(object, "check", write_object(cm_wire_check, &run->check));
    if (status == CM_OK)
        status = cm_json_set(object, "metrics",
                             write_list(cm_wire_metric, run->metrics.items, run->metrics.count,
                                        sizeof *run->metrics.items));
    if (status == CM_OK)
        status = cm_json_set(object, "suspects",
                             write_list(cm_wire_suspect, run->suspects.items, run->suspects.count,
                                        sizeof *run->suspects.items));
    if (status == CM_OK)
        status = cm_json_set(
            object, "telemetry",
            write_list(cm_wire_telemetry, run->telemetry, run->rank_count, sizeof *run->telemetry));
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
