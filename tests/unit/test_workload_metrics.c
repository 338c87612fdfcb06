/* From made-up samples to the figures of each workload: formulas, names, which rank counts. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/workload.h"
#include "host/workload/trainstep.h"

enum { RANKS_MAX = 3, PARTS_MAX = 6, SAMPLES = 9 };

/* Parts with SAMPLES iterations on each rank. */
struct made {
    struct cm_part_samples parts[PARTS_MAX];
    double medians[PARTS_MAX][RANKS_MAX], last[PARTS_MAX][RANKS_MAX];
    struct cm_device_info device;
    struct cm_metric_input input;
    struct cm_metrics metrics;
};

static void *params_of(const struct cm_workload *workload, const char *name, const char *value)
{
    void *params = calloc(1, workload->params_size);
    assert_non_null(params);
    assert_ok(cm_option_defaults(workload->options, params));
    if (name != NULL)
        assert_ok(cm_option_set(cm_option_find(workload->options, name), value, "test", params));
    return params;
}

static void begin(struct made *made, unsigned ranks)
{
    memset(made, 0, sizeof *made);
    made->input.ranks = ranks;
    made->input.parts = made->parts;
    made->input.device = &made->device;
}

/* A part in which rank r took `times[r]` each time, and the slowest `median`; a time of 0 stands
 * for a rank that was idle. */
static struct cm_part_samples *add_part(struct made *made, const char *name, double median,
                                        const double *times)
{
    unsigned p = made->input.part_count++;
    struct cm_part_samples *part = &made->parts[p];
    snprintf(part->part.name, sizeof part->part.name, "%s", name);
    part->work.operations = 1;
    part->rank_count = made->input.ranks;
    part->slowest.count = SAMPLES;
    part->rank_median_s = made->medians[p];
    part->rank_last_s = made->last[p];
    part->median_s = median;
    for (unsigned r = 0; r < made->input.ranks; r++)
        made->medians[p][r] = made->last[p][r] = times[r] > 0 ? times[r] : (double)NAN;
    return part;
}

static void compute(struct made *made, const char *workload, const char *option, const char *value)
{
    const struct cm_workload *table = cm_workload_find(workload);
    assert_non_null(table);
    void *params = params_of(table, option, value);
    made->input.params = params;
    assert_ok(table->metrics(&made->input, &made->metrics));
    free(params);
}

static const struct cm_metric *find(const struct made *made, const char *name)
{
    const struct cm_metric *metric = cm_metrics_find(&made->metrics, name);
    if (metric == NULL)
        fail_msg("no metric %s", name);
    return metric;
}

static void expect(const struct made *made, const char *name, double value, const char *unit,
                   enum cm_better better)
{
    const struct cm_metric *metric = find(made, name);
    assert_near(metric->value, value, 1e-12);
    assert_string_equal(metric->unit, unit);
    assert_int_equal(metric->better, better);
}

static void test_gemm(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 2);
    made.device.flop_rate[CM_F32].value = 1000;
    snprintf(made.device.flop_rate[CM_F32].source, 96, "units");
    add_part(&made, "", 5, (double[]){2, 4})->work.flops = 400;
    compute(&made, "gemm", NULL, NULL);
    expect(&made, "flop_rate", 100, "FLOP/s", CM_HIGHER); /* the slowest rank's */
    expect(&made, "flop_rate.rank0", 200, "FLOP/s", CM_HIGHER);
    expect(&made, "flop_rate.rank1", 100, "FLOP/s", CM_HIGHER);
    expect(&made, "time", 4, "s", CM_LOWER);
    assert_true(find(&made, "flop_rate")->ceiling == 1000);
    assert_string_equal(find(&made, "flop_rate")->ceiling_source, "units");
    assert_null(cm_metrics_find(&made.metrics, "flop_rate_sustained"));
    cm_metrics_release(&made.metrics);
}

/* Only the last third of the soak counts. */
static void test_gemm_soak(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 1);
    add_part(&made, "burst", 2, (double[]){2})->work.flops = 400;
    add_part(&made, "sustained", 2, (double[]){2})->work.flops = 400;
    made.last[1][0] = 8;
    compute(&made, "gemm", "soak", "1s");
    expect(&made, "flop_rate", 200, "FLOP/s", CM_HIGHER);
    expect(&made, "flop_rate_sustained", 50, "FLOP/s", CM_HIGHER);
    cm_metrics_release(&made.metrics);
}

