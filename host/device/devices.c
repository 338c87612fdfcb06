/* The devices of the program, by preference. */
#include "clustermark/device.h"
#include "clustermark/module.h"

extern const struct cm_device_ops cm_device_cpu;

static struct cm_backend cuda = {
    .name = "cuda",
    .title = "CUDA",
    .built = CM_HAVE_CUDA,
    .remedy = CM_HAVE_CUDA ? "install the CUDA libraries, or name their folder in LD_LIBRARY_PATH"
                           : "no CUDA toolkit (nvcc) was found at configure time, or CM_CUDA was "
                             "OFF; install one and build again",
};

const struct cm_device_row cm_device_rows[] = {
    {.name = "cuda", .module = &cuda},
    {.name = "cpu", .ops = &cm_device_cpu},
    {.name = NULL},
};
