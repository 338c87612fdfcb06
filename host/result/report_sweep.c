/* Figures over a sweep, and figures between pairs of ranks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/result/report.h"

#define SHOWN_MAX 4 /* metrics beside each other */
#define BAR_WIDTH 8

/* The metrics that stand beside each other: the first ones of the first point that has any. */
static size_t choose_metrics(const struct cm_report *report, const json_t *points,
                             const char **names, const char **headline)
{
    size_t index, count = 0;
    const json_t *point;
    const char *name;
    json_t *metric;
    json_array_foreach(points, index, point)
    {
        const json_t *item = json_object_get(report->by_name, json_string_value(point));
        json_object_foreach(json_object_get(item, "metrics"), name, metric)
        {
            if (strchr(name, '.') == NULL && count < SHOWN_MAX)
                names[count++] = name;
        }
        *headline = item != NULL ? cm_headline_metric(item) : NULL;
        if (count > 0)
            break;
    }
    return count;
}

/* A bar of the value against the largest, in eighths of a column where the terminal has them. */
static void bar_text(const struct cm_report_style *style, double share, char *text, size_t size)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
    int steps = (int)lround(fmin(fmax(share, 0), 1) * BAR_WIDTH * 8);
    size_t used = 0;
    text[0] = '\0';
    for (int at = 0; at < BAR_WIDTH * 8 && used + 4 < size; at += 8) {
        int part = steps - at < 0 ? 0 : steps - at > 8 ? 8 : steps - at;
        const char *piece = style->utf8 ? eighths[part] : part >= 4 ? "#" : "";
        used += (size_t)snprintf(text + used, size - used, "%s", piece);
    }
}

static double value_of(const json_t *item, const char *name)
{
    return cm_get_number(json_object_get(json_object_get(item, "metrics"), name), "value");
}

static double largest(const struct cm_report *report, const json_t *points, const char *name)
{
    double most = 0;
    size_t index;
    const json_t *point;
    json_array_foreach(points, index, point) most =
        fmax(most, value_of(json_object_get(report->by_name, json_string_value(point)), name));
    return most;
}

struct sweep_columns {
    size_t values[SHOWN_MAX], bar;
    const char *names[SHOWN_MAX], *headline;
    size_t count;
    double most; /* of the headline */
    struct cm_figure_columns figure;
};

static void put_point(struct cm_report *report, const json_t *sweep, const json_t *item,
                      const struct sweep_columns *columns)
{
    struct cm_table *table = &report->table;
    char text[CM_CELL_MAX];
    double key = cm_get_number(json_object_get(item, "params"), cm_get_text(sweep, "key"));
    cm_table_row(table);
    if (isfinite(key))
        cm_table_put(
            table, 0, CM_PLAIN, "%s",
            cm_format_value(key, cm_get_text(sweep, "unit"), (char[CM_UNITS_TEXT_MAX]){0}));
    else
        cm_table_put(table, 0, CM_PLAIN, "%s", cm_get_text(item, "name"));
    for (size_t i = 0; i < columns->count; i++) {
        const json_t *metric = json_object_get(json_object_get(item, "metrics"), columns->names[i]);
        if (metric == NULL)
            continue;
        cm_value_text(metric, text);
        cm_table_put(table, columns->values[i], CM_PLAIN, "%s", text);
    }
    if (columns->headline != NULL) {
        double share = value_of(item, columns->headline) / columns->most;
        cm_figure_put(table, &columns->figure, item, columns->headline);
        bar_text(report->style, isfinite(share) ? share : 0, text, sizeof text);
        cm_table_put(table, columns->bar, CM_PLAIN, "%s", text);
    }
    cm_status_put(table, columns->figure.status, item);
    cm_telemetry_put(table, &columns->figure, item);
}

static void add_summary(struct cm_report *report, const json_t *sweep)
{
    struct cm_str line = CM_STR_INIT;
    const char *name;
    json_t *metric;
    json_object_foreach(json_object_get(sweep, "metrics"), name, metric)
    {
        char value[CM_VALUE_MAX];
        cm_value_text(metric, value);
        cm_str_addf(&line, "%s%s %s", line.length > 0 ? ", " : "", name, value);
    }
    if (line.length > 0)
        cm_report_line(report, "  ", cm_str_text(&line));
    if (report->status == CM_OK)
        report->status = cm_str_status(&line);
    cm_str_release(&line);
}

