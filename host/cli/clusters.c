/* Which clusters can be projected to. */
#include <stdio.h>
#include <string.h>

#include "clustermark/cost.h"
#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/project.h"
#include "host/cli/suites.h"

static enum cm_status add_row(const char *name, const char *path,
                              const struct cm_gpu_catalogue *catalogue, json_t *array)
{
    char summary[240];
    enum cm_status status = cm_project_cluster_summary(path[0] != '\0' ? path : name, catalogue,
                                                       summary, sizeof summary);
    if (status == CM_NO_MEMORY)
        return status;
    if (status != CM_OK)
        snprintf(summary, sizeof summary, "cannot be used: %s", cm_error_text());
    json_t *text = json_string(summary);
    if (text == NULL) /* not UTF-8 */
        text = json_string("cannot be used");
    return cm_json_append(
        array, json_pack("{s:s, s:o, s:s}", "name", name, "summary", text, "path", path));
}

static enum cm_status add_file(const char *folder, const char *file, json_t *array)
{
    struct cm_gpu_catalogue catalogue = {.specs = NULL};
    char *path = cm_strf("%s/%s", folder, file);
    char *name = cm_strf("%.*s", (int)(strlen(file) - strlen(".ini")), file);
    enum cm_status status =
        path != NULL && name != NULL ? cm_gpu_catalogue_load(&catalogue) : CM_NO_MEMORY;
    if (status == CM_OK)
        status = add_row(name, path, &catalogue, array);
    cm_gpu_catalogue_release(&catalogue);
    cm_free(path);
    cm_free(name);
    return status;
}

enum cm_status cm_clusters_json(json_t *array)
{
    struct cm_gpu_catalogue catalogue = {.specs = NULL};
    enum cm_status status = cm_config_rows("/clusters", add_file, array);
    if (status == CM_OK)
        status = cm_gpu_catalogue_load(&catalogue);
    for (size_t i = 0; status == CM_OK && i < catalogue.count; i++)
        status = add_row(catalogue.specs[i].name, "", &catalogue, array);
    cm_gpu_catalogue_release(&catalogue);
    return status;
}
