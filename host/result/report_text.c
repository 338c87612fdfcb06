/* The report on the terminal: what machine, a table per workload, what is missing, the verdict. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/units.h"
#include "host/result/report.h"

static size_t line_width(const struct cm_report *report)
{
    return report->style->width >= 40 ? (size_t)report->style->width : 80;
}

void cm_report_line(struct cm_report *report, const char *first, const char *text)
{
    char clean[1200];
    size_t indent = cm_text_width(first), column = indent;
    cm_clean_text(report->style, text, clean, sizeof clean);
    cm_str_add(report->out, first);
    for (const char *at = clean; *at != '\0';) {
        size_t length = strcspn(at, " ");
        char word[256];
        snprintf(word, sizeof word, "%.*s", (int)(length < 250 ? length : 250), at);
        size_t width = cm_text_width(word);
        bool begins = column == indent;
        if (!begins && column + 1 + width > line_width(report)) {
            cm_str_addf(report->out, "\n%*s", (int)indent, "");
            column = indent;
            begins = true;
        }
        cm_str_addf(report->out, "%s%s", begins ? "" : " ", word);
        column += width + !begins;
        at += length;
        at += strspn(at, " ");
    }
    cm_str_add(report->out, "\n");
}

static void add_to_group(enum cm_status *status, json_t *groups, const char *key, json_t *member)
{
    json_t *group = json_object_get(groups, key);
    if (group == NULL)
        group = cm_put_array(status, groups, key);
    cm_push(status, group, json_incref(member));
}

/* Groups cases and sweeps by workload, indexes cases by name, and marks the points of sweeps. */
static enum cm_status index_cases(struct cm_report *report)
{
    enum cm_status status = CM_OK;
    size_t index, inner;
    json_t *item, *sweep, *point;
    report->workloads = json_object();
    report->sweeps = json_object();
    report->by_name = json_object();
    report->swept = json_object();
    json_array_foreach(json_object_get(report->result, "cases"), index, item)
    {
        add_to_group(&status, report->workloads, cm_get_text(item, "workload"), item);
        cm_put(&status, report->by_name, cm_get_text(item, "name"), json_incref(item));
    }
    json_array_foreach(json_object_get(report->result, "sweeps"), index, sweep)
    {
        add_to_group(&status, report->sweeps, cm_get_text(sweep, "workload"), sweep);
        json_array_foreach(json_object_get(sweep, "points"), inner, point)
        {
            const char *name = json_string_value(point);
            if (json_object_get(report->by_name, name) != NULL)
                cm_put(&status, report->swept, name, json_true());
        }
    }
    return status;
}

static void add_count(struct cm_str *line, double count, const char *one, const char *many)
{
    if (isfinite(count))
        cm_str_addf(line, ", %.0f %s", count, count == 1 ? one : many);
}

/* Devices that the header looks at. */
#define MODELS_MAX 1024
/* Lines of a cluster's map that it shows. */
#define CLUSTER_LINES 40

/* "; 7 x NVIDIA H200, 1 x NVIDIA H100": devices that are alike together. */
static void add_models(struct cm_str *line, const json_t *devices)
{
    size_t all = json_array_size(devices) < MODELS_MAX ? json_array_size(devices) : MODELS_MAX;
    for (size_t i = 0; i < all; i++) {
        const char *name = cm_get_text(json_array_get(devices, i), "name");
        size_t count = 0, before = 0;
        for (size_t k = 0; k < all; k++) {
            bool same = strcmp(cm_get_text(json_array_get(devices, k), "name"), name) == 0;
            count += same ? cm_device_count(json_array_get(devices, k)) : 0;
            before += same && k < i;
        }
        if (before == 0)
            cm_str_addf(line, "%s %zu x %s", i == 0 ? ";" : ",", count, name);
    }
}

