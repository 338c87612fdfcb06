/* Projections: tables of runs read, predicted and scored, and the model fitted on one half of the
 * sources held against the other. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/project.h"
#include "clustermark/result.h"
#include "host/project/fit.h"
#include "host/project/measured.h"
#include "host/project/predict.h"
#include "test.h"

#define RUNS CM_TEST_FIXTURES "/project/published-runs.csv"
#define COLUMNS                                                                                    \
    "source,model,params_b,layers,hidden,heads,kv_heads,ffn_hidden,vocab,seq_len,"                 \
    "global_batch_seqs,gpu,gpus,tp,cp,pp,vpp,dp,ep,micro_batch,precision,recompute,seq_parallel,"  \
    "tflops_per_gpu,mfu_pct,step_time_s,tokens_per_s,notes,verified\n"
#define GPT3                                                                                       \
    "paper:t5,GPT-175B,175,96,12288,96,96,49152,51200,2048,64,A100-80GB,64,8,1,8,3,1,,1,fp16,"     \
    "full,0,,,%s,,%s,yes\n"

static char path[64];

static void write_table(const char *text)
{
    snprintf(path, sizeof path, "/tmp/clustermark-runs-%ld.csv", (long)getpid());
    assert_ok(cm_file_replace(path, text, strlen(text)));
}

static int remove_table(void **state)
{
    (void)state;
    if (path[0] != '\0')
        remove(path);
    return 0;
}

static json_t *validated(const struct cm_validate_options *options)
{
    json_t *document = NULL;
    assert_ok(cm_project_validate(options, &document));
    return document;
}

static double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const json_t *entry_of(const json_t *document, const char *name)
{
    size_t index;
    const json_t *entry;
    json_array_foreach(json_object_get(document, "summary"), index, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            return entry;
    }
    fail_msg("no summary of %s", name);
    return NULL;
}

static void tables_are_read_strictly(void **state)
{
    (void)state;
    struct cm_csv csv;
    write_table("a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n\"\",2\n");
    assert_ok(cm_csv_load(path, &csv));
    assert_int_equal(csv.count, 2);
    assert_int_equal(csv.column_count, 2);
    assert_string_equal(csv.rows[0].cells[1], "x, \"y\"\nz");
    assert_string_equal(csv.rows[1].cells[0], "");
    assert_int_equal(csv.rows[1].line, 4);
    assert_int_equal(cm_csv_column(&csv, "b"), 1);
    assert_int_equal(cm_csv_column(&csv, "c"), -1);
    cm_csv_release(&csv);
    const struct {
        const char *text, *message;
    } bad[] = {{"", "empty"},
               {"a,a\n", ":1: column 'a' twice"},
               {"a,b\n1\n", ":2: 1 cells, and 2 columns"},
               {"a,b\n1,2\n1,2,3\n", ":3: 3 cells"},
               {"a,b\n\xff,1\n", ":2: not text (byte 0xff)"},
               {"a\n\"x\n", ":2: a quote does not end"},
               {"a\n\"x\"y\n", "text behind a closing quote"},
               {"a\nx\"y\n", "a quote within a cell"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_table(bad[i].text);
        assert_status(cm_csv_load(path, &csv), CM_USAGE, bad[i].message);
    }
    assert_status(cm_csv_load("/nowhere/runs.csv", &csv), CM_USAGE, "/nowhere/runs.csv");
}

static void bad_tables_are_refused(void **state)
{
    (void)state;
    json_t *document = NULL;
    struct cm_validate_options options = {.runs = path};
    write_table("source,model\nx,y\n");
    assert_status(cm_project_validate(&options, &document), CM_USAGE, ":1: no column 'params_b'");
    write_table(COLUMNS);
    assert_status(cm_project_validate(&options, &document), CM_USAGE, "no row below");
    write_table(COLUMNS
                "p:t,m,,x96,12288,96,96,49152,51200,2048,64,A100,64,8,1,8,3,1,,1,fp16,full,0,"
                ",,1,,,yes\n");
    assert_status(cm_project_validate(&options, &document), CM_USAGE, ":2: layers is 'x96'");
    write_table(COLUMNS "p:t,m,,96,12288,96,96,49152,51200,2048,64,A100,64,8,1,8,3,1,x,1,fp16,full,"
                        "0,,,1,,,yes\n");
    assert_status(cm_project_validate(&options, &document), CM_USAGE, ":2: ep is 'x'");
    write_table(COLUMNS "p:t,m,,96,12288,96,96,49152,51200,2048,64,A100,64,8,1,8,3,1,,0x1,fp16,"
                        "full,0,,,1,,,yes\n");
    assert_status(cm_project_validate(&options, &document), CM_USAGE, ":2: micro_batch is '0x1'");
    assert_null(document);
}

/* What stands for a measurement and is none: a row is predicted all the same, as nothing measured
 * of it is read for that, and no anchor and nothing to fit on. */
