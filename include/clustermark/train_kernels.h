/*
 * train_kernels.h: the launch table of a training step: what it computes besides matrix products.
 *
 * kernels/cpu/ is the reference, as for kernels.h; a device's table is device->kernels->train, and
 * tests/contract holds each against the reference. Launchers only queue; pointers are device
 * memory, 16-byte aligned. Sums are made in f32, and nothing depends on the order in which threads
 * happen to run: the same inputs give the same bits. An output is overwritten unless it says "+=".
 * Shapes and the layout of activations: ops.h.
 */
#ifndef CLUSTERMARK_TRAIN_KERNELS_H
#define CLUSTERMARK_TRAIN_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/device.h"
#include "clustermark/dtype.h"
#include "clustermark/ops.h"
#include "clustermark/status.h"

/*
 * Attention by a library of the device, as `attention` and `attention_backward` of the table below:
 * the same statistics, so that either one's gradient reads what the other's forward kept. But a
 * library may sum dq in any order: its bits may differ from run to run. Shapes are prepared first.
 */
#define CM_LIBRARY_VERSION_MAX 32
struct cm_attention_library {
    const char *name; /* "cudnn" */
    /* Makes what the library takes for that shape, which is kept until it is released or the
     * device is closed, and tells the version, "cuDNN 9.19.0". It may wait for the device, but not
     * while a stream is held. CM_UNSUPPORTED with the reason where there is no such library,
     * where it has nothing for the shape, or where there is no memory for its workspace. */
    enum cm_status (*prepare)(struct cm_device *device, const struct cm_attention *attention,
                              char version[CM_LIBRARY_VERSION_MAX]);
    /* What is queued must be done. */
    void (*release)(struct cm_device *device, const struct cm_attention *attention);
    enum cm_status (*attention)(struct cm_stream *stream, const struct cm_attention *attention,
                                const void *q, const void *k, const void *v, void *o, float *lse);
    enum cm_status (*attention_backward)(struct cm_stream *stream,
                                         const struct cm_attention *attention, const void *q,
                                         const void *k, const void *v, const void *o,
                                         const float *lse, const void *dout, void *dq, void *dk,
                                         void *dv, void *scratch);
};

struct cm_train_kernels {
    const struct cm_attention_library *attention_library; /* NULL: the device has none */

    /* out[r] = table[tokens[r] - vocabulary_first] (+ learned[position of r], not NULL). */
    enum cm_status (*embed)(struct cm_stream *stream, const struct cm_embed *embed,
                            const int32_t *tokens, const void *table, const void *learned,
                            void *out);
    /* dtable[tokens[r] - vocabulary_first] += dout[r], dlearned[position] += dout[r] (NULL: none);
     * both F32. `scratch` has cm_embed_scratch_bytes. */
    enum cm_status (*embed_backward)(struct cm_stream *stream, const struct cm_embed *embed,
                                     const int32_t *tokens, const void *dout, float *dtable,
                                     float *dlearned, void *scratch);

    /* sum = x + delta (delta NULL: x); out = norm(sum) * weight (+ bias). `sum` may be x, and NULL
     * only without delta. stats: 2 * rows floats, all means (0 for RMSNorm), then all
     * 1/deviations. weight and bias have the type of the step; bias NULL for RMSNorm. */
    enum cm_status (*norm)(struct cm_stream *stream, const struct cm_norm *norm, const void *x,
                           const void *delta, const void *weight, const void *bias, void *sum,
                           void *out, float *stats);
    /* dx = dresidual (NULL: nothing) + gradient through the norm; dweight += , dbias += (F32; dbias
     * NULL for RMSNorm). x is the `sum` of the forward. dx may be dresidual or dout. `scratch` has
     * cm_norm_scratch_bytes. */
    enum cm_status (*norm_backward)(struct cm_stream *stream, const struct cm_norm *norm,
                                    const void *dout, const void *x, const void *weight,
                                    const float *stats, const void *dresidual, void *dx,
                                    float *dweight, float *dbias, void *scratch);

    enum cm_status (*rope)(struct cm_stream *stream, const struct cm_rope *rope, void *rows);

    /* lse: the log of each query's softmax sum (natural, of scaled scores), F32, [row][head]. */
    enum cm_status (*attention)(struct cm_stream *stream, const struct cm_attention *attention,
                                const void *q, const void *k, const void *v, void *o, float *lse);
    /* `scratch` has cm_attention_scratch_bytes. */
    enum cm_status (*attention_backward)(struct cm_stream *stream,
                                         const struct cm_attention *attention, const void *q,
                                         const void *k, const void *v, const void *o,
                                         const float *lse, const void *dout, void *dq, void *dk,
                                         void *dv, void *scratch);

