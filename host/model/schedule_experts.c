/*
 * The feed-forward layer of experts: routing on every rank for its own tokens, places of a fixed
 * number per expert, and with expert parallelism an all-to-all to the ranks that have the experts
 * and one back. Tensor parallelism splits every expert like a dense layer: what a rank's experts
 * give, and so the gradients of the choices, are parts of sums.
 */
#include "host/model/builder.h"

static uint64_t places(const struct cm_builder *b)
{
    return b->model->experts * b->capacity;
}

static struct cm_route describe(const struct cm_builder *b)
{
    return (struct cm_route){.dtype = b->step->dtype,
                             .rows = b->rows,
                             .columns = b->hidden,
                             .experts = (uint32_t)b->model->experts,
                             .top_k = (uint32_t)b->model->top_k,
                             .capacity = b->capacity};
}

static struct cm_op *emit_route(struct cm_builder *b, enum cm_op_kind kind,
                                const struct cm_slice *slices, unsigned count, double bytes)
{
    struct cm_op *op = cm_emit(b, kind, CM_LANE_COMPUTE);
    for (unsigned i = 0; i < count; i++)
        op->slices[i] = slices[i];
    op->u.route = describe(b);
    op->bytes = bytes;
    return op;
}
#define EMIT_ROUTE(b, kind, bytes, ...)                                                            \
    emit_route(b, kind, (const struct cm_slice[]){__VA_ARGS__},                                    \
               sizeof(struct cm_slice[]){__VA_ARGS__} / sizeof(struct cm_slice), bytes)

static double row_bytes(const struct cm_builder *b, uint64_t rows)
{
    return (double)rows * (double)b->hidden * (double)b->size;
}

/* Blocks of one expert's places from one rank: [rank][expert] to [expert][rank], or back. */
static void emit_transpose(struct cm_builder *b, uint64_t rows, uint64_t columns,
                           struct cm_slice from, struct cm_slice to)
{
    struct cm_op *op = cm_emit(b, CM_OP_REORDER, CM_LANE_COMPUTE);
    op->slices[0] = from;
    op->slices[1] = to;
    op->u.reorder = (struct cm_reorder){.kind = CM_REORDER_TRANSPOSE,
                                        .rows = (uint32_t)rows,
                                        .columns = (uint32_t)columns,
                                        .block_bytes = b->capacity * b->hidden * b->size};
    op->bytes = 2 * row_bytes(b, places(b));
}

/* From this rank's tokens by expert, all experts, to this rank's experts, tokens of all ranks (or
 * back). Takes the slots over. */
static struct cm_slice exchange(struct cm_builder *b, struct cm_slice *slots, bool back)
{
    if (b->ep == 1) {
        struct cm_slice same = *slots;
        *slots = cm_no_slice();
        return same;
    }
    struct cm_slice other = cm_take_rows(b, "slots", places(b), b->hidden);
    uint64_t count = b->experts_here * b->capacity * b->hidden;
    if (back) {
        emit_transpose(b, b->experts_here, b->ep, *slots, other);
        cm_emit_layer_comm(b, CM_OP_ALL_TO_ALL, CM_GROUP_EXPERT, count, b->step->dtype, other,
                           *slots);
    } else {
        cm_emit_layer_comm(b, CM_OP_ALL_TO_ALL, CM_GROUP_EXPERT, count, b->step->dtype, *slots,
                           other);
        emit_transpose(b, b->ep, b->experts_here, other, *slots);
    }
    cm_give(b, &other);
    struct cm_slice moved = *slots;
    *slots = cm_no_slice();
    return moved;
}

static struct cm_product expert_product(const struct cm_builder *b, uint64_t n, uint64_t k,
                                        enum cm_narrow narrow)
{
    return (struct cm_product){.m = b->ep * b->capacity,
                               .n = n,
                               .k = k,
                               .batch = b->experts_here,
                               .out = b->step->dtype,
                               .narrow = narrow};
}

/* All local experts' matrices, which lie one after the other. */
static struct cm_slice of_all(const struct cm_builder *b, struct cm_slice first)
{
    first.size_bytes *= b->experts_here;
    return first;
}

static void route_tokens(struct cm_builder *b, const struct cm_block_parameters *p,
                         struct cm_saved *saved, struct cm_slice all)
{
    uint64_t choices = b->rows * b->model->top_k;
    struct cm_slice logits =
        cm_take(b, "router logits", b->rows * b->model->experts * 4, CM_USE_ACTIVATIONS, false);
    struct cm_slice counts =
        cm_take(b, "router counts", b->model->experts * 4, CM_USE_ACTIVATIONS, false);
    cm_emit_gemm(
        b,
        &(struct cm_product){
            .m = b->rows, .n = b->model->experts, .k = b->hidden, .trans_b = true, .out = CM_F32},
        all, cm_weights(b, p->router), logits);
    saved->slot = cm_take(b, "slot", choices * 4, CM_USE_ACTIVATIONS, false);
    saved->expert = cm_take(b, "expert", choices * 4, CM_USE_ACTIVATIONS, false);
    saved->weight = cm_take(b, "choice weight", choices * 4, CM_USE_ACTIVATIONS, false);
    EMIT_ROUTE(b, CM_OP_ROUTE, (double)(b->rows * b->model->experts * 4 + choices * 12), logits,
               saved->slot, saved->expert, saved->weight, counts, b->scratch);
    cm_give(b, &logits);
    cm_give(b, &counts);
}