static void measurements_that_are_none_are_told(void **state)
{
    (void)state;
    char text[2048];
    struct cm_str fitted = CM_STR_INIT;
    struct cm_validate_options options = {.runs = path};
    snprintf(text, sizeof text, COLUMNS GPT3, "soon", "");
    write_table(text);
    json_t *document = validated(&options);
    const json_t *row = json_array_get(json_object_get(document, "rows"), 0);
    assert_near(real(row, "step_time_s"), 18.13, 0.1);
    assert_non_null(
        strstr(json_string_value(json_object_get(row, "not_scored")), ":2: step_time_s is 'soon'"));
    json_decref(document);
    document = NULL;
    options.anchors = path;
    assert_status(cm_project_validate(&options, &document), CM_USAGE, ":2: step_time_s is 'soon'");
    assert_status(cm_project_fit(path, &fitted), CM_USAGE, ":2: step_time_s is 'soon'");
    assert_null(document);
}

static const char *reason_of(const json_t *document, size_t row)
{
    const char *reason = json_string_value(
        json_object_get(json_array_get(json_object_get(document, "rows"), row), "reason"));
    return reason != NULL ? reason : "";
}

static void rows_that_cannot_be_predicted_have_a_reason(void **state)
{
    (void)state;
    struct cm_validate_options options = {.runs = path};
    write_table(COLUMNS
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,TPUv4,8,1,1,1,,8,,1,bf16,,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,A100,8,2,1,1,,8,,1,bf16,,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,4,A100,8,1,1,1,,8,,1,bf16,,,,,1,,,yes\n"
                "p:t,m,1,,2048,16,16,8192,50000,2048,64,A100,8,1,1,1,,8,,1,bf16,,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,A100,8,1,1,1,,8,,1,,,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,A100,8,1,1,1,,8,,1,fp8,,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,A100,8,1,1,1,,8,8,1,bf16,,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,A100,8,1,1,1,,8,,1,bf16,,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,A100,8,1,1,1,,8,,1,bf16,some,,,,1,,,yes\n"
                "p:t,m,1,24,2048,16,16,8192,50000,2048,64,A100,8,1,1,1,,8,,1,bf16,,on,,,1,,,yes\n");
    json_t *document = validated(&options);
    const char *const parts[] = {"GPU 'TPUv4' is not in",     "are not 8 GPUs",
                                 "less than one micro-batch", "layers is not given",
                                 "precision is not given",    "no unit for fp8",
                                 "mixture of experts"};
    assert_int_equal(json_array_size(json_object_get(document, "rows")), 10);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(reason_of(document, i), parts[i]) == NULL)
            fail_msg("row %zu: '%s' lacks '%s'", i, reason_of(document, i), parts[i]);
    assert_string_equal(reason_of(document, 7), "");
    assert_non_null(strstr(reason_of(document, 8), "recompute 'some'"));
    assert_non_null(strstr(reason_of(document, 9), "seq_parallel is 'on'"));
    assert_int_equal((int)real(entry_of(document, "all"), "rows"), 10);
    assert_int_equal((int)real(entry_of(document, "all"), "predicted"), 1);
    json_decref(document);
}

