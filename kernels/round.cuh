/* round.cuh: a float as a float of fewer bits. */
#ifndef KERNELS_ROUND_CUH
#define KERNELS_ROUND_CUH

#include "kernels/launch.cuh"

/* To nearest even, in a format with that many mantissa bits and that exponent bias. `TOP` is the
 * code that everything too large gets: of infinity, or of the largest number. */
template <int MANTISSA, int BIAS, unsigned TOP>
static __device__ inline unsigned cm_round_to(float value, unsigned sign_bit)
{
    const int dropped = 23 - MANTISSA;
    unsigned bits = __float_as_uint(value), magnitude = bits & 0x7fffffff, code;
    if (magnitude >= (unsigned)(128 - BIAS) << 23) {
        unsigned half = (1u << (dropped - 1)) - 1 + (magnitude >> dropped & 1);
        code = ((magnitude + half) >> dropped) - ((unsigned)(127 - BIAS) << MANTISSA);
    } else { /* subnormal: a number whose last bit is one step rounds the sum */
        const unsigned large = (unsigned)(151 - BIAS - MANTISSA) << 23;
        code = __float_as_uint(__uint_as_float(magnitude) + __uint_as_float(large)) - large;
    }
    code = code < TOP ? code : TOP;
    return bits >> 31 ? code | sign_bit : code;
}

#endif
