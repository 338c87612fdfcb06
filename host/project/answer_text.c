/* An answer on the terminal. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/project.h"
#include "clustermark/units.h"

#define BAR_CELLS 40

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "";
}

static void put_time(struct cm_str *out, const char *name, const json_t *figure)
{
    char value[CM_UNITS_TEXT_MAX], low[CM_UNITS_TEXT_MAX], high[CM_UNITS_TEXT_MAX];
    cm_str_addf(out, "%-14s %-12s %s .. %s\n", name, cm_format_time(number(figure, "value"), value),
                cm_format_time(number(figure, "p10"), low),
                cm_format_time(number(figure, "p90"), high));
}

static void put_share(struct cm_str *out, const char *name, const json_t *figure)
{
    cm_str_addf(out, "%-14s %-12.3f %.3f .. %.3f\n", name, number(figure, "value"),
                number(figure, "p10"), number(figure, "p90"));
}

static void put_breakdown(const json_t *document, struct cm_str *out)
{
    const char *key;
    json_t *value;
    double step = number(json_object_get(document, "step_time_s"), "value");
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
    cm_str_add(out, "\nby simple rules, from one and two replicas of the model's own\n");
    json_object_foreach(json_object_get(document, "baselines"), key, value)
    {
        char time[CM_UNITS_TEXT_MAX];
        cm_str_addf(out, "  %-12s %s\n", key,
                    json_is_number(value) ? cm_format_time(json_number_value(value), time) : "-");
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
                text(document, "model"), number(plan, "gpus"), text(document, "gpu"),
                text(document, "cluster"), text(plan, "plan"), text(plan, "precision"),
                number(plan, "batch"), number(plan, "micro_batches"), number(plan, "micro_batch"));
    cm_str_addf(out, "%-14s %-12s %s\n", "", "", "P10 .. P90");
    put_time(out, "step_time", json_object_get(document, "step_time_s"));
    cm_str_addf(out, "%-14s %-12.4g %.4g .. %.4g\n", "tokens_per_s", number(rate, "value"),
                number(rate, "p10"), number(rate, "p90"));
    put_share(out, "mfu_full", json_object_get(document, "mfu_full"));
    put_share(out, "mfu_causal", json_object_get(document, "mfu_causal"));
    cm_str_addf(out,
                "%-14s %.1f GB: weights %.1f, gradients %.1f, optimizer %.1f, activations "
                "%.1f, logits %.1f\n",
                "memory", number(memory, "value") / 1e9, number(memory, "weights") / 1e9,
                number(memory, "gradients") / 1e9, number(memory, "optimizer") / 1e9,
                number(memory, "activations") / 1e9, number(memory, "logits") / 1e9);
    put_breakdown(document, out);
    put_rules(document, out);
    cm_str_add(out, "\n");
    json_array_foreach(json_object_get(document, "assumptions"), index, line)
        cm_str_addf(out, "! %s\n", json_string_value(line));
    return cm_str_status(out);
}
