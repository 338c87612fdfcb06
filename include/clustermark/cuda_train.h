/*
 * cuda_train.h: the launchers of kernels/train_*.cu and kernels/attention*.cu, as host C sees them.
 *
 * Each queues work on `stream` (a cudaStream_t) of the current device and returns a cudaError_t (0
 * is success): of the launch, not of the work. What they compute, and what they need, is what
 * struct cm_train_kernels documents; tests hold each against kernels/cpu/. A type or a shape that
 * has no kernel is cudaErrorInvalidValue.
 */
#ifndef CLUSTERMARK_CUDA_TRAIN_H
#define CLUSTERMARK_CUDA_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/dtype.h"
#include "clustermark/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

int cm_cuda_embed(struct CUstream_st *stream, const struct cm_embed *embed, const int32_t *tokens,
                  const void *table, const void *learned, void *out);
int cm_cuda_embed_backward(struct CUstream_st *stream, const struct cm_embed *embed,
                           const int32_t *tokens, const void *dout, float *dtable, float *dlearned,
                           void *scratch);

int cm_cuda_norm(struct CUstream_st *stream, const struct cm_norm *norm, const void *x,
                 const void *delta, const void *weight, const void *bias, void *sum, void *out,
                 float *stats);
int cm_cuda_norm_backward(struct CUstream_st *stream, const struct cm_norm *norm, const void *dout,
                          const void *x, const void *weight, const float *stats,
                          const void *dresidual, void *dx, float *dweight, float *dbias,
                          void *scratch);

/* Heads of up to 512 elements. */
int cm_cuda_rope(struct CUstream_st *stream, const struct cm_rope *rope, void *rows);

/* `capability` is 10 * major + minor of the device. */
int cm_cuda_attention(struct CUstream_st *stream, const struct cm_attention *attention,
                      const void *q, const void *k, const void *v, void *o, float *lse,
                      int capability);
int cm_cuda_attention_backward(struct CUstream_st *stream, const struct cm_attention *attention,
                               const void *q, const void *k, const void *v, const void *o,
                               const float *lse, const void *dout, void *dq, void *dk, void *dv,
                               void *scratch, int capability);

int cm_cuda_activation(struct CUstream_st *stream, const struct cm_activation *activation,
                       const void *in, void *out);
int cm_cuda_activation_backward(struct CUstream_st *stream, const struct cm_activation *activation,
                                const void *in, const void *dout, void *din);
int cm_cuda_add_to(struct CUstream_st *stream, void *out, const void *a, const void *b,
                   uint64_t count, enum cm_dtype dtype);
int cm_cuda_convert(struct CUstream_st *stream, void *to, enum cm_dtype to_dtype, const void *from,
                    enum cm_dtype from_dtype, uint64_t count);

int cm_cuda_softmax_parts(struct CUstream_st *stream, const struct cm_cross_entropy *cross,
                          const void *logits, const int32_t *targets,
                          struct cm_softmax_part *parts);
int cm_cuda_cross_entropy(struct CUstream_st *stream, const struct cm_cross_entropy *cross,
                          void *logits, const int32_t *targets, const struct cm_softmax_part *parts,
                          float *loss);

int cm_cuda_sum(struct CUstream_st *stream, const float *x, uint64_t count, bool squares,
                float factor, bool accumulate, float *sum, void *scratch);
int cm_cuda_clip_factor(struct CUstream_st *stream, const float *sum_of_squares, float limit,
                        float *factor);
int cm_cuda_adamw(struct CUstream_st *stream, const struct cm_adamw *adamw, const float *gradient,
                  const float *factor, float *master, float *m, float *v, void *weights);

int cm_cuda_route(struct CUstream_st *stream, const struct cm_route *route, const float *logits,
                  int32_t *slot, int32_t *expert, float *weight, uint32_t *counts, void *scratch);
int cm_cuda_route_backward(struct CUstream_st *stream, const struct cm_route *route,
                           const int32_t *expert, const float *weight, const float *dweight,
                           float *dlogits);
int cm_cuda_permute(struct CUstream_st *stream, const struct cm_route *route, const void *x,
                    const int32_t *slot, void *out, void *scratch);
int cm_cuda_unpermute(struct CUstream_st *stream, const struct cm_route *route, const void *slots,
                      const int32_t *slot, const float *weight, void *out);
int cm_cuda_unpermute_backward(struct CUstream_st *stream, const struct cm_route *route,
                               const void *dout, const void *slots, const int32_t *slot,
                               const float *weight, void *dslots, float *dweight, void *scratch);

int cm_cuda_quantise(struct CUstream_st *stream, const struct cm_quantise *quantise,
                     const void *from, void *to, struct cm_quantised *known);
int cm_cuda_reorder(struct CUstream_st *stream, const struct cm_reorder *reorder, const void *from,
                    void *to);

#ifdef __cplusplus
}
#endif

#endif