/* A prediction does not move with what was measured of its own row, nor with numbers in notes. */
static void measured_columns_are_not_read(void **state)
{
    (void)state;
    double steps[3];
    const char *const measured[] = {"18.13", "", "99"};
    for (int i = 0; i < 3; i++) {
        char text[2048];
        struct cm_validate_options options = {.runs = path};
        snprintf(text, sizeof text, COLUMNS GPT3, measured[i], i == 2 ? "step 99 s" : "");
        write_table(text);
        json_t *document = validated(&options);
        const json_t *row = json_array_get(json_object_get(document, "rows"), 0);
        steps[i] = real(row, "step_time_s");
        assert_true(real(row, "p10_s") < steps[i] && steps[i] < real(row, "p90_s"));
        json_decref(document);
    }
    assert_near(steps[0], 18.13, 0.1);
    assert_true(steps[0] == steps[1] && steps[0] == steps[2]);
}

/* Anchors move a prediction to what was measured of the series, and a row is no anchor of itself.
 */
static void anchors_are_followed(void **state)
{
    (void)state;
    char runs[64], text[4096];
    const char *row =
        "p:t,GPT-175B,175,96,12288,96,96,49152,51200,2048,64,A100-80GB,%d,8,1,8,3,%d,,1,"
        "fp16,full,0,,,%g,,,yes\n";
    char first[512], second[512], third[512];
    snprintf(first, sizeof first, row, 64, 1, 40.0);
    snprintf(second, sizeof second, row, 128, 2, 20.5);
    snprintf(third, sizeof third, row, 256, 4, 10.8);
    snprintf(text, sizeof text, COLUMNS "%s%s", first, third);
    write_table(text);
    snprintf(runs, sizeof runs, "/tmp/clustermark-runs-%ld-b.csv", (long)getpid());
    assert_int_equal(rename(path, runs), 0);
    snprintf(text, sizeof text, COLUMNS "%s%s", first, second);
    write_table(text);
    struct cm_validate_options options = {.runs = runs, .anchors = path};
    json_t *document = validated(&options);
    const json_t *rows = json_object_get(document, "rows");
    const json_t *self = json_array_get(rows, 0), *other = json_array_get(rows, 1);
    assert_int_equal((int)real(self, "anchors"), 1);
    assert_int_equal((int)real(other, "anchors"), 2);
    assert_near(real(other, "step_time_s"), 10.8, 0.03);
    /* u = m + 7/3: 66.33, 34.33, 18.33: the line through 40 and 20.5 gives 10.75. */
    assert_near(real(other, "two_anchor"), 10.75, 1e-3);
    assert_near(real(other, "null"), 10, 1e-9);
    assert_near(real(other, "bubble_only"), 10 * (18.0 + 1.0 / 3) / 16 / ((66.0 + 1.0 / 3) / 64),
                1e-9);
    json_decref(document);
    remove(runs);
}

/* ---- the shipped model ---- */

static void published_runs_are_predicted(void **state)
{
    (void)state;
    struct cm_validate_options options = {.runs = RUNS};
    json_t *document = validated(&options);
    const json_t *korthikanti = entry_of(document, "korthikanti-2022");
    assert_int_equal((int)real(korthikanti, "scored"), 8);
    assert_true(real(korthikanti, "mape") <= 0.03 && real(korthikanti, "worst") <= 0.08);
    assert_true(real(entry_of(document, "vtrain-single"), "mape") <= 0.08);
    assert_true(real(entry_of(document, "vtrain-multi"), "mape") <= 0.12);
    json_decref(document);
}

static void check_left_out(const json_t *document, const char *name, double mape)
{
    const json_t *entry = entry_of(document, name);
    printf("%s: %.4f, inside %.3f\n", name, real(entry, "mape"), real(entry, "coverage"));
    assert_true(real(entry, "mape") <= mape);
    assert_true(real(entry, "coverage") >= 0.70 && real(entry, "coverage") <= 0.90);
}

