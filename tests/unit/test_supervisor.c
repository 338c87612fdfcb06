/*
 * host/measure/supervisor.c, crew*.c, spawn.c: cm_supervise against ranks that die, stall or talk
 * nonsense. This program is its own rank process: started as `test_supervisor rank ...` it speaks
 * the channel's protocol and does what CM_FAKE_RANK says: "RANK/RUN/CASE/PHASE=ACTION", `*` for
 * any, several separated by blanks.
 *
 * The ranks are children without a launcher: the device here is called "cuda", of which no more
 * than the name exists.
 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/measure/channel.h"
#include "host/measure/clock.h"
#include "host/measure/crew.h"
#include "host/measure/message.h"

/* ---- the fake rank ---- */

struct fake {
    struct cm_channel channel;
    unsigned rank, size;
    struct cm_job job;
    enum cm_case_status outcome; /* of the case at hand */
};

static void send_result(struct fake *fake, size_t index, uint64_t run)
{
    struct cm_case_run result = {.case_index = index, .run = run, .status = fake->outcome};
    char *text = NULL;
    snprintf(result.stop_reason, sizeof result.stop_reason, "steady");
    if (cm_case_run_write(&result, &text) != CM_OK)
        _exit(90);
    cm_channel_send(&fake->channel, "result", text);
    cm_free(text);
}

static void act(struct fake *fake, const char *action)
{
    struct cm_rank_error error = {.status = CM_TIMEOUT};
    struct cm_message message;
    if (strncmp(action, "exit", 4) == 0)
        _exit(atoi(action + 4));
    if (strncmp(action, "kill", 4) == 0)
        raise(atoi(action + 4));
    if (strcmp(action, "stop") == 0)
        raise(SIGSTOP);
    if (strcmp(action, "hang") == 0)
        pause();
    if (strcmp(action, "skip") == 0)
        fake->outcome = CM_CASE_SKIPPED;
    if (strcmp(action, "garbage") == 0)
        cm_channel_send(&fake->channel, "result", "{\"what\": [");
    if (strcmp(action, "noise") == 0)
        cm_channel_send(&fake->channel, "a", "b");
    if (strcmp(action, "twice") == 0)
        send_result(fake, 0, fake->job.run);
    if (strcmp(action, "elsewhere") == 0)
        send_result(fake, 4711, fake->job.run);
    if (strcmp(action, "print") == 0) {
        fprintf(stderr, "-----\nlibfoo: the disk is on fire\n");
        _exit(1);
    }
    if (strcmp(action, "warn") == 0)
        cm_warn("the library is old");
    if (strcmp(action, "timeout") == 0)
        snprintf(error.text, sizeof error.text, "no answer within 1 s");
    if (strcmp(action, "later") == 0)
        usleep(1000000);
    if (strcmp(action, "lost") == 0 || strcmp(action, "later") == 0) {
        error.status = CM_LOST;
        snprintf(error.text, sizeof error.text, "%s",
                 strcmp(action, "lost") == 0 ? "recv: gone" : "told");
    }
    if (strcmp(action, "refused") == 0) {
        error.status = CM_COMM;
        snprintf(error.text, sizeof error.text, "send: refused");
    }
    if (strcmp(action, "last") == 0) { /* both at once */
        cm_str_add(&fake->channel.out, "done {}\n");
        action = "fault";
    }
    if (strcmp(action, "fault") == 0) {
        error.status = CM_DEVICE;
        snprintf(error.text, sizeof error.text, "the device fell over");
    }
    if (error.text[0] != '\0') {
        cm_send_error(&fake->channel, &error);
        cm_channel_receive(&fake->channel, &message);
        _exit(5);
    }
    if (strcmp(action, "slow") == 0)
        usleep(300000);
}

/* A word of the script, or `*`, and what follows. */
static bool matches(const char **script, const char *word)
{
    size_t length = strcspn(*script, "/= ");
    bool match = (length == 1 && **script == '*') ||
                 (length == strlen(word) && strncmp(*script, word, length) == 0);
    *script += length + ((*script)[length] == '/' ? 1 : 0);
    return match;
}

