/* What only the CPU device promises: a hung stream can be given up, allocations are staggered, the
 * process can end. */
#include "clustermark/device.h"
#include "clustermark/kernels.h"
#include "test.h"

#include <math.h>
#include <stdatomic.h>
#include <unistd.h>

static enum cm_status hang(const void *args)
{
    (void)args;
    for (;;)
        pause();
    return CM_OK;
}

static void a_hung_stream_can_be_given_up(void **state)
{
    (void)state;
    const struct cm_device_ops *ops = cm_device_find("cpu");
    struct cm_device_config config = {.threads = 1};
    struct cm_device *device = NULL;
    struct cm_stream *stream = NULL;
    assert_ok(ops->open(&config, &device));
    assert_ok(ops->stream_create(device, 0, &stream));
    assert_ok(ops->call(stream, hang, NULL, 0, "a call that hangs"));
    assert_ok(device->kernels->empty(stream));
    assert_status(ops->stream_sync(stream, 0.05), CM_TIMEOUT, "a call that hangs");
    assert_non_null(strstr(cm_error_text(), "2 commands"));
    ops->stream_destroy(stream);
    ops->close(device);
}

static void buffers_begin_at_different_places(void **state)
{
    (void)state;
    const struct cm_device_ops *ops = cm_device_find("cpu");
    struct cm_device_config config = {.threads = 1};
    struct cm_device *device = NULL;
    void *blocks[8];
    assert_ok(ops->open(&config, &device));
    for (int i = 0; i < 8; i++) {
        assert_ok(ops->alloc(device, CM_MEMORY_DEVICE, 1 << 16, &blocks[i]));
        for (int j = 0; j < i; j++)
            assert_true((uintptr_t)blocks[i] % 4096 != (uintptr_t)blocks[j] % 4096);
    }
    for (int i = 0; i < 8; i++)
        ops->free(device, CM_MEMORY_DEVICE, blocks[i]);
    ops->close(device);
}

static void names_find_devices(void **state)
{
    (void)state;
    assert_non_null(cm_device_find("cpu"));
    assert_null(cm_device_find("abacus"));
    assert_non_null(cm_device_default());
    struct cm_device_probe probe = {0};
    assert_ok(cm_device_find("cpu")->probe(&probe));
    assert_int_equal(probe.count, 1);
    assert_non_null(strstr(probe.reason, "cores"));
}

static void the_reference_table_is_whole(void **state)
{
    (void)state;
    assert_non_null(cm_kernels_cpu.copy);
    assert_non_null(cm_kernels_cpu.scale);
    assert_non_null(cm_kernels_cpu.add);
    assert_non_null(cm_kernels_cpu.triad);
    assert_non_null(cm_kernels_cpu.read);
    assert_non_null(cm_kernels_cpu.write);
    assert_non_null(cm_kernels_cpu.fill_normal);
    assert_non_null(cm_kernels_cpu.verify);
    assert_non_null(cm_kernels_cpu.empty);
    assert_null(cm_kernels_cpu.gemm_plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hung_stream_can_be_given_up),
        cmocka_unit_test(buffers_begin_at_different_places),
        cmocka_unit_test(names_find_devices),
        cmocka_unit_test(the_reference_table_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
