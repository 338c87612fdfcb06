/*
 * parallel.h: how a training step is spread over ranks, and which of them belong together.
 *
 * A plan reads "dp=2,tp=2,pp=2,cp=1,ep=1,zero=1,sp=1,vpp=1"; what is not named is 1 (zero and sp:
 * 0). dp * tp * pp * cp ranks: rank = ((pp * DP + dp) * CP + cp) * TP + tp, so that tensor groups
 * are neighbours. Expert groups are ep consecutive ones of the dp * cp ranks of equal tp and pp.
 */
#ifndef CLUSTERMARK_PARALLEL_H
#define CLUSTERMARK_PARALLEL_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/status.h"
#include "clustermark/strbuf.h"
#include "clustermark/transformer.h"

struct cm_parallel {
    unsigned dp, tp, pp, cp, ep;
    unsigned
        zero;     /* 0 none, 1 optimizer, 2 and gradients, 3 and weights are sharded over dp * cp */
    unsigned sp;  /* 1: sequence parallel, norms and residuals split over the tensor group */
    unsigned vpp; /* chunks of layers of each pipeline stage (interleaved) */
};

/* `where` begins the message of an error (CM_USAGE). */
enum cm_status cm_parallel_parse(const char *text, const char *where, struct cm_parallel *parallel);
/* The shortest text that reads back to the same: "dp=2,zero=1"; "dp=1" for one rank. */
void cm_parallel_write(const struct cm_parallel *parallel, struct cm_str *out);
unsigned cm_parallel_ranks(const struct cm_parallel *parallel);

/* Whether that model can be run so, with `micro_batches` micro-batches of `micro_batch` sequences
 * on each data-parallel rank. CM_USAGE with the reason and what would do: heads, kv heads, ffn,
 * experts that tp or ep do not divide; a sequence that 2 * cp (and tp with sp) do not divide; fewer
 * layers than pp * vpp; vpp > 1 with pp = 1 or micro_batches no multiple of pp; sp without tp; zero
 * or ep that has nothing to be spread over ... */
enum cm_status cm_parallel_check(const struct cm_parallel *parallel,
                                 const struct cm_transformer *transformer, uint64_t micro_batches,
                                 uint64_t micro_batch, const char *where);

struct cm_coordinates {
    unsigned tp, cp, dp, pp;  /* 0-based, within their groups */
    unsigned data;            /* dp * CP + cp: within the data group */
    unsigned ep, expert_data; /* data = expert_data * EP + ep */
};
void cm_parallel_coordinates(const struct cm_parallel *parallel, unsigned rank,
                             struct cm_coordinates *coordinates);
unsigned cm_parallel_rank(const struct cm_parallel *parallel,
                          const struct cm_coordinates *coordinates);

/* Communicators of a step. All are made by splits of the world, in this order, by every rank. */
enum cm_group {
    CM_GROUP_WORLD,
    CM_GROUP_TENSOR,
    CM_GROUP_CONTEXT,
    CM_GROUP_DATA,        /* dp * cp */
    CM_GROUP_EXPERT,      /* ep */
    CM_GROUP_EXPERT_DATA, /* dp * cp / ep: those that have the same experts */
    CM_GROUP_TIED,        /* first and last stage, where the embedding is the head's too */
    CM_GROUP_FORWARD_OUT, /* two ranks each, the sender is rank 0: activations to the next stage, */
    CM_GROUP_FORWARD_IN,  /* from the one before, */
    CM_GROUP_BACKWARD_OUT, /* gradients to the stage before, */
    CM_GROUP_BACKWARD_IN,  /* from the next */
    CM_GROUP_COUNT
};
extern const char *const cm_group_names[];
/* Groups between stages have two names: what one sends out comes in at the other. Others: itself.
 */
enum cm_group cm_group_other_end(enum cm_group group);

/* Every rank does `cm_parallel_splits` splits of the world, in order. Number `index` gives this
 * rank its communicator of *group; a negative color: it joins none in this one (groups of one rank
 * have no communicator). Edges between stages are a chain, a ring when vpp > 1, and a rank is at
 * the end of one and at the beginning of the next: they take several splits, so that no two edges
 * of a split share a rank. In a pair the sender is rank 0. */
unsigned cm_parallel_splits(const struct cm_parallel *parallel);
void cm_parallel_split(const struct cm_parallel *parallel, const struct cm_transformer *transformer,
                       unsigned rank, unsigned index, enum cm_group *group, int *color, int *key);
/* How many ranks are in that rank's group; 1 where there is no communicator. */
unsigned cm_parallel_group_size(const struct cm_parallel *parallel,
                                const struct cm_transformer *transformer, unsigned rank,
                                enum cm_group group);

/* Which groups stay within a node and which cross: "tensor groups of 8 within a node; pipelines of
 * 2 across 2 nodes; data groups of 16 across 16 nodes". node_of[rank] numbers the nodes from 0,
 * below the number of ranks. */
enum cm_status cm_parallel_spread(const struct cm_parallel *parallel, const unsigned *node_of,
                                  struct cm_str *out);

/* The layers [*first, *end) of chunk `chunk` (of vpp) on stage `stage` (of pp): chunk c of stage s
 * is part c * pp + s of the model, parts as equal as they can be, the first ones one larger. */
void cm_parallel_layers(const struct cm_parallel *parallel, uint64_t layers, unsigned stage,
                        unsigned chunk, uint64_t *first, uint64_t *end);

#endif
