/*
 * suspect.h: a rank or a pair of ranks that one run found slower than the others, with the
 * evidence.
 */
#ifndef CLUSTERMARK_SUSPECT_H
#define CLUSTERMARK_SUSPECT_H

#include <stdbool.h>
#include <stddef.h>

#include "clustermark/status.h"

#define CM_HOST_MAX 64

struct cm_suspect {
    char what[32]; /* at what: "sending", "receiving", "sending and receiving", ... */
    unsigned rank;
    unsigned peer;                                  /* of a pair, its receiver; else CM_NO_PEER */
    char host[CM_HOST_MAX], peer_host[CM_HOST_MAX]; /* the harness fills them in */
    double effect;     /* of its rate, relative to the others: -0.9 is a tenth of it */
    double low, high;  /* 95 % interval of that */
    double p;          /* of a false alarm, all ranks being looked at */
    char partners[64]; /* ranks that it met in the retest: "0, 3, 7"; "" none */
    double retest;     /* the effect there; NAN: there was no retest */
    bool confirmed;    /* by the retest */
};
#define CM_NO_PEER (-1u)

struct cm_suspects {
    struct cm_suspect *items;
    size_t count, capacity;
};
enum cm_status cm_suspects_add(struct cm_suspects *suspects, const struct cm_suspect *suspect);
void cm_suspects_release(struct cm_suspects *suspects);

#endif
