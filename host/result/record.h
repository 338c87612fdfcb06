/*
 * record.h: the pieces of a result file. Private to host/result.
 */
#ifndef CM_RESULT_RECORD_H
#define CM_RESULT_RECORD_H

#include <jansson.h>
#include <stdbool.h>

#include "clustermark/measure.h"
#include "clustermark/option.h"
#include "clustermark/result.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"
#include "host/result/fold.h"

/* object[key] = value unless *status already tells of a failure. Takes over the reference. */
void cm_put(enum cm_status *status, json_t *object, const char *key, json_t *value);
void cm_push(enum cm_status *status, json_t *array, json_t *value);
/* Add an empty object or array and give it back, borrowed; NULL after a failure. */
json_t *cm_put_object(enum cm_status *status, json_t *object, const char *key);
json_t *cm_put_array(enum cm_status *status, json_t *object, const char *key);

/* Text from outside as JSON: bytes that are not UTF-8 become '?'. NULL when out of memory. */
json_t *cm_result_string(const char *text);

/* "2026-03-04T05:06:07Z"; `compact` without - and : for file names. */
#define CM_STAMP_MAX 32
void cm_result_stamp(double unix_s, bool compact, char *buffer);

/* What surrounds the measurement. */
json_t *cm_tool_json(void);
json_t *cm_stack_json(void);
json_t *cm_environment_json(bool show_hosts);
/* "NAME=value" into object, when it is one of those that are recorded. */
void cm_put_variable(enum cm_status *status, json_t *object, const char *entry, bool show_hosts);
void cm_put_host(enum cm_status *status, json_t *machine, bool show_hosts);

/* The values of an option table, typed. */
json_t *cm_params_json(const struct cm_option *table, const void *fields);
json_t *cm_devices_json(const struct cm_device_info *devices, unsigned count);
json_t *cm_run_json(const struct cm_case_run *run);

/* The runs of a case, each as the text that it is in the file. */
struct cm_run_texts {
    char **items;
    size_t count, capacity;
};
enum cm_status cm_run_texts_add(struct cm_run_texts *texts, const json_t *run);
void cm_run_texts_release(struct cm_run_texts *texts);

/* The text of a result file, appended to `out`. `slots` and `texts` have an entry per case of the
 * plan, NULL and none where there was no run; they take the place of the root's `cases`. */
enum cm_status cm_result_text(const json_t *root, json_t *const *slots,
                              const struct cm_run_texts *texts, size_t count, struct cm_str *out);

/* Derive a case's status, reason, check, metrics and spread from its runs. Statuses: wrong when a
 * run was wrong, else failed when one failed, else ok when one is ok (runs that were skipped are
 * told in `reason`), else skipped. Figures come from the ok runs alone. */
enum cm_status cm_case_summarise(json_t *item);

/* Fill every case's `ceilings` from its metrics and from what other cases attained. */
enum cm_status cm_ceilings_fill(json_t *cases);

/* Where each rank's device is, and what it calls itself. */
struct cm_rank_names {
    struct cm_rank_name {
        char bus_id[24], uuid[24];
    } * items;
    unsigned count;
};
/* From the first run that knows it. */
enum cm_status cm_rank_names_note(struct cm_rank_names *names, const struct cm_device_info *devices,
                                  unsigned count);
/* Fill a case's `spread_ranks` from its figures per rank, and `telemetry` from its runs. `figures`
 * has those of very many ranks, which are not in the case; else it is empty. */
struct cm_rank_figures;
enum cm_status cm_devices_fill(json_t *item, const struct cm_rank_names *names,
                               const struct cm_rank_figures *figures);
/* How many devices a row of `devices` stands for. */
size_t cm_device_count(const json_t *device);

/* What a run says of slow ranks; and from the runs of all cases each case's `suspects`, and in
 * `suspects` those that are named, the slowest first. */
json_t *cm_suspects_json(const struct cm_suspects *suspects, bool show_hosts);
enum cm_status cm_suspects_fill(json_t *cases, json_t *suspects);

/* The summaries over sweeps. `slots` has a case per plan case, or NULL where none was measured. */
enum cm_status cm_sweeps_fill(const struct cm_plan *plan, json_t *const *slots, json_t *sweeps);

/* Median, range and, from 6 values on, the 95 % interval, put into a metric's object. */
void cm_put_figures(enum cm_status *status, json_t *metric, const double *values, size_t count);

const char *cm_better_name(enum cm_better better);

/* Read-only access that never fails: "", 0 or NAN for what is missing or of another type. */
const char *cm_get_text(const json_t *object, const char *key);
double cm_get_number(const json_t *object, const char *key);

/* Take samples out of a result's text, in place; the new length. What is no plain list of numbers
 * stays as it is, for the reader to judge. */
size_t cm_samples_shorten(char *text, size_t length);

/* Check a parsed result; `name` begins the message. */
enum cm_status cm_result_check(const json_t *value, const char *name);

/* A result that is being written (record.c, resume.c). */
struct cm_result {
    const struct cm_plan *plan;
    const struct cm_device_ops *device;
    unsigned ranks;
    char *path;
    bool made_file, made_folder; /* undone when nothing comes of it */
    bool show_hosts;
    bool keep; /* a run was added, or the end was noted */
    json_t *root;
    json_t **slots;                  /* per case of the plan; NULL until its first run */
    struct cm_run_texts *texts;      /* per case of the plan: its runs as they are written */
    struct cm_rank_figures *figures; /* per case of the plan; empty for few ranks */
    struct cm_rank_names names;
    enum cm_status write_status; /* of the last write */
};

#endif
