/*
 * Every workload against its contract, on the CPU at a tiny size: the whole case passes, and one
 * wrong element in any output is found.
 *
 *   test_workloads             one rank; the workloads that need peers run with one where they can
 *   test_workloads launch N    N ranks of itself, by the launch command
 *   test_workloads start N     N ranks of itself, a GPU each
 */
#include "test.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/workload.h"
#include "contract/like_gpu.h"
#include "contract/params.h"
#include "contract/start.h"
#include "host/measure/harness.h"

static struct cm_bench bench;
static const struct cm_device_ops *cpu, *gpu; /* the device, and how it looks to hostlink and p2p */

/* Takes the place of the C library's. When MPI ends it unloads its plugins, and LeakSanitizer can
 * no longer name where their leaks are from, to pass over them. */
int dlclose(void *handle)
{
    (void)handle;
    return 0;
}

/* A tiny case. Sizes are whole multiples of the buffers' alignment, so that no byte of an output is
 * mere padding. */
struct tiny {
    const char *workload, *settings;
    unsigned element; /* bytes of an output's element */
};

static const struct tiny tinies[] = {
    {"gemm", "m=64 n=128 k=64", 4},
    {"gemm", "m=64 n=64 k=192 trans=nt", 4},
    {"gemm", "m=64 n=64 k=64 trans=tn batch=3", 4},
    {"gemm", "m=128 n=64 k=64 trans=tt dtype=bf16", 2},
    {"gemm", "m=64 n=64 k=64 dtype=bf16 out=f32", 4},
    {"gemm", "m=64 n=64 k=64 soak=10ms", 4},
    {"gemm", "m=128 n=64 k=64 search=quick", 4},
    {"gemm", "m=64 n=128 k=64 search=full", 4},
    {"membw", "op=copy size=16KiB dtype=f32", 4},
    {"membw", "op=scale size=16KiB dtype=f32", 4},
    {"membw", "op=scale size=512KiB rotate=no", 8},
    {"membw", "op=add size=16KiB", 8},
    {"membw", "op=triad size=576KiB rotate=no", 8},
    {"membw", "op=triad size=16KiB dtype=f32", 4},
    {"membw", "op=read size=16KiB", 8},
    {"membw", "op=write size=16KiB dtype=f32", 8},
    {"collective", "op=all_reduce size=16KiB", 4},
    {"collective", "op=all_reduce size=512KiB rotate=no", 4},
    {"collective", "op=all_reduce size=16KiB dtype=bf16", 2},
    {"collective", "op=all_reduce size=16KiB dtype=f16", 2},
    {"collective", "op=all_reduce size=16KiB dtype=f64", 8},
    {"collective", "op=all_reduce size=16KiB dtype=i32", 4},
    {"collective", "op=reduce_scatter size=16KiB", 4},
    {"collective", "op=reduce_scatter size=16KiB dtype=bf16 rotate=no", 2},
    {"collective", "op=all_gather size=16KiB dtype=bf16", 2},
    {"collective", "op=all_to_all size=16KiB", 4},
    {"collective", "op=all_to_all size=1MiB dtype=i8 rotate=no", 1},
    {"collective", "op=broadcast size=16KiB", 4},
    {"sendrecv", "size=16KiB latency_size=256 both=yes", 4},
    {"pairs", "size=16KiB both=yes rotate=no", 4},
    {"overlap", "m=64 n=64 k=64 size=16KiB", 4},
    {"overlap", "m=64 n=64 k=64 size=32KiB products=3", 4},
    {"hostlink", "direction=h2d size=16KiB latency_size=256", 4},
    {"hostlink", "direction=d2h size=16KiB ranks=one", 4},
    {"hostlink", "direction=both size=16KiB memory=far", 4},
    {"hostlink", "direction=h2d size=8MiB memory=pageable", 4},
    {"hostlink", "direction=d2h size=16KiB memory=pageable", 4},
    {"trainstep", "dtype=f32", 4},
    {"trainstep", "model=tiny-gpt micro_batches=2 overlap=off", 4},
    {"p2p", "size=16KiB latency_size=256", 4},
    {"p2p", "op=read size=16KiB", 4},
    {"p2p", "engine=kernel op=read size=16KiB both=yes", 4},
    {"p2p", "engine=kernel size=4MiB rotate=no both=yes", 4},
};
/* Right, but with buffers that hold input too, or odd sizes: nothing is damaged on purpose. */
static const struct tiny others[] = {
    {"gemm", "m=1 n=1 k=1", 0},
    {"gemm", "m=33 n=17 k=65 trans=tt", 0},
    {"gemm", "m=3 n=5 k=7 search=full", 0},
    {"membw", "op=copy size=4 dtype=f32", 0},
    {"membw", "op=read size=300004 dtype=f32", 0},
    {"membw", "op=write size=300004 dtype=f32", 0},
    {"membw", "op=triad size=8", 0},
    {"collective", "op=all_reduce size=4", 0},
    {"collective", "op=all_reduce size=70001", 0},
    {"collective", "op=all_reduce size=16KiB in_place=yes", 0},
    {"collective", "op=all_reduce size=16KiB in_place=yes dtype=bf16", 0},
    {"collective", "op=all_reduce size=16KiB in_place=yes dtype=i8", 0},
    {"collective", "op=broadcast size=70001 dtype=i8", 0},
    {"collective", "op=reduce_scatter size=70001 dtype=bf16", 0},
    {"collective", "op=all_gather size=70001 dtype=i8", 0},
    {"collective", "op=all_to_all size=300001 dtype=f64", 0},
    {"sendrecv", "size=70000 latency_size=4", 0},
    {"pairs", "size=70000 rounds=2", 0},
    {"overlap", "m=33 n=17 k=65 size=70001", 0},
    {"launch", "operations=10", 0},
    {"trainstep", "model=tiny-moe recompute=full", 0},
    {"trainstep", "layers=2 sequence=32 micro_batch=2 recompute=selective", 0},
    {"trainstep", "layers=fit stochastic=on", 0},
    {"gemm", "m=0 n=64 k=64", 0},
    {"hostlink", "direction=both size=70000 latency_size=70004", 0},
    {"p2p", "engine=kernel size=70000 latency_size=4", 0},
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* --- a case with a spy in it ------------------------------------------------------------------ */

/* What the spy does just before the check: damage one element of output `output` on rank `rank`. */
struct damage {
    bool on;
    unsigned rank;
    size_t output;
    uint64_t place; /* taken modulo what there is */
    enum { DAMAGE_SIGN, DAMAGE_NAN } kind;
    unsigned element;
    bool done;
};
static struct {
    const struct cm_workload *real;
    struct cm_context *context;
    uint64_t iterations;
    size_t outputs; /* that the workload declared */
    uint64_t output_bytes;
    struct damage damage;
} spy;

/* How many sets of buffers there are, of so many bytes each. */
static uint64_t sets_of(uint64_t bytes)
{
    uint64_t sets = (2 * bench.device->info.cache_bytes + bytes - 1) / bytes;
    return sets < 2 ? 2 : sets > 64 ? 64 : sets;
}

static enum cm_status spy_setup(struct cm_context *context, const void *params, void *state)
{
    enum cm_status status = spy.real->setup(context, params, state);
    spy.context = context;
    spy.outputs = context->hidden->output_count;
    spy.output_bytes = spy.outputs > 0 ? context->hidden->outputs[0].size_bytes : 0;
    return status;
}

/* The host may not be able to reach the memory itself. */
static void move(void *to, const void *from, size_t size)
{
    struct cm_context *context = spy.context;
    assert_ok(context->device->ops->copy(context->stream, to, from, size));
    assert_ok(cm_context_sync(context));
}

static enum cm_status spy_check(void *state, unsigned part, uint64_t iterations,
                                struct cm_check *check)
{
    unsigned char before[8], after[8];
    struct damage *damage = &spy.damage;
    bool mine =
        damage->on && spy.context->comm->rank == damage->rank && damage->output < spy.outputs;
    if (!mine)
        return spy.real->check(state, part, iterations, check);
    const struct cm_output *output = &spy.context->hidden->outputs[damage->output];
    /* Multiples of 64 bytes hold a result in each workload, whatever its type. */
    uint64_t places = output->size_bytes / 64;
    unsigned char *at = (unsigned char *)output->memory;
    at += places > 0 ? damage->place % places * 64 : 0;
    move(before, at, damage->element);
    memcpy(after, before, damage->element);
    if (damage->kind == DAMAGE_SIGN)
        after[damage->element - 1] ^= 0x80;
    else
        memset(after, 0xff, damage->element);
    move(at, after, damage->element);
    damage->done = true;
    enum cm_status status = spy.real->check(state, part, iterations, check);
    move(at, before, damage->element);
    return status;
}

static bool wants_gpu(const char *workload)
{
    return strcmp(workload, "hostlink") == 0 || strcmp(workload, "p2p") == 0;
}

/* Measures a tiny case. All sets of buffers are used. */
static void measure(const struct tiny *tiny, unsigned needs_mask, struct cm_case_run *run)
{
    spy.real = cm_workload_find(tiny->workload);
    assert_non_null(spy.real);
    struct cm_workload workload = *spy.real;
    workload.needs &= needs_mask;
    workload.setup = spy_setup;
    workload.check = spy_check;
    void *params = calloc(1, workload.params_size);
    assert_non_null(params);
    set_params(&workload, tiny->settings, params);
    if (workload.validate != NULL)
        assert_ok(workload.validate(params, "test"));
    char name[] = "tiny", where[] = "test";
    struct cm_case item = {
        .name = name, .section = name, .workload = &workload, .params = params, .where = where};
    item.settings = (struct cm_run_settings){.runs = 1,
                                             .warmup_iterations = 1,
                                             .min_iterations = spy.iterations,
                                             .max_iterations = spy.iterations,
                                             .max_time_s = 30,
                                             .precision = 1,
                                             .drift = 1,
                                             .timeout_s = 30,
                                             .seed = 7};
    bench.device->ops = wants_gpu(tiny->workload) ? gpu : cpu;
    assert_ok(cm_measure_case(&bench, &item, 0, run));
    bench.device->ops = cpu;
    free(params);
}

static bool possible(const struct tiny *tiny)
{
    /* One rank has no pairs; the other workloads run with one as well. */
    return bench.comm->size > 1 ||
           (strcmp(tiny->workload, "sendrecv") != 0 && strcmp(tiny->workload, "p2p") != 0 &&
            strcmp(tiny->workload, "pairs") != 0);
}

static void expect_ok(const struct tiny *tiny)
{
    struct cm_case_run run = {0};
    if (!possible(tiny))
        return;
    spy.damage.on = false;
    measure(tiny, 0, &run);
    if (bench.comm->rank == 0) {
        if (run.status != CM_CASE_OK)
            fail_msg("%s %s: %s: %s", tiny->workload, tiny->settings,
                     cm_case_status_names[run.status], run.reason);
        assert_true(run.check.checked > 0 || run.check.nothing[0] != '\0');
        assert_int_equal(run.check.mismatches, 0);
        const struct cm_metric *headline =
            cm_metrics_find(&run.metrics, cm_workload_find(tiny->workload)->headline);
        assert_non_null(headline);
        for (size_t i = 0; i < run.metrics.count; i++) {
            if (!isfinite(run.metrics.items[i].value))
                fail_msg("%s %s: %s is %g", tiny->workload, tiny->settings,
                         run.metrics.items[i].name, run.metrics.items[i].value);
        }
    }
    cm_case_run_release(&run);
}

static void test_right_results_pass(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(tinies); i++)
        expect_ok(&tinies[i]);
    for (size_t i = 0; i < COUNT(others); i++)
        expect_ok(&others[i]);
}

