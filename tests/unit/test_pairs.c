/*
 * Tournaments, and fits of the rates between pairs: against vectors from independent programs
 * (make_pairs.py), and by simulation: how often somebody is named who is not slow, and whether
 * those who are slow are found.
 */
#include <math.h>
#include <stdlib.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/pairs.h"
#include "clustermark/stats.h"
#include "host/stats/tail.h"
#include "test.h"

#define RISK   0.01
#define MARGIN 0.05

static void check_round(const struct cm_pairing *pairing, unsigned round)
{
    const unsigned *row = pairing->partner + (size_t)round * pairing->count;
    unsigned resting = 0;
    for (unsigned i = 0; i < pairing->count; i++) {
        if (row[i] == CM_NO_PARTNER) {
            resting++;
            continue;
        }
        assert_true(row[i] < pairing->count && row[i] != i);
        assert_int_equal(row[row[i]], i);
    }
    assert_int_equal(resting, pairing->count % 2);
}

/* Nobody is met twice before all were met. */
static void check_distinct(const struct cm_pairing *pairing, unsigned full)
{
    unsigned *seen = cm_alloc((size_t)pairing->count * pairing->count, sizeof *seen);
    unsigned *rested = cm_alloc(pairing->count, sizeof *rested);
    for (unsigned r = 0; r < pairing->rounds; r++) {
        for (unsigned i = 0; i < pairing->count; i++) {
            unsigned partner = pairing->partner[(size_t)r * pairing->count + i];
            unsigned *times =
                partner == CM_NO_PARTNER ? &rested[i] : &seen[i * pairing->count + partner];
            assert_int_equal(*times, r / full);
            ++*times;
        }
    }
    cm_free(seen);
    cm_free(rested);
}

static void test_tournaments(void **state)
{
    (void)state;
    for (unsigned count = 2; count <= 70; count++) {
        unsigned full = count % 2 == 0 ? count - 1 : count;
        for (uint64_t seed = 0; seed < 3; seed++) {
            struct cm_pairing pairing;
            assert_int_equal(cm_pairing_make(count, 0, seed, &pairing), CM_OK);
            assert_int_equal(pairing.rounds, cm_pairing_rounds(count));
            for (unsigned r = 0; r < pairing.rounds; r++)
                check_round(&pairing, r);
            /* Of an odd number, one rests in the first count rounds as it would meet itself. */
            check_distinct(&pairing, full);
            cm_pairing_release(&pairing);
        }
    }
    assert_int_equal(cm_pairing_rounds(0), 0);
    assert_int_equal(cm_pairing_rounds(2), 1);
    assert_int_equal(cm_pairing_rounds(4), 6);
    assert_int_equal(cm_pairing_rounds(16), 7);
    assert_int_equal(cm_pairing_rounds(1024), 13);
    assert_int_equal(cm_pairing_rounds(16384), 17);
}

static void test_seeds(void **state)
{
    (void)state;
    struct cm_pairing a, b, c;
    assert_int_equal(cm_pairing_make(64, 0, 5, &a), CM_OK);
    assert_int_equal(cm_pairing_make(64, 0, 5, &b), CM_OK);
    assert_int_equal(cm_pairing_make(64, 0, 6, &c), CM_OK);
    size_t bytes = sizeof *a.partner * a.count * a.rounds;
    assert_memory_equal(a.partner, b.partner, bytes);
    assert_true(memcmp(a.partner, c.partner, bytes) != 0);
    cm_pairing_release(&a);
    cm_pairing_release(&b);
    cm_pairing_release(&c);
}

