/*
 * The virtual clock: pipelines have the bubbles of the formulas, data parallelism hides what it
 * can, folded ranks give what all ranks give (every plan of up to 16 ranks, by another, plain
 * simulation of all of them), longer operations never shorten a step, and schedules that do not fit
 * are refused.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/hash.h"
#include "clustermark/memory.h"
#include "clustermark/virtual_clock.h"
#include "test.h"
#include "unit/small_step.h"

enum { RANKS_MAX = 16 };

static struct cm_step small_step(void)
{
    return make_small_step(16, 16, 1);
}

static bool is_comm(const struct cm_op *op)
{
    return cm_op_infos[op->kind].class == CM_CLASS_COMM;
}

/* ---- times ---- */

/* Attention takes a second forward and two backward, so that a block takes three; what is not a
 * block, and messages, nothing. `data_s`: a reduction of a block's gradients. */
struct plain_times {
    double data_s;
    uint64_t block_bytes;
};

static double plain_time(const void *impl, const struct cm_step *step, unsigned rank,
                         const struct cm_op *op)
{
    const struct plain_times *times = impl;
    (void)step;
    (void)rank;
    if (op->kind == CM_OP_ATTENTION)
        return 1;
    if (op->kind == CM_OP_ATTENTION_BACKWARD)
        return 2;
    return is_comm(op) && op->u.comm.group == CM_GROUP_DATA && op->bytes > 0 &&
                   (uint64_t)op->bytes == times->block_bytes
               ? times->data_s
               : 0;
}

/* Every kind of operation has a time of its own, longer for more work, other on every stage. One
 * kind on one stage can be made longer. */
struct mixed_times {
    uint64_t seed;
    int longer; /* enum cm_op_kind, -1 none */
    unsigned longer_stage;
    unsigned *calls; /* counted; NULL */
};

static double mixed_time(const void *impl, const struct cm_step *step, unsigned rank,
                         const struct cm_op *op)
{
    const struct mixed_times *times = impl;
    struct cm_coordinates place;
    cm_parallel_coordinates(&step->parallel, rank, &place);
    const uint32_t key[] = {(uint32_t)op->kind, (uint32_t)op->phase, place.pp,
                            is_comm(op) ? (uint32_t)op->u.comm.group : 0};
    double base = (double)(cm_hash(times->seed, key, sizeof key) % 1000);
    double time_s = base * 1e-3 * (1 + log1p(op->flops + op->bytes));
    if (times->calls != NULL)
        ++*times->calls;
    return (int)op->kind == times->longer && place.pp == times->longer_stage ? 3 * time_s + 1
                                                                             : time_s;
}

static struct cm_virtual *open_step(const struct cm_step *step)
{
    struct cm_virtual *program = NULL;
    assert_ok(cm_virtual_open(step, &program));
    return program;
}

static double path_sum(const struct cm_virtual_path *path)
{
    double sum = path->late_s;
    for (int i = 0; i < CM_CLASS_COUNT; i++)
        sum += path->class_s[i];
    for (int i = 0; i < CM_VIRTUAL_GROUPS; i++)
        sum += path->group_s[i];
    return sum;
}

/* ---- pipelines ---- */

