/*
 * import.h: results of other programs as results of ours. Private to host/result.
 */
#ifndef CM_RESULT_IMPORT_H
#define CM_RESULT_IMPORT_H

#include <jansson.h>
#include <stdbool.h>

#include "host/result/record.h"

/* The most rows of a foreign file that are read. */
#define CM_IMPORT_MAX 100000

/* Fill `result`, which has the fields of a result with nothing in them. `name` begins messages. */
enum cm_status cm_import_nccl(const json_t *root, const char *name, json_t *result);
enum cm_status cm_import_nvbandwidth(const json_t *root, const char *name, json_t *result);

/* A case with one run, appended to the result's cases; borrowed, NULL after a failure. Takes over
 * `params`. */
json_t *cm_import_case(enum cm_status *status, json_t *result, const char *name,
                       const char *workload, json_t *params);
/* What became of it: of the case and of its run. */
void cm_import_outcome(enum cm_status *status, json_t *item, const char *word, const char *reason);
/* A figure of the run. */
void cm_import_metric(enum cm_status *status, json_t *item, const char *name, double value,
                      const char *unit, bool lower);

#endif
