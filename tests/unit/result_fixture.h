/*
 * result_fixture.h: a plan, a folder for its result, and runs of cases made by hand.
 */
#ifndef TESTS_UNIT_RESULT_FIXTURE_H
#define TESTS_UNIT_RESULT_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "host/result/record.h"
#include "test.h"

static const char suite_text[] = "[global]\nruns = 6\n"
                                 "[products]\nworkload = gemm\nm = 64\nn = 64\nk = 64\n"
                                 "[memory]\nworkload = membw\nop = copy,triad\n"
                                 "[allreduce]\nworkload = collective\nsize = 64KiB,1KiB,16MiB\n"
                                 "[own]\nworkload = gemm\nm = 64\nn = 64\nk = 64\n"
                                 "impl = own,library\ntrans = nn,tt\n";
enum { PRODUCTS, COPY, TRIAD, MIDDLE, SMALL, LARGE, OWN, OWN_TT, LIBRARY, LIBRARY_TT, CASES };

struct fixture {
    char folder[64], path[96];
    struct cm_suite suite;
    struct cm_plan plan;
    struct cm_result_options options;
    struct cm_result *result;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    static char *argv[] = {"run", "t.ini", "--bad=\xff"};
    fixture = (struct fixture){.folder = "/tmp/cm-result-XXXXXX"};
    assert_non_null(mkdtemp(fixture.folder));
    snprintf(fixture.path, sizeof fixture.path, "%s/r.json", fixture.folder);
    assert_ok(cm_suite_parse(suite_text, "t.ini", &fixture.suite));
    assert_ok(cm_plan_build(&fixture.suite, NULL, 0, &fixture.plan));
    assert_int_equal(fixture.plan.count, CASES);
    fixture.options = (struct cm_result_options){.path = fixture.path,
                                                 .device = cm_device_find("cpu"),
                                                 .ranks = 2,
                                                 .fresh_processes = true,
                                                 .argc = 3,
                                                 .argv = argv};
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    cm_result_free(fixture->result);
    cm_plan_release(&fixture->plan);
    cm_suite_release(&fixture->suite);
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", fixture->folder);
    return system(command);
}

static inline void create(struct fixture *fixture)
{
    assert_ok(cm_result_create(&fixture->plan, &fixture->options, &fixture->result));
}

/* One part of two ranks, three iterations of about `seconds`, and a metric. */
struct made {
    struct cm_case_run run;
    struct cm_part_samples part;
    struct cm_samples ranks[2];
    double medians[2], slowest[3], own[2][3];
    char *bindings[2];
    struct cm_telemetry telemetry[2];
    struct cm_device_info devices[2];
};

static void make(struct made *made, size_t index, uint64_t run, double seconds)
{
    static char binding[] = "cpus 0 nodes 0";
    *made = (struct made){.bindings = {binding, NULL}};
    for (int i = 0; i < 3; i++)
        made->slowest[i] = made->own[0][i] = made->own[1][i] = seconds * (1 + 0.1 * (i - 1));
    for (int i = 0; i < 2; i++) {
        made->ranks[i] = (struct cm_samples){.values = made->own[i], .count = 3};
        made->medians[i] = seconds;
        made->telemetry[i] = cm_telemetry_unknown;
        made->telemetry[i].clock_hz = 3e9;
        made->telemetry[i].switches_per_s = 7;
        snprintf(made->devices[i].name, sizeof made->devices[i].name, "Test CPU");
    }
    made->part = (struct cm_part_samples){.slowest = {.values = made->slowest, .count = 3},
                                          .ranks = made->ranks,
                                          .rank_count = 2,
                                          .median_s = seconds,
                                          .rank_median_s = made->medians};
    made->run = (struct cm_case_run){.case_index = index,
                                     .run = run,
                                     .stop_reason = "steady",
                                     .started_unix_s = 1772600000,
                                     .parts = &made->part,
                                     .part_count = 1,
                                     .check = {.checked = 10, .worst = 0.5},
                                     .telemetry = made->telemetry,
                                     .devices = made->devices,
                                     .bindings = made->bindings,
                                     .rank_count = 2,
                                     .comm = "mpi",
                                     .comm_library = "Test MPI 1",
                                     .algorithm = "oneDNN 9.9 matmul"};
}

static inline void add_metric(struct made *made, const char *name, double value, const char *unit,
                              enum cm_better better, double ceiling)
{
    struct cm_metric *metric;
    assert_ok(cm_metrics_add(&made->run.metrics, name, value, unit, better, &metric));
    metric->ceiling = ceiling;
    if (ceiling > 0)
        snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "test clock");
}

static void add(struct fixture *fixture, struct made *made)
{
    assert_ok(cm_result_add(fixture->result, &fixture->plan, &made->run));
    cm_metrics_release(&made->run.metrics);
}

static inline json_t *load(const struct fixture *fixture)
{
    json_t *value = NULL;
    assert_ok(cm_result_load(fixture->path, &value));
    return value;
}

/* path: keys and indices separated by '/'. */
static const json_t *at(const json_t *value, const char *path)
{
    char copy[128], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *step = strsep(&rest, "/"); step != NULL; step = strsep(&rest, "/"))
        value = json_is_array(value) ? json_array_get(value, (size_t)atoi(step))
                                     : json_object_get(value, step);
    if (value == NULL)
        fail_msg("there is no %s", path);
    return value;
}

static inline double number_at(const json_t *value, const char *path)
{
    return json_number_value(at(value, path));
}

static inline const char *text_at(const json_t *value, const char *path)
{
    const char *text = json_string_value(at(value, path));
    if (text == NULL)
        fail_msg("%s is no text", path);
    return text;
}

#endif
