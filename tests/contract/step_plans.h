/*
 * step_plans.h: the parallel plans that a model can be run by on so many ranks.
 */
#ifndef TESTS_CONTRACT_STEP_PLANS_H
#define TESTS_CONTRACT_STEP_PLANS_H

#include "clustermark/schedule.h"

struct plan {
    struct cm_parallel parallel;
    uint64_t micro_batches, micro_batch;
    enum cm_recompute recompute;
    bool overlap;
};

/* All of them, each with other settings beside; more than 4 ranks: those of several kinds of groups
 * alone, and of these a few. The caller frees *plans. */
size_t list_plans(unsigned ranks, const struct cm_transformer *model, struct plan **plans);
void write_plan(const struct plan *plan, char *text, size_t size);

#endif
