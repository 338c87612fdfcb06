/* The gate's selftest in words: a row per gated metric. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/result/gate.h"
#include "host/result/record.h"

static void share_text(const json_t *share, char *text, size_t size)
{
    snprintf(text, size, "%.1f %% (%.1f .. %.1f)", 100 * cm_get_number(share, "share"),
             100 * cm_get_number(share, "low"), 100 * cm_get_number(share, "high"));
}

static void put_metric(struct cm_table *table, const json_t *row)
{
    char text[64];
    size_t index;
    const json_t *injected;
    cm_table_row(table);
    cm_table_put(table, 0, CM_PLAIN, "%s", cm_get_text(row, "key"));
    cm_table_put(table, 1, CM_PLAIN, "%.2f %%", 100 * cm_get_number(row, "deviation"));
    cm_table_put(table, 2, CM_PLAIN, "%.3g %%", 100 * cm_get_number(row, "margin"));
    share_text(json_object_get(row, "false_alarms"), text, sizeof text);
    cm_table_put(table, 3, CM_PLAIN, "%s", text);
    json_array_foreach(json_object_get(row, "injected"), index, injected)
    {
        double by = cm_get_number(injected, "worse_by");
        if (!isfinite(by)) {
            cm_table_put(table, 4 + index, CM_PLAIN, "never");
            continue;
        }
        double share = 100 * cm_get_number(injected, "share");
        if (json_object_get(injected, "what") != NULL)
            cm_table_put(table, 4 + index, CM_PLAIN, "%.3g %%: %.0f %%", 100 * by, share);
        else
            cm_table_put(table, 4 + index, CM_PLAIN, "%.0f %%", share);
    }
    const json_t *real = json_object_get(row, "really_injected");
    if (real != NULL)
        cm_table_put(table, 9, CM_PLAIN, "%.3g %%: %.0f %%", 100 * cm_get_number(real, "worse_by"),
                     100 * cm_get_number(real, "share"));
}

enum cm_status cm_gate_selftest_text(const json_t *document, const struct cm_report_style *style,
                                     struct cm_str *out)
{
    struct cm_table table = {.style = style};
    static const char *const titles[] = {"metric",     "noise",      "margin",     "false alarms",
                                         "3 % found",  "5 % found",  "10 % found", "detectable",
                                         "twice that", "new results"};
    static const int ranks[] = {0, 0, 2, 1, 0, 0, 0, 0, 0, 0};
    size_t index;
    const json_t *row;
    char text[64];
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        cm_table_column(&table, titles[i], i == 0, ranks[i]);
    json_array_foreach(json_object_get(document, "metrics"), index, row) put_metric(&table, row);
    enum cm_status status = cm_table_write(&table, out);
    cm_table_release(&table);
    const json_t *alarms = json_object_get(document, "false_alarms");
    share_text(alarms, text, sizeof text);
    cm_str_addf(out,
                "\n%lld gates of %lld against %lld runs, drawn %s from the baseline's own: %lld "
                "gave a false alarm, %s\n",
                (long long)json_integer_value(json_object_get(alarms, "trials")),
                (long long)json_integer_value(json_object_get(document, "new_runs")),
                (long long)json_integer_value(json_object_get(document, "baseline_runs")),
                strcmp(cm_get_text(document, "draw"), "sessions") == 0 ? "by sessions (files)"
                                                                       : "run by run",
                (long long)json_integer_value(json_object_get(alarms, "hits")), text);
    cm_str_add(out,
               "In brackets: 95 % interval, as if the draws were independent; they share runs, "
               "so it is too narrow.\nfound: that metric alone made worse by so much. "
               "detectable: what each gate says it finds with 80 % (the median),\nand "
               "how often such a change was found. noise: deviation between "
               "runs.\n");
    cm_str_addf(out, "\nverdict: %s\n", cm_get_text(document, "exit_reason"));
    return status == CM_OK ? cm_str_status(out) : status;
}
