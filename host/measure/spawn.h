/*
 * spawn.h: the processes of one world of ranks: started, followed, ended, never left behind.
 *
 * Ranks are children of this process, or of one launcher (mpirun) which is. Every child leads a
 * process group of its own, so that Ctrl-C at the terminal reaches the supervisor alone, and ends
 * when this process does.
 */
#ifndef HOST_MEASURE_SPAWN_H
#define HOST_MEASURE_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "clustermark/status.h"

#define CM_OUTPUT_TAIL_MAX 16384

struct cm_process {
    pid_t pid;
    bool exited;
    int wait_status;
};

struct cm_processes {
    struct cm_process *items; /* one per rank, or the launcher alone */
    size_t count;
    bool launcher;
    int output; /* what all of them print, both streams; non-blocking; -1 after its end */
    char *tail; /* the last of it, at most CM_OUTPUT_TAIL_MAX bytes, zero-terminated */
    size_t tail_length;
};

struct cm_spawn_config {
    const char *program; /* a path, or a name to be found on PATH */
    const char *channel; /* the listener's name */
    unsigned ranks;
    bool launcher; /* by the launcher of this build's MPI */
};

/* In a child between fork and exec: a group of its own, signals as every program begins with, and
 * `death_signal` when `parent` dies; _exit(1) when it is dead already. */
void cm_child_settle(pid_t parent, int death_signal);

/* Signals that are blocked here are not blocked in the children. CM_USAGE when the program or the
 * launcher cannot be started. */
enum cm_status cm_processes_start(const struct cm_spawn_config *config,
                                  struct cm_processes *processes);

/* Note who has exited, without waiting. */
void cm_processes_reap(struct cm_processes *processes);
bool cm_processes_gone(const struct cm_processes *processes);
/* To the groups of all that have not exited. */
void cm_processes_signal(const struct cm_processes *processes, int signal_number);
/* Read what was printed. */
void cm_processes_drain(struct cm_processes *processes);
void cm_processes_release(struct cm_processes *processes);

/* The first line of `output` that says what went wrong: ruling, empty lines and what a launcher
 * always prints are passed over. "" when there is none. */
void cm_useful_line(const char *output, char *line, size_t size);

#endif
