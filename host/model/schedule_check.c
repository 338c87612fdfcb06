/*
 * Whether schedules are right, without knowing what they are for. Each rank for itself: order
 * between lanes by vector clocks. All together: an execution in which every communication waits for
 * its partners.
 */
#include <inttypes.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/schedule.h"

/* How far each lane is known to have come. */
struct clock {
    uint32_t lanes[CM_LANE_COUNT];
};

/* The latest access of a lane to a range of a buffer. */
struct access {
    uint64_t begin, end;
    uint32_t time;
    uint8_t lane;
    bool write;
};

struct accesses {
    struct access *items;
    size_t count, capacity;
};

struct checker {
    const struct cm_schedule *schedule;
    struct clock lanes[CM_LANE_COUNT];
    struct clock *events;
    bool *recorded;
    struct accesses *buffers;
    uint32_t index;
};

static enum cm_status wrong(const struct checker *c, const char *what)
{
    struct cm_str text = CM_STR_INIT;
    cm_op_write(c->schedule, &c->schedule->ops[c->index], &text);
    cm_error(CM_INTERNAL, "schedule of rank %u, operation %" PRIu32 " (%s): %s", c->schedule->rank,
             c->index, cm_str_text(&text), what);
    cm_str_release(&text);
    return CM_INTERNAL;
}

static void merge(struct clock *to, const struct clock *from)
{
    for (int i = 0; i < CM_LANE_COUNT; i++)
        to->lanes[i] = from->lanes[i] > to->lanes[i] ? from->lanes[i] : to->lanes[i];
}

/* Whether somebody wrote there before: parts of a written range count. */
static bool was_written(const struct accesses *list, uint64_t begin, uint64_t end)
{
    uint64_t at = begin;
    for (bool found = true; at < end && found;) {
        found = false;
        for (size_t i = 0; i < list->count && !found; i++) {
            const struct access *a = &list->items[i];
            if (a->write && a->begin <= at && a->end > at) {
                at = a->end;
                found = true;
            }
        }
    }
    return at >= end;
}

static bool is_given(const struct cm_schedule *s, uint32_t buffer)
{
    enum cm_buffer_use use = s->buffers[buffer].use;
    if (use == CM_USE_WEIGHTS || use == CM_USE_OPTIMIZER)
        return true;
    return buffer == s->tokens.buffer || buffer == s->targets.buffer;
}

static enum cm_status add_access(struct checker *c, struct accesses *list, struct access new)
{
    for (size_t i = 0; i < list->count; i++) {
        struct access *a = &list->items[i];
        if (a->begin == new.begin && a->end == new.end && a->lane == new.lane &&
            a->write == new.write) {
            a->time = new.time;
            return CM_OK;
        }
    }
    if (cm_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items))
        return CM_NO_MEMORY;
    list->items[list->count++] = new;
    (void)c;
    return CM_OK;
}

static enum cm_status check_slice(struct checker *c, const struct cm_slice *slice, char role,
                                  enum cm_lane lane)
{
    const struct cm_schedule *s = c->schedule;
    bool reads = strchr("rRuU", role) != NULL, writes = strchr("wWuU", role) != NULL;
    if (slice->buffer == CM_NO_BUFFER)
        return role >= 'a' ? wrong(c, "a slice is missing") : CM_OK;
    if (slice->buffer >= s->buffer_count)
        return wrong(c, "a slice of no buffer");
    const struct cm_buffer *buffer = &s->buffers[slice->buffer];
    uint64_t begin = slice->offset_bytes, end = begin + slice->size_bytes;
    if (slice->size_bytes == 0 || end < begin || end > buffer->size_bytes)
        return wrong(c, "a slice reaches beyond its buffer");
    if (lane != CM_LANE_COMPUTE && !buffer->comm)
        return wrong(c, "communication with a buffer that is not for it");
    struct accesses *list = &c->buffers[slice->buffer];
    for (size_t i = 0; i < list->count; i++) {
        const struct access *a = &list->items[i];
        if (a->lane != lane && a->begin < end && begin < a->end && (a->write || writes) &&
            c->lanes[lane].lanes[a->lane] < a->time)
            return wrong(c, "nothing orders it after another lane's use of the same memory");
    }
    if (reads && (role == 'r' || role == 'R') && !is_given(s, slice->buffer) &&
        !was_written(list, begin, end))
        return wrong(c, "reads what nobody has written");
    const struct access new = {begin, end, c->lanes[lane].lanes[lane], (uint8_t)lane, writes};
    return add_access(c, list, new);
}

static enum cm_status check_operation(struct checker *c, const struct cm_op *op)
{
    struct clock *own = &c->lanes[op->lane];
    own->lanes[op->lane]++;
    if (op->kind == CM_OP_RECORD || op->kind == CM_OP_WAIT) {
        if (op->event >= c->schedule->event_count)
            return wrong(c, "no such event");
        if (op->kind == CM_OP_RECORD) {
            c->events[op->event] = *own;
            c->recorded[op->event] = true;
            return CM_OK;
        }
        if (!c->recorded[op->event])
            return wrong(c, "waits for an event that was never recorded");
        merge(own, &c->events[op->event]);
        return CM_OK;
    }
    if (op->lane != CM_LANE_COMPUTE && own->lanes[CM_LANE_COMPUTE] == 0)
        return wrong(c, "begins before the step does");
    const char *roles = cm_op_infos[op->kind].roles;
    enum cm_status status = CM_OK;
    for (unsigned i = 0; roles[i] != '\0' && status == CM_OK; i++)
        status = check_slice(c, &op->slices[i], roles[i], op->lane);
    return status;
}