static void expect_pipeline(unsigned pp, unsigned vpp, uint64_t micro_batches)
{
    char plan[32];
    struct cm_step step = small_step();
    const struct plain_times plain = {0};
    const struct cm_virtual_times times = {.time_s = plain_time, .impl = &plain};
    struct cm_virtual_result result;
    step.model.layers = step.model.real_layers = 16;
    step.micro_batches = micro_batches;
    snprintf(plan, sizeof plan, "pp=%u,vpp=%u", pp, vpp);
    assert_ok(cm_parallel_parse(plan, "test", &step.parallel));
    struct cm_virtual *program = open_step(&step);
    assert_ok(cm_virtual_execute(program, &times, NULL, &result));
    double stage_s = 3.0 * 16 / pp, m = (double)micro_batches;
    double bubble = (pp - 1) / (vpp * m); /* of the time without it */
    assert_near(result.step_s, m * stage_s * (1 + bubble), 1e-12);
    assert_near(result.no_comm_s, m * stage_s, 1e-12);
    assert_near(path_sum(&result.path), result.step_s, 1e-12);
    for (unsigned i = 0; i < pp; i++) {
        const struct cm_virtual_stage *stage = &result.stages[i];
        assert_near(stage->lanes[CM_LANE_COMPUTE].busy_s, m * stage_s, 1e-12);
        assert_true(stage->transfer_s[CM_GROUP_WORLD] == 0);
        /* At the sum over the world a stage waits for the last backward passes before it. */
        if (vpp == 1 && pp > 1)
            assert_near(stage->comm_s[CM_GROUP_WORLD] + 1, 1 + i * 2.0 * 16 / pp, 1e-12);
    }
    /* The first stage ends the step, so all its idling is for other stages. */
    assert_near(result.stages[0].wait_s[CM_VIRTUAL_WAIT_PIPELINE], result.step_s - result.no_comm_s,
                1e-9);
    cm_virtual_result_release(&result);
    cm_virtual_close(program);
}

static void test_bubbles(void **state)
{
    (void)state;
    for (unsigned pp = 1; pp <= 8; pp *= 2)
        for (uint64_t m = 1; m <= 16; m = m < 4 ? m + 1 : 2 * m)
            expect_pipeline(pp, 1, m);
    expect_pipeline(2, 2, 4);
    expect_pipeline(2, 4, 8);
    expect_pipeline(4, 2, 4);
    expect_pipeline(4, 2, 16);
    expect_pipeline(4, 4, 8);
    expect_pipeline(8, 2, 8);
}

/* The same stages with one that takes twice as long: it sets the pace. */
struct slow_stage {
    unsigned stage;
};

static double slow_time(const void *impl, const struct cm_step *step, unsigned rank,
                        const struct cm_op *op)
{
    const struct slow_stage *slow = impl;
    const struct plain_times plain = {0};
    struct cm_coordinates place;
    cm_parallel_coordinates(&step->parallel, rank, &place);
    return plain_time(&plain, step, rank, op) * (place.pp == slow->stage ? 2 : 1);
}

static void test_slow_stage(void **state)
{
    (void)state;
    for (unsigned slow = 0; slow < 4; slow++) {
        struct cm_step step = small_step();
        const struct slow_stage which = {slow};
        const struct cm_virtual_times times = {.time_s = slow_time, .impl = &which};
        struct cm_virtual_result result;
        step.micro_batches = 12;
        assert_ok(cm_parallel_parse("pp=4", "test", &step.parallel));
        struct cm_virtual *program = open_step(&step);
        assert_ok(cm_virtual_execute(program, &times, NULL, &result));
        /* Before and after it those before it have one pass each, of 2 s and 4 s. Those behind it
         * take 6 s until its first gradient comes, while it does a forward pass of 4 s for each. */
        assert_near(result.step_s, 12 * 2 * 6 + slow * 6 + (3 - slow) * 2, 1e-12);
        assert_near(result.no_comm_s, 12 * 2 * 6, 1e-12);
        cm_virtual_result_release(&result);
        cm_virtual_close(program);
    }
}

/* Stages gather their weights from the step's beginning, not from when activations come: only the
 * first block of the first stage waits. */
static double gather_time(const void *impl, const struct cm_step *step, unsigned rank,
                          const struct cm_op *op)
{
    const struct plain_times plain = {0};
    const uint64_t *block_bytes = impl;
    bool block = op->kind == CM_OP_ALL_GATHER && (uint64_t)op->bytes == *block_bytes;
    return block ? 0.5 : plain_time(&plain, step, rank, op);
}

