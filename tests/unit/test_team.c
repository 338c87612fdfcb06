/* A team of threads: every index once, whole grains, one loop after another, several callers. */
#include "clustermark/team.h"
#include "test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

struct job {
    uint64_t count, grain;
    unsigned char *seen;
    _Atomic unsigned ranges;
};

static void visit(void *arg, uint64_t begin, uint64_t end)
{
    struct job *job = arg;
    atomic_fetch_add(&job->ranges, 1);
    if (begin % job->grain != 0 || (end % job->grain != 0 && end != job->count) || end > job->count)
        abort();
    for (uint64_t i = begin; i < end; i++)
        job->seen[i]++;
}

/* Ranges that one loop was split into, after a look that each index was visited once. */
static unsigned run_loop(uint64_t count, uint64_t grain)
{
    struct job job = {.count = count, .grain = grain, .seen = calloc(count + 1, 1)};
    assert_non_null(job.seen);
    cm_team_run(visit, &job, count, grain);
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(job.seen[i], 1);
    free(job.seen);
    return atomic_load(&job.ranges);
}

static void every_index_once(void **state)
{
    (void)state;
    static const uint64_t counts[] = {0, 1, 7, 8, 9, 64, 100, 1001};
    for (unsigned threads = 1; threads <= 5; threads++) {
        struct cm_team *team = NULL;
        assert_ok(cm_team_create(threads, threads % 2 == 0, &team));
        cm_team_use(team);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
            for (uint64_t grain = 1; grain <= 64; grain *= 4)
                assert_true(run_loop(counts[c], grain) <= threads);
        assert_int_equal(run_loop(1000, 10), threads);
        assert_int_equal(run_loop(20, 10), threads < 2 ? 1 : 2);
        assert_int_equal(run_loop(19, 10), 1);
        cm_team_use(NULL);
        cm_team_free(team);
    }
}

static void without_a_team_it_runs_inline(void **state)
{
    (void)state;
    assert_int_equal(run_loop(1000, 1), 1);
    cm_team_free(NULL);
}

static void *caller(void *arg)
{
    cm_team_use(arg);
    for (int i = 0; i < 300; i++) {
        unsigned char seen[500] = {0};
        struct job job = {.count = sizeof seen, .grain = 3, .seen = seen};
        cm_team_run(visit, &job, job.count, job.grain);
        for (size_t k = 0; k < sizeof seen; k++)
            if (seen[k] != 1)
                return arg;
    }
    return NULL;
}

static void callers_take_turns(void **state)
{
    (void)state;
    struct cm_team *team = NULL;
    assert_ok(cm_team_create(3, true, &team));
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, caller, team), 0);
    for (int i = 0; i < 3; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    cm_team_free(team);
}

/* Which thread did each half of a loop of two. */
struct halves {
    pthread_t by[2];
};

static void note_thread(void *arg, uint64_t begin, uint64_t end)
{
    struct halves *halves = arg;
    (void)end;
    halves->by[begin] = pthread_self();
}

/* On one core for both, nobody else runs between the start of a loop and its end unless the system
 * takes the core away: a caller that waited for the other to come would let it do its half every
 * time. */
static void who_is_late_is_not_waited_for(void **state)
{
    (void)state;
    cpu_set_t before, one;
    size_t first = 0;
    unsigned alone = 0;
    struct cm_team *team = NULL;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_ok(cm_team_create(2, false, &team));
    cm_team_use(team);
    for (int i = 0; i < 1000; i++) {
        struct halves halves;
        cm_team_run(note_thread, &halves, 2, 1);
        assert_true(pthread_equal(halves.by[0], pthread_self()));
        alone += pthread_equal(halves.by[1], pthread_self()) ? 1 : 0;
    }
    cm_team_use(NULL);
    cm_team_free(team);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(alone > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_once),
        cmocka_unit_test(without_a_team_it_runs_inline),
        cmocka_unit_test(callers_take_turns),
        cmocka_unit_test(who_is_late_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
