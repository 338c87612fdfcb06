/*
 * Matrix products of the CUDA device: cuBLASLt's, or this project's own kernel.
 *
 * cuBLASLt thinks in columns. A row-major matrix is its transpose in columns, and the transpose of
 * C is op(B)' op(A)': so the library's first operand is B, its second A, and its result has n rows.
 */
#include "host/device/cuda_gemm.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"

static const struct cm_cuda_types known_types[] = {
    {CM_F64, CM_F64, CUDA_R_64F, CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F, CUDA_R_64F},
    {CM_F32, CM_F32, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_TF32, CM_F32, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F},
    {CM_TF32, CM_TF32, CUDA_R_32F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32,
     CUDA_R_32F},
    {CM_BF16, CM_BF16, CUDA_R_16BF, CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_BF16, CM_F32, CUDA_R_16BF, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_F16, CM_F16, CUDA_R_16F, CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_F16, CM_F32, CUDA_R_16F, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_F8E4M3, CM_F32, CUDA_R_8F_E4M3, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_F8E4M3, CM_BF16, CUDA_R_8F_E4M3, CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_F8E4M3, CM_F8E4M3, CUDA_R_8F_E4M3, CUDA_R_16BF, CUDA_R_8F_E4M3, CUBLAS_COMPUTE_32F,
     CUDA_R_32F},
    {CM_F8E5M2, CM_F32, CUDA_R_8F_E5M2, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_F8E5M2, CM_BF16, CUDA_R_8F_E5M2, CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_F8E5M2, CM_F8E5M2, CUDA_R_8F_E5M2, CUDA_R_16BF, CUDA_R_8F_E5M2, CUBLAS_COMPUTE_32F,
     CUDA_R_32F},
#if CM_CUDA_BLOCKS
    {CM_MXFP8, CM_F32, CUDA_R_8F_E4M3, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_MXFP8, CM_BF16, CUDA_R_8F_E4M3, CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_NVFP4, CM_F32, CUDA_R_4F_E2M1, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
    {CM_NVFP4, CM_BF16, CUDA_R_4F_E2M1, CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F},
#endif
    {CM_I8, CM_I32, CUDA_R_8I, CUDA_R_32I, CUDA_R_32I, CUBLAS_COMPUTE_32I, CUDA_R_32I},
};

enum cm_status cm_cuda_lt_status(const struct cm_cuda_device *device, cublasStatus_t code,
                                 const char *call, const char *file, int line)
{
    if (code == CUBLAS_STATUS_SUCCESS)
        return CM_OK;
    enum cm_status status = CM_DEVICE;
    if (code == CUBLAS_STATUS_ALLOC_FAILED)
        status = CM_NO_MEMORY;
    else if (code == CUBLAS_STATUS_NOT_SUPPORTED || code == CUBLAS_STATUS_ARCH_MISMATCH)
        status = CM_UNSUPPORTED;
    cudaGetLastError();
    const char *base = strrchr(file, '/');
    char who[CM_CUDA_WHO_MAX];
    cm_cuda_who(device, who);
    return cm_error(status, "%.160s: %s (%s, %s:%d)", call, cublasLtGetStatusName(code), who,
                    base != NULL ? base + 1 : file, line);
}

void cm_cuda_lt_version(char *text, size_t size)
{
    size_t version = cublasLtGetVersion();
    snprintf(text, size, "cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100,
             version % 100);
}

/* ---- what the plans of a device share ---- */

void cm_cuda_products_free(struct cm_cuda_products *products)
{
    if (products == NULL)
        return;
    while (products->choices != NULL) {
        struct cm_cuda_choice *choice = products->choices;
        products->choices = choice->next;
        cm_free(choice);
    }
    if (products->device->lost[0] == '\0') {
        if (products->end != NULL)
            cudaEventDestroy(products->end);
        if (products->start != NULL)
            cudaEventDestroy(products->start);
        if (products->stream != NULL)
            cudaStreamDestroy(products->stream);
        if (products->handle != NULL)
            cublasLtDestroy(products->handle);
        cudaGetLastError();
    }
    cm_free(products);
}

static enum cm_status open_products(struct cm_cuda_device *device)
{
    if (device->products != NULL)
        return CM_OK;
    struct cm_cuda_products *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->device = device;
    enum cm_status status = LT(device, cublasLtCreate(&made->handle));
    if (status == CM_OK)
        status = CUDA(device, cudaStreamCreateWithFlags(&made->stream, cudaStreamNonBlocking));
    if (status == CM_OK)
        status = CUDA(device, cudaEventCreate(&made->start));
    if (status == CM_OK)
        status = CUDA(device, cudaEventCreate(&made->end));
    if (status == CM_OK)
        device->products = made;
    else
        cm_cuda_products_free(made);
    return status;
}

/* ---- describing a product to the library ---- */

static enum cm_status set_attribute(struct cm_cuda_product *product,
                                    cublasLtMatmulDescAttributes_t which, const void *value,
                                    size_t size)
{
    return LT(cm_cuda_product_device(product),
              cublasLtMatmulDescSetAttribute(product->operation, which, value, size));
}

/* One scale for each 8-bit matrix: 1. */
static enum cm_status set_scales(struct cm_cuda_product *product)
{
    const float *one = cm_cuda_product_device(product)->one;
    enum cm_status status =
        set_attribute(product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &one, sizeof one);
    if (status == CM_OK)
        status = set_attribute(product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &one, sizeof one);
    if (status == CM_OK && cm_dtype_bits(product->base.desc.out_dtype) == 8)
        status = set_attribute(product, CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, &one, sizeof one);
    return status;
}

/* Whose blocks have scales of their own. Where those are is told with each product, as the operands
 * change; until then any place will do. */
static enum cm_status set_block_scales(struct cm_cuda_product *product)
{
#if CM_CUDA_BLOCKS
    cublasLtMatmulMatrixScale_t mode = product->base.desc.dtype == CM_NVFP4
                                           ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3
                                           : CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
    enum cm_status status =
        set_attribute(product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode);
    if (status == CM_OK)
        status = set_attribute(product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode);
    return status == CM_OK ? set_scales(product) : status;
#else
    (void)product;
    return CM_OK;
#endif
}

/* Where the matrix beside the result is, is told with each product; until then any place will do.
 */
static enum cm_status set_epilogue(struct cm_cuda_product *product)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    cublasLtEpilogue_t epilogue =
        desc->epilogue == CM_EPILOGUE_GELU ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_DGELU;
    int64_t stride = (int64_t)desc->n;
    const void *place = cm_cuda_product_device(product)->one;
    if (desc->epilogue == CM_EPILOGUE_NONE)
        return CM_OK;
    enum cm_status status =
        set_attribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (status == CM_OK)
        status =
            set_attribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &stride, sizeof stride);
    if (status == CM_OK)
        status =
            set_attribute(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &place, sizeof place);
    return status;
}

