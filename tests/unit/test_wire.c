/* A case run as a line of JSON: there and back, and lines that are not to be trusted. */
#include "test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"

#define RANKS 2

static void add(struct cm_samples *samples, double value)
{
    assert_ok(cm_samples_add(samples, value));
}

/* A run with something in every field; rank 1 was idle in the second part. */
static struct cm_case_run make_run(void)
{
    struct cm_case_run run = {
        .case_index = 7,
        .run = 3,
        .status = CM_CASE_WRONG,
        .reason = "rank 1: 3 of 9 values are wrong: \"here\"\n\ttab",
        .stop_reason = "steady",
        .warmup_iterations = 55,
        .warmup_s = 0.25,
        .wall_s = 1.5,
        .started_unix_s = 1763876543.123456,
        .part_count = 2,
        .check = {.checked = 9, .mismatches = 3, .worst = 1.25, .detail = "at 17"},
        .rank_count = RANKS,
        .comm = "mpi",
        .comm_library = "Open MPI v4.1.4",
        .algorithm = "jit",
    };
    run.parts = cm_alloc(2, sizeof *run.parts);
    run.telemetry = cm_alloc(RANKS, sizeof *run.telemetry);
    run.devices = cm_alloc(RANKS, sizeof *run.devices);
    run.bindings = cm_alloc(RANKS, sizeof *run.bindings);
    for (unsigned p = 0; p < 2; p++) {
        struct cm_part_samples *part = &run.parts[p];
        part->part = (struct cm_part){.min_time_s = 0.5 * p, .fixed_time = p == 1};
        snprintf(part->part.name, sizeof part->part.name, "part %u", p);
        part->work = (struct cm_work){1e9, 2e6, 4096, 64};
        part->rank_count = RANKS;
        part->ranks = cm_alloc(RANKS, sizeof *part->ranks);
        part->rank_median_s = cm_alloc(RANKS, sizeof *part->rank_median_s);
        for (int i = 0; i < 3; i++) {
            add(&part->slowest, 1e-6 * (i + 1));
            add(&part->ranks[0], 1e-6 * (i + 1));
            if (p == 0)
                add(&part->ranks[1], 0.5e-6 * (i + 1));
        }
        part->median_s = 2e-6;
        part->rank_median_s[0] = 2e-6;
        part->rank_median_s[1] = p == 0 ? 1e-6 : (double)NAN;
    }
    for (unsigned r = 0; r < RANKS; r++) {
        struct cm_device_info *device = &run.devices[r];
        run.telemetry[r] = (struct cm_telemetry){.clock_hz = 3e9 + r, .power_w = NAN};
        snprintf(run.telemetry[r].throttle_reasons, sizeof run.telemetry[r].throttle_reasons,
                 "heat");
        snprintf(device->name, sizeof device->name, "CPU \xff%u", r); /* not UTF-8 */
        device->units = 4 + r;
        device->memory_bytes = UINT64_C(1) << 40;
        device->memory_total_bytes = UINT64_C(3) << 40;
        device->memory_rate.value = 1e11;
        device->flop_rate[CM_BF16].value = 2e12;
        device->flop_rate[CM_BF16].measured = true;
        snprintf(device->flop_rate[CM_BF16].source, sizeof device->flop_rate[0].source, "loop");
        run.bindings[r] = cm_strf("cpus %u", r);
    }
    struct cm_metric *metric;
    assert_ok(cm_metrics_add(&run.metrics, "busbw", 1e9, "B/s", CM_HIGHER, &metric));
    metric->ceiling = 2e9;
    snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "link");
    assert_ok(cm_metrics_add(&run.metrics, "odd", NAN, "1", CM_NEITHER, NULL));
    struct cm_suspect suspect = {
        .what = "sending", .rank = 1, .peer = CM_NO_PEER, .effect = -0.5, .retest = (double)NAN};
    snprintf(suspect.host, sizeof suspect.host, "node\xff");
    assert_ok(cm_suspects_add(&run.suspects, &suspect));
    return run;
}

/* Not inlined: gcc 12 with sanitizers would take the text for the variable that holds it. */
__attribute__((noinline)) static char *write_run(void)
{
    struct cm_case_run run = make_run();
    char *text = NULL;
    assert_ok(cm_case_run_write(&run, &text));
    cm_case_run_release(&run);
    return text;
}

