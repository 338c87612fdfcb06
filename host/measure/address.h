/*
 * address.h: where the first rank of an outside launcher's world listens, as the environment tells.
 */
#ifndef HOST_MEASURE_ADDRESS_H
#define HOST_MEASURE_ADDRESS_H

#include <stdbool.h>

#include "clustermark/comm.h"

#define CM_ADDRESS_HOSTS    2
#define CM_ADDRESS_HOST_MAX 256

/* Rank 0 listens at `port` on every network of its node; the others look for it at each host in
 * turn ("" ends the list). */
struct cm_address {
    char hosts[CM_ADDRESS_HOSTS][CM_ADDRESS_HOST_MAX];
    unsigned port;
};

/* MASTER_ADDR, with the port after MASTER_PORT (29500 without it), since torchrun's own store
 * listens at that one. Under srun, without MASTER_ADDR: the first node of the step, or else the
 * node where srun runs; without MASTER_PORT the port is made of the job's and the step's number.
 * *known is false when the environment tells nothing. CM_USAGE for what cannot be an address. */
enum cm_status cm_address_find(const struct cm_world *world, struct cm_address *address,
                               bool *known);

/* The first name of a list as Slurm writes it: "node1" of "node[1-4,7],login". "" when it is none.
 */
void cm_address_first_host(const char *list, char *host, unsigned size);

#endif
