/*
 * cuda_train.h: the launchers of a training step's .cu files, as host C sees them.
 *
 * Each queues work on `stream` (a cudaStream_t) of the current device and returns a cudaError_t (0
 * is success): of the launch, not of the work. What they compute is what struct cm_train_kernels
 * documents. `capability` is 10 * major + minor of the device.
 */
#ifndef CLUSTERMARK_CUDA_TRAIN_H
#define CLUSTERMARK_CUDA_TRAIN_H

#include "clustermark/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

int cm_cuda_attention(struct CUstream_st *stream, const struct cm_attention *attention,
                      const void *q, const void *k, const void *v, void *o, float *lse,
                      int capability);
int cm_cuda_attention_backward(struct CUstream_st *stream, const struct cm_attention *attention,
                               const void *q, const void *k, const void *v, const void *o,
                               const float *lse, const void *dout, void *dq, void *dk, void *dv,
                               void *scratch, int capability);

#ifdef __cplusplus
}
#endif

#endif
