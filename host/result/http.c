/* One HTTP request over a plain socket, for metadata services on the link. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/strbuf.h"
#include "host/result/placement.h"

#define ADDRESS    "169.254.169.254"
#define PORT       80
#define LIMIT_S    1.0
#define ANSWER_MAX 65536

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The link-local address that the clouds share. A test has a server of its own. */
static enum cm_status find_address(struct sockaddr_in *address)
{
    const char *other = getenv("CM_TEST_METADATA");
    char host[64] = ADDRESS;
    unsigned port = PORT;
    if (other != NULL && sscanf(other, "%63[0-9.]:%5u", host, &port) != 2)
        return cm_error(CM_USAGE, "CM_TEST_METADATA must be like 127.0.0.1:8080");
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address->sin_addr) != 1)
        return cm_error(CM_USAGE, "CM_TEST_METADATA must be like 127.0.0.1:8080");
    return CM_OK;
}

/* Until the socket can be used; false at the deadline. */
static bool wait_for(int fd, short events, double deadline)
{
    for (;;) {
        double left = deadline - now_s();
        struct pollfd entry = {.fd = fd, .events = events};
        if (left <= 0)
            return false;
        int ready = poll(&entry, 1, (int)(left * 1000) + 1);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return false;
    }
}

static bool connect_by(int fd, const struct sockaddr_in *address, double deadline)
{
    int failure = 0;
    socklen_t size = sizeof failure;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
        return true;
    if (errno != EINPROGRESS || !wait_for(fd, POLLOUT, deadline))
        return false;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 && failure == 0;
}

static bool send_by(int fd, const struct cm_str *text, double deadline)
{
    size_t sent = 0;
    while (sent < text->length) {
        if (!wait_for(fd, POLLOUT, deadline))
            return false;
        ssize_t step = send(fd, text->text + sent, text->length - sent, MSG_NOSIGNAL);
        if (step < 0 && errno != EINTR && errno != EAGAIN)
            return false;
        sent += step > 0 ? (size_t)step : 0;
    }
    return true;
}

/* Until the other side closes. */
static bool receive_by(int fd, struct cm_str *answer, double deadline)
{
    char block[4096];
    while (answer->length < ANSWER_MAX && !answer->failed) {
        if (!wait_for(fd, POLLIN, deadline))
            return false;
        ssize_t got = recv(fd, block, sizeof block, 0);
        if (got == 0)
            return true;
        if (got > 0)
            cm_str_add_bytes(answer, block, (size_t)got);
        else if (errno != EINTR && errno != EAGAIN)
            return false;
    }
    return false;
}

static enum cm_status exchange(const struct cm_str *request, struct cm_str *answer)
{
    struct sockaddr_in address;
    double deadline = now_s() + LIMIT_S;
    enum cm_status status = find_address(&address);
    if (status != CM_OK)
        return status;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cm_error_errno(CM_IO, "no socket for the metadata service");
    if (!connect_by(fd, &address, deadline) || !send_by(fd, request, deadline) ||
        !receive_by(fd, answer, deadline))
        status = cm_error(CM_IO, "no metadata service answered within %g s", LIMIT_S);
    close(fd);
    return status == CM_OK ? cm_str_status(answer) : status;
}

/* Whether a header line is there, with a value that contains `part`. */
static bool has_header(const char *head, const char *end, const char *name, const char *part)
{
    size_t length = strlen(name);
    for (const char *line = head; line < end; line = strchr(line, '\n') + 1) {
        const char *stop = strchr(line, '\n');
        if (stop == NULL || stop > end)
            return false;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const char *found = strcasestr(line + length, part);
            return found != NULL && found < stop;
        }
    }
    return false;
}

/* In place; false when the lengths do not fit. */
static bool join_chunks(char *body)
{
    char *to = body, *from = body, *end = body + strlen(body);
    for (;;) {
        char *rest;
        unsigned long length = strtoul(from, &rest, 16);
        if (rest == from || (rest = strstr(rest, "\r\n")) == NULL || length > ANSWER_MAX)
            return false;
        from = rest + 2;
        if (length == 0)
            break;
        if (length > (unsigned long)(end - from))
            return false;
        memmove(to, from, length);
        to += length;
        from += length;
        from += strncmp(from, "\r\n", 2) == 0 ? 2 : 0;
    }
    *to = '\0';
    return true;
}

static enum cm_status parse(const char *text, int *code, char **body)
{
    const char *head = strchr(text, '\n'), *end = strstr(text, "\r\n\r\n");
    int minor, number;
    if (head == NULL || end == NULL || sscanf(text, "HTTP/1.%1d %3d", &minor, &number) != 2)
        return cm_error(CM_USAGE, "the metadata service does not speak HTTP");
    char *copy = cm_strdup(end + 4);
    if (copy == NULL)
        return CM_NO_MEMORY;
    if (has_header(head + 1, end + 2, "Transfer-Encoding", "chunked") && !join_chunks(copy)) {
        cm_free(copy);
        return cm_error(CM_USAGE, "the metadata service's answer is cut");
    }
    *code = number;
    *body = copy;
    return CM_OK;
}

enum cm_status cm_http_call(const char *method, const char *path, const char *header, int *code,
                            char **body)
{
    struct cm_str request = CM_STR_INIT, answer = CM_STR_INIT;
    cm_str_addf(&request,
                "%s %s HTTP/1.1\r\nHost: " ADDRESS "\r\nConnection: close\r\n"
                "Accept: */*\r\nContent-Length: 0\r\n%s%s\r\n",
                method, path, header != NULL ? header : "", header != NULL ? "\r\n" : "");
    enum cm_status status = cm_str_status(&request);
    if (status == CM_OK)
        status = exchange(&request, &answer);
    if (status == CM_OK)
        status = parse(cm_str_text(&answer), code, body);
    cm_str_release(&request);
    cm_str_release(&answer);
    return status;
}
