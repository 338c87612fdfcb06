/*
 * A step on the virtual clock. Each lane of each stage goes on for as long as nothing holds it up;
 * what comes first in time need not be looked at first, since an operation begins at the latest of
 * the moments that it depends on.
 */
#include "clustermark/virtual_clock.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/model/virtual_program.h"

#define NONE UINT32_MAX

/* A moment, and how it came to be: the parts of the path are its time. */
struct moment {
    double now_s;
    double computed_s; /* by COMPUTE until then, as far as is known there */
    struct cm_virtual_path path;
};

struct lane_state {
    struct moment at;
    size_t next;
    uint32_t held_by; /* number of a record that has not come; NONE */
    bool meets;       /* it came to an operation whose other members have not */
    double arrived_s; /* then: when, stragglers apart */
};

/* What a record left behind for those that wait for it. */
struct event_value {
    struct moment at;
    uint32_t waiters;
};

struct stage_state {
    const struct cm_stage_program *program;
    struct lane_state lanes[CM_LANE_COUNT];
    double *time_s;     /* by kind of operation */
    uint32_t *value_of; /* by record: its value; NONE */
    struct event_value *values;
    uint32_t *free_values;
    size_t value_count, value_capacity, free_count, free_capacity;
    double computed_s[CM_GROUP_COUNT]; /* at the group's last collective */
    struct cm_virtual_stage *result;
};

struct ready_lane {
    unsigned stage;
    enum cm_lane lane;
};

struct clock {
    const struct cm_virtual *program;
    const struct cm_virtual_times *times;
    const struct cm_virtual_observer *observer;
    struct stage_state *stages;
    struct ready_lane *ready; /* each lane at most once */
    size_t ready_count;
};

static unsigned group_kind(enum cm_group group)
{
    return group < CM_GROUP_FORWARD_OUT ? group : CM_GROUP_FORWARD_OUT;
}

static bool is_comm(const struct cm_op *op)
{
    return cm_op_infos[op->kind].class == CM_CLASS_COMM;
}

static const struct cm_instruction *head_of(const struct stage_state *stage, enum cm_lane lane)
{
    const struct cm_lane_program *program = &stage->program->lanes[lane];
    size_t next = stage->lanes[lane].next;
    return next < program->count ? &program->items[next] : NULL;
}

static void make_ready(struct clock *clock, unsigned stage, enum cm_lane lane)
{
    clock->ready[clock->ready_count++] = (struct ready_lane){stage, lane};
}

static void tell(const struct clock *clock, unsigned stage, enum cm_lane lane,
                 const struct cm_instruction *item, double start_s, double end_s)
{
    if (clock->observer == NULL)
        return;
    bool wait = item->kind == CM_DO_WAIT;
    const struct cm_virtual_interval interval = {
        .stage = stage,
        .lane = lane,
        .lane_for = wait ? (enum cm_lane)item->lane_for : lane,
        .op = wait ? NULL : &clock->stages[stage].program->kinds[item->what],
        .layer = item->layer,
        .micro = item->micro,
        .chunk = item->chunk,
        .start_s = start_s,
        .end_s = end_s};
    clock->observer->interval(clock->observer->impl, &interval);
}

/* ---- operations ---- */

/* Stragglers: how much later the group's slowest member comes. */
static void add_late(const struct clock *clock, struct stage_state *stage, struct moment *at,
                     enum cm_group group)
{
    double late_s = clock->times->late[group] * (at->computed_s - stage->computed_s[group]);
    stage->computed_s[group] = at->computed_s;
    at->now_s += late_s;
    at->path.late_s += late_s;
}

/* From arrival to the end of an operation that begins at `at` on that lane. */
static void execute(const struct clock *clock, unsigned index, enum cm_lane lane,
                    const struct cm_instruction *item, double arrived_s, double time_s)
{
    struct stage_state *stage = &clock->stages[index];
    struct moment *at = &stage->lanes[lane].at;
    struct cm_virtual_stage *result = stage->result;
    const struct cm_op *op = &stage->program->kinds[item->what];
    double start_s = at->now_s;
    at->now_s += time_s;
    result->lanes[lane].busy_s += time_s;
    result->lanes[lane].wait_s += start_s - arrived_s;
    result->lanes[lane].end_s = at->now_s;
    if (is_comm(op)) {
        unsigned group = group_kind(op->u.comm.group);
        at->path.group_s[group] += time_s;
        result->comm_s[group] += at->now_s - arrived_s;
        result->transfer_s[group] += time_s;
    } else {
        at->path.class_s[cm_op_infos[op->kind].class] += time_s;
    }
    if (lane == CM_LANE_COMPUTE) {
        at->computed_s += time_s;
        result->phase_s[op->phase] += time_s;
        result->class_s[cm_op_infos[op->kind].class] += time_s;
    }
    tell(clock, index, lane, item, start_s, at->now_s);
}

