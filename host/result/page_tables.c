/* The page's tables: figures by workload, changes, and where the results come from. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/page.h"
#include "host/result/report.h"

#define SIDES_MAX    12
#define DETAILS_MAX  5000 /* rows of further figures */
#define TEXT_MAX     4000
#define ROWS_AT_ONCE 500

/* "±4.9 %", "" without an interval. */
static const char *half_text(const json_t *metric, char *text, size_t size)
{
    char percent[32];
    double half = cm_relative_uncertainty(metric);
    text[0] = '\0';
    if (isfinite(half)) {
        cm_percent_text(half, percent, sizeof percent);
        snprintf(text, size, "±%s", percent);
    }
    return text;
}

static void add_fraction(struct cm_page *page, const json_t *item, const char *metric,
                         const char *kind)
{
    const json_t *ceilings = json_object_get(json_object_get(item, "ceilings"), metric);
    double fraction = cm_get_number(json_object_get(ceilings, kind), "fraction");
    char text[40] = "";
    if (isfinite(fraction) && fabs(fraction) < 1e4)
        snprintf(text, sizeof text, "%.*f", fraction < 0.1 ? 1 : 0, fraction * 100);
    cm_page_number(page->out, fraction, text);
}

/* Columns that have something in a table; the others are left out. */
struct columns {
    bool interval, theoretical, attainable, reason;
};

/* The case in the newest side that has it. */
static const json_t *newest(const struct cm_book *book, const char *name)
{
    for (size_t i = book->count; i-- > 0;) {
        const json_t *item = cm_side_case(&book->sides[i], name);
        if (item != NULL)
            return item;
    }
    return NULL;
}

static void add_value(struct cm_page *page, const json_t *metric)
{
    char text[CM_VALUE_MAX];
    if (metric == NULL) {
        cm_page_number(page->out, NAN, "");
        return;
    }
    cm_value_text(metric, text);
    cm_page_number(page->out, cm_get_number(metric, "value"), text);
}

static void add_row(struct cm_page *page, const struct columns *columns, const char *name,
                    const json_t *item, const char *metric)
{
    const struct cm_book *book = page->book;
    const char *status = cm_get_text(item, "status");
    const json_t *figure = json_object_get(json_object_get(item, "metrics"), metric);
    char text[48], class[24];
    cm_str_add(page->out, "<tr>");
    cm_page_cell(page->out, "k", name);
    cm_page_cell(page->out, "", metric);
    for (size_t i = 0; i < book->count && i < SIDES_MAX; i++)
        add_value(page, cm_side_metric(&book->sides[i], name, metric));
    if (columns->interval)
        cm_page_number(page->out, cm_relative_uncertainty(figure),
                       half_text(figure, text, sizeof text));
    if (columns->theoretical)
        add_fraction(page, item, metric, "theoretical");
    if (columns->attainable)
        add_fraction(page, item, metric, "attainable");
    double runs = cm_get_number(figure, "runs");
    snprintf(text, sizeof text, "%.0f", runs);
    cm_page_number(page->out, runs, isfinite(runs) ? text : "");
    snprintf(class, sizeof class, "v-%s", status); /* one of four: it was checked */
    cm_page_cell(page->out, class, status);
    if (columns->reason)
        cm_page_cell(page->out, "k", cm_get_text(item, "reason"));
    cm_str_add(page->out, "</tr>"); /* a line's end would be a node more for each of many rows */
}

static void begin_table(struct cm_page *page, const char *caption, const struct columns *columns,
                        size_t rows)
{
    const char *titles[SIDES_MAX + 10] = {"case", "figure"};
    size_t count = 2;
    for (size_t i = 0; i < page->book->count && i < SIDES_MAX; i++)
        titles[count++] = page->book->count > 1 ? page->book->sides[i].label : "value";
    if (columns->interval)
        titles[count++] = "95 %";
    if (columns->theoretical)
        titles[count++] = "% T";
    if (columns->attainable)
        titles[count++] = "% A";
    titles[count++] = "runs";
    titles[count++] = "status";
    if (columns->reason)
        titles[count++] = "reason";
    titles[count] = NULL;
    /* A long table is laid out when it comes into view. */
    cm_str_addf(page->out, "<div class=\"scroll%s\" tabindex=\"0\"><table class=\"sorts figures\">",
                rows > ROWS_AT_ONCE ? " many" : "");
    cm_page_table(page->out, caption, titles);
}

static bool has_fraction(const json_t *item, const char *metric, const char *kind)
{
    const json_t *ceilings = json_object_get(json_object_get(item, "ceilings"), metric);
    return isfinite(cm_get_number(json_object_get(ceilings, kind), "fraction"));
}

static struct columns columns_of(const struct cm_page *page, const json_t *names)
{
    struct columns columns = {.interval = false};
    size_t index;
    const json_t *entry;
    json_array_foreach(names, index, entry)
    {
        const json_t *item = newest(page->book, json_string_value(entry));
        const char *metric = cm_headline_metric(item);
        columns.reason = columns.reason || cm_get_text(item, "reason")[0] != '\0';
        if (metric == NULL)
            continue;
        const json_t *figure = json_object_get(json_object_get(item, "metrics"), metric);
        columns.interval = columns.interval || isfinite(cm_relative_uncertainty(figure));
        columns.theoretical = columns.theoretical || has_fraction(item, metric, "theoretical");
        columns.attainable = columns.attainable || has_fraction(item, metric, "attainable");
    }
    return columns;
}

static void end_table(struct cm_page *page)
{
    cm_str_add(page->out, "</tbody></table></div>\n");
}

