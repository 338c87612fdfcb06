/* host/measure/watcher.c and its messages: a real watcher's process, and ranks that are sockets of
 * this one. */
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/measure/clock.h"
#include "host/measure/watch_message.h"
#include "host/measure/watcher.h"

struct world {
    unsigned size;
    struct cm_channel *ranks;
    struct cm_watch_place place;
    pid_t watcher;
    int report; /* how the watch ended */
};

/* The process of the watcher: this one is rank 0's. */
static void start(unsigned size, double silence_s, struct world *world)
{
    int pair[2], report[2];
    struct cm_watcher_config config = {.size = size, .silence_s = silence_s, .rank0_pid = getpid()};
    *world = (struct world){.size = size};
    assert_int_equal(cm_watch_listen(&config.listener, &config.place), CM_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe(report), 0);
    fflush(NULL);
    world->watcher = fork();
    if (world->watcher == 0) {
        struct cm_watch_end end;
        int null = open("/dev/null", O_WRONLY);
        close(pair[0]);
        dup2(null, STDERR_FILENO);
        /* Not this process's parent: the test is not to be killed. */
        config.rank0_pid = 1;
        config.rank0 = pair[1];
        cm_watcher_run(&config, &end);
        _exit(write(report[1], &end, sizeof end) == (ssize_t)sizeof end ? 0 : 1);
    }
    close(config.listener);
    close(pair[1]);
    close(report[1]);
    world->report = report[0];
    world->place = config.place;
    world->ranks = calloc(size, sizeof *world->ranks);
    assert_non_null(world->ranks);
    world->ranks[0] = (struct cm_channel){.fd = pair[0]};
}

static struct cm_watch_hello hello_of(const struct world *world, unsigned rank)
{
    struct cm_watch_hello hello = {.rank = rank, .device = "cpu", .near = rank == 0};
    snprintf(hello.host, sizeof hello.host, "h%u", rank);
    memcpy(hello.cookie, world->place.cookie, sizeof hello.cookie);
    return hello;
}

/* True when the watcher took it in. */
static bool greet(const struct world *world, const struct cm_watch_hello *hello,
                  struct cm_channel *channel)
{
    struct cm_message message;
    *channel = (struct cm_channel)CM_CHANNEL_INIT;
    assert_int_equal(cm_watch_connect(&world->place, 5, &channel->fd), CM_OK);
    assert_int_equal(cm_send_watch_hello(channel, hello), CM_OK);
    return cm_channel_receive_within(channel, 5, &message) == CM_OK &&
           strcmp(message.kind, "welcome") == 0;
}

static void join_all(struct world *world)
{
    for (unsigned rank = 1; rank < world->size; rank++) {
        struct cm_watch_hello hello = hello_of(world, rank);
        assert_true(greet(world, &hello, &world->ranks[rank]));
    }
}

static void beat_all(struct world *world, unsigned but)
{
    struct cm_place place = {.in_case = true, .name = "c", .phase = "measure", .allowed_s = 60};
    for (unsigned rank = 0; rank < world->size; rank++) {
        place.steps++;
        if (rank != but)
            cm_send_beat(&world->ranks[rank], &place);
    }
}

static struct rusage finish(struct world *world, struct cm_watch_end *end)
{
    struct rusage usage;
    int wait_status;
    assert_int_equal(read(world->report, end, sizeof *end), sizeof *end);
    assert_int_equal(wait4(world->watcher, &wait_status, 0, &usage), world->watcher);
    assert_true(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0);
    for (unsigned rank = 0; rank < world->size; rank++)
        cm_channel_close(&world->ranks[rank]);
    free(world->ranks);
    close(world->report);
    return usage;
}

static void hears_end(struct cm_channel *channel)
{
    struct cm_message message;
    do {
        assert_int_equal(cm_channel_receive_within(channel, 10, &message), CM_OK);
    } while (strcmp(message.kind, "end") != 0);
    cm_channel_close(channel);
}

