/* compare in words: who, what differs, a table per pair or side by side, a verdict. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/result/compare.h"
#include "host/result/record.h"

struct text {
    const json_t *document, *sets;
    const struct cm_report_style *style;
    bool all;
    struct cm_str *out;
    size_t better, worse, same, unknown, longest_runs;
    double longest_s;
    bool out_of_reach;
};

/* Figures with a label are of single ranks, pairs, shapes; what something costs is none of those.
 */
static bool is_shown(const struct text *text, const json_t *row)
{
    const char *dot = strchr(cm_get_text(row, "metric"), '.');
    if (strcmp(cm_get_text(row, "better"), "neither") == 0)
        return false;
    return text->all || dot == NULL || strcmp(dot, ".cost") == 0;
}

static void add_sets(struct text *text)
{
    size_t index;
    const json_t *set;
    json_array_foreach(text->sets, index, set)
    {
        char clean[200];
        const json_t *price = json_object_get(set, "price");
        cm_clean_text(text->style, cm_get_text(set, "name"), clean, sizeof clean);
        cm_str_addf(text->out, "  %zu  %s: %zu files, %lld runs", index + 1, clean,
                    json_array_size(json_object_get(set, "files")),
                    (long long)json_integer_value(json_object_get(set, "runs")));
        if (json_is_true(json_object_get(set, "earlier_runs_left_out")))
            cm_str_add(text->out, " (the last; earlier ones are left out)");
        cm_clean_text(text->style, cm_get_text(set, "devices.name"), clean, sizeof clean);
        cm_str_addf(text->out, "; %s\n", clean[0] != '\0' ? clean : "devices not known");
        if (!json_is_object(price))
            continue;
        cm_clean_text(text->style, cm_get_text(price, "source"), clean, sizeof clean);
        cm_str_addf(text->out, "     %.6g %s per hour", cm_get_number(price, "per_hour"),
                    cm_get_text(price, "currency"));
        const char *words[] = {"instance", "date"};
        for (size_t i = 0; i < 2; i++) {
            char word[80];
            cm_clean_text(text->style, cm_get_text(price, words[i]), word, sizeof word);
            cm_str_addf(text->out, "%s%s", word[0] != '\0' ? ", " : "", word);
        }
        cm_str_addf(text->out, ", by %s\n", clean);
    }
    cm_str_add(text->out, "\n");
}

/* "12.3 GB/s", with a mark where it is the best of its row. */
static void put_figure(const struct text *text, struct cm_table *table, size_t column,
                       const json_t *row, size_t set)
{
    char value[CM_UNITS_TEXT_MAX];
    const json_t *figure = json_array_get(json_object_get(row, "sets"), set);
    const json_t *best = json_object_get(row, "best");
    bool is_best = json_is_integer(best) && json_integer_value(best) == (json_int_t)set;
    if (!json_is_object(figure))
        return;
    cm_format_value(cm_get_number(figure, "value"), cm_get_text(row, "unit"), value);
    cm_table_put(table, column, is_best ? CM_GOOD : CM_PLAIN, "%s%s", value,
                 !is_best            ? "  "
                 : text->style->utf8 ? " ★"
                                     : " *");
}

static void put_against(struct text *text, struct cm_table *table, size_t column, const json_t *row,
                        const json_t *against)
{
    char change[24], low[24], high[24], more[64];
    bool relative = json_is_true(json_object_get(against, "relative"));
    const json_t *interval = json_object_get(against, "interval");
    const char *verdict = cm_get_text(against, "verdict");
    cm_change_text(cm_get_number(against, "change"), relative, change, sizeof change);
    cm_table_put(table, column, CM_PLAIN, "%s", change);
    if (json_is_object(interval)) {
        cm_change_text(cm_get_number(interval, "low"), relative, low, sizeof low);
        cm_change_text(cm_get_number(interval, "high"), relative, high, sizeof high);
        cm_table_put(table, column + 1, CM_PLAIN, "%s .. %s", low, high);
    }
    enum cm_tint tint = strcmp(verdict, "better") == 0    ? CM_GOOD
                        : strcmp(verdict, "worse") == 0   ? CM_BAD
                        : strcmp(verdict, "unknown") == 0 ? CM_DOUBTFUL
                                                          : CM_PLAIN;
    cm_table_put(table, column + 2, tint, "%s", cm_get_text(against, "word"));
    cm_more_text(against, more, sizeof more);
    cm_table_put(table, column + 3, CM_PLAIN, "%s", more);
    text->better += tint == CM_GOOD;
    text->worse += tint == CM_BAD;
    text->unknown += tint == CM_DOUBTFUL;
    text->same += strcmp(verdict, "same") == 0;
    if (tint == CM_DOUBTFUL) {
        double runs = cm_get_number(against, "more_runs"),
               seconds = cm_get_number(against, "more_s");
        text->out_of_reach = text->out_of_reach || !isfinite(runs);
        text->longest_runs = runs > (double)text->longest_runs ? (size_t)runs : text->longest_runs;
        text->longest_s += isfinite(seconds) ? seconds : 0;
    }
    (void)row;
}

/* "0/12/85/3": between nodes, sessions, runs, iterations. */
static void put_shares(struct cm_table *table, size_t column, const json_t *figure)
{
    char text[CM_LEVELS * 8] = "";
    const json_t *shares = json_object_get(figure, "variance_shares");
    bool any = false;
    size_t length = 0;
    for (size_t i = 0; i < CM_LEVELS; i++) {
        double share = cm_get_number(shares, cm_level_names[i]);
        any = any || isfinite(share);
        if (i > 0)
            text[length++] = '/';
        if (isfinite(share))
            length += (size_t)snprintf(text + length, sizeof text - length, "%.0f", 100 * share);
        else
            text[length++] = '-';
        text[length] = '\0';
    }
    if (any)
        cm_table_put(table, column, CM_PLAIN, "%s", text);
}

