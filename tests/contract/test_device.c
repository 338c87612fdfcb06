/*
 * The device contract: order, holding, events, waits across streams, deadlines, asynchronous
 * failures, deep queues, copies and memory, on every backend of the build.
 *
 * Queued calls share plain variables. Nothing but the device's own ordering keeps them apart, so
 * the thread sanitizer sees a missing dependency.
 */
#include "backend.h"

#include <math.h>
#include <stdatomic.h>
#include <time.h>

static void sleep_s(double seconds)
{
    struct timespec span = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&span, NULL);
}

/* Queue function(pointer) on a stream. */
static void queue(struct cm_stream *stream, cm_call_fn function, void *pointer)
{
    assert_ok(bench.ops->call(stream, function, &pointer, sizeof pointer, "test call"));
}

static struct cm_stream *new_stream(void)
{
    struct cm_stream *stream = NULL;
    assert_ok(bench.ops->stream_create(bench.device, 1, &stream));
    assert_ptr_equal(stream->device, bench.device);
    return stream;
}

static struct cm_event *new_event(void)
{
    struct cm_event *event = NULL;
    assert_ok(bench.ops->event_create(bench.device, &event));
    return event;
}

/* ---- order ---- */

struct entry {
    int *log;
    int *count;
    int value;
};

static enum cm_status append(const void *args)
{
    const struct entry *entry = args;
    entry->log[(*entry->count)++] = entry->value;
    return CM_OK;
}

static void work_runs_in_order(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    int log[COUNT], count = 0;
    for (int i = 0; i < COUNT; i++) {
        struct entry entry = {log, &count, i};
        assert_ok(bench.ops->call(bench.stream, append, &entry, sizeof entry, "append"));
    }
    sync_stream(bench.stream);
    assert_int_equal(count, COUNT);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(log[i], i);
}

static enum cm_status increment(const void *args)
{
    int *const *counter = args;
    ++**counter;
    return CM_OK;
}

static enum cm_status publish(const void *args)
{
    atomic_int *const *flag = args;
    atomic_store(*flag, 1);
    return CM_OK;
}

static void a_held_stream_waits_for_its_release(void **state)
{
    (void)state;
    atomic_int flag = 0;
    assert_ok(bench.ops->stream_hold(bench.stream));
    queue(bench.stream, publish, &flag);
    sleep_s(0.02);
    assert_int_equal(atomic_load(&flag), 0);
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(bench.stream);
    assert_int_equal(atomic_load(&flag), 1);
}

static void holding_is_checked(void **state)
{
    (void)state;
    assert_status(bench.ops->stream_release(bench.stream), CM_USAGE, "not held");
    assert_ok(bench.ops->stream_hold(bench.stream));
    assert_status(bench.ops->stream_hold(bench.stream), CM_USAGE, "held already");
    assert_status(bench.ops->stream_sync(bench.stream, SYNC_S), CM_USAGE, "held");
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(bench.stream);
}

static void a_batch_of_any_depth_can_be_held(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    int counter = 0;
    for (int round = 0; round < 3; round++) {
        assert_ok(bench.ops->stream_hold(bench.stream));
        for (int i = 0; i < COUNT; i++)
            queue(bench.stream, increment, &counter);
        assert_ok(bench.ops->stream_release(bench.stream));
        sync_stream(bench.stream);
        assert_int_equal(counter, (round + 1) * COUNT);
    }
    /* Not held, the queue is worked on while it grows. */
    for (int i = 0; i < COUNT; i++)
        queue(bench.stream, increment, &counter);
    sync_stream(bench.stream);
    assert_int_equal(counter, 4 * COUNT);
}

/* ---- arguments ---- */

struct large {
    unsigned char bytes[CM_CALL_ARGS_MAX - sizeof(void *)];
    unsigned *sum;
};

