/*
 * Whole training steps: against vectors that were computed elsewhere in float64, and every parallel
 * plan against one rank that does all of it alone.
 *
 *   test_trainstep               one rank
 *   test_trainstep launch N      N ranks of `test_trainstep mpi N`, by the launch command
 *   test_trainstep start N       N ranks of `test_trainstep nccl N`, a GPU each
 */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "contract/comm_fixture.h"
#include "contract/params.h"
#include "contract/step_fixture.h"
#include "contract/step_plans.h"
#include "host/workload/trainstep.h"
#include "train_oracle.h"

#define SEED 20240607

extern const struct cm_workload cm_workload_trainstep;

static struct ground ground, alone_ground; /* all ranks; this one by itself */
static struct cm_comm *alone;

static const char *const models[] = {"tiny", "tiny-gpt", "tiny-moe"};
#define MODELS (sizeof models / sizeof *models)

/* ---- one rank ---- */

static struct cm_step single_step(const char *model, enum cm_dtype dtype)
{
    struct cm_step step;
    cm_step_defaults(&step);
    assert_ok(cm_transformer_load(model, 0, &step.model));
    assert_ok(cm_parallel_parse("dp=1", "test", &step.parallel));
    step.micro_batches = 4;
    step.micro_batch = 2;
    step.dtype = dtype;
    step.learning_rate = 1e-3F;
    return step;
}

static void check_oracle(const char *model, enum cm_dtype dtype, double tolerance)
{
    struct oracle oracle;
    struct bed bed;
    struct tables gradients;
    oracle_load(model, &oracle);
    assert_int_equal(oracle.base_seed, SEED);
    struct cm_step step = single_step(model, dtype);
    step.micro_batches = oracle.micro_batches;
    step.micro_batch = oracle.micro_batch;
    step.learning_rate = (float)oracle.learning_rate;
    step.beta1 = (float)oracle.beta1;
    step.beta2 = (float)oracle.beta2;
    step.epsilon = (float)oracle.epsilon;
    step.weight_decay = (float)oracle.weight_decay;
    step.clip = (float)oracle.clip;
    make_bed(&alone_ground, &step, &bed);
    struct outcome outcome = run_step(&bed, 1, CM_EXTENT_GRADIENTS);
    assert_near((double)outcome.loss, oracle.losses[0], tolerance);
    assert_near((double)outcome.square, oracle.squares, 2 * tolerance);
    collect_gradients(&bed, &gradients);
    assert_int_equal(gradients.count, oracle.parameter_count);
    for (size_t i = 0; i < gradients.count; i++) {
        const struct table *table = &gradients.items[i];
        const struct oracle_parameter *wanted = oracle_find(&oracle, table->name);
        assert_int_equal(table->count, wanted->count);
        /* One element may be off by so much of the norm of all. */
        double scale = sqrt((double)wanted->count);
        double error = oracle_error(wanted, 0, table->count, table->values) / scale;
        double total = oracle_total_error(wanted, table->values);
        if (!(error <= tolerance) || !(total <= 20 * tolerance))
            fail_msg("%s %s: the gradient of %s is off by %.3g of its norm, in all by %.3g", model,
                     cm_dtype_name(dtype), table->name, error, total);
    }
    restart(&bed);
    for (uint32_t number = 1; number <= ORACLE_STEPS; number++) {
        outcome = run_step(&bed, number, CM_EXTENT_STEP);
        assert_near((double)outcome.loss, oracle.losses[number - 1], tolerance);
    }
    drop_bed(&bed);
    drop_tables(&gradients);
    oracle_release(&oracle);
}

static void test_oracle(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        check_oracle(models[i], CM_F32, 1e-5);
        check_oracle(models[i], CM_BF16, 2e-2);
    }
}

static void test_learns(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct cm_step step = single_step(models[i], i % 2 == 0 ? CM_BF16 : CM_F32);
        struct bed bed;
        make_bed(&alone_ground, &step, &bed);
        double first = (double)run_step(&bed, 1, CM_EXTENT_STEP).loss, last = first;
        double guess = log((double)step.model.vocabulary);
        assert_true(fabs(first - guess) < 0.1 * guess);
        for (uint32_t number = 2; number <= 10; number++) {
            double loss = (double)run_step(&bed, number, CM_EXTENT_STEP).loss;
            if (!(loss < last))
                fail_msg("%s: loss %g after %g in step %u", models[i], loss, last, number);
            last = loss;
        }
        assert_true(last < first - 0.5);
        drop_bed(&bed);
    }
}

