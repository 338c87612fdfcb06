/* compare: verdicts and what it takes to tell, best of several, prices with their uncertainty, what
 * must match, pairs. */
#include "compare_fixture.h"

static struct made plain(const char *file, unsigned runs, double factor, uint64_t seed)
{
    return (struct made){.file = file,
                         .seed = seed,
                         .runs = runs,
                         .time = 1e-3 * factor,
                         .rate = 1e9 / factor,
                         .noise = 0.01};
}

static const char *write_plain(const char *file, unsigned runs, double factor, uint64_t seed)
{
    struct made made = plain(file, runs, factor, seed);
    return make_file(&made);
}

static json_t *compared(struct cm_compare_request *request, const char *const *paths, size_t count)
{
    json_t *document = NULL;
    struct cm_str text = CM_STR_INIT;
    struct cm_report_style style = {.width = 110};
    request->paths = (struct cm_texts){paths, count};
    assert_ok(cm_compare(request, &document));
    assert_ok(cm_compare_text(document, &style, true, &text));
    assert_non_null(strstr(cm_str_text(&text), "verdict: "));
    cm_str_release(&text);
    return document;
}

static const json_t *against(const json_t *document, const char *key, size_t set)
{
    return json_array_get(json_object_get(row_of(document, "metrics", key), "against_first"), set);
}

static void says_which_way(void **state)
{
    (void)state;
    static const struct {
        double factor;
        const char *time, *rate;
    } rows[] = {{1.1, "slower", "slower"},
                {0.9, "faster", "faster"},
                {1.0, "same within the margin", "same within the margin"}};
    struct cm_compare_request request = {.margin = 0.02};
    const char *base = write_plain("a.json", 12, 1, 1);
    for (size_t i = 0; i < 3; i++) {
        const char *paths[] = {base, write_plain("b.json", 12, rows[i].factor, 20 + i)};
        json_t *document = compared(&request, paths, 2);
        const json_t *time = against(document, "small/time", 1);
        const json_t *rate = against(document, "large/algbw", 1);
        assert_string_equal(text_of(time, "word"), rows[i].time);
        assert_string_equal(text_of(rate, "word"), rows[i].rate);
        /* The change is the metric's own: a rate falls where a time grows. */
        assert_true(fabs(number_of(time, "change") - (rows[i].factor - 1)) < 0.01);
        assert_true(fabs(number_of(rate, "change") - (1 / rows[i].factor - 1)) < 0.01);
        const json_t *interval = json_object_get(time, "interval");
        assert_true(number_of(interval, "low") < number_of(time, "change") &&
                    number_of(interval, "high") > number_of(time, "change"));
        assert_int_equal(cm_document_verdict(document), CM_OK);
        json_decref(document);
    }
}

static void says_what_it_takes(void **state)
{
    (void)state;
    struct cm_compare_request request = {.margin = 0.02};
    const char *paths[] = {write_plain("a.json", 3, 1, 1), write_plain("b.json", 3, 1.1, 2)};
    json_t *document = compared(&request, paths, 2);
    const json_t *row = against(document, "small/time", 1);
    assert_string_equal(text_of(row, "verdict"), "unknown");
    /* 3 against 3 can never tell at 95 %; of 10 % at this noise 4 or 5 can. A run takes 2 s. */
    double more = number_of(row, "more_runs");
    assert_true(more >= 1 && more <= 3);
    assert_near(number_of(row, "more_s"), 2 * more, 1e-9);
    json_decref(document);
    /* One run each: no noise is known, 4 are the fewest. */
    const char *single[] = {write_plain("a.json", 1, 1, 1), write_plain("b.json", 1, 1.1, 2)};
    document = compared(&request, single, 2);
    assert_near(number_of(against(document, "small/time", 1), "more_runs"), 3, 1e-9);
    json_decref(document);
}

static void marks_the_best_only_where_it_is(void **state)
{
    (void)state;
    struct cm_compare_request request = {.margin = 0.02};
    const char *paths[] = {write_plain("a.json", 12, 1, 1), write_plain("b.json", 12, 0.8, 2),
                           write_plain("c.json", 12, 1.2, 3)};
    json_t *document = compared(&request, paths, 3);
    assert_near(number_of(row_of(document, "metrics", "small/time"), "best"), 1, 1e-9);
    assert_near(number_of(row_of(document, "metrics", "large/algbw"), "best"), 1, 1e-9);
    json_decref(document);
    paths[2] = write_plain("c.json", 12, 0.8, 4);
    document = compared(&request, paths, 3);
    assert_true(json_is_null(json_object_get(row_of(document, "metrics", "small/time"), "best")));
    json_decref(document);
}

