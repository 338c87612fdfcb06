/* Building blocks of schedules: operations, buffers that are used again, order between lanes. */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/model.h"
#include "host/model/builder.h"

#define ALIGNMENT 256

struct cm_slice cm_part_of(struct cm_slice slice, uint64_t offset_bytes, uint64_t size_bytes)
{
    if (!cm_has(slice))
        return slice;
    return (struct cm_slice){slice.buffer, slice.offset_bytes + offset_bytes, size_bytes};
}

/* Room for one more element. */
static bool grow(struct cm_builder *b, void *array, size_t *capacity, size_t count, size_t size)
{
    if (b->status == CM_OK && cm_grow(array, capacity, count + 1, size))
        b->status = CM_NO_MEMORY;
    return b->status == CM_OK;
}

void cm_emit_end(struct cm_builder *b)
{
    if (b->sink != NULL && b->status == CM_OK && b->schedule->op_count > 0)
        b->status = b->sink->take(b->sink->impl, b->schedule, &b->current);
}

/* Where the next operation is written: after a failure, and before it goes to a sink, aside. */
static struct cm_op *next_place(struct cm_builder *b)
{
    struct cm_schedule *s = b->schedule;
    size_t capacity = s->op_capacity;
    if (s->op_count == UINT32_MAX - 1 && b->status == CM_OK)
        b->status = cm_error(CM_USAGE, "a step of over 2^32 operations");
    if (b->sink != NULL) {
        cm_emit_end(b);
        s->op_count += b->status == CM_OK ? 1 : 0;
        return &b->current;
    }
    if (!grow(b, &s->ops, &capacity, s->op_count, sizeof *s->ops))
        return &b->current;
    s->op_capacity = (uint32_t)capacity;
    return &s->ops[s->op_count++];
}

struct cm_op *cm_emit(struct cm_builder *b, enum cm_op_kind kind, enum cm_lane lane)
{
    struct cm_op *op = next_place(b);
    b->lanes_used |= 1u << lane;
    *op = (struct cm_op){.kind = kind,
                         .lane = lane,
                         .phase = b->phase,
                         .layer = b->layer,
                         .micro = b->micro,
                         .chunk = b->chunk,
                         .event = CM_NO_EVENT};
    for (unsigned i = 0; i < CM_OP_SLICES; i++)
        op->slices[i] = cm_no_slice();
    return op;
}