static void test_gemm_search(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 1);
    add_part(&made, "64x8x8", 2, (double[]){2})->work.flops = 400;
    add_part(&made, "32x8x8", 0.5, (double[]){0.5})->work.flops = 200;
    compute(&made, "gemm", "search", "quick");
    expect(&made, "flop_rate", 400, "FLOP/s", CM_HIGHER);
    expect(&made, "time", 0.5, "s", CM_LOWER);
    expect(&made, "flop_rate.64x8x8", 200, "FLOP/s", CM_HIGHER);
    expect(&made, "flop_rate.32x8x8", 400, "FLOP/s", CM_HIGHER);
    cm_metrics_release(&made.metrics);
}

/* A shape that the device chose is named. */
static void test_gemm_auto(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 1);
    add_part(&made, "", 2, (double[]){2})->work.flops = 400;
    made.input.observed[0] = made.input.observed[1] = 64;
    made.input.observed[2] = 32;
    compute(&made, "gemm", "n", "64");
    expect(&made, "flop_rate", 200, "FLOP/s", CM_HIGHER);
    expect(&made, "flop_rate.64x64x32", 200, "FLOP/s", CM_HIGHER);
    cm_metrics_release(&made.metrics);
}

/* Joules of an operation: of the best shape, of the soak, of any part. */
static void test_energy(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 1);
    struct cm_part_samples *first = add_part(&made, "64x8x8", 2, (double[]){2});
    struct cm_part_samples *second = add_part(&made, "32x8x8", 0.5, (double[]){0.5});
    first->work.flops = 400;
    second->work.flops = 200;
    first->energy_j = 18;
    second->energy_j = 36;
    compute(&made, "gemm", "search", "quick");
    expect(&made, "energy_per_operation", 4, "J", CM_LOWER);
    cm_metrics_release(&made.metrics);
    compute(&made, "gemm", "soak", "30s");
    expect(&made, "energy_per_operation", 4, "J", CM_LOWER);
    cm_metrics_release(&made.metrics);
    first->work.operations = 2;
    assert_ok(cm_metrics_add_energy(&made.metrics, "x", first));
    expect(&made, "x", 1, "J", CM_LOWER);
    first->energy_j = 0;
    assert_ok(cm_metrics_add_energy(&made.metrics, "y", first));
    assert_null(cm_metrics_find(&made.metrics, "y"));
    cm_metrics_release(&made.metrics);
}

static void test_membw(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 2);
    add_part(&made, "", 9, (double[]){2, 4})->work.bytes = 80;
    compute(&made, "membw", NULL, NULL);
    expect(&made, "bandwidth", 60, "B/s", CM_HIGHER); /* 40 + 20 */
    expect(&made, "bandwidth_per_rank", 20, "B/s", CM_HIGHER);
    expect(&made, "bandwidth.rank0", 40, "B/s", CM_HIGHER);
    cm_metrics_release(&made.metrics);
}

