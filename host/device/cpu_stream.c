/*
 * The CPU device's streams: a queue and a worker thread each.
 *
 * One thread queues and one works, so the queue needs no lock. Commands lie one after the other in
 * chunks that form a list; `published` is how many of them the worker may run, `passed` how many it
 * has. Holding a stream is only not publishing. A chunk that the worker has left is used again, so
 * a queue that is drained now and then allocates nothing.
 *
 * Whoever sleeps says so in an atomic flag first and looks again; whoever changes the value looks
 * at the flag afterwards. Both sides are sequentially consistent, so one of them sees the other.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/device/cpu.h"
#include "host/device/onednn.h"
#include "host/device/pause.h"

#define CHUNK_BYTES 65536
/* A worker with a core of its own looks for new work for some microseconds before it sleeps. */
#define IDLE_SPINS 300

enum command_kind { COMMAND_CALL, COMMAND_RECORD, COMMAND_WAIT, COMMAND_NEXT_CHUNK };

struct command {
    enum command_kind kind;
    uint32_t size_bytes; /* with its arguments */
    union {
        cm_call_fn function;
        struct cm_cpu_mark *mark;
        struct chunk *next;
    } subject;
    union {
        const char *what;
        uint64_t ticket;
    } detail;
    _Alignas(16) unsigned char args[];
};

struct chunk {
    struct chunk *newer;
    uint64_t end; /* once `passed` is here, the worker has left the chunk */
    _Alignas(16) unsigned char storage[CHUNK_BYTES];
};

struct cpu_stream {
    struct cm_stream stream;
    struct cm_cpu_device *device;
    pthread_t thread;

    /* The caller's. */
    struct chunk *oldest, *newest;
    size_t used; /* of the newest chunk */
    uint64_t queued;
    bool held;
    bool timed_out;

    char apart[64]; /* what one side writes and the other polls shares no cache line */
    _Atomic uint64_t published;
    _Atomic bool stopping;
    _Atomic bool syncing; /* the caller sleeps until all is done */

    char apart_too[64];
    _Atomic uint64_t passed;
    _Atomic bool sleeping;       /* the worker sleeps until something is published */
    const char *_Atomic running; /* what the worker is in, for messages */
    enum cm_status failure;      /* of the first call that failed; read when all has passed */
    char failure_text[CM_ERROR_TEXT_MAX];

    pthread_mutex_t lock;
    pthread_cond_t work, idle;
};

static size_t aligned(size_t size)
{
    return (size + 15) & ~(size_t)15;
}

/* ---- the worker's side ---- */

static void run_call(struct cpu_stream *stream, const struct command *command)
{
    if (stream->failure != CM_OK)
        return;
    atomic_store_explicit(&stream->running, command->detail.what, memory_order_relaxed);
    enum cm_status status = command->subject.function(command->args);
    if (status == CM_OK)
        return;
    const char *text = cm_error_text();
    snprintf(stream->failure_text, sizeof stream->failure_text, "%s: %s", command->detail.what,
             text[0] ? text : cm_status_text(status));
    stream->failure = status;
    cm_error_clear();
}

static void run_record(struct cm_cpu_device *device, const struct command *command)
{
    struct cm_cpu_mark *mark = command->subject.mark;
    atomic_store_explicit(&mark->time_ns, cm_cpu_now_ns(), memory_order_relaxed);
    atomic_store(&mark->done, command->detail.ticket);
    if (atomic_load(&device->waiting) != 0) {
        pthread_mutex_lock(&device->lock);
        pthread_cond_broadcast(&device->changed);
        pthread_mutex_unlock(&device->lock);
    }
    atomic_fetch_sub_explicit(&mark->event->pending, 1, memory_order_release);
}

