/*
 * ops.h: the shapes of operations: what a matrix product or a kernel of a training step is told
 * besides its pointers. Plain numbers, which a schedule (schedule.h) carries and a device executes.
 *
 * "A type of the step" is F32 or BF16, that of all activations. Activations are matrices of `rows`
 * tokens, which lie sequence-major: row = position * batch + sequence number, so that a slice of
 * the sequence is contiguous.
 */
#ifndef CLUSTERMARK_OPS_H
#define CLUSTERMARK_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/dtype.h"

/* ---- matrix product ---- */

/* Whose product it is. */
enum cm_gemm_impl {
    CM_GEMM_LIBRARY,
    CM_GEMM_OWN,     /* this project's own kernel, where there is one */
    CM_GEMM_PORTABLE /* its own that leaves out what only some devices have */
};

/* What is done to a product before it is stored, with a matrix of C's shape and type beside C. GELU
 * in its tanh form, as struct cm_activation has it. */
enum cm_epilogue {
    CM_EPILOGUE_NONE,
    CM_EPILOGUE_GELU,         /* beside = product, C = gelu(product) */
    CM_EPILOGUE_GELU_BACKWARD /* C = product * gelu'(beside) */
};

/* Matrices are row-major. C[batch] (m x n) = op(A) (m x k) * op(B) (k x n), or added to C when
 * `accumulate` is set. A is stored k x m when trans_a, B is stored n x k when trans_b, all densely,
 * one matrix of the batch after the other. Types of blocks: A and B as in blocks.h, whose blocks
 * lie along k, so that A is not and B is transposed; C is F32 or BF16. */
struct cm_gemm_desc {
    enum cm_dtype dtype;     /* of A and B */
    enum cm_dtype out_dtype; /* of C: dtype or F32; BF16 too of narrow types; I32 of I8 */
    uint64_t m, n, k, batch;
    bool trans_a, trans_b;
    bool accumulate;
    enum cm_gemm_impl impl;
    enum cm_epilogue epilogue;
    bool scaled; /* dtype is F8E4M3, and the product is multiplied by a scale of each operand */
    bool wide_a, wide_b; /* of scaled ones: that operand is F8E5M2 */
};

/* ---- the training step ---- */

/* Where this rank's rows stand in the sequence. Local position l = row / batch stands at first[0] +
 * l while l < chunk, at first[1] + (l - chunk) from there on (context parallelism gives each rank
 * two chunks). A rank that has the whole sequence: chunk = its length, first[0] = 0. */
struct cm_positions {
    uint32_t batch;
    uint32_t chunk;
    uint32_t first[2];
};

/* ---- embedding ---- */

struct cm_embed {
    enum cm_dtype dtype;
    uint64_t rows, columns;
    uint32_t vocabulary_first, vocabulary_count; /* the rows of the table that this rank has: other
                                                    tokens give zeros, and no gradient */
    struct cm_positions positions;               /* for learned positions */
};

/* ---- normalisation, with the residual added before it ---- */

struct cm_norm {
    enum cm_dtype dtype;
    bool layer; /* LayerNorm (mean taken off, bias added); else RMSNorm */
    float epsilon;
    uint64_t rows, columns;
};

/* ---- rotary positions, in place ---- */

struct cm_rope {
    enum cm_dtype dtype;
    uint64_t rows;
    uint32_t heads;     /* consecutive heads at the start of each row: of q, then of k */
    uint32_t head_size; /* even; element i turns with element i + head_size/2 */
    uint64_t stride;    /* elements from row to row */
    float base;         /* angle of pair i: position * base^(-2i/head_size) */
    bool backward;      /* turns the other way */
    struct cm_positions positions;
};

/* ---- attention ---- */

/* Causal softmax(q k^T / sqrt(head_size)) v, grouped: query head h reads kv head h * kv_heads /
 * heads. The keys are the whole sequence in order, k_length positions; queries are q_length
 * positions that stand where `positions` says, and see keys up to their own position. Element
 * (position, sequence b, head, i) of q stands at q + (position * batch + b) * q_stride + head *
 * head_size + i, and so on for the others. */
