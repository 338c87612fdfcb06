/*
 * train.h: what the reference kernels of the training step share: three copies of each loop for
 * three kinds of CPU, elements of either type of the step as floats, and exp.
 *
 * Rows are worked on in blocks that stay in the nearest cache: a block of bf16 is widened into a
 * buffer, one of f32 is used where it lies. All sums have an order that the problem's size alone
 * decides, so that the number of threads does not show in the results.
 */
#ifndef KERNELS_CPU_TRAIN_H
#define KERNELS_CPU_TRAIN_H

#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/simd.h"
#include "clustermark/team.h"
#include "clustermark/train_kernels.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/levels.h"

/* Elements of a row that are worked on together; and what a buffer holds: a little more, so that
 * buffers beside one another do not lie alike in their pages. */
#define CM_BLOCK  1024
#define CM_BUFFER (CM_BLOCK + 80)
/* Elements that are worth another core. */
#define CM_GRAIN 8192

/* ---- levels ---- */

#define CM_LEVEL_COPIES(name, type, suffix, ...)                                                   \
    static void name##suffix##_base(const type *job, uint64_t begin, uint64_t end)                 \
    {                                                                                              \
        name##_body(job, begin, end __VA_ARGS__);                                                  \
    }                                                                                              \
    CM_AVX2 static void name##suffix##_avx2(const type *job, uint64_t begin, uint64_t end)         \
    {                                                                                              \
        name##_body(job, begin, end __VA_ARGS__);                                                  \
    }                                                                                              \
    CM_AVX512 static void name##suffix##_avx512(const type *job, uint64_t begin, uint64_t end)     \
    {                                                                                              \
        name##_body(job, begin, end __VA_ARGS__);                                                  \
    }                                                                                              \
    static void name##suffix(void *job, uint64_t begin, uint64_t end)                              \
    {                                                                                              \
        enum cm_level level = cm_level();                                                          \
        (level == CM_LEVEL_AVX512 ? name##suffix##_avx512                                          \
         : level == CM_LEVEL_AVX2 ? name##suffix##_avx2                                            \
                                  : name##suffix##_base)(job, begin, end);                         \
    }
#define CM_COMMA ,

/* name(job, begin, end), for cm_team_run, from an inline name_body(job, begin, end). */
#define CM_LEVELS(name, type) CM_LEVEL_COPIES(name, type, , )

/* The same from an inline name_body(job, begin, end, dtype), a copy for each type of the step;
 * `field` is where the job has it. */
#define CM_TYPED_LEVELS(name, type, field)                                                         \
    CM_LEVEL_COPIES(name, type, _f32, CM_COMMA CM_F32)                                             \
    CM_LEVEL_COPIES(name, type, _bf16, CM_COMMA CM_BF16)                                           \
    static void name(void *job, uint64_t begin, uint64_t end)                                      \
    {                                                                                              \
        (((const type *)job)->field == CM_F32 ? name##_f32 : name##_bf16)(job, begin, end);        \
    }

/* Iterations may be done side by side, the named sum by parts. */
#define CM_PRAGMA(text) _Pragma(#text)
#define CM_SUMS(...)    CM_PRAGMA(omp simd reduction(+ : __VA_ARGS__))

/* ---- elements ---- */

static CM_INLINE void cm_widen(float *to, const uint16_t *from, size_t count)
{
    CM_INDEPENDENT for (size_t i = 0; i < count; i++)
    {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

/* In the upper half of the bits: to nearest even; a NAN stays one. */
static CM_INLINE uint32_t cm_round_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1);
    return value != value ? bits | 0x400000u : rounded;
}

static CM_INLINE uint16_t cm_bf16_of(float value)
{
    return (uint16_t)(cm_round_bits(value) >> 16);
}

static CM_INLINE void *cm_at(enum cm_dtype dtype, void *base, uint64_t index)
{
    return (char *)base + index * (dtype == CM_F32 ? sizeof(float) : sizeof(uint16_t));
}

/* Element `index` as a float. In loops: the type must be a constant. */
static CM_INLINE float cm_get(enum cm_dtype dtype, const void *base, uint64_t index)
{
    if (dtype == CM_F32)
        return ((const float *)base)[index];
    uint32_t bits = (uint32_t)((const uint16_t *)base)[index] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To the nearest value of the type. */
static CM_INLINE float cm_round(enum cm_dtype dtype, float value)
{
    uint32_t bits = cm_round_bits(value) & 0xffff0000u;
    float rounded;
    memcpy(&rounded, &bits, sizeof rounded);
    return dtype == CM_F32 ? value : rounded;
}

static CM_INLINE void cm_put(enum cm_dtype dtype, void *base, uint64_t index, float value)
{
    if (dtype == CM_F32)
        ((float *)base)[index] = value;
    else
        ((uint16_t *)base)[index] = cm_bf16_of(value);
}

static CM_INLINE void cm_narrow(uint16_t *to, const float *from, size_t count)
{
    CM_INDEPENDENT for (size_t i = 0; i < count; i++) to[i] = cm_bf16_of(from[i]);
}

/* `count` elements from `index` on, as floats: where they lie, or in the buffer. */
static CM_INLINE const float *cm_view(enum cm_dtype dtype, const void *base, uint64_t index,
                                      size_t count, float *buffer)
{
    if (dtype == CM_F32)
        return (const float *)base + index;
    const uint16_t *from = (const uint16_t *)base + index;
    for (size_t i = 0; i < count; i += 32)
        __builtin_prefetch(from + count + i);
    cm_widen(buffer, from, count);
    return buffer;
}

/* Where floats go that cm_keep then makes elements of: to their place, or to the buffer. */
static CM_INLINE float *cm_place(enum cm_dtype dtype, void *base, uint64_t index, float *buffer)
{
    return dtype == CM_F32 ? (float *)base + index : buffer;
}

static CM_INLINE void cm_keep(enum cm_dtype dtype, void *base, uint64_t index, size_t count,
                              const float *buffer)
{
    if (dtype != CM_F32)
        cm_narrow((uint16_t *)base + index, buffer, count);
}

/* The same of what is rounded already. */
static CM_INLINE void cm_keep_rounded(enum cm_dtype dtype, void *base, uint64_t index, size_t count,
                                      const float *buffer)
{
    uint16_t *to = (uint16_t *)base + index;
    if (dtype == CM_F32)
        return;
    CM_INDEPENDENT for (size_t i = 0; i < count; i++)
    {
        uint32_t bits;
        memcpy(&bits, &buffer[i], sizeof bits);
        to[i] = (uint16_t)(bits >> 16);
    }
}

static CM_INLINE size_t cm_block_at(uint64_t at, uint64_t end)
{
    return end - at < CM_BLOCK ? (size_t)(end - at) : CM_BLOCK;
}

/* Rows that are worth another core. */
static inline uint64_t cm_row_grain(uint64_t columns)
{
    return columns >= CM_GRAIN ? 1 : CM_GRAIN / (columns > 0 ? columns : 1);
}

/* Rows in blocks of columns: what cm_team_run counts where rows may be few and long. */
static inline uint64_t cm_row_blocks(uint64_t columns)
{
    return (columns + CM_BLOCK - 1) / CM_BLOCK;
}

/* ---- mathematics ---- */

/* exp to within two last places; 0 below -87.3, 2^127 and more stays finite. */
static CM_INLINE float cm_exp(float x)
{
    float clamped = x < 88.3f ? x : 88.3f;
    /* In the lowest bits of `shifted`: the whole number nearest to x / log 2. */
    float shifted = clamped * 1.44269504f + 0x1.8p23f;
    float whole = shifted - 0x1.8p23f;
    float rest = clamped - whole * 0x1.62e4p-1f;
    rest = rest - whole * 0x1.7f7d1cp-20f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1;
    uint32_t bits, exponent;
    memcpy(&exponent, &shifted, sizeof exponent);
    memcpy(&bits, &sum, sizeof bits);
    bits += exponent << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.3f ? 0 : power;
}

static CM_INLINE float cm_sigmoid(float x)
{
    return 1 / (1 + cm_exp(-x));
}

/* Where local position `local` stands in the sequence. */
static CM_INLINE uint64_t cm_position(const struct cm_positions *positions, uint64_t local)
{
    return local < positions->chunk ? positions->first[0] + local
                                    : positions->first[1] + (local - positions->chunk);
}

/* ---- the launchers, as train_kernels.h documents them ---- */

enum cm_status cm_cpu_embed(struct cm_stream *stream, const struct cm_embed *embed,
                            const int32_t *tokens, const void *table, const void *learned,
                            void *out);
enum cm_status cm_cpu_embed_backward(struct cm_stream *stream, const struct cm_embed *embed,
                                     const int32_t *tokens, const void *dout, float *dtable,
                                     float *dlearned, void *scratch);
enum cm_status cm_cpu_norm(struct cm_stream *stream, const struct cm_norm *norm, const void *x,
                           const void *delta, const void *weight, const void *bias, void *sum,
                           void *out, float *stats);
enum cm_status cm_cpu_norm_backward(struct cm_stream *stream, const struct cm_norm *norm,
                                    const void *dout, const void *x, const void *weight,
                                    const float *stats, const void *dresidual, void *dx,
                                    float *dweight, float *dbias, void *scratch);
enum cm_status cm_cpu_rope(struct cm_stream *stream, const struct cm_rope *rope, void *rows);
enum cm_status cm_cpu_attention(struct cm_stream *stream, const struct cm_attention *attention,
                                const void *q, const void *k, const void *v, void *o, float *lse);
enum cm_status cm_cpu_attention_backward(struct cm_stream *stream,
                                         const struct cm_attention *attention, const void *q,
                                         const void *k, const void *v, const void *o,
                                         const float *lse, const void *dout, void *dq, void *dk,
                                         void *dv, void *scratch);
enum cm_status cm_cpu_activation(struct cm_stream *stream, const struct cm_activation *activation,
                                 const void *in, void *out);
enum cm_status cm_cpu_activation_backward(struct cm_stream *stream,
                                          const struct cm_activation *activation, const void *in,
                                          const void *dout, void *din);
enum cm_status cm_cpu_add_to(struct cm_stream *stream, void *out, const void *a, const void *b,
                             uint64_t count, enum cm_dtype dtype);
enum cm_status cm_cpu_convert(struct cm_stream *stream, void *to, enum cm_dtype to_dtype,
                              const void *from, enum cm_dtype from_dtype, uint64_t count);
enum cm_status cm_cpu_softmax_parts(struct cm_stream *stream, const struct cm_cross_entropy *cross,
                                    const void *logits, const int32_t *targets,
                                    struct cm_softmax_part *parts);
enum cm_status cm_cpu_cross_entropy(struct cm_stream *stream, const struct cm_cross_entropy *cross,
                                    void *logits, const int32_t *targets,
                                    const struct cm_softmax_part *parts, float *loss);
enum cm_status cm_cpu_sum(struct cm_stream *stream, const float *x, uint64_t count, bool squares,
                          float factor, bool accumulate, float *sum, void *scratch);
enum cm_status cm_cpu_clip_factor(struct cm_stream *stream, const float *sum_of_squares,
                                  float limit, float *factor);
enum cm_status cm_cpu_adamw(struct cm_stream *stream, const struct cm_adamw *adamw,
                            const float *gradient, const float *factor, float *master, float *m,
                            float *v, void *weights);
enum cm_status cm_cpu_route(struct cm_stream *stream, const struct cm_route *route,
                            const float *logits, int32_t *slot, int32_t *expert, float *weight,
                            uint32_t *counts, void *scratch);
enum cm_status cm_cpu_route_backward(struct cm_stream *stream, const struct cm_route *route,
                                     const int32_t *expert, const float *weight,
                                     const float *dweight, float *dlogits);
enum cm_status cm_cpu_permute(struct cm_stream *stream, const struct cm_route *route, const void *x,
                              const int32_t *slot, void *out, void *scratch);
enum cm_status cm_cpu_unpermute(struct cm_stream *stream, const struct cm_route *route,
                                const void *slots, const int32_t *slot, const float *weight,
                                void *out);
enum cm_status cm_cpu_unpermute_backward(struct cm_stream *stream, const struct cm_route *route,
                                         const void *dout, const void *slots, const int32_t *slot,
                                         const float *weight, void *dslots, float *dweight,
                                         void *scratch);
enum cm_status cm_cpu_quantise(struct cm_stream *stream, const struct cm_quantise *quantise,
                               const void *from, void *to, struct cm_quantised *known);
enum cm_status cm_cpu_reorder(struct cm_stream *stream, const struct cm_reorder *reorder,
                              const void *from, void *to);

#endif
