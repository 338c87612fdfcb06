/* The emulator: messages, the random order, and whose turn it is. */
#include <cstdarg>
#include <cstdio>

#include "run.h"

struct run *simt_now;
uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* ---- Messages ---- */

static void say_where()
{
    fprintf(stderr, "simt: ");
    if (simt_now == nullptr)
        return;
    fprintf(stderr, "%s, block (%u,%u,%u)", simt_now->grid->kernel, blockIdx.x, blockIdx.y,
            blockIdx.z);
    if (simt_now->self != nullptr)
        fprintf(stderr, ", thread %u", simt_thread());
    fprintf(stderr, ": ");
}

void simt_fail(const char *format, ...)
{
    va_list arguments;
    say_where();
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    abort();
}

void simt_fail_deadlock()
{
    simt_now->self = nullptr;
    say_where();
    fprintf(stderr, "deadlock: %u of %u threads have returned\n",
            simt_now->thread_count - simt_now->live, simt_now->thread_count);
    bool told[THREADS_MAX] = {};
    for (unsigned i = 0; i < simt_now->thread_count; i++) {
        const struct thread *thread = &simt_now->threads[i];
        if (thread->state != WAITING || told[i])
            continue;
        unsigned like = 0;
        for (unsigned j = i; j < simt_now->thread_count; j++) {
            const struct thread *other = &simt_now->threads[j];
            if (other->state == WAITING && other->line == thread->line &&
                strcmp(other->file, thread->file) == 0) {
                told[j] = true;
                like++;
            }
        }
        fprintf(stderr, "simt:   %u threads, the first of them %u, wait at %s, %s:%d\n", like, i,
                thread->what, thread->file, thread->line);
    }
    abort();
}

/* ---- Random order ---- */

uint64_t simt_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

unsigned simt_random(unsigned n)
{
    simt_now->random += UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)((simt_mix(simt_now->random) >> 32) * n >> 32);
}

/* ---- Whose turn it is ---- */

unsigned simt_thread()
{
    return simt_now->self->rank % simt_now->block_threads;
}

unsigned simt_lane()
{
    return simt_thread() % WARP;
}

unsigned simt_warp()
{
    return simt_thread() / WARP;
}

unsigned simt_block_threads()
{
    return simt_now->block_threads;
}

unsigned simt_cluster_rank()
{
    return simt_now->self->rank / simt_now->block_threads;
}

unsigned simt_cluster_blocks()
{
    return simt_now->cluster;
}

void simt_take_turn(struct thread *thread)
{
    simt_now->self = thread;
    unsigned x = blockDim.x, y = blockDim.y, rank = simt_thread();
    threadIdx = {rank % x, rank / x % y, rank / x / y};
    blockIdx = simt_now->first_block;
    blockIdx.x += simt_cluster_rank();
}

void simt_make_ready(struct thread *thread)
{
    thread->state = READY;
    simt_now->ready[simt_now->ready_count++] = thread;
}

void simt_give_up_turn(bool ends)
{
    struct thread *self = simt_now->self;
    fiber_switch(self->fiber, &simt_now->scheduler, ends);
}

void simt_wait_for(const void *key, const char *what, const char *file, int line)
{
    struct thread *self = simt_now->self;
    self->state = WAITING;
    self->waits_for = key;
    self->what = what;
    self->file = file;
    self->line = line;
    simt_give_up_turn(false);
}

void simt_wake(const void *key)
{
    for (unsigned i = 0; i < simt_now->thread_count; i++) {
        struct thread *thread = &simt_now->threads[i];
        if (thread->state == WAITING && thread->waits_for == key) {
            thread->waits_for = nullptr;
            simt_make_ready(thread);
        }
    }
}

void simt_yield()
{
    simt_make_ready(simt_now->self);
    simt_give_up_turn(false);
}

void simt_wait_until(bool (*ready)(void *), void *arg, const char *what, const char *file, int line)
{
    if (ready(arg) && simt_random(2) == 0)
        return;
    simt_now->self->ready = ready;
    simt_now->self->ready_arg = arg;
    simt_now->polling++;
    simt_wait_for(nullptr, what, file, line);
}

void simt_poll()
{
    for (unsigned i = 0; i < simt_now->thread_count; i++) {
        struct thread *thread = &simt_now->threads[i];
        if (thread->ready != nullptr && thread->ready(thread->ready_arg)) {
            thread->ready = nullptr;
            simt_now->polling--;
            simt_make_ready(thread);
        }
    }
}

void simt_defer(const void *queue, void (*run)(void *), void *arg)
{
    simt_now->deferred.push_back({queue, run, arg});
}

/* One that no earlier one of its queue stands before. */
void simt_complete_deferred()
{
    std::vector<struct deferred> &list = simt_now->deferred;
    size_t chosen = simt_random((unsigned)list.size());
    for (size_t i = 0; list[chosen].queue != nullptr && i < chosen; i++) {
        if (list[i].queue == list[chosen].queue)
            chosen = i;
    }
    struct deferred first = list[chosen];
    list.erase(list.begin() + (ptrdiff_t)chosen);
    simt_now->self = nullptr;
    first.run(first.arg);
}