static void at(struct fake *fake, const char *name, const char *phase)
{
    const char *script = getenv("CM_FAKE_RANK");
    char rank[16], run[16], action[32];
    snprintf(rank, sizeof rank, "%u", fake->rank);
    snprintf(run, sizeof run, "%u", (unsigned)fake->job.run);
    while (script != NULL && *script != '\0') {
        bool match = matches(&script, rank);
        match = matches(&script, run) && match;
        match = matches(&script, name) && match;
        match = matches(&script, phase) && match;
        script += *script == '=' ? 1 : 0;
        size_t length = strcspn(script, " ");
        snprintf(action, sizeof action, "%.*s", (int)length, script);
        script += length + strspn(script + length, " ");
        if (match)
            act(fake, action);
    }
}

static void fake_case(struct fake *fake, const struct cm_message *message)
{
    static const char *const phases[] = {"setup", "warm-up", "measure", "check"};
    struct cm_order order;
    if (cm_read_order(message, &order) != CM_OK)
        _exit(91);
    fake->outcome = CM_CASE_OK;
    for (size_t i = 0; i < 4; i++) {
        cm_send_phase(&fake->channel, phases[i]);
        at(fake, order.name, phases[i]);
    }
    if (fake->rank == 0)
        send_result(fake, order.index, fake->job.run);
    at(fake, order.name, "after");
    cm_send_word(&fake->channel, "done");
    at(fake, order.name, "done");
    cm_order_release(&order);
}

/* As a rank with NCCL: rank 0 tells, the others wait for it; all expect to know the devices. */
static void meet(struct fake *fake)
{
    struct cm_meeting_bytes meeting = {.size = 4, .bytes = {0xde, 0xad, 0, 0x0a}}, read;
    struct cm_message message;
    if (fake->job.bus_ids == NULL || strcmp(fake->job.bus_ids[1], "0000:01:00.0") != 0)
        _exit(92);
    if (fake->rank == 0) {
        cm_send_meeting(&fake->channel, &meeting);
        if (strcmp(getenv("CM_FAKE_MEETING"), "twice") == 0)
            cm_send_meeting(&fake->channel, &meeting);
        cm_send_topology(&fake->channel, "<system/>\n");
        return;
    }
    if (cm_channel_receive_within(&fake->channel, 20, &message) != CM_OK ||
        strcmp(message.kind, "meeting") != 0 || cm_read_meeting(&message, &read) != CM_OK ||
        read.size != 4 || memcmp(read.bytes, meeting.bytes, 4) != 0)
        _exit(93);
}

static int fake_main(int argc, char **argv)
{
    struct fake fake = {.channel = CM_CHANNEL_INIT};
    struct cm_message message;
    const char *channel = "";
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--channel") == 0)
            channel = argv[i + 1];
        if (strcmp(argv[i], "--rank") == 0)
            fake.rank = (unsigned)atoi(argv[i + 1]);
        if (strcmp(argv[i], "--size") == 0)
            fake.size = (unsigned)atoi(argv[i + 1]);
    }
    at(&fake, "start", "start");
    if (cm_channel_connect(channel, &fake.channel) != CM_OK)
        return 1;
    struct cm_hello hello = {.rank = fake.rank, .size = fake.size, .launcher = "none"};
    if (getenv("CM_FAKE_SIZE") != NULL)
        hello.size = (unsigned)atoi(getenv("CM_FAKE_SIZE"));
    cm_send_hello(&fake.channel, &hello);
    if (cm_channel_receive(&fake.channel, &message) != CM_OK ||
        cm_read_job(&message, &fake.job) != CM_OK)
        return 1;
    cm_send_phase(&fake.channel, "opening the device");
    at(&fake, "start", "open");
    if (getenv("CM_FAKE_MEETING") != NULL)
        meet(&fake);
    cm_send_word(&fake.channel, "ready");
    for (;;) {
        if (cm_channel_receive(&fake.channel, &message) != CM_OK)
            return 1;
        if (strcmp(message.kind, "end") == 0)
            break;
        fake_case(&fake, &message);
    }
    at(&fake, "end", "end");
    cm_send_word(&fake.channel, "bye");
    return 0;
}

/* ---- the plan and the sink ---- */

struct no_fields {
    uint64_t nothing;
};
static const struct cm_option no_options[] = {{.name = NULL}};
static const struct cm_workload workload = {
    .name = "fake", .options = no_options, .params_size = sizeof(struct no_fields)};
static const struct cm_device_ops device = {.name = "cuda", .comm = "nccl"};

