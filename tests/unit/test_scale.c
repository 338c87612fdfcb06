/*
 * Very many ranks: what rank 0 keeps of a case among 1,024 of them, and the result of a suite of
 * 16,384, made by the real recorder, read again, reported, compared and gated.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/compare.h"
#include "clustermark/json.h"
#include "clustermark/publish.h"
#include "clustermark/result.h"
#include "crowd.h"
#include "host/result/fold.h"
#include "host/result/record.h"

enum { RANKS = 16384, MEBIBYTE = 1 << 20 };

static const char suite_text[] =
    "[global]\nruns = 2\n[gemm]\nm = 1024\nn = 1024\nk = 1024\ndtype = bf16\n"
    "[gemm_soak]\nworkload = gemm\nm = 64\nn = 64\nk = 64\nsoak = 1s\n"
    "[membw]\nop = copy,triad\n[all_reduce]\nworkload = collective\nsize = 1KiB,1MiB,64MiB\n"
    "[sendrecv]\n[launch]\n";

static char folder[64];

struct made {
    char path[2][96];
    struct cm_suite suite;
    struct cm_plan plan;
};

static void write_result(const struct made *made, const char *path, uint64_t first)
{
    struct cm_result_options options = {
        .path = path, .device = cm_device_find("cpu"), .ranks = RANKS, .fresh_processes = true};
    struct cm_result *result;
    assert_ok(cm_result_create(&made->plan, &options, &result));
    for (uint64_t number = 0; number < made->plan.runs; number++) {
        for (size_t i = 0; i < made->plan.count; i++) {
            struct cm_case_run run;
            assert_ok(crowd_run(&made->plan, i, first + number, RANKS, &run));
            run.run = number;
            assert_ok(cm_result_add(result, &made->plan, &run));
            cm_case_run_release(&run);
        }
    }
    assert_ok(cm_result_finish(result, "complete"));
    cm_result_free(result);
}

static int set_up(void **state)
{
    static struct made made;
    snprintf(folder, sizeof folder, "/tmp/cm-scale-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_ok(cm_suite_parse(suite_text, "scale.ini", &made.suite));
    assert_ok(cm_plan_build(&made.suite, NULL, 0, &made.plan));
    for (int i = 0; i < 2; i++) {
        snprintf(made.path[i], sizeof made.path[i], "%s/%c.json", folder, 'a' + i);
        write_result(&made, made.path[i], (uint64_t)i * 2);
    }
    *state = &made;
    return 0;
}

static int tear_down(void **state)
{
    struct made *made = *state;
    cm_plan_release(&made->plan);
    cm_suite_release(&made->suite);
    for (int i = 0; i < 2; i++)
        unlink(made->path[i]);
    return rmdir(folder);
}

static json_t *load(const char *path)
{
    json_t *value = NULL;
    assert_ok(cm_result_load(path, &value));
    return value;
}

static const json_t *case_named(const json_t *result, const char *name)
{
    size_t index;
    const json_t *item;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        if (strcmp(cm_get_text(item, "name"), name) == 0)
            return item;
    }
    fail_msg("no case %s", name);
    return NULL;
}

/* A list of thousands anywhere would be ranks one by one. */
static size_t longest_list(const json_t *value)
{
    size_t most = json_is_array(value) ? json_array_size(value) : json_object_size(value), index;
    const char *key;
    json_t *inner;
    json_object_foreach((json_t *)value, key, inner)
    {
        size_t own = json_is_array(inner) || json_is_object(inner) ? longest_list(inner) : 0;
        most = own > most ? own : most;
    }
    json_array_foreach(value, index, inner)
    {
        size_t own = json_is_array(inner) || json_is_object(inner) ? longest_list(inner) : 0;
        most = own > most ? own : most;
    }
    return most;
}

static void test_small(void **state)
{
    const struct made *made = *state;
    struct stat info;
    assert_int_equal(stat(made->path[0], &info), 0);
    if (info.st_size > MEBIBYTE)
        fail_msg("the file has %lld bytes", (long long)info.st_size);
    json_t *result = load(made->path[0]);
    if (longest_list(result) > CROWD_SAMPLES)
        fail_msg("a list has %zu entries", longest_list(result));
    json_decref(result);
}

static void test_says_so(void **state)
{
    const struct made *made = *state;
    json_t *result = load(made->path[0]);
    const json_t *told = json_object_get(result, "folded");
    assert_near(cm_get_number(told, "above"), CM_FOLD_ABOVE, 0);
    assert_near(cm_get_number(told, "outliers_most"), CM_FOLD_OUTLIERS, 0);
    assert_non_null(strstr(cm_get_text(told, "outliers"), "5 robust standard deviations"));
    const json_t *run =
        json_array_get(json_object_get(case_named(result, "membw:op=copy"), "runs"), 1);
    const json_t *folded = json_object_get(run, "folded");
    assert_near(cm_get_number(folded, "ranks"), RANKS, 0);
    assert_near(cm_get_number(json_object_get(folded, "rank_median_s"), "ranks"), RANKS, 0);
    assert_null(json_object_get(run, "rank_median_s"));
    assert_null(json_object_get(run, "telemetry"));
    const json_t *device = json_array_get(json_object_get(result, "devices"), 0);
    assert_near(cm_get_number(device, "count"), RANKS, 0);
    assert_string_equal(cm_get_text(device, "ranks"), "0-16383");
    assert_near(cm_get_number(device, "memory"), 141e9, 0);
    json_decref(result);
}

