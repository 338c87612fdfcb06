/* The cost model: GPUs and calibrations read, hand-worked times, memory against the schedule's own,
 * and that a fit finds what it was made of. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clustermark/cost.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "test.h"

static struct cm_gpu_catalogue catalogue;

static int load_catalogue(void **state)
{
    (void)state;
    return cm_gpu_catalogue_load(&catalogue) == CM_OK ? 0 : -1;
}

static int release_catalogue(void **state)
{
    (void)state;
    cm_gpu_catalogue_release(&catalogue);
    return 0;
}

/* GPT-3 175B on 64 A100 as Korthikanti et al. ran it (2205.05198, table 5). */
static struct cm_cost_job gpt3_on_a100(void)
{
    return (struct cm_cost_job){.gpu = cm_gpu_find(&catalogue, "A100-80GB"),
                                .layers = 96,
                                .hidden = 12288,
                                .heads = 96,
                                .kv_heads = 96,
                                .head_size = 128,
                                .ffn = 49152,
                                .vocabulary = 51200,
                                .sequence = 2048,
                                .tp = 8,
                                .cp = 1,
                                .pp = 8,
                                .vpp = 3,
                                .dp = 1,
                                .ep = 1,
                                .micro_batches = 64,
                                .micro_batch = 1,
                                .recompute = CM_RECOMPUTE_FULL,
                                .software = CM_SOFTWARE_UNFUSED};
}

/* Every rate as sold, nothing fixed, nothing hidden. */
static void perfect(double *value)
{
    for (int i = 0; i < CM_COST_PARAMETER_COUNT; i++)
        value[i] = 1;
    const int times[] = {CM_COST_gemm_fixed_fused, CM_COST_gemm_fixed_unfused,
                         CM_COST_gemm_fixed_eager, CM_COST_host_fused,
                         CM_COST_host_unfused,     CM_COST_host_eager,
                         CM_COST_tensor_fixed,     CM_COST_fixed,
                         CM_COST_fixed_layer,      CM_COST_network_half,
                         CM_COST_host_spread};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        value[times[i]] = 0;
}

static void gpus_are_found_by_any_name(void **state)
{
    (void)state;
    const struct cm_gpu_spec *gpu = cm_gpu_find(&catalogue, "H100-SXM(p5)");
    assert_non_null(gpu);
    assert_string_equal(gpu->name, "H100");
    assert_near(gpu->half, 989.4e12, 1e-12);
    assert_ptr_equal(cm_gpu_find(&catalogue, "h100-sxm5-80gb"), gpu);
    assert_string_equal(cm_gpu_find(&catalogue, "A100(Ampere)")->name, "A100");
    assert_string_equal(cm_gpu_find(&catalogue, "GB200 NVL72")->name, "GB200");
    assert_string_equal(cm_gpu_find(&catalogue, "A100-40GB")->name, "A100-40GB");
    assert_string_equal(cm_gpu_find(&catalogue, "A100-SXM4-40GB-x")->name, "A100-40GB");
    assert_string_equal(cm_gpu_find(&catalogue, "H100-PCIe")->name, "H100-PCIe");
    assert_null(cm_gpu_find(&catalogue, "A100-PCIe-80GB"));
    assert_null(cm_gpu_find(&catalogue, "H1000"));
    assert_null(cm_gpu_find(&catalogue, "TPUv4"));
    assert_null(cm_gpu_find(&catalogue, ""));
}

/* Narayanan et al. (2104.04473), equation 3: 96 B s l h^2 (1 + s / 6h + V / 16 l h) FLOPs with full
 * recomputation; ours counts the head thrice, not four times, as it is not recomputed. */
