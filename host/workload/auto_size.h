/*
 * auto_size.h: sizes of 0 in a suite: a size that suits the device, so that one suite serves the
 * two cores of a laptop and a rack of GPUs.
 */
#ifndef HOST_WORKLOAD_AUTO_SIZE_H
#define HOST_WORKLOAD_AUTO_SIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/workload.h"

/* The side of square matrices: 1024 on a host; else 8192, halved while one product would take over
 * 0.1 s at the type's peak rate. Halved, too, while three matrices of eight bytes an element do not
 * fit a quarter of what is left. */
uint64_t cm_auto_side(bool is_host, const struct cm_peak *peak, uint64_t left_bytes);

/* A message: 16 MiB on a host, else 1 GiB; halved while it is over an eighth of what is left. */
uint64_t cm_auto_message(bool is_host, uint64_t left_bytes);

/* The smallest over the ranks, whose devices may differ; every rank must call it. */
enum cm_status cm_auto_agree(struct cm_context *context, uint64_t *size);

#endif
