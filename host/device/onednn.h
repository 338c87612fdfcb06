/* onednn.h: matrix products of the CPU device, by oneDNN 2.x or 3.x. */
#ifndef HOST_DEVICE_ONEDNN_H
#define HOST_DEVICE_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>

#include "clustermark/kernels.h"

/* Products that the calling thread runs or plans from now on use this many threads. To be called
 * once in every such thread before anything else here. */
void cm_onednn_use_threads(unsigned threads);

/* "oneDNN 2.6.3", of the library that was loaded. */
void cm_onednn_version(char *text, size_t size);

/* Whether this CPU's products of that type are the library's own, without a conversion. */
bool cm_onednn_native(enum cm_dtype dtype);

/* C (rows c_stride apart) = op(A) * op(B), or added to C, on dense matrices of f32, at once. */
enum cm_status cm_onednn_sgemm(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k,
                               float scale, const float *a, const float *b, bool add, float *c,
                               uint64_t c_stride);

/* As in struct cm_kernels. */
enum cm_status cm_onednn_gemm_plan(struct cm_device *device, const struct cm_gemm_desc *desc,
                                   struct cm_gemm **gemm);
enum cm_status cm_onednn_gemm(struct cm_stream *stream, struct cm_gemm *gemm, const void *a,
                              const void *b, void *c);
enum cm_status cm_onednn_gemm_with(struct cm_stream *stream, struct cm_gemm *gemm, const void *a,
                                   const void *b, void *c, const struct cm_gemm_extras *extras);
void cm_onednn_gemm_free(struct cm_gemm *gemm);

#endif
