/* Ranks come together over TCP. */
#include "host/measure/roster.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/measure/clock.h"

#define HELLO_MAX     2048 /* more than that before the first line's end is no rank */
#define CONNECT_S     3.0  /* one try */
#define RETRY_S       0.1
#define ANSWER_S      10.0 /* from a rank 0 that listens */
#define STRANGERS_MAX 64

void cm_cpus_write(const cpu_set_t *cpus, char text[CM_CPUS_TEXT_MAX])
{
    size_t used = 0;
    for (size_t i = 0; i < CPU_SETSIZE; i += 4) {
        unsigned digit = 0;
        for (size_t k = 0; k < 4; k++)
            digit |= CPU_ISSET(i + k, cpus) ? 1U << k : 0U;
        text[i / 4] = "0123456789abcdef"[digit];
        used = digit != 0 ? i / 4 + 1 : used;
    }
    text[used] = '\0';
}

void cm_cpus_read(const char *text, cpu_set_t *cpus)
{
    CPU_ZERO(cpus);
    for (size_t i = 0; i < CPU_SETSIZE && text[i / 4] != '\0'; i++) {
        const char digit[2] = {text[i / 4], '\0'};
        if ((strtoul(digit, NULL, 16) >> i % 4 & 1) != 0)
            CPU_SET(i, cpus);
    }
}

static void set_options(int fd)
{
    /* A host that is gone is noticed within about half a minute. */
    const int on = 1, idle_s = 10, interval_s = 5, count = 4, limit_ms = 30000;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof limit_ms);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* On every address of this node, of both families where there are two. */
