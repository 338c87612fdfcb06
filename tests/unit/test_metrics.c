/* The list of a run's figures. */
#include "test.h"

#include <stdio.h>

#include "clustermark/workload.h"

static void test_add_and_find(void **state)
{
    (void)state;
    struct cm_metrics metrics = {0};
    struct cm_metric *added = NULL;
    assert_ok(cm_metrics_add(&metrics, "time", 1.5, "s", CM_LOWER, NULL));
    assert_ok(cm_metrics_add(&metrics, "bandwidth", 2e9, "B/s", CM_HIGHER, &added));
    added->ceiling = 4e9;
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        assert_ok(cm_metrics_add(&metrics, name, i, "1", CM_NEITHER, NULL));
    }
    const struct cm_metric *found = cm_metrics_find(&metrics, "bandwidth");
    assert_non_null(found);
    assert_near(found->value, 2e9, 0);
    assert_near(found->ceiling, 4e9, 0);
    assert_string_equal(found->unit, "B/s");
    assert_int_equal(found->better, CM_HIGHER);
    assert_null(cm_metrics_find(&metrics, "band"));
    assert_int_equal(metrics.count, 22);
    cm_metrics_release(&metrics);
    assert_int_equal(metrics.count, 0);
    assert_null(cm_metrics_find(&metrics, "time"));
}

/* A figure for each of many ranks: all are found, none is taken twice. */
static void test_many(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct cm_metrics metrics = {0};
    char name[24];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "time.rank%d", i);
        assert_null(cm_metrics_find(&metrics, name));
        assert_ok(cm_metrics_add(&metrics, name, i, "s", CM_LOWER, NULL));
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "time.rank%d", i);
        const struct cm_metric *found = cm_metrics_find(&metrics, name);
        assert_non_null(found);
        assert_near(found->value, i, 0);
        assert_status(cm_metrics_add(&metrics, name, 1, "s", CM_LOWER, NULL), CM_INTERNAL, "twice");
    }
    assert_null(cm_metrics_find(&metrics, "time"));
    cm_metrics_release(&metrics);
}

static void test_refused(void **state)
{
    (void)state;
    struct cm_metrics metrics = {0};
    char longest[CM_METRIC_NAME_MAX + 1];
    memset(longest, 'n', sizeof longest - 1);
    longest[CM_METRIC_NAME_MAX] = '\0';
    assert_ok(cm_metrics_add(&metrics, "time", 1, "s", CM_LOWER, NULL));
    assert_status(cm_metrics_add(&metrics, "time", 2, "s", CM_LOWER, NULL), CM_INTERNAL, "twice");
    assert_status(cm_metrics_add(&metrics, "", 2, "s", CM_LOWER, NULL), CM_INTERNAL, "name");
    assert_status(cm_metrics_add(&metrics, longest, 2, "s", CM_LOWER, NULL), CM_INTERNAL, "name");
    assert_status(cm_metrics_add(&metrics, "x", 2, "furlongs/fortnight", CM_LOWER, NULL),
                  CM_INTERNAL, "unit");
    assert_int_equal(metrics.count, 1);
    longest[CM_METRIC_NAME_MAX - 1] = '\0';
    assert_ok(cm_metrics_add(&metrics, longest, 2, "s", CM_LOWER, NULL));
    cm_metrics_release(&metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_and_find),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