static void products_take_their_flops(void **state)
{
    (void)state;
    struct cm_cost_job job = gpt3_on_a100();
    struct cm_step_cost cost;
    double value[CM_COST_PARAMETER_COUNT];
    perfect(value);
    value[CM_COST_bytes_scores] = value[CM_COST_bytes_unfused] = 0;
    cm_step_cost(&job, value, &cost);
    double h = 12288, s = 2048, l = 96, batch = 64, gpus = 64, peak = 312e12;
    double layers = 96 * batch * s * l * h * h / gpus / peak;
    assert_near(cost.gemm, layers, 1e-12);
    assert_near(cost.attention, layers * s / (6 * h), 1e-12);
    assert_near(cost.head - 64 * (2 * 8 * 2048 * 51200.0 / 8 + 6 * 2 * 2048 * h) / 2039e9 / 8,
                6 * batch * s * h * 51200 / gpus / peak, 1e-9);
    assert_near(cost.slots, 64 + 7.0 / 3, 1e-12);
    /* 3 passes of 2 all-reduces of 2 s h bytes over 8 GPUs: 2 (t - 1) / t of them past each GPU. */
    assert_near(cost.tensor, 64 * 12 * 6 * (2 * 2 * s * h) * 7 / 8 / 300e9, 1e-12);
    assert_near(cost.straggler, 0, 1e-12);
}

static void parts_add_up(void **state)
{
    (void)state;
    struct cm_calibration calibration;
    struct cm_step_cost c;
    assert_ok(cm_calibration_load(NULL, &calibration));
    for (int zero = 0; zero <= 3; zero += 3) {
        struct cm_cost_job job = gpt3_on_a100();
        job.dp = 16;
        job.zero = (unsigned)zero;
        job.pp = zero ? 1 : 8;
        job.vpp = zero ? 1 : 3;
        cm_step_cost(&job, calibration.value, &c);
        double sum = c.gemm + c.attention + c.elementwise + c.cast + c.head + c.host + c.tensor +
                     c.context + c.expert + c.overlap + c.stages + c.shards + c.imbalance +
                     c.bubble + c.data + c.optimizer + c.fixed + c.straggler;
        assert_near(sum, c.step, 1e-9);
        assert_true(zero ? c.shards > 0 && c.data == 0 : c.shards == 0 && c.data > 0);
    }
}

/* The whole rule of the pipeline: m t + (p - 1) t / v where all stages are equal. */
static void a_pipeline_idles(void **state)
{
    (void)state;
    struct cm_cost_job job = gpt3_on_a100();
    struct cm_step_cost one, three;
    double value[CM_COST_PARAMETER_COUNT];
    perfect(value);
    job.vocabulary = 1e-9;
    value[CM_COST_stage_visible] = 0;
    job.vpp = 1;
    cm_step_cost(&job, value, &one);
    job.vpp = 3;
    cm_step_cost(&job, value, &three);
    assert_near(one.bubble, 7 * one.micro, 1e-3);
    assert_near(three.bubble * 3, one.bubble, 1e-9);
}

/* SimAI's table of network all-reduces, as the notes of the calibration's data have it: efficiency
 * depends on bytes per node; 16 MiB reach a bit over half, 128 MiB nine tenths. */
static void more_bytes_per_node_go_faster(void **state)
{
    (void)state;
    struct cm_cost_job job = gpt3_on_a100();
    struct cm_calibration calibration;
    struct cm_step_cost few, many;
    assert_ok(cm_calibration_load(NULL, &calibration));
    job.dp = 16;
    cm_step_cost(&job, calibration.value, &few);
    job.dp = 1024;
    cm_step_cost(&job, calibration.value, &many);
    assert_true(many.data > 1.2 * few.data);
    assert_true(many.straggler > few.straggler);
    assert_true(calibration.value[CM_COST_network_half] > 4e6 &&
                calibration.value[CM_COST_network_half] < 30e6);
}

