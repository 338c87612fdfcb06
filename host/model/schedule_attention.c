/*
 * Attention of a block, forward and backward. Under context parallelism a rank has its own queries,
 * and the keys and values of the whole sequence are gathered, put into order, and after the
 * backward pass summed back.
 */
#include "host/model/builder.h"

static void emit_rope(struct cm_builder *b, struct cm_slice rows, uint64_t heads, uint64_t stride,
                      bool backward)
{
    if (b->model->positions != CM_POSITION_ROPE)
        return;
    struct cm_op *op = cm_emit(b, CM_OP_ROPE, CM_LANE_COMPUTE);
    op->slices[0] = rows;
    op->u.rope = (struct cm_rope){.dtype = b->step->dtype,
                                  .rows = b->rows,
                                  .heads = (uint32_t)heads,
                                  .head_size = (uint32_t)b->head_size,
                                  .stride = stride,
                                  .base = (float)b->model->rope_base,
                                  .backward = backward,
                                  .positions = b->positions};
    op->bytes = 2 * (double)(b->rows * heads * b->head_size * b->size);
}

static struct cm_slice column(const struct cm_builder *b, struct cm_slice matrix, uint64_t first)
{
    uint64_t offset = first * b->size;
    return cm_part_of(matrix, offset, matrix.size_bytes - offset);
}

/* Where the attention finds keys and values: the rank's own rows, or those of the context group. */
struct keys {
    struct cm_slice k, v, all;
    uint64_t stride, length;
};

static void emit_zigzag(struct cm_builder *b, enum cm_reorder_kind kind, struct cm_slice from,
                        struct cm_slice to)
{
    struct cm_op *op = cm_emit(b, CM_OP_REORDER, CM_LANE_COMPUTE);
    op->slices[0] = from;
    op->slices[1] = to;
    op->u.reorder = (struct cm_reorder){.kind = kind,
                                        .rows = b->cp,
                                        .columns = 2,
                                        .block_bytes = b->rows / 2 * b->kv_columns * b->size};
    op->bytes = 2 * (double)to.size_bytes;
}

static struct keys find_keys(struct cm_builder *b, struct cm_slice qkv, struct cm_slice kv)
{
    struct keys keys = {
        .all = cm_no_slice(), .stride = b->qkv_columns, .length = b->rows / b->positions.batch};
    if (b->cp == 1) {
        keys.k = column(b, qkv, b->q_columns);
        keys.v = column(b, qkv, b->q_columns + b->kv_heads * b->head_size);
        return keys;
    }
    struct cm_slice ranks = cm_take_rows(b, "kv of ranks", b->rows * b->cp, b->kv_columns);
    cm_emit_layer_comm(b, CM_OP_ALL_GATHER, CM_GROUP_CONTEXT, b->rows * b->kv_columns,
                       b->step->dtype, kv, ranks);
    keys.all = cm_take_rows(b, "kv", b->rows * b->cp, b->kv_columns);
    emit_zigzag(b, CM_REORDER_ZIGZAG, ranks, keys.all);
    cm_give(b, &ranks);
    keys.k = keys.all;
    keys.v = column(b, keys.all, b->kv_heads * b->head_size);
    keys.stride = b->kv_columns;
    keys.length *= b->cp;
    return keys;
}

static struct cm_attention describe_attention(const struct cm_builder *b, const struct keys *keys)
{
    uint64_t q_stride = b->cp == 1 ? b->qkv_columns : b->q_columns;
    return (struct cm_attention){.dtype = b->step->dtype,
                                 .batch = b->positions.batch,
                                 .heads = (uint32_t)b->heads,
                                 .kv_heads = (uint32_t)b->kv_heads,
                                 .head_size = (uint32_t)b->head_size,
                                 .q_length = (uint32_t)(b->rows / b->positions.batch),
                                 .k_length = (uint32_t)keys->length,
                                 .positions = b->positions,
                                 .q_stride = q_stride,
                                 .kv_stride = keys->stride,
                                 .o_stride = b->q_columns,
                                 .dq_stride = q_stride,
                                 .dkv_stride = keys->stride};
}

/* Two products of a multiply-add for each query, key that it sees, and element. */
static double attention_flops(const struct cm_builder *b, const struct keys *keys)
{
    double length = (double)keys->length;
    return 2 * 2 * (double)(b->rows * b->heads * b->head_size) * (length + 1) / 2;
}

