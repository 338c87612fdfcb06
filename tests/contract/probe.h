/*
 * probe.h: a workload for testing the harness: it copies numbers, counts its calls, and fails where
 * it is told to.
 */
#ifndef TESTS_CONTRACT_PROBE_H
#define TESTS_CONTRACT_PROBE_H

#include "clustermark/workload.h"

enum probe_fault {
    PROBE_SOUND,
    PROBE_SETUP,    /* setup fails before the collective calls of the context */
    PROBE_SKIP,     /* setup cannot be done on this device */
    PROBE_HUGE,     /* asks for more memory than there is */
    PROBE_FOREIGN,  /* declares memory as output that is not the case's */
    PROBE_LEAVES,   /* does not make the collective calls that the others make */
    PROBE_PARTS,    /* sees one part more */
    PROBE_BEGIN,    /* the series cannot begin, and the others wait for this rank there */
    PROBE_ENQUEUE,  /* the third iteration cannot be queued */
    PROBE_ASYNC,    /* queued work fails */
    PROBE_LANE,     /* and on another stream, which nothing waits for */
    PROBE_LATE,     /* queued work fails, and later that of another stream too */
    PROBE_HANGS,    /* queued work takes long */
    PROBE_IDLES,    /* nothing is written but in the warm-up */
    PROBE_CHECK,    /* the check itself fails */
    PROBE_BREAKS,   /* and leaves queued work that takes long */
    PROBE_WRONG,    /* the check finds mismatches */
    PROBE_UNSEEN,   /* the check looks at nothing and gives no reason */
    PROBE_UNNEEDED, /* the check looks at nothing and says why */
    PROBE_EXTEND,   /* what follows from the first parts cannot be said */
    PROBE_FIND,     /* nor who is slow */
    PROBE_METRICS   /* the figures cannot be computed */
};

struct probe_params {
    enum probe_fault fault;
    unsigned fault_rank; /* where */
    unsigned parts;      /* 0: one without a name */
    unsigned more;       /* parts that follow from those, a second time too */
    bool last_idle;      /* the last rank has nothing to do in the last part */
    bool collective;     /* an iteration also reduces over the ranks */
    unsigned slow_us;    /* an iteration of the last rank takes at least this long */
    struct cm_part part; /* of every part but for name and idle */
};

/* What was called, in this process, since it was last cleared. */
struct probe_calls {
    unsigned setups, teardowns, checks;
    unsigned extends;
    unsigned begins;      /* with the outputs poisoned */
    uint64_t enqueued[2]; /* per part, warm-up included */
    uint64_t timed[2];    /* iterations since the last one that was number 0 */
    unsigned series[2];   /* warm-up and timed */
    bool in_order;        /* iterations count up by one from 0 */
    unsigned rotation;
    uint64_t memory_left;
    uint64_t seed;
};
extern struct probe_calls probe_calls;
extern const struct cm_workload probe_workload;
/* The same, but it needs peers. */
extern const struct cm_workload probe_pair;

#endif
