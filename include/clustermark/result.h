/*
 * result.h: the result file and the report on the terminal. Layout: "The result file" in README.md.
 */
#ifndef CLUSTERMARK_RESULT_H
#define CLUSTERMARK_RESULT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "clustermark/cluster.h"
#include "clustermark/measure.h"
#include "clustermark/topology.h"

#define CM_RESULT_SCHEMA  "clustermark.result"
#define CM_RESULT_VERSION "1.0"

struct cm_result;

struct cm_result_options {
    const char *path;                   /* NULL: results/<UTC time>-<suite>.json */
    bool show_hosts;                    /* host names as they are, not hashed */
    const struct cm_topology *topology; /* NULL: not known */
    const struct cm_device_ops *device;
    unsigned ranks;
    bool placement; /* ask the cloud's metadata service, and tell of container and scheduler */
    bool fresh_processes;
    const char *launcher; /* who started the ranks: "srun"; NULL or "none": this program did */
    bool simulated;       /* ranks shared devices: no figure means anything */
    int argc;
    char **argv; /* the command line, recorded */
};

/* Open a result, so that a path that cannot be written is known before anything is measured
 * (CM_USAGE). A new file is written at once, with no cases yet; one that is there already, which
 * only `path` can name, is replaced when the first run is added. `plan` must outlive the result. */
enum cm_status cm_result_create(const struct cm_plan *plan, const struct cm_result_options *options,
                                struct cm_result **result);
const char *cm_result_path(const struct cm_result *result);

/* Add a run and write the file anew, atomically: whatever was added is on disk when it returns. A
 * write that fails (a full disk) is a warning, not an error: the next one tries again. */
enum cm_status cm_result_add(struct cm_result *result, const struct cm_plan *plan,
                             const struct cm_case_run *run);
/* For another process of the run than the one that has added so far, and that is gone: take up what
 * that one has written. *added: runs in the file. */
enum cm_status cm_result_resume(struct cm_result *result, size_t *added);
/* Whether this run of a case of the plan is there. */
bool cm_result_has(const struct cm_result *result, size_t case_index, uint64_t run);
/* The nodes that the ranks are on, and lines on how groups of ranks lie on them. */
enum cm_status cm_result_cluster(struct cm_result *result, const struct cm_cluster_map *cluster,
                                 const char *placement);
/* Note how the run ended ("complete", "interrupted", "budget", "failed"), list the cases that were
 * not reached as skipped, and write; here a failed write is an error. */
enum cm_status cm_result_finish(struct cm_result *result, const char *ending);
/* Accepts NULL. A result that got no run and was not finished leaves no file behind. */
void cm_result_free(struct cm_result *result);

/* The result as JSON; borrowed. */
const json_t *cm_result_json(const struct cm_result *result);

/* Read and check a result file: schema, version (major must match), types of all that is used. */
enum cm_status cm_result_load(const char *path, json_t **value);
/* The same without most of the samples, which are most of a file: of each list that is longer the
 * first CM_SAMPLES_KEPT stay, and `samples_left_out` beside it says how many are gone; those of
 * single ranks all go. */
#define CM_SAMPLES_KEPT 100
enum cm_status cm_result_load_short(const char *path, json_t **value);
/* cm_result_load from memory; `name` begins the message. */
enum cm_status cm_result_parse(const char *text, size_t length, const char *name, json_t **value);

/* Decides the exit code: CM_WRONG when a case was wrong, CM_LOST when one failed, CM_UNSUPPORTED
 * when nothing was measured, else CM_OK. The message names the first such case and its reason. */
enum cm_status cm_result_verdict(const json_t *result);
/* CM_WRONG when a host, rank or link was found slow; the message names the slowest. */
enum cm_status cm_result_suspects(const json_t *result);

/* The report: a table per workload, what was skipped and why, a verdict. */
struct cm_report_style {
    bool color;
    bool utf8;
    int width;  /* columns */
    bool brief; /* the verdict alone */
};
enum cm_status cm_report_text(const json_t *result, const struct cm_report_style *style, FILE *out);

#endif
