/* The suites that come with the program: each plans, says what it is for, and misses no workload.
 */
#include "test.h"

#include <dirent.h>
#include <stdio.h>

#include "clustermark/measure.h"
#include "clustermark/suite.h"

static void load(const char *name, struct cm_plan *plan)
{
    char path[512];
    struct cm_suite suite;
    snprintf(path, sizeof path, "%s/%s", CM_TEST_CONFIGS, name);
    assert_ok(cm_suite_load(path, &suite));
    assert_ok(cm_plan_build(&suite, NULL, 0, plan));
    cm_suite_release(&suite);
}

/* Data files that are no suites may come to lie beside them. */
static bool is_suite(const char *name)
{
    static const char *const names[] = {"smoke.ini", "quick.ini", "standard.ini", "full.ini",
                                        "gpu.ini"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void test_every_suite_plans(void **state)
{
    (void)state;
    unsigned found = 0;
    DIR *folder = opendir(CM_TEST_CONFIGS);
    assert_non_null(folder);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        struct cm_plan plan;
        if (!is_suite(entry->d_name))
            continue;
        found++;
        load(entry->d_name, &plan);
        for (size_t i = 0; cm_workloads[i] != NULL; i++) {
            bool used = false;
            for (size_t j = 0; j < plan.count; j++)
                used = used || plan.cases[j].workload == cm_workloads[i];
            if (!used)
                fail_msg("%s does without %s", entry->d_name, cm_workloads[i]->name);
        }
        cm_plan_release(&plan);
    }
    closedir(folder);
    assert_int_equal(found, 5);
}

/* The list of suites shows the first line. */
static void test_first_line_tells(void **state)
{
    (void)state;
    static const char *const names[] = {"smoke.ini", "quick.ini", "standard.ini",
                                        "full.ini",  "gpu.ini",   "cluster.ini"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512], line[256] = "";
        snprintf(path, sizeof path, "%s/%s", CM_TEST_CONFIGS, names[i]);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        assert_non_null(fgets(line, sizeof line, file));
        fclose(file);
        assert_true(strlen(line) > 20 && strlen(line) < 101 && strncmp(line, "# ", 2) == 0);
    }
}

/* What compares runs needs an interval, so at least six; a smoke test none. */
static void test_runs(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t least, most;
    } rows[] = {{"smoke.ini", 1, 1},
                {"gpu.ini", 1, 1},
                {"quick.ini", 6, 6},
                {"standard.ini", 6, 99},
                {"full.ini", 6, 99}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cm_plan plan;
        load(rows[i].name, &plan);
        assert_in_range(plan.runs, rows[i].least, rows[i].most);
        cm_plan_release(&plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_suite_plans),
        cmocka_unit_test(test_first_line_tells),
        cmocka_unit_test(test_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
