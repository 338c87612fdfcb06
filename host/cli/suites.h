/*
 * suites.h: where suites are found.
 */
#ifndef CM_CLI_SUITES_H
#define CM_CLI_SUITES_H

#include <jansson.h>

#include "clustermark/status.h"

/* The path of a suite that was given as a path or as a name: looked for in ./configs, in the
 * source's configs and in the installed ones. The caller frees *path. */
enum cm_status cm_suite_find(const char *name, char **path);

/* {"name", "path", "summary", "cases"} of every suite in those folders; a name that an earlier
 * folder has is left out. Other INI files are no suites and are passed over. */
enum cm_status cm_suites_json(json_t *array);

#endif