    enum cm_status (*activation)(struct cm_stream *stream, const struct cm_activation *activation,
                                 const void *in, void *out);
    /* din has the shape of in, and may be in. */
    enum cm_status (*activation_backward)(struct cm_stream *stream,
                                          const struct cm_activation *activation, const void *in,
                                          const void *dout, void *din);

    /* out = a + b, any of them the same; a type of the step. */
    enum cm_status (*add_to)(struct cm_stream *stream, void *out, const void *a, const void *b,
                             uint64_t count, enum cm_dtype dtype);
    /* From F32 to a type or back, to nearest even. */
    enum cm_status (*convert)(struct cm_stream *stream, void *to, enum cm_dtype to_dtype,
                              const void *from, enum cm_dtype from_dtype, uint64_t count);

    /* parts[row] of this rank's columns. */
    enum cm_status (*softmax_parts)(struct cm_stream *stream, const struct cm_cross_entropy *cross,
                                    const void *logits, const int32_t *targets,
                                    struct cm_softmax_part *parts);
    /* From all parts (rank-major, [parts][rows]): loss[row] = lse - target, and the logits become
     * their gradient, (softmax - one at the target) * scale. A target of -1 has loss and gradient
     * 0. */
    enum cm_status (*cross_entropy)(struct cm_stream *stream, const struct cm_cross_entropy *cross,
                                    void *logits, const int32_t *targets,
                                    const struct cm_softmax_part *parts, float *loss);

    /* *sum = or += factor * (sum of x[i], or of x[i]^2), x F32. `scratch` has
     * cm_sum_scratch_bytes. */
    enum cm_status (*sum)(struct cm_stream *stream, const float *x, uint64_t count, bool squares,
                          float factor, bool accumulate, float *sum, void *scratch);
    /* *factor = min(1, limit / sqrt(*sum_of_squares)), 1 when the limit is 0. */
    enum cm_status (*clip_factor)(struct cm_stream *stream, const float *sum_of_squares,
                                  float limit, float *factor);
    /* g = gradient * *factor; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; master -= rate *
     * (m/(1-b1^step) / (sqrt(v/(1-b2^step)) + epsilon) + weight_decay * master); weights =
     * master in dtype (weights may be master when F32). Stochastic rounding adds to the bits of
     * element i's master the 16 random bits that cm_random_normal(seed, first + i) picks its
     * quantile by, and keeps the upper 16; what is not finite is rounded to nearest. */
    enum cm_status (*adamw)(struct cm_stream *stream, const struct cm_adamw *adamw,
                            const float *gradient, const float *factor, float *master, float *m,
                            float *v, void *weights);

    /* slot, weight: [rows][top_k]; expert: [rows][top_k]; counts: [experts] tokens wanted before
     * the capacity cuts. `scratch` has cm_route_scratch_bytes. */
    enum cm_status (*route)(struct cm_stream *stream, const struct cm_route *route,
                            const float *logits, int32_t *slot, int32_t *expert, float *weight,
                            uint32_t *counts, void *scratch);
    /* dlogits = gradient of the logits; a dropped choice's dweight counts as 0. */
    enum cm_status (*route_backward)(struct cm_stream *stream, const struct cm_route *route,
                                     const int32_t *expert, const float *weight,
                                     const float *dweight, float *dlogits);
    /* out: [experts * capacity][columns], rows of slots that nobody has are zeros. */
    enum cm_status (*permute)(struct cm_stream *stream, const struct cm_route *route, const void *x,
                              const int32_t *slot, void *out, void *scratch);
    /* out[row] = sum over j of weight[row][j] * slots[slot[row][j]]; weight NULL: 1 each. The
     * gradient of permute is this without weights. */
    enum cm_status (*unpermute)(struct cm_stream *stream, const struct cm_route *route,
                                const void *slots, const int32_t *slot, const float *weight,
                                void *out);
    /* dslots[slot] = weight * dout[row] (zeros elsewhere); dweight[row][j] = dout[row] .
     * slots[slot], 0 for a dropped one. */
    enum cm_status (*unpermute_backward)(struct cm_stream *stream, const struct cm_route *route,
                                         const void *dout, const void *slots, const int32_t *slot,
                                         const float *weight, void *dslots, float *dweight,
                                         void *scratch);

    /* known->scale = largest magnitude / the type's largest number, and to = from / scale, to
     * nearest even, by the product with the type's largest / largest magnitude in f32. The scale is
     * 1 where nothing is of 2^-100 or more; a NAN among the numbers makes it one. `known` is
     * written in stream order, 16-byte aligned. */
    enum cm_status (*quantise)(struct cm_stream *stream, const struct cm_quantise *quantise,
                               const void *from, void *to, struct cm_quantised *known);

    enum cm_status (*reorder)(struct cm_stream *stream, const struct cm_reorder *reorder,
                              const void *from, void *to);
};

/* The reference. */
extern const struct cm_train_kernels cm_train_kernels_cpu;

#endif
