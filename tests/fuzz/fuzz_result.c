/* Result files from a stranger: what is read gives a report and a verdict; the report holds no
 * character that steers a terminal, whatever the file says. */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/result.h"
#include "fuzz/fuzz.h"

static void check_report(const json_t *result, const struct cm_report_style *style)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    REQUIRE(out != NULL);
    REQUIRE(cm_report_text(result, style, out) == CM_OK);
    REQUIRE(fclose(out) == 0);
    REQUIRE(length > 0 && text[length - 1] == '\n');
    for (size_t i = 0; i < length; i++) {
        unsigned char letter = (unsigned char)text[i];
        REQUIRE(letter == '\n' || (letter >= 0x20 && letter != 0x7f));
        REQUIRE(letter < 0x80 || style->utf8);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *result = NULL;
    cm_json_init();
    cm_error_clear();
    if (cm_result_parse((const char *)data, size, "r.json", &result) != CM_OK) {
        REQUIRE(result == NULL);
        REQUIRE(strncmp(cm_error_text(), "r.json:", 7) == 0);
        REQUIRE(strchr(cm_error_text(), '\n') == NULL);
        return 0;
    }
    check_report(result, &(struct cm_report_style){.utf8 = true, .width = 80});
    check_report(result, &(struct cm_report_style){.utf8 = false, .width = 40});
    check_report(result, &(struct cm_report_style){.utf8 = true, .width = 200, .brief = true});
    cm_result_verdict(result);
    json_decref(result);
    return 0;
}
