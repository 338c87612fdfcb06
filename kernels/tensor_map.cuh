/*
 * tensor_map.cuh: how kernels of Hopper tell the copy engine of a matrix in memory.
 */
#ifndef CLUSTERMARK_TENSOR_MAP_CUH
#define CLUSTERMARK_TENSOR_MAP_CUH

#include <cuda.h>
#include <stdint.h>

/* Of bf16 in three dimensions, the contiguous one first; strides are bytes, of the other two, the
 * smaller one first. `swizzled`: a box's rows are 128 bytes in shared memory, in groups of 8 whose
 * 16-byte chunks are exchanged. What is outside reads as 0. Returns a cudaError_t. */
int cm_tensor_map(const void *matrix, const uint64_t sizes[3], const uint64_t strides_bytes[2],
                  const uint32_t box[3], bool swizzled, CUtensorMap *map);

#endif
