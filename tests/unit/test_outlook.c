/* Clusters under failures: what ships with the program, what is refused, and that the answer's
 * figures belong together. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/file.h"
#include "clustermark/json.h"
#include "clustermark/project.h"
#include "host/project/cluster.h"
#include "test.h"

static struct cm_gpu_catalogue catalogue;
static char path[64];

static int open_catalogue(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/clustermark-cluster-%ld.ini", (long)getpid());
    return cm_gpu_catalogue_load(&catalogue) == CM_OK ? 0 : -1;
}

static int close_catalogue(void **state)
{
    (void)state;
    remove(path);
    cm_gpu_catalogue_release(&catalogue);
    return 0;
}

static struct cm_project_options asked(const char *cluster)
{
    return (struct cm_project_options){
        .cluster = cluster, .dtype = "bf16", .recompute = "selective", .micro_batch = 1};
}

static json_t *answered(const struct cm_project_options *options)
{
    json_t *document = NULL;
    assert_ok(cm_project_answer(options, &document));
    return document;
}

static double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static double value(const json_t *object, const char *key)
{
    return real(json_object_get(object, key), "value");
}

/* The scenario of that many GPUs a job in the size at `index`. */
static const json_t *scenario_of(const json_t *document, size_t index, double gpus,
                                 const char *recovery)
{
    const json_t *size = json_array_get(json_object_get(document, "sizes"), index), *scenario;
    size_t at;
    json_array_foreach(json_object_get(size, "scenarios"), at, scenario)
    {
        const char *how = json_string_value(json_object_get(scenario, "recovery"));
        if (real(scenario, "gpus") == gpus && strcmp(how, recovery) == 0)
            return scenario;
    }
    fail_msg("no %s job of %g GPUs", recovery, gpus);
    return NULL;
}

/* Each file of configs/clusters loads, and says where what it changes is from. */
static void shipped_clusters_load(void **state)
{
    (void)state;
    static const char *const names[] = {"hgx-h100",    "hgx-h200",    "hgx-b200",
                                        "gb200-nvl72", "gb300-nvl72", "openai-aws"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cm_cluster cluster;
        struct cm_assumption usual[CM_ASSUME_COUNT];
        cm_assumptions_usual(usual);
        assert_ok(cm_cluster_load(names[i], NULL, 0, &catalogue, &cluster));
        assert_string_equal(cluster.name, names[i]);
        assert_int_equal(cluster.domain, strstr(names[i], "hgx") != NULL ? 8 : 72);
        assert_true(cluster.network_rate > 0 && cluster.source[0] != '\0');
        for (int k = 0; k < CM_ASSUME_COUNT; k++) {
            assert_null(strstr(cluster.assumptions[k].source, ".ini:"));
            assert_true(cluster.assumptions[k].source[0] != '\0');
        }
    }
}

static void assumptions_are_drawn(void **state)
{
    (void)state;
    struct cm_assumption one = {.value = 600, .low = 300, .high = 900};
    assert_near(cm_assumption_at(&one, 0), 600, 1e-12);
    assert_near(cm_assumption_at(&one, -1.2815515655446004), 300, 1e-12);
    assert_near(cm_assumption_at(&one, 1.2815515655446004), 900, 1e-12);
    one.low = one.high = one.value;
    assert_near(cm_assumption_at(&one, 2), 600, 1e-12);
    one.value = 0;
    assert_true(cm_assumption_at(&one, 2) == 0);
}

