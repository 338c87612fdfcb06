/* small_step.h: a step that is soon built, for tests of what is done with schedules. */
#ifndef TESTS_UNIT_SMALL_STEP_H
#define TESTS_UNIT_SMALL_STEP_H

#include "clustermark/schedule.h"

static inline struct cm_step make_small_step(unsigned heads, unsigned kv_heads,
                                             unsigned micro_batch)
{
    struct cm_step step;
    cm_step_defaults(&step);
    step.model = (struct cm_transformer){.name = "small",
                                         .layers = 8,
                                         .real_layers = 8,
                                         .hidden = 64,
                                         .heads = heads,
                                         .kv_heads = kv_heads,
                                         .head_size = 8,
                                         .ffn = 128,
                                         .vocabulary = 500,
                                         .sequence = 64,
                                         .rope_base = 10000,
                                         .norm_epsilon = 1e-5};
    step.micro_batches = 4;
    step.micro_batch = micro_batch;
    step.bucket_bytes = 10000;
    return step;
}

#endif
