/*
 * The result file: opened before anything is measured, whole on disk after every run, statuses,
 * figures, ceilings and sweeps from runs made by hand; every allocation of its JSON failing in
 * turn.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "unit/result_fixture.h"

/* A run of the products with that rate, or of that status without one. */
static void add_product(struct fixture *fixture, uint64_t run, enum cm_case_status status,
                        double rate)
{
    struct made made;
    make(&made, PRODUCTS, run, 1e-3);
    made.run.status = status;
    snprintf(made.run.reason, sizeof made.run.reason, "%s",
             status == CM_CASE_OK ? "" : "made to be so");
    add_metric(&made, "flop_rate", rate, "FLOP/s", CM_HIGHER, 100);
    add(fixture, &made);
}

static void test_created_at_once(void **state)
{
    struct fixture *fixture = *state;
    setenv("NCCL_TEST", "yes", 1);
    setenv("OMPI_MCA_orte_uri", "secret", 1);
    setenv("NCCL_COMM_ID", "10.0.0.1:99", 1);
    setenv("SECRET_TOKEN", "secret", 1);
    create(fixture);
    json_t *value = load(fixture);
    assert_string_equal(text_at(value, "schema"), "clustermark.result");
    assert_string_equal(text_at(value, "version"), "1.0");
    assert_string_equal(text_at(value, "ending"), "running");
    assert_string_equal(text_at(value, "environment/NCCL_TEST"), "yes");
    assert_string_equal(text_at(value, "suite/command/2"), "--bad=?");
    assert_int_equal(json_array_size(at(value, "cases")), 0);
    assert_string_not_equal(text_at(value, "environment/NCCL_COMM_ID"), "10.0.0.1:99");
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    assert_string_not_equal(text_at(value, "machine/host"), host);
    json_decref(value);
    char *text = NULL;
    assert_ok(cm_json_dump(cm_result_json(fixture->result), 0, &text));
    assert_null(strstr(text, "secret"));
    cm_free(text);
}

static void test_leaves_nothing(void **state)
{
    struct fixture *fixture = *state;
    create(fixture);
    assert_int_equal(access(fixture->path, F_OK), 0);
    cm_result_free(fixture->result);
    fixture->result = NULL;
    assert_int_not_equal(access(fixture->path, F_OK), 0);
}

static void test_old_file_stays_until_there_is_better(void **state)
{
    struct fixture *fixture = *state;
    FILE *file = fopen(fixture->path, "w");
    assert_non_null(file);
    fputs("old", file);
    fclose(file);
    create(fixture);
    cm_result_free(fixture->result);
    fixture->result = NULL;
    char text[8] = "";
    file = fopen(fixture->path, "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    assert_string_equal(text, "old");
    create(fixture);
    add_product(fixture, 0, CM_CASE_OK, 50);
    json_t *value = load(fixture);
    assert_int_equal(json_array_size(at(value, "cases")), 1);
    json_decref(value);
}

static void test_paths_refused(void **state)
{
    struct fixture *fixture = *state;
    char below[128];
    snprintf(below, sizeof below, "%s/file", fixture->folder);
    close(open(below, O_WRONLY | O_CREAT, 0600));
    struct cm_result_options options = fixture->options;
    options.path = fixture->folder;
    assert_status(cm_result_create(&fixture->plan, &options, &fixture->result), CM_USAGE,
                  "it is a folder");
    snprintf(below, sizeof below, "%s/file/r.json", fixture->folder);
    options.path = below;
    assert_status(cm_result_create(&fixture->plan, &options, &fixture->result), CM_USAGE,
                  "Not a directory");
    options.path = "/proc/clustermark.json";
    assert_status(cm_result_create(&fixture->plan, &options, &fixture->result), CM_USAGE,
                  "cannot write /proc/clustermark.json");
    assert_null(fixture->result);
}

static void test_default_paths(void **state)
{
    struct fixture *fixture = *state;
    struct cm_result_options options = fixture->options;
    struct cm_result *first = NULL, *second = NULL;
    char before[512];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(fixture->folder), 0);
    options.path = NULL;
    assert_ok(cm_result_create(&fixture->plan, &options, &first));
    assert_ok(cm_result_create(&fixture->plan, &options, &second));
    assert_string_not_equal(cm_result_path(first), cm_result_path(second));
    assert_int_equal(strncmp(cm_result_path(first), "results/2", 9), 0);
    assert_non_null(strstr(cm_result_path(first), "Z-t"));
    assert_int_equal(access(cm_result_path(first), F_OK), 0);
    assert_int_equal(access(cm_result_path(second), F_OK), 0);
    cm_result_free(second);
    cm_result_free(first);
    assert_int_not_equal(access("results", F_OK), 0);
    assert_int_equal(chdir(before), 0);
}

