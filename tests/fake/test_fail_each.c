/*
 * Every faked call fails once, in one process: a whole use of the device, of a communicator and of
 * the kernels of a training step gives all back whatever fails, and says what it was.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/kernels.h"
#include "clustermark/train_kernels.h"
#include "fake/fake.h"
#include "fake/train_calls.h"

/* Of the device; the communicator has one rank, and that is rank 0. */
enum { RANK = 7 };
enum { COUNT = 512, KINDS = CM_MEMORY_COMM + 1 };

struct use {
    const struct cm_device_ops *ops;
    struct cm_device *device;
    struct cm_stream *streams[2];
    struct cm_event *events[2];
    void *memory[KINDS], *train_memory;
    struct cm_comm *comm;
    struct cm_gemm *gemm;
};

static enum cm_status make(struct use *use)
{
    const struct cm_device_config config = {.rank = RANK, .far_node = -1};
    const struct cm_world alone = {.size = 1, .local_size = 1, .launcher = "none"};
    const struct cm_comm_ops *nccl = cm_comm_find("nccl");
    enum cm_status status = use->ops->open(&config, &use->device);
    for (int i = 0; i < 2 && status == CM_OK; i++)
        status = use->ops->stream_create(use->device, i, &use->streams[i]);
    for (int i = 0; i < 2 && status == CM_OK; i++)
        status = use->ops->event_create(use->device, &use->events[i]);
    if (status == CM_OK)
        status = nccl->open(use->device, &alone, NULL, 5, &use->comm);
    for (int kind = 0; kind < KINDS && status == CM_OK; kind++) {
        if (kind != CM_MEMORY_HOST_FAR) /* there is no such node */
            status = use->ops->alloc(use->device, (enum cm_memory_kind)kind, COUNT * sizeof(float),
                                     &use->memory[kind]);
    }
    return status;
}

static enum cm_status count_call(const void *args)
{
    int *const *count = args;
    ++**count;
    return CM_OK;
}

static enum cm_status queue_work(struct use *use, int *count)
{
    const struct cm_device_ops *ops = use->ops;
    struct cm_stream *stream = use->streams[0], *side = use->streams[1];
    void *device = use->memory[CM_MEMORY_DEVICE], *comm = use->memory[CM_MEMORY_COMM];
    struct cm_verify_result *result = use->memory[CM_MEMORY_HOST];
    enum cm_status status = ops->event_record(use->events[0], stream);
    if (status == CM_OK)
        status = use->device->kernels->fill_normal(stream, device, COUNT, CM_F32, 1, 0);
    if (status == CM_OK)
        status = ops->copy(stream, comm, device, COUNT * sizeof(float));
    if (status == CM_OK)
        status = ops->event_record(use->events[1], stream);
    if (status == CM_OK)
        status = ops->stream_wait(side, use->events[1]);
    if (status == CM_OK)
        status =
            use->comm->ops->all_reduce(use->comm, side, comm, comm, COUNT, CM_F32, CM_REDUCE_SUM);
    if (status == CM_OK)
        status = use->device->kernels->verify(side, comm, device, COUNT, CM_F32, 0, 0, result);
    return status == CM_OK ? ops->call(side, count_call, &count, sizeof count, "count") : status;
}

static enum cm_status work(struct use *use)
{
    const struct cm_device_ops *ops = use->ops;
    struct cm_verify_result *result = use->memory[CM_MEMORY_HOST];
    static int count;
    double seconds = 0;
    enum cm_status status = ops->stream_hold(use->streams[0]);
    if (status != CM_OK)
        return status;
    enum cm_status queued = queue_work(use, &count);
    status = ops->stream_release(use->streams[0]);
    for (int i = 0; i < 2; i++) {
        enum cm_status synced = ops->stream_sync(use->streams[i], 5);
        status = status != CM_OK ? status : synced;
    }
    if (queued != CM_OK || status != CM_OK)
        return queued != CM_OK ? queued : status;
    assert_int_equal(result->mismatches, 0);
    assert_int_equal(result->checked, COUNT);
    return ops->elapsed(use->events[0], use->events[1], &seconds);
}