static void test_there_and_back(void **state)
{
    (void)state;
    char *text = write_run();
    struct cm_case_run run = {0};
    assert_null(strchr(text, '\n'));
    assert_ok(cm_case_run_read(text, strlen(text), &run));
    assert_int_equal(run.case_index, 7);
    assert_int_equal(run.run, 3);
    assert_int_equal(run.status, CM_CASE_WRONG);
    assert_string_equal(run.reason, "rank 1: 3 of 9 values are wrong: \"here\"\n\ttab");
    assert_string_equal(run.stop_reason, "steady");
    assert_int_equal(run.warmup_iterations, 55);
    assert_true(fabs(run.started_unix_s - 1763876543.123456) < 2e-6);
    assert_int_equal(run.part_count, 2);
    assert_string_equal(run.parts[1].part.name, "part 1");
    assert_true(run.parts[1].part.fixed_time);
    assert_int_equal(run.parts[0].slowest.count, 3);
    assert_near(run.parts[0].slowest.values[2], 3e-6, 1e-9);
    assert_near(run.parts[0].ranks[1].values[0], 0.5e-6, 1e-9);
    assert_int_equal(run.parts[1].ranks[1].count, 0);
    assert_true(isnan(run.parts[1].rank_median_s[1]));
    assert_near(run.parts[0].work.operations, 64, 0);
    assert_int_equal(run.metrics.count, 2);
    assert_near(run.metrics.items[0].ceiling, 2e9, 0);
    assert_true(isnan(run.metrics.items[1].value));
    assert_int_equal(run.metrics.items[1].better, CM_NEITHER);
    assert_int_equal(run.check.mismatches, 3);
    assert_int_equal(run.suspects.count, 1);
    assert_string_equal(run.suspects.items[0].host, "node?");
    assert_int_equal(run.suspects.items[0].peer, CM_NO_PEER);
    assert_near(run.suspects.items[0].effect, -0.5, 0);
    assert_true(isnan(run.suspects.items[0].retest));
    assert_int_equal(run.rank_count, RANKS);
    assert_near(run.telemetry[1].clock_hz, 3e9 + 1, 1e-8);
    assert_true(isnan(run.telemetry[0].power_w));
    assert_string_equal(run.telemetry[0].throttle_reasons, "heat");
    assert_string_equal(run.devices[1].name, "CPU ?1");
    assert_int_equal(run.devices[1].units, 5);
    assert_true(run.devices[0].memory_bytes == UINT64_C(1) << 40);
    assert_true(run.devices[0].memory_total_bytes == UINT64_C(3) << 40);
    assert_true(run.devices[0].flop_rate[CM_BF16].measured);
    assert_string_equal(run.bindings[1], "cpus 1");
    assert_string_equal(run.algorithm, "jit");
    char *again = NULL;
    assert_ok(cm_case_run_write(&run, &again));
    assert_string_equal(again, text);
    cm_free(again);
    cm_free(text);
    cm_case_run_release(&run);
}

/* What a case that never ran looks like. */
/* Of very many ranks the medians travel without the times. */
static void test_medians_alone(void **state)
{
    (void)state;
    struct cm_case_run run = make_run(), read = {0};
    for (unsigned p = 0; p < run.part_count; p++) {
        for (unsigned r = 0; r < RANKS; r++)
            cm_samples_release(&run.parts[p].ranks[r]);
        cm_free(run.parts[p].ranks);
        run.parts[p].ranks = NULL;
    }
    char *text = NULL;
    assert_ok(cm_case_run_write(&run, &text));
    assert_ok(cm_case_run_read(text, strlen(text), &read));
    assert_null(read.parts[0].ranks);
    assert_int_equal(read.parts[0].rank_count, RANKS);
    assert_near(read.parts[0].rank_median_s[1], 1e-6, 1e-9);
    cm_case_run_release(&read);
    cm_case_run_release(&run);
    cm_free(text);
}

static void test_empty(void **state)
{
    (void)state;
    struct cm_case_run run = {.status = CM_CASE_SKIPPED, .reason = "no"}, back = {0};
    char *text = NULL;
    assert_ok(cm_case_run_write(&run, &text));
    assert_ok(cm_case_run_read(text, strlen(text), &back));
    assert_int_equal(back.status, CM_CASE_SKIPPED);
    assert_int_equal(back.part_count, 0);
    cm_case_run_release(&back);
    cm_case_run_release(&back); /* a released run may be released */
    cm_case_run_release(NULL);
    cm_free(text);
}