/* Suspects meet good partners only, a new one each time; the others meet each other. */
static void test_retest(void **state)
{
    (void)state;
    unsigned char states[11] = {0};
    const struct cm_pair_of pairs[] = {{2, 5}};
    struct cm_pairing pairing;
    states[3] = states[9] = CM_UNIT_SUSPECT;
    states[0] = CM_UNIT_APART;
    assert_int_equal(cm_pairing_retest(11, states, pairs, 1, 3, 7, &pairing), CM_OK);
    unsigned met[11][11] = {{0}};
    for (unsigned r = 0; r < 3; r++) {
        const unsigned *row = pairing.partner + r * 11;
        unsigned busy = 0;
        for (unsigned i = 0; i < 11; i++) {
            busy += row[i] != CM_NO_PARTNER;
            if (row[i] != CM_NO_PARTNER)
                met[i][row[i]]++;
        }
        assert_int_equal(row[0], CM_NO_PARTNER);
        assert_int_equal(row[2], 5);
        assert_int_equal(busy, 10);
        assert_int_equal(states[row[3]], CM_UNIT_GOOD);
        assert_int_equal(states[row[9]], CM_UNIT_GOOD);
    }
    for (unsigned i = 0; i < 11; i++)
        assert_true(met[3][i] <= 1 && met[9][i] <= 1);
    cm_pairing_release(&pairing);
    /* More suspects than partners: some rest, and nobody hangs. */
    memset(states, CM_UNIT_SUSPECT, sizeof states);
    states[4] = CM_UNIT_GOOD;
    assert_int_equal(cm_pairing_retest(11, states, NULL, 0, 3, 7, &pairing), CM_OK);
    assert_int_equal(pairing.partner[0], 4);
    assert_int_equal(pairing.partner[1], CM_NO_PARTNER);
    cm_pairing_release(&pairing);
}

static void near(const char *what, double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%s: %.17g, expected %.17g", what, value, expected);
}

static void compare_effects(const char *what, const struct cm_pair_effect *effects,
                            const json_t *rows)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        double p = json_number_value(json_array_get(row, 2));
        near(what, effects[i].effect, json_number_value(json_array_get(row, 0)), 1e-7);
        near(what, effects[i].error, json_number_value(json_array_get(row, 1)), 1e-7);
        if (p > 1e-12)
            near(what, effects[i].p / p, 1, 1e-4);
        else
            assert_true(effects[i].p < 1e-11);
    }
}

static void test_vectors(void **state)
{
    (void)state;
    json_error_t error;
    json_t *cases = json_load_file(CM_TEST_FIXTURES "/stats/pairs.json", 0, &error), *item;
    size_t index;
    assert_int_equal(json_array_size(cases), 11);
    json_array_foreach(cases, index, item)
    {
        const json_t *rows = json_object_get(item, "values");
        const char *name = json_string_value(json_object_get(item, "name"));
        size_t count = json_array_size(rows);
        struct cm_pair_value *values = cm_alloc(count, sizeof *values);
        for (size_t i = 0; i < count; i++) {
            const json_t *row = json_array_get(rows, i);
            values[i].from = (unsigned)json_integer_value(json_array_get(row, 0));
            values[i].to = (unsigned)json_integer_value(json_array_get(row, 1));
            values[i].value = json_number_value(json_array_get(row, 2));
        }
        struct cm_pair_options options = {
            .symmetric = json_is_true(json_object_get(item, "symmetric")),
            .margin = json_number_value(json_object_get(item, "margin")),
            .floor = json_number_value(json_object_get(item, "floor"))};
        struct cm_pair_fit fit;
        unsigned units = (unsigned)json_integer_value(json_object_get(item, "count"));
        assert_int_equal(cm_pair_fit_make(values, count, units, &options, &fit), CM_OK);
        near(name, fit.mean, json_number_value(json_object_get(item, "mean")), 1e-7);
        near(name, fit.scale, json_number_value(json_object_get(item, "scale")), 1e-7);
        near(name, fit.freedom, json_number_value(json_object_get(item, "freedom")), 0);
        compare_effects(name, fit.from, json_object_get(item, "from"));
        compare_effects(name, fit.to, json_object_get(item, "to"));
        compare_effects(name, fit.both, json_object_get(item, "both"));
        for (size_t i = 0; i < count; i++) {
            const json_t *row = json_array_get(json_object_get(item, "rest"), i);
            near(name, fit.rest[i].effect, json_number_value(json_array_get(row, 0)), 1e-7);
            near(name, fit.rest[i].error, json_number_value(json_array_get(row, 1)), 1e-7);
        }
        cm_pair_fit_release(&fit);
        cm_free(values);
    }
    json_decref(cases);
}

