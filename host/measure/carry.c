/* Carriers: who needs them, and what both sides share. */
#include "host/measure/carry.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/measure/clock.h"
#include "host/measure/spawn.h"

#define END_S 8.0 /* from SIGTERM to SIGKILL */

bool cm_carry_needed(const struct cm_world *world, const struct cm_device_ops *device)
{
    const char *comm = cm_comm_default(device, world->size);
    return strcmp(world->launcher, "none") != 0 && strcmp(comm, "mpi") == 0 &&
           cm_comm_find(comm) != NULL && !cm_world_has_mpi(world);
}

int cm_carry(const struct cm_world *world, double wait_s, char **argv)
{
    struct cm_address address;
    bool known = false;
    enum cm_status status = cm_address_find(world, &address, &known);
    if (status == CM_OK && !known)
        status = cm_error(CM_USAGE,
                          "the %u ranks that %s started do not know where to meet; set MASTER_ADDR "
                          "to the node of rank 0 on all of them, or start them by mpirun",
                          world->size, world->launcher);
    if (status != CM_OK) {
        if (world->rank == 0)
            fprintf(stderr, "clustermark: %s\n", cm_error_text());
        return cm_status_exit_code(status);
    }
    return world->rank == 0 ? cm_carry_lead(world, &address, wait_s, argv)
                            : cm_carry_follow(world, &address, wait_s);
}

_Noreturn static void become(const char *const argv[], pid_t parent)
{
    cm_child_settle(parent, SIGTERM);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0 && dup2(null, 0) == 0)
        execvp(argv[0], (char *const *)argv);
    fprintf(stderr, "clustermark: cannot start %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

enum cm_status cm_carried_start(const char *const argv[], struct cm_carried *carried)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(argv, parent);
    if (pid < 0)
        return cm_error_errno(CM_SYSTEM, "cannot start %s: fork", argv[0]);
    setpgid(pid, pid); /* whoever of the two comes first */
    *carried = (struct cm_carried){.pid = pid};
    return CM_OK;
}

void cm_carried_reap(struct cm_carried *carried)
{
    int wait_status;
    if (carried->pid == 0 || carried->exited ||
        waitpid(carried->pid, &wait_status, WNOHANG) != carried->pid)
        return;
    carried->exited = true;
    carried->code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

void cm_carried_end(struct cm_carried *carried)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    double end_s = cm_clock_s() + END_S;
    if (carried->pid == 0)
        return;
    cm_carried_reap(carried);
    if (!carried->exited)
        kill(carried->pid, SIGTERM);
    while (!carried->exited && cm_clock_s() < end_s) {
        nanosleep(&pause, NULL);
        cm_carried_reap(carried);
    }
    kill(-carried->pid, SIGKILL);
    while (!carried->exited && waitpid(carried->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    carried->exited = true;
}

enum cm_status cm_carry_signals(int *fd)
{
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaddset(&set, numbers[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return *fd >= 0 ? CM_OK : cm_error_errno(CM_SYSTEM, "signalfd");
}

bool cm_carry_asked_to_end(int fd)
{
    struct signalfd_siginfo info;
    bool asked = false;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info)
        asked = asked || info.ssi_signo != SIGCHLD;
    return asked;
}

static bool same_place(const struct cm_member *a, const struct cm_member *b)
{
    bool numbered = strcmp(a->node, "-") != 0 || strcmp(b->node, "-") != 0;
    return numbered ? strcmp(a->node, b->node) == 0 : strcmp(a->host, b->host) == 0;
}

/* The node of a rank among those known, or their count for a new one. Of a place with several
 * processes of one local rank, each has a node of its own, as containers on one machine have. */
static unsigned node_of(const struct cm_roster *roster, unsigned rank,
                        const struct cm_carry_node *nodes, unsigned count)
{
    const struct cm_member *member = &roster->members[rank];
    for (unsigned i = 0; i < count; i++) {
        bool taken = false;
        if (!same_place(member, &roster->members[nodes[i].first]))
            continue;
        for (unsigned k = nodes[i].first; k < rank && !taken; k++)
            taken = roster->members[k].node_index == i &&
                    roster->members[k].local_rank == member->local_rank;
        if (!taken)
            return i;
    }
    return count;
}

/* Of the host's name what stands before the first dot, as MPI's launchers cut it; made unique. */
static void name_node(struct cm_carry_node *nodes, unsigned index, const char *host)
{
    struct cm_carry_node *node = &nodes[index];
    bool taken = false;
    int length = (int)strcspn(host, ".");
    snprintf(node->name, sizeof node->name, "%.*s", length, host);
    for (unsigned i = 0; i < index && !taken; i++)
        taken = strcmp(nodes[i].name, node->name) == 0;
    if (taken)
        snprintf(node->name, sizeof node->name, "%.*s-cm%u", length, host, index);
}

enum cm_status cm_carry_nodes(struct cm_roster *roster, struct cm_carry_node **nodes,
                              unsigned *count)
{
    unsigned made = 0;
    struct cm_carry_node *list = cm_alloc(roster->size, sizeof *list);
    if (list == NULL)
        return CM_NO_MEMORY;
    for (unsigned i = 0; i < roster->size; i++) {
        struct cm_member *member = &roster->members[i];
        unsigned node = node_of(roster, i, list, made);
        if (node == made) {
            list[node].first = i;
            name_node(list, node, member->host);
            made++;
        }
        member->node_index = node;
        list[node].slots++;
        CPU_OR(&list[node].cpus, &list[node].cpus, &member->cpus);
    }
    *nodes = list;
    *count = made;
    return CM_OK;
}