static void test_gathers_begin_at_once(void **state)
{
    (void)state;
    for (int zero = 1; zero <= 3; zero++) {
        struct cm_step step = small_step();
        struct cm_schedule schedule;
        struct cm_virtual_result result;
        char plan[32];
        uint64_t bytes = 0;
        const struct cm_virtual_times times = {.time_s = gather_time, .impl = &bytes};
        step.micro_batches = 1;
        snprintf(plan, sizeof plan, "dp=2,pp=4,zero=%d", zero);
        assert_ok(cm_parallel_parse(plan, "test", &step.parallel));
        assert_ok(cm_schedule_build(&step, 2, &schedule)); /* blocks alone */
        bytes = schedule.units[0].count * 2;
        cm_schedule_release(&schedule);
        struct cm_virtual *program = open_step(&step);
        assert_ok(cm_virtual_execute(program, &times, NULL, &result));
        /* zero = 3: the last block's weights are given back before the head, which takes no time
         * here, and gathered again after it. */
        assert_near(result.step_s, 4 * 6 + (zero == 3 ? 1 : 0.5), 1e-12);
        cm_virtual_result_release(&result);
        cm_virtual_close(program);
    }
}

/* ---- overlap ---- */

/* Block i's gradients (1 to L, from the top) are there after 2 i seconds of backward, and the
 * messages go one after the other: all are there at the largest of 2 i + (L - i + 1) x. */
static void test_data_overlap(void **state)
{
    (void)state;
    const double lengths[] = {0, 0.25, 1, 1.999, 2, 2.5, 4, 16};
    struct cm_step step = small_step();
    struct cm_schedule schedule;
    step.micro_batches = 2;
    step.bucket_bytes = 1;
    assert_ok(cm_parallel_parse("dp=4", "test", &step.parallel));
    assert_ok(cm_schedule_build(&step, 0, &schedule));
    uint64_t block_bytes = schedule.units[1].gradients.size_bytes;
    for (uint32_t i = 0; i < schedule.unit_count; i++)
        if (strcmp(schedule.units[i].name, "layer0") == 0)
            block_bytes = schedule.units[i].gradients.size_bytes;
    cm_schedule_release(&schedule);
    for (int overlap = 0; overlap < 2; overlap++) {
        step.overlap = overlap != 0;
        struct cm_virtual *program = open_step(&step);
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            const double x = lengths[i], layers = 8, compute = 2 * 3 * layers;
            const struct plain_times plain = {x, block_bytes};
            const struct cm_virtual_times times = {.time_s = plain_time, .impl = &plain};
            struct cm_virtual_result result;
            assert_ok(cm_virtual_execute(program, &times, NULL, &result));
            double exposed = x <= 2 ? x : layers * x - (layers - 1) * 2;
            if (!step.overlap)
                exposed = layers * x;
            assert_near(result.no_comm_s, compute, 1e-12);
            assert_near(result.step_s, compute + exposed, 1e-12);
            assert_near(result.stages[0].comm_s[CM_GROUP_DATA], layers * x, 1e-12);
            assert_near(result.stages[0].wait_s[CM_VIRTUAL_WAIT_DATA], exposed, 1e-9);
            cm_virtual_result_release(&result);
        }
        cm_virtual_close(program);
    }
}

/* ---- stragglers ---- */

/* Who comes late to the sum over the world has computed longer: all of the step's compute. */
static void test_late(void **state)
{
    (void)state;
    const char *const plans[] = {"dp=4", "dp=2,pp=2", "pp=4"};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct cm_step step = small_step();
        const struct plain_times plain = {0};
        struct cm_virtual_times times = {.time_s = plain_time, .impl = &plain};
        struct cm_virtual_result on_time, late;
        assert_ok(cm_parallel_parse(plans[i], "test", &step.parallel));
        struct cm_virtual *program = open_step(&step);
        assert_ok(cm_virtual_execute(program, &times, NULL, &on_time));
        times.late[CM_GROUP_WORLD] = 0.125;
        assert_ok(cm_virtual_execute(program, &times, NULL, &late));
        assert_near(late.step_s, on_time.step_s + 0.125 * on_time.no_comm_s, 1e-12);
        assert_near(late.path.late_s, 0.125 * on_time.no_comm_s, 1e-12);
        assert_near(path_sum(&late.path), late.step_s, 1e-12);
        cm_virtual_result_release(&on_time);
        cm_virtual_result_release(&late);
        cm_virtual_close(program);
    }
}

