/* The plan: suites interpreted by the option tables of the real workloads, sweeps, errors. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "clustermark/measure.h"
#include "clustermark/strbuf.h"

static struct cm_suite suite;
static struct cm_plan plan;

static int open_none(void **state)
{
    (void)state;
    suite = (struct cm_suite){.name = NULL};
    plan = (struct cm_plan){.cases = NULL};
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    cm_plan_release(&plan);
    cm_suite_release(&suite);
    return 0;
}

static void parse(const char *text)
{
    assert_ok(cm_suite_parse(text, "t.ini", &suite));
}

static void build(const char *text)
{
    parse(text);
    assert_ok(cm_plan_build(&suite, NULL, 0, &plan));
}

/* The suite is refused with this message, and nothing is left. */
static void refuse(const char *text, const char *part)
{
    parse(text);
    assert_status(cm_plan_build(&suite, NULL, 0, &plan), CM_USAGE, part);
    assert_null(plan.cases);
    cm_suite_release(&suite);
    suite = (struct cm_suite){.name = NULL};
}

static const char *name(size_t index)
{
    assert_true(index < plan.count);
    return plan.cases[index].name;
}

/* A parameter in the suite's spelling, until the next call. */
static const char *value(size_t index, const char *key)
{
    static char text[64];
    struct cm_str out = CM_STR_INIT;
    const struct cm_option *option = cm_option_find(plan.cases[index].workload->options, key);
    assert_non_null(option);
    cm_option_write(option, plan.cases[index].params, &out);
    snprintf(text, sizeof text, "%s", cm_str_text(&out));
    cm_str_release(&out);
    return text;
}

static void test_one_case(void **state)
{
    (void)state;
    build("[gemm]\nm = 64\n");
    assert_int_equal(plan.count, 1);
    assert_string_equal(name(0), "gemm");
    assert_string_equal(plan.cases[0].section, "gemm");
    assert_string_equal(plan.cases[0].where, "t.ini:1");
    assert_ptr_equal(plan.cases[0].workload, cm_workload_find("gemm"));
    assert_string_equal(value(0, "m"), "64");
    assert_string_equal(value(0, "n"), "0");
    assert_string_equal(plan.suite_name, "t");
    assert_non_null(strstr(plan.suite_text, "[gemm]"));
    assert_int_equal(plan.runs, 6);
    assert_int_equal(plan.seed, 1);
}

static void test_global_and_own(void **state)
{
    (void)state;
    build("[global]\nruns = 3\nseed = 42\ndtype = bf16\nwarmup-time = 5ms\n"
          "[big]\nworkload = gemm\ndtype = f32\nruns = 4\n[gemm]\n[launch]\n");
    assert_int_equal(plan.count, 3);
    assert_string_equal(value(0, "dtype"), "f32");
    assert_string_equal(name(0), "big");
    assert_string_equal(value(1, "dtype"), "bf16");
    assert_int_equal(plan.cases[0].settings.runs, 4);
    assert_int_equal(plan.cases[1].settings.runs, 3);
    assert_near(plan.cases[2].settings.warmup_time_s, 0.005, 1e-12);
    assert_int_equal(plan.runs, 4);
    assert_int_equal(plan.seed, 42);
    cm_plan_release(&plan);
    assert_ok(cm_plan_build(&suite, NULL, 9, &plan));
    assert_int_equal(plan.cases[0].settings.runs, 9);
    assert_int_equal(plan.runs, 9);
}

static void test_sweep(void **state)
{
    (void)state;
    build("[c]\nworkload = collective\nsize = 64KiB, 1 MiB\ndtype = f32,bf16\nop=all_gather\n");
    assert_int_equal(plan.count, 4);
    assert_string_equal(name(0), "c:size=64KiB,dtype=f32");
    assert_string_equal(name(1), "c:size=64KiB,dtype=bf16");
    assert_string_equal(name(2), "c:size=1MiB,dtype=f32");
    assert_string_equal(name(3), "c:size=1MiB,dtype=bf16");
    assert_string_equal(value(3, "size"), "1MiB");
    assert_string_equal(value(3, "op"), "all_gather");
}

