/*
 * trainstep_init.h: the state with which a training step begins: weights, optimizer, tokens. The
 * same for every plan: each rank takes its part of the same random numbers.
 */
#ifndef HOST_WORKLOAD_TRAINSTEP_INIT_H
#define HOST_WORKLOAD_TRAINSTEP_INIT_H

#include "host/workload/trainstep_execute.h"

/* Memory for the work of initialising; may be used again and again. */
struct cm_initialiser {
    uint64_t chunk; /* elements at a time */
    void *values;   /* device: a chunk in F32, and rounded */
    void *rounded;
    int32_t *tokens; /* host: of all micro-batches */
};

enum cm_status cm_initialiser_open(struct cm_executor *executor,
                                   struct cm_initialiser *initialiser);
/* Bytes that it takes, tokens on the host left out. */
uint64_t cm_initialiser_bytes(const struct cm_schedule *schedule);

/* Weights, moments and gradients as before the first step, and the batch that every step repeats.
 * Queued on the context's stream, and waited for. */
enum cm_status cm_initialise(struct cm_executor *executor,
                             const struct cm_initialiser *initialiser);

#endif
