/*
 * The ends of the model: the embedding, and the head with the loss. The head's backward pass
 * follows its forward pass at once, so that one micro-batch's logits are all that there is of them.
 */
#include "host/model/builder.h"

/* Tokens or targets of the current micro-batch. */
static struct cm_slice of_micro(const struct cm_builder *b, struct cm_slice all)
{
    uint64_t bytes = b->rows * 4;
    return cm_part_of(all, (uint64_t)b->micro * bytes, bytes);
}

static struct cm_embed describe_embed(const struct cm_builder *b)
{
    return (struct cm_embed){.dtype = b->step->dtype,
                             .rows = b->rows,
                             .columns = b->hidden,
                             .vocabulary_first =
                                 (uint32_t)(b->schedule->place.tp * b->vocabulary_rows),
                             .vocabulary_count = (uint32_t)b->vocabulary_rows,
                             .positions = b->positions};
}

struct cm_slice cm_emit_embedding(struct cm_builder *b)
{
    b->layer = -1;
    cm_use_unit(b, b->embedding_unit);
    cm_use_unit(b, b->position_unit);
    struct cm_slice all = cm_take_rows(b, "rows", b->rows, b->hidden);
    /* Each rank of the tensor group has the rows of its own tokens; one adds the positions. */
    bool learned = b->position_unit != UINT32_MAX && b->schedule->place.tp == 0;
    struct cm_op *op = cm_emit(b, CM_OP_EMBED, CM_LANE_COMPUTE);
    op->slices[0] = of_micro(b, b->schedule->tokens);
    op->slices[1] = cm_weights(b, b->table);
    op->slices[2] = learned ? cm_weights(b, b->learned) : cm_no_slice();
    op->slices[3] = all;
    op->u.embed = describe_embed(b);
    op->bytes = (double)(b->rows * b->hidden * b->size) * (learned ? 3 : 2);
    cm_leave_unit(b, b->embedding_unit);
    cm_leave_unit(b, b->position_unit);
    return b->tp > 1 ? cm_reduce_rows(b, &all) : all;
}

void cm_emit_embedding_backward(struct cm_builder *b, struct cm_slice *gradient, bool last)
{
    b->layer = -1;
    /* The head's product has written the table's gradient where both are one. */
    cm_open_gradients(b, b->embedding_unit, true);
    cm_open_gradients(b, b->position_unit, true);
    struct cm_slice all = cm_gather_rows(b, *gradient);
    struct cm_op *op = cm_emit(b, CM_OP_EMBED_BACKWARD, CM_LANE_COMPUTE);
    op->slices[0] = of_micro(b, b->schedule->tokens);
    op->slices[1] = all;
    op->slices[2] = cm_gradient(b, b->table);
    op->slices[3] = cm_gradient(b, b->learned);
    op->slices[4] = b->scratch;
    op->u.embed = describe_embed(b);
    op->bytes = (double)(b->rows * b->hidden) * ((double)b->size + 8);
    cm_give_gathered(b, *gradient, &all);
    cm_give(b, gradient);
    cm_close_gradients(b, b->embedding_unit, last);
    cm_close_gradients(b, b->position_unit, last);
}

/* Loss of the rows, and the logits become their gradient. */
static void emit_loss(struct cm_builder *b, struct cm_slice logits)
{
    const struct cm_step *step = b->step;
    struct cm_slice targets = of_micro(b, b->schedule->targets);
    uint64_t part_bytes = b->rows * sizeof(struct cm_softmax_part);
    struct cm_slice parts =
        cm_take(b, "softmax parts", b->tp * part_bytes, CM_USE_LOGITS, b->tp > 1);
    struct cm_slice own = cm_part_of(parts, b->schedule->place.tp * part_bytes, part_bytes);
    struct cm_slice loss = cm_take(b, "losses", b->rows * 4, CM_USE_LOGITS, false);
    uint64_t first = b->schedule->place.tp * b->vocabulary_rows;
    uint64_t real = b->model->vocabulary > first ? b->model->vocabulary - first : 0;
    double tokens = (double)(step->micro_batches * step->micro_batch * b->model->sequence) *
                    (double)b->parallel->dp;
    struct cm_cross_entropy cross = {
        .dtype = step->dtype,
        .rows = b->rows,
        .vocabulary_first = (uint32_t)first,
        .vocabulary_count = (uint32_t)(real < b->vocabulary_rows ? real : b->vocabulary_rows),
        .columns = (uint32_t)b->vocabulary_rows,
        .parts = b->tp,
        .scale = (float)(1 / tokens)};
    struct cm_op *op = cm_emit(b, CM_OP_SOFTMAX_PARTS, CM_LANE_COMPUTE);
    op->slices[0] = logits;
    op->slices[1] = targets;
    op->slices[2] = own;
    op->u.cross_entropy = cross;
    op->bytes = (double)logits.size_bytes;
    cm_emit_layer_comm(b, CM_OP_ALL_GATHER, CM_GROUP_TENSOR, b->rows * 3, CM_F32, own, parts);
    op = cm_emit(b, CM_OP_CROSS_ENTROPY, CM_LANE_COMPUTE);
    op->slices[0] = logits;
    op->slices[1] = targets;
    op->slices[2] = parts;
    op->slices[3] = loss;
    op->u.cross_entropy = cross;
    op->bytes = 2 * (double)logits.size_bytes;
    if (b->schedule->place.tp == 0) {
        op = cm_emit(b, CM_OP_SUM, CM_LANE_COMPUTE);
        op->slices[0] = loss;
        op->slices[1] = cm_part_of(b->scalars, CM_SCALAR_LOSS, 4);
        op->slices[2] = b->scratch;
        op->u.sum =
            (struct cm_sum){.count = b->rows, .accumulate = true, .factor = (float)(1 / tokens)};
        op->bytes = (double)b->rows * 4;
    }
    cm_give(b, &parts);
    cm_give(b, &loss);
}

