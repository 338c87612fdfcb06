/*
 * Schedules of every kind of plan: the checker finds nothing wrong with them, and something with
 * what is broken on purpose; memory, parameters and FLOPs are what they must be.
 */
#include <stdlib.h>

#include "clustermark/schedule.h"
#include "test.h"
#include "unit/small_step.h"

enum { RANKS_MAX = 16 };

struct set {
    struct cm_schedule schedules[RANKS_MAX];
    unsigned count;
};

static struct cm_step small_step(void)
{
    return make_small_step(8, 4, 2);
}

static void build(const struct cm_step *step, const char *plan, struct set *set)
{
    struct cm_step planned = *step;
    assert_ok(cm_parallel_parse(plan, "test", &planned.parallel));
    set->count = cm_parallel_ranks(&planned.parallel);
    assert_true(set->count <= RANKS_MAX);
    for (unsigned rank = 0; rank < set->count; rank++)
        assert_ok(cm_schedule_build(&planned, rank, &set->schedules[rank]));
}

static void release(struct set *set)
{
    for (unsigned rank = 0; rank < set->count; rank++)
        cm_schedule_release(&set->schedules[rank]);
}

static const char *const dense_plans[] = {
    "dp=1",
    "dp=2",
    "dp=2,zero=1",
    "dp=2,zero=2",
    "dp=4,zero=3",
    "tp=2",
    "tp=4,sp=1",
    "pp=2",
    "pp=4",
    "pp=2,vpp=2",
    "pp=4,vpp=2",
    "cp=2",
    "cp=4,zero=1",
    "dp=2,tp=2,pp=2",
    "dp=2,tp=2,sp=1,zero=3",
    "dp=2,pp=2,zero=2",
    "dp=2,pp=2,zero=3",
    "dp=2,pp=2,vpp=2,zero=1,tp=2,sp=1",
    "cp=2,tp=2,sp=1,pp=2,zero=1",
};
static const char *const expert_plans[] = {
    "dp=1",
    "dp=2,ep=2",
    "dp=4,ep=2,zero=1",
    "dp=4,ep=4,zero=3",
    "dp=4,ep=2,zero=3",
    "dp=2,ep=2,tp=2,sp=1",
    "dp=2,ep=2,cp=2,zero=2",
    "dp=2,ep=2,pp=2,tp=2",
};

static void check_plan(const struct cm_step *step, const char *plan)
{
    struct set set;
    build(step, plan, &set);
    if (cm_schedule_check(set.schedules, set.count) != CM_OK)
        fail_msg("%s, recompute %d, overlap %d, tied %d: %s", plan, step->recompute, step->overlap,
                 step->model.tied, cm_error_text());
    release(&set);
}

static void every_variant(struct cm_step step, const char *plan)
{
    for (int variant = 0; variant < 12; variant++) {
        step.recompute = (enum cm_recompute)(variant % 3);
        step.overlap = variant % 2 == 0;
        step.dtype = variant < 6 ? CM_BF16 : CM_F32;
        step.model.tied = variant >= 4 && variant < 10;
        step.model.norm = variant % 4 < 2 ? CM_NORM_RMS : CM_NORM_LAYER;
        step.model.activation = variant % 4 < 2 ? CM_ACTIVATION_SWIGLU : CM_ACTIVATION_GELU;
        step.model.positions = variant % 4 < 2 ? CM_POSITION_ROPE : CM_POSITION_LEARNED;
        step.micro_batches = variant % 5 == 0 ? 8 : 4;
        check_plan(&step, plan);
    }
}

static void test_dense_plans(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof dense_plans / sizeof *dense_plans; i++)
        every_variant(small_step(), dense_plans[i]);
}

static void test_expert_plans(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    step.model.experts = 4;
    step.model.top_k = 2;
    for (size_t i = 0; i < sizeof expert_plans / sizeof *expert_plans; i++)
        every_variant(step, expert_plans[i]);
}

/* A wait that is left out is missed, unless what it orders is ordered by another wait too: those
 * are counted, and are the fewer ones. */
static void test_missing_waits(void **state)
{
    (void)state;
    const char *plans[] = {"dp=2,zero=2", "dp=2,zero=3", "tp=2,sp=1", "pp=2,vpp=2", "cp=2"};
    for (size_t p = 0; p < sizeof plans / sizeof *plans; p++) {
        struct cm_step step = small_step();
        struct set set;
        unsigned waits = 0, missed = 0;
        build(&step, plans[p], &set);
        for (uint32_t i = 0; i < set.schedules[0].op_count; i++) {
            struct cm_op *op = &set.schedules[0].ops[i];
            if (op->kind != CM_OP_WAIT)
                continue;
            struct cm_op kept = *op;
            op->kind = CM_OP_RECORD; /* of an event that nobody waits for */
            op->event = set.schedules[0].event_count++;
            waits++;
            missed += cm_schedule_check(set.schedules, 1) == CM_OK;
            *op = kept;
            set.schedules[0].event_count--;
        }
        if (waits == 0 || missed * 2 > waits)
            fail_msg("%s: of %u waits %u can be left out unseen", plans[p], waits, missed);
        release(&set);
    }
}