/* Simulations. */

enum noise { NORMAL, HEAVY, CONTAMINATED };
struct world {
    unsigned count;
    bool symmetric, limited; /* `limited`: a pair is as fast as its slower end */
    enum noise noise;
    double size;
    double slow[3]; /* the first units' share of the full rate; 0: 1 */
    bool cable;     /* between the last two */
};

static double uniform(uint64_t *seed)
{
    return ((double)cm_draw(seed, (uint64_t)1 << 53) + 0.5) / 0x1p53;
}

static double noise_of(const struct world *world, uint64_t *seed)
{
    double value = cm_normal_quantile(uniform(seed));
    if (world->noise == HEAVY) { /* Student's t with 3 degrees */
        double squares = 0;
        for (int i = 0; i < 3; i++) {
            double part = cm_normal_quantile(uniform(seed));
            squares += part * part;
        }
        value /= sqrt(squares / 3);
    } else if (world->noise == CONTAMINATED && uniform(seed) < 0.05) {
        value = -fabs(value) * 10; /* somebody else's work came in between */
    }
    return world->size * value;
}

static double share(const struct world *world, unsigned unit)
{
    return unit < 3 && world->slow[unit] > 0 ? log(world->slow[unit]) : 0;
}

static size_t play(const struct world *world, uint64_t *seed, struct cm_pair_value *values)
{
    struct cm_pairing pairing;
    size_t used = 0;
    assert_int_equal(cm_pairing_make(world->count, 0, cm_draw(seed, 1u << 30), &pairing), CM_OK);
    for (size_t i = 0; i < (size_t)pairing.rounds * pairing.count; i++) {
        unsigned from = (unsigned)(i % pairing.count), to = pairing.partner[i];
        if (to == CM_NO_PARTNER || (world->symmetric && from > to))
            continue;
        double a = share(world, from), b = share(world, to);
        double value = world->limited ? fmin(a, b) : a + b;
        if (world->cable && from + to == 2 * world->count - 3)
            value -= 1;
        values[used++] = (struct cm_pair_value){from, to, 20 + value + noise_of(world, seed)};
    }
    cm_pairing_release(&pairing);
    return used;
}

struct outcome {
    unsigned false_units, missed, false_pairs, cables;
};

/* The units named by a fit: Holm's procedure over all effects, as the workload does it. */
static void judge(const struct world *world, const struct cm_pair_value *values, size_t count,
                  struct outcome *outcome)
{
    struct cm_pair_options options = {.symmetric = world->symmetric, .margin = MARGIN};
    struct cm_pair_fit fit;
    double p[2048], adjusted[2048];
    bool named[512] = {false}, wrong = false, wrong_pair = false;
    unsigned kinds = world->symmetric ? 1 : 3;
    assert_int_equal(cm_pair_fit_make(values, count, world->count, &options, &fit), CM_OK);
    for (unsigned i = 0; i < kinds * world->count; i++)
        p[i] = (i < world->count       ? fit.from
                : i < 2 * world->count ? fit.to
                                       : fit.both)[i % world->count]
                   .p;
    assert_int_equal(cm_holm(p, kinds * world->count, adjusted), CM_OK);
    for (unsigned i = 0; i < kinds * world->count; i++)
        named[i % world->count] = named[i % world->count] || adjusted[i] <= RISK;
    for (unsigned i = 0; i < world->count; i++) {
        bool slow = share(world, i) < log1p(-MARGIN);
        wrong = wrong || (named[i] && !slow);
        outcome->missed += !named[i] && slow;
    }
    outcome->false_units += wrong;
    for (size_t i = 0; i < count; i++)
        p[i] = fit.rest[i].p;
    assert_int_equal(cm_holm(p, count, adjusted), CM_OK);
    bool cable = false;
    for (size_t i = 0; i < count; i++) {
        if (adjusted[i] > RISK)
            continue;
        bool right = values[i].from + values[i].to == 2 * world->count - 3;
        cable = cable || right;
        wrong_pair = wrong_pair || !right;
    }
    outcome->cables += cable;
    outcome->false_pairs += wrong_pair;
    cm_pair_fit_release(&fit);
}