static enum cm_status describe_operation(struct cm_cuda_product *product)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    const struct cm_cuda_device *device = cm_cuda_product_device(product);
    cublasOperation_t first = desc->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = desc->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    enum cm_status status =
        LT(device, cublasLtMatmulDescCreate(&product->operation, product->types->compute,
                                            product->types->scale));
    if (status == CM_OK)
        status = set_attribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    if (status == CM_OK)
        status = set_attribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
    if (status == CM_OK)
        status = set_epilogue(product);
    if (status == CM_OK && cm_block_size(desc->dtype) > 0)
        return set_block_scales(product);
    if (status == CM_OK && (desc->dtype == CM_F8E4M3 || desc->dtype == CM_F8E5M2))
        return set_scales(product);
    return status;
}

/* A row-major matrix of the batch, in columns. */
static enum cm_status describe_matrix(const struct cm_cuda_product *product, uint64_t rows,
                                      uint64_t columns, uint64_t batch, cudaDataType_t type,
                                      cublasLtMatrixLayout_t *layout)
{
    const struct cm_cuda_device *device = cm_cuda_product_device(product);
    int32_t count = (int32_t)batch;
    int64_t stride = (int64_t)(rows * columns);
    enum cm_status status =
        LT(device, cublasLtMatrixLayoutCreate(layout, type, columns, rows, (int64_t)columns));
    if (status == CM_OK)
        status = LT(device, cublasLtMatrixLayoutSetAttribute(
                                *layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    if (status == CM_OK)
        status = LT(device, cublasLtMatrixLayoutSetAttribute(
                                *layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                sizeof stride));
    return status;
}

static enum cm_status describe_product(struct cm_cuda_product *product)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    const struct cm_cuda_types *types = product->types;
    uint64_t m = desc->m, n = desc->n, k = desc->k;
    cudaDataType_t a = desc->wide_a ? CUDA_R_8F_E5M2 : types->a;
    cudaDataType_t b = desc->wide_b ? CUDA_R_8F_E5M2 : types->a;
    enum cm_status status = describe_operation(product);
    if (status == CM_OK)
        status = describe_matrix(product, desc->trans_b ? n : k, desc->trans_b ? k : n, desc->batch,
                                 b, &product->first);
    if (status == CM_OK)
        status = describe_matrix(product, desc->trans_a ? k : m, desc->trans_a ? m : k, desc->batch,
                                 a, &product->second);
    if (status == CM_OK)
        status = describe_matrix(product, m, n, desc->batch, types->c, &product->added);
    if (status == CM_OK)
        status = describe_matrix(product, m, n, desc->batch, types->d, &product->result);
    if (types->scale == CUDA_R_64F) {
        product->alpha.f64 = 1;
        product->beta.f64 = desc->accumulate ? 1 : 0;
    } else if (types->scale == CUDA_R_32I) {
        product->alpha.i32 = 1;
        product->beta.i32 = desc->accumulate ? 1 : 0;
    } else {
        product->alpha.f32 = 1;
        product->beta.f32 = desc->accumulate ? 1 : 0;
    }
    return status;
}

static cublasStatus_t point_to(const struct cm_cuda_product *product,
                               cublasLtMatmulDescAttributes_t which, const void *place)
{
    return cublasLtMatmulDescSetAttribute(product->operation, which, &place, sizeof place);
}

/* The library's first operand is B. */
static cublasStatus_t point_to_scales(const struct cm_cuda_product *product,
                                      const struct cm_cuda_operands *on)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    const void *first = on->extras.scale_b, *second = on->extras.scale_a;
    if (cm_block_size(desc->dtype) > 0) {
        const struct cm_block_matrix a = cm_gemm_stored_a(desc), b = cm_gemm_stored_b(desc);
        first = (const char *)on->b + cm_block_scales(&b);
        second = (const char *)on->a + cm_block_scales(&a);
    } else if (!desc->scaled || first == NULL || second == NULL) {
        return CUBLAS_STATUS_SUCCESS; /* none, or all 1 */
    }
    cublasStatus_t code = point_to(product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, first);
    return code == CUBLAS_STATUS_SUCCESS
               ? point_to(product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, second)
               : code;
}

