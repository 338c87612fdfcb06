/* A carrier on another node, or one more on rank 0's: it executes what rank 0 says, or waits. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "host/measure/carry.h"

struct follower {
    const struct cm_world *world;
    struct cm_channel channel;
    struct cm_carried carried;
    int signals;
    bool speaks, told, ended;
    int code;
};

static enum cm_status take_start(struct follower *follower, const char *payload)
{
    unsigned speaks = 0;
    char text[CM_CPUS_TEXT_MAX] = "";
    cpu_set_t cpus;
    if (sscanf(payload, "%u %256s", &speaks, text) < 1)
        return cm_error(CM_COMM, "rank 0 said something odd");
    follower->speaks = speaks != 0;
    cm_cpus_read(text, &cpus);
    /* The launcher may have bound each process to a core of its own. */
    if (CPU_COUNT(&cpus) > 0)
        sched_setaffinity(0, sizeof cpus, &cpus);
    return CM_OK;
}

static enum cm_status obey(struct follower *follower, const struct cm_message *message)
{
    if (strcmp(message->kind, "end") == 0) {
        follower->ended = true;
        follower->code = (int)strtol(message->payload, NULL, 10);
        return CM_OK;
    }
    if (strcmp(message->kind, "start") == 0)
        return take_start(follower, message->payload);
    if (strcmp(message->kind, "run") == 0 && follower->carried.pid == 0) {
        const char *const argv[] = {"/bin/sh", "-c", message->payload, NULL};
        follower->told = false;
        return cm_carried_start(argv, &follower->carried);
    }
    return cm_error(CM_COMM, "rank 0 said \"%s\"", message->kind);
}

static enum cm_status hear(struct follower *follower)
{
    struct cm_message message;
    enum cm_status status = cm_channel_fill(&follower->channel);
    while (status == CM_OK && !follower->ended) {
        status = cm_channel_next(&follower->channel, &message);
        if (status != CM_OK || message.kind[0] == '\0')
            break;
        status = obey(follower, &message);
    }
    if (status == CM_OK && !follower->ended && follower->channel.ended)
        status = cm_error(CM_LOST, "rank 0, which carried the job, is gone");
    return status;
}

static enum cm_status tell_exit(struct follower *follower)
{
    char code[16];
    cm_carried_reap(&follower->carried);
    if (!follower->carried.exited || follower->told)
        return CM_OK;
    snprintf(code, sizeof code, "%d", follower->carried.code);
    follower->told = true;
    return cm_channel_send(&follower->channel, "ran", code);
}

/* Until rank 0 says that it is over. */
static enum cm_status serve(struct follower *follower)
{
    enum cm_status status = CM_OK;
    while (status == CM_OK && !follower->ended) {
        struct pollfd polls[] = {{.fd = follower->channel.fd, .events = POLLIN},
                                 {.fd = follower->signals, .events = POLLIN}};
        if (poll(polls, 2, -1) < 0 && errno != EINTR)
            return cm_error_errno(CM_SYSTEM, "cannot wait for rank 0: poll");
        if (polls[1].revents != 0 && cm_carry_asked_to_end(follower->signals)) {
            follower->speaks = false;
            return cm_error(CM_INTERRUPTED, "ended by a signal");
        }
        if (polls[0].revents != 0)
            status = hear(follower);
        if (status == CM_OK && !follower->ended)
            status = tell_exit(follower);
    }
    return status;
}

int cm_carry_follow(const struct cm_world *world, const struct cm_address *address, double wait_s)
{
    struct follower follower = {.world = world, .channel = CM_CHANNEL_INIT, .speaks = true};
    enum cm_status status = cm_roster_join(world, address, wait_s, &follower.channel);
    /* Who turned this rank away has said why. Where rank 0 never came, a line from each node must
     * do. */
    if (status != CM_OK)
        follower.speaks = status == CM_LOST && (world->rank == 1 || world->local_rank == 0);
    cm_world_forget(world);
    if (status == CM_OK)
        status = cm_carry_signals(&follower.signals);
    if (status == CM_OK) {
        struct cm_message message;
        status = cm_roster_hear(&follower.channel, wait_s + CM_ROSTER_GRACE_S, &message);
        follower.speaks = status != CM_USAGE;
        if (status == CM_OK)
            status = obey(&follower, &message);
        else if (status == CM_LOST)
            cm_error(CM_LOST, "rank 0 went before all ranks had come");
    }
    if (status == CM_OK)
        status = serve(&follower);
    cm_carried_end(&follower.carried);
    if (status != CM_OK && follower.speaks)
        fprintf(stderr, "clustermark: rank %u: %s\n", world->rank, cm_error_text());
    cm_channel_close(&follower.channel);
    return status != CM_OK ? cm_status_exit_code(status) : follower.code;
}
