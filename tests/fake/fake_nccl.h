/*
 * fake_nccl.h: what the files of the fake NCCL share.
 *
 * The ranks of a communicator have a piece of memory in common, which the process that made the
 * unique id holds open; there they say what they want and read each other's device memory. An
 * operation is work in a stream that is tried again until every rank that it needs has come to it.
 */
#ifndef TESTS_FAKE_FAKE_NCCL_H
#define TESTS_FAKE_FAKE_NCCL_H

#include <nccl.h>
#include <stdatomic.h>

#include "fake/fake.h"

enum { RANKS_MAX = 16, SPLITS = 4 };
enum { FAKE_ABORTED = 1, FAKE_LEFT };

enum fake_kind {
    FAKE_ALL_REDUCE,
    FAKE_REDUCE_SCATTER,
    FAKE_ALL_GATHER,
    FAKE_ALL_TO_ALL,
    FAKE_BROADCAST,
    FAKE_SEND,
    FAKE_RECV
};

/* What a rank brings to a collective, or sends: where it is, and when. */
struct fake_offer {
    enum fake_kind kind;
    ncclDataType_t type;
    ncclRedOp_t reduce;
    int root;
    size_t count;
    int pid, file;
    size_t offset;
    double time_s;
};

struct fake_slot {
    _Atomic uint64_t posted, read; /* the number of the collective */
    struct fake_offer offer;
};

struct fake_mail {
    _Atomic uint64_t posted, taken; /* the number of the message */
    struct fake_offer offer;
    double end_s;
};

struct fake_member {
    _Atomic int pid;  /* 0: has not joined */
    _Atomic int gone; /* FAKE_ABORTED; FAKE_LEFT: in order, done with all that others need of it */
    unsigned device;
    uint64_t host; /* equal on one node alone */
};

struct fake_split {
    _Atomic uint64_t posted, made; /* the number of the split */
    int color, key;
    int pid, file; /* of the part, when this rank is its first */
};

struct fake_shared {
    _Atomic int size;
    struct fake_member members[RANKS_MAX];
    struct fake_slot slots[RANKS_MAX][2];
    struct fake_mail mail[RANKS_MAX][RANKS_MAX]; /* from, to */
    struct fake_split splits[RANKS_MAX][SPLITS];
};

/* Memory of another process, mapped whole. */
struct fake_window {
    int pid, file;
    unsigned char *start;
    size_t size;
    struct fake_window *next;
};

struct fake_op {
    enum fake_kind kind;
    ncclDataType_t type;
    ncclRedOp_t reduce;
    int peer; /* or root */
    size_t count;
    const void *send;
    void *recv;
    /* Once it runs: */
    enum { FAKE_NEW, FAKE_POSTED, FAKE_READ, FAKE_OVER } stage;
    uint64_t number;
    unsigned char *result;
    double start_s;
};

struct fake_batch {
    struct fake_work work;
    struct ncclComm *comm;
    struct CUstream_st *stream;
    uint64_t number;
    struct fake_op *ops;
    size_t count, capacity;
    double end_s;
    struct fake_batch *next; /* of its communicator */
};

struct ncclComm {
    uint32_t mark;
    int rank, size;
    bool blocking, aborted, released;
    struct fake_shared *shared;
    ncclResult_t state;
    unsigned polls;
    /* What is going on in the background, when the state is ncclInProgress. */
    enum { FAKE_IDLE, FAKE_JOINING, FAKE_SPLITTING, FAKE_QUEUING, FAKE_ENDING } doing;
    int given_file; /* of the shared memory; -1: opened by the id */
    ncclUniqueId id;
    int color, key;
    ncclComm_t *part;
    struct fake_batch *queuing;
    struct fake_batch *batches; /* in streams */
    uint64_t queued, done;      /* batches */
    double time_s;              /* when the last of them was done */
    uint64_t collectives, splits, sent[RANKS_MAX], received[RANKS_MAX];
    double looked_s;
    unsigned registrations;
};

/* The header gives them no prototype. */
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

/* fake_nccl.c */
void fake_check_comm(const struct ncclComm *comm, const char *call);
void fake_comm_release(struct ncclComm *comm);
ncclResult_t fake_nccl_fail(struct ncclComm *comm, ncclResult_t result, const char *text);
/* Goes on with what goes on in the background, when this is asked often enough. */
void fake_comm_poll(struct ncclComm *comm);
/* Notices ranks that are gone. */
void fake_comm_look(struct ncclComm *comm);
/* What a call gives that begins something in the background. */
ncclResult_t fake_comm_begin(struct ncclComm *comm);
ncclResult_t fake_nccl_enter(const char *call);
ncclResult_t fake_nccl_leave(ncclResult_t result);

/* fake_nccl_calls.c */
void fake_forget_registrations(struct ncclComm *comm);

/* fake_nccl_shared.c */
struct fake_shared *fake_shared_make(int *file);
struct fake_shared *fake_shared_open(int pid, int file);
struct fake_shared *fake_shared_meet(uint64_t number); /* by a name that all know */
void fake_shared_forget(uint64_t number);
void fake_shared_drop(struct fake_shared *shared);
/* A member that is no more, -1 for none. */
int fake_shared_lost(const struct fake_shared *shared, int size);
const unsigned char *fake_shared_memory(const struct fake_offer *offer);
/* Tries all of a batch; true when it is done. */
bool fake_batch_progress(struct fake_batch *batch, double start_s);
size_t fake_type_size(ncclDataType_t type);

#endif