/* "2 x AMD EPYC 7763, 8 cores, 31.3 GiB": packages as the topology has them, else the devices. */
static void add_machine(struct cm_report *report)
{
    const json_t *packages =
        json_object_get(json_object_get(report->result, "machine"), "packages");
    const json_t *devices = json_object_get(report->result, "devices");
    const json_t *shown = json_array_size(packages) > 0 ? packages : devices;
    bool gpu = strcmp(cm_get_text(report->result, "device"), "cpu") != 0;
    struct cm_str line = CM_STR_INIT;
    char buffer[CM_UNITS_TEXT_MAX];
    double cores = 0,
           memory = cm_get_number(json_object_get(report->result, "machine"), "memory_bytes");
    size_t index;
    const json_t *package;
    json_array_foreach(packages, index, package) cores += cm_get_number(package, "cores");
    const char *model = cm_get_text(json_array_get(shown, 0), shown == packages ? "model" : "name");
    size_t shown_count = json_array_size(shown);
    if (shown == devices && shown_count == 1)
        shown_count = cm_device_count(json_array_get(devices, 0));
    if (shown_count > 1)
        cm_str_addf(&line, "%zu x ", shown_count);
    cm_str_add(&line, model[0] != '\0' ? model : "machine not known");
    if (shown == packages)
        add_count(&line, cores, "core", "cores");
    if (memory > 0)
        cm_str_addf(&line, ", %s", cm_format_value(memory, "B", buffer));
    if (gpu)
        add_models(&line, devices);
    cm_report_line(report, "", cm_str_text(&line));
    if (report->status == CM_OK)
        report->status = cm_str_status(&line);
    cm_str_release(&line);
}

/* The nodes, where an outside launcher started the ranks: the map's own lines. */
static void add_cluster(struct cm_report *report)
{
    const json_t *cluster = json_object_get(json_object_get(report->result, "machine"), "cluster");
    static const char *const lists[] = {"text", "placement"};
    size_t index;
    const json_t *line;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        json_array_foreach(json_object_get(cluster, lists[i]), index, line)
        {
            if (json_is_string(line) && index < CLUSTER_LINES)
                cm_report_line(report, i + index == 0 ? "" : "  ", json_string_value(line));
        }
    }
}

static bool is_virtual(const struct cm_report *report)
{
    return strcmp(cm_get_text(report->result, "device"), "sim") == 0;
}

static void add_virtual_clock(struct cm_report *report)
{
    char line[200];
    const json_t *device = json_array_get(json_object_get(report->result, "devices"), 0);
    snprintf(line, sizeof line,
             "a virtual clock: nothing ran, and times follow from the rates of machine %.48s",
             cm_get_text(device, "name")[0] != '\0' ? cm_get_text(device, "name") : "(none)");
    cm_report_line(report, "", line);
}

static void add_header(struct cm_report *report)
{
    const json_t *suite = json_object_get(report->result, "suite");
    struct cm_str line = CM_STR_INIT;
    cm_str_addf(&line, "clustermark %s, suite %s, %s",
                cm_get_text(json_object_get(report->result, "tool"), "version"),
                cm_get_text(suite, "name"), cm_get_text(report->result, "device"));
    add_count(&line, cm_get_number(report->result, "ranks"), "rank", "ranks");
    add_count(&line, cm_get_number(suite, "runs"), "run", "runs");
    cm_report_line(report, "", cm_str_text(&line));
    if (report->status == CM_OK)
        report->status = cm_str_status(&line);
    cm_str_release(&line);
    if (is_virtual(report)) {
        add_virtual_clock(report);
        return;
    }
    add_machine(report);
    add_cluster(report);
    if (json_is_true(json_object_get(suite, "simulated")))
        cm_report_line(report, "",
                       "simulated: the ranks shared GPUs; no figure here means anything");
}

/* "── gemm ─────": as wide as the terminal. */
static void add_title(struct cm_report *report, const char *title)
{
    const char *dash = report->style->utf8 ? "─" : "-";
    char clean[64];
    cm_clean_text(report->style, title, clean, sizeof clean);
    cm_str_addf(report->out, "\n%s%s %s ", dash, dash, clean);
    for (size_t at = cm_text_width(clean) + 4; at < line_width(report); at++)
        cm_str_add(report->out, dash);
    cm_str_add(report->out, "\n");
}

/* One line per reason, with the cases it holds for. */
static void add_reasons(struct cm_report *report, const json_t *cases)
{
    enum cm_status status = CM_OK;
    json_t *groups = json_object();
    size_t index;
    json_t *item;
    json_array_foreach(cases, index, item)
    {
        struct cm_str key = CM_STR_INIT;
        const char *reason = cm_get_text(item, "reason");
        if (reason[0] == '\0')
            continue;
        cm_str_addf(&key, "%s: %s", cm_get_text(item, "status"), reason);
        add_to_group(&status, groups, cm_str_text(&key), item);
        cm_str_release(&key);
    }
    const char *key;
    json_t *group;
    json_object_foreach(groups, key, group)
    {
        char text[1000], more[40] = "";
        size_t count = json_array_size(group);
        if (count > 1)
            snprintf(more, sizeof more, " and %zu more", count - 1);
        snprintf(text, sizeof text, "%.200s%s %s", cm_get_text(json_array_get(group, 0), "name"),
                 more, key);
        cm_report_line(report, "  ! ", text);
    }
    json_decref(groups);
    if (report->status == CM_OK)
        report->status = status;
}