#define RUNS_MAX 64
struct test {
    struct cm_case cases[3];
    struct no_fields fields;
    struct cm_plan plan;
    struct cm_run_request request;
    struct cm_case_run seen[RUNS_MAX];
    size_t count;
    size_t fail_at;    /* the sink fails then; 0 never */
    char topology[64]; /* what the sink got, each one added */
    int signal_at;     /* send ourselves this signal at the first result */
};

static enum cm_status done(void *impl, const struct cm_plan *plan, const struct cm_case_run *run)
{
    struct test *test = impl;
    assert_ptr_equal(plan, &test->plan);
    assert_true(test->count < RUNS_MAX);
    test->seen[test->count++] = *run; /* plain fields only are looked at */
    if (test->signal_at != 0)
        raise(test->signal_at);
    if (test->count == test->fail_at)
        return cm_error(CM_IO, "the disk is full");
    return CM_OK;
}

static enum cm_status take_topology(void *impl, const char *text)
{
    struct test *test = impl;
    assert_int_equal(test->count, 0); /* before the first run */
    strncat(test->topology, text, sizeof test->topology - strlen(test->topology) - 1);
    return CM_OK;
}

/* Cases a and b in a section, c in another. */
static void make(struct test *test, uint64_t runs, const char *script)
{
    static const char *const names[] = {"a", "b", "c"};
    *test = (struct test){.count = 0};
    for (size_t i = 0; i < 3; i++) {
        struct cm_case *item = &test->cases[i];
        item->name = (char *)names[i];
        item->section = i < 2 ? "first" : "second";
        item->where = "test";
        item->workload = &workload;
        item->params = &test->fields;
        assert_ok(cm_option_defaults(cm_run_options, &item->settings));
        item->settings.runs = runs;
        item->settings.timeout_s = 0.5;
    }
    test->plan = (struct cm_plan){.cases = test->cases, .count = 3, .runs = runs};
    test->request = (struct cm_run_request){.device = &device, .ranks = 2};
    if (script != NULL)
        setenv("CM_FAKE_RANK", script, 1);
    else
        unsetenv("CM_FAKE_RANK");
    unsetenv("CM_FAKE_SIZE");
    unsetenv("CM_FAKE_MEETING");
}

static enum cm_status supervise(struct test *test)
{
    struct cm_sink sink = {.impl = test, .done = done, .topology = take_topology};
    return cm_supervise(&test->plan, &test->request, &sink);
}

static bool any_child(void)
{
    return waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
}

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static void check_seen(const struct test *test, size_t position, const char *name, uint64_t run,
                       enum cm_case_status status)
{
    assert_true(position < test->count);
    const struct cm_case_run *seen = &test->seen[position];
    assert_string_equal(test->cases[seen->case_index].name, name);
    assert_int_equal(seen->run, run);
    if (seen->status != status)
        fail_msg("%s run %u: status %d: %s", name, (unsigned)run, (int)seen->status, seen->reason);
}