static enum cm_status multiply(struct use *use)
{
    const struct cm_gemm_desc desc = {
        .dtype = CM_F32, .out_dtype = CM_F32, .m = 8, .n = 8, .k = 8, .batch = 1};
    const struct cm_kernels *kernels = use->device->kernels;
    char *device = use->memory[CM_MEMORY_DEVICE];
    enum cm_status status = kernels->gemm_plan(use->device, &desc, &use->gemm);
    if (status == CM_OK)
        status = kernels->gemm(use->streams[0], use->gemm, device, device + 256,
                               use->memory[CM_MEMORY_COMM]);
    return status == CM_OK ? use->ops->stream_sync(use->streams[0], 5) : status;
}

/* By a library, forward and back. Operands lie 128 bytes apart, scratch is the last. */
static enum cm_status attend(struct use *use)
{
    const struct cm_attention_library *library = use->device->kernels->train->attention_library;
    const struct cm_attention attention = {.dtype = CM_BF16,
                                           .batch = 1,
                                           .heads = 2,
                                           .kv_heads = 1,
                                           .head_size = 8,
                                           .q_length = 4,
                                           .k_length = 4,
                                           .positions = {1, 4, {0, 0}},
                                           .q_stride = 16,
                                           .kv_stride = 8,
                                           .o_stride = 16,
                                           .dq_stride = 16,
                                           .dkv_stride = 8};
    enum { Q, K, V, O, LSE, DOUT, DQ, DK, DV, SCRATCH, OPERANDS };
    char version[CM_LIBRARY_VERSION_MAX], *at[OPERANDS];
    for (int i = 0; i < OPERANDS; i++)
        at[i] = (char *)use->memory[CM_MEMORY_DEVICE] + (size_t)i * 128;
    enum cm_status status = library->prepare(use->device, &attention, version);
    if (status == CM_OK)
        status = library->attention(use->streams[0], &attention, at[Q], at[K], at[V], at[O],
                                    (float *)(void *)at[LSE]);
    if (status == CM_OK)
        status = library->attention_backward(use->streams[0], &attention, at[Q], at[K], at[V],
                                             at[O], (float *)(void *)at[LSE], at[DOUT], at[DQ],
                                             at[DK], at[DV], at[SCRATCH]);
    enum cm_status synced = use->ops->stream_sync(use->streams[0], 5);
    return status != CM_OK ? status : synced;
}

static enum cm_status train(struct use *use)
{
    enum cm_status status =
        use->ops->alloc(use->device, CM_MEMORY_DEVICE, TRAIN_MEMORY_BYTES, &use->train_memory);
    if (status == CM_OK)
        status = queue_train_calls(use->streams[0], use->train_memory);
    return status == CM_OK ? use->ops->stream_sync(use->streams[0], 5) : status;
}

static enum cm_status look(struct use *use)
{
    struct cm_telemetry telemetry;
    struct cm_memory_handle handle;
    enum cm_status status =
        use->ops->memory_export(use->device, use->memory[CM_MEMORY_DEVICE], &handle);
    use->ops->survey(use->device); /* what fails in it stays unknown */
    if (status == CM_OK)
        status = use->ops->telemetry_begin(use->device);
    return status == CM_OK ? use->ops->telemetry_end(use->device, &telemetry) : status;
}

static void give_back(struct use *use)
{
    if (use->gemm != NULL)
        use->device->kernels->gemm_free(use->gemm);
    if (use->train_memory != NULL)
        use->ops->free(use->device, CM_MEMORY_DEVICE, use->train_memory);
    for (int kind = 0; kind < KINDS; kind++) {
        if (use->memory[kind] != NULL)
            use->ops->free(use->device, (enum cm_memory_kind)kind, use->memory[kind]);
    }
    if (use->comm != NULL)
        use->comm->ops->close(use->comm);
    for (int i = 0; i < 2; i++) {
        use->ops->event_destroy(use->events[i]);
        use->ops->stream_destroy(use->streams[i]);
    }
    use->ops->close(use->device);
}

