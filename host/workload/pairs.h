/*
 * pairs.h: what the files of the workload `pairs` share.
 */
#ifndef HOST_WORKLOAD_PAIRS_H
#define HOST_WORKLOAD_PAIRS_H

#include "clustermark/pairs.h"
#include "clustermark/workload.h"

struct cm_pairs_params {
    uint64_t size_bytes, rounds, retests;
    double margin, risk;
    int between;
    bool both, rotate;
};

/* Who meets whom. Units that may meet form a lane: all ranks, or, between nodes, those with the
 * same place on their node, so that each has a network card's worth of traffic. */
struct cm_pairs_plan {
    unsigned ranks, lanes;
    unsigned *lane_of, *index_of; /* per rank; its place in the lane */
    unsigned *lane_begin;         /* per lane, in `members`; one more at the end */
    unsigned *members;            /* ranks, lane by lane */
    unsigned rounds, retests;
    unsigned *partner; /* [round * ranks + rank], those of the retest behind */
    const unsigned *node_of;
    bool between_nodes;
};

enum cm_status cm_pairs_plan_make(unsigned ranks, const unsigned *node_of, int between,
                                  unsigned rounds, uint64_t seed, struct cm_pairs_plan *plan);
void cm_pairs_plan_release(struct cm_pairs_plan *plan);

/* What the times of the first rounds say; or, with those of the retest, of whom it is confirmed. */
struct cm_pairs_verdict {
    unsigned char *states;    /* per rank: enum cm_unit_state, for the retest */
    struct cm_pair_of *pairs; /* suspected, of ranks; 0 -> no more than CM_PAIRS_SUSPECTED */
    size_t pair_count;
    struct cm_suspects suspects;
};
#define CM_PAIRS_SUSPECTED 64
enum cm_status cm_pairs_judge(const struct cm_pairs_params *params,
                              const struct cm_pairs_plan *plan, double bytes,
                              const struct cm_part_samples *parts,
                              struct cm_pairs_verdict *verdict);
void cm_pairs_verdict_release(struct cm_pairs_verdict *verdict);

/* Adds rounds to the plan in which those that are suspected meet others. The same on every rank. */
enum cm_status cm_pairs_plan_retest(struct cm_pairs_plan *plan, const unsigned char *states,
                                    const struct cm_pair_of *pairs, size_t pair_count,
                                    unsigned rounds, uint64_t seed);

/* Parts of a round: one, or there (from the lower rank to the higher) and back. */
static inline unsigned cm_pairs_parts(const struct cm_pairs_params *params)
{
    return params->both ? 1 : 2;
}

/* Whether `rank` sends to its partner in that part. */
static inline bool cm_pairs_sends(const struct cm_pairs_params *params, unsigned part,
                                  unsigned rank, unsigned partner)
{
    return params->both || (rank < partner) == (part % 2 == 0);
}

/* The log rate from one to the other, by the slower end's time; NAN where it was not measured. */
double cm_pairs_rate(const struct cm_part_samples *part, double bytes, unsigned from, unsigned to);

#endif