/* Each of many collectives adds what was computed since the one before: together, all. Whoever
 * waits for gradients at once is late by as much. */
static void test_late_often(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    const struct plain_times plain = {0};
    const struct cm_virtual_times times = {
        .time_s = plain_time, .impl = &plain, .late[CM_GROUP_DATA] = 0.25};
    struct cm_virtual_result result;
    step.overlap = false;
    assert_ok(cm_parallel_parse("dp=4", "test", &step.parallel));
    struct cm_virtual *program = open_step(&step);
    assert_ok(cm_virtual_execute(program, &times, NULL, &result));
    assert_near(result.step_s, 1.25 * result.no_comm_s, 1e-12);
    assert_near(result.stages[0].comm_s[CM_GROUP_DATA], 0.25 * result.no_comm_s, 1e-12);
    cm_virtual_result_release(&result);
    cm_virtual_close(program);
}

/* ---- all ranks, one by one ---- */

struct every {
    struct cm_schedule schedules[RANKS_MAX];
    unsigned count;
    int64_t member[RANKS_MAX][CM_GROUP_COUNT]; /* number of the communicator; -1 none */
    uint32_t next[RANKS_MAX][CM_LANE_COUNT];
    double now_s[RANKS_MAX][CM_LANE_COUNT];
    double *done_s[RANKS_MAX]; /* by operation; negative: not yet */
    const struct mixed_times *times;
};

static const struct cm_op *next_of(struct every *e, unsigned rank, int lane)
{
    const struct cm_schedule *s = &e->schedules[rank];
    uint32_t *next = &e->next[rank][lane];
    while (*next < s->op_count && (int)s->ops[*next].lane != lane)
        ++*next;
    return *next < s->op_count ? &s->ops[*next] : NULL;
}

static void finish_op(struct every *e, unsigned rank, int lane, double at_s)
{
    e->now_s[rank][lane] = at_s;
    e->done_s[rank][e->next[rank][lane]++] = at_s;
}

static double time_of(const struct every *e, unsigned rank, const struct cm_op *op)
{
    return mixed_time(e->times, &e->schedules[0].step, rank, op);
}

/* All members at their operation: each ends at the same moment. False: not all are. */
static bool all_meet(struct every *e, unsigned rank, const struct cm_op *op)
{
    unsigned ranks[RANKS_MAX], count = 0, size = 0;
    int lanes[RANKS_MAX];
    double begin_s = 0, time_s = 0;
    for (unsigned r = 0; r < e->count; r++) {
        enum cm_group name = r == rank ? op->u.comm.group : cm_group_other_end(op->u.comm.group);
        if (e->member[r][name] != e->member[rank][op->u.comm.group])
            continue;
        size++;
        for (int lane = 0; lane < CM_LANE_COUNT; lane++) {
            const struct cm_op *theirs = next_of(e, r, lane);
            if (theirs == NULL || !is_comm(theirs) || theirs->u.comm.group != name)
                continue;
            begin_s = fmax(begin_s, e->now_s[r][lane]);
            time_s = fmax(time_s, time_of(e, r, theirs));
            ranks[count] = r;
            lanes[count++] = lane;
            break;
        }
    }
    if (count < size)
        return false;
    for (unsigned i = 0; i < count; i++)
        finish_op(e, ranks[i], lanes[i], begin_s + time_s);
    return true;
}

