/* gemm_bf16.h: a bf16 product for CPUs without bf16 instructions, and one of scaled 8-bit floats,
 * computed in f32. */
#ifndef HOST_DEVICE_GEMM_BF16_H
#define HOST_DEVICE_GEMM_BF16_H

#include "clustermark/kernels.h"

struct cm_gemm_bf16;

/* A and B are bf16, or 8-bit floats of a scaled product; C is bf16 or f32. Allocates all that the
 * runs need. */
enum cm_status cm_gemm_bf16_plan(struct cm_device *device, const struct cm_gemm_desc *desc,
                                 struct cm_gemm_bf16 **gemm);
/* At once, in the calling thread and its team. The product is multiplied by `scale`. */
enum cm_status cm_gemm_bf16_run(const struct cm_gemm_bf16 *gemm, const void *a, const void *b,
                                void *c, float scale);
void cm_gemm_bf16_free(struct cm_gemm_bf16 *gemm); /* accepts NULL */

#endif
