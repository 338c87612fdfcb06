/* The launch table of a training step on the CUDA device: kernels/train_*.cu and attention. */

#include "clustermark/cuda_train.h"
#include "clustermark/train_kernels.h"
#include "host/device/cuda_api.h"

/* Of either direction, at most. */
#define ATTENTION_LAUNCHES 4

static struct cm_cuda_device *device_of(struct cm_stream *stream)
{
    return (struct cm_cuda_device *)stream->device;
}

/* Whether a kernel of the step has that type. */
static bool is_step_type(enum cm_dtype dtype, const char *kernel, enum cm_status *status)
{
    if (dtype == CM_F32 || dtype == CM_BF16)
        return true;
    *status = cm_error(CM_UNSUPPORTED, "%s of %s: only f32 and bf16", kernel, cm_dtype_name(dtype));
    return false;
}

static enum cm_status train_embed(struct cm_stream *stream, const struct cm_embed *embed,
                                  const int32_t *tokens, const void *table, const void *learned,
                                  void *out)
{
    enum cm_status status;
    if (!is_step_type(embed->dtype, "embed", &status) ||
        !cm_cuda_ready(stream, 1, "embed", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_embed(cm_cuda_native(stream), embed, tokens, table, learned, out));
}

/* A tile is sorted by one block; then each launch merges runs of twice the length. */
static unsigned embed_launches(uint64_t rows)
{
    unsigned launches = 4;
    for (uint64_t run = 1024; run < rows; run *= 2)
        launches++;
    return launches;
}

static enum cm_status train_embed_backward(struct cm_stream *stream, const struct cm_embed *embed,
                                           const int32_t *tokens, const void *dout, float *dtable,
                                           float *dlearned, void *scratch)
{
    enum cm_status status;
    if (!is_step_type(embed->dtype, "embed_backward", &status) ||
        !cm_cuda_ready(stream, embed_launches(embed->rows), "embed_backward", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_embed_backward(cm_cuda_native(stream), embed, tokens,
                                                          dout, dtable, dlearned, scratch));
}

static enum cm_status train_norm(struct cm_stream *stream, const struct cm_norm *norm,
                                 const void *x, const void *delta, const void *weight,
                                 const void *bias, void *sum, void *out, float *stats)
{
    enum cm_status status;
    if (!is_step_type(norm->dtype, "norm", &status) || !cm_cuda_ready(stream, 1, "norm", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_norm(cm_cuda_native(stream), norm, x, delta, weight,
                                                bias, sum, out, stats));
}

static enum cm_status train_norm_backward(struct cm_stream *stream, const struct cm_norm *norm,
                                          const void *dout, const void *x, const void *weight,
                                          const float *stats, const void *dresidual, void *dx,
                                          float *dweight, float *dbias, void *scratch)
{
    enum cm_status status;
    if (!is_step_type(norm->dtype, "norm_backward", &status) ||
        !cm_cuda_ready(stream, 2, "norm_backward", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_norm_backward(cm_cuda_native(stream), norm, dout, x, weight, stats,
                                      dresidual, dx, dweight, dbias, scratch));
}

static enum cm_status train_rope(struct cm_stream *stream, const struct cm_rope *rope, void *rows)
{
    enum cm_status status;
    if (!is_step_type(rope->dtype, "rope", &status) || !cm_cuda_ready(stream, 1, "rope", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_rope(cm_cuda_native(stream), rope, rows));
}

static enum cm_status train_attention(struct cm_stream *stream,
                                      const struct cm_attention *attention, const void *q,
                                      const void *k, const void *v, void *o, float *lse)
{
    enum cm_status status;
    if (!is_step_type(attention->dtype, "attention", &status) ||
        !cm_cuda_ready(stream, ATTENTION_LAUNCHES, "attention", &status))
        return status;
    struct cm_cuda_device *device = device_of(stream);
    return CUDA(device, cm_cuda_attention(cm_cuda_native(stream), attention, q, k, v, o, lse,
                                          device->capability));
}

static enum cm_status train_attention_backward(struct cm_stream *stream,
                                               const struct cm_attention *attention, const void *q,
                                               const void *k, const void *v, const void *o,
                                               const float *lse, const void *dout, void *dq,
                                               void *dk, void *dv, void *scratch)
{
    enum cm_status status;
    if (!is_step_type(attention->dtype, "attention_backward", &status) ||
        !cm_cuda_ready(stream, ATTENTION_LAUNCHES, "attention_backward", &status))
        return status;
    struct cm_cuda_device *device = device_of(stream);
    return CUDA(device,
                cm_cuda_attention_backward(cm_cuda_native(stream), attention, q, k, v, o, lse, dout,
                                           dq, dk, dv, scratch, device->capability));
}

static enum cm_status train_activation(struct cm_stream *stream,
                                       const struct cm_activation *activation, const void *in,
                                       void *out)
{
    enum cm_status status;
    if (!is_step_type(activation->dtype, "activation", &status) ||
        !cm_cuda_ready(stream, 1, "activation", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_activation(cm_cuda_native(stream), activation, in, out));
}

static enum cm_status train_activation_backward(struct cm_stream *stream,
                                                const struct cm_activation *activation,
                                                const void *in, const void *dout, void *din)
{
    enum cm_status status;
    if (!is_step_type(activation->dtype, "activation_backward", &status) ||
        !cm_cuda_ready(stream, 1, "activation_backward", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_activation_backward(cm_cuda_native(stream), activation, in, dout, din));
}

static enum cm_status train_add_to(struct cm_stream *stream, void *out, const void *a,
                                   const void *b, uint64_t count, enum cm_dtype dtype)
{
    enum cm_status status;
    if (!is_step_type(dtype, "add_to", &status) || !cm_cuda_ready(stream, 1, "add_to", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_add_to(cm_cuda_native(stream), out, a, b, count, dtype));
}

static enum cm_status train_convert(struct cm_stream *stream, void *to, enum cm_dtype to_dtype,
                                    const void *from, enum cm_dtype from_dtype, uint64_t count)
{
    enum cm_status status;
    if (!is_step_type(to_dtype, "convert", &status) ||
        !is_step_type(from_dtype, "convert", &status) ||
        !cm_cuda_ready(stream, 1, "convert", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_convert(cm_cuda_native(stream), to, to_dtype, from, from_dtype, count));
}

static enum cm_status train_softmax_parts(struct cm_stream *stream,
                                          const struct cm_cross_entropy *cross, const void *logits,
                                          const int32_t *targets, struct cm_softmax_part *parts)
{
    enum cm_status status;
    if (!is_step_type(cross->dtype, "softmax_parts", &status) ||
        !cm_cuda_ready(stream, 1, "softmax_parts", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_softmax_parts(cm_cuda_native(stream), cross, logits, targets, parts));
}

static enum cm_status train_cross_entropy(struct cm_stream *stream,
                                          const struct cm_cross_entropy *cross, void *logits,
                                          const int32_t *targets,
                                          const struct cm_softmax_part *parts, float *loss)
{
    enum cm_status status;
    if (!is_step_type(cross->dtype, "cross_entropy", &status) ||
        !cm_cuda_ready(stream, 1, "cross_entropy", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_cross_entropy(cm_cuda_native(stream), cross, logits, targets, parts, loss));
}

static enum cm_status train_sum(struct cm_stream *stream, const float *x, uint64_t count,
                                bool squares, float factor, bool accumulate, float *sum,
                                void *scratch)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "sum", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_sum(cm_cuda_native(stream), x, count, squares, factor,
                                               accumulate, sum, scratch));
}

static enum cm_status train_clip_factor(struct cm_stream *stream, const float *sum_of_squares,
                                        float limit, float *factor)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "clip_factor", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_clip_factor(cm_cuda_native(stream), sum_of_squares, limit, factor));
}

static enum cm_status train_adamw(struct cm_stream *stream, const struct cm_adamw *adamw,
                                  const float *gradient, const float *factor, float *master,
                                  float *m, float *v, void *weights)
{
    enum cm_status status;
    if (!is_step_type(adamw->dtype, "adamw", &status) ||
        !cm_cuda_ready(stream, 1, "adamw", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_adamw(cm_cuda_native(stream), adamw, gradient, factor,
                                                 master, m, v, weights));
}

static enum cm_status train_route(struct cm_stream *stream, const struct cm_route *route,
                                  const float *logits, int32_t *slot, int32_t *expert,
                                  float *weight, uint32_t *counts, void *scratch)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 3, "route", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_route(cm_cuda_native(stream), route, logits, slot,
                                                 expert, weight, counts, scratch));
}

static enum cm_status train_route_backward(struct cm_stream *stream, const struct cm_route *route,
                                           const int32_t *expert, const float *weight,
                                           const float *dweight, float *dlogits)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "route_backward", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_route_backward(cm_cuda_native(stream), route, expert,
                                                          weight, dweight, dlogits));
}

static enum cm_status train_permute(struct cm_stream *stream, const struct cm_route *route,
                                    const void *x, const int32_t *slot, void *out, void *scratch)
{
    enum cm_status status;
    if (!is_step_type(route->dtype, "permute", &status) ||
        !cm_cuda_ready(stream, 3, "permute", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_permute(cm_cuda_native(stream), route, x, slot, out, scratch));
}

static enum cm_status train_unpermute(struct cm_stream *stream, const struct cm_route *route,
                                      const void *slots, const int32_t *slot, const float *weight,
                                      void *out)
{
    enum cm_status status;
    if (!is_step_type(route->dtype, "unpermute", &status) ||
        !cm_cuda_ready(stream, 1, "unpermute", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_unpermute(cm_cuda_native(stream), route, slots, slot, weight, out));
}

static enum cm_status train_unpermute_backward(struct cm_stream *stream,
                                               const struct cm_route *route, const void *dout,
                                               const void *slots, const int32_t *slot,
                                               const float *weight, void *dslots, float *dweight,
                                               void *scratch)
{
    enum cm_status status;
    if (!is_step_type(route->dtype, "unpermute_backward", &status) ||
        !cm_cuda_ready(stream, 3, "unpermute_backward", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_unpermute_backward(cm_cuda_native(stream), route, dout, slots, slot, weight,
                                           dslots, dweight, scratch));
}

static enum cm_status train_quantise(struct cm_stream *stream, const struct cm_quantise *quantise,
                                     const void *from, void *to, struct cm_quantised *known)
{
    enum cm_status status;
    if (!is_step_type(quantise->from, "quantise", &status) ||
        !cm_cuda_ready(stream, 3, "quantise", &status))
        return status;
    return CUDA(device_of(stream),
                cm_cuda_quantise(cm_cuda_native(stream), quantise, from, to, known));
}

static enum cm_status train_reorder(struct cm_stream *stream, const struct cm_reorder *reorder,
                                    const void *from, void *to)
{
    enum cm_status status;
    if (!cm_cuda_ready(stream, 1, "reorder", &status))
        return status;
    return CUDA(device_of(stream), cm_cuda_reorder(cm_cuda_native(stream), reorder, from, to));
}

const struct cm_train_kernels cm_train_kernels_cuda = {
    .attention_library = &cm_attention_cudnn,
    .embed = train_embed,
    .embed_backward = train_embed_backward,
    .norm = train_norm,
    .norm_backward = train_norm_backward,
    .rope = train_rope,
    .attention = train_attention,
    .attention_backward = train_attention_backward,
    .activation = train_activation,
    .activation_backward = train_activation_backward,
    .add_to = train_add_to,
    .convert = train_convert,
    .softmax_parts = train_softmax_parts,
    .cross_entropy = train_cross_entropy,
    .sum = train_sum,
    .clip_factor = train_clip_factor,
    .adamw = train_adamw,
    .route = train_route,
    .route_backward = train_route_backward,
    .permute = train_permute,
    .unpermute = train_unpermute,
    .unpermute_backward = train_unpermute_backward,
    .quantise = train_quantise,
    .reorder = train_reorder,
};
