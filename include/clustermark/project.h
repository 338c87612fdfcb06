/*
 * project.h: steps of clusters that are not here: what a plan would take, and how well such answers
 * hold against measured runs. Documents; their text is made from them.
 */
#ifndef CLUSTERMARK_PROJECT_H
#define CLUSTERMARK_PROJECT_H

#include <jansson.h>
#include <stdbool.h>

#include "clustermark/result.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"

/* Which rows the parameters are fitted on before a row is predicted. */
enum cm_leave_out {
    CM_LEAVE_NONE,    /* the shipped calibration, or the one given */
    CM_LEAVE_RELEASE, /* all but those of the row's source, up to the colon */
    CM_LEAVE_FAMILY,  /* all but those of the source in any version */
    CM_LEAVE_HALF     /* those of the other half: families in the table's order, every second one */
};
extern const char *const cm_leave_out_names[];

struct cm_validate_options {
    const char *runs;        /* a table of runs */
    const char *anchors;     /* another, or NULL: smaller runs of the same series */
    const char *calibration; /* a file, or NULL: the shipped one */
    int leave_out;           /* enum cm_leave_out */
};
/* {"rows": [...], "summary": {...}}, rows in the table's order. New reference. CM_USAGE with file
 * and line for what is no such table. */
enum cm_status cm_project_validate(const struct cm_validate_options *options, json_t **document);
enum cm_status cm_project_validate_text(const json_t *document, const struct cm_report_style *style,
                                        struct cm_str *out);

/* A calibration from a table of measured runs, as the text of a file. */
enum cm_status cm_project_fit(const char *runs, struct cm_str *out);

struct cm_gpu_catalogue;
/* A cluster (struct cm_project_options) in a line of text. CM_USAGE: there is none of that name, or
 * its file says what cannot be. */
enum cm_status cm_project_cluster_summary(const char *name,
                                          const struct cm_gpu_catalogue *catalogue, char *text,
                                          size_t size);

struct cm_machine;
/* A machine (roofline.h) from a result of this program: products, memory and collectives by size,
 * and by its training steps what classes of operations take in a step over what those rates say.
 * Ranks count as of one domain, their number as there. CM_USAGE: no products or no memory in it, or
 * of several numbers of ranks. */
enum cm_status cm_project_machine(const char *path, struct cm_machine *machine);

struct cm_project_options {
    const char *model;       /* as in suites; NULL: the cluster's own */
    const char *cluster;     /* configs/clusters/<name>.ini, a path, or a GPU of configs/gpus.ini */
    const char *const *sets; /* "KEY=VALUE" over what the cluster's file says */
    size_t set_count;
    const char *plan;  /* "tp=8,pp=16"; what is left of the GPUs is dp; NULL: tp=1, but a search
                          where the cluster has jobs */
    bool search;       /* instead: the quickest plan, micro-batch and recomputation that fit */
    bool execute;      /* the plan's schedule on the virtual clock instead of the closed form */
    const char *sweep; /* "8..262144": the plan on other numbers of GPUs as well; or NULL */
    const char *dtype; /* of cm_precision_names, or bf16 */
    const char *recompute;
    const char *calibration;
    const char *const *results; /* of this program on that GPU, or none */
    size_t result_count;
    /* gpus: 0: the cluster's own sizes; batch: sequences of a step, 0: 16 Mi tokens' */
    uint64_t gpus, batch, micro_batch;
};
/* Of a cluster with jobs, the plan is that of one job, and `sizes` has an entry for each number of
 * GPUs: one job of all of them and jobs of several sizes. `goodput`, `energy` and `cost` of the
 * document are of its plan. */
enum cm_status cm_project_answer(const struct cm_project_options *options, json_t **document);
enum cm_status cm_project_answer_text(const json_t *document, const struct cm_report_style *style,
                                      struct cm_str *out);

#endif
