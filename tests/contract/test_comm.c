/*
 * The contract of communication, on every backend.
 *
 *   test_comm                    self, in this process
 *   test_comm launch N           starts N ranks of `test_comm mpi N` by the launch command
 *   test_comm launch N abort     the same of `test_comm mpi N abort`: a rank that gives up
 *   test_comm launch N late      a rank that never comes
 *   test_comm launch N meet      ranks that meet by MPI for another library
 *   test_comm start N [MODE]     N ranks of `test_comm nccl N`, a GPU each
 *
 * A rank that fails ends at once, and the launcher ends the others and fails.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "comm_fixture.h"
#include "host/measure/meet.h"

static bool reducible(enum cm_dtype dtype)
{
    return dtype != CM_TF32 && dtype != CM_F8E4M3 && dtype != CM_F8E5M2;
}

static void test_collectives(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1, 13, 1000, 2501};
    for (enum cm_dtype dtype = 0; dtype < CM_ELEMENT_COUNT; dtype++) {
        for (enum kind kind = 0; kind < KINDS; kind++) {
            if (reduces(kind) && !reducible(dtype))
                continue;
            enum cm_reduce last = reduces(kind) ? CM_REDUCE_MIN : CM_REDUCE_SUM;
            for (enum cm_reduce reduce = CM_REDUCE_SUM; reduce <= last; reduce++)
                for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
                    run_one(&(struct run){.comm = fixture.comm,
                                          .kind = kind,
                                          .dtype = dtype,
                                          .reduce = reduce,
                                          .count = counts[i],
                                          .root = fixture.comm->size - 1});
        }
    }
}

static void test_in_place(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1, 2501, 70001};
    static const enum cm_dtype dtypes[] = {CM_F32, CM_BF16};
    for (size_t i = 0; i < 6; i++) {
        struct run run = {
            .comm = fixture.comm, .dtype = dtypes[i % 2], .count = counts[i / 2], .in_place = true};
        run.kind = ALL_REDUCE;
        run_one(&run);
        run.kind = ALL_GATHER;
        run_one(&run);
    }
}

static void test_large(void **state)
{
    (void)state;
    for (enum kind kind = 0; kind < KINDS; kind++)
        for (unsigned root = 0; root < (kind == BROADCAST ? fixture.comm->size : 1); root++)
            run_one(&(struct run){.comm = fixture.comm,
                                  .kind = kind,
                                  .dtype = CM_F32,
                                  .count = 262147,
                                  .root = root});
}

/* Nothing is read or written, and nothing waits. */
static void test_nothing(void **state)
{
    (void)state;
    const struct cm_comm_ops *ops = fixture.ops;
    struct buffer buffer = make_buffer(64);
    for (enum kind kind = 0; kind < KINDS; kind++) {
        struct run run = {.comm = fixture.comm, .kind = kind, .dtype = CM_F32};
        assert_ok(queue_run(&run, fixture.stream, buffer.data, buffer.data));
        assert_ok(queue_run(&run, fixture.stream, NULL, NULL));
    }
    unsigned peer = (fixture.comm->rank + 1) % fixture.comm->size;
    assert_ok(ops->group_begin(fixture.comm));
    assert_ok(ops->send(fixture.comm, fixture.stream, buffer.data, 0, CM_F32, peer));
    assert_ok(ops->group_end(fixture.comm));
    assert_ok(ops->group_begin(fixture.comm));
    assert_ok(ops->group_end(fixture.comm));
    finish(fixture.stream);
    pull(&buffer);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(buffer.host[i], POISON);
    drop_buffer(&buffer);
}

/* Every rank sends to the next and receives from the one before; alone, from itself. */
static void ring(uint64_t count, enum cm_dtype dtype, bool with_sum)
{
    struct cm_comm *comm = fixture.comm;
    size_t size = cm_dtype_size(dtype);
    unsigned next = (comm->rank + 1) % comm->size;
    unsigned before = (comm->rank + comm->size - 1) % comm->size;
    struct buffer send = make_buffer(count * size), recv = make_buffer(count * size);
    struct buffer sum = make_buffer(count * size);
    fill(&send, 0, dtype, comm->rank, count);
    struct run add = {.comm = comm, .kind = ALL_REDUCE, .dtype = dtype, .count = count};
    assert_ok(fixture.ops->group_begin(comm));
    assert_ok(fixture.ops->send(comm, fixture.stream, send.data, count, dtype, next));
    if (with_sum)
        assert_ok(queue_run(&add, fixture.stream, send.data, sum.data));
    assert_ok(fixture.ops->recv(comm, fixture.stream, recv.data, count, dtype, before));
    assert_ok(fixture.ops->group_end(comm));
    finish(fixture.stream);
    if (with_sum)
        check_result(&add, &sum, 0);
    /* What a broadcast from there would bring. */
    struct run from = {
        .comm = comm, .kind = BROADCAST, .dtype = dtype, .count = count, .root = before};
    check_result(&from, &recv, 0);
    drop_buffer(&send);
    drop_buffer(&recv);
    drop_buffer(&sum);
}

static void test_ring(void **state)
{
    (void)state;
    /* Small messages would pass without a partner; large ones hang unless both progress. */
    static const uint64_t counts[] = {1, 2501, 300007};
    for (size_t i = 0; i < 3; i++) {
        ring(counts[i], CM_F32, false);
        ring(counts[i], CM_BF16, true);
    }
    for (enum cm_dtype dtype = 0; dtype < CM_ELEMENT_COUNT; dtype++)
        ring(17, dtype, false);
}