/* Large worlds take long to fit and are played less often. */
static unsigned times_of(unsigned count)
{
    return count > 16 ? 30 : 150;
}

static struct outcome simulate(const struct world *world, unsigned times)
{
    static struct cm_pair_value values[1024];
    struct outcome outcome = {0};
    uint64_t seed = world->count;
    for (unsigned i = 0; i < times; i++) {
        size_t count = play(world, &seed, values);
        judge(world, values, count, &outcome);
    }
    const char *verbose = getenv("CM_PAIRS_VERBOSE");
    if (verbose != NULL)
        printf("%3u %s noise %d %.2f slow %.2f %.2f cable %d: false %u, missed %u, false pairs %u, "
               "cables %u\n",
               world->count, world->symmetric ? "both" : "one ", (int)world->noise, world->size,
               world->slow[0], world->slow[1], world->cable, outcome.false_units, outcome.missed,
               outcome.false_pairs, outcome.cables);
    return outcome;
}

/* At most what the risk allows, by an exact bound that lets a sound test fail once in 10,000. */
static void few_of(double risk, unsigned hits, unsigned times)
{
    struct cm_interval interval = cm_binomial_interval(hits, times, 0.9998);
    if (interval.low > risk)
        fail_msg("%u of %u false alarms; %g are allowed", hits, times, risk);
}

static void few(unsigned hits, unsigned times)
{
    few_of(RISK, hits, times);
}

static void test_false_alarms(void **state)
{
    (void)state;
    static const unsigned counts[] = {3, 4, 5, 8, 16, 33, 64};
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        for (int noise = NORMAL; noise <= CONTAMINATED; noise++) {
            for (int both = 0; both < 2; both++) {
                struct world world = {
                    .count = counts[k], .symmetric = both, .noise = (enum noise)noise};
                /* Far below the margin, about it, far above. */
                for (world.size = 0.01; world.size < 1; world.size *= 5) {
                    unsigned times = times_of(world.count);
                    struct outcome outcome = simulate(&world, times);
                    /* Values that are far too low now and then, and never too high, are not what a
                     * test of one measurement is made for: of 2,000 times 2.3 % at the worst. */
                    few_of(noise == CONTAMINATED ? 0.03 : RISK, outcome.false_units, times);
                    /* A single value far off is a pair far off: only meeting again can tell. */
                    if (noise == NORMAL)
                        few(outcome.false_pairs, times);
                }
            }
        }
    }
}

/* Nobody sound is named beside those that are slow, and those are found. */
static void test_slow(void **state)
{
    (void)state;
    static const unsigned counts[] = {4, 5, 8, 16, 64};
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        for (int both = 0; both < 2; both++) {
            struct world world = {.count = counts[k], .symmetric = both, .limited = true};
            for (int noise = NORMAL; noise <= CONTAMINATED; noise++) {
                world.noise = (enum noise)noise;
                world.size = 0.01;
                world.slow[0] = 0.1;
                unsigned times = times_of(world.count);
                struct outcome tenth = simulate(&world, times);
                few(tenth.false_units, times);
                world.slow[0] = 0.8;
                struct outcome fifth = simulate(&world, times);
                few(fifth.false_units, times);
                if (world.count >= 8 || noise == NORMAL) {
                    assert_true(tenth.missed <= times / 50);
                    assert_true(fifth.missed <= times / 20);
                }
            }
        }
    }
}

