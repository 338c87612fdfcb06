/*
 * carry.h: the parts of carriers, which carry an MPI job where the launcher brings none.
 *
 * The launched processes measure nothing: they are the ways to their nodes. Rank 0's starts mpirun
 * over all nodes with this program as its remote shell (`clustermark carry-start`); what is to run
 * on a node is handed to the first process of that node, which executes it. mpirun's ranks are then
 * ranks as under any mpirun, and their launcher is named as the outer one.
 *
 * Messages, of rank 0: "start SPEAKS CPUS", "run COMMAND", "end EXITCODE"; of the others: "ran
 * EXITCODE".
 */
#ifndef HOST_MEASURE_CARRY_H
#define HOST_MEASURE_CARRY_H

#include <sched.h>
#include <stdbool.h>
#include <sys/types.h>

#include "host/measure/channel.h"
#include "host/measure/roster.h"

/* A program that a carrier runs: its group is ended when the carrier ends. */
struct cm_carried {
    pid_t pid; /* 0: none */
    bool exited;
    int code; /* as a shell tells it */
};

/* Starts argv with standard input closed. A sound child gets SIGTERM when this process dies. */
enum cm_status cm_carried_start(const char *const argv[], struct cm_carried *carried);
/* Without waiting. */
void cm_carried_reap(struct cm_carried *carried);
/* SIGTERM, and SIGKILL to its group when it is still there after some seconds. */
void cm_carried_end(struct cm_carried *carried);

/* SIGCHLD, SIGTERM, SIGINT and SIGHUP as a file. */
enum cm_status cm_carry_signals(int *fd);
/* What came: whether one of those that end was among it. */
bool cm_carry_asked_to_end(int fd);

/* A node, as mpirun is told of it. */
struct cm_carry_node {
    char name[CM_MEMBER_TEXT_MAX + 16];
    unsigned first; /* its first rank carries */
    unsigned slots;
    cpu_set_t cpus; /* of all its processes */
};
/* The nodes of a roster, the one of rank 0 first; names are unique. Processes are on one node where
 * the launcher's node number says so; without it, where the host's name is the same and their local
 * ranks differ. Each member is told its node's index. */
enum cm_status cm_carry_nodes(struct cm_roster *roster, struct cm_carry_node **nodes,
                              unsigned *count);

/* Rank 0. The exit code of the job. */
int cm_carry_lead(const struct cm_world *world, const struct cm_address *address, double wait_s,
                  char **argv);
/* All others. */
int cm_carry_follow(const struct cm_world *world, const struct cm_address *address, double wait_s);

#endif
