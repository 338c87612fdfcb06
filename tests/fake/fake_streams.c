/* The CUDA runtime: streams, events, copies, host functions. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cuda_runtime_api.h>

#include "fake/fake.h"

#define ENTER()       fake_cuda_enter(__func__)
#define LEAVE(status) return (cudaError_t)fake_cuda_leave(status)

#define EVENT_MARK 0xe7e27001u
#define COPY_S     1.2e-6
#define RECORD_S   0.2e-6

/* ---- streams ---- */

static cudaError_t create_stream(const char *call, cudaStream_t *stream, unsigned flags,
                                 int priority)
{
    int error = fake_cuda_enter(call);
    if (error == 0 && (flags != cudaStreamNonBlocking || priority > 0 || priority < -5))
        fake_die("%s: flags %u, priority %d", call, flags, priority);
    struct CUstream_st *made = error == 0 ? fake_stream_create(priority) : NULL;
    if (error == 0 && made == NULL)
        error = cudaErrorMemoryAllocation;
    if (error == 0)
        *stream = made;
    LEAVE(error);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    return create_stream(__func__, stream, flags, priority);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return create_stream(__func__, stream, flags, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    int error = ENTER();
    fake_check_stream(stream, __func__);
    fake_stream_destroy(stream);
    LEAVE(error);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    int error = ENTER();
    fake_check_stream(stream, __func__);
    if (error == 0 && !fake_poll(stream))
        error = cudaErrorNotReady;
    LEAVE(error);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    int error = ENTER();
    fake_check_stream(stream, __func__);
    if (error == 0)
        fake_finish(stream, __func__);
    LEAVE(error);
}

/* ---- events ---- */

struct mark {
    struct fake_work work;
    struct fake_record *record;
};

static enum fake_outcome run_record(struct fake_work *work, double start_s, double *end_s)
{
    struct mark *mark = (struct mark *)work;
    mark->record->done = true;
    mark->record->time_s = start_s;
    *end_s = start_s + RECORD_S;
    return FAKE_DONE;
}

static enum fake_outcome run_wait(struct fake_work *work, double start_s, double *end_s)
{
    struct mark *mark = (struct mark *)work;
    if (!mark->record->done)
        return FAKE_LATER;
    *end_s = fmax(start_s, mark->record->time_s);
    return FAKE_DONE;
}

static void drop_mark(struct fake_work *work)
{
    struct mark *mark = (struct mark *)work;
    fake_record_release(mark->record);
    free(mark);
}

static void queue_mark(struct CUstream_st *stream, struct fake_record *record,
                       enum fake_outcome (*run)(struct fake_work *, double, double *),
                       const char *call)
{
    struct mark *mark = calloc(1, sizeof *mark);
    if (mark == NULL)
        fake_die("%s: no memory", call);
    *mark = (struct mark){.work = {.run = run, .drop = drop_mark}, .record = record};
    record->references++;
    fake_queue(stream, &mark->work, call);
}

void fake_check_event(const struct CUevent_st *event, const char *call)
{
    if (event == NULL || event->mark != EVENT_MARK)
        fake_die("%s: %p is no event", call, (const void *)event);
}

static cudaError_t create_event(const char *call, cudaEvent_t *event, unsigned flags)
{
    int error = fake_cuda_enter(call);
    if (error == 0 && flags > (cudaEventBlockingSync | cudaEventDisableTiming))
        fake_die("%s: flags %u", call, flags);
    struct CUevent_st *made = error == 0 ? calloc(1, sizeof *made) : NULL;
    if (error == 0 && made == NULL)
        error = cudaErrorMemoryAllocation;
    if (error == 0) {
        *made =
            (struct CUevent_st){.mark = EVENT_MARK, .timed = (flags & cudaEventDisableTiming) == 0};
        *event = made;
        fake_count(FAKE_EVENTS, 1);
    }
    LEAVE(error);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    return create_event(__func__, event, flags);
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return create_event(__func__, event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    int error = ENTER();
    fake_check_event(event, __func__);
    fake_record_release(event->latest);
    event->mark = 0;
    free(event);
    fake_count(FAKE_EVENTS, -1);
    LEAVE(error);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    int error = ENTER();
    fake_check_event(event, __func__);
    fake_check_stream(stream, __func__);
    struct fake_record *record = error == 0 ? calloc(1, sizeof *record) : NULL;
    if (error == 0 && record == NULL)
        error = cudaErrorMemoryAllocation;
    if (error == 0) {
        fake_record_release(event->latest);
        record->references = 1;
        event->latest = record;
        queue_mark(stream, record, run_record, __func__);
    }
    LEAVE(error);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    int error = ENTER();
    fake_check_event(event, __func__);
    fake_check_stream(stream, __func__);
    if (error == 0 && flags != cudaEventWaitDefault)
        fake_die("%s: flags %u", __func__, flags);
    if (error == 0 && event->latest != NULL)
        queue_mark(stream, event->latest, run_wait, __func__);
    LEAVE(error);
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    int error = ENTER();
    fake_check_event(event, __func__);
    if (error == 0 && event->latest != NULL && !fake_poll_record(event->latest))
        error = cudaErrorNotReady;
    LEAVE(error);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    int error = ENTER();
    fake_check_event(event, __func__);
    if (error == 0 && event->latest != NULL)
        fake_finish_record(event->latest, __func__);
    LEAVE(error);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    int error = ENTER();
    fake_check_event(start, __func__);
    fake_check_event(end, __func__);
    if (error == 0 &&
        (!start->timed || !end->timed || start->latest == NULL || end->latest == NULL))
        error = cudaErrorInvalidResourceHandle;
    if (error == 0 && (!start->latest->done || !end->latest->done))
        error = cudaErrorNotReady;
    if (error == 0)
        *ms = (float)((end->latest->time_s - start->latest->time_s) * 1e3);
    LEAVE(error);
}

/* ---- copies ---- */

struct copy {
    struct fake_work work;
    void *to;
    const void *from;
    void *staged; /* what `from` was when the copy was queued; NULL: it is read later */
    int value;    /* of a memset, else -1 */
    size_t size;
    double rate;
};

static enum fake_outcome run_copy(struct fake_work *work, double start_s, double *end_s)
{
    struct copy *copy = (struct copy *)work;
    fake_memory_open();
    if (copy->value >= 0)
        memset(copy->to, copy->value, copy->size);
    else
        memmove(copy->to, copy->staged != NULL ? copy->staged : copy->from, copy->size);
    *end_s = start_s + COPY_S + (double)copy->size / copy->rate;
    return FAKE_DONE;
}

static void drop_copy(struct fake_work *work)
{
    struct copy *copy = (struct copy *)work;
    free(copy->staged);
    free(copy);
}

static double rate_of(enum fake_place to, enum fake_place from)
{
    const struct fake_model *model = fake_model();
    bool to_host = to <= FAKE_PINNED, from_host = from <= FAKE_PINNED;
    if (to == FAKE_PAGEABLE || from == FAKE_PAGEABLE)
        return model->host_rate / 4;
    if (to_host || from_host)
        return model->host_rate;
    return to == FAKE_PEER || from == FAKE_PEER ? model->link_rate : model->memory_rate / 2;
}

/* Like the real one: to pageable memory it returns when all is there, and from there when the
 * source may be written again. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    int error = ENTER();
    fake_check_stream(stream, __func__);
    enum fake_place target = fake_place_of(to, size, __func__);
    enum fake_place source = fake_place_of(from, size, __func__);
    bool to_device = target >= FAKE_DEVICE, from_device = source >= FAKE_DEVICE;
    if ((kind == cudaMemcpyHostToDevice && (from_device || !to_device)) ||
        (kind == cudaMemcpyDeviceToHost && (!from_device || to_device)) ||
        (kind == cudaMemcpyDeviceToDevice && !(from_device && to_device)) ||
        (kind == cudaMemcpyHostToHost && (from_device || to_device)))
        fake_die("%s: kind %d does not fit the memory", __func__, (int)kind);
    struct copy *copy = error == 0 && size > 0 ? calloc(1, sizeof *copy) : NULL;
    if (copy != NULL) {
        *copy = (struct copy){.work = {.run = run_copy, .drop = drop_copy},
                              .to = to,
                              .from = from,
                              .value = -1,
                              .size = size,
                              .rate = rate_of(target, source)};
        if (source == FAKE_PAGEABLE && to_device) {
            copy->staged = malloc(size);
            if (copy->staged == NULL)
                fake_die("%s: no memory to stage %zu bytes", __func__, size);
            memcpy(copy->staged, from, size);
        }
        fake_queue(stream, &copy->work, __func__);
    }
    if (error == 0 && target == FAKE_PAGEABLE)
        fake_finish(stream, __func__);
    LEAVE(error);
}

/* On the default stream, which the streams of this program do not wait for. */
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind)
{
    int error = ENTER();
    bool to_device = fake_place_of(to, size, __func__) >= FAKE_DEVICE;
    bool from_device = fake_place_of(from, size, __func__) >= FAKE_DEVICE;
    if ((kind == cudaMemcpyHostToDevice && (from_device || !to_device)) ||
        (kind == cudaMemcpyDeviceToHost && (!from_device || to_device)))
        fake_die("%s: kind %d does not fit the memory", __func__, (int)kind);
    if (error == 0) {
        fake_memory_open();
        memmove(to, from, size);
        fake_now_s += 10e-6 + (double)size / fake_model()->host_rate;
    }
    LEAVE(error);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream)
{
    int error = ENTER();
    fake_check_stream(stream, __func__);
    if (fake_place_of(to, size, __func__) < FAKE_PINNED)
        fake_die("%s: %p is no device memory", __func__, to);
    struct copy *copy = error == 0 && size > 0 ? calloc(1, sizeof *copy) : NULL;
    if (copy != NULL) {
        *copy = (struct copy){.work = {.run = run_copy, .drop = drop_copy},
                              .to = to,
                              .value = value & 0xff,
                              .size = size,
                              .rate = fake_model()->memory_rate};
        fake_queue(stream, &copy->work, __func__);
    }
    LEAVE(error);
}

/* ---- host functions: on a thread of their own, one after the other ---- */

struct host_call {
    struct fake_work work;
    cudaHostFn_t function;
    void *data;
    enum { WAITING, GIVEN, OVER } stage; /* under the helper's lock */
    double wall_s;
    struct host_call *next;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t given, over;
    struct host_call *first, **last;
} helper = {.lock = PTHREAD_MUTEX_INITIALIZER,
            .given = PTHREAD_COND_INITIALIZER,
            .over = PTHREAD_COND_INITIALIZER};

static void *help(void *unused)
{
    (void)unused;
    fake_host_function(true);
    pthread_mutex_lock(&helper.lock);
    for (;;) {
        while (helper.first == NULL)
            pthread_cond_wait(&helper.given, &helper.lock);
        struct host_call *call = helper.first;
        helper.first = call->next;
        if (helper.first == NULL)
            helper.last = &helper.first;
        pthread_mutex_unlock(&helper.lock);
        double begun_s = fake_wall_s();
        call->function(call->data);
        call->wall_s = fake_wall_s() - begun_s;
        pthread_mutex_lock(&helper.lock);
        call->stage = OVER;
        if (helper.first == NULL)
            pthread_cond_signal(&helper.over);
    }
    return NULL;
}

static enum fake_outcome run_host(struct fake_work *work, double start_s, double *end_s);

static void give(struct host_call *call)
{
    if (helper.last == NULL) {
        pthread_t thread;
        helper.last = &helper.first;
        if (pthread_create(&thread, NULL, help, NULL) != 0)
            fake_die("no thread for host functions");
        pthread_detach(thread);
    }
    call->stage = GIVEN;
    *helper.last = call;
    helper.last = &call->next;
}

/* This one and those right behind it in their stream; most are over at once. */
static void give_all(struct host_call *call)
{
    struct timespec limit;
    for (struct fake_work *work = &call->work; work != NULL && !work->never; work = work->next) {
        if (work->run != run_host)
            break;
        give((struct host_call *)work);
    }
    pthread_cond_signal(&helper.given);
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_nsec += 200000;
    limit.tv_sec += limit.tv_nsec / 1000000000;
    limit.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&helper.over, &helper.lock, &limit);
}

/* Real time counts when it is long, so that short functions take the same time in every run. */
static enum fake_outcome run_host(struct fake_work *work, double start_s, double *end_s)
{
    struct host_call *call = (struct host_call *)work;
    pthread_mutex_lock(&helper.lock);
    if (call->stage == WAITING)
        give_all(call);
    bool over = call->stage == OVER;
    pthread_mutex_unlock(&helper.lock);
    *end_s = start_s + 3e-6 + (over ? floor(call->wall_s * 1e3) * 1e-3 : 0);
    return over ? FAKE_DONE : FAKE_LATER;
}

static void drop_host(struct fake_work *work)
{
    free(work);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data)
{
    int error = ENTER();
    fake_check_stream(stream, __func__);
    struct host_call *call = error == 0 ? calloc(1, sizeof *call) : NULL;
    if (error == 0 && call == NULL)
        error = cudaErrorMemoryAllocation;
    if (error == 0) {
        *call = (struct host_call){
            .work = {.run = run_host, .drop = drop_host}, .function = function, .data = data};
        fake_queue(stream, &call->work, __func__);
    }
    LEAVE(error);
}
