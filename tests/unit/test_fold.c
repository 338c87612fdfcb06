/* Figures of very many ranks: distributions, who stands out, texts by groups, medians over runs. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "crowd.h"
#include "host/result/fold.h"
#include "host/result/record.h"

enum { RANKS = 1000 };

static json_t *fold(const double *values, unsigned ranks, enum cm_better better)
{
    json_t *object = cm_fold_json(values, ranks, better);
    assert_non_null(object);
    return object;
}

static double outlier(const json_t *folded, size_t index, const char *key)
{
    return cm_get_number(json_array_get(json_object_get(folded, "outliers"), index), key);
}

/* Against the quantiles that everything else uses. */
static void test_quantiles(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double q;
    } rows[] = {{"minimum", 0}, {"p01", 0.01}, {"p25", 0.25}, {"median", 0.5},
                {"p75", 0.75},  {"p99", 0.99}, {"maximum", 1}};
    static const unsigned sizes[] = {1, 2, 3, 100, RANKS};
    double values[RANKS];
    uint64_t noise = 7;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (unsigned i = 0; i < sizes[s]; i++)
            values[i] = 5 + crowd_noise(&noise);
        json_t *folded = fold(values, sizes[s], CM_LOWER);
        assert_near(cm_get_number(folded, "ranks"), sizes[s], 0);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            assert_near(cm_get_number(folded, rows[i].name),
                        cm_quantile(values, sizes[s], rows[i].q), 1e-12);
        json_decref(folded);
    }
}

/* The rule is the one that is written in the file, tried the long way. */
static void test_rule(void **state)
{
    (void)state;
    double values[RANKS + 1];
    uint64_t noise = 3;
    for (unsigned ranks = RANKS; ranks <= RANKS + 1; ranks++) {
        unsigned expected = 0;
        for (unsigned i = 0; i < ranks; i++)
            values[i] = 100 + crowd_noise(&noise) * (i % 50 == 0 ? 8 : 1);
        double median = cm_median(values, ranks), reach = 5 * 1.4826 * cm_mad(values, ranks);
        for (unsigned i = 0; i < ranks; i++)
            expected += fabs(values[i] - median) > reach ? 1 : 0;
        assert_true(expected > 2);
        json_t *folded = fold(values, ranks, CM_NEITHER);
        assert_near(cm_get_number(folded, "outliers_total"), expected, 0);
        /* The farthest first, and each is of the rank that it names. */
        for (size_t i = 0; i < expected; i++) {
            double value = outlier(folded, i, "value");
            assert_near(values[(unsigned)outlier(folded, i, "rank")], value, 0);
            assert_true(i == 0 ||
                        fabs(value - median) <= fabs(outlier(folded, i - 1, "value") - median));
        }
        json_decref(folded);
    }
}

/* At most so many are named, the slow ones before the quick ones; the others are counted. */
static void test_worse_first(void **state)
{
    (void)state;
    double values[RANKS];
    for (unsigned i = 0; i < RANKS; i++)
        values[i] = 100 + i % 3;
    for (unsigned i = 0; i < 20; i++) {
        values[i * 10] = 200 + i;
        values[i * 10 + 5] = 10 + i;
    }
    json_t *folded = fold(values, RANKS, CM_LOWER);
    assert_near(cm_get_number(folded, "outliers_total"), 40, 0);
    assert_int_equal(json_array_size(json_object_get(folded, "outliers")), CM_FOLD_OUTLIERS);
    assert_near(outlier(folded, 0, "rank"), 190, 0);
    assert_near(outlier(folded, 19, "value"), 200, 0);
    assert_near(outlier(folded, 20, "value"), 10, 0);
    json_decref(folded);
    folded = fold(values, RANKS, CM_HIGHER);
    assert_near(outlier(folded, 0, "value"), 10, 0);
    assert_near(outlier(folded, 20, "value"), 219, 0);
    json_decref(folded);
}

static void test_odd_values(void **state)
{
    (void)state;
    double values[RANKS];
    for (unsigned i = 0; i < RANKS; i++)
        values[i] = NAN;
    json_t *folded = fold(values, RANKS, CM_LOWER);
    assert_true(json_is_null(folded));
    json_decref(folded);
    values[17] = 3;
    values[400] = INFINITY;
    folded = fold(values, RANKS, CM_LOWER);
    assert_near(cm_get_number(folded, "ranks"), 1, 0);
    assert_near(cm_get_number(folded, "p99"), 3, 0);
    assert_near(cm_get_number(folded, "outliers_total"), 0, 0);
    json_decref(folded);
    /* Nearly all alike: whoever differs stands out. */
    for (unsigned i = 0; i < RANKS; i++)
        values[i] = i == 321 ? 0.25 : 0;
    folded = fold(values, RANKS, CM_LOWER);
    assert_near(cm_get_number(folded, "outliers_total"), 1, 0);
    assert_near(outlier(folded, 0, "rank"), 321, 0);
    json_decref(folded);
}

