/*
 * The harness on the real CPU device, with a workload that fails where it is told to.
 *
 *   test_harness               one rank, in this process
 *   test_harness launch N      N ranks under the launcher
 *   test_harness hang          a case that never ends, as the test starts it
 *   test_harness break         one that fails and then never ends
 *
 * After every failure the ranks must still agree: each test ends with a sound case.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/measure.h"
#include "comm_fixture.h"
#include "probe.h"

static char phases[4096];

static void note_phase(void *arg, const char *phase)
{
    (void)arg;
    size_t length = strlen(phases);
    size_t word = strlen(phase);
    /* Batches repeat the phase that they are in. */
    if (length >= word && strcmp(phases + length - word, phase) == 0)
        return;
    snprintf(phases + length, sizeof phases - length, "%s%s", length > 0 ? " " : "", phase);
}

static bool reporting(void)
{
    return fixture.comm->rank == 0;
}

static unsigned ranks(void)
{
    return fixture.comm->size;
}

/* Short, and the same number of iterations every time. */
static const struct cm_run_settings short_settings = {
    .runs = 1,
    .warmup_iterations = 5,
    .min_iterations = 20,
    .max_time_s = 1000,
    .max_iterations = 20,
    .precision = -1, /* never steady */
    .drift = 1e-6,
    .timeout_s = 30,
    .seed = 11,
};

struct trial {
    struct cm_run_settings settings;
    struct probe_params params;
    struct cm_bench bench;
    struct cm_case item;
    struct cm_case_run run;
};

static struct trial make_trial(void)
{
    struct trial trial = {.settings = short_settings};
    trial.bench = (struct cm_bench){.device = fixture.device,
                                    .comm = fixture.comm,
                                    .memory_bytes = 64 << 20,
                                    .time_limit_s = INFINITY,
                                    .binding = "cpus 5",
                                    .phase = note_phase};
    return trial;
}

static enum cm_status attempt(struct trial *trial)
{
    char name[] = "probe", where[] = "test";
    if (trial->item.workload == NULL)
        trial->item.workload = &probe_workload;
    trial->item.name = trial->item.section = name;
    trial->item.where = where;
    trial->item.settings = trial->settings;
    trial->item.params = &trial->params;
    probe_calls = (struct probe_calls){0};
    phases[0] = '\0';
    return cm_measure_case(&trial->bench, &trial->item, 4, &trial->run);
}

static void measure(struct trial *trial)
{
    assert_ok(attempt(trial));
    assert_int_equal(probe_calls.setups, probe_calls.teardowns);
}

static void drop(struct trial *trial)
{
    cm_case_run_release(&trial->run);
}

static void sound_case(void)
{
    struct trial trial = make_trial();
    trial.params.collective = true;
    measure(&trial);
    if (reporting() && trial.run.status != CM_CASE_OK)
        fail_msg("%s", trial.run.reason);
    drop(&trial);
}