static void check_reason(const struct test *test, size_t position, const char *part)
{
    if (strstr(test->seen[position].reason, part) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", test->seen[position].reason, part);
}

/* ---- tests ---- */

static void all_well(void **state)
{
    (void)state;
    struct test test;
    make(&test, 2, NULL);
    test.cases[1].settings.runs = 1;
    unsigned files = open_files();
    assert_ok(supervise(&test));
    assert_int_equal(test.count, 5);
    check_seen(&test, 0, "a", 0, CM_CASE_OK);
    check_seen(&test, 1, "b", 0, CM_CASE_OK);
    check_seen(&test, 2, "c", 0, CM_CASE_OK);
    check_seen(&test, 3, "a", 1, CM_CASE_OK);
    check_seen(&test, 4, "c", 1, CM_CASE_OK);
    assert_string_equal(test.seen[0].stop_reason, "steady");
    assert_false(any_child());
    assert_int_equal(open_files(), files);
}

/* What is not possible once is not tried again. */
static void a_skipped_case(void **state)
{
    (void)state;
    struct test test;
    make(&test, 2, "*/*/b/setup=skip");
    assert_ok(supervise(&test));
    assert_int_equal(test.count, 5);
    check_seen(&test, 1, "b", 0, CM_CASE_SKIPPED);
    check_seen(&test, 2, "c", 0, CM_CASE_OK);
    check_seen(&test, 3, "a", 1, CM_CASE_OK);
    check_seen(&test, 4, "c", 1, CM_CASE_OK);
}

/* A death costs the case at hand, and no other. */
static void deaths(void **state)
{
    (void)state;
    static const struct {
        const char *script, *reason;
    } rows[] = {
        {"1/0/a/warm-up=kill9 0/0/a/check=hang", "rank 1 died in warm-up of a: killed by signal 9"},
        {"0/0/a/setup=exit3", "rank 0 died in setup of a: exit code 3"},
        {"1/0/a/measure=kill10 0/0/a/check=hang",
         "rank 1 died in measurement of a: killed by signal 10"},
        {"1/0/a/check=print 0/0/a/check=hang",
         "rank 1 died in check of a: exit code 1: libfoo: the disk is on fire"},
        {"0/0/a/check=exit0", "rank 0 died in check of a"},
        {"0/0/a/measure=garbage", "rank 0 failed in measurement of a"},
        {"1/0/a/measure=noise 0/0/a/check=hang",
         "rank 1 failed in measurement of a: an unknown message \"a\""},
        {"1/0/a/measure=twice 0/0/a/check=hang",
         "rank 1 failed in measurement of a: a result that nobody asked"},
        {"0/0/a/measure=elsewhere", "a result of another case"},
        {"1/0/a/setup=fault 0/0/a/check=hang", "rank 1 failed in setup of a: the device fell over"},
        {"0/0/a/setup=timeout 1/0/a/setup=fault", "rank 1 failed in setup of a: the device fell"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct test test;
        make(&test, 1, rows[i].script);
        assert_ok(supervise(&test));
        assert_int_equal(test.count, 3);
        check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
        check_reason(&test, 0, rows[i].reason);
        check_seen(&test, 1, "b", 0, CM_CASE_OK);
        check_seen(&test, 2, "c", 0, CM_CASE_OK);
        assert_false(any_child());
    }
}

/* Each warning of a rank is shown once, though every crew has it. */
static void warnings(void **state)
{
    (void)state;
    static const char expected[] = "clustermark: warning: the library is old\n";
    struct test test;
    char text[256] = "";
    int shown[2], saved = dup(STDERR_FILENO);
    make(&test, 2, "*/*/start/open=warn */*/start/start=slow");
    assert_int_equal(pipe(shown), 0);
    dup2(shown[1], STDERR_FILENO);
    enum cm_status status = supervise(&test);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(shown[1]);
    ssize_t length = read(shown[0], text, sizeof text - 1);
    close(shown[0]);
    assert_int_equal(status, CM_OK);
    assert_int_equal(length, (ssize_t)strlen(expected));
    assert_string_equal(text, expected);
}

/* The first result is kept when a rank dies after it. */
static void death_after_the_result(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, "0/0/a/after=kill9 0/0/b/done=kill9 1/0/end/end=exit7");
    assert_ok(supervise(&test));
    assert_int_equal(test.count, 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(test.seen[i].status, CM_CASE_OK);
    assert_false(any_child());
}

/* The next case has another crew then, and nobody waits for the old one. */
static void a_fault_with_the_last_word(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, "0/0/a/after=last 0/0/c/after=last");
    double begin = cm_clock_s();
    assert_ok(supervise(&test));
    assert_int_equal(test.count, 3);
    for (size_t i = 0; i < 3; i++)
        check_seen(&test, i, test.cases[i].name, 0, CM_CASE_OK);
    assert_true(cm_clock_s() - begin < 14); /* the time that ranks have to end */
    assert_false(any_child());
}

static void a_stopped_rank_is_named(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, "1/0/b/warm-up=stop 0/0/b/check=hang");
    assert_ok(supervise(&test));
    check_seen(&test, 0, "a", 0, CM_CASE_OK);
    check_seen(&test, 1, "b", 0, CM_CASE_FAILED);
    check_reason(&test, 1, "rank 1 gave no sign of life for");
    check_reason(&test, 1, "in warm-up of b (the process is stopped)");
    check_seen(&test, 2, "c", 0, CM_CASE_OK);
    assert_false(any_child());
}

