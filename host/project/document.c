/* Documents. */
#include "host/project/document.h"

#include <math.h>

#include "clustermark/error.h"
#include "clustermark/json.h"

void cm_document_set(enum cm_status *status, json_t *object, const char *key, json_t *value)
{
    if (*status == CM_OK && object != NULL) {
        *status = cm_json_set(object, key, value);
        return;
    }
    if (*status == CM_OK)
        *status = cm_error(CM_NO_MEMORY, "out of memory for the JSON object of \"%.60s\"", key);
    json_decref(value);
}

void cm_document_append(enum cm_status *status, json_t *array, json_t *value)
{
    if (*status == CM_OK && array != NULL) {
        *status = cm_json_append(array, value);
        return;
    }
    if (*status == CM_OK)
        *status = cm_error(CM_NO_MEMORY, "out of memory for a JSON array");
    json_decref(value);
}

json_t *cm_document_figure(enum cm_status *status, double value, double p10, double p90,
                           const char *unit)
{
    json_t *entry = json_object();
    cm_document_set(status, entry, "value", cm_json_real(value));
    cm_document_set(status, entry, "p10", cm_json_real(p10));
    cm_document_set(status, entry, "p90", cm_json_real(p90));
    cm_document_set(status, entry, "unit", json_string(unit));
    return entry;
}

double cm_document_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

const char *cm_document_text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "";
}