static void run_wait(struct cpu_stream *stream, const struct command *command)
{
    struct cm_cpu_device *device = stream->device;
    struct cm_cpu_mark *mark = command->subject.mark;
    uint64_t ticket = command->detail.ticket;
    atomic_store_explicit(&stream->running, "waiting for an event of another stream",
                          memory_order_relaxed);
    bool done = atomic_load(&mark->done) >= ticket;
    for (int i = 0; !done && device->spin && i < IDLE_SPINS; i++) {
        cm_pause();
        done = atomic_load(&mark->done) >= ticket;
    }
    if (!done) {
        pthread_mutex_lock(&device->lock);
        atomic_fetch_add(&device->waiting, 1);
        while (atomic_load(&mark->done) < ticket)
            pthread_cond_wait(&device->changed, &device->lock);
        atomic_fetch_sub(&device->waiting, 1);
        pthread_mutex_unlock(&device->lock);
    }
    atomic_fetch_sub_explicit(&mark->event->pending, 1, memory_order_release);
}

/* How much is published, once that is more than `passed`; `passed` when the stream ends. */
static uint64_t await_work(struct cpu_stream *stream, uint64_t passed)
{
    atomic_store(&stream->passed, passed);
    if (atomic_load(&stream->syncing)) {
        pthread_mutex_lock(&stream->lock);
        pthread_cond_signal(&stream->idle);
        pthread_mutex_unlock(&stream->lock);
    }
    for (int i = 0; stream->device->spin && i < IDLE_SPINS; i++) {
        uint64_t limit = atomic_load_explicit(&stream->published, memory_order_acquire);
        if (limit != passed)
            return limit;
        cm_pause();
    }
    uint64_t limit;
    pthread_mutex_lock(&stream->lock);
    atomic_store(&stream->sleeping, true);
    while ((limit = atomic_load(&stream->published)) == passed && !atomic_load(&stream->stopping))
        pthread_cond_wait(&stream->work, &stream->lock);
    atomic_store(&stream->sleeping, false);
    pthread_mutex_unlock(&stream->lock);
    return limit;
}

static void *worker_main(void *arg)
{
    struct cpu_stream *stream = arg;
    struct cm_cpu_device *device = stream->device;
    cm_team_use(device->team);
    cm_onednn_use_threads(device->threads);
    const unsigned char *at = stream->oldest->storage;
    uint64_t passed = 0, limit;
    while ((limit = await_work(stream, passed)) != passed) {
        while (passed != limit) {
            const struct command *command = (const struct command *)(const void *)at;
            at += command->size_bytes;
            switch (command->kind) {
            case COMMAND_CALL:
                run_call(stream, command);
                break;
            case COMMAND_RECORD:
                run_record(device, command);
                break;
            case COMMAND_WAIT:
                run_wait(stream, command);
                break;
            case COMMAND_NEXT_CHUNK:
                at = command->subject.next->storage;
                break;
            }
            passed++;
            atomic_store_explicit(&stream->passed, passed, memory_order_release);
        }
    }
    return NULL;
}

/* ---- the caller's side ---- */

static void publish(struct cpu_stream *stream)
{
    if (stream->held)
        return;
    atomic_store(&stream->published, stream->queued);
    if (!atomic_load(&stream->sleeping))
        return;
    pthread_mutex_lock(&stream->lock);
    pthread_cond_signal(&stream->work);
    pthread_mutex_unlock(&stream->lock);
}

static enum cm_status next_chunk(struct cpu_stream *stream)
{
    struct chunk *chunk = stream->oldest;
    bool reuse = chunk != stream->newest &&
                 atomic_load_explicit(&stream->passed, memory_order_acquire) >= chunk->end;
    if (reuse)
        stream->oldest = chunk->newer;
    else if ((chunk = cm_alloc(1, sizeof *chunk)) == NULL)
        return CM_NO_MEMORY;
    struct command *command = (struct command *)(void *)(stream->newest->storage + stream->used);
    command->kind = COMMAND_NEXT_CHUNK;
    command->size_bytes = sizeof *command;
    command->subject.next = chunk;
    stream->newest->end = ++stream->queued;
    stream->newest->newer = chunk;
    chunk->newer = NULL;
    stream->newest = chunk;
    stream->used = 0;
    return CM_OK;
}

/* Room for a command with `args_bytes` of arguments; commit() queues it. */
static enum cm_status reserve(struct cpu_stream *stream, size_t args_bytes,
                              struct command **command)
{
    size_t size = aligned(sizeof **command + args_bytes);
    if (stream->used + size + sizeof **command > CHUNK_BYTES) {
        enum cm_status status = next_chunk(stream);
        if (status != CM_OK)
            return status;
    }
    *command = (struct command *)(void *)(stream->newest->storage + stream->used);
    (*command)->size_bytes = (uint32_t)size;
    return CM_OK;
}

