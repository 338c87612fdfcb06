/*
 * host/comm/queue.c in direct mode, self.c on a device that is not the host, sync.c: with a device
 * of which no more exists than what these use, and which notes what it is told.
 */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include "clustermark/comm.h"
#include "host/comm/queue.h"
#include "host/measure/clock.h"
#include "host/measure/sync.h"
#include "host/measure/vote.h"

static char notes[512];
static enum cm_status copy_status;
static bool stuck;
static unsigned late; /* how many more waits do not see the end */

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    va_list arguments;
    size_t used = strlen(notes);
    va_start(arguments, format);
    vsnprintf(notes + used, sizeof notes - used, format, arguments);
    va_end(arguments);
}

static struct cm_event the_event;

static enum cm_status event_create(struct cm_device *device, struct cm_event **event)
{
    the_event.device = device;
    *event = &the_event;
    return CM_OK;
}

static void event_destroy(struct cm_event *event)
{
    assert_ptr_equal(event, &the_event);
    note("destroy ");
}

static enum cm_status event_record(struct cm_event *event, struct cm_stream *stream)
{
    assert_ptr_equal(event, &the_event);
    note("record%d ", stream->priority);
    return CM_OK;
}

static enum cm_status stream_wait(struct cm_stream *stream, struct cm_event *event)
{
    assert_ptr_equal(event, &the_event);
    note("wait%d ", stream->priority);
    return CM_OK;
}

static enum cm_status copy(struct cm_stream *stream, void *to, const void *from, size_t size_bytes)
{
    if (copy_status != CM_OK)
        return cm_error(copy_status, "the copy fell over");
    note("copy%d ", stream->priority);
    memmove(to, from, size_bytes);
    return CM_OK;
}

static enum cm_status stream_sync(struct cm_stream *stream, double timeout_s)
{
    (void)stream;
    bool waits = stuck || late > 0;
    late -= late > 0;
    return waits ? cm_error(CM_TIMEOUT, "not done after %g s", timeout_s) : CM_OK;
}

static const struct cm_device_ops ops = {
    .name = "toy",
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .stream_sync = stream_sync,
    .copy = copy,
};
static struct cm_device device = {.ops = &ops};
/* The priority is the stream's name in the notes. */
static struct cm_stream first = {.device = &device, .priority = 1};
static struct cm_stream second = {.device = &device, .priority = 2};

static void assert_notes(const char *expected)
{
    assert_string_equal(notes, expected);
    notes[0] = '\0';
}

static struct cm_comm *open_self(void)
{
    const struct cm_world world = {.size = 1, .local_size = 1};
    struct cm_comm *comm = NULL;
    notes[0] = '\0';
    copy_status = CM_OK;
    stuck = false;
    assert_ok(cm_comm_find("self")->open(&device, &world, NULL, 1, &comm));
    return comm;
}

/* What is asked for is on the stream when the call returns, by the device's own copy. */
static void at_once(void **state)
{
    (void)state;
    struct cm_comm *comm = open_self();
    float send[4] = {1, 2, 3, 4}, recv[4] = {0};
    assert_ok(comm->ops->all_reduce(comm, &first, send, recv, 4, CM_F32, CM_REDUCE_SUM));
    assert_notes("copy1 record1 ");
    assert_memory_equal(send, recv, sizeof send);
    assert_ok(comm->ops->all_reduce(comm, &first, recv, recv, 4, CM_F32, CM_REDUCE_SUM));
    assert_ok(comm->ops->broadcast(comm, &first, recv, 4, CM_F32, 0));
    assert_notes("record1 record1 "); /* nothing moves, but it has its place in the order */
    assert_ok(comm->ops->all_gather(comm, &first, send, recv, 0, CM_F32));
    assert_status(comm->ops->all_gather(comm, &first, NULL, recv, 4, CM_F32), CM_USAGE, "NULL");
    assert_notes("");
    comm->ops->close(comm);
    assert_notes("destroy ");
}

static void order_across_streams(void **state)
{
    (void)state;
    struct cm_comm *comm = open_self();
    int send = 7, recv = 0;
    assert_ok(comm->ops->all_to_all(comm, &first, &send, &recv, 1, CM_I32));
    assert_ok(comm->ops->all_to_all(comm, &second, &send, &recv, 1, CM_I32));
    assert_ok(comm->ops->all_to_all(comm, &second, &send, &recv, 1, CM_I32));
    assert_ok(comm->ops->all_to_all(comm, &first, &send, &recv, 1, CM_I32));
    assert_notes("copy1 record1 wait2 copy2 record2 copy2 record2 wait1 copy1 record1 ");
    comm->ops->close(comm);
}

