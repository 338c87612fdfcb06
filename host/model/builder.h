/*
 * builder.h: what the files schedule_*.c share while they build a schedule.
 *
 * The first failure sticks in `status`; after it every function here does nothing and gives empty
 * slices, so that builders read as the step does.
 */
#ifndef HOST_MODEL_BUILDER_H
#define HOST_MODEL_BUILDER_H

#include "clustermark/schedule.h"

#define CM_NO_EVENT UINT32_MAX

/* A buffer that may be used again, once `event` (of another lane than COMPUTE) has come. */
struct cm_idle_buffer {
    uint32_t buffer, event;
};

/* What the builder knows of a unit besides what the schedule says. Elements from `first_equal` on
 * are not split over the tensor group and have equal gradients on its ranks; those from
 * `first_shared` to there are not split either, but have parts of sums. */
struct cm_unit_work {
    uint64_t first_shared, first_equal;
    bool tied_copy; /* the embedding's second place */

    bool gathering; /* until the wait for `gathered` */
    bool ready;
    uint32_t gathered;         /* event of lane DATA */
    struct cm_slice weights;   /* all of them, while they are there */
    bool open, written;        /* gradients: begun in this micro-batch; there are some to add to */
    struct cm_slice gradients; /* all of the unit's, while they are there */
    bool summed;               /* the shard has a gradient of this step */
    uint32_t reduced;          /* event of lane DATA */
    struct cm_slice pending;   /* reduced, still to be added to the shard after `pending_event` */
    uint32_t pending_event;
};

/* Units of a block; UINT32_MAX: none. */
struct cm_block_units {
    uint32_t dense, experts;
};

/* Parameters of a block, as indices; UINT32_MAX: none. */
struct cm_block_parameters {
    uint32_t norm1, norm1_bias, qkv, out, norm2, norm2_bias, router, up, down;
};

struct cm_saved {
    struct cm_slice sum1, stats1, n1, q, kv, o, lse, sum2, stats2, n2, up, act;
    struct cm_slice slot, expert, weight, slots_in, slots_out; /* experts */
};

/* A message on its way. */
struct cm_sent {
    struct cm_slice rows;
    uint32_t event;
};

/* A chunk's way through forward and backward of one micro-batch. */
struct cm_passage {
    struct cm_saved *layers;
    struct cm_slice gradient; /* of the chunk's output, where the head made it */
    struct cm_sent sent;      /* the chunk's output, then its input's gradient */
};

struct cm_builder {
    struct cm_schedule *schedule;
    const struct cm_step *step;
    const struct cm_transformer *model;
    const struct cm_parallel *parallel;
    enum cm_status status;
    const struct cm_op_sink *sink; /* NULL: operations are kept in the schedule */
    struct cm_op current;          /* to be given to the sink when the next one begins */
    unsigned lanes_used;           /* a bit each */

    /* Sizes of this rank. */
    unsigned tp, cp, ep;
    uint64_t size; /* bytes of an element of the step's type */
    uint64_t hidden, heads, kv_heads, head_size, qkv_columns, kv_columns, q_columns;
    uint64_t ffn, up_columns, vocabulary_rows; /* of the tables, on this rank */
    uint64_t rows, split_rows; /* tokens of a micro-batch: inside blocks; between them (sp) */
    uint64_t capacity, experts_here;
    bool has_embedding, has_head;
    struct cm_positions positions;

    /* Where emission stands. */
    enum cm_phase phase;
    int32_t layer, micro, chunk;

    struct cm_idle_buffer *idle;
    size_t idle_count, idle_capacity;
    uint32_t *free_events;
    size_t free_event_count, free_event_capacity;

    struct cm_unit_work *work; /* by unit */
    size_t work_capacity;
    uint32_t embedding_unit, position_unit, head_unit;
    uint32_t table, learned, norm, norm_bias, head; /* parameters */
    struct cm_block_units *block_units;             /* by local layer, chunk after chunk */
    struct cm_block_parameters *block_parameters;
    uint64_t *chunk_first;       /* local layer with which each chunk begins; vpp + 1 */
    struct cm_passage *passages; /* [vpp][micro_batches] */
    uint32_t *uses;              /* units whose weights are gathered, in the order of their uses */
    size_t use_count, use_capacity, next_use, next_gather;
    uint32_t *waiting; /* units whose gradients wait for their bucket to be full */
    uint64_t waiting_bytes;
    size_t waiting_count, waiting_capacity;
    struct cm_slice flying; /* gradients that are being reduced, and the event after that */
    uint32_t flying_event;
    struct cm_slice scalars; /* loss, square of the norm, clip factor, unused */
    struct cm_slice scratch; /* of kernels, on COMPUTE */
};

