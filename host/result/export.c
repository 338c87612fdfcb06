/* The formats of other tools: which there are, and what they share. */
#include "host/result/export.h"

#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"

static const struct format {
    const char *name;
    enum cm_status (*write)(const struct cm_side *side, struct cm_str *out);
} formats[] = {
    {"junit", cm_export_junit},
    {"markdown", cm_export_markdown},
    {"annotations", cm_export_annotations},
    {"bmf", cm_export_bmf},
    {"go", cm_export_go},
    {"google-benchmark", cm_export_google},
    {"openmetrics", cm_export_openmetrics},
    {"csv", cm_export_csv},
};
#define FORMATS (sizeof formats / sizeof formats[0])

const char *const cm_export_names[] = {"junit",       "markdown", "annotations",
                                       "bmf",         "go",       "google-benchmark",
                                       "openmetrics", "csv",      NULL};

bool cm_is_told(const char *name, const json_t *metric)
{
    return strchr(name, '.') == NULL && strcmp(cm_get_text(metric, "better"), "neither") != 0 &&
           isfinite(cm_get_number(metric, "value"));
}

enum cm_status cm_export_json(const json_t *value, struct cm_str *out)
{
    char *text = NULL;
    enum cm_status status = cm_json_dump(value, 1, &text);
    if (status != CM_OK)
        return status;
    cm_str_addf(out, "%s\n", text);
    cm_free(text);
    return cm_str_status(out);
}

enum cm_status cm_export(const char *format, const char *const *paths, size_t count,
                         struct cm_str *out)
{
    struct cm_book book = {.sides = NULL};
    const struct format *row = NULL;
    for (size_t i = 0; i < FORMATS; i++)
        row = strcmp(formats[i].name, format) == 0 ? &formats[i] : row;
    if (row == NULL)
        return cm_error(CM_USAGE, "unknown format '%.40s'", format);
    json_t *results = json_array();
    enum cm_status status = results != NULL ? CM_OK : CM_NO_MEMORY;
    for (size_t i = 0; i < count && status == CM_OK; i++)
        status = cm_results_load(paths[i], results);
    if (status == CM_OK)
        status = cm_results_sort(results);
    if (status == CM_OK)
        status = cm_book_add(&book, "all", results);
    if (status == CM_OK)
        status = row->write(&book.sides[0], out);
    cm_book_release(&book);
    json_decref(results);
    return status != CM_OK ? status : cm_str_status(out);
}
