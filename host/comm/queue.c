/* Queueing of communication on streams, in one order per communicator. */
#include "host/comm/queue.h"

#include <inttypes.h>
#include <string.h>

#include "clustermark/memory.h"

/* What a stream's thread gets. `ticket` is the operation's place in the communicator's order, from
 * 1; `after` the last place before it that is on another stream. What came before on its own stream
 * is done or was skipped by the time it runs, so one stream never waits here. */
struct queued {
    struct cm_queue *queue;
    uint64_t ticket, after;
    struct cm_comm_group *group; /* NULL for a single operation */
    struct cm_comm_op op;
};
_Static_assert(sizeof(struct queued) <= CM_CALL_ARGS_MAX, "a call's arguments must fit");

/* What was queued last, for whoever asks where this process is. Plain stores: this is on the way of
 * what is measured. */
static struct {
    _Atomic uint64_t number, common, count;
    _Atomic unsigned kind, dtype, ranks;
    _Atomic unsigned world; /* the size of the largest communicator so far */
} last;

static void note(const struct cm_queue *queue, const struct cm_comm_op *op)
{
    atomic_store_explicit(&last.kind, (unsigned)op->kind, memory_order_relaxed);
    atomic_store_explicit(&last.dtype, (unsigned)op->dtype, memory_order_relaxed);
    atomic_store_explicit(&last.count, op->count, memory_order_relaxed);
    atomic_store_explicit(&last.ranks, queue->comm.size, memory_order_relaxed);
    uint64_t number = atomic_load_explicit(&last.number, memory_order_relaxed);
    atomic_store_explicit(&last.number, number + 1, memory_order_relaxed);
    if (queue->comm.size < last.world || op->kind == CM_COMM_SEND || op->kind == CM_COMM_RECV)
        return;
    uint64_t common = atomic_load_explicit(&last.common, memory_order_relaxed);
    atomic_store_explicit(&last.common, common + 1, memory_order_relaxed);
}

void cm_comm_last(struct cm_comm_note *told)
{
    *told = (struct cm_comm_note){
        .number = last.number,
        .common = last.common,
        .name = cm_comm_kind_name((enum cm_comm_kind)last.kind),
        .count = last.count,
        .dtype = (enum cm_dtype)last.dtype,
        .ranks = last.ranks,
    };
}

enum cm_status cm_queue_init(struct cm_queue *queue, const struct cm_comm_ops *ops,
                             const struct cm_queue_backend *backend, struct cm_device *device,
                             unsigned rank, unsigned size)
{
    queue->comm.ops = ops;
    queue->comm.device = device;
    queue->comm.rank = rank;
    queue->comm.size = size;
    queue->backend = backend;
    if (size > last.world)
        last.world = size;
    if (pthread_mutex_init(&queue->lock, NULL) != 0)
        return cm_error(CM_SYSTEM, "%s: no mutex to be had", ops->name);
    if (pthread_cond_init(&queue->turn, NULL) != 0) {
        pthread_mutex_destroy(&queue->lock);
        return cm_error(CM_SYSTEM, "%s: no condition variable to be had", ops->name);
    }
    return CM_OK;
}

bool cm_queue_release(struct cm_queue *queue)
{
    if (queue->aborted && queue->passed < queue->queued)
        return false;
    while (queue->all_groups != NULL) {
        struct cm_comm_group *group = queue->all_groups;
        queue->all_groups = group->next_all;
        cm_free(group->ops);
        cm_free(group->scratch);
        cm_free(group);
    }
    pthread_cond_destroy(&queue->turn);
    pthread_mutex_destroy(&queue->lock);
    return true;
}

/* Called with the lock held. Records why nothing more can be done, CM_OK when it can. */
static enum cm_status health(const struct cm_queue *queue)
{
    if (queue->failed != CM_OK)
        return cm_error(queue->failed, "%s", queue->failure);
    if (queue->aborted)
        return cm_error(CM_COMM, "%s: rank %u has given this communicator up",
                        queue->comm.ops->name, queue->comm.rank);
    return CM_OK;
}

/* Neither a turn that has come nor its end takes the lock: they are part of what is measured. Who
 * waits counts itself and looks again; who changes something looks at the count afterwards. */
static enum cm_status take_turn(struct cm_queue *queue, uint64_t after)
{
    if (!queue->broken && queue->done >= after)
        return CM_OK;
    pthread_mutex_lock(&queue->lock);
    queue->waiting += 1;
    enum cm_status status = health(queue);
    while (status == CM_OK && queue->done < after) {
        pthread_cond_wait(&queue->turn, &queue->lock);
        status = health(queue);
    }
    queue->waiting -= 1;
    pthread_mutex_unlock(&queue->lock);
    return status;
}

