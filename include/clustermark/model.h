/*
 * model.h: formulas of work and communication. Pure numbers in, pure numbers out.
 */
#ifndef CLUSTERMARK_MODEL_H
#define CLUSTERMARK_MODEL_H

#include <stdint.h>

enum cm_collective {
    CM_ALL_REDUCE,
    CM_REDUCE_SCATTER,
    CM_ALL_GATHER,
    CM_ALL_TO_ALL,
    CM_BROADCAST,
    CM_COLLECTIVE_COUNT
};

/* NULL-terminated, in the order of the enum: "all_reduce" ... */
extern const char *const cm_collective_names[];

/* busbw / algbw as nccl-tests defines it (doc/PERFORMANCE.md): all_reduce 2(n-1)/n; reduce_scatter,
 * all_gather, all_to_all (n-1)/n; broadcast 1. n = 1 gives 0 for the first four: nothing moved. */
double cm_bus_factor(enum cm_collective op, unsigned ranks);

/* The bytes S of algbw = S/t: the whole buffer, which for reduce_scatter, all_gather and all_to_all
 * is n times a rank's part. `elements` counts the whole buffer. */
uint64_t cm_collective_bytes(uint64_t elements, uint64_t element_bytes);

/* 2mnk for each of `batch` products, as a double: it may pass 2^64. */
double cm_gemm_flops(uint64_t m, uint64_t n, uint64_t k, uint64_t batch);

/* Whether a*b (and *product) fits in 63 bits: sizes from users are multiplied with this. Returns 0
 * and stores the product, or -1. */
int cm_multiply_size(uint64_t a, uint64_t b, uint64_t *product);

/* The message size at which a bandwidth curve reaches half of its peak, interpolated on log2(size)
 * between the two points around it; NAN when the curve never crosses. Sizes ascend. */
double cm_half_peak_size(const double *size_bytes, const double *bandwidth, unsigned count);

/* A PCIe link: GT/s of a lane by generation (1 to 6; 0 for others), and bytes/s per direction of so
 * many lanes, packet headers included; 0 when not known. */
double cm_link_generation_gts(unsigned generation);
double cm_link_rate(double gts, unsigned width);

#endif