static void test_figures(void **state)
{
    struct fixture *fixture = *state;
    static const double rates[] = {50, 70, 60, 40, 80, 90};
    create(fixture);
    for (uint64_t run = 0; run < 6; run++) {
        add_product(fixture, run, CM_CASE_OK, rates[run]);
        json_t *value = load(fixture);
        const json_t *metric = at(value, "cases/0/metrics/flop_rate");
        assert_int_equal(number_at(metric, "runs"), run + 1);
        assert_int_equal(json_object_get(metric, "interval") != NULL, run == 5);
        json_decref(value);
    }
    json_t *value = load(fixture);
    assert_string_equal(text_at(value, "cases/0/status"), "ok");
    assert_near(number_at(value, "cases/0/metrics/flop_rate/value"), 65.0, 1e-9);
    assert_near(number_at(value, "cases/0/metrics/flop_rate/interval/low"), 40.0, 1e-9);
    assert_near(number_at(value, "cases/0/metrics/flop_rate/interval/high"), 90.0, 1e-9);
    assert_near(number_at(value, "cases/0/metrics/flop_rate/interval/coverage"), 0.96875, 1e-9);
    assert_near(number_at(value, "cases/0/ceilings/flop_rate/theoretical/value"), 100.0, 1e-9);
    assert_near(number_at(value, "cases/0/ceilings/flop_rate/theoretical/fraction"), 0.65, 1e-9);
    assert_string_equal(text_at(value, "cases/0/ceilings/flop_rate/theoretical/source"),
                        "test clock");
    assert_near(number_at(value, "cases/0/spread"), 0.1, 1e-9);
    assert_near(number_at(value, "cases/0/check/checked"), 60, 0);
    assert_near(number_at(value, "cases/0/params/m"), 64, 0);
    const json_t *run = at(value, "cases/0/runs/5");
    assert_near(number_at(run, "samples_s/2"), 1.1e-3, 1e-9);
    assert_near(number_at(run, "rank_samples_s/1/0"), 0.9e-3, 1e-9);
    assert_near(number_at(run, "telemetry/1/switches_per_s"), 7, 0);
    assert_null(json_object_get(at(run, "telemetry/1"), "power"));
    assert_string_equal(text_at(run, "bindings/0"), "cpus 0 nodes 0");
    assert_true(json_is_null(at(run, "bindings/1")));
    assert_string_equal(text_at(value, "stack/comm_library"), "Test MPI 1");
    assert_string_equal(text_at(value, "stack/compute_library"), "oneDNN 9.9");
    assert_string_equal(text_at(value, "devices/1/name"), "Test CPU");
    json_decref(value);
}

/* What a communication library chose is no library. */
static void test_compute_library(void **state)
{
    struct fixture *fixture = *state;
    static const char *const algorithms[] = {"", "jit", "RING LL, 1 channel"};
    struct made made;
    create(fixture);
    for (uint64_t run = 0; run < 3; run++) {
        make(&made, PRODUCTS, run, 1e-3);
        snprintf(made.run.algorithm, sizeof made.run.algorithm, "%s", algorithms[run]);
        add(fixture, &made);
    }
    json_t *value = load(fixture);
    assert_null(json_object_get(at(value, "stack"), "compute_library"));
    json_decref(value);
    add_product(fixture, 3, CM_CASE_OK, 50);
    value = load(fixture);
    assert_string_equal(text_at(value, "stack/compute_library"), "oneDNN 9.9");
    json_decref(value);
}

