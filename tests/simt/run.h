/*
 * run.h: a launch while it runs. For the files of the emulator itself.
 */
#ifndef SIMT_RUN_H
#define SIMT_RUN_H

#include <map>
#include <tuple>
#include <vector>

#include "fiber.h"
#include "simt.h"

#define THREADS_MAX 1024
#define WARP        32
#define BARRIERS    16
#define CLUSTER_MAX 8

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
    unsigned patience;               /* one in so many turns completes a deferred operation */
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

/* The one that runs: one at a time in a process, because static shared memory is static. NULL when
 * there is none. */
extern struct run *simt_now;

uint64_t simt_mix(uint64_t x);
/* Nobody can go on: says who waits where. */
[[noreturn]] void simt_fail_deadlock();

void simt_take_turn(struct thread *thread);
void simt_give_up_turn(bool ends);
void simt_make_ready(struct thread *thread);
/* Until somebody wakes those who wait for `key`. */
void simt_wait_for(const void *key, const char *what, const char *file, int line);
void simt_wake(const void *key);
/* Threads in simt_wait_until: makes those ready that need wait no longer. */
void simt_poll();
/* Runs one of what was given to simt_defer. */
void simt_complete_deferred();
void simt_complete_barrier(struct barrier *barrier);

#endif