static void wake(struct cm_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    pthread_cond_broadcast(&queue->turn);
    pthread_mutex_unlock(&queue->lock);
}

static void give_back(struct cm_queue *queue, struct cm_comm_group *group)
{
    pthread_mutex_lock(&queue->lock);
    group->next_free = queue->free_groups;
    queue->free_groups = group;
    pthread_mutex_unlock(&queue->lock);
}

static void keep_failure(struct cm_queue *queue, enum cm_status status)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->failed == CM_OK) {
        queue->failed = status;
        memcpy(queue->failure, cm_error_text(), strnlen(cm_error_text(), CM_ERROR_TEXT_MAX - 1));
    }
    queue->broken = true;
    pthread_mutex_unlock(&queue->lock);
}

static enum cm_status execute(const struct queued *item, struct cm_stream *stream)
{
    const struct cm_queue_backend *backend = item->queue->backend;
    return item->group != NULL ? backend->execute_group(item->queue, stream, item->group)
                               : backend->execute(item->queue, stream, &item->op);
}

static enum cm_status run_queued(const void *args)
{
    const struct queued *item = args;
    struct cm_queue *queue = item->queue;
    enum cm_status status = take_turn(queue, item->after);
    if (status == CM_OK)
        status = execute(item, NULL);
    if (status != CM_OK)
        keep_failure(queue, status);
    if (item->group != NULL)
        give_back(queue, item->group);
    queue->done = item->ticket;
    if (queue->waiting > 0)
        wake(queue);
    queue->passed += 1; /* the last touch: the queue may be freed after it */
    return status;
}

static enum cm_status put_on_stream(struct cm_queue *queue, struct cm_stream *stream,
                                    struct queued *item, const char *what)
{
    enum cm_status status = cm_queue_async_error(&queue->comm);
    if (status != CM_OK)
        return status;
    item->queue = queue;
    note(queue, item->group != NULL ? &item->group->ops[0] : &item->op);
    if (queue->backend->direct) {
        status = execute(item, stream);
        if (status != CM_OK)
            keep_failure(queue, status);
        return status;
    }
    item->ticket = queue->queued + 1;
    item->after = queue->last_stream != stream ? queue->queued : queue->after;
    status = queue->comm.device->ops->call(stream, run_queued, item, sizeof *item, what);
    if (status != CM_OK)
        return status;
    queue->queued = item->ticket;
    queue->after = item->after;
    queue->last_stream = stream;
    return CM_OK;
}

/* Add an operation to the group that is being collected. */
static enum cm_status join_group(struct cm_queue *queue, struct cm_stream *stream,
                                 const struct cm_comm_op *op)
{
    struct cm_comm_group *group = queue->group;
    if (queue->group_stream != NULL && queue->group_stream != stream)
        return cm_error(CM_USAGE, "%s: the group's operations are on another stream; use one",
                        cm_comm_kind_name(op->kind));
    if (cm_grow(&group->ops, &group->ops_capacity, group->count + 1, sizeof *group->ops) != 0)
        return CM_NO_MEMORY;
    if (queue->backend->scratch_size > 0 &&
        cm_grow(&group->scratch, &group->scratch_capacity, group->count + 1,
                queue->backend->scratch_size) != 0)
        return CM_NO_MEMORY;
    group->ops[group->count++] = *op;
    queue->group_stream = stream;
    return CM_OK;
}

static enum cm_status enqueue(struct cm_comm *comm, struct cm_stream *stream,
                              const struct cm_comm_op *op)
{
    struct cm_queue *queue = (struct cm_queue *)comm;
    enum cm_status status = cm_comm_check(comm, stream, op, queue->group != NULL);
    if (queue->group != NULL) {
        if (status == CM_OK && op->count > 0)
            status = join_group(queue, stream, op);
        if (queue->group_status == CM_OK)
            queue->group_status = status;
        return status;
    }
    if (status != CM_OK || op->count == 0)
        return status;
    struct queued item = {.op = *op};
    return put_on_stream(queue, stream, &item, cm_comm_kind_name(op->kind));
}

enum cm_status cm_queue_group_begin(struct cm_comm *comm)
{
    struct cm_queue *queue = (struct cm_queue *)comm;
    if (queue->group != NULL)
        return cm_error(CM_USAGE, "group_begin: groups do not nest; end the first one before");
    pthread_mutex_lock(&queue->lock);
    struct cm_comm_group *group = queue->free_groups;
    if (group != NULL)
        queue->free_groups = group->next_free;
    pthread_mutex_unlock(&queue->lock);
    if (group == NULL) {
        group = cm_alloc(1, sizeof *group);
        if (group == NULL)
            return CM_NO_MEMORY;
        group->next_all = queue->all_groups;
        queue->all_groups = group;
    }
    group->count = 0;
    queue->group = group;
    queue->group_stream = NULL;
    queue->group_status = CM_OK;
    return CM_OK;
}