/* What 100 % is, source by source. */
static void add_sources(struct cm_report *report, const json_t *cases, const char *kind,
                        const char *letter)
{
    enum cm_status status = CM_OK;
    json_t *seen = json_object();
    size_t index, count = 0;
    json_t *item;
    json_array_foreach(cases, index, item)
    {
        const char *name = cm_headline_metric(item);
        const json_t *ceiling = json_object_get(
            json_object_get(json_object_get(item, "ceilings"), name != NULL ? name : ""), kind);
        const json_t *metric =
            json_object_get(json_object_get(item, "metrics"), name != NULL ? name : "");
        const char *source = cm_get_text(ceiling, "source");
        double value = cm_get_number(ceiling, "value");
        if (source[0] == '\0' || json_object_get(seen, source) != NULL || status != CM_OK)
            continue;
        cm_put(&status, seen, source, json_true());
        if (++count > 4)
            continue;
        char text[400], buffer[CM_UNITS_TEXT_MAX] = "not known";
        if (isfinite(value))
            cm_format_value(value, cm_get_text(metric, "unit"), buffer);
        bool said = strncmp(source, "not known", 9) == 0;
        snprintf(text, sizeof text, "%s %s%s%.300s", letter, said ? "" : buffer, said ? "" : ": ",
                 source);
        cm_report_line(report, "  ", text);
    }
    if (count > 4)
        cm_str_addf(report->out, "  %s %zu more in the file\n", letter, count - 4);
    json_decref(seen);
    if (report->status == CM_OK)
        report->status = status;
}

struct tally {
    size_t counts[CM_CASE_SKIPPED + 1], total;
};

static void count_cases(const json_t *cases, struct tally *tally)
{
    size_t index;
    const json_t *item;
    *tally = (struct tally){.total = json_array_size(cases)};
    json_array_foreach(cases, index, item)
    {
        for (int i = 0; i <= CM_CASE_SKIPPED; i++)
            tally->counts[i] += strcmp(cm_get_text(item, "status"), cm_case_status_names[i]) == 0;
    }
}

/* "12 ok, 1 failed, 2 skipped" in the colours of the statuses. */
static void add_tally(struct cm_report *report, const char *before, const json_t *cases)
{
    static const enum cm_tint tints[] = {CM_GOOD, CM_BAD, CM_BAD, CM_DOUBTFUL};
    struct tally tally;
    count_cases(cases, &tally);
    cm_str_add(report->out, before);
    const char *comma = "";
    for (int i = 0; i <= CM_CASE_SKIPPED; i++) {
        if (tally.counts[i] == 0)
            continue;
        char text[48];
        snprintf(text, sizeof text, "%zu %s", tally.counts[i], cm_case_status_names[i]);
        cm_str_add(report->out, comma);
        cm_add_tinted(report->style, tints[i], text, report->out);
        comma = ", ";
    }
    if (tally.total == 0)
        cm_str_add(report->out, "no case");
}

static void add_workload(struct cm_report *report, const char *workload, const json_t *cases)
{
    size_t index;
    const json_t *sweep, *item;
    char clean[64], before[72];
    add_title(report, workload);
    report->section = report->out->length;
    cm_report_cases(report, cases);
    json_array_foreach(cases, index, item) cm_report_matrices(report, item);
    json_array_foreach(json_object_get(report->sweeps, workload), index, sweep)
    {
        cm_report_sweep(report, sweep);
    }
    add_sources(report, cases, "theoretical", "T");
    add_sources(report, cases, "attainable", "A");
    add_reasons(report, cases);
    cm_clean_text(report->style, workload, clean, sizeof clean);
    snprintf(before, sizeof before, "  %s: ", clean);
    add_tally(report, before, cases);
    cm_str_add(report->out, "\n");
}

