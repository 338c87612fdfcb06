/* The backend under test, inputs, guarded buffers, and collectives with their expected results. */
#include "comm_fixture.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "start.h"

#define REDZONE_BYTES 256
#define REDZONE       0x5C

struct fixture fixture;

/* Takes the place of the C library's. When MPI ends it unloads its plugins, and LeakSanitizer can
 * no longer name where their leaks are from, to pass over them. */
int dlclose(void *handle)
{
    (void)handle;
    return 0;
}

int launch(const char *program, const char *ranks, const char *mode)
{
    struct cm_launch command;
    const char *argv[CM_LAUNCH_ARGS_MAX + 5];
    size_t count = 0;
    if (!choose_backend("mpi", NULL))
        return 77;
    if (cm_launch_command((unsigned)atoi(ranks), &command) != CM_OK) {
        printf("skipped: %s\n", cm_error_text());
        return 77;
    }
    for (; command.argv[count] != NULL; count++)
        argv[count] = command.argv[count];
    argv[count++] = program;
    argv[count++] = "mpi";
    argv[count++] = ranks;
    argv[count++] = mode;
    argv[count] = NULL;
    for (size_t i = 0; command.environment[i] != NULL; i += 2)
        setenv(command.environment[i], command.environment[i + 1], 1);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    perror(argv[0]);
    return 1;
}

int start(const char *program, const char *ranks, const char *mode)
{
    if (!choose_backend("nccl", NULL))
        return 77;
    const char *const words[] = {"nccl", ranks, mode, NULL};
    return start_ranks(program, (unsigned)atoi(ranks), words);
}

/* Where the backend's ranks compute: NCCL's on a GPU, MPI's on the CPU, one alone on the best. */
static const struct cm_device_ops *choose_device(void)
{
    if (strcmp(fixture.ops->name, "mpi") == 0)
        return cm_device_find("cpu");
    return cm_device_default();
}

bool choose_backend(const char *name, const char *ranks)
{
    char reason[160];
    fixture.ops = cm_comm_find(name);
    if (fixture.ops == NULL) {
        printf("skipped: %s\n", cm_comm_missing(name));
        return false;
    }
    if (!fixture.ops->available(reason, sizeof reason)) {
        printf("skipped: %s\n", reason);
        return false;
    }
    if (strcmp(name, "nccl") == 0 && cm_device_default()->is_host) {
        printf("skipped: there is no GPU\n");
        return false;
    }
    fixture.world = (struct cm_world){.size = 1, .local_size = 1, .launcher = "none"};
    if (ranks == NULL || strcmp(name, "self") == 0)
        return true;
    /* Ranks that do not know of each other must not pass as N successes. */
    if (cm_world_from_environment(&fixture.world) != CM_OK ||
        fixture.world.size != (unsigned)atoi(ranks)) {
        printf("FAILED: told %s ranks, the environment tells %u: %s\n", ranks, fixture.world.size,
               cm_error_text());
        exit(1);
    }
    return true;
}

/* NCCL's ranks cannot know better than what they are told; the others do. */
static void open_in_wrong_worlds(void)
{
    struct cm_world wrong = fixture.world;
    wrong.size += 1;
    assert_status(fixture.ops->open(fixture.device, &wrong, NULL, TIMEOUT_S, &fixture.comm),
                  CM_USAGE, "told ");
    wrong = fixture.world;
    wrong.rank += 1;
    assert_status(fixture.ops->open(fixture.device, &wrong, NULL, TIMEOUT_S, &fixture.comm),
                  CM_USAGE, "told rank");
    assert_null(fixture.comm);
}

void open_device(void)
{
    const struct cm_device_ops *device = choose_device();
    struct cm_device_config config = {.threads = 1,
                                      .index = device->is_host ? 0 : fixture.world.local_rank};
    assert_ok(device->open(&config, &fixture.device));
    assert_ok(device->stream_create(fixture.device, 0, &fixture.stream));
    assert_ok(device->stream_create(fixture.device, 1, &fixture.second));
}

