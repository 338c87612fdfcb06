/*
 * The emulator: shared memory, and running a launch: blocks one after the other, their threads as
 * fibers between which a scheduler on the caller's own stack switches. A thread in __nanosleep lets
 * other launches in.
 */
#include <time.h>

#include <cstdio>
#include <mutex>

#include "run.h"

#define SHARED_MAX   (227u << 10)
#define POISON       0xff      /* a NAN in every floating type */
#define DYNAMIC_BASE 0x100000u /* of the 32-bit addresses; below are those of static variables */
#define GUARD_BYTES  1024

static std::mutex lock; /* held while a launch runs */
/* Kept for the next launch, also while static variables are destroyed. */
static std::vector<struct run *> &spare_runs = *new std::vector<struct run *>;
static uint64_t seed_state;
static bool seeded;
static thread_local bool launching;

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

/* A test that catches signals and goes on would wait for the lock for ever. */
static void check_launches_end()
{
    if (launching)
        simt_fail("crashed here");
}

void simt_seed(uint64_t seed)
{
    check_launches_end();
    std::lock_guard<std::mutex> hold(lock);
    seed_state = seed;
    seeded = true;
}

/* ---- Shared memory ---- */

unsigned char *simt_dynamic_shared()
{
    return simt_now->dynamic[simt_cluster_rank()];
}

bool simt_is_shared(const void *pointer)
{
    const unsigned char *at = static_cast<const unsigned char *>(pointer);
    return (at >= __start_simt_shared && at < __stop_simt_shared) ||
           (at >= simt_dynamic_shared() &&
            at < simt_dynamic_shared() + simt_now->grid->shared_bytes);
}

unsigned simt_shared_address(const void *pointer)
{
    const unsigned char *at = static_cast<const unsigned char *>(pointer);
    if (at >= __start_simt_shared && at < __stop_simt_shared)
        return (unsigned)(at - __start_simt_shared);
    const unsigned char *dynamic = simt_dynamic_shared();
    if (at < dynamic || at > dynamic + simt_now->grid->shared_bytes)
        simt_fail("%p is not in shared memory", pointer);
    return DYNAMIC_BASE + (unsigned)(at - dynamic);
}

void *simt_shared_pointer(unsigned address)
{
    return simt_cluster_pointer(simt_cluster_rank(), address);
}

void *simt_cluster_pointer(unsigned block, unsigned address)
{
    if (block >= simt_now->cluster)
        simt_fail("block %u of a cluster of %u", block, simt_now->cluster);
    if (simt_now->live_in[block] == 0)
        simt_fail("shared memory of block %u of the cluster, which has ended", block);
    if (address < static_bytes())
        return __start_simt_shared + address;
    if (address < DYNAMIC_BASE || address > DYNAMIC_BASE + simt_now->grid->shared_bytes)
        simt_fail("%#x is no address of shared memory", address);
    return simt_now->dynamic[block] + (address - DYNAMIC_BASE);
}

static void poison_shared()
{
    memset(__start_simt_shared, POISON, static_bytes());
    for (unsigned i = 0; i < simt_now->cluster; i++)
        memset(simt_now->dynamic[i], POISON, simt_now->grid->shared_bytes + GUARD_BYTES);
}

static void check_guard()
{
    size_t end = simt_now->grid->shared_bytes;
    for (size_t i = 0; i < simt_now->cluster * (size_t)GUARD_BYTES; i++) {
        if (simt_now->dynamic[i / GUARD_BYTES][end + i % GUARD_BYTES] != POISON)
            simt_fail("byte %zu after the %zu of dynamic shared memory was written",
                      i % GUARD_BYTES, end);
    }
}

/* ---- Running ---- */

static void thread_main()
{
    fiber_begun(&simt_now->scheduler);
    simt_now->body(simt_now->arg);
    simt_now->self->state = DONE;
    simt_give_up_turn(true);
}

/* The fiber of a thread that has its first turn. */
static struct fiber *begin_fiber()
{
    struct fiber *fiber;
    if (simt_now->spare_fibers.empty()) {
        fiber = new struct fiber;
        if (!fiber_init(fiber))
            simt_fail("no memory for a thread's stack");
    } else {
        fiber = simt_now->spare_fibers.back();
        simt_now->spare_fibers.pop_back();
    }
    fiber_start(fiber, thread_main);
    return fiber;
}

/* A warp, a block of the cluster, or none. */
static void choose_slow()
{
    unsigned group = simt_random(2) == 0 ? WARP : simt_now->block_threads;
    simt_now->slow_first = simt_random(simt_now->thread_count) / group * group;
    simt_now->slow_count = simt_random(2) == 0 ? group : 0;
}