/* A swept key of [global] reaches the sections that know it, and one that sets it is left alone. */
static void test_global_sweep(void **state)
{
    (void)state;
    build("[global]\nsize = 1MiB,2MiB\n[collective]\n[membw]\nsize = 4MiB\n[launch]\n");
    assert_int_equal(plan.count, 4);
    assert_string_equal(name(0), "collective:size=1MiB");
    assert_string_equal(name(1), "collective:size=2MiB");
    assert_string_equal(name(2), "membw");
    assert_string_equal(value(2, "size"), "4MiB");
    assert_string_equal(name(3), "launch");
}

static void test_range(void **state)
{
    (void)state;
    build("[collective]\nsize = 8..64, 1MiB..17MiB*4\n[gemm]\nm = 3..13\n");
    const char *sizes[] = {"8B", "16B", "32B", "64B", "1MiB", "4MiB", "16MiB"};
    assert_int_equal(plan.count, 10);
    for (size_t i = 0; i < 7; i++)
        assert_string_equal(value(i, "size"), sizes[i]);
    assert_string_equal(value(7, "m"), "3");
    assert_string_equal(value(9, "m"), "12");
}

/* A range up to the largest number ends without overflow. */
static void test_range_to_the_end(void **state)
{
    (void)state;
    parse("[membw]\nsize = 1..9223372036854775807\n");
    assert_status(cm_plan_build(&suite, NULL, 0, &plan), CM_USAGE, "t.ini:");
}

static void test_refused(void **state)
{
    (void)state;
    refuse("[gem]\n", "t.ini:1: no workload \"gem\"; did you mean gemm?");
    refuse("[x]\nworkload = membww\n", "t.ini:2: no workload \"membww\"; did you mean membw?");
    refuse("[gemm]\ndtpe = f32\n", "t.ini:2: unknown key \"dtpe\" for gemm; did you mean dtype?");
    refuse("[gemm]\nmin_tim = 1s\n", "did you mean min_time?");
    refuse("[global]\nnosuch = 1\n[gemm]\n", "t.ini:2: unknown key \"nosuch\"");
    refuse("[global]\nop = triad\n[gemm]\n", "t.ini:2: unknown key \"op\"");
    refuse("[global]\nworkload = gemm\n[gemm]\n", "t.ini:2: workload belongs");
    refuse("[gemm]\nbatch = 0\n", "t.ini:2");
    refuse("[gemm]\nm = 64,x\n", "t.ini:2");
    refuse("[gemm]\nm = 64,,32\n", "t.ini:2: m: an empty value");
    refuse("[gemm]\nm = 64,64\n", "t.ini:2: m: the value 64 is in the list twice");
    refuse("[collective]\nsize = 64KiB,65536\n", "size: the value 64KiB is in the list twice");
    refuse("[gemm]\nruns = 1,2\n", "t.ini:2: runs says how to measure");
    refuse("[gemm]\nruns = 0\n", "t.ini:2");
    refuse("[gemm]\nm = 8..4\n", "t.ini:2: m: a range goes up");
    refuse("[gemm]\nm = 1..8*1\n", "t.ini:2: m: a range goes up");
    refuse("[gemm]\nm = 1..8*x\n", "t.ini:2: m: factor");
    refuse("[gemm]\nmin_time = 2s\nmax_time = 1s\n", "t.ini:1: [gemm]: min_time 2s");
    refuse("[gemm]\nmin_iterations = 20\nmax_iterations = 10\n", "min_iterations 20");
}

