/* Each allocation of the base and the statistics is made to fail in turn: the call says
 * CM_NO_MEMORY with a message, its output stays as it was, and nothing leaks. Linked with
 * --wrap=calloc, realloc and free. */
#include "test.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "clustermark/suite.h"
#include "clustermark/topology.h"
#include "clustermark/transformer.h"
#include "clustermark/virtual_clock.h"
#include "host/measure/channel.h"

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

static unsigned long calls, failing; /* the failing call counts from 1; 0: none */
static long blocks;

void *__wrap_calloc(size_t count, size_t size)
{
    if (++calls == failing)
        return NULL;
    blocks++;
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    if (++calls == failing)
        return NULL;
    blocks += block == NULL;
    return __real_realloc(block, size);
}

void __wrap_free(void *block)
{
    blocks -= block != NULL;
    __real_free(block);
}

/* Runs with the first allocation failing, then the second ..., until one run needs no more. */
static void fail_each(enum cm_status (*run)(void))
{
    unsigned long least = 0;
    for (failing = 1;; failing++) {
        calls = 0;
        blocks = 0;
        cm_error_clear();
        enum cm_status status = run();
        if (blocks != 0)
            fail_msg("allocation %lu failed: %ld blocks left", failing, blocks);
        if (calls < failing) {
            if (status != CM_OK)
                fail_msg("without a failure: %s", cm_error_text());
            break;
        }
        least++;
        if (status != CM_NO_MEMORY || strstr(cm_error_text(), "memory") == NULL)
            fail_msg("allocation %lu failed: %s, \"%s\"", failing, cm_status_name(status),
                     cm_error_text());
    }
    failing = 0;
    assert_true(least > 0);
}

static const char suite_text[] = "[global]\nruns = 6\n[gemm]\nm = 1\n[b]\nk = 2\nl = 3\n";

static enum cm_status parse_suite(void)
{
    struct cm_suite suite = {.section_capacity = 77};
    enum cm_status status = cm_suite_parse(suite_text, "s.ini", &suite);
    if (status == CM_OK)
        cm_suite_release(&suite);
    else if (suite.section_capacity != 77 || suite.name != NULL)
        return cm_error(CM_INTERNAL, "the output was changed");
    return status;
}

static enum cm_status set_in_suite(void)
{
    unsigned long armed = failing;
    failing = 0;
    struct cm_suite suite = {0};
    enum cm_status status = cm_suite_parse(suite_text, "s.ini", &suite);
    failing = armed;
    calls = 0;
    if (status == CM_OK)
        status = cm_suite_set(&suite, "gemm.m=2");
    if (status == CM_OK)
        status = cm_suite_set(&suite, "*.new=2");
    if (status == CM_OK)
        status = cm_suite_set(&suite, "global.new=2");
    cm_suite_release(&suite);
    return status;
}

static enum cm_status write_suite(void)
{
    unsigned long armed = failing;
    failing = 0;
    struct cm_suite suite = {0};
    enum cm_status status = cm_suite_parse(suite_text, "s.ini", &suite);
    failing = armed;
    calls = 0;
    struct cm_str text = CM_STR_INIT;
    if (status == CM_OK) {
        cm_suite_write(&suite, &text);
        status = cm_str_status(&text);
    }
    cm_str_release(&text);
    cm_suite_release(&suite);
    return status;
}

static enum cm_status load_suite(void)
{
    struct cm_suite suite = {0};
    enum cm_status status = cm_suite_load(CM_TEST_FIXTURES "/../fuzz/corpus/suite/plain", &suite);
    cm_suite_release(&suite);
    return status;
}

static enum cm_status parse_json(void)
{
    static const char text[] = "{\"a\": [1, 2.5, \"three\", {\"b\": null}], \"c\": \"\\u00e4\"}";
    json_t *value = NULL;
    enum cm_status status = cm_json_parse(text, sizeof text - 1, "f.json", &value);
    json_decref(value);
    return status;
}

static enum cm_status build_json(void)
{
    json_t *object = json_object(), *array = json_array();
    enum cm_status status =
        object != NULL && array != NULL ? CM_OK : cm_error(CM_NO_MEMORY, "out of memory");
    for (int i = 0; i < 40 && status == CM_OK; i++) {
        char key[8] = {'k', (char)('A' + i), '\0'};
        status = cm_json_set(object, key, json_integer(i));
        if (status == CM_OK)
            status = cm_json_append(array, cm_json_real(i));
    }
    if (status == CM_OK)
        status = cm_json_set(object, "array", json_incref(array));
    char *text = NULL;
    if (status == CM_OK)
        status = cm_json_dump(object, 1, &text);
    cm_free(text);
    json_decref(array);
    json_decref(object);
    return status;
}

