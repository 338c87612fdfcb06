/* A machine from a result: rates by size, what classes of operations take beyond them, and that a
 * step of another plan is then executed in the time that it takes. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/project.h"
#include "clustermark/result.h"
#include "clustermark/roofline.h"
#include "clustermark/virtual_clock.h"
#include "test.h"

static char path[64];

static int remove_result(void **state)
{
    (void)state;
    if (path[0] != '\0')
        remove(path);
    return 0;
}

static void curves_are_read(void **state)
{
    (void)state;
    struct cm_curve curve = {.count = 0};
    assert_near(cm_curve_at(&curve, 8), 0, 0);
    cm_curve_add(&curve, 1024, 8);
    cm_curve_add(&curve, 16, 2);
    cm_curve_add(&curve, 1024, 4);
    assert_int_equal(curve.count, 2);
    assert_near(cm_curve_at(&curve, 1), 2, 0);
    assert_near(cm_curve_at(&curve, 16), 2, 0);
    assert_near(cm_curve_at(&curve, 128), 4, 1e-12); /* half of the way, on logarithms */
    assert_near(cm_curve_at(&curve, 1024), 8, 1e-12);
    assert_near(cm_curve_at(&curve, 1e9), 8, 0);
    for (int i = 0; i < 2 * CM_CURVE_MAX; i++)
        cm_curve_add(&curve, 2000 + i, 1);
    assert_int_equal(curve.count, CM_CURVE_MAX);
}

/* The same sides with a matrix transposed are another product; where it is all there is, it serves.
 */
static void products_have_layouts(void **state)
{
    (void)state;
    static struct cm_machine machine;
    static struct cm_step step;
    struct cm_op op = {.kind = CM_OP_GEMM, .flops = 1e9};
    step.dtype = CM_F32;
    op.u.gemm = (struct cm_gemm_desc){.m = 64, .n = 32, .k = 16, .trans_b = true};
    machine.measured.products[0] =
        (struct cm_measured_product){.dtype = CM_F32, .m = 64, .n = 32, .k = 16, .rate = 1e9};
    machine.measured.product_count = 1;
    assert_near(cm_roofline_time(&machine, &step, 0, &op), 1, 1e-6);
    machine.measured.products[1] = machine.measured.products[0];
    machine.measured.products[1].trans_b = true;
    machine.measured.products[1].rate = 4e9;
    machine.measured.product_count = 2;
    assert_near(cm_roofline_time(&machine, &step, 0, &op), 0.25, 1e-3);
    op.u.gemm.trans_b = false;
    assert_near(cm_roofline_time(&machine, &step, 0, &op), 1, 1e-3);
}

static json_t *cases;

static void add_case(const char *workload, json_t *params, json_t *metrics)
{
    const json_t *like = json_array_get(cases, 0);
    json_t *entry = json_deep_copy(like);
    char name[40];
    snprintf(name, sizeof name, "%s%zu", workload, json_array_size(cases));
    json_object_set_new(entry, "name", json_string(name));
    json_object_set_new(entry, "workload", json_string(workload));
    json_object_set_new(entry, "ranks", json_integer(2));
    json_object_set_new(entry, "params", params);
    json_object_set_new(entry, "metrics", metrics);
    assert_int_equal(json_array_append_new(cases, entry), 0);
}

static void add_metric(json_t *metrics, const char *name, double value, const char *unit)
{
    json_object_set_new(metrics, name,
                        json_pack("{s:f,s:s,s:s,s:i,s:f,s:f}", "value", value, "unit", unit,
                                  "better", "lower", "runs", 1, "minimum", value, "maximum",
                                  value));
}

static json_t *one(const char *name, double value, const char *unit)
{
    json_t *metrics = json_object();
    add_metric(metrics, name, value, unit);
    return metrics;
}

static void add_sweeps(void)
{
    for (int m = 64; m <= 1024; m *= 4)
        add_case("gemm", json_pack("{s:s,s:i,s:i,s:i}", "dtype", "f32", "m", m, "n", m, "k", m),
                 one("flop_rate", 1e11, "FLOP/s"));
    add_case("membw", json_pack("{s:s,s:i}", "op", "triad", "size", 4096),
             one("bandwidth_per_rank", 4e10, "B/s"));
    add_case("membw", json_pack("{s:s,s:i}", "op", "triad", "size", 1 << 24),
             one("bandwidth_per_rank", 1e10, "B/s"));
    add_case("collective", json_pack("{s:s,s:i}", "op", "all_reduce", "size", 1 << 20),
             one("busbw", 5e9, "B/s"));
    json_t *pair = one("bandwidth", 6e9, "B/s");
    add_metric(pair, "latency", 1e-6, "s");
    add_case("sendrecv", json_object(), pair);
}

static struct cm_step step_of(const char *plan, uint64_t layers)
{
    struct cm_step step;
    cm_step_defaults(&step);
    assert_ok(cm_transformer_load("small", layers, &step.model));
    assert_ok(cm_parallel_parse(plan, "test", &step.parallel));
    step.dtype = CM_F32;
    step.micro_batch = 1;
    step.micro_batches = 2;
    return step;
}

