/* A gate's verdicts for CI: JUnit XML, GitHub's summary and annotations, Bencher's format. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/compare.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/compare.h"
#include "host/result/export.h"

/* What a verdict is to a reader of JUnit. An error: the test could not be made. */
enum kind { PASSED, SKIPPED, FAILURE, ERROR };

static enum kind kind_of(const json_t *document, const json_t *row)
{
    switch (json_integer_value(json_object_get(row, "exit_code"))) {
    case 0:
        return PASSED;
    case 3:
        return json_is_true(json_object_get(document, "strict")) ? FAILURE : SKIPPED;
    case 6:
        return ERROR;
    default:
        return FAILURE;
    }
}

/* "+12 %, bounds +8 % .. +15 %, tolerated +2 %, seen with 80 %: +5 %"; empty where not tested. */
static void add_figures(struct cm_str *out, const json_t *row)
{
    static const struct {
        const char *key, *before;
    } parts[] = {
        {"change", ""}, {"tolerated", ", tolerated "}, {"detectable", ", seen with 80 %: "}};
    const json_t *bounds = json_object_get(row, "bounds");
    bool relative = !json_is_false(json_object_get(row, "relative"));
    char text[24], high[24];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        double value = cm_get_number(row, parts[i].key);
        if (!isfinite(value))
            continue;
        cm_change_text(value, relative, text, sizeof text);
        cm_str_addf(out, "%s%s", parts[i].before, text);
        if (i > 0 || !json_is_object(bounds))
            continue;
        cm_change_text(cm_get_number(bounds, "low"), relative, text, sizeof text);
        cm_change_text(cm_get_number(bounds, "high"), relative, high, sizeof high);
        cm_str_addf(out, ", bounds %s .. %s", text, high);
    }
}

/* What is said of a row in a line: verdict, figures, reason. */
static void say(struct cm_str *out, const json_t *row)
{
    const char *reason = cm_get_text(row, "reason");
    cm_str_reset(out);
    cm_str_addf(out, "%s", cm_get_text(row, "verdict"));
    if (isfinite(cm_get_number(row, "change")))
        cm_str_add(out, ": ");
    add_figures(out, row);
    if (reason[0] != '\0')
        cm_str_addf(out, "; %s", reason);
}

/* ---- JUnit ---- */

static void add_testcase(struct cm_str *out, const char *name, enum kind kind, const char *type,
                         const char *text)
{
    static const char *const elements[] = {"system-out", "skipped", "failure", "error"};
    cm_str_add(out, "    <testcase classname=\"clustermark.gate\"");
    cm_add_attribute(out, "name", name);
    cm_str_add(out, ">\n      <");
    cm_str_add(out, elements[kind]);
    if (kind != PASSED)
        cm_add_attribute(out, "message", text);
    if (kind >= FAILURE)
        cm_add_attribute(out, "type", type);
    cm_str_add(out, ">");
    if (kind == PASSED)
        cm_str_add_xml(out, text);
    cm_str_addf(out, "</%s>\n    </testcase>\n", elements[kind]);
}

/* The gated metrics, the new results' bad cases, and whether anything could be compared: each a
 * test. */
static void add_testcases(struct cm_str *out, const json_t *document, size_t counts[4])
{
    struct cm_str line = CM_STR_INIT;
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(document, "gated"), index, row)
    {
        enum kind kind = kind_of(document, row);
        counts[kind]++;
        say(&line, row);
        add_testcase(out, cm_get_text(row, "key"), kind, cm_get_text(row, "verdict"),
                     cm_str_text(&line));
    }
    json_array_foreach(json_object_get(document, "bad_cases"), index, row)
    {
        counts[FAILURE]++;
        cm_str_reset(&line);
        cm_str_addf(&line, "%s in %s: %s", cm_get_text(row, "status"), cm_get_text(row, "file"),
                    cm_get_text(row, "reason"));
        add_testcase(out, cm_get_text(row, "case"), FAILURE, cm_get_text(row, "status"),
                     cm_str_text(&line));
    }
    if (!json_is_true(json_object_get(document, "comparable"))) {
        counts[ERROR]++;
        add_testcase(out, "comparable", ERROR, "not comparable",
                     cm_get_text(document, "exit_reason"));
    }
    out->failed = out->failed || line.failed;
    cm_str_release(&line);
}

static enum cm_status junit(const json_t *document, struct cm_str *out)
{
    struct cm_str cases = CM_STR_INIT;
    size_t counts[4] = {0};
    char numbers[160];
    add_testcases(&cases, document, counts);
    snprintf(numbers, sizeof numbers,
             " tests=\"%zu\" failures=\"%zu\" errors=\"%zu\" skipped=\"%zu\"",
             counts[PASSED] + counts[SKIPPED] + counts[FAILURE] + counts[ERROR], counts[FAILURE],
             counts[ERROR], counts[SKIPPED]);
    cm_str_addf(out,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"clustermark\"%s>\n"
                "  <testsuite name=\"gate\"%s>\n",
                numbers, numbers);
    cm_str_add(out, cm_str_text(&cases));
    cm_str_add(out, "  </testsuite>\n</testsuites>\n");
    enum cm_status status = cm_str_status(&cases);
    cm_str_release(&cases);
    return status;
}

/* ---- GitHub ---- */