static void test_sound(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    trial.params.collective = true;
    measure(&trial);
    const struct cm_case_run *run = &trial.run;
    assert_string_equal(phases, "setup warm-up measure check teardown");
    assert_true(probe_calls.in_order);
    assert_int_equal(probe_calls.timed[0], 20);
    assert_true(probe_calls.enqueued[0] >= 25);
    if (!reporting())
        return;
    assert_int_equal(run->status, CM_CASE_OK);
    assert_string_equal(run->reason, "");
    assert_string_equal(run->stop_reason, "max_iterations");
    assert_int_equal(run->run, 4);
    assert_true(run->warmup_iterations == probe_calls.enqueued[0] - 20);
    assert_true(run->wall_s > 0 && run->warmup_s > 0 && run->started_unix_s > 1e9);
    assert_int_equal(run->part_count, 1);
    const struct cm_part_samples *part = &run->parts[0];
    assert_int_equal(part->slowest.count, 20);
    assert_near(part->work.operations, 1, 0);
    assert_int_equal(part->rank_count, ranks());
    for (size_t i = 0; i < 20; i++) {
        double slowest = 0;
        for (unsigned r = 0; r < ranks(); r++)
            slowest = fmax(slowest, part->ranks[r].values[i]);
        assert_true(slowest > 0);
        assert_near(part->slowest.values[i], slowest, 0);
    }
    assert_near(part->median_s, cm_median(part->slowest.values, 20), 0);
    /* A GPU tells its energy too. */
    bool host = fixture.device->ops->is_host;
    const struct cm_metric *time = cm_metrics_find(&run->metrics, "time");
    assert_non_null(time);
    assert_near(time->value, part->median_s, 0);
    assert_in_range(run->metrics.count, 1, host ? 1 : 2);
    assert_int_equal(run->check.checked, 1000 * ranks());
    assert_int_equal(run->check.mismatches, 0);
    assert_int_equal(run->rank_count, ranks());
    for (unsigned r = 0; r < ranks(); r++) {
        assert_string_equal(run->bindings[r], "cpus 5");
        assert_string_equal(run->devices[r].kind, fixture.device->ops->name);
        assert_true(!host || run->telemetry[r].switches_per_s >= 0);
    }
    assert_string_equal(run->algorithm, "probing");
    assert_string_equal(run->comm, fixture.ops->name);
    assert_string_equal(run->comm_library, fixture.comm->implementation);
    drop(&trial);
}

/* Seeds differ between runs and cases, not between ranks. */
static void test_seed(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    measure(&trial);
    uint64_t first = probe_calls.seed;
    drop(&trial);
    assert_true(first == cm_random_seed(11, "probe", 0, 4));
    assert_true(first != cm_random_seed(11, "probe", 0, 5));
}

static const char *stop_of(struct trial *trial, size_t *count)
{
    static char reason[64];
    measure(trial);
    snprintf(reason, sizeof reason, "%s", trial->run.stop_reason);
    if (reporting()) {
        assert_int_equal(trial->run.status, CM_CASE_OK);
        *count = trial->run.parts[0].slowest.count;
    }
    drop(trial);
    return reason;
}

static void test_stop_reasons(void **state)
{
    (void)state;
    size_t count = 0;
    struct trial steady = make_trial();
    steady.settings.precision = steady.settings.drift = 1000;
    steady.settings.max_iterations = 5000;
    const char *reason = stop_of(&steady, &count);
    if (reporting()) {
        assert_string_equal(reason, "steady");
        assert_true(count >= 20 && count < 5000);
    }
    struct trial timed = make_trial();
    timed.settings.max_iterations = 1000000;
    timed.settings.max_time_s = 0.002;
    reason = stop_of(&timed, &count);
    if (reporting())
        assert_string_equal(reason, "max_time");
    struct trial budget = make_trial();
    budget.bench.time_limit_s = 0;
    budget.settings.max_iterations = 1000000;
    reason = stop_of(&budget, &count);
    if (reporting()) {
        assert_string_equal(reason, "budget");
        assert_true(count >= 1);
    }
    struct trial fixed = make_trial();
    fixed.params.part = (struct cm_part){.min_time_s = 0.003, .fixed_time = true};
    reason = stop_of(&fixed, &count);
    if (reporting()) {
        assert_string_equal(reason, "fixed_time");
        assert_true(count >= 1);
    }
}

/* A slow rank decides the time of every iteration. */
static void test_slowest(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    trial.params.slow_us = 1000;
    measure(&trial);
    if (reporting()) {
        for (size_t i = 0; i < trial.run.parts[0].slowest.count; i++)
            assert_true(trial.run.parts[0].slowest.values[i] >= 0.001);
        assert_true(trial.run.parts[0].rank_median_s[ranks() - 1] >= 0.001);
    }
    drop(&trial);
}

static enum cm_status begin_window(struct cm_device *device)
{
    (void)device;
    return CM_OK;
}

