/* For CI: JUnit XML, a GitHub step summary, and its annotations. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"
#include "host/result/export.h"

/* GitHub drops the whole upload of a step whose summary is over 1 MiB. */
#define SUMMARY_MAX ((size_t)1000000)
/* ... and shows 10 annotations of a kind of a step. */
#define ANNOTATIONS_MAX 10

struct tally {
    size_t all, ok, failed, wrong, skipped;
    double wall_s;
};

static double wall_of(const json_t *item)
{
    double sum = 0;
    size_t index;
    const json_t *run;
    json_array_foreach(json_object_get(item, "runs"), index, run)
    {
        double wall = cm_get_number(run, "wall_s");
        sum += isfinite(wall) && wall > 0 ? wall : 0;
    }
    return sum;
}

static struct tally count_cases(const json_t *result)
{
    struct tally tally = {0};
    size_t index;
    const json_t *item;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        const char *status = cm_get_text(item, "status");
        tally.all++;
        tally.ok += strcmp(status, "ok") == 0;
        tally.failed += strcmp(status, "failed") == 0;
        tally.wrong += strcmp(status, "wrong") == 0;
        tally.skipped += strcmp(status, "skipped") == 0;
        tally.wall_s += wall_of(item);
    }
    return tally;
}

void cm_add_attribute(struct cm_str *out, const char *name, const char *value)
{
    cm_str_addf(out, " %s=\"", name);
    cm_str_add_xml(out, value);
    cm_str_add(out, "\"");
}

static void add_outcome(struct cm_str *out, const json_t *item)
{
    static const struct {
        const char *status, *element;
    } rows[] = {{"wrong", "failure"}, {"failed", "error"}, {"skipped", "skipped"}};
    const char *status = cm_get_text(item, "status");
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(rows[i].status, status) != 0)
            continue;
        cm_str_addf(out, "      <%s", rows[i].element);
        cm_add_attribute(out, "message", cm_get_text(item, "reason"));
        if (strcmp(status, "skipped") != 0)
            cm_add_attribute(out, "type", status);
        cm_str_add(out, "/>\n");
    }
}

static void add_figures(struct cm_str *out, const json_t *item)
{
    const char *name;
    json_t *metric;
    size_t told = 0;
    json_object_foreach(json_object_get(item, "metrics"), name, metric)
    {
        char text[CM_VALUE_MAX];
        if (!cm_is_told(name, metric))
            continue;
        if (told++ == 0)
            cm_str_add(out, "      <system-out>");
        cm_value_text(metric, text);
        cm_str_add_xml(out, name);
        cm_str_add(out, " ");
        cm_str_add_xml(out, text);
        cm_str_add(out, "\n");
    }
    if (told > 0)
        cm_str_add(out, "</system-out>\n");
}

static void add_testcase(struct cm_str *out, const json_t *item)
{
    char class[200];
    snprintf(class, sizeof class, "clustermark.%.180s", cm_get_text(item, "workload"));
    cm_str_add(out, "    <testcase");
    cm_add_attribute(out, "classname", class);
    cm_add_attribute(out, "name", cm_get_text(item, "name"));
    cm_str_addf(out, " time=\"%.3f\">\n", wall_of(item));
    add_outcome(out, item);
    add_figures(out, item);
    cm_str_add(out, "    </testcase>\n");
}

static void add_counts(struct cm_str *out, const struct tally *tally)
{
    cm_str_addf(out,
                " tests=\"%zu\" failures=\"%zu\" errors=\"%zu\" skipped=\"%zu\" time=\"%.3f\">\n",
                tally->all, tally->wrong, tally->failed, tally->skipped, tally->wall_s);
}

enum cm_status cm_export_junit(const struct cm_side *side, struct cm_str *out)
{
    size_t index, inner;
    const json_t *result, *item;
    struct tally sum = {0};
    json_array_foreach(side->results, index, result)
    {
        struct tally tally = count_cases(result);
        sum.all += tally.all;
        sum.failed += tally.failed;
        sum.wrong += tally.wrong;
        sum.skipped += tally.skipped;
        sum.wall_s += tally.wall_s;
    }
    cm_str_add(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"clustermark\"");
    add_counts(out, &sum);
    json_array_foreach(side->results, index, result)
    {
        struct tally tally = count_cases(result);
        cm_str_add(out, "  <testsuite");
        cm_add_attribute(out, "name", cm_get_text(json_object_get(result, "suite"), "name"));
        cm_add_attribute(out, "timestamp", cm_get_text(result, "started"));
        add_counts(out, &tally);
        json_array_foreach(json_object_get(result, "cases"), inner, item) add_testcase(out, item);
        cm_str_add(out, "  </testsuite>\n");
    }
    cm_str_add(out, "</testsuites>\n");
    return cm_str_status(out);
}

void cm_add_markdown(struct cm_str *out, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char letter = (unsigned char)*text;
        if (letter < 0x20 || letter == 0x7f)
            cm_str_add(out, " ");
        else if (strchr("&<>|\\`*_{}[]()#!~$@\"'", letter) != NULL)
            cm_str_addf(out, "&#%u;", letter);
        else
            cm_str_add_bytes(out, text, 1);
    }
}

