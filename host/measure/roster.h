/*
 * roster.h: the ranks of an outside launcher come together over TCP.
 *
 * Rank 0 listens until every rank has come, or the time is up; then it knows who is missing. What
 * the ranks tell each other afterwards are a channel's messages (channel.h). Who can reach the port
 * can take part: as with torchrun, a network of strangers is no place for it.
 */
#ifndef HOST_MEASURE_ROSTER_H
#define HOST_MEASURE_ROSTER_H

#include <sched.h>
#include <stdbool.h>

#include "host/measure/address.h"
#include "host/measure/channel.h"

#define CM_MEMBER_TEXT_MAX 68
/* A set of CPUs as text: a hexadecimal digit for four of them, from CPU 0 on. */
#define CM_CPUS_TEXT_MAX (CPU_SETSIZE / 4 + 1)

/* Rank 0's time is up first: who waits for its word waits this much longer. */
#define CM_ROSTER_GRACE_S 30.0

/* One rank, as rank 0 knows it. */
struct cm_member {
    bool here;
    unsigned local_rank;
    char host[CM_MEMBER_TEXT_MAX];
    char node[CM_MEMBER_TEXT_MAX]; /* the launcher's number of its node; "-" not told */
    cpu_set_t cpus;                /* where it may run */
    unsigned node_index;           /* among all nodes, once these are known (carry.h) */
    struct cm_channel channel;     /* closed for rank 0 itself */
};

struct cm_roster {
    struct cm_member *members; /* by rank */
    unsigned size, here;
};

/* On rank 0. CM_USAGE names the missing ranks, two that say they are the same, or one that was told
 * of another size; those that came are then turned away. */
enum cm_status cm_roster_gather(const struct cm_world *world, const struct cm_address *address,
                                double timeout_s, struct cm_roster *roster);
/* On all others, until rank 0 knows of them. CM_LOST when it was not found. */
enum cm_status cm_roster_join(const struct cm_world *world, const struct cm_address *address,
                              double timeout_s, struct cm_channel *channel);

/* The next message of rank 0, within a time. When that turned this rank away, CM_USAGE with an
 * empty text: rank 0 says why. */
enum cm_status cm_roster_hear(struct cm_channel *channel, double timeout_s,
                              struct cm_message *message);

void cm_roster_release(struct cm_roster *roster);

void cm_cpus_write(const cpu_set_t *cpus, char text[CM_CPUS_TEXT_MAX]);
void cm_cpus_read(const char *text, cpu_set_t *cpus);

#endif