#define CM_SCALAR_LOSS 0
#define CM_SCALAR_NORM 4
#define CM_SCALAR_CLIP 8

/* ---- schedule_emit.c ---- */

static inline struct cm_slice cm_no_slice(void)
{
    return (struct cm_slice){.buffer = CM_NO_BUFFER};
}
static inline bool cm_has(struct cm_slice slice)
{
    return slice.buffer != CM_NO_BUFFER;
}
/* Part of a slice. */
struct cm_slice cm_part_of(struct cm_slice slice, uint64_t offset_bytes, uint64_t size_bytes);

/* A new operation on a lane, zeroed but for where it stands; never NULL (a spare one after a
 * failure). The pointer is good until the next. */
struct cm_op *cm_emit(struct cm_builder *b, enum cm_op_kind kind, enum cm_lane lane);
/* After the last one. */
void cm_emit_end(struct cm_builder *b);

/* A buffer for the whole step. */
struct cm_slice cm_keep(struct cm_builder *b, const char *name, uint64_t size_bytes,
                        enum cm_buffer_use use, bool comm);
/* A buffer until cm_give. What COMPUTE does with it afterwards is in order; another lane must be
 * ordered after COMPUTE by the caller. */
struct cm_slice cm_take(struct cm_builder *b, const char *name, uint64_t size_bytes,
                        enum cm_buffer_use use, bool comm);
/* `event`: when another lane is done with it; CM_NO_EVENT when COMPUTE knows. The slice becomes
 * empty. Accepts an empty one. */
void cm_give_after(struct cm_builder *b, struct cm_slice *slice, uint32_t event);
static inline void cm_give(struct cm_builder *b, struct cm_slice *slice)
{
    cm_give_after(b, slice, CM_NO_EVENT);
}

uint32_t cm_record(struct cm_builder *b, enum cm_lane lane);
/* Queue a wait and keep the event, or let it be used again. */
void cm_wait(struct cm_builder *b, enum cm_lane lane, uint32_t event);
void cm_event_done(struct cm_builder *b, uint32_t event);
/* What is queued on `to` from here on comes after all that is queued on `from`. */
void cm_order(struct cm_builder *b, enum cm_lane from, enum cm_lane to);

/* ---- operations that several files need ---- */

/* Whether a product may be one of 8-bit floats, and which of its operands is a gradient. */
enum cm_narrow { CM_NARROW_NONE, CM_NARROW_INPUTS, CM_NARROW_GRADIENT_A, CM_NARROW_GRADIENT_B };

struct cm_product {
    uint64_t m, n, k, batch; /* batch 0 is 1 */
    bool trans_a, trans_b, accumulate;
    enum cm_dtype out; /* the step's type or F32 */
    enum cm_narrow narrow;
};
void cm_emit_gemm(struct cm_builder *b, const struct cm_product *product, struct cm_slice a,
                  struct cm_slice bb, struct cm_slice c);
/* GEMM_GELU or GEMM_GELU_BACKWARD, with the matrix beside c. */
void cm_emit_gemm_gelu(struct cm_builder *b, enum cm_op_kind kind, const struct cm_product *product,
                       struct cm_slice a, struct cm_slice bb, struct cm_slice c,
                       struct cm_slice beside);
struct cm_op *cm_emit_elements(struct cm_builder *b, enum cm_op_kind kind, uint64_t count,
                               enum cm_dtype dtype, struct cm_slice to, struct cm_slice x,
                               struct cm_slice y);
/* ZERO of a slice. */
void cm_emit_zero(struct cm_builder *b, struct cm_slice slice);
/* A collective of a block: on lane LAYER, after COMPUTE and waited for by it. Nothing when the
 * group has one rank (`send` and `recv` must then be the same). */
void cm_emit_layer_comm(struct cm_builder *b, enum cm_op_kind kind, enum cm_group group,
                        uint64_t count, enum cm_dtype dtype, struct cm_slice send,
                        struct cm_slice recv);
unsigned cm_group_size(const struct cm_builder *b, enum cm_group group);
/* Rows split over the tensor group (sp) into all rows, in a taken buffer; without sp the same slice
 * again. cm_give_gathered gives back what was taken. */
struct cm_slice cm_gather_rows(struct cm_builder *b, struct cm_slice rows);
void cm_give_gathered(struct cm_builder *b, struct cm_slice original, struct cm_slice *gathered);
/* The sum over the tensor group of all rows (which is given away), as rows between blocks. */
struct cm_slice cm_reduce_rows(struct cm_builder *b, struct cm_slice *all);
struct cm_slice cm_take_rows(struct cm_builder *b, const char *name, uint64_t rows,
                             uint64_t columns);

/* ---- schedule_units.c: parameters and their units ---- */

void cm_build_units(struct cm_builder *b);