/* ---- products of 8-bit floats ---- */

/* One rounding of F8E4M3 is off by up to 2^-4, of F8E5M2 by 2^-3, about a third of that in the
 * mean; what is summed over many tokens, less. */
#define FP8_LOSS     0.01
#define FP8_GRADIENT 0.12
#define FP8_ROUTED   0.25 /* some tokens choose other experts */

static double distance(const struct table *a, const struct table *b)
{
    double sum = 0;
    assert_int_equal(a->count, b->count);
    for (uint64_t i = 0; i < a->count; i++) {
        double difference = (double)a->values[i] - (double)b->values[i];
        sum += difference * difference;
    }
    return sqrt(sum) / norm_of(b);
}

/* Loss and gradients against those in f32; then ten steps, of which each lowers the loss. */
static void check_fp8(const char *model)
{
    struct tables gradients[2];
    struct outcome outcomes[2];
    struct bed bed;
    double worst = 0;
    for (int fp8 = 0; fp8 < 2; fp8++) {
        struct cm_step step = single_step(model, fp8 ? CM_BF16 : CM_F32);
        step.fp8 = fp8 != 0;
        make_bed(&alone_ground, &step, &bed);
        outcomes[fp8] = run_step(&bed, 1, CM_EXTENT_GRADIENTS);
        collect_gradients(&bed, &gradients[fp8]);
        if (fp8 == 0)
            drop_bed(&bed);
    }
    assert_near((double)outcomes[1].loss / (double)outcomes[0].loss, 1, FP8_LOSS);
    for (size_t i = 0; i < gradients[1].count; i++) {
        const struct table *table = &gradients[1].items[i];
        const struct table *exact = find_table(&gradients[0], table->name);
        assert_non_null(exact);
        double error = distance(table, exact);
        worst = error > worst ? error : worst;
        if (!(error <= (bed.schedule.step.model.experts > 0 ? FP8_ROUTED : FP8_GRADIENT)))
            fail_msg("%s: the gradient of %s is off by %.3g of its norm", model, table->name,
                     error);
    }
    assert_true(worst > 0.02); /* they are no products of bf16 */
    restart(&bed);
    double first = (double)run_step(&bed, 1, CM_EXTENT_STEP).loss, last = first;
    for (uint32_t number = 2; number <= 10; number++) {
        double loss = (double)run_step(&bed, number, CM_EXTENT_STEP).loss;
        if (!(loss < last))
            fail_msg("%s: loss %g after %g in step %u", model, loss, last, number);
        last = loss;
    }
    assert_true(last < first - 0.5);
    drop_bed(&bed);
    drop_tables(&gradients[0]);
    drop_tables(&gradients[1]);
}

/* Old GPUs have no such products. */
static bool has_fp8(void)
{
    const struct cm_gemm_desc desc = {.dtype = CM_F8E4M3,
                                      .out_dtype = CM_BF16,
                                      .m = 64,
                                      .n = 64,
                                      .k = 64,
                                      .batch = 1,
                                      .trans_b = true,
                                      .scaled = true};
    struct cm_gemm *gemm = NULL;
    struct cm_device *device = fixture.device;
    if (device->kernels->gemm_plan(device, &desc, &gemm) == CM_UNSUPPORTED)
        return false;
    assert_non_null(gemm);
    device->kernels->gemm_free(gemm);
    return true;
}

static void test_fp8(void **state)
{
    (void)state;
    struct cm_trainstep_params params;
    for (size_t i = 0; i < MODELS && has_fp8(); i++)
        check_fp8(models[i]);
    set_params(&cm_workload_trainstep, "compute=fp8 dtype=f32", &params);
    assert_status(cm_trainstep_validate(&params, "x.ini:3"), CM_USAGE, "dtype = bf16");
    set_params(&cm_workload_trainstep, "compute=fp8 gelu=fused", &params);
    assert_status(cm_trainstep_validate(&params, "x.ini:3"), CM_USAGE, "gelu = fused");
}

