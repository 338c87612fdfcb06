/* Lines of text over Unix sockets. */
#include "host/measure/channel.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "host/measure/clock.h"

/* An abstract address starts with a zero byte and ends with its length, not with a zero. */
static socklen_t abstract_address(const char *name, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t length = strnlen(name, CM_CHANNEL_NAME_MAX - 1);
    memcpy(address->sun_path + 1, name, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

enum cm_status cm_listener_open(struct cm_listener *listener)
{
    uint64_t number[2];
    if (getrandom(number, sizeof number, 0) != (ssize_t)sizeof number)
        return cm_error_errno(CM_SYSTEM, "cannot name the channel to the ranks: getrandom");
    struct cm_listener opened = {.fd = -1};
    snprintf(opened.name, sizeof opened.name, "clustermark-%016" PRIx64 "%016" PRIx64, number[0],
             number[1]);

    opened.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (opened.fd < 0)
        return cm_error_errno(CM_SYSTEM, "cannot open the channel to the ranks: socket");
    struct sockaddr_un address;
    socklen_t length = abstract_address(opened.name, &address);
    if (bind(opened.fd, (const struct sockaddr *)&address, length) != 0 ||
        listen(opened.fd, SOMAXCONN) != 0) {
        enum cm_status status =
            cm_error_errno(CM_SYSTEM, "cannot open the channel to the ranks: bind");
        close(opened.fd);
        return status;
    }
    *listener = opened;
    return CM_OK;
}

void cm_listener_close(struct cm_listener *listener)
{
    if (listener->fd >= 0)
        close(listener->fd);
    listener->fd = -1;
}

/* Whether the process at the other end belongs to this user. */
static enum cm_status same_user(int fd, bool *same, pid_t *pid)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return cm_error_errno(CM_SYSTEM, "cannot tell whose connection it is: getsockopt");
    *pid = peer.pid;
    *same = peer.uid == geteuid();
    return CM_OK;
}

enum cm_status cm_listener_accept(struct cm_listener *listener, int *fd, pid_t *pid)
{
    for (;;) {
        int accepted = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (accepted < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                return cm_error_errno(CM_SYSTEM, "cannot accept a rank's connection");
            *fd = -1;
            return CM_OK;
        }
        bool same = false;
        enum cm_status status = same_user(accepted, &same, pid);
        if (status == CM_OK && same) {
            *fd = accepted;
            return CM_OK;
        }
        close(accepted);
        if (status != CM_OK)
            return status;
    }
}

enum cm_status cm_channel_connect(const char *name, struct cm_channel *channel)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cm_error_errno(CM_SYSTEM, "cannot open the channel to the supervisor: socket");
    struct sockaddr_un address;
    socklen_t length = abstract_address(name, &address);
    pid_t supervisor;
    if (connect(fd, (const struct sockaddr *)&address, length) != 0) {
        enum cm_status status = cm_error_errno(CM_LOST, "cannot reach the supervisor at %s", name);
        close(fd);
        return status;
    }
    bool same = false;
    enum cm_status status = same_user(fd, &same, &supervisor);
    if (status == CM_OK && !same)
        status = cm_error(CM_LOST, "the process listening at %s belongs to another user", name);
    if (status != CM_OK) {
        close(fd);
        return status;
    }
    *channel = (struct cm_channel){.fd = fd};
    return CM_OK;
}

void cm_channel_close(struct cm_channel *channel)
{
    if (channel->fd >= 0)
        close(channel->fd);
    cm_str_release(&channel->in);
    cm_str_release(&channel->out);
    *channel = (struct cm_channel){.fd = -1, .ended = true};
}

enum cm_status cm_channel_send(struct cm_channel *channel, const char *kind, const char *payload)
{
    struct cm_str *out = &channel->out;
    size_t before = out->length;
    cm_str_add(out, kind);
    cm_str_add(out, " ");
    cm_str_add(out, payload);
    cm_str_add(out, "\n");
    enum cm_status status = cm_str_status(out);
    if (status == CM_OK)
        return cm_channel_flush(channel);
    /* All of it or nothing; a shorter message, as why this one failed, may still fit. */
    out->failed = false;
    out->length = before;
    if (out->text != NULL)
        out->text[before] = '\0';
    return status;
}