/* As if each window took one joule on rank 0, two on rank 1 ... */
static enum cm_status end_window(struct cm_device *device, struct cm_telemetry *telemetry)
{
    (void)device;
    *telemetry = cm_telemetry_unknown;
    telemetry->energy_j = fixture.comm->rank + 1.0;
    return CM_OK;
}

/* Joules of an operation: each part's own, of the ranks that took part. */
static void test_energy(void **state)
{
    (void)state;
    const struct cm_device_ops *real = fixture.device->ops;
    struct cm_device_ops ops = *real;
    ops.telemetry_begin = begin_window;
    ops.telemetry_end = end_window;
    struct trial trial = make_trial();
    trial.params.parts = 2;
    trial.params.last_idle = ranks() > 1;
    fixture.device->ops = &ops;
    measure(&trial);
    fixture.device->ops = real;
    if (reporting()) {
        double all = ranks() * (ranks() + 1) / 2.0, busy = ranks() > 1 ? all - ranks() : all;
        assert_int_equal(trial.run.status, CM_CASE_OK);
        assert_near(trial.run.parts[0].energy_j, all, 1e-12);
        assert_near(trial.run.parts[1].energy_j, busy, 1e-12);
        const struct cm_metric *metric =
            cm_metrics_find(&trial.run.metrics, "energy_per_operation.part1");
        assert_non_null(metric);
        assert_near(metric->value, busy / (20 * 2), 1e-12);
        assert_near(trial.run.telemetry[0].energy_j, 2, 1e-12);
        assert_near(trial.run.telemetry[ranks() - 1].energy_j, ranks() == 1 ? 2 : ranks(), 1e-12);
    }
    drop(&trial);
    sound_case();
}

/* Two parts, in the second of which the last rank has nothing to do. */
static void test_parts(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    trial.params.parts = 2;
    trial.params.last_idle = ranks() > 1;
    measure(&trial);
    bool idle = ranks() > 1 && fixture.comm->rank + 1 == ranks();
    assert_int_equal(probe_calls.timed[1], idle ? 0 : 20);
    assert_int_equal(probe_calls.checks, 2);
    assert_int_equal(probe_calls.begins, 2);
    assert_string_equal(phases, "setup warm-up measure check measure check teardown");
    if (!reporting())
        return;
    assert_int_equal(trial.run.status, CM_CASE_OK);
    assert_int_equal(trial.run.part_count, 2);
    assert_string_equal(trial.run.parts[1].part.name, "part1");
    assert_near(trial.run.parts[1].work.operations, 2, 0);
    assert_int_equal(trial.run.parts[1].slowest.count, 20);
    assert_int_equal(trial.run.check.checked, 1000 * (2 * ranks() - (ranks() > 1 ? 1 : 0)));
    if (ranks() > 1) {
        assert_int_equal(trial.run.parts[1].ranks[ranks() - 1].count, 0);
        assert_true(isnan(trial.run.parts[1].rank_median_s[ranks() - 1]));
        assert_int_equal(trial.run.parts[0].ranks[ranks() - 1].count, 20);
    }
    drop(&trial);
}

/* A part that follows from the times of the first, and who is slow. */
static void test_extend(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    trial.params.parts = trial.params.more = 1;
    measure(&trial);
    assert_int_equal(probe_calls.extends, 2);
    assert_int_equal(probe_calls.timed[1], 20);
    assert_int_equal(probe_calls.checks, 2);
    assert_int_equal(probe_calls.begins, 2);
    if (reporting()) {
        char host[CM_HOST_MAX] = "";
        assert_int_equal(trial.run.status, CM_CASE_OK);
        assert_int_equal(trial.run.part_count, 2);
        assert_string_equal(trial.run.parts[1].part.name, "part1");
        assert_int_equal(trial.run.parts[1].slowest.count, 20);
        assert_near(cm_metrics_find(&trial.run.metrics, "parts")->value, 2, 0);
        assert_int_equal(trial.run.suspects.count, 1);
        assert_int_equal(trial.run.suspects.items[0].rank, ranks() - 1);
        gethostname(host, sizeof host - 1);
        assert_string_equal(trial.run.suspects.items[0].host, host);
    }
    drop(&trial);
    trial = make_trial();
    trial.params.fault = PROBE_FIND;
    measure(&trial);
    if (reporting()) {
        assert_int_equal(trial.run.status, CM_CASE_FAILED);
        assert_non_null(strstr(trial.run.reason, "the probe cannot tell"));
    }
    drop(&trial);
    sound_case();
}

