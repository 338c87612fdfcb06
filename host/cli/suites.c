/* Where suites are found. */
#include "host/cli/suites.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "clustermark/suite.h"
#include "clustermark/workload.h"

enum cm_status cm_suite_find(const char *name, char **path)
{
    char *found;
    enum cm_status status = cm_config_find(name, "", &found);
    if (status != CM_OK)
        return status;
    if (found == NULL)
        return cm_error(CM_USAGE,
                        "no suite '%.60s': not a file, not in ./configs, not one of the "
                        "program's own; 'clustermark list suites' shows those",
                        name);
    *path = found;
    return CM_OK;
}

/* The first line of the file, when it is a comment, says what the suite is for. */
static void read_summary(const char *path, char *summary, size_t size)
{
    summary[0] = '\0';
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return;
    char line[256];
    if (fgets(line, sizeof line, file) != NULL && (line[0] == ';' || line[0] == '#')) {
        line[strcspn(line, "\r\n")] = '\0';
        snprintf(summary, size, "%s", line + 1 + strspn(line + 1, " #;"));
    }
    fclose(file);
}

/* INI files that hold other data name no workload. */
static bool names_workload(const struct cm_suite *suite)
{
    for (size_t i = 0; i < suite->section_count; i++) {
        const struct cm_setting *setting = cm_section_setting(&suite->sections[i], "workload");
        if (cm_workload_find(setting != NULL ? setting->value : suite->sections[i].name) != NULL)
            return true;
    }
    return false;
}

/* JSON holds no name that is not UTF-8. */
static bool is_utf8(const char *text)
{
    json_t *value = json_string(text);
    json_decref(value);
    return value != NULL;
}

static enum cm_status add_suite(const char *folder, const char *file, json_t *array)
{
    struct cm_suite suite = {.name = NULL};
    struct cm_plan plan = {.suite_name = NULL};
    char summary[200];
    char *path = cm_strf("%s/%s", folder, file);
    if (path == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_suite_load(path, &suite);
    if (status == CM_USAGE || (status == CM_OK && !names_workload(&suite))) {
        status = CM_OK;
        goto free_path;
    }
    if (status != CM_OK)
        goto free_path;
    read_summary(path, summary, sizeof summary);
    status = cm_plan_build(&suite, NULL, 0, &plan);
    if (status == CM_NO_MEMORY)
        goto free_path;
    if (status != CM_OK)
        snprintf(summary, sizeof summary, "cannot be used: %s", cm_error_text());
    json_t *text = json_string(summary);
    if (text == NULL) /* not UTF-8 */
        text = json_string("");
    status = cm_json_append(array, json_pack("{s:s, s:o, s:I, s:s}", "name", suite.name, "summary",
                                             text, "cases", (json_int_t)plan.count, "path", path));
    cm_plan_release(&plan);
free_path:
    cm_suite_release(&suite);
    cm_free(path);
    return status;
}

static bool already_listed(const json_t *array, const char *file)
{
    size_t index;
    const json_t *row;
    json_array_foreach(array, index, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        size_t length = name != NULL ? strlen(name) : 0;
        if (length + 4 == strlen(file) && strncmp(name, file, length) == 0)
            return true;
    }
    return false;
}

enum cm_status cm_config_rows(const char *kind, cm_config_row_fn add, json_t *array)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && cm_config_folders[i] != NULL; i++) {
        struct dirent **entries;
        char *folder = cm_strf("%s%s", cm_config_folders[i], kind);
        if (folder == NULL)
            return CM_NO_MEMORY;
        int count = scandir(folder, &entries, NULL, alphasort);
        for (int k = 0; k < count; k++) {
            const char *file = entries[k]->d_name;
            if (status == CM_OK && cm_config_is_ini(file) && is_utf8(file) &&
                !already_listed(array, file))
                status = add(folder, file, array);
            free(entries[k]);
        }
        if (count >= 0)
            free(entries);
        cm_free(folder);
    }
    return status;
}

enum cm_status cm_suites_json(json_t *array)
{
    return cm_config_rows("", add_suite, array);
}
