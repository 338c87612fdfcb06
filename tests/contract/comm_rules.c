/* Communication: order across streams, what is refused, groups' rules, split, and failures. */
#include <time.h>

#include "comm_fixture.h"

/* The second operation reads what the first one writes, on a stream that starts earlier. */
void test_two_streams(void **state)
{
    (void)state;
    enum { COUNT = 5003, ROUNDS = 8 };
    struct cm_comm *comm = fixture.comm;
    const struct cm_device_ops *device = fixture.device->ops;
    size_t bytes = (size_t)COUNT * 4;
    struct buffer a = make_buffer(bytes), b = make_buffer(bytes), c = make_buffer(bytes);
    struct run run = {.comm = comm, .kind = ALL_REDUCE, .dtype = CM_F32, .count = COUNT};
    for (unsigned round = 0; round < ROUNDS; round++) {
        fill(&a, 0, CM_F32, comm->rank, COUNT);
        poison(&b);
        poison(&c);
        struct cm_stream *first = round % 2 ? fixture.stream : fixture.second;
        struct cm_stream *next = round % 2 ? fixture.second : fixture.stream;
        assert_ok(device->stream_hold(first));
        run.reduce = CM_REDUCE_SUM;
        assert_ok(queue_run(&run, first, a.data, b.data));
        run.reduce = CM_REDUCE_MAX; /* of equal sums: the sum */
        assert_ok(queue_run(&run, next, b.data, c.data));
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        assert_ok(device->stream_release(first));
        finish(next);
        finish(first);
        run.reduce = CM_REDUCE_SUM;
        check_result(&run, &c, 0);
    }
    drop_buffer(&a);
    drop_buffer(&b);
    drop_buffer(&c);
}

/* Each is refused when it is queued, and leaves the communicator usable. */
void test_arguments(void **state)
{
    (void)state;
    struct cm_comm *comm = fixture.comm;
    struct cm_stream *stream = fixture.stream;
    const struct cm_comm_ops *ops = fixture.ops;
    struct buffer buffer = make_buffer(4096), other = make_buffer(4096);
    void *a = buffer.data, *b = other.data;
    static const enum cm_dtype unsummed[] = {CM_TF32, CM_F8E4M3, CM_F8E5M2};
    for (size_t i = 0; i < 3; i++) {
        assert_status(ops->all_reduce(comm, stream, a, b, 1, unsummed[i], CM_REDUCE_SUM), CM_USAGE,
                      "has no reduction");
        assert_status(ops->reduce_scatter(comm, stream, a, b, 1, unsummed[i], CM_REDUCE_SUM),
                      CM_USAGE, "has no reduction");
    }
    assert_status(ops->all_reduce(comm, stream, a, b, 1, CM_DTYPE_COUNT, CM_REDUCE_SUM), CM_USAGE,
                  "no element type");
    assert_status(ops->all_reduce(comm, stream, a, b, 1, CM_F32, (enum cm_reduce)3), CM_USAGE,
                  "no reduction 3");
    assert_status(ops->broadcast(comm, stream, a, 1, CM_F32, comm->size), CM_USAGE, "outside");
    assert_status(ops->send(comm, stream, a, 1, CM_F32, comm->size), CM_USAGE, "outside");
    assert_status(ops->recv(comm, stream, a, 1, CM_F32, 1000), CM_USAGE, "rank 1000 is outside");
    assert_status(ops->send(comm, stream, a, 1, CM_F32, comm->rank), CM_USAGE, "itself");
    assert_status(ops->recv(comm, stream, a, 1, CM_F32, comm->rank), CM_USAGE, "itself");
    assert_status(ops->all_gather(comm, stream, NULL, b, 1, CM_F32), CM_USAGE, "NULL");
    assert_status(ops->all_to_all(comm, stream, a, NULL, 1, CM_F32), CM_USAGE, "NULL");
    assert_status(ops->broadcast(comm, stream, NULL, 1, CM_F32, 0), CM_USAGE, "NULL");
    assert_status(ops->all_reduce(comm, NULL, a, b, 1, CM_F32, CM_REDUCE_SUM), CM_USAGE, "stream");
    assert_status(ops->all_gather(comm, stream, a, b, UINT64_MAX, CM_F64), CM_USAGE, "do not fit");
    assert_ok(ops->async_error(comm));
    finish(stream);
    run_one(&(struct run){.comm = comm, .kind = ALL_REDUCE, .dtype = CM_F32, .count = 7});
    drop_buffer(&buffer);
    drop_buffer(&other);
}

