/* pairs: who meets whom. */
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/workload/pairs.h"

enum { BETWEEN_AUTO, BETWEEN_NODES, BETWEEN_RANKS };

static unsigned count_nodes(unsigned ranks, const unsigned *node_of)
{
    unsigned count = 0;
    for (unsigned r = 0; node_of != NULL && r < ranks; r++)
        count = node_of[r] + 1 > count ? node_of[r] + 1 : count;
    return count > 0 ? count : 1;
}

/* A rank's lane is its place on its node, or the one lane of all. */
static enum cm_status choose_lanes(struct cm_pairs_plan *plan, unsigned nodes)
{
    unsigned *on_node = cm_alloc(nodes, sizeof *on_node);
    if (on_node == NULL)
        return CM_NO_MEMORY;
    plan->lanes = 1;
    for (unsigned r = 0; r < plan->ranks && plan->between_nodes; r++) {
        plan->lane_of[r] = on_node[plan->node_of[r]]++;
        plan->lanes = plan->lane_of[r] + 1 > plan->lanes ? plan->lane_of[r] + 1 : plan->lanes;
    }
    cm_free(on_node);
    plan->lane_begin = cm_alloc(plan->lanes + 1, sizeof *plan->lane_begin);
    return plan->lane_begin != NULL ? CM_OK : CM_NO_MEMORY;
}

static void list_members(struct cm_pairs_plan *plan)
{
    for (unsigned r = 0; r < plan->ranks; r++)
        plan->index_of[r] = plan->lane_begin[plan->lane_of[r] + 1]++;
    for (unsigned lane = 0; lane < plan->lanes; lane++)
        plan->lane_begin[lane + 1] += plan->lane_begin[lane];
    for (unsigned r = 0; r < plan->ranks; r++)
        plan->members[plan->lane_begin[plan->lane_of[r]] + plan->index_of[r]] = r;
}

static unsigned lane_size(const struct cm_pairs_plan *plan, unsigned lane)
{
    return plan->lane_begin[lane + 1] - plan->lane_begin[lane];
}

/* Room for rounds up to so many. */
static enum cm_status add_rounds(struct cm_pairs_plan *plan, unsigned before, unsigned count)
{
    size_t ranks = plan->ranks;
    unsigned *partner = cm_resize(plan->partner, ranks * count, sizeof *partner);
    if (partner == NULL)
        return CM_NO_MEMORY;
    plan->partner = partner;
    for (size_t i = ranks * before; i < ranks * count; i++)
        partner[i] = CM_NO_PARTNER;
    return CM_OK;
}

/* A lane's pairing into the table, from round `first` on. */
static void enter_pairing(struct cm_pairs_plan *plan, unsigned lane, unsigned first,
                          const struct cm_pairing *pairing)
{
    const unsigned *members = plan->members + plan->lane_begin[lane];
    for (unsigned round = 0; round < pairing->rounds; round++) {
        for (unsigned i = 0; i < pairing->count; i++) {
            unsigned partner = pairing->partner[(size_t)round * pairing->count + i];
            if (partner != CM_NO_PARTNER)
                plan->partner[(size_t)(first + round) * plan->ranks + members[i]] =
                    members[partner];
        }
    }
}

static enum cm_status pair_lanes(struct cm_pairs_plan *plan, unsigned rounds, uint64_t seed)
{
    enum cm_status status = CM_OK;
    for (unsigned lane = 0; lane < plan->lanes && rounds == 0; lane++) {
        unsigned wanted = cm_pairing_rounds(lane_size(plan, lane));
        plan->rounds = wanted > plan->rounds ? wanted : plan->rounds;
    }
    plan->rounds = rounds > 0 ? rounds : plan->rounds;
    if (plan->rounds > 0)
        status = add_rounds(plan, 0, plan->rounds);
    for (unsigned lane = 0; lane < plan->lanes && status == CM_OK; lane++) {
        struct cm_pairing pairing;
        status = cm_pairing_make(lane_size(plan, lane), rounds, seed, &pairing);
        if (status != CM_OK)
            break;
        enter_pairing(plan, lane, 0, &pairing);
        cm_pairing_release(&pairing);
    }
    return status;
}

