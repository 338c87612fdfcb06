/*
 * report.h: the pieces of the report on the terminal. Private to host/result.
 */
#ifndef CM_RESULT_REPORT_H
#define CM_RESULT_REPORT_H

#include "clustermark/result.h"
#include "host/result/record.h"
#include "host/result/table.h"

/* What the sections share. */
struct cm_report {
    const struct cm_report_style *style;
    const json_t *result;
    json_t *workloads; /* workload -> its cases, as arrays, in the order of the file */
    json_t *sweeps;    /* workload -> its sweeps */
    json_t *by_name;   /* case name -> case */
    json_t *swept;     /* case name -> true, for the points of the sweeps that are shown */
    struct cm_table table;
    struct cm_str *out;
    size_t section;        /* where the current workload's content begins in `out` */
    enum cm_status status; /* the first failure; pieces do nothing after it */
};

/* Name of the metric a case is known by: its workload's headline, else its first without a label;
 * NULL when it has none. */
const char *cm_headline_metric(const json_t *item);

/* Half of the interval's width (its longer side) relative to the value; NAN for shares, and without
 * an interval. */
double cm_relative_uncertainty(const json_t *metric);

/* Columns of a figure's quality, and their cells for one metric of a case. */
struct cm_figure_columns {
    size_t interval, spread, theoretical, attainable, runs, status;
    size_t clock, power, temperature, throttled; /* of the case's devices */
};
void cm_figure_columns_add(struct cm_table *table, struct cm_figure_columns *columns);
void cm_figure_put(struct cm_table *table, const struct cm_figure_columns *columns,
                   const json_t *item, const char *metric);
void cm_status_put(struct cm_table *table, size_t column, const json_t *item);
/* What the telemetry of the case's devices tells, when it tells more than a clock. */
void cm_telemetry_put(struct cm_table *table, const struct cm_figure_columns *columns,
                      const json_t *item);
bool cm_has_telemetry(const json_t *item);

/* "1.2 %", ">999 %": two digits. */
void cm_percent_text(double fraction, char *text, size_t size);

/* A metric's value with its unit. */
#define CM_VALUE_MAX 48
void cm_value_text(const json_t *metric, char *text);

/* A line of text, indented, broken at spaces to the width; `first` begins it and following lines
 * are indented as far. */
void cm_report_line(struct cm_report *report, const char *first, const char *text);

/* Sections. */
void cm_report_cases(struct cm_report *report, const json_t *cases);
void cm_report_sweep(struct cm_report *report, const json_t *sweep);
void cm_report_matrices(struct cm_report *report, const json_t *item);
/* How far apart the devices are, below the table of their cases. */
void cm_report_spread(struct cm_report *report, const json_t *item);
/* Who is slow, and the line that says it. */
void cm_report_suspects(struct cm_report *report);
void cm_suspect_text(const json_t *entry, struct cm_str *line);
/* What the telemetry found, for the verdict. */
void cm_report_throttling(struct cm_report *report);

#endif
