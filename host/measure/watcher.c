/* The watcher's process. */
#include "host/measure/watcher.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/measure/clock.h"
#include "host/measure/watch_message.h"

#define STRANGERS_MAX  64   /* connections that have not said who they are */
#define STRANGER_S     10.0 /* and how long they may take */
#define STRANGER_BYTES 4096
#define FAREWELL_S     2.0 /* for ranks to end when they are told, and again for rank 0 when killed */
#define EVENTS_MAX     256

struct peer {
    struct cm_channel channel;
    int rank; /* -1 before its hello */
    double since_s;
    struct peer *next, *previous;
};

struct watcher {
    const struct cm_watcher_config *config;
    struct cm_watched *ranks;
    struct peer **of_rank; /* NULL: not there, or no more */
    struct peer *peers;
    unsigned strangers, losses, open;
    int epoll;
    bool changed; /* something that may change the judgement */
    bool spoken_for;
    bool left; /* rank 0 writes nothing any more, and waits for this process to end */
    double beat_s, next_beat_s;
    struct cm_last_resort last;
};

static enum cm_status add_peer(struct watcher *watcher, int fd)
{
    struct peer *peer = cm_alloc(1, sizeof *peer);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    if (peer == NULL || epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        cm_free(peer);
        return cm_error(CM_SYSTEM, "a connection cannot be followed");
    }
    peer->channel = (struct cm_channel){.fd = fd};
    peer->rank = -1;
    peer->since_s = cm_clock_s();
    peer->next = watcher->peers;
    if (watcher->peers != NULL)
        watcher->peers->previous = peer;
    watcher->peers = peer;
    watcher->strangers++;
    return CM_OK;
}

static void drop_peer(struct watcher *watcher, struct peer *peer)
{
    if (peer->rank < 0) {
        watcher->strangers--;
    } else {
        watcher->of_rank[peer->rank] = NULL;
        watcher->open--;
    }
    if (peer->next != NULL)
        peer->next->previous = peer->previous;
    if (peer->previous != NULL)
        peer->previous->next = peer->next;
    else
        watcher->peers = peer->next;
    cm_channel_close(&peer->channel);
    cm_free(peer);
}

/* The connection of a rank is gone; what it said before is in the table. */
static void lose(struct watcher *watcher, struct peer *peer)
{
    if (peer->rank >= 0) {
        watcher->ranks[peer->rank].loss = ++watcher->losses;
        watcher->changed = true;
    }
    drop_peer(watcher, peer);
}

