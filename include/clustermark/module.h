/*
 * module.h: backends in shared objects of their own, clustermark-<name>.so.
 *
 * A backend whose libraries may be missing on a machine (MPI, CUDA, NCCL) is opened when it is
 * asked for: the program starts, and says what is missing, without it.
 */
#ifndef CLUSTERMARK_MODULE_H
#define CLUSTERMARK_MODULE_H

#include <stdbool.h>

struct cm_comm_ops;
struct cm_device_ops;

/* What module <name> defines as its one symbol, cm_module_<name>. */
struct cm_module {
    const char *version; /* of the program it was built with; another one is not used */
    const struct cm_device_ops *device; /* one of the two */
    const struct cm_comm_ops *comm;
};
extern const struct cm_module cm_module_mpi, cm_module_nccl, cm_module_cuda;

/* A backend that may be a module, and what became of opening it. */
struct cm_backend {
    const char *name;
    const char *title;  /* in messages: "MPI" */
    bool built;         /* this build has the module */
    const char *remedy; /* what to do about a build without it, or a machine without its libraries:
                           "install libopenmpi-dev and openmpi-bin" */
    bool tried;
    const struct cm_module *module;
    char missing[320]; /* why there is none, in one line without an end */
};

/* Opens the module unless that was tried before. It is looked for beside the program, in
 * ../lib/clustermark and where it was installed. NULL, with `missing` set, when it cannot be used.
 * Not for several threads at once. */
const struct cm_module *cm_module_open(struct cm_backend *backend);

#endif