void cm_report_sweep(struct cm_report *report, const json_t *sweep)
{
    struct cm_table *table = &report->table;
    struct sweep_columns columns = {.headline = NULL};
    const json_t *points = json_object_get(sweep, "points");
    size_t index;
    const json_t *point;
    if (report->status != CM_OK)
        return;
    columns.count = choose_metrics(report, points, columns.names, &columns.headline);
    if (columns.count == 0) /* the reasons are told below */
        return;
    if (columns.headline != NULL)
        columns.most = largest(report, points, columns.headline);
    if (report->out->length > report->section)
        cm_str_add(report->out, "\n");
    cm_report_line(report, "  ", cm_get_text(sweep, "name"));
    cm_table_column(table, cm_get_text(sweep, "key"), false, 0);
    for (size_t i = 0; i < columns.count; i++)
        columns.values[i] = cm_table_column(
            table, columns.names[i], false,
            columns.headline == NULL || strcmp(columns.names[i], columns.headline) != 0 ? 5 + (int)i
                                                                                        : 0);
    columns.bar = cm_table_column(table, "", true, 5 + SHOWN_MAX);
    cm_figure_columns_add(table, &columns.figure);
    json_array_foreach(points, index, point)
    {
        const json_t *item = json_object_get(report->by_name, json_string_value(point));
        if (item != NULL)
            put_point(report, sweep, item, &columns);
    }
    report->status = cm_table_write(table, report->out);
    add_summary(report, sweep);
}

#define MATRIX_MAX 16

struct matrix {
    char metric[64], unit[24];
    double values[MATRIX_MAX][MATRIX_MAX]; /* [from][to]; NAN where there is none */
    unsigned size;                         /* ranks; 0 when no label is a pair */
    bool too_large;
    double least, most;
    char least_pair[24], most_pair[24];
};

static bool read_pair(const char *label, unsigned *from, unsigned *to)
{
    char *end;
    if (label[0] < '0' || label[0] > '9')
        return false;
    unsigned long a = strtoul(label, &end, 10);
    if (*end != '-' || end[1] < '0' || end[1] > '9')
        return false;
    unsigned long b = strtoul(end + 1, &end, 10);
    *from = a < 65536 ? (unsigned)a : 65535;
    *to = b < 65536 ? (unsigned)b : 65535;
    return *end == '\0';
}

/* Every pair of the metric `base` ("bandwidth" of "bandwidth.0-1"). */
static void read_matrix(const json_t *metrics, const char *base, size_t length,
                        struct matrix *matrix)
{
    const char *name;
    json_t *metric;
    *matrix = (struct matrix){.least = INFINITY, .most = -INFINITY};
    for (size_t i = 0; i < (size_t)MATRIX_MAX * MATRIX_MAX; i++)
        matrix->values[i / MATRIX_MAX][i % MATRIX_MAX] = NAN;
    snprintf(matrix->metric, sizeof matrix->metric, "%.*s", (int)(length < 60 ? length : 60), base);
    json_object_foreach((json_t *)metrics, name, metric)
    {
        unsigned from, to;
        double value = cm_get_number(metric, "value");
        if (strncmp(name, base, length) != 0 || name[length] != '.' ||
            !read_pair(name + length + 1, &from, &to) || !isfinite(value))
            continue;
        unsigned needed = (from > to ? from : to) + 1;
        matrix->size = needed > matrix->size ? needed : matrix->size;
        snprintf(matrix->unit, sizeof matrix->unit, "%.20s", cm_get_text(metric, "unit"));
        if (value < matrix->least) {
            matrix->least = value;
            snprintf(matrix->least_pair, sizeof matrix->least_pair, "%u-%u", from, to);
        }
        if (value > matrix->most) {
            matrix->most = value;
            snprintf(matrix->most_pair, sizeof matrix->most_pair, "%u-%u", from, to);
        }
        if (needed <= MATRIX_MAX)
            matrix->values[from][to] = value;
    }
    matrix->too_large = matrix->size > MATRIX_MAX;
}