/* What is computed again is the same in bits. */
static void test_recomputed(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * MODELS; i++) {
        struct outcome outcomes[3];
        for (unsigned recompute = 0; recompute < 3; recompute++) {
            struct cm_step step = single_step(models[i / 2], CM_BF16);
            step.fp8 = i % 2 != 0 && has_fp8();
            struct bed bed;
            step.recompute = (enum cm_recompute)recompute;
            make_bed(&alone_ground, &step, &bed);
            run_step(&bed, 1, CM_EXTENT_STEP);
            outcomes[recompute] = run_step(&bed, 2, CM_EXTENT_STEP);
            drop_bed(&bed);
        }
        assert_memory_equal(&outcomes[0], &outcomes[1], sizeof outcomes[0]);
        assert_memory_equal(&outcomes[0], &outcomes[2], sizeof outcomes[0]);
    }
}

/* ---- memory ---- */

static enum cm_status build_within(const char *settings, uint64_t limit, struct cm_step *step,
                                   struct cm_schedule *schedule)
{
    struct cm_trainstep_params params;
    uint64_t before = alone_ground.hidden.limit_bytes;
    set_params(&cm_workload_trainstep, settings, &params);
    alone_ground.hidden.limit_bytes = limit;
    enum cm_status status = cm_trainstep_build(&alone_ground.context, &params, step, schedule);
    alone_ground.hidden.limit_bytes = before;
    return status;
}

static void test_what_fits(void **state)
{
    (void)state;
    struct cm_step step;
    struct cm_schedule schedule = {0};
    assert_status(build_within("micro_batch=8", 5000000, &step, &schedule), CM_NO_MEMORY,
                  "these would fit: plan = dp=1 recompute = ");
    assert_non_null(strstr(cm_error_text(), "activations"));
    assert_non_null(strstr(cm_error_text(), "micro_batch = "));
    /* What one rank cannot hold: a slice of it, or more ranks. */
    assert_status(build_within("", 2500000, &step, &schedule), CM_NO_MEMORY, " layers = ");
    assert_status(build_within("", 1000000, &step, &schedule), CM_NO_MEMORY,
                  " ranks of this memory with plan = ");
    assert_null(schedule.ops);
    assert_status(build_within("", 1000, &step, &schedule), CM_NO_MEMORY, "nothing that was tried");
    /* More memory, more layers; never more bytes than there are. */
    uint64_t layers = 0, bytes, uses[CM_USE_COUNT];
    for (uint64_t limit = 2000000; limit < 6000000; limit += 500000) {
        assert_ok(build_within("layers=fit", limit, &step, &schedule));
        assert_true(step.model.layers >= layers && step.model.layers <= 4);
        cm_schedule_memory(&schedule, uses, &bytes);
        assert_true(bytes < limit);
        layers = step.model.layers;
        cm_schedule_release(&schedule);
    }
    assert_int_equal(layers, 4);
    assert_int_equal(step.model.real_layers, 4);
    assert_status(build_within("layers=fit", 500000, &step, &schedule), CM_UNSUPPORTED, "needs");
    if (fixture.device->ops->is_host)
        assert_status(build_within("on=gpu", 6000000, &step, &schedule), CM_UNSUPPORTED,
                      "for GPUs");
    assert_status(build_within("plan=dp=2", 6000000, &step, &schedule), CM_UNSUPPORTED,
                  "for 2 ranks");
}

/* ---- a plan against one rank that does all ---- */

struct reference {
    struct cm_step step;
    bool made;
    struct tables gradients;
    struct outcome first, third;
};

/* What that step gives on one rank: with the micro-batches of all data-parallel ranks. */
static void make_reference(const struct cm_step *step, struct reference *reference)
{
    struct cm_step single = *step;
    struct bed bed;
    assert_ok(cm_parallel_parse("dp=1", "test", &single.parallel));
    single.micro_batches *= step->parallel.dp;
    single.recompute = CM_RECOMPUTE_NONE;
    single.overlap = true;
    single.bucket_bytes = 0;
    if (reference->made && memcmp(&reference->step, &single, sizeof single) == 0)
        return;
    drop_tables(&reference->gradients);
    make_bed(&alone_ground, &single, &bed);
    reference->first = run_step(&bed, 1, CM_EXTENT_GRADIENTS);
    collect_gradients(&bed, &reference->gradients);
    restart(&bed);
    for (uint32_t number = 1; number <= 3; number++)
        reference->third = run_step(&bed, number, CM_EXTENT_STEP);
    drop_bed(&bed);
    reference->step = single;
    reference->made = true;
}

struct comparison {
    const struct reference *reference;
    const char *what;
    double tolerance; /* of the norm of the parameter's gradient */
    struct tables *seen;
};

