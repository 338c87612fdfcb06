/* Formulas of work and communication. */
#include "clustermark/model.h"

#include <math.h>
#include <stddef.h>

const char *const cm_collective_names[] = {
    [CM_ALL_REDUCE] = "all_reduce", [CM_REDUCE_SCATTER] = "reduce_scatter",
    [CM_ALL_GATHER] = "all_gather", [CM_ALL_TO_ALL] = "all_to_all",
    [CM_BROADCAST] = "broadcast",   [CM_COLLECTIVE_COUNT] = NULL,
};

double cm_bus_factor(enum cm_collective op, unsigned ranks)
{
    double others = ranks > 0 ? (double)(ranks - 1) / ranks : 0;
    switch (op) {
    case CM_ALL_REDUCE:
        return 2 * others;
    case CM_REDUCE_SCATTER:
    case CM_ALL_GATHER:
    case CM_ALL_TO_ALL:
        return others;
    case CM_BROADCAST:
        return 1;
    case CM_COLLECTIVE_COUNT:
        break;
    }
    return (double)NAN;
}

uint64_t cm_collective_bytes(uint64_t elements, uint64_t element_bytes)
{
    return elements * element_bytes;
}

double cm_gemm_flops(uint64_t m, uint64_t n, uint64_t k, uint64_t batch)
{
    return 2.0 * (double)m * (double)n * (double)k * (double)batch;
}

int cm_multiply_size(uint64_t a, uint64_t b, uint64_t *product)
{
    uint64_t result;
    if (__builtin_mul_overflow(a, b, &result) || result >> 63 != 0)
        return -1;
    *product = result;
    return 0;
}

double cm_half_peak_size(const double *size_bytes, const double *bandwidth, unsigned count)
{
    double peak = 0;
    for (unsigned i = 0; i < count; i++)
        peak = fmax(peak, bandwidth[i]);
    double half = peak / 2;
    /* A curve that begins above half of its peak reached it at a size that was not measured. */
    if (count < 2 || !(bandwidth[0] < half))
        return (double)NAN;
    unsigned i = 1;
    while (bandwidth[i] < half)
        i++;
    double part = (half - bandwidth[i - 1]) / (bandwidth[i] - bandwidth[i - 1]);
    double low = log2(size_bytes[i - 1]), high = log2(size_bytes[i]);
    return exp2(low + part * (high - low));
}

double cm_link_generation_gts(unsigned generation)
{
    static const double gts[] = {0, 2.5, 5, 8, 16, 32, 64};
    return generation < sizeof gts / sizeof *gts ? gts[generation] : 0;
}

double cm_link_rate(double gts, unsigned width)
{
    /* 8b/10b up to Gen2, 128b/130b from Gen3 on. */
    double encoding = gts > 5 ? 128.0 / 130 : 0.8;
    return gts * 1e9 / 8 * encoding * width;
}