static void left_out_sources_are_predicted(void **state)
{
    (void)state;
    struct cm_validate_options options = {.runs = RUNS, .leave_out = CM_LEAVE_RELEASE};
    json_t *document = validated(&options);
    assert_true(real(entry_of(document, "fully specified, 64 GPUs or more"), "scored") > 400);
    check_left_out(document, "fully specified, 64 GPUs or more", 0.12);
    check_left_out(document, "  dense", 0.12);
    json_decref(document);
    options.leave_out = CM_LEAVE_FAMILY;
    document = validated(&options);
    check_left_out(document, "fully specified, 64 GPUs or more", 0.14);
    check_left_out(document, "  dense", 0.12);
    json_decref(document);
}

static void anchored_series_are_predicted(void **state)
{
    (void)state;
    const struct {
        const char *name;
        double mean, worst;
    } sets[] = {{"strong", 0.015, 0.06}, {"varied", 0.03, 0.05}, {"proxy", 0.03, 0.03}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char runs[300], anchors[300];
        snprintf(runs, sizeof runs, "%s/project/%s-runs.csv", CM_TEST_FIXTURES, sets[i].name);
        snprintf(anchors, sizeof anchors, "%s/project/%s-anchors.csv", CM_TEST_FIXTURES,
                 sets[i].name);
        struct cm_validate_options options = {.runs = runs, .anchors = anchors};
        json_t *document = validated(&options);
        const json_t *all = entry_of(document, "all");
        printf("%s: mean %.4f, worst %.4f\n", sets[i].name, real(all, "mape"), real(all, "worst"));
        assert_true(real(all, "mape") <= sets[i].mean && real(all, "worst") <= sets[i].worst);
        json_decref(document);
    }
}

static void one_half_predicts_the_other(void **state)
{
    (void)state;
    struct cm_gpu_catalogue catalogue;
    struct cm_run_table runs;
    struct cm_validate_options options = {.runs = RUNS, .leave_out = CM_LEAVE_HALF};
    size_t rows[2] = {0};
    assert_ok(cm_gpu_catalogue_load(&catalogue));
    assert_ok(cm_run_table_load(RUNS, &catalogue, &runs));
    for (size_t i = 0; i < runs.count; i++) {
        rows[runs.rows[i].half[0] == '1'] += cm_run_specified(&runs.rows[i]);
        for (size_t k = 0; k < i; k++)
            assert_true(strcmp(runs.rows[i].family, runs.rows[k].family) != 0 ||
                        runs.rows[i].half[0] == runs.rows[k].half[0]);
    }
    assert_true(rows[0] > 100 && rows[1] > 100);
    cm_run_table_release(&runs);
    cm_gpu_catalogue_release(&catalogue);
    json_t *document = validated(&options);
    check_left_out(document, "  dense", 0.13);
    json_decref(document);
}

/* The shipped calibration is what --fit makes of the shipped runs. */
static void the_calibration_is_the_fits(void **state)
{
    (void)state;
    struct cm_calibration shipped, made;
    struct cm_str text = CM_STR_INIT;
    assert_ok(cm_project_fit(RUNS, &text));
    snprintf(path, sizeof path, "/tmp/clustermark-fit-%ld.ini", (long)getpid());
    assert_ok(cm_file_replace(path, text.text, text.length));
    assert_ok(cm_calibration_load(path, &made));
    assert_ok(cm_calibration_load(NULL, &shipped));
    for (int i = 0; i < CM_COST_PARAMETER_COUNT; i++)
        assert_near(shipped.value[i], made.value[i], 0.02);
    assert_int_equal(shipped.rows, made.rows);
    assert_non_null(strstr(shipped.sources, "korthikanti-2022: 8"));
    cm_str_release(&text);
}

