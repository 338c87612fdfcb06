/* The thread of a rank that is watched. */
#include "host/measure/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/measure/clock.h"
#include "host/measure/host.h"
#include "host/measure/watch_message.h"

#define CONNECT_S   10.0
#define HOLD_S      2.0  /* for what must not be cut short */
#define LEAVE_S     10.0 /* for the watcher to finish the result */
#define FORWARD_S   0.1  /* phases that follow each other faster are told together */
#define LAST_WORD_S 5.0  /* beyond a silence, for the watcher to end a rank that gave up */

struct cm_watchdog {
    unsigned rank;
    double silence_s;
    char host[64];
    pid_t watcher; /* rank 0 */
    struct cm_watch_place place;
    sigset_t mask; /* before */
    int signals, wake;
    pthread_t thread;
    struct cm_last_resort last;
    pthread_mutex_t busy;

    /* Of the thread, once the rank has joined; rank 0's is there from the start. */
    struct cm_channel channel;
    bool connected, speaks;
    double heard_s, said_s;

    _Atomic uint64_t ticks;
    _Atomic bool closing;

    pthread_mutex_t lock; /* for the rest */
    struct cm_channel joined;
    bool has_joined, joined_speaks;
    struct cm_watch_hello hello; /* of rank 0 */
    bool has_hello;
    struct cm_place at;
    struct cm_rank_error error;
    bool error_told;
};

/* Names of cases and hosts become JSON and end on terminals. */
static void copy_plain(const char *from, char *to, size_t size)
{
    size_t length = strnlen(from, size - 1);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)from[i];
        to[i] = c < 0x20 || c >= 0x7f ? '?' : (char)c;
    }
    to[length] = '\0';
}

static bool wait_for_release(struct cm_watchdog *dog)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)HOLD_S;
    return pthread_mutex_timedlock(&dog->busy, &until) == 0;
}

_Noreturn static void end_process(struct cm_watchdog *dog, enum cm_status status)
{
    wait_for_release(dog);
    _exit(cm_status_exit_code(status));
}

/* The watcher finishes the result. A launcher may end all when rank 0 is gone, so rank 0 is the
 * last; nothing is written here any more, as the lock is kept and close waits for this thread. */
_Noreturn static void leave(struct cm_watchdog *dog)
{
    double until_s = cm_clock_s() + LEAVE_S;
    if (dog->rank == 0 && wait_for_release(dog)) {
        cm_last_resort_arm(&dog->last, 2 * LEAVE_S);
        cm_send_word(&dog->channel, "left");
        while (!dog->channel.ended && cm_clock_s() < until_s) {
            struct pollfd ready = {.fd = dog->channel.fd, .events = POLLIN};
            poll(&ready, 1, 1000);
            if (cm_channel_fill(&dog->channel) != CM_OK)
                break;
        }
    }
    _exit(cm_status_exit_code(CM_LOST));
}

static void take_place(struct cm_watchdog *dog, struct cm_place *place)
{
    struct cm_comm_note note;
    pthread_mutex_lock(&dog->lock);
    *place = dog->at;
    pthread_mutex_unlock(&dog->lock);
    place->ticks = dog->ticks;
    cm_comm_last(&note);
    place->common = note.common;
    if (note.number > 0)
        snprintf(place->operation, sizeof place->operation, "%s of %llu %s among %u ranks",
                 note.name, (unsigned long long)note.count, cm_dtype_name(note.dtype), note.ranks);
}

/* Nothing is heard from the watcher. Rank 0, which is beside it, blames its process; one rank of
 * another host that host, when it is the connection that is silent. */
_Noreturn static void lose_watcher(struct cm_watchdog *dog, bool closed)
{
    struct cm_place place;
    struct cm_str out = CM_STR_INIT;
    take_place(dog, &place);
    cm_place_text(&place, &out);
    if (dog->rank == 0)
        fprintf(stderr, "clustermark: the watcher of the ranks %s; rank 0 on %s ends %s\n",
                closed ? "died" : "was stopped", dog->host, cm_str_text(&out));
    else if (!closed && dog->speaks)
        fprintf(stderr,
                "clustermark: %s, the host of rank 0, gave no sign of life for %.1f s: it is "
                "stopped or cut off; rank %u on %s ends %s\n",
                dog->place.host, cm_clock_s() - dog->heard_s, dog->rank, dog->host,
                cm_str_text(&out));
    end_process(dog, CM_LOST);
}