static void test_statuses(void **state)
{
    struct fixture *fixture = *state;
    create(fixture);
    add_product(fixture, 0, CM_CASE_SKIPPED, 0);
    const json_t *value = cm_result_json(fixture->result);
    assert_string_equal(text_at(value, "cases/0/status"), "skipped");
    assert_status(cm_result_verdict(value), CM_UNSUPPORTED, "made to be so");
    add_product(fixture, 1, CM_CASE_OK, 50);
    assert_string_equal(text_at(value, "cases/0/status"), "ok");
    assert_string_equal(text_at(value, "cases/0/reason"), "1 of 2 runs skipped: made to be so");
    assert_ok(cm_result_verdict(value));
    add_product(fixture, 2, CM_CASE_FAILED, 1);
    assert_string_equal(text_at(value, "cases/0/status"), "failed");
    assert_status(cm_result_verdict(value), CM_LOST, "1 of 1 cases failed: products: made to be");
    add_product(fixture, 3, CM_CASE_WRONG, 1);
    assert_string_equal(text_at(value, "cases/0/status"), "wrong");
    assert_status(cm_result_verdict(value), CM_WRONG, "wrong values: products");
    /* Figures come from the one good run. */
    assert_near(number_at(value, "cases/0/metrics/flop_rate/value"), 50.0, 0);
    assert_int_equal(number_at(value, "cases/0/metrics/flop_rate/runs"), 1);
}

static void test_finish(void **state)
{
    struct fixture *fixture = *state;
    create(fixture);
    add_product(fixture, 0, CM_CASE_OK, 50);
    assert_ok(cm_result_finish(fixture->result, "interrupted"));
    json_t *value = load(fixture);
    assert_string_equal(text_at(value, "ending"), "interrupted");
    assert_int_equal(json_array_size(at(value, "cases")), CASES);
    assert_string_equal(text_at(value, "cases/0/status"), "ok");
    assert_non_null(strstr(text_at(value, "cases/0/reason"), "1 of 6 runs"));
    assert_string_equal(text_at(value, "cases/4/status"), "skipped");
    assert_non_null(strstr(text_at(value, "cases/4/reason"), "not reached"));
    json_decref(value);
}

static void add_bandwidth(struct fixture *fixture, size_t index, double rate)
{
    struct made made;
    make(&made, index, 0, 1e-3);
    add_metric(&made, "bandwidth", rate, "B/s", CM_HIGHER, 0);
    add_metric(&made, "bandwidth_per_rank", rate / 2, "B/s", CM_HIGHER, 0);
    add(fixture, &made);
}

static void add_collective(struct fixture *fixture, size_t index, uint64_t run, double time,
                           double busbw)
{
    struct made made;
    make(&made, index, run, time);
    add_metric(&made, "time", time, "s", CM_LOWER, 0);
    add_metric(&made, "algbw", busbw, "B/s", CM_HIGHER, 0);
    add_metric(&made, "busbw", busbw, "B/s", CM_HIGHER, 0);
    add(fixture, &made);
}

static void test_attainable(void **state)
{
    struct fixture *fixture = *state;
    create(fixture);
    add_collective(fixture, LARGE, 0, 1e-3, 2e9);
    const json_t *value = cm_result_json(fixture->result);
    assert_null(json_object_get(at(value, "cases/0/ceilings"), "busbw"));
    add_bandwidth(fixture, COPY, 16e9);
    add_bandwidth(fixture, TRIAD, 20e9);
    assert_near(number_at(value, "cases/0/ceilings/bandwidth/attainable/fraction"), 0.8, 1e-12);
    assert_near(number_at(value, "cases/1/ceilings/bandwidth/attainable/fraction"), 1.0, 1e-12);
    /* Half of what one rank copies, whatever triad reaches. */
    assert_near(number_at(value, "cases/2/ceilings/busbw/attainable/value"), 4e9, 1e-12);
    assert_near(number_at(value, "cases/2/ceilings/busbw/attainable/fraction"), 0.5, 1e-12);
    assert_non_null(
        strstr(text_at(value, "cases/2/ceilings/busbw/attainable/source"), "memory:op=copy"));
}

/* Our own product against the library's of the same parameters, not of others. */
static void test_own_against_library(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        size_t index;
        double rate;
    } rows[] = {{OWN, 60}, {LIBRARY, 80}, {LIBRARY_TT, 400}};
    create(fixture);
    for (size_t i = 0; i < 3; i++) {
        struct made made;
        make(&made, rows[i].index, 0, 1e-3);
        add_metric(&made, "flop_rate", rows[i].rate, "FLOP/s", CM_HIGHER, 0);
        add(fixture, &made);
    }
    const json_t *value = cm_result_json(fixture->result);
    const json_t *attainable = at(value, "cases/0/ceilings/flop_rate/attainable");
    assert_near(number_at(attainable, "fraction"), 0.75, 1e-12);
    assert_string_equal(text_at(attainable, "source"), "the library in own:impl=library,trans=nn");
    assert_null(json_object_get(at(value, "cases/1/ceilings"), "flop_rate"));
}