void test_overlap(void **state)
{
    (void)state;
    struct cm_comm *comm = fixture.comm;
    struct cm_stream *stream = fixture.stream;
    const struct cm_comm_ops *ops = fixture.ops;
    struct buffer buffer = make_buffer(4096);
    unsigned char *a = buffer.data;
    assert_status(ops->all_reduce(comm, stream, a, a + 4, 8, CM_F32, CM_REDUCE_SUM), CM_USAGE,
                  "overlap");
    assert_status(ops->reduce_scatter(comm, stream, a, a, 8, CM_F32, CM_REDUCE_SUM), CM_USAGE,
                  "overlap");
    assert_status(ops->all_to_all(comm, stream, a, a, 8, CM_F32), CM_USAGE, "overlap");
    assert_status(ops->all_gather(comm, stream, a + comm->rank * 32 + 4, a, 8, CM_F32), CM_USAGE,
                  "overlap");
    drop_buffer(&buffer);
}

void test_group_rules(void **state)
{
    (void)state;
    struct cm_comm *comm = fixture.comm;
    struct cm_stream *stream = fixture.stream;
    const struct cm_comm_ops *ops = fixture.ops;
    struct buffer a = make_buffer(64), b = make_buffer(64);
    assert_status(ops->group_end(comm), CM_USAGE, "no group was begun");

    assert_ok(ops->group_begin(comm));
    assert_status(ops->group_begin(comm), CM_USAGE, "do not nest");
    assert_ok(ops->group_end(comm));

    /* One bad operation takes the group with it. */
    assert_ok(ops->group_begin(comm));
    assert_ok(ops->all_reduce(comm, stream, a.data, b.data, 4, CM_F32, CM_REDUCE_SUM));
    assert_status(ops->send(comm, stream, a.data, 4, CM_F32, comm->size), CM_USAGE, "outside");
    assert_status(ops->group_end(comm), CM_USAGE, "nothing was queued");

    assert_ok(ops->group_begin(comm));
    assert_ok(ops->all_reduce(comm, stream, a.data, b.data, 4, CM_F32, CM_REDUCE_SUM));
    assert_status(ops->all_reduce(comm, fixture.second, a.data, b.data, 4, CM_F32, CM_REDUCE_SUM),
                  CM_USAGE, "another stream");
    assert_status(ops->group_end(comm), CM_USAGE, "nothing was queued");

    /* To itself, without a partner or with one of another size. */
    assert_ok(ops->group_begin(comm));
    assert_ok(ops->send(comm, stream, a.data, 4, CM_F32, comm->rank));
    assert_status(ops->group_end(comm), CM_USAGE, "has no recv");
    assert_ok(ops->group_begin(comm));
    assert_ok(ops->recv(comm, stream, a.data, 4, CM_F32, comm->rank));
    assert_status(ops->group_end(comm), CM_USAGE, "has no send");
    assert_ok(ops->group_begin(comm));
    assert_ok(ops->recv(comm, stream, b.data, 4, CM_F32, comm->rank));
    assert_ok(ops->send(comm, stream, a.data, 5, CM_F32, comm->rank));
    assert_status(ops->group_end(comm), CM_USAGE, "another size");

    finish(stream);
    pull(&b);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(b.host[i], POISON);
    assert_ok(ops->async_error(comm));
    drop_buffer(&a);
    drop_buffer(&b);
}

