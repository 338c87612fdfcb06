/* A history on the terminal, and as a table for other tools. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/history.h"
#include "host/result/report.h"

#define SPARK_MAX 32

/* The newest points in eight heights, from the least to the largest of them; a bar where the
 * machine changed. */
static void sparkline(const json_t *points, const struct cm_report_style *style, char *text,
                      size_t size)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const letters[] = {"_", ".", ",", "-", "=", "+", "*", "#"};
    size_t count = json_array_size(points), first = count > SPARK_MAX ? count - SPARK_MAX : 0;
    size_t used = 0;
    double least = INFINITY, most = -INFINITY;
    text[0] = '\0';
    for (size_t i = first; i < count; i++) {
        double value = cm_get_number(json_array_get(points, i), "value");
        least = fmin(least, value);
        most = fmax(most, value);
    }
    for (size_t i = first; i < count && used + 8 < size; i++) {
        const json_t *point = json_array_get(points, i);
        double share =
            most > least ? (cm_get_number(point, "value") - least) / (most - least) : 0.5;
        size_t step = (size_t)fmin(fmax(share * 8, 0), 7);
        bool cut = i > first && !cm_history_continues(json_array_get(points, i - 1), point);
        used += (size_t)snprintf(text + used, size - used, "%s%s", cut ? "|" : "",
                                 style->utf8 ? blocks[step] : letters[step]);
    }
}

static void put_series(struct cm_table *table, const size_t *columns, const json_t *series)
{
    const json_t *points = json_object_get(series, "points");
    const json_t *changes = json_object_get(series, "changes");
    size_t count = json_array_size(points), found = json_array_size(changes);
    const json_t *last = json_array_get(changes, found - 1);
    char spark[SPARK_MAX * 5], value[CM_UNITS_TEXT_MAX];
    sparkline(points, table->style, spark, sizeof spark);
    cm_table_row(table);
    cm_table_put(table, 0, CM_PLAIN, "%s %s", cm_get_text(series, "case"),
                 cm_get_text(series, "metric"));
    cm_table_put(table, columns[0], CM_PLAIN, "%s", spark);
    cm_table_put(table, columns[1], CM_PLAIN, "%s",
                 cm_format_value(cm_get_number(json_array_get(points, count - 1), "value"),
                                 cm_get_text(series, "unit"), value));
    cm_table_put(table, columns[2], CM_PLAIN, "%zu", count);
    if (found == 0)
        return;
    bool worse = strcmp(cm_get_text(last, "verdict"), "worse") == 0;
    cm_table_put(table, columns[3], worse ? CM_BAD : CM_GOOD, "%+.1f %% %s",
                 cm_get_number(last, "change") * 100, cm_get_text(last, "verdict"));
    cm_table_put(table, columns[4], CM_PLAIN, "%s", cm_get_text(last, "time"));
}

static void add_changes(const json_t *series, const struct cm_report_style *style,
                        struct cm_str *out)
{
    size_t index;
    const json_t *change;
    json_array_foreach(json_object_get(series, "changes"), index, change)
    {
        char name[200], before[CM_UNITS_TEXT_MAX], after[CM_UNITS_TEXT_MAX];
        const char *unit = cm_get_text(series, "unit");
        cm_clean_text(style, cm_get_text(series, "case"), name, sizeof name);
        cm_str_addf(out, "  %s ", name);
        cm_clean_text(style, cm_get_text(series, "metric"), name, sizeof name);
        cm_str_addf(out, "%s: ", name);
        cm_clean_text(style, cm_get_text(change, "time"), name, sizeof name);
        cm_str_addf(out, "from %s on %s, before %s (%+.1f %%, %s; p %.1g)\n", name,
                    cm_format_value(cm_get_number(change, "after"), unit, after),
                    cm_format_value(cm_get_number(change, "before"), unit, before),
                    cm_get_number(change, "change") * 100, cm_get_text(change, "verdict"),
                    cm_get_number(change, "p"));
    }
}