/* Of each figure per rank: worst, median, best, and which devices those are. */
static void test_devices(void **state)
{
    struct fixture *fixture = *state;
    struct made made;
    create(fixture);
    for (uint64_t run = 0; run < 2; run++) {
        make(&made, PRODUCTS, run, 1e-3);
        snprintf(made.devices[1].bus_id, sizeof made.devices[1].bus_id, "0000:1b:00.0");
        snprintf(made.devices[1].uuid, sizeof made.devices[1].uuid, "abc");
        made.telemetry[0].power_w = 300;
        made.telemetry[1].power_w = 500;
        made.telemetry[0].temperature_c = 70;
        made.telemetry[1].throttled_fraction = run == 0 ? 0.25 : 0.125;
        snprintf(made.telemetry[1].throttle_reasons, 96, run == 0 ? "power" : "heat");
        add_metric(&made, "flop_rate", 50, "FLOP/s", CM_HIGHER, 0);
        add_metric(&made, "flop_rate.rank0", 60, "FLOP/s", CM_HIGHER, 0);
        add_metric(&made, "flop_rate.rank1", run == 0 ? 50 : 40, "FLOP/s", CM_HIGHER, 0);
        add_metric(&made, "time", 2, "s", CM_LOWER, 0);
        add_metric(&made, "time.rank0", 2, "s", CM_LOWER, 0);
        add_metric(&made, "time.rank1", 1, "s", CM_LOWER, 0);
        add(fixture, &made);
    }
    json_t *value = load(fixture);
    const json_t *spread = at(value, "cases/0/spread_ranks/flop_rate");
    assert_int_equal(number_at(spread, "worst/rank"), 1);
    assert_near(number_at(spread, "worst/value"), 45, 1e-12);
    assert_string_equal(text_at(spread, "worst/bus_id"), "0000:1b:00.0");
    assert_string_equal(text_at(spread, "worst/uuid_hash"), "abc");
    assert_near(number_at(spread, "median"), 52.5, 1e-12);
    assert_int_equal(number_at(spread, "best/rank"), 0);
    assert_null(json_object_get(at(spread, "best"), "bus_id"));
    assert_int_equal(number_at(value, "cases/0/spread_ranks/time/worst/rank"), 0);
    const json_t *telemetry = at(value, "cases/0/telemetry");
    assert_near(number_at(telemetry, "power"), 400, 1e-12);
    assert_near(number_at(telemetry, "temperature_c"), 70, 0);
    assert_near(number_at(telemetry, "throttled_fraction"), 0.25, 0);
    assert_string_equal(text_at(telemetry, "throttle_reasons"), "power");
    assert_null(json_object_get(telemetry, "lowest_clock"));
    json_decref(value);
}

static void test_sweep(void **state)
{
    struct fixture *fixture = *state;
    create(fixture);
    for (uint64_t run = 0; run < 3; run++) {
        double slower = 1 + (double)run;
        add_collective(fixture, MIDDLE, run, 1e-5 * slower, 6e9 / slower);
        add_collective(fixture, SMALL, run, 1e-6 * slower, 1e9 / slower);
        /* The last run has no largest point, and so no summary. */
        if (run < 2)
            add_collective(fixture, LARGE, run, 1e-3 * slower, 8e9 / slower);
    }
    const json_t *value = cm_result_json(fixture->result);
    assert_int_equal(json_array_size(at(value, "sweeps")), 1);
    const json_t *sweep = at(value, "sweeps/0");
    assert_string_equal(text_at(sweep, "name"), "allreduce");
    assert_string_equal(text_at(sweep, "key"), "size");
    assert_string_equal(text_at(sweep, "points/0"), fixture->plan.cases[SMALL].name);
    assert_string_equal(text_at(sweep, "points/2"), fixture->plan.cases[LARGE].name);
    assert_null(json_object_get(at(sweep, "params"), "size"));
    assert_string_equal(text_at(sweep, "params/dtype"), "f32");
    assert_near(number_at(sweep, "metrics/busbw_peak/value"), 6e9, 1e-12);
    assert_int_equal(number_at(sweep, "metrics/busbw_peak/runs"), 2);
    assert_near(number_at(sweep, "metrics/latency_small/value"), 1.5e-6, 1e-9);
    assert_true(number_at(sweep, "metrics/half_peak_size/value") > 1024);
    assert_true(number_at(sweep, "metrics/half_peak_size/value") < 65536);
}

