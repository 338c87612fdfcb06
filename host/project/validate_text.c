/* How well predictions held, on the terminal. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/project.h"
#include "host/project/document.h"

/* A share as per cent in so many columns, or a dash. */
static void put_share(struct cm_str *out, double value, int width, int digits)
{
    if (isnan(value))
        cm_str_addf(out, "%*s", width + 2, "-");
    else
        cm_str_addf(out, "%*.*f %%", width, digits, value * 100);
}

/* Names come from a stranger's table: no control characters. */
static void put_name(struct cm_str *out, const char *name, int width)
{
    char clean[120];
    size_t used = 0;
    for (const char *at = name; *at != '\0' && used + 1 < sizeof clean; at++)
        clean[used++] = (unsigned char)*at < ' ' || *at == 127 ? '?' : *at;
    clean[used] = '\0';
    cm_str_addf(out, "%-*.*s", width, width, clean);
}

static void put_scores(const json_t *entry, struct cm_str *out)
{
    static const char *const rules[] = {"null", "bubble_only", "two_anchor"};
    const json_t *against = json_object_get(entry, "against");
    put_name(out, cm_document_text(entry, "name"), 34);
    cm_str_addf(out, "%5.0f %6.0f", cm_document_number(entry, "rows"),
                cm_document_number(entry, "scored"));
    put_share(out, cm_document_number(entry, "mape"), 7, 2);
    put_share(out, cm_document_number(entry, "p90"), 6, 1);
    put_share(out, cm_document_number(entry, "worst"), 6, 1);
    put_share(out, cm_document_number(entry, "coverage"), 5, 0);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        put_share(out, cm_document_number(json_object_get(against, rules[i]), "win_rate"), 6, 0);
    cm_str_add(out, "\n");
}

static void put_reasons(const json_t *document, const char *what, const char *title,
                        struct cm_str *out)
{
    size_t index, count = 0;
    const json_t *row;
    json_array_foreach(json_object_get(document, "rows"), index, row)
    {
        const char *reason = cm_document_text(row, what);
        if (reason[0] == '\0')
            continue;
        if (count++ == 0)
            cm_str_addf(out, "\n%s:\n", title);
        cm_str_addf(out, "  line %.0f, ", cm_document_number(row, "line"));
        put_name(out, cm_document_text(row, "model"), 20);
        cm_str_add(out, " ");
        put_name(out, reason, (int)strlen(reason));
        cm_str_add(out, "\n");
    }
}

enum cm_status cm_project_validate_text(const json_t *document, const struct cm_report_style *style,
                                        struct cm_str *out)
{
    size_t index;
    const json_t *entry;
    (void)style;
    cm_str_addf(out, "%-34s%5s %6s%9s%8s%8s%7s%8s%8s%8s\n", "source", "rows", "scored", "MAPE",
                "P90", "worst", "inside", "null", "bubble", "two");
    json_array_foreach(json_object_get(document, "summary"), index, entry)
    {
        put_scores(entry, out);
        if (index == 3)
            cm_str_add(out, "\n");
    }
    cm_str_add(out,
               "\nMAPE, P90 and worst: of |predicted / measured - 1| of the step's time. inside: "
               "measured between\nP10 and P90. null, bubble, two: share of rows that are nearer "
               "than the rule of equal tokens per\nsecond and GPU, that with the pipeline's idle "
               "share, and the line through two anchors.\n");
    put_reasons(document, "reason", "not predicted", out);
    put_reasons(document, "not_scored", "predicted, not scored", out);
    return cm_str_status(out);
}
