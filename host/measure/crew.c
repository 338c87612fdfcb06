/* A world of rank processes: messages, deadlines, the end. */
#include "host/measure/crew.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/measure/clock.h"

#define SPARE_SLOTS 8   /* for connections that never say hello */
#define COLLECT_S   3.0 /* for the others' words and the launcher's after a failure */
#define END_S       15.0
#define TERM_S      10.0 /* for a launcher to clean up after itself and the ranks */
#define KILL_S      10.0

typedef bool (*goal_fn)(const struct cm_crew *crew);

/* What the supervisor adds to the deadline that the ranks keep themselves. */
static double grace_s(double timeout_s)
{
    return fmin(10, fmax(1, 0.1 * timeout_s));
}

static bool everyone(const struct cm_crew *crew, bool (*is)(const struct cm_peer *peer))
{
    unsigned count = 0;
    for (size_t i = 0; i < crew->peer_count; i++) {
        if (crew->peers[i].rank >= 0 && is(&crew->peers[i]))
            count++;
    }
    return count == crew->config.ranks;
}

static bool is_present(const struct cm_peer *peer)
{
    return !peer->lost;
}

static bool is_ready(const struct cm_peer *peer)
{
    return peer->ready;
}

static bool is_done(const struct cm_peer *peer)
{
    return peer->done;
}

static bool has_spoken(const struct cm_peer *peer)
{
    return peer->lost || peer->done || peer->error.status != CM_OK;
}

static bool all_present(const struct cm_crew *crew)
{
    return everyone(crew, is_present);
}

static bool all_ready(const struct cm_crew *crew)
{
    return everyone(crew, is_ready);
}

static bool all_done(const struct cm_crew *crew)
{
    return everyone(crew, is_done);
}

static bool result_or_done(const struct cm_crew *crew)
{
    return crew->has_result || all_done(crew);
}

static bool all_gone(const struct cm_crew *crew)
{
    for (size_t i = 0; i < crew->peer_count; i++) {
        if (!crew->peers[i].lost)
            return false;
    }
    return cm_processes_gone(&crew->processes);
}

/* Nothing more is to be learnt about a failure: everyone has said something, and where a rank died
 * its parent has told how. */
static bool all_told(const struct cm_crew *crew)
{
    if (cm_processes_gone(&crew->processes))
        return true;
    if (crew->losses == 0)
        return everyone(crew, has_spoken);
    if (crew->processes.launcher)
        return false;
    for (size_t i = 0; i < crew->peer_count; i++) {
        const struct cm_peer *peer = &crew->peers[i];
        if (peer->rank >= 0 && peer->lost && !crew->processes.items[peer->rank].exited)
            return false;
    }
    return true;
}

static void hear_signals(struct cm_watch *watch)
{
    struct signalfd_siginfo info;
    while (read(watch->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD && watch->caught == 0)
            watch->caught = (int)info.ssi_signo;
    }
}

static void reap(struct cm_crew *crew)
{
    bool gone = cm_processes_gone(&crew->processes);
    cm_processes_reap(&crew->processes);
    if (gone || !cm_processes_gone(&crew->processes) || crew->ending)
        return;
    if (!crew->trouble && crew->processes.launcher)
        crew->launcher_first = true;
    crew->trouble = true;
}

/* When the silence of a rank that should be working becomes too long; INFINITY for one that has
 * nothing to say. */
static double silence_ends(const struct cm_crew *crew, const struct cm_peer *peer)
{
    bool waits = crew->case_name != NULL ? peer->done : peer->ready;
    if (peer->lost || peer->rank < 0 || waits || peer->error.status != CM_OK)
        return INFINITY;
    return peer->heard_s + crew->allowed_s;
}

/* One turn: sleep until something happens or `until_s`, and take it in. */
static enum cm_status turn(struct cm_crew *crew, double until_s, bool draw)
{
    struct pollfd *polls = cm_alloc(crew->slot_count + 3, sizeof *polls);
    if (polls == NULL)
        return CM_NO_MEMORY;
    polls[0] = (struct pollfd){.fd = crew->watch->signals, .events = POLLIN};
    polls[1] = (struct pollfd){.fd = crew->listener.fd, .events = POLLIN};
    polls[2] = (struct pollfd){.fd = crew->processes.output, .events = POLLIN};
    size_t peers = crew->peer_count;
    for (size_t i = 0; i < peers; i++) {
        const struct cm_peer *peer = &crew->peers[i];
        short events = cm_channel_unsent(&peer->channel) ? POLLIN | POLLOUT : POLLIN;
        polls[3 + i] = (struct pollfd){.fd = peer->channel.fd, .events = events};
    }
    double now = cm_clock_s();
    double wait = fmin(until_s - now, draw ? 1.0 : 60.0);
    int timeout_ms = wait > 0 ? (int)ceil(wait * 1e3) : 0;
    int ready = poll(polls, 3 + peers, timeout_ms);
    enum cm_status status = CM_OK;
    if (ready < 0 && errno != EINTR)
        status = cm_error_errno(CM_SYSTEM, "cannot wait for the ranks: poll");
    now = cm_clock_s();
    if (ready > 0) {
        if (polls[2].revents != 0)
            cm_processes_drain(&crew->processes);
        if (polls[0].revents != 0) {
            hear_signals(crew->watch);
            reap(crew);
        }
        for (size_t i = 0; i < peers && status == CM_OK; i++) {
            struct cm_peer *peer = &crew->peers[i];
            if (polls[3 + i].revents & (POLLIN | POLLHUP | POLLERR))
                status = cm_crew_hear(crew, peer, now);
            if (status == CM_OK && !peer->lost && polls[3 + i].revents & POLLOUT &&
                cm_channel_flush(&peer->channel) == CM_SYSTEM)
                status = CM_SYSTEM;
        }
        if (status == CM_OK && polls[1].revents != 0)
            status = cm_crew_welcome(crew, now);
    }
    cm_free(polls);
    return status;
}