/* One unit for the whole matrix: that of its largest value. */
static double common_scale(const struct matrix *matrix, char *unit, size_t size)
{
    char text[CM_UNITS_TEXT_MAX], *rest;
    cm_format_value(matrix->most, matrix->unit, text);
    double shown = strtod(text, &rest);
    snprintf(unit, size, "%s", rest + strspn(rest, " "));
    if (!(shown > 0) || !(matrix->most > 0) || strcmp(matrix->unit, "B") == 0)
        return 1;
    return pow(1000, round(log10(matrix->most / shown) / 3));
}

static void add_matrix(struct cm_report *report, const struct matrix *matrix)
{
    struct cm_table *table = &report->table;
    char unit[CM_UNITS_TEXT_MAX], text[160], number[16];
    double scale = common_scale(matrix, unit, sizeof unit);
    snprintf(text, sizeof text, "%s, %s, from the rank of a row to that of a column",
             matrix->metric, unit);
    cm_report_line(report, "  ", text);
    cm_table_column(table, "rank", false, 0);
    for (unsigned to = 0; to < matrix->size; to++) {
        snprintf(number, sizeof number, "%u", to);
        cm_table_column(table, number, false, 0);
    }
    for (unsigned from = 0; from < matrix->size; from++) {
        cm_table_row(table);
        cm_table_put(table, 0, CM_PLAIN, "%u", from);
        for (unsigned to = 0; to < matrix->size; to++) {
            double value = matrix->values[from][to] / scale;
            if (isfinite(value))
                cm_table_put(table, to + 1, CM_PLAIN, "%.*f",
                             value >= 100  ? 0
                             : value >= 10 ? 1
                                           : 2,
                             value);
            else if (from == to)
                cm_table_put(table, to + 1, CM_PLAIN, "%s", report->style->utf8 ? "·" : "-");
        }
    }
    report->status = cm_table_write(table, report->out);
}

/* Too many ranks for a table: the extremes by name. */
static void add_extremes(struct cm_report *report, const struct matrix *matrix)
{
    char low[CM_UNITS_TEXT_MAX], high[CM_UNITS_TEXT_MAX], text[240];
    snprintf(text, sizeof text, "%s between %u ranks: least %s (%s), most %s (%s)", matrix->metric,
             matrix->size, cm_format_value(matrix->least, matrix->unit, low), matrix->least_pair,
             cm_format_value(matrix->most, matrix->unit, high), matrix->most_pair);
    cm_report_line(report, "  ", text);
}

/* "out of reach: 0-2, 1-2": pairs that have no figure. */
static void add_unreachable(struct cm_report *report, json_t *metrics)
{
    static const char base[] = "unreachable.";
    struct cm_str line = CM_STR_INIT;
    const char *name;
    json_t *metric;
    json_object_foreach(metrics, name, metric)
    {
        if (strncmp(name, base, sizeof base - 1) == 0)
            cm_str_addf(&line, "%s %s",
                        line.length > 0 ? "," : "out of reach:", name + sizeof base - 1);
    }
    if (line.length > 0)
        cm_report_line(report, "  ", cm_str_text(&line));
    if (report->status == CM_OK)
        report->status = cm_str_status(&line);
    cm_str_release(&line);
}

void cm_report_matrices(struct cm_report *report, const json_t *item)
{
    json_t *metrics = json_object_get(item, "metrics");
    char done[8][64];
    size_t count = 0;
    const char *name;
    json_t *metric;
    json_object_foreach(metrics, name, metric)
    {
        size_t length = strcspn(name, "."), seen = 0;
        struct matrix matrix;
        if (name[length] == '\0' || length >= sizeof done[0] || count == 8 ||
            strncmp(name, "unreachable", length) == 0)
            continue;
        while (seen < count &&
               (strncmp(done[seen], name, length) != 0 || done[seen][length] != '\0'))
            seen++;
        if (seen < count || report->status != CM_OK)
            continue;
        snprintf(done[count++], sizeof done[0], "%.*s", (int)length, name);
        read_matrix(metrics, name, length, &matrix);
        size_t wide = 8 + 7 * (size_t)matrix.size;
        if (matrix.size >= 2 && !matrix.too_large && wide <= (size_t)report->style->width)
            add_matrix(report, &matrix);
        else if (matrix.size >= 2)
            add_extremes(report, &matrix);
    }
    add_unreachable(report, metrics);
}
