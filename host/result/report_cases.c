/* A workload's cases: a row each, with the figure it is known by. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "clustermark/workload.h"
#include "host/result/report.h"

/* What stands below the headline in a table of cases. */
static const struct others {
    const char *workload;
    const char *names[8]; /* ends with NULL */
} others[] = {
    {"gemm", {"flop_rate_sustained", "energy_per_operation"}},
    {"membw", {"bandwidth_per_rank", "energy_per_operation"}},
    {"collective", {"size", "time", "algbw", "energy_per_operation"}},
    {"sendrecv", {"size", "latency"}},
    {"overlap", {"size", "compute_slowdown", "comm_slowdown"}},
    {"launch", {NULL}},
    {"hostlink", {"bandwidth_sum", "latency"}},
    {"p2p", {"latency", "unreachable"}},
    {"trainstep",
     {"tokens_per_s", "tokens_per_s_per_gpu", "mfu_full", "mfu_causal", "exposed_comm_time",
      "peak_memory", "ceiling_fraction"}},
};

static const struct others *find_others(const char *workload)
{
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (strcmp(others[i].workload, workload) == 0)
            return &others[i];
    }
    return NULL;
}

const char *cm_headline_metric(const json_t *item)
{
    const struct cm_workload *workload = cm_workload_find(cm_get_text(item, "workload"));
    const char *name;
    json_t *metric;
    json_t *metrics = json_object_get(item, "metrics");
    if (workload != NULL && json_object_get(metrics, workload->headline) != NULL)
        return workload->headline;
    json_object_foreach(metrics, name, metric)
    {
        if (strchr(name, '.') == NULL)
            return name;
    }
    return NULL;
}

void cm_value_text(const json_t *metric, char *text)
{
    double value = cm_get_number(metric, "value");
    char buffer[CM_UNITS_TEXT_MAX];
    if (isfinite(value))
        snprintf(text, CM_VALUE_MAX, "%s",
                 cm_format_value(value, cm_get_text(metric, "unit"), buffer));
    else
        snprintf(text, CM_VALUE_MAX, "-");
}

void cm_percent_text(double fraction, char *text, size_t size)
{
    double percent = fraction * 100;
    if (percent >= 1000)
        snprintf(text, size, ">999 %%");
    else
        snprintf(text, size, "%.*f %%", percent >= 10 ? 0 : percent >= 1 ? 1 : 2, percent);
}

/* A share near 0 has no sensible relative uncertainty: its own is given instead. */
static bool is_share(const json_t *metric)
{
    return strcmp(cm_get_text(metric, "unit"), "1") == 0;
}

static void uncertainty_text(const json_t *metric, double range, char *text, size_t size)
{
    if (is_share(metric))
        snprintf(text, size, "%.2f", range);
    else
        cm_percent_text(range / fabs(cm_get_number(metric, "value")), text, size);
}

double cm_relative_uncertainty(const json_t *metric)
{
    const json_t *interval = json_object_get(metric, "interval");
    double value = cm_get_number(metric, "value");
    if (is_share(metric))
        return NAN;
    return fmax(value - cm_get_number(interval, "low"), cm_get_number(interval, "high") - value) /
           fabs(value);
}

void cm_figure_columns_add(struct cm_table *table, struct cm_figure_columns *columns)
{
    columns->interval = cm_table_column(table, "95 %", false, 0);
    columns->spread = cm_table_column(table, "spread", false, 2);
    columns->theoretical = cm_table_column(table, "% T", false, 1);
    columns->attainable = cm_table_column(table, "% A", false, 1);
    columns->runs = cm_table_column(table, "runs", false, 3);
    columns->clock = cm_table_column(table, "GHz", false, 4);
    columns->power = cm_table_column(table, "W", false, 3);
    columns->temperature = cm_table_column(table, "C", false, 4);
    columns->throttled = cm_table_column(table, "throttled", false, 3);
    columns->status = cm_table_column(table, "status", true, 0);
}

void cm_status_put(struct cm_table *table, size_t column, const json_t *item)
{
    const char *status = cm_get_text(item, "status");
    enum cm_tint tint = strcmp(status, "ok") == 0        ? CM_GOOD
                        : strcmp(status, "skipped") == 0 ? CM_DOUBTFUL
                                                         : CM_BAD;
    cm_table_put(table, column, tint, "%s", status);
}

/* Over the runs, or with one run over its iterations; in the metric's unit. */
static double spread_of(const json_t *item, const json_t *metric)
{
    double low = cm_get_number(metric, "minimum"), high = cm_get_number(metric, "maximum");
    if (cm_get_number(metric, "runs") >= 2)
        return high - low;
    return cm_get_number(item, "spread") * fabs(cm_get_number(metric, "value"));
}

static void put_fraction(struct cm_table *table, size_t column, const json_t *ceiling)
{
    double fraction = cm_get_number(ceiling, "fraction");
    if (isfinite(fraction) && fraction >= 0 && fraction < 100)
        cm_table_put(table, column, CM_PLAIN, "%.*f", fraction < 0.1 ? 1 : 0, fraction * 100);
}

