/*
 * schedule.h: one training step of one rank as data: buffers, and operations on lanes with the
 * events between them. Built from (model, parallel plan, rank) in one place,
 * host/model/schedule*.c; what executes it knows devices and communicators, but nothing of
 * transformers.
 *
 * A lane is a stream. Operations of a lane execute in order; between lanes, only RECORD and WAIT
 * order anything. Lane COMPUTE begins and ends the step: the first operation on any other lane
 * waits for an event of it, and it waits for all others before it ends. One array holds the
 * operations of all lanes in the order in which a host queues them.
 *
 * A step: for each of `micro_batches` micro-batches forward and backward, in the order of the
 * pipeline; gradients summed in F32 over micro-batches and ranks, clipped by their norm; AdamW. The
 * loss is the mean over all tokens of the batch.
 */
#ifndef CLUSTERMARK_SCHEDULE_H
#define CLUSTERMARK_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/dtype.h"
#include "clustermark/ops.h"
#include "clustermark/parallel.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"
#include "clustermark/transformer.h"

enum cm_recompute { CM_RECOMPUTE_NONE, CM_RECOMPUTE_SELECTIVE, CM_RECOMPUTE_FULL };

struct cm_step {
    struct cm_transformer model;
    struct cm_parallel parallel;
    uint64_t micro_batches; /* of each data-parallel rank */
    uint64_t micro_batch;   /* sequences of each */
    enum cm_dtype dtype;    /* F32 or BF16 */
    enum cm_recompute
        recompute; /* selective: outputs of norms and activation functions are computed
                      again in the backward pass; full: each block from its input */
    bool overlap;  /* false: what could run beside compute is waited for at once */
    uint64_t
        bucket_bytes; /* least size of a gradient message that is sent while backward goes on */
    float learning_rate, beta1, beta2, epsilon, weight_decay, clip;
    bool stochastic; /* rounding of bf16 weights */
    bool fp8;        /* products of blocks (not the router's) in 8-bit floats with a scale for each
                        matrix, of its largest magnitude now: F8E4M3, gradients F8E5M2; where all of
                        m, n, k are multiples of 16. The step's type is BF16. */
    bool gelu_fused, gelu_backward_fused; /* of dense layers: within the products before them */
};
/* llm.c's and GPT-3's usual figures for the optimizer, overlap, 40 MB buckets; the rest zero. */
void cm_step_defaults(struct cm_step *step);

/* ---- memory ---- */

enum cm_buffer_use {
    CM_USE_WEIGHTS,     /* in the step's type */
    CM_USE_GRADIENTS,   /* F32 */
    CM_USE_OPTIMIZER,   /* F32: master weights (where the step's type is not F32), m, v */
    CM_USE_ACTIVATIONS, /* from forward to backward, and between neighbours */
    CM_USE_LOGITS,
    CM_USE_WORKSPACE,
    CM_USE_DATA, /* tokens, targets, losses, scalars */
    CM_USE_COUNT
};
extern const char *const cm_buffer_use_names[];

struct cm_buffer {
    uint64_t size_bytes;
    enum cm_buffer_use use;
    bool comm; /* a communicator reads or writes it */
    char name[32];
};

#define CM_NO_BUFFER UINT32_MAX
/* Part of a buffer. */
struct cm_slice {
    uint32_t buffer; /* CM_NO_BUFFER: a NULL pointer */
    uint64_t offset_bytes, size_bytes;
};

/* ---- parameters ---- */

/* A run of elements that are consecutive in memory here and in the whole model's numbering. */
struct cm_piece {
    uint64_t first, count; /* in the whole model's numbering of this parameter: row-major */
};

/* A matrix or vector of this rank. Its initial value is that of element `first + i` of the random
 * sequence "name", times deviation (0: all are `constant`); the same for every plan. */
struct cm_parameter {
    char name[40];   /* "layer3.qkv": the same on every rank that has it */
    uint32_t unit;   /* that it belongs to */
    uint64_t offset; /* elements from the unit's beginning */
    struct cm_piece pieces[3];
    unsigned piece_count;
    uint64_t count; /* elements here */
    float deviation, constant;
    bool replicated; /* over the tensor group: equal on all its ranks */
};

/* Parameters that are gathered, reduced and sharded together: the embedding, one block (its experts
 * apart), the head. All elements of a unit lie one after the other, padded to a multiple of its
 * shards. */
struct cm_unit {
    char name[24];
    uint64_t count;          /* elements, padding included */
    bool experts;            /* its group is CM_GROUP_EXPERT_DATA, else CM_GROUP_DATA */
    unsigned shards, shard;  /* ranks among which the optimizer's state is split, and our part */
    struct cm_slice weights; /* all, in the step's type; none when zero = 3 */
    struct cm_slice weight_shard;   /* our part of them (within `weights` unless zero = 3) */
    struct cm_slice gradients;      /* F32 sums; all of the unit, our part when zero >= 2 */
    struct cm_slice gradient_shard; /* what the optimizer reads, reduced over the group */
    struct cm_slice master, m, v;   /* our part, F32 */
};

