/* Sizes of products. */
#include "host/device/gemm_size.h"

#include <inttypes.h>

#include "clustermark/error.h"

struct cm_block_matrix cm_gemm_stored_a(const struct cm_gemm_desc *desc)
{
    return (struct cm_block_matrix){desc->dtype, desc->trans_a ? desc->k : desc->m,
                                    desc->trans_a ? desc->m : desc->k};
}

struct cm_block_matrix cm_gemm_stored_b(const struct cm_gemm_desc *desc)
{
    return (struct cm_block_matrix){desc->dtype, desc->trans_b ? desc->n : desc->k,
                                    desc->trans_b ? desc->k : desc->n};
}

static bool fits(const struct cm_block_matrix *matrix, uint64_t batch)
{
    uint64_t bytes;
    return matrix->rows > 0 && matrix->columns > 0 && batch > 0 && batch <= INT32_MAX &&
           cm_matrix_bytes(matrix->dtype, matrix->rows, matrix->columns, &bytes) &&
           !__builtin_mul_overflow(bytes, batch, &bytes) && bytes <= INT64_MAX;
}

enum cm_status cm_gemm_check_size(const struct cm_gemm_desc *desc)
{
    const struct cm_block_matrix a = cm_gemm_stored_a(desc), b = cm_gemm_stored_b(desc);
    const struct cm_block_matrix c = {desc->out_dtype, desc->m, desc->n};
    if (fits(&a, desc->batch) && fits(&b, desc->batch) && fits(&c, desc->batch))
        return CM_OK;
    return cm_error(CM_USAGE,
                    "gemm: m=%" PRIu64 " n=%" PRIu64 " k=%" PRIu64 " batch=%" PRIu64
                    ": each must be at least 1, a matrix below 8 EiB and the batch below 2^31",
                    desc->m, desc->n, desc->k, desc->batch);
}
