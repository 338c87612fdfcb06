/*
 * Choosing among the algorithms that cuBLASLt proposes for a product: each is timed when the
 * product is planned, and the fastest is kept.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "clustermark/memory.h"
#include "host/device/cuda_gemm.h"

#define WORKSPACE_BYTES ((size_t)64 << 20)
#define PROPOSALS       8
#define ROUNDS          3
/* What has not been timed by then is left out. */
#define CHOOSING_NS UINT64_C(2000000000)
#define HANGS_S     60.0

/* Why the library has none: what it said, and what its matrix units ask of 8-bit types. */
static enum cm_status refuse(const struct cm_cuda_product *product, cublasStatus_t code)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    char version[32];
    cm_cuda_lt_version(version, sizeof version);
    bool small = cm_dtype_bits(desc->dtype) <= 8;
    return cm_error(
        CM_UNSUPPORTED, "gemm: %s has no %s product with %s result for this shape on sm_%d: %s%s",
        version, cm_dtype_name(desc->dtype), cm_dtype_name(desc->out_dtype),
        cm_cuda_product_device(product)->capability, cublasLtGetStatusName(code),
        small ? "; of types of 8 bits or less it may want trans_b without trans_a, and multiples "
                "of 16"
              : "");
}

/* *count starts at 0. */
static enum cm_status propose(const struct cm_cuda_product *product,
                              cublasLtMatmulHeuristicResult_t proposals[PROPOSALS], int *count)
{
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const struct cm_cuda_device *device = cm_cuda_product_device(product);
    uint32_t alignment = 64; /* that of kernels.h */
    size_t workspace_bytes = WORKSPACE_BYTES;
    cublasLtMatmulPreference_t preference = NULL;
    enum cm_status status = LT(device, cublasLtMatmulPreferenceCreate(&preference));
    if (status == CM_OK)
        status = LT(device, cublasLtMatmulPreferenceSetAttribute(
                                preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                &workspace_bytes, sizeof workspace_bytes));
    for (size_t i = 0; i < 4 && status == CM_OK; i++)
        status = LT(device, cublasLtMatmulPreferenceSetAttribute(preference, alignments[i],
                                                                 &alignment, sizeof alignment));
    if (status == CM_OK) {
        int found = 0;
        cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(
            product->products->handle, product->operation, product->first, product->second,
            product->added, product->result, preference, PROPOSALS, proposals, &found);
        for (int i = 0; i < found && code == CUBLAS_STATUS_SUCCESS; i++) {
            if (proposals[i].state == CUBLAS_STATUS_SUCCESS)
                proposals[(*count)++] = proposals[i];
        }
        if (code == CUBLAS_STATUS_SUCCESS || code == CUBLAS_STATUS_INVALID_VALUE)
            code = *count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
        status =
            cm_cuda_lt_status(device, code, "cublasLtMatmulAlgoGetHeuristic", __FILE__, __LINE__);
        if (status == CM_UNSUPPORTED)
            status = refuse(product, code);
    }
    if (preference != NULL)
        cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

/* Where proposals are tried. */
struct scratch {
    void *a, *b, *c, *beside, *workspace;
    size_t workspace_bytes;
};

/* Waits for what uses it. */
static void free_scratch(const struct scratch *scratch)
{
    cudaFree(scratch->a);
    cudaFree(scratch->b);
    cudaFree(scratch->c);
    cudaFree(scratch->beside);
    cudaFree(scratch->workspace);
    cudaGetLastError();
}

/* Of blocks, random bits for elements, all with the scale 1. */
static bool fill_scratch(cudaStream_t stream, const struct cm_block_matrix *matrix, uint64_t batch,
                         uint64_t seed, const float *table, void *to)
{
    uint64_t count = matrix->rows * matrix->columns * batch;
    if (cm_block_size(matrix->dtype) == 0)
        return cm_cuda_fill_normal(stream, to, count, matrix->dtype, seed, 0, table) == 0;
    uint64_t scales = cm_block_scales(matrix);
    enum cm_dtype bits = matrix->dtype == CM_MXFP8 ? CM_F8E4M3 : CM_I8;
    int one = matrix->dtype == CM_MXFP8 ? 127 : 0x38;
    return cm_cuda_fill_normal(stream, to, scales, bits, seed, 0, table) == 0 &&
           cudaMemsetAsync((char *)to + scales, one, cm_block_scale_bytes(matrix), stream) ==
               cudaSuccess;
}

/* Matrices of random numbers, as those that will be multiplied: what a GPU draws, and so its clock,
 * depends on the bits. False when there is no room. */
static bool make_scratch(const struct cm_cuda_product *product, size_t workspace_bytes,
                         struct scratch *scratch)
{
    const struct cm_gemm_desc *desc = &product->base.desc;
    cudaStream_t stream = product->products->stream;
    const float *table = cm_cuda_product_device(product)->normal_table;
    const struct cm_block_matrix matrices[] = {cm_gemm_stored_a(desc),
                                               cm_gemm_stored_b(desc),
                                               {desc->out_dtype, desc->m, desc->n},
                                               {desc->out_dtype, desc->m, desc->n}};
    void **places[] = {&scratch->a, &scratch->b, &scratch->c, &scratch->beside};
    uint64_t count = desc->epilogue != CM_EPILOGUE_NONE ? 4 : 3;
    scratch->workspace_bytes = workspace_bytes;
    if (workspace_bytes > 0 && cudaMalloc(&scratch->workspace, workspace_bytes) != cudaSuccess)
        return false;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t bytes;
        if (!cm_matrix_bytes(matrices[i].dtype, matrices[i].rows, matrices[i].columns, &bytes) ||
            cudaMalloc(places[i], bytes * desc->batch) != cudaSuccess ||
            !fill_scratch(stream, &matrices[i], desc->batch, i + 1, table, *places[i]))
            return false;
    }
    return true;
}

