/* The gate can fail, and says in which way: one row per way. Two looks share the risk and cannot be
 * had by leaving results out. The selftest counts what it says. */
#include "compare_fixture.h"

#define PLAIN .runs = 20, .time = 1e-3, .rate = 1e9, .noise = 0.01

/* The baseline has 20 runs; each row's new results 5. */
static const struct way {
    const char *what;
    struct made fresh;
    const char *small, *large; /* verdicts of the time and of the rate */
    const char *outcome;
    enum cm_status status;
} ways[] = {
    {"equal", {.time = 1e-3, .rate = 1e9}, "pass", "pass", "pass", CM_OK},
    {"a time gets longer",
     {.time = 1.1e-3, .rate = 1e9},
     "regression",
     "pass",
     "regression",
     CM_REGRESSION},
    {"a rate falls",
     {.time = 1e-3, .rate = 0.9e9},
     "pass",
     "regression",
     "regression",
     CM_REGRESSION},
    {"a time gets shorter", {.time = 0.9e-3, .rate = 1e9}, "improved", "pass", "improved", CM_OK},
    {"a rate rises", {.time = 1e-3, .rate = 1.1e9}, "pass", "improved", "improved", CM_OK},
    {"both",
     {.time = 1.1e-3, .rate = 0.9e9},
     "regression",
     "regression",
     "regression",
     CM_REGRESSION},
    {"a little, within the margin",
     {.time = 1.003e-3, .rate = 0.997e9},
     "pass",
     "pass",
     "pass",
     CM_OK},
    {"too little to tell",
     {.time = 1.02e-3, .rate = 1e9},
     "inconclusive",
     "pass",
     "inconclusive",
     CM_INCONCLUSIVE},
    {"a dropped metric",
     {.time = 1e-3, .rate = 1e9, .no_time = true},
     "missing",
     "pass",
     "missing",
     CM_MISSING},
    {"a wrong case",
     {.time = 1e-3, .rate = 1e9, .status = "wrong"},
     "wrong",
     "pass",
     "wrong",
     CM_WRONG},
    {"a failed case",
     {.time = 1e-3, .rate = 1e9, .status = "failed"},
     "wrong",
     "pass",
     "wrong",
     CM_WRONG},
    {"a unit changed",
     {.time = 1e-3, .rate = 1e9, .unit = "B"},
     "unit changed",
     "pass",
     "unit changed",
     CM_NOT_COMPARABLE},
    {"throttled by heat",
     {.time = 1e-3,
      .rate = 1e9,
      .telemetry = "\"throttled_fraction\":0.5,\"throttle_reasons\":\"thermal (hardware)\""},
     "throttled",
     "pass",
     "throttled",
     CM_WRONG},
    {"at its power cap, which is no reason",
     {.time = 1e-3,
      .rate = 1e9,
      .telemetry = "\"throttled_fraction\":1,\"throttle_reasons\":\"power cap\""},
     "pass",
     "pass",
     "pass",
     CM_OK},
    {"injected, as new",
     {.time = 1.1e-3, .rate = 1e9, .extra = ",\"injected\":0.1"},
     "regression",
     "pass",
     "regression",
     CM_REGRESSION},
    {"another machine",
     {.time = 1e-3, .rate = 1e9, .digest = "d2"},
     NULL,
     NULL,
     "not comparable",
     CM_NOT_COMPARABLE},
    {"another environment",
     {.time = 1e-3, .rate = 1e9, .environment = "\"NCCL_ALGO\":\"Tree\""},
     NULL,
     NULL,
     "not comparable",
     CM_NOT_COMPARABLE},
    {"another device",
     {.time = 1e-3, .rate = 1e9, .device = "cuda"},
     NULL,
     NULL,
     "not comparable",
     CM_NOT_COMPARABLE},
};

static enum cm_status gate_files(const char *base, const char *fresh, const char *state,
                                 const char *allowed, json_t **document)
{
    static const char *const metrics[] = {"small/time", "large/algbw"};
    const char *bases[] = {base}, *news[] = {fresh}, *keys[] = {allowed};
    struct cm_gate_request request = {.baseline = {bases, 1},
                                      .fresh = {news, 1},
                                      .metrics = {metrics, 2},
                                      .allowed = {keys, allowed != NULL},
                                      .state = state,
                                      .strict = true};
    return cm_gate(&request, document);
}

