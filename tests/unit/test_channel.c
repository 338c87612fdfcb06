/* host/measure/channel.c and message.c: lines over sockets, and payloads that nobody may trust. */
#include "test.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/workload.h"
#include "host/measure/channel.h"
#include "host/measure/clock.h"
#include "host/measure/message.h"

static void make_pair(struct cm_channel *a, struct cm_channel *b)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *a = (struct cm_channel){.fd = fds[0]};
    *b = (struct cm_channel){.fd = fds[1]};
}

static void close_pair(struct cm_channel *a, struct cm_channel *b)
{
    cm_channel_close(a);
    cm_channel_close(b);
}

static void put_raw(struct cm_channel *channel, const char *text)
{
    assert_int_equal(write(channel->fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void listener_and_connect(void **state)
{
    (void)state;
    struct cm_listener listener = {.fd = -1};
    struct cm_channel rank, supervisor = CM_CHANNEL_INIT;
    struct cm_message message;
    int fd = 0;
    pid_t pid = 0;
    assert_ok(cm_listener_open(&listener));
    assert_ok(cm_listener_accept(&listener, &fd, &pid));
    assert_int_equal(fd, -1); /* nobody yet, and no waiting */
    assert_ok(cm_channel_connect(listener.name, &rank));
    assert_ok(cm_listener_accept(&listener, &fd, &pid));
    assert_true(fd >= 0);
    assert_int_equal(pid, getpid());
    supervisor.fd = fd;

    assert_ok(cm_channel_send(&rank, "hello", "{\"a\": 1}"));
    assert_ok(cm_channel_receive(&supervisor, &message));
    assert_string_equal(message.kind, "hello");
    assert_string_equal(message.payload, "{\"a\": 1}");
    assert_int_equal(message.length, 8);

    cm_channel_close(&rank);
    assert_ok(cm_channel_fill(&supervisor));
    assert_true(supervisor.ended);
    cm_channel_close(&supervisor);
    cm_listener_close(&listener);
    assert_status(cm_channel_connect(listener.name, &rank), CM_LOST, "cannot reach");
}

/* Bytes that come one at a time, and several messages at once. */
static void pieces(void **state)
{
    (void)state;
    static const char text[] = "phase one\nphase \nresult {\"x\": [1, 2]}\nbye {}\nres";
    struct cm_channel a, b;
    struct cm_message message;
    char seen[256] = "";
    make_pair(&a, &b);
    assert_int_equal(fcntl(b.fd, F_SETFL, O_NONBLOCK), 0);
    for (size_t i = 0; text[i] != '\0'; i++) {
        assert_int_equal(write(a.fd, text + i, 1), 1);
        assert_ok(cm_channel_fill(&b));
        assert_ok(cm_channel_next(&b, &message));
        if (message.kind[0] != '\0')
            snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s=%s;", message.kind,
                     message.payload);
    }
    assert_string_equal(seen, "phase=one;phase=;result={\"x\": [1, 2]};bye={};");
    put_raw(&a, "ult 7\nphase two\n");
    assert_ok(cm_channel_fill(&b));
    assert_ok(cm_channel_next(&b, &message));
    assert_string_equal(message.kind, "result");
    assert_string_equal(message.payload, "7");
    assert_ok(cm_channel_next(&b, &message));
    assert_string_equal(message.payload, "two");
    assert_ok(cm_channel_next(&b, &message));
    assert_string_equal(message.kind, "");
    close_pair(&a, &b);
}

static void *receive_large(void *arg)
{
    struct cm_channel *channel = arg;
    static struct cm_message message;
    return cm_channel_receive(channel, &message) == CM_OK ? &message : NULL;
}

static void large_message(void **state)
{
    (void)state;
    size_t size = 5000000;
    struct cm_channel a, b;
    pthread_t thread;
    void *received;
    char *text = cm_alloc(size + 1, 1);
    memset(text, 'x', size);
    make_pair(&a, &b);
    assert_int_equal(pthread_create(&thread, NULL, receive_large, &b), 0);
    assert_ok(cm_channel_send(&a, "result", text));
    assert_int_equal(pthread_join(thread, &received), 0);
    assert_non_null(received);
    struct cm_message *message = received;
    assert_int_equal(message->length, size);
    assert_int_equal(strspn(message->payload, "x"), size);
    cm_free(text);
    close_pair(&a, &b);
}

/* A socket that does not block takes what it can; the rest goes later. */
static void full_socket(void **state)
{
    (void)state;
    size_t size = 4000000;
    struct cm_channel a, b;
    struct cm_message message = {.kind = ""};
    char *text = cm_alloc(size + 1, 1);
    memset(text, 'y', size);
    make_pair(&a, &b);
    assert_int_equal(fcntl(a.fd, F_SETFL, O_NONBLOCK), 0);
    assert_ok(cm_channel_send(&a, "case", text));
    assert_true(cm_channel_unsent(&a));
    while (message.kind[0] == '\0') {
        assert_ok(cm_channel_flush(&a));
        assert_ok(cm_channel_fill(&b));
        assert_ok(cm_channel_next(&b, &message));
    }
    assert_false(cm_channel_unsent(&a));
    assert_int_equal(message.length, size);
    cm_free(text);
    cm_channel_close(&b);
    assert_status(cm_channel_send(&a, "end", "{}"), CM_LOST, "cannot send");
    assert_true(a.ended);
    cm_channel_close(&a);
}

static void not_messages(void **state)
{
    (void)state;
    static const char *const lines[] = {"\n", "noSpace\n", " {}\n", "aVeryLongWordForAKind {}\n",
                                        "\x01\xff\n"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct cm_channel a, b;
        struct cm_message message;
        make_pair(&a, &b);
        put_raw(&a, lines[i]);
        assert_ok(cm_channel_fill(&b));
        assert_status(cm_channel_next(&b, &message), CM_COMM, "not a message");
        close_pair(&a, &b);
    }
}

static void end_of_stream(void **state)
{
    (void)state;
    struct cm_channel a, b;
    struct cm_message message;
    make_pair(&a, &b);
    put_raw(&a, "phase {}\nresult {\"half\"");
    cm_channel_close(&a);
    assert_ok(cm_channel_receive(&b, &message));
    assert_string_equal(message.kind, "phase");
    assert_status(cm_channel_receive(&b, &message), CM_LOST, "closed");
    cm_channel_close(&b);
}

static void waits_end(void **state)
{
    (void)state;
    struct cm_channel a, b;
    struct cm_message message;
    make_pair(&a, &b);
    put_raw(&a, "phase {");
    double begin = cm_clock_s();
    assert_status(cm_channel_receive_within(&b, 0.1, &message), CM_TIMEOUT, "in time");
    double took = cm_clock_s() - begin;
    assert_true(took >= 0.1 && took < 20);
    put_raw(&a, "}\nbye {}\n");
    assert_ok(cm_channel_receive_within(&b, 20, &message));
    assert_string_equal(message.kind, "phase");
    assert_ok(cm_channel_receive_within(&b, 0, &message)); /* it is here already */
    assert_string_equal(message.kind, "bye");
    cm_channel_close(&a);
    assert_status(cm_channel_receive_within(&b, 20, &message), CM_LOST, "closed");
    cm_channel_close(&b);
}

static struct cm_message as_message(const char *kind, const char *payload)
{
    struct cm_message message = {.payload = payload, .length = strlen(payload)};
    snprintf(message.kind, sizeof message.kind, "%s", kind);
    return message;
}

static void round_trips(void **state)
{
    (void)state;
    struct cm_channel a, b;
    struct cm_message message;
    make_pair(&a, &b);

    struct cm_hello hello = {.rank = 3, .size = 8, .launcher = "mpirun"}, hello_read;
    assert_ok(cm_send_hello(&a, &hello));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_hello(&message, &hello_read));
    assert_int_equal(hello_read.rank, 3);
    assert_int_equal(hello_read.size, 8);
    assert_string_equal(hello_read.launcher, "mpirun");

    char *bus_ids[] = {"0000:1b:00.0", ""};
    struct cm_job job = {.device = "cpu", .ranks = 2, .run = 5, .timeout_s = 7.5, .devices = 3};
    struct cm_job job_read;
    assert_ok(cm_send_job(&a, &job));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_job(&message, &job_read));
    assert_string_equal(job_read.device, "cpu");
    assert_int_equal(job_read.ranks, 2);
    assert_int_equal(job_read.run, 5);
    assert_int_equal(job_read.devices, 3);
    assert_near(job_read.timeout_s, 7.5, 1e-8);
    assert_null(job_read.bus_ids);
    job.bus_ids = bus_ids;
    assert_ok(cm_send_job(&a, &job));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_job(&message, &job_read));
    assert_string_equal(job_read.bus_ids[0], "0000:1b:00.0");
    assert_string_equal(job_read.bus_ids[1], "");
    cm_job_release(&job_read);
    assert_null(job_read.bus_ids);

    struct cm_meeting_bytes meeting = {.size = CM_MEETING_MAX}, meeting_read;
    for (size_t i = 0; i < CM_MEETING_MAX; i++)
        meeting.bytes[i] = (unsigned char)(255 - i);
    assert_ok(cm_send_meeting(&a, &meeting));
    assert_ok(cm_channel_receive(&b, &message));
    assert_string_equal(message.kind, "meeting");
    assert_ok(cm_read_meeting(&message, &meeting_read));
    assert_int_equal(meeting_read.size, CM_MEETING_MAX);
    assert_memory_equal(meeting_read.bytes, meeting.bytes, CM_MEETING_MAX);

    char *topology = NULL;
    assert_ok(cm_send_topology(&a, "<system version=\"1\">\n\t</system>\n"));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_topology(&message, &topology));
    assert_string_equal(topology, "<system version=\"1\">\n\t</system>\n");
    cm_free(topology);

    struct cm_rank_error error = {.status = CM_TIMEOUT, .text = "line\nand \"quote\" \t"},
                         error_read;
    assert_ok(cm_send_error(&a, &error));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_error(&message, &error_read));
    assert_int_equal(error_read.status, CM_TIMEOUT);
    assert_string_equal(error_read.text, error.text);

    char phase[24];
    assert_ok(cm_send_phase(&a, "warm-up"));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_phase(&message, phase, sizeof phase));
    assert_string_equal(phase, "warm-up");
    close_pair(&a, &b);
}

