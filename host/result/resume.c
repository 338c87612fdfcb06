/* A result that another process has begun. */
#include <string.h>
#include <sys/stat.h>

#include "clustermark/json.h"
#include "clustermark/result.h"
#include "host/result/record.h"

/* A file of an earlier run may be there still; its beginning tells. */
static bool same_run(const json_t *one, const json_t *other)
{
    return json_equal(json_object_get(one, "started"), json_object_get(other, "started")) &&
           json_equal(json_object_get(one, "suite"), json_object_get(other, "suite"));
}

/* A case of the file takes the place of this result's own. */
static enum cm_status take(struct cm_result *result, size_t place, json_t *item)
{
    const json_t *runs = json_object_get(item, "runs"), *run;
    enum cm_status status = CM_OK;
    size_t index;
    json_decref(result->slots[place]);
    result->slots[place] = json_incref(item);
    cm_run_texts_release(&result->texts[place]);
    json_array_foreach((json_t *)runs, index, run)
    {
        if (status == CM_OK)
            status = cm_run_texts_add(&result->texts[place], run);
    }
    return status;
}

enum cm_status cm_result_resume(struct cm_result *result, size_t *added)
{
    json_t *root = NULL;
    struct stat info;
    *added = 0;
    if (stat(result->path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0)
        return CM_OK;
    enum cm_status status = cm_json_load(result->path, &root);
    if (status == CM_OK && same_run(root, result->root)) {
        const json_t *cases = json_object_get(root, "cases");
        size_t index;
        json_t *item;
        json_array_foreach(cases, index, item)
        {
            for (size_t i = 0; i < result->plan->count; i++) {
                if (strcmp(cm_get_text(item, "name"), result->plan->cases[i].name) != 0)
                    continue;
                if (status == CM_OK)
                    status = take(result, i, item);
                *added += json_array_size(json_object_get(item, "runs"));
            }
        }
        json_decref(result->root);
        result->root = json_incref(root);
        result->keep = *added > 0;
    }
    json_decref(root);
    return status;
}

bool cm_result_has(const struct cm_result *result, size_t case_index, uint64_t run)
{
    if (case_index >= result->plan->count || result->slots[case_index] == NULL)
        return false;
    const json_t *runs = json_object_get(result->slots[case_index], "runs");
    size_t index;
    const json_t *item;
    json_array_foreach((json_t *)runs, index, item)
    {
        if (cm_get_number(item, "run") == (double)run)
            return true;
    }
    return false;
}
