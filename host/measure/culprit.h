/*
 * culprit.h: who is to blame when a world of ranks gets stuck, from who said what when.
 *
 * Numbers in, a name out: no clock, no sockets. The watcher (watcher.h) fills the table.
 */
#ifndef HOST_MEASURE_CULPRIT_H
#define HOST_MEASURE_CULPRIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"
#include "clustermark/strbuf.h"
#include "host/measure/message.h"

/* Where a rank is. */
struct cm_place {
    bool in_case;
    uint64_t case_index, run;
    char name[80];      /* of the case, perhaps cut */
    char phase[24];     /* "warm-up"; without a case "joining the other ranks" */
    uint64_t steps;     /* phases begun: all ranks go through the same ones */
    uint64_t ticks;     /* signs of progress within them */
    double allowed_s;   /* without progress, before the rank counts as stalled */
    uint64_t common;    /* operations of all ranks together queued so far: all queue the same */
    char operation[80]; /* the last one: "all_reduce of 1024 f32 among 4 ranks"; "" none */
};

/* The last that a rank said. Before it goes, a rank says why: one of these, or it died. */
enum cm_word {
    CM_WORD_NONE,
    CM_WORD_BYE,    /* it is through */
    CM_WORD_TOLD,   /* a signal asked it to end */
    CM_WORD_FAILED, /* with `error`; it waits to be ended */
};

/* A rank as the watcher knows it. Times are on one clock. */
struct cm_watched {
    bool joined;
    char host[64], device[80];
    bool near; /* on the watcher's own host */
    struct cm_place place;
    double heard_s; /* its last message */
    double moved_s; /* its last progress */
    enum cm_word word;
    double word_s;
    struct cm_rank_error error;
    unsigned loss; /* its connection was closed, as which one of all; 0: it is open */
};

enum cm_fate {
    CM_FATE_FINE,
    CM_FATE_OVER,    /* every rank said goodbye */
    CM_FATE_DIED,    /* closed its connection without a word */
    CM_FATE_FAILED,  /* told why itself */
    CM_FATE_SILENT,  /* stopped, or cut off */
    CM_FATE_CUT_OFF, /* the watcher's host, from all others */
    CM_FATE_STALLED, /* makes no progress, and is behind the others */
    CM_FATE_TOLD,    /* got a signal, alone */
    CM_FATE_ENDED,   /* all got a signal */
};

struct cm_culprit {
    enum cm_fate fate;
    unsigned rank;   /* of OVER and ENDED none */
    unsigned others; /* ranks that are in the same way */
    double for_s;    /* silent or without progress */
};

/* `silence_s`: a rank that was not heard of for longer is lost; ranks speak five times as often. */
struct cm_culprit cm_judge(const struct cm_watched *ranks, unsigned count, double silence_s,
                           double now_s);

/* In one line. Without `hosts` their names are left out. */
void cm_culprit_text(const struct cm_watched *ranks, const struct cm_culprit *culprit, bool hosts,
                     struct cm_str *out);

/* "in measurement of gemm, after all_reduce of 4 f32 among 2 ranks" */
void cm_place_text(const struct cm_place *place, struct cm_str *out);

#endif
