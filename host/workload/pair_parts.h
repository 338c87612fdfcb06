/*
 * pair_parts.h: what the workloads share that time copies or messages of two sizes: of each pair of
 * ranks (of each rank, for hostlink) part 2i is the latency of a small one, part 2i + 1 the
 * bandwidth of a large one.
 */
#ifndef HOST_WORKLOAD_PAIR_PARTS_H
#define HOST_WORKLOAD_PAIR_PARTS_H

#include "clustermark/workload.h"

static inline bool cm_part_is_bandwidth(unsigned part)
{
    return part % 2 == 1;
}

/* For a workload's validate: whole floats, and not too many. */
enum cm_status cm_two_sizes_check(uint64_t size_bytes, uint64_t latency_bytes, const char *where);

/* cm_context_alloc of bytes. */
enum cm_status cm_take_bytes(struct cm_context *context, enum cm_memory_kind kind, uint64_t bytes,
                             char **memory);

/* Queue one message each way at once, of `count` floats. */
enum cm_status cm_pair_exchange(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                void *recv, uint64_t count, unsigned peer);

/* Floats that came from another rank: `count` of the random sequence `seed`, from `first` on. */
struct cm_arrival {
    const char *memory;
    uint64_t seed, first, count;
    unsigned sender, set; /* for the message */
    const char *did;      /* what the sender did with them: "sent" */
    char *scratch;        /* room for what should have come */
    struct cm_verify_result *verdict;
};
/* Compares, waits, and adds to `check`. */
enum cm_status cm_arrival_check(struct cm_context *context, const struct cm_arrival *arrival,
                                struct cm_check *check);

/* `bandwidth` and `latency`: medians over the pairs, and each pair's by its part's name where there
 * are several. `ends` says what a link is between ("the ranks"). */
enum cm_status cm_pair_figures(const struct cm_metric_input *input, const char *ends,
                               struct cm_metrics *metrics);

#endif
