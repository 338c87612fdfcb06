/*
 * gemm.h: what gemm and its check share.
 */
#ifndef HOST_WORKLOAD_GEMM_H
#define HOST_WORKLOAD_GEMM_H

#include "clustermark/blocks.h"
#include "clustermark/workload.h"

#define CM_GEMM_SHAPES_MAX 64

struct cm_gemm_params {
    int dtype, trans, out, impl, search;
    uint64_t m, n, k, batch; /* m, n, k: 0 until the device is known */
    double soak_s;
};

struct cm_gemm_shape {
    uint64_t m, n, k;
    uint64_t a_bytes, b_bytes, c_bytes; /* of a set, rounded up to the alignment */
    unsigned sets;
    struct cm_gemm *gemm;
};

struct cm_gemm_state {
    struct cm_context *context;
    struct cm_gemm_params params;
    struct cm_gemm_shape shapes[CM_GEMM_SHAPES_MAX];
    unsigned shape_count;
    unsigned sets;                  /* of the first shape, which is the largest, in the slabs */
    char *a, *b, *c;                /* slabs */
    char *host_a, *host_b, *host_c; /* one matrix each, for the check */
    uint64_t a_seed, b_seed;
};

/* Element types of A and B in memory (tf32 is stored as f32), and of C. */
enum cm_dtype cm_gemm_stored(const struct cm_gemm_params *params);
enum cm_dtype cm_gemm_out(const struct cm_gemm_params *params);
/* A and B as they are stored, for this shape. */
void cm_gemm_operands(const struct cm_gemm_params *params, const struct cm_gemm_shape *shape,
                      struct cm_block_matrix *a, struct cm_block_matrix *b);
const struct cm_gemm_shape *cm_gemm_shape_of(const struct cm_gemm_state *state, unsigned part);

/* gemm_fill.c: random numbers for all sets of A and B, queued; those of blocks when it returns. */
enum cm_status cm_gemm_fill(struct cm_gemm_state *state);

/* The workload's check. */
enum cm_status cm_gemm_check(void *state, unsigned part, uint64_t iterations,
                             struct cm_check *check);

#endif