static const char *text_of(const void *items, unsigned rank)
{
    return ((const char(*)[16])items)[rank];
}

static void test_texts(void **state)
{
    (void)state;
    static char texts[RANKS][16];
    for (unsigned i = 0; i < RANKS; i++)
        snprintf(texts[i], sizeof texts[i], "%s", i == 500 ? "odd" : i < 900 ? "most" : "");
    json_t *folded = cm_fold_texts_json(text_of, texts, RANKS);
    assert_int_equal(json_array_size(folded), 2);
    assert_string_equal(cm_get_text(json_array_get(folded, 0), "text"), "most");
    assert_string_equal(cm_get_text(json_array_get(folded, 0), "ranks"), "0-499,501-899");
    assert_near(cm_get_number(json_array_get(folded, 0), "count"), 899, 0);
    assert_string_equal(cm_get_text(json_array_get(folded, 1), "ranks"), "500");
    json_decref(folded);
    /* All different: the list ends, and says how many it leaves out. */
    for (unsigned i = 0; i < RANKS; i++)
        snprintf(texts[i], sizeof texts[i], "t%u", i);
    folded = cm_fold_texts_json(text_of, texts, RANKS);
    assert_int_equal(json_array_size(folded), CM_FOLD_TEXTS + 1);
    const json_t *rest = json_array_get(folded, CM_FOLD_TEXTS);
    assert_true(json_is_null(json_object_get(rest, "text")));
    assert_near(cm_get_number(rest, "count"), RANKS - CM_FOLD_TEXTS, 0);
    json_decref(folded);
}

/* What does not fit is cut at a number, and says so. */
static void test_ranges(void **state)
{
    (void)state;
    struct cm_ranges ranges = {.first = 0};
    assert_string_equal(cm_ranges_end(&ranges), "");
    cm_ranges_add(&ranges, 0);
    cm_ranges_add(&ranges, 1);
    cm_ranges_add(&ranges, 3);
    assert_string_equal(cm_ranges_end(&ranges), "0-1,3");
    ranges = (struct cm_ranges){.first = 0};
    for (unsigned i = 0; i < 20000; i += 2)
        cm_ranges_add(&ranges, i);
    const char *text = cm_ranges_end(&ranges);
    assert_true(strlen(text) < sizeof ranges.text);
    assert_non_null(strstr(text, ",..."));
    assert_string_equal(strstr(text, ",..."), ",...");
}

static void test_labels(void **state)
{
    (void)state;
    unsigned rank = 0;
    assert_int_equal(cm_rank_label("flop_rate.rank12", &rank), 9);
    assert_int_equal(rank, 12);
    assert_int_equal(cm_rank_label("straggler.rank", &rank), 0);
    assert_int_equal(cm_rank_label("bandwidth.0-1", &rank), 0);
    assert_int_equal(cm_rank_label("bandwidth.rank3x", &rank), 0);
    assert_int_equal(cm_rank_label("bandwidth.rank99999999999", &rank), 0);
    assert_int_equal(cm_rank_label(".rank3", &rank), 0);
}

/* A rank's figure is its median over the runs that have one. */
static void test_over_runs(void **state)
{
    (void)state;
    static const double values[3][2] = {{1, 10}, {5, NAN}, {2, 30}};
    struct cm_rank_figures figures = {0};
    double medians[3];
    for (int run = 0; run < 3; run++) {
        struct cm_metrics metrics = {0};
        assert_ok(cm_metrics_add(&metrics, "time.rank0", values[run][0], "s", CM_LOWER, NULL));
        assert_ok(cm_metrics_add(&metrics, "time", 7, "s", CM_LOWER, NULL));
        assert_ok(cm_metrics_add(&metrics, "time.rank2", values[run][1], "s", CM_LOWER, NULL));
        if (run > 0) /* one that the first run lacked */
            assert_ok(cm_metrics_add(&metrics, "rate.rank1", run, "B/s", CM_HIGHER, NULL));
        assert_ok(cm_rank_figures_add(&figures, &metrics, 3));
        cm_metrics_release(&metrics);
    }
    assert_int_equal(figures.count, 2);
    assert_string_equal(figures.items[0].name, "time");
    cm_rank_figure_medians(&figures, 0, medians);
    assert_near(medians[0], 2, 0);
    assert_true(isnan(medians[1]));
    assert_near(medians[2], 20, 0);
    cm_rank_figure_medians(&figures, 1, medians);
    assert_near(medians[1], 1.5, 0);
    assert_string_equal(figures.items[1].unit, "B/s");
    cm_rank_figures_release(&figures);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles),   cmocka_unit_test(test_rule),
        cmocka_unit_test(test_worse_first), cmocka_unit_test(test_odd_values),
        cmocka_unit_test(test_texts),       cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_labels),      cmocka_unit_test(test_over_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
