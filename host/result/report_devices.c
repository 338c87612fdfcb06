/* What the report says of the devices: their spread, their clocks, and whether they were throttled.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/result/report.h"

/* A share of the time in which a device was throttled that is worth a word. */
#define THROTTLED 0.01
/* Ranks that stand out and are named; the file has more of them. */
#define NAMED_MAX 8

static double known(const json_t *item, const char *name)
{
    return cm_get_number(json_object_get(item, "telemetry"), name);
}

bool cm_has_telemetry(const json_t *item)
{
    return isfinite(known(item, "power")) || isfinite(known(item, "temperature_c")) ||
           isfinite(known(item, "throttled_fraction"));
}

void cm_telemetry_put(struct cm_table *table, const struct cm_figure_columns *columns,
                      const json_t *item)
{
    double throttled = known(item, "throttled_fraction");
    const struct {
        size_t column;
        double value;
        int digits;
    } cells[] = {{columns->clock, known(item, "clock") * 1e-9, 2},
                 {columns->power, known(item, "power"), 0},
                 {columns->temperature, known(item, "temperature_c"), 0}};
    if (!cm_has_telemetry(item))
        return;
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
        if (isfinite(cells[i].value))
            cm_table_put(table, cells[i].column, CM_PLAIN, "%.*f", cells[i].digits, cells[i].value);
    }
    if (throttled > 0) {
        char text[32];
        cm_percent_text(throttled, text, sizeof text);
        cm_table_put(table, columns->throttled, throttled > THROTTLED ? CM_DOUBTFUL : CM_PLAIN,
                     "%s", text);
    }
}

/* "640 TFLOP/s (rank 3, 0000:1b:00.0, uuid 1f2e3d)" */
static void rank_text(const json_t *rank, const char *unit, char *text, size_t size)
{
    char value[CM_UNITS_TEXT_MAX];
    const char *bus_id = cm_get_text(rank, "bus_id"), *uuid = cm_get_text(rank, "uuid_hash");
    snprintf(text, size, "%s (rank %.0f%s%.30s%s%.30s)",
             cm_format_value(cm_get_number(rank, "value"), unit, value),
             cm_get_number(rank, "rank"), bus_id[0] != '\0' ? ", " : "", bus_id,
             uuid[0] != '\0' ? ", uuid " : "", uuid);
}

/* "half of 16384 ranks within 95.0 .. 97.1 TFLOP/s, 1 % below 90; 8 stand out: 1000, 3000 ..." */
static void report_folded(struct cm_report *report, const json_t *spread, const char *unit,
                          bool lower)
{
    const json_t *outliers = json_object_get(spread, "outliers"), *outlier;
    double ranks = cm_get_number(spread, "ranks"), all = cm_get_number(spread, "outliers_total");
    char low[CM_UNITS_TEXT_MAX], high[CM_UNITS_TEXT_MAX], far[CM_UNITS_TEXT_MAX];
    struct cm_str line = CM_STR_INIT;
    size_t index;
    if (!isfinite(ranks) || !isfinite(all))
        return;
    cm_str_addf(&line, "half of %.0f ranks within %s .. %s, 1 %% %s %s; %.0f stand%s out", ranks,
                cm_format_value(cm_get_number(spread, "p25"), unit, low),
                cm_format_value(cm_get_number(spread, "p75"), unit, high), lower ? "over" : "below",
                cm_format_value(cm_get_number(spread, lower ? "p99" : "p01"), unit, far), all,
                all == 1 ? "s" : "");
    json_array_foreach(outliers, index, outlier)
    {
        if (index < NAMED_MAX)
            cm_str_addf(&line, "%s %.0f", index == 0 ? ": rank" : ",",
                        cm_get_number(outlier, "rank"));
    }
    if (all > NAMED_MAX)
        cm_str_add(&line, " ...");
    cm_report_line(report, "    ", cm_str_text(&line));
    if (report->status == CM_OK)
        report->status = cm_str_status(&line);
    cm_str_release(&line);
}

void cm_report_spread(struct cm_report *report, const json_t *item)
{
    const char *name = cm_headline_metric(item);
    if (name == NULL || report->status != CM_OK)
        return;
    const json_t *spread = json_object_get(json_object_get(item, "spread_ranks"), name);
    const json_t *worst = json_object_get(spread, "worst");
    /* Ranks that share a host are no devices of their own; very many do not share one. */
    bool folded = json_object_get(spread, "outliers_total") != NULL;
    if (cm_get_text(worst, "bus_id")[0] == '\0' && !folded)
        return;
    const json_t *metric = json_object_get(json_object_get(item, "metrics"), name);
    const char *unit = cm_get_text(metric, "unit");
    char low[160], high[160], median[CM_UNITS_TEXT_MAX], text[600];
    rank_text(worst, unit, low, sizeof low);
    rank_text(json_object_get(spread, "best"), unit, high, sizeof high);
    snprintf(text, sizeof text, "%.100s: worst %s, median %s, best %s", cm_get_text(item, "name"),
             low, cm_format_value(cm_get_number(spread, "median"), unit, median), high);
    cm_report_line(report, "  ", text);
    if (folded)
        report_folded(report, spread, unit, strcmp(cm_get_text(metric, "better"), "lower") == 0);
}

void cm_report_throttling(struct cm_report *report)
{
    const json_t *item, *most = NULL;
    size_t index, throttled = 0, judged = 0, errors = 0;
    json_array_foreach(json_object_get(report->result, "cases"), index, item)
    {
        double share = known(item, "throttled_fraction");
        judged += isfinite(share) ? 1 : 0;
        errors += known(item, "ecc_uncorrected") > 0 ? 1 : 0;
        if (!(share > THROTTLED))
            continue;
        throttled++;
        if (most == NULL || share > known(most, "throttled_fraction"))
            most = item;
    }
    if (most != NULL) {
        char share[32], name[120], reasons[120];
        cm_percent_text(known(most, "throttled_fraction"), share, sizeof share);
        cm_clean_text(report->style, cm_get_text(most, "name"), name, sizeof name);
        cm_clean_text(report->style,
                      cm_get_text(json_object_get(most, "telemetry"), "throttle_reasons"), reasons,
                      sizeof reasons);
        cm_str_addf(report->out, "; throttled: %zu of %zu cases, most %s, %s of the time%s%s%s",
                    throttled, judged, name, share, reasons[0] != '\0' ? " (" : "", reasons,
                    reasons[0] != '\0' ? ")" : "");
    }
    if (errors > 0)
        cm_str_addf(report->out, "; memory errors that ECC could not correct in %zu case%s", errors,
                    errors == 1 ? "" : "s");
}
