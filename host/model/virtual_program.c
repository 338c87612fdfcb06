/* From the schedules of a step's stages to programs for the virtual clock. */
#include "host/model/virtual_program.h"

#include <inttypes.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/memory.h"

#define NONE UINT32_MAX

/* ---- groups that join stages ---- */

static bool joins_stages(const struct cm_step *step, enum cm_group group)
{
    return step->parallel.pp > 1 && (group == CM_GROUP_WORLD || group >= CM_GROUP_TIED);
}

bool cm_virtual_member(const struct cm_virtual *program, unsigned stage, enum cm_group group,
                       unsigned index, unsigned *member, enum cm_group *name)
{
    unsigned pp = program->stage_count;
    /* What an edge is called at its other end, and how far away that is. */
    static const struct {
        enum cm_group other;
        bool next;
    } edges[] = {
        [CM_GROUP_FORWARD_OUT] = {CM_GROUP_FORWARD_IN, true},
        [CM_GROUP_FORWARD_IN] = {CM_GROUP_FORWARD_OUT, false},
        [CM_GROUP_BACKWARD_OUT] = {CM_GROUP_BACKWARD_IN, false},
        [CM_GROUP_BACKWARD_IN] = {CM_GROUP_BACKWARD_OUT, true},
    };
    *name = group;
    *member = index;
    if (group == CM_GROUP_WORLD)
        return index < pp;
    if (index >= 2)
        return false;
    if (group == CM_GROUP_TIED) {
        *member = index == 0 ? 0 : pp - 1;
        return true;
    }
    *member = stage;
    if (index == 0)
        return true;
    *name = edges[group].other;
    *member = (stage + (edges[group].next ? 1 : pp - 1)) % pp;
    return true;
}

bool cm_virtual_fits(const struct cm_op *a, const struct cm_op *b)
{
    bool edge = a->kind == CM_OP_SEND || a->kind == CM_OP_RECV;
    bool kinds = edge ? (b->kind == CM_OP_SEND || b->kind == CM_OP_RECV) && a->kind != b->kind
                      : a->kind == b->kind;
    return kinds && a->u.comm.count == b->u.comm.count && a->u.comm.dtype == b->u.comm.dtype &&
           a->u.comm.max == b->u.comm.max;
}

/* ---- for messages ---- */

void cm_virtual_write_op(const struct cm_stage_program *stage, enum cm_lane lane,
                         const struct cm_op *op, const struct cm_instruction *item,
                         struct cm_str *out)
{
    cm_str_addf(out, "rank %u %s %s", stage->rank, cm_lane_names[lane], cm_op_infos[op->kind].name);
    if (cm_op_infos[op->kind].class == CM_CLASS_COMM)
        cm_str_addf(out, " %s %" PRIu64 " %s", cm_group_names[op->u.comm.group], op->u.comm.count,
                    cm_dtype_name(op->u.comm.dtype));
    if (item != NULL && item->micro >= 0)
        cm_str_addf(out, " m%" PRId32, item->micro);
}

/* ---- one stage ---- */

/* What is known of an event of the schedule, which is recorded again and again. */
struct event {
    uint32_t latest; /* number of its latest record; NONE: not recorded */
    enum cm_lane lane;
};

struct compiler {
    const struct cm_schedule *schedule;
    struct cm_stage_program *stage;
    struct event *events;
    size_t event_count, event_capacity;
    size_t waiter_capacity;
    uint32_t *buckets; /* of kinds: number, NONE: free; a power of two */
    size_t bucket_count;
    uint32_t index; /* of the operation */
};

static enum cm_status wrong(const struct compiler *c, const struct cm_op *op, const char *what)
{
    struct cm_str text = CM_STR_INIT;
    cm_op_write(c->schedule, op, &text);
    cm_error(CM_INTERNAL, "schedule of rank %u, operation %" PRIu32 " (%s): %s", c->schedule->rank,
             c->index, cm_str_text(&text), what);
    cm_str_release(&text);
    return CM_INTERNAL;
}

/* What the time of an operation may depend on, and what it is counted as. Bytes between the fields
 * of a shape may differ between equals: they then are two kinds, which costs a question. */
static struct cm_op strip(const struct cm_op *op)
{
    struct cm_op kind;
    memset(&kind, 0, sizeof kind);
    kind.kind = op->kind;
    kind.lane = op->lane;
    kind.phase = op->phase;
    kind.layer = kind.micro = kind.chunk = -1;
    memcpy(&kind.u, &op->u, sizeof kind.u);
    kind.flops = op->flops;
    kind.bytes = op->bytes;
    for (unsigned i = 0; i < CM_OP_SLICES; i++)
        kind.slices[i].buffer = CM_NO_BUFFER;
    return kind;
}

static bool same_kind(const struct cm_op *a, const struct cm_op *b)
{
    const void *shape = &a->u, *other = &b->u;
    return a->kind == b->kind && a->lane == b->lane && a->phase == b->phase &&
           a->flops == b->flops && a->bytes == b->bytes && memcmp(shape, other, sizeof a->u) == 0;
}