/* Where the fault is, and what the report says of it. */
static const struct {
    enum probe_fault fault;
    enum cm_case_status status;
    const char *phase;
    const char *text;
} faults[] = {
    {PROBE_SETUP, CM_CASE_FAILED, "setup: ", "the probe breaks in setup"},
    {PROBE_SKIP, CM_CASE_SKIPPED, "", "the probe is not possible here"},
    {PROBE_HUGE, CM_CASE_SKIPPED, "", "needs a buffer of 1048576 TiB; of this rank's 6"},
    {PROBE_FOREIGN, CM_CASE_FAILED, "setup: ", "is not memory of this case"},
    {PROBE_BEGIN, CM_CASE_FAILED, "measure: ", "the probe cannot begin"},
    {PROBE_ENQUEUE, CM_CASE_FAILED, "warm-up: ", "the probe cannot queue"},
    {PROBE_ASYNC, CM_CASE_FAILED, "warm-up: ", "the probe's queued work broke"},
    {PROBE_LANE, CM_CASE_FAILED, "warm-up: ", "the probe's queued work broke"},
    {PROBE_LATE, CM_CASE_FAILED, "warm-up: ", "the probe's queued work broke"},
    {PROBE_IDLES, CM_CASE_WRONG, "", "1000 of 1000 values are wrong: the probe's first value"},
    {PROBE_CHECK, CM_CASE_FAILED, "check: ", "the probe cannot check"},
    {PROBE_WRONG, CM_CASE_WRONG, "", "3 of 1000 values are wrong: the probe's first value"},
    {PROBE_UNSEEN, CM_CASE_WRONG, "", "nothing was checked"},
    {PROBE_EXTEND, CM_CASE_FAILED, "check: ", "the probe does not know how to go on"},
};

static void check_report(const struct cm_case_run *run, size_t row, unsigned rank)
{
    char who[32] = "";
    if (ranks() > 1)
        snprintf(who, sizeof who, "%srank %u: ", faults[row].phase, rank);
    else
        snprintf(who, sizeof who, "%s", faults[row].phase);
    if (run->status != faults[row].status || strstr(run->reason, faults[row].text) == NULL ||
        strncmp(run->reason, who, strlen(who)) != 0)
        fail_msg("fault %d on rank %u: %s: %s", faults[row].fault, rank,
                 cm_case_status_names[run->status], run->reason);
    assert_int_equal(run->metrics.count, 0);
    assert_int_equal(run->rank_count, ranks());
}

/* One rank fails, whichever it is; all learn of it, and the next case is fine. */
static void test_faults(void **state)
{
    (void)state;
    for (size_t row = 0; row < sizeof faults / sizeof faults[0]; row++) {
        for (unsigned rank = 0; rank < ranks(); rank++) {
            struct trial trial = make_trial();
            trial.params.fault = faults[row].fault;
            trial.params.fault_rank = rank;
            measure(&trial);
            if (reporting())
                check_report(&trial.run, row, rank);
            drop(&trial);
        }
    }
    sound_case();
}

/* Ranks that part ways inside setup find out instead of waiting for each other. */
static void test_ways_part(void **state)
{
    (void)state;
    if (ranks() < 2)
        skip();
    static const struct {
        enum probe_fault fault;
        const char *text;
    } rows[] = {{PROBE_LEAVES, "not every rank made the same collective call"},
                {PROBE_PARTS, "the ranks see 1 to 2 parts"}};
    for (size_t row = 0; row < 2; row++) {
        struct trial trial = make_trial();
        trial.params.fault = rows[row].fault;
        trial.params.fault_rank = 1;
        measure(&trial);
        if (reporting() && (trial.run.status != CM_CASE_FAILED ||
                            strstr(trial.run.reason, rows[row].text) == NULL))
            fail_msg("%s", trial.run.reason);
        drop(&trial);
    }
    sound_case();
}