/* ---- operations ---- */

enum cm_lane {
    CM_LANE_COMPUTE,
    CM_LANE_LAYER,       /* tensor, context and expert collectives inside a block */
    CM_LANE_DATA,        /* gradients and weights over the data groups */
    CM_LANE_FORWARD_OUT, /* between stages; a lane each, so that no transfer holds up another */
    CM_LANE_FORWARD_IN,
    CM_LANE_BACKWARD_OUT,
    CM_LANE_BACKWARD_IN,
    CM_LANE_COUNT
};
extern const char *const cm_lane_names[];

enum cm_phase {
    CM_PHASE_FORWARD,
    CM_PHASE_BACKWARD,
    CM_PHASE_RECOMPUTE,
    CM_PHASE_OPTIMIZER,
    CM_PHASE_COUNT
};
extern const char *const cm_phase_names[];

/* X(NAME, name, class, roles): roles has a letter for each slice, in the launcher's order of
 * pointers: r read, w written, u read and written, an upper-case letter may be missing. The class
 * is that of the time spent. For communication: buffer to send, buffer to receive. */
#define CM_OP_LIST(X)                                                                              \
    X(RECORD, "record", SYNC, "")                                                                  \
    X(WAIT, "wait", SYNC, "")                                                                      \
    X(GEMM, "gemm", GEMM, "rru")                                                                   \
    X(GEMM_GELU, "gemm_gelu", GEMM, "rrww")                                                        \
    X(GEMM_GELU_BACKWARD, "gemm_gelu_backward", GEMM, "rrwr")                                      \
    X(GEMM_SCALED, "gemm_scaled", GEMM, "rrurr")                                                   \
    X(QUANTISE, "quantise", CAST, "rww")                                                           \
    X(EMBED, "embed", EMBEDDING, "rrRw")                                                           \
    X(EMBED_BACKWARD, "embed_backward", EMBEDDING, "rruUw")                                        \
    X(NORM, "norm", NORM, "rRrRWww")                                                               \
    X(NORM_BACKWARD, "norm_backward", NORM, "rrrrRwuUw")                                           \
    X(ROPE, "rope", ROPE, "u")                                                                     \
    X(ATTENTION, "attention", ATTENTION, "rrrww")                                                  \
    X(ATTENTION_BACKWARD, "attention_backward", ATTENTION, "rrrrrrwwww")                           \
    X(ACTIVATION, "activation", ACTIVATION, "rw")                                                  \
    X(ACTIVATION_BACKWARD, "activation_backward", ACTIVATION, "rrw")                               \
    X(ADD, "add", ACTIVATION, "wrr")                                                               \
    X(CONVERT, "convert", ACTIVATION, "wr")                                                        \
    X(ZERO, "zero", MEMORY, "w")                                                                   \
    X(COPY, "copy", MEMORY, "wr")                                                                  \
    X(SOFTMAX_PARTS, "softmax_parts", LOSS, "rrw")                                                 \
    X(CROSS_ENTROPY, "cross_entropy", LOSS, "urrw")                                                \
    X(SUM, "sum", OPTIMIZER, "ruw")                                                                \
    X(CLIP_FACTOR, "clip_factor", OPTIMIZER, "rw")                                                 \
    X(ADAMW, "adamw", OPTIMIZER, "rruuuw")                                                         \
    X(ROUTE, "route", EXPERTS, "rwwwww")                                                           \
    X(ROUTE_BACKWARD, "route_backward", EXPERTS, "rrrw")                                           \
    X(PERMUTE, "permute", EXPERTS, "rrww")                                                         \
    X(UNPERMUTE, "unpermute", EXPERTS, "rrRw")                                                     \
    X(UNPERMUTE_BACKWARD, "unpermute_backward", EXPERTS, "rrrrwww")                                \
    X(REORDER, "reorder", MEMORY, "rw")                                                            \
    X(ALL_REDUCE, "all_reduce", COMM, "ru")                                                        \
    X(REDUCE_SCATTER, "reduce_scatter", COMM, "rw")                                                \
    X(ALL_GATHER, "all_gather", COMM, "rw")                                                        \
    X(ALL_TO_ALL, "all_to_all", COMM, "rw")                                                        \
    X(SEND, "send", COMM, "r")                                                                     \
    X(RECV, "recv", COMM, "w")

enum cm_op_kind {
#define CM_OP_ENUM(name, text, class, roles) CM_OP_##name,
    CM_OP_LIST(CM_OP_ENUM)
#undef CM_OP_ENUM
        CM_OP_KIND_COUNT
};

