/* The report's ranked list of those that are slow, with the evidence. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/result/report.h"

#define LINES_MAX 20

static void add_ranks(struct cm_str *line, const json_t *entry)
{
    const json_t *ranks = json_object_get(entry, "ranks");
    size_t count = json_array_size(ranks);
    cm_str_add(line, count == 1 ? "rank" : "ranks");
    for (size_t i = 0; i < count && i < 8; i++)
        cm_str_addf(line, "%s %.0f", i > 0 ? "," : "", json_number_value(json_array_get(ranks, i)));
    if (count > 8)
        cm_str_addf(line, " and %zu more", count - 8);
}

static double percent(const json_t *entry, const char *key)
{
    return 100 * cm_get_number(entry, key);
}

/* "host h2 (rank 2), sending and receiving: 90 % slower than the others (95 %: 89.7 to 90.2 %);
 * with ranks 0, 1, 3 again 90 %; pairs" */
void cm_suspect_text(const json_t *entry, struct cm_str *line)
{
    cm_str_addf(line, "host %.64s (", cm_get_text(entry, "host"));
    add_ranks(line, entry);
    cm_str_add(line, ")");
    if (isfinite(cm_get_number(entry, "peer")))
        cm_str_addf(line, " to host %.64s (rank %.0f)", cm_get_text(entry, "peer_host"),
                    cm_get_number(entry, "peer"));
    cm_str_addf(line, ", %.31s: %.3g %% slower than the others", cm_get_text(entry, "what"),
                -percent(entry, "effect"));
    if (isfinite(percent(entry, "low")) && isfinite(percent(entry, "high")))
        cm_str_addf(line, " (95 %%: %.3g to %.3g %%)", -percent(entry, "high"),
                    -percent(entry, "low"));
    if (isfinite(percent(entry, "retest")))
        cm_str_addf(line, "; again %.3g %% with rank%s %.63s", -percent(entry, "retest"),
                    strchr(cm_get_text(entry, "partners"), ',') != NULL ? "s" : "",
                    cm_get_text(entry, "partners"));
    cm_str_addf(line, "; in %.0f of %.0f run%s of %.120s", cm_get_number(entry, "seen"),
                cm_get_number(entry, "runs"), cm_get_number(entry, "runs") == 1 ? "" : "s",
                cm_get_text(entry, "case"));
}

void cm_report_suspects(struct cm_report *report)
{
    const json_t *suspects = json_object_get(report->result, "suspects");
    size_t index;
    const json_t *entry;
    if (json_array_size(suspects) == 0)
        return;
    cm_report_line(report, "", "slow, the slowest first:");
    json_array_foreach(suspects, index, entry)
    {
        char number[16];
        struct cm_str line = CM_STR_INIT;
        if (index >= LINES_MAX)
            break;
        snprintf(number, sizeof number, "%3zu. ", index + 1);
        cm_suspect_text(entry, &line);
        cm_report_line(report, number, cm_str_text(&line));
        if (report->status == CM_OK)
            report->status = cm_str_status(&line);
        cm_str_release(&line);
    }
    if (json_array_size(suspects) > LINES_MAX)
        cm_str_addf(report->out, "     and %zu more in the file\n",
                    json_array_size(suspects) - LINES_MAX);
}
