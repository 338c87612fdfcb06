/* Opening the modules of backends. */
#include "clustermark/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* In the order in which a module is looked for: a build folder, an installation that was moved, the
 * installation. `folder` is this program's, NULL where that is not known. */
static bool module_path(unsigned place, const char *folder, const char *file, char *path,
                        size_t size)
{
    if (place == 2)
        return snprintf(path, size, "%s/%s", CM_MODULE_DIR, file) < (int)size;
    const char *format = place == 0 ? "%s/%s" : "%s/../lib/clustermark/%s";
    return folder != NULL && snprintf(path, size, format, folder, file) < (int)size;
}

static void open_file(struct cm_backend *backend, const char *path)
{
    /* Libraries that open plugins of their own (Open MPI) need their symbols to be global. */
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (handle == NULL) {
        const char *reason = dlerror();
        bool absent = strstr(reason, "cannot open shared object file") != NULL;
        snprintf(backend->missing, sizeof backend->missing, "%s cannot be used: %.200s%s%.80s",
                 backend->title, reason, absent ? "; " : "", absent ? backend->remedy : "");
        return;
    }
    char symbol[64];
    snprintf(symbol, sizeof symbol, "cm_module_%.40s", backend->name);
    const struct cm_module *module = dlsym(handle, symbol);
    if (module == NULL || strcmp(module->version, CM_VERSION) != 0) {
        snprintf(backend->missing, sizeof backend->missing,
                 "%s cannot be used: %.200s belongs to clustermark %.24s, this is %s",
                 backend->title, path, module == NULL ? "?" : module->version, CM_VERSION);
        return;
    }
    backend->module = module;
}

static void look_for(struct cm_backend *backend)
{
    char program[PATH_MAX], path[PATH_MAX], file[64];
    snprintf(file, sizeof file, "clustermark-%.40s.so", backend->name);
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    int unknown = length < 0 ? errno : 0;
    program[length < 0 ? 0 : length] = '\0';
    const char *folder = unknown == 0 ? dirname(program) : NULL;
    for (unsigned place = 0; place < 3; place++) {
        if (!module_path(place, folder, file, path, sizeof path))
            continue;
        if (access(path, R_OK) == 0) {
            open_file(backend, path);
            return;
        }
        if (errno != ENOENT && errno != ENOTDIR) {
            snprintf(backend->missing, sizeof backend->missing, "%s cannot be used: %.220s: %s",
                     backend->title, path, strerror(errno));
            return;
        }
    }
    if (unknown != 0)
        snprintf(backend->missing, sizeof backend->missing,
                 "%s cannot be used: %s is not in %s, and where this program is, /proc/self/exe "
                 "does not tell: %s",
                 backend->title, file, CM_MODULE_DIR, strerror(unknown));
    else
        snprintf(backend->missing, sizeof backend->missing,
                 "%s cannot be used: %s is neither beside the program nor in %s", backend->title,
                 file, CM_MODULE_DIR);
}

const struct cm_module *cm_module_open(struct cm_backend *backend)
{
    if (backend->tried)
        return backend->module;
    backend->tried = true;
    if (backend->built)
        look_for(backend);
    else
        snprintf(backend->missing, sizeof backend->missing, "not built: %.280s", backend->remedy);
    return backend->module;
}