static const char *verdict_of(const json_t *document, const char *key)
{
    return text_of(row_of(document, "gated", key), "verdict");
}

/* What CI is told: the counts of JUnit, an annotation of that kind, Bencher's verdict. */
static void check_exports(const struct way *way, const json_t *document)
{
    static const char *const bad[] = {"regression",   "wrong",         "throttled",
                                      "unit changed", "missing",       "no baseline",
                                      "inconclusive", "not comparable"};
    struct cm_str text = CM_STR_INIT;
    char expected[80];
    unsigned errors = 0, failures = 0;
    const char *verdicts[] = {way->small, way->large, way->small == NULL ? way->outcome : NULL};
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; verdicts[i] != NULL && k < 8; k++) {
            if (strcmp(verdicts[i], bad[k]) == 0)
                *(k == 4 || k == 5 || k == 7 ? &errors : &failures) += 1;
        }
    }
    failures += way->fresh.status != NULL; /* the case itself is told as well */
    snprintf(expected, sizeof expected, " failures=\"%u\" errors=\"%u\" skipped=\"0\"", failures,
             errors);
    assert_ok(cm_gate_export(document, "junit", &text));
    if (strstr(cm_str_text(&text), expected) == NULL)
        fail_msg("%s: not%s: %s", way->what, expected, cm_str_text(&text));
    cm_str_reset(&text);
    assert_ok(cm_gate_export(document, "annotations", &text));
    assert_int_equal(strstr(cm_str_text(&text), "::error title=clustermark gate::") != NULL,
                     way->status != CM_OK);
    cm_str_reset(&text);
    assert_ok(cm_gate_export(document, "markdown", &text));
    assert_non_null(strstr(cm_str_text(&text), way->outcome));
    cm_str_reset(&text);
    assert_ok(cm_gate_export(document, "bmf", &text));
    json_t *root = json_loads(cm_str_text(&text), 0, NULL);
    assert_int_equal(number_of(json_object_get(json_object_get(root, "gate"), "verdict"), "value"),
                     cm_status_exit_code(way->status));
    json_decref(root);
    assert_status(cm_gate_export(document, "csv", &text), CM_USAGE, "junit, markdown");
    cm_str_release(&text);
}

static void fails_in_each_way(void **state)
{
    (void)state;
    const char *base = make_file(&(struct made){.file = "base.json", .seed = 1, PLAIN});
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct way *way = &ways[i];
        struct made made = way->fresh;
        struct cm_report_style style = {.width = 100};
        struct cm_str text = CM_STR_INIT;
        json_t *document = NULL;
        made.file = "new.json";
        made.runs = 5;
        made.noise = 0.01;
        made.seed = 100 + i;
        assert_ok(gate_files(base, make_file(&made), NULL, NULL, &document));
        if (strcmp(text_of(document, "outcome"), way->outcome) != 0)
            fail_msg("%s: %s: %s", way->what, text_of(document, "outcome"),
                     text_of(document, "exit_reason"));
        if (way->small != NULL) {
            assert_string_equal(verdict_of(document, "small/time"), way->small);
            assert_string_equal(verdict_of(document, "large/algbw"), way->large);
        }
        assert_int_equal(cm_document_verdict(document), way->status);
        check_exports(way, document);
        assert_ok(cm_gate_text(document, &style, true, &text));
        assert_non_null(strstr(cm_str_text(&text), way->outcome));
        cm_str_release(&text);
        json_decref(document);
    }
}

static void swapped_is_not_the_same(void **state)
{
    (void)state;
    json_t *document = NULL;
    const char *fast = make_file(&(struct made){.file = "fast.json", .seed = 1, PLAIN});
    const char *slow = make_file(&(struct made){
        .file = "slow.json", .seed = 2, .runs = 20, .time = 1.2e-3, .rate = 1e9, .noise = 0.01});
    assert_ok(gate_files(fast, slow, NULL, NULL, &document));
    assert_string_equal(text_of(document, "outcome"), "regression");
    json_decref(document);
    assert_ok(gate_files(slow, fast, NULL, NULL, &document));
    assert_string_equal(text_of(document, "outcome"), "improved");
    assert_non_null(strstr(text_of(row_of(document, "gated", "small/time"), "reason"), "refresh"));
    json_decref(document);
}

