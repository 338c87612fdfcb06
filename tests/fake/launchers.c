/*
 * What the launchers of the kernels are about to launch, for the cost model and for the spin
 * kernel: the emulator runs a grid whole, so that one must not start before its flag is there.
 * Linked with --wrap; the launchers themselves are the product's.
 */
#include <stddef.h>
#include <string.h>

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "clustermark/cuda_kernels.h"
#include "fake/fake.h"
#include "fake/wrap.h"

WRAP(cm_cuda_copy, (struct CUstream_st * stream, void *to, const void *from, uint64_t size_bytes),
     (stream, to, from, size_bytes), 2 * size_bytes)
WRAP(cm_cuda_scale,
     (struct CUstream_st * stream, void *to, const void *from, double factor, uint64_t count,
      enum cm_dtype dtype),
     (stream, to, from, factor, count, dtype), 2 * count * cm_dtype_size(dtype))
WRAP(cm_cuda_add,
     (struct CUstream_st * stream, void *to, const void *a, const void *b, uint64_t count,
      enum cm_dtype dtype),
     (stream, to, a, b, count, dtype), 3 * count * cm_dtype_size(dtype))
WRAP(cm_cuda_triad,
     (struct CUstream_st * stream, void *to, const void *a, const void *b, double factor,
      uint64_t count, enum cm_dtype dtype),
     (stream, to, a, b, factor, count, dtype), 3 * count * cm_dtype_size(dtype))
WRAP(cm_cuda_read,
     (struct CUstream_st * stream, uint64_t *result, const void *from, uint64_t size_bytes),
     (stream, result, from, size_bytes), size_bytes)
WRAP(cm_cuda_write, (struct CUstream_st * stream, void *to, uint64_t word, uint64_t size_bytes),
     (stream, to, word, size_bytes), size_bytes)
WRAP(cm_cuda_fill_normal,
     (struct CUstream_st * stream, void *to, uint64_t count, enum cm_dtype dtype, uint64_t seed,
      uint64_t first, const float *table),
     (stream, to, count, dtype, seed, first, table), count *cm_dtype_size(dtype))
WRAP(cm_cuda_verify,
     (struct CUstream_st * stream, const void *x, const void *y, uint64_t count,
      enum cm_dtype dtype, double absolute, double relative, struct cm_verify_result *result),
     (stream, x, y, count, dtype, absolute, relative, result), 2 * count * cm_dtype_size(dtype))

int __real_cm_cuda_spin(struct CUstream_st *stream, const uint32_t *flag, uint32_t until,
                        uint64_t timeout_ns, uint32_t *expired);
int __wrap_cm_cuda_spin(struct CUstream_st *stream, const uint32_t *flag, uint32_t until,
                        uint64_t timeout_ns, uint32_t *expired);
int __wrap_cm_cuda_spin(struct CUstream_st *stream, const uint32_t *flag, uint32_t until,
                        uint64_t timeout_ns, uint32_t *expired)
{
    fake_hint(&(struct fake_hint){.flag = flag, .until = until, .timeout_ns = timeout_ns});
    return __real_cm_cuda_spin(stream, flag, until, timeout_ns, expired);
}

int __real_cm_own_gemm_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm,
                              const void *a, const void *b, void *c);
int __wrap_cm_own_gemm_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm,
                              const void *a, const void *b, void *c);
int __wrap_cm_own_gemm_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm,
                              const void *a, const void *b, void *c)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    fake_hint(&(struct fake_hint){.flops = 2.0 * (double)desc->m * (double)desc->n *
                                           (double)desc->k * (double)desc->batch});
    return __real_cm_own_gemm_launch(stream, gemm, a, b, c);
}

/* ---- what launchers ask the runtime ---- */

/* The emulator's, which knows what its tensor instructions read. */
extern __typeof__(cuTensorMapEncodeTiled) simt_encode_tiled;

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result)
{
    int error = fake_cuda_enter(__func__);
    if (error == 0 && (strcmp(symbol, "cuTensorMapEncodeTiled") != 0 || version < 12000 ||
                       flags != cudaEnableDefault))
        fake_die("%s: %s is not faked", __func__, symbol);
    bool has = error == 0 && fake_model()->major >= 9;
    if (error == 0) {
        __typeof__(cuTensorMapEncodeTiled) *encode = has ? simt_encode_tiled : NULL;
        memcpy(function, &encode, sizeof encode);
        *result = has ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    }
    return (cudaError_t)fake_cuda_leave(error);
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value)
{
    int error = fake_cuda_enter(__func__);
    if (error == 0 &&
        (function == NULL || attribute != cudaFuncAttributeMaxDynamicSharedMemorySize))
        fake_die("%s: attribute %d of %p", __func__, (int)attribute, function);
    if (error == 0 && (value < 0 || (size_t)value > fake_model()->shared_bytes))
        error = cudaErrorInvalidValue;
    return (cudaError_t)fake_cuda_leave(error);
}
