/*
 * gemm.cu: which of this project's own matrix products there is for a shape, and its launch.
 */
#include "kernels/gemm.cuh"

/* Rows, columns and tiles are counted in int, up to a tile beyond the edge. */
#define SIZE_MAX_M_N_K (UINT64_C(1) << 30)
#define TILES_MAX      (UINT64_C(1) << 30)

bool gemm_rows_aligned(const struct cm_own_gemm *gemm)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    uint64_t row_a = desc->trans_a ? desc->m : desc->k;
    uint64_t row_b = desc->trans_b ? desc->k : desc->n;
    return row_a % 8 == 0 && row_b % 8 == 0;
}

struct gemm_out gemm_out_of(const struct cm_own_gemm *gemm, void *c)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    struct gemm_out out;
    out.c = c;
    out.m = (int)desc->m;
    out.n = (int)desc->n;
    out.f32 = desc->out_dtype == CM_F32;
    out.accumulate = desc->accumulate;
    out.wide = desc->n % 8 == 0 && (uintptr_t)c % 16 == 0;
    return out;
}

const char *cm_own_gemm_refuses(const struct cm_own_gemm *gemm)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    if (desc->dtype != CM_BF16)
        return "the own kernel multiplies bf16 only";
    if (desc->out_dtype != CM_BF16 && desc->out_dtype != CM_F32)
        return "the own kernel's results are bf16 or f32";
    if (gemm->capability < 80)
        return "the own kernel needs compute capability 8.0 or later, for bf16 tensor cores";
    if (desc->m == 0 || desc->n == 0 || desc->k == 0 || desc->batch == 0)
        return "m, n, k and batch must be 1 or more";
    if (desc->m > SIZE_MAX_M_N_K || desc->n > SIZE_MAX_M_N_K || desc->k > SIZE_MAX_M_N_K)
        return "the own kernel takes m, n and k up to 2^30";
    /* In tiles of 128x128, the smallest there are. */
    uint64_t tiles = gemm_ceil(desc->m, 128) * gemm_ceil(desc->n, 128);
    if (desc->batch > TILES_MAX / tiles)
        return "the own kernel makes up to 2^30 tiles of 128x128";
    return NULL;
}

const char *cm_own_gemm_name(const struct cm_own_gemm *gemm)
{
    return gemm_hopper_fits(gemm) ? gemm_hopper_name() : gemm_mma_name(gemm);
}

int cm_own_gemm_launch(struct CUstream_st *stream, const struct cm_own_gemm *gemm, const void *a,
                       const void *b, void *c)
{
    if (cm_own_gemm_refuses(gemm) != NULL)
        return cudaErrorInvalidValue;
    bool aligned = ((uintptr_t)a | (uintptr_t)b) % 16 == 0;
    return gemm_hopper_fits(gemm) && aligned ? gemm_hopper_launch(stream, gemm, a, b, c)
                                             : gemm_mma_launch(stream, gemm, a, b, c);
}
