/*
 * Weights and gradients over the data groups: gathers ahead of use, gradients reduced while
 * backward goes on, the optimizer on each rank's shard.
 *
 * zero 0: gradients are summed over micro-batches, then over ranks; every rank updates all weights.
 *      1: each rank gets the sum of its shard and updates that; the next step begins by gathering.
 *      2: the same after every micro-batch, so that a whole unit's gradients are there only
 * briefly. 3: weights too are gathered for each use and given back after it.
 */
#include "clustermark/memory.h"
#include "host/model/builder.h"

/* ---- weights ---- */

static bool is_gathered(const struct cm_builder *b, uint32_t unit)
{
    return b->schedule->units[unit].shards > 1;
}

static bool is_temporary(const struct cm_builder *b, uint32_t unit)
{
    return is_gathered(b, unit) && b->parallel->zero == 3;
}

void cm_announce_use(struct cm_builder *b, uint32_t unit)
{
    if (b->status != CM_OK || unit == UINT32_MAX || !is_gathered(b, unit))
        return;
    for (size_t i = 0; i < b->use_count && !is_temporary(b, unit); i++) {
        if (b->uses[i] == unit) /* gathered once a step */
            return;
    }
    if (cm_grow(&b->uses, &b->use_capacity, b->use_count + 1, sizeof *b->uses)) {
        b->status = CM_NO_MEMORY;
        return;
    }
    b->uses[b->use_count++] = unit;
}

static void gather(struct cm_builder *b, uint32_t index)
{
    const struct cm_unit *unit = &b->schedule->units[index];
    struct cm_unit_work *work = &b->work[index];
    if (is_temporary(b, index))
        work->weights = cm_take(b, "gathered weights", unit->count * b->size, CM_USE_WEIGHTS, true);
    cm_order(b, CM_LANE_COMPUTE, CM_LANE_DATA);
    struct cm_op *op = cm_emit(b, CM_OP_ALL_GATHER, CM_LANE_DATA);
    op->slices[0] = unit->weight_shard;
    op->slices[1] = work->weights;
    op->u.comm = (struct cm_comm_op){.group = unit->experts ? CM_GROUP_EXPERT_DATA : CM_GROUP_DATA,
                                     .count = unit->count / unit->shards,
                                     .dtype = b->step->dtype};
    op->bytes = (double)(unit->count * b->size);
    work->gathered = cm_record(b, CM_LANE_DATA);
    work->gathering = true;
}

/* Begins the gathers of all uses before number `end`. */
static void gather_until(struct cm_builder *b, size_t end)
{
    for (; b->next_gather < end && b->next_gather < b->use_count && b->status == CM_OK;
         b->next_gather++) {
        uint32_t unit = b->uses[b->next_gather];
        if (!b->work[unit].ready && !b->work[unit].gathering)
            gather(b, unit);
    }
}

void cm_begin_gathers(struct cm_builder *b)
{
    if (b->step->overlap && b->use_count > 0)
        gather_until(b, is_temporary(b, b->uses[0]) ? 1 : b->use_count);
}

void cm_use_unit(struct cm_builder *b, uint32_t unit)
{
    if (b->status != CM_OK || unit == UINT32_MAX || !is_gathered(b, unit))
        return;
    struct cm_unit_work *work = &b->work[unit];
    bool counted = b->next_use < b->use_count && b->uses[b->next_use] == unit;
    if (counted)
        b->next_use++;
    if (b->step->overlap) /* what does not cost memory as early as can be, else one ahead */
        gather_until(b, is_temporary(b, unit) ? b->next_use + 1 : b->use_count);
    else
        gather_until(b, b->next_use);
    if (work->gathering) {
        cm_wait(b, CM_LANE_COMPUTE, work->gathered);
        cm_event_done(b, work->gathered);
        work->gathering = false;
        work->ready = true;
    }
}

void cm_leave_unit(struct cm_builder *b, uint32_t unit)
{
    if (b->status != CM_OK || unit == UINT32_MAX || !is_temporary(b, unit))
        return;
    struct cm_unit_work *work = &b->work[unit];
    if (b->next_use < b->use_count && b->uses[b->next_use] == unit)
        return; /* at once used again */
    cm_give(b, &work->weights);
    work->ready = false;
}