static bool go_on(struct every *e, unsigned rank, int lane)
{
    const struct cm_schedule *s = &e->schedules[rank];
    const struct cm_op *op = next_of(e, rank, lane);
    if (op == NULL)
        return false;
    double now_s = e->now_s[rank][lane];
    if (is_comm(op))
        return all_meet(e, rank, op);
    if (op->kind == CM_OP_WAIT) {
        int64_t record = op - s->ops;
        do
            record--;
        while (s->ops[record].kind != CM_OP_RECORD || s->ops[record].event != op->event);
        if (e->done_s[rank][record] < 0)
            return false;
        finish_op(e, rank, lane, fmax(now_s, e->done_s[rank][record]));
        return true;
    }
    finish_op(e, rank, lane, op->kind == CM_OP_RECORD ? now_s : now_s + time_of(e, rank, op));
    return true;
}

static double step_of_all(const struct cm_step *step, const struct mixed_times *times)
{
    static struct every e;
    double step_s = 0;
    e = (struct every){.times = times, .count = cm_parallel_ranks(&step->parallel)};
    for (unsigned r = 0; r < e.count; r++) {
        assert_ok(cm_schedule_build(step, r, &e.schedules[r]));
        e.done_s[r] = cm_alloc(e.schedules[r].op_count, sizeof(double));
        for (uint32_t i = 0; i < e.schedules[r].op_count; i++)
            e.done_s[r][i] = -1;
        for (int group = 0; group < CM_GROUP_COUNT; group++)
            e.member[r][group] = group == CM_GROUP_WORLD ? 0 : -1 - (int64_t)r;
        for (unsigned i = 0; i < cm_parallel_splits(&step->parallel); i++) {
            enum cm_group group;
            int color, key;
            cm_parallel_split(&step->parallel, &step->model, r, i, &group, &color, &key);
            if (color >= 0)
                e.member[r][group] = (int64_t)(i + 1) << 32 | color;
        }
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned r = 0; r < e.count; r++)
            for (int lane = 0; lane < CM_LANE_COUNT; lane++)
                while (go_on(&e, r, lane))
                    moved = true;
    }
    for (unsigned r = 0; r < e.count; r++) {
        for (int lane = 0; lane < CM_LANE_COUNT; lane++) {
            assert_null(next_of(&e, r, lane));
            step_s = fmax(step_s, e.now_s[r][lane]);
        }
        cm_free(e.done_s[r]);
        cm_schedule_release(&e.schedules[r]);
    }
    return step_s;
}

static void expect_same(const struct cm_step *step, uint64_t seed)
{
    const struct mixed_times mixed = {.seed = seed, .longer = -1};
    const struct cm_virtual_times times = {.time_s = mixed_time, .impl = &mixed};
    struct cm_virtual_result result;
    struct cm_virtual *program = open_step(step);
    assert_ok(cm_virtual_execute(program, &times, NULL, &result));
    double all_s = step_of_all(step, &mixed);
    if (fabs(result.step_s - all_s) > 1e-12 * all_s) {
        struct cm_str plan = CM_STR_INIT;
        cm_parallel_write(&step->parallel, &plan);
        fail_msg("%s: %.17g s by one rank of each stage, %.17g s by all", cm_str_text(&plan),
                 result.step_s, all_s);
    }
    assert_near(path_sum(&result.path), result.step_s, 1e-9);
    cm_virtual_result_release(&result);
    cm_virtual_close(program);
}

/* Calls `each` with every plan of 1 to `ranks` ranks that fits the model, whose layers do not come
 * out even. */
static unsigned for_all_plans(struct cm_step step, unsigned ranks,
                              void (*each)(const struct cm_step *step, uint64_t seed))
{
    static const unsigned parts[] = {1, 2, 3, 4, 5, 8, 16};
    unsigned count = 0;
    for (unsigned i = 0; i < 7 * 7 * 7 * 7; i++) {
        struct cm_parallel p = {.dp = parts[i % 7],
                                .tp = parts[i / 7 % 7],
                                .pp = parts[i / 49 % 7],
                                .cp = parts[i / 343],
                                .ep = 1,
                                .vpp = 1};
        if (cm_parallel_ranks(&p) > ranks)
            continue;
        for (unsigned k = 0; k < 4 * 2 * 2 * 3; k++) {
            step.parallel = p;
            step.parallel.zero = k % 4;
            step.parallel.sp = k / 4 % 2;
            step.parallel.vpp = 1 + k / 8 % 2;
            step.parallel.ep = 1u << k / 16;
            step.model.layers = step.model.real_layers = p.pp * step.parallel.vpp + 1;
            step.recompute = (enum cm_recompute)(count % 3);
            step.overlap = count % 4 != 3;
            step.model.tied = count % 2 == 1;
            if (cm_parallel_check(&step.parallel, &step.model, step.micro_batches, step.micro_batch,
                                  "test") != CM_OK)
                continue;
            each(&step, count++);
        }
    }
    cm_error_clear();
    return count;
}

