/* clustermark project: steps of clusters that are not here. */
#include <stddef.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/project.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"

struct project_args {
    const char *validate, *fit, *output;
    struct cm_validate_options validation;
    struct cm_project_options question;
    struct cm_words sets;
    bool json;
    int color;
};

#define AT(field) .offset = offsetof(struct project_args, field)

#define WORD(long_name, field, what, text)                                                         \
    {                                                                                              \
        .kind = CM_ARG_WORD, .value = (what), .option = {                                          \
            .name = (long_name),                                                                   \
            AT(field),                                                                             \
            .help = (text)                                                                         \
        }                                                                                          \
    }
#define COUNT(long_name, field, most, text)                                                        \
    {                                                                                              \
        .kind = CM_ARG_VALUE, .value = "N", .option = {                                            \
            .name = (long_name),                                                                   \
            .type = CM_OPTION_COUNT,                                                               \
            AT(field),                                                                             \
            .min = 1,                                                                              \
            .max = (most),                                                                         \
            .help = (text)                                                                         \
        }                                                                                          \
    }

static const struct cm_arg project_table[] = {
    WORD("model", question.model, "NAME", "of configs/models, or a file"),
    WORD("cluster", question.cluster, "NAME",
         "of configs/clusters, a file, or a GPU of configs/gpus.ini"),
    {.kind = CM_ARG_WORDS,
     .value = "KEY=VALUE",
     .option = {.name = "set", AT(sets), .help = "instead of what the cluster's file says"}},
    COUNT("gpus", question.gpus, 1e7, "of the cluster; its own sizes without it"),
    WORD("plan", question.plan, "PLAN", "tp=8,pp=16 and so on; dp takes what is left"),
    {.kind = CM_ARG_FLAG,
     .option = {.name = "search",
                AT(question.search),
                .help = "the quickest plan, micro-batch and recomputation that fit"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "execute",
                AT(question.execute),
                .help = "execute the step's schedule on a virtual clock, not its closed form"}},
    WORD("sweep", question.sweep, "A..B",
         "the plan on every doubling of GPUs, batch growing and fixed"),
    COUNT("batch", question.batch, 1e9, "sequences of a step; 16 Mi tokens without it"),
    COUNT("micro-batch", question.micro_batch, 1e6, "sequences of a micro-batch; 1 without it"),
    WORD("dtype", question.dtype, "TYPE", "bf16, fp8, mxfp8 or nvfp4; bf16 without it"),
    WORD("recompute", question.recompute, "WHAT", "none, selective or full; none without it"),
    {.kind = CM_ARG_WORD,
     .value = "RUNS.csv",
     .option = {.name = "validate",
                AT(validate),
                .help = "predict measured runs and tell how far off that is"}},
    {.kind = CM_ARG_WORD,
     .value = "RUNS.csv",
     .option = {.name = "anchors",
                AT(validation.anchors),
                .help = "with --validate: smaller runs of the same series"}},
    {.kind = CM_ARG_VALUE,
     .value = "WHAT",
     .option = {.name = "leave-out",
                .type = CM_OPTION_CHOICE,
                AT(validation.leave_out),
                .choices = cm_leave_out_names,
                .help =
                    "with --validate: fit on RUNS without the row's own release, family or half of "
                    "all families"}},
    {.kind = CM_ARG_WORD,
     .value = "RUNS.csv",
     .option = {.name = "fit", AT(fit), .help = "write a calibration made of measured runs"}},
    {.kind = CM_ARG_WORD,
     .value = "FILE",
     .option = {.name = "calibration",
                AT(validation.calibration),
                .help = "instead of the one that comes with the program"}},
    {.kind = CM_ARG_FLAG, .option = {.name = "json", AT(json), .help = "as JSON"}},
    {.kind = CM_ARG_WORD,
     .letter = 'o',
     .value = "FILE",
     .option = {.name = "output", AT(output), .help = "write there instead of stdout"}},
    CM_COLOR_ARG(AT(color)),
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec project_spec = {
    .command = "project",
    .operands = "[RESULT...]",
    .summary = "Predicts what clusters that are not here train, draw and cost.",
    .details = "RESULT: files of this program, measured on one of the cluster's GPUs; without them "
               "rates come\n"
               "from the catalogue and from published runs.\n"
               "--set takes the keys of a cluster's file: price=3, pue=1.1, mtbf_gpu_days=2000,\n"
               "delay_months=6 and so on.",
    .table = project_table,
    .max_operands = 1000,
};

static enum cm_status show(const struct project_args *args, const json_t *document,
                           enum cm_status (*text_of)(const json_t *, const struct cm_report_style *,
                                                     struct cm_str *),
                           struct cm_str *out)
{
    struct cm_report_style style = {.color =
                                        args->output == NULL && cm_cli_color(args->color, stdout),
                                    .utf8 = cm_cli_utf8(),
                                    .width = cm_cli_width()};
    char *text = NULL;
    if (!args->json)
        return text_of(document, &style, out);
    enum cm_status status = cm_json_dump(document, 1, &text);
    if (status == CM_OK)
        cm_str_addf(out, "%s\n", text);
    cm_free(text);
    return status;
}

static enum cm_status check(const struct project_args *args, const struct cm_words *results)
{
    const struct cm_project_options *question = &args->question;
    bool answer = question->model != NULL || question->cluster != NULL;
    int asked = (args->validate != NULL) + (args->fit != NULL) + answer;
    if (asked != 1)
        return cm_error(CM_USAGE, "project: give one of --cluster, --validate and --fit");
    if (args->validate == NULL && args->validation.anchors != NULL)
        return cm_error(CM_USAGE, "project: --anchors belong to --validate");
    if (!answer && results->count > 0)
        return cm_error(CM_USAGE, "project: '%.60s': results go with --cluster", results->items[0]);
    if (answer && question->cluster == NULL)
        return cm_error(CM_USAGE, "project: --model needs --cluster");
    if (!answer && args->sets.count > 0)
        return cm_error(CM_USAGE, "project: --set goes with --cluster");
    if (question->execute && (question->model == NULL || question->sweep != NULL))
        return cm_error(CM_USAGE, "project: --execute is of one step: with --model, not --sweep");
    return CM_OK;
}

static enum cm_status run_project(const void *fields, const struct cm_words *results)
{
    struct project_args asked = *(const struct project_args *)fields, *args = &asked;
    struct cm_str out = CM_STR_INIT;
    json_t *document = NULL;
    enum cm_status status = check(args, results);
    if (status != CM_OK)
        return status;
    if (args->question.cluster != NULL) {
        args->question.sets = args->sets.items;
        args->question.set_count = args->sets.count;
        args->question.calibration = args->validation.calibration;
        args->question.results = results->items;
        args->question.result_count = results->count;
        status = cm_project_answer(&args->question, &document);
        if (status == CM_OK)
            status = show(args, document, cm_project_answer_text, &out);
    } else if (args->fit != NULL) {
        status = cm_project_fit(args->fit, &out);
    } else {
        args->validation.runs = args->validate;
        status = cm_project_validate(&args->validation, &document);
        if (status == CM_OK)
            status = show(args, document, cm_project_validate_text, &out);
    }
    if (status == CM_OK)
        status = cm_cli_output(args->output, &out);
    cm_str_release(&out);
    json_decref(document);
    return status;
}

int cm_cmd_project(int argc, char **argv)
{
    struct project_args args = {
        .question = {.dtype = "bf16", .recompute = "none", .micro_batch = 1}};
    return cm_cli_command(&project_spec, argc, argv, &args, run_project);
}
