/* Which models a training step can be of. */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/transformer.h"
#include "host/cli/suites.h"

/* "8.03 billion parameters, 32 layers" */
static void summarise(const struct cm_transformer *model, double parameters, char *text,
                      size_t size)
{
    bool large = parameters >= 999.5e6;
    snprintf(text, size, "%.*g %s parameters, %llu layer%s", parameters >= 99.95e9 ? 4 : 3,
             parameters / (large ? 1e9 : 1e6), large ? "billion" : "million",
             (unsigned long long)model->layers, model->layers == 1 ? "" : "s");
}

static enum cm_status add_model(const char *folder, const char *file, json_t *array)
{
    struct cm_transformer model;
    struct cm_parameter_counts counts;
    char summary[200];
    char *path = cm_strf("%s/%s", folder, file);
    if (path == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_transformer_load(path, 0, &model);
    if (status == CM_NO_MEMORY)
        goto free_path;
    json_t *row;
    if (status == CM_OK) {
        cm_transformer_count(&model, &counts);
        summarise(&model, counts.total, summary, sizeof summary);
        row = json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "name", model.name, "summary", summary,
                        "parameters", (json_int_t)counts.total, "layers", (json_int_t)model.layers,
                        "sequence", (json_int_t)model.sequence, "path", path);
    } else {
        snprintf(summary, sizeof summary, "cannot be used: %s", cm_error_text());
        json_t *text = json_string(summary);
        if (text == NULL) /* not UTF-8 */
            text = json_string("cannot be used");
        row = json_pack("{s:s%, s:o, s:n, s:n, s:n, s:s}", "name", file, strlen(file) - 4,
                        "summary", text, "parameters", "layers", "sequence", "path", path);
    }
    status = cm_json_append(array, row);
free_path:
    cm_free(path);
    return status;
}

enum cm_status cm_models_json(json_t *array)
{
    return cm_config_rows("/models", add_model, array);
}