static void test_nothing_to_check(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    trial.params.fault = PROBE_UNNEEDED;
    measure(&trial);
    if (reporting()) {
        assert_int_equal(trial.run.status, CM_CASE_OK);
        /* The other ranks did look. */
        assert_string_equal(trial.run.check.nothing, ranks() > 1 ? "" : "the probe moves nothing");
    }
    drop(&trial);
}

static void test_metrics_fail(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    trial.params.fault = PROBE_METRICS;
    measure(&trial);
    if (reporting()) {
        assert_int_equal(trial.run.status, CM_CASE_FAILED);
        assert_string_equal(trial.run.reason, "metrics: the probe cannot compute");
        assert_int_equal(trial.run.metrics.count, 0);
    }
    drop(&trial);
}

static void test_needs_peers(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    trial.item.workload = &probe_pair;
    measure(&trial);
    if (reporting() && ranks() == 1) {
        assert_int_equal(trial.run.status, CM_CASE_SKIPPED);
        assert_non_null(strstr(trial.run.reason, "needs at least two ranks"));
        assert_int_equal(probe_calls.setups, 0);
    } else if (reporting())
        assert_int_equal(trial.run.status, CM_CASE_OK);
    drop(&trial);
}

/* The rank with the least memory left decides, and a share that is too small skips the case. */
static void test_memory(void **state)
{
    (void)state;
    struct trial trial = make_trial();
    uint64_t taken = 4 * 4000 + 4096 * ranks(), share = trial.bench.memory_bytes;
    uint64_t cache = fixture.device->info.cache_bytes;
    uint64_t wanted = cache == 0 ? 64 : (2 * cache + 4095) / 4096;
    measure(&trial);
    assert_true(probe_calls.memory_left == share - taken);
    assert_int_equal(probe_calls.rotation, wanted > 64 ? 64 : wanted);
    drop(&trial);
    trial = make_trial();
    trial.bench.memory_bytes = taken + 4096 * 20; /* a quarter of what is left are 5 sets */
    measure(&trial);
    assert_int_equal(probe_calls.rotation, cache > 0 && wanted < 5 ? wanted : 5);
    drop(&trial);
    trial = make_trial();
    trial.bench.memory_bytes = 5000;
    measure(&trial);
    if (reporting()) {
        assert_int_equal(trial.run.status, CM_CASE_SKIPPED);
        assert_non_null(strstr(trial.run.reason, "needs a buffer of 4000 B"));
        assert_non_null(strstr(trial.run.reason, "1000 B are left"));
    }
    drop(&trial);
}

/* Allocations of this thread until one fails; 0 for never. The linker leads the calls here. */
static _Thread_local unsigned long allocations_left;

static bool starve(void)
{
    if (allocations_left == 0 || --allocations_left > 0)
        return false;
    cm_error(CM_NO_MEMORY, "out of memory: as the test wants it");
    return true;
}

void *__real_cm_alloc(size_t count, size_t size);
void *__wrap_cm_alloc(size_t count, size_t size);
void *__wrap_cm_alloc(size_t count, size_t size)
{
    return starve() ? NULL : __real_cm_alloc(count, size);
}

int __real_cm_grow(void *array, size_t *capacity, size_t needed, size_t size);
int __wrap_cm_grow(void *array, size_t *capacity, size_t needed, size_t size);
int __wrap_cm_grow(void *array, size_t *capacity, size_t needed, size_t size)
{
    return needed > *capacity && starve() ? -1 : __real_cm_grow(array, capacity, needed, size);
}

