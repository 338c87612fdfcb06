/*
 * One block of the transformer, forward and backward:
 *
 *   sum1 = x + delta     n1 = norm1(sum1)    attention      delta1
 *   sum2 = sum1 + delta1 n2 = norm2(sum2)    feed-forward   delta2
 *
 * and (sum2, delta2) is the next block's (x, delta). Under sequence parallelism x, delta, sums and
 * norms are split over the tensor group; rows are gathered before each split matrix and their sums
 * scattered after it.
 */
#include "host/model/builder.h"

static struct cm_slice take_stats(struct cm_builder *b)
{
    return cm_take(b, "stats", 2 * b->split_rows * 4, CM_USE_ACTIVATIONS, false);
}

void cm_emit_norm(struct cm_builder *b, uint32_t weight, uint32_t bias, struct cm_slice x,
                  struct cm_slice delta, struct cm_slice sum, struct cm_slice out,
                  struct cm_slice stats)
{
    struct cm_slice slices[] = {x,   delta, cm_weights(b, weight), cm_weights(b, bias), sum,
                                out, stats};
    struct cm_op *op = cm_emit(b, CM_OP_NORM, CM_LANE_COMPUTE);
    for (unsigned i = 0; i < sizeof slices / sizeof *slices; i++)
        op->slices[i] = slices[i];
    op->u.norm = (struct cm_norm){.dtype = b->step->dtype,
                                  .layer = b->model->norm == CM_NORM_LAYER,
                                  .epsilon = (float)b->model->norm_epsilon,
                                  .rows = b->split_rows,
                                  .columns = b->hidden};
    op->bytes = (double)(b->split_rows * b->hidden * b->size) *
                (2 + (cm_has(delta) ? 1 : 0) + (cm_has(sum) ? 1 : 0));
}

void cm_emit_norm_backward(struct cm_builder *b, uint32_t weight, uint32_t bias,
                           struct cm_slice dout, struct cm_slice x, struct cm_slice stats,
                           struct cm_slice dresidual, struct cm_slice dx)
{
    struct cm_slice slices[] = {dout,      x,  cm_weights(b, weight),  stats,
                                dresidual, dx, cm_gradient(b, weight), cm_gradient(b, bias),
                                b->scratch};
    struct cm_op *op = cm_emit(b, CM_OP_NORM_BACKWARD, CM_LANE_COMPUTE);
    for (unsigned i = 0; i < sizeof slices / sizeof *slices; i++)
        op->slices[i] = slices[i];
    op->u.norm = (struct cm_norm){.dtype = b->step->dtype,
                                  .layer = b->model->norm == CM_NORM_LAYER,
                                  .epsilon = (float)b->model->norm_epsilon,
                                  .rows = b->split_rows,
                                  .columns = b->hidden};
    op->bytes = (double)(b->split_rows * b->hidden * b->size) * (3 + (cm_has(dresidual) ? 1 : 0));
}

/* ---- feed-forward ---- */

void cm_emit_weight_gradient(struct cm_builder *b, uint32_t unit, uint64_t batch, uint64_t rows,
                             struct cm_slice left, struct cm_slice right, uint64_t m, uint64_t n,
                             struct cm_slice to, enum cm_narrow narrow)
{
    cm_emit_gemm(b,
                 &(struct cm_product){.m = m,
                                      .n = n,
                                      .k = rows,
                                      .batch = batch,
                                      .trans_a = true,
                                      .accumulate = cm_gradients_add(b, unit),
                                      .out = CM_F32,
                                      .narrow = narrow},
                 left, right, to);
}

static struct cm_activation describe_activation(const struct cm_builder *b, uint64_t rows)
{
    return (struct cm_activation){.dtype = b->step->dtype,
                                  .gated = b->model->activation == CM_ACTIVATION_SWIGLU,
                                  .rows = rows,
                                  .columns = b->ffn};
}