static void compare_run(void *arg, const struct cm_parameter *parameter, uint64_t first,
                        const float *values, uint64_t count)
{
    const struct comparison *comparison = arg;
    const struct table *table = find_table(&comparison->reference->gradients, parameter->name);
    const struct table *seen = find_table(comparison->seen, parameter->name);
    if (table == NULL || seen == NULL || first + count > table->count)
        fail_msg("%s: rank %u has elements %llu to %llu of %s, which the model has not",
                 comparison->what, fixture.comm->rank, (unsigned long long)first,
                 (unsigned long long)(first + count), parameter->name);
    double limit = comparison->tolerance * norm_of(table) + 1e-12;
    for (uint64_t i = 0; i < count; i++) {
        double difference = (double)values[i] - (double)table->values[first + i];
        seen->values[first + i] = 1;
        if (!(fabs(difference) <= limit))
            fail_msg("%s: rank %u: the gradient of %s[%llu] is %.9g, alone %.9g; off by %.3g of "
                     "the norm",
                     comparison->what, fixture.comm->rank, parameter->name,
                     (unsigned long long)(first + i), (double)values[i],
                     (double)table->values[first + i], fabs(difference) / norm_of(table));
    }
}

/* Each element of the model is on some rank. */
static void check_covered(const char *what, const struct tables *seen)
{
    for (size_t i = 0; i < seen->count; i++) {
        struct table *table = &seen->items[i];
        size_t bytes = table->count * sizeof(float);
        struct buffer buffer = make_buffer(bytes);
        memcpy(buffer.host, table->values, bytes);
        push(&buffer);
        assert_ok(fixture.comm->ops->all_reduce(fixture.comm, fixture.stream, buffer.data,
                                                buffer.data, table->count, CM_F32, CM_REDUCE_MAX));
        finish(fixture.stream);
        pull(&buffer);
        memcpy(table->values, buffer.host, bytes);
        drop_buffer(&buffer);
        for (uint64_t k = 0; k < table->count; k++) {
            if (table->values[k] != 1)
                fail_msg("%s: no rank has a gradient of %s[%llu]", what, table->name,
                         (unsigned long long)k);
        }
    }
}

static void compare_gradients(struct bed *bed, const struct reference *reference, const char *what,
                              double tolerance)
{
    const struct tables *all = &reference->gradients;
    struct tables seen = {.items = calloc(all->count, sizeof *seen.items), .count = all->count};
    assert_non_null(seen.items);
    for (size_t i = 0; i < all->count; i++) {
        seen.items[i] = all->items[i];
        seen.items[i].values = calloc(all->items[i].count, sizeof(float));
        assert_non_null(seen.items[i].values);
    }
    struct comparison comparison = {
        .reference = reference, .what = what, .tolerance = tolerance, .seen = &seen};
    each_gradient(bed, compare_run, &comparison);
    check_covered(what, &seen);
    drop_tables(&seen);
}

static void compare_outcome(const char *what, const char *when, struct outcome outcome,
                            struct outcome expected, double tolerance)
{
    double loss = fabs((double)outcome.loss / (double)expected.loss - 1);
    double square = fabs((double)outcome.square / (double)expected.square - 1);
    if (!(loss <= tolerance) || !(square <= 20 * tolerance))
        fail_msg("%s: rank %u: %s: loss %.9g and norm's square %.9g, alone %.9g and %.9g", what,
                 fixture.comm->rank, when, (double)outcome.loss, (double)outcome.square,
                 (double)expected.loss, (double)expected.square);
}

static void check_plan(const char *model, const struct plan *plan, enum cm_dtype dtype, bool fp8)
{
    static struct reference reference;
    char text[96], what[256];
    struct cm_step step = single_step(model, dtype);
    struct bed bed;
    step.parallel = plan->parallel;
    step.micro_batches = plan->micro_batches;
    step.micro_batch = plan->micro_batch;
    step.recompute = plan->recompute;
    step.overlap = plan->overlap;
    step.bucket_bytes = 1 << 16;
    step.fp8 = fp8;
    write_plan(plan, text, sizeof text);
    snprintf(what, sizeof what, "%s %s %s", model, fp8 ? "fp8" : cm_dtype_name(dtype), text);
    if (getenv("CM_TEST_ONLY") != NULL && strstr(what, getenv("CM_TEST_ONLY")) == NULL)
        return;
    if (getenv("CM_TEST_VERBOSE") != NULL && fixture.comm->rank == 0)
        fprintf(stderr, "%s\n", what);
    /* In 8 bits each rank has scales of its own, for its part of what there is one of alone: the
     * errors of both add up. */
    double tolerance = dtype == CM_F32 ? 1e-5 : fp8 ? FP8_GRADIENT : 2e-2;
    double loss_tolerance = fp8 ? FP8_LOSS : tolerance;
    make_reference(&step, &reference);
    make_bed(&ground, &step, &bed);
    struct outcome outcome = run_step(&bed, 1, CM_EXTENT_GRADIENTS);
    compare_gradients(&bed, &reference, what, tolerance);
    compare_outcome(what, "first step", outcome, reference.first, loss_tolerance);
    restart(&bed);
    for (uint32_t number = 1; number <= 3; number++)
        outcome = run_step(&bed, number, CM_EXTENT_STEP);
    compare_outcome(what, "third step", outcome, reference.third, 20 * loss_tolerance);
    drop_bed(&bed);
}

