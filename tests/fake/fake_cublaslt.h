/*
 * fake_cublaslt.h: what the files of the fake cuBLASLt share: what is in its opaque descriptors.
 */
#ifndef TESTS_FAKE_FAKE_CUBLASLT_H
#define TESTS_FAKE_FAKE_CUBLASLT_H

#include <cublasLt.h>

#include "fake/fake.h"

#define FAKE_LT_MARK UINT64_C(0xb1a5) /* in a handle */

struct fake_layout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t ld, stride;
    int32_t order, batch;
};
struct fake_product {
    cublasComputeType_t compute;
    cudaDataType scale;
    cublasOperation_t trans_a, trans_b;
    int8_t fast;
    int32_t mode_a, mode_b;                  /* cublasLtMatmulMatrixScale_t */
    const void *scale_a, *scale_b, *scale_d; /* device memory; NULL is 1 */
    cublasLtEpilogue_t epilogue;             /* 0: the default */
    void *beside;
    int64_t beside_ld;
};
struct fake_preference {
    uint64_t workspace;
};

/* ---- scales of blocks (fake_cublaslt_scales.c); `outer` rows of op(A), or columns of op(B) ----
 */

/* Elements that share one; 0 where the whole matrix does. */
unsigned fake_lt_block(int32_t mode);
/* That they lie aligned in device memory; ends the process where they do not. */
void fake_lt_check_scales(const void *scales, int32_t mode, uint64_t outer, uint64_t k,
                          const char *call);
/* values[outer][k] times their scales. */
void fake_lt_scale(const void *scales, int32_t mode, uint64_t outer, uint64_t k, double *values);

cublasStatus_t fake_lt_enter(const char *call);
cublasStatus_t fake_lt_leave(cublasStatus_t status);

#endif