static void hear(struct cm_watchdog *dog)
{
    struct cm_message message;
    enum cm_status status = cm_channel_fill(&dog->channel);
    for (;;) {
        if (status == CM_OK)
            status = cm_channel_next(&dog->channel, &message);
        if (status != CM_OK || message.kind[0] == '\0')
            break;
        dog->heard_s = cm_clock_s();
        if (strcmp(message.kind, "end") == 0)
            leave(dog);
    }
    if (dog->channel.ended && !dog->closing)
        lose_watcher(dog, true);
}

static void say(struct cm_watchdog *dog)
{
    struct cm_place place;
    take_place(dog, &place);
    cm_send_beat(&dog->channel, &place);
    dog->said_s = cm_clock_s();
    pthread_mutex_lock(&dog->lock);
    if (dog->has_hello)
        cm_send_watch_hello(&dog->channel, &dog->hello);
    if (dog->error.status != CM_OK && !dog->error_told)
        cm_send_error(&dog->channel, &dog->error);
    dog->has_hello = false;
    dog->error_told = dog->error.status != CM_OK;
    pthread_mutex_unlock(&dog->lock);
}

/* The connection that the rank has made is the thread's from now on. */
static void take_connection(struct cm_watchdog *dog)
{
    uint64_t count;
    if (read(dog->wake, &count, sizeof count) < 0)
        return;
    pthread_mutex_lock(&dog->lock);
    if (dog->has_joined) {
        dog->channel = dog->joined;
        dog->speaks = dog->joined_speaks;
        dog->has_joined = false;
        dog->connected = true;
        dog->heard_s = cm_clock_s();
        fcntl(dog->channel.fd, F_SETFL, fcntl(dog->channel.fd, F_GETFL) | O_NONBLOCK);
    }
    pthread_mutex_unlock(&dog->lock);
}

static void *watch(void *arg)
{
    struct cm_watchdog *dog = arg;
    double beat_s = dog->silence_s / 5;
    bool wanted = true;
    while (!dog->closing) {
        cm_last_resort_arm(&dog->last, 2 * dog->silence_s);
        double now_s = cm_clock_s();
        double next_s = dog->said_s + (wanted ? FORWARD_S : beat_s);
        if (dog->connected && now_s >= next_s) {
            say(dog);
            wanted = false;
            next_s = dog->said_s + beat_s;
        }
        struct pollfd polls[] = {{.fd = dog->signals, .events = POLLIN},
                                 {.fd = dog->wake, .events = POLLIN},
                                 {.fd = dog->connected ? dog->channel.fd : -1, .events = POLLIN}};
        double left_s = fmin(dog->connected ? next_s - now_s : beat_s, beat_s);
        if (poll(polls, 3, (int)ceil(fmax(left_s, 0) * 1e3)) < 0 && errno != EINTR)
            break;
        if (polls[2].revents != 0)
            hear(dog);
        if (polls[0].revents != 0) {
            if (dog->connected)
                cm_send_word(&dog->channel, "told");
            end_process(dog, CM_INTERRUPTED);
        }
        if (polls[1].revents != 0) {
            take_connection(dog);
            wanted = true;
        }
        /* Who tells the user goes first: a launcher may end all when one goes. */
        double patience_s = dog->silence_s + (dog->rank == 0 || dog->speaks ? 0 : beat_s);
        if (dog->connected && cm_clock_s() - dog->heard_s > patience_s)
            lose_watcher(dog, false);
    }
    if (dog->connected)
        cm_send_word(&dog->channel, "bye");
    return NULL;
}

static void wake(struct cm_watchdog *dog)
{
    uint64_t one = 1;
    if (write(dog->wake, &one, sizeof one) < 0)
        return; /* it is awake */
}

/* A launcher tells by the end of what it gave to rank 0 that rank 0 is gone. */
static void keep_only(int one, int other)
{
    unsigned low = (unsigned)(one < other ? one : other);
    unsigned high = (unsigned)(one < other ? other : one);
    if (low > 3)
        close_range(3, low - 1, 0);
    if (high > low + 1)
        close_range(low + 1, high - 1, 0);
    close_range(high + 1, ~0U, 0);
}

/* In the watcher's process. What the launcher sends to all is for the ranks. */
static void be_watcher(struct cm_watcher_config *config, struct cm_watch_end *end)
{
    const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        signal(ignored[i], SIG_IGN);
    setsid();
    keep_only(config->listener, config->rank0);
    cm_watcher_run(config, end);
    if (end->fate == CM_FATE_OVER)
        _exit(0);
    if (end->parted)
        _exit(cm_status_exit_code(CM_LOST));
}

