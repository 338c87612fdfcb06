/*
 * What the launchers of a training step's kernels are about to launch, for the cost model: the
 * bytes that the first of their kernels, or all of them, move at least. Linked with --wrap, as
 * launchers.c.
 */
#include "clustermark/cuda_train.h"
#include "fake/fake.h"
#include "fake/wrap.h"

/* Bytes of a matrix. */
static double matrix(uint64_t rows, uint64_t columns, enum cm_dtype dtype)
{
    return (double)rows * (double)columns * (double)cm_dtype_size(dtype);
}

/* ---- embedding, norms, rotary positions ---- */

WRAP(cm_cuda_embed,
     (struct CUstream_st * stream, const struct cm_embed *embed, const int32_t *tokens,
      const void *table, const void *learned, void *out),
     (stream, embed, tokens, table, learned, out),
     matrix(embed->rows, embed->columns, embed->dtype) * (learned != NULL ? 3 : 2))
WRAP(cm_cuda_embed_backward,
     (struct CUstream_st * stream, const struct cm_embed *embed, const int32_t *tokens,
      const void *dout, float *dtable, float *dlearned, void *scratch),
     (stream, embed, tokens, dout, dtable, dlearned, scratch),
     matrix(embed->rows, embed->columns, embed->dtype) +
         2 * matrix(embed->rows, embed->columns, CM_F32))
WRAP(cm_cuda_norm,
     (struct CUstream_st * stream, const struct cm_norm *norm, const void *x, const void *delta,
      const void *weight, const void *bias, void *sum, void *out, float *stats),
     (stream, norm, x, delta, weight, bias, sum, out, stats),
     matrix(norm->rows, norm->columns, norm->dtype) * (delta != NULL ? 4 : 2))
WRAP(cm_cuda_norm_backward,
     (struct CUstream_st * stream, const struct cm_norm *norm, const void *dout, const void *x,
      const void *weight, const float *stats, const void *dresidual, void *dx, float *dweight,
      float *dbias, void *scratch),
     (stream, norm, dout, x, weight, stats, dresidual, dx, dweight, dbias, scratch),
     matrix(norm->rows, norm->columns, norm->dtype) * (dresidual != NULL ? 4 : 3))
WRAP(cm_cuda_rope, (struct CUstream_st * stream, const struct cm_rope *rope, void *rows),
     (stream, rope, rows), 2 * matrix(rope->rows, rope->heads * rope->head_size, rope->dtype))

/* ---- attention ---- */

/* Operations of one product of queries and keys, the half that causality leaves. */
static double product(const struct cm_attention *attention)
{
    return (double)attention->batch * attention->heads * attention->head_size *
           (double)attention->q_length * (double)attention->k_length;
}

int __real_cm_cuda_attention(struct CUstream_st *stream, const struct cm_attention *attention,
                             const void *q, const void *k, const void *v, void *o, float *lse,
                             int capability);
int __wrap_cm_cuda_attention(struct CUstream_st *stream, const struct cm_attention *attention,
                             const void *q, const void *k, const void *v, void *o, float *lse,
                             int capability);
int __wrap_cm_cuda_attention(struct CUstream_st *stream, const struct cm_attention *attention,
                             const void *q, const void *k, const void *v, void *o, float *lse,
                             int capability)
{
    fake_hint(&(struct fake_hint){.flops = 2 * product(attention)});
    return __real_cm_cuda_attention(stream, attention, q, k, v, o, lse, capability);
}

int __real_cm_cuda_attention_backward(struct CUstream_st *stream,
                                      const struct cm_attention *attention, const void *q,
                                      const void *k, const void *v, const void *o, const float *lse,
                                      const void *dout, void *dq, void *dk, void *dv, void *scratch,
                                      int capability);
int __wrap_cm_cuda_attention_backward(struct CUstream_st *stream,
                                      const struct cm_attention *attention, const void *q,
                                      const void *k, const void *v, const void *o, const float *lse,
                                      const void *dout, void *dq, void *dk, void *dv, void *scratch,
                                      int capability);
int __wrap_cm_cuda_attention_backward(struct CUstream_st *stream,
                                      const struct cm_attention *attention, const void *q,
                                      const void *k, const void *v, const void *o, const float *lse,
                                      const void *dout, void *dq, void *dk, void *dv, void *scratch,
                                      int capability)
{
    fake_hint(&(struct fake_hint){.flops = 5 * product(attention)});
    return __real_cm_cuda_attention_backward(stream, attention, q, k, v, o, lse, dout, dq, dk, dv,
                                             scratch, capability);
}

/* ---- element by element ---- */

WRAP(cm_cuda_activation,
     (struct CUstream_st * stream, const struct cm_activation *activation, const void *in,
      void *out),
     (stream, activation, in, out),
     matrix(activation->rows, activation->columns, activation->dtype) * (activation->gated ? 3 : 2))
