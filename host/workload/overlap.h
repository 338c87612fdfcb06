/*
 * overlap.h: what overlap and its check share.
 */
#ifndef HOST_WORKLOAD_OVERLAP_H
#define HOST_WORKLOAD_OVERLAP_H

#include "clustermark/workload.h"

/* Elements of the all_reduce that the check looks at together; iterations whose events are kept. */
enum { CM_OVERLAP_REDUCE_CHUNK = 16384, CM_OVERLAP_LAPS_MAX = 128 };

enum cm_overlap_part { CM_PART_COMPUTE, CM_PART_COMM, CM_PART_BOTH, CM_PART_COUNT };
/* What is observed in the part `both`. */
enum { CM_LAP_COMPUTE, CM_LAP_COMM, CM_LAP_COUNT };

struct cm_overlap_params {
    int dtype;
    uint64_t m, n, k, products, size_bytes;
};

struct cm_overlap_state {
    struct cm_context *context;
    struct cm_overlap_params params;
    enum cm_dtype dtype;
    struct cm_gemm *gemm;
    uint64_t a_bytes, b_bytes, c_bytes, message_stride; /* of a set */
    uint64_t count;                                     /* elements of the message */
    unsigned sets;
    char *a, *b, *c, *send, *recv;
    char *scratch;                  /* device: a chunk of the all_reduce's inputs */
    char *host_a, *host_b, *host_c; /* for the check */
    /* An iteration takes events in turn; those of the last CM_OVERLAP_LAPS_MAX can still be read.
     */
    struct cm_lap {
        struct cm_event *fork, *computed, *join;
    } laps[CM_OVERLAP_LAPS_MAX];
    char *shared; /* device: CM_LAP_COUNT numbers that the ranks agree on */
    double observed[CM_LAP_COUNT];
};

uint64_t cm_overlap_seed(const struct cm_overlap_state *state, unsigned rank);

/* The workload's check; after the part `both` also what was observed. */
enum cm_status cm_overlap_check(void *state, unsigned part, uint64_t iterations,
                                struct cm_check *check);

#endif
