/* Rank 0 of carriers: starts mpirun, passes its remote starts on, and ends the job. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/strbuf.h"
#include "host/measure/carry.h"

/* A `carry-start` process that mpirun runs as its remote shell. */
struct starter {
    struct cm_channel channel;
    unsigned node; /* what it starts runs there */
    bool asked;
};

struct lead {
    struct cm_roster roster;
    struct cm_carry_node *nodes;
    unsigned node_count;
    struct cm_listener listener;
    struct starter *starters;
    size_t starter_count, starter_capacity;
    struct pollfd *polls;
    size_t poll_capacity;
    struct cm_carried mpirun;
    int signals;
};

/* To all that came: from here on each knows what to do when rank 0 is lost. */
static void start_followers(struct lead *lead)
{
    char cpus[CM_CPUS_TEXT_MAX], text[CM_CPUS_TEXT_MAX + 8];
    /* One on another node, where there is one. */
    unsigned speaker = lead->node_count > 1 ? lead->nodes[1].first : 1;
    for (unsigned rank = 1; rank < lead->roster.size; rank++) {
        struct cm_member *member = &lead->roster.members[rank];
        cm_cpus_write(&lead->nodes[member->node_index].cpus, cpus);
        snprintf(text, sizeof text, "%d %s", rank == speaker, cpus);
        if (cm_channel_send(&member->channel, "start", text) != CM_OK)
            cm_error_clear(); /* it is gone, which the loop notices */
    }
}

static void end_followers(struct lead *lead, int code)
{
    char text[16];
    snprintf(text, sizeof text, "%d", code);
    for (unsigned rank = 1; rank < lead->roster.size; rank++) {
        struct cm_channel *channel = &lead->roster.members[rank].channel;
        if (channel->fd >= 0 && cm_channel_send(channel, "end", text) != CM_OK)
            cm_error_clear();
    }
}

/* Launchers take a space for the end of a word, and look for their remote shell on all nodes. */
static enum cm_status find_program(char *program, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", program, size - 1);
    if (length <= 0)
        return cm_error_errno(CM_SYSTEM, "cannot tell which program this is");
    program[length] = '\0';
    if (strchr(program, ' ') != NULL)
        return cm_error(CM_USAGE,
                        "mpirun cannot use %.200s to reach the other nodes; put it where no "
                        "folder's name has a space",
                        program);
    return CM_OK;
}

static enum cm_status list_hosts(const struct lead *lead, struct cm_str *hosts, bool *crowded)
{
    for (unsigned i = 0; i < lead->node_count; i++) {
        const struct cm_carry_node *node = &lead->nodes[i];
        cm_str_addf(hosts, "%s%s:%u", i > 0 ? "," : "", node->name, node->slots);
        *crowded = *crowded || (int)node->slots > CPU_COUNT(&node->cpus);
    }
    return cm_str_status(hosts);
}

/* mpirun's environment is this process's own, which has no more use for what the launcher told. */
static enum cm_status execute(struct lead *lead, const struct cm_launch *launch,
                              const char *program, char **argv)
{
    size_t count = 0, used = 0;
    while (argv[count] != NULL)
        count++;
    const char **words = cm_alloc(CM_LAUNCH_ARGS_MAX + count + 2, sizeof *words);
    if (words == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; launch->argv[i] != NULL; i++)
        words[used++] = launch->argv[i];
    words[used++] = program;
    for (size_t i = 0; i < count; i++)
        words[used++] = argv[i];
    for (size_t i = 0; launch->environment[i] != NULL; i += 2)
        setenv(launch->environment[i], launch->environment[i + 1], 1);
    if (CPU_COUNT(&lead->nodes[0].cpus) > 0)
        sched_setaffinity(0, sizeof lead->nodes[0].cpus, &lead->nodes[0].cpus);
    enum cm_status status = cm_carried_start(words, &lead->mpirun);
    cm_free(words);
    return status;
}

static enum cm_status start_mpirun(struct lead *lead, const struct cm_world *world, char **argv)
{
    char program[1024], words[CM_CHANNEL_NAME_MAX + 16];
    struct cm_launch_nodes where = {.agent_program = program, .agent_words = words};
    struct cm_launch launch;
    struct cm_str hosts = CM_STR_INIT;
    snprintf(words, sizeof words, "carry-start %s", lead->listener.name);
    enum cm_status status = find_program(program, sizeof program);
    if (status == CM_OK)
        status = list_hosts(lead, &hosts, &where.crowded);
    where.hosts = cm_str_text(&hosts);
    if (status == CM_OK)
        status = cm_launch_command_on(lead->roster.size, &where, &launch);
    if (status == CM_OK) {
        cm_world_forget(world);
        status = execute(lead, &launch, program, argv);
    }
    cm_str_release(&hosts);
    return status;
}