/* Ranks of `part` in its order are the ranks `members` of the world. */
static void check_members(struct cm_comm *part, const int32_t *members, unsigned count)
{
    assert_non_null(part);
    assert_int_equal(part->size, count);
    assert_int_equal(members[part->rank], fixture.comm->rank);
    struct buffer send = make_buffer(4), recv = make_buffer(4 * (size_t)count);
    int32_t own = (int32_t)fixture.comm->rank;
    memcpy(send.host, &own, sizeof own);
    push(&send);
    assert_ok(fixture.ops->all_gather(part, fixture.stream, send.data, recv.data, 1, CM_I32));
    finish(fixture.stream);
    pull(&recv);
    assert_memory_equal(recv.host, members, 4 * (size_t)count);
    drop_buffer(&send);
    drop_buffer(&recv);
}

void test_split(void **state)
{
    (void)state;
    struct cm_comm *comm = fixture.comm, *part = NULL, *rest = NULL, *whole = NULL;
    int32_t members[16];
    unsigned count = 0;
    /* Even and odd ranks, in reverse. */
    for (unsigned rank = comm->size; rank-- > 0;)
        if (rank % 2 == comm->rank % 2)
            members[count++] = (int32_t)rank;
    assert_ok(fixture.ops->split(comm, (int)(comm->rank % 2), -(int)comm->rank, &part));
    check_members(part, members, count);
    run_one(&(struct run){.comm = part, .kind = ALL_REDUCE, .dtype = CM_BF16, .count = 999});

    /* All but the last rank; equal keys keep the order. Beside queued work. */
    struct buffer buffer = make_buffer(4000);
    fill(&buffer, 0, CM_F32, comm->rank, 1000);
    assert_ok(fixture.device->ops->stream_hold(fixture.stream));
    struct run sum = {.comm = comm, .kind = ALL_REDUCE, .dtype = CM_F32, .count = 1000};
    assert_ok(queue_run(&sum, fixture.stream, buffer.data, buffer.data));
    bool out = comm->size > 1 && comm->rank == comm->size - 1;
    rest = comm; /* must be overwritten */
    assert_ok(fixture.ops->split(comm, out ? CM_SPLIT_NONE : 7, 0, &rest));
    assert_ok(fixture.device->ops->stream_release(fixture.stream));
    finish(fixture.stream);
    check_result(&sum, &buffer, 0);
    drop_buffer(&buffer);
    for (unsigned rank = 0; rank < comm->size; rank++)
        members[rank] = (int32_t)rank;
    if (out)
        assert_null(rest);
    else
        check_members(rest, members, comm->size > 1 ? comm->size - 1 : 1);

    /* A part of a part, that outlives it. */
    assert_ok(fixture.ops->split(part, 0, (int)comm->rank, &whole));
    fixture.ops->close(part);
    assert_int_equal(whole->size, count);
    run_one(&(struct run){.comm = whole, .kind = ALL_TO_ALL, .dtype = CM_I8, .count = 33});
    fixture.ops->close(rest);
    fixture.ops->close(whole);
}

/* A message longer than its recv is MPI's error: it comes back from the sync, stays with that
 * communicator, and harms no other. NCCL does not notice it. */
static void overrun(bool grouped, const char *call)
{
    struct cm_comm *comm = fixture.comm, *part = NULL;
    const struct cm_comm_ops *ops = fixture.ops;
    assert_ok(ops->split(comm, 0, (int)comm->rank, &part));
    struct buffer buffer = make_buffer(64);
    if (grouped)
        assert_ok(ops->group_begin(part));
    if (comm->rank == 0)
        assert_ok(ops->send(part, fixture.stream, buffer.data, 16, CM_F32, 1));
    if (comm->rank == 1)
        assert_ok(ops->recv(part, fixture.stream, buffer.data, 8, CM_F32, 0));
    if (grouped)
        assert_ok(ops->group_end(part));
    if (comm->rank == 1) {
        assert_status(fixture.device->ops->stream_sync(fixture.stream, TIMEOUT_S), CM_COMM, call);
        assert_non_null(strstr(cm_error_text(), "runcat")); /* in any library's words */
        assert_status(ops->async_error(part), CM_COMM, "rank 1");
        assert_status(ops->recv(part, fixture.stream, buffer.data, 8, CM_F32, 0), CM_COMM, call);
        assert_ok(ops->async_error(comm));
    }
    finish(fixture.stream);
    ops->close(part);
    drop_buffer(&buffer);
}

