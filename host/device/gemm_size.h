/* gemm_size.h: the matrices of a product, as every backend counts them. */
#ifndef HOST_DEVICE_GEMM_SIZE_H
#define HOST_DEVICE_GEMM_SIZE_H

#include "clustermark/blocks.h"
#include "clustermark/kernels.h"

/* A and B as they lie in memory. */
struct cm_block_matrix cm_gemm_stored_a(const struct cm_gemm_desc *desc);
struct cm_block_matrix cm_gemm_stored_b(const struct cm_gemm_desc *desc);

/* CM_USAGE where a batch of matrices has no size that memory and libraries can count. */
enum cm_status cm_gemm_check_size(const struct cm_gemm_desc *desc);

#endif
