/* An answer on the terminal. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/project.h"
#include "clustermark/units.h"
#include "host/project/document.h"
#include "host/project/outlook.h"

#define BAR_CELLS 40

static void put_time(struct cm_str *out, const char *name, const json_t *figure)
{
    char value[CM_UNITS_TEXT_MAX], low[CM_UNITS_TEXT_MAX], high[CM_UNITS_TEXT_MAX];
    cm_str_addf(out, "%-14s %-12s %s .. %s\n", name,
                cm_format_time(cm_document_number(figure, "value"), value),
                cm_format_time(cm_document_number(figure, "p10"), low),
                cm_format_time(cm_document_number(figure, "p90"), high));
}

static void put_share(struct cm_str *out, const char *name, const json_t *figure)
{
    cm_str_addf(out, "%-14s %-12.3f %.3f .. %.3f\n", name, cm_document_number(figure, "value"),
                cm_document_number(figure, "p10"), cm_document_number(figure, "p90"));
}

static void put_breakdown(const json_t *document, struct cm_str *out)
{
    const char *key;
    json_t *value;
    double step = cm_document_number(json_object_get(document, "step_time_s"), "value");
    cm_str_add(out, "\nwhere the step's time goes\n");
    json_object_foreach(json_object_get(document, "breakdown"), key, value)
    {
        char time[CM_UNITS_TEXT_MAX];
        double seconds = json_number_value(value), share = seconds / step;
        if (!(share >= 5e-4))
            continue;
        cm_str_addf(out, "  %-12s %-10s %5.1f %% ", key, cm_format_time(seconds, time),
                    share * 100);
        for (int i = 0; i < (int)(share * BAR_CELLS + 0.5); i++)
            cm_str_add(out, "#");
        cm_str_add(out, "\n");
    }
}

static void put_rules(const json_t *document, struct cm_str *out)
{
    const char *key;
    json_t *value;
    cm_str_addf(out, "\nby simple rules, from %s\n", cm_document_text(document, "baselines_from"));
    json_object_foreach(json_object_get(document, "baselines"), key, value)
    {
        char time[CM_UNITS_TEXT_MAX];
        cm_str_addf(out, "  %-12s %s\n", key,
                    json_is_number(value) ? cm_format_time(json_number_value(value), time) : "-");
    }
}

static void put_seconds(struct cm_str *out, const json_t *entry, const char *key)
{
    char time[CM_UNITS_TEXT_MAX];
    double value = cm_document_number(entry, key);
    cm_str_addf(out, " %10s", isnan(value) ? "-" : cm_format_time(value, time));
}

static void put_curve(const json_t *document, const char *key, const char *title,
                      struct cm_str *out)
{
    static const char *const columns[] = {"step_time_s", "p10_s",       "p90_s",
                                          "null",        "bubble_only", "two_anchor"};
    const json_t *curve = json_object_get(document, key), *entry;
    size_t index;
    if (json_array_size(curve) == 0)
        return;
    cm_str_addf(out, "\n%s\n  %8s %10s %10s %10s %10s %10s %10s %12s\n", title, "GPUs", "step",
                "P10", "P90", "null", "bubble", "two", "tokens/s");
    json_array_foreach(curve, index, entry)
    {
        cm_str_addf(out, "  %8.0f", cm_document_number(entry, "gpus"));
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
            put_seconds(out, entry, columns[i]);
        cm_str_addf(out, " %12.4g\n", cm_document_number(entry, "tokens_per_s"));
    }
}

enum cm_status cm_project_answer_text(const json_t *document, const struct cm_report_style *style,
                                      struct cm_str *out)
{
    const json_t *plan = json_object_get(document, "plan");
    const json_t *memory = json_object_get(document, "memory");
    const json_t *rate = json_object_get(document, "tokens_per_s");
    size_t index;
    const json_t *line;
    (void)style;
    cm_str_addf(out,
                "%s on %.0f %s (%s), %s, %s\nbatch %.0f sequences, %.0f micro-batches of %.0f\n\n",
                cm_document_text(document, "model"), cm_document_number(plan, "gpus"),
                cm_document_text(document, "gpu"), cm_document_text(document, "cluster"),
                cm_document_text(plan, "plan"), cm_document_text(plan, "precision"),
                cm_document_number(plan, "batch"), cm_document_number(plan, "micro_batches"),
                cm_document_number(plan, "micro_batch"));
    cm_str_addf(out, "%-14s %-12s %s\n", "", "", "P10 .. P90");
    put_time(out, "step_time", json_object_get(document, "step_time_s"));
    cm_str_addf(out, "%-14s %-12.4g %.4g .. %.4g\n", "tokens_per_s",
                cm_document_number(rate, "value"), cm_document_number(rate, "p10"),
                cm_document_number(rate, "p90"));
    put_share(out, "mfu_full", json_object_get(document, "mfu_full"));
    put_share(out, "mfu_causal", json_object_get(document, "mfu_causal"));
    cm_str_addf(out,
                "%-14s %.1f GB: weights %.1f, gradients %.1f, optimizer %.1f, activations "
                "%.1f, logits %.1f\n",
                "memory", cm_document_number(memory, "value") / 1e9,
                cm_document_number(memory, "weights") / 1e9,
                cm_document_number(memory, "gradients") / 1e9,
                cm_document_number(memory, "optimizer") / 1e9,
                cm_document_number(memory, "activations") / 1e9,
                cm_document_number(memory, "logits") / 1e9);
    put_share(out, "goodput", json_object_get(document, "goodput"));
    put_breakdown(document, out);
    put_rules(document, out);
    put_curve(document, "weak", "weak scaling: the batch grows with the GPUs", out);
    put_curve(document, "strong", "strong scaling: the batch stays", out);
    cm_outlook_text(document, out);
    cm_str_add(out, "\n");
    json_array_foreach(json_object_get(document, "assumptions"), index, line)
        cm_str_addf(out, "! %s\n", json_string_value(line));
    return cm_str_status(out);
}