void cm_emit_activation(struct cm_builder *b, uint64_t rows, struct cm_slice up,
                        struct cm_slice act)
{
    struct cm_op *op = cm_emit(b, CM_OP_ACTIVATION, CM_LANE_COMPUTE);
    op->slices[0] = up;
    op->slices[1] = act;
    op->u.activation = describe_activation(b, rows);
    op->bytes = (double)(rows * (b->up_columns + b->ffn) * b->size);
}

void cm_emit_activation_backward(struct cm_builder *b, uint64_t rows, struct cm_slice up,
                                 struct cm_slice dact)
{
    struct cm_op *op = cm_emit(b, CM_OP_ACTIVATION_BACKWARD, CM_LANE_COMPUTE);
    op->slices[0] = op->slices[2] = up;
    op->slices[1] = dact;
    op->u.activation = describe_activation(b, rows);
    op->bytes = (double)(rows * (2 * b->up_columns + b->ffn) * b->size);
}

/* Up to the activation; what comes after it is needed in the forward pass only. */
static void dense_up(struct cm_builder *b, const struct cm_block_parameters *p,
                     struct cm_saved *saved, struct cm_slice all)
{
    const struct cm_product product = {.m = b->rows,
                                       .n = b->up_columns,
                                       .k = b->hidden,
                                       .trans_b = true,
                                       .out = b->step->dtype,
                                       .narrow = CM_NARROW_INPUTS};
    saved->up = cm_take_rows(b, "up", b->rows, b->up_columns);
    saved->act = cm_take_rows(b, "activation", b->rows, b->ffn);
    if (b->model->activation == CM_ACTIVATION_GELU && b->step->gelu_fused) {
        cm_emit_gemm_gelu(b, CM_OP_GEMM_GELU, &product, all, cm_weights(b, p->up), saved->act,
                          saved->up);
        return;
    }
    cm_emit_gemm(b, &product, all, cm_weights(b, p->up), saved->up);
    cm_emit_activation(b, b->rows, saved->up, saved->act);
}

static struct cm_slice dense_down(struct cm_builder *b, const struct cm_block_parameters *p,
                                  struct cm_slice act)
{
    struct cm_slice delta = cm_take_rows(b, "rows", b->rows, b->hidden);
    cm_emit_gemm(b,
                 &(struct cm_product){.m = b->rows,
                                      .n = b->hidden,
                                      .k = b->ffn,
                                      .out = b->step->dtype,
                                      .narrow = CM_NARROW_INPUTS},
                 act, cm_weights(b, p->down), delta);
    return delta;
}

/* From the gradient of the layer's output to that of `up`, which lies where it or `act` did: both
 * are no longer needed. */
static struct cm_slice activation_backward(struct cm_builder *b,
                                           const struct cm_block_parameters *p,
                                           const struct cm_saved *saved, struct cm_slice gradient)
{
    const struct cm_product product = {.m = b->rows,
                                       .n = b->ffn,
                                       .k = b->hidden,
                                       .trans_b = true,
                                       .out = b->step->dtype,
                                       .narrow = CM_NARROW_GRADIENT_A};
    struct cm_slice weights = cm_weights(b, p->down), dact = saved->act;
    if (b->model->activation == CM_ACTIVATION_GELU && b->step->gelu_backward_fused) {
        cm_emit_gemm_gelu(b, CM_OP_GEMM_GELU_BACKWARD, &product, gradient, weights, dact,
                          saved->up);
        return dact;
    }
    cm_emit_gemm(b, &product, gradient, weights, dact);
    cm_emit_activation_backward(b, b->rows, saved->up, dact);
    return saved->up;
}