static void plans_are_answered(void **state)
{
    (void)state;
    struct cm_project_options options = {.model = "llama3-405b",
                                         .cluster = "H100",
                                         .plan = "tp=8,pp=16",
                                         .dtype = "bf16",
                                         .recompute = "selective",
                                         .gpus = 16384,
                                         .micro_batch = 1};
    json_t *document = NULL;
    assert_ok(cm_project_answer(&options, &document));
    const json_t *step = json_object_get(document, "step_time_s");
    double value = real(step, "value"), sum = 0;
    const char *key;
    json_t *part;
    json_object_foreach(json_object_get(document, "breakdown"), key, part) sum +=
        json_number_value(part);
    assert_near(sum, value, 1e-6);
    assert_true(real(step, "p10") < value && value < real(step, "p90"));
    assert_near(real(json_object_get(document, "tokens_per_s"), "value"), 2048 * 8192 / value,
                1e-6);
    const char *const keys[] = {"mfu_full",  "mfu_causal", "memory",
                                "baselines", "plan",       "assumptions"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_non_null(json_object_get(document, keys[i]));
    json_decref(document);
}

/* Simple rules go by runs that someone could measure: not by ones whose links are others, and not
 * over more than a factor of sixteen. */
static void rules_go_by_small_runs(void **state)
{
    (void)state;
    static const struct {
        const char *cluster, *plan, *from;
        uint64_t gpus;
        double least, most; /* of two_anchor, over the step */
    } cases[] = {
        {"openai-aws", "tp=4,cp=2,pp=8,vpp=2", "own steps on 1024 and 2048 GPUs", 16384, 0.9, 1.1},
        {"GB200", "tp=4,pp=8", "own steps on 96 and 192 GPUs", 1024, 0.9, 1.1},
        {"H100", "tp=8,pp=16", "own steps on 128 GPUs, of two batches", 256, 0.9, 1.1},
        {"H100", "tp=8,pp=16", "none: no smaller run", 128, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_project_options options = {.model = "llama3-405b",
                                             .cluster = cases[i].cluster,
                                             .plan = cases[i].plan,
                                             .dtype = "bf16",
                                             .recompute = "full",
                                             .gpus = cases[i].gpus,
                                             .micro_batch = 1};
        json_t *document = NULL;
        assert_ok(cm_project_answer(&options, &document));
        const json_t *rules = json_object_get(document, "baselines");
        const char *from = json_string_value(json_object_get(document, "baselines_from"));
        double step = real(json_object_get(document, "step_time_s"), "value");
        if (strstr(from, cases[i].from) == NULL)
            fail_msg("case %zu: '%s' lacks '%s'", i, from, cases[i].from);
        assert_true(real(rules, "two_anchor") >= cases[i].least * step);
        assert_true(real(rules, "two_anchor") <= cases[i].most * step);
        json_decref(document);
    }
}

/* Slow hosts, and hosts that differ more than usual, slow the step as they are set to. */
static void hosts_differ_as_set(void **state)
{
    (void)state;
    struct cm_project_options options = {.model = "llama3-405b",
                                         .cluster = "H100",
                                         .plan = "tp=8,pp=16",
                                         .dtype = "bf16",
                                         .recompute = "selective",
                                         .gpus = 16384,
                                         .micro_batch = 1};
    static const char *const sets[][2] = {{"host_spread=1e-9", "slow_by=0"},
                                          {"host_spread=0.01", "slow_by=0"},
                                          {"host_spread=1e-9", "slow_by=0.1"}};
    double steps[3];
    for (int i = 0; i < 3; i++) {
        const char *words[] = {sets[i][0], sets[i][1], "slow_share=0.001"};
        json_t *document = NULL;
        options.sets = words;
        options.set_count = 3;
        assert_ok(cm_project_answer(&options, &document));
        steps[i] = real(json_object_get(document, "step_time_s"), "value");
        json_decref(document);
    }
    assert_near(steps[1] / steps[0], 1 + 0.01 * sqrt(2 * log(2048)), 1e-6);
    assert_near(steps[2] / steps[0], 1 + 0.1 * (1 - pow(0.999, 2048)), 1e-6);
}

/* Every plan of 64 GPUs that a hand can write is no quicker than the one that is found. */
static void a_search_finds_the_quickest(void **state)
{
    (void)state;
    struct cm_project_options options = {.model = "llama3-8b",
                                         .cluster = "H100",
                                         .plan = "tp=1",
                                         .search = true,
                                         .dtype = "bf16",
                                         .recompute = "none",
                                         .gpus = 64,
                                         .batch = 512,
                                         .micro_batch = 1};
    static const char *const plans[] = {"tp=2",      "tp=4",       "tp=8",
                                        "tp=2,pp=2", "pp=2,vpp=4", "tp=2,cp=2"};
    static const char *const recomputes[] = {"none", "selective", "full"};
    json_t *document = NULL;
    size_t others = 0;
    assert_ok(cm_project_answer(&options, &document));
    double best = real(json_object_get(document, "step_time_s"), "value");
    assert_true(real(json_object_get(document, "memory"), "value") < 80e9);
    json_decref(document);
    options.search = false;
    for (size_t i = 0; i < 18; i++) {
        options.plan = plans[i / 3];
        options.recompute = recomputes[i % 3];
        if (cm_project_answer(&options, &document) != CM_OK)
            continue;
        others++;
        assert_true(real(json_object_get(document, "step_time_s"), "value") >= best * (1 - 1e-9));
        json_decref(document);
    }
    assert_true(others > 6);
    options.search = true;
    options.batch = 7;
    options.gpus = 1024;
    assert_status(cm_project_answer(&options, &document), CM_USAGE, "another --batch may");
    options.model = "llama3-405b";
    options.batch = 8;
    options.gpus = 8;
    assert_status(cm_project_answer(&options, &document), CM_USAGE, "fits; the least needs");
}

static void sweeps_are_curves(void **state)
{
    (void)state;
    struct cm_project_options options = {.model = "llama3-70b",
                                         .cluster = "H100",
                                         .plan = "tp=8,pp=4",
                                         .sweep = "32..65536",
                                         .dtype = "bf16",
                                         .recompute = "selective",
                                         .gpus = 512,
                                         .batch = 2048,
                                         .micro_batch = 1};
    json_t *document = NULL;
    const json_t *entry;
    size_t index;
    double before = INFINITY, slower = 0;
    assert_ok(cm_project_answer(&options, &document));
    const json_t *weak = json_object_get(document, "weak");
    const json_t *strong = json_object_get(document, "strong");
    assert_int_equal(json_array_size(weak), 12);
    /* 2048 micro-batches of dp 64 and so on, to one for each of 2048. */
    assert_int_equal(json_array_size(strong), 12);
    json_array_foreach(weak, index, entry)
    {
        assert_true(real(entry, "step_time_s") >= slower);
        assert_true(real(entry, "step_time_s") >= real(entry, "null") * (1 - 1e-9));
        /* With as many micro-batches the line says what its smaller run took. */
        if (real(entry, "null") > 0)
            assert_near(real(entry, "two_anchor"), real(entry, "null"), 1e-9);
        slower = real(entry, "step_time_s");
    }
    json_array_foreach(strong, index, entry)
    {
        assert_true(real(entry, "step_time_s") < before);
        assert_true(real(entry, "p10_s") < real(entry, "p90_s"));
        assert_true(index == 0 || real(entry, "null") > 0);
        if (index > 1)
            assert_near(real(entry, "two_anchor"), real(entry, "step_time_s"), 0.15);
        before = real(entry, "step_time_s");
    }
    json_decref(document);
    static const char *const bad[] = {"", "8", "8..", "0..8", "16..8", "1..1e12", "a..b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        options.sweep = bad[i];
        assert_status(cm_project_answer(&options, &document), CM_USAGE, "--sweep: ");
    }
    options.sweep = "1..16";
    assert_status(cm_project_answer(&options, &document), CM_USAGE, "whole replicas of 32 GPUs");
}

/* Newer software is quicker; sources without a release are taken for that of the reference. */
static void releases_are_read_from_sources(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        double release;
    } known[] = {{"megatron-bridge-26.06.01:x", 26.0 + 5.5 / 12},
                 {"mlperf-v3.1:NVIDIA/eos_n64_ngc23.09_nemo", 23.0 + 8.5 / 12},
                 {"dgxc:v24.11-maxtext", 24.0 + 10.5 / 12},
                 {"megatron-sc21:arXiv2104.04473 s5.1", 0},
                 {"x:126.06", 0},
                 {"x:26.13", 0}};
    struct cm_gpu_catalogue catalogue;
    assert_ok(cm_gpu_catalogue_load(&catalogue));
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char text[1024];
        struct cm_run_table runs;
        snprintf(text, sizeof text,
                 COLUMNS "%s,m,1,24,2048,16,16,8192,50000,2048,64,H100,8,1,1,1,,8,,1,bf16,,,,,1,,,"
                         "yes\n",
                 known[i].source);
        write_table(text);
        assert_ok(cm_run_table_load(path, &catalogue, &runs));
        assert_string_equal(runs.rows[0].reason, "");
        assert_near(runs.rows[0].job.release, known[i].release, 1e-12);
        cm_run_table_release(&runs);
    }
    cm_gpu_catalogue_release(&catalogue);
}