char *__real_cm_strdup(const char *text);
char *__wrap_cm_strdup(const char *text);
char *__wrap_cm_strdup(const char *text)
{
    return starve() ? NULL : __real_cm_strdup(text);
}

/* A communicator whose ranks could not agree is of no further use. */
static void renew_comm(void)
{
    fixture.ops->close(fixture.comm);
    fixture.comm = NULL;
    assert_ok(fixture.ops->open(fixture.device, &fixture.world, NULL, TIMEOUT_S, &fixture.comm));
}

/* Whichever allocation fails, the case says so, gives all back, and the device is sound after. */
static void test_memory_runs_out(void **state)
{
    (void)state;
    if (ranks() > 1)
        skip();
    unsigned failed = 0, lost = 0;
    for (unsigned long nth = 1;; nth++) {
        struct trial trial = make_trial();
        trial.params.collective = true;
        trial.params.parts = 2;
        allocations_left = nth;
        enum cm_status status = attempt(&trial);
        bool starved = allocations_left == 0;
        allocations_left = 0;
        assert_int_equal(probe_calls.setups, probe_calls.teardowns);
        if (status != CM_OK) {
            assert_int_equal(status, CM_NO_MEMORY);
            renew_comm();
            lost++;
        }
        if (status != CM_OK || trial.run.status != CM_CASE_OK) {
            assert_int_equal(trial.run.status, CM_CASE_FAILED);
            assert_non_null(strstr(trial.run.reason, "out of memory"));
            failed++;
        }
        drop(&trial);
        if (!starved)
            break;
    }
    /* A GPU's operations need no memory of the host's. */
    assert_true(failed > lost && (lost > 0 || !fixture.device->ops->is_host));
    sound_case();
}

/* What hangs ends at its deadline, by name; the process can only end then. A failure before that is
 * what is told. */
static int hang(enum probe_fault fault)
{
    bool breaks = fault == PROBE_BREAKS;
    const char *words = breaks ? "check: the probe broke off" : "warm-up: ";
    struct cm_world alone = {.size = 1, .local_size = 1, .launcher = "none"};
    open_device();
    if (fixture.ops->open(fixture.device, &alone, NULL, 10, &fixture.comm) != CM_OK)
        return 10;
    struct trial trial = make_trial();
    trial.params.fault = fault;
    trial.settings.timeout_s = breaks ? 0.5 : 0.05;
    if (attempt(&trial) != (breaks ? CM_SYSTEM : CM_TIMEOUT))
        return 11;
    if (strncmp(cm_error_text(), words, strlen(words)) != 0)
        return 12;
    if (trial.run.status != CM_CASE_FAILED || strncmp(trial.run.reason, words, strlen(words)) != 0)
        return 13;
    return 0;
}

static void test_hang(void **state)
{
    (void)state;
    if (ranks() > 1)
        skip();
    for (int breaks = 0; breaks < 2; breaks++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) { /* a program of its own: what threads there were stay behind */
            execl("/proc/self/exe", "test_harness", breaks ? "break" : "hang", (char *)NULL);
            _exit(14);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "launch") == 0)
        return launch(argv[0], argv[2], NULL);
    if (argc >= 3 && strcmp(argv[1], "start") == 0)
        return start(argv[0], argv[2], NULL);
    bool breaks = argc == 2 && strcmp(argv[1], "break") == 0;
    if (breaks || (argc == 2 && strcmp(argv[1], "hang") == 0)) /* what hangs keeps its memory */
        _exit(choose_backend("self", "1") ? hang(breaks ? PROBE_BREAKS : PROBE_HANGS) : 77);
    /* A rank that failed must not go on to a test in which the others do not meet it. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (!choose_backend(argc >= 3 ? argv[1] : "self", argc >= 3 ? argv[2] : "1"))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_stop_reasons),
        cmocka_unit_test(test_slowest),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_extend),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_ways_part),
        cmocka_unit_test(test_nothing_to_check),
        cmocka_unit_test(test_metrics_fail),
        cmocka_unit_test(test_needs_peers),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_hang),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_energy),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
