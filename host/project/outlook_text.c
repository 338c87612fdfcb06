/* A cluster under failures, on the terminal. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/project/document.h"
#include "host/project/outlook.h"

/* What never ends, or is never bought, is not a number in the document. */
static const char *number(double value, char *text, size_t size)
{
    if (isnan(value))
        return "never";
    snprintf(text, size, value < 1000 ? "%.3g" : "%.0f", value);
    return text;
}

/* "value (P10..P90)" of a figure over `unit`, in a column. */
static void put_figure(struct cm_str *out, const json_t *figure, double unit, int width)
{
    char text[96] = "-", parts[3][24];
    if (figure != NULL)
        snprintf(text, sizeof text, "%s (%s..%s)",
                 number(cm_document_number(figure, "value") / unit, parts[0], sizeof parts[0]),
                 number(cm_document_number(figure, "p10") / unit, parts[1], sizeof parts[1]),
                 number(cm_document_number(figure, "p90") / unit, parts[2], sizeof parts[2]));
    cm_str_addf(out, " %*s", width, text);
}

static void put_scenario(const json_t *scenario, struct cm_str *out)
{
    char name[40];
    double jobs = cm_document_number(scenario, "jobs");
    bool replica = strcmp(cm_document_text(scenario, "recovery"), "replica") == 0;
    snprintf(name, sizeof name, "%.0f x %.0f%s", jobs, cm_document_number(scenario, "gpus"),
             replica ? " *" : "");
    cm_str_addf(out, "  %-13s %6.0f", name,
                cm_document_number(scenario, "between_failures_s") / 60);
    put_figure(out, json_object_get(scenario, "still_hours_per_day"), 1, 18);
    put_figure(out, json_object_get(scenario, "tokens_per_day"), 1e12, 21);
    put_figure(out, json_object_get(scenario, "run_days"), 1, 17);
    put_figure(out, json_object_get(scenario, "cost"), 1, 18);
    put_figure(out, json_object_get(scenario, "energy"), 1, 17);
    cm_str_add(out, "\n");
}

static void put_size(const json_t *size, struct cm_str *out)
{
    size_t index;
    const json_t *scenario, *price = json_object_get(size, "price");
    cm_str_addf(out, "\n%.0f GPUs; MW:", cm_document_number(size, "gpus"));
    put_figure(out, json_object_get(size, "power"), 1e6, 0);
    cm_str_add(out, "; USD per GPU-hour:");
    put_figure(out, price, 1, 0);
    cm_str_addf(out, "\n  %-13s %6s %18s %21s %17s %18s %17s\n", "jobs x GPUs", "fails",
                "stands still", "tokens", "a run takes", "USD", "J");
    cm_str_addf(out, "  %-13s %6s %18s %21s %17s %18s %17s\n", "", "min", "h/day", "1e12/day",
                "days", "/1e6 tokens", "/token");
    json_array_foreach(json_object_get(size, "scenarios"), index, scenario)
        put_scenario(scenario, out);
}

static void put_assumed(json_t *assumed, struct cm_str *out)
{
    const char *name;
    json_t *one;
    cm_str_add(out, "\nassumed: value (P10..P90)\n");
    json_object_foreach(assumed, name, one)
    {
        double low = cm_document_number(one, "p10"), high = cm_document_number(one, "p90");
        if (json_is_number(one))
            cm_str_addf(out, "  %-13s %g\n", name, json_number_value(one));
        else if (strcmp(name, "deal") == 0)
            cm_str_addf(out, "  %-13s %g USD over %g years, of which %g months without a GPU: %s\n",
                        name, cm_document_number(one, "usd"), cm_document_number(one, "years"),
                        cm_document_number(one, "delay_months"), cm_document_text(one, "source"));
        else if (low < high)
            cm_str_addf(out, "  %-13s %g (%g..%g) %s: %s\n", name, cm_document_number(one, "value"),
                        low, high, cm_document_text(one, "unit"), cm_document_text(one, "source"));
        else
            cm_str_addf(out, "  %-13s %g %s: %s\n", name, cm_document_number(one, "value"),
                        cm_document_text(one, "unit"), cm_document_text(one, "source"));
    }
}

void cm_outlook_text(const json_t *document, struct cm_str *out)
{
    size_t index;
    const json_t *size;
    cm_str_add(out,
               "\nunder failures, value (P10..P90); *: only the replica that failed restarts\n");
    json_array_foreach(json_object_get(document, "sizes"), index, size) put_size(size, out);
    put_assumed(json_object_get(document, "assumed"), out);
}
