/*
 * queue.h: what the backends share.
 *
 * Arguments are checked, groups are collected and failures kept here; a backend opens, splits and
 * closes communicators and executes operations: on the streams' threads, where they are queued as
 * host work, or (`direct`) at once, by queueing work of the device itself.
 *
 * The operations of one communicator execute one after the other in the order in which they were
 * queued, whatever their streams: all ranks queue the same order, so all ranks meet in it. A direct
 * backend sees to that itself.
 */
#ifndef HOST_COMM_QUEUE_H
#define HOST_COMM_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"

enum cm_comm_kind {
    CM_COMM_ALL_REDUCE,
    CM_COMM_REDUCE_SCATTER,
    CM_COMM_ALL_GATHER,
    CM_COMM_ALL_TO_ALL,
    CM_COMM_BROADCAST,
    CM_COMM_SEND,
    CM_COMM_RECV,
};

struct cm_comm_op {
    enum cm_comm_kind kind;
    enum cm_dtype dtype;
    enum cm_reduce reduce;
    unsigned peer; /* of send and recv; the root of a broadcast */
    const void *send;
    void *recv;
    uint64_t count; /* as in the operation's arguments, never 0 */
};

struct cm_comm_group {
    struct cm_comm_op *ops;
    void *scratch; /* the backend's, scratch_size bytes per operation */
    size_t count, ops_capacity, scratch_capacity;
    struct cm_comm_group *next_all, *next_free;
};

struct cm_queue;

/* What a backend executes: on a stream's thread, `stream` is NULL then; or directly, on the thread
 * that queues: it puts the operation on `stream` and does not wait for it. */
struct cm_queue_backend {
    enum cm_status (*execute)(struct cm_queue *queue, struct cm_stream *stream,
                              const struct cm_comm_op *op);
    enum cm_status (*execute_group)(struct cm_queue *queue, struct cm_stream *stream,
                                    const struct cm_comm_group *group);
    size_t scratch_size;
    bool direct;
};

/* A communicator; a backend's structure begins with it. */
struct cm_queue {
    struct cm_comm comm;
    const struct cm_queue_backend *backend;

    /* Used by the thread that queues. */
    uint64_t queued, after;        /* the last operation's place and what it waits for */
    struct cm_stream *last_stream; /* only compared */
    struct cm_comm_group *group;   /* being collected */
    struct cm_stream *group_stream;
    enum cm_status group_status; /* of the first operation that could not join it */

    /* Shared with the streams' threads. */
    _Atomic uint64_t done;    /* the last place executed */
    _Atomic uint64_t passed;  /* how many a stream's thread has left behind */
    _Atomic unsigned waiting; /* threads that sleep until `done` or `broken` changes */
    _Atomic bool broken;      /* failed or aborted */

    /* Shared under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t turn;
    struct cm_comm_group *all_groups, *free_groups;
    bool aborted;
    enum cm_status failed;
    char failure[CM_ERROR_TEXT_MAX];
};

/* Fill a zeroed structure. The caller names the implementation. */
enum cm_status cm_queue_init(struct cm_queue *queue, const struct cm_comm_ops *ops,
                             const struct cm_queue_backend *backend, struct cm_device *device,
                             unsigned rank, unsigned size);

/* Frees what the queue owns. False, with everything left in place, when operations are still
 * queued after an abort: a stream's thread may hold on to it. */
bool cm_queue_release(struct cm_queue *queue);

/* Hooks for a backend's table; CM_QUEUE_HOOKS names them all, CM_QUEUE_OPERATIONS those that
 * queue. */
enum cm_status cm_queue_all_reduce(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                   void *recv, uint64_t count, enum cm_dtype dtype,
                                   enum cm_reduce reduce);
enum cm_status cm_queue_reduce_scatter(struct cm_comm *comm, struct cm_stream *stream,
                                       const void *send, void *recv, uint64_t recv_count,
                                       enum cm_dtype dtype, enum cm_reduce reduce);
enum cm_status cm_queue_all_gather(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                   void *recv, uint64_t send_count, enum cm_dtype dtype);
enum cm_status cm_queue_all_to_all(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                   void *recv, uint64_t count, enum cm_dtype dtype);
enum cm_status cm_queue_broadcast(struct cm_comm *comm, struct cm_stream *stream, void *buffer,
                                  uint64_t count, enum cm_dtype dtype, unsigned root);
enum cm_status cm_queue_send(struct cm_comm *comm, struct cm_stream *stream, const void *buffer,
                             uint64_t count, enum cm_dtype dtype, unsigned peer);
enum cm_status cm_queue_recv(struct cm_comm *comm, struct cm_stream *stream, void *buffer,
                             uint64_t count, enum cm_dtype dtype, unsigned peer);
enum cm_status cm_queue_group_begin(struct cm_comm *comm);
enum cm_status cm_queue_group_end(struct cm_comm *comm);
enum cm_status cm_queue_async_error(struct cm_comm *comm);
void cm_queue_abort(struct cm_comm *comm);

#define CM_QUEUE_OPERATIONS                                                                        \
    .all_reduce = cm_queue_all_reduce, .reduce_scatter = cm_queue_reduce_scatter,                  \
    .all_gather = cm_queue_all_gather, .all_to_all = cm_queue_all_to_all,                          \
    .broadcast = cm_queue_broadcast, .send = cm_queue_send, .recv = cm_queue_recv,                 \
    .group_begin = cm_queue_group_begin, .group_end = cm_queue_group_end
#define CM_QUEUE_HOOKS                                                                             \
    CM_QUEUE_OPERATIONS, .async_error = cm_queue_async_error, .abort = cm_queue_abort

/* Checks of arguments (check.c). */
const char *cm_comm_kind_name(enum cm_comm_kind kind);
enum cm_status cm_comm_check(const struct cm_comm *comm, const struct cm_stream *stream,
                             const struct cm_comm_op *op, bool grouped);
/* Every send to the own rank needs its recv in the same group. */
enum cm_status cm_comm_check_group(const struct cm_comm *comm, const struct cm_comm_group *group);

#endif
