/*
 * crew.h: one world of rank processes, from its start to its end, seen by the supervisor.
 *
 * A step (start, measure, settle, end) follows the ranks until it is reached or something goes
 * wrong:
 *   CM_OK            reached
 *   CM_LOST          the crew is of no more use, and all its processes are gone; `reason` says who
 *                    and why
 *   CM_INTERRUPTED   SIGINT or SIGTERM came   } the crew still runs: cm_crew_kill
 *   CM_TIMEOUT       the hard stop is reached }
 *   any other        the supervisor itself failed; cm_crew_kill
 */
#ifndef HOST_MEASURE_CREW_H
#define HOST_MEASURE_CREW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/measure.h"
#include "host/measure/channel.h"
#include "host/measure/message.h"
#include "host/measure/spawn.h"

/* What the supervisor watches besides a crew. */
struct cm_watch {
    int signals;        /* a signalfd with SIGINT, SIGTERM, SIGHUP, SIGCHLD */
    int caught;         /* the first signal that asks to end; 0 none */
    double hard_stop_s; /* on cm_clock_s; INFINITY for none */
    /* Called after messages, and about once a second when there is something to draw. */
    void (*tick)(void *arg, double now_s);
    void *tick_arg;
};

/* One connection. */
struct cm_peer {
    struct cm_channel channel;
    pid_t pid;
    int rank;                   /* -1 before its hello */
    bool ready;                 /* device and communicator are open */
    bool done;                  /* with the current case */
    bool told;                  /* "stopped": a signal told it to end */
    bool bye;                   /* ended in order */
    bool lost;                  /* the connection is gone */
    unsigned loss;              /* counts up over the crew: who was lost first */
    unsigned failure;           /* likewise: whose error came first */
    struct cm_rank_error error; /* status CM_OK: none */
    char phase[24];
    double heard_s; /* last sign of life */
};

struct cm_crew_config {
    const struct cm_device_ops *device;
    const char *program;
    unsigned ranks;
    uint64_t run;
    double start_timeout_s; /* from fork to hello, and from hello to ready */
    unsigned devices;       /* as in struct cm_job */
    char **bus_ids;         /* of the ranks' devices; NULL where they are not known. Borrowed. */
};

struct cm_crew {
    struct cm_crew_config config;
    struct cm_watch *watch;
    struct cm_listener listener;
    struct cm_processes processes;
    struct cm_peer *peers; /* slots; not all have a rank yet */
    size_t peer_count, slot_count;
    unsigned losses, failures; /* so far */
    double allowed_s;          /* silence of a rank before it counts as stuck */
    double deadline_s;         /* of its report, in words: what `allowed_s` came from */
    bool trouble;              /* something went wrong; what follows is collected for the reason */
    bool ending;               /* ranks may go */
    bool launcher_first;       /* the launcher was gone before any rank */
    bool silent;               /* a rank was silent for too long */
    const char *case_name;     /* being measured; NULL before the first */
    size_t case_index;
    struct cm_meeting_bytes meeting; /* from rank 0, for the others */
    char *topology;                  /* as rank 0's library sees it; NULL when it did not tell */
    bool result_came;                /* in this case */
    bool has_result;                 /* and is still here */
    struct cm_case_run result;
    char reason[512];
};

enum cm_status cm_crew_start(const struct cm_crew_config *config, struct cm_watch *watch,
                             struct cm_crew *crew);
/* Measure a case. *run is set on CM_OK only and is the caller's. */
enum cm_status cm_crew_measure(struct cm_crew *crew, const struct cm_plan *plan, size_t index,
                               double limit_s, struct cm_case_run *run);
/* Wait until every rank is done with the case. */
enum cm_status cm_crew_settle(struct cm_crew *crew);
/* Let the ranks end in order and wait for it. CM_LOST when they did not and were killed. */
enum cm_status cm_crew_end(struct cm_crew *crew);
/* End all processes at once, wait for it, and release the crew. Also after cm_crew_end and after a
 * start that failed. */
void cm_crew_kill(struct cm_crew *crew);

/* The phase that the ranks are in: of rank 0, or of any when it is not there. */
const char *cm_crew_phase(const struct cm_crew *crew);

/* crew_hear.c: take in what a connection brought, and new connections. A failure is the
 * supervisor's own. */
enum cm_status cm_crew_hear(struct cm_crew *crew, struct cm_peer *peer, double now_s);
enum cm_status cm_crew_welcome(struct cm_crew *crew, double now_s);

/* crew_reason.c: say in one line what happened to a crew in trouble. */
void cm_crew_explain(struct cm_crew *crew);

#endif