enum cm_op_class {
    CM_CLASS_SYNC,
    CM_CLASS_GEMM,
    CM_CLASS_CAST,
    CM_CLASS_EMBEDDING,
    CM_CLASS_NORM,
    CM_CLASS_ROPE,
    CM_CLASS_ATTENTION,
    CM_CLASS_ACTIVATION,
    CM_CLASS_LOSS,
    CM_CLASS_EXPERTS,
    CM_CLASS_MEMORY,
    CM_CLASS_OPTIMIZER,
    CM_CLASS_COMM,
    CM_CLASS_COUNT
};
extern const char *const cm_op_class_names[];

#define CM_OP_SLICES 10

struct cm_op_info {
    const char *name;
    enum cm_op_class class;
    const char *roles;
};
extern const struct cm_op_info cm_op_infos[CM_OP_KIND_COUNT];

struct cm_comm_op {
    enum cm_group group;
    uint64_t count; /* as the call of comm.h counts: of send, or of a rank's part of recv ... */
    enum cm_dtype dtype;
    bool max; /* reduction: maximum, else sum */
};
struct cm_sum {
    uint64_t count;
    bool squares, accumulate;
    float factor;
};
struct cm_elements {
    uint64_t count;
    enum cm_dtype dtype, from_dtype; /* CONVERT alone has two */
};

struct cm_op {
    enum cm_op_kind kind;
    enum cm_lane lane;
    enum cm_phase phase;
    int32_t layer;  /* of the model; -1 outside the blocks */
    int32_t micro;  /* micro-batch; -1 outside */
    int32_t chunk;  /* of the stage's layers; -1 outside */
    uint32_t event; /* RECORD, WAIT */
    struct cm_slice slices[CM_OP_SLICES];
    union {
        struct cm_gemm_desc gemm;
        struct cm_embed embed;
        struct cm_norm norm;
        struct cm_rope rope;
        struct cm_attention attention;
        struct cm_activation activation;
        struct cm_cross_entropy cross_entropy;
        struct cm_adamw adamw; /* step and seed: the executor's */
        struct cm_route route;
        struct cm_reorder reorder;
        struct cm_quantise quantise;
        struct cm_sum sum;
        float clip;
        struct cm_elements elements;
        struct cm_comm_op comm;
    } u;
    double flops; /* of the matrix units: GEMM and attention (causal) */
    double bytes; /* the least to and from memory; of a message, what comm.h's call moves in all */
};

/* A wait on COMPUTE is what exposed communication is measured at. */
struct cm_schedule {
    struct cm_step step;
    unsigned rank;
    struct cm_coordinates place;
    struct cm_buffer *buffers;
    uint32_t buffer_count, buffer_capacity;
    struct cm_unit *units;
    uint32_t unit_count, unit_capacity;
    struct cm_parameter *parameters;
    uint32_t parameter_count, parameter_capacity;
    struct cm_op *ops;
    uint32_t op_count, op_capacity;
    uint32_t event_count;
    /* What the executor fills and reads. tokens, targets: int32 [micro_batches][rows of this rank]
     * (rows: local positions * micro_batch, sequence-major); none where the stage needs none. */
    struct cm_slice tokens, targets;
    struct cm_slice loss;          /* F32, mean over the batch's tokens, on every rank at the end */
    struct cm_slice gradient_norm; /* F32, square of the norm before clipping, on every rank */
    uint64_t rows;                 /* tokens of a micro-batch on this rank, before sp splits them */
};

/* CM_USAGE as cm_parallel_check; CM_NO_MEMORY. On failure *schedule is empty. */
enum cm_status cm_schedule_build(const struct cm_step *step, unsigned rank,
                                 struct cm_schedule *schedule);
/* The same, but each operation goes to `take` in order, in a place that is used again: ops stays
 * NULL, op_count counts, and memory does not grow with the number of micro-batches. A failure of
 * `take` ends it. */
struct cm_op_sink {
    enum cm_status (*take)(void *impl, const struct cm_schedule *schedule, const struct cm_op *op);
    void *impl;
};
enum cm_status cm_schedule_stream(const struct cm_step *step, unsigned rank,
                                  const struct cm_op_sink *sink, struct cm_schedule *schedule);
void cm_schedule_release(struct cm_schedule *schedule);

/* Bytes by use, and in all. */
void cm_schedule_memory(const struct cm_schedule *schedule, uint64_t bytes[CM_USE_COUNT],
                        uint64_t *total);

/* Whether the schedules of all ranks fit together: every wait has a record before it, slices lie
 * within their buffers, what two lanes touch (one of them writing) is ordered by events, nothing is
 * read that was never written, members of a group do the same collectives in the same order, every
 * send has its receive, and executing them all, with sends that wait for their receives, comes to
 * an end. CM_INTERNAL with the rank and the operation. */
enum cm_status cm_schedule_check(const struct cm_schedule *schedules, unsigned count);

/* For people: buffers and operations, one line each (`--explain`). */
void cm_schedule_explain(const struct cm_schedule *schedule, struct cm_str *out);
void cm_op_write(const struct cm_schedule *schedule, const struct cm_op *op, struct cm_str *out);

#endif