static void bad_plans_are_refused(void **state)
{
    (void)state;
    const struct cm_project_options good = {.model = "llama3-70b",
                                            .cluster = "H100",
                                            .plan = "tp=8,pp=4",
                                            .dtype = "bf16",
                                            .recompute = "selective",
                                            .gpus = 1024,
                                            .micro_batch = 1};
    const struct {
        struct cm_project_options options;
        const char *message;
    } bad[] = {{good, "do not divide --gpus 1000"},
               {good, "tp"},
               {good, "no cluster 'H900'"},
               {good, "does not fit"},
               {good, "no unit for nvfp4"},
               {good, "no multiple of dp"},
               {good, "'q16'; bf16"},
               {good, "--plan takes 64 GPUs; --gpus says 1024"}};
    json_t *document = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cm_project_options options = bad[i].options;
        if (i == 0)
            options.gpus = 1000;
        if (i == 1)
            options.plan = "tp=3,pp=4", options.gpus = 24;
        if (i == 2)
            options.cluster = "H900";
        if (i == 3)
            options.plan = "tp=1";
        if (i == 4)
            options.dtype = "nvfp4";
        if (i == 5)
            options.batch = 100;
        if (i == 6)
            options.dtype = "q16";
        if (i == 7)
            options.plan = "tp=8,pp=4,dp=2";
        assert_status(cm_project_answer(&options, &document), CM_USAGE, bad[i].message);
        assert_null(strchr(cm_error_text(), '\n'));
    }
    assert_null(document);
}

