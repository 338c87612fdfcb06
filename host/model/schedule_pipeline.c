/*
 * The order of a stage's work. One chunk per stage: 1F1B (PipeDream-Flush, arXiv 2104.04473): a
 * stage runs as many micro-batches ahead as there are stages behind it, then one forward and one
 * backward in turn. Several chunks: interleaved as in the same paper, groups of as many
 * micro-batches as there are stages, chunk after chunk.
 */
#include "clustermark/memory.h"
#include "host/model/builder.h"

struct pass {
    bool backward;
    unsigned chunk;
    uint64_t micro;
};

/* Pass number `index` of all forward passes (or of all backward ones). */
static struct pass pass_of(const struct cm_builder *b, uint64_t index, bool backward)
{
    uint64_t pp = b->parallel->pp, vpp = b->parallel->vpp;
    if (vpp == 1)
        return (struct pass){backward, 0, index};
    uint64_t group = index / (pp * vpp), within = index % (pp * vpp);
    unsigned chunk = (unsigned)(within / pp);
    if (backward)
        chunk = (unsigned)vpp - 1 - chunk;
    return (struct pass){backward, chunk, group * pp + within % pp};
}

/* All passes of this stage in order. */
static struct pass *order_passes(struct cm_builder *b, uint64_t *count)
{
    uint64_t pp = b->parallel->pp, vpp = b->parallel->vpp, stage = b->schedule->place.pp;
    uint64_t total = b->step->micro_batches * vpp;
    uint64_t ahead = vpp == 1 ? pp - 1 - stage : 2 * (pp - 1 - stage) + (vpp - 1) * pp;
    ahead = ahead < total ? ahead : total;
    struct pass *passes = cm_alloc(2 * total, sizeof *passes);
    if (passes == NULL) {
        b->status = CM_NO_MEMORY;
        return NULL;
    }
    uint64_t n = 0, forward = 0, backward = 0;
    while (forward < ahead)
        passes[n++] = pass_of(b, forward++, false);
    while (backward < total) {
        if (forward < total)
            passes[n++] = pass_of(b, forward++, false);
        passes[n++] = pass_of(b, backward++, true);
    }
    *count = n;
    return passes;
}

static bool is_first_part(const struct cm_builder *b, unsigned chunk)
{
    return b->schedule->place.pp == 0 && chunk == 0;
}

static bool is_last_part(const struct cm_builder *b, unsigned chunk)
{
    return b->schedule->place.pp == b->parallel->pp - 1 && chunk == b->parallel->vpp - 1;
}

static void announce_blocks(struct cm_builder *b, const struct pass *pass)
{
    uint64_t first = b->chunk_first[pass->chunk], end = b->chunk_first[pass->chunk + 1];
    for (uint64_t i = 0; i < end - first; i++) {
        uint64_t local = pass->backward ? end - 1 - i : first + i;
        cm_announce_use(b, b->block_units[local].dense);
        cm_announce_use(b, b->block_units[local].experts);
    }
}

static void announce(struct cm_builder *b, const struct pass *pass)
{
    if (!pass->backward && is_first_part(b, pass->chunk)) {
        cm_announce_use(b, b->embedding_unit);
        cm_announce_use(b, b->position_unit);
    }
    announce_blocks(b, pass);
    if (!pass->backward && is_last_part(b, pass->chunk)) {
        cm_announce_use(b, b->head_unit);
        if (b->model->tied)
            cm_announce_use(b, b->embedding_unit);
    }
}

/* ---- between stages ---- */

static void set_transfer(const struct cm_builder *b, struct cm_op *op, enum cm_group group,
                         struct cm_slice rows)
{
    uint64_t count = b->split_rows * b->hidden;
    op->slices[0] = rows;
    op->u.comm = (struct cm_comm_op){.group = group, .count = count, .dtype = b->step->dtype};
    op->bytes = (double)(count * b->size);
}

/* Queues the message; `sent` holds it until it may be waited for. Even without overlap that is not
 * at once: the receiver may have to send to us before it receives. */
static void send_rows(struct cm_builder *b, bool backward, struct cm_slice *rows,
                      struct cm_sent *sent)
{
    enum cm_lane lane = backward ? CM_LANE_BACKWARD_OUT : CM_LANE_FORWARD_OUT;
    cm_order(b, CM_LANE_COMPUTE, lane);
    set_transfer(b, cm_emit(b, CM_OP_SEND, lane),
                 backward ? CM_GROUP_BACKWARD_OUT : CM_GROUP_FORWARD_OUT, *rows);
    *sent = (struct cm_sent){*rows, cm_record(b, lane)};
    *rows = cm_no_slice();
}

/* Its buffer may be used again, after a wait: the receiver is known to take it without more from
 * us. */
static void give_sent(struct cm_builder *b, struct cm_sent *sent)
{
    cm_give_after(b, &sent->rows, sent->event);
}

/* What a pass receives: begun ahead of it. */
struct arrival {
    struct cm_slice rows;
    uint32_t event;
};

static bool receives(const struct cm_builder *b, const struct pass *pass)
{
    return pass->backward ? !is_last_part(b, pass->chunk) : !is_first_part(b, pass->chunk);
}

static void begin_arrival(struct cm_builder *b, const struct pass *pass, struct arrival *arrival)
{
    *arrival = (struct arrival){cm_no_slice(), CM_NO_EVENT};
    if (!receives(b, pass))
        return;
    enum cm_lane lane = pass->backward ? CM_LANE_BACKWARD_IN : CM_LANE_FORWARD_IN;
    b->micro = (int32_t)pass->micro;
    b->chunk = (int32_t)pass->chunk;
    arrival->rows = cm_take_rows(b, "rows", b->split_rows, b->hidden);
    cm_order(b, CM_LANE_COMPUTE, lane);
    set_transfer(b, cm_emit(b, CM_OP_RECV, lane),
                 pass->backward ? CM_GROUP_BACKWARD_IN : CM_GROUP_FORWARD_IN, arrival->rows);
    arrival->event = cm_record(b, lane);
}

