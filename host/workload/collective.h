/*
 * collective.h: what collective and its check share.
 */
#ifndef HOST_WORKLOAD_COLLECTIVE_H
#define HOST_WORKLOAD_COLLECTIVE_H

#include "clustermark/model.h"
#include "clustermark/workload.h"

/* Elements that the check looks at together, on the host and on the device; the root of broadcast.
 */
enum { CM_COLLECTIVE_CHUNK = 65536, CM_COLLECTIVE_PIECE = 1 << 20, CM_COLLECTIVE_ROOT = 0 };

struct cm_collective_params {
    int op, dtype;
    uint64_t size_bytes;
    bool in_place, rotate;
};

/* One chunk in the check: what an element should be, and the sum of what went into it without
 * signs, which bounds the rounding. */
struct cm_collective_chunk {
    double expected[CM_COLLECTIVE_CHUNK], weight[CM_COLLECTIVE_CHUNK], values[CM_COLLECTIVE_CHUNK];
};

struct cm_collective_state {
    struct cm_context *context;
    enum cm_collective op;
    enum cm_dtype dtype;
    bool in_place;
    uint64_t part; /* elements of one rank's part, or of all where there is none */
    uint64_t send_count, recv_count;   /* elements of a rank's buffers */
    uint64_t send_stride, recv_stride; /* bytes from set to set */
    unsigned sets;
    char *send, *recv; /* slabs; the same where in place */
    char *scratch;     /* device: two pieces */
    char *raw;         /* host: a chunk */
    struct cm_verify_result *verdict;
    struct cm_collective_chunk *chunk;
};

bool cm_collective_sums(enum cm_collective op, bool in_place);
uint64_t cm_collective_seed(const struct cm_collective_state *state, unsigned rank, uint64_t set);

/* The workload's check. */
enum cm_status cm_collective_check(void *state, unsigned part, uint64_t iterations,
                                   struct cm_check *check);

#endif