static cublasStatus_t point_to_beside(const struct cm_cuda_product *product,
                                      const struct cm_cuda_operands *on)
{
    if (product->base.desc.epilogue == CM_EPILOGUE_NONE)
        return CUBLAS_STATUS_SUCCESS;
    return point_to(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, on->extras.beside);
}

cublasStatus_t cm_cuda_multiply(const struct cm_cuda_product *product,
                                const cublasLtMatmulAlgo_t *algorithm,
                                const struct cm_cuda_operands *on, size_t workspace_bytes,
                                cudaStream_t stream)
{
    cublasStatus_t code = point_to_scales(product, on);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = point_to_beside(product, on);
    if (code != CUBLAS_STATUS_SUCCESS)
        return code;
    return cublasLtMatmul(product->products->handle, product->operation, &product->alpha, on->b,
                          product->first, on->a, product->second, &product->beta, on->c,
                          product->added, on->c, product->result, algorithm, on->workspace,
                          workspace_bytes, stream);
}

/* ---- the launch table's entries ---- */

/* What products of blocks ask for. */
static enum cm_status check_blocks(const struct cm_cuda_product *product)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    int capability = cm_cuda_product_device(product)->capability;
    const char *name = cm_dtype_name(desc->dtype);
    unsigned size = cm_block_size(desc->dtype);
    if (size == 0)
        return CM_OK;
    if (!CM_CUDA_BLOCKS)
        return cm_error(CM_UNSUPPORTED,
                        "gemm: %s products need CUDA 12.8, and this program was built with an "
                        "older one",
                        name);
    if (capability < 100)
        return cm_error(CM_UNSUPPORTED,
                        "gemm: sm_%d has no matrix units for %s; they begin with sm_100",
                        capability, name);
    if (desc->trans_a || !desc->trans_b || desc->batch != 1 || desc->k % 32 != 0)
        return cm_error(CM_UNSUPPORTED,
                        "gemm: %s products want trans = nt, as blocks lie along k, k a multiple of "
                        "32, and batch = 1",
                        name);
    return CM_OK;
}