static struct cm_slice take_arrival(struct cm_builder *b, struct arrival *arrival)
{
    if (arrival->event != CM_NO_EVENT) {
        cm_wait(b, CM_LANE_COMPUTE, arrival->event);
        cm_event_done(b, arrival->event);
    }
    return arrival->rows;
}

/* ---- passes ---- */

static struct cm_passage *passage_of(struct cm_builder *b, const struct pass *pass)
{
    return &b->passages[pass->chunk * b->step->micro_batches + pass->micro];
}

static bool open_passage(struct cm_builder *b, const struct pass *pass)
{
    struct cm_passage *passage = passage_of(b, pass);
    uint64_t count = b->chunk_first[pass->chunk + 1] - b->chunk_first[pass->chunk];
    passage->gradient = passage->sent.rows = cm_no_slice();
    passage->layers = cm_alloc(count, sizeof *passage->layers);
    if (passage->layers == NULL) {
        b->status = CM_NO_MEMORY;
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        struct cm_slice none = cm_no_slice();
        passage->layers[i] = (struct cm_saved){none, none, none, none, none, none, none, none, none,
                                               none, none, none, none, none, none, none, none};
    }
    return true;
}

static void emit_forward(struct cm_builder *b, const struct pass *pass, struct cm_slice x)
{
    struct cm_passage *passage = passage_of(b, pass);
    uint64_t first = b->chunk_first[pass->chunk], end = b->chunk_first[pass->chunk + 1];
    b->phase = CM_PHASE_FORWARD;
    if (!open_passage(b, pass))
        return;
    struct cm_slice delta = cm_no_slice();
    if (is_first_part(b, pass->chunk))
        x = cm_emit_embedding(b);
    uint64_t layer, layers_end;
    cm_parallel_layers(b->parallel, b->model->layers, b->schedule->place.pp, pass->chunk, &layer,
                       &layers_end);
    for (uint64_t local = first; local < end && b->status == CM_OK; local++) {
        b->layer = (int32_t)(layer + local - first);
        cm_emit_block(b, local, &passage->layers[local - first], &x, &delta);
        if (local > first)
            cm_drop_saved(b, &passage->layers[local - first - 1]);
    }
    if (b->status != CM_OK)
        return;
    if (is_last_part(b, pass->chunk)) {
        passage->gradient = cm_emit_head(b, &x, &delta, pass->micro + 1 == b->step->micro_batches);
    } else {
        b->layer = -1;
        struct cm_slice out = cm_take_rows(b, "rows", b->split_rows, b->hidden);
        cm_emit_elements(b, CM_OP_ADD, b->split_rows * b->hidden, b->step->dtype, out, x, delta);
        cm_give(b, &delta);
        send_rows(b, false, &out, &passage->sent);
    }
    cm_drop_saved(b, &passage->layers[end - first - 1]);
}

static void emit_backward(struct cm_builder *b, const struct pass *pass, struct cm_slice gradient)
{
    struct cm_passage *passage = passage_of(b, pass);
    uint64_t first = b->chunk_first[pass->chunk], end = b->chunk_first[pass->chunk + 1];
    bool last = pass->micro + 1 == b->step->micro_batches;
    b->phase = CM_PHASE_BACKWARD;
    if (passage->layers == NULL)
        return;
    if (is_last_part(b, pass->chunk))
        gradient = passage->gradient;
    else /* that its gradient is here says that the activation arrived there */
        give_sent(b, &passage->sent);
    uint64_t layer, layers_end;
    cm_parallel_layers(b->parallel, b->model->layers, b->schedule->place.pp, pass->chunk, &layer,
                       &layers_end);
    for (uint64_t local = end; local-- > first && b->status == CM_OK;) {
        b->layer = (int32_t)(layer + local - first);
        cm_emit_block_backward(b, local, &passage->layers[local - first], &gradient, last);
    }
    b->layer = -1;
    if (is_first_part(b, pass->chunk))
        cm_emit_embedding_backward(b, &gradient, last);
    else
        send_rows(b, true, &gradient, &passage->sent);
    cm_free(passage->layers);
    passage->layers = NULL;
}

void cm_emit_pipeline(struct cm_builder *b)
{
    uint64_t count = 0;
    struct pass *passes = order_passes(b, &count);
    if (passes == NULL)
        return;
    for (uint64_t i = 0; i < count; i++)
        announce(b, &passes[i]);
    cm_begin_gathers(b);
    /* A stage may be that many passes behind the next one in taking gradients. */
    uint64_t lag = 2 * (uint64_t)b->parallel->pp * b->parallel->vpp;
    struct arrival next;
    begin_arrival(b, &passes[0], &next);
    for (uint64_t i = 0; i < count && b->status == CM_OK; i++) {
        if (i >= lag && passes[i - lag].backward)
            give_sent(b, &passage_of(b, &passes[i - lag])->sent);
        struct arrival now = next;
        if (i + 1 < count && b->step->overlap)
            begin_arrival(b, &passes[i + 1], &next);
        b->micro = (int32_t)passes[i].micro;
        b->chunk = (int32_t)passes[i].chunk;
        struct cm_slice rows = take_arrival(b, &now);
        if (passes[i].backward)
            emit_backward(b, &passes[i], rows);
        else
            emit_forward(b, &passes[i], rows);
        if (i + 1 < count && !b->step->overlap)
            begin_arrival(b, &passes[i + 1], &next);
    }
    cm_free(passes);
}