static enum cm_status add_bytes(const void *args)
{
    struct large large;
    memcpy(&large, args, sizeof large);
    for (size_t i = 0; i < sizeof large.bytes; i++)
        *large.sum += large.bytes[i];
    return CM_OK;
}

static void arguments_are_copied(void **state)
{
    (void)state;
    unsigned sum = 0;
    struct large large = {.sum = &sum};
    assert_int_equal(sizeof large, CM_CALL_ARGS_MAX);
    memset(large.bytes, 3, sizeof large.bytes);
    assert_ok(bench.ops->stream_hold(bench.stream));
    assert_ok(bench.ops->call(bench.stream, add_bytes, &large, sizeof large, "add_bytes"));
    memset(&large, 0, sizeof large);
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(bench.stream);
    assert_int_equal(sum, 3 * sizeof large.bytes);
    unsigned char more[CM_CALL_ARGS_MAX + 1] = {0};
    assert_status(bench.ops->call(bench.stream, add_bytes, more, sizeof more, "add_bytes"),
                  CM_USAGE, "add_bytes");
}

/* ---- events and waits ---- */

static enum cm_status sleep_call(const void *args)
{
    const double *const *seconds = args;
    sleep_s(**seconds);
    return CM_OK;
}

static void events_time_what_lies_between(void **state)
{
    (void)state;
    double pause_s = 0.02, first = -1, second = -1, both = -1;
    struct cm_event *events[] = {new_event(), new_event(), new_event()};
    assert_ok(bench.ops->event_record(events[0], bench.stream));
    queue(bench.stream, sleep_call, &pause_s);
    assert_ok(bench.ops->event_record(events[1], bench.stream));
    assert_ok(bench.ops->event_record(events[2], bench.stream));
    sync_stream(bench.stream);
    assert_ok(bench.ops->elapsed(events[0], events[1], &first));
    assert_ok(bench.ops->elapsed(events[1], events[2], &second));
    assert_ok(bench.ops->elapsed(events[0], events[2], &both));
    assert_true(first >= pause_s * 0.99 && first < SYNC_S);
    assert_true(second >= 0 && second < first);
    assert_near(both, first + second, 1e-4);
    for (int i = 0; i < 3; i++)
        bench.ops->event_destroy(events[i]);
}

static void elapsed_needs_both_events(void **state)
{
    (void)state;
    double seconds = 42;
    struct cm_event *start = new_event(), *end = new_event();
    assert_status(bench.ops->elapsed(start, end, &seconds), CM_USAGE, "never recorded");
    assert_ok(bench.ops->event_record(start, bench.stream));
    sync_stream(bench.stream);
    assert_ok(bench.ops->stream_hold(bench.stream));
    assert_ok(bench.ops->event_record(end, bench.stream));
    assert_status(bench.ops->elapsed(start, end, &seconds), CM_USAGE, "not happened");
    assert_true(seconds == 42);
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(bench.stream);
    assert_ok(bench.ops->elapsed(start, end, &seconds));
    bench.ops->event_destroy(start);
    bench.ops->event_destroy(end);
}

static void a_stream_waits_for_another(void **state)
{
    (void)state;
    int counter = 0;
    struct cm_stream *other = new_stream();
    struct cm_event *event = new_event();
    for (int i = 0; i < 200; i++) {
        queue(bench.stream, increment, &counter);
        assert_ok(bench.ops->event_record(event, bench.stream));
        assert_ok(bench.ops->stream_wait(other, event));
        queue(other, increment, &counter);
        assert_ok(bench.ops->event_record(event, other));
        assert_ok(bench.ops->stream_wait(bench.stream, event));
    }
    sync_stream(bench.stream);
    assert_int_equal(counter, 400);
    sync_stream(other);
    bench.ops->event_destroy(event);
    bench.ops->stream_destroy(other);
}