static enum cm_status check_rank(const struct cm_schedule *s)
{
    struct checker c = {.schedule = s};
    enum cm_status status = CM_OK;
    c.events = cm_alloc(s->event_count + 1, sizeof *c.events);
    c.recorded = cm_alloc(s->event_count + 1, sizeof *c.recorded);
    c.buffers = cm_alloc(s->buffer_count + 1, sizeof *c.buffers);
    if (c.events == NULL || c.recorded == NULL || c.buffers == NULL)
        status = CM_NO_MEMORY;
    for (c.index = 0; c.index < s->op_count && status == CM_OK; c.index++)
        status = check_operation(&c, &s->ops[c.index]);
    c.index = s->op_count - 1;
    for (int lane = 1; lane < CM_LANE_COUNT && status == CM_OK; lane++)
        if (c.lanes[CM_LANE_COMPUTE].lanes[lane] < c.lanes[lane].lanes[lane])
            status = wrong(&c, "the step ends before all lanes have");
    for (uint32_t i = 0; c.buffers != NULL && i < s->buffer_count; i++)
        cm_free(c.buffers[i].items);
    cm_free(c.buffers);
    cm_free(c.recorded);
    cm_free(c.events);
    return status;
}

/* ---- all ranks together ---- */

/* A communicator: number by (group, split, color); each rank's place in it. */
struct world {
    const struct cm_schedule *schedules;
    unsigned count;
    int64_t *members;  /* [rank][group]: number of the communicator, -1 none */
    uint32_t *next;    /* [rank][lane]: index of the lane's next operation */
    uint32_t *waiting; /* [rank][event]... times that it was recorded, by position */
    bool *done;        /* per rank and operation */
    size_t *first;     /* of a rank's operations in done */
};

static int64_t *member_of(struct world *w, unsigned rank, enum cm_group group)
{
    return &w->members[(size_t)rank * CM_GROUP_COUNT + group];
}

static void find_members(struct world *w)
{
    const struct cm_step *step = &w->schedules[0].step;
    unsigned splits = cm_parallel_splits(&step->parallel);
    for (unsigned rank = 0; rank < w->count; rank++) {
        for (int group = 0; group < CM_GROUP_COUNT; group++)
            *member_of(w, rank, (enum cm_group)group) = group == CM_GROUP_WORLD ? 0 : -1;
        for (unsigned i = 0; i < splits; i++) {
            enum cm_group group;
            int color, key;
            cm_parallel_split(&step->parallel, &step->model, rank, i, &group, &color, &key);
            if (color >= 0)
                *member_of(w, rank, group) = (int64_t)(i + 1) << 32 | color;
        }
    }
}

/* The communication at which that rank's communicator is to go on, or NULL: its lane has not come
 * there. Operations of a communicator are in one lane, or in the order of the array. */
static const struct cm_op *head_of(struct world *w, unsigned rank, enum cm_lane lane)
{
    const struct cm_schedule *s = &w->schedules[rank];
    uint32_t index = w->next[rank * CM_LANE_COUNT + lane];
    return index < s->op_count ? &s->ops[index] : NULL;
}

static bool is_comm(const struct cm_op *op)
{
    return cm_op_infos[op->kind].class == CM_CLASS_COMM;
}

static void advance(struct world *w, unsigned rank, enum cm_lane lane)
{
    const struct cm_schedule *s = &w->schedules[rank];
    uint32_t *next = &w->next[rank * CM_LANE_COUNT + lane];
    if (*next < s->op_count)
        w->done[w->first[rank] + *next] = true;
    do
        ++*next;
    while (*next < s->op_count && s->ops[*next].lane != lane);
}

/* Whether the record that a wait is for (the last before it) has happened. */
static bool is_recorded(struct world *w, unsigned rank, const struct cm_op *wait)
{
    const struct cm_schedule *s = &w->schedules[rank];
    for (uint32_t i = (uint32_t)(wait - s->ops); i-- > 0;) {
        if (s->ops[i].kind == CM_OP_RECORD && s->ops[i].event == wait->event)
            return w->done[w->first[rank] + i];
    }
    return false;
}

static bool is_edge(const struct cm_op *op)
{
    return op->kind == CM_OP_SEND || op->kind == CM_OP_RECV;
}

static bool fits(const struct cm_op *a, const struct cm_op *b)
{
    bool kinds = is_edge(a) ? is_edge(b) && a->kind != b->kind : a->kind == b->kind;
    return kinds && a->u.comm.count == b->u.comm.count && a->u.comm.dtype == b->u.comm.dtype &&
           a->u.comm.max == b->u.comm.max;
}

