/*
 * The fakes themselves: that they move data, do nothing before they must, keep a clock that
 * repeats, and end the process when they are used wrongly.
 */
#include "test.h"

#include <cuda_runtime_api.h>
#if CM_HAVE_CUDNN
#include <cudnn_graph.h>
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake/fake.h"

enum { BYTES = 5000 };
static cudaStream_t one, two;
static unsigned char *device, *pinned;
static cudaEvent_t start, end;

#define GOOD(call) assert_int_equal(call, cudaSuccess)

static int set_up(void **state)
{
    (void)state;
    GOOD(cudaSetDevice(0));
    GOOD(cudaStreamCreateWithPriority(&one, cudaStreamNonBlocking, 0));
    GOOD(cudaStreamCreateWithPriority(&two, cudaStreamNonBlocking, -5));
    GOOD(cudaMalloc((void **)&device, BYTES));
    GOOD(cudaHostAlloc((void **)&pinned, BYTES, 0));
    GOOD(cudaEventCreateWithFlags(&start, cudaEventDefault));
    GOOD(cudaEventCreateWithFlags(&end, cudaEventDefault));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    GOOD(cudaStreamSynchronize(one));
    GOOD(cudaStreamSynchronize(two));
    GOOD(cudaEventDestroy(end));
    GOOD(cudaEventDestroy(start));
    GOOD(cudaFreeHost(pinned));
    GOOD(cudaFree(device));
    GOOD(cudaStreamDestroy(two));
    GOOD(cudaStreamDestroy(one));
    return 0;
}

static void queued_work_waits_for_a_sync(void **state)
{
    (void)state;
    memset(pinned, 1, BYTES);
    GOOD(cudaMemsetAsync(device, 7, BYTES, one));
    GOOD(cudaMemcpyAsync(pinned, device, BYTES, cudaMemcpyDeviceToHost, one));
    assert_int_equal(pinned[BYTES - 1], 1);
    GOOD(cudaStreamSynchronize(one));
    assert_int_equal(pinned[BYTES - 1], 7);
    /* Pinned memory is read when the copy runs, not when it is queued. */
    GOOD(cudaMemcpyAsync(device, pinned, BYTES, cudaMemcpyHostToDevice, one));
    pinned[0] = 9;
    unsigned char back[BYTES];
    GOOD(cudaMemcpyAsync(back, device, BYTES, cudaMemcpyDeviceToHost, one));
    assert_int_equal(back[0], 9);
    assert_int_equal(back[1], 7);
}

static void pageable_memory_is_staged(void **state)
{
    (void)state;
    unsigned char from[BYTES];
    memset(from, 3, BYTES);
    GOOD(cudaMemcpyAsync(device, from, BYTES, cudaMemcpyHostToDevice, one));
    memset(from, 4, BYTES);
    GOOD(cudaMemcpyAsync(pinned, device, BYTES, cudaMemcpyDeviceToHost, one));
    GOOD(cudaStreamSynchronize(one));
    assert_int_equal(pinned[0], 3);
}

static void a_query_says_yes_in_the_end(void **state)
{
    (void)state;
    int polls = 0;
    GOOD(cudaMemsetAsync(device, 1, BYTES, one));
    while (cudaStreamQuery(one) == cudaErrorNotReady)
        polls++;
    assert_in_range(polls, 0, 3);
    GOOD(cudaStreamQuery(one));
}

/* With the wait the second stream sees what the first wrote; without it only sometimes. */
static int seen_without_wait(bool wait)
{
    int seen = 0;
    for (int round = 0; round < 60; round++) {
        GOOD(cudaMemsetAsync(device, 0, 1, two));
        GOOD(cudaStreamSynchronize(two));
        GOOD(cudaMemsetAsync(device, 5, 1, one));
        GOOD(cudaEventRecord(end, one));
        if (wait)
            GOOD(cudaStreamWaitEvent(two, end, 0));
        GOOD(cudaMemcpyAsync(pinned, device, 1, cudaMemcpyDeviceToHost, two));
        GOOD(cudaStreamSynchronize(two));
        seen += pinned[0] == 5;
        GOOD(cudaStreamSynchronize(one));
    }
    return seen;
}

