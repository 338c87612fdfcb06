/*
 * The emulator: blocks one after the other, their threads as fibers between which a scheduler on
 * the caller's own stack switches. One launch runs at a time in a process, because static shared
 * memory is static; a thread in __nanosleep lets others in.
 */
#include "simt.h"

#include <time.h>

#include <cstdarg>
#include <cstdio>
#include <map>
#include <mutex>
#include <vector>

#include "fiber.h"

#define THREADS_MAX  1024
#define WARP         32
#define BARRIERS     16
#define CLUSTER_MAX  8
#define SHARED_MAX   (227u << 10)
#define POISON       0xff      /* a NAN in every floating type */
#define DYNAMIC_BASE 0x100000u /* of the 32-bit addresses; below are those of static variables */
#define GUARD_BYTES  1024

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* ---- What a launch consists of ---- */

enum thread_state { READY, WAITING, DONE };

struct thread {
    unsigned rank;
    enum thread_state state;
    struct fiber *fiber;   /* NULL before it begins and once it has returned */
    const void *waits_for; /* who wakes it names this */
    bool (*ready)(void *);
    void *ready_arg;
    const char *what, *file; /* of the waiting, for messages */
    int line;
};

struct meeting {
    unsigned first, size, mask, left;
    const char *what, *file;
    int line;
    void *records[THREADS_MAX];
};

struct barrier {
    unsigned arrived, count;
    const char *file;
    int line;
};

struct deferred {
    const void *queue;
    void (*run)(void *);
    void *arg;
};

struct run {
    const struct simt_grid *grid;
    void (*body)(void *);
    void *arg;
    uint64_t random;
    unsigned patience; /* one in so many turns completes a deferred operation */
    unsigned slow_first, slow_count; /* threads that seldom get a turn while others can have it */
    struct fiber scheduler;
    struct thread threads[THREADS_MAX], *self;
    struct thread *ready[THREADS_MAX];
    unsigned thread_count, ready_count, live, polling;
    unsigned cluster, block_threads; /* blocks that run together, and the threads of each */
    unsigned live_in[CLUSTER_MAX];   /* threads of a block that have not returned */
    uint3 first_block;               /* of the cluster */
    struct barrier barriers[CLUSTER_MAX][BARRIERS], cluster_barrier;
    std::vector<struct meeting *> meetings[THREADS_MAX / WARP], spare_meetings;
    std::vector<struct deferred> deferred;
    std::map<std::tuple<const void *, unsigned, unsigned>, void *> state;
    std::vector<struct fiber *> spare_fibers;
    std::vector<unsigned char> set_aside; /* static shared memory while another launch runs */
    unsigned char *dynamic[CLUSTER_MAX];  /* SHARED_MAX and a guard; NULL until needed */
};

static std::mutex lock; /* held while a launch runs */
static struct run *now; /* the launch that holds it */
/* Kept for the next launch, also while static variables are destroyed. */
static std::vector<struct run *> &spare_runs = *new std::vector<struct run *>;
static uint64_t seed_state;
static bool seeded;

/* All static shared memory of this program or module: the linker knows where it is. One variable is
 * always there. */
extern "C" {
extern unsigned char __start_simt_shared[] __attribute__((visibility("hidden")));
extern unsigned char __stop_simt_shared[] __attribute__((visibility("hidden")));
}
__shared__ unsigned char first_shared[16] __attribute__((used, aligned(1024)));

static size_t static_bytes()
{
    return (size_t)(__stop_simt_shared - __start_simt_shared);
}

/* ---- Messages ---- */