static void work(const struct clock *clock, unsigned index, enum cm_lane lane,
                 const struct cm_instruction *item)
{
    struct stage_state *stage = &clock->stages[index];
    struct moment *at = &stage->lanes[lane].at;
    const struct cm_op *op = &stage->program->kinds[item->what];
    double arrived_s = at->now_s;
    if (is_comm(op))
        add_late(clock, stage, at, op->u.comm.group);
    execute(clock, index, lane, item, arrived_s, stage->time_s[item->what]);
}

/* ---- events ---- */

static enum cm_status take_value(struct stage_state *stage, uint32_t record, uint32_t *number)
{
    if (stage->free_count > 0) {
        *number = stage->free_values[--stage->free_count];
    } else {
        if (cm_grow(&stage->values, &stage->value_capacity, stage->value_count + 1,
                    sizeof *stage->values) != 0 ||
            cm_grow(&stage->free_values, &stage->free_capacity, stage->value_count + 1,
                    sizeof *stage->free_values) != 0)
            return CM_NO_MEMORY;
        *number = (uint32_t)stage->value_count++;
    }
    stage->value_of[record] = *number;
    return CM_OK;
}

static enum cm_status record(struct clock *clock, unsigned index, enum cm_lane lane,
                             const struct cm_instruction *item)
{
    struct stage_state *stage = &clock->stages[index];
    uint32_t number;
    if (stage->program->waiters[item->what] == 0)
        return CM_OK;
    enum cm_status status = take_value(stage, item->what, &number);
    if (status != CM_OK)
        return status;
    stage->values[number] =
        (struct event_value){stage->lanes[lane].at, stage->program->waiters[item->what]};
    for (int other = 0; other < CM_LANE_COUNT; other++) {
        if (stage->lanes[other].held_by == item->what) {
            stage->lanes[other].held_by = NONE;
            make_ready(clock, index, (enum cm_lane)other);
        }
    }
    return CM_OK;
}

static enum cm_virtual_wait wait_kind(enum cm_lane lane)
{
    return lane == CM_LANE_LAYER  ? CM_VIRTUAL_WAIT_LAYER
           : lane == CM_LANE_DATA ? CM_VIRTUAL_WAIT_DATA
                                  : CM_VIRTUAL_WAIT_PIPELINE;
}

/* False: the record has not come. */
static bool wait(struct clock *clock, unsigned index, enum cm_lane lane,
                 const struct cm_instruction *item)
{
    struct stage_state *stage = &clock->stages[index];
    struct lane_state *state = &stage->lanes[lane];
    uint32_t number = stage->value_of[item->what];
    if (number == NONE) {
        state->held_by = item->what;
        return false;
    }
    struct event_value *value = &stage->values[number];
    double waited_s = value->at.now_s - state->at.now_s;
    double computed_s = fmax(state->at.computed_s, value->at.computed_s);
    if (waited_s > 0) {
        stage->result->lanes[lane].wait_s += waited_s;
        if (lane == CM_LANE_COMPUTE) {
            stage->result->wait_s[wait_kind((enum cm_lane)item->lane_for)] += waited_s;
            tell(clock, index, lane, item, state->at.now_s, value->at.now_s);
        }
        state->at = value->at;
    }
    state->at.computed_s = computed_s;
    if (--value->waiters == 0)
        stage->free_values[stage->free_count++] = number;
    return true;
}

/* ---- groups that join stages ---- */

/* The lane on which that stage has come to its next operation of the group; negative: none has. */
static int lane_that_meets(const struct stage_state *stage, enum cm_group group)
{
    for (int lane = 0; lane < CM_LANE_COUNT; lane++) {
        if (!stage->lanes[lane].meets)
            continue;
        const struct cm_instruction *item = head_of(stage, (enum cm_lane)lane);
        if (stage->program->kinds[item->what].u.comm.group == group)
            return lane;
    }
    return -1;
}

static enum cm_status differ(const struct stage_state *a, enum cm_lane lane,
                             const struct stage_state *b, enum cm_lane other)
{
    struct cm_str text = CM_STR_INIT;
    const struct cm_instruction *item = head_of(a, lane), *their = head_of(b, other);
    cm_virtual_write_op(a->program, lane, &a->program->kinds[item->what], item, &text);
    cm_str_add(&text, ", ");
    cm_virtual_write_op(b->program, other, &b->program->kinds[their->what], their, &text);
    cm_error(CM_INTERNAL, "schedules do not fit together: members of a group differ: %s",
             cm_str_text(&text));
    cm_str_release(&text);
    return CM_INTERNAL;
}

