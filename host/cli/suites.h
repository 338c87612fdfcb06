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

/* `add` for every INI file of a folder (`kind`: "" or "/models") of those that cm_config_folders
 * names, in their order; a file of a name that the array has is left out. It appends a row with a
 * "name", or nothing. */
typedef enum cm_status (*cm_config_row_fn)(const char *folder, const char *file, json_t *array);
enum cm_status cm_config_rows(const char *kind, cm_config_row_fn add, json_t *array);

/* models.c: {"name", "path", "summary", "parameters", "layers", "sequence"} of every model of
 * configs/models; the numbers are null where the file cannot be used, and the summary says why. */
enum cm_status cm_models_json(json_t *array);

/* clusters.c: {"name", "path", "summary"} of every cluster of configs/clusters, and of every GPU of
 * configs/gpus.ini, which names a cluster of its usual systems; their path is empty. */
enum cm_status cm_clusters_json(json_t *array);

#endif
