/*
 * watchdog.h: a rank's side of the watch over a world that an outside launcher started.
 *
 * A thread keeps a connection to the watcher (watcher.h), says where the rank is, and ends the
 * process when the watcher says so, when nothing is heard from it, or when a signal asks for it. A
 * process that is stopped is killed by its own timer.
 */
#ifndef HOST_MEASURE_WATCHDOG_H
#define HOST_MEASURE_WATCHDOG_H

#include "clustermark/comm.h"
#include "host/measure/vote.h"
#include "host/measure/watcher.h"

struct cm_watchdog;

/* On every rank, before there are threads. Rank 0 forks the watcher: in its process, and there
 * alone, this comes back only after somebody was named, with *dog NULL and *end telling of it;
 * everywhere else end->fate is CM_FATE_FINE. One rank, or a silence of 0 s, is not watched: *dog is
 * NULL, which all of the below accept. */
enum cm_status cm_watchdog_open(const struct cm_world *world, double silence_s,
                                struct cm_watchdog **dog, struct cm_watch_end *end);

/* Connect to the watcher, with all ranks: when one cannot, none is watched and rank 0 says so. */
enum cm_status cm_watchdog_join(struct cm_watchdog **dog, struct cm_vote *vote);

/* Where the rank is: cheap, for every phase and batch. */
struct cm_watch_note {
    const char *name; /* of the case; NULL outside of one */
    uint64_t case_index, run;
    const char *phase;
    double allowed_s; /* without another note */
};
void cm_watchdog_note(struct cm_watchdog *dog, const struct cm_watch_note *note);

/* Around what must not be cut short by the end of the process: the writing of a result. */
void cm_watchdog_hold(struct cm_watchdog *dog);
void cm_watchdog_release(struct cm_watchdog *dog);

/* This rank cannot go on, and the other ranks cannot agree with it: tells why, and waits to be
 * ended. Comes back, with the error's text as it was, when nobody does that. */
void cm_watchdog_give_up(struct cm_watchdog *dog, enum cm_status status);

/* Through: say goodbye. */
void cm_watchdog_close(struct cm_watchdog *dog);

#endif