static void refuses(void **state)
{
    (void)state;
    json_t *document = NULL;
    const char *base = make_file(&(struct made){.file = "base.json", .seed = 1, PLAIN});
    const char *injected = make_file(
        &(struct made){.file = "i.json", .seed = 3, .extra = ",\"injected\":0.05", PLAIN});
    const char *fresh = make_file(&(struct made){.file = "new.json", .seed = 5, PLAIN});
    assert_status(gate_files(injected, fresh, NULL, NULL, &document), CM_NOT_COMPARABLE,
                  "no baseline");
    assert_status(gate_files(base, base, NULL, NULL, &document), CM_USAGE, "against itself");
    FILE *file = fopen(path_of("corrupt.json"), "w");
    fprintf(file, "{\"schema\": \"clustermark.result\"");
    fclose(file);
    assert_status(gate_files(base, path_of("corrupt.json"), NULL, NULL, &document), CM_USAGE,
                  "corrupt.json");
    assert_status(gate_files(base, path_of("none.json"), NULL, NULL, &document), CM_USAGE,
                  "none.json");
    struct cm_gate_request none = {.fresh = {&fresh, 1}};
    assert_status(cm_gate(&none, &document), CM_MISSING, "no baseline");
    /* A difference that is allowed by name. */
    const char *other =
        make_file(&(struct made){.file = "o.json", .seed = 7, .digest = "d2", PLAIN});
    assert_ok(gate_files(base, other, NULL, "machine.digest", &document));
    assert_string_equal(text_of(document, "outcome"), "pass");
    json_decref(document);
    assert_ok(gate_files(base, other, NULL, "environment", &document));
    assert_int_equal(cm_document_verdict(document), CM_NOT_COMPARABLE);
    json_decref(document);
}

static void rules_are_checked(void **state)
{
    (void)state;
    json_t *document = NULL;
    const char *base = make_file(&(struct made){.file = "base.json", .seed = 1, PLAIN});
    const char *fresh = make_file(&(struct made){.file = "new.json", .seed = 5, PLAIN});
    const char *metrics[] = {"no/such"}, *margins[] = {"x=3%"}, *bad[] = {"-1"};
    struct cm_gate_request request = {
        .baseline = {&base, 1}, .fresh = {&fresh, 1}, .metrics = {metrics, 1}};
    assert_ok(cm_gate(&request, &document));
    assert_int_equal(cm_document_verdict(document), CM_MISSING);
    json_decref(document);
    request.margins = (struct cm_texts){margins, 1};
    assert_status(cm_gate(&request, &document), CM_USAGE, "no gated metric 'x'");
    request.margins = (struct cm_texts){bad, 1};
    assert_status(cm_gate(&request, &document), CM_USAGE, "give a share");
    FILE *file = fopen(path_of("rules.ini"), "w");
    fprintf(file, "[global]\nmargin = 50%%\n[a]\nmetric = small/*\n[b]\nmetric = large/algbw\n"
                  "margin = 1%%\n");
    fclose(file);
    request = (struct cm_gate_request){
        .baseline = {&base, 1}, .fresh = {&fresh, 1}, .rules = path_of("rules.ini")};
    assert_ok(cm_gate(&request, &document));
    assert_near(number_of(row_of(document, "gated", "small/time"), "margin"), 0.5, 1e-12);
    assert_near(number_of(row_of(document, "gated", "large/algbw"), "margin"), 0.01, 1e-12);
    json_decref(document);
}

