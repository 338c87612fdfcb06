/* clustermark gate: did it get slower? For machines that decide by the exit code. */
#include <stdio.h>
#include <string.h>

#include "clustermark/compare.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"

struct gate_args {
    const char *rules, *state, *draw;
    struct cm_words fresh, allowed, metrics, margins, exports;
    double risk;
    uint64_t trials, baseline_runs, fresh_runs, seed;
    bool strict, json, all, selftest;
    int color;
};

#define AT(field) .offset = offsetof(struct gate_args, field)

static const struct cm_arg gate_table[] = {
    {.kind = CM_ARG_WORDS,
     .value = "FILE",
     .option = {.name = "new", AT(fresh), .help = "new results: a file or folder, any number"}},
    {.kind = CM_ARG_WORDS,
     .value = "PATTERN",
     .option = {.name = "metric", AT(metrics), .help = "gate this, as case/metric; up to 8"}},
    {.kind = CM_ARG_WORDS,
     .value = "[PATTERN=]SHARE",
     .option = {.name = "margin", AT(margins), .help = "what is tolerated: 2%, or PATTERN=5%"}},
    {.kind = CM_ARG_VALUE,
     .value = "SHARE",
     .option = {.name = "risk",
                .type = CM_OPTION_REAL,
                AT(risk),
                .min = 1e-6,
                .max = 0.5,
                .help = "of any false alarm of the gate; 1% without it"}},
    {.kind = CM_ARG_WORD,
     .value = "FILE",
     .option = {.name = "rules", AT(rules), .help = "metrics and margins; gate.ini without it"}},
    {.kind = CM_ARG_WORDS,
     .value = "KEY",
     .option = {.name = "allow-mismatch", AT(allowed), .help = "compare although KEY differs"}},
    {.kind = CM_ARG_WORD,
     .value = "FILE",
     .option = {.name = "state",
                AT(state),
                .help = "allow a second look with added runs; kept in FILE"}},
    {.kind = CM_ARG_WORDS,
     .value = "FORMAT=FILE",
     .option = {.name = "export",
                AT(exports),
                .help = "also for CI: junit, markdown, annotations or bmf, to FILE"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "strict", AT(strict), .help = "what is not decided fails, with 3"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "selftest",
                AT(selftest),
                .help = "false alarms and power, from the baseline's own runs"}},
    {.kind = CM_ARG_VALUE,
     .value = "N",
     .option = {.name = "trials",
                .type = CM_OPTION_COUNT,
                AT(trials),
                .min = 1,
                .max = 1e6,
                .help = "selftest: gates with nothing slower; 1000 without it"}},
    {.kind = CM_ARG_VALUE,
     .value = "N",
     .option = {.name = "baseline-runs",
                .type = CM_OPTION_COUNT,
                AT(baseline_runs),
                .min = 2,
                .max = 150,
                .help = "selftest: drawn as baseline; 20 without it"}},
    {.kind = CM_ARG_VALUE,
     .value = "N",
     .option = {.name = "new-runs",
                .type = CM_OPTION_COUNT,
                AT(fresh_runs),
                .min = 1,
                .max = 150,
                .help = "selftest: drawn as new; 5 without it"}},
    {.kind = CM_ARG_WORD,
     .value = "UNIT",
     .option = {.name = "draw",
                AT(draw),
                .help = "selftest: runs or sessions (files); sessions where there are enough"}},
    {.kind = CM_ARG_VALUE,
     .value = "N",
     .option = {.name = "seed",
                .type = CM_OPTION_COUNT,
                AT(seed),
                .help = "selftest: of the draws; 1 without it"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "all", AT(all), .help = "also advisory metrics that are not worse"}},
    {.kind = CM_ARG_FLAG, .option = {.name = "json", AT(json), .help = "everything as JSON"}},
    CM_COLOR_ARG(AT(color)),
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec gate_spec = {
    .command = "gate",
    .operands = "BASELINE...",
    .summary = "Hold new results against a baseline of earlier ones, and say by the exit code "
               "whether they got worse.",
    .details =
        "0 pass or improved, 1 regression, 3 not decided (with --strict), 4 not comparable, 5 "
        "wrong or\nthrottled, 6 no baseline or a metric is missing. Files and folders; 20 runs "
        "against 5 decide well.",
    .table = gate_table,
    .max_operands = 100000,
};

static enum cm_status show(const json_t *document, const struct gate_args *args)
{
    struct cm_report_style style = cm_cli_style(args->color);
    struct cm_str out = CM_STR_INIT;
    if (args->json)
        return cm_cli_write_document(document);
    enum cm_status status = args->selftest ? cm_gate_selftest_text(document, &style, &out)
                                           : cm_gate_text(document, &style, args->all, &out);
    if (status == CM_OK)
        status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

/* "junit=gate.xml" */
static enum cm_status export_to(const json_t *document, const char *text)
{
    const char *equals = strchr(text, '=');
    char format[24];
    if (equals == NULL || equals[1] == '\0' || (size_t)(equals - text) >= sizeof format)
        return cm_error(CM_USAGE, "--export '%.80s': give FORMAT=FILE, like junit=gate.xml", text);
    struct cm_str out = CM_STR_INIT;
    snprintf(format, sizeof format, "%.*s", (int)(equals - text), text);
    enum cm_status status = cm_gate_export(document, format, &out);
    if (status == CM_OK)
        status = cm_cli_output(equals + 1, &out);
    cm_str_release(&out);
    return status;
}

static struct cm_texts texts(const struct cm_words *words)
{
    return (struct cm_texts){words->items, words->count};
}

static enum cm_status gate(const void *fields, const struct cm_words *operands)
{
    const struct gate_args *args = fields;
    json_t *document = NULL;
    struct cm_selftest_request request = {.gate = {.baseline = texts(operands),
                                                   .fresh = texts(&args->fresh),
                                                   .allowed = texts(&args->allowed),
                                                   .metrics = texts(&args->metrics),
                                                   .margins = texts(&args->margins),
                                                   .rules = args->rules,
                                                   .risk = args->risk,
                                                   .state = args->state,
                                                   .strict = args->strict},
                                          .trials = args->trials,
                                          .baseline_runs = args->baseline_runs,
                                          .fresh_runs = args->fresh_runs,
                                          .seed = args->seed,
                                          .draw = args->draw};
    enum cm_status status =
        args->selftest ? cm_gate_selftest(&request, &document) : cm_gate(&request.gate, &document);
    if (status == CM_OK)
        status = show(document, args);
    for (size_t i = 0; status == CM_OK && !args->selftest && i < args->exports.count; i++)
        status = export_to(document, args->exports.items[i]);
    if (status == CM_OK)
        status = cm_document_verdict(document);
    json_decref(document);
    return status;
}

int cm_cmd_gate(int argc, char **argv)
{
    struct gate_args args = {.trials = 1000, .baseline_runs = 20, .fresh_runs = 5, .seed = 1};
    return cm_cli_command(&gate_spec, argc, argv, &args, gate);
}
