/* What the ranks of a crew say. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "host/measure/crew.h"

static struct cm_peer *find_rank(struct cm_crew *crew, unsigned rank)
{
    for (size_t i = 0; i < crew->peer_count; i++) {
        if (crew->peers[i].rank == (int)rank)
            return &crew->peers[i];
    }
    return NULL;
}

/* Rank 0 does not ask: it told. */
static enum cm_status pass_meeting(struct cm_crew *crew, struct cm_peer *peer)
{
    if (peer->rank <= 0 || peer->lost || crew->meeting.size == 0)
        return CM_OK;
    return cm_send_meeting(&peer->channel, &crew->meeting);
}

static enum cm_status on_meeting(struct cm_crew *crew, struct cm_peer *peer,
                                 const struct cm_message *message)
{
    if (peer->rank != 0 || crew->meeting.size > 0)
        return cm_error(CM_COMM, "a meeting that nobody asked for");
    enum cm_status status = cm_read_meeting(message, &crew->meeting);
    for (size_t i = 0; i < crew->peer_count && status == CM_OK; i++) {
        status = pass_meeting(crew, &crew->peers[i]);
        if (status == CM_LOST) /* its end will be heard */
            status = CM_OK;
    }
    return status;
}

static enum cm_status on_topology(struct cm_crew *crew, struct cm_peer *peer,
                                  const struct cm_message *message)
{
    if (peer->rank != 0 || crew->topology != NULL)
        return cm_error(CM_COMM, "a topology that nobody asked for");
    return cm_read_topology(message, &crew->topology);
}

static enum cm_status on_hello(struct cm_crew *crew, struct cm_peer *peer,
                               const struct cm_message *message)
{
    struct cm_hello hello;
    enum cm_status status = cm_read_hello(message, &hello);
    if (status != CM_OK)
        return status;
    if (peer->rank >= 0)
        return cm_error(CM_COMM, "a second hello");
    if (hello.size != crew->config.ranks) {
        peer->rank = (int)hello.rank;
        return cm_error(CM_USAGE,
                        "it sees a world of %u rank%s, not %u: the launcher (%s) and the MPI of "
                        "this build do not belong together",
                        hello.size, hello.size == 1 ? "" : "s", crew->config.ranks, hello.launcher);
    }
    if (find_rank(crew, hello.rank) != NULL)
        return cm_error(CM_COMM, "a second rank %u", hello.rank);
    peer->rank = (int)hello.rank;
    /* The supervisor's own deadline comes first, as it can tell who keeps the others waiting. */
    struct cm_job job = {.ranks = crew->config.ranks,
                         .run = crew->config.run,
                         .timeout_s = 2 * crew->allowed_s,
                         .devices = crew->config.devices,
                         .bus_ids = crew->config.bus_ids};
    snprintf(job.device, sizeof job.device, "%s", crew->config.device->name);
    status = cm_send_job(&peer->channel, &job);
    return status == CM_OK ? pass_meeting(crew, peer) : status;
}

static enum cm_status on_result(struct cm_crew *crew, struct cm_peer *peer,
                                const struct cm_message *message)
{
    if (peer->rank != 0 || crew->case_name == NULL || crew->result_came || peer->done)
        return cm_error(CM_COMM, "a result that nobody asked for");
    struct cm_case_run result;
    enum cm_status status = cm_case_run_read(message->payload, message->length, &result);
    if (status != CM_OK)
        return status;
    if (result.case_index != crew->case_index || result.run != crew->config.run) {
        cm_case_run_release(&result);
        return cm_error(CM_COMM, "a result of another case");
    }
    crew->result = result;
    crew->has_result = crew->result_came = true;
    return CM_OK;
}

static enum cm_status on_message(struct cm_crew *crew, struct cm_peer *peer,
                                 const struct cm_message *message)
{
    const char *kind = message->kind;
    if (strcmp(kind, "hello") == 0)
        return on_hello(crew, peer, message);
    if (peer->rank < 0)
        return cm_error(CM_COMM, "a message \"%s\" before hello", kind);
    if (strcmp(kind, "phase") == 0)
        return cm_read_phase(message, peer->phase, sizeof peer->phase);
    if (strcmp(kind, "error") == 0) {
        peer->failure = ++crew->failures;
        return cm_read_error(message, &peer->error);
    }
    if (strcmp(kind, "result") == 0)
        return on_result(crew, peer, message);
    if (strcmp(kind, "meeting") == 0)
        return on_meeting(crew, peer, message);
    if (strcmp(kind, "topology") == 0)
        return on_topology(crew, peer, message);
    bool *const flags[] = {&peer->ready, &peer->done, &peer->told, &peer->bye};
    static const char *const words[] = {"ready", "done", "stopped", "bye"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(kind, words[i]) == 0) {
            *flags[i] = true;
            return CM_OK;
        }
    }
    return cm_error(CM_COMM, "an unknown message \"%s\"", kind);
}

/* The supervisor's own shortage is not the rank's fault. */
static bool is_own_failure(enum cm_status status)
{
    return status == CM_NO_MEMORY || status == CM_SYSTEM;
}

enum cm_status cm_crew_hear(struct cm_crew *crew, struct cm_peer *peer, double now_s)
{
    struct cm_message message;
    enum cm_status status = cm_channel_fill(&peer->channel);
    peer->heard_s = now_s;
    while (status == CM_OK) {
        status = cm_channel_next(&peer->channel, &message);
        if (status != CM_OK || message.kind[0] == '\0')
            break;
        status = on_message(crew, peer, &message);
        if (peer->error.status != CM_OK && !crew->ending)
            crew->trouble = true;
    }
    if (status != CM_OK && is_own_failure(status))
        return status;
    if (status == CM_LOST) { /* it went while it was being answered */
        peer->channel.ended = true;
        status = CM_OK;
    }
    if (status != CM_OK && peer->error.status == CM_OK) {
        /* Nonsense is a fault of the program, not of its communication. */
        peer->failure = ++crew->failures;
        peer->error.status = status == CM_COMM ? CM_INTERNAL : status;
        snprintf(peer->error.text, sizeof peer->error.text, "%s", cm_error_text());
        /* Someone who never said hello is not one of ours. */
        crew->trouble = crew->trouble || (peer->rank >= 0 && !crew->ending);
    }
    if (status != CM_OK || peer->channel.ended) {
        bool expected = crew->ending || peer->rank < 0;
        cm_channel_close(&peer->channel);
        peer->lost = true;
        if (!expected) {
            peer->loss = ++crew->losses;
            crew->trouble = true;
        }
    }
    return CM_OK;
}

enum cm_status cm_crew_welcome(struct cm_crew *crew, double now_s)
{
    for (;;) {
        int fd;
        pid_t pid;
        enum cm_status status = cm_listener_accept(&crew->listener, &fd, &pid);
        if (status != CM_OK || fd < 0)
            return status;
        if (crew->peer_count == crew->slot_count) {
            close(fd);
            continue;
        }
        crew->peers[crew->peer_count++] =
            (struct cm_peer){.channel = {.fd = fd}, .pid = pid, .rank = -1, .heard_s = now_s};
    }
}