static struct cm_slice dense_backward(struct cm_builder *b, uint32_t unit,
                                      const struct cm_block_parameters *p, struct cm_saved *saved,
                                      struct cm_slice all, struct cm_slice gradient)
{
    cm_emit_weight_gradient(b, unit, 1, b->rows, saved->act, gradient, b->ffn, b->hidden,
                            cm_gradient(b, p->down), CM_NARROW_GRADIENT_B);
    struct cm_slice dup = activation_backward(b, p, saved, gradient);
    cm_emit_weight_gradient(b, unit, 1, b->rows, dup, all, b->up_columns, b->hidden,
                            cm_gradient(b, p->up), CM_NARROW_GRADIENT_A);
    struct cm_slice din = cm_take_rows(b, "rows", b->rows, b->hidden);
    cm_emit_gemm(b,
                 &(struct cm_product){.m = b->rows,
                                      .n = b->hidden,
                                      .k = b->up_columns,
                                      .out = b->step->dtype,
                                      .narrow = CM_NARROW_GRADIENT_A},
                 dup, cm_weights(b, p->up), din);
    return din;
}

/* ---- the block ---- */

static void first_norm(struct cm_builder *b, const struct cm_block_parameters *p,
                       struct cm_saved *saved, struct cm_slice x, struct cm_slice delta)
{
    saved->n1 = cm_take_rows(b, "normed", b->split_rows, b->hidden);
    if (!cm_has(saved->stats1))
        saved->stats1 = take_stats(b);
    struct cm_slice sum = cm_has(delta) ? saved->sum1 : cm_no_slice();
    cm_emit_norm(b, p->norm1, p->norm1_bias, x, delta, sum, saved->n1, saved->stats1);
}

/* From n1 to sum2, n2 and its statistics. */
static void middle(struct cm_builder *b, const struct cm_block_parameters *p,
                   struct cm_saved *saved)
{
    struct cm_slice delta = cm_emit_attention(b, p, saved);
    saved->sum2 = cm_take_rows(b, "rows", b->split_rows, b->hidden);
    saved->n2 = cm_take_rows(b, "normed", b->split_rows, b->hidden);
    saved->stats2 = take_stats(b);
    cm_emit_norm(b, p->norm2, p->norm2_bias, saved->sum1, delta, saved->sum2, saved->n2,
                 saved->stats2);
    cm_give(b, &delta);
}

/* `inner`: only what the backward pass needs, and no result. */
static struct cm_slice feed_forward(struct cm_builder *b, uint64_t local, struct cm_saved *saved,
                                    bool inner)
{
    const struct cm_block_parameters *p = &b->block_parameters[local];
    struct cm_slice all = cm_gather_rows(b, saved->n2), delta = cm_no_slice();
    if (b->model->experts > 0) {
        delta = cm_emit_experts(b, local, saved, all, inner);
    } else {
        dense_up(b, p, saved, all);
        if (!inner)
            delta = dense_down(b, p, saved->act);
    }
    cm_give_gathered(b, saved->n2, &all);
    return inner ? delta : cm_reduce_rows(b, &delta);
}

static void use_block(struct cm_builder *b, uint64_t local)
{
    cm_use_unit(b, b->block_units[local].dense);
    cm_use_unit(b, b->block_units[local].experts);
}

static void leave_block(struct cm_builder *b, uint64_t local)
{
    cm_leave_unit(b, b->block_units[local].dense);
    cm_leave_unit(b, b->block_units[local].experts);
}

void cm_emit_block(struct cm_builder *b, uint64_t local, struct cm_saved *saved, struct cm_slice *x,
                   struct cm_slice *delta)
{
    const struct cm_block_parameters *p = &b->block_parameters[local];
    use_block(b, local);
    /* Without delta x is ours now; else it is what the block before keeps. */
    saved->sum1 = cm_has(*delta) ? cm_take_rows(b, "rows", b->split_rows, b->hidden) : *x;
    first_norm(b, p, saved, *x, *delta);
    cm_give(b, delta);
    middle(b, p, saved);
    *delta = feed_forward(b, local, saved, false);
    *x = saved->sum2;
    leave_block(b, local);
}