/* The fixture's H200: 655 TFLOP/s after half a minute, all-reduces at 325 GB/s; and a step put
 * beside. */
static void results_calibrate(void **state)
{
    (void)state;
    const char *const fixture = CM_TEST_FIXTURES "/results/gpus.json";
    struct cm_gpu_catalogue catalogue;
    struct cm_measured measured;
    struct cm_calibration shipped, moved;
    json_t *result = NULL;
    char *text = NULL;
    assert_ok(cm_gpu_catalogue_load(&catalogue));
    assert_ok(cm_result_load(fixture, &result));
    json_t *cases = json_object_get(result, "cases");
    json_t *step = json_deep_copy(json_array_get(cases, 0));
    json_object_set_new(step, "name", json_string("step"));
    json_object_set_new(step, "workload", json_string("trainstep"));
    json_object_set_new(step, "params",
                        json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:s}", "model", "llama3-8b", "plan",
                                  "dp=3,zero=1", "dtype", "bf16", "layers", 8, "micro_batches", 4,
                                  "micro_batch", 1, "recompute", "selective"));
    json_object_set_new(step, "metrics",
                        json_pack("{s:{s:f,s:s,s:s,s:i,s:f,s:f}}", "step_time", "value", 0.7,
                                  "unit", "s", "better", "lower", "runs", 1, "minimum", 0.7,
                                  "maximum", 0.7));
    assert_int_equal(json_array_append_new(cases, step), 0);
    assert_ok(cm_json_dump(result, 1, &text));
    write_table(text);
    const char *paths[] = {path};
    assert_ok(cm_measured_load(paths, 1, &catalogue, "llama3-8b", &measured));
    assert_string_equal(measured.spec->name, "H200");
    assert_near(measured.products[CM_PRECISION_HALF], 655e12, 1e-12);
    assert_near(measured.all_reduce, 325e9, 1e-12);
    assert_int_equal(measured.step_count, 1);
    assert_near(measured.steps[0].layers, 8, 0);
    assert_near(measured.steps_s[0], 0.7, 1e-12);
    assert_ok(cm_calibration_load(NULL, &shipped));
    moved = shipped;
    cm_measured_apply(&measured, &moved);
    /* Between what was believed and what was seen, and surer. */
    double seen = 655.0 / 989.4, before = shipped.value[CM_COST_gemm_hopper];
    double now = moved.value[CM_COST_gemm_hopper];
    assert_true((now - seen) * (now - before) < 0);
    assert_true(moved.spread[CM_COST_gemm_hopper] < shipped.spread[CM_COST_gemm_hopper]);
    assert_true(moved.value[CM_COST_memory_share] == shipped.value[CM_COST_memory_share]);
    cm_measured_release(&measured);

    struct cm_project_options options = {.model = "llama3-8b",
                                         .cluster = "H200",
                                         .plan = "dp=48",
                                         .dtype = "bf16",
                                         .recompute = "selective",
                                         .results = paths,
                                         .result_count = 1,
                                         .gpus = 48,
                                         .batch = 192,
                                         .micro_batch = 1};
    json_t *document = NULL;
    assert_ok(cm_project_answer(&options, &document));
    double value = real(json_object_get(document, "step_time_s"), "value");
    /* 32 layers after 8, of which the head is as much as two and a half. */
    assert_true(value > 0.7 * 2.5 && value < 0.7 * 4);
    json_decref(document);
    options.cluster = "H100";
    options.recompute = "full";
    assert_status(cm_project_answer(&options, &document), CM_USAGE, "the results are of a H200");
    const char *cpu[] = {CM_TEST_FIXTURES "/results/mixed.json"};
    assert_status(cm_measured_load(cpu, 1, &catalogue, "llama3-8b", &measured), CM_USAGE,
                  "is not in configs/gpus.ini");
    json_decref(result);
    cm_free(text);
    cm_gpu_catalogue_release(&catalogue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_read_strictly),
        cmocka_unit_test(bad_tables_are_refused),
        cmocka_unit_test(measurements_that_are_none_are_told),
        cmocka_unit_test(rows_that_cannot_be_predicted_have_a_reason),
        cmocka_unit_test(measured_columns_are_not_read),
        cmocka_unit_test(anchors_are_followed),
        cmocka_unit_test(published_runs_are_predicted),
        cmocka_unit_test(left_out_sources_are_predicted),
        cmocka_unit_test(anchored_series_are_predicted),
        cmocka_unit_test(one_half_predicts_the_other),
        cmocka_unit_test(the_calibration_is_the_fits),
        cmocka_unit_test(plans_are_answered),
        cmocka_unit_test(rules_go_by_small_runs),
        cmocka_unit_test(hosts_differ_as_set),
        cmocka_unit_test(a_search_finds_the_quickest),
        cmocka_unit_test(sweeps_are_curves),
        cmocka_unit_test(releases_are_read_from_sources),
        cmocka_unit_test(bad_plans_are_refused),
        cmocka_unit_test(results_calibrate),
    };
    cm_json_init();
    return cmocka_run_group_tests(tests, NULL, remove_table);
}