static void test_collective(void **state)
{
    (void)state;
    static const struct {
        const char *op;
        double factor; /* nccl-tests' for three ranks */
    } rows[] = {{"all_reduce", 4.0 / 3},
                {"reduce_scatter", 2.0 / 3},
                {"all_gather", 2.0 / 3},
                {"all_to_all", 2.0 / 3},
                {"broadcast", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct made made;
        begin(&made, 3);
        add_part(&made, "", 2, (double[]){1, 1.5, 1.9})->work.message_bytes = 100;
        compute(&made, "collective", "op", rows[i].op);
        expect(&made, "time", 2, "s", CM_LOWER); /* the slowest rank of each iteration */
        expect(&made, "algbw", 50, "B/s", CM_HIGHER);
        expect(&made, "busbw", 50 * rows[i].factor, "B/s", CM_HIGHER);
        cm_metrics_release(&made.metrics);
    }
}

/* Sizes 64, 1024, 4096: time of the smallest, peak, and half of it between the last two. */
static void test_collective_sweep(void **state)
{
    (void)state;
    const struct cm_workload *workload = cm_workload_find("collective");
    static const char *const sizes[] = {"64", "1KiB", "4KiB"};
    const double times[] = {7e-6, 9e-6, 20e-6}, rates[] = {10, 30, 90};
    struct cm_sweep_point points[3];
    struct cm_metrics given[3] = {{0}}, metrics = {0};
    for (int i = 0; i < 3; i++) {
        points[i].params = params_of(workload, "size", sizes[i]);
        points[i].metrics = &given[i];
        assert_ok(cm_metrics_add(&given[i], "time", times[i], "s", CM_LOWER, NULL));
        assert_ok(cm_metrics_add(&given[i], "busbw", rates[i], "B/s", CM_HIGHER, NULL));
    }
    assert_ok(workload->summarise(points, 3, 2, &metrics));
    assert_near(cm_metrics_find(&metrics, "latency_small")->value, 7e-6, 1e-12);
    assert_near(cm_metrics_find(&metrics, "busbw_peak")->value, 90, 1e-12);
    /* Half of 90 is a quarter of the way from 30 to 90: 1024 * 4^0.25. */
    assert_near(cm_metrics_find(&metrics, "half_peak_size")->value, 1024 * sqrt(2), 1e-9);
    cm_metrics_release(&metrics);
    /* Without small sizes there is no latency, and above half of the peak from the start no size.
     */
    assert_ok(workload->summarise(points + 2, 1, 2, &metrics));
    assert_null(cm_metrics_find(&metrics, "latency_small"));
    assert_null(cm_metrics_find(&metrics, "half_peak_size"));
    cm_metrics_release(&metrics);
    for (int i = 0; i < 3; i++) {
        cm_metrics_release(&given[i]);
        free((void *)(uintptr_t)points[i].params);
    }
}

static void test_sendrecv(void **state)
{
    (void)state;
    static const char *const names[] = {"latency.0-1",   "bandwidth.0-1", "latency.0-2",
                                        "bandwidth.0-2", "latency.1-2",   "bandwidth.1-2"};
    const double medians[] = {4, 10, 6, 20, 20, 5};
    struct made made;
    begin(&made, 3);
    for (int i = 0; i < 6; i++) {
        struct cm_part_samples *part = add_part(&made, names[i], medians[i], (double[]){1, 1, 0});
        part->work.message_bytes = 100;
        part->work.operations = i % 2 == 0 ? 2 : 1;
    }
    compute(&made, "sendrecv", NULL, NULL);
    expect(&made, "latency", 3, "s", CM_LOWER); /* the median of 2, 3 and 10 */
    expect(&made, "latency.1-2", 10, "s", CM_LOWER);
    expect(&made, "bandwidth", 10, "B/s", CM_HIGHER);
    expect(&made, "bandwidth.0-2", 5, "B/s", CM_HIGHER);
    cm_metrics_release(&made.metrics);
}

/* All at once: the slowest device, and what they reach together; its own link is its ceiling. */
static void test_hostlink(void **state)
{
    (void)state;
    struct made made;
    struct cm_telemetry telemetry[2] = {cm_telemetry_unknown, cm_telemetry_unknown};
    telemetry[0].pcie_generation = 5;
    telemetry[1].pcie_generation = 4;
    telemetry[0].pcie_width = telemetry[1].pcie_width = 16;
    begin(&made, 2);
    made.input.telemetry = telemetry;
    add_part(&made, "latency", 9, (double[]){2, 3});
    add_part(&made, "bandwidth", 9, (double[]){5, 10})->work.message_bytes = 100;
    compute(&made, "hostlink", NULL, NULL);
    expect(&made, "bandwidth", 10, "B/s", CM_HIGHER);
    expect(&made, "bandwidth_sum", 30, "B/s", CM_HIGHER);
    expect(&made, "bandwidth.rank0", 20, "B/s", CM_HIGHER);
    expect(&made, "latency", 3, "s", CM_LOWER);
    expect(&made, "latency.rank0", 2, "s", CM_LOWER);
    assert_near(find(&made, "bandwidth")->ceiling, 16e9 * 16 / 8 * 128 / 130, 1e-9);
    assert_non_null(strstr(find(&made, "bandwidth")->ceiling_source, "Gen4 x16"));
    assert_near(find(&made, "bandwidth_sum")->ceiling, 48e9 * 16 / 8 * 128 / 130, 1e-9);
    cm_metrics_release(&made.metrics);
    telemetry[0].pcie_width = (double)NAN;
    compute(&made, "hostlink", NULL, NULL);
    assert_true(find(&made, "bandwidth_sum")->ceiling == 0);
    assert_non_null(strstr(find(&made, "bandwidth_sum")->ceiling_source, "not known"));
    cm_metrics_release(&made.metrics);
}

/* One after the other: each rank's time is in its own part. */
static void test_hostlink_one(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 2);
    add_part(&made, "latency.rank0", 2, (double[]){2, 0});
    add_part(&made, "bandwidth.rank0", 5, (double[]){5, 0})->work.message_bytes = 100;
    add_part(&made, "latency.rank1", 1, (double[]){0, 1});
    add_part(&made, "bandwidth.rank1", 4, (double[]){0, 4})->work.message_bytes = 100;
    compute(&made, "hostlink", "ranks", "one");
    expect(&made, "bandwidth", 20, "B/s", CM_HIGHER);
    expect(&made, "bandwidth.rank1", 25, "B/s", CM_HIGHER);
    expect(&made, "latency", 2, "s", CM_LOWER);
    expect(&made, "latency.rank1", 1, "s", CM_LOWER);
    assert_null(cm_metrics_find(&made.metrics, "bandwidth_sum"));
    assert_true(find(&made, "bandwidth")->ceiling == 0);
    cm_metrics_release(&made.metrics);
}

