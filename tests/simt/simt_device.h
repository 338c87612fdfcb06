/*
 * simt_device.h: CUDA's device functions that are one value in, one value out, and those that are
 * built on simt.h's meetings. Included by simt.h alone.
 */
#ifndef SIMT_DEVICE_H
#define SIMT_DEVICE_H

/* ---- Shuffles ---- */

/* Where lane `lane` reads. `width` cuts the warp into parts. */
enum simt_shuffle { SIMT_INDEX, SIMT_UP, SIMT_DOWN, SIMT_XOR };

struct simt_shuffle_record {
    enum simt_shuffle kind;
    int operand, width;
    unsigned char value[16], result[16];
};
void simt_shuffle(unsigned mask, struct simt_shuffle_record *record, const char *file, int line);

template <typename T>
static inline T simt_shuffled(enum simt_shuffle kind, unsigned mask, T value, int operand,
                              int width, const char *file, int line)
{
    static_assert(sizeof(T) <= 16, "too large to be shuffled");
    struct simt_shuffle_record record = {};
    record.kind = kind;
    record.operand = operand;
    record.width = width;
    memcpy(record.value, &value, sizeof value);
    simt_shuffle(mask, &record, file, line);
    memcpy(&value, record.result, sizeof value);
    return value;
}

template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_SITE)
{
    return simt_shuffled(SIMT_INDEX, mask, value, source, width, file, line);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE)
{
    return simt_shuffled(SIMT_UP, mask, value, (int)delta, width, file, line);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE)
{
    return simt_shuffled(SIMT_DOWN, mask, value, (int)delta, width, file, line);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_SITE)
{
    return simt_shuffled(SIMT_XOR, mask, value, lanes, width, file, line);
}

/* ---- Atomics: on memory that other threads of this process may use too ---- */

/* Another thread may come first. */
static inline void simt_atomic_turn()
{
    if (simt_random(4) == 0)
        simt_yield();
}

/* T, but not deduced: atomicAdd(&unsigned, 1). */
template <typename T> struct simt_plain {
    typedef T type;
};

/* The old value; `change` makes the new one of it. */
template <typename T, typename F> static inline T simt_atomic(T *at, F change)
{
    simt_atomic_turn();
    T old, fresh;
    __atomic_load(at, &old, __ATOMIC_SEQ_CST);
    do {
        fresh = change(old);
    } while (
        !__atomic_compare_exchange(at, &old, &fresh, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return old;
}

#define SIMT_ATOMIC(name, expression)                                                              \
    template <typename T> static inline T name(T *at, typename simt_plain<T>::type value)          \
    {                                                                                              \
        return simt_atomic(at, [value](T old) { return (T)(expression); });                        \
    }
SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicSub, old - value)
SIMT_ATOMIC(atomicExch, (static_cast<void>(old), value))
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, value > old ? value : old)
SIMT_ATOMIC(atomicAnd, old &value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)

template <typename T>
static inline T atomicCAS(T *at, typename simt_plain<T>::type expected,
                          typename simt_plain<T>::type value)
{
    return simt_atomic(at, [=](T old) { return old == expected ? value : old; });
}

/* ---- Memory with a hint of how it will be used ---- */

#define SIMT_LOAD(name)                                                                            \
    template <typename T> static inline T name(const T *at)                                        \
    {                                                                                              \
        simt_check_aligned(at, sizeof(T));                                                         \
        return *at;                                                                                \
    }
#define SIMT_STORE(name)                                                                           \
    template <typename T> static inline void name(T *at, typename simt_plain<T>::type value)       \
    {                                                                                              \
        simt_check_aligned(at, sizeof(T));                                                         \
        *at = value;                                                                               \
    }

/* A device faults on these; this CPU would not. */
static inline void simt_check_aligned(const volatile void *at, size_t size)
{
    if (reinterpret_cast<uintptr_t>(at) % size != 0)
        simt_fail("an access of %zu bytes at %p, which is not aligned", size,
                  const_cast<const void *>(at));
}

SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldcv)
SIMT_LOAD(__ldlu)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwb)
SIMT_STORE(__stwt)

/* ---- Arithmetic ---- */

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}
static inline int __clzll(long long x)
{
    return x == 0 ? 64 : __builtin_clzll((unsigned long long)x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
static inline unsigned __umulhi(unsigned x, unsigned y)
{
    return (unsigned)((uint64_t)x * y >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> (shift & 31));
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) << (shift & 31) >> 32);
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; i++) {
        unsigned choice = selector >> 4 * i & 0xf;
        unsigned byte = (unsigned)(bytes >> 8 * (choice & 7) & 0xff);
        if (choice & 8)
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    return result;
}

#define SIMT_BITS(name, to, from)                                                                  \
    static inline to name(from value)                                                              \
    {                                                                                              \
        static_assert(sizeof(to) == sizeof(from), "bits of another width");                        \
        to result;                                                                                 \
        memcpy(&result, &value, sizeof result);                                                    \
        return result;                                                                             \
    }
SIMT_BITS(__float_as_uint, unsigned, float)
SIMT_BITS(__float_as_int, int, float)
SIMT_BITS(__uint_as_float, float, unsigned)
SIMT_BITS(__int_as_float, float, int)
SIMT_BITS(__double_as_longlong, long long, double)
SIMT_BITS(__longlong_as_double, double, long long)

static inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}
static inline double __fma_rn(double x, double y, double z)
{
    return fma(x, y, z);
}
/* Sine and cosine of pi times x. */
static inline void sincospif(float x, float *sine, float *cosine)
{
    double turned = 3.14159265358979323846 * remainder((double)x, 2);
    *sine = (float)sin(turned);
    *cosine = (float)cos(turned);
}
static inline float __fmul_rn(float x, float y)
{
    return x * y;
}
static inline float __fadd_rn(float x, float y)
{
    return x + y;
}
static inline double __dmul_rn(double x, double y)
{
    return x * y;
}
static inline double __dadd_rn(double x, double y)
{
    return x + y;
}
static inline double __ddiv_rn(double x, double y)
{
    return x / y;
}
static inline int __float2int_rn(float x)
{
    return std::isnan(x) ? 0 : x >= 0x1p31f ? INT32_MAX : x <= -0x1p31f ? INT32_MIN : (int)rintf(x);
}

template <typename T> static inline T min(T x, T y)
{
    return y < x ? y : x;
}
template <typename T> static inline T max(T x, T y)
{
    return x < y ? y : x;
}

#endif