static void calibrations_are_read_back(void **state)
{
    (void)state;
    struct cm_calibration guess, read;
    struct cm_str text = CM_STR_INIT;
    char path[] = "/tmp/clustermark-calibration-XXXXXX.ini";
    cm_calibration_guess(&guess);
    cm_calibration_write(&guess, &text);
    snprintf(path, sizeof path, "/tmp/clustermark-calib-%06ld.ini", (long)clock() % 1000000);
    assert_ok(cm_file_replace(path, text.text, text.length));
    assert_ok(cm_calibration_load(path, &read));
    for (int i = 0; i < CM_COST_PARAMETER_COUNT; i++) {
        assert_near(read.value[i], guess.value[i], 1e-5);
        assert_near(read.spread[i], guess.spread[i], 1e-2);
    }
    const struct {
        const char *text, *message;
    } bad[] = {{"[parameters]\nfixed = 1\n", "is no parameter; write it like"},
               {"[parameters]\nfixed = -1 +- 1\n", "fixed"},
               {"[parameters]\nnothing = 1 +- 1\n", "no parameter 'nothing'"},
               {"[fit]\nrows = 3\n", "0 of the model's"},
               {"[other]\nx = 1\n", "section [other]"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_ok(cm_file_replace(path, bad[i].text, strlen(bad[i].text)));
        assert_status(cm_calibration_load(path, &read), CM_USAGE, bad[i].message);
    }
    remove(path);
    cm_str_release(&text);
    assert_status(cm_calibration_load("no-such", &read), CM_USAGE, "no calibration 'no-such'");
}

/* Steps made by the model with known parameters: the fit comes back to them. */
static void a_fit_finds_its_parameters(void **state)
{
    (void)state;
    struct cm_cost_sample samples[48];
    struct cm_calibration fitted;
    double value[CM_COST_PARAMETER_COUNT];
    size_t count = 0;
    cm_calibration_guess(&fitted);
    memcpy(value, fitted.value, sizeof value);
    value[CM_COST_gemm_ampere] = 0.66;
    value[CM_COST_nvlink_share] = 0.5;
    for (int tp = 1; tp <= 8; tp *= 2)
        for (int b = 1; b <= 4; b *= 2)
            for (int m = 8; m <= 64; m *= 2) {
                struct cm_step_cost cost;
                struct cm_cost_job job = gpt3_on_a100();
                job.tp = tp;
                job.micro_batch = b;
                job.micro_batches = m;
                cm_step_cost(&job, value, &cost);
                samples[count++] =
                    (struct cm_cost_sample){.job = job, .step_s = cost.step, .weight = 1};
            }
    assert_ok(cm_cost_fit_all(samples, count, &fitted));
    assert_near(fitted.value[CM_COST_gemm_ampere], 0.66, 0.03);
    assert_near(fitted.value[CM_COST_nvlink_share], 0.5, 0.2);
    assert_true(fitted.spread[CM_COST_gemm_ampere] < 0.05);
    assert_near(fitted.spread[CM_COST_gemm_hopper],
                cm_cost_parameter_infos[CM_COST_gemm_hopper].spread, 1e-6);
    assert_true(fitted.residual < 0.01);
    assert_int_equal(fitted.rows, count);
    assert_status(cm_cost_fit_all(samples, 0, &fitted), CM_USAGE, "no row");
}

static void doubt_makes_intervals_wider(void **state)
{
    (void)state;
    struct cm_calibration fitted, guess;
    struct cm_cost_job job = gpt3_on_a100();
    assert_ok(cm_calibration_load(NULL, &fitted));
    cm_calibration_guess(&guess);
    assert_true(cm_cost_spread(&job, &guess, 0) > 1.3 * cm_cost_spread(&job, &fitted, 0));
    assert_true(cm_cost_spread(&job, &fitted, 2) > cm_cost_spread(&job, &fitted, 0));
}

/* Bytes on the first stage against those of the schedule that is executed. */
static void memory_is_near_the_schedules(void **state)
{
    (void)state;
    /* An expert's optimizer is shared by the ranks that have it: all of its parameters on each of
     * them with dp = ep, whatever dp is. */
    const struct {
        const char *model, *plan;
        enum cm_recompute recompute;
        uint64_t micro_batches;
    } cases[] = {{"llama3-8b", "dp=1", CM_RECOMPUTE_NONE, 1},
                 {"llama3-8b", "tp=2,sp=1,pp=4", CM_RECOMPUTE_NONE, 8},
                 {"llama3-8b", "tp=2,sp=1,pp=4", CM_RECOMPUTE_SELECTIVE, 8},
                 {"llama3-8b", "tp=4,sp=1,pp=2,dp=2,zero=1", CM_RECOMPUTE_FULL, 4},
                 {"llama3-8b", "tp=2,sp=1,pp=2,cp=2", CM_RECOMPUTE_SELECTIVE, 4},
                 {"llama3-8b", "dp=4,zero=3", CM_RECOMPUTE_FULL, 1},
                 {"mixtral-8x7b", "dp=8,zero=1", CM_RECOMPUTE_FULL, 1},
                 {"mixtral-8x7b", "dp=8,ep=8,zero=1", CM_RECOMPUTE_FULL, 1},
                 {"mixtral-8x7b", "dp=8,ep=2,zero=1", CM_RECOMPUTE_FULL, 1},
                 {"mixtral-8x7b", "dp=8,ep=4,tp=2,sp=1,pp=2,zero=1", CM_RECOMPUTE_FULL, 2},
                 {"mixtral-8x7b", "dp=8,ep=4,zero=3", CM_RECOMPUTE_FULL, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cm_step step;
        struct cm_schedule schedule;
        struct cm_cost_job job;
        struct cm_memory_cost memory;
        uint64_t bytes[CM_USE_COUNT], total;
        cm_step_defaults(&step);
        assert_ok(cm_transformer_load(cases[i].model, 8, &step.model));
        assert_ok(cm_parallel_parse(cases[i].plan, "test", &step.parallel));
        step.micro_batches = cases[i].micro_batches;
        step.micro_batch = 1;
        step.dtype = CM_BF16;
        step.recompute = cases[i].recompute;
        assert_ok(cm_schedule_build(&step, 0, &schedule));
        cm_schedule_memory(&schedule, bytes, &total);
        cm_cost_job_from(&step.model, &step.parallel, cm_gpu_find(&catalogue, "H100"), &job);
        job.micro_batches = (double)step.micro_batches;
        job.recompute = step.recompute;
        cm_memory_cost(&job, &memory);
        /* Logits apart: the schedule keeps them in half alone, others in float as well. */
        double without = (double)(total - bytes[CM_USE_LOGITS]);
        printf("%s, %s: optimizer %.3g of %.3g, all %.3g of %.3g\n", cases[i].model, cases[i].plan,
               memory.optimizer, (double)bytes[CM_USE_OPTIMIZER], memory.total - memory.logits,
               without);
        assert_near(memory.weights, (double)bytes[CM_USE_WEIGHTS], 0.25);
        assert_near(memory.total - memory.logits, without, 0.25);
        assert_near(memory.optimizer, (double)bytes[CM_USE_OPTIMIZER], 0.02);
        cm_schedule_release(&schedule);
    }
}

/* A search needs 50,000 plans a second; slower machines and sanitizers get a tenth. */
static void plans_are_quick(void **state)
{
    (void)state;
    struct cm_calibration calibration;
    struct cm_step_cost cost;
    struct cm_cost_job job = gpt3_on_a100();
    const int plans = 20000;
    double sum = 0;
    assert_ok(cm_calibration_load(NULL, &calibration));
    clock_t begin = clock();
    for (int i = 0; i < plans; i++) {
        job.dp = 1 + i % 64;
        cm_step_cost(&job, calibration.value, &cost);
        sum += cost.step;
    }
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    printf("%.0f plans/s\n", plans / seconds);
    assert_true(sum > 0);
    assert_true(plans / seconds > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpus_are_found_by_any_name),
        cmocka_unit_test(products_take_their_flops),
        cmocka_unit_test(parts_add_up),
        cmocka_unit_test(a_pipeline_idles),
        cmocka_unit_test(more_bytes_per_node_go_faster),
        cmocka_unit_test(calibrations_are_read_back),
        cmocka_unit_test(a_fit_finds_its_parameters),
        cmocka_unit_test(doubt_makes_intervals_wider),
        cmocka_unit_test(memory_is_near_the_schedules),
        cmocka_unit_test(plans_are_quick),
    };
    cm_json_init();
    return cmocka_run_group_tests(tests, load_catalogue, release_catalogue);
}