static void commit(struct cpu_stream *stream, const struct command *command)
{
    stream->used += command->size_bytes;
    stream->queued++;
    publish(stream);
}

enum cm_status cm_cpu_call(struct cm_stream *base, cm_call_fn function, const void *args,
                           size_t size_bytes, const char *what)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (size_bytes > CM_CALL_ARGS_MAX)
        return cm_error(CM_USAGE, "call %s: %zu bytes of arguments; at most %d fit", what,
                        size_bytes, CM_CALL_ARGS_MAX);
    struct command *command;
    enum cm_status status = reserve(stream, size_bytes, &command);
    if (status != CM_OK)
        return status;
    command->kind = COMMAND_CALL;
    command->subject.function = function;
    command->detail.what = what;
    if (size_bytes > 0)
        memcpy(command->args, args, size_bytes);
    commit(stream, command);
    return CM_OK;
}

/* That stream's mark, or one whose records have all happened. NULL: there is none. */
static struct cm_cpu_mark *mark_of(struct cm_cpu_event *event, const struct cm_stream *stream)
{
    struct cm_cpu_mark *idle = NULL;
    for (size_t i = 0; i < CM_CPU_EVENT_STREAMS; i++) {
        struct cm_cpu_mark *mark = &event->marks[i];
        if (mark->stream == stream)
            return mark;
        if (idle == NULL && atomic_load(&mark->done) == mark->queued)
            idle = mark;
    }
    return idle;
}

enum cm_status cm_cpu_event_record(struct cm_event *base_event, struct cm_stream *base)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    struct cm_cpu_event *event = (struct cm_cpu_event *)base_event;
    struct cm_cpu_mark *mark = mark_of(event, base);
    struct command *command;
    if (mark == NULL)
        return cm_error(CM_UNSUPPORTED,
                        "event_record: %d other streams have still to record this event",
                        CM_CPU_EVENT_STREAMS);
    enum cm_status status = reserve(stream, 0, &command);
    if (status != CM_OK)
        return status;
    mark->event = event;
    mark->stream = base;
    event->latest = mark;
    command->kind = COMMAND_RECORD;
    command->subject.mark = mark;
    command->detail.ticket = ++mark->queued;
    atomic_fetch_add_explicit(&event->pending, 1, memory_order_relaxed);
    commit(stream, command);
    return CM_OK;
}

enum cm_status cm_cpu_stream_wait(struct cm_stream *base, struct cm_event *base_event)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    struct cm_cpu_event *event = (struct cm_cpu_event *)base_event;
    /* The stream's own order already keeps a record of its own. */
    if (event->latest == NULL || event->latest->stream == base)
        return CM_OK;
    struct command *command;
    enum cm_status status = reserve(stream, 0, &command);
    if (status != CM_OK)
        return status;
    command->kind = COMMAND_WAIT;
    command->subject.mark = event->latest;
    command->detail.ticket = event->latest->queued;
    atomic_fetch_add_explicit(&event->pending, 1, memory_order_relaxed);
    commit(stream, command);
    return CM_OK;
}

enum cm_status cm_cpu_stream_hold(struct cm_stream *base)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (stream->held)
        return cm_error(CM_USAGE, "stream_hold: the stream is held already; release it first");
    stream->held = true;
    return CM_OK;
}

enum cm_status cm_cpu_stream_release(struct cm_stream *base)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (!stream->held)
        return cm_error(CM_USAGE, "stream_release: the stream is not held; hold it first");
    stream->held = false;
    publish(stream);
    return CM_OK;
}

static struct timespec deadline_after(double timeout_s)
{
    /* Ten years stand for ever, and NAN for no time at all. */
    double span_s = timeout_s > 0 ? fmin(timeout_s, 3.2e8) : 0;
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    time_t whole = (time_t)span_s;
    long ns = deadline.tv_nsec + (long)((span_s - (double)whole) * 1e9);
    deadline.tv_sec += whole + ns / 1000000000;
    deadline.tv_nsec = ns % 1000000000;
    return deadline;
}