struct fields {
    uint64_t m, size;
};
static const struct cm_option options[] = {
    {.name = "m",
     .type = CM_OPTION_COUNT,
     .offset = offsetof(struct fields, m),
     .fallback = "8",
     .help = "rows"},
    {.name = "size",
     .type = CM_OPTION_SIZE,
     .offset = offsetof(struct fields, size),
     .fallback = "1KiB",
     .help = "bytes"},
    {.name = NULL},
};
static const struct cm_workload workload = {
    .name = "test", .options = options, .params_size = sizeof(struct fields)};

static void orders(void **state)
{
    (void)state;
    struct cm_channel a, b;
    struct cm_message message;
    struct cm_order order;
    struct fields fields = {.m = 64, .size = 1024};
    struct cm_case item = {.name = "test:m=64",
                           .section = "test",
                           .workload = &workload,
                           .params = &fields,
                           .where = "odd \"name\".ini:3"};
    assert_ok(cm_option_defaults(cm_run_options, &item.settings));
    item.settings.seed = 12345;
    make_pair(&a, &b);
    assert_ok(cm_send_case(&a, &item, 17, INFINITY));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_order(&message, &order));
    assert_int_equal(order.index, 17);
    assert_true(isinf(order.limit_s));
    assert_string_equal(order.name, "test:m=64");
    assert_string_equal(order.section, "test");
    assert_string_equal(order.where, item.where);
    assert_non_null(strstr(order.settings, "workload=test\n"));
    assert_non_null(strstr(order.settings, "seed=12345"));
    assert_non_null(strstr(order.settings, "m=64"));
    assert_null(strstr(order.settings, "size=")); /* a default */
    cm_order_release(&order);

    assert_ok(cm_send_case(&a, &item, 17, 2.5));
    assert_ok(cm_channel_receive(&b, &message));
    assert_ok(cm_read_order(&message, &order));
    assert_near(order.limit_s, 2.5, 1e-8);
    cm_order_release(&order);
    close_pair(&a, &b);
}

