/*
 * A few threads that share out one loop. Each has a part of its own, and the caller also does those
 * that nobody has begun when its own is done: where other processes use the cores, a member may be
 * late by many times what the loop takes.
 */
#include "clustermark/team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/device/pause.h"

/* How long an idle member of a team with cores of its own looks before it sleeps. */
#define IDLE_SPINS 2000
/* How long the caller looks for the others to finish before it sleeps. */
#define JOIN_SPINS 20000
/* The loop that is on, in one number: how many there were, and the parts of this one. */
#define PARTS_BITS 16
#define PARTS_MAX  ((1u << PARTS_BITS) - 1)

struct member {
    struct cm_team *team;
    pthread_t thread;
    unsigned index;
    _Atomic uint64_t taken; /* the latest loop of which somebody has begun this one's part */
    char apart[64];
};

struct cm_team {
    unsigned threads;
    bool spin;
    struct member *members; /* threads - 1 */
    unsigned started;

    pthread_mutex_t use; /* one loop at a time */
    void (*body)(void *job, uint64_t begin, uint64_t end);
    void *job;
    uint64_t count, grain;
    unsigned parts;

    char apart[64];        /* what members poll lies in a cache line of its own */
    _Atomic uint64_t loop; /* members wait for it to change */
    _Atomic bool stopping;
    _Atomic unsigned sleeping;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    char apart_too[64];
    _Atomic unsigned pending; /* parts of this loop that are not done */
    _Atomic bool joining;     /* the caller sleeps until there are none */
};

static _Thread_local struct cm_team *current_team;

void cm_team_use(struct cm_team *team)
{
    current_team = team;
}

/* Part `index` of the loop, in whole grains. */
static void run_part(const struct cm_team *team, unsigned index)
{
    uint64_t grains = (team->count + team->grain - 1) / team->grain;
    uint64_t share = grains / team->parts, rest = grains % team->parts;
    uint64_t first = share * index + (index < rest ? index : rest);
    uint64_t last = first + share + (index < rest ? 1 : 0);
    uint64_t end = last == grains ? team->count : last * team->grain;
    if (last > first)
        team->body(team->job, first * team->grain, end);
}

static void await_loop(struct cm_team *team, uint64_t seen)
{
    for (int i = 0; team->spin && i < IDLE_SPINS; i++) {
        if (atomic_load(&team->loop) != seen)
            return;
        cm_pause();
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleeping, 1);
    while (atomic_load(&team->loop) == seen)
        pthread_cond_wait(&team->wake, &team->lock);
    atomic_fetch_sub(&team->sleeping, 1);
    pthread_mutex_unlock(&team->lock);
}

/* Whether the member's part of that loop was still to be had. Every part of a loop has been taken
 * before the next one begins, so who comes late takes nothing. */
static bool take(struct member *member, uint64_t loop)
{
    uint64_t taken = atomic_load(&member->taken);
    return taken < loop && atomic_compare_exchange_strong(&member->taken, &taken, loop);
}

static void end_part(struct cm_team *team)
{
    if (atomic_fetch_sub(&team->pending, 1) != 1 || !atomic_load(&team->joining))
        return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_signal(&team->done);
    pthread_mutex_unlock(&team->lock);
}

static void *member_main(void *arg)
{
    struct member *member = arg;
    struct cm_team *team = member->team;
    for (uint64_t seen = 0;;) {
        await_loop(team, seen);
        seen = atomic_load(&team->loop);
        if (atomic_load(&team->stopping))
            return NULL;
        if (member->index < (seen & PARTS_MAX) && take(member, seen)) {
            run_part(team, member->index);
            end_part(team);
        }
    }
}

static void start_loop(struct cm_team *team)
{
    atomic_store(&team->pending, team->parts - 1);
    uint64_t number = (atomic_load(&team->loop) >> PARTS_BITS) + 1;
    atomic_store(&team->loop, number << PARTS_BITS | team->parts);
    if (atomic_load(&team->sleeping) == 0)
        return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
}

/* Parts that nobody has begun, then a wait for those that somebody has. */
static void join_loop(struct cm_team *team)
{
    uint64_t loop = atomic_load(&team->loop);
    for (unsigned i = 1; i < team->parts; i++) {
        if (take(&team->members[i - 1], loop)) {
            run_part(team, i);
            atomic_fetch_sub(&team->pending, 1);
        }
    }
    for (int i = 0; team->spin && i < JOIN_SPINS; i++) {
        if (atomic_load(&team->pending) == 0)
            return;
        cm_pause();
    }
    if (atomic_load(&team->pending) == 0)
        return;
    pthread_mutex_lock(&team->lock);
    atomic_store(&team->joining, true);
    while (atomic_load(&team->pending) != 0)
        pthread_cond_wait(&team->done, &team->lock);
    atomic_store(&team->joining, false);
    pthread_mutex_unlock(&team->lock);
}

void cm_team_run(void (*body)(void *job, uint64_t begin, uint64_t end), void *job, uint64_t count,
                 uint64_t grain)
{
    struct cm_team *team = current_team;
    if (team == NULL || team->threads == 1 || count / 2 < grain) {
        body(job, 0, count);
        return;
    }
    uint64_t whole = count / grain;
    pthread_mutex_lock(&team->use);
    team->body = body;
    team->job = job;
    team->count = count;
    team->grain = grain;
    team->parts = whole < team->threads ? (unsigned)whole : team->threads;
    start_loop(team);
    run_part(team, 0);
    join_loop(team);
    pthread_mutex_unlock(&team->use);
}

static enum cm_status start_members(struct cm_team *team)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i + 1 < team->threads && status == CM_OK; i++) {
        struct member *member = &team->members[i];
        member->team = team;
        member->index = i + 1;
        int error = pthread_create(&member->thread, NULL, member_main, member);
        if (error != 0)
            status = cm_error(CM_SYSTEM, "pthread_create of compute thread %u of %u: %s", i + 1,
                              team->threads, strerror(error));
        else
            team->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return status;
}

enum cm_status cm_team_create(unsigned threads, bool spin, struct cm_team **team)
{
    struct cm_team *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->threads = threads > 0 ? threads : 1;
    made->threads = made->threads < PARTS_MAX ? made->threads : PARTS_MAX;
    made->spin = spin;
    made->use = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    made->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    made->wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    made->done = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    made->members = cm_alloc(made->threads - 1, sizeof *made->members);
    enum cm_status status = made->members == NULL ? CM_NO_MEMORY : start_members(made);
    if (status != CM_OK) {
        cm_team_free(made);
        return status;
    }
    *team = made;
    return CM_OK;
}

void cm_team_free(struct cm_team *team)
{
    if (team == NULL)
        return;
    atomic_store(&team->stopping, true);
    team->parts = 1;
    start_loop(team);
    for (unsigned i = 0; i < team->started; i++)
        pthread_join(team->members[i].thread, NULL);
    pthread_cond_destroy(&team->done);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->lock);
    pthread_mutex_destroy(&team->use);
    cm_free(team->members);
    cm_free(team);
}
