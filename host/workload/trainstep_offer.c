/* trainstep: the bytes that a step takes, and what is offered instead of one that does not fit. */
#include "clustermark/error.h"
#include "clustermark/parallel.h"
#include "clustermark/transformer.h"
#include "clustermark/units.h"
#include "host/workload/trainstep.h"

uint64_t cm_trainstep_bytes(const struct cm_step *step, unsigned rank,
                            uint64_t by_use[CM_USE_COUNT])
{
    struct cm_schedule schedule = {0};
    uint64_t total = UINT64_MAX;
    if (cm_schedule_build(step, rank, &schedule) != CM_OK)
        return total;
    cm_schedule_memory(&schedule, by_use, &total);
    total += cm_initialiser_bytes(&schedule);
    cm_schedule_release(&schedule);
    return total;
}

/* Both ends of a pipeline have what the middle has, and a table of the vocabulary. */
static bool step_fits(const struct cm_step *step, uint64_t left)
{
    uint64_t by_use[CM_USE_COUNT];
    unsigned last = cm_parallel_ranks(&step->parallel) - 1;
    return cm_parallel_check(&step->parallel, &step->model, step->micro_batches, step->micro_batch,
                             "fit") == CM_OK &&
           cm_trainstep_bytes(step, 0, by_use) <= left &&
           cm_trainstep_bytes(step, last, by_use) <= left;
}

uint64_t cm_trainstep_most_layers(struct cm_step step, unsigned rank, uint64_t left)
{
    uint64_t by_use[CM_USE_COUNT];
    uint64_t low = 0, high = step.model.layers + 1;
    uint64_t least = (uint64_t)step.parallel.pp * step.parallel.vpp;
    while (low + 1 < high) {
        uint64_t middle = low + (high - low) / 2;
        step.model.layers = middle;
        if (middle < least || cm_trainstep_bytes(&step, rank, by_use) <= left)
            low = middle;
        else
            high = middle;
    }
    return low < least ? 0 : low;
}

/* Settings that would fit, in words. */
struct offers {
    struct cm_str text;
    unsigned count;
    uint64_t left;
};
enum { OFFERS_MAX = 3 };

static void offer(struct offers *offers, const struct cm_step *given, const struct cm_step *step)
{
    if (offers->count >= OFFERS_MAX || !step_fits(step, offers->left))
        return;
    unsigned ranks = cm_parallel_ranks(&step->parallel);
    cm_str_addf(&offers->text, "%s", offers->count++ > 0 ? "; or " : "");
    if (ranks != cm_parallel_ranks(&given->parallel))
        cm_str_addf(&offers->text, "%u ranks of this memory with ", ranks);
    cm_str_addf(&offers->text, "plan = ");
    cm_parallel_write(&step->parallel, &offers->text);
    if (step->recompute != given->recompute)
        cm_str_addf(&offers->text, " recompute = %s", cm_trainstep_recompute[step->recompute]);
    if (step->micro_batch != given->micro_batch || step->micro_batches != given->micro_batches)
        cm_str_addf(&offers->text, " micro_batch = %llu micro_batches = %llu",
                    (unsigned long long)step->micro_batch, (unsigned long long)step->micro_batches);
    if (step->model.layers != given->model.layers)
        cm_str_addf(&offers->text, " layers = %llu", (unsigned long long)step->model.layers);
}

/* The same plan with more sharding, then with less kept of activations, then smaller pieces. */
static void offer_around(struct offers *offers, const struct cm_step *given,
                         const struct cm_step *base, bool same_plan)
{
    bool sharded = base->parallel.dp * base->parallel.cp > 1;
    for (int recompute = (int)base->recompute; recompute <= CM_RECOMPUTE_FULL; recompute++) {
        for (unsigned zero = base->parallel.zero; zero <= (sharded ? 3 : 0); zero++) {
            struct cm_step step = *base;
            step.recompute = (enum cm_recompute)recompute;
            step.parallel.zero = zero;
            if (!same_plan || zero != base->parallel.zero || recompute != (int)base->recompute)
                offer(offers, given, &step);
        }
    }
    struct cm_step step = *base;
    unsigned before = offers->count;
    step.recompute = CM_RECOMPUTE_FULL;
    step.parallel.zero = sharded ? 3 : 0;
    while (step.micro_batch > 1 && step.micro_batch % 2 == 0) {
        step.micro_batch /= 2;
        step.micro_batches *= 2;
        offer(offers, given, &step);
        if (offers->count > before)
            return;
    }
}