static enum cm_status use_statistics(void)
{
    struct cm_samples samples = {0};
    enum cm_status status = CM_OK;
    for (int i = 0; i < 100 && status == CM_OK; i++)
        status = cm_samples_add(&samples, 1 + i % 7);
    struct cm_shift shift;
    if (status == CM_OK)
        status = cm_hodges_lehmann(samples.values, 40, samples.values + 40, 60, 0.95, &shift);
    struct cm_steadiness steadiness;
    if (status == CM_OK)
        status = cm_steadiness(samples.values, samples.count, 0.1, &steadiness);
    cm_samples_release(&samples);
    return status;
}

static void suites(void **state)
{
    (void)state;
    fail_each(parse_suite);
    fail_each(set_in_suite);
    fail_each(write_suite);
    fail_each(load_suite);
}

static void json(void **state)
{
    (void)state;
    fail_each(parse_json);
    fail_each(build_json);
}

static void statistics(void **state)
{
    (void)state;
    fail_each(use_statistics);
}

static void texts(void **state)
{
    (void)state;
    failing = 1;
    calls = 0;
    assert_null(cm_strdup("x"));
    calls = 0;
    assert_null(cm_strf("%d", 5));
    failing = 0;
}

static enum cm_status bind_process(void)
{
    unsigned long armed = failing;
    failing = 0;
    struct cm_topology topology;
    struct cm_binding binding;
    struct cm_str text = CM_STR_INIT;
    enum cm_status status = cm_topology_live(&topology);
    if (status == CM_OK)
        status = cm_binding_plan(&topology, NULL, 0, 1, &binding);
    cm_topology_release(&topology);
    failing = armed;
    calls = 0;
    if (status == CM_OK)
        status = cm_binding_apply(&binding, &text);
    cm_str_release(&text);
    return status;
}

/* What a rank is bound to is read back in full. */
static void binding(void **state)
{
    (void)state;
    fail_each(bind_process);
}

static enum cm_status load_model(void)
{
    struct cm_transformer model = {.layers = 77};
    enum cm_status status = cm_transformer_load("tiny", 0, &model);
    if (status != CM_OK && model.layers != 77)
        return cm_error(CM_INTERNAL, "the output was changed");
    return status;
}

static void models(void **state)
{
    (void)state;
    fail_each(load_model);
}

static enum cm_status place_gpus(void)
{
    struct cm_topology none = {.gpu_count = 0};
    const char *const bus_ids[] = {"0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0"};
    unsigned order[4];
    return cm_placement_order(&none, bus_ids, 4, 2, order);
}

static void placement(void **state)
{
    (void)state;
    fail_each(place_gpus);
}

/* A message without memory does not take the next one along. */
static void messages(void **state)
{
    (void)state;
    int ends[2];
    char *large = malloc(100001);
    struct cm_channel from = CM_CHANNEL_INIT, to = CM_CHANNEL_INIT;
    struct cm_message message;
    assert_non_null(large);
    memset(large, 'x', 100000);
    large[100000] = '\0';
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    from.fd = ends[0];
    to.fd = ends[1];
    for (int i = 0; i < 2; i++) { /* with the first memory of the channel, and with more */
        calls = 0;
        failing = 1;
        assert_int_equal(cm_channel_send(&from, "large", large), CM_NO_MEMORY);
        failing = 0;
        assert_ok(cm_channel_send(&from, "small", "y"));
        assert_ok(cm_channel_receive(&to, &message));
        assert_string_equal(message.kind, "small");
        assert_string_equal(message.payload, "y");
    }
    cm_channel_close(&from);
    cm_channel_close(&to);
    free(large);
}

static double second(const void *impl, const struct cm_step *step, unsigned rank,
                     const struct cm_op *op)
{
    (void)impl;
    (void)step;
    (void)rank;
    (void)op;
    return 1;
}

static enum cm_status execute_step(void)
{
    struct cm_step step;
    struct cm_virtual *program = NULL;
    struct cm_virtual_result result;
    const struct cm_virtual_times times = {.time_s = second};
    cm_step_defaults(&step);
    enum cm_status status = cm_transformer_load("tiny", 0, &step.model);
    if (status == CM_OK)
        status = cm_parallel_parse("dp=2,pp=2,tp=2,zero=2", "test", &step.parallel);
    if (status == CM_OK)
        status = cm_virtual_open(&step, &program);
    if (status == CM_OK)
        status = cm_virtual_execute(program, &times, NULL, &result);
    if (status == CM_OK)
        cm_virtual_result_release(&result);
    cm_virtual_close(program);
    return status;
}

static void virtual_steps(void **state)
{
    (void)state;
    fail_each(execute_step);
}

int main(void)
{
    cm_json_init();
    /* jansson keeps something from its first object on. */
    json_decref(json_object());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suites), cmocka_unit_test(json),      cmocka_unit_test(statistics),
        cmocka_unit_test(texts),  cmocka_unit_test(binding),   cmocka_unit_test(messages),
        cmocka_unit_test(models), cmocka_unit_test(placement), cmocka_unit_test(virtual_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