static enum cm_status interrupted(const struct cm_watch *watch)
{
    const char *name = watch->caught == SIGINT    ? "SIGINT"
                       : watch->caught == SIGTERM ? "SIGTERM"
                                                  : "SIGHUP";
    return cm_error(CM_INTERRUPTED, "interrupted by %s", name);
}

/* Follow the ranks until the goal, or trouble, which silence until `until_s` is too. */
static enum cm_status follow(struct cm_crew *crew, goal_fn goal, double until_s)
{
    struct cm_watch *watch = crew->watch;
    for (;;) {
        double now = cm_clock_s();
        double next = fmin(until_s, watch->hard_stop_s);
        if (goal(crew))
            return CM_OK;
        if (watch->caught != 0)
            return interrupted(watch);
        if (now >= watch->hard_stop_s)
            return cm_error(CM_TIMEOUT, "the budget is used up");
        for (size_t i = 0; i < crew->peer_count; i++) {
            double ends = silence_ends(crew, &crew->peers[i]);
            crew->silent = crew->silent || ends <= now;
            next = fmin(next, ends);
        }
        if (now >= until_s)
            crew->silent = true;
        if (crew->trouble || crew->silent) {
            crew->trouble = true;
            return CM_LOST;
        }
        enum cm_status status = turn(crew, next, watch->tick != NULL);
        if (status != CM_OK)
            return status;
        if (watch->tick != NULL)
            watch->tick(watch->tick_arg, cm_clock_s());
    }
}