static void add_summary_row(struct cm_str *out, const json_t *item)
{
    const char *name = cm_headline_metric(item), *status = cm_get_text(item, "status");
    const json_t *metric =
        json_object_get(json_object_get(item, "metrics"), name != NULL ? name : "");
    const json_t *ceilings =
        json_object_get(json_object_get(item, "ceilings"), name != NULL ? name : "");
    double share = cm_get_number(json_object_get(ceilings, "theoretical"), "fraction");
    double half = cm_relative_uncertainty(metric);
    char text[CM_VALUE_MAX], percent[32];
    cm_str_add(out, "| ");
    cm_add_markdown(out, cm_get_text(item, "name"));
    cm_str_add(out, " | ");
    cm_add_markdown(out, name != NULL ? name : "");
    cm_str_add(out, " | ");
    if (metric != NULL) {
        cm_value_text(metric, text);
        cm_add_markdown(out, text);
    }
    cm_str_add(out, " | ");
    if (isfinite(half)) {
        cm_percent_text(half, percent, sizeof percent);
        cm_str_addf(out, "±%s", percent);
    }
    cm_str_add(out, " | ");
    if (isfinite(share) && fabs(share) < 100)
        cm_str_addf(out, "%.0f", share * 100);
    cm_str_addf(out, " | %s%s%s |", strcmp(status, "ok") == 0 ? "" : "**", status,
                strcmp(status, "ok") == 0 ? "" : "**");
    cm_add_markdown(out, cm_get_text(item, "reason"));
    cm_str_add(out, " |\n");
}

/* The newest result; what went wrong first, so that a cut at the limit loses the good ones. */
enum cm_status cm_export_markdown(const struct cm_side *side, struct cm_str *out)
{
    static const char *const order[] = {"wrong", "failed", "ok", "skipped"};
    const json_t *result = cm_side_last(side), *cases = json_object_get(result, "cases");
    struct tally tally = count_cases(result);
    size_t index, left_out = 0;
    const json_t *item;
    cm_str_add(out, "## clustermark: suite ");
    cm_add_markdown(out, cm_get_text(json_object_get(result, "suite"), "name"));
    cm_str_addf(out, "\n\n%s: %zu ok, %zu failed, %zu wrong, %zu skipped; ",
                tally.failed + tally.wrong > 0 ? "**not fine**" : "fine", tally.ok, tally.failed,
                tally.wrong, tally.skipped);
    cm_add_markdown(out, cm_get_text(result, "device"));
    cm_str_addf(out, ", %.0f ranks, ", cm_get_number(result, "ranks"));
    cm_add_markdown(out, cm_get_text(result, "started"));
    cm_str_add(out, "\n\n| case | figure | value | 95 % | % T | status | reason |\n"
                    "|:--|:--|--:|--:|--:|:--|:--|\n");
    for (size_t i = 0; i < 4; i++) {
        json_array_foreach(cases, index, item)
        {
            size_t before = out->length;
            if (strcmp(cm_get_text(item, "status"), order[i]) != 0)
                continue;
            add_summary_row(out, item);
            if (out->length <= SUMMARY_MAX)
                continue;
            out->length = before;
            left_out++;
        }
    }
    if (left_out > 0)
        cm_str_addf(out, "\n%zu more rows are left out: a summary may have 1 MiB.\n", left_out);
    return cm_str_status(out);
}

/* In a workflow command, data and properties have their own escapes. */
static void add_command_text(struct cm_str *out, const char *text, bool property)
{
    size_t length = 0;
    for (; *text != '\0' && length < 2000; text++, length++) {
        unsigned char letter = (unsigned char)*text;
        if (letter == '%' || letter == '\r' || letter == '\n' ||
            (property && (letter == ':' || letter == ',')))
            cm_str_addf(out, "%%%02X", letter);
        else if (letter >= 0x20)
            cm_str_add_bytes(out, text, 1);
    }
}

void cm_annotate(struct cm_str *out, const char *kind, const char *title, const char *text)
{
    cm_str_addf(out, "::%s title=", kind);
    add_command_text(out, title, true);
    cm_str_add(out, "::");
    add_command_text(out, text, false);
    cm_str_add(out, "\n");
}

enum cm_status cm_export_annotations(const struct cm_side *side, struct cm_str *out)
{
    const json_t *result = cm_side_last(side);
    struct tally tally = count_cases(result);
    size_t index, errors = 0, warnings = 0;
    const json_t *item;
    char text[200];
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        const char *status = cm_get_text(item, "status");
        double share = cm_get_number(json_object_get(item, "telemetry"), "throttled_fraction");
        bool bad = strcmp(status, "wrong") == 0 || strcmp(status, "failed") == 0;
        struct cm_str line = CM_STR_INIT;
        cm_str_addf(&line, "%s %s: %s", cm_get_text(item, "name"), status,
                    cm_get_text(item, "reason"));
        if (bad && errors++ < ANNOTATIONS_MAX)
            cm_annotate(out, "error", "clustermark", cm_str_text(&line));
        cm_str_reset(&line);
        cm_str_addf(&line, "%s was throttled for %.0f %% of the time", cm_get_text(item, "name"),
                    share * 100);
        if (share > 0.01 && warnings++ < ANNOTATIONS_MAX)
            cm_annotate(out, "warning", "clustermark", cm_str_text(&line));
        out->failed = out->failed || line.failed;
        cm_str_release(&line);
    }
    snprintf(text, sizeof text, "%zu ok, %zu failed, %zu wrong, %zu skipped", tally.ok,
             tally.failed, tally.wrong, tally.skipped);
    cm_annotate(out, "notice", "clustermark", text);
    return cm_str_status(out);
}
