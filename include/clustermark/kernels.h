/*
 * kernels.h: the launch table: what a device computes.
 *
 * kernels/cpu/ is the reference: its launchers run on any device whose memory the host can read,
 * through cm_device_ops.call. A backend starts from that table and overrides what it does better;
 * tests/contract holds each against the reference.
 *
 * Launchers only queue. Pointers are device memory, 64-byte aligned unless said otherwise, and must
 * stay until the stream has passed the work. count is in elements.
 */
#ifndef CLUSTERMARK_KERNELS_H
#define CLUSTERMARK_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/device.h"
#include "clustermark/dtype.h"
#include "clustermark/ops.h"
#include "clustermark/status.h"

/* A prepared product; made by gemm_plan, freed by gemm_free. May be queued again and again, on one
 * stream at a time. */
struct cm_gemm {
    struct cm_device *device;
    struct cm_gemm_desc desc;
    char algorithm[96]; /* what the library chose: recorded with the result */
};

/* What some products need besides their matrices; NULL where they do not. */
struct cm_gemm_extras {
    void *beside;                   /* of an epilogue */
    const float *scale_a, *scale_b; /* of a scaled product: device memory */
};

struct cm_verify_result {
    uint64_t checked;
    uint64_t mismatches;
    uint64_t first_index; /* of a mismatch; UINT64_MAX when there is none */
    double worst; /* largest |x-y| / (absolute + relative*|y|), INFINITY where that tolerance
                     is 0; a NAN is a mismatch and has no part in it */
};

struct cm_train_kernels;

struct cm_kernels {
    /* What a training step computes besides products; see train_kernels.h. */
    const struct cm_train_kernels *train;

    /* Memory. scale, add and triad work on F32 and F64 (else CM_UNSUPPORTED), and in place too
     * (`to` may be an input); the others move bytes of any type. */
    enum cm_status (*copy)(struct cm_stream *stream, void *to, const void *from, uint64_t count,
                           enum cm_dtype dtype);
    enum cm_status (*scale)(struct cm_stream *stream, void *to, const void *from, double factor,
                            uint64_t count, enum cm_dtype dtype);
    enum cm_status (*add)(struct cm_stream *stream, void *to, const void *a, const void *b,
                          uint64_t count, enum cm_dtype dtype);
    enum cm_status (*triad)(struct cm_stream *stream, void *to, const void *a, const void *b,
                            double factor, uint64_t count, enum cm_dtype dtype);
    /* XOR of all 64-bit words (a rest of 1 to 7 bytes counts as a word padded with zeros), written
     * to *result. */
    enum cm_status (*read)(struct cm_stream *stream, uint64_t *result, const void *from,
                           uint64_t size_bytes);
    /* Every 64-bit word gets `word` (its low bytes in a rest of 1 to 7 bytes). */
    enum cm_status (*write)(struct cm_stream *stream, void *to, uint64_t word, uint64_t size_bytes);

    /* Element i gets the (first + i)th value of the random sequence `seed`, normal with mean 0 and
     * deviation 1, rounded to dtype; integers get round(32 x) saturated. The same bits on every
     * device: element j never depends on count or alignment (see cm_random_normal). */
    enum cm_status (*fill_normal)(struct cm_stream *stream, void *to, uint64_t count,
                                  enum cm_dtype dtype, uint64_t seed, uint64_t first);
    /* Element by element |x - y| <= absolute + relative * |y|; the result is written in stream
     * order, to host or device memory. NAN never matches. */
    enum cm_status (*verify)(struct cm_stream *stream, const void *x, const void *y, uint64_t count,
                             enum cm_dtype dtype, double absolute, double relative,
                             struct cm_verify_result *result);
    /* Nothing, as cheaply as the device can: what `launch` times. */
    enum cm_status (*empty)(struct cm_stream *stream);

    /* Matrix multiply. gemm_plan returns CM_UNSUPPORTED with the reason where the device or its
     * library has no such product. */
    enum cm_status (*gemm_plan)(struct cm_device *device, const struct cm_gemm_desc *desc,
                                struct cm_gemm **gemm);
    enum cm_status (*gemm)(struct cm_stream *stream, struct cm_gemm *gemm, const void *a,
                           const void *b, void *c);
    /* Of every product, also of those with an epilogue or scales, which have no other way. */
    enum cm_status (*gemm_with)(struct cm_stream *stream, struct cm_gemm *gemm, const void *a,
                                const void *b, void *c, const struct cm_gemm_extras *extras);
    void (*gemm_free)(struct cm_gemm *gemm); /* accepts NULL; its stream must be synced */
};

/* The reference table: every entry that needs no library set; gemm entries NULL. */
extern const struct cm_kernels cm_kernels_cpu;

/* The value that fill_normal gives to element `index` of sequence `seed`, before rounding to a
 * dtype: a table of 2^16 quantiles of the normal distribution, indexed by Philox 4x32-10 bits. For
 * host-side checks. */
float cm_random_normal(uint64_t seed, uint64_t index);

/* Word `index` of the sequence of 32-bit words from which fill_normal takes two elements each: word
 * i makes elements 2i and 2i + 1. For what needs uniform numbers. */
uint32_t cm_random_bits(uint64_t seed, uint64_t index);

/* The 65,536 quantiles, for a device that keeps a copy. Entry i is the normal quantile of
 * (i + 0.5) / 65536, rounded to float. */
const float *cm_random_table(void);

/* A seed for a named stream of random numbers: buffers of different ranks, cases and purposes must
 * not share one. */
uint64_t cm_random_seed(uint64_t base, const char *purpose, uint64_t rank, uint64_t index);

#endif