static void test_every_plan(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    assert_in_range(for_all_plans(step, RANKS_MAX, expect_same), 300, 3000);
    step.model.experts = 4;
    step.model.top_k = 2;
    assert_in_range(for_all_plans(step, 8, expect_same), 100, 3000);
}

/* ---- monotonicity ---- */

/* Each kind of operation in turn is made longer on some stage: no step is shorter for it. */
static void expect_monotone(const struct cm_step *step, uint64_t seed)
{
    struct mixed_times mixed = {.seed = seed, .longer = -1};
    const struct cm_virtual_times times = {.time_s = mixed_time, .impl = &mixed};
    struct cm_virtual_result result;
    struct cm_virtual *program = open_step(step);
    assert_ok(cm_virtual_execute(program, &times, NULL, &result));
    double before_s = result.step_s;
    unsigned longer = 0;
    cm_virtual_result_release(&result);
    for (int kind = CM_OP_WAIT + 1; kind < CM_OP_KIND_COUNT; kind++) {
        mixed.longer = kind;
        mixed.longer_stage = (unsigned)(seed + (uint64_t)kind) % step->parallel.pp;
        assert_ok(cm_virtual_execute(program, &times, NULL, &result));
        if (result.step_s < before_s * (1 - 1e-12))
            fail_msg("a longer %s shortens the step from %.17g to %.17g s", cm_op_infos[kind].name,
                     before_s, result.step_s);
        longer += result.step_s > before_s;
        cm_virtual_result_release(&result);
    }
    assert_true(longer > 0);
    cm_virtual_close(program);
}

static void test_monotone(void **state)
{
    (void)state;
    assert_in_range(for_all_plans(small_step(), 8, expect_monotone), 100, 3000);
}

/* ---- without communication ---- */

static double compute_time(const void *impl, const struct cm_step *step, unsigned rank,
                           const struct cm_op *op)
{
    return is_comm(op) ? 0 : mixed_time(impl, step, rank, op);
}

static void expect_no_comm(const struct cm_step *step, uint64_t seed)
{
    const struct mixed_times mixed = {.seed = seed, .longer = -1};
    struct cm_virtual_times times = {.time_s = mixed_time, .impl = &mixed};
    struct cm_virtual_result with, without;
    if (step->parallel.pp > 1) /* stages wait for each other all the same */
        return;
    struct cm_virtual *program = open_step(step);
    assert_ok(cm_virtual_execute(program, &times, NULL, &with));
    times.time_s = compute_time;
    assert_ok(cm_virtual_execute(program, &times, NULL, &without));
    assert_near(without.step_s, with.no_comm_s, 1e-12);
    assert_near(with.stages[0].lanes[CM_LANE_COMPUTE].busy_s +
                    with.stages[0].lanes[CM_LANE_COMPUTE].wait_s,
                with.step_s, 1e-9);
    cm_virtual_result_release(&with);
    cm_virtual_result_release(&without);
    cm_virtual_close(program);
}

static void test_no_comm(void **state)
{
    (void)state;
    assert_in_range(for_all_plans(small_step(), 4, expect_no_comm), 50, 1000);
}

/* ---- schedules that are wrong ---- */

static struct cm_op *last_of(struct cm_schedule *schedule, enum cm_op_kind kind)
{
    for (uint32_t i = schedule->op_count; i-- > 0;)
        if (schedule->ops[i].kind == kind)
            return &schedule->ops[i];
    fail_msg("no such operation");
    return NULL;
}

