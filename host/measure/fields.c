/* Structures as JSON objects, by tables. */
#include "host/measure/fields.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"

json_t *cm_json_text(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    /* Names and messages of drivers and libraries may hold any bytes. */
    char *plain = cm_strdup(text);
    if (plain == NULL)
        return NULL;
    for (char *letter = plain; *letter != '\0'; letter++) {
        if ((unsigned char)*letter >= 0x80)
            *letter = '?';
    }
    value = json_string(plain);
    cm_free(plain);
    return value;
}

static json_t *field_value(const struct cm_field *field, const char *at)
{
    double real;
    uint64_t count;
    unsigned small;
    bool flag;
    switch (field->type) {
    case CM_FIELD_REAL:
        memcpy(&real, at, sizeof real);
        return cm_json_real(real);
    case CM_FIELD_COUNT:
        memcpy(&count, at, sizeof count);
        return json_integer(count <= INT64_MAX ? (json_int_t)count : INT64_MAX);
    case CM_FIELD_UNSIGNED:
        memcpy(&small, at, sizeof small);
        return json_integer(small);
    case CM_FIELD_BOOL:
        memcpy(&flag, at, sizeof flag);
        return json_boolean(flag);
    case CM_FIELD_TEXT:
        return cm_json_text(at);
    case CM_FIELD_NAME:
        memcpy(&small, at, sizeof small);
        return cm_json_text(field->names[small]);
    }
    return NULL;
}

enum cm_status cm_fields_write(const struct cm_field *table, const void *fields, json_t *object)
{
    enum cm_status status = CM_OK;
    for (const struct cm_field *field = table; field->key != NULL && status == CM_OK; field++)
        status = cm_json_set(object, field->key,
                             field_value(field, (const char *)fields + field->offset));
    return status;
}

static enum cm_status bad(const struct cm_field *field, const char *expected)
{
    return cm_error(CM_USAGE, "\"%s\" is not %s", field->key, expected);
}

static enum cm_status read_number(const struct cm_field *field, const json_t *value, char *at)
{
    uint64_t max = field->type == CM_FIELD_UNSIGNED ? UINT32_MAX : INT64_MAX;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > max)
        return bad(field, "a whole number in its range");
    uint64_t count = (uint64_t)json_integer_value(value);
    unsigned small = (unsigned)count;
    if (field->type == CM_FIELD_UNSIGNED)
        memcpy(at, &small, sizeof small);
    else
        memcpy(at, &count, sizeof count);
    return CM_OK;
}

static enum cm_status read_name(const struct cm_field *field, const json_t *value, char *at)
{
    const char *text = json_string_value(value);
    for (unsigned i = 0; text != NULL && field->names[i] != NULL; i++) {
        if (strcmp(field->names[i], text) == 0) {
            memcpy(at, &i, sizeof i);
            return CM_OK;
        }
    }
    return bad(field, "one of its names");
}

static enum cm_status read_field(const struct cm_field *field, const json_t *value, char *at)
{
    double real = (double)NAN;
    bool flag;
    switch (field->type) {
    case CM_FIELD_REAL:
        if (!json_is_number(value) && !json_is_null(value))
            return bad(field, "a number or null");
        if (json_is_number(value))
            real = json_number_value(value);
        memcpy(at, &real, sizeof real);
        return CM_OK;
    case CM_FIELD_COUNT:
    case CM_FIELD_UNSIGNED:
        return read_number(field, value, at);
    case CM_FIELD_BOOL:
        if (!json_is_boolean(value))
            return bad(field, "true or false");
        flag = json_is_true(value);
        memcpy(at, &flag, sizeof flag);
        return CM_OK;
    case CM_FIELD_TEXT:
        if (!json_is_string(value) || json_string_length(value) >= field->size)
            return bad(field, "a text that fits");
        memcpy(at, json_string_value(value), json_string_length(value) + 1);
        return CM_OK;
    case CM_FIELD_NAME:
        return read_name(field, value, at);
    }
    return cm_error(CM_INTERNAL, "\"%s\" has no type", field->key);
}

enum cm_status cm_fields_read(const struct cm_field *table, const json_t *object, void *fields)
{
    if (!json_is_object(object))
        return cm_error(CM_USAGE, "the object with \"%s\" is not one", table->key);
    enum cm_status status = CM_OK;
    for (const struct cm_field *field = table; field->key != NULL && status == CM_OK; field++)
        status =
            read_field(field, json_object_get(object, field->key), (char *)fields + field->offset);
    return status;
}

enum cm_status cm_fields_read_in(const struct cm_field *table, const json_t *object,
                                 const char *key, void *fields)
{
    const json_t *inner = json_object_get(object, key);
    if (!json_is_object(inner))
        return cm_error(CM_USAGE, "\"%s\" is not an object", key);
    return cm_fields_read(table, inner, fields);
}