void cm_figure_put(struct cm_table *table, const struct cm_figure_columns *columns,
                   const json_t *item, const char *name)
{
    const json_t *metric = json_object_get(json_object_get(item, "metrics"), name);
    const json_t *interval = json_object_get(metric, "interval");
    const json_t *ceilings = json_object_get(json_object_get(item, "ceilings"), name);
    double value = cm_get_number(metric, "value"), runs = cm_get_number(metric, "runs");
    double low = cm_get_number(interval, "low"), high = cm_get_number(interval, "high");
    char text[32];
    double half = fmax(value - low, high - value);
    if (isfinite(half)) {
        uncertainty_text(metric, half, text, sizeof text);
        cm_table_put(table, columns->interval, CM_PLAIN, "%s%s", table->style->utf8 ? "±" : "+-",
                     text);
    }
    double spread = spread_of(item, metric);
    if (isfinite(spread)) {
        uncertainty_text(metric, spread, text, sizeof text);
        cm_table_put(table, columns->spread, CM_PLAIN, "%s", text);
    }
    put_fraction(table, columns->theoretical, json_object_get(ceilings, "theoretical"));
    put_fraction(table, columns->attainable, json_object_get(ceilings, "attainable"));
    if (isfinite(runs))
        cm_table_put(table, columns->runs, CM_PLAIN, "%.0f", runs);
}

static bool is_swept(const struct cm_report *report, const json_t *item)
{
    return json_object_get(report->swept, cm_get_text(item, "name")) != NULL;
}

/* The name that stands above the column of values: that of all rows, or none. */
static const char *common_metric(const struct cm_report *report, const json_t *cases)
{
    const char *common = NULL;
    size_t index;
    const json_t *item;
    json_array_foreach(cases, index, item)
    {
        const char *name = is_swept(report, item) ? NULL : cm_headline_metric(item);
        if (name == NULL)
            continue;
        if (common != NULL && strcmp(common, name) != 0)
            return NULL;
        common = name;
    }
    return common;
}

static void put_other(struct cm_table *table, size_t value_column,
                      const struct cm_figure_columns *columns, const json_t *item, const char *name)
{
    const json_t *metric = json_object_get(json_object_get(item, "metrics"), name);
    char text[CM_VALUE_MAX];
    if (metric == NULL)
        return;
    cm_table_row(table);
    cm_table_put(table, 0, CM_PLAIN, "  %s", name);
    cm_value_text(metric, text);
    cm_table_put(table, value_column, CM_PLAIN, "%s", text);
    if (strcmp(cm_get_text(metric, "better"), "neither") == 0) /* it was given, not measured */
        return;
    cm_figure_put(table, columns, item, name);
    cm_table_put(table, columns->runs, CM_PLAIN, "%s", "");
    if (!(cm_get_number(metric, "runs") >= 2)) /* the iterations' spread is the headline's */
        cm_table_put(table, columns->spread, CM_PLAIN, "%s", "");
}

/* The figures below the headline; of a workload that is not known all, at most 8. */
static void put_others(struct cm_table *table, size_t value_column,
                       const struct cm_figure_columns *columns, const json_t *item,
                       const char *shown)
{
    const struct others *known = find_others(cm_get_text(item, "workload"));
    const char *name;
    json_t *metric;
    unsigned count = 0;
    for (size_t i = 0; known != NULL && known->names[i] != NULL; i++)
        put_other(table, value_column, columns, item, known->names[i]);
    if (known != NULL)
        return;
    json_object_foreach(json_object_get(item, "metrics"), name, metric)
    {
        if (strchr(name, '.') == NULL && strcmp(name, shown) != 0 && count++ < 8)
            put_other(table, value_column, columns, item, name);
    }
}

/* Which shape the headline is of, where a search or the device chose it: "flop_rate.8192x8192x64".
 */
static void put_best_shape(struct cm_table *table, size_t value_column, const json_t *item,
                           const char *headline)
{
    const char *name, *best = NULL;
    json_t *metric;
    const json_t *metrics = json_object_get(item, "metrics");
    size_t length = strlen(headline);
    double most = -INFINITY;
    json_object_foreach((json_t *)metrics, name, metric)
    {
        double value = cm_get_number(metric, "value");
        bool shape = strncmp(name, headline, length) == 0 && name[length] == '.' &&
                     name[length + 1] >= '0' && name[length + 1] <= '9' &&
                     strchr(name + length, 'x') != NULL;
        if (!shape || !(value > most))
            continue;
        most = value;
        best = name + length + 1;
    }
    if (best == NULL)
        return;
    cm_table_row(table);
    cm_table_put(table, 0, CM_PLAIN, "  shape");
    cm_table_put(table, value_column, CM_PLAIN, "%s", best);
}

static void put_case(struct cm_table *table, size_t value_column,
                     const struct cm_figure_columns *columns, const json_t *item,
                     const char *common)
{
    const char *name = cm_headline_metric(item);
    char text[CM_VALUE_MAX];
    cm_table_row(table);
    cm_table_put(table, 0, CM_PLAIN, "%s", cm_get_text(item, "name"));
    cm_status_put(table, columns->status, item);
    cm_telemetry_put(table, columns, item);
    if (name == NULL)
        return;
    cm_value_text(json_object_get(json_object_get(item, "metrics"), name), text);
    cm_table_put(table, value_column, CM_PLAIN, "%s%s%s", common == NULL ? name : "",
                 common == NULL ? " " : "", text);
    cm_figure_put(table, columns, item, name);
    put_best_shape(table, value_column, item, name);
    put_others(table, value_column, columns, item, name);
}

void cm_report_cases(struct cm_report *report, const json_t *cases)
{
    struct cm_table *table = &report->table;
    struct cm_figure_columns columns;
    const char *common = common_metric(report, cases);
    size_t index;
    const json_t *item;
    if (report->status != CM_OK)
        return;
    cm_table_column(table, "case", true, 0);
    size_t value = cm_table_column(table, common != NULL ? common : "figure", false, 0);
    cm_figure_columns_add(table, &columns);
    json_array_foreach(cases, index, item)
    {
        if (!is_swept(report, item) && strcmp(cm_get_text(item, "status"), "skipped") != 0)
            put_case(table, value, &columns, item, common);
    }
    report->status = cm_table_write(table, report->out);
    json_array_foreach(cases, index, item) cm_report_spread(report, item);
}