static void bad_clusters_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *line, *message;
    } bad[] = {{"colour = red", ":4: a cluster has no 'colour'"},
               {"price = -3", ":4: price '-3' (USD per GPU-hour) is no number of 0 or more"},
               {"pue = 0.9", ":4: pue '0.9'"},
               {"mtbf_gpu_days = 0", ":4: mtbf_gpu_days '0'"},
               {"mtbf_gpu_days = nan", ":4: mtbf_gpu_days 'nan'"},
               {"restart_s = 1e999", ":4: restart_s '1e999'"},
               {"mtbf_gpu_day = 5", "no 'mtbf_gpu_day'"},
               {"pue_lower = 1.1", "no 'pue_lower'"},
               {"pue_low = 1.2", "pue 1.15 is not within its range 1.2 .. 1.25"},
               {"deal_usd = -1", ":4: deal_usd"},
               {"deal_usd = 1e9", "go together"},
               {"delay_months = 1", "delay_months are of a deal's time"},
               {"sizes = 8", "sizes need job_gpus"},
               {"sizes = 8;9", "sizes has '8;9'"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct cm_cluster cluster;
        char text[160];
        snprintf(text, sizeof text, "[cluster]\ngpu = H100\n\n%s\n", bad[i].line);
        assert_ok(cm_file_replace(path, text, strlen(text)));
        assert_status(cm_cluster_load(path, NULL, 0, &catalogue, &cluster), CM_USAGE,
                      bad[i].message);
        assert_null(strchr(cm_error_text(), '\n'));
        /* The same from the command line. */
        snprintf(text, sizeof text, "[cluster]\ngpu = H100\n");
        assert_ok(cm_file_replace(path, text, strlen(text)));
        char set[80];
        const char *sets[] = {set}, *equal = strchr(bad[i].line, '=');
        snprintf(set, sizeof set, "%.*s=%s", (int)(equal - bad[i].line - 1), bad[i].line,
                 equal + 2);
        assert_status(cm_cluster_load(path, sets, 1, &catalogue, &cluster), CM_USAGE, "");
    }
    struct cm_cluster cluster;
    const char *sets[] = {"pue", "=1", "gpu=H200"};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        assert_status(cm_cluster_load("H100", &sets[i], 1, &catalogue, &cluster), CM_USAGE,
                      "--set: ");
    struct cm_project_options options = asked("H100");
    json_t *document = NULL;
    assert_status(cm_project_answer(&options, &document), CM_USAGE, "give --model");
    options.model = "llama3-8b";
    assert_status(cm_project_answer(&options, &document), CM_USAGE, "give --gpus");
    options = asked("openai-aws");
    options.gpus = 500001;
    assert_status(cm_project_answer(&options, &document), CM_USAGE, "openai-aws has 500000");
    assert_null(document);
}

static void check_scenario(const json_t *scenario, double gpus, double watts)
{
    static const char *const figures[] = {
        "goodput", "still_hours_per_day", "tokens_per_day", "run_days", "energy", "cost"};
    const json_t *shares = json_object_get(scenario, "shares");
    double jobs = real(scenario, "jobs"), each = real(scenario, "gpus");
    double effective = real(shares, "effective"), goodput = value(scenario, "goodput");
    double step_s = value(scenario, "step_time_s"), batch = real(scenario, "batch_tokens");
    double tokens = value(scenario, "tokens_per_day"), price = value(scenario, "price");
    assert_true(jobs * each <= gpus && (jobs + 1) * each > gpus);
    assert_near(real(shares, "effective_simulated") + 1, effective + 1, 0.01);
    /* What is out for repair takes some of it where no GPU is spare. */
    assert_true(goodput <= effective && goodput >= effective * 0.98);
    assert_near(tokens + 1, jobs * batch / step_s * goodput * 86400 + 1, 1e-6);
    if (goodput > 0) {
        assert_near(value(scenario, "run_days"), 15.6e12 * jobs / tokens, 1e-6);
        assert_near(value(scenario, "energy"), watts * 86400 / tokens, 1e-6);
        assert_near(value(scenario, "cost"), price * gpus * 24 / tokens * 1e6, 1e-6);
    }
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        const json_t *figure = json_object_get(scenario, figures[i]);
        const json_t *p90 = json_object_get(figure, "p90");
        assert_non_null(figure);
        if (json_is_null(p90) || goodput == 0)
            continue;
        assert_true(real(figure, "p10") <= real(figure, "value"));
        assert_true(real(figure, "value") <= json_number_value(p90));
    }
}