static void groups(void **state)
{
    (void)state;
    struct cm_comm *comm = open_self();
    int send[2] = {7, 8}, recv[2] = {0};
    for (int round = 0; round < 3; round++) {
        recv[0] = recv[1] = 0;
        assert_ok(comm->ops->group_begin(comm));
        assert_ok(comm->ops->recv(comm, &second, &recv[1], 1, CM_I32, 0));
        assert_ok(comm->ops->send(comm, &second, &send[0], 1, CM_I32, 0));
        assert_ok(comm->ops->send(comm, &second, &send[1], 1, CM_I32, 0));
        assert_ok(comm->ops->recv(comm, &second, &recv[0], 1, CM_I32, 0));
        assert_notes("");
        assert_ok(comm->ops->group_end(comm));
        assert_notes("copy2 copy2 record2 ");
        assert_int_equal(recv[1], 7);
        assert_int_equal(recv[0], 8);
    }
    assert_ok(comm->ops->group_begin(comm));
    assert_ok(comm->ops->send(comm, &second, &send[0], 1, CM_I32, 0));
    assert_status(comm->ops->group_end(comm), CM_USAGE, "no recv");
    assert_ok(comm->ops->group_begin(comm));
    assert_ok(comm->ops->group_end(comm));
    assert_notes("");
    comm->ops->close(comm);
}

/* A failure is told at once and kept. */
static void failures(void **state)
{
    (void)state;
    struct cm_comm *comm = open_self();
    int send = 7, recv = 0;
    copy_status = CM_DEVICE;
    assert_status(comm->ops->all_to_all(comm, &first, &send, &recv, 1, CM_I32), CM_DEVICE,
                  "the copy fell over");
    copy_status = CM_OK;
    assert_status(comm->ops->all_to_all(comm, &first, &send, &recv, 1, CM_I32), CM_DEVICE,
                  "the copy fell over");
    assert_status(comm->ops->async_error(comm), CM_DEVICE, "the copy fell over");
    assert_notes("");
    comm->ops->close(comm);

    comm = open_self();
    comm->ops->abort(comm);
    assert_status(comm->ops->all_to_all(comm, &first, &send, &recv, 1, CM_I32), CM_COMM,
                  "given this communicator up");
    comm->ops->close(comm);
    assert_notes("destroy ");
}

static void waits(void **state)
{
    (void)state;
    struct cm_comm *comm = open_self();
    assert_ok(cm_sync(comm, &first, 1));
    /* What took a while and was done leaves nothing behind. */
    cm_error(CM_DEVICE, "the launch was refused");
    late = 2;
    assert_int_equal(cm_sync(comm, &first, 1e6), CM_OK);
    assert_int_equal(late, 0);
    assert_string_equal(cm_error_text(), "the launch was refused");
    assert_int_equal(cm_error_cause(), CM_DEVICE);
    stuck = true;
    double begin = cm_clock_s();
    assert_status(cm_sync(comm, &first, 0.3), CM_TIMEOUT, "not done after 0.3 s");
    assert_true(cm_clock_s() - begin < 5);
    assert_status(cm_sync(comm, &first, 0), CM_TIMEOUT, "not done after 0 s");
    assert_int_equal(cm_failure_status(CM_TIMEOUT), CM_TIMEOUT);
    /* What a part of the communicator knows ends the wait, and so does what it knows itself. */
    struct cm_comm *part = open_self();
    stuck = true;
    part->ops->abort(part);
    assert_status(cm_sync_parts(comm, &part, 1, &first, 1e6), CM_TIMEOUT,
                  "given this communicator up");
    assert_int_equal(cm_failure_status(CM_TIMEOUT), CM_COMM);
    part->ops->close(part);
    comm->ops->abort(comm);
    assert_status(cm_sync(comm, &first, 1e6), CM_TIMEOUT, "given this communicator up");
    assert_non_null(strstr(cm_error_text(), "what was queued is not done"));
    comm->ops->close(comm);
}

/* Who has left something under way asks nobody what they think of the failure. */
static void no_vote_when_stuck(void **state)
{
    (void)state;
    double numbers[16], shared[16];
    struct cm_comm *comm = open_self();
    struct cm_vote vote = {.device = first.device,
                           .comm = comm,
                           .stream = &first,
                           .timeout_s = 1,
                           .host = numbers,
                           .shared = shared};
    cm_vote_note(&vote, cm_error(CM_DEVICE, "the launch was refused"));
    cm_vote_note(&vote, cm_error(CM_TIMEOUT, "not done after 1 s"));
    assert_status(cm_vote_phase(&vote), CM_DEVICE, "the launch was refused");
    comm->ops->close(comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_vote_when_stuck),
        cmocka_unit_test(at_once),
        cmocka_unit_test(order_across_streams),
        cmocka_unit_test(groups),
        cmocka_unit_test(failures),
        cmocka_unit_test(waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
