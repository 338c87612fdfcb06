/* What a result as a whole says. */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/result.h"
#include "host/result/report.h"

enum cm_status cm_result_verdict(const json_t *result)
{
    const json_t *cases = json_object_get(result, "cases");
    const json_t *first[CM_CASE_SKIPPED + 1] = {NULL};
    size_t counts[CM_CASE_SKIPPED + 1] = {0}, index;
    const json_t *item;
    json_array_foreach(cases, index, item)
    {
        for (int i = 0; i <= CM_CASE_SKIPPED; i++) {
            if (strcmp(cm_get_text(item, "status"), cm_case_status_names[i]) == 0 &&
                counts[i]++ == 0)
                first[i] = item;
        }
    }
    static const struct {
        enum cm_case_status cases;
        enum cm_status status;
        const char *words;
    } bad[] = {{CM_CASE_WRONG, CM_WRONG, "computed wrong values"},
               {CM_CASE_FAILED, CM_LOST, "failed"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t count = counts[bad[i].cases];
        if (count > 0)
            return cm_error(bad[i].status, "%zu of %zu cases %s: %.80s: %.300s", count,
                            json_array_size(cases), bad[i].words,
                            cm_get_text(first[bad[i].cases], "name"),
                            cm_get_text(first[bad[i].cases], "reason"));
    }
    if (counts[CM_CASE_OK] == 0)
        return cm_error(CM_UNSUPPORTED, "nothing was measured: %zu cases were skipped: %.300s",
                        counts[CM_CASE_SKIPPED],
                        counts[CM_CASE_SKIPPED] > 0 ? cm_get_text(first[CM_CASE_SKIPPED], "reason")
                                                    : "the suite has none");
    return CM_OK;
}

enum cm_status cm_result_suspects(const json_t *result)
{
    const json_t *suspects = json_object_get(result, "suspects");
    struct cm_str line = CM_STR_INIT;
    enum cm_status status = CM_OK;
    if (json_array_size(suspects) > 0) {
        cm_suspect_text(json_array_get(suspects, 0), &line);
        status = cm_error(CM_WRONG, "%zu found slow: %.400s", json_array_size(suspects),
                          cm_str_text(&line));
    }
    cm_str_release(&line);
    return status;
}