static enum cm_status markdown(const json_t *document, struct cm_str *out)
{
    static const char *const marks[] = {"", "", "**", "**"};
    struct cm_str line = CM_STR_INIT;
    size_t index;
    const json_t *row;
    cm_str_add(out, "## clustermark gate: ");
    cm_add_markdown(out, cm_get_text(document, "outcome"));
    cm_str_add(out, "\n\n");
    cm_add_markdown(out, cm_get_text(document, "exit_reason"));
    cm_str_add(out,
               "\n\n| gated metric | verdict | change and bounds | reason |\n|:--|:--|:--|:--|\n");
    json_array_foreach(json_object_get(document, "gated"), index, row)
    {
        const char *mark = marks[kind_of(document, row)];
        cm_str_reset(&line);
        add_figures(&line, row);
        cm_str_add(out, "| ");
        cm_add_markdown(out, cm_get_text(row, "key"));
        cm_str_addf(out, " | %s%s%s | ", mark, cm_get_text(row, "verdict"), mark);
        cm_add_markdown(out, cm_str_text(&line));
        cm_str_add(out, " | ");
        cm_add_markdown(out, cm_get_text(row, "reason"));
        cm_str_add(out, " |\n");
    }
    json_array_foreach(json_object_get(document, "bad_cases"), index, row)
    {
        cm_str_add(out, "| ");
        cm_add_markdown(out, cm_get_text(row, "case"));
        cm_str_addf(out, " | **%s** | | ", cm_get_text(row, "status"));
        cm_add_markdown(out, cm_get_text(row, "reason"));
        cm_str_add(out, " |\n");
    }
    out->failed = out->failed || line.failed;
    cm_str_release(&line);
    return CM_OK;
}

static enum cm_status annotations(const json_t *document, struct cm_str *out)
{
    struct cm_str line = CM_STR_INIT;
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(document, "gated"), index, row)
    {
        enum kind kind = kind_of(document, row);
        bool improved = strcmp(cm_get_text(row, "verdict"), "improved") == 0;
        say(&line, row);
        if (kind != PASSED || improved)
            cm_annotate(out, kind >= FAILURE ? "error" : "warning", cm_get_text(row, "key"),
                        cm_str_text(&line));
    }
    bool fine = json_integer_value(json_object_get(document, "exit_code")) == 0;
    cm_annotate(out, fine ? "notice" : "error", "clustermark gate",
                cm_get_text(document, "exit_reason"));
    out->failed = out->failed || line.failed;
    cm_str_release(&line);
    return CM_OK;
}

/* ---- Bencher ---- */

/* {case: {figure: {value}, figure-change: {value, lower_value, upper_value}, figure-verdict:
 * {value}}}: of the new results; the verdict as its exit code, for a threshold at 0. */
static enum cm_status put_measures(json_t *root, const json_t *row)
{
    enum cm_status status = CM_OK;
    const char *key = cm_get_text(row, "key"), *figure = strrchr(key, '/');
    char *subject = cm_strf("%.*s", figure != NULL ? (int)(figure - key) : (int)strlen(key), key);
    char *names[] = {cm_strf("%s", figure != NULL ? figure + 1 : key), NULL, NULL};
    if (names[0] != NULL) {
        names[1] = cm_strf("%s-change", names[0]);
        names[2] = cm_strf("%s-verdict", names[0]);
    }
    if (subject == NULL || names[1] == NULL || names[2] == NULL)
        status = CM_NO_MEMORY;
    json_t *measures = status == CM_OK ? json_object_get(root, subject) : NULL;
    if (measures == NULL)
        measures = cm_put_object(&status, root, subject != NULL ? subject : "");
    const json_t *bounds = json_object_get(row, "bounds");
    double value = cm_get_number(json_object_get(row, "new"), "value");
    double change = cm_get_number(row, "change");
    if (isfinite(value))
        cm_put(&status, measures, names[0], json_pack("{s:f}", "value", value));
    if (isfinite(change)) {
        json_t *measure = cm_put_object(&status, measures, names[1]);
        cm_put(&status, measure, "value", cm_json_real(change));
        if (json_is_object(bounds)) {
            cm_put(&status, measure, "lower_value", cm_json_real(cm_get_number(bounds, "low")));
            cm_put(&status, measure, "upper_value", cm_json_real(cm_get_number(bounds, "high")));
        }
    }
    if (status == CM_OK)
        cm_put(&status, measures, names[2],
               json_pack("{s:O}", "value", json_object_get(row, "exit_code")));
    cm_free(subject);
    for (size_t i = 0; i < 3; i++)
        cm_free(names[i]);
    return status;
}

static enum cm_status bmf(const json_t *document, struct cm_str *out)
{
    json_t *root = json_object();
    enum cm_status status = root != NULL ? CM_OK : CM_NO_MEMORY;
    size_t index;
    const json_t *row;
    json_array_foreach(json_object_get(document, "gated"), index, row)
    {
        if (status == CM_OK)
            status = put_measures(root, row);
    }
    json_t *gate = cm_put_object(&status, root, "gate");
    json_t *verdict = cm_put_object(&status, gate, "verdict");
    cm_put(&status, verdict, "value", json_incref(json_object_get(document, "exit_code")));
    if (status == CM_OK)
        status = cm_export_json(root, out);
    json_decref(root);
    return status;
}

static const struct {
    const char *name;
    enum cm_status (*write)(const json_t *document, struct cm_str *out);
} formats[] = {
    {"junit", junit}, {"markdown", markdown}, {"annotations", annotations}, {"bmf", bmf}};

enum cm_status cm_gate_export(const json_t *document, const char *format, struct cm_str *out)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, format) != 0)
            continue;
        enum cm_status status = formats[i].write(document, out);
        return status == CM_OK ? cm_str_status(out) : status;
    }
    return cm_error(CM_USAGE, "gate: no format '%.40s'; junit, markdown, annotations or bmf",
                    format);
}