static void emit_attention(struct cm_builder *b, struct cm_saved *saved)
{
    struct keys keys = find_keys(b, saved->q, saved->kv);
    struct cm_op *op = cm_emit(b, CM_OP_ATTENTION, CM_LANE_COMPUTE);
    const struct cm_slice slices[] = {saved->q, keys.k, keys.v, saved->o, saved->lse};
    for (unsigned i = 0; i < sizeof slices / sizeof *slices; i++)
        op->slices[i] = slices[i];
    op->u.attention = describe_attention(b, &keys);
    op->flops = attention_flops(b, &keys);
    op->bytes = (double)b->size * 2 *
                (double)(b->rows * b->q_columns +
                         keys.length * b->positions.batch * b->kv_heads * b->head_size);
    cm_give(b, &keys.all);
}

static void qkv_product(struct cm_builder *b, struct cm_slice rows, struct cm_slice weights,
                        uint64_t columns, struct cm_slice out)
{
    cm_emit_gemm(b,
                 &(struct cm_product){.m = b->rows,
                                      .n = columns,
                                      .k = b->hidden,
                                      .trans_b = true,
                                      .out = b->step->dtype,
                                      .narrow = CM_NARROW_INPUTS},
                 rows, weights, out);
}

/* The attention's input n1 to delta1. */
struct cm_slice cm_emit_attention(struct cm_builder *b, const struct cm_block_parameters *p,
                                  struct cm_saved *saved)
{
    struct cm_slice all = cm_gather_rows(b, saved->n1);
    struct cm_slice weights = cm_weights(b, p->qkv);
    uint64_t head = b->q_columns * b->hidden * b->size;
    uint64_t columns = b->cp == 1 ? b->qkv_columns : b->q_columns;
    saved->q = cm_take_rows(b, "q", b->rows, columns);
    qkv_product(b, all, cm_part_of(weights, 0, columns * b->hidden * b->size), columns, saved->q);
    if (b->cp > 1) {
        saved->kv = cm_take_rows(b, "kv of this rank", b->rows, b->kv_columns);
        qkv_product(b, all, cm_part_of(weights, head, b->kv_columns * b->hidden * b->size),
                    b->kv_columns, saved->kv);
        emit_rope(b, saved->q, b->heads, b->q_columns, false);
        emit_rope(b, saved->kv, b->kv_heads, b->kv_columns, false);
    } else {
        emit_rope(b, saved->q, b->heads + b->kv_heads, b->qkv_columns, false);
    }
    cm_give_gathered(b, saved->n1, &all);
    saved->o = cm_take_rows(b, "o", b->rows, b->q_columns);
    saved->lse = cm_take(b, "lse", b->rows * b->heads * 4, CM_USE_ACTIVATIONS, false);
    emit_attention(b, saved);
    struct cm_slice delta = cm_take_rows(b, "rows", b->rows, b->hidden);
    cm_emit_gemm(b,
                 &(struct cm_product){.m = b->rows,
                                      .n = b->hidden,
                                      .k = b->q_columns,
                                      .out = b->step->dtype,
                                      .narrow = CM_NARROW_INPUTS},
                 saved->o, cm_weights(b, p->out), delta);
    return cm_reduce_rows(b, &delta);
}

/* Gradients of q, k and v from that of o; with context parallelism those of all ranks' keys are
 * summed. */
static void emit_attention_backward(struct cm_builder *b, struct cm_saved *saved,
                                    struct cm_slice dout, struct cm_slice dq, struct cm_slice dkv)
{
    struct keys keys = find_keys(b, saved->q, saved->kv);
    struct cm_slice dk = column(b, dq, b->q_columns), dall = cm_no_slice();
    if (b->cp > 1)
        dk = dall = cm_take_rows(b, "kv", b->rows * b->cp, b->kv_columns);
    struct cm_slice dv = column(b, dk, b->kv_heads * b->head_size);
    const struct cm_slice slices[] = {saved->q, keys.k, keys.v, saved->o, saved->lse,
                                      dout,     dq,     dk,     dv,       b->scratch};
    struct cm_op *op = cm_emit(b, CM_OP_ATTENTION_BACKWARD, CM_LANE_COMPUTE);
    for (unsigned i = 0; i < sizeof slices / sizeof *slices; i++)
        op->slices[i] = slices[i];
    op->u.attention = describe_attention(b, &keys);
    op->flops = 2.5 * attention_flops(b, &keys);
    op->bytes = (double)b->size * 4 *
                (double)(b->rows * b->q_columns +
                         keys.length * b->positions.batch * b->kv_heads * b->head_size);
    cm_give(b, &keys.all);
    if (b->cp == 1)
        return;
    struct cm_slice ranks = cm_take_rows(b, "kv of ranks", b->rows * b->cp, b->kv_columns);
    emit_zigzag(b, CM_REORDER_UNZIGZAG, dall, ranks);
    cm_give(b, &dall);
    cm_emit_layer_comm(b, CM_OP_REDUCE_SCATTER, CM_GROUP_CONTEXT, b->rows * b->kv_columns,
                       b->step->dtype, ranks, dkv);
    cm_give(b, &ranks);
}