/* Hundreds of plans of 4 ranks take minutes: every fifth, or all with CM_ALL_PLANS in the
 * environment. */
static size_t plan_stride(size_t count)
{
    return count > 60 && getenv("CM_ALL_PLANS") == NULL ? 5 : 1;
}

static void test_plans(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct cm_step step = single_step(models[i], CM_F32);
        struct plan *plans;
        size_t count = list_plans(fixture.comm->size, &step.model, &plans);
        assert_true(count > 0);
        for (size_t k = i; k < count; k += plan_stride(count))
            check_plan(models[i], &plans[k], CM_F32, false);
        for (size_t k = i; k < count; k += 7)
            check_plan(models[i], &plans[k], CM_BF16, false);
        for (size_t k = i; k < count && has_fp8(); k += 11)
            check_plan(models[i], &plans[k], CM_BF16, true);
        free(plans);
    }
}

/* Waiting at once, or as late as can be, changes no bit. */
static void test_overlap_changes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct cm_step step = single_step(models[i], CM_BF16);
        struct plan *plans;
        size_t count = list_plans(fixture.comm->size, &step.model, &plans);
        for (size_t k = i; k < count; k += 5) {
            struct outcome outcomes[2];
            for (int overlap = 0; overlap < 2; overlap++) {
                struct bed bed;
                step.parallel = plans[k].parallel;
                step.micro_batches = plans[k].micro_batches;
                step.micro_batch = plans[k].micro_batch;
                step.recompute = plans[k].recompute;
                step.overlap = overlap != 0;
                make_bed(&ground, &step, &bed);
                for (uint32_t number = 1; number <= 3; number++)
                    outcomes[overlap] = run_step(&bed, number, CM_EXTENT_STEP);
                drop_bed(&bed);
            }
            assert_memory_equal(&outcomes[0], &outcomes[1], sizeof outcomes[0]);
        }
        free(plans);
    }
}

/* ---- running ---- */

static int open_grounds(void **state)
{
    const struct cm_world world = {.size = 1, .local_size = 1, .launcher = "none"};
    if (open_all(state) != 0)
        return 1;
    open_ground(fixture.device, fixture.comm, SEED, &ground);
    assert_ok(cm_comm_find("self")->open(fixture.device, &world, NULL, TIMEOUT_S, &alone));
    open_ground(fixture.device, alone, SEED, &alone_ground);
    return 0;
}

static int close_grounds(void **state)
{
    close_ground(&alone_ground);
    alone->ops->close(alone);
    close_ground(&ground);
    return close_all(state);
}

int main(int argc, char **argv)
{
    bool one = argc == 1;
    if (argc == 3 && strcmp(argv[1], "launch") == 0)
        return launch(argv[0], argv[2], NULL);
    if (argc == 3 && strcmp(argv[1], "start") == 0)
        return start(argv[0], argv[2], NULL);
    if (!choose_backend(one ? "self" : argv[1], one ? NULL : argv[2]))
        return 77;
    /* A rank that failed must not go on to a test in which the others do not meet it. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    const struct CMUnitTest single[] = {
        cmocka_unit_test(test_oracle),    cmocka_unit_test(test_learns),
        cmocka_unit_test(test_fp8),       cmocka_unit_test(test_recomputed),
        cmocka_unit_test(test_what_fits),
    };
    const struct CMUnitTest several[] = {
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_overlap_changes_nothing),
    };
    return one ? cmocka_run_group_tests(single, open_grounds, close_grounds)
               : cmocka_run_group_tests(several, open_grounds, close_grounds);
}