struct cm_slice cm_keep(struct cm_builder *b, const char *name, uint64_t size_bytes,
                        enum cm_buffer_use use, bool comm)
{
    struct cm_schedule *s = b->schedule;
    size_t capacity = s->buffer_capacity;
    if (size_bytes == 0 || !grow(b, &s->buffers, &capacity, s->buffer_count, sizeof *s->buffers))
        return cm_no_slice();
    s->buffer_capacity = (uint32_t)capacity;
    struct cm_buffer *buffer = &s->buffers[s->buffer_count];
    *buffer = (struct cm_buffer){.size_bytes = (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT,
                                 .use = use,
                                 .comm = comm};
    snprintf(buffer->name, sizeof buffer->name, "%s", name);
    return (struct cm_slice){s->buffer_count++, 0, size_bytes};
}

struct cm_slice cm_take(struct cm_builder *b, const char *name, uint64_t size_bytes,
                        enum cm_buffer_use use, bool comm)
{
    const struct cm_schedule *s = b->schedule;
    uint64_t rounded = (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    /* The one that was given back last is the likeliest to be in a cache. One that another lane
     * still uses only where there is no other. */
    for (int busy = 0; busy < 2 && b->status == CM_OK; busy++) {
        for (size_t i = b->idle_count; i-- > 0;) {
            struct cm_idle_buffer idle = b->idle[i];
            const struct cm_buffer *buffer = &s->buffers[idle.buffer];
            if (buffer->size_bytes != rounded || buffer->use != use || buffer->comm != comm ||
                (idle.event != CM_NO_EVENT) != (busy != 0))
                continue;
            if (busy != 0) /* the one that has been waiting longest */
                for (size_t k = 0; k < i; k++) {
                    const struct cm_buffer *other = &s->buffers[b->idle[k].buffer];
                    if (other->size_bytes == rounded && other->use == use && other->comm == comm) {
                        i = k;
                        idle = b->idle[k];
                    }
                }
            memmove(&b->idle[i], &b->idle[i + 1], (--b->idle_count - i) * sizeof *b->idle);
            if (idle.event != CM_NO_EVENT) {
                cm_wait(b, CM_LANE_COMPUTE, idle.event);
                cm_event_done(b, idle.event);
            }
            return (struct cm_slice){idle.buffer, 0, size_bytes};
        }
    }
    return cm_keep(b, name, size_bytes, use, comm);
}

void cm_give_after(struct cm_builder *b, struct cm_slice *slice, uint32_t event)
{
    if (cm_has(*slice) && grow(b, &b->idle, &b->idle_capacity, b->idle_count, sizeof *b->idle))
        b->idle[b->idle_count++] = (struct cm_idle_buffer){slice->buffer, event};
    *slice = cm_no_slice();
}

uint32_t cm_record(struct cm_builder *b, enum cm_lane lane)
{
    uint32_t event = b->free_event_count > 0 ? b->free_events[--b->free_event_count]
                                             : b->schedule->event_count++;
    cm_emit(b, CM_OP_RECORD, lane)->event = event;
    return event;
}

void cm_wait(struct cm_builder *b, enum cm_lane lane, uint32_t event)
{
    cm_emit(b, CM_OP_WAIT, lane)->event = event;
}

/* A wait is for the record before it, so the event may be recorded anew at once. */
void cm_event_done(struct cm_builder *b, uint32_t event)
{
    if (event != CM_NO_EVENT && grow(b, &b->free_events, &b->free_event_capacity,
                                     b->free_event_count, sizeof *b->free_events))
        b->free_events[b->free_event_count++] = event;
}

void cm_order(struct cm_builder *b, enum cm_lane from, enum cm_lane to)
{
    uint32_t event = cm_record(b, from);
    cm_wait(b, to, event);
    cm_event_done(b, event);
}

static struct cm_op *emit_product(struct cm_builder *b, enum cm_op_kind kind,
                                  const struct cm_product *product, struct cm_slice a,
                                  struct cm_slice bb, struct cm_slice c)
{
    uint64_t batch = product->batch == 0 ? 1 : product->batch;
    struct cm_op *op = cm_emit(b, kind, CM_LANE_COMPUTE);
    op->slices[0] = a;
    op->slices[1] = bb;
    op->slices[2] = c;
    op->u.gemm = (struct cm_gemm_desc){.dtype = b->step->dtype,
                                       .out_dtype = product->out,
                                       .m = product->m,
                                       .n = product->n,
                                       .k = product->k,
                                       .batch = batch,
                                       .trans_a = product->trans_a,
                                       .trans_b = product->trans_b,
                                       .accumulate = product->accumulate};
    op->flops = cm_gemm_flops(product->m, product->n, product->k, batch);
    double c_elements = (double)product->m * (double)product->n * (double)batch;
    op->bytes =
        (double)batch * (double)b->size *
            ((double)product->m * (double)product->k + (double)product->k * (double)product->n) +
        c_elements * (double)cm_dtype_size(product->out) * (product->accumulate ? 2 : 1);
    return op;
}

/* An operand of an 8-bit product. */
struct narrowed {
    struct cm_slice numbers, known;
};

/* As matrices of `outer` rows along which the sum runs, `k` long: what the matrix units want. They
 * are stored so, or (`transpose`) the other way round. */
static struct narrowed narrow(struct cm_builder *b, struct cm_slice from, uint64_t outer,
                              uint64_t k, uint64_t batch, bool transpose, bool gradient)
{
    struct narrowed made = {
        .numbers = cm_take(b, "8-bit matrix", outer * k * batch, CM_USE_WORKSPACE, false),
        .known = cm_take(b, "scale", sizeof(struct cm_quantised), CM_USE_WORKSPACE, false)};
    struct cm_op *op = cm_emit(b, CM_OP_QUANTISE, CM_LANE_COMPUTE);
    op->slices[0] = from;
    op->slices[1] = made.numbers;
    op->slices[2] = made.known;
    op->u.quantise = (struct cm_quantise){.from = b->step->dtype,
                                          .to = gradient ? CM_F8E5M2 : CM_F8E4M3,
                                          .rows = transpose ? k : outer,
                                          .columns = transpose ? outer : k,
                                          .batch = batch,
                                          .transpose = transpose};
    /* The largest magnitude is known when all has been read. */
    op->bytes = (double)outer * (double)k * (double)batch * (2 * (double)b->size + 1);
    return made;
}

static void emit_narrow(struct cm_builder *b, const struct cm_product *product, struct cm_slice a,
                        struct cm_slice bb, struct cm_slice c)
{
    uint64_t batch = product->batch == 0 ? 1 : product->batch;
    bool wide_a = product->narrow == CM_NARROW_GRADIENT_A;
    bool wide_b = product->narrow == CM_NARROW_GRADIENT_B;
    struct narrowed left = narrow(b, a, product->m, product->k, batch, product->trans_a, wide_a);
    struct narrowed right = narrow(b, bb, product->n, product->k, batch, !product->trans_b, wide_b);
    struct cm_op *op = emit_product(b, CM_OP_GEMM_SCALED, product, left.numbers, right.numbers, c);
    op->slices[3] = cm_part_of(left.known, 0, sizeof(float));
    op->slices[4] = cm_part_of(right.known, 0, sizeof(float));
    op->u.gemm.dtype = CM_F8E4M3;
    op->u.gemm.trans_a = false;
    op->u.gemm.trans_b = true;
    op->u.gemm.scaled = true;
    op->u.gemm.wide_a = wide_a;
    op->u.gemm.wide_b = wide_b;
    cm_give(b, &left.numbers);
    cm_give(b, &left.known);
    cm_give(b, &right.numbers);
    cm_give(b, &right.known);
}

void cm_emit_gemm(struct cm_builder *b, const struct cm_product *product, struct cm_slice a,
                  struct cm_slice bb, struct cm_slice c)
{
    bool whole = product->m % 16 == 0 && product->n % 16 == 0 && product->k % 16 == 0;
    if (b->step->fp8 && product->narrow != CM_NARROW_NONE && whole)
        emit_narrow(b, product, a, bb, c);
    else
        emit_product(b, CM_OP_GEMM, product, a, bb, c);
}

void cm_emit_gemm_gelu(struct cm_builder *b, enum cm_op_kind kind, const struct cm_product *product,
                       struct cm_slice a, struct cm_slice bb, struct cm_slice c,
                       struct cm_slice beside)
{
    struct cm_op *op = emit_product(b, kind, product, a, bb, c);
    op->slices[3] = beside;
    op->bytes += (double)product->m * (double)product->n * (double)cm_dtype_size(product->out);
    op->u.gemm.epilogue = kind == CM_OP_GEMM_GELU ? CM_EPILOGUE_GELU : CM_EPILOGUE_GELU_BACKWARD;
}

struct cm_op *cm_emit_elements(struct cm_builder *b, enum cm_op_kind kind, uint64_t count,
                               enum cm_dtype dtype, struct cm_slice to, struct cm_slice x,
                               struct cm_slice y)
{
    struct cm_op *op = cm_emit(b, kind, CM_LANE_COMPUTE);
    op->slices[0] = to;
    op->slices[1] = x;
    if (kind == CM_OP_ADD)
        op->slices[2] = y;
    op->u.elements = (struct cm_elements){count, dtype, dtype};
    op->bytes = (double)count * (double)cm_dtype_size(dtype) * (kind == CM_OP_ADD ? 3 : 2);
    return op;
}

void cm_emit_zero(struct cm_builder *b, struct cm_slice slice)
{
    if (!cm_has(slice) || slice.size_bytes == 0)
        return;
    struct cm_op *op = cm_emit(b, CM_OP_ZERO, CM_LANE_COMPUTE);
    op->slices[0] = slice;
    op->bytes = (double)slice.size_bytes;
}

unsigned cm_group_size(const struct cm_builder *b, enum cm_group group)
{
    return cm_parallel_group_size(b->parallel, b->model, b->schedule->rank, group);
}

void cm_emit_layer_comm(struct cm_builder *b, enum cm_op_kind kind, enum cm_group group,
                        uint64_t count, enum cm_dtype dtype, struct cm_slice send,
                        struct cm_slice recv)
{
    unsigned size = cm_group_size(b, group);
    if (size < 2)
        return;
    cm_order(b, CM_LANE_COMPUTE, CM_LANE_LAYER);
    struct cm_op *op = cm_emit(b, kind, CM_LANE_LAYER);
    op->slices[0] = send;
    op->slices[1] = recv;
    op->u.comm = (struct cm_comm_op){.group = group, .count = count, .dtype = dtype};
    op->bytes =
        (double)count * (double)cm_dtype_size(dtype) * (kind == CM_OP_ALL_REDUCE ? 1 : size);
    cm_order(b, CM_LANE_LAYER, CM_LANE_COMPUTE);
}

struct cm_slice cm_take_rows(struct cm_builder *b, const char *name, uint64_t rows,
                             uint64_t columns)
{
    /* Whatever may be gathered, reduced or sent: one pool is less memory than two. */
    bool comm = cm_parallel_ranks(b->parallel) > 1;
    return cm_take(b, name, rows * columns * b->size, CM_USE_ACTIVATIONS, comm);
}

struct cm_slice cm_gather_rows(struct cm_builder *b, struct cm_slice rows)
{
    if (b->parallel->sp == 0)
        return rows;
    struct cm_slice all = cm_take_rows(b, "gathered", b->rows, b->hidden);
    cm_emit_layer_comm(b, CM_OP_ALL_GATHER, CM_GROUP_TENSOR, b->split_rows * b->hidden,
                       b->step->dtype, rows, all);
    return all;
}

void cm_give_gathered(struct cm_builder *b, struct cm_slice original, struct cm_slice *gathered)
{
    if (gathered->buffer != original.buffer)
        cm_give(b, gathered);
    *gathered = cm_no_slice();
}

struct cm_slice cm_reduce_rows(struct cm_builder *b, struct cm_slice *all)
{
    struct cm_slice sum = *all;
    if (b->parallel->sp == 0) {
        cm_emit_layer_comm(b, CM_OP_ALL_REDUCE, CM_GROUP_TENSOR, b->rows * b->hidden,
                           b->step->dtype, sum, sum);
        *all = cm_no_slice();
        return sum;
    }
    sum = cm_take_rows(b, "rows", b->split_rows, b->hidden);
    cm_emit_layer_comm(b, CM_OP_REDUCE_SCATTER, CM_GROUP_TENSOR, b->split_rows * b->hidden,
                       b->step->dtype, *all, sum);
    cm_give(b, all);
    return sum;
}