static void streams_run_in_any_order(void **state)
{
    (void)state;
    assert_int_equal(seen_without_wait(true), 60);
    assert_in_range(seen_without_wait(false), 1, 50);
}

static void the_clock_counts_bytes(void **state)
{
    (void)state;
    float ms[2];
    for (int round = 0; round < 2; round++) {
        GOOD(cudaEventRecord(start, one));
        GOOD(cudaMemcpyAsync(device, pinned, BYTES, cudaMemcpyHostToDevice, one));
        GOOD(cudaEventRecord(end, one));
        assert_int_equal(cudaEventElapsedTime(&ms[round], start, end), cudaErrorNotReady);
        GOOD(cudaStreamSynchronize(one));
        GOOD(cudaEventElapsedTime(&ms[round], start, end));
        usleep(1000); /* real time has no part in it */
    }
    assert_true(ms[0] > 1e-3 && ms[0] < 0.1);
    assert_true(ms[0] - ms[1] < 1e-6 && ms[1] - ms[0] < 1e-6);
}

static void fresh_memory_is_poison(void **state)
{
    (void)state;
    unsigned char *fresh = NULL, back = 0;
    GOOD(cudaMalloc((void **)&fresh, 100));
    GOOD(cudaMemcpyAsync(&back, fresh + 99, 1, cudaMemcpyDeviceToHost, one));
    assert_int_equal(back, 0xbd);
    GOOD(cudaFree(fresh));
    size_t left = 0, total = 0;
    GOOD(cudaMemGetInfo(&left, &total));
    assert_int_equal(cudaMalloc((void **)&fresh, total), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    GOOD(cudaGetLastError());
}

static volatile int called;

static void call(void *data)
{
    called = *(int *)data;
}

static void host_functions_run_in_order(void **state)
{
    (void)state;
    int value = 42;
    GOOD(cudaLaunchHostFunc(one, call, &value));
    assert_int_equal(called, 0);
    GOOD(cudaStreamSynchronize(one));
    assert_int_equal(called, 42);
}

/* ---- what must not pass ---- */

static void touch_device_memory(void)
{
    device[0] = 1;
}

static void use_freed_memory(void)
{
    void *block = NULL; /* not one that the parent has too */
    GOOD(cudaMalloc(&block, 10));
    GOOD(cudaFree(block));
    GOOD(cudaMemsetAsync(block, 1, 1, one));
}

static void copy_too_much(void)
{
    GOOD(cudaMemsetAsync(device, 1, BYTES + 1, one));
}

static void use_the_default_stream(void)
{
    GOOD(cudaMemsetAsync(device, 1, 1, NULL));
}

static void use_a_destroyed_stream(void)
{
    cudaStream_t stream;
    GOOD(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, 0));
    GOOD(cudaStreamDestroy(stream));
    GOOD(cudaMemsetAsync(device, 1, 1, stream));
}

static void use_a_destroyed_event(void)
{
    static char lasting[512]; /* the event's memory is not to be read */
    GOOD(cudaEventRecord((cudaEvent_t)(void *)lasting, one));
}

static void ask_what_is_unknown(void)
{
    int value;
    GOOD(cudaDeviceGetAttribute(&value, cudaDevAttrMaxTexture3DDepth, 0));
}

static void call_in_host_function(void *unused)
{
    (void)unused;
    cudaStreamQuery(one);
}

static void use_cuda_in_a_host_function(void)
{
    GOOD(cudaLaunchHostFunc(one, call_in_host_function, NULL));
    GOOD(cudaStreamSynchronize(one));
}

static void name_the_wrong_direction(void)
{
    GOOD(cudaMemcpyAsync(device, pinned, 1, cudaMemcpyDeviceToHost, one));
}