struct cm_attention {
    enum cm_dtype dtype;
    uint32_t batch, heads, kv_heads, head_size; /* heads a multiple of kv_heads; head_size a
                                                   multiple of 8 up to 256 */
    uint32_t q_length, k_length;
    struct cm_positions positions;          /* batch as above */
    uint64_t q_stride, kv_stride, o_stride; /* elements from row to row; kv_stride of k and of v */
    uint64_t dq_stride, dkv_stride;         /* of the gradients; that of o has o_stride */
};

/* ---- activation functions ---- */

struct cm_activation {
    enum cm_dtype dtype;
    bool gated; /* SwiGLU: a row of the input is `columns` gates then `columns` values, and
                   out = gate * sigmoid(gate) * value; else GELU (tanh form) of `columns` */
    uint64_t rows, columns; /* of the output */
};

/* ---- cross-entropy over a vocabulary that may be split over ranks ---- */

struct cm_cross_entropy {
    enum cm_dtype dtype;
    uint64_t rows;
    uint32_t vocabulary_first, vocabulary_count; /* columns of these logits */
    uint32_t columns; /* elements from row to row, at least vocabulary_count: what is beyond is
                         padding, ignored by the sums and set to 0 in the gradient */
    uint32_t parts;   /* ranks that share the vocabulary; 1 alone */
    float scale;      /* of the gradient: 1 / tokens of the whole batch */
};
/* What one part knows of a row. */
struct cm_softmax_part {
    float max, sum; /* sum of exp(x - max) */
    float target;   /* the target's logit, 0 where another part has it */
};

/* ---- gradient norm and optimizer ---- */

struct cm_adamw {
    enum cm_dtype dtype; /* of the weights that come out */
    uint64_t count;
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    uint32_t step; /* from 1: for the correction of the bias */
    uint64_t seed; /* of stochastic rounding: to a master's bits are added the 16 random ones that
                      cm_random_normal uses for element first + i; the upper half stays */
    uint64_t first;
    bool stochastic; /* rounding of bf16 weights; else to nearest even */
};

/* ---- mixture of experts ---- */

/* Each token goes to its `top_k` experts of highest logit (the lower number wins a tie) with
 * weights softmax over those k logits. Expert e takes the first `capacity` of its tokens in row
 * order (choices of one row in order of rank); slot = e * capacity + place, or -1 where it was
 * full: that token's part is dropped. */
struct cm_route {
    enum cm_dtype dtype;     /* of activations; logits, weights and their gradients are F32 */
    uint64_t rows, columns;  /* columns: of an activation row */
    uint32_t experts, top_k; /* experts at most 256, top_k at most 8 */
    uint64_t capacity;
};

/* ---- 8-bit floats, with one scale for each matrix ---- */

struct cm_quantise {
    enum cm_dtype from;            /* a type of the step */
    enum cm_dtype to;              /* F8E4M3 or F8E5M2 */
    uint64_t rows, columns, batch; /* of what is read, one matrix after the other */
    bool transpose;                /* what is written has the rows' and columns' places changed */
};
/* What is known of a batch of matrices in 8 bits. */
struct cm_quantised {
    float scale;   /* what their elements are to be multiplied by */
    float largest; /* magnitude of what was read; a NAN where one was read */
};

/* ---- moving blocks ---- */

enum cm_reorder_kind {
    CM_REORDER_TRANSPOSE, /* rows x columns blocks become columns x rows */
    CM_REORDER_ZIGZAG,    /* of `rows` ranks two blocks each, rank-major: into sequence order, where
                             rank r has blocks r and 2 * rows - 1 - r; `columns` is 2 */
    CM_REORDER_UNZIGZAG   /* and back */
};
struct cm_reorder {
    enum cm_reorder_kind kind;
    uint32_t rows, columns;
    uint64_t block_bytes; /* a multiple of 16 */
};

/* ---- scratch ---- */

/* Bytes of scratch that are enough on every device; 0 is never returned. */
uint64_t cm_embed_scratch_bytes(const struct cm_embed *embed);
uint64_t cm_norm_scratch_bytes(const struct cm_norm *norm);
uint64_t cm_attention_scratch_bytes(const struct cm_attention *attention);
uint64_t cm_sum_scratch_bytes(uint64_t count);
uint64_t cm_route_scratch_bytes(const struct cm_route *route); /* also of the permutations */

#endif
