/* host/measure/budget.c: shares of time, with a simulated clock. */
#include "test.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "clustermark/memory.h"
#include "host/measure/budget.h"

#define CASES_MAX 40

/* A pretended suite and what its cases really need. */
struct world {
    struct cm_plan plan;
    struct cm_case cases[CASES_MAX];
    char sections[CASES_MAX][8];
    double overhead_s[CASES_MAX]; /* set-up and check, whatever the limit */
    double steady_s[CASES_MAX];   /* when it would stop by itself */
    double launch_s;
    unsigned runs_done[CASES_MAX];
    double measured_s[CASES_MAX];
    double clock_s;
    unsigned launches;
};

static void add_case(struct world *world, const char *section, uint64_t runs, double min_s,
                     double max_s, double steady_s)
{
    size_t i = world->plan.count++;
    snprintf(world->sections[i], sizeof world->sections[i], "%s", section);
    world->cases[i] = (struct cm_case){
        .name = world->sections[i],
        .section = world->sections[i],
        .settings = {.runs = runs, .warmup_time_s = 0.2, .min_time_s = min_s, .max_time_s = max_s}};
    world->overhead_s[i] = 0.05;
    world->steady_s[i] = steady_s;
    world->plan.cases = world->cases;
    if (runs > world->plan.runs)
        world->plan.runs = runs;
}

/* Runs the whole plan as the supervisor does; the clock is ours. Returns the time it took. */
static double simulate(struct world *world, double budget_s)
{
    struct cm_budget budget;
    double begin = world->clock_s = 1000;
    assert_ok(cm_budget_make(&world->plan, budget_s, begin, &budget));
    for (uint64_t run = 0; run < world->plan.runs; run++) {
        const char *section = "";
        bool up = false;
        for (size_t i = 0; i < world->plan.count; i++) {
            double limit;
            if (strcmp(section, world->sections[i]) != 0)
                up = false;
            section = world->sections[i];
            if (world->cases[i].settings.runs <= run)
                continue;
            struct cm_budget_place place = {.run = run, .index = i, .launch = !up};
            if (!cm_budget_grant(&budget, place, world->clock_s, &limit))
                continue;
            assert_true(limit > 0);
            if (!up) {
                world->clock_s += world->launch_s;
                world->launches++;
                cm_budget_launched(&budget, world->launch_s);
                up = true;
                place.launch = false;
                if (!cm_budget_grant(&budget, place, world->clock_s, &limit))
                    continue;
            }
            double took = fmin(limit, world->steady_s[i]) + world->overhead_s[i];
            world->clock_s += took;
            world->measured_s[i] += took;
            world->runs_done[i]++;
            cm_budget_ran(&budget, i, took, limit);
        }
    }
    cm_budget_release(&budget);
    return world->clock_s - begin;
}

static void no_budget(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.5};
    add_case(&world, "a", 6, 1, 10, 3);
    add_case(&world, "b", 3, 1, 10, 10);
    double took = simulate(&world, 0);
    assert_int_equal(world.runs_done[0], 6);
    assert_int_equal(world.runs_done[1], 3);
    assert_near(took, 6 * 3.05 + 3 * 10.05 + 9 * 0.5, 1e-9);
}

static void plenty_cuts_nothing(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.5};
    add_case(&world, "a", 6, 1, 10, 3);
    add_case(&world, "b", 6, 1, 10, 5);
    double took = simulate(&world, 300);
    assert_int_equal(world.runs_done[0], 6);
    assert_int_equal(world.runs_done[1], 6);
    assert_near(took, 6 * 3.05 + 6 * 5.05 + 12 * 0.5, 1e-9);
}

/* A case that runs far over its settings (several parts) is not cut while there is time. */
static void surplus_is_usable(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.5};
    add_case(&world, "a", 2, 1, 2, 9);
    add_case(&world, "b", 2, 1, 2, 1);
    double took = simulate(&world, 100);
    assert_near(took, 2 * 9.05 + 2 * 1.05 + 4 * 0.5, 1e-9);
}

static void tight_budget_is_kept(void **state)
{
    (void)state;
    for (double budget = 10; budget <= 120; budget += 5) {
        struct world world = {.launch_s = 0.7};
        for (int i = 0; i < 8; i++) {
            char name[8];
            snprintf(name, sizeof name, "s%d", i / 2);
            add_case(&world, name, 6, 0.5, 10, 100); /* never steady */
        }
        double took = simulate(&world, budget);
        assert_true(took <= budget);
        assert_true(took >= 0.7 * budget);
        unsigned least = 6, most = 0;
        for (int i = 0; i < 8; i++) {
            least = world.runs_done[i] < least ? world.runs_done[i] : least;
            most = world.runs_done[i] > most ? world.runs_done[i] : most;
            assert_true(i == 0 || world.runs_done[i] <= world.runs_done[i - 1]);
        }
        assert_true(least >= 1);
        assert_true(most - least <= 1);
    }
}

