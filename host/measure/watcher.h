/*
 * watcher.h: the process that follows the ranks of an outside launcher's world.
 *
 * One process, a child of rank 0's in a session of its own, so that what ends the ranks does not
 * end it at once. Each rank keeps a connection to it; it judges (culprit.h), says who is to blame,
 * tells all ranks to end and sees to it that rank 0 leaves the result, which is then its own to
 * finish. It ends by itself, always: the kernel kills it when it stops arming a timer.
 */
#ifndef HOST_MEASURE_WATCHER_H
#define HOST_MEASURE_WATCHER_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "host/measure/culprit.h"
#include "host/measure/watch_meet.h"

struct cm_watcher_config {
    unsigned size; /* of the world */
    double silence_s;
    int listener; /* from cm_watch_listen; closed at the end */
    int rank0;    /* the connection of rank 0, its process; closed at the end */
    pid_t rank0_pid;
    struct cm_watch_place place;
};

/* How a watch ended. */
struct cm_watch_end {
    enum cm_fate fate;     /* CM_FATE_OVER: in order */
    bool parted;           /* rank 0 was through before: its result is complete */
    struct cm_place place; /* of the culprit; of rank 0 where there is none */
    char text[512];        /* who, where, when: as it was printed on stderr */
    char reason[512];      /* the same without names of hosts */
};

/* Returns when every rank said goodbye, or when somebody was named and the others were told to
 * end. A failure of its own is CM_FATE_OVER with a line on stderr. */
void cm_watcher_run(const struct cm_watcher_config *config, struct cm_watch_end *end);

/* A timer of the kernel's that kills this process, also when it is stopped, unless it is armed
 * again in time. 0 seconds disarms it. Without a timer to be had there is none. */
struct cm_last_resort {
    timer_t timer;
    bool there;
};
void cm_last_resort_open(struct cm_last_resort *last);
void cm_last_resort_arm(const struct cm_last_resort *last, double seconds);
void cm_last_resort_close(struct cm_last_resort *last);

#endif