/* All members are there: they begin when the last one came, and take what the slowest says. */
static void meet_all(struct clock *clock, unsigned index, enum cm_group group, unsigned last,
                     enum cm_lane last_lane, double time_s)
{
    const struct moment begin = clock->stages[last].lanes[last_lane].at;
    enum cm_group name;
    unsigned member;
    for (unsigned i = 0; cm_virtual_member(clock->program, index, group, i, &member, &name); i++) {
        struct stage_state *stage = &clock->stages[member];
        enum cm_lane lane = (enum cm_lane)lane_that_meets(stage, name);
        struct lane_state *state = &stage->lanes[lane];
        double computed_s = state->at.computed_s;
        state->at = begin;
        state->at.computed_s = computed_s; /* of its own stage */
        state->meets = false;
        execute(clock, member, lane, head_of(stage, lane), state->arrived_s, time_s);
        state->next++;
        if (member != index)
            make_ready(clock, member, lane);
    }
}

/* *met: the others were there already. */
static enum cm_status meet(struct clock *clock, unsigned index, enum cm_lane lane, bool *met)
{
    struct stage_state *stage = &clock->stages[index];
    struct lane_state *state = &stage->lanes[lane];
    const struct cm_op *op = &stage->program->kinds[head_of(stage, lane)->what];
    enum cm_group group = op->u.comm.group, name;
    unsigned member, last = index;
    enum cm_lane last_lane = lane;
    double time_s = 0;
    state->meets = true;
    state->arrived_s = state->at.now_s;
    add_late(clock, stage, &state->at, group);
    *met = false;
    for (unsigned i = 0; cm_virtual_member(clock->program, index, group, i, &member, &name); i++) {
        const struct stage_state *theirs = &clock->stages[member];
        int other = lane_that_meets(theirs, name);
        if (other < 0)
            return CM_OK;
        uint32_t what = head_of(theirs, (enum cm_lane)other)->what;
        if (member != index && !cm_virtual_fits(op, &theirs->program->kinds[what]))
            return differ(stage, lane, theirs, (enum cm_lane)other);
        time_s = fmax(time_s, theirs->time_s[what]);
        if (theirs->lanes[other].at.now_s > clock->stages[last].lanes[last_lane].at.now_s) {
            last = member;
            last_lane = (enum cm_lane)other;
        }
    }
    meet_all(clock, index, group, last, last_lane, time_s);
    *met = true;
    return CM_OK;
}

/* ---- the walk ---- */

static enum cm_status run_lane(struct clock *clock, unsigned index, enum cm_lane lane)
{
    struct stage_state *stage = &clock->stages[index];
    struct lane_state *state = &stage->lanes[lane];
    const struct cm_instruction *item;
    enum cm_status status = CM_OK;
    while (status == CM_OK && (item = head_of(stage, lane)) != NULL) {
        bool met;
        switch (item->kind) {
        case CM_DO_MEET:
            status = meet(clock, index, lane, &met);
            if (!met)
                return status;
            continue;
        case CM_DO_WAIT:
            if (!wait(clock, index, lane, item))
                return CM_OK;
            break;
        case CM_DO_RECORD:
            status = record(clock, index, lane, item);
            break;
        default:
            work(clock, index, lane, item);
            break;
        }
        state->next++;
    }
    return status;
}

enum { NAMED_MAX = 4 };

/* Lanes that did not come to their end, communication first: the rest waits for that. */
static enum cm_status stuck(const struct clock *clock)
{
    struct cm_str text = CM_STR_INIT;
    unsigned count = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < clock->program->stage_count; i++) {
            for (int lane = 0; lane < CM_LANE_COUNT; lane++) {
                const struct stage_state *stage = &clock->stages[i];
                const struct cm_instruction *item = head_of(stage, (enum cm_lane)lane);
                if (item == NULL || stage->lanes[lane].meets != (pass == 0) || count++ >= NAMED_MAX)
                    continue;
                cm_str_add(&text, count > 1 ? "; " : "");
                if (pass == 0)
                    cm_virtual_write_op(stage->program, (enum cm_lane)lane,
                                        &stage->program->kinds[item->what], item, &text);
                else
                    cm_str_addf(&text, "rank %u %s waits for %s", stage->program->rank,
                                cm_lane_names[lane], cm_lane_names[item->lane_for]);
            }
        }
    }
    if (count == 0)
        return CM_OK;
    if (count > NAMED_MAX)
        cm_str_addf(&text, "; and %u lanes more", count - NAMED_MAX);
    cm_error(CM_INTERNAL, "schedules do not fit together: they wait for ever: %s",
             cm_str_text(&text));
    cm_str_release(&text);
    return CM_INTERNAL;
}