static void carries_prices_through(void **state)
{
    (void)state;
    const char *prices[] = {"a=3.6USD/h,2026-01-02,an offer", "2=7.2"};
    struct cm_compare_request request = {.margin = 0.02, .prices = {prices, 2}};
    const char *paths[] = {write_plain("a.json", 12, 1, 1), write_plain("b.json", 12, 1, 2)};
    json_t *document = compared(&request, paths, 2);
    const json_t *row = row_of(document, "metrics", "large/algbw.cost");
    const json_t *figure = json_array_get(json_object_get(row, "sets"), 0);
    assert_string_equal(text_of(row, "unit"), "USD/TB");
    /* 3.6 USD/h is 0.001 USD/s; 1 TB at 1 GB/s takes 1000 s. */
    assert_true(fabs(number_of(figure, "value") - 1) < 0.01);
    const json_t *rate =
        json_array_get(json_object_get(row_of(document, "metrics", "large/algbw"), "sets"), 0);
    double high = number_of(json_object_get(rate, "interval"), "high");
    assert_near(number_of(json_object_get(figure, "interval"), "low"), 1e9 / high, 1e-9);
    /* Twice the price for the same. */
    assert_true(fabs(number_of(against(document, "large/algbw.cost", 1), "change") - 1) < 0.02);
    const json_t *price =
        json_object_get(json_array_get(json_object_get(document, "sets"), 0), "price");
    assert_string_equal(text_of(price, "date"), "2026-01-02");
    assert_string_equal(text_of(price, "source"), "an offer");
    json_decref(document);
    static const struct {
        const char *price, *message;
    } bad[] = {{"1=x", "is no price"},
               {"1=5 USD/min", "per hour"},
               {"z=5", "no results called 'z'"},
               {"1=-5", "is no price"}};
    for (size_t i = 0; i < 4; i++) {
        request.prices = (struct cm_texts){&bad[i].price, 1};
        assert_status(cm_compare(&request, &document), CM_USAGE, bad[i].message);
    }
    const char *mixed[] = {"1=5EUR", "2=5USD"}, *instance = "1=none";
    request.prices = (struct cm_texts){mixed, 2};
    assert_status(cm_compare(&request, &document), CM_USAGE, "one currency");
    request.prices.count = 0;
    request.instances = (struct cm_texts){&instance, 1};
    assert_status(cm_compare(&request, &document), CM_USAGE, "no instance 'none'");
    instance = "1=p5.48xlarge";
    document = compared(&request, paths, 2);
    price = json_object_get(json_array_get(json_object_get(document, "sets"), 0), "price");
    assert_near(number_of(price, "per_hour"), 55.04, 1e-9);
    json_decref(document);
}

static void refuses_what_differs(void **state)
{
    (void)state;
    struct cm_compare_request request = {.margin = 0.02};
    struct made other = plain("b.json", 6, 1, 2);
    other.environment = "\"NCCL_ALGO\":\"Tree\"";
    other.digest = "d2"; /* the machine is what is compared */
    const char *paths[] = {write_plain("a.json", 6, 1, 1), make_file(&other)};
    json_t *document = compared(&request, paths, 2);
    assert_status(cm_document_verdict(document), CM_NOT_COMPARABLE, "environment.NCCL_ALGO");
    assert_int_equal(json_array_size(json_object_get(document, "metrics")), 0);
    assert_string_equal(text_of(row_of(document, "differences", "machine.digest"), "role"),
                        "subject");
    json_decref(document);
    const char *allowed = "environment";
    request.allowed = (struct cm_texts){&allowed, 1};
    document = compared(&request, paths, 2);
    assert_int_equal(cm_document_verdict(document), CM_OK);
    json_decref(document);
    /* A folder is the runs of one machine. */
    char command[256];
    snprintf(command, sizeof command, "mkdir '%s/mixed' && mv '%s/b.json' '%s/mixed/'", folder,
             folder, folder);
    assert_int_equal(system(command), 0);
    write_plain("mixed/c.json", 6, 1, 5);
    const char *mixed[] = {paths[0], path_of("mixed")};
    document = compared(&request, mixed, 2);
    assert_int_equal(cm_document_verdict(document), CM_NOT_COMPARABLE);
    json_decref(document);
    const char *twice[] = {paths[0]};
    request.paths = (struct cm_texts){twice, 1};
    assert_status(cm_compare(&request, &document), CM_USAGE, "give 2 to");
}

static void holds_pairs_together(void **state)
{
    (void)state;
    struct cm_compare_request request = {.margin = 0.02, .paired = true};
    const char *paths[] = {write_plain("a.json", 8, 1, 1), write_plain("b.json", 8, 1.1, 2)};
    json_t *document = compared(&request, paths, 2);
    const json_t *row = against(document, "small/time", 1);
    assert_string_equal(text_of(row, "word"), "slower");
    assert_near(number_of(row, "paired_p"), 2.0 / 256, 1e-12);
    json_decref(document);
    paths[1] = write_plain("b.json", 7, 1.1, 2);
    request.paths = (struct cm_texts){paths, 2};
    assert_status(cm_compare(&request, &document), CM_USAGE, "pairs need the same number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_which_way),
        cmocka_unit_test(says_what_it_takes),
        cmocka_unit_test(marks_the_best_only_where_it_is),
        cmocka_unit_test(carries_prices_through),
        cmocka_unit_test(refuses_what_differs),
        cmocka_unit_test(holds_pairs_together),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