/* A set against the first. */
static enum cm_status add_pair(struct text *text, size_t other)
{
    struct cm_table table = {.style = text->style};
    size_t index;
    const json_t *row;
    char names[2][60];
    for (size_t i = 0; i < 2; i++)
        cm_clean_text(text->style,
                      cm_get_text(json_array_get(text->sets, i == 0 ? 0 : other), "name"), names[i],
                      30);
    cm_str_addf(text->out, "%s against %s\n", names[1], names[0]);
    size_t name = cm_table_column(&table, "metric", true, 0);
    size_t left = cm_table_column(&table, names[0], false, 2);
    size_t right = cm_table_column(&table, names[1], false, 2);
    size_t change = cm_table_column(&table, "change", false, 0);
    cm_table_column(&table, "95 %", false, 0);
    cm_table_column(&table, "verdict", true, 0);
    cm_table_column(&table, "to tell", true, 3);
    size_t shares = cm_table_column(&table, "node/ses/run/it %", false, 4);
    json_array_foreach(json_object_get(text->document, "metrics"), index, row)
    {
        const json_t *against = json_array_get(json_object_get(row, "against_first"), other);
        const json_t *figures = json_object_get(row, "sets");
        if (!is_shown(text, row))
            continue;
        cm_table_row(&table);
        cm_table_put(&table, name, CM_PLAIN, "%s", cm_get_text(row, "key"));
        put_figure(text, &table, left, row, 0);
        put_figure(text, &table, right, row, other);
        put_shares(&table, shares, json_array_get(figures, other));
        if (json_is_object(against))
            put_against(text, &table, change, row, against);
        else
            cm_table_put(&table, change + 2, CM_DOUBTFUL, "only in %s",
                         json_is_object(json_array_get(figures, other)) ? names[1] : names[0]);
    }
    enum cm_status status = cm_table_write(&table, text->out);
    cm_table_release(&table);
    cm_str_add(text->out, "\n");
    return status;
}

static enum cm_status add_side_by_side(struct text *text)
{
    struct cm_table table = {.style = text->style};
    size_t index, set;
    const json_t *row;
    cm_table_column(&table, "metric", true, 0);
    for (set = 0; set < json_array_size(text->sets); set++) {
        char name[30];
        cm_clean_text(text->style, cm_get_text(json_array_get(text->sets, set), "name"), name,
                      sizeof name);
        cm_table_column(&table, name, false, 0);
    }
    json_array_foreach(json_object_get(text->document, "metrics"), index, row)
    {
        if (!is_shown(text, row))
            continue;
        cm_table_row(&table);
        cm_table_put(&table, 0, CM_PLAIN, "%s", cm_get_text(row, "key"));
        for (set = 0; set < json_array_size(text->sets); set++)
            put_figure(text, &table, set + 1, row, set);
    }
    enum cm_status status = cm_table_write(&table, text->out);
    cm_table_release(&table);
    cm_str_add(text->out, "\n");
    return status;
}

static void add_end(struct text *text)
{
    double margin = 100 * cm_get_number(text->document, "margin");
    size_t decided = text->better + text->worse;
    cm_str_addf(text->out,
                "change: of the metric, median of all differences between runs (of logarithms); "
                "95 %%: exact, for each\n  row by itself: among %zu equal rows about %.1f would "
                "seem to differ. Margin %s%.3g %%.\n",
                decided + text->same + text->unknown,
                0.05 * (double)(decided + text->same + text->unknown),
                text->style->utf8 ? "±" : "+-", margin);
    cm_str_add(text->out, "node/ses/run/it: shares of a run's variance between nodes, between "
                          "sessions (result files) on\n  a node, runs, and iterations within a "
                          "run; - not known.\n");
    if (text->unknown > 0)
        cm_str_add(text->out, "to tell: runs of each, with the noise as it is, for a chance of "
                              "80 %; the time is the case's own.\n");
    cm_str_addf(text->out,
                "\nverdict: %zu better or faster, %zu worse or slower, %zu same within the margin, "
                "%zu cannot tell",
                text->better, text->worse, text->same, text->unknown);
    if (text->unknown > 0 && text->longest_runs > 0) {
        char time[CM_UNITS_TEXT_MAX];
        cm_str_addf(text->out, " (%zu more runs of each%s", text->longest_runs,
                    text->out_of_reach ? " tell some" : "");
        if (text->longest_s > 0)
            cm_str_addf(text->out, ", about %s", cm_format_time(text->longest_s, time));
        cm_str_add(text->out, ")");
    }
    cm_str_add(text->out, "\n");
}

enum cm_status cm_compare_text(const json_t *document, const struct cm_report_style *style,
                               bool all, struct cm_str *out)
{
    struct text text = {.document = document,
                        .sets = json_object_get(document, "sets"),
                        .style = style,
                        .all = all,
                        .out = out};
    size_t count = json_array_size(text.sets);
    enum cm_status status = CM_OK;
    add_sets(&text);
    cm_add_differences(style, json_object_get(document, "differences"), out);
    if (!json_is_true(json_object_get(document, "comparable"))) {
        cm_str_add(out, "verdict: ");
        cm_add_tinted(style, CM_BAD, "not comparable", out);
        cm_str_add(out, "\n");
        return cm_str_status(out);
    }
    if (count > 2)
        status = add_side_by_side(&text);
    for (size_t i = 1; status == CM_OK && i < count; i++)
        status = add_pair(&text, i);
    add_end(&text);
    return status == CM_OK ? cm_str_status(out) : status;
}