static void a_wait_holds_until_the_record(void **state)
{
    (void)state;
    int counter = 0;
    struct cm_stream *other = new_stream();
    struct cm_event *event = new_event();
    assert_ok(bench.ops->stream_hold(bench.stream));
    assert_ok(bench.ops->event_record(event, bench.stream));
    assert_ok(bench.ops->stream_wait(other, event));
    queue(other, increment, &counter);
    assert_status(bench.ops->stream_sync(other, 0.02), CM_TIMEOUT, "not done");
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(other);
    assert_int_equal(counter, 1);
    sync_stream(bench.stream);
    bench.ops->event_destroy(event);
    bench.ops->stream_destroy(other);
}

/* What happens on a third stream is another record. */
static void a_record_elsewhere_does_not_end_a_wait(void **state)
{
    (void)state;
    int counter = 0;
    struct cm_stream *other = new_stream(), *third = new_stream();
    struct cm_event *event = new_event();
    assert_ok(bench.ops->stream_hold(bench.stream));
    assert_ok(bench.ops->event_record(event, bench.stream));
    assert_ok(bench.ops->stream_wait(other, event));
    queue(other, increment, &counter);
    assert_ok(bench.ops->event_record(event, third));
    sync_stream(third);
    assert_status(bench.ops->stream_sync(other, 0.02), CM_TIMEOUT, "not done");
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(other);
    assert_int_equal(counter, 1);
    sync_stream(bench.stream);
    bench.ops->event_destroy(event);
    bench.ops->stream_destroy(third);
    bench.ops->stream_destroy(other);
}

static void a_wait_is_for_the_latest_record_so_far(void **state)
{
    (void)state;
    struct cm_stream *other = new_stream();
    struct cm_event *event = new_event();
    /* Never recorded: holds nothing up. */
    assert_ok(bench.ops->stream_wait(other, event));
    sync_stream(other);
    assert_ok(bench.ops->event_record(event, bench.stream));
    assert_ok(bench.ops->stream_wait(other, event));
    assert_ok(bench.ops->stream_hold(bench.stream));
    /* A record after the wait is none of its business. */
    assert_ok(bench.ops->event_record(event, bench.stream));
    sync_stream(other);
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(bench.stream);
    bench.ops->event_destroy(event);
    bench.ops->stream_destroy(other);
}

static void an_event_may_go_while_it_is_queued(void **state)
{
    (void)state;
    int counter = 0;
    struct cm_stream *other = new_stream();
    assert_ok(bench.ops->stream_hold(bench.stream));
    for (int i = 0; i < 10; i++) {
        struct cm_event *event = new_event();
        queue(bench.stream, increment, &counter);
        assert_ok(bench.ops->event_record(event, bench.stream));
        assert_ok(bench.ops->stream_wait(other, event));
        queue(other, increment, &counter);
        assert_ok(bench.ops->event_record(event, other));
        assert_ok(bench.ops->stream_wait(bench.stream, event));
        bench.ops->event_destroy(event);
    }
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(bench.stream);
    sync_stream(other);
    assert_int_equal(counter, 20);
    bench.ops->stream_destroy(other);
}

/* Many streams, each step of a chain on another one, plus a fork and join at every step. */
static void many_streams_keep_a_chain(void **state)
{
    (void)state;
    enum { STREAMS = 12, STEPS = 600 };
    struct cm_stream *streams[STREAMS];
    struct cm_event *events[STREAMS];
    int counter = 0;
    for (int i = 0; i < STREAMS; i++) {
        streams[i] = new_stream();
        events[i] = new_event();
    }
    unsigned choice = 12345;
    int last = 0;
    for (int step = 0; step < STEPS; step++) {
        choice = choice * 1103515245u + 12345u;
        int next = (int)(choice >> 16) % STREAMS;
        assert_ok(bench.ops->stream_wait(streams[next], events[last]));
        queue(streams[next], increment, &counter);
        assert_ok(bench.ops->event_record(events[next], streams[next]));
        last = next;
    }
    sync_stream(streams[last]);
    assert_int_equal(counter, STEPS);
    for (int i = 0; i < STREAMS; i++) {
        sync_stream(streams[i]);
        bench.ops->event_destroy(events[i]);
        bench.ops->stream_destroy(streams[i]);
    }
}