/* A rank that holds the data itself declares no output: the root of a broadcast. */
static bool has_output(const struct tiny *tiny, unsigned rank)
{
    return strstr(tiny->settings, "broadcast") == NULL || rank > 0;
}

static void expect_wrong(const struct tiny *tiny, const struct damage *damage)
{
    struct cm_case_run run = {0};
    spy.damage = *damage;
    measure(tiny, 0, &run);
    if (bench.comm->rank == damage->rank)
        assert_true(spy.damage.done);
    if (bench.comm->rank == 0) {
        if (run.status != CM_CASE_WRONG)
            fail_msg("%s %s: output %zu place %llu kind %d on rank %u: %s", tiny->workload,
                     tiny->settings, damage->output, (unsigned long long)damage->place,
                     (int)damage->kind, damage->rank, cm_case_status_names[run.status]);
        assert_true(run.check.mismatches > 0);
        assert_true(run.check.detail[0] != '\0');
    }
    cm_case_run_release(&run);
}

static void test_one_wrong_element_is_found(void **state)
{
    (void)state;
    uint64_t random = 12345;
    for (size_t i = 0; i < COUNT(tinies); i++) {
        const struct tiny *tiny = &tinies[i];
        size_t outputs = strcmp(tiny->workload, "overlap") == 0             ? 2
                         : strcmp(tiny->workload, "sendrecv") == 0          ? 2
                         : strstr(tiny->settings, "direction=both") != NULL ? 2
                                                                            : 1;
        unsigned rank = (unsigned)i % bench.comm->size;
        if (!has_output(tiny, rank))
            rank = bench.comm->size - 1;
        for (size_t output = 0; possible(tiny) && output < outputs; output++) {
            if (!has_output(tiny, rank))
                continue;
            struct damage damage = {
                .on = true, .rank = rank, .output = output, .element = tiny->element};
            random = random * 6364136223846793005u + 1442695040888963407u;
            damage.place = random >> 20;
            if (strcmp(tiny->workload, "trainstep") == 0) /* 8 bytes for each iteration */
                damage.place %= (spy.iterations + 7) / 8;
            damage.kind = DAMAGE_SIGN;
            expect_wrong(tiny, &damage);
            /* Integers know no NAN; all bits set is -1 there, which may be right. */
            damage.place = 0;
            damage.kind = DAMAGE_NAN;
            if (strstr(tiny->settings, "dtype=i") == NULL)
                expect_wrong(tiny, &damage);
        }
    }
}