static void test_two_slow(void **state)
{
    (void)state;
    for (int both = 0; both < 2; both++) {
        struct world world = {.count = 16, .symmetric = both, .limited = true, .size = 0.01};
        world.slow[0] = 0.1;
        world.slow[1] = 0.7;
        unsigned times = times_of(world.count);
        struct outcome outcome = simulate(&world, times);
        few(outcome.false_units, times);
        assert_true(outcome.missed <= times / 20);
    }
}

/* A cable between two sound ones is that pair's and nobody else's. */
static void test_cable(void **state)
{
    (void)state;
    for (int both = 0; both < 2; both++) {
        struct world world = {.count = 12, .symmetric = both, .size = 0.01, .cable = true};
        unsigned times = times_of(world.count);
        struct outcome outcome = simulate(&world, times);
        few(outcome.false_units, times);
        few(outcome.false_pairs, times);
        /* It is met in 7 of 11 rounds. */
        assert_true(outcome.cables > times / 2);
    }
}

static bool some_named(const double *values, size_t count, size_t sound, bool *last)
{
    double p[16], adjusted[16];
    struct cm_pair_effect effects[16];
    bool named = false;
    assert_int_equal(cm_outliers(values, count, MARGIN, 0, effects), CM_OK);
    for (size_t k = 0; k < count; k++)
        p[k] = effects[k].p;
    assert_int_equal(cm_holm(p, count, adjusted), CM_OK);
    for (size_t k = 0; k < sound; k++)
        named = named || adjusted[k] <= RISK;
    *last = adjusted[count - 1] <= RISK;
    return named;
}

static void test_outliers(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (size_t count = 3; count <= 16; count++) {
        for (double size = 0.02; size < 1; size *= 5) {
            unsigned wrong = 0, found = 0, times = 500;
            for (unsigned i = 0; i < 2 * times; i++) {
                double values[16];
                bool slow = i >= times, last;
                for (size_t k = 0; k < count; k++)
                    values[k] = size * cm_normal_quantile(uniform(&seed));
                if (slow)
                    values[count - 1] -= 2;
                wrong += some_named(values, count, count - slow, &last);
                found += slow && last;
            }
            if (getenv("CM_PAIRS_VERBOSE") != NULL)
                printf("%zu outliers %g: wrong %u found %u of %u\n", count, size, wrong, found,
                       times);
            few(wrong, 2 * times);
            if (size < 0.05 && count >= 6)
                assert_true(found > times / 2);
        }
    }
    double two[] = {1, 2}, missing[] = {1, (double)NAN, 1, 1, 0};
    struct cm_pair_effect effects[5];
    assert_int_equal(cm_outliers(two, 2, MARGIN, 0, effects), CM_OK);
    assert_true(effects[0].p == 1 && effects[1].p == 1);
    assert_int_equal(cm_outliers(missing, 5, MARGIN, 0.01, effects), CM_OK);
    assert_true(isnan(effects[1].effect) && effects[1].p == 1 && effects[4].p < 1e-4);
}

static void test_refusals(void **state)
{
    (void)state;
    struct cm_pair_fit fit;
    struct cm_pair_options options = {.margin = MARGIN};
    struct cm_pair_value bad[] = {{0, 0, 1}, {0, 3, 1}, {0, 1, (double)NAN}};
    for (int i = 0; i < 3; i++)
        assert_int_equal(cm_pair_fit_make(&bad[i], 1, 3, &options, &fit), CM_USAGE);
    /* Two units: nobody can say which is slow. */
    struct cm_pair_value two[] = {{0, 1, 1}, {1, 0, 5}};
    assert_int_equal(cm_pair_fit_make(two, 2, 2, &options, &fit), CM_OK);
    assert_true(fit.from[0].p == 1 && fit.to[1].p == 1 && fit.rest[0].p == 1);
    cm_pair_fit_release(&fit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tournaments),  cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_retest),       cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_false_alarms), cmocka_unit_test(test_slow),
        cmocka_unit_test(test_two_slow),     cmocka_unit_test(test_cable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