/* ---- begin and end ---- */

static enum cm_status ask_times(const struct clock *clock, struct stage_state *stage)
{
    const struct cm_stage_program *program = stage->program;
    for (size_t i = 0; i < program->kind_count; i++) {
        const struct cm_op *op = &program->kinds[i];
        double time_s =
            clock->times->time_s(clock->times->impl, &clock->program->step, program->rank, op);
        stage->time_s[i] = time_s;
        if (isfinite(time_s) && time_s >= 0)
            continue;
        struct cm_str text = CM_STR_INIT;
        cm_virtual_write_op(program, op->lane, op, NULL, &text);
        cm_error(CM_INTERNAL, "%s: %g s is no time", cm_str_text(&text), time_s);
        cm_str_release(&text);
        return CM_INTERNAL;
    }
    return CM_OK;
}

static enum cm_status open_stage(struct clock *clock, unsigned index,
                                 struct cm_virtual_result *result)
{
    struct stage_state *stage = &clock->stages[index];
    const struct cm_stage_program *program = &clock->program->stages[index];
    stage->program = program;
    stage->result = &result->stages[index];
    stage->result->memory_bytes = program->memory_bytes;
    stage->result->flops = program->flops;
    stage->result->bytes = program->bytes;
    stage->result->message_bytes = program->message_bytes;
    stage->time_s = cm_alloc(program->kind_count, sizeof *stage->time_s);
    stage->value_of = cm_alloc(program->record_count, sizeof *stage->value_of);
    if (stage->time_s == NULL || stage->value_of == NULL)
        return CM_NO_MEMORY;
    memset(stage->value_of, 0xff, program->record_count * sizeof *stage->value_of);
    for (int lane = 0; lane < CM_LANE_COUNT; lane++) {
        stage->lanes[lane].held_by = NONE;
        make_ready(clock, index, (enum cm_lane)lane);
    }
    return ask_times(clock, stage);
}

static void close_stages(struct clock *clock)
{
    for (unsigned i = 0; clock->stages != NULL && i < clock->program->stage_count; i++) {
        cm_free(clock->stages[i].time_s);
        cm_free(clock->stages[i].value_of);
        cm_free(clock->stages[i].values);
        cm_free(clock->stages[i].free_values);
    }
    cm_free(clock->stages);
    cm_free(clock->ready);
}

/* The step ends when every stage's COMPUTE has, which waits for all its lanes. */
static void sum_up(const struct clock *clock, struct cm_virtual_result *result)
{
    for (unsigned i = 0; i < result->stage_count; i++) {
        const struct stage_state *stage = &clock->stages[i];
        for (int lane = 0; lane < CM_LANE_COUNT; lane++) {
            const struct moment *at = &stage->lanes[lane].at;
            if (at->now_s >= result->step_s) {
                result->step_s = at->now_s;
                result->path = at->path;
            }
        }
        result->no_comm_s =
            fmax(result->no_comm_s, result->stages[i].lanes[CM_LANE_COMPUTE].busy_s);
        result->operations += stage->program->operations;
    }
}

enum cm_status cm_virtual_execute(const struct cm_virtual *program,
                                  const struct cm_virtual_times *times,
                                  const struct cm_virtual_observer *observer,
                                  struct cm_virtual_result *result)
{
    struct clock clock = {.program = program, .times = times, .observer = observer};
    struct cm_virtual_result made = {.stage_count = program->stage_count};
    enum cm_status status = CM_NO_MEMORY;
    clock.stages = cm_alloc(program->stage_count, sizeof *clock.stages);
    clock.ready = cm_alloc((size_t)program->stage_count * CM_LANE_COUNT, sizeof *clock.ready);
    made.stages = cm_alloc(program->stage_count, sizeof *made.stages);
    if (clock.stages != NULL && clock.ready != NULL && made.stages != NULL)
        status = CM_OK;
    for (unsigned i = 0; i < program->stage_count && status == CM_OK; i++)
        status = open_stage(&clock, i, &made);
    while (clock.ready_count > 0 && status == CM_OK) {
        struct ready_lane next = clock.ready[--clock.ready_count];
        status = run_lane(&clock, next.stage, next.lane);
    }
    if (status == CM_OK)
        status = stuck(&clock);
    if (status == CM_OK) {
        sum_up(&clock, &made);
        *result = made;
    } else {
        cm_virtual_result_release(&made);
    }
    close_stages(&clock);
    return status;
}

void cm_virtual_result_release(struct cm_virtual_result *result)
{
    cm_free(result->stages);
    *result = (struct cm_virtual_result){.stages = NULL};
}