/* ---- deadlines and failures ---- */

static enum cm_status until_set(const void *args)
{
    atomic_int *const *flag = args;
    while (atomic_load(*flag) == 0)
        sleep_s(0.001);
    return CM_OK;
}

static void a_deadline_passes(void **state)
{
    (void)state;
    atomic_int flag = 0;
    int counter = 0;
    queue(bench.stream, until_set, &flag);
    queue(bench.stream, increment, &counter);
    assert_status(bench.ops->stream_sync(bench.stream, 0.02), CM_TIMEOUT, "test call");
    assert_status(bench.ops->stream_sync(bench.stream, 0), CM_TIMEOUT, "not done");
    atomic_store(&flag, 1);
    sync_stream(bench.stream);
    assert_int_equal(counter, 1);
    assert_ok(bench.ops->stream_sync(bench.stream, (double)INFINITY));
    assert_ok(bench.ops->stream_sync(bench.stream, 0));
}

static enum cm_status fail_call(const void *args)
{
    const char *const *text = args;
    return *text == NULL ? CM_DEVICE : cm_error(CM_COMM, "%s", *text);
}

static void a_failure_is_reported_once_and_skips_the_rest(void **state)
{
    (void)state;
    int counter = 0;
    double seconds = -1;
    struct cm_event *start = new_event(), *end = new_event();
    struct cm_stream *other = new_stream();
    assert_ok(bench.ops->event_record(start, bench.stream));
    queue(bench.stream, increment, &counter);
    const char *text = "rank 3 is gone", *later = "not this";
    assert_ok(bench.ops->call(bench.stream, fail_call, &text, sizeof text, "all_reduce"));
    queue(bench.stream, increment, &counter);
    assert_ok(bench.ops->call(bench.stream, fail_call, &later, sizeof later, "all_reduce"));
    assert_ok(bench.ops->event_record(end, bench.stream));
    assert_ok(bench.ops->stream_wait(other, end));
    sync_stream(other);
    assert_status(bench.ops->stream_sync(bench.stream, SYNC_S), CM_COMM,
                  "all_reduce: rank 3 is gone");
    assert_int_equal(counter, 1);
    assert_ok(bench.ops->elapsed(start, end, &seconds));
    /* Afterwards the stream works again. */
    sync_stream(bench.stream);
    queue(bench.stream, increment, &counter);
    sync_stream(bench.stream);
    assert_int_equal(counter, 2);
    /* A failure without words has its status's. */
    text = NULL;
    assert_ok(bench.ops->call(bench.stream, fail_call, &text, sizeof text, "all_reduce"));
    assert_status(bench.ops->stream_sync(bench.stream, SYNC_S), CM_DEVICE,
                  cm_status_text(CM_DEVICE));
    bench.ops->stream_destroy(other);
    bench.ops->event_destroy(start);
    bench.ops->event_destroy(end);
}

/* ---- memory ---- */

static void copies_move_bytes(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 64, 4097, 1 << 20};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t size = sizes[s];
        void *host = NULL, *back = NULL;
        unsigned char *a = device_alloc(size), *b = device_alloc(size);
        assert_ok(bench.ops->alloc(bench.device, CM_MEMORY_HOST, size, &host));
        assert_ok(bench.ops->alloc(bench.device, CM_MEMORY_HOST, size + 1, &back));
        for (size_t i = 0; i < size; i++)
            ((unsigned char *)host)[i] = (unsigned char)(i * 37 + s);
        memset(back, 0xee, size + 1);
        assert_ok(bench.ops->copy(bench.stream, a, host, size));
        assert_ok(bench.ops->copy(bench.stream, b, a, size));
        assert_ok(bench.ops->copy(bench.stream, back, b, size));
        sync_stream(bench.stream);
        assert_memory_equal(back, host, size);
        assert_int_equal(((unsigned char *)back)[size], 0xee);
        device_free(a);
        device_free(b);
        bench.ops->free(bench.device, CM_MEMORY_HOST, host);
        bench.ops->free(bench.device, CM_MEMORY_HOST, back);
    }
}