static void say_where()
{
    fprintf(stderr, "simt: ");
    if (now == nullptr)
        return;
    fprintf(stderr, "%s, block (%u,%u,%u)", now->grid->kernel, blockIdx.x, blockIdx.y, blockIdx.z);
    if (now->self != nullptr)
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

/* Nobody can go on: who waits where. */
[[noreturn]] static void fail_deadlock()
{
    now->self = nullptr;
    say_where();
    fprintf(stderr, "deadlock: %u of %u threads have returned\n", now->thread_count - now->live,
            now->thread_count);
    bool told[THREADS_MAX] = {};
    for (unsigned i = 0; i < now->thread_count; i++) {
        const struct thread *thread = &now->threads[i];
        if (thread->state != WAITING || told[i])
            continue;
        unsigned like = 0;
        for (unsigned j = i; j < now->thread_count; j++) {
            const struct thread *other = &now->threads[j];
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

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

void simt_seed(uint64_t seed)
{
    std::lock_guard<std::mutex> hold(lock);
    seed_state = seed;
    seeded = true;
}

unsigned simt_random(unsigned n)
{
    now->random += UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)((mix(now->random) >> 32) * n >> 32);
}

/* ---- Whose turn it is ---- */

unsigned simt_thread()
{
    return now->self->rank % now->block_threads;
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
    return now->block_threads;
}

unsigned simt_cluster_rank()
{
    return now->self->rank / now->block_threads;
}

unsigned simt_cluster_blocks()
{
    return now->cluster;
}

static void take_turn(struct thread *thread)
{
    now->self = thread;
    unsigned x = blockDim.x, y = blockDim.y, rank = simt_thread();
    threadIdx = {rank % x, rank / x % y, rank / x / y};
    blockIdx = now->first_block;
    blockIdx.x += simt_cluster_rank();
}

static void make_ready(struct thread *thread)
{
    thread->state = READY;
    now->ready[now->ready_count++] = thread;
}

static void give_up_turn(bool ends)
{
    struct thread *self = now->self;
    fiber_switch(self->fiber, &now->scheduler, ends);
}

static void wait_for(const void *key, const char *what, const char *file, int line)
{
    struct thread *self = now->self;
    self->state = WAITING;
    self->waits_for = key;
    self->what = what;
    self->file = file;
    self->line = line;
    give_up_turn(false);
}

static void wake(const void *key)
{
    for (unsigned i = 0; i < now->thread_count; i++) {
        struct thread *thread = &now->threads[i];
        if (thread->state == WAITING && thread->waits_for == key) {
            thread->waits_for = nullptr;
            make_ready(thread);
        }
    }
}

void simt_yield()
{
    make_ready(now->self);
    give_up_turn(false);
}

void simt_wait_until(bool (*ready)(void *), void *arg, const char *what, const char *file, int line)
{
    if (ready(arg) && simt_random(2) == 0)
        return;
    now->self->ready = ready;
    now->self->ready_arg = arg;
    now->polling++;
    wait_for(nullptr, what, file, line);
}

static void poll_waiting()
{
    for (unsigned i = 0; i < now->thread_count; i++) {
        struct thread *thread = &now->threads[i];
        if (thread->ready != nullptr && thread->ready(thread->ready_arg)) {
            thread->ready = nullptr;
            now->polling--;
            make_ready(thread);
        }
    }
}

void simt_defer(const void *queue, void (*run)(void *), void *arg)
{
    now->deferred.push_back({queue, run, arg});
}

/* One that no earlier one of its queue stands before. */
static void complete_deferred()
{
    std::vector<struct deferred> &list = now->deferred;
    size_t chosen = simt_random((unsigned)list.size());
    for (size_t i = 0; list[chosen].queue != nullptr && i < chosen; i++) {
        if (list[i].queue == list[chosen].queue)
            chosen = i;
    }
    struct deferred first = list[chosen];
    list.erase(list.begin() + (ptrdiff_t)chosen);
    now->self = nullptr;
    first.run(first.arg);
}

/* ---- Meetings and barriers ---- */

static struct meeting *open_meeting(unsigned first, unsigned size, unsigned mask, unsigned left)
{
    struct meeting *meeting;
    if (now->spare_meetings.empty()) {
        meeting = new struct meeting;
    } else {
        meeting = now->spare_meetings.back();
        now->spare_meetings.pop_back();
    }
    memset(meeting->records, 0, size * sizeof meeting->records[0]);
    meeting->first = first;
    meeting->size = size;
    meeting->mask = mask;
    meeting->left = left;
    now->meetings[first / WARP].push_back(meeting);
    return meeting;
}

static void close_meeting(struct meeting *meeting)
{
    std::vector<struct meeting *> &open = now->meetings[meeting->first / WARP];
    for (size_t i = 0; i < open.size(); i++) {
        if (open[i] == meeting) {
            open.erase(open.begin() + (ptrdiff_t)i);
            break;
        }
    }
    for (unsigned i = 0; i < meeting->size; i++) {
        struct thread *thread = &now->threads[meeting->first + i];
        if (meeting->records[i] != nullptr && thread != now->self)
            make_ready(thread);
    }
    now->spare_meetings.push_back(meeting);
}

static void meet(unsigned first, unsigned size, unsigned mask, unsigned members, const char *what,
                 void *record, simt_act act, const char *file, int line)
{
    static char nothing; /* the record of one that has none */
    struct meeting *meeting = nullptr;
    for (struct meeting *open : now->meetings[first / WARP]) {
        if (open->size == size && open->mask == mask)
            meeting = open;
    }
    if (meeting == nullptr) {
        meeting = open_meeting(first, size, mask, members);
        meeting->what = what;
        meeting->file = file;
        meeting->line = line;
    } else if (strcmp(meeting->what, what) != 0 || strcmp(meeting->file, file) != 0 ||
               meeting->line != line) {
        simt_fail("%s at %s:%d, while others of the same %u threads are at %s, %s:%d", what, file,
                  line, size, meeting->what, meeting->file, meeting->line);
    }
    meeting->records[now->self->rank - first] = record == nullptr ? &nothing : record;
    if (--meeting->left > 0) {
        wait_for(meeting, what, file, line);
        return;
    }
    if (act != nullptr)
        act(meeting->records, size);
    close_meeting(meeting);
}

void simt_warp_meet(unsigned mask, const char *what, void *record, simt_act act, const char *file,
                    int line)
{
    unsigned first = now->self->rank - simt_lane();
    unsigned lanes = now->thread_count - first < WARP ? now->thread_count - first : WARP;
    if (lanes < WARP)
        mask &= (1u << lanes) - 1; /* lanes beyond the block's end do not exist */
    if (!(mask >> simt_lane() & 1))
        simt_fail("%s at %s:%d: the mask %08x lacks the calling lane", what, file, line, mask);
    meet(first, WARP, mask, (unsigned)__builtin_popcount(mask), what, record, act, file, line);
}

void simt_group_meet(unsigned size, const char *what, void *record, simt_act act, const char *file,
                     int line)
{
    unsigned first = now->self->rank - simt_thread() % size;
    if (simt_thread() / size * size + size > now->block_threads)
        simt_fail("%s at %s:%d: the block ends within the group of %u threads", what, file, line,
                  size);
    meet(first, size, 0, size, what, record, act, file, line);
}

static void complete_barrier(struct barrier *barrier)
{
    *barrier = {};
    wake(barrier);
}

void __syncthreads(const char *file, int line)
{
    struct barrier *barrier = &now->barriers[simt_cluster_rank()][0];
    if (barrier->arrived > 0 && (barrier->line != line || strcmp(barrier->file, file) != 0))
        simt_fail("__syncthreads at %s:%d, while others are at that of %s:%d", file, line,
                  barrier->file, barrier->line);
    barrier->file = file;
    barrier->line = line;
    barrier->arrived++;
    if (barrier->arrived == now->live_in[simt_cluster_rank()])
        complete_barrier(barrier);
    else
        wait_for(barrier, "__syncthreads", file, line);
}

void simt_cluster_barrier(const char *file, int line)
{
    struct barrier *barrier = &now->cluster_barrier;
    if (barrier->arrived++ > 0 && (barrier->line != line || strcmp(barrier->file, file) != 0))
        simt_fail("a barrier of the cluster at %s:%d, while others are at that of %s:%d", file,
                  line, barrier->file, barrier->line);
    barrier->file = file;
    barrier->line = line;
    if (barrier->arrived == now->live)
        complete_barrier(barrier);
    else
        wait_for(barrier, "a barrier of the cluster", file, line);
}

void simt_barrier(unsigned id, unsigned count, bool wait, const char *file, int line)
{
    if (id == 0 || id >= BARRIERS || count == 0 || count % WARP != 0 || count > THREADS_MAX)
        simt_fail("barrier %u for %u threads at %s:%d: there are 1 to 15, for whole warps", id,
                  count, file, line);
    struct barrier *barrier = &now->barriers[simt_cluster_rank()][id];
    if (barrier->arrived > 0 && barrier->count != count)
        simt_fail("barrier %u at %s:%d is for %u threads here, for %u at %s:%d", id, file, line,
                  count, barrier->count, barrier->file, barrier->line);
    barrier->count = count;
    barrier->file = file;
    barrier->line = line;
    barrier->arrived++;
    if (barrier->arrived == count)
        complete_barrier(barrier);
    else if (wait)
        wait_for(barrier, "a named barrier", file, line);
}

void *simt_state(const void *key, unsigned index, size_t size)
{
    void *&state = now->state[{key, index, simt_cluster_rank()}];
    if (state == nullptr)
        state = calloc(1, size);
    return state;
}

/* ---- Shared memory ---- */

unsigned char *simt_dynamic_shared()
{
    return now->dynamic[simt_cluster_rank()];
}

bool simt_is_shared(const void *pointer)
{
    const unsigned char *at = static_cast<const unsigned char *>(pointer);
    return (at >= __start_simt_shared && at < __stop_simt_shared) ||
           (at >= simt_dynamic_shared() && at < simt_dynamic_shared() + now->grid->shared_bytes);
}

unsigned simt_shared_address(const void *pointer)
{
    const unsigned char *at = static_cast<const unsigned char *>(pointer);
    if (at >= __start_simt_shared && at < __stop_simt_shared)
        return (unsigned)(at - __start_simt_shared);
    const unsigned char *dynamic = simt_dynamic_shared();
    if (at < dynamic || at > dynamic + now->grid->shared_bytes)
        simt_fail("%p is not in shared memory", pointer);
    return DYNAMIC_BASE + (unsigned)(at - dynamic);
}

void *simt_shared_pointer(unsigned address)
{
    return simt_cluster_pointer(simt_cluster_rank(), address);
}

void *simt_cluster_pointer(unsigned block, unsigned address)
{
    if (block >= now->cluster)
        simt_fail("block %u of a cluster of %u", block, now->cluster);
    if (now->live_in[block] == 0)
        simt_fail("shared memory of block %u of the cluster, which has ended", block);
    if (address < static_bytes())
        return __start_simt_shared + address;
    if (address < DYNAMIC_BASE || address > DYNAMIC_BASE + now->grid->shared_bytes)
        simt_fail("%#x is no address of shared memory", address);
    return now->dynamic[block] + (address - DYNAMIC_BASE);
}

static void poison_shared()
{
    memset(__start_simt_shared, POISON, static_bytes());
    for (unsigned i = 0; i < now->cluster; i++)
        memset(now->dynamic[i], POISON, now->grid->shared_bytes + GUARD_BYTES);
}

static void check_guard()
{
    size_t end = now->grid->shared_bytes;
    for (size_t i = 0; i < now->cluster * (size_t)GUARD_BYTES; i++) {
        if (now->dynamic[i / GUARD_BYTES][end + i % GUARD_BYTES] != POISON)
            simt_fail("byte %zu after the %zu of dynamic shared memory was written",
                      i % GUARD_BYTES, end);
    }
}

/* ---- Running ---- */

static void thread_main()
{
    fiber_begun(&now->scheduler);
    now->body(now->arg);
    now->self->state = DONE;
    give_up_turn(true);
}

/* The fiber of a thread that has its first turn. */
static struct fiber *begin_fiber()
{
    struct fiber *fiber;
    if (now->spare_fibers.empty()) {
        fiber = new struct fiber;
        if (!fiber_init(fiber))
            simt_fail("no memory for a thread's stack");
    } else {
        fiber = now->spare_fibers.back();
        now->spare_fibers.pop_back();
    }
    fiber_start(fiber, thread_main);
    return fiber;
}

/* A warp, a block of the cluster, or none. */
static void choose_slow()
{
    unsigned group = simt_random(2) == 0 ? WARP : now->block_threads;
    now->slow_first = simt_random(now->thread_count) / group * group;
    now->slow_count = simt_random(2) == 0 ? group : 0;
}

static void run_turn()
{
    unsigned chosen = simt_random(now->ready_count);
    struct thread *thread = now->ready[chosen];
    for (int i = 0; i < 8 && thread->rank - now->slow_first < now->slow_count; i++) {
        chosen = simt_random(now->ready_count);
        thread = now->ready[chosen];
    }
    now->ready[chosen] = now->ready[--now->ready_count];
    take_turn(thread);
    if (thread->fiber == nullptr)
        thread->fiber = begin_fiber();
    fiber_switch(&now->scheduler, thread->fiber, false);
    now->self = nullptr;
    if (thread->state != DONE)
        return;
    now->spare_fibers.push_back(thread->fiber);
    thread->fiber = nullptr;
    unsigned block = thread->rank / now->block_threads;
    struct barrier *own = &now->barriers[block][0];
    now->live--;
    now->live_in[block]--;
    /* Those who wait for all that live wait for one less. */
    if (own->arrived > 0 && own->arrived == now->live_in[block])
        complete_barrier(own);
    if (now->cluster_barrier.arrived > 0 && now->cluster_barrier.arrived == now->live)
        complete_barrier(&now->cluster_barrier);
}

/* A block, or those of a cluster. */
static void run_block()
{
    static const unsigned patience[] = {1, 8, 64};
    poison_shared();
    now->patience = patience[simt_random(3)];
    choose_slow();
    now->live = now->thread_count;
    now->ready_count = now->polling = 0;
    memset(now->barriers, 0, sizeof now->barriers);
    now->cluster_barrier = {};
    for (unsigned i = 0; i < now->cluster; i++)
        now->live_in[i] = now->block_threads;
    for (unsigned i = 0; i < now->thread_count; i++) {
        now->threads[i] = {};
        now->threads[i].rank = i;
        make_ready(&now->threads[i]);
    }
    while (now->live > 0 || !now->deferred.empty()) {
        bool stuck = now->ready_count == 0;
        if (now->polling > 0 && (stuck || simt_random(4) == 0))
            poll_waiting();
        if (!now->deferred.empty() && (now->ready_count == 0 || simt_random(now->patience) == 0))
            complete_deferred();
        else if (now->ready_count > 0)
            run_turn();
        else if (now->live > 0)
            fail_deadlock();
    }
    check_guard();
    for (auto &entry : now->state)
        free(entry.second);
    now->state.clear();
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    return b == 0 ? a : greatest_common_divisor(b, a % b);
}

/* Each block once: a step that has no divisor in common with their number reaches all. */
static void run_blocks()
{
    unsigned columns = gridDim.x / now->cluster;
    uint64_t count = (uint64_t)columns * gridDim.y * gridDim.z;
    uint64_t at = simt_random((unsigned)(count > UINT32_MAX ? UINT32_MAX : count));
    uint64_t step = 1 + simt_random(UINT32_MAX) % count;
    while (greatest_common_divisor(step, count) != 1)
        step++;
    for (uint64_t i = 0; i < count; i++) {
        now->first_block = {(unsigned)(at % columns) * now->cluster,
                            (unsigned)(at / columns % gridDim.y),
                            (unsigned)(at / columns / gridDim.y)};
        run_block();
        at = (at + step) % count;
    }
}

int simt_check_grid(const struct simt_grid *grid)
{
    const dim3 *g = &grid->grid, *b = &grid->block;
    if (g->x == 0 || g->y == 0 || g->z == 0 || g->x > INT32_MAX || g->y > 65535 || g->z > 65535)
        return cudaErrorInvalidConfiguration;
    if (b->x == 0 || b->y == 0 || b->z == 0 || b->x > THREADS_MAX || b->y > THREADS_MAX ||
        b->z > 64 || (uint64_t)b->x * b->y * b->z > THREADS_MAX)
        return cudaErrorInvalidConfiguration;
    /* Of clusters, as many blocks as fibers are enough for. */
    unsigned threads = b->x * b->y * b->z;
    if (grid->cluster != 1 &&
        (grid->cluster == 0 || grid->cluster > CLUSTER_MAX || g->x % grid->cluster != 0 ||
         threads % WARP != 0 || threads * grid->cluster > THREADS_MAX))
        return cudaErrorInvalidConfiguration;
    return grid->shared_bytes > SHARED_MAX ? cudaErrorInvalidValue : cudaSuccess;
}

static void have_shared(struct run *run)
{
    for (unsigned i = 0; i < run->cluster; i++) {
        if (run->dynamic[i] == nullptr)
            run->dynamic[i] =
                static_cast<unsigned char *>(aligned_alloc(1024, SHARED_MAX + GUARD_BYTES));
        if (run->dynamic[i] == nullptr)
            simt_fail("no memory for shared memory");
    }
}

void simt_run(const struct simt_grid *grid, void (*body)(void *), void *arg)
{
    std::lock_guard<std::mutex> hold(lock);
    struct run *run = spare_runs.empty() ? new struct run() : spare_runs.back();
    if (!spare_runs.empty())
        spare_runs.pop_back();
    if (!seeded) {
        const char *text = getenv("CM_SIMT_SEED");
        seed_state = text == nullptr ? 1 : strtoull(text, nullptr, 0);
        seeded = true;
    }
    now = run;
    run->random = mix(seed_state += UINT64_C(0x9e3779b97f4a7c15));
    run->grid = grid;
    run->body = body;
    run->arg = arg;
    run->cluster = grid->cluster;
    run->block_threads = grid->block.x * grid->block.y * grid->block.z;
    run->thread_count = run->cluster * run->block_threads;
    have_shared(run);
    run->self = nullptr;
    blockDim = grid->block;
    gridDim = grid->grid;
    fiber_adopt(&run->scheduler);
    run_blocks();
    spare_runs.push_back(run);
    now = nullptr;
}

/* Another launch, of another thread of this process, may come in between. */
void __nanosleep(unsigned ns)
{
    struct run *run = now;
    struct timespec pause = {0, ns < 50000 ? (long)ns : 50000};
    uint3 block = blockIdx;
    run->set_aside.assign(__start_simt_shared, __stop_simt_shared);
    lock.unlock();
    nanosleep(&pause, nullptr);
    lock.lock();
    now = run;
    memcpy(__start_simt_shared, run->set_aside.data(), run->set_aside.size());
    blockIdx = block;
    blockDim = run->grid->block;
    gridDim = run->grid->grid;
    simt_yield();
}