/* The slow ranks of the crowd, and no others, by name and place. */
static void test_outliers(void **state)
{
    const struct made *made = *state;
    json_t *result = load(made->path[0]);
    const json_t *item = case_named(result, "gemm");
    const json_t *spread = json_object_get(json_object_get(item, "spread_ranks"), "flop_rate");
    const json_t *outliers = json_object_get(spread, "outliers"), *outlier;
    unsigned slow = 0;
    size_t index;
    for (unsigned rank = 0; rank < RANKS; rank++)
        slow += crowd_is_slow(rank) ? 1 : 0;
    assert_near(cm_get_number(spread, "outliers_total"), slow, 0);
    assert_int_equal(json_array_size(outliers), slow);
    json_array_foreach(outliers, index, outlier)
    {
        assert_true(crowd_is_slow((unsigned)cm_get_number(outlier, "rank")));
        assert_true(cm_get_text(outlier, "bus_id")[0] != '\0');
    }
    assert_true(crowd_is_slow((unsigned)cm_get_number(json_object_get(spread, "worst"), "rank")));
    const json_t *telemetry = json_object_get(item, "telemetry");
    assert_near(cm_get_number(telemetry, "throttled_fraction"), 0.5, 0);
    assert_string_equal(cm_get_text(telemetry, "throttle_reasons"), "hw_thermal_slowdown");
    assert_near(cm_get_number(telemetry, "clock"), 1.98e9, 1e-9);
    json_decref(result);
}

static void test_report(void **state)
{
    const struct made *made = *state;
    struct cm_report_style style = {.width = 100};
    char *text = NULL;
    size_t size = 0, lines = 0;
    json_t *result = load(made->path[0]);
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_ok(cm_report_text(result, &style, out));
    fclose(out);
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    if (lines > 80 || strstr(text, "16384 ranks") == NULL ||
        strstr(text, "half of 16384 ranks within") == NULL ||
        strstr(text, "8 stand out: rank ") == NULL)
        fail_msg("%zu lines:\n%s", lines, text);
    free(text);
    json_decref(result);
}

static void test_compare_and_gate(void **state)
{
    const struct made *made = *state;
    const char *const base[] = {made->path[0]}, *const fresh[] = {made->path[1]};
    const char *const both[] = {made->path[0], made->path[1]};
    struct cm_report_style style = {.width = 100};
    struct cm_str text = CM_STR_INIT;
    json_t *document = NULL;
    struct cm_compare_request compare = {.paths = {both, 2}, .margin = 0.02};
    assert_ok(cm_compare(&compare, &document));
    size_t rows = json_array_size(json_object_get(document, "metrics"));
    if (rows < made->plan.count - 1 || rows > 100)
        fail_msg("%zu metrics are compared", rows);
    assert_ok(cm_compare_text(document, &style, true, &text));
    json_decref(document);
    struct cm_gate_request gate = {.baseline = {base, 1}, .fresh = {fresh, 1}};
    assert_ok(cm_gate(&gate, &document));
    /* Comparable; one rank in two thousand was throttled half of the time. */
    assert_string_equal(cm_get_text(document, "outcome"), "throttled");
    assert_ok(cm_gate_text(document, &style, true, &text));
    json_decref(document);
    cm_str_release(&text);
}

/* A page of it has no drawing with thousands of cells, and tells of the slow ranks. */
static void test_page(void **state)
{
    const struct made *made = *state;
    const char *const paths[] = {made->path[0]};
    struct cm_str page = CM_STR_INIT;
    assert_ok(cm_page_write(paths, 1, 0.02, &page));
    if (page.length > MEBIBYTE)
        fail_msg("the page has %zu bytes", page.length);
    const char *text = cm_str_text(&page);
    assert_non_null(strstr(text, "16384 ranks"));
    assert_non_null(strstr(text, "All ranks against their median"));
    cm_str_release(&page);
}

/* What rank 0 gathers of a case does not grow with iterations times ranks. */
static void test_gathered(void **state)
{
    (void)state;
    enum { CROWD = 1024, ITERATIONS = 20000 };
    char text[256];
    struct cm_suite suite;
    struct cm_plan plan;
    snprintf(text, sizeof text,
             "[global]\nwarmup_time = 0s\nmin_time = 0s\nmin_iterations = %d\nmax_iterations = %d\n"
             "max_time = 1000s\n[launch]\noperations = 1\n",
             ITERATIONS, ITERATIONS);
    assert_ok(cm_suite_parse(text, "crowd.ini", &suite));
    assert_ok(cm_plan_build(&suite, NULL, 0, &plan));
    const struct cm_device_ops *ops = cm_device_find("cpu");
    struct cm_device_config config = {.threads = 1, .far_node = -1};
    struct cm_device *device = NULL;
    struct cm_comm *comm = NULL;
    assert_ok(ops->open(&config, &device));
    assert_ok(crowd_open(device, CROWD, &comm));
    struct cm_bench bench = {.device = device, .comm = comm, .time_limit_s = INFINITY};
    struct cm_case_run run = {0};
    assert_ok(cm_measure_case(&bench, &plan.cases[0], 0, &run));
    assert_string_equal(run.reason, "");
    assert_int_equal(run.rank_count, CROWD);
    for (unsigned part = 0; part < run.part_count; part++) {
        const struct cm_part_samples *samples = &run.parts[part];
        assert_int_equal(samples->slowest.count, ITERATIONS);
        assert_null(samples->ranks);
        assert_near(samples->rank_median_s[CROWD - 1],
                    cm_median(samples->slowest.values, ITERATIONS), 1e-12);
    }
    /* All times of all ranks were 328 MB. */
    assert_true(((const struct crowd *)comm)->received_bytes < 16 * MEBIBYTE);
    cm_case_run_release(&run);
    comm->ops->close(comm);
    device->ops->close(device);
    cm_plan_release(&plan);
    cm_suite_release(&suite);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_says_so),
        cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_compare_and_gate),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_gathered),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