/* The healthy rank complains first; still the other is named. */
static void the_silent_rank_is_to_blame(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, "0/0/a/measure=timeout 1/0/a/warm-up=hang");
    assert_ok(supervise(&test));
    check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
    check_reason(&test, 0, "rank 1 gave no sign of life");
    check_reason(&test, 0, "in warm-up of a");
    check_seen(&test, 1, "b", 0, CM_CASE_OK);
}

/* Whose communication failed says why; the other then waits in vain. */
static void a_failed_call_comes_before_silence(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, "0/0/a/warm-up=hang 1/0/a/measure=refused");
    assert_ok(supervise(&test));
    check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
    check_reason(&test, 0, "rank 1 failed in measurement of a: send: refused");
    check_seen(&test, 1, "b", 0, CM_CASE_OK);
}

/* Who failed first says why, whatever its rank; only a deadline tells more. */
static void the_first_to_give_up_is_heard(void **state)
{
    (void)state;
    static const struct {
        const char *script, *reason;
    } rows[] = {
        {"1/0/a/setup=lost 0/0/a/setup=later", "rank 1 failed in setup of a: recv: gone"},
        {"0/0/a/setup=lost 1/0/a/setup=later", "rank 0 failed in setup of a: recv: gone"},
        {"1/0/a/setup=timeout 0/0/a/setup=later", "failed in setup of a: no answer within 1 s"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct test test;
        make(&test, 1, rows[i].script);
        assert_ok(supervise(&test));
        check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
        check_reason(&test, 0, rows[i].reason);
    }
}

/* Nobody knows more than that time ran out. */
static void only_timeouts(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, "*/0/a/measure=timeout");
    assert_ok(supervise(&test));
    /* The others too, when their words are there in time. */
    check_reason(&test, 0, " failed in measurement of a: no answer within 1 s");
}

static void start_failures(void **state)
{
    (void)state;
    struct test test;
    /* Both starts of the first section in run 0 fail: two tries, then its cases are given up. */
    make(&test, 2, "1/0/start/open=exit4");
    assert_ok(supervise(&test));
    assert_int_equal(test.count, 6);
    check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
    check_reason(&test, 0, "rank 1 died while opening the device: exit code 4");
    check_seen(&test, 1, "b", 0, CM_CASE_FAILED);
    check_seen(&test, 2, "c", 0, CM_CASE_FAILED);
    check_seen(&test, 3, "a", 1, CM_CASE_OK);
    check_seen(&test, 5, "c", 1, CM_CASE_OK);

    make(&test, 1, "*/*/start/start=exit9");
    assert_ok(supervise(&test));
    check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
    check_reason(&test, 0, "ended before ranks 0, 1 started");
    check_reason(&test, 0, "exit code 9");
    assert_false(any_child());
}

static void another_world_size(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, NULL);
    setenv("CM_FAKE_SIZE", "3", 1);
    assert_ok(supervise(&test));
    check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
    check_reason(&test, 0, "it sees a world of 3 ranks, not 2");
}

static enum cm_status locate(unsigned index, char *bus_id, size_t size)
{
    snprintf(bus_id, size, "0000:%02x:00.0", index);
    return CM_OK;
}

static enum cm_status locate_none(unsigned index, char *bus_id, size_t size)
{
    (void)index;
    (void)bus_id;
    (void)size;
    return cm_error(CM_DEVICE, "nobody knows");
}

/* What rank 0 tells reaches the others, also one that joins later, in every world anew; so do the
 * places of the devices. */
static void a_meeting(void **state)
{
    (void)state;
    const struct cm_device_ops located = {.name = "cuda", .comm = "nccl", .locate = locate};
    static const char *const scripts[] = {NULL, "1/*/start/start=slow", "0/*/start/start=slow",
                                          "1/*/start/open=slow"};
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        struct test test;
        make(&test, 2, scripts[i]);
        test.request.device = &located;
        test.request.ranks = 3;
        setenv("CM_FAKE_MEETING", "once", 1);
        assert_ok(supervise(&test));
        assert_int_equal(test.count, 6);
        for (size_t k = 0; k < 6; k++)
            check_seen(&test, k, test.cases[k % 3].name, k / 3, CM_CASE_OK);
        assert_string_equal(test.topology, "<system/>\n"); /* once */
        assert_false(any_child());
    }
}