static void expect_refused(const struct cm_schedule *schedules, const char *text)
{
    const struct plain_times plain = {0};
    const struct cm_virtual_times times = {.time_s = plain_time, .impl = &plain};
    struct cm_virtual *program = NULL;
    struct cm_virtual_result result = {.step_s = -1};
    cm_error_clear();
    enum cm_status status = cm_virtual_open_schedules(schedules, 2, &program);
    if (status == CM_OK)
        status = cm_virtual_execute(program, &times, NULL, &result);
    assert_int_equal(status, CM_INTERNAL);
    if (strstr(cm_error_text(), text) == NULL)
        fail_msg("'%s' does not say '%s'", cm_error_text(), text);
    assert_true(result.step_s < 0);
    cm_virtual_close(program);
}

static void test_refused(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    struct cm_schedule schedules[2];
    assert_ok(cm_parallel_parse("pp=2", "test", &step.parallel));
    for (unsigned i = 0; i < 2; i++)
        assert_ok(cm_schedule_build(&step, i, &schedules[i]));
    struct cm_op *op = last_of(&schedules[0], CM_OP_SEND), kept = *op;
    op->u.comm.count--;
    expect_refused(schedules, "members of a group differ: rank ");
    *op = kept;
    op = last_of(&schedules[1], CM_OP_RECV);
    kept = *op;
    op->kind = CM_OP_ZERO;
    expect_refused(schedules, "wait for ever: rank 0 forward out send forward_out 4096 bf16 m3");
    *op = kept;
    op = last_of(&schedules[1], CM_OP_ALL_REDUCE);
    kept = *op;
    op->kind = CM_OP_ZERO;
    expect_refused(schedules, "rank 0 compute waits for data");
    *op = kept;
    for (uint32_t i = 0; i < schedules[1].op_count; i++) {
        op = &schedules[1].ops[i];
        if (op->kind == CM_OP_WAIT)
            break;
    }
    kept = *op;
    op->event = schedules[1].event_count++;
    expect_refused(schedules, "waits for an event that was never recorded");
    op->event = schedules[1].event_count;
    expect_refused(schedules, "no such event");
    *op = kept;
    for (unsigned i = 0; i < 2; i++)
        cm_schedule_release(&schedules[i]);
    assert_ok(cm_parallel_parse("pp=16", "test", &step.parallel));
    struct cm_virtual *program = NULL;
    assert_status(cm_virtual_open(&step, &program), CM_USAGE, "fewer than pp * vpp");
    assert_null(program);
}

static double no_time(const void *impl, const struct cm_step *step, unsigned rank,
                      const struct cm_op *op)
{
    const double *value = impl;
    (void)step;
    return rank == 1 && op->kind == CM_OP_SEND ? *value : 0;
}

static void test_no_times(void **state)
{
    (void)state;
    const double values[] = {NAN, -1e-9, INFINITY};
    struct cm_step step = small_step();
    assert_ok(cm_parallel_parse("pp=2", "test", &step.parallel));
    struct cm_virtual *program = open_step(&step);
    for (size_t i = 0; i < 3; i++) {
        const struct cm_virtual_times times = {.time_s = no_time, .impl = &values[i]};
        struct cm_virtual_result result;
        assert_status(cm_virtual_execute(program, &times, NULL, &result), CM_INTERNAL,
                      "rank 1 backward out send backward_out 4096 bf16: ");
    }
    cm_virtual_close(program);
}

/* ---- trace and text ---- */