/* Listen on for a moment: a failure is best explained by all who saw it. */
static enum cm_status collect(struct cm_crew *crew, goal_fn enough, double seconds)
{
    double until = cm_clock_s() + seconds;
    while (!enough(crew) && cm_clock_s() < until) {
        enum cm_status status = turn(crew, until, false);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

/* SIGKILL to the ranks, which have nothing to clean up, and SIGTERM to the launcher, which has.
 * What goes wrong in that is less than why it is done: that message stays. */
static void kill_all(struct cm_crew *crew)
{
    char why[CM_ERROR_TEXT_MAX];
    snprintf(why, sizeof why, "%s", cm_error_text());
    crew->ending = true;
    for (size_t i = 0; i < crew->peer_count; i++) {
        /* While the connection lives the process does, so the id is still its own. */
        if (!crew->peers[i].lost && crew->peers[i].pid > 0)
            kill(crew->peers[i].pid, SIGKILL);
    }
    cm_processes_signal(&crew->processes, crew->processes.launcher ? SIGTERM : SIGKILL);
    if (collect(crew, all_gone, TERM_S) != CM_OK || !all_gone(crew)) {
        cm_processes_signal(&crew->processes, SIGKILL);
        if (collect(crew, all_gone, KILL_S) != CM_OK || !all_gone(crew))
            cm_warn("rank processes could not be ended within %.0f s", KILL_S);
    }
    cm_error(CM_LOST, "%s", why);
}

/* After CM_LOST from follow: find out why and clear up. */
static enum cm_status fail(struct cm_crew *crew)
{
    enum cm_status status = CM_OK;
    if (!crew->silent || crew->losses > 0)
        status = collect(crew, all_told, COLLECT_S);
    if (status == CM_OK) {
        cm_processes_drain(&crew->processes);
        cm_crew_explain(crew);
    }
    kill_all(crew);
    /* Whoever ended us may have ended the ranks as well, and first. */
    if (status == CM_OK && crew->watch->caught != 0)
        return interrupted(crew->watch);
    return status == CM_OK ? CM_LOST : status;
}

static enum cm_status reach(struct cm_crew *crew, goal_fn goal, double until_s)
{
    enum cm_status status = follow(crew, goal, until_s);
    return status == CM_LOST ? fail(crew) : status;
}

enum cm_status cm_crew_start(const struct cm_crew_config *config, struct cm_watch *watch,
                             struct cm_crew *crew)
{
    *crew =
        (struct cm_crew){.config = *config,
                         .watch = watch,
                         .listener = {.fd = -1},
                         .processes = {.output = -1},
                         .allowed_s = config->start_timeout_s + grace_s(config->start_timeout_s),
                         .deadline_s = config->start_timeout_s};
    size_t slots = (size_t)config->ranks + SPARE_SLOTS;
    crew->peers = cm_alloc(slots, sizeof *crew->peers);
    if (crew->peers == NULL)
        return CM_NO_MEMORY;
    crew->slot_count = slots;
    enum cm_status status = cm_listener_open(&crew->listener);
    if (status != CM_OK)
        return status;
    const char *comm = cm_comm_default(config->device, config->ranks);
    struct cm_spawn_config spawn = {.program = config->program,
                                    .channel = crew->listener.name,
                                    .ranks = config->ranks,
                                    .launcher = strcmp(comm, "mpi") == 0};
    status = cm_processes_start(&spawn, &crew->processes);
    if (status != CM_OK)
        return status;
    double begin = cm_clock_s();
    status = reach(crew, all_present, begin + config->start_timeout_s);
    if (status != CM_OK)
        return status;
    cm_listener_close(&crew->listener);
    return reach(crew, all_ready, INFINITY);
}

enum cm_status cm_crew_measure(struct cm_crew *crew, const struct cm_plan *plan, size_t index,
                               double limit_s, struct cm_case_run *run)
{
    const struct cm_case *item = &plan->cases[index];
    enum cm_status status = CM_OK;
    crew->case_name = item->name;
    crew->case_index = index;
    crew->result_came = false;
    crew->allowed_s = item->settings.timeout_s + grace_s(item->settings.timeout_s);
    crew->deadline_s = item->settings.timeout_s;
    for (size_t i = 0; i < crew->peer_count && status == CM_OK; i++) {
        struct cm_peer *peer = &crew->peers[i];
        peer->done = false;
        peer->phase[0] = '\0';
        peer->heard_s = cm_clock_s();
        if (!peer->lost && peer->rank >= 0)
            status = cm_send_case(&peer->channel, item, index, limit_s);
        if (status == CM_LOST) /* its end will be heard with what it still said */
            status = CM_OK;
    }
    if (status == CM_OK)
        status = reach(crew, result_or_done, INFINITY);
    /* A failure may be a sign of a rank that is no more: the ranks' fate explains it better. */
    if (status == CM_OK && (!crew->has_result || crew->result.status == CM_CASE_FAILED))
        status = reach(crew, all_done, INFINITY);
    if (status == CM_OK && !crew->has_result) {
        snprintf(crew->reason, sizeof crew->reason, "rank 0 ended %s without a result", item->name);
        kill_all(crew);
        status = CM_LOST;
    }
    if (status == CM_OK) {
        *run = crew->result;
        crew->has_result = false;
    }
    return status;
}

enum cm_status cm_crew_settle(struct cm_crew *crew)
{
    enum cm_status status = reach(crew, all_done, INFINITY);
    /* A rank that failed with its last word would wait to be ended, and not for another case. */
    return status == CM_OK && crew->trouble ? fail(crew) : status;
}

enum cm_status cm_crew_end(struct cm_crew *crew)
{
    crew->ending = true;
    crew->case_name = NULL;
    for (size_t i = 0; i < crew->peer_count; i++) {
        if (!crew->peers[i].lost && cm_send_word(&crew->peers[i].channel, "end") == CM_NO_MEMORY)
            return CM_NO_MEMORY;
    }
    enum cm_status status = follow(crew, all_gone, cm_clock_s() + END_S);
    if (status == CM_LOST) {
        snprintf(crew->reason, sizeof crew->reason,
                 "rank processes did not end within %.0f s and were killed", END_S);
        kill_all(crew);
    }
    return status;
}

void cm_crew_kill(struct cm_crew *crew)
{
    if (!all_gone(crew))
        kill_all(crew);
    for (size_t i = 0; i < crew->peer_count; i++)
        cm_channel_close(&crew->peers[i].channel);
    if (crew->has_result)
        cm_case_run_release(&crew->result);
    cm_processes_release(&crew->processes);
    cm_listener_close(&crew->listener);
    cm_free(crew->topology);
    cm_free(crew->peers);
    *crew = (struct cm_crew){.listener = {.fd = -1}, .processes = {.output = -1}};
}

const char *cm_crew_phase(const struct cm_crew *crew)
{
    const char *phase = "";
    for (size_t i = 0; i < crew->peer_count; i++) {
        const struct cm_peer *peer = &crew->peers[i];
        if (peer->rank == 0 || (peer->rank > 0 && phase[0] == '\0'))
            phase = peer->phase;
        if (peer->rank == 0)
            break;
    }
    return phase;
}