static enum cm_status check_scaled(const struct cm_cuda_product *product)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    bool plain = !desc->scaled && !desc->wide_a && !desc->wide_b;
    if (plain || (desc->scaled && desc->dtype == CM_F8E4M3 && desc->impl == CM_GEMM_LIBRARY &&
                  !(desc->wide_a && desc->wide_b)))
        return CM_OK;
    return cm_error(CM_UNSUPPORTED,
                    "gemm: a scaled %s product: only the library's of f8e4m3, at most one operand "
                    "of f8e5m2",
                    cm_dtype_name(desc->dtype));
}

static enum cm_status check_epilogue(const struct cm_cuda_product *product)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    bool plain = desc->epilogue == CM_EPILOGUE_NONE;
    if (plain || (desc->impl == CM_GEMM_LIBRARY && desc->batch == 1 && !desc->accumulate &&
                  desc->n % 8 == 0))
        return CM_OK;
    return cm_error(CM_UNSUPPORTED,
                    "gemm: %s products with GELU in them are the library's, with batch = 1, n a "
                    "multiple of 8, and nothing added",
                    cm_dtype_name(desc->dtype));
}

static enum cm_status plan_own(struct cm_cuda_product *product)
{
    struct cm_cuda_device *device = cm_cuda_product_device(product);
    /* The kernel for Hopper is the one that is not portable. */
    bool portable = product->base.desc.impl == CM_GEMM_PORTABLE;
    int capability = portable && device->capability == 90 ? 80 : device->capability;
    product->own = (struct cm_own_gemm){.desc = product->base.desc,
                                        .capability = capability,
                                        .multiprocessors = (int)device->device.info.units};
    const char *reason = cm_own_gemm_refuses(&product->own);
    if (reason != NULL)
        return cm_error(CM_UNSUPPORTED, "gemm: own kernel, %s product on sm_%d: %s",
                        cm_dtype_name(product->base.desc.dtype), device->capability, reason);
    snprintf(product->base.algorithm, sizeof product->base.algorithm, "%s",
             cm_own_gemm_name(&product->own));
    return CM_OK;
}

static enum cm_status find_types(struct cm_cuda_product *product)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    for (size_t i = 0; i < sizeof known_types / sizeof known_types[0]; i++) {
        if (known_types[i].in == desc->dtype && known_types[i].out == desc->out_dtype)
            product->types = &known_types[i];
    }
    if (product->types == NULL)
        return cm_error(CM_UNSUPPORTED, "gemm: the cuda device has no %s product with %s result",
                        cm_dtype_name(desc->dtype), cm_dtype_name(desc->out_dtype));
    if (product->types->c != product->types->d && desc->accumulate)
        return cm_error(CM_UNSUPPORTED, "gemm: an %s result cannot be added to",
                        cm_dtype_name(desc->out_dtype));
    return CM_OK;
}

