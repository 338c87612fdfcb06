/*
 * like_gpu.h: the CPU device as if it were a GPU of its own: its memory can be imported by other
 * processes, and its host is somebody else. What only a GPU has runs on it, and really moves data.
 */
#ifndef TESTS_CONTRACT_LIKE_GPU_H
#define TESTS_CONTRACT_LIKE_GPU_H

#include "clustermark/device.h"

/* The operations of `device`, changed; good for one device at a time. */
const struct cm_device_ops *like_gpu(const struct cm_device_ops *device);

/* The rank whose memory nobody can import from then on; negative: none. */
void like_gpu_hide(int rank, int own_rank);

/* Blocks that are still imported. */
extern unsigned like_gpu_imports;

#endif