enum cm_status cm_channel_flush(struct cm_channel *channel)
{
    while (cm_channel_unsent(channel)) {
        ssize_t count = send(channel->fd, channel->out.text + channel->sent,
                             channel->out.length - channel->sent, MSG_NOSIGNAL);
        if (count >= 0) {
            channel->sent += (size_t)count;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return CM_OK;
        } else if (errno != EINTR) {
            channel->ended = errno == EPIPE || errno == ECONNRESET;
            return cm_error_errno(channel->ended ? CM_LOST : CM_SYSTEM, "cannot send a message");
        }
    }
    cm_str_reset(&channel->out);
    channel->sent = 0;
    return CM_OK;
}

bool cm_channel_unsent(const struct cm_channel *channel)
{
    return channel->out.length > channel->sent;
}

/* Move what was not given away to the front. */
static void compact(struct cm_channel *channel)
{
    if (channel->taken == 0)
        return;
    size_t rest = channel->in.length - channel->taken;
    memmove(channel->in.text, channel->in.text + channel->taken, rest + 1);
    channel->in.length = rest;
    channel->scanned -= channel->taken;
    channel->taken = 0;
}

enum cm_status cm_channel_fill(struct cm_channel *channel)
{
    char bytes[65536];
    compact(channel);
    ssize_t count;
    do {
        count = recv(channel->fd, bytes, sizeof bytes, 0);
    } while (count < 0 && errno == EINTR);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return CM_OK;
    if (count < 0 && errno != ECONNRESET)
        return cm_error_errno(CM_SYSTEM, "cannot receive a message");
    if (count <= 0) {
        channel->ended = true;
        return CM_OK;
    }
    cm_str_add_bytes(&channel->in, bytes, (size_t)count);
    return cm_str_status(&channel->in);
}

enum cm_status cm_channel_next(struct cm_channel *channel, struct cm_message *message)
{
    message->kind[0] = '\0';
    size_t unsearched = channel->in.length - channel->scanned;
    if (unsearched == 0)
        return CM_OK;
    char *line = channel->in.text + channel->taken;
    char *end = memchr(channel->in.text + channel->scanned, '\n', unsearched);
    channel->scanned = end != NULL ? (size_t)(end - channel->in.text) + 1 : channel->in.length;
    if (channel->scanned - channel->taken > CM_CHANNEL_MESSAGE_MAX)
        return cm_error(CM_COMM, "a message is longer than %zu bytes", CM_CHANNEL_MESSAGE_MAX);
    if (end == NULL)
        return CM_OK;
    *end = '\0';
    char *space = memchr(line, ' ', (size_t)(end - line));
    if (space == NULL || space == line || (size_t)(space - line) >= sizeof message->kind)
        return cm_error(CM_COMM, "a line is not a message: \"%.40s\"", line);
    memcpy(message->kind, line, (size_t)(space - line));
    message->kind[space - line] = '\0';
    message->payload = space + 1;
    message->length = (size_t)(end - space - 1);
    channel->taken = channel->scanned;
    return CM_OK;
}

/* Until there is something to read, or the time is up; the end of the stream is something. */
static enum cm_status wait_for_bytes(const struct cm_channel *channel, double end_s)
{
    struct pollfd ready = {.fd = channel->fd, .events = POLLIN};
    for (;;) {
        double left_s = end_s - cm_clock_s();
        int count = poll(&ready, 1, left_s > 0 ? (int)ceil(fmin(left_s, 60) * 1e3) : 0);
        if (count > 0)
            return CM_OK;
        if (count < 0 && errno != EINTR)
            return cm_error_errno(CM_SYSTEM, "cannot wait for a message: poll");
        if (cm_clock_s() >= end_s)
            return cm_error(CM_TIMEOUT, "no message came in time");
    }
}

static enum cm_status receive(struct cm_channel *channel, double end_s, struct cm_message *message)
{
    enum cm_status status = cm_channel_next(channel, message);
    while (status == CM_OK && message->kind[0] == '\0') {
        if (channel->ended)
            return cm_error(CM_LOST, "the other side closed the channel");
        if (isfinite(end_s))
            status = wait_for_bytes(channel, end_s);
        if (status == CM_OK)
            status = cm_channel_fill(channel);
        if (status == CM_OK)
            status = cm_channel_next(channel, message);
    }
    return status;
}

enum cm_status cm_channel_receive(struct cm_channel *channel, struct cm_message *message)
{
    return receive(channel, INFINITY, message);
}

enum cm_status cm_channel_receive_within(struct cm_channel *channel, double timeout_s,
                                         struct cm_message *message)
{
    return receive(channel, cm_clock_s() + timeout_s, message);
}
