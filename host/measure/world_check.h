/*
 * world_check.h: whether the ranks that an outside launcher started are one world: the same
 * program, suite, settings and libraries on all, a device for each.
 *
 * Each rank says what it is in a record of a fixed layout, and all compare all of them, so that all
 * end alike. Drivers and kernels may differ from node to node: the cluster's map tells of that.
 */
#ifndef HOST_MEASURE_WORLD_CHECK_H
#define HOST_MEASURE_WORLD_CHECK_H

#include <stdint.h>

#include "clustermark/measure.h"
#include "host/measure/exchange.h"

#define CM_WORLD_LAYOUT 1

/* Programs of two versions read each other's: its size never changes, and neither do layout and
 * version. What comes later is compared only where these are equal. */
struct cm_world_record {
    uint32_t layout;
    uint32_t rank, size; /* as this rank's launcher tells */
    uint32_t local_rank, local_size;
    uint32_t cases;
    char version[40];
    uint64_t host; /* equal on one machine alone */
    uint64_t plan; /* hash of every case with all its settings */
    char host_name[64];
    char suite[40];
    char comm[64];     /* the communication library */
    char software[96]; /* what the device computes with */
    char device[80];
    char bus_id[24], uuid[24]; /* "" where the device has none */
    char reserved[40];
};
_Static_assert(sizeof(struct cm_world_record) == 512, "the layout is fixed");

/* What this rank is; `comm` NULL: not open yet. */
void cm_world_describe(const struct cm_plan *plan, const struct cm_world *world,
                       const struct cm_device *device, const struct cm_comm *comm,
                       struct cm_world_record *record);
/* Pure. CM_USAGE names in one line what differs, and on which ranks. */
enum cm_status cm_world_compare(const struct cm_world_record *records, unsigned count);

/* Every rank calls it, and all get the same answer. `records` has room for every rank. */
enum cm_status cm_world_check(const struct cm_exchange *exchange, const struct cm_world_record *own,
                              struct cm_world_record *records);

#endif
