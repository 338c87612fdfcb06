/*
 * cuda_cudnn.h: attention by cuDNN, between the library with its plans (cuda_cudnn.c) and the
 * graphs that describe attention to it (cuda_cudnn_graph.c).
 */
#ifndef HOST_DEVICE_CUDA_CUDNN_H
#define HOST_DEVICE_CUDA_CUDNN_H

#include <cudnn_graph.h>

#include "clustermark/ops.h"
#include "clustermark/train_kernels.h"
#include "host/device/cuda_api.h"

/* What is used of the library, which is opened when it is first asked for. */
#define CM_CUDNN_FUNCTIONS(X)                                                                      \
    X(cudnnGetVersion)                                                                             \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnGetLastErrorString)                                                                     \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnSetStream)                                                                              \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendExecute)

struct cm_cudnn {
    struct cm_cuda_device *device;
    void *library;
    cudnnHandle_t handle;
    cudaStream_t stream; /* the handle's */
    size_t version;      /* 91900 is 9.19.0 */
    struct cm_cudnn_plan *plans;
#define CM_CUDNN_POINTER(name) __typeof__(name) *name;
    CM_CUDNN_FUNCTIONS(CM_CUDNN_POINTER)
#undef CM_CUDNN_POINTER
};

/* Yields the status of one of those functions, recorded with its name, the library's own words, the
 * place and who calls. What the library cannot do, or refuses while plans are made, is
 * CM_UNSUPPORTED. */
#define DNN(cudnn, name, ...)                                                                      \
    cm_cudnn_status(cudnn, (cudnn)->name(__VA_ARGS__), #name, __FILE__, __LINE__)
enum cm_status cm_cudnn_status(const struct cm_cudnn *cudnn, cudnnStatus_t code, const char *call,
                               const char *file, int line);

/* What a graph reads and writes that is not the library's own: its tensors' unique ids. */
enum cm_cudnn_operand {
    CM_CUDNN_Q = 1,
    CM_CUDNN_K,
    CM_CUDNN_V,
    CM_CUDNN_O,
    CM_CUDNN_LSE,
    CM_CUDNN_DOUT,
    CM_CUDNN_DQ,
    CM_CUDNN_DK,
    CM_CUDNN_DV,
    CM_CUDNN_DQ_SUM, /* F32, [sequence][head][position][head_size] */
    CM_CUDNN_SHIFT,  /* F32, [sequence][head][position]: dout . o */
    CM_CUDNN_SCALE,  /* by value, F32: 1 / sqrt(head_size) */
    CM_CUDNN_UNSEEN, /* by value, F32: the score of a key after its query */
    CM_CUDNN_ONE,    /* by value, F32 */
    CM_CUDNN_OPERANDS
};

/* Descriptors, made in order; a plan needs them as long as it lives. */
#define CM_CUDNN_DESCRIPTORS 128
struct cm_cudnn_graph {
    cudnnBackendDescriptor_t descriptors[CM_CUDNN_DESCRIPTORS];
    unsigned count;
    cudnnBackendDescriptor_t operations; /* the graph; one of them */
};

/* A descriptor of that kind, kept by the graph; not finalized. */
enum cm_status cm_cudnn_make(const struct cm_cudnn *cudnn, struct cm_cudnn_graph *graph,
                             cudnnBackendDescriptorType_t type,
                             cudnnBackendDescriptor_t *descriptor);
/* Attention of that shape, or its gradient. cm_cudnn_discard also of what failed. */
enum cm_status cm_cudnn_describe(const struct cm_cudnn *cudnn, const struct cm_attention *attention,
                                 bool backward, struct cm_cudnn_graph *graph);
void cm_cudnn_discard(const struct cm_cudnn *cudnn, struct cm_cudnn_graph *graph);

#endif
