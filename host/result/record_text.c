/*
 * A result as the text of its file: short fields, then a line for each large one and for each case,
 * so that it can be read and searched by lines. A run never changes once it is there, and is most
 * of the text: it is made into text once, however often the file is written anew.
 */
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/record.h"

static enum cm_status add_line(struct cm_str *out, const char *before, const json_t *value)
{
    char *text = NULL;
    enum cm_status status = cm_json_dump(value, 0, &text);
    if (status != CM_OK)
        return status;
    cm_str_add(out, before);
    cm_str_add_bytes(out, text, strcspn(text, "\n"));
    cm_free(text);
    return CM_OK;
}

enum cm_status cm_run_texts_add(struct cm_run_texts *texts, const json_t *run)
{
    char *text = NULL;
    if (cm_grow(&texts->items, &texts->capacity, texts->count + 1, sizeof(char *)) != 0)
        return CM_NO_MEMORY;
    enum cm_status status = cm_json_dump(run, 0, &text);
    if (status == CM_OK)
        texts->items[texts->count++] = text;
    return status;
}

void cm_run_texts_release(struct cm_run_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        cm_free(texts->items[i]);
    cm_free(texts->items);
    *texts = (struct cm_run_texts){0};
}

/* The runs stand last in a case. */
static enum cm_status add_case(struct cm_str *out, const char *before, const json_t *item,
                               const struct cm_run_texts *texts)
{
    json_t *head = json_copy((json_t *)item);
    if (head == NULL)
        return CM_NO_MEMORY;
    json_object_del(head, "runs");
    enum cm_status status = add_line(out, before, head);
    json_decref(head);
    if (status != CM_OK || out->failed)
        return status != CM_OK ? status : cm_str_status(out);
    out->length--; /* the closing brace comes after the runs */
    cm_str_add(out, ",\"runs\":[");
    for (size_t i = 0; i < texts->count; i++) {
        cm_str_add(out, i > 0 ? "," : "");
        cm_str_add(out, texts->items[i]);
    }
    cm_str_add(out, "]}");
    return CM_OK;
}

static enum cm_status add_cases(struct cm_str *out, json_t *const *slots,
                                const struct cm_run_texts *texts, size_t count)
{
    enum cm_status status = CM_OK;
    bool first = true;
    cm_str_add(out, ",\n\"cases\":[");
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        if (slots[i] == NULL)
            continue;
        status = add_case(out, first ? "\n" : ",\n", slots[i], &texts[i]);
        first = false;
    }
    cm_str_add(out, "]");
    return status;
}

static enum cm_status add_array(struct cm_str *out, const char *key, const json_t *array)
{
    enum cm_status status = CM_OK;
    size_t index;
    json_t *item;
    cm_str_addf(out, ",\n\"%s\":[", key);
    json_array_foreach(array, index, item)
    {
        if (status == CM_OK)
            status = add_line(out, index == 0 ? "\n" : ",\n", item);
    }
    cm_str_add(out, "]");
    return status;
}

enum cm_status cm_result_text(const json_t *root, json_t *const *slots,
                              const struct cm_run_texts *texts, size_t count, struct cm_str *out)
{
    enum cm_status status = CM_OK;
    const char *key;
    json_t *value;
    json_t *head = json_object();
    json_object_foreach((json_t *)root, key, value)
    {
        if (!json_is_object(value) && !json_is_array(value))
            cm_put(&status, head, key, json_incref(value));
    }
    if (status == CM_OK)
        status = add_line(out, "", head);
    json_decref(head);
    if (status != CM_OK || out->failed)
        return status != CM_OK ? status : cm_str_status(out);
    out->length--; /* the head's closing brace comes at the very end */
    json_object_foreach((json_t *)root, key, value)
    {
        if (status != CM_OK)
            break;
        if (strcmp(key, "cases") == 0) {
            status = add_cases(out, slots, texts, count);
        } else if (json_is_array(value)) {
            status = add_array(out, key, value);
        } else if (json_is_object(value)) {
            cm_str_addf(out, ",\n\"%s\":", key);
            status = add_line(out, "", value);
        }
    }
    cm_str_add(out, "}\n");
    return status != CM_OK ? status : cm_str_status(out);
}