/* What a suite declares is watched, by the baseline's word as well as by the new one's. */
static void suites_declare(void **state)
{
    (void)state;
    json_t *document = NULL;
    struct made old = {.file = "base.json", .seed = 1, PLAIN};
    struct made new = {
        .file = "new.json", .seed = 5, .runs = 8, .time = 1e-3, .rate = 0.8e9, .noise = .01};
    old.time_gate = ",\"gate\":\"time\",\"gate_margin\":0.05";
    new.rate_gate = ",\"gate\":\"algbw\"";
    const char *base = make_file(&old), *fresh = make_file(&new), *metrics[] = {"large/algbw"};
    struct cm_gate_request request = {.baseline = {&base, 1}, .fresh = {&fresh, 1}};
    assert_ok(cm_gate(&request, &document));
    assert_int_equal(json_array_size(json_object_get(document, "gated")), 2);
    assert_near(number_of(row_of(document, "gated", "small/time"), "margin"), 0.05, 1e-12);
    assert_near(number_of(row_of(document, "gated", "large/algbw"), "margin"), 0.02, 1e-12);
    assert_string_equal(text_of(document, "outcome"), "regression");
    json_decref(document);
    /* A figure that is not there is missing; --metric is asked for instead. */
    new.rate_gate = ",\"gate\":\"algbv\"";
    fresh = make_file(&new);
    request.fresh.items = &fresh;
    assert_ok(cm_gate(&request, &document));
    assert_string_equal(text_of(row_of(document, "gated", "large/algbv"), "verdict"), "missing");
    json_decref(document);
    request.metrics = (struct cm_texts){metrics, 1};
    assert_ok(cm_gate(&request, &document));
    assert_int_equal(json_array_size(json_object_get(document, "gated")), 1);
    json_decref(document);
}

/* Two looks: the second must hold all of the first and more, and there is no third. */
static void two_looks(void **state)
{
    (void)state;
    json_t *document = NULL;
    char more[96];
    const char *look = path_of("look.json");
    snprintf(more, sizeof more, "%s/more", folder);
    char command[256];
    snprintf(command, sizeof command, "mkdir '%s'", more);
    assert_int_equal(system(command), 0);
    const char *base = make_file(&(struct made){.file = "base.json", .seed = 1, PLAIN});
    struct made first = {
        .file = "more/1.json", .seed = 11, .runs = 4, .time = 1.0185e-3, .rate = 1e9, .noise = .01};
    make_file(&first);
    assert_ok(gate_files(base, more, look, NULL, &document));
    assert_string_equal(text_of(document, "outcome"), "inconclusive");
    assert_near(number_of(document, "risk"), 0.005, 1e-12);
    assert_true(number_of(row_of(document, "gated", "small/time"), "more_runs") >= 1);
    json_decref(document);
    look = path_of("look.json");
    assert_status(gate_files(base, more, look, NULL, &document), CM_USAGE, "add some");
    struct made second = first;
    second.file = "more/2.json";
    second.seed = 13;
    second.time = 1.06e-3;
    second.runs = 12;
    const char *alone = make_file(&second);
    assert_status(gate_files(base, alone, look, NULL, &document), CM_USAGE, "leaves none out");
    assert_ok(gate_files(base, more, look, NULL, &document));
    assert_string_equal(text_of(document, "outcome"), "regression");
    assert_int_equal(number_of(document, "look"), 2);
    json_decref(document);
    assert_status(gate_files(base, more, look, NULL, &document), CM_USAGE, "both looks were had");
}

/* Eight sessions that differ by far more than their runs do: the next one may as well, so that a
 * change as large is no finding. A larger one is. */
