/* Where the files that come with the program are found. */
#include "clustermark/configs.h"

#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include "clustermark/memory.h"

const char *const cm_config_folders[] = {"configs", CM_SOURCE_CONFIGS, CM_INSTALL_CONFIGS, NULL};

bool cm_config_is_ini(const char *file)
{
    size_t length = strlen(file);
    return length > 4 && strcmp(file + length - 4, ".ini") == 0 && file[0] != '.';
}

static bool is_path(const char *name)
{
    struct stat info;
    if (strchr(name, '/') != NULL || cm_config_is_ini(name))
        return true;
    return stat(name, &info) == 0 && S_ISREG(info.st_mode);
}

enum cm_status cm_config_find(const char *name, const char *kind, char **path)
{
    struct stat info;
    char *found = NULL;
    if (is_path(name)) {
        found = cm_strdup(name);
        if (found == NULL)
            return CM_NO_MEMORY;
    }
    for (size_t i = 0; found == NULL && cm_config_folders[i] != NULL; i++) {
        found = cm_strf("%s/%s%s.ini", cm_config_folders[i], kind, name);
        if (found == NULL)
            return CM_NO_MEMORY;
        if (stat(found, &info) != 0) {
            cm_free(found);
            found = NULL;
        }
    }
    *path = found;
    return CM_OK;
}