/* More time means at least as many runs. */
static void rounds_grow_with_the_budget(void **state)
{
    (void)state;
    unsigned before = 0;
    for (double budget = 8; budget <= 200; budget *= 1.5) {
        struct world world = {.launch_s = 0.5};
        add_case(&world, "a", 6, 2, 5, 100);
        add_case(&world, "b", 6, 2, 5, 100);
        simulate(&world, budget);
        assert_true(world.runs_done[1] >= before);
        before = world.runs_done[1];
    }
    assert_int_equal(before, 6);
}

/* A round whose first case does not fit is not begun with a later one. */
static void a_round_is_begun_as_a_whole(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.3};
    add_case(&world, "a", 3, 5, 5, 6);
    add_case(&world, "b", 3, 0.1, 0.2, 0.2);
    simulate(&world, 11.5);
    assert_int_equal(world.runs_done[0], 1);
    assert_int_equal(world.runs_done[1], 1);
}

/* Small cases get all they want, the others share the rest evenly. */
static void small_cases_are_not_starved(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.2};
    add_case(&world, "a", 1, 0.1, 0.5, 100);
    add_case(&world, "a", 1, 0.1, 20, 100);
    add_case(&world, "a", 1, 0.1, 20, 100);
    simulate(&world, 20);
    assert_true(world.measured_s[0] > 0.6 && world.measured_s[0] < 0.9);
    assert_near(world.measured_s[1], world.measured_s[2], 0.1);
    assert_true(world.measured_s[1] > 8);
}

/* Not even the shortest runs of all cases fit: all still get a short one. */
static void the_first_round_serves_everyone(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.3};
    for (int i = 0; i < 10; i++)
        add_case(&world, "a", 6, 2, 10, 100);
    double took = simulate(&world, 10);
    assert_true(took <= 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(world.runs_done[i], 1);
}

static void hopeless(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.3};
    for (int i = 0; i < CASES_MAX; i++)
        add_case(&world, "a", 1, 2, 10, 100);
    double took = simulate(&world, 2);
    assert_true(took <= 2);
    assert_true(world.runs_done[0] == 1);
    assert_true(world.runs_done[CASES_MAX - 1] == 0);
}

static void different_run_counts(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.3};
    add_case(&world, "a", 1, 1, 2, 1.5);
    add_case(&world, "b", 4, 1, 2, 1.5);
    simulate(&world, 100);
    assert_int_equal(world.runs_done[0], 1);
    assert_int_equal(world.runs_done[1], 4);
    assert_int_equal(world.launches, 5);
}

static void estimate_of_the_rest(void **state)
{
    (void)state;
    struct world world = {.launch_s = 0.5};
    struct cm_budget budget;
    add_case(&world, "a", 2, 1, 10, 3);
    add_case(&world, "b", 2, 1, 10, 3);
    assert_ok(cm_budget_make(&world.plan, 0, 0, &budget));
    struct cm_budget_place start = {.run = 0, .index = 0, .launch = true};
    double first = cm_budget_left(&budget, start, 0);
    assert_true(first > 4 && first < 4 * 11);
    cm_budget_launched(&budget, 0.5);
    cm_budget_ran(&budget, 0, 3, INFINITY);
    cm_budget_ran(&budget, 1, 4, INFINITY);
    struct cm_budget_place next = {.run = 1, .index = 0, .launch = true};
    assert_near(cm_budget_left(&budget, next, 10), 3 + 4 + 2 * 0.5, 1e-9);
    struct cm_budget_place last = {.run = 1, .index = 1, .launch = false};
    assert_near(cm_budget_left(&budget, last, 10), 4, 1e-9);
    cm_budget_release(&budget);

    assert_ok(cm_budget_make(&world.plan, 5, 100, &budget));
    assert_true(cm_budget_left(&budget, start, 103) <= 2);
    cm_budget_release(&budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_budget),
        cmocka_unit_test(plenty_cuts_nothing),
        cmocka_unit_test(surplus_is_usable),
        cmocka_unit_test(tight_budget_is_kept),
        cmocka_unit_test(rounds_grow_with_the_budget),
        cmocka_unit_test(a_round_is_begun_as_a_whole),
        cmocka_unit_test(small_cases_are_not_starved),
        cmocka_unit_test(the_first_round_serves_everyone),
        cmocka_unit_test(hopeless),
        cmocka_unit_test(different_run_counts),
        cmocka_unit_test(estimate_of_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