void test_failure(void **state)
{
    (void)state;
    if (strcmp(fixture.ops->name, "mpi") != 0 || fixture.comm->size == 1)
        return;
    overrun(false, "MPI_Recv");
    overrun(true, "MPI_Wait");
    run_one(&(struct run){.comm = fixture.comm, .kind = ALL_GATHER, .dtype = CM_F32, .count = 5});
}

static enum cm_status break_down(const void *args)
{
    (void)args;
    return cm_error(CM_WRONG, "a kernel failed");
}

/* Operations that a failed stream skips are as if they were never queued. A GPU skips nothing that
 * stood in its queue before the failure was known. */
void test_skipped(void **state)
{
    (void)state;
    struct cm_comm *comm = fixture.comm;
    if (!fixture.device->ops->is_host)
        return;
    struct buffer buffer = make_buffer(400);
    struct run run = {.comm = comm, .kind = ALL_REDUCE, .dtype = CM_F32, .count = 100};
    fill(&buffer, 0, CM_F32, comm->rank, 100);
    for (int round = 0; round < 2; round++) {
        assert_ok(fixture.device->ops->call(fixture.stream, break_down, NULL, 0, "break_down"));
        assert_ok(queue_run(&run, fixture.stream, buffer.data, buffer.data));
        assert_ok(fixture.ops->group_begin(comm));
        assert_ok(queue_run(&run, fixture.stream, buffer.data, buffer.data));
        assert_ok(fixture.ops->group_end(comm));
        assert_status(fixture.device->ops->stream_sync(fixture.stream, TIMEOUT_S), CM_WRONG,
                      "a kernel failed");
    }
    assert_ok(fixture.ops->async_error(comm));
    assert_ok(queue_run(&run, fixture.stream, buffer.data, buffer.data));
    finish(fixture.stream);
    check_result(&run, &buffer, 0);
    drop_buffer(&buffer);
}

/* A communicator that was given up takes nothing more, and what waits for its turn ends. With one
 * rank only: elsewhere MPI's own end would wait for the ranks that were given up. */
void test_abort(void **state)
{
    (void)state;
    const struct cm_comm_ops *ops = fixture.ops;
    struct cm_comm *part = NULL;
    if (strcmp(ops->name, "self") != 0)
        return;
    assert_ok(ops->split(fixture.comm, 0, 0, &part));
    struct buffer a = make_buffer(64), b = make_buffer(64);
    assert_ok(fixture.device->ops->stream_hold(fixture.stream));
    assert_ok(ops->all_reduce(part, fixture.stream, a.data, b.data, 8, CM_F32, CM_REDUCE_SUM));
    assert_ok(ops->all_reduce(part, fixture.second, a.data, b.data, 8, CM_F32, CM_REDUCE_SUM));
    assert_status(fixture.device->ops->stream_sync(fixture.second, 0.02), CM_TIMEOUT, "not done");
    ops->abort(part);
    if (fixture.device->ops->is_host)
        assert_status(fixture.device->ops->stream_sync(fixture.second, TIMEOUT_S), CM_COMM,
                      "given");
    assert_ok(fixture.device->ops->stream_release(fixture.stream));
    if (fixture.device->ops->is_host) {
        assert_status(fixture.device->ops->stream_sync(fixture.stream, TIMEOUT_S), CM_COMM,
                      "given");
    } else { /* what stands in a GPU's queue is not taken back */
        finish(fixture.stream);
        finish(fixture.second);
    }
    assert_status(ops->async_error(part), CM_COMM, "given");
    assert_status(ops->all_reduce(part, fixture.stream, a.data, b.data, 8, CM_F32, CM_REDUCE_SUM),
                  CM_COMM, "given");
    ops->close(part);
    drop_buffer(&a);
    drop_buffer(&b);
}