/* Milliseconds of one product; INFINITY where the library refuses it after all. */
static enum cm_status time_product(const struct cm_cuda_product *product,
                                   const cublasLtMatmulHeuristicResult_t *proposal,
                                   const struct scratch *scratch, float *milliseconds)
{
    struct cm_cuda_device *device = cm_cuda_product_device(product);
    struct cm_cuda_products *products = product->products;
    enum cm_status status = CUDA(device, cudaEventRecord(products->start, products->stream));
    if (status != CM_OK)
        return status;
    struct cm_cuda_operands on = {
        scratch->a, scratch->b, scratch->c, scratch->workspace, {.beside = scratch->beside}};
    if (cm_cuda_multiply(product, &proposal->algo, &on, scratch->workspace_bytes,
                         products->stream) != CUBLAS_STATUS_SUCCESS) {
        cudaGetLastError();
        *milliseconds = INFINITY;
        return CM_OK;
    }
    status = CUDA(device, cudaEventRecord(products->end, products->stream));
    if (status != CM_OK)
        return status;
    int code = cm_cuda_await(products->stream, HANGS_S);
    if (code == cudaErrorNotReady) {
        device->abandoned = true;
        return cm_error(CM_TIMEOUT, "gemm: a product of cuda device %d was not done after %.0f s",
                        device->ordinal, HANGS_S);
    }
    status = cm_cuda_status(device, code, "a product that was tried", __FILE__, __LINE__);
    if (status == CM_OK)
        status = CUDA(device, cudaEventElapsedTime(milliseconds, products->start, products->end));
    return status;
}

/* Which proposal is the fastest, by its best time; every round goes through all of them, after one
 * that does not count. */
static enum cm_status try_proposals(const struct cm_cuda_product *product,
                                    const cublasLtMatmulHeuristicResult_t *proposals, int count,
                                    const struct scratch *scratch, int *best, int *tried)
{
    float least[PROPOSALS], milliseconds = 0;
    uint64_t limit_ns = cm_cuda_now_ns() + CHOOSING_NS;
    for (int i = 0; i < count; i++)
        least[i] = INFINITY;
    for (int round = 0; round <= ROUNDS; round++) {
        for (int i = 0; i < count; i++) {
            if (cm_cuda_now_ns() > limit_ns)
                return CM_OK;
            enum cm_status status = time_product(product, &proposals[i], scratch, &milliseconds);
            if (status != CM_OK)
                return status;
            if (round == 0)
                continue;
            *tried = round == 1 ? i + 1 : *tried;
            least[i] = milliseconds < least[i] ? milliseconds : least[i];
            *best = least[i] < least[*best] ? i : *best;
        }
    }
    return isinf(least[*best]) ? refuse(product, CUBLAS_STATUS_NOT_SUPPORTED) : CM_OK;
}

/* ---- what was chosen, in words ---- */

#define TILE(name) [CUBLASLT_MATMUL_TILE_##name] = #name
static const char *const tiles[] = {
    TILE(8x8),     TILE(8x16),    TILE(16x8),   TILE(8x32),   TILE(16x16),   TILE(32x8),
    TILE(8x64),    TILE(16x32),   TILE(32x16),  TILE(64x8),   TILE(32x32),   TILE(32x64),
    TILE(64x32),   TILE(32x128),  TILE(64x64),  TILE(128x32), TILE(64x128),  TILE(128x64),
    TILE(64x256),  TILE(128x128), TILE(256x64), TILE(64x512), TILE(128x256), TILE(256x128),
    TILE(512x64),  TILE(64x96),   TILE(96x64),  TILE(96x128), TILE(128x160), TILE(160x128),
    TILE(192x128), TILE(128x192), TILE(128x96),
};