/* Three devices of six ordered pairs, three of them within reach: those that are not are named. */
static void test_p2p(void **state)
{
    (void)state;
    static const char *const names[] = {"latency.0-1",   "bandwidth.0-1", "latency.1-0",
                                        "bandwidth.1-0", "latency.2-1",   "bandwidth.2-1"};
    const double medians[] = {4, 10, 6, 20, 20, 5};
    struct made made;
    begin(&made, 3);
    for (int i = 0; i < 6; i++)
        add_part(&made, names[i], medians[i], (double[]){1, 1, 0})->work.message_bytes = 100;
    compute(&made, "p2p", NULL, NULL);
    expect(&made, "latency", 6, "s", CM_LOWER);
    expect(&made, "latency.2-1", 20, "s", CM_LOWER);
    expect(&made, "bandwidth", 10, "B/s", CM_HIGHER);
    expect(&made, "bandwidth.1-0", 5, "B/s", CM_HIGHER);
    expect(&made, "unreachable", 3, "1", CM_LOWER);
    expect(&made, "unreachable.0-2", 1, "1", CM_LOWER);
    expect(&made, "unreachable.1-2", 1, "1", CM_LOWER);
    expect(&made, "unreachable.2-0", 1, "1", CM_LOWER);
    assert_null(cm_metrics_find(&made.metrics, "unreachable.0-1"));
    cm_metrics_release(&made.metrics);
}

static void test_overlap(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 2);
    add_part(&made, "compute", 10, (double[]){10, 9});
    add_part(&made, "comm", 8, (double[]){8, 7});
    add_part(&made, "both", 12, (double[]){11, 12});
    made.input.observed[0] = 11.5; /* of the products beside the all_reduce */
    made.input.observed[1] = 12;
    compute(&made, "overlap", NULL, NULL);
    expect(&made, "hidden_fraction", 0.75, "1", CM_HIGHER); /* 2 of 8 are exposed */
    expect(&made, "compute_slowdown", 1.15, "1", CM_LOWER);
    expect(&made, "comm_slowdown", 1.5, "1", CM_LOWER);
    cm_metrics_release(&made.metrics);
}

static void test_launch(void **state)
{
    (void)state;
    struct made made;
    begin(&made, 2);
    add_part(&made, "live", 9, (double[]){2, 4})->work.operations = 1000;
    add_part(&made, "device", 9, (double[]){1, 0.5})->work.operations = 1000;
    compute(&made, "launch", NULL, NULL);
    expect(&made, "time", 0.004, "s", CM_LOWER);
    expect(&made, "time.device", 0.001, "s", CM_LOWER);
    cm_metrics_release(&made.metrics);
}

/* Two ranks in a pipeline; a step of 100 tokens and 4e6 FLOPs (3e6 causal) in 2 s. */
static void begin_trainstep(struct made *made)
{
    begin(made, 2);
    add_part(made, "step", 2, (double[]){2, 1.9})->energy_j = 900; /* 9 iterations */
    add_part(made, "no_comm", 1.5, (double[]){1.5, 1.4});
    double *seen = made->input.observed;
    seen[CM_SEEN_TOKENS] = 100;
    seen[CM_SEEN_FLOPS_FULL] = 4e6;
    seen[CM_SEEN_FLOPS_CAUSAL] = 3e6;
    seen[CM_SEEN_LAYERS] = 4;
    seen[CM_SEEN_ATTENTION_OWN_S] = 0.25;
    seen[CM_SEEN_ATTENTION_LIBRARY_S] = 0.125;
    seen[CM_SEEN_PREDICTED] = 1000;
    seen[CM_SEEN_PEAK] = 1100;
    seen[CM_SEEN_CEILING_S] = 1;
    seen[CM_SEEN_PROFILE_S] = 2.5;
    seen[CM_SEEN_BUBBLE_FORMULA] = 0.2;
    seen[CM_SEEN_BUSY_WORST_S] = 1.2;
    seen[CM_SEEN_BUSY_MEDIAN_S] = 1;
    seen[CM_SEEN_BUSY_RANK] = 1;
    seen[CM_SEEN_WAIT_S + CM_WAIT_DATA] = 0.125;
    seen[CM_SEEN_WAIT_S + CM_WAIT_PIPELINE] = 0.5;
    seen[CM_SEEN_COMM_S + CM_GROUP_DATA] = 0.75;
    seen[CM_SEEN_COMM_S + CM_GROUP_FORWARD_OUT] = 0.25;
    seen[CM_SEEN_PHASE_S + CM_PHASE_BACKWARD] = 0.5;
    seen[CM_SEEN_CLASS_S + CM_CLASS_GEMM] = 0.375;
}

