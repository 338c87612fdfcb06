/* nccl-tests' JSON (its option -J, version 3): a row per size, in place and out of place. Times are
 * in microseconds, rates in GB/s. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/units.h"
#include "host/result/import.h"

#define VERSION 3

/* Our word for a program or a type of theirs; theirs where there is none. */
struct word {
    const char *theirs, *ours;
};
static const struct word operations[] = {
    {"alltoall", "all_to_all"},
    {NULL, NULL},
};
static const struct word types[] = {
    {"float", "f32"}, {"half", "f16"}, {"double", "f64"}, {"bfloat16", "bf16"},
    {"int32", "i32"}, {"int8", "i8"},  {NULL, NULL},
};

static const char *translate(const struct word *words, const char *text)
{
    for (; words->theirs != NULL; words++) {
        if (strcmp(words->theirs, text) == 0)
            return words->ours;
    }
    return text;
}

/* "all_reduce" of "/opt/bin/all_reduce_perf_mpi". */
static void operation_of(const json_t *root, char *operation, size_t size)
{
    const char *program = json_string_value(json_array_get(json_object_get(root, "args"), 0));
    const char *slash = program != NULL ? strrchr(program, '/') : NULL;
    const char *name = slash != NULL ? slash + 1 : program != NULL ? program : "";
    const char *end = strstr(name, "_perf");
    char own[64];
    snprintf(own, sizeof own, "%.*s", end != NULL ? (int)(end - name < 60 ? end - name : 60) : 60,
             name);
    snprintf(operation, size, "%s", own[0] != '\0' ? translate(operations, own) : "unknown");
}

static json_int_t count_of(const json_t *object, const char *key)
{
    double value = cm_get_number(object, key);
    return value >= 1 && value < 1e6 ? (json_int_t)value : 1;
}

/* An entry per process, each with threads and GPUs; the first of a process alone is listed. */
static void put_devices(enum cm_status *status, const json_t *config, json_t *result)
{
    const json_t *listed = json_object_get(config, "devices");
    json_int_t each = count_of(config, "nthreads") * count_of(config, "ngpus");
    json_int_t processes = (json_int_t)json_array_size(listed);
    json_int_t ranks = each * (processes > 0 ? processes : 1);
    json_t *devices = json_object_get(result, "devices");
    cm_put(status, result, "ranks", json_integer(ranks));
    for (json_int_t i = 0; i < ranks && i < CM_IMPORT_MAX && *status == CM_OK; i++) {
        const json_t *device = json_array_get(listed, (size_t)(i / each));
        json_t *row = json_object();
        cm_put(status, row, "rank", json_integer(i));
        cm_put(status, row, "name", json_string(cm_get_text(device, "device_info")));
        cm_push(status, devices, row);
    }
}

static void put_origin(enum cm_status *status, const json_t *root, json_t *result)
{
    json_t *tool = json_object_get(result, "tool"), *stack = json_object_get(result, "stack");
    json_t *environment = json_object_get(result, "environment");
    double nccl = cm_get_number(root, "nccl_version");
    size_t index;
    const json_t *entry;
    cm_put(status, tool, "name", json_string("nccl-tests"));
    cm_put(status, tool, "started_local", json_string(cm_get_text(root, "start_time")));
    cm_put(status, stack, "comm", json_string("nccl"));
    if (nccl >= 1000 && nccl < 1e9) {
        int code = (int)nccl, major = code >= 10000 ? code / 10000 : code / 1000;
        int minor = code >= 10000 ? code / 100 % 100 : code / 100 % 10;
        cm_put(status, stack, "comm_library",
               json_sprintf("NCCL %d.%d.%d", major, minor, code % 100));
    }
    /* They write the whole environment; what we do not record ourselves stays behind. */
    json_array_foreach(json_object_get(root, "env"), index, entry)
    {
        if (json_is_string(entry))
            cm_put_variable(status, environment, json_string_value(entry), false);
    }
}

static void put_samples(enum cm_status *status, const json_t *per_iteration, json_t *item)
{
    json_t *samples =
        json_object_get(json_array_get(json_object_get(item, "runs"), 0), "samples_s");
    size_t index;
    const json_t *time;
    json_array_foreach(json_object_get(per_iteration, "times_us"), index, time)
    {
        if (json_is_number(time) && index < CM_IMPORT_MAX)
            cm_push(status, samples, cm_json_real(json_number_value(time) * 1e-6));
    }
}

static void put_outcome(enum cm_status *status, json_t *item, const json_t *body)
{
    const json_t *wrong = json_object_get(body, "nwrong");
    json_t *check = json_object_get(json_array_get(json_object_get(item, "runs"), 0), "check");
    char reason[96];
    if (!json_is_number(wrong)) {
        cm_put(status, check, "nothing", json_string("not checked by nccl-tests"));
    } else if (json_number_value(wrong) > 0) {
        snprintf(reason, sizeof reason, "%.0f wrong values", json_number_value(wrong));
        cm_import_outcome(status, item, "wrong", reason);
    }
    if (json_object_get(body, "time") == NULL)
        cm_import_outcome(status, item, "skipped",
                          "times of the CPU (-C), which tell nothing about the operation");
}

static void put_body(enum cm_status *status, json_t *result, const char *operation,
                     const json_t *row, bool in_place)
{
    const json_t *body = json_object_get(row, in_place ? "in_place" : "out_of_place");
    const char *type = translate(types, cm_get_text(row, "type"));
    double size = cm_get_number(row, "size");
    char name[200], text[CM_UNITS_TEXT_MAX];
    if (!json_is_object(body) || !(size >= 0) || size > 0x1p53 || *status != CM_OK)
        return;
    snprintf(name, sizeof name, "nccl-tests:op=%s,dtype=%.40s,size=%s%s", operation, type,
             cm_write_size((uint64_t)size, text), in_place ? ",in_place=yes" : "");
    json_t *params = json_object();
    cm_put(status, params, "op", json_string(operation));
    cm_put(status, params, "size", json_integer((json_int_t)size));
    cm_put(status, params, "dtype", json_string(type));
    cm_put(status, params, "in_place", json_boolean(in_place));
    json_t *item = cm_import_case(status, result, name, "collective", params);
    cm_import_metric(status, item, "time", cm_get_number(body, "time") * 1e-6, "s", true);
    cm_import_metric(status, item, "algbw", cm_get_number(body, "alg_bw") * 1e9, "B/s", false);
    cm_import_metric(status, item, "busbw", cm_get_number(body, "bus_bw") * 1e9, "B/s", false);
    put_samples(status,
                json_object_get(row, in_place ? "in_place_per_iter" : "out_of_place_per_iter"),
                item);
    put_outcome(status, item, body);
}

enum cm_status cm_import_nccl(const json_t *root, const char *name, json_t *result)
{
    enum cm_status status = CM_OK;
    const json_t *rows = json_object_get(root, "results"), *row;
    double version = cm_get_number(root, "version");
    char operation[64];
    size_t index;
    if (version != VERSION)
        return cm_error(CM_USAGE,
                        "%s: nccl-tests JSON of version %g; this program reads version %d", name,
                        version, VERSION);
    if (json_array_size(rows) > CM_IMPORT_MAX)
        return cm_error(CM_USAGE, "%s: over %d results", name, CM_IMPORT_MAX);
    operation_of(root, operation, sizeof operation);
    put_origin(&status, root, result);
    put_devices(&status, json_object_get(root, "config"), result);
    json_array_foreach(rows, index, row)
    {
        put_body(&status, result, operation, row, false);
        put_body(&status, result, operation, row, true);
    }
    return status;
}
