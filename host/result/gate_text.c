/* gate in words: a row per gated metric with its bounds, the advisory ones, the verdict last. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/result/gate.h"
#include "host/result/record.h"

struct text {
    const json_t *document;
    const struct cm_report_style *style;
    struct cm_str *out;
};

static void add_set(const struct text *text, const char *key)
{
    const json_t *set = json_object_get(text->document, key);
    char first[40], last[40];
    cm_clean_text(text->style, cm_get_text(set, "first_started"), first, sizeof first);
    cm_clean_text(text->style, cm_get_text(set, "last_started"), last, sizeof last);
    cm_str_addf(text->out, "  %-8s %zu files, up to %lld runs, %s to %s%s\n", key,
                json_array_size(json_object_get(set, "files")),
                (long long)json_integer_value(json_object_get(set, "runs")), first, last,
                json_is_true(json_object_get(set, "earlier_runs_left_out"))
                    ? " (the last; earlier ones are left out)"
                    : "");
}

static enum cm_tint tint_of(const char *verdict)
{
    static const char *const good[] = {"pass", "improved"};
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(verdict, good[i]) == 0)
            return CM_GOOD;
    }
    return strcmp(verdict, "inconclusive") == 0 ? CM_DOUBTFUL : CM_BAD;
}

static void put_value(struct cm_table *table, size_t column, const json_t *row, const char *key)
{
    char value[CM_UNITS_TEXT_MAX];
    const json_t *figure = json_object_get(row, key);
    if (!json_is_object(figure))
        return;
    cm_format_value(cm_get_number(figure, "value"), cm_get_text(row, "unit"), value);
    cm_table_put(table, column, CM_PLAIN, "%s", value);
}

static void put_change(struct cm_table *table, size_t column, const json_t *row, const char *key)
{
    char change[24];
    if (!isfinite(cm_get_number(row, key)))
        return;
    cm_change_text(cm_get_number(row, key), !json_is_false(json_object_get(row, "relative")),
                   change, sizeof change);
    cm_table_put(table, column, CM_PLAIN, "%s", change);
}

static void put_bounds(struct cm_table *table, size_t column, const json_t *row)
{
    char low[24], high[24];
    const json_t *bounds = json_object_get(row, "bounds");
    bool relative = !json_is_false(json_object_get(row, "relative"));
    if (!json_is_object(bounds))
        return;
    cm_change_text(cm_get_number(bounds, "low"), relative, low, sizeof low);
    cm_change_text(cm_get_number(bounds, "high"), relative, high, sizeof high);
    cm_table_put(table, column, CM_PLAIN, "%s .. %s", low, high);
}

static enum cm_status add_gated(const struct text *text)
{
    struct cm_table table = {.style = text->style};
    size_t index;
    const json_t *row;
    size_t name = cm_table_column(&table, "gated metric", true, 0);
    size_t verdict = cm_table_column(&table, "verdict", true, 0);
    size_t change = cm_table_column(&table, "change", false, 0);
    size_t bounds = cm_table_column(&table, "bounds", false, 0);
    size_t tolerated = cm_table_column(&table, "tolerated", false, 2);
    size_t detectable = cm_table_column(&table, "seen with 80 %", false, 3);
    size_t base = cm_table_column(&table, "baseline", false, 4);
    size_t fresh = cm_table_column(&table, "new", false, 4);
    size_t more = cm_table_column(&table, "to decide", true, 1);
    json_array_foreach(json_object_get(text->document, "gated"), index, row)
    {
        char runs[64];
        const char *word = cm_get_text(row, "verdict");
        cm_more_text(row, runs, sizeof runs);
        cm_table_row(&table);
        cm_table_put(&table, name, CM_PLAIN, "%s", cm_get_text(row, "key"));
        cm_table_put(&table, verdict, tint_of(word), "%s", word);
        put_change(&table, change, row, "change");
        put_bounds(&table, bounds, row);
        put_change(&table, tolerated, row, "tolerated");
        put_change(&table, detectable, row, "detectable");
        put_value(&table, base, row, "baseline");
        put_value(&table, fresh, row, "new");
        cm_table_put(&table, more, CM_PLAIN, "%s", runs);
    }
    enum cm_status status = cm_table_write(&table, text->out);
    cm_table_release(&table);
    json_array_foreach(json_object_get(text->document, "gated"), index, row)
    {
        char key[120], reason[240];
        cm_clean_text(text->style, cm_get_text(row, "key"), key, sizeof key);
        cm_clean_text(text->style, cm_get_text(row, "reason"), reason, sizeof reason);
        if (reason[0] != '\0')
            cm_str_addf(text->out, "  ! %s: %s\n", key, reason);
    }
    return status;
}

/* Of the advisory ones those that are slower; with `all` every one. */
static enum cm_status add_advisory(const struct text *text, bool all)
{
    struct cm_table table = {.style = text->style};
    size_t index, slower = 0;
    const json_t *row, *rows = json_object_get(text->document, "advisory");
    cm_table_column(&table, "advisory metric", true, 0);
    cm_table_column(&table, "verdict", true, 0);
    cm_table_column(&table, "change", false, 0);
    cm_table_column(&table, "q", false, 0);
    cm_table_column(&table, "baseline", false, 1);
    cm_table_column(&table, "new", false, 1);
    json_array_foreach(rows, index, row)
    {
        bool is_slower = json_is_true(json_object_get(row, "slower"));
        slower += is_slower;
        if (!is_slower && !all)
            continue;
        cm_table_row(&table);
        cm_table_put(&table, 0, CM_PLAIN, "%s", cm_get_text(row, "key"));
        cm_table_put(&table, 1, is_slower ? CM_DOUBTFUL : CM_PLAIN, "%s",
                     is_slower ? "worse" : "-");
        put_change(&table, 2, row, "change");
        cm_table_put(&table, 3, CM_PLAIN, "%.2g", cm_get_number(row, "q"));
        put_value(&table, 4, row, "baseline");
        put_value(&table, 5, row, "new");
    }
    cm_str_add(text->out, "\n");
    enum cm_status status = cm_table_write(&table, text->out);
    cm_table_release(&table);
    cm_str_addf(text->out,
                "advisory: %zu of %zu other metrics are worse beyond the margin; of such findings "
                "at most 10 %% are false.\n",
                slower, json_array_size(rows));
    return status;
}