static void strange_meetings(void **state)
{
    (void)state;
    struct cm_device_ops located = {.name = "cuda", .comm = "nccl", .locate = locate};
    struct test test;
    make(&test, 1, NULL);
    test.request.device = &located;
    setenv("CM_FAKE_MEETING", "twice", 1);
    assert_ok(supervise(&test));
    check_seen(&test, 0, "a", 0, CM_CASE_FAILED);
    check_reason(&test, 0, "rank 0 failed while opening the device: a meeting that nobody asked");
    assert_string_equal(test.topology, "");
    /* Without places the job says so, and the rank goes without: this one does not like that. */
    located.locate = locate_none;
    make(&test, 1, NULL);
    test.request.device = &located;
    setenv("CM_FAKE_MEETING", "once", 1);
    assert_ok(supervise(&test));
    check_reason(&test, 0, "exit code 92");
    assert_false(any_child());
}

static void missing_rank(void **state)
{
    (void)state;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct cm_watch watch = {.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                             .hard_stop_s = INFINITY};
    struct cm_crew crew;
    struct test test;
    make(&test, 1, "1/*/start/start=hang");
    struct cm_crew_config config = {
        .device = &device, .program = "/proc/self/exe", .ranks = 2, .start_timeout_s = 0.5};
    assert_int_equal(cm_crew_start(&config, &watch, &crew), CM_LOST);
    assert_non_null(strstr(crew.reason, "rank 1 did not start within"));
    cm_crew_kill(&crew);
    assert_false(any_child());
    close(watch.signals);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void no_program(void **state)
{
    (void)state;
    struct test test;
    make(&test, 1, NULL);
    test.request.program = "/no/such/program";
    assert_status(supervise(&test), CM_USAGE, "cannot start /no/such/program");
    assert_int_equal(test.count, 0);
    assert_false(any_child());
}

static void interrupts(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < 2; i++) {
        struct test test;
        make(&test, 3, "*/0/b/warm-up=hang");
        test.signal_at = signals[i];
        for (size_t k = 0; k < 3; k++)
            test.cases[k].settings.timeout_s = 60;
        unsigned files = open_files();
        assert_status(supervise(&test), CM_INTERRUPTED, "interrupted by");
        assert_int_equal(test.count, 1);
        assert_false(any_child());
        assert_int_equal(open_files(), files);
        /* The process's own signals are back. */
        sigset_t mask;
        sigprocmask(SIG_SETMASK, NULL, &mask);
        assert_false(sigismember(&mask, signals[i]));
    }
}

static void a_failing_sink_ends_it(void **state)
{
    (void)state;
    struct test test;
    make(&test, 3, NULL);
    test.fail_at = 2;
    assert_status(supervise(&test), CM_IO, "the disk is full");
    assert_int_equal(test.count, 2);
    assert_false(any_child());
}

/* The whole run ends within its budget, also when a rank hangs; what got no run says so. */
static void hard_stop(void **state)
{
    (void)state;
    struct test test;
    make(&test, 2, "*/0/b/measure=hang");
    for (size_t k = 0; k < 3; k++)
        test.cases[k].settings.timeout_s = 600;
    test.request.budget_s = 2;
    double begin = cm_clock_s();
    assert_ok(supervise(&test));
    double took = cm_clock_s() - begin;
    assert_true(took <= 2.0);
    assert_int_equal(test.count, 3);
    check_seen(&test, 0, "a", 0, CM_CASE_OK);
    check_seen(&test, 1, "b", 0, CM_CASE_SKIPPED);
    check_reason(&test, 1, "no time left in the budget of 2");
    check_reason(&test, 1, "measure");
    check_seen(&test, 2, "c", 0, CM_CASE_SKIPPED);
    assert_false(any_child());
}

static unsigned pretended;
static enum cm_status probe(struct cm_device_probe *found)
{
    *found = (struct cm_device_probe){.count = pretended, .reason = "the driver is too old"};
    return CM_OK;
}

