/* Result files that must be refused, each with the place and what would be right. */
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/json.h"
#include "clustermark/result.h"
#include "host/result/record.h"
#include "test.h"

/* path: keys and indices separated by '/'. */
static const json_t *at(const json_t *value, const char *path)
{
    char copy[128], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *step = strsep(&rest, "/"); step != NULL; step = strsep(&rest, "/"))
        value = json_is_array(value) ? json_array_get(value, (size_t)atoi(step))
                                     : json_object_get(value, step);
    if (value == NULL)
        fail_msg("there is no %s", path);
    return value;
}

/* What a stranger may send. Each row replaces a text in a good file. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"", "not JSON"},
        {"{\"schema\": \"clustermark.result\"", "not JSON"},
        {"[]", "no object"},
        {"{}", "schema is \"\""},
        {"{\"schema\": \"other\"}", "schema is \"other\""},
        {"{\"schema\": \"clustermark.result\", \"version\": \"2.0\"}",
         "version 2.0 cannot be read"},
        {"{\"schema\": \"clustermark.result\", \"version\": \"one\"}", "version \"one\""},
        {"{\"schema\": \"clustermark.result\", \"version\": \"1\"}", "version \"1\""},
        {"{\"schema\": \"clustermark.result\", \"version\": 1}", "version \"\""},
        {"{\"schema\": \"clustermark.result\", \"version\": \"1.9\"}", "ending is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *value = NULL;
        assert_status(cm_result_parse(rows[i].text, strlen(rows[i].text), "f", &value), CM_USAGE,
                      rows[i].part);
        assert_null(value);
    }
}

static void test_refused_fields(void **state)
{
    (void)state;
    static const struct {
        const char *path, *value, *part;
    } rows[] = {
        {"cases", "{}", "cases is an object; it must be an array"},
        {"cases/0", "5", "cases[0] is a whole number; it must be an object"},
        {"cases/0/name", "5", "cases[0].name is a whole number; it must be a text"},
        {"cases/0/status", "\"fine\"", "cases[0].status is \"fine\""},
        {"cases/0/metrics/flop_rate", "1", "cases[0].metrics.flop_rate"},
        {"cases/0/metrics/flop_rate/value", "\"1\"", "cases[0].metrics.flop_rate.value"},
        {"cases/0/metrics/flop_rate/interval", "3", "interval is a whole number"},
        {"cases/0/ceilings/flop_rate/theoretical/source", "null", "source is null"},
        {"cases/0/runs", "null", "cases[0].runs is null"},
        {"cases/0/runs/0/status", "\"x\"", "runs[0].status is \"x\""},
        {"cases/0/runs/0/samples_s", "[1, \"2\"]", "cases[0].runs[0].samples_s[1] is a text"},
        {"cases/0/params/m", "[]", "cases[0].params.m is an array"},
        {"sweeps/0/points", "[1]", "sweeps[0].points[0] is a whole number"},
        {"suite", "[]", "suite is an array"},
        {"environment/OMP_NUM_THREADS", "1", "environment.OMP_NUM_THREADS"},
        {"devices/0", "null", "devices[0] is null"},
    };
    json_t *good = NULL;
    assert_ok(cm_result_load(CM_TEST_FIXTURES "/results/mixed.json", &good));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *copy = json_deep_copy(good);
        json_t *value = json_loads(rows[i].value, JSON_DECODE_ANY, NULL);
        char parent[128];
        snprintf(parent, sizeof parent, "/%s", rows[i].path);
        char *last = strrchr(parent, '/');
        *last = '\0';
        json_t *place = (json_t *)(uintptr_t)(last == parent ? copy : at(copy, parent + 1));
        if (json_is_array(place))
            json_array_set(place, (size_t)atoi(last + 1), value);
        else
            json_object_set(place, last + 1, value);
        json_decref(value);
        assert_status(cm_result_check(copy, "f"), CM_USAGE, rows[i].part);
        json_decref(copy);
    }
    json_decref(good);
}

/* A message is one line, whatever it quotes. */
static void test_one_line(void **state)
{
    (void)state;
    static const char text[] = "{\"schema\": \"a\\nb\\u001b\"}";
    json_t *value = NULL;
    assert_status(cm_result_parse(text, sizeof text - 1, "f", &value), CM_USAGE, "a?b?");
}

int main(void)
{
    cm_json_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_fields),
        cmocka_unit_test(test_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
