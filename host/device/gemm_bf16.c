/*
 * A bf16 product for CPUs without bf16 instructions, and one of scaled 8-bit floats. Blocks of A
 * and B are widened to f32, the library multiplies them, and each element of C is rounded once, at
 * the end. The blocks are so large that the conversions cost a few percent, and so few that memory
 * does not double.
 */
#include "host/device/gemm_bf16.h"

#include "clustermark/memory.h"
#include "host/device/convert.h"
#include "host/device/onednn.h"

/* Side of a block. */
#define BLOCK 2048

struct cm_gemm_bf16 {
    struct cm_device *device;
    struct cm_gemm_desc desc;
    float *blocks[3]; /* of A, B and, when C is bf16, C */
};

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static enum cm_status alloc_blocks(struct cm_gemm_bf16 *gemm)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    uint64_t m = smaller(desc->m, BLOCK), n = smaller(desc->n, BLOCK), k = smaller(desc->k, BLOCK);
    uint64_t counts[] = {m * k, k * n, desc->out_dtype == CM_F32 ? 0 : m * n};
    for (int i = 0; i < 3; i++) {
        if (counts[i] == 0)
            continue;
        void *memory;
        enum cm_status status = gemm->device->ops->alloc(gemm->device, CM_MEMORY_DEVICE,
                                                         counts[i] * sizeof(float), &memory);
        if (status != CM_OK)
            return status;
        gemm->blocks[i] = memory;
    }
    return CM_OK;
}

enum cm_status cm_gemm_bf16_plan(struct cm_device *device, const struct cm_gemm_desc *desc,
                                 struct cm_gemm_bf16 **gemm)
{
    struct cm_gemm_bf16 *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->device = device;
    made->desc = *desc;
    enum cm_status status = alloc_blocks(made);
    if (status != CM_OK) {
        cm_gemm_bf16_free(made);
        return status;
    }
    *gemm = made;
    return CM_OK;
}

void cm_gemm_bf16_free(struct cm_gemm_bf16 *gemm)
{
    if (gemm == NULL)
        return;
    for (int i = 0; i < 3; i++)
        gemm->device->ops->free(gemm->device, CM_MEMORY_DEVICE, gemm->blocks[i]);
    cm_free(gemm);
}

/* A block of a stored matrix: where it begins and how large it is. */
struct block {
    uint64_t m, n, k; /* first row, column and depth */
    uint64_t m_count, n_count, k_count;
};

/* A matrix as it is stored. */
struct stored {
    const void *memory;
    enum cm_dtype dtype;
    bool transposed;
    uint64_t rows, columns; /* untransposed */
};

static void widen(float *to, const struct stored *matrix, uint64_t offset, uint64_t stride,
                  uint64_t rows, uint64_t columns)
{
    if (matrix->dtype == CM_BF16)
        cm_bf16_to_f32(to, columns, (const uint16_t *)matrix->memory + offset, stride, rows,
                       columns);
    else
        cm_f8_to_f32(to, columns, (const uint8_t *)matrix->memory + offset, stride, rows, columns,
                     matrix->dtype);
}

/* Widen the block of A or B whose place is (row, column) in the untransposed matrix. */
static void load_block(float *to, const struct stored *matrix, uint64_t row, uint64_t column,
                       uint64_t rows, uint64_t columns)
{
    if (matrix->transposed)
        widen(to, matrix, column * matrix->rows + row, matrix->rows, columns, rows);
    else
        widen(to, matrix, row * matrix->columns + column, matrix->columns, rows, columns);
}

/* One block of C: the sum over all depths, in f32, rounded once. */
static enum cm_status compute_block(const struct cm_gemm_bf16 *gemm, const struct stored *a,
                                    const struct stored *b, float scale, void *c, struct block at)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    uint64_t offset = at.m * desc->n + at.n;
    bool rounded = desc->out_dtype == CM_BF16;
    float *sums = rounded ? gemm->blocks[2] : (float *)c + offset;
    uint64_t stride = rounded ? at.n_count : desc->n;
    if (rounded && desc->accumulate)
        cm_bf16_to_f32(sums, stride, (uint16_t *)c + offset, desc->n, at.m_count, at.n_count);
    for (at.k = 0; at.k < desc->k; at.k += BLOCK) {
        at.k_count = smaller(BLOCK, desc->k - at.k);
        load_block(gemm->blocks[0], a, at.m, at.k, at.m_count, at.k_count);
        load_block(gemm->blocks[1], b, at.k, at.n, at.k_count, at.n_count);
        enum cm_status status = cm_onednn_sgemm(
            desc->trans_a, desc->trans_b, at.m_count, at.n_count, at.k_count, scale,
            gemm->blocks[0], gemm->blocks[1], desc->accumulate || at.k > 0, sums, stride);
        if (status != CM_OK)
            return status;
    }
    if (rounded)
        cm_f32_to_bf16((uint16_t *)c + offset, desc->n, sums, stride, at.m_count, at.n_count);
    return CM_OK;
}

static enum cm_dtype type_of(const struct cm_gemm_desc *desc, bool wide)
{
    return !desc->scaled ? desc->dtype : wide ? CM_F8E5M2 : CM_F8E4M3;
}

enum cm_status cm_gemm_bf16_run(const struct cm_gemm_bf16 *gemm, const void *a, const void *b,
                                void *c, float scale)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    size_t size = cm_dtype_size(desc->dtype);
    size_t c_size = desc->out_dtype == CM_BF16 ? sizeof(uint16_t) : sizeof(float);
    for (uint64_t i = 0; i < desc->batch; i++) {
        const struct stored one_a = {(const char *)a + i * desc->m * desc->k * size,
                                     type_of(desc, desc->wide_a), desc->trans_a, desc->m, desc->k};
        const struct stored one_b = {(const char *)b + i * desc->k * desc->n * size,
                                     type_of(desc, desc->wide_b), desc->trans_b, desc->k, desc->n};
        void *one_c = (char *)c + i * desc->m * desc->n * c_size;
        struct block at = {0};
        for (at.m = 0; at.m < desc->m; at.m += BLOCK) {
            at.m_count = smaller(BLOCK, desc->m - at.m);
            for (at.n = 0; at.n < desc->n; at.n += BLOCK) {
                at.n_count = smaller(BLOCK, desc->n - at.n);
                enum cm_status status = compute_block(gemm, &one_a, &one_b, scale, one_c, at);
                if (status != CM_OK)
                    return status;
            }
        }
    }
    return CM_OK;
}