enum cm_status cm_queue_group_end(struct cm_comm *comm)
{
    struct cm_queue *queue = (struct cm_queue *)comm;
    struct cm_comm_group *group = queue->group;
    if (group == NULL)
        return cm_error(CM_USAGE, "group_end: no group was begun");
    queue->group = NULL;
    enum cm_status status = queue->group_status;
    if (status != CM_OK)
        cm_error(status, "group_end: nothing was queued, because an operation of the group failed");
    else
        status = cm_comm_check_group(comm, group);
    if (status == CM_OK && group->count > 0) {
        struct queued item = {.group = group};
        status = put_on_stream(queue, queue->group_stream, &item, "group");
        if (status == CM_OK && !queue->backend->direct)
            return CM_OK; /* the stream's thread gives the group back */
    }
    give_back(queue, group);
    return status;
}

enum cm_status cm_queue_async_error(struct cm_comm *comm)
{
    struct cm_queue *queue = (struct cm_queue *)comm;
    if (!queue->broken)
        return CM_OK;
    pthread_mutex_lock(&queue->lock);
    enum cm_status status = health(queue);
    pthread_mutex_unlock(&queue->lock);
    return status;
}

void cm_queue_abort(struct cm_comm *comm)
{
    struct cm_queue *queue = (struct cm_queue *)comm;
    pthread_mutex_lock(&queue->lock);
    queue->aborted = true;
    queue->broken = true;
    pthread_cond_broadcast(&queue->turn);
    pthread_mutex_unlock(&queue->lock);
}

enum cm_status cm_queue_all_reduce(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                   void *recv, uint64_t count, enum cm_dtype dtype,
                                   enum cm_reduce reduce)
{
    return enqueue(comm, stream,
                   &(struct cm_comm_op){.kind = CM_COMM_ALL_REDUCE,
                                        .send = send,
                                        .recv = recv,
                                        .count = count,
                                        .dtype = dtype,
                                        .reduce = reduce});
}

enum cm_status cm_queue_reduce_scatter(struct cm_comm *comm, struct cm_stream *stream,
                                       const void *send, void *recv, uint64_t recv_count,
                                       enum cm_dtype dtype, enum cm_reduce reduce)
{
    return enqueue(comm, stream,
                   &(struct cm_comm_op){.kind = CM_COMM_REDUCE_SCATTER,
                                        .send = send,
                                        .recv = recv,
                                        .count = recv_count,
                                        .dtype = dtype,
                                        .reduce = reduce});
}

enum cm_status cm_queue_all_gather(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                   void *recv, uint64_t send_count, enum cm_dtype dtype)
{
    return enqueue(comm, stream,
                   &(struct cm_comm_op){.kind = CM_COMM_ALL_GATHER,
                                        .send = send,
                                        .recv = recv,
                                        .count = send_count,
                                        .dtype = dtype});
}

enum cm_status cm_queue_all_to_all(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                   void *recv, uint64_t count, enum cm_dtype dtype)
{
    return enqueue(comm, stream,
                   &(struct cm_comm_op){.kind = CM_COMM_ALL_TO_ALL,
                                        .send = send,
                                        .recv = recv,
                                        .count = count,
                                        .dtype = dtype});
}

enum cm_status cm_queue_broadcast(struct cm_comm *comm, struct cm_stream *stream, void *buffer,
                                  uint64_t count, enum cm_dtype dtype, unsigned root)
{
    return enqueue(comm, stream,
                   &(struct cm_comm_op){.kind = CM_COMM_BROADCAST,
                                        .recv = buffer,
                                        .count = count,
                                        .dtype = dtype,
                                        .peer = root});
}

enum cm_status cm_queue_send(struct cm_comm *comm, struct cm_stream *stream, const void *buffer,
                             uint64_t count, enum cm_dtype dtype, unsigned peer)
{
    return enqueue(
        comm, stream,
        &(struct cm_comm_op){
            .kind = CM_COMM_SEND, .send = buffer, .count = count, .dtype = dtype, .peer = peer});
}

enum cm_status cm_queue_recv(struct cm_comm *comm, struct cm_stream *stream, void *buffer,
                             uint64_t count, enum cm_dtype dtype, unsigned peer)
{
    return enqueue(
        comm, stream,
        &(struct cm_comm_op){
            .kind = CM_COMM_RECV, .recv = buffer, .count = count, .dtype = dtype, .peer = peer});
}
