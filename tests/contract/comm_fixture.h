/*
 * comm_fixture.h: what the tests of communication share: the backend under test, inputs, guarded
 * buffers, and collectives with their expected results.
 */
#ifndef TESTS_CONTRACT_COMM_FIXTURE_H
#define TESTS_CONTRACT_COMM_FIXTURE_H

#include <stdbool.h>

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "test.h"

#define TIMEOUT_S 60.0
#define POISON    0xA5

/* Made by choose_backend and open_all. */
struct fixture {
    struct cm_device *device;
    struct cm_stream *stream, *second;
    struct cm_world world;
    const struct cm_comm_ops *ops;
    struct cm_comm *comm;
};
extern struct fixture fixture;

/* Replace this process by the launcher with `ranks` ranks of this program. Returns only when that
 * is not possible: 77 when MPI or its launcher is missing. `mode` may be NULL. */
int launch(const char *program, const char *ranks, const char *mode);
/* The same without a launcher, for GPUs: the ranks, a GPU each, meet by NCCL_COMM_ID. Returns when
 * all have ended: 0 when all are well. */
int start(const char *program, const char *ranks, const char *mode);

/* False, with a line that says why, when the backend cannot be used here. */
bool choose_backend(const char *name, const char *ranks);
void open_device(void);
int open_all(void **state);
int close_all(void **state);

/* Memory for communication, which the host may not be able to read, and a copy that it reads and
 * writes. Between guards, which drop_buffer checks. */
struct buffer {
    unsigned char *all, *data;
    unsigned char *host_all, *host; /* of all, of data */
    size_t size_bytes;
};
struct buffer make_buffer(size_t size_bytes); /* poisoned */
void poison(struct buffer *buffer);
void drop_buffer(struct buffer *buffer);
/* From the copy to the memory, and back. Each waits. */
void push(const struct buffer *buffer);
void pull(const struct buffer *buffer);
/* Elements of rank `rank`'s input, from its first, to the place `first` of the buffer. */
void fill(struct buffer *buffer, size_t first, enum cm_dtype dtype, unsigned rank, uint64_t count);
void finish(struct cm_stream *stream);

enum kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, ALL_TO_ALL, BROADCAST, KINDS };

struct run {
    struct cm_comm *comm;
    enum kind kind;
    enum cm_dtype dtype;
    enum cm_reduce reduce;
    uint64_t count;
    bool in_place;
    unsigned root;
};

bool reduces(enum kind kind);
uint64_t send_count(const struct run *run);
uint64_t recv_count(const struct run *run);
enum cm_status queue_run(const struct run *run, struct cm_stream *stream, const void *send,
                         void *recv);
/* Hold what arrived, from byte `offset` on, against what every rank's input gives. */
void check_result(const struct run *run, const struct buffer *recv, size_t offset);
/* Queue, sync and check with buffers of its own. */
void run_one(const struct run *run);

/* The tests of comm_rules.c. */
void test_two_streams(void **state);
void test_arguments(void **state);
void test_overlap(void **state);
void test_group_rules(void **state);
void test_split(void **state);
void test_failure(void **state);
void test_skipped(void **state);
void test_abort(void **state);

#endif