/* Both ways between every two ranks at once, several messages each way, in order; groups one after
 * the other without a sync in between. */
static void test_exchange(void **state)
{
    (void)state;
    enum { COUNT = 20011, ROUNDS = 3 };
    struct cm_comm *comm = fixture.comm;
    struct cm_stream *stream = fixture.stream;
    const struct cm_comm_ops *ops = fixture.ops;
    size_t bytes = (size_t)COUNT * 4;
    struct buffer send = make_buffer(bytes * comm->size);
    struct buffer recv = make_buffer(bytes * comm->size * ROUNDS);
    fill(&send, 0, CM_F32, comm->rank, (uint64_t)COUNT * comm->size);
    for (unsigned round = 0; round < ROUNDS; round++) {
        assert_ok(ops->group_begin(comm));
        for (unsigned peer = 0; peer < comm->size; peer++) {
            unsigned char *to = recv.data + (round * comm->size + peer) * bytes;
            const unsigned char *from = send.data + peer * bytes;
            assert_ok(ops->send(comm, stream, from, 11, CM_F32, peer));
            assert_ok(ops->recv(comm, stream, to, 11, CM_F32, peer));
            assert_ok(ops->recv(comm, stream, to + 44, COUNT - 11, CM_F32, peer));
            assert_ok(ops->send(comm, stream, from + 44, COUNT - 11, CM_F32, peer));
        }
        assert_ok(ops->group_end(comm));
    }
    finish(stream);
    struct run run = {.comm = comm, .kind = ALL_TO_ALL, .dtype = CM_F32, .count = COUNT};
    for (unsigned round = 0; round < ROUNDS; round++)
        check_result(&run, &recv, round * comm->size * bytes);
    drop_buffer(&send);
    drop_buffer(&recv);
}

/* send and recv alone: a chain from rank to rank. */
static void test_chain(void **state)
{
    (void)state;
    enum { COUNT = 40009 };
    struct cm_comm *comm = fixture.comm;
    struct buffer buffer = make_buffer((size_t)COUNT * 2);
    if (comm->rank == 0)
        fill(&buffer, 0, CM_F16, 0, COUNT);
    else
        assert_ok(
            fixture.ops->recv(comm, fixture.stream, buffer.data, COUNT, CM_F16, comm->rank - 1));
    if (comm->rank + 1 < comm->size)
        assert_ok(
            fixture.ops->send(comm, fixture.stream, buffer.data, COUNT, CM_F16, comm->rank + 1));
    finish(fixture.stream);
    struct run run = {.comm = comm, .kind = BROADCAST, .dtype = CM_F16, .count = COUNT};
    check_result(&run, &buffer, 0);
    drop_buffer(&buffer);
}

/* Rank 0 waits for a message that never comes, gives up, and can still say so and leave. */
static int give_up(void)
{
    open_all(NULL);
    if (fixture.comm->rank != 0)
        pause();
    struct buffer buffer = make_buffer(64);
    assert_ok(fixture.ops->recv(fixture.comm, fixture.stream, buffer.data, 64, CM_I8, 1));
    assert_status(fixture.device->ops->stream_sync(fixture.stream, 0.05), CM_TIMEOUT, "not done");
    fixture.ops->abort(fixture.comm);
    assert_status(fixture.ops->async_error(fixture.comm), CM_COMM, "given");
    fixture.ops->close(fixture.comm);
    printf("rank 0 gave up and left\n");
    fflush(stdout);
    _exit(5);
}

/* Rank 1 never comes; the deadline ends rank 0. */
static int come_late(void)
{
    if (fixture.world.rank != 0)
        pause();
    open_device();
    assert_ok(fixture.ops->open(fixture.device, &fixture.world, NULL, 0.5, &fixture.comm));
    return 0;
}

/* What rank 0 knows reaches the others by MPI, for a library that has ranks brought together. */
static int meet(void)
{
    struct cm_meeting meeting;
    bool needed = false;
    char bytes[16] = "";
    unsetenv("NCCL_COMM_ID");
    if (fixture.world.rank == 0)
        snprintf(bytes, sizeof bytes, "by MPI");
    assert_ok(cm_meeting_outside(&fixture.world, "nccl", &meeting, &needed));
    assert_true(needed);
    assert_ok(meeting.share(meeting.impl, bytes, sizeof bytes, TIMEOUT_S));
    assert_string_equal(bytes, "by MPI");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "launch") == 0)
        return launch(argv[0], argv[2], argv[3]);
    if (argc >= 3 && strcmp(argv[1], "start") == 0)
        return start(argv[0], argv[2], argv[3]);
    /* A rank that failed must not go on to a test in which the others do not meet it. */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (!choose_backend(argc >= 3 ? argv[1] : "self", argc >= 3 ? argv[2] : "1"))
        return 77;
    if (argc >= 4 && strcmp(argv[3], "meet") == 0)
        return meet();
    if (argc >= 4)
        return strcmp(argv[3], "late") == 0 ? come_late() : give_up();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_collectives), cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_large),       cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_ring),        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_chain),       cmocka_unit_test(test_two_streams),
        cmocka_unit_test(test_arguments),   cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_group_rules), cmocka_unit_test(test_split),
        cmocka_unit_test(test_failure),     cmocka_unit_test(test_skipped),
        cmocka_unit_test(test_abort),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
