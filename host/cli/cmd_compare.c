/* clustermark compare: machines, or revisions, held against each other. */
#include "clustermark/compare.h"

#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/cli/args.h"
#include "host/cli/cli.h"

struct compare_args {
    const char *only;
    struct cm_words allowed, prices, instances;
    double margin;
    bool json, all, paired;
    int color;
};

#define AT(field) .offset = offsetof(struct compare_args, field)

static const struct cm_arg compare_table[] = {
    {.kind = CM_ARG_VALUE,
     .value = "SHARE",
     .option = {.name = "margin",
                .type = CM_OPTION_REAL,
                AT(margin),
                .min = 1e-6,
                .max = 1,
                .help = "within it figures count as the same; 2% without it"}},
    {.kind = CM_ARG_WORDS,
     .value = "KEY",
     .option = {.name = "allow-mismatch", AT(allowed), .help = "compare although KEY differs"}},
    {.kind = CM_ARG_WORD,
     .value = "PATTERN",
     .option = {.name = "only", AT(only), .help = "metrics, as case/metric; * and ? match"}},
    {.kind = CM_ARG_WORDS,
     .value = "[SET=]NAME",
     .option = {.name = "instance",
                AT(instances),
                .help = "what was rented, of configs/instances.ini: adds costs"}},
    {.kind = CM_ARG_WORDS,
     .value = "[SET=]PRICE",
     .option = {.name = "price",
                AT(prices),
                .help = "of a machine: 55.04USD/h,2026-07-20,the source"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "paired", AT(paired), .help = "the runs were interleaved, in pairs"}},
    {.kind = CM_ARG_FLAG,
     .option = {.name = "all", AT(all), .help = "also figures of single ranks, pairs and shapes"}},
    {.kind = CM_ARG_FLAG, .option = {.name = "json", AT(json), .help = "everything as JSON"}},
    CM_COLOR_ARG(AT(color)),
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec compare_spec = {
    .command = "compare",
    .operands = "A B...",
    .summary = "Hold result files, or folders of repeated runs, against the first of them.",
    .details = "SET is the number of a file or folder in the order given, or its name; without it "
               "all are\nmeant. Results that differ in what must match are explained and refused "
               "(exit code 4).",
    .table = compare_table,
    .max_operands = 64,
};

static enum cm_status show(const json_t *document, const struct compare_args *args)
{
    struct cm_report_style style = cm_cli_style(args->color);
    struct cm_str out = CM_STR_INIT;
    if (args->json)
        return cm_cli_write_document(document);
    enum cm_status status = cm_compare_text(document, &style, args->all, &out);
    if (status == CM_OK)
        status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

static enum cm_status compare(const void *fields, const struct cm_words *operands)
{
    const struct compare_args *args = fields;
    json_t *document = NULL;
    struct cm_compare_request request = {
        .paths = {operands->items, operands->count},
        .allowed = {args->allowed.items, args->allowed.count},
        .prices = {args->prices.items, args->prices.count},
        .instances = {args->instances.items, args->instances.count},
        .only = args->only,
        .margin = args->margin,
        .paired = args->paired};
    enum cm_status status = cm_compare(&request, &document);
    if (status == CM_OK)
        status = show(document, args);
    if (status == CM_OK)
        status = cm_document_verdict(document);
    json_decref(document);
    return status;
}

int cm_cmd_compare(int argc, char **argv)
{
    struct compare_args args = {.margin = 0.02};
    return cm_cli_command(&compare_spec, argc, argv, &args, compare);
}