/* The last set counts when it was used, and only then. */
static void test_used_sets_are_checked(void **state)
{
    (void)state;
    const uint64_t all = spy.iterations, sets = sets_of(2 * 4096);
    const struct tiny tiny = {"membw", "op=copy size=4KiB", 8};
    for (uint64_t iterations = sets - 1; iterations <= sets; iterations++) {
        struct cm_case_run run = {0};
        spy.damage =
            (struct damage){.on = true, .place = (sets - 1) * 64, .kind = DAMAGE_NAN, .element = 8};
        spy.iterations = iterations;
        measure(&tiny, 0, &run);
        spy.iterations = all;
        if (bench.comm->rank == 0)
            assert_int_equal(run.status, iterations == sets ? CM_CASE_WRONG : CM_CASE_OK);
        cm_case_run_release(&run);
    }
}

/* However small the matrices: all sets together are twice the cache, A, B and C a third each. */
static void test_small_products_are_not_served_by_the_cache(void **state)
{
    (void)state;
    const struct tiny tiny = {"gemm", "m=64 n=64 k=64", 4};
    const uint64_t cache_bytes = bench.device->info.cache_bytes, large = 64 * cache_bytes;
    struct cm_case_run run = {0};
    spy.damage.on = false;
    bench.device->info.cache_bytes = large;
    measure(&tiny, 0, &run);
    bench.device->info.cache_bytes = cache_bytes;
    if (bench.comm->rank == 0)
        assert_int_equal(run.status, CM_CASE_OK);
    assert_true(3 * spy.output_bytes >= 2 * large);
    assert_true(3 * spy.output_bytes <= 3 * large);
    cm_case_run_release(&run);
}

