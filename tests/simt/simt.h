/*
 * simt.h: runs CUDA kernels on the CPU, for tests. The project's .cu files are compiled as C++ with
 * this header included first.
 *
 * Each CUDA thread of a block is a fiber; the blocks of a grid run one after the other, those of a
 * cluster together (they have dynamic shared memory alone). Which block
 * and which thread comes next is drawn at random from a seed, so that a missing barrier shows:
 * another seed is another order. Shared memory is full of NANs when a block begins. Threads that
 * wait for each other in vain are named, and the program aborts.
 *
 * Kernels and device functions that use __shared__ are `static`; dynamic shared memory is had by
 * CM_DYNAMIC_SHARED (kernels/launch.cuh). __shared__ variables have no initialisers.
 */
#ifndef SIMT_H
#define SIMT_H

#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <tuple>

#define CM_SIMT 1 /* what kernels ask where machine instructions need another form here */

#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#undef __maxnreg__
#undef __cluster_dims__
/* One section holds them all, to be poisoned; `static`, because C++ may not share out templates'
 * variables in a named section. */
#define __shared__ static __attribute__((section("simt_shared")))
#define __launch_bounds__(...)
#define __grid_constant__
#define __maxnreg__(...)
#define __cluster_dims__(...)

/* ---- What a kernel sees ---- */

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* All threads of the block that have not returned must come to the same line. */
void __syncthreads(SIMT_SITE);
void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE);
unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE);
int __any_sync(unsigned mask, int predicate, SIMT_SITE);
int __all_sync(unsigned mask, int predicate, SIMT_SITE);
unsigned __activemask();
void __nanosleep(unsigned ns);
void __threadfence_block();
void __threadfence();
void __threadfence_system();
[[noreturn]] void __trap(SIMT_SITE);
long long clock64();

/* ---- For the layer of tensor instructions, and what is below in this header ---- */

/* Whose turn it is. */
unsigned simt_thread(); /* its number in the block, x first */
unsigned simt_lane();
unsigned simt_warp(); /* number in the block */
unsigned simt_block_threads();
unsigned simt_cluster_rank(); /* of its block in the cluster */
unsigned simt_cluster_blocks();

/* Prints what is wrong, with kernel, block and thread, and aborts. */
[[noreturn]] void simt_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A number below n (n > 0), from the seed. */
unsigned simt_random(unsigned n);

/*
 * Threads of a group that do something together. Each brings a record of its own; when the last has
 * come, act(records, size) is called once, on that thread, and may read and write all of them;
 * then all go on. records[i] is that of lane i of the group; NULL for one that is not in the mask.
 * All bring the same `what` (a text, for messages) and line. simt_warp_meet is for the lanes of a
 * warp in `mask`; simt_group_meet for an aligned group of `size` threads, each of them.
 */
typedef void (*simt_act)(void **records, unsigned size);
void simt_warp_meet(unsigned mask, const char *what, void *record, simt_act act, SIMT_SITE);
void simt_group_meet(unsigned size, const char *what, void *record, simt_act act, SIMT_SITE);

/* Barrier 1 to 15 of a block (0 is __syncthreads'): `count` arrivals complete it. With `wait`, does
 * so until then (bar.sync), else only arrives (bar.arrive). */
void simt_barrier(unsigned id, unsigned count, bool wait, SIMT_SITE);
/* All threads of the cluster that have not returned. */
void simt_cluster_barrier(SIMT_SITE);

/* Waits until ready(arg), which is called at odd times, and must not wait. */
void simt_wait_until(bool (*ready)(void *arg), void *arg, const char *what, SIMT_SITE);
/* Lets others go first. What polls calls this in its loop. */
void simt_yield();

/* run(arg) at some later time before the block ends: soon, late, or when nobody can go on without
 * it. Those with the same `queue` run in the order in which they came; NULL is no queue. They run
 * between threads: no waiting in them, and nobody's turn. */
void simt_defer(const void *queue, void (*run)(void *arg), void *arg);

/* Memory of the layer, zeros when first asked for in a block, until the block ends. `key` is an
 * address of the layer, `index` what it likes (a thread, a warp). */
void *simt_state(const void *key, unsigned index, size_t size);

/* Shared memory as the 32-bit addresses of instructions. Both fail on what is not shared memory.
 * The dynamic part begins at an address that is a multiple of 1024 in either form. */
unsigned simt_shared_address(const void *pointer);
void *simt_shared_pointer(unsigned address);
/* That of a block of the cluster. */
void *simt_cluster_pointer(unsigned block, unsigned address);
bool simt_is_shared(const void *pointer);

/* ---- Launch ---- */

/* The order of everything that follows in this process; at first CM_SIMT_SEED from the environment,
 * or 1. */
extern "C" void simt_seed(uint64_t seed);

/* Queues run(arg) on the stream, or does it at once; owns `arg`, which drop(arg) frees. By
 * immediate.c or the fake runtime library. Returns a cudaError_t. */
extern "C" int fake_cuda_launch(struct CUstream_st *stream, void (*run)(void *arg), void *arg,
                                void (*drop)(void *arg));

/* What a launch is, without its arguments. */
struct simt_grid {
    const char *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    unsigned cluster; /* blocks along x that run together */
};
/* cudaSuccess, or what is wrong with it. */
int simt_check_grid(const struct simt_grid *grid);
/* Runs body(arg) on every thread of it. */
void simt_run(const struct simt_grid *grid, void (*body)(void *arg), void *arg);
unsigned char *simt_dynamic_shared();

template <typename... P> struct simt_work {
    struct simt_grid grid;
    void (*kernel)(P...);
    std::tuple<P...> arguments;

    static void body(void *arg)
    {
        const simt_work *work = static_cast<simt_work *>(arg);
        std::apply(work->kernel, work->arguments);
    }
    static void run(void *arg)
    {
        simt_run(&static_cast<simt_work *>(arg)->grid, body, arg);
    }
    static void drop(void *arg)
    {
        static_cast<simt_work *>(arg)->~simt_work();
        free(arg);
    }
};

template <typename... P, typename... A>
static int simt_launch_cluster(const char *name, void (*kernel)(P...), unsigned cluster, dim3 grid,
                               dim3 block, size_t shared_bytes, cudaStream_t stream,
                               A &&...arguments)
{
    typedef simt_work<P...> work;
    struct simt_grid shape = {name, grid, block, shared_bytes, cluster};
    int error = simt_check_grid(&shape);
    if (error != cudaSuccess)
        return error;
    static_assert(alignof(work) <= 128, "arguments that are aligned more than tensor maps");
    void *memory = aligned_alloc(128, (sizeof(work) + 127) / 128 * 128);
    if (memory == nullptr)
        return cudaErrorMemoryAllocation;
    new (memory) work{shape, kernel, std::tuple<P...>(static_cast<P>(arguments)...)};
    return fake_cuda_launch(stream, work::run, memory, work::drop);
}

template <typename... P, typename... A>
static int simt_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                       size_t shared_bytes, cudaStream_t stream, A &&...arguments)
{
    return simt_launch_cluster(name, kernel, 1, grid, block, shared_bytes, stream,
                               static_cast<A &&>(arguments)...);
}

#include "simt_device.h"

#endif