enum cm_status cm_pairs_plan_make(unsigned ranks, const unsigned *node_of, int between,
                                  unsigned rounds, uint64_t seed, struct cm_pairs_plan *plan)
{
    unsigned nodes = count_nodes(ranks, node_of);
    *plan = (struct cm_pairs_plan){.ranks = ranks, .node_of = node_of};
    /* Of two nodes nobody can say which is slow; of their ranks, met in all ways, one can. */
    plan->between_nodes =
        between == BETWEEN_NODES ? nodes > 1 : between == BETWEEN_AUTO && nodes > 2;
    plan->lane_of = cm_alloc(ranks, sizeof *plan->lane_of);
    plan->index_of = cm_alloc(ranks, sizeof *plan->index_of);
    plan->members = cm_alloc(ranks, sizeof *plan->members);
    enum cm_status status = CM_OK;
    if (plan->lane_of == NULL || plan->index_of == NULL || plan->members == NULL)
        status = CM_NO_MEMORY;
    if (status == CM_OK)
        status = choose_lanes(plan, nodes);
    if (status == CM_OK) {
        list_members(plan);
        status = pair_lanes(plan, rounds, seed);
    }
    return status;
}

void cm_pairs_plan_release(struct cm_pairs_plan *plan)
{
    cm_free(plan->lane_of);
    cm_free(plan->index_of);
    cm_free(plan->lane_begin);
    cm_free(plan->members);
    cm_free(plan->partner);
    *plan = (struct cm_pairs_plan){0};
}

/* What is suspected of a lane. */
struct lane_retest {
    unsigned char *states;
    struct cm_pair_of *pairs;
    size_t pair_count;
    bool any;
};

static void collect_lane(const struct cm_pairs_plan *plan, unsigned lane,
                         const unsigned char *states, const struct cm_pair_of *pairs,
                         size_t pair_count, struct lane_retest *out)
{
    out->pair_count = 0;
    out->any = false;
    for (unsigned i = 0; i < lane_size(plan, lane); i++) {
        out->states[i] = states[plan->members[plan->lane_begin[lane] + i]];
        out->any = out->any || out->states[i] == CM_UNIT_SUSPECT;
    }
    for (size_t i = 0; i < pair_count; i++) {
        if (plan->lane_of[pairs[i].from] != lane)
            continue;
        out->pairs[out->pair_count++] =
            (struct cm_pair_of){plan->index_of[pairs[i].from], plan->index_of[pairs[i].to]};
        out->any = true;
    }
}

/* Lanes without suspects rest. Rounds in which nobody would meet are not added. */
enum cm_status cm_pairs_plan_retest(struct cm_pairs_plan *plan, const unsigned char *states,
                                    const struct cm_pair_of *pairs, size_t pair_count,
                                    unsigned rounds, uint64_t seed)
{
    struct lane_retest lane_retest = {
        .states = cm_alloc(plan->ranks, 1),
        .pairs = cm_alloc(pair_count, sizeof *pairs),
    };
    enum cm_status status =
        lane_retest.states != NULL && lane_retest.pairs != NULL ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK)
        status = add_rounds(plan, plan->rounds, plan->rounds + rounds);
    bool met = false;
    for (unsigned lane = 0; lane < plan->lanes && status == CM_OK; lane++) {
        struct cm_pairing pairing;
        collect_lane(plan, lane, states, pairs, pair_count, &lane_retest);
        if (!lane_retest.any)
            continue;
        status = cm_pairing_retest(lane_size(plan, lane), lane_retest.states, lane_retest.pairs,
                                   lane_retest.pair_count, rounds, seed, &pairing);
        if (status != CM_OK)
            break;
        enter_pairing(plan, lane, plan->rounds, &pairing);
        cm_pairing_release(&pairing);
    }
    for (size_t i = 0; status == CM_OK && i < (size_t)plan->ranks * rounds; i++)
        met = met || plan->partner[(size_t)plan->ranks * plan->rounds + i] != CM_NO_PARTNER;
    if (status == CM_OK && met)
        plan->retests = rounds;
    cm_free(lane_retest.states);
    cm_free(lane_retest.pairs);
    return status;
}
