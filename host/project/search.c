/* All plans of a number of GPUs, by the closed form. */
#include "host/project/search.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "clustermark/error.h"

/* Published runs leave a GPU this many tokens of a sequence that is split: beyond that the model
 * speaks of what it was not fitted on, and a search would find its errors. */
#define TOKENS_LEAST 4096
#define TENSOR_MOST  64
#define CONTEXT_MOST 64
#define CHUNKS_MOST  16
#define MICRO_MOST   8

struct finder {
    const struct cm_search *search;
    struct cm_found_plan *found;
    struct cm_parallel plan; /* the one that is tried */
    uint64_t micro_batch;
    double least_s;  /* step of the best so far */
    double smallest; /* bytes of the one that needs least */
};

static void try_recompute(struct finder *finder, enum cm_recompute recompute)
{
    const struct cm_search *search = finder->search;
    struct cm_memory_cost memory;
    struct cm_step_cost cost;
    struct cm_cost_job job;
    uint64_t micro_batches = search->batch / finder->plan.dp / finder->micro_batch;
    cm_cost_job_from(search->model, &finder->plan, search->base.gpu, &job);
    job.network_rate = search->base.network_rate;
    job.domain = search->base.domain;
    job.precision = search->base.precision;
    job.micro_batch = (double)finder->micro_batch;
    job.micro_batches = (double)micro_batches;
    job.recompute = recompute;
    finder->found->tried++;
    cm_memory_cost(&job, &memory);
    finder->smallest = fmin(finder->smallest, memory.total);
    if (memory.total > search->memory)
        return;
    finder->found->fitting++;
    cm_step_cost(&job, search->value, &cost);
    if (cost.step >= finder->least_s ||
        cm_parallel_check(&finder->plan, search->model, micro_batches, finder->micro_batch,
                          "search") != CM_OK)
        return;
    finder->least_s = cost.step;
    finder->found->plan = finder->plan;
    finder->found->micro_batch = finder->micro_batch;
    finder->found->recompute = recompute;
}

/* Chunks, micro-batches and what is sharded, of a plan whose groups are set. */
static void try_groups(struct finder *finder)
{
    const struct cm_search *search = finder->search;
    struct cm_parallel *plan = &finder->plan;
    bool spread = plan->dp * plan->cp > 1;
    for (uint64_t micro = 1; micro <= MICRO_MOST; micro *= 2) {
        uint64_t each = (uint64_t)plan->dp * micro;
        if (search->batch % each != 0)
            break;
        finder->micro_batch = micro;
        for (plan->vpp = 1; plan->vpp <= CHUNKS_MOST; plan->vpp++) {
            bool chunks = plan->pp > 1 && search->batch / each % plan->pp == 0 &&
                          (uint64_t)plan->pp * plan->vpp <= search->model->layers;
            if (plan->vpp > 1 && !chunks)
                break;
            for (plan->zero = spread; plan->zero <= 3;
                 plan->zero += plan->zero == 1 && plan->pp == 1 ? 2 : 3)
                for (int recompute = CM_RECOMPUTE_NONE; recompute <= CM_RECOMPUTE_FULL; recompute++)
                    try_recompute(finder, (enum cm_recompute)recompute);
        }
    }
}

static void try_experts(struct finder *finder)
{
    uint64_t experts = finder->search->model->experts;
    uint64_t data = (uint64_t)finder->plan.dp * finder->plan.cp;
    for (unsigned ep = 1; ep == 1 || (ep <= experts && ep <= data); ep *= 2) {
        if (ep > 1 && (experts % ep != 0 || data % ep != 0))
            break;
        finder->plan.ep = ep;
        try_groups(finder);
    }
}

static void try_stages(struct finder *finder)
{
    const struct cm_search *search = finder->search;
    uint64_t rest = search->gpus / finder->plan.tp / finder->plan.cp;
    for (unsigned pp = 1; pp <= search->model->layers && pp <= rest; pp++) {
        if (rest % pp != 0 || rest / pp > search->batch)
            continue;
        finder->plan.pp = pp;
        finder->plan.dp = (unsigned)(rest / pp);
        try_experts(finder);
    }
}

enum cm_status cm_plan_search(const struct cm_search *search, struct cm_found_plan *found)
{
    struct cm_found_plan best = {.tried = 0};
    struct finder finder = {
        .search = search, .found = &best, .least_s = INFINITY, .smallest = INFINITY};
    for (unsigned tp = 1; tp <= TENSOR_MOST && search->gpus % tp == 0; tp *= 2)
        for (unsigned cp = 1; cp <= CONTEXT_MOST && search->gpus % (tp * cp) == 0; cp *= 2) {
            if (search->model->heads % tp != 0 || search->model->sequence % (2 * cp) != 0 ||
                (cp > 1 && search->model->sequence / cp < TOKENS_LEAST))
                continue;
            finder.plan.tp = tp;
            finder.plan.cp = cp;
            finder.plan.sp = tp > 1;
            try_stages(&finder);
        }
    cm_error_clear();
    if (isinf(finder.least_s) && (best.tried == 0 || best.fitting > 0))
        return cm_error(CM_USAGE,
                        "--search: no plan of %" PRIu64 " GPUs divides %s and a batch of %" PRIu64
                        " sequences; another --batch may",
                        search->gpus, search->model->name, search->batch);
    if (isinf(finder.least_s))
        return cm_error(CM_USAGE,
                        "--search: none of %" PRIu64 " plans of %" PRIu64
                        " GPUs fits; the least needs %.1f GB of a GPU's %.1f",
                        best.tried, search->gpus, finder.smallest / 1e9, search->memory / 1e9);
    *found = best;
    return CM_OK;
}