#if CM_HAVE_CUDNN
static cudnnBackendDescriptor_t new_descriptor(cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t made = NULL;
    GOOD(cudnnBackendCreateDescriptor(type, &made));
    return made;
}

static void set_a_wrong_type(void)
{
    int64_t axis = 0;
    cudnnBackendSetAttribute(new_descriptor(CUDNN_BACKEND_POINTWISE_DESCRIPTOR),
                             CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_INT64, 1, &axis);
}

static void set_a_foreign_attribute(void)
{
    int64_t axis = 0;
    cudnnBackendSetAttribute(new_descriptor(CUDNN_BACKEND_MATMUL_DESCRIPTOR),
                             CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
}

static void finalize_half_a_tensor(void)
{
    cudnnBackendFinalize(new_descriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR));
}

static cudnnBackendDescriptor_t new_formula(void)
{
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t made = new_descriptor(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    GOOD(cudnnBackendSetAttribute(made, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1,
                                  &type));
    return made;
}

static void use_what_is_not_finalized(void)
{
    cudnnBackendDescriptor_t formula = new_formula();
    cudnnBackendSetAttribute(new_descriptor(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR),
                             CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                             &formula);
}

static void change_what_is_finalized(void)
{
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t formula = new_formula();
    GOOD(cudnnBackendFinalize(formula));
    cudnnBackendSetAttribute(formula, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
}

static void destroy_twice(void)
{
    static char lasting[512]; /* the descriptor's memory is not to be read */
    cudnnBackendDestroyDescriptor((cudnnBackendDescriptor_t)lasting);
}
#endif

static void wrong_use_ends_the_process(void **state)
{
    (void)state;
    static const struct {
        void (*use)(void);
        const char *message;
        int signal;
    } rows[] = {
        {touch_device_memory, "the host touches device memory", SIGSEGV},
        {use_freed_memory, "was freed or never was", SIGABRT},
        {copy_too_much, "leave their block", SIGABRT},
        {use_the_default_stream, "default stream", SIGABRT},
        {use_a_destroyed_stream, "is no stream", SIGABRT},
        {use_a_destroyed_event, "is no event", SIGABRT},
        {ask_what_is_unknown, "is not faked", SIGABRT},
        {use_cuda_in_a_host_function, "in a host function", SIGABRT},
        {name_the_wrong_direction, "does not fit the memory", SIGABRT},
#if CM_HAVE_CUDNN
        {set_a_wrong_type, "values of type", SIGABRT},
        {set_a_foreign_attribute, "have no attribute", SIGABRT},
        {finalize_half_a_tensor, "without attribute", SIGABRT},
        {use_what_is_not_finalized, "is not finalized", SIGABRT},
        {change_what_is_finalized, "after the descriptor was finalized", SIGABRT},
        {destroy_twice, "is no descriptor", SIGABRT},
#endif
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int pipes[2], status = 0;
        char text[512] = "";
        assert_int_equal(pipe(pipes), 0);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            dup2(pipes[1], 2);
            signal(SIGABRT, SIG_DFL); /* in place of cmocka's */
            fake_watch_faults();
            rows[i].use();
            _exit(0);
        }
        close(pipes[1]);
        ssize_t length = read(pipes[0], text, sizeof text - 1);
        close(pipes[0]);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(length > 0);
        if (strstr(text, rows[i].message) == NULL || !WIFSIGNALED(status) ||
            WTERMSIG(status) != rows[i].signal)
            fail_msg("row %zu: status %#x: %s", i, (unsigned)status, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queued_work_waits_for_a_sync),
        cmocka_unit_test(pageable_memory_is_staged),
        cmocka_unit_test(a_query_says_yes_in_the_end),
        cmocka_unit_test(streams_run_in_any_order),
        cmocka_unit_test(the_clock_counts_bytes),
        cmocka_unit_test(fresh_memory_is_poison),
        cmocka_unit_test(wrong_use_ends_the_process),
        cmocka_unit_test(host_functions_run_in_order), /* starts a thread, which no fork has */
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