struct cm_slice cm_weights(struct cm_builder *b, uint32_t parameter)
{
    if (b->status != CM_OK || parameter == UINT32_MAX)
        return cm_no_slice();
    const struct cm_parameter *p = &b->schedule->parameters[parameter];
    return cm_part_of(b->work[p->unit].weights, p->offset * b->size, p->count * b->size);
}

/* ---- gradients ---- */

struct cm_slice cm_gradient(struct cm_builder *b, uint32_t parameter)
{
    if (b->status != CM_OK || parameter == UINT32_MAX)
        return cm_no_slice();
    const struct cm_parameter *p = &b->schedule->parameters[parameter];
    return cm_part_of(b->work[p->unit].gradients, p->offset * 4, p->count * 4);
}

/* Whether the unit's gradients are reduced after each micro-batch. */
static bool is_brief(const struct cm_builder *b, uint32_t unit)
{
    return is_gathered(b, unit) && b->parallel->zero >= 2;
}

void cm_open_gradients(struct cm_builder *b, uint32_t index, bool clear_all)
{
    if (b->status != CM_OK || index == UINT32_MAX || b->work[index].open)
        return;
    const struct cm_unit *unit = &b->schedule->units[index];
    struct cm_unit_work *work = &b->work[index];
    work->open = true;
    if (is_brief(b, index))
        work->gradients = cm_take(b, "gradients", unit->count * 4, CM_USE_GRADIENTS, true);
    uint64_t from = clear_all ? 0 : work->first_shared;
    if (!work->written)
        cm_emit_zero(b, cm_part_of(work->gradients, from * 4, (unit->count - from) * 4));
}

bool cm_gradients_add(const struct cm_builder *b, uint32_t unit)
{
    return b->status == CM_OK && b->work[unit].written;
}

/* The sum over the tensor group of what has parts of sums. */
static void sum_shared(struct cm_builder *b, uint32_t index)
{
    const struct cm_unit_work *work = &b->work[index];
    uint64_t count = work->first_equal - work->first_shared;
    if (count == 0)
        return;
    struct cm_slice part = cm_part_of(work->gradients, work->first_shared * 4, count * 4);
    cm_emit_layer_comm(b, CM_OP_ALL_REDUCE, CM_GROUP_TENSOR, count, CM_F32, part, part);
}

static void emit_reduction(struct cm_builder *b, uint32_t index, struct cm_slice to)
{
    const struct cm_unit *unit = &b->schedule->units[index];
    bool scatter = unit->shards > 1;
    struct cm_op *op = cm_emit(b, scatter ? CM_OP_REDUCE_SCATTER : CM_OP_ALL_REDUCE, CM_LANE_DATA);
    op->slices[0] = b->work[index].gradients;
    op->slices[1] = to;
    op->u.comm = (struct cm_comm_op){.group = unit->experts ? CM_GROUP_EXPERT_DATA : CM_GROUP_DATA,
                                     .count = unit->count / unit->shards,
                                     .dtype = CM_F32};
    op->bytes = (double)unit->count * 4;
}

static void wait_reduced(struct cm_builder *b, uint32_t *event)
{
    if (*event == CM_NO_EVENT)
        return;
    cm_wait(b, CM_LANE_COMPUTE, *event);
    cm_event_done(b, *event);
    *event = CM_NO_EVENT;
}

/* What was reduced for an earlier micro-batch's sums. */
static void add_pending(struct cm_builder *b)
{
    for (uint32_t i = 0; i < b->schedule->unit_count && b->status == CM_OK; i++) {
        struct cm_unit_work *work = &b->work[i];
        if (!cm_has(work->pending))
            continue;
        struct cm_slice shard = b->schedule->units[i].gradient_shard;
        wait_reduced(b, &work->reduced);
        wait_reduced(b, &work->pending_event);
        cm_emit_elements(b, CM_OP_ADD, shard.size_bytes / 4, CM_F32, shard, shard, work->pending);
        cm_give(b, &work->pending);
    }
}

/* Gradients that are being reduced are given back when the next ones are: with two buffers in turn,
 * a reduction has a whole unit's backward pass to hide behind. */