/* The line with one JSON value changed or, with NULL, taken away is refused. */
static void refuse_json(json_t *root, const char *part)
{
    struct cm_case_run run = {.case_index = 99};
    char *text = NULL;
    assert_ok(cm_json_dump(root, 0, &text));
    assert_status(cm_case_run_read(text, strlen(text), &run), CM_USAGE, part);
    assert_int_equal(run.case_index, 99);
    assert_null(run.parts);
    cm_free(text);
}

/* Every member of every object, at any depth: without it, and with a value of another type. */
static void spoil(json_t *root, json_t *value)
{
    const char *keys[64], *key;
    json_t *member;
    size_t index, count = 0;
    json_array_foreach(value, index, member) spoil(root, member);
    json_object_foreach(value, key, member)
    {
        spoil(root, member);
        keys[count++] = cm_strdup(key);
    }
    for (size_t i = 0; i < count; i++) {
        json_t *kept = json_incref(json_object_get(value, keys[i]));
        json_object_set_new(value, keys[i], json_object());
        refuse_json(root, "a rank's message: ");
        json_object_del(value, keys[i]);
        refuse_json(root, keys[i]);
        json_object_set_new(value, keys[i], kept);
        cm_free((char *)keys[i]);
    }
}

static void test_every_member_counts(void **state)
{
    (void)state;
    char *text = write_run();
    json_t *root = NULL;
    assert_ok(cm_json_parse(text, strlen(text), "test", &root));
    spoil(root, root);
    json_decref(root);
    cm_free(text);
}

/* `from` in the line becomes `to`. */
static void refuse(const char *from, const char *to, const char *part)
{
    char *text = write_run();
    char *at = strstr(text, from);
    struct cm_case_run run = {0};
    if (at == NULL)
        fail_msg("no %s in %s", from, text);
    char *spoilt = cm_strf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_status(cm_case_run_read(spoilt, strlen(spoilt), &run), CM_USAGE, part);
    cm_free(spoilt);
    cm_free(text);
}

static void test_out_of_range(void **state)
{
    (void)state;
    refuse("\"run\":3", "\"run\":-3", "\"run\"");
    refuse("\"run\":3", "\"run\":3.5", "\"run\"");
    refuse("\"rank_count\":2", "\"rank_count\":4294967296", "\"rank_count\"");
    refuse("\"rank_count\":2", "\"rank_count\":4000000000", "entries");
    refuse("\"rank_count\":2", "\"rank_count\":3", "entries");
    refuse("\"wrong\"", "\"fine\"", "\"status\"");
    refuse("\"higher\"", "\"up\"", "\"better\"");
    refuse("\"mpi\"", "\"a name that is too long for its field\"", "\"comm\"");
    refuse("\"odd\"", "\"busbw\"", "twice");
    refuse("\"odd\"", "\"\"", "metric");
    refuse("\"slowest_s\":[", "\"slowest_s\":[0.1,", "ranks_s");
    refuse("\"slowest_s\":[", "\"slowest_s\":[\"x\",", "slowest_s");
    refuse("\"cpus 1\"", "1", "bindings");
    refuse("\"rank_median_s\":[", "\"rank_median_s\":[null,", "rank_median_s");
}

/* A line that was cut anywhere, or has one bit changed, never breaks the reader. */
static void test_damaged(void **state)
{
    (void)state;
    char *text = write_run();
    size_t length = strlen(text);
    struct cm_case_run run = {0};
    for (size_t cut = 0; cut < length; cut += 1 + length / 300)
        assert_status(cm_case_run_read(text, cut, &run), CM_USAGE, "a rank's message");
    for (size_t i = 0; i < length; i += 1 + length / 1500) {
        text[i] = (char)(text[i] ^ 1 << i % 7);
        if (cm_case_run_read(text, length, &run) == CM_OK)
            cm_case_run_release(&run);
        text[i] = (char)(text[i] ^ 1 << i % 7);
    }
    assert_ok(cm_case_run_read(text, length, &run));
    cm_case_run_release(&run);
    cm_free(text);
}

int main(void)
{
    cm_json_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_medians_alone),
        cmocka_unit_test(test_empty),          cmocka_unit_test(test_every_member_counts),
        cmocka_unit_test(test_out_of_range),   cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
