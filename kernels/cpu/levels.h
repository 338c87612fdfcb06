/*
 * levels.h: three kinds of CPU, for which loops whose speed counts have a copy each.
 */
#ifndef KERNELS_CPU_LEVELS_H
#define KERNELS_CPU_LEVELS_H

/* Every CPU, AVX2 with FMA, AVX-512. */
enum cm_level { CM_LEVEL_BASE, CM_LEVEL_AVX2, CM_LEVEL_AVX512 };

#if defined(__x86_64__)
#define CM_AVX2 __attribute__((target("avx2,fma")))
#if defined(__clang__)
#define CM_AVX512                                                                                  \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"), min_vector_width(512)))
#else
#define CM_AVX512                                                                                  \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif
static inline enum cm_level cm_level(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return CM_LEVEL_BASE;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
               ? CM_LEVEL_AVX512
               : CM_LEVEL_AVX2;
}
#else
#define CM_AVX2
#define CM_AVX512
static inline enum cm_level cm_level(void)
{
    return CM_LEVEL_BASE;
}
#endif

#endif