static void memory_is_aligned_and_its_own(void **state)
{
    (void)state;
    void *blocks[3][20];
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < 20; i++) {
            assert_ok(bench.ops->alloc(bench.device, (enum cm_memory_kind)kind, i * i + 1,
                                       &blocks[kind][i]));
            assert_int_equal((uintptr_t)blocks[kind][i] % 64, 0);
            for (int k = 0; k <= kind; k++)
                for (size_t j = 0; j < (k < kind ? 20 : i); j++)
                    assert_ptr_not_equal(blocks[kind][i], blocks[k][j]);
        }
    }
    for (int kind = 0; kind < 3; kind++)
        for (size_t i = 0; i < 20; i++)
            bench.ops->free(bench.device, (enum cm_memory_kind)kind, blocks[kind][i]);
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    void *memory = NULL;
    assert_status(bench.ops->alloc(bench.device, CM_MEMORY_DEVICE, 0, &memory), CM_USAGE, "0");
    assert_status(bench.ops->alloc(bench.device, CM_MEMORY_DEVICE, SIZE_MAX / 2, &memory),
                  CM_NO_MEMORY, "bytes");
    assert_status(bench.ops->alloc(bench.device, CM_MEMORY_DEVICE, SIZE_MAX, &memory), CM_NO_MEMORY,
                  "bytes");
    assert_null(memory);
}

static void a_memory_limit_is_kept(void **state)
{
    (void)state;
    struct cm_device *device = NULL;
    struct cm_device_config config = {.threads = 1, .memory_bytes = 1 << 20};
    void *first = NULL, *second = NULL;
    assert_ok(bench.ops->open(&config, &device));
    assert_true(device->info.memory_bytes <= 1 << 20);
    assert_ok(bench.ops->alloc(device, CM_MEMORY_DEVICE, 700000, &first));
    assert_status(bench.ops->alloc(device, CM_MEMORY_DEVICE, 700000, &second), CM_NO_MEMORY,
                  "700000");
    bench.ops->free(device, CM_MEMORY_DEVICE, first);
    assert_ok(bench.ops->alloc(device, CM_MEMORY_DEVICE, 700000, &second));
    bench.ops->free(device, CM_MEMORY_DEVICE, second);
    bench.ops->close(device);
}

/* ---- what a device says of itself ---- */

static void a_device_describes_itself(void **state)
{
    (void)state;
    const struct cm_device_info *info = &bench.device->info;
    assert_ptr_equal(bench.device->ops, bench.ops);
    assert_ptr_equal(cm_device_find(bench.ops->name), bench.ops);
    assert_string_equal(info->kind, bench.ops->name);
    assert_true(info->name[0] != '\0');
    assert_true(info->units > 0);
    assert_true(info->memory_bytes > 0);
    assert_true(info->memory_total_bytes >= info->memory_bytes);
    for (int i = 0; i < CM_DTYPE_COUNT; i++) {
        assert_true(info->flop_rate[i].value >= 0 && isfinite(info->flop_rate[i].value));
        assert_true(info->flop_rate[i].source[0] != '\0');
        assert_true(info->flop_rate[i].value > 0 || !info->flop_rate[i].measured);
    }
    assert_true(info->memory_rate.source[0] != '\0');
    struct cm_device *none = NULL;
    struct cm_device_config config = {.index = 4000};
    assert_status(bench.ops->open(&config, &none), CM_NO_DEVICE, "4000");
    assert_null(none);
}

