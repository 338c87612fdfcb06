/*
 * Streams that do as little as they may.
 *
 * Nothing runs until the program waits for it, or asks often enough; what then runs first, of all
 * that may, FAKE_SEED decides. So whatever the program forgot to wait for is not there when it
 * looks. Time is virtual: each stream has a clock that its work advances, the host has one that its
 * calls advance, and waiting brings them together.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake/fake.h"

#define STREAM_MARK 0x57ea3001u
#define QUEUE_MAX   1024   /* operations of a stream before a launch waits */
#define CALL_S      0.8e-6 /* of a call that queues */
#define START_S     1.5e-6 /* from the call to the work's start */
#define PATIENCE_S  0.5

double fake_now_s;

static struct CUstream_st *streams;
static unsigned numbers;
static uint64_t random_state;

double fake_wall_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

uint64_t fake_random(void)
{
    if (random_state == 0)
        random_state = fake_setting("FAKE_SEED", 1) * 0x9e3779b97f4a7c15u + 1;
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1du >> 16;
}

struct CUstream_st *fake_stream_create(int priority)
{
    struct CUstream_st *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return NULL;
    *stream = (struct CUstream_st){.mark = STREAM_MARK,
                                   .number = ++numbers,
                                   .priority = priority,
                                   .time_s = fake_now_s,
                                   .next = streams};
    streams = stream;
    fake_count(FAKE_STREAMS, 1);
    return stream;
}

void fake_check_stream(const struct CUstream_st *stream, const char *call)
{
    if (stream == NULL || (uintptr_t)stream <= 2)
        fake_die("%s: the default stream is not to be used", call);
    for (const struct CUstream_st *known = streams; known != NULL; known = known->next) {
        if (known == stream && !stream->abandoned)
            return;
    }
    fake_die("%s: %p is no stream", call, (const void *)stream);
}

static void remove_stream(struct CUstream_st *stream)
{
    struct CUstream_st **link = &streams;
    while (*link != stream)
        link = &(*link)->next;
    *link = stream->next;
    stream->mark = 0;
    free(stream);
}

void fake_stream_destroy(struct CUstream_st *stream)
{
    fake_count(FAKE_STREAMS, -1);
    stream->abandoned = true;
    if (stream->first == NULL)
        remove_stream(stream);
}

static bool run_first(struct CUstream_st *stream)
{
    struct fake_work *work = stream->first;
    double start_s =
        stream->time_s > work->queued_s + START_S ? stream->time_s : work->queued_s + START_S;
    double end_s = start_s;
    if (work->never || work->run(work, start_s, &end_s) == FAKE_LATER)
        return false;
    stream->first = work->next;
    if (stream->first == NULL)
        stream->last = NULL;
    stream->count--;
    stream->time_s = end_s;
    work->drop(work);
    if (stream->abandoned && stream->first == NULL)
        remove_stream(stream);
    return true;
}

/* One operation of one stream; `wanted` (may be NULL) is first or last in one of three cases each.
 * False when nothing can run. */
static bool run_one(struct CUstream_st *wanted)
{
    struct CUstream_st *ready[64];
    size_t count = 0;
    for (struct CUstream_st *stream = streams; stream != NULL && count < 64;
         stream = stream->next) {
        if (stream->first != NULL)
            ready[count++] = stream;
    }
    uint64_t draw = count > 1 ? fake_random() : 0;
    unsigned mode = (unsigned)(draw % 3);
    draw /= 3;
    if (count > 1 && mode == 0 && wanted != NULL && wanted->first != NULL && run_first(wanted))
        return true;
    for (size_t i = 0; i < count; i++) {
        struct CUstream_st *stream = ready[(draw + i) % count];
        if (!(mode == 1 && stream == wanted && count > 1) && run_first(stream))
            return true;
    }
    return mode == 1 && wanted != NULL && wanted->first != NULL && run_first(wanted);
}

/* Nothing can run: something else has to move on. When it is the host itself, by the flag of a
 * kernel that spins, it never will. */
static void wait_for_others(double since_s, const char *call)
{
    for (const struct CUstream_st *stream = streams; stream != NULL; stream = stream->next) {
        if (stream->first != NULL && stream->first->spins && fake_wall_s() > since_s + PATIENCE_S)
            fake_die("%s waits while a kernel waits for the host", call);
    }
    fake_pause();
}

static bool all_done(void)
{
    for (const struct CUstream_st *stream = streams; stream != NULL; stream = stream->next) {
        if (stream->first != NULL)
            return false;
    }
    return true;
}

static void meet(const struct CUstream_st *stream)
{
    fake_now_s = stream->time_s > fake_now_s ? stream->time_s : fake_now_s;
}

void fake_finish(struct CUstream_st *stream, const char *call)
{
    double since_s = fake_wall_s();
    while (stream != NULL ? stream->first != NULL : !all_done()) {
        if (!run_one(stream))
            wait_for_others(since_s, call);
    }
    for (const struct CUstream_st *each = streams; each != NULL; each = each->next) {
        if (stream == NULL || each == stream)
            meet(each);
    }
}

void fake_queue(struct CUstream_st *stream, struct fake_work *work, const char *call)
{
    while (stream->count >= QUEUE_MAX) {
        if (run_first(stream) || run_one(stream))
            continue;
        if (stream->first->spins)
            fake_die("%s: %d operations behind a kernel that waits for the host", call, QUEUE_MAX);
        fake_pause();
    }
    fake_now_s += CALL_S;
    work->call = call;
    work->queued_s = fake_now_s;
    work->never = fake_take_stall();
    work->next = NULL;
    if (stream->last != NULL)
        stream->last->next = work;
    else
        stream->first = work;
    stream->last = work;
    stream->count++;
}

/* The first polls are told no, and nothing happens. */
static bool is_patient(unsigned *polls)
{
    if (*polls == 0)
        *polls = 1 + (unsigned)(fake_random() % 3);
    return --*polls == 0;
}

bool fake_poll(struct CUstream_st *stream)
{
    if (fake_take_stall())
        stream->stalled = true;
    if (stream->stalled)
        return false;
    if (stream->first != NULL && is_patient(&stream->polls)) {
        while (stream->first != NULL && run_one(stream))
            continue;
    }
    if (stream->first != NULL)
        return false;
    stream->polls = 0;
    meet(stream);
    return true;
}

bool fake_poll_record(const struct fake_record *record)
{
    static unsigned polls;
    if (!record->done && is_patient(&polls)) {
        while (!record->done && run_one(NULL))
            continue;
    }
    return record->done;
}

void fake_finish_record(const struct fake_record *record, const char *call)
{
    double since_s = fake_wall_s();
    while (!record->done) {
        if (!run_one(NULL))
            wait_for_others(since_s, call);
    }
    fake_now_s = record->time_s > fake_now_s ? record->time_s : fake_now_s;
}

void fake_record_release(struct fake_record *record)
{
    if (record != NULL && --record->references == 0)
        free(record);
}
