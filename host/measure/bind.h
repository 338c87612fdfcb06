/*
 * bind.h: a rank's share of its node.
 */
#ifndef HOST_MEASURE_BIND_H
#define HOST_MEASURE_BIND_H

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"

/* The PCI bus ids of the first `count` devices, one of each rank of a node. NULL where they are not
 * known: a device that has none, or a machine that does not tell (which is a warning). To be given
 * to cm_bus_ids_free, which accepts NULL. */
char **cm_bus_ids_locate(const struct cm_device_ops *device, unsigned devices, unsigned count);
void cm_bus_ids_free(char **bus_ids, unsigned count);

/* Bind this process to its cores, before anything makes threads: near its device where `bus_ids`
 * (one per rank of the node) is not NULL. Ranks that share cores run as SCHED_BATCH. Sets the
 * threads, the memory and the far node of `config`. What the system made of it is appended to
 * `read_back`, as "cpus 0 nodes 0 batch". */
enum cm_status cm_bind_rank(const struct cm_world *world, const char *const *bus_ids,
                            struct cm_str *read_back, struct cm_device_config *config);

#endif