int open_all(void **state)
{
    (void)state;
    open_device();
    if (strcmp(fixture.ops->name, "nccl") != 0)
        open_in_wrong_worlds();
    assert_ok(fixture.ops->open(fixture.device, &fixture.world, NULL, TIMEOUT_S, &fixture.comm));
    assert_int_equal(fixture.comm->rank, fixture.world.rank);
    assert_int_equal(fixture.comm->size, fixture.world.size);
    assert_ptr_equal(fixture.comm->ops, fixture.ops);
    assert_ptr_equal(fixture.comm->device, fixture.device);
    assert_true(strlen(fixture.comm->implementation) > 0);
    return 0;
}

int close_all(void **state)
{
    (void)state;
    assert_ok(fixture.ops->async_error(fixture.comm));
    fixture.ops->close(NULL);
    fixture.ops->close(fixture.comm);
    fixture.device->ops->stream_destroy(fixture.second);
    fixture.device->ops->stream_destroy(fixture.stream);
    fixture.device->ops->close(fixture.device);
    return 0;
}

static void move(void *to, const void *from, size_t size_bytes)
{
    assert_ok(fixture.device->ops->copy(fixture.stream, to, from, size_bytes));
    finish(fixture.stream);
}

void push(const struct buffer *buffer)
{
    move(buffer->all, buffer->host_all, buffer->size_bytes + 2 * REDZONE_BYTES);
}

void pull(const struct buffer *buffer)
{
    move(buffer->host_all, buffer->all, buffer->size_bytes + 2 * REDZONE_BYTES);
}

void poison(struct buffer *buffer)
{
    memset(buffer->host, POISON, buffer->size_bytes);
    push(buffer);
}

struct buffer make_buffer(size_t size_bytes)
{
    struct buffer buffer = {.size_bytes = size_bytes};
    size_t all = size_bytes + 2 * REDZONE_BYTES;
    void *memory = NULL, *host = NULL;
    assert_ok(fixture.device->ops->alloc(fixture.device, CM_MEMORY_COMM, all, &memory));
    assert_ok(fixture.device->ops->alloc(fixture.device, CM_MEMORY_HOST, all, &host));
    buffer.all = memory;
    buffer.data = buffer.all + REDZONE_BYTES;
    buffer.host_all = host;
    buffer.host = buffer.host_all + REDZONE_BYTES;
    memset(buffer.host_all, REDZONE, all);
    poison(&buffer);
    return buffer;
}

void drop_buffer(struct buffer *buffer)
{
    pull(buffer);
    for (size_t i = 0; i < REDZONE_BYTES; i++) {
        assert_int_equal(buffer->host_all[i], REDZONE);
        assert_int_equal(buffer->host[buffer->size_bytes + i], REDZONE);
    }
    fixture.device->ops->free(fixture.device, CM_MEMORY_HOST, buffer->host_all);
    fixture.device->ops->free(fixture.device, CM_MEMORY_COMM, buffer->all);
}

/* Element `index` of rank `rank`'s input: small multiples of 1/16, or integers, whose sums over a
 * few ranks are exact in every type that reduces, so that results must match bit for bit. */
static double input(enum cm_dtype dtype, unsigned rank, uint64_t index)
{
    uint64_t hash = (index + 1) * 0x9E3779B97F4A7C15u ^ (rank + 1) * 0xD1B54A32D192ED03u;
    hash = (hash ^ hash >> 29) * 0xBF58476D1CE4E5B9u;
    double value = (double)(hash >> 40 & 31) - 16;
    return dtype == CM_I32 || dtype == CM_I8 ? value : value / 16;
}

void fill(struct buffer *buffer, size_t first, enum cm_dtype dtype, unsigned rank, uint64_t count)
{
    size_t size = cm_dtype_size(dtype);
    for (uint64_t i = 0; i < count; i++)
        cm_dtype_store(dtype, input(dtype, rank, i), buffer->host + (first + i) * size);
    push(buffer);
}

void finish(struct cm_stream *stream)
{
    assert_ok(fixture.device->ops->stream_sync(stream, TIMEOUT_S));
}

static const char *const kind_names[] = {"all_reduce", "reduce_scatter", "all_gather", "all_to_all",
                                         "broadcast"};

bool reduces(enum kind kind)
{
    return kind == ALL_REDUCE || kind == REDUCE_SCATTER;
}