static void keep_flying(struct cm_builder *b, struct cm_slice *gradients)
{
    uint32_t event = cm_record(b, CM_LANE_DATA);
    if (!b->step->overlap) {
        cm_give_after(b, gradients, event);
        return;
    }
    if (cm_has(b->flying))
        cm_give_after(b, &b->flying, b->flying_event);
    b->flying = *gradients;
    b->flying_event = event;
    *gradients = cm_no_slice();
}

static void reduce_at_once(struct cm_builder *b, uint32_t index)
{
    struct cm_unit *unit = &b->schedule->units[index];
    struct cm_unit_work *work = &b->work[index];
    add_pending(b);
    struct cm_slice to = unit->gradient_shard;
    if (work->summed)
        to = work->pending =
            cm_take(b, "reduced", unit->gradient_shard.size_bytes, CM_USE_GRADIENTS, true);
    cm_order(b, CM_LANE_COMPUTE, CM_LANE_DATA);
    emit_reduction(b, index, to);
    *(work->summed ? &work->pending_event : &work->reduced) = cm_record(b, CM_LANE_DATA);
    keep_flying(b, &work->gradients);
    work->summed = true;
    work->written = false;
    if (!b->step->overlap)
        wait_reduced(b, cm_has(work->pending) ? &work->pending_event : &work->reduced);
}

static void reduce_waiting(struct cm_builder *b)
{
    if (b->waiting_count > 0)
        cm_order(b, CM_LANE_COMPUTE, CM_LANE_DATA);
    for (size_t i = 0; i < b->waiting_count && b->status == CM_OK; i++) {
        uint32_t unit = b->waiting[i];
        emit_reduction(b, unit, b->schedule->units[unit].gradient_shard);
        b->work[unit].reduced = cm_record(b, CM_LANE_DATA);
        if (!b->step->overlap)
            wait_reduced(b, &b->work[unit].reduced);
    }
    b->waiting_count = 0;
    b->waiting_bytes = 0;
}

void cm_close_gradients(struct cm_builder *b, uint32_t index, bool last)
{
    if (b->status != CM_OK || index == UINT32_MAX)
        return;
    const struct cm_unit *unit = &b->schedule->units[index];
    struct cm_unit_work *work = &b->work[index];
    work->open = false;
    work->written = true;
    if (!is_brief(b, index) && !last)
        return;
    sum_shared(b, index);
    if (is_brief(b, index)) {
        reduce_at_once(b, index);
        return;
    }
    if (cm_group_size(b, unit->experts ? CM_GROUP_EXPERT_DATA : CM_GROUP_DATA) < 2)
        return;
    if (cm_grow(&b->waiting, &b->waiting_capacity, b->waiting_count + 1, sizeof *b->waiting)) {
        b->status = CM_NO_MEMORY;
        return;
    }
    b->waiting[b->waiting_count++] = index;
    b->waiting_bytes += unit->count * 4;
    if (!b->step->overlap || b->waiting_bytes >= b->step->bucket_bytes)
        reduce_waiting(b);
}

/* ---- optimizer ---- */

/* The embedding's gradient where the first stage and the last have one each. */
static void sum_tied(struct cm_builder *b)
{
    if (b->embedding_unit == UINT32_MAX || cm_group_size(b, CM_GROUP_TIED) < 2)
        return;
    struct cm_slice shard = b->schedule->units[b->embedding_unit].gradient_shard;
    cm_order(b, CM_LANE_COMPUTE, CM_LANE_DATA);
    struct cm_op *op = cm_emit(b, CM_OP_ALL_REDUCE, CM_LANE_DATA);
    op->slices[0] = op->slices[1] = shard;
    op->u.comm =
        (struct cm_comm_op){.group = CM_GROUP_TIED, .count = shard.size_bytes / 4, .dtype = CM_F32};
    op->bytes = (double)shard.size_bytes;
    cm_order(b, CM_LANE_DATA, CM_LANE_COMPUTE);
}

