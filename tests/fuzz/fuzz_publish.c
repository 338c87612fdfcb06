/* Whatever a result says, the page, the charts, the history and the exports are made of it, and
 * nothing of it becomes markup. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/publish.h"
#include "fuzz/fuzz.h"

static size_t count_of(const struct cm_str *text, const char *what)
{
    size_t count = 0;
    for (const char *at = cm_str_text(text); (at = strstr(at, what)) != NULL; at++)
        count++;
    return count;
}

static void check_page(const char *path)
{
    const char *paths[] = {path, path};
    struct cm_str out = CM_STR_INIT;
    REQUIRE(cm_page_write(paths, 2, CM_MARGIN_DEFAULT, &out) == CM_OK);
    REQUIRE(count_of(&out, "<script") == 1 && count_of(&out, "</script") == 1);
    REQUIRE(count_of(&out, "<svg") == count_of(&out, "</svg>"));
    REQUIRE(count_of(&out, "<table") == count_of(&out, "</table>"));
    REQUIRE(count_of(&out, "<bdi>") == count_of(&out, "</bdi>"));
    REQUIRE(count_of(&out, "=\"nan") + count_of(&out, "=\"-nan") + count_of(&out, "=\"inf") +
                count_of(&out, "=\"-inf") ==
            0);
    cm_str_release(&out);
}

static void check_history(const char *path)
{
    const char *paths[] = {path, path, path, path};
    struct cm_history_options options = {.margin = CM_MARGIN_DEFAULT};
    struct cm_report_style style = {.width = 80};
    struct cm_str out = CM_STR_INIT;
    json_t *history = NULL;
    REQUIRE(cm_history_load(paths, 4, &options, &history) == CM_OK);
    REQUIRE(cm_history_text(history, &style, &out) == CM_OK);
    for (size_t i = 0; i < out.length; i++)
        REQUIRE(out.text[i] == '\n' || (out.text[i] >= 0x20 && out.text[i] < 0x7f));
    cm_str_reset(&out);
    REQUIRE(cm_history_csv(history, &out) == CM_OK);
    cm_str_release(&out);
    json_decref(history);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *result = NULL;
    cm_json_init();
    cm_error_clear();
    if (cm_result_parse((const char *)data, size, "r.json", &result) != CM_OK)
        return 0;
    json_decref(result);
    char path[64];
    int fd = memfd_create("result", 0);
    REQUIRE(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    check_page(path);
    check_history(path);
    const char *paths[] = {path};
    for (size_t i = 0; cm_export_names[i] != NULL; i++) {
        struct cm_str out = CM_STR_INIT;
        REQUIRE(cm_export(cm_export_names[i], paths, 1, &out) == CM_OK);
        cm_str_release(&out);
    }
    close(fd);
    return 0;
}
