/* Tests and intervals that verdicts rest on: against scipy, statsmodels and exact arithmetic
 * (fixtures/stats/make_tests.py), and by simulated comparisons of equals, in which a bound may not
 * be passed more often than its risk. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "clustermark/stats.h"

static json_t *vectors;

static int read_vectors(void **state)
{
    (void)state;
    vectors = json_load_file(CM_TEST_FIXTURES "/stats/tests.json", 0, NULL);
    return vectors == NULL;
}

static int release_vectors(void **state)
{
    (void)state;
    json_decref(vectors);
    return 0;
}

/* splitmix64, as in make_tests.py. */
static uint64_t draw(uint64_t *seed, uint64_t limit)
{
    uint64_t z = *seed += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % limit;
}

struct comparison {
    double x[80], y[80], offset, tail;
    size_t x_count, y_count;
};

static void make_case(uint64_t number, struct comparison *c)
{
    static const uint64_t spreads[] = {3, 10, 30, 100, 1 << 20};
    static const double tails[] = {0.05, 0.025, 0.005, 0.00625};
    uint64_t seed = number;
    c->x_count = 1 + draw(&seed, 25);
    c->y_count = 1 + draw(&seed, 12);
    if (number % 97 == 0) {
        c->x_count = 40 + draw(&seed, 30);
        c->y_count = 20 + draw(&seed, 30);
    }
    uint64_t spread = spreads[draw(&seed, 5)];
    c->tail = tails[draw(&seed, 4)];
    for (size_t i = 0; i < c->x_count; i++)
        c->x[i] = (double)draw(&seed, spread);
    double moved = (double)draw(&seed, spread);
    for (size_t i = 0; i < c->y_count; i++)
        c->y[i] = (double)draw(&seed, spread) + moved;
    c->offset = (double)draw(&seed, spread);
}

static void agrees_with_scipy(void **state)
{
    (void)state;
    FILE *file = fopen(CM_TEST_FIXTURES "/stats/tests.txt", "r");
    char line[256];
    uint64_t number = 0;
    assert_non_null(file);
    for (; fgets(line, sizeof line, file) != NULL; number++) {
        double twice, low, high, p, got;
        unsigned long rank;
        struct comparison c;
        struct cm_shift shift;
        assert_int_equal(sscanf(line, "%lf %lf %lf %lu %lf", &twice, &low, &high, &rank, &p), 5);
        make_case(number, &c);
        assert_ok(cm_hodges_lehmann(c.x, c.x_count, c.y, c.y_count, 1 - 2 * c.tail, &shift));
        assert_ok(cm_mann_whitney(c.x, c.x_count, c.y, c.y_count, c.offset, &got));
        if (2 * shift.estimate != twice || shift.interval.low != low ||
            shift.interval.high != high || (shift.interval.coverage > 0) != (rank > 0))
            fail_msg("case %lu: %.17g [%.17g, %.17g] instead of %s", (unsigned long)number,
                     shift.estimate, shift.interval.low, shift.interval.high, line);
        if (!(fabs(got - p) <= 1e-12))
            fail_msg("case %lu: p is %.17g, not %.17g", (unsigned long)number, got, p);
        /* Test and bound are two sides of one thing. */
        if (rank > 0 && (shift.interval.low > c.offset) != (got <= c.tail + 1e-12))
            fail_msg("case %lu: p %.17g but the bound is %.17g against %.17g",
                     (unsigned long)number, got, shift.interval.low, c.offset);
    }
    fclose(file);
    assert_int_equal(number, 10000);
}

static double unit_draw(uint64_t *seed)
{
    return ((double)draw(seed, UINT64_C(1) << 53) + 0.5) / 0x1p53;
}

/* Normal with a few outliers, and on a grid: the noise of clocks that tick. */
static double noise(uint64_t *seed, double grid)
{
    double value = sqrt(-2 * log(unit_draw(seed))) * cos(2 * M_PI * unit_draw(seed));
    if (draw(seed, 20) == 0)
        value += 8;
    return grid > 0 ? round(value / grid) * grid : value;
}

#define TRIALS 100000

/* Equals compared: the share of trials in which the low bound lies above 0, or the high one below,
 * may pass the risk by chance only: 4 standard deviations. */