/* What the columns mean, said once; and that there is no interval when there is none. */
static void add_legend(struct cm_report *report)
{
    double least = INFINITY, most = 0;
    bool interval = false, ceilings = false, telemetry = false;
    size_t index;
    const json_t *item;
    json_array_foreach(json_object_get(report->result, "cases"), index, item)
    {
        const char *name = cm_headline_metric(item);
        const json_t *metric =
            name != NULL ? json_object_get(json_object_get(item, "metrics"), name) : NULL;
        double runs = cm_get_number(metric, "runs");
        if (json_object_get(metric, "interval") != NULL)
            interval = true;
        else
            least = fmin(least, runs);
        most = fmax(most, runs);
        ceilings = ceilings || json_object_size(json_object_get(item, "ceilings")) > 0;
        telemetry = telemetry || cm_has_telemetry(item);
    }
    if (!(most > 0) || is_virtual(report)) /* one run, all that there can be */
        return;
    cm_str_add(report->out, "\n");
    if (interval)
        cm_report_line(report, "", "95 %: interval of the median over runs.");
    if (interval && isfinite(least)) {
        cm_report_line(report, "", "no interval for cases with fewer than 6 runs.");
    } else if (isfinite(least)) {
        char text[120];
        snprintf(text, sizeof text, "no interval: %.0f run%s; a 95 %% interval needs 6.", least,
                 least == 1 ? "" : "s");
        cm_report_line(report, "", text);
    }
    cm_report_line(report, "",
                   most >= 2 ? "spread: from the least run to the largest; of one run, the middle "
                               "half of its iterations."
                             : "spread: the middle half of the one run's iterations.");
    if (ceilings)
        cm_report_line(report, "",
                       "% T: of the theoretical ceiling. % A: of what other cases here attained.");
    if (telemetry)
        cm_report_line(report, "",
                       "GHz, W: median over the devices. C: the hottest. throttled: share of the "
                       "time, of the device that was most.");
}

/* An interval wider than this says more of the machine's load than of the machine. */
#define NOISY 0.1

/* Whether the cases' headlines can be trusted to tell machines apart. */
static void add_noise(struct cm_report *report)
{
    const json_t *item;
    size_t index, noisy = 0, judged = 0;
    json_array_foreach(json_object_get(report->result, "cases"), index, item)
    {
        const char *name = cm_headline_metric(item);
        const json_t *metrics = json_object_get(item, "metrics");
        double half = name == NULL ? NAN : cm_relative_uncertainty(json_object_get(metrics, name));
        judged += isfinite(half) ? 1 : 0;
        noisy += half > NOISY ? 1 : 0;
    }
    if (noisy > 0)
        cm_str_addf(report->out, "; noisy: %zu of %zu intervals are wider than %s10 %%", noisy,
                    judged, report->style->utf8 ? "±" : "+-");
}

static void add_verdict(struct cm_report *report)
{
    const char *ending = cm_get_text(report->result, "ending");
    enum cm_status verdict = cm_result_verdict(report->result);
    const char *word = verdict == CM_OK            ? "fine"
                       : verdict == CM_UNSUPPORTED ? "nothing measured"
                                                   : "not fine";
    cm_str_add(report->out, "verdict: ");
    cm_add_tinted(report->style,
                  verdict == CM_OK            ? CM_GOOD
                  : verdict == CM_UNSUPPORTED ? CM_DOUBTFUL
                                              : CM_BAD,
                  word, report->out);
    add_tally(report, "; ", json_object_get(report->result, "cases"));
    add_noise(report);
    cm_report_throttling(report);
    if (strcmp(ending, "complete") != 0) {
        char clean[40];
        cm_clean_text(report->style, ending, clean, sizeof clean);
        cm_str_add(report->out, "; ended early: ");
        cm_add_tinted(report->style, CM_DOUBTFUL, clean, report->out);
    }
    cm_str_add(report->out, "\n");
}

enum cm_status cm_report_text(const json_t *result, const struct cm_report_style *style, FILE *out)
{
    struct cm_str text = CM_STR_INIT;
    struct cm_report report = {
        .style = style, .result = result, .table = {.style = style}, .out = &text};
    const char *workload;
    json_t *cases;
    if (!style->brief) {
        report.status = index_cases(&report);
        add_header(&report);
        json_object_foreach(report.workloads, workload, cases)
            add_workload(&report, workload, cases);
        add_legend(&report);
    }
    cm_str_add(report.out, style->brief ? "" : "\n");
    cm_report_suspects(&report);
    add_verdict(&report);
    enum cm_status status = report.status != CM_OK ? report.status : cm_str_status(&text);
    if (status == CM_OK && fwrite(cm_str_text(&text), 1, text.length, out) != text.length)
        status = cm_error_errno(CM_IO, "cannot write the report");
    cm_table_release(&report.table);
    json_decref(report.workloads);
    json_decref(report.sweeps);
    json_decref(report.by_name);
    json_decref(report.swept);
    cm_str_release(&text);
    return status;
}