/* Intervals of a lane follow one another, and are what the result counts. */
static void test_trace(void **state)
{
    (void)state;
    struct cm_step step = small_step();
    const struct mixed_times mixed = {.seed = 3, .longer = -1};
    const struct cm_virtual_times times = {.time_s = mixed_time, .impl = &mixed};
    struct cm_virtual_result result;
    struct cm_str text = CM_STR_INIT;
    double end_us[4][CM_LANE_COUNT] = {{0}}, busy_us[4][CM_LANE_COUNT] = {{0}}, wait_us[4] = {0};
    size_t index;
    json_t *event;
    assert_ok(cm_parallel_parse("dp=2,pp=4,tp=2,zero=1", "test", &step.parallel));
    struct cm_virtual *program = open_step(&step);
    assert_ok(cm_virtual_execute(program, &times, NULL, &result));
    assert_ok(cm_virtual_trace(program, &times, &text));
    json_t *root = json_loads(cm_str_text(&text), 0, NULL);
    assert_non_null(root);
    json_array_foreach(json_object_get(root, "traceEvents"), index, event)
    {
        if (strcmp(json_string_value(json_object_get(event, "ph")), "X") != 0)
            continue;
        json_int_t stage = json_integer_value(json_object_get(event, "pid"));
        json_int_t lane = json_integer_value(json_object_get(event, "tid"));
        double start = json_number_value(json_object_get(event, "ts"));
        double length = json_number_value(json_object_get(event, "dur"));
        assert_in_range(stage, 0, 3);
        assert_in_range(lane, 0, CM_LANE_COUNT - 1);
        assert_true(start >= end_us[stage][lane] - 0.01); /* written with 1 ns */
        end_us[stage][lane] = start + length;
        if (strncmp(json_string_value(json_object_get(event, "name")), "wait", 4) == 0)
            wait_us[stage] += length;
        else
            busy_us[stage][lane] += length;
    }
    for (unsigned i = 0; i < 4; i++) {
        const struct cm_virtual_stage *stage = &result.stages[i];
        assert_near(wait_us[i], stage->lanes[CM_LANE_COMPUTE].wait_s * 1e6, 1e-6);
        for (int lane = 0; lane < CM_LANE_COUNT; lane++)
            assert_near(busy_us[i][lane] + 1, stage->lanes[lane].busy_s * 1e6 + 1, 1e-6);
    }
    json_decref(root);
    cm_str_reset(&text);
    cm_virtual_write(program, &result, &text);
    const char *words[] = {"a rank of each stage stands for 16 ranks",
                           "waits for: layer",
                           "  tensor ",
                           "  pipeline ",
                           "the longest chain",
                           "  gemm "};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(cm_str_text(&text), words[i]) == NULL)
            fail_msg("'%s' is not in\n%s", words[i], cm_str_text(&text));
    cm_str_release(&text);
    cm_virtual_result_release(&result);
    cm_virtual_close(program);
}

/* Times are asked for once for each distinct operation, however many there are. */
static void test_distinct(void **state)
{
    (void)state;
    unsigned calls[2] = {0};
    uint64_t operations[2];
    for (int i = 0; i < 2; i++) {
        struct cm_step step = small_step();
        const struct mixed_times mixed = {.longer = -1, .calls = &calls[i]};
        const struct cm_virtual_times times = {.time_s = mixed_time, .impl = &mixed};
        struct cm_virtual_result result;
        step.micro_batches = i == 0 ? 4 : 64;
        assert_ok(cm_parallel_parse("dp=2,pp=2,tp=2,zero=1", "test", &step.parallel));
        struct cm_virtual *program = open_step(&step);
        assert_ok(cm_virtual_execute(program, &times, NULL, &result));
        operations[i] = result.operations;
        cm_virtual_result_release(&result);
        cm_virtual_close(program);
    }
    assert_int_equal(calls[0], calls[1]);
    assert_in_range(calls[0], 20, 200);
    assert_true(operations[1] > 10 * operations[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bubbles),
        cmocka_unit_test(test_slow_stage),
        cmocka_unit_test(test_gathers_begin_at_once),
        cmocka_unit_test(test_data_overlap),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_late_often),
        cmocka_unit_test(test_every_plan),
        cmocka_unit_test(test_monotone),
        cmocka_unit_test(test_no_comm),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_times),
        cmocka_unit_test(test_trace),
        cmocka_unit_test(test_distinct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