static void telemetry_is_known_or_nan(void **state)
{
    (void)state;
    if (bench.ops->telemetry_begin == NULL)
        skip();
    struct cm_telemetry telemetry;
    memset(&telemetry, 0xff, sizeof telemetry);
    assert_status(bench.ops->telemetry_end(bench.device, &telemetry), CM_USAGE, "begin");
    assert_ok(bench.ops->telemetry_begin(bench.device));
    assert_status(bench.ops->telemetry_begin(bench.device), CM_USAGE, "open");
    sleep_s(0.03);
    assert_ok(bench.ops->telemetry_end(bench.device, &telemetry));
    const double values[] = {telemetry.clock_hz,          telemetry.power_w,
                             telemetry.energy_j,          telemetry.temperature_c,
                             telemetry.steal_fraction,    telemetry.switches_per_s,
                             telemetry.throttled_fraction};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        assert_true(isnan(values[i]) || (values[i] >= 0 && isfinite(values[i])));
    assert_true(isnan(telemetry.clock_hz) || telemetry.clock_hz > 1e6);
    assert_true(isnan(telemetry.steal_fraction) || telemetry.steal_fraction <= 1);
}

static void release_functions_accept_null(void **state)
{
    (void)state;
    bench.ops->close(NULL);
    bench.ops->stream_destroy(NULL);
    bench.ops->event_destroy(NULL);
    bench.ops->free(bench.device, CM_MEMORY_DEVICE, NULL);
    bench.device->kernels->gemm_free(NULL);
}

static void destroying_a_stream_finishes_its_work(void **state)
{
    (void)state;
    int counter = 0;
    struct cm_stream *stream = new_stream();
    assert_ok(bench.ops->stream_hold(stream));
    for (int i = 0; i < 5000; i++)
        queue(stream, increment, &counter);
    bench.ops->stream_destroy(stream);
    assert_int_equal(counter, 5000);
}

/* Where a queue has an end, what is held begins before it is reached, and says so. */
static void a_full_queue_begins(void **state)
{
    (void)state;
    if (bench.ops->stream_waits == NULL)
        skip();
    assert_ok(bench.ops->stream_hold(bench.stream));
    assert_true(bench.ops->stream_waits(bench.stream));
    for (int i = 0; i < 2000; i++)
        assert_ok(bench.device->kernels->empty(bench.stream));
    assert_false(bench.ops->stream_waits(bench.stream));
    assert_ok(bench.ops->stream_release(bench.stream));
    sync_stream(bench.stream);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_runs_in_order),
        cmocka_unit_test(a_held_stream_waits_for_its_release),
        cmocka_unit_test(holding_is_checked),
        cmocka_unit_test(a_batch_of_any_depth_can_be_held),
        cmocka_unit_test(arguments_are_copied),
        cmocka_unit_test(events_time_what_lies_between),
        cmocka_unit_test(elapsed_needs_both_events),
        cmocka_unit_test(a_stream_waits_for_another),
        cmocka_unit_test(a_wait_holds_until_the_record),
        cmocka_unit_test(a_record_elsewhere_does_not_end_a_wait),
        cmocka_unit_test(a_wait_is_for_the_latest_record_so_far),
        cmocka_unit_test(an_event_may_go_while_it_is_queued),
        cmocka_unit_test(many_streams_keep_a_chain),
        cmocka_unit_test(a_deadline_passes),
        cmocka_unit_test(a_failure_is_reported_once_and_skips_the_rest),
        cmocka_unit_test(copies_move_bytes),
        cmocka_unit_test(memory_is_aligned_and_its_own),
        cmocka_unit_test(bad_sizes_are_refused),
        cmocka_unit_test(a_memory_limit_is_kept),
        cmocka_unit_test(a_device_describes_itself),
        cmocka_unit_test(telemetry_is_known_or_nan),
        cmocka_unit_test(release_functions_accept_null),
        cmocka_unit_test(destroying_a_stream_finishes_its_work),
        cmocka_unit_test(a_full_queue_begins),
    };
    static const unsigned threads[] = {1, 2, 0};
    return cm_test_backends(tests, threads);
}
