/* Samples taken out of a result's text: what is left says the same otherwise. */
#include "test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/result.h"
#include "host/result/record.h"

static json_t *shortened(const char *text)
{
    char *copy = strdup(text);
    size_t length = cm_samples_shorten(copy, strlen(text));
    json_t *value = json_loadb(copy, length, JSON_REJECT_DUPLICATES, NULL);
    if (value == NULL)
        fail_msg("not JSON any more: %.*s", (int)length, copy);
    free(copy);
    return value;
}

static char *list_of(const char *key, size_t count)
{
    char *text = malloc(64 + 24 * count);
    size_t at = (size_t)sprintf(text, "{\"%s\":[", key);
    for (size_t i = 0; i < count; i++)
        at += (size_t)sprintf(text + at, "%s%.9g", i > 0 ? "," : "", 1e-3 * (double)(i + 1));
    sprintf(text + at, "],\"x\":7}");
    return text;
}

static void cuts_lists(void **state)
{
    (void)state;
    for (size_t count = 0; count < 300; count++) {
        char *text = list_of("samples_s", count);
        json_t *value = shortened(text);
        const json_t *list = json_object_get(value, "samples_s");
        size_t kept = json_array_size(list);
        json_int_t gone = json_integer_value(json_object_get(value, "samples_left_out"));
        assert_int_equal(kept + (size_t)gone, count);
        assert_true(count <= CM_SAMPLES_KEPT ? gone == 0 : count < 130 || kept == CM_SAMPLES_KEPT);
        for (size_t i = 0; i < kept; i++)
            assert_near(json_number_value(json_array_get(list, i)), 1e-3 * (double)(i + 1), 1e-8);
        assert_int_equal(json_integer_value(json_object_get(value, "x")), 7);
        json_decref(value);
        free(text);
    }
}

static void leaves_the_rest(void **state)
{
    (void)state;
    static const char *const same[] = {
        "{}",
        "{\"a\":\"samples_s\",\"b\":[1]}",
        "{\"a\":\"\\\"samples_s\\\":[1,2]\"}",
        "{\"samples_s\":{\"b\":[1]}}",
        "{\"samples_s\":[\"text\",[1]]}",
        "{\"samples_s\":[[[1]]],\"rank_samples_s\":[[[1]]]}",
        "{\"samples_s\":7,\"rank_samples_s\":\"x\"}",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        json_t *before = json_loads(same[i], 0, NULL), *after = shortened(same[i]);
        assert_true(json_equal(before, after));
        json_decref(before);
        json_decref(after);
    }
    json_t *value = shortened("{\"rank_samples_s\":[[1,2],[3,null]],\"b\":[2]}");
    assert_int_equal(json_array_size(json_object_get(value, "rank_samples_s")), 0);
    assert_int_equal(json_array_size(json_object_get(value, "b")), 1);
    json_decref(value);
    char cut[] = "{\"samples_s\":[1,2,";
    assert_int_equal(cm_samples_shorten(cut, strlen(cut)), strlen(cut));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts_lists),
                                       cmocka_unit_test(leaves_the_rest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