static enum cm_status mismatch(const struct cm_schedule *s, const struct cm_op *op,
                               const struct cm_schedule *other, const struct cm_op *other_op,
                               const char *what)
{
    struct cm_str text = CM_STR_INIT;
    cm_op_write(s, op, &text);
    cm_str_addf(&text, " on rank %u, ", s->rank);
    if (other_op != NULL) {
        cm_op_write(other, other_op, &text);
        cm_str_addf(&text, " on rank %u", other->rank);
    }
    cm_error(CM_INTERNAL, "schedules do not fit together: %s: %s", what, cm_str_text(&text));
    cm_str_release(&text);
    return CM_INTERNAL;
}

/* Tries the communication at the head of that lane: with all members there, each goes on. */
static enum cm_status try_comm(struct world *w, unsigned rank, enum cm_lane lane,
                               const struct cm_op *op, bool *moved)
{
    enum cm_group group = op->u.comm.group;
    int64_t own = *member_of(w, rank, group);
    if (own < 0)
        return mismatch(&w->schedules[rank], op, NULL, NULL, "a communicator that the rank lacks");
    for (int pass = 0; pass < 2; pass++) { /* first look, then go on */
        for (unsigned r = 0; r < w->count; r++) {
            enum cm_group name = r == rank ? group : cm_group_other_end(group);
            if (*member_of(w, r, name) != own)
                continue;
            const struct cm_op *theirs = NULL;
            enum cm_lane at = lane;
            for (int l = 0; l < CM_LANE_COUNT && theirs == NULL; l++) {
                const struct cm_op *candidate = head_of(w, r, (enum cm_lane)l);
                if (candidate != NULL && is_comm(candidate) && candidate->u.comm.group == name) {
                    theirs = candidate;
                    at = (enum cm_lane)l;
                }
            }
            if (theirs == NULL)
                return CM_OK;
            if (pass == 0 && r != rank && !fits(op, theirs))
                return mismatch(&w->schedules[rank], op, &w->schedules[r], theirs,
                                "members of a group differ");
            if (pass == 1)
                advance(w, r, at);
        }
    }
    *moved = true;
    return CM_OK;
}

static enum cm_status step_lane(struct world *w, unsigned rank, enum cm_lane lane, bool *moved)
{
    const struct cm_op *op;
    while ((op = head_of(w, rank, lane)) != NULL) {
        if (is_comm(op))
            return try_comm(w, rank, lane, op, moved);
        if (op->kind == CM_OP_WAIT && !is_recorded(w, rank, op))
            return CM_OK;
        advance(w, rank, lane);
        *moved = true;
    }
    return CM_OK;
}

static enum cm_status execute(struct world *w)
{
    enum cm_status status = CM_OK;
    for (bool moved = true; moved && status == CM_OK;) {
        moved = false;
        for (unsigned rank = 0; rank < w->count; rank++)
            for (int lane = 0; lane < CM_LANE_COUNT && status == CM_OK; lane++)
                status = step_lane(w, rank, (enum cm_lane)lane, &moved);
    }
    for (unsigned rank = 0; rank < w->count && status == CM_OK; rank++)
        for (int lane = 0; lane < CM_LANE_COUNT && status == CM_OK; lane++) {
            const struct cm_op *op = head_of(w, rank, (enum cm_lane)lane);
            if (op != NULL)
                status = mismatch(&w->schedules[rank], op, NULL, NULL, "they wait for ever");
        }
    return status;
}

static enum cm_status check_world(const struct cm_schedule *schedules, unsigned count)
{
    struct world w = {.schedules = schedules, .count = count};
    size_t total = 0;
    enum cm_status status = CM_NO_MEMORY;
    w.members = cm_alloc((size_t)count * CM_GROUP_COUNT, sizeof *w.members);
    w.next = cm_alloc((size_t)count * CM_LANE_COUNT, sizeof *w.next);
    w.first = cm_alloc(count, sizeof *w.first);
    if (w.members != NULL && w.next != NULL && w.first != NULL) {
        for (unsigned rank = 0; rank < count; rank++) {
            w.first[rank] = total;
            total += schedules[rank].op_count;
        }
        w.done = cm_alloc(total, sizeof *w.done);
    }
    if (w.done != NULL) {
        find_members(&w);
        for (unsigned rank = 0; rank < count; rank++)
            for (int lane = 0; lane < CM_LANE_COUNT; lane++)
                if (schedules[rank].ops[0].lane != (enum cm_lane)lane) {
                    w.next[rank * CM_LANE_COUNT + (unsigned)lane] = 0;
                    advance(&w, rank, (enum cm_lane)lane);
                    w.done[w.first[rank]] = false;
                }
        status = execute(&w);
    }
    cm_free(w.done);
    cm_free(w.first);
    cm_free(w.next);
    cm_free(w.members);
    return status;
}

enum cm_status cm_schedule_check(const struct cm_schedule *schedules, unsigned count)
{
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < count && status == CM_OK; i++)
        status = check_rank(&schedules[i]);
    return status == CM_OK && count > 1 ? check_world(schedules, count) : status;
}
