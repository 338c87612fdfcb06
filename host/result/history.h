/*
 * history.h: series of results over time. Private to host/result.
 */
#ifndef CM_RESULT_HISTORY_H
#define CM_RESULT_HISTORY_H

#include <jansson.h>

#include "clustermark/publish.h"

/* The machine of a result in words. */
enum cm_status cm_machine_text(const json_t *result, struct cm_str *out);

/* As cm_history_load, of results that are sorted by time. */
enum cm_status cm_history_build(const json_t *results, const struct cm_history_options *options,
                                json_t **history);

/* Whether two points of a series belong to one stretch: the same machine, surroundings and case. */
bool cm_history_continues(const json_t *before, const json_t *after);

/* A field of a CSV line, quoted where it must be. */
void cm_csv_field(struct cm_str *out, const char *text);

#endif