static void never_anti_conservative(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{3, 3}, {5, 5}, {20, 3}, {20, 5}};
    static const double risks[] = {0.05, 0.00625}, grids[] = {0, 0.5};
    uint64_t seed = 4711;
    for (size_t k = 0; k < 16; k++) {
        const size_t *size = sizes[k / 4];
        double risk = risks[k / 2 % 2], grid = grids[k % 2], x[20], y[5];
        unsigned above = 0, below = 0;
        struct cm_shift shift;
        for (unsigned trial = 0; trial < TRIALS; trial++) {
            for (size_t i = 0; i < size[0]; i++)
                x[i] = noise(&seed, grid);
            for (size_t i = 0; i < size[1]; i++)
                y[i] = noise(&seed, grid);
            assert_ok(cm_hodges_lehmann(x, size[0], y, size[1], 1 - 2 * risk, &shift));
            above += shift.interval.coverage > 0 && shift.interval.low > 0;
            below += shift.interval.coverage > 0 && shift.interval.high < 0;
        }
        double most = risk * TRIALS + 4 * sqrt(risk * (1 - risk) * TRIALS);
        print_message("(%zu,%zu) risk %g grid %g: above %.5f, below %.5f\n", size[0], size[1], risk,
                      grid, (double)above / TRIALS, (double)below / TRIALS);
        assert_true(above <= most && below <= most);
        /* Not so by never deciding: where the risk can be reached, it is used. */
        if (grid == 0 && cm_mann_whitney_least(size[0], size[1]) <= risk)
            assert_true(above >= 0.3 * risk * TRIALS);
        if (cm_mann_whitney_least(size[0], size[1]) > risk + 1e-12)
            assert_true(above == 0 && below == 0);
    }
}

static size_t numbers(const json_t *row, const char *key, double *values)
{
    size_t index;
    json_t *value;
    json_array_foreach(json_object_get(row, key), index, value) values[index] =
        json_number_value(value);
    return json_array_size(json_object_get(row, key));
}

