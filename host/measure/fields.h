/*
 * fields.h: plain structures as JSON objects and back, by a table of their members.
 */
#ifndef HOST_MEASURE_FIELDS_H
#define HOST_MEASURE_FIELDS_H

#include <stddef.h>

#include "clustermark/json.h"

enum cm_field_type {
    CM_FIELD_REAL,     /* double; not finite is null, null is NAN */
    CM_FIELD_COUNT,    /* uint64_t below 2^63 */
    CM_FIELD_UNSIGNED, /* unsigned */
    CM_FIELD_BOOL,
    CM_FIELD_TEXT, /* char[]; bytes that are not UTF-8 are written as '?' */
    CM_FIELD_NAME  /* an enum, by name */
};

/* A table ends with a row whose key is NULL. */
struct cm_field {
    const char *key;
    enum cm_field_type type;
    size_t offset, size;
    const char *const *names; /* CM_FIELD_NAME: NULL-terminated */
};

enum cm_status cm_fields_write(const struct cm_field *table, const void *fields, json_t *object);

/* Every key must be there, with the right type and within its range. Other keys are ignored. */
enum cm_status cm_fields_read(const struct cm_field *table, const json_t *object, void *fields);

/* The same from the object `object[key]`. */
enum cm_status cm_fields_read_in(const struct cm_field *table, const json_t *object,
                                 const char *key, void *fields);

/* A string for JSON; NULL when out of memory. */
json_t *cm_json_text(const char *text);

#endif
