/*
 * vote.h: how the ranks of a case stay together.
 *
 * A rank that fails keeps going until the next round, in which all ranks learn that somebody
 * failed, who, and why; so nobody is left waiting for one that has gone. Rounds travel through the
 * communicator under test, on the timed stream, in buffers that are made when the case starts.
 *
 * Functions return CM_OK when the ranks have spoken to each other, whatever they said: the outcome
 * is in `agreed`. Another status means that they cannot agree any more, and the process must end.
 */
#ifndef HOST_MEASURE_VOTE_H
#define HOST_MEASURE_VOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/error.h"

/* Most values of a round. */
#define CM_VOTE_VALUES_MAX 1024
/* Most bytes that a rank gives to a gathering. */
#define CM_GATHER_MAX 4096

struct cm_failure {
    enum cm_status status; /* CM_OK: none */
    char text[CM_ERROR_TEXT_MAX];
};

struct cm_vote {
    struct cm_device *device;
    struct cm_comm *comm;
    struct cm_stream *stream;
    double timeout_s;
    double *host; /* pinned: a header, then the values */
    void *shared; /* the same for the communicator */
    void *note_host, *note_shared;
    char *gather_host;
    void *gather_send, *gather_receive;
    struct cm_failure own;    /* of this rank, not told yet or just told */
    struct cm_failure agreed; /* what all ranks know; the case is over then */
    unsigned agreed_rank;
    bool stuck; /* what this rank queued is not done: nothing can be agreed on any more */
};

/* On failure *vote holds nothing. */
enum cm_status cm_vote_open(struct cm_device *device, struct cm_comm *comm,
                            struct cm_stream *stream, double timeout_s, struct cm_vote *vote);
void cm_vote_close(struct cm_vote *vote);
/* Of the buffers of a vote among so many ranks. */
uint64_t cm_vote_bytes(unsigned ranks);

/* Remember a failure of this rank for the next round; the first one counts. CM_OK is fine. */
void cm_vote_note(struct cm_vote *vote, enum cm_status status);

/* The values of the next round, to be set before and read after it. */
double *cm_vote_values(struct cm_vote *vote);

/* A round in the middle of a phase: each value becomes the largest over the ranks. A rank that has
 * ended the phase meanwhile is a failure. */
enum cm_status cm_vote_round(struct cm_vote *vote, size_t count);

/* End a phase: comes back when every rank is there. */
enum cm_status cm_vote_phase(struct cm_vote *vote);

/* `size` bytes (at most CM_GATHER_MAX) of each rank, in order, on every rank; *all is good until
 * the next gathering. */
enum cm_status cm_vote_gather(struct cm_vote *vote, const void *own, size_t size, const void **all);

/* Whether the ranks cannot agree after a failure of this kind: what was queued is not done. */
bool cm_status_fatal(enum cm_status status);

/* What a failure counts as, right after it: a wait that a communicator's failure ended (CM_TIMEOUT
 * of cm_sync, as nothing is done) as that failure. */
enum cm_status cm_failure_status(enum cm_status status);

/* How likely an error is the consequence of something else, 0 to 2: communication may fail where a
 * peer is gone, and who waited in vain for another says no more than that. */
int cm_status_doubt(enum cm_status status);

#endif