/* True in the watcher's process. A rank 0 without a watcher runs all the same. */
static bool start_watcher(struct cm_watchdog *dog, unsigned size, struct cm_watch_end *end)
{
    int pair[2];
    struct cm_watcher_config config = {
        .size = size, .silence_s = dog->silence_s, .rank0_pid = getpid()};
    if (cm_watch_listen(&config.listener, &config.place) != CM_OK) {
        cm_warn("no watch over the ranks: %s", cm_error_text());
        return false;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        pair[0] = pair[1] = -1;
    fflush(NULL); /* or both processes write it */
    dog->watcher = pair[0] >= 0 ? fork() : -1;
    if (dog->watcher == 0) {
        close(pair[0]);
        config.rank0 = pair[1];
        be_watcher(&config, end);
        return true;
    }
    close(config.listener);
    if (pair[1] >= 0)
        close(pair[1]);
    if (dog->watcher < 0) {
        cm_warn("no watch over the ranks: no process to be had");
        if (pair[0] >= 0)
            close(pair[0]);
        return false;
    }
    dog->place = config.place;
    dog->channel.fd = pair[0];
    dog->connected = true;
    dog->heard_s = cm_clock_s();
    return false;
}

static enum cm_status start_thread(struct cm_watchdog *dog)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    dog->signals = signalfd(-1, &set, SFD_CLOEXEC);
    dog->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (dog->signals < 0 || dog->wake < 0)
        return cm_error_errno(CM_SYSTEM, "the rank's watchdog: signalfd");
    /* All threads made later inherit this. */
    pthread_sigmask(SIG_BLOCK, &set, &dog->mask);
    cm_last_resort_open(&dog->last);
    int failure = pthread_create(&dog->thread, NULL, watch, dog);
    if (failure == 0)
        return CM_OK;
    errno = failure;
    return cm_error_errno(CM_SYSTEM, "cannot start the rank's watchdog");
}

enum cm_status cm_watchdog_open(const struct cm_world *world, double silence_s,
                                struct cm_watchdog **dog, struct cm_watch_end *end)
{
    *end = (struct cm_watch_end){.fate = CM_FATE_FINE};
    *dog = NULL;
    if (world->size < 2 || silence_s <= 0)
        return CM_OK;
    struct cm_watchdog *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->rank = world->rank;
    made->silence_s = silence_s;
    made->channel = made->joined = (struct cm_channel)CM_CHANNEL_INIT;
    made->at.allowed_s = INFINITY;
    snprintf(made->at.phase, sizeof made->at.phase, "starting");
    pthread_mutex_init(&made->lock, NULL);
    pthread_mutex_init(&made->busy, NULL);
    cm_host_name(made->host, sizeof made->host);
    if (world->rank == 0 && start_watcher(made, world->size, end))
        return CM_OK;
    enum cm_status status = start_thread(made);
    if (status == CM_OK)
        *dog = made;
    return status; /* a rank that fails here ends, and its watcher with it */
}

static void describe(const struct cm_watchdog *dog, const struct cm_vote *vote,
                     struct cm_watch_hello *hello)
{
    char device[200];
    const struct cm_device_info *info = &vote->device->info;
    *hello = (struct cm_watch_hello){.rank = dog->rank,
                                     .near = dog->place.machine == cm_watch_machine()};
    snprintf(device, sizeof device, "%s%s%s", info->name, info->bus_id[0] ? " " : "", info->bus_id);
    copy_plain(device, hello->device, sizeof hello->device);
    copy_plain(dog->host, hello->host, sizeof hello->host);
    memcpy(hello->cookie, dog->place.cookie, sizeof hello->cookie);
}

static enum cm_status connect_to_watcher(struct cm_watchdog *dog, const struct cm_vote *vote)
{
    struct cm_watch_hello hello;
    struct cm_message message;
    struct cm_channel channel = CM_CHANNEL_INIT;
    bool speaks = false;
    describe(dog, vote, &hello);
    enum cm_status status = cm_watch_connect(&dog->place, CONNECT_S, &channel.fd);
    if (status == CM_OK)
        status = cm_send_watch_hello(&channel, &hello);
    if (status == CM_OK)
        status = cm_channel_receive_within(&channel, CONNECT_S, &message);
    if (status == CM_OK)
        status = strcmp(message.kind, "welcome") == 0
                     ? cm_read_welcome(&message, &speaks)
                     : cm_error(CM_LOST, "what listens at port %u of %s is not the watcher",
                                dog->place.port, dog->place.host);
    if (status != CM_OK) {
        cm_channel_close(&channel);
        return status;
    }
    pthread_mutex_lock(&dog->lock);
    dog->joined = channel;
    dog->joined_speaks = speaks;
    dog->has_joined = true;
    pthread_mutex_unlock(&dog->lock);
    wake(dog);
    return CM_OK;
}

