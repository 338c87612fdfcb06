/* cuBLASLt: handles and descriptors. */
#include <stdlib.h>
#include <string.h>

#include "fake/fake_cublaslt.h"

_Static_assert(sizeof(struct fake_layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "layout fits");
_Static_assert(sizeof(struct fake_product) <= sizeof(cublasLtMatmulDescOpaque_t), "product fits");
_Static_assert(sizeof(struct fake_preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t),
               "it fits");

cublasStatus_t fake_lt_enter(const char *call)
{
    return (cublasStatus_t)fake_enter(call, CUBLAS_STATUS_EXECUTION_FAILED);
}

cublasStatus_t fake_lt_leave(cublasStatus_t status)
{
    fake_leave();
    return status;
}

/* A zeroed object of a kind, counted. */
static cublasStatus_t make(const char *call, size_t size, void **object)
{
    cublasStatus_t status = fake_lt_enter(call);
    void *made = status == CUBLAS_STATUS_SUCCESS ? calloc(1, size) : NULL;
    if (status == CUBLAS_STATUS_SUCCESS && made == NULL)
        status = CUBLAS_STATUS_ALLOC_FAILED;
    if (status == CUBLAS_STATUS_SUCCESS) {
        *object = made;
        fake_count(FAKE_PLANS, 1);
    }
    return fake_lt_leave(status);
}

static cublasStatus_t unmake(const char *call, const void *object)
{
    cublasStatus_t status = fake_lt_enter(call);
    if (object == NULL)
        fake_die("%s of nothing", call);
    free((void *)(uintptr_t)object);
    fake_count(FAKE_PLANS, -1);
    return fake_lt_leave(status);
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    cublasStatus_t status = make(__func__, sizeof(uint64_t), (void **)handle);
    if (status == CUBLAS_STATUS_SUCCESS)
        *(uint64_t *)(void *)*handle = FAKE_LT_MARK;
    return status;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return unmake(__func__, handle);
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

/* ---- descriptors ---- */

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld)
{
    cublasStatus_t status = make(__func__, sizeof(cublasLtMatrixLayoutOpaque_t), (void **)layout);
    if (status == CUBLAS_STATUS_SUCCESS)
        *(struct fake_layout *)(void *)*layout = (struct fake_layout){.type = type,
                                                                      .rows = rows,
                                                                      .columns = columns,
                                                                      .ld = ld,
                                                                      .order = CUBLASLT_ORDER_COL,
                                                                      .batch = 1};
    return status;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return unmake(__func__, layout);
}

/* Sets a field that has exactly this size. */
static cublasStatus_t set_field(void *field, size_t field_size, const void *value, size_t size)
{
    if (size != field_size)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t opaque,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t size)
{
    cublasStatus_t status = fake_lt_enter(__func__);
    struct fake_layout *layout = (struct fake_layout *)(void *)opaque;
    if (status != CUBLAS_STATUS_SUCCESS)
        return fake_lt_leave(status);
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return fake_lt_leave(set_field(&layout->order, sizeof layout->order, value, size));
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return fake_lt_leave(set_field(&layout->batch, sizeof layout->batch, value, size));
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return fake_lt_leave(set_field(&layout->stride, sizeof layout->stride, value, size));
    default:
        fake_die("%s: attribute %d is not faked", __func__, (int)attribute);
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    cublasStatus_t status = make(__func__, sizeof(cublasLtMatmulDescOpaque_t), (void **)desc);
    if (status == CUBLAS_STATUS_SUCCESS)
        *(struct fake_product *)(void *)*desc = (struct fake_product){
            .compute = compute, .scale = scale, .trans_a = CUBLAS_OP_N, .trans_b = CUBLAS_OP_N};
    return status;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    return unmake(__func__, desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size)
{
    cublasStatus_t status = fake_lt_enter(__func__);
    struct fake_product *product = (struct fake_product *)(void *)opaque;
    int32_t number = -1;
    if (status != CUBLAS_STATUS_SUCCESS)
        return fake_lt_leave(status);
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return fake_lt_leave(set_field(&product->trans_a, sizeof product->trans_a, value, size));
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return fake_lt_leave(set_field(&product->trans_b, sizeof product->trans_b, value, size));
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
        return fake_lt_leave(set_field(&product->fast, sizeof product->fast, value, size));
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
        return fake_lt_leave(set_field(&product->scale_a, sizeof product->scale_a, value, size));
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        return fake_lt_leave(set_field(&product->scale_b, sizeof product->scale_b, value, size));
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
        return fake_lt_leave(set_field(&product->mode_a, sizeof product->mode_a, value, size));
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
        return fake_lt_leave(set_field(&product->mode_b, sizeof product->mode_b, value, size));
    case CUBLASLT_MATMUL_DESC_D_SCALE_POINTER:
        return fake_lt_leave(set_field(&product->scale_d, sizeof product->scale_d, value, size));
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        status = set_field(&product->epilogue, sizeof product->epilogue, value, size);
        if (product->epilogue != CUBLASLT_EPILOGUE_DEFAULT &&
            product->epilogue != CUBLASLT_EPILOGUE_GELU_AUX &&
            product->epilogue != CUBLASLT_EPILOGUE_DGELU)
            fake_die("%s: epilogue %d is not faked", __func__, (int)product->epilogue);
        return fake_lt_leave(status);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return fake_lt_leave(set_field(&product->beside, sizeof product->beside, value, size));
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return fake_lt_leave(
            set_field(&product->beside_ld, sizeof product->beside_ld, value, size));
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        memcpy(&number, value, size < sizeof number ? size : sizeof number);
        if (number != CUBLASLT_POINTER_MODE_HOST)
            fake_die("%s: only factors in host memory are faked", __func__);
        return fake_lt_leave(CUBLAS_STATUS_SUCCESS);
    default:
        fake_die("%s: attribute %d is not faked", __func__, (int)attribute);
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    return make(__func__, sizeof(cublasLtMatmulPreferenceOpaque_t), (void **)preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return unmake(__func__, preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t size)
{
    cublasStatus_t status = fake_lt_enter(__func__);
    struct fake_preference *preference = (struct fake_preference *)(void *)opaque;
    if (status == CUBLAS_STATUS_SUCCESS && attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        status = set_field(&preference->workspace, sizeof preference->workspace, value, size);
    else if (status == CUBLAS_STATUS_SUCCESS &&
             (attribute < CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES ||
              attribute > CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES))
        fake_die("%s: attribute %d is not faked", __func__, (int)attribute);
    return fake_lt_leave(status);
}