#define STAGES(name) [CUBLASLT_MATMUL_STAGES_##name] = #name
static const char *const stages[] = {
    STAGES(16x1),    STAGES(16x2),    STAGES(16x3),    STAGES(16x4),     STAGES(16x5),
    STAGES(16x6),    STAGES(32x1),    STAGES(32x2),    STAGES(32x3),     STAGES(32x4),
    STAGES(32x5),    STAGES(32x6),    STAGES(64x1),    STAGES(64x2),     STAGES(64x3),
    STAGES(64x4),    STAGES(64x5),    STAGES(64x6),    STAGES(128x1),    STAGES(128x2),
    STAGES(128x3),   STAGES(128x4),   STAGES(128x5),   STAGES(128x6),    STAGES(32x10),
    STAGES(8x4),     STAGES(16x10),   STAGES(8x5),     STAGES(8x3),      STAGES(8xAUTO),
    STAGES(16xAUTO), STAGES(32xAUTO), STAGES(64xAUTO), STAGES(128xAUTO),
};

static uint32_t setting(const cublasLtMatmulAlgo_t *algorithm,
                        cublasLtMatmulAlgoConfigAttributes_t which)
{
    uint32_t value = 0;
    size_t size;
    cublasLtMatmulAlgoConfigGetAttribute(algorithm, which, &value, sizeof value, &size);
    return value;
}

/* "tile 128x256", or the library's number where it has no name here. */
static void name_setting(const char *what, const char *const *names, size_t count, uint32_t value,
                         char *text, size_t size)
{
    if (value < count && names[value] != NULL)
        snprintf(text, size, "%s %s", what, names[value]);
    else
        snprintf(text, size, "%s #%" PRIu32, what, value);
}

static void describe_choice(struct cm_cuda_choice *choice, int tried)
{
    char version[32], tile[32], stage[32], best[24] = "not tried";
    cm_cuda_lt_version(version, sizeof version);
    name_setting("tile", tiles, sizeof tiles / sizeof tiles[0],
                 setting(&choice->algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID), tile, sizeof tile);
    name_setting("stages", stages, sizeof stages / sizeof stages[0],
                 setting(&choice->algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID), stage, sizeof stage);
    if (tried > 0)
        snprintf(best, sizeof best, "best of %d", tried);
    snprintf(choice->text, sizeof choice->text,
             "%.24s algo %" PRIu32 " %.16s %.16s split %" PRIu32 ", %.12s", version,
             setting(&choice->algorithm, CUBLASLT_ALGO_CONFIG_ID), tile, stage,
             setting(&choice->algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM), best);
}

static bool same(const struct cm_gemm_desc *x, const struct cm_gemm_desc *y)
{
    return x->dtype == y->dtype && x->out_dtype == y->out_dtype && x->m == y->m && x->n == y->n &&
           x->k == y->k && x->batch == y->batch && x->trans_a == y->trans_a &&
           x->trans_b == y->trans_b && x->accumulate == y->accumulate &&
           x->epilogue == y->epilogue && x->scaled == y->scaled && x->wide_a == y->wide_a &&
           x->wide_b == y->wide_b;
}

enum cm_status cm_cuda_choose(struct cm_cuda_product *product, const struct cm_cuda_choice **choice)
{
    struct cm_cuda_products *products = product->products;
    for (const struct cm_cuda_choice *known = products->choices; known != NULL;
         known = known->next) {
        if (same(&known->desc, &product->base.desc)) {
            *choice = known;
            return CM_OK;
        }
    }
    cublasLtMatmulHeuristicResult_t proposals[PROPOSALS];
    int count = 0, best = 0, tried = 0;
    enum cm_status status = propose(product, proposals, &count);
    if (status != CM_OK)
        return status;
    size_t workspace_bytes = 0;
    for (int i = 0; i < count; i++) {
        if (proposals[i].workspaceSize > workspace_bytes)
            workspace_bytes = proposals[i].workspaceSize;
    }
    struct scratch scratch = {.a = NULL};
    /* Without room to try them, the library's own order decides. */
    if (make_scratch(product, workspace_bytes, &scratch))
        status = try_proposals(product, proposals, count, &scratch, &best, &tried);
    if (!products->device->abandoned)
        free_scratch(&scratch);
    if (status != CM_OK)
        return status;
    struct cm_cuda_choice *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->desc = product->base.desc;
    made->algorithm = proposals[best].algo;
    made->workspace_bytes = proposals[best].workspaceSize;
    describe_choice(made, tried);
    made->next = products->choices;
    products->choices = made;
    *choice = made;
    return CM_OK;
}
