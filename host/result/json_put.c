/* Building and reading JSON without a check after every line. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/record.h"

/* A container that is missing could not be allocated: jansson knows, but does not say. */
static enum cm_status no_container(json_t *value)
{
    json_decref(value);
    return cm_error(CM_NO_MEMORY, "out of memory: a part of the result");
}

void cm_put(enum cm_status *status, json_t *object, const char *key, json_t *value)
{
    if (*status != CM_OK)
        json_decref(value);
    else if (object == NULL)
        *status = no_container(value);
    else
        *status = cm_json_set(object, key, value);
}

size_t cm_device_count(const json_t *device)
{
    double count = cm_get_number(device, "count");
    return count >= 1 && count < 1e9 ? (size_t)count : device != NULL ? 1 : 0;
}

void cm_push(enum cm_status *status, json_t *array, json_t *value)
{
    if (*status != CM_OK)
        json_decref(value);
    else if (array == NULL)
        *status = no_container(value);
    else
        *status = cm_json_append(array, value);
}

json_t *cm_put_object(enum cm_status *status, json_t *object, const char *key)
{
    json_t *value = *status == CM_OK ? json_object() : NULL;
    cm_put(status, object, key, value);
    return *status == CM_OK ? value : NULL;
}

json_t *cm_put_array(enum cm_status *status, json_t *object, const char *key)
{
    json_t *value = *status == CM_OK ? json_array() : NULL;
    cm_put(status, object, key, value);
    return *status == CM_OK ? value : NULL;
}

/* Bytes of the UTF-8 character at `text`, 0 when it is none. Overlong forms, surrogates and what is
 * beyond U+10FFFF are none. */
static size_t utf8_length(const unsigned char *text)
{
    static const struct {
        unsigned char mask, lead;
        size_t length;
        unsigned long least;
    } forms[] = {{0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};
    if (text[0] < 0x80)
        return 1;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if ((text[0] & forms[i].mask) != forms[i].lead)
            continue;
        unsigned long code = text[0] & (unsigned char)~forms[i].mask;
        for (size_t k = 1; k < forms[i].length; k++) {
            if ((text[k] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (text[k] & 0x3fU);
        }
        bool surrogate = code >= 0xd800 && code <= 0xdfff;
        return code < forms[i].least || code > 0x10ffff || surrogate ? 0 : forms[i].length;
    }
    return 0;
}

json_t *cm_result_string(const char *text)
{
    char *copy = cm_strdup(text);
    if (copy == NULL)
        return NULL;
    for (size_t at = 0; copy[at] != '\0';) {
        size_t length = utf8_length((const unsigned char *)copy + at);
        if (length == 0)
            copy[at] = '?';
        at += length != 0 ? length : 1;
    }
    json_t *value = json_string(copy);
    cm_free(copy);
    return value;
}

void cm_result_stamp(double unix_s, bool compact, char *buffer)
{
    time_t seconds = isfinite(unix_s) && unix_s > 0 && unix_s < 1e11 ? (time_t)unix_s : 0;
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(buffer, CM_STAMP_MAX, compact ? "%Y%m%dT%H%M%SZ" : "%Y-%m-%dT%H:%M:%SZ", &utc);
}

const char *cm_better_name(enum cm_better better)
{
    return better == CM_LOWER ? "lower" : better == CM_HIGHER ? "higher" : "neither";
}

const char *cm_get_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

double cm_get_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}
