/*
 * cuda_kernels.h: the launchers of the .cu files of kernels/, as host C sees them.
 *
 * Each queues work on `stream` (a cudaStream_t) of the current device and returns a cudaError_t (0
 * is success): of the launch, not of the work. Pointers are device memory, or host memory that the
 * device reads and writes (pinned); any alignment that the element has. What they compute is what
 * struct cm_kernels documents; tests hold each against kernels/cpu/.
 */
#ifndef CLUSTERMARK_CUDA_KERNELS_H
#define CLUSTERMARK_CUDA_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "clustermark/dtype.h"
#include "clustermark/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

/* Bytes of any type. */
int cm_cuda_copy(struct CUstream_st *stream, void *to, const void *from, uint64_t size_bytes);
/* dtype is CM_F32 or CM_F64. */
int cm_cuda_scale(struct CUstream_st *stream, void *to, const void *from, double factor,
                  uint64_t count, enum cm_dtype dtype);
int cm_cuda_add(struct CUstream_st *stream, void *to, const void *a, const void *b, uint64_t count,
                enum cm_dtype dtype);
int cm_cuda_triad(struct CUstream_st *stream, void *to, const void *a, const void *b, double factor,
                  uint64_t count, enum cm_dtype dtype);
int cm_cuda_read(struct CUstream_st *stream, uint64_t *result, const void *from,
                 uint64_t size_bytes);
int cm_cuda_write(struct CUstream_st *stream, void *to, uint64_t word, uint64_t size_bytes);

/* `table` is the device's copy of cm_random_table(). */
int cm_cuda_fill_normal(struct CUstream_st *stream, void *to, uint64_t count, enum cm_dtype dtype,
                        uint64_t seed, uint64_t first, const float *table);
/* `result` is written whole. */
int cm_cuda_verify(struct CUstream_st *stream, const void *x, const void *y, uint64_t count,
                   enum cm_dtype dtype, double absolute, double relative,
                   struct cm_verify_result *result);

int cm_cuda_empty(struct CUstream_st *stream);
/* What comes after waits until *flag, in pinned memory, is `until` or later (as a counter that
 * wraps), or `timeout_ns` are over; *expired is then set to 1. One thread. */
int cm_cuda_spin(struct CUstream_st *stream, const uint32_t *flag, uint32_t until,
                 uint64_t timeout_ns, uint32_t *expired);

/* This project's own matrix product: C (m x n, row-major) = op(A) op(B) as in cm_gemm_desc, bf16
 * in, f32 sums, bf16 or f32 out. `capability` is 10 * major + minor of the device. */
struct cm_own_gemm {
    struct cm_gemm_desc desc;
    int capability;
    int multiprocessors;
};
/* NULL when there is a kernel for it; else why not. */
const char *cm_own_gemm_refuses(const struct cm_own_gemm *gemm);
/* "own mma.sync 128x128x32", "own wgmma 128x256x64": which kernel it will be. */
const char *cm_own_gemm_name(const struct cm_own_gemm *gemm);
int cm_own_gemm_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm, const void *a,
                       const void *b, void *c);

#ifdef __cplusplus
}
#endif

#endif
