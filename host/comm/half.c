/* Reductions of bf16 and f16, written with integers and selects so that compilers vectorise them
 * on any machine; on x86 a second copy is compiled for AVX2 and chosen at run time. */
#include "host/comm/half.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t as_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float bf16_load(uint16_t half)
{
    return as_float((uint32_t)half << 16);
}

INLINE uint16_t bf16_store(float value)
{
    uint32_t bits = as_bits(value);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    uint32_t nan = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

INLINE float f16_load(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    /* The multiplication moves the exponent's bias from 15 to 127, for subnormals too. */
    uint32_t finite = as_bits(as_float(magnitude) * 0x1p112f);
    uint32_t special = magnitude | 0x7f800000u;
    return as_float(sign | (magnitude >= 0x0f800000u ? special : finite));
}

INLINE uint16_t f16_store(float value)
{
    uint32_t bits = as_bits(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1)) >> 13;
    /* Adding 0.5 leaves a multiple of 2^-24, rounded, in the low bits. */
    uint32_t subnormal = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t half = magnitude < 0x38800000u ? subnormal : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half; /* 65520 and more */
    half = magnitude > 0x7f800000u ? 0x7e00u : half;
    return (uint16_t)(sign | half);
}

/* in and inout never overlap. */
#define LOOPS(dtype)                                                                               \
    INLINE void dtype##_loops(enum cm_reduce reduce, const uint16_t *restrict in,                  \
                              uint16_t *restrict inout, size_t count)                              \
    {                                                                                              \
        if (reduce == CM_REDUCE_SUM)                                                               \
            for (size_t i = 0; i < count; i++)                                                     \
                inout[i] = dtype##_store(dtype##_load(in[i]) + dtype##_load(inout[i]));            \
        else if (reduce == CM_REDUCE_MAX)                                                          \
            for (size_t i = 0; i < count; i++)                                                     \
                inout[i] = dtype##_load(in[i]) > dtype##_load(inout[i]) ? in[i] : inout[i];        \
        else                                                                                       \
            for (size_t i = 0; i < count; i++)                                                     \
                inout[i] = dtype##_load(in[i]) < dtype##_load(inout[i]) ? in[i] : inout[i];        \
    }
LOOPS(bf16)
LOOPS(f16)

INLINE void reduce_any(enum cm_dtype dtype, enum cm_reduce reduce, const uint16_t *in,
                       uint16_t *inout, size_t count)
{
    if (dtype == CM_BF16)
        bf16_loops(reduce, in, inout, count);
    else
        f16_loops(reduce, in, inout, count);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void reduce_avx2(enum cm_dtype dtype, enum cm_reduce reduce,
                                                        const uint16_t *in, uint16_t *inout,
                                                        size_t count)
{
    reduce_any(dtype, reduce, in, inout, count);
}
#endif

void cm_half_reduce(enum cm_dtype dtype, enum cm_reduce reduce, const uint16_t *in, uint16_t *inout,
                    size_t count)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        reduce_avx2(dtype, reduce, in, inout, count);
        return;
    }
#endif
    reduce_any(dtype, reduce, in, inout, count);
}