static size_t bucket_of(const struct compiler *c, const struct cm_op *op)
{
    uint64_t hash = cm_hash((uint64_t)op->kind << 8 | (uint64_t)op->phase, &op->u, sizeof op->u);
    size_t at = (size_t)hash & (c->bucket_count - 1);
    while (c->buckets[at] != NONE && !same_kind(&c->stage->kinds[c->buckets[at]], op))
        at = (at + 1) & (c->bucket_count - 1);
    return at;
}

static enum cm_status grow_buckets(struct compiler *c)
{
    uint32_t *old = c->buckets;
    c->bucket_count = c->bucket_count == 0 ? 256 : 2 * c->bucket_count;
    c->buckets = cm_alloc(c->bucket_count, sizeof *c->buckets);
    cm_free(old);
    if (c->buckets == NULL)
        return CM_NO_MEMORY;
    memset(c->buckets, 0xff, c->bucket_count * sizeof *c->buckets);
    for (size_t i = 0; i < c->stage->kind_count; i++)
        c->buckets[bucket_of(c, &c->stage->kinds[i])] = (uint32_t)i;
    return CM_OK;
}

/* The number of that kind of operation; a new one is added. */
static enum cm_status find_kind(struct compiler *c, const struct cm_op *op, uint32_t *number)
{
    struct cm_stage_program *stage = c->stage;
    size_t at = bucket_of(c, op);
    if (c->buckets[at] == NONE) {
        if (cm_grow(&stage->kinds, &stage->kind_capacity, stage->kind_count + 1,
                    sizeof *stage->kinds) != 0)
            return CM_NO_MEMORY;
        c->buckets[at] = (uint32_t)stage->kind_count;
        stage->kinds[stage->kind_count] = strip(op);
        stage->kind_count++;
        if (2 * stage->kind_count > c->bucket_count) {
            *number = (uint32_t)stage->kind_count - 1;
            return grow_buckets(c);
        }
    }
    *number = c->buckets[at];
    return CM_OK;
}

static enum cm_status add_instruction(struct compiler *c, const struct cm_op *op,
                                      enum cm_instruction_kind kind, uint32_t what)
{
    struct cm_lane_program *lane = &c->stage->lanes[op->lane];
    if (cm_grow(&lane->items, &lane->capacity, lane->count + 1, sizeof *lane->items) != 0)
        return CM_NO_MEMORY;
    struct cm_instruction *item = &lane->items[lane->count++];
    *item = (struct cm_instruction){.what = what,
                                    .kind = (uint8_t)kind,
                                    .chunk = (int16_t)op->chunk,
                                    .layer = op->layer,
                                    .micro = op->micro};
    if (kind == CM_DO_WAIT)
        item->lane_for = (uint8_t)c->events[op->event].lane;
    return CM_OK;
}

static enum cm_status add_record(struct compiler *c, const struct cm_op *op)
{
    struct cm_stage_program *stage = c->stage;
    if (cm_grow(&stage->waiters, &c->waiter_capacity, stage->record_count + 1,
                sizeof *stage->waiters) != 0 ||
        cm_grow(&c->events, &c->event_capacity, (size_t)op->event + 1, sizeof *c->events) != 0)
        return CM_NO_MEMORY;
    while (c->event_count <= op->event)
        c->events[c->event_count++] = (struct event){.latest = NONE};
    uint32_t number = (uint32_t)stage->record_count++;
    stage->waiters[number] = 0;
    c->events[op->event] = (struct event){number, op->lane};
    return add_instruction(c, op, CM_DO_RECORD, number);
}

static enum cm_status add_wait(struct compiler *c, const struct cm_op *op)
{
    if (op->event >= c->event_count || c->events[op->event].latest == NONE)
        return wrong(c, op, "waits for an event that was never recorded");
    uint32_t number = c->events[op->event].latest;
    if (c->events[op->event].lane == op->lane)
        return CM_OK; /* its own lane has passed there */
    c->stage->waiters[number]++;
    return add_instruction(c, op, CM_DO_WAIT, number);
}

static enum cm_status take_op(void *impl, const struct cm_schedule *schedule,
                              const struct cm_op *op)
{
    struct compiler *c = impl;
    struct cm_stage_program *stage = c->stage;
    uint32_t number = 0;
    c->schedule = schedule;
    c->index = (uint32_t)stage->operations++;
    if ((unsigned)op->lane >= CM_LANE_COUNT || (unsigned)op->kind >= CM_OP_KIND_COUNT)
        return cm_error(CM_INTERNAL, "schedule of rank %u, operation %" PRIu32 " is none",
                        schedule->rank, c->index);
    if (op->kind == CM_OP_RECORD)
        return add_record(c, op);
    if (op->kind == CM_OP_WAIT)
        return add_wait(c, op);
    bool comm = cm_op_infos[op->kind].class == CM_CLASS_COMM;
    if (comm && (unsigned)op->u.comm.group >= CM_GROUP_COUNT)
        return wrong(c, op, "no such group");
    stage->flops += op->flops;
    *(comm ? &stage->message_bytes : &stage->bytes) += op->bytes;
    enum cm_status status = find_kind(c, op, &number);
    bool joins = comm && joins_stages(&schedule->step, op->u.comm.group);
    return status == CM_OK ? add_instruction(c, op, joins ? CM_DO_MEET : CM_DO_WORK, number)
                           : status;
}