static enum cm_status listen_at(unsigned port, int *listener)
{
    const int on = 1, off = 0;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_six = fd >= 0;
    if (!is_six)
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return cm_error_errno(CM_SYSTEM, "rank 0 cannot listen for the others: socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (is_six)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    const struct sockaddr *address =
        is_six ? (const struct sockaddr *)&six : (const struct sockaddr *)&four;
    if (bind(fd, address, is_six ? sizeof six : sizeof four) != 0 || listen(fd, SOMAXCONN) != 0) {
        enum cm_status status = cm_error_errno(
            CM_USAGE, "rank 0 cannot listen at port %u, set MASTER_PORT to another less 1", port);
        close(fd);
        return status;
    }
    *listener = fd;
    return CM_OK;
}

/* While the ranks come. */
struct gathering {
    struct cm_roster *roster;
    int listener;
    struct cm_channel strangers[STRANGERS_MAX]; /* have not said who they are */
    struct pollfd *polls;                       /* listener, strangers, members */
};

static void turn_away(struct cm_channel *channel)
{
    if (cm_channel_send(channel, "refused", "") != CM_OK)
        cm_error_clear();
    cm_channel_close(channel);
}

static void accept_all(struct gathering *gathering)
{
    for (size_t i = 0; i < STRANGERS_MAX; i++) {
        if (gathering->strangers[i].fd >= 0)
            continue;
        int fd = accept4(gathering->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        set_options(fd);
        gathering->strangers[i] = (struct cm_channel){.fd = fd};
    }
}

/* A stranger's first line makes it a member. */
static enum cm_status introduce(struct gathering *gathering, struct cm_channel *stranger,
                                const char *text)
{
    struct cm_roster *roster = gathering->roster;
    struct cm_member told = {.here = true};
    char cpus[CM_CPUS_TEXT_MAX] = "";
    unsigned rank, size;
    if (sscanf(text, "%u %u %u %67s %67s %256s", &rank, &size, &told.local_rank, told.node,
               told.host, cpus) < 5)
        return CM_OK; /* no rank: dropped */
    if (size != roster->size || rank >= size)
        return cm_error(
            CM_USAGE,
            "rank %u on %s was told of %u ranks, rank 0 of %u; the launcher's variables "
            "must agree",
            rank, told.host, size, roster->size);
    struct cm_member *member = &roster->members[rank];
    if (member->here)
        return cm_error(CM_USAGE,
                        "two processes, on %s and on %s, say they are rank %u of %u; each needs a "
                        "number of its own",
                        member->host, told.host, rank, size);
    cm_cpus_read(cpus, &told.cpus);
    told.channel = *stranger;
    *stranger = (struct cm_channel)CM_CHANNEL_INIT;
    *member = told;
    roster->here++;
    if (cm_channel_send(&member->channel, "heard", "") != CM_OK)
        cm_error_clear(); /* it is gone, and missed at the end */
    return CM_OK;
}

static enum cm_status hear_stranger(struct gathering *gathering, struct cm_channel *stranger)
{
    struct cm_message message = {.kind = ""};
    enum cm_status status = cm_channel_fill(stranger);
    if (status == CM_OK)
        status = cm_channel_next(stranger, &message);
    if (status == CM_OK && message.kind[0] == '\0' && !stranger->ended &&
        stranger->in.length < HELLO_MAX)
        return CM_OK;
    bool ours = status == CM_OK && strcmp(message.kind, "clustermark") == 0;
    cm_error_clear();
    status = ours ? introduce(gathering, stranger, message.payload) : CM_OK;
    if (stranger->fd >= 0)
        turn_away(stranger);
    return status;
}

/* Whoever went before all were there may come again: a pod that was started anew. */
static void hear_member(struct cm_roster *roster, struct cm_member *member)
{
    if (cm_channel_fill(&member->channel) == CM_OK && !member->channel.ended)
        return;
    cm_error_clear();
    cm_channel_close(&member->channel);
    member->here = false;
    roster->here--;
}

static enum cm_status gather_once(struct gathering *gathering, double left_s)
{
    struct cm_roster *roster = gathering->roster;
    struct pollfd *polls = gathering->polls;
    nfds_t count = 1 + STRANGERS_MAX + roster->size;
    enum cm_status status = CM_OK;
    polls[0] = (struct pollfd){.fd = gathering->listener, .events = POLLIN};
    for (size_t i = 0; i < STRANGERS_MAX; i++)
        polls[1 + i] = (struct pollfd){.fd = gathering->strangers[i].fd, .events = POLLIN};
    for (unsigned i = 0; i < roster->size; i++)
        polls[1 + STRANGERS_MAX + i] = (struct pollfd){
            .fd = roster->members[i].here ? roster->members[i].channel.fd : -1, .events = POLLIN};
    if (poll(polls, count, (int)ceil(fmin(left_s, 60) * 1e3)) < 0 && errno != EINTR)
        return cm_error_errno(CM_SYSTEM, "rank 0 cannot wait for the others: poll");
    for (unsigned i = 0; i < roster->size; i++) {
        if (polls[1 + STRANGERS_MAX + i].revents != 0)
            hear_member(roster, &roster->members[i]);
    }
    for (size_t i = 0; i < STRANGERS_MAX && status == CM_OK; i++) {
        if (polls[1 + i].revents != 0)
            status = hear_stranger(gathering, &gathering->strangers[i]);
    }
    if (polls[0].revents != 0)
        accept_all(gathering);
    return status;
}

/* "1, 4-7" */
static void list_missing(const struct cm_roster *roster, char *text, size_t size)
{
    size_t used = 0;
    for (unsigned i = 0; i < roster->size && used + 32 < size; i++) {
        unsigned last = i;
        if (roster->members[i].here)
            continue;
        while (last + 1 < roster->size && !roster->members[last + 1].here)
            last++;
        used += (size_t)snprintf(text + used, size - used, last > i ? "%s%u-%u" : "%s%u",
                                 used > 0 ? ", " : "", i, last);
        i = last;
    }
    if (used + 32 >= size)
        snprintf(text + used, size - used, ", ...");
}

static enum cm_status gather_all(struct gathering *gathering, double timeout_s)
{
    struct cm_roster *roster = gathering->roster;
    char missing[256], time[CM_UNITS_TEXT_MAX];
    double end_s = cm_clock_s() + timeout_s;
    while (roster->here < roster->size) {
        double left_s = end_s - cm_clock_s();
        if (left_s <= 0) {
            list_missing(roster, missing, sizeof missing);
            return cm_error(CM_USAGE, "%u ranks were expected within %s, and %u came; missing: %s",
                            roster->size, cm_format_time(timeout_s, time), roster->here, missing);
        }
        enum cm_status status = gather_once(gathering, left_s);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

/* A socket per rank. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The name by which mpirun knows it, whatever NCCL calls it. */
static void describe_host(char host[CM_MEMBER_TEXT_MAX])
{
    char name[CM_MEMBER_TEXT_MAX] = "";
    if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0')
        snprintf(name, sizeof name, "unnamed");
    snprintf(host, CM_MEMBER_TEXT_MAX, "%s", name);
}

static void describe_self(const struct cm_world *world, struct cm_member *self)
{
    static const char *const numbers[] = {"SLURM_NODEID", "GROUP_RANK"};
    *self = (struct cm_member){
        .here = true, .local_rank = world->local_rank, .channel = CM_CHANNEL_INIT};
    snprintf(self->node, sizeof self->node, "-");
    for (size_t i = 0; i < 2; i++) {
        const char *number = getenv(numbers[i]);
        if (number != NULL && number[0] != '\0' && strchr(number, ' ') == NULL)
            snprintf(self->node, sizeof self->node, "%s", number);
    }
    describe_host(self->host);
    if (sched_getaffinity(0, sizeof self->cpus, &self->cpus) != 0)
        CPU_ZERO(&self->cpus);
}

static void close_gathering(struct gathering *gathering)
{
    for (size_t i = 0; i < STRANGERS_MAX; i++) {
        if (gathering->strangers[i].fd >= 0)
            cm_channel_close(&gathering->strangers[i]);
    }
    if (gathering->listener >= 0)
        close(gathering->listener);
    cm_free(gathering->polls);
}

enum cm_status cm_roster_gather(const struct cm_world *world, const struct cm_address *address,
                                double timeout_s, struct cm_roster *roster)
{
    struct cm_roster made = {.size = world->size, .here = 1};
    struct gathering gathering = {.roster = &made, .listener = -1};
    char text[CM_ERROR_TEXT_MAX];
    for (size_t i = 0; i < STRANGERS_MAX; i++)
        gathering.strangers[i] = (struct cm_channel)CM_CHANNEL_INIT;
    raise_file_limit();
    made.members = cm_alloc(made.size, sizeof *made.members);
    gathering.polls = cm_alloc(1 + STRANGERS_MAX + made.size, sizeof *gathering.polls);
    enum cm_status status = made.members != NULL && gathering.polls != NULL ? CM_OK : CM_NO_MEMORY;
    for (unsigned i = 0; made.members != NULL && i < made.size; i++)
        made.members[i].channel = (struct cm_channel)CM_CHANNEL_INIT;
    if (status == CM_OK) {
        describe_self(world, &made.members[0]);
        status = listen_at(address->port, &gathering.listener);
    }
    if (status == CM_OK)
        status = gather_all(&gathering, timeout_s);
    if (status == CM_OK) {
        close_gathering(&gathering);
        *roster = made;
        return CM_OK;
    }
    snprintf(text, sizeof text, "%s", cm_error_text());
    for (unsigned i = 1; made.members != NULL && i < made.size; i++) {
        if (made.members[i].here)
            turn_away(&made.members[i].channel);
    }
    close_gathering(&gathering);
    cm_roster_release(&made);
    return cm_error(status, "%s", text);
}

void cm_roster_release(struct cm_roster *roster)
{
    for (unsigned i = 0; roster->members != NULL && i < roster->size; i++)
        cm_channel_close(&roster->members[i].channel);
    cm_free(roster->members);
    *roster = (struct cm_roster){.members = NULL};
}

/* One try within a bounded time; the socket blocks afterwards. */
static int connect_to(const struct addrinfo *info, double left_s)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int failure = 0;
    socklen_t length = sizeof failure;
    if (fd < 0)
        return -1;
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    bool made = connect(fd, info->ai_addr, info->ai_addrlen) == 0;
    if (!made && errno == EINPROGRESS)
        made = poll(&ready, 1, (int)ceil(fmin(left_s, CONNECT_S) * 1e3)) == 1 &&
               getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &length) == 0 && failure == 0;
    int flags = fcntl(fd, F_GETFL);
    if (made && flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0) {
        set_options(fd);
        return fd;
    }
    close(fd);
    return -1;
}

/* Whether rank 0 is there, and has heard of this one. */
static enum cm_status greet(int fd, const char *hello, double left_s, struct cm_channel *channel)
{
    struct cm_channel made = {.fd = fd};
    struct cm_message message;
    enum cm_status status = cm_channel_send(&made, "clustermark", hello);
    if (status == CM_OK)
        status = cm_roster_hear(&made, fmin(left_s, ANSWER_S), &message);
    if (status == CM_OK && strcmp(message.kind, "heard") == 0) {
        *channel = made;
        return CM_OK;
    }
    cm_channel_close(&made);
    return status == CM_OK ? cm_error(CM_LOST, "not rank 0") : status;
}

static enum cm_status try_host(const char *host, unsigned port, const char *hello, double end_s,
                               struct cm_channel *channel)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char service[8];
    enum cm_status status = cm_error(CM_LOST, "no connection");
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return status;
    for (const struct addrinfo *info = list; info != NULL && status == CM_LOST;
         info = info->ai_next) {
        double left_s = end_s - cm_clock_s();
        int fd = left_s > 0 ? connect_to(info, left_s) : -1;
        if (fd >= 0)
            status = greet(fd, hello, left_s, channel);
    }
    freeaddrinfo(list);
    return status;
}

enum cm_status cm_roster_join(const struct cm_world *world, const struct cm_address *address,
                              double timeout_s, struct cm_channel *channel)
{
    const struct timespec pause = {.tv_nsec = (long)(RETRY_S * 1e9)};
    char hello[HELLO_MAX], cpus[CM_CPUS_TEXT_MAX], time[CM_UNITS_TEXT_MAX];
    struct cm_member self;
    double end_s = cm_clock_s() + timeout_s;
    describe_self(world, &self);
    cm_cpus_write(&self.cpus, cpus);
    snprintf(hello, sizeof hello, "%u %u %u %s %s %s", world->rank, world->size, self.local_rank,
             self.node, self.host, cpus);
    do {
        for (size_t i = 0; i < CM_ADDRESS_HOSTS && address->hosts[i][0] != '\0'; i++) {
            enum cm_status status =
                try_host(address->hosts[i], address->port, hello, end_s, channel);
            if (status == CM_OK || status == CM_USAGE)
                return status;
        }
        nanosleep(&pause, NULL);
    } while (cm_clock_s() < end_s);
    bool second = address->hosts[1][0] != '\0';
    return cm_error(CM_LOST, "found no rank 0 at port %u of %.100s%s%.100s within %s",
                    address->port, address->hosts[0], second ? " or " : "", address->hosts[1],
                    cm_format_time(timeout_s, time));
}

enum cm_status cm_roster_hear(struct cm_channel *channel, double timeout_s,
                              struct cm_message *message)
{
    enum cm_status status = cm_channel_receive_within(channel, timeout_s, message);
    if (status == CM_COMM || status == CM_TIMEOUT)
        return CM_LOST;
    if (status == CM_OK && strcmp(message->kind, "refused") == 0)
        return cm_error(CM_USAGE, "%s", "");
    return status;
}
