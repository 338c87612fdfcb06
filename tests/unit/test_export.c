/*
 * The formats of other tools and the imports, as golden texts of fixed results. What the texts mean
 * to their readers is tests/system/test_publish.py's. After a wanted change, run the test with
 * CM_TEST_UPDATE=1 and read the difference.
 */
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/publish.h"
#include "test.h"

static void compare(const char *name, const struct cm_str *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/export/%s", CM_TEST_FIXTURES, name);
    if (getenv("CM_TEST_UPDATE") != NULL)
        assert_ok(cm_file_replace(path, cm_str_text(text), text->length));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *golden = calloc(1, 1 << 20);
    assert_true(fread(golden, 1, (1 << 20) - 1, file) < (1 << 20) - 1);
    fclose(file);
    assert_string_equal(cm_str_text(text), golden);
    free(golden);
}

static void test_formats(void **state)
{
    (void)state;
    static const char *const results[] = {"runs", "mixed"};
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; cm_export_names[k] != NULL; k++) {
            struct cm_str out = CM_STR_INIT;
            char path[512], name[64];
            const char *paths[] = {path};
            snprintf(path, sizeof path, "%s/results/%s.json", CM_TEST_FIXTURES, results[i]);
            snprintf(name, sizeof name, "%s.%s", results[i], cm_export_names[k]);
            assert_ok(cm_export(cm_export_names[k], paths, 1, &out));
            compare(name, &out);
            cm_str_release(&out);
        }
    }
}

static void test_imports(void **state)
{
    (void)state;
    static const char *const names[] = {"nccl", "nccl-cpu-times", "nvbandwidth"};
    for (size_t i = 0; i < 3; i++) {
        struct cm_str out = CM_STR_INIT;
        char path[512], name[64], *text = NULL;
        json_t *result = NULL;
        snprintf(path, sizeof path, "%s/../fuzz/corpus/import/%s", CM_TEST_FIXTURES, names[i]);
        snprintf(name, sizeof name, "%s.import", names[i]);
        assert_ok(cm_import(path, NULL, &result));
        json_object_del(json_object_get(result, "suite"), "imported_from"); /* where it lies */
        assert_ok(cm_json_dump(result, 1, &text));
        cm_str_addf(&out, "%s\n", text);
        compare(name, &out);
        cm_free(text);
        cm_str_release(&out);
        json_decref(result);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *part;
    } rows[] = {{"nccl-newer", "of version 4; this program reads version 3"},
                {"nvbandwidth-none", "no measurement in it"},
                {"other", "neither JSON of nccl-tests"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[512];
        json_t *result = NULL;
        snprintf(path, sizeof path, "%s/../fuzz/corpus/import/%s", CM_TEST_FIXTURES, rows[i].name);
        assert_status(cm_import(path, NULL, &result), CM_USAGE, rows[i].part);
        assert_null(result);
    }
    struct cm_str out = CM_STR_INIT;
    assert_status(cm_export("xml", NULL, 0, &out), CM_USAGE, "unknown format");
    cm_str_release(&out);
}

int main(void)
{
    cm_json_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_imports),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