static void run_turn()
{
    unsigned chosen = simt_random(simt_now->ready_count);
    struct thread *thread = simt_now->ready[chosen];
    for (int i = 0; i < 8 && thread->rank - simt_now->slow_first < simt_now->slow_count; i++) {
        chosen = simt_random(simt_now->ready_count);
        thread = simt_now->ready[chosen];
    }
    simt_now->ready[chosen] = simt_now->ready[--simt_now->ready_count];
    simt_take_turn(thread);
    if (thread->fiber == nullptr)
        thread->fiber = begin_fiber();
    fiber_switch(&simt_now->scheduler, thread->fiber, false);
    simt_now->self = nullptr;
    if (thread->state != DONE)
        return;
    simt_now->spare_fibers.push_back(thread->fiber);
    thread->fiber = nullptr;
    unsigned block = thread->rank / simt_now->block_threads;
    struct barrier *own = &simt_now->barriers[block][0];
    simt_now->live--;
    simt_now->live_in[block]--;
    /* Those who wait for all that live wait for one less. */
    if (own->arrived > 0 && own->arrived == simt_now->live_in[block])
        simt_complete_barrier(own);
    if (simt_now->cluster_barrier.arrived > 0 &&
        simt_now->cluster_barrier.arrived == simt_now->live)
        simt_complete_barrier(&simt_now->cluster_barrier);
}

/* A block, or those of a cluster. */
static void run_block()
{
    static const unsigned patience[] = {1, 8, 64};
    poison_shared();
    simt_now->patience = patience[simt_random(3)];
    choose_slow();
    simt_now->live = simt_now->thread_count;
    simt_now->ready_count = simt_now->polling = 0;
    memset(simt_now->barriers, 0, sizeof simt_now->barriers);
    simt_now->cluster_barrier = {};
    for (unsigned i = 0; i < simt_now->cluster; i++)
        simt_now->live_in[i] = simt_now->block_threads;
    for (unsigned i = 0; i < simt_now->thread_count; i++) {
        simt_now->threads[i] = {};
        simt_now->threads[i].rank = i;
        simt_make_ready(&simt_now->threads[i]);
    }
    while (simt_now->live > 0 || !simt_now->deferred.empty()) {
        bool stuck = simt_now->ready_count == 0;
        if (simt_now->polling > 0 && (stuck || simt_random(4) == 0))
            simt_poll();
        if (!simt_now->deferred.empty() &&
            (simt_now->ready_count == 0 || simt_random(simt_now->patience) == 0))
            simt_complete_deferred();
        else if (simt_now->ready_count > 0)
            run_turn();
        else if (simt_now->live > 0)
            simt_fail_deadlock();
    }
    check_guard();
    for (auto &entry : simt_now->state)
        free(entry.second);
    simt_now->state.clear();
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    return b == 0 ? a : greatest_common_divisor(b, a % b);
}

/* Each block once: a step that has no divisor in common with their number reaches all. */
static void run_blocks()
{
    unsigned columns = gridDim.x / simt_now->cluster;
    uint64_t count = (uint64_t)columns * gridDim.y * gridDim.z;
    uint64_t at = simt_random((unsigned)(count > UINT32_MAX ? UINT32_MAX : count));
    uint64_t step = 1 + simt_random(UINT32_MAX) % count;
    while (greatest_common_divisor(step, count) != 1)
        step++;
    for (uint64_t i = 0; i < count; i++) {
        simt_now->first_block = {(unsigned)(at % columns) * simt_now->cluster,
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
    check_launches_end();
    std::lock_guard<std::mutex> hold(lock);
    launching = true;
    struct run *run = spare_runs.empty() ? new struct run() : spare_runs.back();
    if (!spare_runs.empty())
        spare_runs.pop_back();
    if (!seeded) {
        const char *text = getenv("CM_SIMT_SEED");
        seed_state = text == nullptr ? 1 : strtoull(text, nullptr, 0);
        seeded = true;
    }
    simt_now = run;
    run->random = simt_mix(seed_state += UINT64_C(0x9e3779b97f4a7c15));
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
    simt_now = nullptr;
    launching = false;
}

/* Another launch, of another thread of this process, may come in between. */
void __nanosleep(unsigned ns)
{
    struct run *run = simt_now;
    struct timespec pause = {0, ns < 50000 ? (long)ns : 50000};
    uint3 block = blockIdx;
    run->set_aside.assign(__start_simt_shared, __stop_simt_shared);
    lock.unlock();
    nanosleep(&pause, nullptr);
    lock.lock();
    simt_now = run;
    memcpy(__start_simt_shared, run->set_aside.data(), run->set_aside.size());
    blockIdx = block;
    blockDim = run->grid->block;
    gridDim = run->grid->grid;
    simt_yield();
}