static void the_news_is_answered(void **state)
{
    (void)state;
    static const double sizes[] = {200e3, 300e3, 500e3}, prices[] = {3.10, 2.07, 1.24};
    struct cm_project_options options = asked("openai-aws");
    json_t *document = answered(&options);
    assert_int_equal(json_array_size(json_object_get(document, "sizes")), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *size = json_array_get(json_object_get(document, "sizes"), i), *scenario;
        size_t at;
        assert_near(real(size, "gpus"), sizes[i], 0);
        assert_near(value(size, "price"), prices[i], 0.005);
        /* Rated racks of 132 kW at this PUE are the most that it can be (422 MW of 200,000). */
        assert_true(value(size, "power") < 132e3 / 72 * 1.15 * sizes[i]);
        assert_true(value(size, "power") > 1200 * 1.15 * sizes[i]);
        assert_true(json_array_size(json_object_get(size, "scenarios")) == 5);
        json_array_foreach(json_object_get(size, "scenarios"), at, scenario)
            check_scenario(scenario, sizes[i], value(size, "power"));
    }
    /* 200,000 GPUs at 1732 GPU-days: 748 s, of which 600 are lost to each failure. */
    const json_t *one = scenario_of(document, 0, 200e3, "synchronous");
    assert_near(real(one, "between_failures_s"), 1732 * 86400 / 200e3, 1e-9);
    assert_near(real(json_object_get(one, "shares"), "stalled"), 600 / 748.224, 1e-6);
    /* No GPU is spare, so a rack out for six hours after each failure is missing. */
    assert_near(value(one, "goodput") / real(json_object_get(one, "shares"), "effective"),
                1 - 72 * 0.25 / 1732, 1e-6);
    const json_t *tokens =
        json_object_get(scenario_of(document, 0, 8192, "synchronous"), "tokens_per_day");
    const json_t *step = json_object_get(document, "step_time_s");
    /* An interval holds that of the step, and more. */
    assert_true(real(tokens, "p90") / real(tokens, "p10") >
                0.97 * real(step, "p90") / real(step, "p10"));
    double parts = value(scenario_of(document, 0, 16384, "synchronous"), "tokens_per_day");
    double replicas = value(scenario_of(document, 0, 200e3, "replica"), "tokens_per_day");
    assert_true(value(one, "tokens_per_day") < 0.5 * replicas && replicas < parts);
    assert_near(value(document, "cost"),
                value(scenario_of(document, 0, 16384, "synchronous"), "cost"), 1e-12);
    assert_true(json_is_object(json_object_get(json_object_get(document, "assumed"), "deal")));
    struct cm_str text = CM_STR_INIT;
    struct cm_report_style style = {.width = 80};
    assert_ok(cm_project_answer_text(document, &style, &text));
    assert_non_null(strstr(cm_str_text(&text), "12 x 16384"));
    assert_non_null(strstr(cm_str_text(&text), "never"));
    assert_non_null(strstr(cm_str_text(&text), "announcement of 3 November 2025"));
    cm_str_release(&text);
    json_decref(document);
}

/* What is set moves what it should, and nothing else. */
static void settings_take_effect(void **state)
{
    (void)state;
    const char *const delayed[] = {"delay_months=12"}, *const priced[] = {"price=5", "pue=1.0"};
    struct cm_project_options options = asked("openai-aws");
    options.gpus = 250000;
    json_t *before = answered(&options), *after;
    options.sets = delayed;
    options.set_count = 1;
    after = answered(&options);
    assert_near(value(after, "cost"), value(before, "cost") * 84 / 72, 1e-6);
    assert_near(value(after, "goodput"), value(before, "goodput"), 1e-12);
    json_decref(after);
    options.sets = priced;
    options.set_count = 2;
    after = answered(&options);
    const json_t *size = json_array_get(json_object_get(after, "sizes"), 0);
    assert_int_equal(json_array_size(json_object_get(after, "sizes")), 1);
    assert_near(real(size, "gpus"), 250000, 0);
    assert_near(value(size, "price"), 5, 1e-12);
    assert_near(real(json_object_get(size, "price"), "p90"), 5, 1e-12);
    assert_near(value(after, "energy"), value(before, "energy") / 1.15, 1e-6);
    json_decref(before);
    json_decref(after);
    /* One job of the plan and idle GPUs beside it. */
    options.gpus = 20000;
    after = answered(&options);
    assert_near(real(scenario_of(after, 0, 16384, "synchronous"), "jobs"), 1, 0);
    assert_true(value(after, "goodput") > 0.8);
    json_decref(after);
}

/* A plan of a rented cluster, without a price, and a GPU whose power was measured. */
static void plans_have_goodput(void **state)
{
    (void)state;
    const char *const results[] = {CM_TEST_FIXTURES "/results/gpus.json"};
    struct cm_project_options options = asked("H200");
    options.model = "llama3-70b";
    options.plan = "tp=4,pp=2";
    options.gpus = 1024;
    json_t *document = answered(&options);
    assert_true(value(document, "goodput") > 0.97 && value(document, "goodput") < 1);
    assert_null(json_object_get(document, "cost"));
    double energy = value(document, "energy");
    const json_t *assumed = json_object_get(document, "assumed");
    assert_near(value(assumed, "gpu_power"), 700, 1e-12);
    assert_near(energy,
                700 * 1.234 * 1.136 * 1.15 * 1024 /
                    (value(document, "tokens_per_s") * value(document, "goodput")),
                1e-6);
    json_decref(document);
    options.results = results;
    options.result_count = 1;
    document = answered(&options);
    assumed = json_object_get(document, "assumed");
    assert_near(value(assumed, "gpu_power"), 698.2, 1e-9);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(assumed, "gpu_power"), "source")),
        "measured in products");
    json_decref(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shipped_clusters_load),    cmocka_unit_test(assumptions_are_drawn),
        cmocka_unit_test(bad_clusters_are_refused), cmocka_unit_test(the_news_is_answered),
        cmocka_unit_test(settings_take_effect),     cmocka_unit_test(plans_have_goodput)};
    return cmocka_run_group_tests(tests, open_catalogue, close_catalogue);
}