static void bad_payloads(void **state)
{
    (void)state;
    static const char *const hellos[] = {
        "",
        "{",
        "[]",
        "3",
        "{}",
        "{\"rank\": 0, \"size\": 2}",
        "{\"rank\": \"0\", \"size\": 2, \"launcher\": \"\"}",
        "{\"rank\": 2, \"size\": 2, \"launcher\": \"\"}",
        "{\"rank\": -1, \"size\": 2, \"launcher\": \"\"}",
        "{\"rank\": 0, \"size\": 99999999999, \"launcher\": \"\"}",
        "{\"rank\": 0, \"size\": 2, \"launcher\": \"a name much too long for the field\"}",
    };
    for (size_t i = 0; i < sizeof hellos / sizeof hellos[0]; i++) {
        struct cm_message message = as_message("hello", hellos[i]);
        struct cm_hello hello = {.rank = 77};
        assert_status(cm_read_hello(&message, &hello), CM_COMM, "message \"hello\"");
        assert_int_equal(hello.rank, 77);
    }
    static const char *const errors[] = {"{\"status\": 0, \"text\": \"\"}",
                                         "{\"status\": 9999, \"text\": \"\"}", "{\"status\": 1}",
                                         "{\"status\": 1, \"text\": 1}"};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct cm_message message = as_message("error", errors[i]);
        struct cm_rank_error error;
        assert_status(cm_read_error(&message, &error), CM_COMM, "message \"error\"");
    }
    static const char *const cases[] = {
        "{\"index\": 0, \"limit_s\": null, \"name\": \"\", \"section\": \"\", \"where\": \"\"}",
        "{\"index\": -1, \"limit_s\": null, \"name\": \"\", \"section\": \"\", \"where\": \"\","
        " \"settings\": \"\"}",
        "{\"index\": 1, \"limit_s\": 0, \"name\": \"\", \"section\": \"\", \"where\": \"\","
        " \"settings\": \"\"}"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cm_message message = as_message("case", cases[i]);
        struct cm_order order;
        assert_status(cm_read_order(&message, &order), CM_COMM, "message \"case\"");
    }
    char phase[8];
    struct cm_message message = as_message("phase", "{\"phase\": \"too long for it\"}");
    assert_status(cm_read_phase(&message, phase, sizeof phase), CM_COMM, "too long");
