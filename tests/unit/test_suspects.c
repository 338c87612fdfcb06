/* Who is named in a result, and in which order, from what single runs say. */
#include <unistd.h>

#include "result_fixture.h"

static void suspect(struct made *made, unsigned rank, unsigned peer, double effect, double retest,
                    const char *host)
{
    struct cm_suspect suspect = {.what = "sending",
                                 .rank = rank,
                                 .peer = peer,
                                 .effect = effect,
                                 .low = effect - 0.01,
                                 .high = effect + 0.01,
                                 .p = 1e-5,
                                 .retest = retest,
                                 .confirmed = retest < -0.05};
    snprintf(suspect.host, sizeof suspect.host, "%s", host);
    snprintf(suspect.peer_host, sizeof suspect.peer_host, "%s", peer == CM_NO_PEER ? "" : "other");
    snprintf(suspect.partners, sizeof suspect.partners, "%s", isfinite(retest) ? "5, 6" : "");
    assert_ok(cm_suspects_add(&made->run.suspects, &suspect));
}

/* Three runs of two cases: `confirmed` of a rank in so many runs. */
static void add_runs(struct fixture *fixture)
{
    for (uint64_t run = 0; run < 3; run++) {
        struct made made;
        make(&made, PRODUCTS, run, 1e-3);
        if (run < 2) /* no retest: two of three runs will do */
            suspect(&made, 1, CM_NO_PEER, -0.3, (double)NAN, "slow.example");
        if (run < 1)
            suspect(&made, 0, CM_NO_PEER, -0.4, (double)NAN, "fine.example");
        add(fixture, &made);
        cm_suspects_release(&made.run.suspects);
        make(&made, MIDDLE, run, 1e-3);
        suspect(&made, 0, CM_NO_PEER, -0.5, run < 2 ? -0.5 : 0.0, "worst.example");
        suspect(&made, 1, CM_NO_PEER, -0.45, -0.4, "worst.example");
        suspect(&made, 1, 0, -0.2, -0.2, "pair.example");
        suspect(&made, 0, 1, -0.6, run < 1 ? -0.6 : 0.0, "gone.example");
        add(fixture, &made);
        cm_suspects_release(&made.run.suspects);
    }
}

static const json_t *entry(const json_t *suspects, size_t index)
{
    return json_array_get(suspects, index);
}

static void test_named(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.show_hosts = true;
    create(fixture);
    add_runs(fixture);
    const json_t *suspects = json_object_get(cm_result_json(fixture->result), "suspects");
    assert_int_equal(json_array_size(suspects), 3);
    const json_t *worst = entry(suspects, 0);
    assert_string_equal(cm_get_text(worst, "host"), "worst.example");
    assert_string_equal(cm_get_text(worst, "case"), "allreduce:size=64KiB");
    assert_int_equal(json_array_size(json_object_get(worst, "ranks")), 2); /* one host, one line */
    assert_near(cm_get_number(worst, "effect"), -0.5, 1e-9);
    assert_near(cm_get_number(worst, "seen"), 3, 0);
    assert_string_equal(cm_get_text(entry(suspects, 1), "host"), "slow.example");
    assert_near(cm_get_number(entry(suspects, 1), "seen"), 2, 0);
    const json_t *pair = entry(suspects, 2);
    assert_string_equal(cm_get_text(pair, "peer_host"), "other");
    assert_near(cm_get_number(pair, "peer"), 0, 0);
    /* The case tells of the others too. */
    const json_t *item =
        json_array_get(json_object_get(cm_result_json(fixture->result), "cases"), 0);
    const json_t *all = json_object_get(item, "suspects");
    assert_int_equal(json_array_size(all), 2);
    assert_true(json_is_false(json_object_get(entry(all, 0), "named")));
    assert_true(json_is_true(json_object_get(entry(all, 1), "named")));
}

static void test_told(void **state)
{
    struct fixture *fixture = *state;
    create(fixture);
    add_runs(fixture);
    assert_ok(cm_result_finish(fixture->result, "complete"));
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    const struct cm_report_style style = {.width = 100};
    assert_ok(cm_report_text(cm_result_json(fixture->result), &style, out));
    fclose(out);
    const char *first = strstr(text, "  1. host "), *second = strstr(text, "  2. host ");
    assert_true(first != NULL && second != NULL && first < second);
    assert_non_null(strstr(first, "(ranks 0, 1), sending: 50 % slower"));
    assert_null(strstr(text, "example")); /* names are hashed unless asked for */
    free(text);
    assert_status(cm_result_suspects(cm_result_json(fixture->result)), CM_WRONG, "3 found slow");
    json_t *back = NULL;
    assert_ok(cm_result_load(fixture->path, &back));
    assert_int_equal(json_array_size(json_object_get(back, "suspects")), 3);
    json_object_set_new(json_array_get(json_object_get(back, "suspects"), 0), "host",
                        json_integer(7));
    char *spoilt = json_dumps(back, 0);
    json_decref(back);
    assert_status(cm_result_parse(spoilt, strlen(spoilt), "stranger", &back), CM_USAGE,
                  "suspects[0].host");
    free(spoilt);
}

static void test_nobody(void **state)
{
    struct fixture *fixture = *state;
    struct made made;
    create(fixture);
    make(&made, PRODUCTS, 0, 1e-3);
    add(fixture, &made);
    assert_int_equal(json_array_size(json_object_get(cm_result_json(fixture->result), "suspects")),
                     0);
    assert_ok(cm_result_suspects(cm_result_json(fixture->result)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