static double number(const json_t *row, const char *key)
{
    const json_t *value = json_object_get(row, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void adjusts_for_many(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    double p[200], wanted[200], got[200];
    assert_int_equal(json_array_size(json_object_get(vectors, "adjusted")), 7);
    json_array_foreach(json_object_get(vectors, "adjusted"), index, row)
    {
        size_t count = numbers(row, "p", p);
        assert_ok(cm_holm(p, count, got));
        numbers(row, "holm", wanted);
        for (size_t i = 0; i < count; i++)
            assert_near(got[i], wanted[i], 1e-12);
        assert_ok(cm_benjamini_hochberg(p, count, got));
        numbers(row, "bh", wanted);
        for (size_t i = 0; i < count; i++)
            assert_near(got[i], wanted[i], 1e-12);
    }
}

static void flips_signs(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    assert_int_equal(json_array_size(json_object_get(vectors, "paired")), 33);
    json_array_foreach(json_object_get(vectors, "paired"), index, row)
    {
        double d[20], p;
        struct cm_shift shift;
        size_t count = numbers(row, "d", d);
        assert_ok(cm_sign_flip(d, count, 0, 0.95, &shift, &p));
        assert_near(p, number(row, "p"), 1e-12);
        assert_true(fabs(shift.estimate - number(row, "estimate")) <= 1e-12);
        assert_true(fabs(shift.interval.low - number(row, "low")) <= 1e-12);
        assert_true(fabs(shift.interval.high - number(row, "high")) <= 1e-12);
        assert_int_equal(shift.interval.coverage > 0, number(row, "rank") > 0);
    }
    double one = 1, p;
    struct cm_shift shift;
    assert_status(cm_sign_flip(&one, 1, 0, 0.95, &shift, &p), CM_USAGE, "give 2 to 20");
    /* Seven pairs that all agree: 2^-7. */
    double same[] = {1, 2, 3, 4, 5, 6, 7};
    assert_ok(cm_sign_flip(same, 7, 0, 0.95, &shift, &p));
    assert_near(p, 1.0 / 128, 1e-15);
}

static void splits_the_variance(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    assert_int_equal(json_array_size(json_object_get(vectors, "components")), 4);
    json_array_foreach(json_object_get(vectors, "components"), index, row)
    {
        double nodes[40], values[40];
        struct cm_variance_run runs[40];
        struct cm_variances got;
        size_t count = numbers(row, "nodes", nodes);
        numbers(row, "values", values);
        for (size_t i = 0; i < count; i++)
            runs[i] = (struct cm_variance_run){.node = (size_t)nodes[i],
                                               .session = (size_t)nodes[i],
                                               .value = values[i],
                                               .iteration_variance = 0.5,
                                               .iterations = 20};
        assert_ok(cm_variance_components(runs, count, &got));
        assert_near(got.iteration, number(row, "iteration"), 1e-12);
        assert_near(got.run, number(row, "run"), 1e-10);
        if (isfinite(number(row, "node")))
            assert_near(got.node, number(row, "node"), 1e-10);
        else
            assert_true(isnan(got.node));
    }
    json_array_foreach(json_object_get(vectors, "levels"), index, row)
    {
        static const char *const names[] = {"node", "session", "run"};
        double nodes[40], sessions[40], values[40];
        struct cm_variance_run runs[40];
        struct cm_variances found;
        size_t count = numbers(row, "nodes", nodes);
        numbers(row, "sessions", sessions);
        numbers(row, "values", values);
        for (size_t i = 0; i < count; i++)
            runs[i] = (struct cm_variance_run){.node = (size_t)nodes[i],
                                               .session = (size_t)sessions[i],
                                               .value = values[i],
                                               .iteration_variance = NAN,
                                               .iterations = NAN};
        assert_ok(cm_variance_components(runs, count, &found));
        const double got[] = {found.node, found.session, found.run};
        for (size_t i = 0; i < 3; i++) {
            if (json_is_null(json_object_get(row, names[i])))
                assert_true(isnan(got[i]));
            else
                assert_near(got[i], fmax(number(row, names[i]), 0), 1e-9);
        }
    }
    assert_int_equal(index, 4);
    struct cm_variances none;
    struct cm_variance_run alone = {.value = 1, .iteration_variance = NAN, .iterations = NAN};
    assert_ok(cm_variance_components(&alone, 1, &none));
    assert_true(isnan(none.run) && isnan(none.node) && isnan(none.iteration));
}

static void normal_quantiles(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    json_array_foreach(json_object_get(vectors, "normal"), index, row)
    {
        double p = json_number_value(json_array_get(row, 0));
        double x = json_number_value(json_array_get(row, 1));
        assert_true(fabs(cm_normal_quantile(p) - x) <= 1e-9 * fmax(fabs(x), 1));
    }
}

static void student_quantiles(void **state)
{
    (void)state;
    size_t index;
    json_t *row;
    assert_true(json_array_size(json_object_get(vectors, "student")) > 40);
    json_array_foreach(json_object_get(vectors, "student"), index, row)
    {
        double p = json_number_value(json_array_get(row, 0));
        double freedom = json_number_value(json_array_get(row, 1));
        double x = json_number_value(json_array_get(row, 2));
        assert_true(fabs(cm_t_quantile(p, freedom) - x) <= 1e-7 * fmax(fabs(x), 1));
    }
}

/* Sessions of 5 runs, of which `share` of the variance is the session's; skewed: exponential. */
struct history {
    double x[40], y[5];
    size_t x_sessions[40], y_sessions[5];
    struct cm_runs base, fresh;
};

static double shaped(uint64_t *seed, bool skewed)
{
    double size = -log(unit_draw(seed));
    return skewed ? size : sqrt(2 * size) * cos(2 * M_PI * unit_draw(seed));
}

static void make_history(uint64_t *seed, double share, bool skewed, struct history *history)
{
    double luck = 0;
    for (size_t i = 0; i < 45; i++) {
        if (i % 5 == 0)
            luck = sqrt(share) * shaped(seed, false);
        double value = luck + sqrt(1 - share) * shaped(seed, skewed);
        *(i < 40 ? &history->x[i] : &history->y[i - 40]) = value;
        *(i < 40 ? &history->x_sessions[i] : &history->y_sessions[i - 40]) = i / 5;
    }
    history->base = (struct cm_runs){history->x, history->x_sessions, 40};
    history->fresh = (struct cm_runs){history->y, history->y_sessions, 5};
}

#define EACH (0.01 / 3)

static bool alarms(const struct history *history, double widening, double shift)
{
    double p;
    assert_ok(cm_mann_whitney(history->x, 40, history->y, 5, widening - shift, &p));
    return p <= EACH;
}

/* Where sessions differ, the plain test cries wolf and the widened one does not. */
static void sessions_are_allowed_for(void **state)
{
    (void)state;
    uint64_t seed = 7;
    struct history history;
    struct cm_sessions sessions;
    unsigned plain = 0, widened = 0;
    double sum = 0;
    for (unsigned trial = 0; trial < 4000; trial++) {
        make_history(&seed, 0.5, false, &history);
        assert_ok(cm_session_widening(&history.base, &history.fresh, EACH, &sessions));
        assert_int_equal(sessions.count, 8);
        sum += sessions.deviation * sessions.deviation / 4000;
        plain += alarms(&history, 0, 0);
        widened += alarms(&history, sessions.widening, 0);
    }
    print_message("equals: %u of 4000 alarms, %u with sessions\n", plain, widened);
    assert_true(plain > 160 && widened < 40);
    assert_true(sum > 0.45 && sum < 0.55);
    /* A run that was stopped is none of its session's doing. */
    double before = sessions.widening;
    history.x[12] += 100;
    assert_ok(cm_session_widening(&history.base, &history.fresh, EACH, &sessions));
    assert_true(sessions.widening < 1.5 * before);
    for (size_t i = 0; i < 40; i++)
        history.x_sessions[i] = i; /* a run in each: nothing is known */
    assert_ok(cm_session_widening(&history.base, &history.fresh, EACH, &sessions));
    assert_true(isnan(sessions.deviation) && sessions.widening == 0);
    memset(history.x_sessions, 0, sizeof history.x_sessions);
    assert_ok(cm_session_widening(&history.base, &history.fresh, EACH, &sessions));
    assert_true(isnan(sessions.deviation) && sessions.widening == 0);
}

/* What the runs themselves say that they find with 80 % is found: with noise that is skewed, and
 * with sessions that differ. */
static void resampled_shifts_are_found(void **state)
{
    (void)state;
    static const struct {
        double share;
        bool skewed;
    } kinds[] = {{0, false}, {0, true}, {0.3, false}, {0.3, true}};
    struct cm_power power = {.risk = EACH, .power = 0.8, .margin = 0};
    for (size_t k = 0; k < 4; k++) {
        uint64_t seed = 11 + k;
        unsigned found = 0;
        double shift, sum = 0;
        for (unsigned trial = 0; trial < 250; trial++) {
            struct history history;
            struct cm_sessions sessions;
            make_history(&seed, kinds[k].share, kinds[k].skewed, &history);
            assert_ok(cm_session_widening(&history.base, &history.fresh, EACH, &sessions));
            assert_ok(cm_resampled_shift(&history.base, &history.fresh, &power, &shift));
            sum += shift / 250;
            found += alarms(&history, sessions.widening, shift);
        }
        print_message("share %.1f%s: %.2f found in %.3f\n", kinds[k].share,
                      kinds[k].skewed ? ", skewed" : "", sum, found / 250.0);
        assert_true(found / 250.0 > 0.76);
        assert_true(sum < (kinds[k].share > 0 ? 5 : 3)); /* and not by asking for the moon */
    }
    double x[2] = {1, 2};
    size_t sessions[2] = {0, 0};
    struct cm_runs two = {x, sessions, 2};
    double shift;
    assert_ok(cm_resampled_shift(&two, &two, &power, &shift));
    assert_true(isnan(shift));
}

/* What is said to be found with 80 % is: simulated with normal noise, at the sizes gates have. */
static void finds_what_it_says(void **state)
{
    (void)state;
    static const size_t sizes[][2] = {{20, 5}, {20, 3}, {10, 10}, {6, 6}, {30, 20}};
    uint64_t seed = 42;
    for (size_t k = 0; k < 5; k++) {
        size_t m = sizes[k][0], n = sizes[k][1];
        struct cm_power power = {.deviation = 1, .risk = 0.00625, .power = 0.8, .margin = 2};
        double shift, x[30], y[20];
        unsigned found = 0;
        assert_ok(cm_detectable_shift(&power, m, n, &shift));
        for (unsigned trial = 0; trial < 4000; trial++) {
            double p;
            for (size_t i = 0; i < m; i++)
                x[i] = sqrt(-2 * log(unit_draw(&seed))) * cos(2 * M_PI * unit_draw(&seed));
            for (size_t i = 0; i < n; i++)
                y[i] = shift + sqrt(-2 * log(unit_draw(&seed))) * cos(2 * M_PI * unit_draw(&seed));
            assert_ok(cm_mann_whitney(x, m, y, n, power.margin, &p));
            found += p <= power.risk;
        }
        print_message("(%zu,%zu): a shift of %.3f found in %.3f\n", m, n, shift, found / 4000.0);
        assert_true(found / 4000.0 > 0.77 && found / 4000.0 < 0.9);
        /* And the runs that it takes are the runs that are there. */
        size_t runs;
        assert_ok(cm_runs_needed(&power, m, shift + 1e-9, &runs));
        assert_true(runs <= n && runs + 2 >= n);
    }
    struct cm_power power = {.deviation = 1, .risk = 0.00625, .power = 0.8, .margin = 0};
    double shift;
    size_t runs;
    assert_ok(cm_detectable_shift(&power, 3, 3, &shift));
    assert_true(isinf(shift));
    assert_ok(cm_runs_needed(&power, 2, 0.1, &runs));
    assert_int_equal(runs, 0);
    assert_ok(cm_runs_needed(&power, 0, 0.5, &runs));
    assert_true(runs > 80 && runs < 100); /* 2 (2.50 + 0.84)^2 / 0.955 / 0.25 = 93 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_scipy),        cmocka_unit_test(never_anti_conservative),
        cmocka_unit_test(adjusts_for_many),         cmocka_unit_test(flips_signs),
        cmocka_unit_test(splits_the_variance),      cmocka_unit_test(normal_quantiles),
        cmocka_unit_test(finds_what_it_says),       cmocka_unit_test(student_quantiles),
        cmocka_unit_test(sessions_are_allowed_for), cmocka_unit_test(resampled_shifts_are_found),
    };
    return cmocka_run_group_tests(tests, read_vectors, release_vectors);
}