static void welcome_strangers(struct watcher *watcher)
{
    for (;;) {
        int on = 1;
        int fd = accept4(watcher->config->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (watcher->strangers >= STRANGERS_MAX + watcher->config->size ||
            add_peer(watcher, fd) != CM_OK)
            close(fd);
    }
}

/* One rank on another host tells the user when nothing is heard from this one any more. */
static bool shall_speak(struct watcher *watcher, const struct cm_watch_hello *hello)
{
    bool far = strcmp(hello->host, watcher->config->place.host) != 0;
    bool speaks = far && !watcher->spoken_for;
    watcher->spoken_for = watcher->spoken_for || speaks;
    return speaks;
}

static void seat(struct watcher *watcher, struct peer *peer, unsigned rank)
{
    struct cm_watched *row = &watcher->ranks[rank];
    peer->rank = (int)rank;
    watcher->of_rank[rank] = peer;
    watcher->strangers--;
    watcher->open++;
    row->joined = true;
    row->heard_s = row->moved_s = cm_clock_s();
    row->place.allowed_s = INFINITY;
}

static enum cm_status take_hello(struct watcher *watcher, struct peer *peer,
                                 const struct cm_message *message)
{
    struct cm_watch_hello hello;
    enum cm_status status = cm_read_watch_hello(message, &hello);
    if (status != CM_OK)
        return status;
    if (hello.rank >= watcher->config->size || watcher->ranks[hello.rank].joined ||
        memcmp(hello.cookie, watcher->config->place.cookie, sizeof hello.cookie) != 0)
        return cm_error(CM_COMM, "a stranger");
    struct cm_watched *rank = &watcher->ranks[hello.rank];
    seat(watcher, peer, hello.rank);
    rank->near = hello.near;
    memcpy(rank->host, hello.host, sizeof rank->host);
    memcpy(rank->device, hello.device, sizeof rank->device);
    return cm_send_welcome(&peer->channel, shall_speak(watcher, &hello));
}

/* Rank 0 is known from the start, and its device once it is open. */
static enum cm_status take_device(struct cm_watched *rank, const struct cm_message *message)
{
    struct cm_watch_hello hello;
    enum cm_status status = cm_read_watch_hello(message, &hello);
    if (status == CM_OK)
        memcpy(rank->device, hello.device, sizeof rank->device);
    return status;
}

static enum cm_status take_beat(struct cm_watched *rank, const struct cm_message *message)
{
    struct cm_place place;
    enum cm_status status = cm_read_beat(message, &place);
    if (status != CM_OK)
        return status;
    if (place.steps != rank->place.steps || place.ticks != rank->place.ticks)
        rank->moved_s = cm_clock_s();
    rank->place = place;
    return CM_OK;
}

static enum cm_status take(struct watcher *watcher, struct peer *peer,
                           const struct cm_message *message)
{
    if (peer->rank < 0)
        return strcmp(message->kind, "hello") == 0 ? take_hello(watcher, peer, message)
                                                   : cm_error(CM_COMM, "a stranger");
    struct cm_watched *rank = &watcher->ranks[peer->rank];
    enum cm_status status = CM_OK;
    rank->heard_s = cm_clock_s();
    if (strcmp(message->kind, "hello") == 0)
        return take_device(rank, message);
    if (strcmp(message->kind, "beat") == 0)
        return take_beat(rank, message);
    watcher->left = watcher->left || (peer->rank == 0 && strcmp(message->kind, "left") == 0);
    watcher->changed = true;
    rank->word_s = rank->heard_s;
    if (strcmp(message->kind, "bye") == 0) {
        rank->word = CM_WORD_BYE;
    } else if (strcmp(message->kind, "told") == 0) {
        rank->word = CM_WORD_TOLD;
    } else if (strcmp(message->kind, "error") == 0) {
        status = cm_read_error(message, &rank->error);
        rank->word = status == CM_OK ? CM_WORD_FAILED : rank->word;
    }
    return status;
}

/* A link that gave up is no death: the rank stays silent. */
static void hear(struct watcher *watcher, struct peer *peer)
{
    struct cm_message message;
    enum cm_status status = cm_channel_fill(&peer->channel);
    bool closed = peer->channel.ended;
    for (;;) {
        if (status == CM_OK)
            status = cm_channel_next(&peer->channel, &message);
        if (status != CM_OK || message.kind[0] == '\0')
            break;
        status = take(watcher, peer, &message);
    }
    if (closed)
        lose(watcher, peer);
    else if (peer->rank < 0 && (status != CM_OK || peer->channel.in.length > STRANGER_BYTES))
        drop_peer(watcher, peer);
    else if (status != CM_OK)
        epoll_ctl(watcher->epoll, EPOLL_CTL_DEL, peer->channel.fd, NULL);
}

static void beat(struct watcher *watcher, double now_s)
{
    struct peer *next;
    cm_last_resort_arm(&watcher->last, 2 * watcher->config->silence_s);
    for (struct peer *peer = watcher->peers; peer != NULL; peer = next) {
        next = peer->next;
        if (peer->rank >= 0)
            cm_send_word(&peer->channel, "beat");
        else if (now_s > peer->since_s + STRANGER_S)
            drop_peer(watcher, peer);
    }
    watcher->next_beat_s = now_s + watcher->beat_s;
}

/* Events come in the order in which they happened, so that who was lost first is known. */
static void turn(struct watcher *watcher, double until_s)
{
    struct epoll_event events[EVENTS_MAX];
    double left_s = until_s - cm_clock_s();
    int count = epoll_wait(watcher->epoll, events, EVENTS_MAX,
                           left_s > 0 ? (int)ceil(fmin(left_s, 60) * 1e3) : 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == NULL)
            welcome_strangers(watcher);
        else
            hear(watcher, events[i].data.ptr);
    }
}

static struct cm_culprit follow(struct watcher *watcher)
{
    double judged_s = 0;
    for (;;) {
        double now_s = cm_clock_s();
        if (now_s >= watcher->next_beat_s)
            beat(watcher, now_s);
        if (watcher->changed || now_s >= judged_s + watcher->beat_s / 2) {
            struct cm_culprit culprit =
                cm_judge(watcher->ranks, watcher->config->size, watcher->config->silence_s, now_s);
            if (culprit.fate != CM_FATE_FINE)
                return culprit;
            watcher->changed = false;
            judged_s = now_s;
        }
        turn(watcher, fmin(watcher->next_beat_s, judged_s + watcher->beat_s / 2));
    }
}