static void test_trainstep(void **state)
{
    (void)state;
    struct made made;
    begin_trainstep(&made);
    made.device.flop_rate[CM_BF16].value = 4e6;
    compute(&made, "trainstep", NULL, NULL);
    expect(&made, "step_time", 2, "s", CM_LOWER);
    expect(&made, "tokens_per_s", 50, "1/s", CM_HIGHER);
    expect(&made, "tokens_per_s_per_gpu", 25, "1/s", CM_HIGHER);
    expect(&made, "model_flop_rate", 1e6, "FLOP/s", CM_HIGHER);
    expect(&made, "mfu_full", 0.25, "1", CM_HIGHER);
    expect(&made, "mfu_causal", 0.1875, "1", CM_HIGHER);
    expect(&made, "ceiling_fraction", 0.5, "1", CM_HIGHER);
    expect(&made, "exposed_comm_time", 0.5, "s", CM_LOWER);
    expect(&made, "exposed_comm_time.waits", 0.625, "s", CM_LOWER);
    expect(&made, "exposed_comm_time.waits_pipeline", 0.5, "s", CM_LOWER);
    expect(&made, "comm_time", 1, "s", CM_LOWER);
    expect(&made, "comm_time.data", 0.75, "s", CM_LOWER);
    expect(&made, "comm_time.pipeline", 0.25, "s", CM_LOWER);
    expect(&made, "hidden_fraction", 0.5, "1", CM_HIGHER);
    expect(&made, "bubble_fraction", 0.2, "1", CM_LOWER);
    expect(&made, "bubble_fraction.formula", 0.2, "1", CM_NEITHER);
    expect(&made, "straggler", 1.2, "1", CM_LOWER);
    expect(&made, "straggler.rank", 1, "1", CM_NEITHER);
    expect(&made, "phase_time.backward", 0.5, "s", CM_LOWER);
    expect(&made, "op_time.gemm", 0.375, "s", CM_LOWER);
    expect(&made, "attention_time.own", 0.25, "s", CM_LOWER);
    expect(&made, "attention_time.cudnn", 0.125, "s", CM_LOWER);
    expect(&made, "peak_memory", 1100, "B", CM_LOWER);
    expect(&made, "memory_predicted", 1000, "B", CM_NEITHER);
    expect(&made, "energy_per_token", 1, "J", CM_LOWER);
    assert_null(cm_metrics_find(&made.metrics, "phase_time.recompute"));
    cm_metrics_release(&made.metrics);
}

/* Without a peak there is no MFU, and the rate says why. */
static void test_trainstep_without_peak(void **state)
{
    (void)state;
    struct made made;
    begin_trainstep(&made);
    made.input.part_count = 1;
    made.input.ranks = 1;
    snprintf(made.device.flop_rate[CM_F32].source, sizeof made.device.flop_rate[0].source,
             "no such units");
    compute(&made, "trainstep", "dtype", "f32");
    expect(&made, "model_flop_rate", 2e6, "FLOP/s", CM_HIGHER);
    const struct cm_metric *rate = cm_metrics_find(&made.metrics, "model_flop_rate");
    assert_true(rate->ceiling == 0);
    assert_string_equal(rate->ceiling_source, "no MFU: no such units");
    assert_null(cm_metrics_find(&made.metrics, "mfu_full"));
    assert_null(cm_metrics_find(&made.metrics, "exposed_comm_time"));
    assert_null(cm_metrics_find(&made.metrics, "straggler"));
    cm_metrics_release(&made.metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),         cmocka_unit_test(test_gemm_soak),
        cmocka_unit_test(test_gemm_search),  cmocka_unit_test(test_membw),
        cmocka_unit_test(test_collective),   cmocka_unit_test(test_collective_sweep),
        cmocka_unit_test(test_sendrecv),     cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_launch),       cmocka_unit_test(test_gemm_auto),
        cmocka_unit_test(test_energy),       cmocka_unit_test(test_hostlink),
        cmocka_unit_test(test_hostlink_one), cmocka_unit_test(test_p2p),
        cmocka_unit_test(test_trainstep),    cmocka_unit_test(test_trainstep_without_peak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
