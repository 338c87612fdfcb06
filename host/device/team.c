/* A few threads that share out one loop. */
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
/* How long the caller looks for the others to finish before it lets go of its core. */
#define JOIN_SPINS 20000

struct member {
    struct cm_team *team;
    pthread_t thread;
    unsigned index;
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

    char apart[64];              /* what members poll lies in a cache line of its own */
    _Atomic uint64_t generation; /* counts loops; members wait for it to change */
    _Atomic bool stopping;
    _Atomic unsigned sleeping;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    char apart_too[64];
    _Atomic unsigned pending; /* members that are not done with this loop */
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
        if (atomic_load(&team->generation) != seen)
            return;
        cm_pause();
    }
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->sleeping, 1);
    while (atomic_load(&team->generation) == seen)
        pthread_cond_wait(&team->wake, &team->lock);
    atomic_fetch_sub(&team->sleeping, 1);
    pthread_mutex_unlock(&team->lock);
}

static void *member_main(void *arg)
{
    struct member *member = arg;
    struct cm_team *team = member->team;
    for (uint64_t seen = 0;; seen++) {
        await_loop(team, seen);
        if (atomic_load(&team->stopping))
            return NULL;
        if (member->index < team->parts)
            run_part(team, member->index);
        atomic_fetch_sub(&team->pending, 1);
    }
}

static void start_loop(struct cm_team *team)
{
    atomic_store(&team->pending, team->started);
    atomic_fetch_add(&team->generation, 1);
    if (atomic_load(&team->sleeping) == 0)
        return;
    pthread_mutex_lock(&team->lock);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
}

static void join_loop(struct cm_team *team)
{
    for (int i = 0; atomic_load(&team->pending) != 0; i++) {
        if (team->spin && i < JOIN_SPINS)
            cm_pause();
        else
            sched_yield();
    }
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
    made->spin = spin;
    made->use = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    made->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    made->wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
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
    start_loop(team);
    for (unsigned i = 0; i < team->started; i++)
        pthread_join(team->members[i].thread, NULL);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->lock);
    pthread_mutex_destroy(&team->use);
    cm_free(team->members);
    cm_free(team);
}
