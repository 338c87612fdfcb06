/*
 * fake_cudnn.h: what the files of the fake cuDNN share: descriptors, and a graph as it was read
 * from them.
 */
#ifndef TESTS_FAKE_FAKE_CUDNN_H
#define TESTS_FAKE_FAKE_CUDNN_H

#include <cuda_runtime_api.h>
#include <cudnn_graph.h>

#include "fake/fake.h"

enum { FAKE_DNN_ATTRIBUTES = 8, FAKE_DNN_OPERATIONS = 64 };

struct fake_rule;
struct fake_attribute {
    const struct fake_rule *rule;
    int64_t count;
    void *values;
};

struct fake_tensor {
    int64_t id, sizes[4], strides[4], alignment;
    cudnnDataType_t type;
    bool is_virtual, by_value;
};

struct fake_operation {
    cudnnBackendDescriptorType_t type;
    int mode; /* cudnnPointwiseMode_t, or cudnnReduceTensorOp_t */
    int64_t axis;
    bool has_b, has_t;
    struct fake_tensor x, b, t, y;
};

struct fake_graph {
    struct fake_operation operations[FAKE_DNN_OPERATIONS];
    unsigned count;
};

/* A plan and its work in streams hold it. */
struct fake_plan {
    unsigned references;
    bool destroyed;
    struct fake_graph graph;
    int64_t workspace_bytes;
};

struct fake_descriptor {
    uint32_t mark;
    cudnnBackendDescriptorType_t type;
    bool finalized;
    unsigned users; /* finalized descriptors that have it among their attributes */
    struct fake_attribute attributes[FAKE_DNN_ATTRIBUTES];
    unsigned count;
    struct fake_graph *graph;       /* of an operation graph */
    struct fake_descriptor *source; /* of an engine's configuration: the operation graph */
    int proposal;
    struct fake_plan *plan; /* of an execution plan */
};

struct fake_dnn_handle {
    uint32_t mark;
    cudaStream_t stream;
};

/* A number from FAKE_CUDNN. */
long fake_dnn_setting(const char *name, long otherwise);
/* Records why, for cudnnGetLastErrorString, and gives back `status`. */
cudnnStatus_t fake_dnn_refuse(cudnnStatus_t status, const char *why);
/* Ends the process where it is no such descriptor, or not finalized. */
struct fake_descriptor *fake_dnn_check(void *descriptor, cudnnBackendDescriptorType_t type,
                                       const char *call);
struct fake_dnn_handle *fake_dnn_check_handle(void *handle, const char *call);
/* NULL where it was not set. */
const struct fake_attribute *fake_dnn_find(const struct fake_descriptor *descriptor,
                                           cudnnBackendAttributeName_t name);
/* The descriptor that is that attribute's first value; NULL where it was not set. */
struct fake_descriptor *fake_dnn_child(const struct fake_descriptor *descriptor,
                                       cudnnBackendAttributeName_t name);

/* fake_cudnn_graph.c: from descriptors to a graph whose shapes fit together. */
cudnnStatus_t fake_dnn_read(const struct fake_descriptor *descriptor, struct fake_graph *graph);
/* How many kernels there are for it on this device. */
int fake_dnn_proposals(const struct fake_graph *graph);
int64_t fake_dnn_workspace(const struct fake_graph *graph);
bool fake_dnn_is_gradient(const struct fake_graph *graph);

/* fake_cudnn_run.c */
void fake_dnn_drop(struct fake_plan *plan);

#endif