static bool drained(struct cpu_stream *stream)
{
    return atomic_load(&stream->passed) == stream->queued;
}

/* Sleep until the worker has passed everything or the deadline is there. */
static bool await_drained(struct cpu_stream *stream, double timeout_s)
{
    if (drained(stream))
        return true;
    struct timespec deadline = deadline_after(timeout_s);
    int error = 0;
    pthread_mutex_lock(&stream->lock);
    atomic_store(&stream->syncing, true);
    while (!drained(stream) && error != ETIMEDOUT)
        error = pthread_cond_timedwait(&stream->idle, &stream->lock, &deadline);
    atomic_store(&stream->syncing, false);
    pthread_mutex_unlock(&stream->lock);
    return drained(stream);
}

enum cm_status cm_cpu_stream_sync(struct cm_stream *base, double timeout_s)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (stream->held)
        return cm_error(CM_USAGE, "stream_sync: the stream is held, so it would never be done; "
                                  "release it first");
    stream->timed_out = !await_drained(stream, timeout_s);
    if (stream->timed_out) {
        const char *running = atomic_load_explicit(&stream->running, memory_order_relaxed);
        uint64_t left = stream->queued - atomic_load(&stream->passed);
        return cm_error(CM_TIMEOUT, "stream_sync: not done in time; at %s, %llu commands to go",
                        running != NULL ? running : "its start", (unsigned long long)left);
    }
    if (stream->failure == CM_OK)
        return CM_OK;
    enum cm_status status = cm_error(stream->failure, "%s", stream->failure_text);
    stream->failure = CM_OK;
    return status;
}

static enum cm_status start_worker(struct cpu_stream *stream)
{
    sigset_t all, old;
    sigfillset(&all);
    /* Signals belong to the thread that uses the device. */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&stream->thread, NULL, worker_main, stream);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error != 0)
        return cm_error(CM_SYSTEM, "pthread_create of a stream's worker: %s", strerror(error));
    return CM_OK;
}

static void release(struct cpu_stream *stream)
{
    for (struct chunk *chunk = stream->oldest; chunk != NULL;) {
        struct chunk *newer = chunk->newer;
        cm_free(chunk);
        chunk = newer;
    }
    pthread_cond_destroy(&stream->idle);
    pthread_cond_destroy(&stream->work);
    pthread_mutex_destroy(&stream->lock);
    cm_free(stream);
}

/* Deadlines are on the monotonic clock, which needs an attribute. */
static enum cm_status init_monotonic(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error == 0) {
        error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (error == 0)
            error = pthread_cond_init(condition, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    return error == 0 ? CM_OK
                      : cm_error(CM_SYSTEM, "condition variable of a stream: %s", strerror(error));
}

enum cm_status cm_cpu_stream_create(struct cm_device *device, int priority,
                                    struct cm_stream **stream)
{
    struct cpu_stream *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->stream.device = device;
    made->stream.priority = priority;
    made->device = (struct cm_cpu_device *)device;
    made->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    made->work = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    enum cm_status status = init_monotonic(&made->idle);
    if (status != CM_OK) {
        cm_free(made);
        return status;
    }
    made->oldest = made->newest = cm_alloc(1, sizeof *made->oldest);
    status = made->oldest == NULL ? CM_NO_MEMORY : start_worker(made);
    if (status != CM_OK) {
        release(made);
        return status;
    }
    *stream = &made->stream;
    return CM_OK;
}

void cm_cpu_stream_destroy(struct cm_stream *base)
{
    struct cpu_stream *stream = (struct cpu_stream *)base;
    if (stream == NULL)
        return;
    if (stream->timed_out && !drained(stream)) {
        /* Its work hangs, perhaps for ever, and still uses the stream and the device. What they
         * hold goes with the process. */
        stream->device->abandoned = true;
        pthread_detach(stream->thread);
        return;
    }
    stream->held = false;
    publish(stream);
    pthread_mutex_lock(&stream->lock);
    atomic_store(&stream->stopping, true);
    pthread_cond_signal(&stream->work);
    pthread_mutex_unlock(&stream->lock);
    pthread_join(stream->thread, NULL);
    release(stream);
}
