/* cuda_gemm.h: products of cuBLASLt, between planning them and choosing their algorithms. */
#ifndef HOST_DEVICE_CUDA_GEMM_H
#define HOST_DEVICE_CUDA_GEMM_H

#include <cublasLt.h>

#include "clustermark/cuda_kernels.h"
#include "host/device/cuda_api.h"
#include "host/device/gemm_size.h"

/* What cuBLASLt calls the types of a product. */
struct cm_cuda_types {
    enum cm_dtype in, out;
    cudaDataType_t a, c, d; /* of A and B, of what is added, of the result */
    cublasComputeType_t compute;
    cudaDataType_t scale;
};

/* Scales for blocks of neighbours came with CUDA 12.8. */
#define CM_CUDA_BLOCKS (CUBLAS_VERSION >= 120800)

union cm_cuda_scalar {
    float f32;
    double f64;
    int32_t i32;
};

struct cm_cuda_choice {
    struct cm_gemm_desc desc;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
    char text[96];
    struct cm_cuda_choice *next;
};

struct cm_cuda_products {
    struct cm_cuda_device *device;
    cublasLtHandle_t handle;
    cudaStream_t stream; /* on which proposals are timed */
    cudaEvent_t start, end;
    struct cm_cuda_choice *choices;
};

struct cm_cuda_product {
    struct cm_gemm base;
    struct cm_own_gemm own; /* unless desc.impl is the library */
    struct cm_cuda_products *products;
    const struct cm_cuda_types *types;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t first, second, added, result;
    union cm_cuda_scalar alpha, beta;
    cublasLtMatmulAlgo_t algorithm;
    void *workspace;
    size_t workspace_bytes;
};

/* What a product is queued on. */
struct cm_cuda_operands {
    const void *a, *b;
    void *c, *workspace;
    struct cm_gemm_extras extras;
};

static inline struct cm_cuda_device *cm_cuda_product_device(const struct cm_cuda_product *product)
{
    return (struct cm_cuda_device *)product->base.device;
}

/* Yields the status of a library call, recorded with its text, the place and who calls. */
#define LT(device, call) cm_cuda_lt_status(device, call, #call, __FILE__, __LINE__)
enum cm_status cm_cuda_lt_status(const struct cm_cuda_device *device, cublasStatus_t code,
                                 const char *call, const char *file, int line);

/* "cuBLASLt 13.0.2" */
void cm_cuda_lt_version(char *text, size_t size);

cublasStatus_t cm_cuda_multiply(const struct cm_cuda_product *product,
                                const cublasLtMatmulAlgo_t *algorithm,
                                const struct cm_cuda_operands *on, size_t workspace_bytes,
                                cudaStream_t stream);

/* cuda_choice.c: the algorithm for a product that is described whole, remembered by the device. */
enum cm_status cm_cuda_choose(struct cm_cuda_product *product,
                              const struct cm_cuda_choice **choice);

#endif