static void add_head(const json_t *history, const struct cm_report_style *style, struct cm_str *out)
{
    const json_t *machines = json_object_get(history, "machines");
    const json_t *results = json_object_get(history, "results");
    size_t index;
    const json_t *machine;
    char text[400];
    cm_str_addf(out, "%zu results, %zu series, %zu machine%s\n", json_array_size(results),
                json_array_size(json_object_get(history, "series")), json_array_size(machines),
                json_array_size(machines) == 1 ? "" : "s");
    json_array_foreach(machines, index, machine)
    {
        cm_clean_text(style, json_string_value(machine), text, sizeof text);
        cm_str_addf(out, "  %zu: %s\n", index, text);
    }
    cm_str_add(out, "\n");
}

enum cm_status cm_history_text(const json_t *history, const struct cm_report_style *style,
                               struct cm_str *out)
{
    struct cm_table table = {.style = style};
    const json_t *all = json_object_get(history, "series");
    size_t index, columns[5], changes = 0;
    const json_t *series;
    add_head(history, style, out);
    cm_table_column(&table, "series", true, 0);
    columns[0] = cm_table_column(&table, "oldest to newest", true, 2);
    columns[1] = cm_table_column(&table, "newest", false, 0);
    columns[2] = cm_table_column(&table, "points", false, 3);
    columns[3] = cm_table_column(&table, "last change", true, 0);
    columns[4] = cm_table_column(&table, "since", true, 1);
    json_array_foreach(all, index, series)
    {
        put_series(&table, columns, series);
        changes += json_array_size(json_object_get(series, "changes"));
    }
    enum cm_status status = cm_table_write(&table, out);
    cm_table_release(&table);
    cm_str_addf(out, "\n%zu change%s above %.3g %%%s\n", changes, changes == 1 ? "" : "s",
                cm_get_number(history, "margin") * 100, changes > 0 ? ":" : "");
    json_array_foreach(all, index, series) add_changes(series, style, out);
    return status != CM_OK ? status : cm_str_status(out);
}

/* A field of RFC 4180. A spreadsheet would run what begins like a formula: it gets an apostrophe.
 */
void cm_csv_field(struct cm_str *out, const char *text)
{
    bool formula = text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL;
    if (!formula && strpbrk(text, ",\"\r\n") == NULL) {
        cm_str_add(out, text);
        return;
    }
    cm_str_add(out, formula ? "\"'" : "\"");
    for (; *text != '\0'; text++) {
        if (*text == '"')
            cm_str_add(out, "\"");
        cm_str_add_bytes(out, text, 1);
    }
    cm_str_add(out, "\"");
}

/* The cells of all series for one result, at their places. */
static void add_cells(const json_t *all, size_t *next, size_t result, struct cm_str *out)
{
    size_t index;
    const json_t *series;
    json_array_foreach(all, index, series)
    {
        const json_t *point = json_array_get(json_object_get(series, "points"), next[index]);
        cm_str_add(out, ",");
        if (point == NULL || cm_get_number(point, "result") != (double)result)
            continue;
        cm_str_addf(out, "%.9g", cm_get_number(point, "value"));
        next[index]++;
    }
}

enum cm_status cm_history_csv(const json_t *history, struct cm_str *out)
{
    const json_t *all = json_object_get(history, "series");
    size_t index;
    const json_t *series, *row;
    size_t *next = cm_alloc(json_array_size(all), sizeof *next);
    if (next == NULL)
        return CM_NO_MEMORY;
    cm_str_add(out, "time,commit,machine");
    json_array_foreach(all, index, series)
    {
        struct cm_str name = CM_STR_INIT;
        cm_str_addf(&name, "%s %s [%s]", cm_get_text(series, "case"), cm_get_text(series, "metric"),
                    cm_get_text(series, "unit"));
        cm_str_add(out, ",");
        cm_csv_field(out, cm_str_text(&name));
        out->failed = out->failed || name.failed;
        cm_str_release(&name);
    }
    cm_str_add(out, "\n");
    json_array_foreach(json_object_get(history, "results"), index, row)
    {
        cm_csv_field(out, cm_get_text(row, "time"));
        cm_str_add(out, ",");
        cm_csv_field(out, cm_get_text(row, "revision"));
        cm_str_addf(out, ",%.0f", cm_get_number(row, "machine"));
        add_cells(all, next, index, out);
        cm_str_add(out, "\n");
    }
    cm_free(next);
    return cm_str_status(out);
}