static enum cm_status use_all(void)
{
    struct use use = {.ops = cm_device_find("fake")};
    assert_non_null(use.ops);
    cm_error_clear();
    enum cm_status status = make(&use);
    if (status == CM_OK)
        status = work(&use);
    if (status == CM_OK)
        status = multiply(&use);
    if (CM_HAVE_CUDNN && status == CM_OK)
        status = attend(&use);
    if (status == CM_OK)
        status = train(&use);
    if (status == CM_OK)
        status = look(&use);
    char text[CM_ERROR_TEXT_MAX];
    snprintf(text, sizeof text, "%s", cm_error_text());
    give_back(&use);
    return status != CM_OK ? cm_error(status, "%s", text) : CM_OK;
}

/* Calls whose failure shows under another name: launches and what they ask first under their
 * launchers', a query as that of the work. */
static const struct {
    const char *call, *words[3];
} other_names[] = {
    {"kernel launch", {"cm_cuda_"}},
    {"cudaGetDevice", {"cm_cuda_"}},
    {"cudaFuncSetAttribute", {"cm_cuda_attention"}},
    {"cudaStreamQuery", {"queued work: ", "a product that was tried: "}},
    {"cudaSetDevice", {"cudaSetDevice and first use: "}},
    {"cudaFree", {"cudaSetDevice and first use: "}},
};

static bool names_call(const char *text, const char *call)
{
    if (strstr(text, call) != NULL)
        return true;
    for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++) {
        for (const char *const *words = other_names[i].words; *words != NULL; words++) {
            if (strcmp(other_names[i].call, call) == 0 && strstr(text, *words) != NULL)
                return true;
        }
    }
    return false;
}

/* The rank, and the device by its number or its place. */
static bool names_caller(const char *text, const char *call)
{
    char rank[16];
    snprintf(rank, sizeof rank, "rank %d", strncmp(call, "nccl", 4) == 0 ? 0 : RANK);
    return strstr(text, rank) != NULL &&
           (strstr(text, "device 0") != NULL || strstr(text, " 0000:1b:00.0") != NULL);
}

static void each_call_fails(void **state)
{
    (void)state;
    unsigned failures = 0, tolerated = 0, bad = 0;
    long left = 0;
    for (unsigned long nth = 1;; nth++) {
        fake_fail_any(nth);
        enum cm_status status = use_all();
        const char *call = fake_failed();
        if (call == NULL) {
            assert_int_equal(status, CM_OK);
            break;
        }
        if (status == CM_OK)
            tolerated++;
        else if (!(names_call(cm_error_text(), call) && names_caller(cm_error_text(), call)) &&
                 ++bad > 0)
            print_error("call %lu, %s, failed: %s\n", nth, call, cm_error_text());
        failures++;
        /* A stream that does not say that it is done is given up with what it uses. */
        if (strcmp(call, "cudaStreamQuery") == 0)
            left = fake_objects();
        if (fake_objects() != left && ++bad > 0)
            print_error("call %lu, %s, failed and left %ld objects: %s\n", nth, call,
                        fake_objects() - left, cm_error_text());
        left = fake_objects();
    }
    fake_fail_any(0);
    printf("%u calls failed, %u of them without harm\n", failures, tolerated);
    assert_int_equal(bad, 0);
    assert_true(failures > 80 && tolerated < failures / 2);
}

static void all_goes_well(void **state)
{
    (void)state;
    assert_ok(use_all());
    assert_int_equal(fake_objects(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_goes_well),
                                       cmocka_unit_test(each_call_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