static enum cm_status plan_library(struct cm_cuda_product *product)
{
    struct cm_cuda_device *device = cm_cuda_product_device(product);
    const struct cm_cuda_choice *choice = NULL;
    enum cm_status status = check_blocks(product);
    if (status == CM_OK)
        status = find_types(product);
    if (status == CM_OK)
        status = open_products(device);
    product->products = device->products;
    if (status == CM_OK)
        status = describe_product(product);
    if (status == CM_OK)
        status = cm_cuda_choose(product, &choice);
    if (status != CM_OK)
        return status;
    product->algorithm = choice->algorithm;
    product->workspace_bytes = choice->workspace_bytes;
    snprintf(product->base.algorithm, sizeof product->base.algorithm, "%s", choice->text);
    if (product->workspace_bytes == 0)
        return CM_OK;
    return cm_cuda_alloc(&device->device, CM_MEMORY_DEVICE, product->workspace_bytes,
                         &product->workspace);
}

enum cm_status cm_cuda_gemm_plan(struct cm_device *device, const struct cm_gemm_desc *desc,
                                 struct cm_gemm **gemm)
{
    enum cm_status status = cm_gemm_check_size(desc);
    if (status == CM_OK)
        status = cm_cuda_enter((struct cm_cuda_device *)device);
    if (status != CM_OK)
        return status;
    struct cm_cuda_product *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->base.device = device;
    made->base.desc = *desc;
    status = check_epilogue(made);
    if (status == CM_OK)
        status = check_scaled(made);
    if (status == CM_OK)
        status = desc->impl != CM_GEMM_LIBRARY ? plan_own(made) : plan_library(made);
    if (status != CM_OK) {
        cm_cuda_gemm_free(&made->base);
        return status;
    }
    *gemm = &made->base;
    return CM_OK;
}

enum cm_status cm_cuda_gemm(struct cm_stream *stream, struct cm_gemm *base, const void *a,
                            const void *b, void *c)
{
    return cm_cuda_gemm_with(stream, base, a, b, c, &(const struct cm_gemm_extras){.beside = NULL});
}

enum cm_status cm_cuda_gemm_with(struct cm_stream *stream, struct cm_gemm *base, const void *a,
                                 const void *b, void *c, const struct cm_gemm_extras *extras)
{
    struct cm_cuda_product *product = (struct cm_cuda_product *)base;
    enum cm_status status;
    /* A product may be several kernels: its parts of k, and their sum. */
    if (!cm_cuda_ready(stream, 3, "gemm", &status))
        return status;
    if (base->desc.impl != CM_GEMM_LIBRARY)
        return CUDA(cm_cuda_product_device(product),
                    cm_own_gemm_launch(cm_cuda_native(stream), &product->own, a, b, c));
    struct cm_cuda_operands on = {a, b, c, product->workspace, *extras};
    cublasStatus_t code = cm_cuda_multiply(product, &product->algorithm, &on,
                                           product->workspace_bytes, cm_cuda_native(stream));
    return cm_cuda_lt_status(cm_cuda_product_device(product), code, "cublasLtMatmul", __FILE__,
                             __LINE__);
}

void cm_cuda_gemm_free(struct cm_gemm *base)
{
    struct cm_cuda_product *product = (struct cm_cuda_product *)base;
    if (product == NULL)
        return;
    cublasLtMatrixLayout_t layouts[] = {product->first, product->second, product->added,
                                        product->result};
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (layouts[i] != NULL)
            cublasLtMatrixLayoutDestroy(layouts[i]);
    }
    if (product->operation != NULL)
        cublasLtMatmulDescDestroy(product->operation);
    cm_cuda_free(base->device, CM_MEMORY_DEVICE, product->workspace);
    cm_free(product);
}