static enum cm_status accept_starters(struct lead *lead)
{
    for (;;) {
        int fd = -1;
        pid_t pid;
        enum cm_status status = cm_listener_accept(&lead->listener, &fd, &pid);
        if (status != CM_OK || fd < 0)
            return status;
        if (cm_grow(&lead->starters, &lead->starter_capacity, lead->starter_count + 1,
                    sizeof *lead->starters) != 0) {
            close(fd);
            return CM_NO_MEMORY;
        }
        lead->starters[lead->starter_count++] = (struct starter){.channel = {.fd = fd}};
    }
}

/* "node command": what mpirun wants to run there. */
static enum cm_status pass_on(struct lead *lead, struct starter *starter, const char *text)
{
    const char *space = strchr(text, ' ');
    size_t length = space != NULL ? (size_t)(space - text) : 0;
    for (unsigned i = 0; i < lead->node_count && space != NULL; i++) {
        const struct cm_carry_node *node = &lead->nodes[i];
        if (strlen(node->name) != length || strncmp(node->name, text, length) != 0)
            continue;
        starter->node = i;
        starter->asked = true;
        if (node->first == 0)
            return cm_channel_send(&starter->channel, "here", "");
        if (cm_channel_send(&lead->roster.members[node->first].channel, "run", space + 1) != CM_OK)
            cm_error_clear();
        return CM_OK;
    }
    return cm_error(CM_INTERNAL, "mpirun wants to start something on \"%.60s\"", text);
}

static enum cm_status hear_starter(struct lead *lead, struct starter *starter)
{
    struct cm_message message = {.kind = ""};
    enum cm_status status = cm_channel_fill(&starter->channel);
    if (status == CM_OK)
        status = cm_channel_next(&starter->channel, &message);
    if (status == CM_OK && strcmp(message.kind, "start") == 0 && !starter->asked)
        status = pass_on(lead, starter, message.payload);
    if (starter->channel.ended)
        cm_channel_close(&starter->channel);
    return status;
}

/* What ran on a node ended: the starter that asked for it ends likewise. */
static void tell_starter(struct lead *lead, unsigned node, const char *code)
{
    for (size_t i = 0; i < lead->starter_count; i++) {
        struct starter *starter = &lead->starters[i];
        if (starter->channel.fd < 0 || !starter->asked || starter->node != node)
            continue;
        if (cm_channel_send(&starter->channel, "exit", code) != CM_OK)
            cm_error_clear();
        cm_channel_close(&starter->channel);
    }
}

static enum cm_status hear_member(struct lead *lead, unsigned rank)
{
    struct cm_member *member = &lead->roster.members[rank];
    struct cm_message message = {.kind = ""};
    enum cm_status status = cm_channel_fill(&member->channel);
    if (status == CM_OK)
        status = cm_channel_next(&member->channel, &message);
    if (status == CM_OK && strcmp(message.kind, "ran") == 0)
        tell_starter(lead, member->node_index, message.payload);
    if (status == CM_OK && !member->channel.ended)
        return CM_OK;
    cm_channel_close(&member->channel);
    return cm_error(CM_LOST, "rank %u on %s is gone, and the job with it", rank, member->host);
}

static enum cm_status make_polls(struct lead *lead, nfds_t *count)
{
    size_t size = lead->roster.size, used = 0;
    if (cm_grow(&lead->polls, &lead->poll_capacity, 2 + size + lead->starter_count,
                sizeof *lead->polls) != 0)
        return CM_NO_MEMORY;
    lead->polls[used++] = (struct pollfd){.fd = lead->signals, .events = POLLIN};
    lead->polls[used++] = (struct pollfd){.fd = lead->listener.fd, .events = POLLIN};
    for (size_t i = 0; i < size; i++)
        lead->polls[used++] =
            (struct pollfd){.fd = lead->roster.members[i].channel.fd, .events = POLLIN};
    for (size_t i = 0; i < lead->starter_count; i++)
        lead->polls[used++] = (struct pollfd){.fd = lead->starters[i].channel.fd, .events = POLLIN};
    *count = used;
    return CM_OK;
}