void cm_drop_saved(struct cm_builder *b, struct cm_saved *saved)
{
    if (b->step->recompute == CM_RECOMPUTE_NONE)
        return;
    cm_give(b, &saved->n1);
    cm_give(b, &saved->n2);
    cm_give(b, &saved->act);
    if (b->step->recompute == CM_RECOMPUTE_SELECTIVE)
        return;
    struct cm_slice sum1 = saved->sum1, stats1 = saved->stats1;
    saved->sum1 = saved->stats1 = cm_no_slice();
    cm_give_saved(b, saved);
    saved->sum1 = sum1;
    saved->stats1 = stats1;
}

/* What cm_drop_saved gave away. */
static void compute_again(struct cm_builder *b, uint64_t local, struct cm_saved *saved)
{
    const struct cm_block_parameters *p = &b->block_parameters[local];
    enum cm_phase phase = b->phase;
    if (b->step->recompute == CM_RECOMPUTE_NONE)
        return;
    b->phase = CM_PHASE_RECOMPUTE;
    first_norm(b, p, saved, saved->sum1, cm_no_slice());
    if (b->step->recompute == CM_RECOMPUTE_FULL) {
        middle(b, p, saved);
        feed_forward(b, local, saved, true);
    } else {
        saved->n2 = cm_take_rows(b, "normed", b->split_rows, b->hidden);
        cm_emit_norm(b, p->norm2, p->norm2_bias, saved->sum2, cm_no_slice(), cm_no_slice(),
                     saved->n2, saved->stats2);
        uint64_t rows = b->model->experts > 0 ? b->ep * b->capacity * b->experts_here : b->rows;
        saved->act = cm_take_rows(b, "activation", rows, b->ffn);
        cm_emit_activation(b, rows, saved->up, saved->act);
    }
    b->phase = phase;
}

void cm_emit_block_backward(struct cm_builder *b, uint64_t local, struct cm_saved *saved,
                            struct cm_slice *gradient, bool last)
{
    const struct cm_block_parameters *p = &b->block_parameters[local];
    const struct cm_block_units *units = &b->block_units[local];
    use_block(b, local);
    compute_again(b, local, saved);
    cm_open_gradients(b, units->dense, false);
    cm_open_gradients(b, units->experts, false);

    struct cm_slice all = cm_gather_rows(b, saved->n2), dall = cm_gather_rows(b, *gradient);
    struct cm_slice din = b->model->experts > 0
                              ? cm_emit_experts_backward(b, local, saved, all, dall)
                              : dense_backward(b, units->dense, p, saved, all, dall);
    cm_give_gathered(b, saved->n2, &all);
    cm_give_gathered(b, *gradient, &dall);
    if (units->experts != UINT32_MAX)
        cm_close_gradients(b, units->experts, last);
    struct cm_slice dn2 = cm_reduce_rows(b, &din);
    cm_emit_norm_backward(b, p->norm2, p->norm2_bias, dn2, saved->sum2, saved->stats2, *gradient,
                          *gradient);
    cm_give(b, &dn2);
    cm_emit_attention_backward(b, units->dense, p, saved, gradient);
    cm_close_gradients(b, units->dense, last);
    cm_give_saved(b, saved);
    leave_block(b, local);
}

void cm_give_saved(struct cm_builder *b, struct cm_saved *saved)
{
    struct cm_slice *slices[] = {&saved->sum1,     &saved->stats1, &saved->n1,     &saved->q,
                                 &saved->kv,       &saved->o,      &saved->lse,    &saved->sum2,
                                 &saved->stats2,   &saved->n2,     &saved->up,     &saved->act,
                                 &saved->slot,     &saved->expert, &saved->weight, &saved->slots_in,
                                 &saved->slots_out};
    for (unsigned i = 0; i < sizeof slices / sizeof(struct cm_slice *); i++)
        cm_give(b, slices[i]);
}