static void execute(const struct cm_machine *machine, const char *plan, uint64_t layers,
                    struct cm_virtual_result *result)
{
    const struct cm_virtual_times times = {.time_s = cm_roofline_time, .impl = machine};
    struct cm_step step = step_of(plan, layers);
    struct cm_virtual *program;
    assert_ok(cm_virtual_open(&step, &program));
    assert_ok(cm_virtual_execute(program, &times, NULL, result));
    cm_virtual_close(program);
}

/* As a training step tells where its time went, on the machine `real`. */
static void add_step(const struct cm_machine *real)
{
    struct cm_virtual_result result;
    json_t *metrics = json_object();
    execute(real, "dp=2", 2, &result);
    add_metric(metrics, "layers", 2, "1");
    add_metric(metrics, "step_time", result.step_s, "s");
    add_metric(metrics, "time.no_comm", result.no_comm_s, "s");
    for (int i = 0; i < CM_CLASS_COUNT; i++) {
        char name[64];
        snprintf(name, sizeof name, "op_time.%s", cm_op_class_names[i]);
        if (result.stages[0].class_s[i] > 0) /* events slow it down by a tenth */
            add_metric(metrics, name, 1.1 * result.stages[0].class_s[i], "s");
    }
    cm_virtual_result_release(&result);
    add_case("trainstep",
             json_pack("{s:s,s:s,s:s,s:i,s:i,s:b,s:s,s:i}", "model", "small", "plan", "dp=2",
                       "dtype", "f32", "micro_batches", 2, "micro_batch", 1, "overlap", 1,
                       "recompute", "none", "bucket", 0),
             metrics);
}

static void write_result(const json_t *result)
{
    char *text = NULL;
    assert_ok(cm_json_dump(result, 1, &text));
    snprintf(path, sizeof path, "/tmp/clustermark-machine-%ld.json", (long)getpid());
    assert_ok(cm_file_replace(path, text, strlen(text)));
    cm_free(text);
}

static json_t *open_result(void)
{
    json_t *result = NULL;
    assert_ok(cm_result_load(CM_TEST_FIXTURES "/results/gpus.json", &result));
    cases = json_object_get(result, "cases");
    while (json_array_size(cases) > 1)
        json_array_remove(cases, 1);
    return result;
}

static void a_result_is_a_machine(void **state)
{
    (void)state;
    static const char *const plans[] = {"dp=2,zero=1", "tp=2,sp=1", "pp=2"};
    struct cm_machine read, real;
    json_t *result = open_result();
    add_sweeps();
    json_array_remove(cases, 0);
    write_result(result);
    assert_ok(cm_project_machine(path, &read));
    assert_int_equal(read.domain, 2);
    assert_int_equal(read.measured.product_count, 3);
    assert_near(read.f32_rate, 1e11, 1e-12);
    assert_near(read.bf16_rate, 0, 0);
    assert_near(cm_curve_at(&read.measured.memory, 3 * 4096), 4e10, 1e-12);
    assert_near(cm_curve_at(&read.measured.busbw[CM_ALL_GATHER], 8), 5e9, 1e-12);
    assert_near(read.measured.pair_rate, 6e9, 1e-12);
    real = read;
    real.measured.factor[CM_CLASS_ATTENTION] = 3;
    real.measured.factor[CM_CLASS_GEMM] = 1.25;
    real.measured.factor[CM_CLASS_NORM] = 0.5;
    add_step(&real);
    write_result(result);
    json_decref(result);
    assert_ok(cm_project_machine(path, &read));
    assert_near(read.measured.factor[CM_CLASS_ATTENTION], 3, 1e-6);
    assert_near(read.measured.factor[CM_CLASS_GEMM], 1.25, 1e-6);
    assert_near(read.measured.factor[CM_CLASS_NORM], 0.5, 1e-6);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct cm_virtual_result expected, found;
        execute(&real, plans[i], 4, &expected);
        execute(&read, plans[i], 4, &found);
        assert_near(found.step_s, expected.step_s, 1e-6);
        cm_virtual_result_release(&expected);
        cm_virtual_result_release(&found);
    }
}

static void what_is_no_machine_is_refused(void **state)
{
    (void)state;
    struct cm_machine machine;
    json_t *result = open_result();
    add_case("membw", json_pack("{s:s,s:i}", "op", "triad", "size", 4096),
             one("bandwidth_per_rank", 4e10, "B/s"));
    json_array_remove(cases, 0);
    write_result(result);
    assert_status(cm_project_machine(path, &machine), CM_USAGE, "a machine needs cases of gemm");
    add_sweeps();
    json_object_set_new(json_array_get(cases, 0), "ranks", json_integer(4));
    write_result(result);
    assert_status(cm_project_machine(path, &machine), CM_USAGE, "cases of 2 ranks and of 4");
    json_decref(result);
    assert_status(cm_project_machine("/no/such.json", &machine), CM_USAGE, "/no/such.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(curves_are_read),
        cmocka_unit_test(products_have_layouts),
        cmocka_unit_test(a_result_is_a_machine),
        cmocka_unit_test(what_is_no_machine_is_refused),
    };
    cm_json_init();
    return cmocka_run_group_tests(tests, NULL, remove_result);
}
