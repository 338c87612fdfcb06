/*
 * publish.h: results for others: a page, single charts, history, and the formats of other tools.
 *
 * Paths are result files, folders of them, or JSON-lines files (a result per line). What is
 * written goes to a string; the caller decides where that goes.
 */
#ifndef CLUSTERMARK_PUBLISH_H
#define CLUSTERMARK_PUBLISH_H

#include <jansson.h>
#include <stddef.h>

#include "clustermark/result.h"
#include "clustermark/strbuf.h"

/* Differences up to this share count as none, unless the user says otherwise. */
#define CM_MARGIN_DEFAULT 0.02

/* One self-contained HTML page. Each path is a side; the first is what the others are held
 * against. */
enum cm_status cm_page_write(const char *const *paths, size_t count, double margin,
                             struct cm_str *out);
/* One chart as an SVG file of its own: "sweep", or "sweep:all_reduce" for the first whose name
 * contains that. CM_USAGE when there is no such chart, with those that there are. */
enum cm_status cm_page_chart(const char *const *paths, size_t count, double margin,
                             const char *chart, struct cm_str *out);

struct cm_history_options {
    const char *case_pattern; /* shell patterns; NULL: all cases, and of each its headline */
    const char *metric_pattern;
    double margin; /* smaller changes are none */
};
/* Series over the results' times, cut where the machine changed, with their change points:
 * README.md, "History". */
enum cm_status cm_history_load(const char *const *paths, size_t count,
                               const struct cm_history_options *options, json_t **history);
enum cm_status cm_history_text(const json_t *history, const struct cm_report_style *style,
                               struct cm_str *out);
/* A line per result, a column per series. */
enum cm_status cm_history_csv(const json_t *history, struct cm_str *out);

/* The formats of other tools; all results together are the runs of one machine. Names end with
 * NULL. */
extern const char *const cm_export_names[];
enum cm_status cm_export(const char *format, const char *const *paths, size_t count,
                         struct cm_str *out);

/* A file of nccl-tests (-J) or nvbandwidth (-j) as a result of ours. `like` is a result whose cases
 * lend their names to what measured the same, or NULL. */
enum cm_status cm_import(const char *path, const json_t *like, json_t **result);
enum cm_status cm_import_text(const char *text, size_t length, const char *name, const json_t *like,
                              json_t **result);

#endif