static void expect_wrong(struct set *set, const char *text)
{
    assert_int_equal(cm_schedule_check(set->schedules, set->count), CM_INTERNAL);
    if (strstr(cm_error_text(), text) == NULL)
        fail_msg("'%s' does not say '%s'", cm_error_text(), text);
}

static struct cm_op *find(struct cm_schedule *schedule, enum cm_op_kind kind)
{
    for (uint32_t i = 0; i < schedule->op_count; i++)
        if (schedule->ops[i].kind == kind)
            return &schedule->ops[i];
    fail_msg("no such operation");
    return NULL;
}

static void test_what_is_found(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    struct set set;
    build(&step, "pp=2,dp=2", &set);
    struct cm_op *op = find(&set.schedules[0], CM_OP_SEND), kept = *op;
    op->u.comm.count--;
    expect_wrong(&set, "members of a group differ");
    *op = kept;
    op->kind = CM_OP_RECV;
    op->u.comm.group = CM_GROUP_FORWARD_IN;
    expect_wrong(&set, "communicator that the rank lacks");
    *op = kept;
    op->slices[0].size_bytes = UINT64_C(1) << 40;
    expect_wrong(&set, "beyond its buffer");
    *op = kept;
    for (uint32_t i = 0; i < set.schedules[3].op_count; i++) /* the last one */
        op = set.schedules[3].ops[i].kind == CM_OP_RECV ? &set.schedules[3].ops[i] : op;
    kept = *op;
    op->kind = CM_OP_ZERO;
    expect_wrong(&set, "wait for ever");
    *op = kept;
    op = find(&set.schedules[1], CM_OP_GEMM);
    kept = *op;
    op->slices[1] = (struct cm_slice){.buffer = CM_NO_BUFFER};
    expect_wrong(&set, "a slice is missing");
    *op = kept;
    assert_ok(cm_schedule_check(set.schedules, set.count));
    release(&set);
}

/* Every element of every parameter is somewhere, and as often as the plan says. */
static void test_parameters(void **state)
{
    (void)state;
    const struct {
        const char *plan;
        double copies;
        double shards;
    } rows[] = {{"dp=1", 1, 1},       {"dp=2,zero=1", 2, 2},           {"tp=4", 1, 1},
                {"pp=4,vpp=2", 1, 1}, {"dp=2,tp=2,pp=2,zero=3", 2, 2}, {"cp=2,dp=2,zero=2", 4, 4}};
    struct cm_step step = small_step();
    struct cm_parameter_counts counts;
    cm_transformer_count(&step.model, &counts);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct set set;
        double split = 0, shared = 0, optimizer = 0, units = 0;
        build(&step, rows[i].plan, &set);
        for (unsigned rank = 0; rank < set.count; rank++) {
            const struct cm_schedule *s = &set.schedules[rank];
            for (uint32_t k = 0; k < s->parameter_count; k++) {
                const struct cm_parameter *p = &s->parameters[k];
                double count = 0;
                for (unsigned piece = 0; piece < p->piece_count; piece++)
                    count += (double)p->pieces[piece].count;
                *(p->replicated ? &shared : &split) += count;
            }
            for (uint32_t k = 0; k < s->unit_count; k++) {
                optimizer += (double)s->units[k].m.size_bytes / 4;
                units += (double)s->units[k].count;
            }
        }
        double tp = set.schedules[0].step.parallel.tp;
        assert_near((split + shared / tp) / rows[i].copies, counts.total, 0.5);
        assert_near(optimizer * rows[i].shards, units, 0.5);
        release(&set);
    }
}

