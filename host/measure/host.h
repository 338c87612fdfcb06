/*
 * host.h: which machine a rank runs on.
 *
 * NCCL_HOSTID stands for the machine where it is set, as it does for NCCL: containers that share a
 * name, and tests that pretend nodes, have it.
 */
#ifndef HOST_MEASURE_HOST_H
#define HOST_MEASURE_HOST_H

#include <stddef.h>
#include <stdint.h>

/* The machine's name for people, cut to `size`; never "". */
void cm_host_name(char *name, size_t size);
/* Equal for processes of one machine alone: of its name, and of when its kernel started. */
uint64_t cm_host_id(void);

#endif