static void sessions_that_differ(void **state)
{
    (void)state;
    char base[96], command[256], name[32];
    json_t *document = NULL;
    snprintf(base, sizeof base, "%s/sessions", folder);
    snprintf(command, sizeof command, "mkdir '%s'", base);
    assert_int_equal(system(command), 0);
    for (unsigned i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "sessions/%u.json", i);
        make_file(&(struct made){.file = name,
                                 .seed = 20 + i,
                                 .runs = 5,
                                 .time = 1e-3 * (0.97 + 0.0086 * i),
                                 .rate = 1e9,
                                 .noise = 0.005});
    }
    struct made fresh = {
        .file = "new.json", .seed = 40, .runs = 5, .time = 1.07e-3, .rate = 1e9, .noise = 0.005};
    assert_ok(gate_files(base, make_file(&fresh), NULL, NULL, &document));
    const json_t *row = row_of(document, "gated", "small/time");
    const json_t *sessions = json_object_get(row, "sessions");
    assert_string_equal(text_of(row, "verdict"), "inconclusive");
    assert_string_equal(verdict_of(document, "large/algbw"), "pass");
    assert_int_equal(number_of(sessions, "baseline"), 8);
    assert_near(number_of(sessions, "deviation"), 0.0208, 0.05);
    assert_true(number_of(sessions, "widening") > 0.03);
    /* What it says it sees with 80 % is of that size too. */
    assert_true(number_of(row, "detectable") > 0.08);
    json_decref(document);
    fresh.time = 1.25e-3;
    assert_ok(gate_files(base, make_file(&fresh), NULL, NULL, &document));
    assert_string_equal(verdict_of(document, "small/time"), "regression");
    json_decref(document);
    const char *bases[] = {base}, *metrics[] = {"small/time"};
    struct cm_selftest_request request = {.gate = {.baseline = {bases, 1}, .metrics = {metrics, 1}},
                                          .trials = 500,
                                          .baseline_runs = 20,
                                          .fresh_runs = 5,
                                          .seed = 1};
    assert_ok(cm_gate_selftest(&request, &document));
    assert_string_equal(text_of(document, "draw"), "sessions");
    assert_true(number_of(json_object_get(document, "false_alarms"), "share") <= 0.01);
    json_decref(document);
    request.draw = "runs";
    assert_ok(cm_gate_selftest(&request, &document));
    assert_string_equal(text_of(document, "draw"), "runs");
    json_decref(document);
    request.draw = "lots";
    assert_status(cm_gate_selftest(&request, &document), CM_USAGE, "runs or sessions");
    request.draw = "sessions";
    request.baseline_runs = 30;
    assert_status(cm_gate_selftest(&request, &document), CM_USAGE, "too few");
}

static void tests_itself(void **state)
{
    (void)state;
    json_t *document = NULL;
    struct cm_str text = CM_STR_INIT;
    struct cm_report_style style = {.width = 120};
    const char *base = make_file(&(struct made){
        .file = "many.json", .seed = 1, .runs = 60, .time = 1e-3, .rate = 1e9, .noise = 0.02});
    const char *metrics[] = {"small/time", "large/algbw"};
    struct cm_selftest_request request = {.gate = {.baseline = {&base, 1}, .metrics = {metrics, 2}},
                                          .trials = 500,
                                          .baseline_runs = 20,
                                          .fresh_runs = 5,
                                          .seed = 1};
    assert_ok(cm_gate_selftest(&request, &document));
    assert_string_equal(text_of(document, "outcome"), "holds");
    assert_true(number_of(json_object_get(document, "false_alarms"), "share") <= 0.01);
    const json_t *rows = json_object_get(row_of(document, "metrics", "small/time"), "injected");
    double before = 0;
    for (size_t i = 0; i < 3; i++) { /* power grows with what is injected */
        double share = number_of(json_array_get(rows, i), "share");
        assert_true(share >= before);
        before = share;
    }
    assert_true(before > 0.99); /* 10 % against noise of 1 % */
    assert_true(number_of(json_array_get(rows, 3), "share") > 0.75);
    assert_true(number_of(json_array_get(rows, 4), "share") > 0.95);
    assert_ok(cm_gate_selftest_text(document, &style, &text));
    assert_non_null(strstr(cm_str_text(&text), "500 gates of 5 against 20 runs"));
    cm_str_release(&text);
    json_decref(document);
    request.baseline_runs = 100;
    assert_status(cm_gate_selftest(&request, &document), CM_USAGE, "needs 105");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fails_in_each_way), cmocka_unit_test(swapped_is_not_the_same),
        cmocka_unit_test(refuses),           cmocka_unit_test(rules_are_checked),
        cmocka_unit_test(suites_declare),    cmocka_unit_test(two_looks),
        cmocka_unit_test(tests_itself),      cmocka_unit_test(sessions_that_differ),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