static enum cm_status once(struct lead *lead)
{
    nfds_t count;
    size_t known = lead->starter_count;
    enum cm_status status = make_polls(lead, &count);
    if (status != CM_OK)
        return status;
    if (poll(lead->polls, count, -1) < 0 && errno != EINTR)
        return cm_error_errno(CM_SYSTEM, "cannot wait for the ranks: poll");
    const struct pollfd *polls = lead->polls;
    if (polls[0].revents != 0 && cm_carry_asked_to_end(lead->signals))
        return cm_error(CM_INTERRUPTED, "interrupted");
    cm_carried_reap(&lead->mpirun);
    if (lead->mpirun.exited)
        return CM_OK;
    for (unsigned i = 1; i < lead->roster.size && status == CM_OK; i++) {
        if (polls[2 + i].revents != 0)
            status = hear_member(lead, i);
    }
    for (size_t i = 0; i < known && status == CM_OK; i++) {
        if (polls[2 + lead->roster.size + i].revents != 0)
            status = hear_starter(lead, &lead->starters[i]);
    }
    if (status == CM_OK && polls[1].revents != 0)
        status = accept_starters(lead);
    return status;
}

static enum cm_status carry(struct lead *lead, const struct cm_world *world, char **argv)
{
    enum cm_status status = cm_carry_signals(&lead->signals);
    if (status == CM_OK)
        status = cm_carry_nodes(&lead->roster, &lead->nodes, &lead->node_count);
    if (status == CM_OK)
        status = cm_listener_open(&lead->listener);
    if (status != CM_OK)
        return status;
    start_followers(lead);
    status = start_mpirun(lead, world, argv);
    while (status == CM_OK && !lead->mpirun.exited)
        status = once(lead);
    return status;
}

int cm_carry_lead(const struct cm_world *world, const struct cm_address *address, double wait_s,
                  char **argv)
{
    struct lead lead = {.listener = {.fd = -1}, .signals = -1};
    enum cm_status status = cm_roster_gather(world, address, wait_s, &lead.roster);
    if (status == CM_OK)
        status = carry(&lead, world, argv);
    if (status != CM_OK)
        fprintf(stderr, "clustermark: %s\n", cm_error_text());
    int code = status != CM_OK ? cm_status_exit_code(status) : lead.mpirun.code;
    cm_carried_end(&lead.mpirun);
    end_followers(&lead, code);
    cm_roster_release(&lead.roster);
    for (size_t i = 0; i < lead.starter_count; i++)
        cm_channel_close(&lead.starters[i].channel);
    cm_listener_close(&lead.listener);
    cm_free(lead.starters);
    cm_free(lead.polls);
    cm_free(lead.nodes);
    return code;
}

/* The remote shell of mpirun: `carry-start LISTENER NODE COMMAND ...`. */
int cm_carry_start_main(int argc, char **argv)
{
    struct cm_channel channel = CM_CHANNEL_INIT;
    struct cm_message message;
    struct cm_str command = CM_STR_INIT;
    if (argc < 4) {
        fprintf(stderr, "clustermark: carry-start is started by mpirun, not by hand\n");
        return cm_status_exit_code(CM_USAGE);
    }
    for (int i = 3; i < argc; i++) {
        cm_str_add(&command, i > 3 ? " " : "");
        cm_str_add(&command, argv[i]);
    }
    char *start = cm_strf("%s %s", argv[2], cm_str_text(&command));
    enum cm_status status = start != NULL ? cm_str_status(&command) : CM_NO_MEMORY;
    if (status == CM_OK)
        status = cm_channel_connect(argv[1], &channel);
    if (status == CM_OK)
        status = cm_channel_send(&channel, "start", start);
    if (status == CM_OK)
        status = cm_channel_receive(&channel, &message);
    cm_free(start);
    int code = cm_status_exit_code(status);
    if (status == CM_OK && strcmp(message.kind, "here") == 0) {
        cm_channel_close(&channel);
        execl("/bin/sh", "sh", "-c", cm_str_text(&command), (char *)NULL);
        code = 127;
    } else if (status == CM_OK) {
        code = (int)strtol(message.payload, NULL, 10);
    }
    cm_channel_close(&channel);
    cm_str_release(&command);
    return code;
}