/* From the logits' gradient to that of the normed rows, and of the table. */
static struct cm_slice head_products(struct cm_builder *b, struct cm_slice all,
                                     struct cm_slice logits)
{
    uint32_t unit = b->model->tied ? b->embedding_unit : b->head_unit;
    cm_emit_weight_gradient(b, unit, 1, b->rows, logits, all, b->vocabulary_rows, b->hidden,
                            cm_gradient(b, b->head), CM_NARROW_NONE);
    struct cm_slice din = cm_take_rows(b, "rows", b->rows, b->hidden);
    cm_emit_gemm(b,
                 &(struct cm_product){
                     .m = b->rows, .n = b->hidden, .k = b->vocabulary_rows, .out = b->step->dtype},
                 logits, cm_weights(b, b->head), din);
    return din;
}

struct cm_slice cm_emit_head(struct cm_builder *b, struct cm_slice *x, struct cm_slice *delta,
                             bool last)
{
    b->layer = -1;
    uint32_t table = b->model->tied ? b->embedding_unit : UINT32_MAX;
    cm_use_unit(b, b->head_unit);
    cm_use_unit(b, table);
    struct cm_slice sum = cm_take_rows(b, "rows", b->split_rows, b->hidden);
    struct cm_slice normed = cm_take_rows(b, "normed", b->split_rows, b->hidden);
    struct cm_slice stats = cm_take(b, "stats", 2 * b->split_rows * 4, CM_USE_ACTIVATIONS, false);
    cm_emit_norm(b, b->norm, b->norm_bias, *x, *delta, sum, normed, stats);
    cm_give(b, delta);
    *x = cm_no_slice();
    struct cm_slice all = cm_gather_rows(b, normed);
    struct cm_slice logits =
        cm_take(b, "logits", b->rows * b->vocabulary_rows * b->size, CM_USE_LOGITS, false);
    cm_emit_gemm(b,
                 &(struct cm_product){.m = b->rows,
                                      .n = b->vocabulary_rows,
                                      .k = b->hidden,
                                      .trans_b = true,
                                      .out = b->step->dtype},
                 all, cm_weights(b, b->head), logits);
    emit_loss(b, logits);

    b->phase = CM_PHASE_BACKWARD;
    cm_open_gradients(b, b->head_unit, false);
    cm_open_gradients(b, table, false);
    struct cm_slice din = head_products(b, all, logits);
    cm_give(b, &logits);
    cm_give_gathered(b, normed, &all);
    struct cm_slice dnormed = b->tp > 1 ? cm_reduce_rows(b, &din) : din;
    struct cm_slice gradient = normed; /* no longer needed */
    cm_emit_norm_backward(b, b->norm, b->norm_bias, dnormed, sum, stats, cm_no_slice(), gradient);
    cm_give(b, &dnormed);
    cm_give(b, &sum);
    cm_give(b, &stats);
    cm_close_gradients(b, b->head_unit, last);
    if (table != UINT32_MAX && !b->has_embedding)
        cm_close_gradients(b, table, last);
    cm_leave_unit(b, b->head_unit);
    cm_leave_unit(b, table);
    b->phase = CM_PHASE_FORWARD;
    return gradient;
}