static void requested_ranks(void **state)
{
    (void)state;
    const struct cm_device_ops gpus = {.name = "cuda", .comm = "nccl", .probe = probe};
    const struct cm_device_ops cpu = {.name = "cpu", .comm = "mpi", .is_host = true};
    struct cm_run_request request = {.device = &gpus};
    unsigned ranks = 77;
    pretended = 0;
    assert_status(cm_request_ranks(&request, &ranks), CM_NO_DEVICE, "the driver is too old");
    assert_int_equal(ranks, 77);
    pretended = 4;
    assert_ok(cm_request_ranks(&request, &ranks));
    assert_int_equal(ranks, 4);
    request.ranks = 3;
    assert_ok(cm_request_ranks(&request, &ranks));
    assert_int_equal(ranks, 3);
    request.ranks = 5;
    assert_status(cm_request_ranks(&request, &ranks), CM_USAGE, "this machine has 4");
    assert_status(cm_request_ranks(&request, &ranks), CM_USAGE, "--simulate");
    request.simulate = true;
    assert_ok(cm_request_ranks(&request, &ranks));
    assert_int_equal(ranks, 5);
    assert_int_equal(cm_request_devices(&request), 4);
    request = (struct cm_run_request){.device = &cpu, .ranks = 1};
    assert_int_equal(cm_request_devices(&request), 0);
    assert_ok(cm_request_ranks(&request, &ranks));
    assert_int_equal(ranks, 1);
    request.ranks = 0;
    assert_ok(cm_request_ranks(&request, &ranks));
    assert_true(ranks == 1 || ranks == 2);
}

/* What mpirun says of a rank that ended before it joined counts more than the end of the other,
 * which mpirun brought about. */
static void an_end_before_joining(void **state)
{
    (void)state;
    char tail[] = "clustermark: rank: signalfd: Too many open files\n"
                  "  Process name: [[14745,1],1]\n  Exit code:    70\n";
    struct cm_peer peer = {.rank = 0, .lost = true, .loss = 1};
    struct cm_process launcher = {.exited = true, .wait_status = 70 << 8};
    struct cm_crew crew = {
        .config = {.ranks = 2},
        .peers = &peer,
        .peer_count = 1,
        .processes = {
            .items = &launcher, .count = 1, .launcher = true, .tail = tail, .output = -1}};
    cm_crew_explain(&crew);
    assert_string_equal(crew.reason, "rank 1 ended before it joined: exit code 70: "
                                     "clustermark: rank: signalfd: Too many open files");
    strstr(tail, "],1]")[2] = '0'; /* the one that had joined */
    cm_crew_explain(&crew);
    assert_non_null(strstr(crew.reason, "rank 0 died"));
}

static void useful_lines(void **state)
{
    (void)state;
    static const struct {
        const char *output, *line;
    } rows[] = {
        {"", ""},
        {"-----------\n\n   \n", ""},
        {"---\nPrimary job  terminated normally, but 1 process returned\n"
         "a non-zero exit code. Per user-direction, the job has been aborted.\n---\n"
         "mpirun noticed that process rank 1 with PID 0 on node x exited on signal 9 (Killed).\n",
         ""},
        {"------\nThere are not enough slots available\nin the system\n",
         "There are not enough slots available"},
        {"\n\tlibx.so: bad\x01thing\r\nmore\n", "libx.so: bad thing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char line[64];
        cm_useful_line(rows[i].output, line, sizeof line);
        assert_string_equal(line, rows[i].line);
    }
    char small[6];
    cm_useful_line("abcdefgh\n", small, sizeof small);
    assert_string_equal(small, "abcde");
}

int main(int argc, char **argv)
{
    cm_json_init();
    if (argc > 1 && strcmp(argv[1], "rank") == 0)
        return fake_main(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_well),
        cmocka_unit_test(a_skipped_case),
        cmocka_unit_test(deaths),
        cmocka_unit_test(warnings),
        cmocka_unit_test(death_after_the_result),
        cmocka_unit_test(a_fault_with_the_last_word),
        cmocka_unit_test(a_stopped_rank_is_named),
        cmocka_unit_test(the_silent_rank_is_to_blame),
        cmocka_unit_test(a_failed_call_comes_before_silence),
        cmocka_unit_test(the_first_to_give_up_is_heard),
        cmocka_unit_test(only_timeouts),
        cmocka_unit_test(start_failures),
        cmocka_unit_test(another_world_size),
        cmocka_unit_test(a_meeting),
        cmocka_unit_test(strange_meetings),
        cmocka_unit_test(missing_rank),
        cmocka_unit_test(no_program),
        cmocka_unit_test(interrupts),
        cmocka_unit_test(a_failing_sink_ends_it),
        cmocka_unit_test(hard_stop),
        cmocka_unit_test(requested_ranks),
        cmocka_unit_test(an_end_before_joining),
        cmocka_unit_test(useful_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