/* GELU within products: no kernel of its own is left but where it is computed again. */
static void check_gelu(const char *plan, unsigned fused, enum cm_recompute recompute)
{
    struct cm_step step = small_step();
    struct set set;
    unsigned kernels = 0, backward = 0, products = 0;
    step.model.activation = CM_ACTIVATION_GELU;
    step.recompute = recompute;
    step.gelu_fused = fused & 1;
    step.gelu_backward_fused = fused & 2;
    build(&step, plan, &set);
    assert_ok(cm_schedule_check(set.schedules, set.count));
    for (uint32_t k = 0; k < set.schedules[0].op_count; k++) {
        const struct cm_op *op = &set.schedules[0].ops[k];
        kernels += op->kind == CM_OP_ACTIVATION && op->phase == CM_PHASE_FORWARD;
        backward += op->kind == CM_OP_ACTIVATION_BACKWARD;
        products += op->kind == CM_OP_GEMM_GELU || op->kind == CM_OP_GEMM_GELU_BACKWARD;
    }
    assert_int_equal(kernels == 0, step.gelu_fused);
    assert_int_equal(backward == 0, step.gelu_backward_fused);
    assert_int_equal(products == 0, fused == 0);
    release(&set);
}

static void test_gelu_in_products(void **state)
{
    (void)state;
    static const char *const plans[] = {"dp=1", "tp=2,sp=1", "pp=4", "dp=2,cp=2,zero=3"};
    for (unsigned fused = 0; fused < 4; fused++)
        for (int recompute = 0; recompute < 3; recompute++)
            for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
                check_gelu(plans[i], fused, (enum cm_recompute)recompute);
}

/* Products of 8-bit floats: those of blocks alone, each with both operands made for it. */
static void test_narrow_products(void **state)
{
    (void)state;
    static const char *const plans[] = {"dp=1", "tp=2,sp=1", "pp=4", "dp=2,cp=2,zero=3"};
    for (int experts = 0; experts < 2; experts++) {
        for (int recompute = 0; recompute < 3; recompute++) {
            for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
                struct cm_step step = small_step();
                struct set set;
                unsigned made = 0, scaled = 0, plain = 0;
                step.fp8 = true;
                step.recompute = (enum cm_recompute)recompute;
                step.model.experts = experts ? 4 : 0;
                step.model.top_k = experts ? 2 : 0;
                build(&step, plans[i], &set);
                assert_ok(cm_schedule_check(set.schedules, set.count));
                for (uint32_t k = 0; k < set.schedules[0].op_count; k++) {
                    const struct cm_op *op = &set.schedules[0].ops[k];
                    made += op->kind == CM_OP_QUANTISE;
                    scaled += op->kind == CM_OP_GEMM_SCALED;
                    plain += op->kind == CM_OP_GEMM && op->layer >= 0;
                    assert_true(op->kind != CM_OP_GEMM_SCALED || op->layer >= 0);
                }
                assert_true(scaled > 0 && made == 2 * scaled);
                assert_int_equal(plain > 0, experts); /* the router's */
                release(&set);
            }
        }
    }
}

/* All products of a step together are the model's FLOPs; recomputation adds to them. */
static void test_flops(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    struct cm_token_flops flops;
    cm_transformer_flops(&step.model, &flops);
    const char *plans[] = {"dp=1", "tp=2,sp=1", "pp=4", "cp=2,dp=2,zero=3"};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct set set;
        double products = 0, attention = 0;
        build(&step, plans[i], &set);
        for (unsigned rank = 0; rank < set.count; rank++)
            for (uint32_t k = 0; k < set.schedules[rank].op_count; k++) {
                const struct cm_op *op = &set.schedules[rank].ops[k];
                *(op->kind == CM_OP_GEMM ? &products : &attention) += op->flops;
            }
        double tokens = (double)(step.micro_batches * step.micro_batch * step.model.sequence) *
                        set.schedules[0].step.parallel.dp;
        /* The head's table is padded from 500 to 512 rows. */
        double padding = 6.0 * 12 * 64 * tokens;
        assert_near((products - padding) / (flops.matmul * tokens), 1, 1e-9);
        assert_true(attention > 0);
        release(&set);
    }
}

static void test_memory_shrinks(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    uint64_t last[CM_USE_COUNT], bytes[CM_USE_COUNT], total;
    const char *plans[] = {"dp=4", "dp=4,zero=1", "dp=4,zero=2", "dp=4,zero=3"};
    const enum cm_buffer_use less[] = {CM_USE_COUNT, CM_USE_OPTIMIZER, CM_USE_GRADIENTS,
                                       CM_USE_WEIGHTS};
    for (int i = 0; i < 4; i++) {
        struct set set;
        build(&step, plans[i], &set);
        cm_schedule_memory(&set.schedules[0], bytes, &total);
        if (i > 0)
            assert_true(bytes[less[i]] < last[less[i]]);
        memcpy(last, bytes, sizeof last);
        release(&set);
    }
    uint64_t activations = last[CM_USE_ACTIVATIONS];
    for (int i = 1; i < 3; i++) {
        struct set set;
        step.recompute = (enum cm_recompute)i;
        build(&step, "dp=4,zero=3", &set);
        cm_schedule_memory(&set.schedules[0], bytes, &total);
        assert_true(bytes[CM_USE_ACTIVATIONS] < activations);
        activations = bytes[CM_USE_ACTIVATIONS];
        release(&set);
    }
}