static void add_lists(const struct text *text)
{
    size_t index, count = json_array_size(json_object_get(text->document, "missing"));
    const json_t *item;
    char clean[200];
    json_array_foreach(json_object_get(text->document, "missing"), index, item)
    {
        cm_clean_text(text->style, json_string_value(item), clean, sizeof clean);
        if (index < 5)
            cm_str_addf(text->out, "  ! not in the new results: %s\n", clean);
    }
    if (count > 5)
        cm_str_addf(text->out, "  ! and %zu more\n", count - 5);
    json_array_foreach(json_object_get(text->document, "bad_cases"), index, item)
    {
        cm_clean_text(text->style, cm_get_text(item, "case"), clean, sizeof clean);
        cm_str_addf(text->out, "  ! %s: %s", clean, cm_get_text(item, "status"));
        cm_clean_text(text->style, cm_get_text(item, "reason"), clean, sizeof clean);
        cm_str_addf(text->out, " (%s)\n", clean);
    }
}

/* How much of the bounds is due to sessions. */
static void add_sessions(const struct text *text)
{
    size_t index;
    const json_t *row;
    double most = 0;
    bool known = false;
    json_array_foreach(json_object_get(text->document, "gated"), index, row)
    {
        const json_t *sessions = json_object_get(row, "sessions");
        known = known || isfinite(cm_get_number(sessions, "deviation"));
        if (!json_is_false(json_object_get(row, "relative")))
            most = fmax(most, cm_get_number(sessions, "widening"));
    }
    if (known)
        cm_str_addf(text->out,
                    "  Runs of one session (a result file) are alike, which widens bounds here by "
                    "up to %.2g %%.\n",
                    100 * most);
    else
        cm_str_add(text->out, "  How far sessions (result files) differ is not known: it takes two "
                              "of several runs.\n");
}

static void add_end(const struct text *text)
{
    char reason[400];
    const char *outcome = cm_get_text(text->document, "outcome");
    const char *status = cm_get_text(text->document, "exit_status");
    cm_clean_text(text->style, cm_get_text(text->document, "exit_reason"), reason, sizeof reason);
    cm_str_add(text->out, "\nverdict: ");
    cm_add_tinted(text->style,
                  strcmp(outcome, "inconclusive") == 0 ? CM_DOUBTFUL
                  : strcmp(status, "CM_OK") == 0       ? CM_GOOD
                                                       : CM_BAD,
                  outcome, text->out);
    cm_str_addf(text->out, "; %s\n", reason);
}

enum cm_status cm_gate_text(const json_t *document, const struct cm_report_style *style, bool all,
                            struct cm_str *out)
{
    struct text text = {.document = document, .style = style, .out = out};
    enum cm_status status = CM_OK;
    add_set(&text, "baseline");
    add_set(&text, "new");
    if (json_is_string(json_object_get(document, "injected")))
        cm_str_addf(out, "  the new results were slowed down on purpose (inject)\n");
    cm_str_add(out, "\n");
    cm_add_differences(style, json_object_get(document, "differences"), out);
    if (json_is_true(json_object_get(document, "comparable"))) {
        status = add_gated(&text);
        if (status == CM_OK)
            status = add_advisory(&text, all);
        add_lists(&text);
        cm_str_addf(out,
                    "\nbounds: exact, of the median of all differences between runs; the risk of "
                    "any false alarm\n  is at most %.3g %%, shared by the gated metrics (Holm)",
                    100 * cm_get_number(document, "risk"));
        if (json_integer_value(json_object_get(document, "looks")) > 1)
            cm_str_addf(out, ", at look %lld of %lld",
                        (long long)json_integer_value(json_object_get(document, "look")),
                        (long long)json_integer_value(json_object_get(document, "looks")));
        cm_str_add(out, ".\n");
        add_sessions(&text);
        cm_str_add(out, "seen with 80 %: the smallest true change that these runs find so "
                        "often, noise being as it is.\n");
    }
    add_end(&text);
    return status == CM_OK ? cm_str_status(out) : status;
}
