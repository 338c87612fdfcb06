/*
 * document.h: documents built and read without a check after every line.
 */
#ifndef HOST_PROJECT_DOCUMENT_H
#define HOST_PROJECT_DOCUMENT_H

#include <jansson.h>

#include "clustermark/status.h"

/* object[key] = value, which is taken over. Does nothing more once *status is a failure. */
void cm_document_set(enum cm_status *status, json_t *object, const char *key, json_t *value);
void cm_document_append(enum cm_status *status, json_t *array, json_t *value);
/* {"value", "p10", "p90", "unit"} */
json_t *cm_document_figure(enum cm_status *status, double value, double p10, double p90,
                           const char *unit);
/* NAN and "" where there is none. */
double cm_document_number(const json_t *object, const char *key);
const char *cm_document_text(const json_t *object, const char *key);

#endif
