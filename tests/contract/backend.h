/*
 * backend.h: one suite, every device backend. cm_test_backends runs a group of tests once for each
 * backend of the build that has a device here, opened as `bench.device`. Backends without a device
 * are named and left out; when none is left the test counts as skipped.
 *
 * Host memory of the suite comes from the backend too, since a GPU copies faster and asynchronously
 * only from there. What a test reads back goes through the device's own copy.
 */
#ifndef TESTS_CONTRACT_BACKEND_H
#define TESTS_CONTRACT_BACKEND_H

#include <stdio.h>
#include <stdlib.h>

#include "clustermark/device.h"
#include "clustermark/kernels.h"
#include "test.h"

#define SYNC_S 60.0

struct bench {
    const struct cm_device_ops *ops;
    unsigned threads;
    struct cm_device *device;
    struct cm_stream *stream;
};
static struct bench bench;

static int open_bench(void **state)
{
    (void)state;
    struct cm_device_config config = {.threads = bench.threads};
    assert_ok(bench.ops->open(&config, &bench.device));
    assert_ok(bench.ops->stream_create(bench.device, 0, &bench.stream));
    return 0;
}

static int close_bench(void **state)
{
    (void)state;
    bench.ops->stream_destroy(bench.stream);
    bench.ops->close(bench.device);
    bench.stream = NULL;
    bench.device = NULL;
    return 0;
}

static void *device_alloc(size_t size_bytes)
{
    void *memory = NULL;
    assert_ok(bench.ops->alloc(bench.device, CM_MEMORY_DEVICE, size_bytes, &memory));
    return memory;
}

static void device_free(void *memory)
{
    bench.ops->free(bench.device, CM_MEMORY_DEVICE, memory);
}

static void sync_stream(struct cm_stream *stream)
{
    assert_ok(bench.ops->stream_sync(stream, SYNC_S));
}

/* Runs the group on every backend with each number of threads (a list ended by 0). */
#define cm_test_backends(tests, thread_counts)                                                     \
    ({                                                                                             \
        int failed_ = 0, ran_ = 0;                                                                 \
        for (const struct cm_device_row *row_ = cm_device_rows; row_->name != NULL; row_++) {      \
            struct cm_device_probe probe_ = {0};                                                   \
            bench.ops = cm_device_find(row_->name);                                                \
            if (bench.ops == NULL || bench.ops->probe(&probe_) != CM_OK || probe_.count == 0) {    \
                fprintf(stderr, "%s: skipped: %s\n", row_->name,                                   \
                        bench.ops == NULL ? cm_device_missing(row_->name) : probe_.reason);        \
                continue;                                                                          \
            }                                                                                      \
            for (const unsigned *t_ = (thread_counts); *t_ != 0; t_++) {                           \
                char name_[64];                                                                    \
                bench.threads = *t_;                                                               \
                snprintf(name_, sizeof name_, "%s, %u threads", bench.ops->name, *t_);             \
                failed_ += cmocka_run_group_tests_name(name_, tests, open_bench, close_bench);     \
                ran_++;                                                                            \
            }                                                                                      \
        }                                                                                          \
        ran_ == 0 ? 77 : failed_;                                                                  \
    })

#endif