/* Each element of the model once: what several ranks have counts on one of them, or in part. */
static void emit_square(struct cm_builder *b, uint32_t index)
{
    const struct cm_unit *unit = &b->schedule->units[index];
    const struct cm_unit_work *work = &b->work[index];
    uint64_t part = unit->count / unit->shards, first = unit->shard * part, count = part;
    if (b->schedule->place.tp > 0) {
        uint64_t own = work->first_shared > first ? work->first_shared - first : 0;
        count = own < count ? own : count;
    }
    if (count == 0 || work->tied_copy)
        return;
    unsigned copies = cm_group_size(b, unit->experts ? CM_GROUP_EXPERT_DATA : CM_GROUP_DATA);
    struct cm_op *op = cm_emit(b, CM_OP_SUM, CM_LANE_COMPUTE);
    op->slices[0] = cm_part_of(unit->gradient_shard, 0, count * 4);
    op->slices[1] = cm_part_of(b->scalars, CM_SCALAR_NORM, 4);
    op->slices[2] = b->scratch;
    op->u.sum = (struct cm_sum){.count = count,
                                .squares = true,
                                .accumulate = true,
                                .factor = unit->shards > 1 ? 1 : 1 / (float)copies};
    op->bytes = (double)count * 4;
}

static void emit_update(struct cm_builder *b, uint32_t index)
{
    const struct cm_unit *unit = &b->schedule->units[index];
    const struct cm_step *step = b->step;
    struct cm_op *op = cm_emit(b, CM_OP_ADAMW, CM_LANE_COMPUTE);
    const struct cm_slice slices[] = {unit->gradient_shard,
                                      cm_part_of(b->scalars, CM_SCALAR_CLIP, 4),
                                      unit->master,
                                      unit->m,
                                      unit->v,
                                      unit->weight_shard};
    for (unsigned i = 0; i < sizeof slices / sizeof *slices; i++)
        op->slices[i] = slices[i];
    uint64_t count = unit->count / unit->shards;
    op->u.adamw = (struct cm_adamw){.dtype = step->dtype,
                                    .count = count,
                                    .learning_rate = step->learning_rate,
                                    .beta1 = step->beta1,
                                    .beta2 = step->beta2,
                                    .epsilon = step->epsilon,
                                    .weight_decay = step->weight_decay,
                                    .first = unit->shard * count,
                                    .stochastic = step->stochastic && step->dtype == CM_BF16};
    /* gradient, and master, m, v in and out; the weights where they are not the master */
    op->bytes = (double)count * (28 + (step->dtype == CM_F32 ? 0 : (double)b->size));
}

void cm_emit_optimizer(struct cm_builder *b)
{
    uint32_t units = b->status == CM_OK ? b->schedule->unit_count : 0;
    b->phase = CM_PHASE_OPTIMIZER;
    b->layer = b->micro = b->chunk = -1;
    reduce_waiting(b);
    add_pending(b);
    for (uint32_t i = 0; i < units; i++)
        if (i == b->embedding_unit)
            wait_reduced(b, &b->work[i].reduced);
    sum_tied(b);
    for (uint32_t i = 0; i < units; i++) {
        wait_reduced(b, &b->work[i].reduced);
        emit_square(b, i);
    }
    if (cm_parallel_ranks(b->parallel) > 1) {
        struct cm_slice sums = cm_part_of(b->scalars, 0, 8);
        cm_order(b, CM_LANE_COMPUTE, CM_LANE_DATA);
        struct cm_op *op = cm_emit(b, CM_OP_ALL_REDUCE, CM_LANE_DATA);
        op->slices[0] = op->slices[1] = sums;
        op->u.comm = (struct cm_comm_op){.group = CM_GROUP_WORLD, .count = 2, .dtype = CM_F32};
        op->bytes = 8;
        cm_order(b, CM_LANE_DATA, CM_LANE_COMPUTE);
    }
    struct cm_op *op = cm_emit(b, CM_OP_CLIP_FACTOR, CM_LANE_COMPUTE);
    op->slices[0] = cm_part_of(b->scalars, CM_SCALAR_NORM, 4);
    op->slices[1] = cm_part_of(b->scalars, CM_SCALAR_CLIP, 4);
    op->u.clip = b->step->clip;
    for (uint32_t i = 0; i < units; i++)
        emit_update(b, i);
}