/* From an array, or operation by operation as they are made. */
static enum cm_status take_all(const struct cm_schedule *schedule, struct compiler *c)
{
    enum cm_status status = CM_OK;
    for (uint32_t i = 0; i < schedule->op_count && status == CM_OK; i++) {
        const struct cm_op *op = &schedule->ops[i];
        bool sync = op->kind == CM_OP_RECORD || op->kind == CM_OP_WAIT;
        c->schedule = schedule;
        c->index = i;
        status = sync && op->event >= schedule->event_count ? wrong(c, op, "no such event")
                                                            : take_op(c, schedule, op);
    }
    return status;
}

/* Of the schedule, or where there is none of that rank's, which is made and released. */
static enum cm_status compile(const struct cm_schedule *schedule, const struct cm_step *step,
                              unsigned rank, struct cm_stage_program *stage)
{
    struct compiler c = {.stage = stage};
    const struct cm_op_sink sink = {take_op, &c};
    struct cm_schedule made = {0};
    uint64_t by_use[CM_USE_COUNT];
    stage->rank = rank;
    enum cm_status status = grow_buckets(&c);
    if (status == CM_OK && schedule != NULL)
        status = take_all(schedule, &c);
    else if (status == CM_OK)
        status = cm_schedule_stream(step, rank, &sink, &made);
    if (status == CM_OK)
        cm_schedule_memory(schedule != NULL ? schedule : &made, by_use, &stage->memory_bytes);
    cm_schedule_release(&made);
    cm_free(c.events);
    cm_free(c.buckets);
    return status;
}

/* ---- all stages ---- */

static enum cm_status make(const struct cm_step *step, unsigned stages, struct cm_virtual **made)
{
    struct cm_virtual *program = cm_alloc(1, sizeof *program);
    if (program == NULL)
        return CM_NO_MEMORY;
    program->step = *step;
    program->stage_count = stages;
    program->stages = cm_alloc(stages, sizeof *program->stages);
    *made = program;
    return program->stages != NULL ? CM_OK : CM_NO_MEMORY;
}

static enum cm_status finish(enum cm_status status, struct cm_virtual *made,
                             struct cm_virtual **program)
{
    if (status == CM_OK)
        *program = made;
    else
        cm_virtual_close(made);
    return status;
}

enum cm_status cm_virtual_open(const struct cm_step *step, struct cm_virtual **program)
{
    struct cm_virtual *made = NULL;
    unsigned pp = step->parallel.pp;
    enum cm_status status = cm_parallel_check(&step->parallel, &step->model, step->micro_batches,
                                              step->micro_batch, "trainstep");
    if (status == CM_OK)
        status = make(step, pp, &made);
    for (unsigned stage = 0; stage < pp && status == CM_OK; stage++) {
        const struct cm_coordinates place = {.pp = stage};
        status =
            compile(NULL, step, cm_parallel_rank(&step->parallel, &place), &made->stages[stage]);
    }
    return finish(status, made, program);
}

enum cm_status cm_virtual_open_schedules(const struct cm_schedule *schedules, unsigned count,
                                         struct cm_virtual **program)
{
    struct cm_virtual *made = NULL;
    if (count == 0 || count != schedules[0].step.parallel.pp)
        return cm_error(CM_INTERNAL, "%u schedules for the stages of a pipeline", count);
    enum cm_status status = make(&schedules[0].step, count, &made);
    for (unsigned stage = 0; stage < count && status == CM_OK; stage++) {
        if (schedules[stage].place.pp != stage)
            status = cm_error(CM_INTERNAL, "schedule number %u is of stage %u", stage,
                              schedules[stage].place.pp);
        else
            status = compile(&schedules[stage], NULL, schedules[stage].rank, &made->stages[stage]);
    }
    return finish(status, made, program);
}

void cm_virtual_close(struct cm_virtual *program)
{
    if (program == NULL)
        return;
    for (unsigned i = 0; program->stages != NULL && i < program->stage_count; i++) {
        struct cm_stage_program *stage = &program->stages[i];
        for (int lane = 0; lane < CM_LANE_COUNT; lane++)
            cm_free(stage->lanes[lane].items);
        cm_free(stage->kinds);
        cm_free(stage->waiters);
    }
    cm_free(program->stages);
    cm_free(program);
}
