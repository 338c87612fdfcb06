/*
 * bind.h: a rank's share of its node.
 */
#ifndef HOST_MEASURE_BIND_H
#define HOST_MEASURE_BIND_H

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"

/* Bind this process to its cores, before anything makes threads, and set the threads and the memory
 * of `config`. What the system made of it is appended to `read_back`. */
enum cm_status cm_bind_rank(const struct cm_world *world, struct cm_str *read_back,
                            struct cm_device_config *config);

#endif
