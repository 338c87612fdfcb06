/* What the program finds in clustermark-cuda.so. */
#include "clustermark/device.h"
#include "clustermark/module.h"

extern const struct cm_device_ops cm_device_cuda;

__attribute__((visibility("default"))) const struct cm_module cm_module_cuda = {
    .version = CM_VERSION,
    .device = &cm_device_cuda,
};