#define JOB "{\"device\": \"cpu\", \"run\": 0, \"timeout_s\": 1.0, \"devices\": 1, "
    static const struct {
        const char *payload, *error;
    } jobs[] = {
        {JOB "\"ranks\": 0, \"bus_ids\": []}", "out of range"},
        {JOB "\"ranks\": 1}", "bus_ids"},
        {"{\"device\": \"cpu\", \"run\": 0, \"timeout_s\": 1.0, \"ranks\": 1, \"devices\": -1, "
         "\"bus_ids\": []}",
         "out of range"},
        {JOB "\"ranks\": 1, \"bus_ids\": {}}", "out of range"},
        {JOB "\"ranks\": 2, \"bus_ids\": [\"a\"]}", "as many bus ids"},
        {JOB "\"ranks\": 2, \"bus_ids\": [\"a\", 1]}", "no text"},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
        struct cm_job job;
        message = as_message("job", jobs[i].payload);
        assert_status(cm_read_job(&message, &job), CM_COMM, jobs[i].error);
    }
    static const char *const meetings[] = {"{}",
                                           "{\"bytes\": 1}",
                                           "{\"bytes\": \"\"}",
                                           "{\"bytes\": \"0\"}",
                                           "{\"bytes\": \"0g\"}",
                                           "{\"bytes\": \"AB\"}"};
    struct cm_meeting_bytes meeting = {.size = 77};
    for (size_t i = 0; i < sizeof meetings / sizeof meetings[0]; i++) {
        message = as_message("meeting", meetings[i]);
        assert_status(cm_read_meeting(&message, &meeting), CM_COMM, "message \"meeting\"");
    }
    char longest[2 * CM_MEETING_MAX + 40];
    snprintf(longest, sizeof longest, "{\"bytes\": \"%0*d\"}", 2 * CM_MEETING_MAX + 2, 0);
    message = as_message("meeting", longest);
    assert_status(cm_read_meeting(&message, &meeting), CM_COMM, "so many bytes");
    assert_int_equal(meeting.size, 77);
    char *topology = NULL;
    message = as_message("topology", "{\"text\": []}");
    assert_status(cm_read_topology(&message, &topology), CM_COMM, "message \"topology\"");
    assert_null(topology);
}

int main(void)
{
    cm_json_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listener_and_connect),
        cmocka_unit_test(pieces),
        cmocka_unit_test(large_message),
        cmocka_unit_test(full_socket),
        cmocka_unit_test(not_messages),
        cmocka_unit_test(end_of_stream),
        cmocka_unit_test(waits_end),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(orders),
        cmocka_unit_test(bad_payloads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