/* Needs of the device that it has not: skipped with a reason, not failed. */
static void test_skips_say_why(void **state)
{
    (void)state;
    const struct tiny too_large = {"membw", "op=write size=1e15", 0};
    struct cm_case_run run = {0};
    spy.damage.on = false;
    measure(&too_large, 0, &run);
    if (bench.comm->rank == 0) {
        assert_int_equal(run.status, CM_CASE_SKIPPED);
        assert_non_null(strstr(run.reason, "memory"));
    }
    cm_case_run_release(&run);
    if (bench.comm->size > 1) {
        const struct tiny too_small = {"collective", "op=all_gather size=4", 0};
        run = (struct cm_case_run){0};
        measure(&too_small, 0, &run);
        if (bench.comm->rank == 0) {
            assert_int_equal(run.status, CM_CASE_SKIPPED);
            assert_non_null(strstr(run.reason, "ranks"));
        }
    } else {
        const struct tiny alone = {"collective", "", 0};
        run = (struct cm_case_run){0};
        measure(&alone, ~0u, &run);
        assert_int_equal(run.status, CM_CASE_SKIPPED);
    }
    cm_case_run_release(&run);
}

/* What a host has no use for, and kernels that the CPU has not. */
static void test_cpu_skips(void **state)
{
    (void)state;
    static const struct {
        const char *workload, *settings, *reason;
    } rows[] = {{"hostlink", "", "the cpu device is the host"},
                {"p2p", "", "cpu ranks share the host's memory"},
                {"gemm", "dtype=bf16 m=64 n=64 k=64 impl=own", "no kernel of our own"}};
    const struct cm_device_ops *other = gpu;
    if (!cpu->is_host)
        skip();
    gpu = cpu;
    spy.damage.on = false;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct cm_case_run run = {0};
        measure(&(struct tiny){rows[i].workload, rows[i].settings, 0}, 0, &run);
        if (bench.comm->rank == 0) {
            assert_int_equal(run.status, CM_CASE_SKIPPED);
            assert_non_null(strstr(run.reason, rows[i].reason));
        }
        cm_case_run_release(&run);
    }
    gpu = other;
}

