/* The backends of communication, and the module that MPI's lives in. */
#include "clustermark/comm.h"

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/comm/module.h"

#define MODULE_FILE "clustermark-mpi.so"

const char *const cm_comm_names[] = {"self", "mpi", NULL};

/* Set by the first load_mpi. */
static const struct cm_comm_module *mpi_module;
static bool mpi_tried;
static char mpi_missing[320];

/* In the order in which the module is looked for: a build folder, an installation that was moved,
 * the installation. `folder` is this program's, NULL where that is not known. */
static bool module_path(unsigned place, const char *folder, char *path, size_t size)
{
    if (place == 2)
        return snprintf(path, size, "%s/%s", CM_MODULE_DIR, MODULE_FILE) < (int)size;
    const char *format = place == 0 ? "%s/%s" : "%s/../lib/clustermark/%s";
    return folder != NULL && snprintf(path, size, format, folder, MODULE_FILE) < (int)size;
}

static void open_module(const char *path)
{
    /* Open MPI's own plugins need its symbols to be global. */
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (handle == NULL) {
        const char *reason = dlerror();
        bool absent = strstr(reason, "cannot open shared object file") != NULL;
        snprintf(mpi_missing, sizeof mpi_missing, "MPI cannot be used: %.240s%s", reason,
                 absent ? "; install openmpi-bin" : "");
        return;
    }
    const struct cm_comm_module *module = dlsym(handle, "cm_comm_module");
    if (module == NULL || strcmp(module->version, CM_VERSION) != 0) {
        snprintf(mpi_missing, sizeof mpi_missing,
                 "MPI cannot be used: %.200s belongs to clustermark %.24s, this is %s", path,
                 module == NULL ? "?" : module->version, CM_VERSION);
        return;
    }
    mpi_module = module;
}

static void load_mpi(void)
{
    if (mpi_tried)
        return;
    mpi_tried = true;
    if (!CM_HAVE_MPI) {
        snprintf(mpi_missing, sizeof mpi_missing,
                 "not built: no MPI was found at configure time; install libopenmpi-dev and "
                 "openmpi-bin, and build again");
        return;
    }
    char program[PATH_MAX], path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    int unknown = length < 0 ? errno : 0;
    program[length < 0 ? 0 : length] = '\0';
    const char *folder = unknown == 0 ? dirname(program) : NULL;
    for (unsigned place = 0; place < 3; place++) {
        if (!module_path(place, folder, path, sizeof path))
            continue;
        if (access(path, R_OK) == 0) {
            open_module(path);
            return;
        }
        if (errno != ENOENT && errno != ENOTDIR) {
            snprintf(mpi_missing, sizeof mpi_missing, "MPI cannot be used: %.220s: %s", path,
                     strerror(errno));
            return;
        }
    }
    if (unknown != 0)
        snprintf(mpi_missing, sizeof mpi_missing,
                 "MPI cannot be used: %s is not in %s, and where this program is, /proc/self/exe "
                 "does not tell: %s",
                 MODULE_FILE, CM_MODULE_DIR, strerror(unknown));
    else
        snprintf(mpi_missing, sizeof mpi_missing,
                 "MPI cannot be used: %s is neither beside the program nor in %s", MODULE_FILE,
                 CM_MODULE_DIR);
}

const struct cm_comm_ops *cm_comm_find(const char *name)
{
    if (strcmp(name, "self") == 0)
        return &cm_comm_self;
    if (strcmp(name, "mpi") != 0)
        return NULL;
    load_mpi();
    return mpi_module != NULL ? mpi_module->ops : NULL;
}

const char *cm_comm_missing(const char *name)
{
    if (cm_comm_find(name) != NULL)
        return NULL;
    return strcmp(name, "mpi") == 0 ? mpi_missing : "this program has no backend of that name";
}

const char *cm_comm_default(const struct cm_device_ops *device, unsigned size)
{
    if (size == 1)
        return "self";
    return strcmp(device->name, "cuda") == 0 ? "nccl" : "mpi";
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