/* Said before anything else is done: who started the ranks may be about to end all of them. */
static void tell_user(const struct watcher *watcher, const struct cm_culprit *culprit,
                      struct cm_watch_end *end)
{
    struct cm_str text = CM_STR_INIT, reason = CM_STR_INIT;
    cm_culprit_text(watcher->ranks, culprit, true, &text);
    cm_culprit_text(watcher->ranks, culprit, false, &reason);
    snprintf(end->text, sizeof end->text, "%s", cm_str_text(&text));
    snprintf(end->reason, sizeof end->reason, "%s", cm_str_text(&reason));
    cm_str_release(&text);
    cm_str_release(&reason);
    char line[sizeof end->text + 16];
    int length = snprintf(line, sizeof line, "clustermark: %s\n", end->text);
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
        return; /* nobody reads any more; the result says it too */
}

/* The ranks end, and rank 0 leaves the result: it says so, or its process is gone. */
static void end_ranks(struct watcher *watcher)
{
    double until_s = cm_clock_s() + FAREWELL_S;
    cm_last_resort_arm(&watcher->last, 10 * FAREWELL_S);
    for (struct peer *peer = watcher->peers; peer != NULL; peer = peer->next) {
        if (peer->rank >= 0)
            cm_send_word(&peer->channel, "end");
    }
    /* The culprit will not listen. */
    while (watcher->of_rank[0] != NULL && !watcher->left && cm_clock_s() < until_s)
        turn(watcher, until_s);
    if (watcher->of_rank[0] == NULL || watcher->left)
        return;
    if (getppid() == watcher->config->rank0_pid)
        kill(watcher->config->rank0_pid, SIGKILL);
    until_s += FAREWELL_S;
    while (watcher->of_rank[0] != NULL && cm_clock_s() < until_s)
        turn(watcher, until_s);
}

/* A descriptor for each rank. */
static void raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static enum cm_status open_watcher(struct watcher *watcher)
{
    const struct cm_watcher_config *config = watcher->config;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    watcher->ranks = cm_alloc(config->size, sizeof *watcher->ranks);
    watcher->of_rank = cm_alloc(config->size, sizeof(void *));
    if (watcher->ranks == NULL || watcher->of_rank == NULL)
        return CM_NO_MEMORY;
    raise_limit();
    watcher->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (watcher->epoll < 0 ||
        epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, config->listener, &event) != 0)
        return cm_error_errno(CM_SYSTEM, "epoll");
    enum cm_status status = add_peer(watcher, config->rank0);
    if (status != CM_OK)
        return status;
    seat(watcher, watcher->peers, 0);
    watcher->ranks[0].near = true;
    memcpy(watcher->ranks[0].host, config->place.host, sizeof watcher->ranks[0].host);
    return CM_OK;
}

/* A rank 0 that waits for the end of this process hears of it from the kernel. */
static void close_watcher(struct watcher *watcher)
{
    struct peer *next;
    for (struct peer *peer = watcher->peers; peer != NULL; peer = next) {
        next = peer->next;
        if (peer->rank != 0 || !watcher->left)
            drop_peer(watcher, peer);
    }
    close(watcher->config->listener);
    if (watcher->epoll >= 0)
        close(watcher->epoll);
    cm_free(watcher->of_rank);
    cm_free(watcher->ranks);
}

void cm_watcher_run(const struct cm_watcher_config *config, struct cm_watch_end *end)
{
    struct watcher watcher = {.config = config, .epoll = -1, .beat_s = config->silence_s / 5};
    *end = (struct cm_watch_end){.fate = CM_FATE_OVER};
    cm_last_resort_open(&watcher.last);
    enum cm_status status = open_watcher(&watcher);
    if (status != CM_OK) {
        cm_warn("no watch over the ranks: %s", cm_error_text());
        close_watcher(&watcher);
        return;
    }
    struct cm_culprit culprit = follow(&watcher);
    if (culprit.fate != CM_FATE_OVER) {
        bool nobody = culprit.fate == CM_FATE_ENDED;
        end->fate = culprit.fate;
        end->parted = watcher.ranks[0].word == CM_WORD_BYE;
        end->place = watcher.ranks[nobody ? 0 : culprit.rank].place;
        tell_user(&watcher, &culprit, end);
        end_ranks(&watcher);
    }
    close_watcher(&watcher);
}