/* Other plans of as many ranks: tensor groups before pipelines. */
static void offer_plans(struct offers *offers, const struct cm_step *given)
{
    unsigned ranks = cm_parallel_ranks(&given->parallel);
    for (unsigned tp = 1; tp <= ranks; tp *= 2) {
        for (unsigned pp = 1; tp * pp <= ranks; pp *= 2) {
            struct cm_step step = *given;
            if (ranks % (tp * pp) != 0 || (tp == given->parallel.tp && pp == given->parallel.pp))
                continue;
            step.parallel = (struct cm_parallel){
                .dp = ranks / tp / pp, .tp = tp, .pp = pp, .cp = 1, .ep = 1, .vpp = 1};
            step.parallel.sp = tp > 1 ? 1 : 0;
            step.parallel.zero = step.parallel.dp > 1 ? 1 : 0;
            offer_around(offers, given, &step, false);
        }
    }
}

/* A slice of the model, by what takes least memory of the same plan. */
static void offer_slice(struct offers *offers, const struct cm_step *given)
{
    struct cm_step step = *given;
    const struct cm_parallel *parallel = &step.parallel;
    step.recompute = CM_RECOMPUTE_FULL;
    step.parallel.zero = parallel->dp * parallel->cp > 1 ? 3 : 0;
    uint64_t first = cm_trainstep_most_layers(step, 0, offers->left);
    uint64_t last = cm_trainstep_most_layers(step, cm_parallel_ranks(parallel) - 1, offers->left);
    step.model.layers = first < last ? first : last;
    if (step.model.layers > 0 && step.model.layers < given->model.layers)
        offer(offers, given, &step);
}

/* The fewest ranks, by doubling, that have room for all of it: tensor groups no larger than a
 * machine has devices, then pipelines, everything sharded over the rest. */
#define RANKS_MAX  65536u
#define TENSOR_MAX 8u

static void offer_more_ranks(struct offers *offers, const struct cm_step *given)
{
    unsigned before = offers->count;
    for (unsigned ranks = 2; ranks <= RANKS_MAX && offers->count == before; ranks *= 2) {
        if (ranks <= cm_parallel_ranks(&given->parallel))
            continue;
        for (unsigned tp = 1; tp <= TENSOR_MAX && offers->count == before; tp *= 2) {
            for (unsigned pp = 1; tp * pp <= ranks && pp <= given->model.layers; pp *= 2) {
                struct cm_step step = *given;
                unsigned dp = ranks / tp / pp;
                step.recompute = CM_RECOMPUTE_FULL;
                step.micro_batches = given->micro_batches > pp ? given->micro_batches : pp;
                step.parallel = (struct cm_parallel){.dp = dp,
                                                     .tp = tp,
                                                     .pp = pp,
                                                     .cp = 1,
                                                     .ep = 1,
                                                     .vpp = 1,
                                                     .sp = tp > 1 ? 1 : 0,
                                                     .zero = dp > 1 ? 3 : 0};
                offer(offers, given, &step);
                if (offers->count > before)
                    break;
            }
        }
    }
}

static void list_uses(const uint64_t by_use[CM_USE_COUNT], struct cm_str *text)
{
    char size[CM_UNITS_TEXT_MAX];
    for (unsigned use = 0; use < CM_USE_COUNT; use++) {
        if (by_use[use] > 0)
            cm_str_addf(text, "%s%s %s", text->length > 0 ? ", " : "", cm_buffer_use_names[use],
                        cm_format_value((double)by_use[use], "B", size));
    }
}

enum cm_status cm_trainstep_refuse(enum cm_status as, const struct cm_step *step, uint64_t needed,
                                   uint64_t left, const uint64_t by_use[CM_USE_COUNT])
{
    char size[CM_UNITS_TEXT_MAX], have[CM_UNITS_TEXT_MAX];
    const char *lead = "these would fit: ";
    struct cm_str uses = CM_STR_INIT;
    struct offers offers = {.text = CM_STR_INIT, .left = left};
    list_uses(by_use, &uses);
    offer_around(&offers, step, step, true);
    offer_plans(&offers, step);
    if (offers.count == 0) {
        lead = "of so many layers on so many ranks nothing that was tried fits, but: ";
        offer_slice(&offers, step);
        offer_more_ranks(&offers, step);
    }
    enum cm_status status =
        cm_error(as, "a step needs %s on this rank (%s), %s are there; %s%s",
                 cm_format_value((double)needed, "B", size), cm_str_text(&uses),
                 cm_format_value((double)left, "B", have),
                 offers.count > 0 ? lead : "nothing that was tried fits, on up to 65536 ranks",
                 cm_str_text(&offers.text));
    cm_str_release(&uses);
    cm_str_release(&offers.text);
    return status;
}