/* ---- schedule_data.c: weights and gradients over the data groups ---- */

/* Weights of the unit for COMPUTE, gathered if need be; the next use's gather begins. */
void cm_use_unit(struct cm_builder *b, uint32_t unit);
/* Done with them in this pass. */
void cm_leave_unit(struct cm_builder *b, uint32_t unit);
struct cm_slice cm_weights(struct cm_builder *b, uint32_t parameter);
/* Where a gradient goes (F32). */
struct cm_slice cm_gradient(struct cm_builder *b, uint32_t parameter);
/* Before the first gradient of a unit in a micro-batch. In the step's first all that kernels add to
 * is zeroed: what is shared, and with `clear_all` the rest too. */
void cm_open_gradients(struct cm_builder *b, uint32_t unit, bool clear_all);
/* Products of the unit overwrite (false) or add (true). */
bool cm_gradients_add(const struct cm_builder *b, uint32_t unit);
/* All gradients of the unit are there in this micro-batch; `last` of the step. */
void cm_close_gradients(struct cm_builder *b, uint32_t unit, bool last);
void cm_emit_optimizer(struct cm_builder *b);
/* Uses are announced in their order before anything is emitted. */
void cm_announce_use(struct cm_builder *b, uint32_t unit);
/* Then what can be gathered ahead is, so that a stage need not wait for its first activations. */
void cm_begin_gathers(struct cm_builder *b);

/* ---- blocks, experts, ends ---- */

/* *x, *delta: the residual and what is still to be added to it; both are taken over. */
void cm_emit_block(struct cm_builder *b, uint64_t local, struct cm_saved *saved, struct cm_slice *x,
                   struct cm_slice *delta);
/* *gradient of the block's output becomes that of its input. `last`: last micro-batch. */
void cm_emit_block_backward(struct cm_builder *b, uint64_t local, struct cm_saved *saved,
                            struct cm_slice *gradient, bool last);
void cm_give_saved(struct cm_builder *b, struct cm_saved *saved);
/* Once what the block gave on has been used: what recomputation does not keep is given back. */
void cm_drop_saved(struct cm_builder *b, struct cm_saved *saved);

/* From the attention's input n1 to what it adds to the residual. */
struct cm_slice cm_emit_attention(struct cm_builder *b, const struct cm_block_parameters *p,
                                  struct cm_saved *saved);
/* *gradient is that of the attention's output and of the residual past it; it becomes that of sum1.
 */
void cm_emit_attention_backward(struct cm_builder *b, uint32_t unit,
                                const struct cm_block_parameters *p, struct cm_saved *saved,
                                struct cm_slice *gradient);

/* Sum over rows of left^T right, m x n, added to what the unit has so far. */
void cm_emit_weight_gradient(struct cm_builder *b, uint32_t unit, uint64_t batch, uint64_t rows,
                             struct cm_slice left, struct cm_slice right, uint64_t m, uint64_t n,
                             struct cm_slice to, enum cm_narrow narrow);
void cm_emit_activation(struct cm_builder *b, uint64_t rows, struct cm_slice up,
                        struct cm_slice act);
/* `up` becomes its gradient. */
void cm_emit_activation_backward(struct cm_builder *b, uint64_t rows, struct cm_slice up,
                                 struct cm_slice dact);

/* `inner`: only what the backward pass needs, and no result. */
struct cm_slice cm_emit_experts(struct cm_builder *b, uint64_t local, struct cm_saved *saved,
                                struct cm_slice all, bool inner);
/* Gradient of the experts' input rows (all of them, parts of sums over the tensor group). */
struct cm_slice cm_emit_experts_backward(struct cm_builder *b, uint64_t local,
                                         struct cm_saved *saved, struct cm_slice all,
                                         struct cm_slice gradient);

struct cm_slice cm_emit_embedding(struct cm_builder *b);
void cm_emit_embedding_backward(struct cm_builder *b, struct cm_slice *gradient, bool last);
/* Loss and its gradient; x and delta are taken over. The gradient of their sum. */
struct cm_slice cm_emit_head(struct cm_builder *b, struct cm_slice *x, struct cm_slice *delta,
                             bool last);
void cm_emit_norm(struct cm_builder *b, uint32_t weight, uint32_t bias, struct cm_slice x,
                  struct cm_slice delta, struct cm_slice sum, struct cm_slice out,
                  struct cm_slice stats);
void cm_emit_norm_backward(struct cm_builder *b, uint32_t weight, uint32_t bias,
                           struct cm_slice dout, struct cm_slice x, struct cm_slice stats,
                           struct cm_slice dresidual, struct cm_slice dx);

/* ---- schedule_pipeline.c ---- */

void cm_emit_pipeline(struct cm_builder *b);

#endif
