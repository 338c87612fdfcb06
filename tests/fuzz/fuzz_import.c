/* Files of other programs: what is taken for a result is one, and the rest is one line of error. */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/publish.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *result = NULL, *again = NULL;
    char *text = NULL;
    cm_json_init();
    cm_error_clear();
    enum cm_status status = cm_import_text((const char *)data, size, "f.json", NULL, &result);
    if (status != CM_OK) {
        REQUIRE(status == CM_USAGE);
        REQUIRE(result == NULL);
        REQUIRE(strncmp(cm_error_text(), "f.json:", 7) == 0);
        REQUIRE(strchr(cm_error_text(), '\n') == NULL);
        return 0;
    }
    REQUIRE(cm_json_dump(result, 0, &text) == CM_OK);
    REQUIRE(cm_result_parse(text, strlen(text), "r.json", &again) == CM_OK);
    cm_free(text);
    json_decref(again);
    json_decref(result);
    return 0;
}