uint64_t send_count(const struct run *run)
{
    bool parts = run->kind == REDUCE_SCATTER || run->kind == ALL_TO_ALL;
    return parts ? run->count * run->comm->size : run->count;
}

uint64_t recv_count(const struct run *run)
{
    bool parts = run->kind == ALL_GATHER || run->kind == ALL_TO_ALL;
    return parts ? run->count * run->comm->size : run->count;
}

enum cm_status queue_run(const struct run *run, struct cm_stream *stream, const void *send,
                         void *recv)
{
    const struct cm_comm_ops *ops = fixture.ops;
    switch (run->kind) {
    case ALL_REDUCE:
        return ops->all_reduce(run->comm, stream, send, recv, run->count, run->dtype, run->reduce);
    case REDUCE_SCATTER:
        return ops->reduce_scatter(run->comm, stream, send, recv, run->count, run->dtype,
                                   run->reduce);
    case ALL_GATHER:
        return ops->all_gather(run->comm, stream, send, recv, run->count, run->dtype);
    case ALL_TO_ALL:
        return ops->all_to_all(run->comm, stream, send, recv, run->count, run->dtype);
    default:
        return ops->broadcast(run->comm, stream, recv, run->count, run->dtype, run->root);
    }
}

static double reduced(const struct run *run, uint64_t index)
{
    double result = input(run->dtype, 0, index);
    for (unsigned rank = 1; rank < run->comm->size; rank++) {
        double value = input(run->dtype, rank, index);
        if (run->reduce == CM_REDUCE_SUM)
            result += value;
        else if (run->reduce == CM_REDUCE_MAX ? value > result : value < result)
            result = value;
    }
    return result;
}

static double expected(const struct run *run, uint64_t index)
{
    uint64_t part = index / run->count, within = index % run->count;
    switch (run->kind) {
    case ALL_REDUCE:
        return reduced(run, index);
    case REDUCE_SCATTER:
        return reduced(run, run->comm->rank * run->count + index);
    case ALL_GATHER:
        return input(run->dtype, (unsigned)part, within);
    case ALL_TO_ALL:
        return input(run->dtype, (unsigned)part, run->comm->rank * run->count + within);
    default:
        return input(run->dtype, run->root, index);
    }
}

void check_result(const struct run *run, const struct buffer *buffer, size_t offset)
{
    size_t size = cm_dtype_size(run->dtype);
    const unsigned char *recv = buffer->host + offset;
    pull(buffer);
    for (uint64_t i = 0; i < recv_count(run); i++) {
        unsigned char want[8];
        cm_dtype_store(run->dtype, expected(run, i), want);
        if (memcmp(want, recv + i * size, size) != 0)
            fail_msg("%s of %llu %s on rank %u of %u%s: element %llu is %g, not %g",
                     kind_names[run->kind], (unsigned long long)run->count,
                     cm_dtype_name(run->dtype), run->comm->rank, run->comm->size,
                     run->in_place ? ", in place" : "", (unsigned long long)i,
                     cm_dtype_load(run->dtype, recv + i * size), expected(run, i));
    }
}

void run_one(const struct run *run)
{
    size_t size = cm_dtype_size(run->dtype);
    unsigned rank = run->comm->rank;
    struct buffer send = make_buffer(send_count(run) * size);
    struct buffer recv = make_buffer(recv_count(run) * size);
    fill(&send, 0, run->dtype, rank, send_count(run));
    unsigned char *before = malloc(send.size_bytes);
    assert_non_null(before);
    memcpy(before, send.host, send.size_bytes);
    const void *from = send.data;
    if (run->kind == BROADCAST && rank == run->root)
        fill(&recv, 0, run->dtype, rank, run->count);
    if (run->in_place) {
        size_t first = run->kind == ALL_GATHER ? rank * run->count : 0;
        fill(&recv, first, run->dtype, rank, run->count);
        from = recv.data + first * size;
    }
    assert_ok(queue_run(run, fixture.stream, from, recv.data));
    finish(fixture.stream);
    check_result(run, &recv, 0);
    pull(&send);
    if (memcmp(before, send.host, send.size_bytes) != 0)
        fail_msg("%s wrote into what it sends", kind_names[run->kind]);
    free(before);
    drop_buffer(&send);
    drop_buffer(&recv);
}
