/*
 * channel.h: lines of text between the supervisor and its rank processes.
 *
 * A message is one line: a word, a space, a payload without newlines. The transport is a Unix
 * socket with an abstract name: nothing in the file system can be left behind, even by SIGKILL, and
 * a process that dies is noticed at once by its peer. Only processes of the same user are heard.
 *
 * One structure serves both ends: the rank's socket blocks, the supervisor's does not.
 */
#ifndef HOST_MEASURE_CHANNEL_H
#define HOST_MEASURE_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "clustermark/status.h"
#include "clustermark/strbuf.h"

#define CM_CHANNEL_NAME_MAX    48
#define CM_CHANNEL_MESSAGE_MAX ((size_t)256 << 20)

struct cm_listener {
    int fd; /* non-blocking */
    char name[CM_CHANNEL_NAME_MAX];
};

enum cm_status cm_listener_open(struct cm_listener *listener);
void cm_listener_close(struct cm_listener *listener);

/* The next waiting peer: its socket (non-blocking) and process id as the kernel tells it. *fd is -1
 * when none waits; other users' processes are turned away. */
enum cm_status cm_listener_accept(struct cm_listener *listener, int *fd, pid_t *pid);

struct cm_channel {
    int fd;
    struct cm_str in, out;
    size_t taken, scanned; /* of in: bytes given away, bytes searched for a line's end */
    size_t sent;           /* of out */
    bool ended;            /* the other side is gone */
};

#define CM_CHANNEL_INIT                                                                            \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* Blocking. CM_LOST when nobody listens. */
enum cm_status cm_channel_connect(const char *name, struct cm_channel *channel);
void cm_channel_close(struct cm_channel *channel);

/* Queue a message and send what the socket takes: all of it when the socket blocks. CM_LOST when
 * the other side is gone. */
enum cm_status cm_channel_send(struct cm_channel *channel, const char *kind, const char *payload);
enum cm_status cm_channel_flush(struct cm_channel *channel);
bool cm_channel_unsent(const struct cm_channel *channel);

struct cm_message {
    char kind[16];       /* "" when there is none yet */
    const char *payload; /* zero-terminated, until the next fill */
    size_t length;
};

/* Receive once; sets `ended` at the end of the stream. */
enum cm_status cm_channel_fill(struct cm_channel *channel);
/* The next whole message that was received. CM_COMM when the line is not a message or is too long;
 * the channel is then of no more use. */
enum cm_status cm_channel_next(struct cm_channel *channel, struct cm_message *message);
/* For a blocking socket: fill until there is a message. CM_LOST at the end of the stream. */
enum cm_status cm_channel_receive(struct cm_channel *channel, struct cm_message *message);
/* The same within a time; CM_TIMEOUT when nothing whole has come by then. */
enum cm_status cm_channel_receive_within(struct cm_channel *channel, double timeout_s,
                                         struct cm_message *message);

#endif