struct cm_slice cm_emit_experts(struct cm_builder *b, uint64_t local, struct cm_saved *saved,
                                struct cm_slice all, bool inner)
{
    const struct cm_block_parameters *p = &b->block_parameters[local];
    uint64_t rows = b->ep * b->capacity * b->experts_here;
    route_tokens(b, p, saved, all);
    struct cm_slice slots = cm_take_rows(b, "slots", places(b), b->hidden);
    EMIT_ROUTE(b, CM_OP_PERMUTE, 2 * row_bytes(b, places(b)), all, saved->slot, slots, b->scratch);
    saved->slots_in = exchange(b, &slots, false);
    saved->up = cm_take_rows(b, "up", rows, b->up_columns);
    struct cm_product product = expert_product(b, b->up_columns, b->hidden, CM_NARROW_INPUTS);
    product.trans_b = true;
    cm_emit_gemm(b, &product, saved->slots_in, of_all(b, cm_weights(b, p->up)), saved->up);
    saved->act = cm_take_rows(b, "activation", rows, b->ffn);
    cm_emit_activation(b, rows, saved->up, saved->act);
    slots = cm_take_rows(b, "slots", places(b), b->hidden);
    product = expert_product(b, b->hidden, b->ffn, CM_NARROW_INPUTS);
    cm_emit_gemm(b, &product, saved->act, of_all(b, cm_weights(b, p->down)), slots);
    saved->slots_out = exchange(b, &slots, true);
    if (inner)
        return cm_no_slice();
    struct cm_slice delta = cm_take_rows(b, "rows", b->rows, b->hidden);
    EMIT_ROUTE(b, CM_OP_UNPERMUTE, row_bytes(b, b->rows * (b->model->top_k + 1)), saved->slots_out,
               saved->slot, saved->weight, delta);
    return delta;
}

/* The router's gradient, and what the choices add to that of the rows. */
static void router_backward(struct cm_builder *b, uint32_t unit,
                            const struct cm_block_parameters *p, struct cm_saved *saved,
                            struct cm_slice all, struct cm_slice dweight, struct cm_slice din)
{
    uint64_t logits = b->rows * b->model->experts;
    struct cm_slice dlogits = cm_take(b, "router logits", logits * 4, CM_USE_ACTIVATIONS, false);
    EMIT_ROUTE(b, CM_OP_ROUTE_BACKWARD, (double)logits * 4, saved->expert, saved->weight, dweight,
               dlogits);
    struct cm_slice narrow = dlogits;
    if (b->step->dtype != CM_F32) {
        narrow = cm_take(b, "router logits, narrow", logits * b->size, CM_USE_ACTIVATIONS, false);
        cm_emit_elements(b, CM_OP_CONVERT, logits, b->step->dtype, narrow, dlogits, cm_no_slice())
            ->u.elements.from_dtype = CM_F32;
    }
    cm_emit_weight_gradient(b, unit, 1, b->rows, narrow, all, b->model->experts, b->hidden,
                            cm_gradient(b, p->router), CM_NARROW_NONE);
    cm_emit_gemm(b,
                 &(struct cm_product){.m = b->rows,
                                      .n = b->hidden,
                                      .k = b->model->experts,
                                      .accumulate = true,
                                      .out = b->step->dtype},
                 narrow, cm_weights(b, p->router), din);
    if (narrow.buffer != dlogits.buffer)
        cm_give(b, &narrow);
    cm_give(b, &dlogits);
}

struct cm_slice cm_emit_experts_backward(struct cm_builder *b, uint64_t local,
                                         struct cm_saved *saved, struct cm_slice all,
                                         struct cm_slice gradient)
{
    const struct cm_block_parameters *p = &b->block_parameters[local];
    const struct cm_block_units *units = &b->block_units[local];
    uint64_t rows = b->ep * b->capacity * b->experts_here, each = b->ep * b->capacity;
    struct cm_slice dweight =
        cm_take(b, "choice weight", b->rows * b->model->top_k * 4, CM_USE_ACTIVATIONS, false);
    struct cm_slice slots = cm_take_rows(b, "slots", places(b), b->hidden);
    EMIT_ROUTE(b, CM_OP_UNPERMUTE_BACKWARD, row_bytes(b, 2 * places(b) + b->rows), gradient,
               saved->slots_out, saved->slot, saved->weight, slots, dweight, b->scratch);
    struct cm_slice dout = exchange(b, &slots, false);
    cm_emit_weight_gradient(b, units->experts, b->experts_here, each, saved->act, dout, b->ffn,
                            b->hidden, of_all(b, cm_gradient(b, p->down)), CM_NARROW_GRADIENT_B);
    struct cm_product product = expert_product(b, b->ffn, b->hidden, CM_NARROW_GRADIENT_A);
    product.trans_b = true;
    struct cm_slice dact = saved->act; /* no longer needed */
    cm_emit_gemm(b, &product, dout, of_all(b, cm_weights(b, p->down)), dact);
    cm_give(b, &dout);
    cm_emit_activation_backward(b, rows, saved->up, dact);
    cm_emit_weight_gradient(b, units->experts, b->experts_here, each, saved->up, saved->slots_in,
                            b->up_columns, b->hidden, of_all(b, cm_gradient(b, p->up)),
                            CM_NARROW_GRADIENT_A);
    slots = cm_take_rows(b, "slots", places(b), b->hidden);
    product = expert_product(b, b->hidden, b->up_columns, CM_NARROW_GRADIENT_A);
    cm_emit_gemm(b, &product, saved->up, of_all(b, cm_weights(b, p->up)), slots);
    struct cm_slice dslots = exchange(b, &slots, true);
    struct cm_slice din = cm_take_rows(b, "rows", b->rows, b->hidden);
    EMIT_ROUTE(b, CM_OP_UNPERMUTE, row_bytes(b, b->rows * (b->model->top_k + 1)), dslots,
               saved->slot, cm_no_slice(), din);
    cm_give(b, &dslots);
    router_backward(b, units->dense, p, saved, all, dweight, din);
    cm_give(b, &dweight);
    return din;
}
