/* The reference launch table. Products need a library, so a device adds its own. */
#include "clustermark/train_kernels.h"
#include "kernels/cpu/kernels.h"

const struct cm_kernels cm_kernels_cpu = {
    .train = &cm_train_kernels_cpu,
    .copy = cm_cpu_copy,
    .scale = cm_cpu_scale,
    .add = cm_cpu_add,
    .triad = cm_cpu_triad,
    .read = cm_cpu_read,
    .write = cm_cpu_write,
    .fill_normal = cm_cpu_fill_normal,
    .verify = cm_cpu_verify,
    .empty = cm_cpu_empty,
};