/* Rank 1's memory is out of reach: pairs that write to it are named, the others measured. */
static void test_unreachable_peers(void **state)
{
    (void)state;
    const struct tiny tiny = {"p2p", "size=16KiB", 0};
    struct cm_case_run run = {0};
    unsigned ranks = bench.comm->size;
    if (ranks < 3 || !cpu->is_host)
        skip();
    spy.damage.on = false;
    like_gpu_hide(1, (int)bench.comm->rank);
    measure(&tiny, 0, &run);
    if (bench.comm->rank == 0) {
        assert_int_equal(run.status, CM_CASE_OK);
        assert_true(cm_metrics_find(&run.metrics, "unreachable")->value == ranks - 1);
        assert_non_null(cm_metrics_find(&run.metrics, "unreachable.0-1"));
        assert_non_null(cm_metrics_find(&run.metrics, "unreachable.2-1"));
        assert_null(cm_metrics_find(&run.metrics, "bandwidth.0-1"));
        assert_non_null(cm_metrics_find(&run.metrics, "bandwidth.1-0"));
        assert_non_null(cm_metrics_find(&run.metrics, "bandwidth.0-2"));
    }
    cm_case_run_release(&run);
    assert_int_equal(like_gpu_imports, 0);
    like_gpu_hide(0, 0);
    run = (struct cm_case_run){0};
    measure(&tiny, 0, &run);
    if (bench.comm->rank == 0) {
        assert_int_equal(run.status, CM_CASE_SKIPPED);
        assert_non_null(strstr(run.reason, "none of the 3 devices"));
    }
    cm_case_run_release(&run);
    like_gpu_hide(-1, 0);
}

static enum cm_status open_bench(void)
{
    struct cm_world world;
    enum cm_status status = cm_world_from_environment(&world);
    const struct cm_device_ops *device = cm_device_default();
    const struct cm_device_config config = {.threads = 1,
                                            .index = device->is_host ? 0 : world.local_rank,
                                            .memory_bytes = (uint64_t)2 << 30};
    if (status == CM_OK)
        status = device->open(&config, &bench.device);
    if (status != CM_OK)
        return status;
    const struct cm_comm_ops *ops = cm_comm_find(cm_comm_default(device, world.size));
    if (ops == NULL)
        return cm_error(CM_UNSUPPORTED, "no communication for %u ranks", world.size);
    cpu = bench.device->ops;
    gpu = cpu->is_host ? like_gpu(cpu) : cpu;
    bench.memory_bytes = bench.device->info.memory_bytes;
    /* Few sets, and soon used all. */
    if (bench.device->info.cache_bytes > (uint64_t)512 << 10)
        bench.device->info.cache_bytes = (uint64_t)512 << 10;
    bench.time_limit_s = (double)INFINITY;
    spy.iterations = sets_of(16 << 10); /* the least that a tiny case has in a set */
    return ops->open(bench.device, &world, NULL, 30, &bench.comm);
}

/* Returns only when ranks cannot be started: 77 where MPI is missing. */
static int launch(char *program, const char *ranks)
{
    struct cm_launch command;
    char reason[160];
    const char *argv[CM_LAUNCH_ARGS_MAX + 2];
    size_t count = 0;
    const struct cm_comm_ops *mpi = cm_comm_find("mpi");
    if (mpi == NULL || !mpi->available(reason, sizeof reason) ||
        cm_launch_command((unsigned)atoi(ranks), &command) != CM_OK) {
        printf("skipped: %s\n", mpi != NULL ? cm_error_text() : "built without MPI");
        return 77;
    }
    for (; command.argv[count] != NULL; count++)
        argv[count] = command.argv[count];
    argv[count++] = program;
    argv[count] = NULL;
    for (size_t i = 0; command.environment[i] != NULL; i += 2)
        setenv(command.environment[i], command.environment[i + 1], 1);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    perror(argv[0]);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "launch") == 0)
        return launch(argv[0], argv[2]);
    if (argc == 3 && strcmp(argv[1], "start") == 0)
        return start_ranks(argv[0], (unsigned)atoi(argv[2]), (const char *[]){NULL});
    if (open_bench() != CM_OK) {
        fprintf(stderr, "test_workloads: %s\n", cm_error_text());
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_results_pass),
        cmocka_unit_test(test_one_wrong_element_is_found),
        cmocka_unit_test(test_used_sets_are_checked),
        cmocka_unit_test(test_small_products_are_not_served_by_the_cache),
        cmocka_unit_test(test_skips_say_why),
        cmocka_unit_test(test_cpu_skips),
        cmocka_unit_test(test_unreachable_peers),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    bench.comm->ops->close(bench.comm);
    bench.device->ops->close(bench.device);
    return failures;
}