/* Through the matrix of q, k, v: its gradient, and that of its input. */
static struct cm_slice qkv_backward(struct cm_builder *b, uint32_t unit, uint32_t qkv,
                                    struct cm_slice all, struct cm_slice dq, struct cm_slice dkv)
{
    struct cm_slice weights = cm_weights(b, qkv), gradient = cm_gradient(b, qkv);
    struct cm_slice din = cm_take_rows(b, "rows", b->rows, b->hidden);
    struct cm_product product = {.m = b->rows,
                                 .n = b->hidden,
                                 .k = b->cp == 1 ? b->qkv_columns : b->q_columns,
                                 .out = b->step->dtype,
                                 .narrow = CM_NARROW_GRADIENT_A};
    uint64_t q_elements = product.k * b->hidden, kv_elements = b->kv_columns * b->hidden;
    cm_emit_gemm(b, &product, dq, cm_part_of(weights, 0, q_elements * b->size), din);
    cm_emit_weight_gradient(b, unit, 1, b->rows, dq, all, product.k, b->hidden,
                            cm_part_of(gradient, 0, q_elements * 4), CM_NARROW_GRADIENT_A);
    if (b->cp == 1)
        return din;
    product.k = b->kv_columns;
    product.accumulate = true;
    cm_emit_gemm(b, &product, dkv, cm_part_of(weights, q_elements * b->size, kv_elements * b->size),
                 din);
    cm_emit_weight_gradient(b, unit, 1, b->rows, dkv, all, b->kv_columns, b->hidden,
                            cm_part_of(gradient, q_elements * 4, kv_elements * 4),
                            CM_NARROW_GRADIENT_A);
    return din;
}

/* *gradient is that of delta1 and of sum1's way past the attention; it becomes that of sum1. */
void cm_emit_attention_backward(struct cm_builder *b, uint32_t unit,
                                const struct cm_block_parameters *p, struct cm_saved *saved,
                                struct cm_slice *gradient)
{
    struct cm_slice all = cm_gather_rows(b, *gradient);
    struct cm_slice dout = cm_take_rows(b, "o", b->rows, b->q_columns);
    cm_emit_gemm(b,
                 &(struct cm_product){.m = b->rows,
                                      .n = b->q_columns,
                                      .k = b->hidden,
                                      .trans_b = true,
                                      .out = b->step->dtype,
                                      .narrow = CM_NARROW_GRADIENT_A},
                 all, cm_weights(b, p->out), dout);
    cm_emit_weight_gradient(b, unit, 1, b->rows, saved->o, all, b->q_columns, b->hidden,
                            cm_gradient(b, p->out), CM_NARROW_GRADIENT_B);
    cm_give_gathered(b, *gradient, &all);
    struct cm_slice dq = cm_take_rows(b, "q", b->rows, b->cp == 1 ? b->qkv_columns : b->q_columns);
    struct cm_slice dkv = cm_no_slice();
    if (b->cp > 1)
        dkv = cm_take_rows(b, "kv of this rank", b->rows, b->kv_columns);
    emit_attention_backward(b, saved, dout, dq, dkv);
    cm_give(b, &dout);
    if (b->cp == 1) {
        emit_rope(b, dq, b->heads + b->kv_heads, b->qkv_columns, true);
    } else {
        emit_rope(b, dq, b->heads, b->q_columns, true);
        emit_rope(b, dkv, b->kv_heads, b->kv_columns, true);
    }
    all = cm_gather_rows(b, saved->n1);
    struct cm_slice din = qkv_backward(b, unit, p->qkv, all, dq, dkv);
    cm_give_gathered(b, saved->n1, &all);
    cm_give(b, &dq);
    cm_give(b, &dkv);
    struct cm_slice dn1 = cm_reduce_rows(b, &din);
    cm_emit_norm_backward(b, p->norm1, p->norm1_bias, dn1, saved->sum1, saved->stats1, *gradient,
                          *gradient);
    cm_give(b, &dn1);
}
