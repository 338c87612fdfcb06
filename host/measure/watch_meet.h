/*
 * watch_meet.h: how the ranks of several hosts reach the watcher: a TCP socket on rank 0's host and
 * the words that tell the others where it is.
 */
#ifndef HOST_MEASURE_WATCH_MEET_H
#define HOST_MEASURE_WATCH_MEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"

#define CM_WATCH_ADDRESSES_MAX 12
#define CM_WATCH_COOKIE_BYTES  16

struct cm_watch_address {
    uint16_t family; /* AF_INET or AF_INET6 */
    uint8_t bytes[16];
};

/* What rank 0 tells all; the same bytes on each. */
struct cm_watch_place {
    uint16_t port; /* 0: there is no watcher */
    uint16_t address_count;
    uint8_t cookie[CM_WATCH_COOKIE_BYTES]; /* who does not know it is no rank of this world */
    uint64_t machine;                      /* the host and its network, for ranks beside rank 0 */
    char host[64];
    struct cm_watch_address addresses[CM_WATCH_ADDRESSES_MAX];
};

/* Listens on all addresses of this host, on a port that is free. */
enum cm_status cm_watch_listen(int *fd, struct cm_watch_place *place);

/* Tries all addresses at once; the first that answers counts. CM_TIMEOUT or CM_LOST says what was
 * tried. The socket blocks. */
enum cm_status cm_watch_connect(const struct cm_watch_place *place, double timeout_s, int *fd);

/* The same number for processes that share a machine and its network. */
uint64_t cm_watch_machine(void);

#endif