/* A disk that is full in the middle costs nothing once there is room again. */
static void test_write_failure(void **state)
{
    struct fixture *fixture = *state;
    char moved[128];
    snprintf(moved, sizeof moved, "%s.away", fixture->folder);
    create(fixture);
    add_product(fixture, 0, CM_CASE_OK, 50);
    assert_int_equal(rename(fixture->folder, moved), 0);
    add_product(fixture, 1, CM_CASE_OK, 60);
    assert_status(cm_result_finish(fixture->result, "complete"), CM_USAGE, "not saved");
    assert_int_equal(rename(moved, fixture->folder), 0);
    assert_ok(cm_result_finish(fixture->result, "complete"));
    json_t *value = load(fixture);
    assert_int_equal(json_array_size(at(value, "cases/0/runs")), 2);
    json_decref(value);
}

static void test_wrong_plan(void **state)
{
    struct fixture *fixture = *state;
    struct made made;
    create(fixture);
    make(&made, CASES, 0, 1);
    assert_status(cm_result_add(fixture->result, &fixture->plan, &made.run), CM_INTERNAL,
                  "case 10");
}

/* Fails the Nth allocation of jansson. */
static unsigned long allocations, failing;
static void *failing_alloc(size_t size)
{
    return ++allocations == failing ? NULL : malloc(size);
}

static enum cm_status whole_life(struct fixture *fixture)
{
    struct made made;
    enum cm_status status = cm_result_create(&fixture->plan, &fixture->options, &fixture->result);
    for (size_t index = 0; status == CM_OK && index < CASES; index++) {
        make(&made, index, 0, 1e-3);
        status = cm_metrics_add(&made.run.metrics, "busbw", 5, "B/s", CM_HIGHER, NULL);
        if (status == CM_OK)
            status = cm_result_add(fixture->result, &fixture->plan, &made.run);
        cm_metrics_release(&made.run.metrics);
    }
    if (status == CM_OK)
        status = cm_result_finish(fixture->result, "complete");
    cm_result_free(fixture->result);
    fixture->result = NULL;
    return status;
}

/* Reporting is not affected: a run that could not be added ends with the status, and nothing is
 * lost from memory (the sanitizers' builds look). Every 7th is enough to meet every kind. */
static void test_allocations(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.path = "/dev/null";
    int silenced = open("/dev/null", O_WRONLY), errors = dup(STDERR_FILENO);
    json_set_alloc_funcs(failing_alloc, free);
    failing = 0;
    allocations = 0;
    assert_ok(whole_life(fixture));
    unsigned long total = allocations, failed = 0, last = 0;
    dup2(silenced, STDERR_FILENO); /* of the warnings that writing is tried again */
    for (unsigned long n = 1; n <= total; n += n < 400 ? 1 : 7) {
        failing = n;
        allocations = 0;
        cm_error_clear();
        enum cm_status status = whole_life(fixture);
        /* jansson reports some failures without their cause. */
        if (status != CM_OK && status != CM_NO_MEMORY && status != CM_INTERNAL)
            break;
        last = n;
        failed += status != CM_OK;
    }
    dup2(errors, STDERR_FILENO);
    close(errors);
    close(silenced);
    if (last + 7 <= total)
        fail_msg("allocation %lu: %s", last + 1, cm_error_text());
    assert_true(failed > 300);
    cm_json_init();
}

int main(void)
{
    cm_json_init();
#define WITH_FILE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_FILE(test_created_at_once),
        WITH_FILE(test_leaves_nothing),
        WITH_FILE(test_old_file_stays_until_there_is_better),
        WITH_FILE(test_paths_refused),
        WITH_FILE(test_default_paths),
        WITH_FILE(test_figures),
        WITH_FILE(test_compute_library),
        WITH_FILE(test_statuses),
        WITH_FILE(test_finish),
        WITH_FILE(test_attainable),
        WITH_FILE(test_sweep),
        WITH_FILE(test_own_against_library),
        WITH_FILE(test_devices),
        WITH_FILE(test_write_failure),
        WITH_FILE(test_wrong_plan),
        WITH_FILE(test_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