/* 1F1B: a stage never keeps more micro-batches than there are stages from it to the end. */
static void test_pipeline_memory(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    uint64_t bytes[2][CM_USE_COUNT], total;
    for (int i = 0; i < 2; i++) {
        struct set set;
        step.micro_batches = i == 0 ? 8 : 32;
        build(&step, "pp=4", &set);
        cm_schedule_memory(&set.schedules[0], bytes[i], &total);
        release(&set);
    }
    assert_int_equal(bytes[0][CM_USE_ACTIVATIONS], bytes[1][CM_USE_ACTIVATIONS]);
}

/* What a sink is given is what is kept without one; its failure is the end. */
struct taken {
    const struct cm_schedule *kept;
    uint32_t count, failing; /* the operation with which it fails */
};

static enum cm_status take_op(void *impl, const struct cm_schedule *schedule,
                              const struct cm_op *op)
{
    struct taken *taken = impl;
    struct cm_str kept = CM_STR_INIT, given = CM_STR_INIT;
    if (taken->count == taken->failing)
        return cm_error(CM_IO, "it fails");
    cm_op_write(taken->kept, &taken->kept->ops[taken->count++], &kept);
    cm_op_write(schedule, op, &given);
    assert_string_equal(cm_str_text(&given), cm_str_text(&kept));
    cm_str_release(&kept);
    cm_str_release(&given);
    return CM_OK;
}

static void test_stream(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    struct set set;
    build(&step, "dp=2,tp=2,pp=2,zero=2", &set);
    for (unsigned rank = 0; rank < set.count; rank++) {
        const struct cm_schedule *kept = &set.schedules[rank];
        struct taken taken = {.kept = kept, .failing = UINT32_MAX};
        const struct cm_op_sink sink = {take_op, &taken};
        struct cm_schedule schedule;
        uint64_t by_use[2][CM_USE_COUNT], total[2];
        assert_ok(cm_schedule_stream(&kept->step, rank, &sink, &schedule));
        assert_int_equal(taken.count, kept->op_count);
        assert_int_equal(schedule.op_count, kept->op_count);
        assert_null(schedule.ops);
        cm_schedule_memory(kept, by_use[0], &total[0]);
        cm_schedule_memory(&schedule, by_use[1], &total[1]);
        assert_int_equal(total[0], total[1]);
        cm_schedule_release(&schedule);
        for (uint32_t i = 0; i < 2; i++) {
            taken.count = 0;
            taken.failing = i * (kept->op_count - 1);
            assert_status(cm_schedule_stream(&kept->step, rank, &sink, &schedule), CM_IO,
                          "it fails");
            assert_int_equal(taken.count, taken.failing);
            assert_null(schedule.buffers);
        }
    }
    release(&set);
}

static void test_refused(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    struct cm_schedule schedule;
    assert_ok(cm_parallel_parse("tp=3", "test", &step.parallel));
    assert_int_equal(cm_schedule_build(&step, 0, &schedule), CM_USAGE);
    assert_null(schedule.ops);
    assert_int_equal(schedule.op_count, 0);
}

static void test_explain(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    struct set set;
    struct cm_str text = CM_STR_INIT;
    build(&step, "dp=2,tp=2,zero=1", &set);
    cm_schedule_explain(&set.schedules[3], &text);
    assert_ok(cm_str_status(&text));
    const char *words[] = {"small, dp=2,tp=2,zero=1, rank 3",
                           "memory",
                           "for communication",
                           "attention_backward 64 of 64 positions, 4/2 heads of 8",
                           "reduce_scatter data",
                           "all_reduce tensor",
                           "adamw",
                           "gemm 128x64x128"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(cm_str_text(&text), words[i]) == NULL)
            fail_msg("'%s' is not in\n%.6000s", words[i], cm_str_text(&text));
    cm_str_release(&text);
    release(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_plans),      cmocka_unit_test(test_expert_plans),
        cmocka_unit_test(test_missing_waits),    cmocka_unit_test(test_what_is_found),
        cmocka_unit_test(test_parameters),       cmocka_unit_test(test_flops),
        cmocka_unit_test(test_gelu_in_products), cmocka_unit_test(test_narrow_products),
        cmocka_unit_test(test_memory_shrinks),   cmocka_unit_test(test_pipeline_memory),
        cmocka_unit_test(test_refused),          cmocka_unit_test(test_explain),
        cmocka_unit_test(test_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