/* A default gives way to the limit that is set. */
static void test_limits(void **state)
{
    (void)state;
    build("[a]\nworkload=launch\nmax_time = 10ms\nmax_iterations = 3\n"
          "[b]\nworkload=launch\nmin_time = 1min\nmin_iterations = 10000\n");
    assert_near(plan.cases[0].settings.min_time_s, 0.01, 1e-12);
    assert_int_equal(plan.cases[0].settings.min_iterations, 3);
    assert_near(plan.cases[1].settings.max_time_s, 60, 1e-12);
    assert_int_equal(plan.cases[1].settings.max_iterations, 10000);
}

/* a * b * c points with a cap of 100,000, in one section and over several. */
static void test_too_many(void **state)
{
    (void)state;
    char text[8192] = "[gemm]\n";
    for (const char *key = "mnk"; *key != '\0'; key++) {
        size_t length = strlen(text);
        length += (size_t)snprintf(text + length, sizeof text - length, "%c = 1", *key);
        for (int i = 2; i <= 50; i++)
            length += (size_t)snprintf(text + length, sizeof text - length, ",%d", i);
        snprintf(text + length, sizeof text - length, "\n");
    }
    refuse(text, "t.ini:4: with k the sweep of [gemm] has over 100000 points");
    for (const char *cut = NULL; (cut = strstr(text, "k = 1,")) != NULL;)
        text[cut - text] = '\0';
    char three[sizeof text * 2];
    snprintf(three, sizeof three, "%s%s%s", text, "k = 1..2e6\n[b]\nworkload = gemm\n",
             strchr(text, '\n') + 1);
    size_t length = strlen(three);
    snprintf(three + length, sizeof three - length, "k = 1..2e6*2\n");
    refuse(three, "the suite has over 100000 cases");
}

static void test_only(void **state)
{
    (void)state;
    const struct {
        const char *only;
        size_t count;
        const char *first;
    } rows[] = {
        {"gemm", 2, "gemm:m=8"},   {"gemm:m=16", 1, "gemm:m=16"},
        {"*m=16", 1, "gemm:m=16"}, {"l*", 1, "launch"},
        {"*", 4, "membw"},         {"[gl]*", 3, "gemm:m=8"},
    };
    parse("[membw]\nsize = 1MiB\n[gemm]\nm = 8,16\n[launch]\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_ok(cm_plan_build(&suite, rows[i].only, 0, &plan));
        assert_int_equal(plan.count, rows[i].count);
        assert_string_equal(name(0), rows[i].first);
        cm_plan_release(&plan);
    }
    assert_status(cm_plan_build(&suite, "gem", 0, &plan), CM_USAGE, "did you mean gemm?");
    assert_status(cm_plan_build(&suite, "zzzzzzzzzz", 0, &plan), CM_USAGE,
                  "no case of the suite t");
}

/* A workload refuses what cannot be right together, with the place and the case. */
static void test_validate(void **state)
{
    (void)state;
    parse("[gemm]\nm = 1e7\nn = 1e7\nk = 1e7\nbatch = 1e6\n");
    assert_status(cm_plan_build(&suite, NULL, 0, &plan), CM_USAGE, "t.ini:1: gemm");
}

/* Every run option parses its default and says what it is for. */
static void test_run_options(void **state)
{
    (void)state;
    struct cm_run_settings settings;
    assert_ok(cm_option_defaults(cm_run_options, &settings));
    assert_true(settings.min_time_s <= settings.max_time_s);
    assert_true(settings.min_iterations <= settings.max_iterations);
    for (const struct cm_option *row = cm_run_options; row->name != NULL; row++) {
        assert_non_null(row->help);
        for (size_t i = 0; cm_workloads[i] != NULL; i++)
            assert_null(cm_option_find(cm_workloads[i]->options, row->name));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_case, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_global_and_own, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_sweep, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_global_sweep, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_range, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_range_to_the_end, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_refused, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_limits, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_too_many, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_only, open_none, close_all),
        cmocka_unit_test_setup_teardown(test_validate, open_none, close_all),
        cmocka_unit_test(test_run_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
