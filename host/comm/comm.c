/* The backends of communication, and the module that MPI's lives in. */
#include "clustermark/comm.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/module.h"
#include "host/comm/module.h"

const char *const cm_comm_names[] = {"self", "mpi", "nccl", NULL};

static struct cm_backend modules[] = {
    {.name = "mpi",
     .title = "MPI",
     .built = CM_HAVE_MPI,
     .remedy = CM_HAVE_MPI ? "install openmpi-bin"
                           : "no MPI was found at configure time; install libopenmpi-dev and "
                             "openmpi-bin, and build again"},
    {.name = "nccl",
     .title = "NCCL",
     .built = CM_HAVE_NCCL,
     .remedy = CM_HAVE_NCCL ? "install libnccl2, or name its folder in LD_LIBRARY_PATH"
                            : "no NCCL was found at configure time; install it (libnccl-dev) and "
                              "build again"},
};

static struct cm_backend *module_of(const char *name)
{
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++) {
        if (strcmp(modules[i].name, name) == 0)
            return &modules[i];
    }
    return NULL;
}

const struct cm_comm_ops *cm_comm_find(const char *name)
{
    if (strcmp(name, "self") == 0)
        return &cm_comm_self;
    struct cm_backend *backend = module_of(name);
    const struct cm_module *module = backend != NULL ? cm_module_open(backend) : NULL;
    return module != NULL ? module->comm : NULL;
}

const char *cm_comm_missing(const char *name)
{
    if (cm_comm_find(name) != NULL)
        return NULL;
    const struct cm_backend *backend = module_of(name);
    return backend != NULL ? backend->missing : "this program has no backend of that name";
}

const char *cm_comm_default(const struct cm_device_ops *device, unsigned size)
{
    if (size == 1)
        return "self";
    return device->comm;
}

void cm_mpi_library_name(const char *version_text, char *name, size_t size)
{
    const char *text = version_text;
    size_t length = 0;
    bool number = false; /* the version's number has begun: it ends the name */
    for (; *text != '\0' && *text != '\n' && *text != ',' && length + 1 < size; text++) {
        bool blank = *text == ' ' || *text == '\t';
        if (blank && number)
            break;
        size_t word = strncmp(text, "Version", 7) == 0 ? 7 + strspn(text + 7, " \t") : 0;
        if (word > 0 && text[word] == ':') {
            text += word;
            continue;
        }
        bool first = length == 0 || name[length - 1] == ' ';
        if ((blank && first) || (first && *text == 'v' && text[1] >= '0' && text[1] <= '9'))
            continue;
        number = number || (first && *text >= '0' && *text <= '9');
        name[length++] = blank ? ' ' : *text;
    }
    while (length > 0 && name[length - 1] == ' ')
        length -= 1;
    name[length] = '\0';
}
