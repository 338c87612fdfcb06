/* What compare and gate say alike: the sets, their differences, changes, what more runs would do.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/units.h"
#include "host/result/compare.h"
#include "host/result/record.h"

static size_t most_runs(const struct cm_set *set)
{
    size_t most = 0;
    for (size_t i = 0; i < set->series_count; i++)
        most = set->series[i].count > most ? set->series[i].count : most;
    return most;
}

static void put_span(enum cm_status *status, json_t *object, const struct cm_set *set)
{
    const char *first = cm_get_text(set->files[0].facts, "started"), *last = first;
    for (size_t i = 1; i < set->file_count; i++) {
        const char *own = cm_get_text(set->files[i].facts, "started");
        first = strcmp(own, first) < 0 ? own : first;
        last = strcmp(own, last) > 0 ? own : last;
    }
    cm_put(status, object, "first_started", json_string(first));
    cm_put(status, object, "last_started", json_string(last));
}

json_t *cm_set_json(const struct cm_set *set)
{
    static const char *const facts[] = {"device",         "ranks",        "devices.name",
                                        "machine.digest", "tool.version", "tool.revision",
                                        "suite.name"};
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "name", cm_result_string(set->name));
    json_t *files = cm_put_array(&status, object, "files");
    for (size_t i = 0; i < set->file_count; i++)
        cm_push(&status, files, cm_result_string(set->files[i].path));
    cm_put(&status, object, "runs", json_integer((json_int_t)most_runs(set)));
    cm_put(&status, object, "earlier_runs_left_out", json_boolean(set->trimmed));
    put_span(&status, object, set);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        json_t *value = json_object_get(set->files[0].facts, facts[i]);
        if (value != NULL)
            cm_put(&status, object, facts[i], json_incref(value));
    }
    if (status == CM_OK)
        return object;
    json_decref(object);
    return NULL;
}

/* Rows that are shown; the document has all. */
#define SHOWN_MAX 24

void cm_add_differences(const struct cm_report_style *style, const json_t *differences,
                        struct cm_str *out)
{
    struct cm_table table = {.style = style};
    size_t index, shown = 0, all = json_array_size(differences);
    const json_t *row;
    if (all == 0)
        return;
    size_t key = cm_table_column(&table, "differs", true, 0);
    size_t role = cm_table_column(&table, "", true, 0);
    size_t left = cm_table_column(&table, "here", true, 0);
    size_t right = cm_table_column(&table, "there", true, 0);
    size_t where = cm_table_column(&table, "in", true, 1);
    /* What is in the way comes first. */
    static const char *const roles[] = {"must match", "subject", "record"};
    for (size_t r = 0; r < 3; r++) {
        json_array_foreach(differences, index, row)
        {
            if (strcmp(cm_get_text(row, "role"), roles[r]) != 0 ||
                strcmp(cm_get_text(row, "key"), "started") == 0 || shown++ >= SHOWN_MAX)
                continue;
            bool allowed = json_is_true(json_object_get(row, "allowed"));
            cm_table_row(&table);
            cm_table_put(&table, key, CM_PLAIN, "%s", cm_get_text(row, "key"));
            cm_table_put(&table, role, r == 0 && !allowed ? CM_BAD : CM_PLAIN, "%s%s", roles[r],
                         allowed ? ", allowed" : "");
            const char *texts[] = {cm_get_text(row, "left"), cm_get_text(row, "right")};
            cm_table_put(&table, left, CM_PLAIN, "%.44s", texts[0][0] != '\0' ? texts[0] : "-");
            cm_table_put(&table, right, CM_PLAIN, "%.44s", texts[1][0] != '\0' ? texts[1] : "-");
            cm_table_put(&table, where, CM_PLAIN, "%.60s", cm_get_text(row, "right_in"));
        }
    }
    if (cm_table_write(&table, out) != CM_OK)
        out->failed = true;
    cm_table_release(&table);
    if (shown == 0)
        return;
    if (all > SHOWN_MAX)
        cm_str_addf(out, "  and %zu more: --json has all\n", all - SHOWN_MAX);
    cm_str_add(out, "\n");
}

void cm_change_text(double change, bool relative, char *text, size_t size)
{
    double shown = relative ? 100 * change : change;
    int digits = fabs(shown) >= 99.95 ? 0 : fabs(shown) >= 9.995 ? 1 : 2;
    if (!isfinite(change))
        snprintf(text, size, "n/a");
    else if (relative && fabs(shown) > 9999)
        snprintf(text, size, "x %.3g", 1 + change);
    else
        snprintf(text, size, relative ? "%+.*f %%" : "%+.*f", relative ? digits : 4, shown);
}

void cm_more_text(const json_t *row, char *text, size_t size)
{
    char time[CM_UNITS_TEXT_MAX];
    const json_t *runs = json_object_get(row, "more_runs");
    double seconds = cm_get_number(row, "more_s");
    text[0] = '\0';
    if (json_is_null(runs))
        snprintf(text, size, "over 1000 runs");
    else if (runs != NULL && isfinite(seconds))
        snprintf(text, size, "%lld more, %s", (long long)json_integer_value(runs),
                 cm_format_time(seconds, time));
    else if (runs != NULL)
        snprintf(text, size, "%lld more", (long long)json_integer_value(runs));
}

static const json_t *first_forbidden(const json_t *document)
{
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(document, "differences"), index, row)
    {
        if (strcmp(cm_get_text(row, "role"), "must match") == 0 &&
            !json_is_true(json_object_get(row, "allowed")))
            return row;
    }
    return NULL;
}

enum cm_status cm_document_verdict(const json_t *document)
{
    const json_t *row = first_forbidden(document);
    if (row != NULL) {
        const char *key = cm_get_text(row, "key");
        return cm_error(
            CM_NOT_COMPARABLE,
            "not comparable: %.80s is %.60s in %.60s and %.60s in %.60s; "
            "--allow-mismatch %.*s compares all the same",
            key,
            json_is_string(json_object_get(row, "left")) ? cm_get_text(row, "left") : "missing",
            cm_get_text(row, "left_in"),
            json_is_string(json_object_get(row, "right")) ? cm_get_text(row, "right") : "missing",
            cm_get_text(row, "right_in"), (int)strcspn(key, ":"), key);
    }
    const char *name = cm_get_text(document, "exit_status");
    for (int i = 1; i < CM_STATUS_COUNT; i++) {
        if (strcmp(cm_status_name((enum cm_status)i), name) == 0)
            return cm_error((enum cm_status)i, "%s", cm_get_text(document, "exit_reason"));
    }
    return CM_OK;
}
