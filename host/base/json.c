/* Small helpers around jansson. */
#include "clustermark/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/file.h"
#include "clustermark/memory.h"

#define JSON_FILE_MAX ((size_t)256 << 20)

/* jansson does not always say that memory was the reason. */
static _Thread_local bool starved;

static void *json_memory(size_t size)
{
    void *block = cm_alloc(size, 1);
    if (block == NULL)
        starved = true;
    return block;
}

bool cm_json_starved(void)
{
    return starved;
}

void cm_json_init(void)
{
    json_set_alloc_funcs(json_memory, cm_free);
}

enum cm_status cm_json_parse(const char *text, size_t length, const char *name, json_t **value)
{
    starved = false;
    json_error_t error;
    json_t *parsed = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (parsed != NULL && !starved) {
        *value = parsed;
        return CM_OK;
    }
    json_decref(parsed);
    if (starved) /* jansson may go on without what it could not keep */
        return cm_error(CM_NO_MEMORY, "%s: out of memory for its JSON", name);
    /* The message quotes the file, which may hold anything. */
    for (char *letter = error.text; *letter != '\0'; letter++) {
        if ((unsigned char)*letter < 0x20 || *letter == 0x7f)
            *letter = ' ';
    }
    return cm_error(CM_USAGE, "%s:%d:%d: not JSON: %s", name, error.line, error.column, error.text);
}

enum cm_status cm_json_load(const char *path, json_t **value)
{
    return cm_json_load_edited(path, NULL, value);
}

enum cm_status cm_json_load_edited(const char *path, size_t (*edit)(char *text, size_t length),
                                   json_t **value)
{
    char *text = NULL;
    size_t length;
    enum cm_status status = cm_file_read(path, JSON_FILE_MAX, &text, &length);
    if (status == CM_OK && edit != NULL)
        length = edit(text, length);
    if (status == CM_OK)
        status = cm_json_parse(text, length, path, value);
    cm_free(text);
    return status;
}

enum cm_status cm_json_dump(const json_t *value, int indented, char **text)
{
    starved = false;
    size_t flags = JSON_REAL_PRECISION(9) | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY;
    char *dumped = json_dumps(value, flags | (indented ? JSON_INDENT(2) : JSON_COMPACT));
    if (starved) { /* jansson may go on without what it could not append */
        cm_free(dumped);
        return cm_error(CM_NO_MEMORY, "out of memory for JSON text");
    }
    if (dumped == NULL)
        return cm_error(CM_INTERNAL, "a JSON value contains itself or is too deep");
    *text = dumped;
    return CM_OK;
}

enum cm_status cm_json_set(json_t *object, const char *key, json_t *value)
{
    if (value == NULL)
        return cm_error(CM_NO_MEMORY, "out of memory for the JSON value of \"%.60s\"", key);
    starved = false;
    if (json_object_set_new(object, key, value) == 0)
        return CM_OK;
    if (starved)
        return cm_error(CM_NO_MEMORY, "out of memory for the JSON key \"%.60s\"", key);
    return cm_error(CM_INTERNAL, "the JSON key \"%.60s\" cannot be set", key);
}

enum cm_status cm_json_append(json_t *array, json_t *value)
{
    if (value == NULL)
        return cm_error(CM_NO_MEMORY, "out of memory for a JSON value");
    starved = false;
    if (json_array_append_new(array, value) == 0)
        return CM_OK;
    if (starved)
        return cm_error(CM_NO_MEMORY, "out of memory for a JSON array");
    return cm_error(CM_INTERNAL, "a JSON value cannot be appended");
}

json_t *cm_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}
