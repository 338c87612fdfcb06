/*
 * The emulator: what is right in a kernel comes out right whatever the order, and what is wrong
 * does not go unnoticed: it gives a wrong result in some order, or ends the program with a message.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "simt/probe/probe.h"
#include "test.h"

void simt_seed(uint64_t seed);

#define ORDERS 200

static uint32_t values[256];

static uint32_t expected_sum(uint64_t seed)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < 256; i++)
        sum += values[i] = (uint32_t)(seed * 2654435761u + i * i);
    return sum;
}

static void a_right_kernel_is_right_in_any_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < ORDERS; seed++) {
        uint32_t sum, expected = expected_sum(seed);
        simt_seed(seed);
        assert_int_equal(probe_sum(values, &sum), 0);
        assert_int_equal(sum, expected);
    }
}

static void a_missing_barrier_shows(void **state)
{
    (void)state;
    unsigned wrong = 0;
    for (uint64_t seed = 0; seed < ORDERS; seed++) {
        uint32_t sum, expected = expected_sum(seed);
        simt_seed(seed);
        assert_int_equal(probe_missing_barrier(values, &sum), 0);
        wrong += sum != expected;
    }
    assert_true(wrong > ORDERS / 4);
}

static void a_lost_update_shows(void **state)
{
    (void)state;
    uint32_t count = 0;
    assert_int_equal(probe_lost_update(&count), 0);
    assert_in_range(count, 1, 63);
}

static void shared_memory_is_poisoned_in_each_block(void **state)
{
    (void)state;
    float value = 0;
    assert_int_equal(probe_stale_shared(&value), 0);
    assert_true(isnan(value));
}

static void blocks_come_in_another_order_with_another_seed(void **state)
{
    (void)state;
    bool seen[64] = {false};
    unsigned different = 0;
    for (uint64_t seed = 0; seed < ORDERS; seed++) {
        uint32_t first = UINT32_MAX, again = UINT32_MAX;
        simt_seed(seed);
        assert_int_equal(probe_order(&first), 0);
        simt_seed(seed);
        assert_int_equal(probe_order(&again), 0);
        assert_int_equal(first, again);
        different += !seen[first];
        seen[first] = true;
    }
    assert_true(different > 32);
}

static void a_launch_that_no_device_takes_is_refused(void **state)
{
    (void)state;
    assert_int_not_equal(probe_too_large(), 0);
}

/* Streams are told apart, as far as there are numbers. */
static void every_stream_has_a_number(void **state)
{
    (void)state;
    unsigned numbers[256];
    bool taken[256] = {false};
    for (uintptr_t stream = 0; stream < 256; stream++) {
        numbers[stream] = probe_slot(16 * stream);
        assert_in_range(numbers[stream], 0, 255);
        assert_false(taken[numbers[stream]]);
        taken[numbers[stream]] = true;
    }
    for (uintptr_t stream = 0; stream < 256; stream++)
        assert_int_equal(probe_slot(16 * stream), numbers[stream]);
    for (uintptr_t stream = 256; stream < 1000; stream++)
        assert_in_range(probe_slot(16 * stream), 0, 255);
}

/* Runs `probe` in a process of its own, which must end by a signal; what it said goes to `text`. */
static void run_wrong(int (*probe)(void), char *text, size_t size)
{
    int ends[2], ended;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static const int signals[] = {SIGABRT, SIGILL, SIGSEGV};
        for (size_t i = 0; i < 3; i++)
            signal(signals[i], SIG_DFL);
        alarm(20);
        dup2(ends[1], STDERR_FILENO);
        _exit(probe());
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t got;
    while ((got = read(ends[0], text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    close(ends[0]);
    assert_true(waitpid(child, &ended, 0) == child);
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0)
        fail_msg("went unnoticed: %s", text);
}

static void a_wrong_kernel_is_stopped_with_a_message(void **state)
{
    (void)state;
    static const struct {
        int (*probe)(void);
        const char *parts[4];
    } wrong[] = {
        {probe_divergent_barrier,
         {"divergent_barrier_kernel, block (0,0,0), thread", "while others"}},
        {probe_deadlock, {"deadlock", "32 threads", "__syncthreads", "8 threads"}},
        {probe_absent_lane, {"lane 20, which takes no part"}},
        {probe_shared_overrun, {"byte 0 after the 64 of dynamic shared memory"}},
        {probe_misaligned, {""}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[65536];
        run_wrong(wrong[i].probe, text, sizeof text);
        for (size_t p = 0; p < 4 && wrong[i].parts[p] != NULL; p++) {
            if (strstr(text, wrong[i].parts[p]) == NULL)
                fail_msg("\"%s\" lacks \"%s\"", text, wrong[i].parts[p]);
        }
    }
}

/* As when cmocka catches the signal and goes on to the next test. */
static void go_on(int number)
{
    (void)number;
    uint32_t sum;
    probe_sum(values, &sum);
}

static int crash_and_go_on(void)
{
    signal(SIGSEGV, go_on);
    return probe_crash();
}

static void a_launch_after_a_crash_says_so(void **state)
{
    (void)state;
    char text[65536];
    run_wrong(crash_and_go_on, text, sizeof text);
    assert_non_null(strstr(text, "crash_kernel, block (0,0,0), thread 0: crashed here"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_kernel_is_right_in_any_order),
        cmocka_unit_test(a_missing_barrier_shows),
        cmocka_unit_test(a_lost_update_shows),
        cmocka_unit_test(shared_memory_is_poisoned_in_each_block),
        cmocka_unit_test(blocks_come_in_another_order_with_another_seed),
        cmocka_unit_test(a_launch_that_no_device_takes_is_refused),
        cmocka_unit_test(every_stream_has_a_number),
        cmocka_unit_test(a_wrong_kernel_is_stopped_with_a_message),
        cmocka_unit_test(a_launch_after_a_crash_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