static void death(void **state)
{
    (void)state;
    struct world world;
    struct cm_watch_end end;
    start(4, 60, &world);
    join_all(&world);
    beat_all(&world, 4);
    cm_channel_close(&world.ranks[2]);
    for (unsigned rank = 0; rank < 4; rank++) {
        if (rank != 2)
            hears_end(&world.ranks[rank]);
    }
    finish(&world, &end);
    assert_int_equal(end.fate, CM_FATE_DIED);
    assert_string_equal(end.text, "rank 2 on h2 (cpu) died in measurement of c");
    assert_string_equal(end.reason, "rank 2 (cpu) died in measurement of c");
    assert_false(end.parted);
}

static void silence(void **state)
{
    (void)state;
    struct world world;
    struct cm_watch_end end;
    start(4, 1, &world);
    join_all(&world);
    double begin_s = cm_clock_s();
    while (cm_clock_s() < begin_s + 1.2) {
        beat_all(&world, 3);
        usleep(100000);
    }
    hears_end(&world.ranks[1]);
    /* Rank 0 waits for the watcher's end, which does not wait for rank 0's. */
    cm_send_word(&world.ranks[0], "left");
    finish(&world, &end);
    assert_int_equal(end.fate, CM_FATE_SILENT);
    assert_non_null(strstr(end.text, "rank 3 on h3"));
}

/* Rank 0's process ends before the others came. */
static void alone(void **state)
{
    (void)state;
    struct world world;
    struct cm_watch_end end;
    start(2, 60, &world);
    cm_channel_close(&world.ranks[0]);
    finish(&world, &end);
    assert_int_equal(end.fate, CM_FATE_DIED);
    assert_non_null(strstr(end.text, "rank 0 on "));
}

static void strangers(void **state)
{
    (void)state;
    struct world world;
    struct cm_watch_end end;
    struct cm_channel other;
    start(2, 60, &world);
    struct cm_watch_hello hello = hello_of(&world, 1);
    hello.cookie[0] ^= 1;
    assert_false(greet(&world, &hello, &other));
    cm_channel_close(&other);
    hello = hello_of(&world, 2);
    assert_false(greet(&world, &hello, &other));
    cm_channel_close(&other);
    hello = hello_of(&world, 0); /* is there already */
    assert_false(greet(&world, &hello, &other));
    cm_channel_close(&other);
    assert_int_equal(cm_watch_connect(&world.place, 5, &other.fd), CM_OK);
    assert_int_equal(send(other.fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    cm_channel_close(&other);
    join_all(&world);
    cm_send_word(&world.ranks[1], "bye");
    cm_send_word(&world.ranks[0], "bye");
    finish(&world, &end);
    assert_int_equal(end.fate, CM_FATE_OVER);
}

/* What a thousand ranks cost: twenty beats of each, and the way in and out. */
static void many(void **state)
{
    (void)state;
    const unsigned size = 1000;
    struct world world;
    struct cm_watch_end end;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < size + 100)
        skip();
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    start(size, 60, &world);
    join_all(&world);
    for (unsigned i = 0; i < 20; i++)
        beat_all(&world, size);
    for (unsigned rank = size; rank-- > 0;)
        cm_send_word(&world.ranks[rank], "bye");
    struct rusage usage = finish(&world, &end);
    assert_int_equal(end.fate, CM_FATE_OVER);
    double used_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                    1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    printf("%u ranks, 20 beats each: the watcher took %.2f s of processor time, %ld KiB\n", size,
           used_s, usage.ru_maxrss);
}

/* The kernel kills a process that does not get on, also when it is stopped. */
static void last_resort(void **state)
{
    (void)state;
    int wait_status;
    pid_t child = fork();
    if (child == 0) {
        struct cm_last_resort last;
        cm_last_resort_open(&last);
        cm_last_resort_arm(&last, 0.2);
        raise(SIGSTOP);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &wait_status, 0), child);
    assert_true(WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(death),     cmocka_unit_test(silence), cmocka_unit_test(alone),
        cmocka_unit_test(strangers), cmocka_unit_test(many),    cmocka_unit_test(last_resort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
