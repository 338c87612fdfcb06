/*
 * The ceiling of this core's arithmetic: fused multiply-adds on registers, in twelve independent
 * chains, more than any core needs to hide their latency.
 */
#include <stddef.h>

#include "host/device/cpu.h"

#define CHAINS 12
#define ROUNDS 2000
/* The best of some short slices: another process may take the core in between. */
#define SLICES 40

#if defined(__x86_64__)
#define REGISTER "+x"
#elif defined(__aarch64__)
#define REGISTER "+w"
#endif

/* Defines name(): FMA lanes done by one call. The empty instruction keeps each sum in a register
 * and the compiler from working the loop out. */
#define DEFINE_LOOP(name, type, bytes, attribute)                                                  \
    typedef type name##_vector __attribute__((vector_size(bytes)));                                \
    attribute static double name(void)                                                             \
    {                                                                                              \
        name##_vector sums[CHAINS] = {{0}}, factor = {0}, term = {0};                              \
        __asm__ volatile("" : REGISTER(factor), REGISTER(term));                                   \
        for (int round = 0; round < ROUNDS; round++) {                                             \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)                              \
            {                                                                                      \
                sums[i] = sums[i] * factor + term;                                                 \
                __asm__ volatile("" : REGISTER(sums[i]));                                          \
            }                                                                                      \
        }                                                                                          \
        return (double)(bytes / sizeof(type)) * CHAINS * ROUNDS;                                   \
    }

#if defined(__x86_64__)
DEFINE_LOOP(f32_avx2, float, 32, __attribute__((target("avx2,fma"))))
DEFINE_LOOP(f64_avx2, double, 32, __attribute__((target("avx2,fma"))))
DEFINE_LOOP(f32_avx512, float, 64, __attribute__((target("avx512f"))))
DEFINE_LOOP(f64_avx512, double, 64, __attribute__((target("avx512f"))))

static double (*const wide_loops[2])(void) = {f32_avx512, f64_avx512};
static double (*const loops[2])(void) = {f32_avx2, f64_avx2};

static double (*choose(int dtype))(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return wide_loops[dtype];
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? loops[dtype] : NULL;
}
#elif defined(__aarch64__)
DEFINE_LOOP(f32_neon, float, 16, )
DEFINE_LOOP(f64_neon, double, 16, )

static double (*choose(int dtype))(void)
{
    return dtype == 0 ? f32_neon : f64_neon;
}
#else
static double (*choose(int dtype))(void)
{
    (void)dtype;
    return NULL;
}
#endif

static double best_rate(double (*loop)(void))
{
    double best = 0;
    for (int i = 0; loop != NULL && i < SLICES; i++) {
        uint64_t start_ns = cm_cpu_now_ns();
        double lanes = loop();
        double seconds = (double)(cm_cpu_now_ns() - start_ns) * 1e-9;
        if (seconds > 0 && 2 * lanes / seconds > best)
            best = 2 * lanes / seconds;
    }
    return best;
}

double cm_cpu_peak_f32(void)
{
    return best_rate(choose(0));
}

double cm_cpu_peak_f64(void)
{
    return best_rate(choose(1));
}
