/*
 * configs.h: where the files that come with the program are found: suites, models.
 */
#ifndef CLUSTERMARK_CONFIGS_H
#define CLUSTERMARK_CONFIGS_H

#include <stdbool.h>

#include "clustermark/status.h"

/* ./configs, the source tree's, the installed ones; an earlier one goes before. Ends with NULL. */
extern const char *const cm_config_folders[];

/* Whether that is the name of an INI file: it ends in ".ini" and is not hidden. */
bool cm_config_is_ini(const char *file);

/* The path of a file that was given as a path (it has a slash, the ending .ini, or is a file here)
 * or as a name: <folder>/<kind><name>.ini, the kind being "" for suites, "models/" ... *path is
 * NULL where there is no file of that name; the caller frees it. */
enum cm_status cm_config_find(const char *name, const char *kind, char **path);

#endif
