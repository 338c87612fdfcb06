/* Results side by side: loading them, and finding a figure in them. */
#include "host/result/book.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "host/result/record.h"

struct dated {
    const char *started;
    size_t place;
    json_t *result;
};

static int by_date(const void *a, const void *b)
{
    const struct dated *left = a, *right = b;
    int order = strcmp(left->started, right->started);
    return order != 0 ? order : (left->place > right->place) - (left->place < right->place);
}

enum cm_status cm_results_sort(json_t *results)
{
    size_t count = json_array_size(results);
    struct dated *rows = cm_alloc(count, sizeof *rows);
    if (rows == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        json_t *result = json_incref(json_array_get(results, i));
        rows[i] = (struct dated){cm_get_text(result, "started"), i, result};
    }
    qsort(rows, count, sizeof *rows, by_date);
    json_array_clear(results);
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < count; i++)
        cm_push(&status, results, rows[i].result);
    cm_free(rows);
    return status;
}

static enum cm_status index_side(struct cm_side *side)
{
    enum cm_status status = CM_OK;
    size_t index, inner;
    json_t *result, *item;
    side->cases = json_object();
    side->order = json_array();
    json_array_foreach(side->results, index, result)
    {
        json_array_foreach(json_object_get(result, "cases"), inner, item)
        {
            const char *name = cm_get_text(item, "name");
            json_t *group = json_object_get(side->cases, name);
            if (group == NULL) {
                group = cm_put_array(&status, side->cases, name);
                cm_push(&status, side->order, json_incref(json_object_get(item, "name")));
            }
            cm_push(&status, group, json_incref(item));
        }
    }
    return status;
}

enum cm_status cm_book_add(struct cm_book *book, const char *label, json_t *results)
{
    struct cm_side *sides = cm_resize(book->sides, book->count + 1, sizeof *sides);
    if (sides == NULL)
        return CM_NO_MEMORY;
    book->sides = sides;
    struct cm_side *side = &sides[book->count++];
    *side = (struct cm_side){.label = cm_strdup(label), .results = json_incref(results)};
    return side->label != NULL ? index_side(side) : CM_NO_MEMORY;
}

/* A name for people: the path without its folders where that is unique enough, and what is no
 * UTF-8 replaced. */
static enum cm_status add_path(struct cm_book *book, const char *path)
{
    json_t *results = json_array();
    enum cm_status status =
        results != NULL ? cm_results_load(path, results) : cm_error(CM_NO_MEMORY, "out of memory");
    if (status == CM_OK)
        status = cm_results_sort(results);
    json_t *label = cm_result_string(path);
    if (status == CM_OK && label == NULL)
        status = cm_error(CM_NO_MEMORY, "out of memory");
    if (status == CM_OK)
        status = cm_book_add(book, json_string_value(label), results);
    json_decref(label);
    json_decref(results);
    return status;
}

enum cm_status cm_book_load(const char *const *paths, size_t count, struct cm_book *book)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < count && status == CM_OK; i++)
        status = add_path(book, paths[i]);
    return status;
}

void cm_book_release(struct cm_book *book)
{
    for (size_t i = 0; i < book->count; i++) {
        cm_free(book->sides[i].label);
        json_decref(book->sides[i].results);
        json_decref(book->sides[i].cases);
        json_decref(book->sides[i].order);
    }
    cm_free(book->sides);
    *book = (struct cm_book){.sides = NULL};
}

const json_t *cm_side_last(const struct cm_side *side)
{
    return json_array_get(side->results, json_array_size(side->results) - 1);
}

const json_t *cm_side_case(const struct cm_side *side, const char *name)
{
    const json_t *group = json_object_get(side->cases, name);
    return json_array_get(group, json_array_size(group) - 1);
}

const json_t *cm_side_metric(const struct cm_side *side, const char *name, const char *metric)
{
    return json_object_get(json_object_get(cm_side_case(side, name), "metrics"), metric);
}

enum cm_status cm_case_values(const json_t *item, const char *metric, struct cm_samples *values)
{
    enum cm_status status = CM_OK;
    size_t index, before = values->count;
    const json_t *run;
    json_array_foreach(json_object_get(item, "runs"), index, run)
    {
        double value =
            cm_get_number(json_object_get(json_object_get(run, "metrics"), metric), "value");
        if (isfinite(value) && strcmp(cm_get_text(run, "status"), "ok") == 0 && status == CM_OK)
            status = cm_samples_add(values, value);
    }
    double value =
        cm_get_number(json_object_get(json_object_get(item, "metrics"), metric), "value");
    if (status == CM_OK && values->count == before && isfinite(value))
        status = cm_samples_add(values, value);
    return status;
}

enum cm_status cm_side_values(const struct cm_side *side, const char *name, const char *metric,
                              struct cm_samples *values)
{
    enum cm_status status = CM_OK;
    size_t index;
    const json_t *item;
    cm_samples_clear(values);
    json_array_foreach(json_object_get(side->cases, name), index, item)
    {
        if (status == CM_OK)
            status = cm_case_values(item, metric, values);
    }
    return status;
}