WRAP(cm_cuda_activation_backward,
     (struct CUstream_st * stream, const struct cm_activation *activation, const void *in,
      const void *dout, void *din),
     (stream, activation, in, dout, din),
     matrix(activation->rows, activation->columns, activation->dtype) * (activation->gated ? 5 : 3))
WRAP(cm_cuda_add_to,
     (struct CUstream_st * stream, void *out, const void *a, const void *b, uint64_t count,
      enum cm_dtype dtype),
     (stream, out, a, b, count, dtype), matrix(3, count, dtype))
WRAP(cm_cuda_convert,
     (struct CUstream_st * stream, void *to, enum cm_dtype to_dtype, const void *from,
      enum cm_dtype from_dtype, uint64_t count),
     (stream, to, to_dtype, from, from_dtype, count),
     matrix(1, count, to_dtype) + matrix(1, count, from_dtype))
WRAP(cm_cuda_quantise,
     (struct CUstream_st * stream, const struct cm_quantise *quantise, const void *from, void *to,
      struct cm_quantised *known),
     (stream, quantise, from, to, known), 0)
WRAP(cm_cuda_reorder,
     (struct CUstream_st * stream, const struct cm_reorder *reorder, const void *from, void *to),
     (stream, reorder, from, to),
     2 * matrix(reorder->rows, reorder->columns * reorder->block_bytes, CM_I8))

/* ---- loss and optimizer ---- */

WRAP(cm_cuda_softmax_parts,
     (struct CUstream_st * stream, const struct cm_cross_entropy *cross, const void *logits,
      const int32_t *targets, struct cm_softmax_part *parts),
     (stream, cross, logits, targets, parts), matrix(cross->rows, cross->columns, cross->dtype))
WRAP(cm_cuda_cross_entropy,
     (struct CUstream_st * stream, const struct cm_cross_entropy *cross, void *logits,
      const int32_t *targets, const struct cm_softmax_part *parts, float *loss),
     (stream, cross, logits, targets, parts, loss),
     2 * matrix(cross->rows, cross->columns, cross->dtype))
WRAP(cm_cuda_sum,
     (struct CUstream_st * stream, const float *x, uint64_t count, bool squares, float factor,
      bool accumulate, float *sum, void *scratch),
     (stream, x, count, squares, factor, accumulate, sum, scratch), matrix(1, count, CM_F32))
WRAP(cm_cuda_clip_factor,
     (struct CUstream_st * stream, const float *sum_of_squares, float limit, float *factor),
     (stream, sum_of_squares, limit, factor), 8)
WRAP(cm_cuda_adamw,
     (struct CUstream_st * stream, const struct cm_adamw *adamw, const float *gradient,
      const float *factor, float *master, float *m, float *v, void *weights),
     (stream, adamw, gradient, factor, master, m, v, weights),
     matrix(7, adamw->count, CM_F32) +
         (weights != master ? matrix(1, adamw->count, adamw->dtype) : 0))

/* ---- mixture of experts ---- */

/* Rows of slots. */
static double slots(const struct cm_route *route)
{
    return matrix(route->experts * route->capacity, route->columns, route->dtype);
}

WRAP(cm_cuda_route,
     (struct CUstream_st * stream, const struct cm_route *route, const float *logits, int32_t *slot,
      int32_t *expert, float *weight, uint32_t *counts, void *scratch),
     (stream, route, logits, slot, expert, weight, counts, scratch),
     matrix(route->rows, route->experts + 3 * (uint64_t)route->top_k, CM_F32))
WRAP(cm_cuda_route_backward,
     (struct CUstream_st * stream, const struct cm_route *route, const int32_t *expert,
      const float *weight, const float *dweight, float *dlogits),
     (stream, route, expert, weight, dweight, dlogits),
     matrix(route->rows, route->experts + 3 * (uint64_t)route->top_k, CM_F32))
WRAP(cm_cuda_permute,
     (struct CUstream_st * stream, const struct cm_route *route, const void *x, const int32_t *slot,
      void *out, void *scratch),
     (stream, route, x, slot, out, scratch), 2 * slots(route))
WRAP(cm_cuda_unpermute,
     (struct CUstream_st * stream, const struct cm_route *route, const void *slots_in,
      const int32_t *slot, const float *weight, void *out),
     (stream, route, slots_in, slot, weight, out),
     slots(route) + matrix(route->rows, route->columns, route->dtype))
WRAP(cm_cuda_unpermute_backward,
     (struct CUstream_st * stream, const struct cm_route *route, const void *dout,
      const void *slots_in, const int32_t *slot, const float *weight, void *dslots, float *dweight,
      void *scratch),
     (stream, route, dout, slots_in, slot, weight, dslots, dweight, scratch), 3 * slots(route))
