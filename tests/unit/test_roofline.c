/*
 * The roofline model: products by their FLOPs, kernels by their bytes, messages by hops and by the
 * links that a group's members have; machines are read from files, and what is wrong in one is
 * told.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clustermark/model.h"
#include "clustermark/roofline.h"
#include "test.h"

/* Round numbers; efficiencies of a half and a quarter. */
static const struct cm_machine machine = {.name = "round",
                                          .bf16_rate = 1e15,
                                          .f32_rate = 1e14,
                                          .flop_efficiency = 0.5,
                                          .memory_rate = 4e12,
                                          .memory_efficiency = 0.25,
                                          .launch_s = 1e-6,
                                          .domain = 8,
                                          .domain_rate = 100e9,
                                          .domain_latency_s = 10e-6,
                                          .network_rate = 10e9,
                                          .network_latency_s = 100e-6};

static struct cm_step step_of(const char *plan)
{
    struct cm_step step;
    cm_step_defaults(&step);
    assert_ok(cm_transformer_load("llama3-405b", 0, &step.model));
    assert_ok(cm_parallel_parse(plan, "test", &step.parallel));
    step.model.tied = true;
    return step;
}

static void test_compute(void **state)
{
    (void)state;
    struct cm_step step = step_of("dp=1");
    struct cm_op op = {.kind = CM_OP_GEMM, .flops = 5e11, .bytes = 1e6};
    assert_near(cm_roofline_time(&machine, &step, 0, &op), 1e-3 + 1e-6, 1e-12);
    op.bytes = 4e9; /* more than the FLOPs take */
    assert_near(cm_roofline_time(&machine, &step, 0, &op), 4e-3 + 1e-6, 1e-12);
    step.dtype = CM_F32;
    assert_near(cm_roofline_time(&machine, &step, 0, &op), 10e-3 + 1e-6, 1e-12);
    op = (struct cm_op){.kind = CM_OP_CLIP_FACTOR};
    assert_near(cm_roofline_time(&machine, &step, 0, &op), 1e-6, 1e-12);
}

static double message(const char *plan, enum cm_op_kind kind, enum cm_group group, double bytes)
{
    struct cm_step step = step_of(plan);
    const struct cm_op op = {.kind = kind, .u.comm.group = group, .bytes = bytes};
    return cm_roofline_time(&machine, &step, 0, &op) - machine.launch_s;
}

static void test_messages(void **state)
{
    (void)state;
    const double gb = 1e9;
    /* In a domain: log2(8) hops there and back, and 2 (n-1)/n of the bytes. */
    assert_near(message("tp=8", CM_OP_ALL_REDUCE, CM_GROUP_TENSOR, gb),
                2 * 3 * 10e-6 + 2 * 7 / 8.0 / 100, 1e-9);
    assert_near(message("tp=8", CM_OP_ALL_GATHER, CM_GROUP_TENSOR, gb), 3 * 10e-6 + 7 / 8.0 / 100,
                1e-9);
    /* One member in each of 16 domains: a port each. */
    assert_near(message("dp=16,tp=8", CM_OP_REDUCE_SCATTER, CM_GROUP_DATA, gb),
                4 * 100e-6 + 15 / 16.0 / 10, 1e-9);
    /* Four in each of 4 domains share four ports. */
    assert_near(message("dp=16,tp=2", CM_OP_REDUCE_SCATTER, CM_GROUP_DATA, gb),
                2 * 10e-6 + 2 * 100e-6 + 15 / 16.0 / 40, 1e-9);
    /* Experts over neighbours; those that have the same experts stand apart. */
    assert_near(message("dp=16,tp=2,ep=4", CM_OP_ALL_GATHER, CM_GROUP_EXPERT, gb),
                2 * 10e-6 + 3 / 4.0 / 100, 1e-9);
    assert_near(message("dp=16,tp=2,ep=4", CM_OP_ALL_GATHER, CM_GROUP_EXPERT_DATA, gb),
                2 * 100e-6 + 3 / 4.0 / 10, 1e-9);
    assert_near(message("cp=4,tp=4", CM_OP_ALL_GATHER, CM_GROUP_CONTEXT, gb),
                10e-6 + 100e-6 + 3 / 4.0 / 20, 1e-9);
    /* The first stage and the last. */
    assert_near(message("pp=4", CM_OP_ALL_REDUCE, CM_GROUP_TIED, gb), 2 * 10e-6 + 1 / 100.0, 1e-9);
    assert_near(message("pp=16", CM_OP_ALL_REDUCE, CM_GROUP_TIED, gb), 2 * 100e-6 + 1 / 10.0, 1e-9);
    /* All of the world. */
    assert_near(message("dp=16,tp=8", CM_OP_ALL_REDUCE, CM_GROUP_WORLD, 8),
                2 * (3 * 10e-6 + 4 * 100e-6) + 2 * 127 / 128.0 * 8 / 80e9, 1e-9);
    /* Stages: neighbours within a domain, and beyond it. */
    assert_near(message("pp=4", CM_OP_SEND, CM_GROUP_FORWARD_OUT, gb), 10e-6 + 1 / 100.0, 1e-9);
    assert_near(message("pp=4,tp=8", CM_OP_RECV, CM_GROUP_BACKWARD_IN, gb), 100e-6 + 1 / 10.0,
                1e-9);
    /* Of 16 members 8 are in the domain: each port takes what goes to the others. */
    assert_near(message("dp=16", CM_OP_ALL_TO_ALL, CM_GROUP_DATA, gb),
                3 * 10e-6 + 100e-6 + 15 / 16.0 * 8 / 15.0 / 10, 1e-9);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_files(void **state)
{
    (void)state;
    char path[64];
    struct cm_machine read;
    const struct {
        const char *text, *message;
    } bad[] = {
        {"[machine]\nbf16_rate = 1\n", ":1: f32_rate is missing or 0"},
        {"[machine]\nbf16_rat = 1\n", ":2: a machine has no 'bf16_rat'; did you mean 'bf16_rate'?"},
        {"[machine]\nmemory_rate = -1\n", "memory_rate"},
        {"[machine]\nflop_efficiency = 1.5\n", "flop_efficiency"},
        {"[model]\nlayers = 1\n", "a machine's file has one section, [machine]"},
        {"[global]\nruns = 1\n[machine]\nlaunch = 1us\n", "one section, [machine]"},
    };
    snprintf(path, sizeof path, "/tmp/cm-machine-%d.ini", (int)getpid());
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(path, bad[i].text);
        assert_status(cm_machine_load(path, &read), CM_USAGE, bad[i].message);
    }
    remove(path);
    assert_status(cm_machine_load("no-such-machine", &read), CM_USAGE,
                  "no machine 'no-such-machine': not a file, not in ./configs/machines");
    const char *const names[] = {"h100", "gb200"};
    for (size_t i = 0; i < 2; i++) {
        assert_ok(cm_machine_load(names[i], &read));
        assert_string_equal(read.name, names[i]);
        assert_true(read.bf16_rate > read.f32_rate && read.memory_bytes > 0);
        assert_true(read.domain_rate > read.network_rate && read.launch_s > 0);
        assert_true(read.network_latency_s > read.domain_latency_s && read.domain >= 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compute),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