/* Figures beside the headline that are not labels of it. */
static bool is_further(const char *name, const char *headline, const json_t *metric)
{
    return strchr(name, '.') == NULL && (headline == NULL || strcmp(name, headline) != 0) &&
           strcmp(cm_get_text(metric, "better"), "neither") != 0;
}

static void add_further(struct cm_page *page, const json_t *names)
{
    const struct columns all = {true, true, true, true};
    size_t index, rows = 0;
    const json_t *entry;
    size_t before = page->out->length;
    cm_str_add(page->out, "<details><summary>Further figures</summary>\n");
    begin_table(page, "every figure beside the first", &all, 0);
    json_array_foreach(names, index, entry)
    {
        const char *metric, *name = json_string_value(entry);
        const json_t *item = newest(page->book, name);
        const char *headline = cm_headline_metric(item);
        json_t *figure;
        json_object_foreach(json_object_get(item, "metrics"), metric, figure)
        {
            if (is_further(metric, headline, figure) && rows++ < DETAILS_MAX)
                add_row(page, &all, name, item, metric);
        }
    }
    end_table(page);
    if (rows > DETAILS_MAX)
        cm_str_addf(page->out, "<p class=\"note\">%zu more are in the files.</p>\n",
                    rows - DETAILS_MAX);
    cm_str_add(page->out, "</details>\n");
    if (rows == 0 && !page->out->failed)
        page->out->length = before;
}

/* Workload -> the names of its cases, over all sides. */
static enum cm_status group_cases(const struct cm_book *book, json_t *groups)
{
    enum cm_status status = CM_OK;
    json_t *seen = json_object();
    for (size_t side = 0; side < book->count; side++) {
        size_t index;
        json_t *name;
        json_array_foreach(book->sides[side].order, index, name)
        {
            const char *text = json_string_value(name);
            if (status != CM_OK || json_object_get(seen, text) != NULL)
                continue;
            const char *workload = cm_get_text(cm_side_case(&book->sides[side], text), "workload");
            json_t *group = json_object_get(groups, workload);
            if (group == NULL)
                group = cm_put_array(&status, groups, workload);
            cm_push(&status, group, json_incref(name));
            cm_put(&status, seen, text, json_true());
        }
    }
    json_decref(seen);
    return status;
}

enum cm_status cm_page_figures(struct cm_page *page)
{
    json_t *groups = json_object(), *names;
    enum cm_status status = groups != NULL ? group_cases(page->book, groups) : CM_NO_MEMORY;
    const char *workload;
    cm_str_add(
        page->out,
        "<section id=\"figures\" aria-labelledby=\"h-figures\">\n"
        "<h2 id=\"h-figures\">Figures</h2>\n<p class=\"note\">95 %: interval of the median "
        "over runs. % T: of the theoretical ceiling; % A: of what other cases attained; both "
        "of the newest side. A column's title sorts by it.</p>\n<p class=\"filter\" hidden>"
        "<label>Show cases with <input id=\"filter\" type=\"search\"></label></p>\n");
    json_object_foreach(groups, workload, names)
    {
        size_t index;
        const json_t *entry;
        cm_str_add(page->out, "<h3>");
        cm_page_text(page->out, workload);
        cm_str_add(page->out, "</h3>\n");
        struct columns columns = columns_of(page, names);
        begin_table(page, "the figure each case is known by", &columns, json_array_size(names));
        json_array_foreach(names, index, entry)
        {
            const json_t *item = newest(page->book, json_string_value(entry));
            const char *headline = cm_headline_metric(item);
            add_row(page, &columns, json_string_value(entry), item,
                    headline != NULL ? headline : "");
        }
        end_table(page);
        add_further(page, names);
    }
    cm_str_add(page->out, "</section>\n");
    json_decref(groups);
    return status;
}

static void add_change(struct cm_page *page, const struct cm_change *change)
{
    static const char *const classes[] = {"v-better", "v-worse", "", "v-doubt"};
    char text[96] = "";
    cm_str_add(page->out, "<tr>");
    cm_page_cell(page->out, "k", change->name);
    cm_page_cell(page->out, "", change->metric);
    cm_page_cell(page->out, "", page->book->sides[change->side].label);
    snprintf(text, sizeof text, "%+.2f %%", change->estimate * 100);
    cm_page_number(page->out, change->estimate, text);
    text[0] = '\0';
    if (isfinite(change->low))
        snprintf(text, sizeof text, "%+.2f to %+.2f %%", change->low * 100, change->high * 100);
    cm_page_number(page->out, change->low, text);
    snprintf(text, sizeof text, "%zu, %zu", change->runs[0], change->runs[1]);
    cm_page_cell(page->out, "n", text);
    cm_page_cell(page->out, classes[change->verdict], cm_change_words[change->verdict]);
    cm_str_add(page->out, "</tr>\n");
}

enum cm_status cm_page_changes(struct cm_page *page)
{
    static const char *const titles[] = {"case", "figure", "against the first", "change",
                                         "95 %", "runs",   "verdict",           NULL};
    struct cm_change *changes = NULL;
    size_t count = 0;
    enum cm_status status = cm_changes(page->book, &changes, &count);
    if (status != CM_OK || count == 0) {
        cm_free(changes);
        return status;
    }
    cm_str_add(page->out, "<div class=\"scroll\" tabindex=\"0\"><table class=\"sorts changes\">");
    cm_page_table(page->out, "changes, above 0 for the better", titles);
    for (size_t i = 0; i < count; i++)
        add_change(page, &changes[i]);
    end_table(page);
    cm_free(changes);
    return CM_OK;
}
