/*
 * What a GPU's units can multiply and add, from its architecture: FLOP per clock and SM, dense,
 * with sums in f32 (i32 of integers). A product by a matrix unit where there is one for the type,
 * else by the ordinary units. Numbers from numbers: no CUDA.
 */
#include <stdio.h>
#include <string.h>

#include "host/device/cuda.h"

/* Columns of a row. */
enum { F64, F32, TF32, HALF, BF16, F8, I8, MX8, FP4, KINDS };
#define NOT_KNOWN 1u /* there is a unit, and what is published of it does not agree */

struct architecture {
    int capability;
    unsigned flop[KINDS]; /* 0: no unit for it; or NOT_KNOWN */
    unsigned slow;        /* bits 1 << kind that run at half the rate in consumers' cards */
};

#define SLOW_HALF    (1u << HALF | 1u << BF16)
#define SLOW_ALL     (SLOW_HALF | 1u << TF32)
#define SLOW_WITH_F8 (SLOW_ALL | 1u << F8 | 1u << MX8)

static const struct architecture architectures[] = {
    {70, {64, 128, 0, 1024, 0, 0, 0}, 0},
    {75, {4, 128, 0, 1024, 0, 0, 2048}, SLOW_HALF},
    {80, {128, 128, 1024, 2048, 2048, 0, 4096}, 0},
    {86, {4, 256, 512, 1024, 1024, 0, 2048}, SLOW_ALL},
    {89, {4, 256, 512, 1024, 1024, 2048, 2048}, SLOW_WITH_F8},
    {90, {256, 256, 2048, 4096, 4096, 8192, 8192}, 0},
    {100, {128, 256, 4096, 8192, 8192, 16384, 16384, 16384, 32768}, 0},
    {103, {4, 256, 4096, 8192, 8192, 16384, 512, 16384, NOT_KNOWN}, 0},
    {120, {4, 256, 512, 1024, 1024, 2048, 2048, 2048, 4096}, SLOW_WITH_F8},
};

/* NVIDIA's figures for Hopper's SXM modules are at this clock, below the highest that they have. */
#define HOPPER_SHEET_HZ 1.83e9

static int kind_of(enum cm_dtype dtype)
{
    switch (dtype) {
    case CM_F64:
        return F64;
    case CM_F32:
        return F32;
    case CM_TF32:
        return TF32;
    case CM_F16:
        return HALF;
    case CM_BF16:
        return BF16;
    case CM_F8E4M3:
    case CM_F8E5M2:
        return F8;
    case CM_I8:
        return I8;
    case CM_MXFP8:
        return MX8;
    case CM_NVFP4:
        return FP4;
    default:
        return KINDS;
    }
}

/* Cards whose matrix units are slowed down, by name; the A10G in all of them. */
static bool is_slow(const struct cm_cuda_gpu *gpu, const struct architecture *architecture,
                    int kind)
{
    if (strstr(gpu->name, "A10G") != NULL)
        return kind >= TF32;
    return strstr(gpu->name, "GeForce") != NULL && (architecture->slow >> kind & 1) != 0;
}

void cm_cuda_peak(const struct cm_cuda_gpu *gpu, enum cm_dtype dtype, struct cm_peak *peak)
{
    const struct architecture *found = NULL;
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        if (architectures[i].capability == gpu->capability)
            found = &architectures[i];
    }
    int kind = kind_of(dtype);
    *peak = (struct cm_peak){.value = 0};
    if (found == NULL) {
        snprintf(peak->source, sizeof peak->source, "no peak known for sm_%d", gpu->capability);
        return;
    }
    if (kind == KINDS || found->flop[kind] == 0) {
        snprintf(peak->source, sizeof peak->source, "sm_%d has no unit for products of %s",
                 gpu->capability, cm_dtype_name(dtype));
        return;
    }
    if (found->flop[kind] == NOT_KNOWN) {
        snprintf(peak->source, sizeof peak->source,
                 "no peak known for %s on sm_%d: what is published does not agree",
                 cm_dtype_name(dtype), gpu->capability);
        return;
    }
    if (gpu->clock_hz <= 0 || gpu->units == 0) {
        snprintf(peak->source, sizeof peak->source, "not known: CUDA does not tell the clock");
        return;
    }
    unsigned flop = found->flop[kind] / (is_slow(gpu, found, kind) ? 2 : 1);
    bool sheet_differs =
        gpu->capability == 90 && kind >= TF32 && gpu->clock_hz > HOPPER_SHEET_HZ * 1.01;
    peak->value = gpu->units * (double)flop * gpu->clock_hz;
    int length = snprintf(peak->source, sizeof peak->source,
                          "%u SMs x %u FLOP/clock x %.4g GHz, the highest clock", gpu->units, flop,
                          gpu->clock_hz * 1e-9);
    if (sheet_differs)
        snprintf(peak->source + length, sizeof peak->source - (size_t)length,
                 " (data sheets: at 1.83)");
}