/* Rank 0's connection belongs to its thread, which tells of the device in its own time. */
static enum cm_status join_one(struct cm_watchdog *dog, const struct cm_vote *vote)
{
    if (dog->place.port == 0)
        return cm_error(CM_LOST, "rank 0 has no watcher");
    if (dog->rank > 0)
        return connect_to_watcher(dog, vote);
    struct cm_watch_hello hello;
    describe(dog, vote, &hello);
    pthread_mutex_lock(&dog->lock);
    dog->hello = hello;
    dog->has_hello = true;
    pthread_mutex_unlock(&dog->lock);
    wake(dog);
    return CM_OK;
}

enum cm_status cm_watchdog_join(struct cm_watchdog **dog, struct cm_vote *vote)
{
    const void *all;
    struct cm_watch_place own = {.port = 0};
    if (*dog != NULL)
        own = (*dog)->place;
    enum cm_status status = cm_vote_gather(vote, &own, sizeof own, &all);
    if (status != CM_OK || *dog == NULL)
        return status;
    memcpy(&(*dog)->place, all, sizeof own);
    enum cm_status joined = join_one(*dog, vote);
    double *values = cm_vote_values(vote);
    values[0] = joined != CM_OK ? vote->comm->rank + 1.0 : 0;
    status = cm_vote_round(vote, 1);
    if (status != CM_OK || values[0] <= 0)
        return status;
    if (joined != CM_OK && (*dog)->place.port != 0 && values[0] == vote->comm->rank + 1.0)
        cm_warn("no watch over the ranks: rank %u: %s", vote->comm->rank, cm_error_text());
    cm_watchdog_close(*dog);
    *dog = NULL;
    return CM_OK;
}

void cm_watchdog_note(struct cm_watchdog *dog, const struct cm_watch_note *note)
{
    if (dog == NULL)
        return;
    dog->ticks = dog->ticks + 1;
    /* Only this thread writes what is compared. */
    if (dog->at.in_case == (note->name != NULL) && dog->at.case_index == note->case_index &&
        dog->at.run == note->run && strcmp(dog->at.phase, note->phase) == 0)
        return;
    pthread_mutex_lock(&dog->lock);
    dog->at.in_case = note->name != NULL;
    dog->at.case_index = note->case_index;
    dog->at.run = note->run;
    dog->at.allowed_s = note->allowed_s;
    dog->at.steps++;
    copy_plain(note->name != NULL ? note->name : "", dog->at.name, sizeof dog->at.name);
    copy_plain(note->phase, dog->at.phase, sizeof dog->at.phase);
    pthread_mutex_unlock(&dog->lock);
    wake(dog);
}

void cm_watchdog_hold(struct cm_watchdog *dog)
{
    if (dog != NULL)
        pthread_mutex_lock(&dog->busy);
}

void cm_watchdog_release(struct cm_watchdog *dog)
{
    if (dog != NULL)
        pthread_mutex_unlock(&dog->busy);
}

void cm_watchdog_give_up(struct cm_watchdog *dog, enum cm_status status)
{
    if (dog == NULL)
        return;
    double until_s = cm_clock_s() + dog->silence_s + LAST_WORD_S;
    pthread_mutex_lock(&dog->lock);
    dog->error.status = status;
    const char *text = cm_error_text();
    copy_plain(text[0] != '\0' ? text : cm_status_text(status), dog->error.text,
               sizeof dog->error.text);
    pthread_mutex_unlock(&dog->lock);
    wake(dog);
    while (cm_clock_s() < until_s)
        poll(NULL, 0, 50);
}

void cm_watchdog_close(struct cm_watchdog *dog)
{
    if (dog == NULL)
        return;
    dog->closing = true;
    wake(dog);
    pthread_join(dog->thread, NULL);
    cm_last_resort_close(&dog->last);
    cm_channel_close(&dog->channel);
    if (dog->watcher > 0)
        waitpid(dog->watcher, NULL, WNOHANG);
    pthread_sigmask(SIG_SETMASK, &dog->mask, NULL);
    close(dog->signals);
    close(dog->wake);
    pthread_mutex_destroy(&dog->busy);
    pthread_mutex_destroy(&dog->lock);
    cm_free(dog);
}
