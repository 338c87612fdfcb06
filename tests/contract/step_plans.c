/* The parallel plans that a model can be run by. */
#include "contract/step_plans.h"

#include <stdio.h>
#include <stdlib.h>

#include "test.h"

#define FEW 16

struct list {
    struct plan *plans;
    size_t count;
};

static void try_plan(struct list *list, const struct cm_parallel *parallel,
                     const struct cm_transformer *model)
{
    unsigned number = (unsigned)list->count;
    struct plan plan = {.parallel = *parallel,
                        .micro_batches = parallel->pp > 1 ? parallel->pp * (1 + number % 2) : 2,
                        .micro_batch = 1 + number / 2 % 2,
                        .recompute = (enum cm_recompute)(number % 3),
                        .overlap = number % 4 != 3};
    if (cm_parallel_check(parallel, model, plan.micro_batches, plan.micro_batch, "test") != CM_OK)
        return;
    list->plans = realloc(list->plans, (list->count + 1) * sizeof *list->plans);
    assert_non_null(list->plans);
    list->plans[list->count++] = plan;
}

static void try_options(struct list *list, struct cm_parallel parallel,
                        const struct cm_transformer *model)
{
    unsigned data = parallel.dp * parallel.cp;
    for (parallel.ep = 1; parallel.ep <= data; parallel.ep *= 2)
        for (parallel.zero = 0; parallel.zero <= 3; parallel.zero++)
            for (parallel.sp = 0; parallel.sp <= 1; parallel.sp++)
                for (parallel.vpp = 1; parallel.vpp <= 2; parallel.vpp++)
                    try_plan(list, &parallel, model);
}

/* Two kinds of groups at least. */
static bool is_mixed(const struct cm_parallel *parallel)
{
    return (parallel->dp > 1) + (parallel->tp > 1) + (parallel->pp > 1) + (parallel->cp > 1) > 1;
}

size_t list_plans(unsigned ranks, const struct cm_transformer *model, struct plan **plans)
{
    struct list list = {0};
    for (unsigned tp = 1; tp <= ranks; tp++)
        for (unsigned pp = 1; tp * pp <= ranks; pp++)
            for (unsigned cp = 1; tp * pp * cp <= ranks; cp++) {
                struct cm_parallel parallel = {
                    .dp = ranks / (tp * pp * cp), .tp = tp, .pp = pp, .cp = cp};
                bool whole = parallel.dp * tp * pp * cp == ranks;
                if (whole && (ranks <= 4 || is_mixed(&parallel)))
                    try_options(&list, parallel, model);
            }
    if (ranks > 4 && list.count > FEW) {
        for (size_t i = 0; i < FEW; i++)
            list.plans[i] = list.plans[(i * list.count + list.count / 2) / FEW];
        list.count = FEW;
    }
    *plans = list.plans;
    return list.count;
}

void write_plan(const struct plan *plan, char *text, size_t size)
{
    static const char *const recompute[] = {"none", "selective", "full"};
    struct cm_str parallel = CM_STR_INIT;
    cm_parallel_write(&plan->parallel, &parallel);
    snprintf(text, size, "%s m=%llu b=%llu recompute=%s overlap=%s", cm_str_text(&parallel),
             (unsigned long long)plan->micro_batches, (unsigned long long)plan->micro_batch,
             recompute[plan->recompute], plan->overlap ? "on" : "off");
    cm_str_release(&parallel);
}
