/* For monitoring: OpenMetrics text, which node_exporter's textfile collector reads too; and CSV. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clustermark/json.h"
#include "host/result/export.h"

/* Units in words, as names have them. */
static const char *unit_word(const char *unit)
{
    static const struct {
        const char *unit, *word;
    } rows[] = {
        {"s", "seconds"}, {"B", "bytes"}, {"B/s", "bytes_per_second"},
        {"J", "joules"},  {"W", "watts"}, {"FLOP/s", "flops_per_second"},
        {"Hz", "hertz"},  {"1", "ratio"}, {"1/s", "per_second"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].unit, unit) == 0)
            return rows[i].word;
    }
    return unit;
}

static void add_name(struct cm_str *out, const char *text, size_t length)
{
    for (size_t i = 0; i < length && text[i] != '\0'; i++) {
        char letter = text[i];
        bool fine = (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                    (letter >= '0' && letter <= '9') || letter == '_';
        cm_str_add_bytes(out, fine ? &letter : "_", 1);
    }
}

static void add_label(struct cm_str *out, const char *name, const char *value)
{
    cm_str_addf(out, "%s=\"", name);
    for (; *value != '\0'; value++) {
        if (*value == '\n')
            cm_str_add(out, "\\n");
        else if (*value == '\\' || *value == '"')
            cm_str_addf(out, "\\%c", *value);
        else
            cm_str_add_bytes(out, value, 1);
    }
    cm_str_add(out, "\"");
}

/* The lines of a family stand together in the text: they are gathered by family first. */
static enum cm_status put_line(json_t *families, const char *base, const char *suffix,
                               const char *unit, const json_t *item, const char *figure,
                               double value)
{
    enum cm_status status = CM_OK;
    struct cm_str family = CM_STR_INIT, line = CM_STR_INIT;
    const char *dot = strchr(figure, '.');
    cm_str_add(&family, "clustermark_");
    add_name(&family, base, strcspn(base, "."));
    cm_str_add(&family, suffix);
    cm_str_add(&family, "_");
    add_name(&family, unit_word(unit), 60);
    cm_str_addf(&line, "%s{", cm_str_text(&family));
    add_label(&line, "case", cm_get_text(item, "name"));
    cm_str_add(&line, ",");
    add_label(&line, "workload", cm_get_text(item, "workload"));
    if (dot != NULL) {
        cm_str_add(&line, ",");
        add_label(&line, "of", dot + 1);
    }
    cm_str_addf(&line, "} %.9g\n", value);
    status = cm_str_status(&family);
    if (status == CM_OK)
        status = cm_str_status(&line);
    json_t *lines = json_object_get(families, cm_str_text(&family));
    if (lines == NULL && status == CM_OK)
        lines = cm_put_array(&status, families, cm_str_text(&family));
    cm_push(&status, lines, json_string(cm_str_text(&line)));
    cm_str_release(&family);
    cm_str_release(&line);
    return status;
}

static enum cm_status put_case(json_t *families, const json_t *item)
{
    enum cm_status status = CM_OK;
    const char *figure;
    json_t *metric;
    json_object_foreach(json_object_get(item, "metrics"), figure, metric)
    {
        const char *unit = cm_get_text(metric, "unit");
        const json_t *interval = json_object_get(metric, "interval");
        const struct {
            const char *suffix;
            double value;
        } rows[] = {{"", cm_get_number(metric, "value")},
                    {"_low", cm_get_number(interval, "low")},
                    {"_high", cm_get_number(interval, "high")}};
        for (size_t i = 0; i < 3 && status == CM_OK; i++) {
            if (isfinite(rows[i].value))
                status =
                    put_line(families, figure, rows[i].suffix, unit, item, figure, rows[i].value);
        }
    }
    return status;
}

/* The unit's word is the end of the family's name. */
static void add_families(const json_t *families, struct cm_str *out)
{
    const char *family;
    json_t *lines;
    json_object_foreach((json_t *)families, family, lines)
    {
        size_t index;
        const json_t *line;
        cm_str_addf(out, "# TYPE %s gauge\n", family);
        json_array_foreach(lines, index, line) cm_str_add(out, json_string_value(line));
    }
}

static void add_result(const json_t *result, struct cm_str *out)
{
    struct tm parts = {.tm_isdst = 0};
    const char *finished = cm_get_text(result, "finished");
    const char *end = strptime(finished, "%Y-%m-%dT%H:%M:%SZ", &parts);
    cm_str_add(out, "# TYPE clustermark_result gauge\nclustermark_result{");
    add_label(out, "version", cm_get_text(json_object_get(result, "tool"), "version"));
    cm_str_add(out, ",");
    add_label(out, "revision", cm_get_text(json_object_get(result, "tool"), "revision"));
    cm_str_add(out, ",");
    add_label(out, "suite", cm_get_text(json_object_get(result, "suite"), "name"));
    cm_str_add(out, ",");
    add_label(out, "device", cm_get_text(result, "device"));
    cm_str_add(out, ",");
    add_label(out, "machine", cm_get_text(json_object_get(result, "machine"), "digest"));
    cm_str_add(out, "} 1\n");
    if (end != NULL && *end == '\0')
        cm_str_addf(out,
                    "# TYPE clustermark_finished_timestamp_seconds gauge\n"
                    "clustermark_finished_timestamp_seconds %lld\n",
                    (long long)timegm(&parts));
}

/* The newest result. No timestamps of samples: the textfile collector refuses them. */
enum cm_status cm_export_openmetrics(const struct cm_side *side, struct cm_str *out)
{
    const json_t *result = cm_side_last(side), *cases = json_object_get(result, "cases");
    json_t *families = json_object();
    enum cm_status status = families != NULL ? CM_OK : CM_NO_MEMORY;
    size_t index;
    const json_t *item;
    add_result(result, out);
    cm_str_add(out, "# TYPE clustermark_case_ok gauge\n");
    json_array_foreach(cases, index, item)
    {
        const char *word = cm_get_text(item, "status");
        cm_str_add(out, "clustermark_case_ok{");
        add_label(out, "case", cm_get_text(item, "name"));
        cm_str_add(out, ",");
        add_label(out, "status", word);
        cm_str_addf(out, "} %d\n", strcmp(word, "ok") == 0);
        if (status == CM_OK)
            status = put_case(families, item);
    }
    add_families(families, out);
    cm_str_add(out, "# EOF\n");
    json_decref(families);
    return status;
}

/* A line per result, a column per figure, in the order in which the results name them. */
enum cm_status cm_export_csv(const struct cm_side *side, struct cm_str *out)
{
    const struct cm_history_options options = {
        .case_pattern = "*", .metric_pattern = "*", .margin = CM_MARGIN_DEFAULT};
    json_t *history = NULL;
    enum cm_status status = cm_history_build(side->results, &options, &history);
    if (status == CM_OK)
        status = cm_history_csv(history, out);
    json_decref(history);
    return status;
}
