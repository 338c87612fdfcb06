/*
 * simd.h: two copies of a loop, one for every CPU and one for CPUs with 256-bit vectors.
 *
 *     static CM_INLINE void body(...) { CM_INDEPENDENT for (...) }
 *     static void body_base(...) { body(...); }
 *     CM_WIDE static void body_wide(...) { body(...); }
 *     (cm_wide() ? body_wide : body_base)(...);
 */
#ifndef CLUSTERMARK_SIMD_H
#define CLUSTERMARK_SIMD_H

#include <stdbool.h>

#define CM_INLINE inline __attribute__((always_inline))

/* In front of a loop: iterations do not depend on one another. An output may be the same array as
 * an input, element for element. */
#if defined(__clang__)
#define CM_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define CM_INDEPENDENT _Pragma("GCC ivdep")
#endif

#if defined(__x86_64__)
#define CM_WIDE __attribute__((target("avx2")))
static inline bool cm_wide(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}
#else
#define CM_WIDE
static inline bool cm_wide(void)
{
    return false;
}
#endif

#endif
