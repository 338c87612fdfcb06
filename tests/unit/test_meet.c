/* host/measure/meet.c: where the ranks of an outside launcher meet; and NCCL's module, as far as it
 * goes without a GPU. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "clustermark/device.h"
#include "host/measure/meet.h"

static void forget_environment(void)
{
    unsetenv("NCCL_COMM_ID");
    unsetenv("MASTER_ADDR");
    unsetenv("MASTER_PORT");
}

static struct cm_world world_of(const char *launcher)
{
    struct cm_world world = {.rank = 1, .size = 2, .local_rank = 1, .local_size = 2};
    snprintf(world.launcher, sizeof world.launcher, "%s", launcher);
    return world;
}

static enum cm_status ask(const char *launcher, bool *needed)
{
    struct cm_world world = world_of(launcher);
    struct cm_meeting meeting = {.share = NULL};
    enum cm_status status = cm_meeting_outside(&world, "nccl", &meeting, needed);
    if (status == CM_OK)
        assert_int_equal(meeting.share != NULL, *needed);
    return status;
}

static void places(void **state)
{
    (void)state;
    static const char *const launchers[] = {"mpirun", "mpiexec", "srun"};
    bool needed = true;
    forget_environment();
    for (size_t i = 0; i < 3; i++) {
        assert_ok(ask(launchers[i], &needed));
        assert_true(needed);
        assert_null(getenv("NCCL_COMM_ID"));
    }
    assert_status(ask("torchrun", &needed), CM_USAGE, "set NCCL_COMM_ID");
    setenv("MASTER_ADDR", "10.0.0.1", 1);
    assert_status(ask("torchrun", &needed), CM_USAGE, "set NCCL_COMM_ID");
    setenv("MASTER_PORT", "29500", 1);
    assert_ok(ask("torchrun", &needed));
    assert_false(needed);
    assert_string_equal(getenv("NCCL_COMM_ID"), "10.0.0.1:29501");
    /* What is set stays, whatever the launcher. */
    setenv("NCCL_COMM_ID", "elsewhere:1", 1);
    assert_ok(ask("torchrun", &needed));
    assert_ok(ask("mpirun", &needed));
    assert_false(needed);
    assert_string_equal(getenv("NCCL_COMM_ID"), "elsewhere:1");
    forget_environment();
    /* Other libraries bring their ranks together themselves. */
    struct cm_world world = world_of("torchrun");
    struct cm_meeting meeting;
    assert_ok(cm_meeting_outside(&world, "mpi", &meeting, &needed));
    assert_false(needed);
}

static void addresses(void **state)
{
    (void)state;
    static const struct {
        const char *host, *port, *address; /* NULL: refused */
    } rows[] = {
        {"node-7", "1", "node-7:2"},
        {"fe80::1", "8000", "[fe80::1]:8001"},
        {"[fe80::1]", "8000", "[fe80::1]:8001"},
        {"a", "65534", "a:65535"},
        {"a", "65535", NULL},
        {"a", "0", NULL},
        {"a", "", NULL},
        {"a", "80x", NULL},
        {"a", "-1", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool needed = true;
        forget_environment();
        setenv("MASTER_ADDR", rows[i].host, 1);
        setenv("MASTER_PORT", rows[i].port, 1);
        if (rows[i].address == NULL) {
            assert_status(ask("torchrun", &needed), CM_USAGE, "MASTER_PORT");
            assert_null(getenv("NCCL_COMM_ID"));
            continue;
        }
        assert_ok(ask("torchrun", &needed));
        assert_string_equal(getenv("NCCL_COMM_ID"), rows[i].address);
    }
    forget_environment();
}

static void module(void **state)
{
    (void)state;
    const struct cm_comm_ops *nccl = cm_comm_find("nccl");
    if (nccl == NULL) {
        assert_non_null(cm_comm_missing("nccl"));
        skip();
    }
    char found[160];
    assert_true(nccl->available(found, sizeof found));
    assert_int_equal(strncmp(found, "NCCL 2.", 7), 0);
    /* A device without CUDA streams is refused before anything is waited for. */
    const struct cm_device_config config = {.threads = 1, .memory_bytes = 1 << 20, .far_node = -1};
    struct cm_device *device = NULL;
    struct cm_comm *comm = NULL;
    struct cm_world world = world_of("none");
    assert_ok(cm_device_find("cpu")->open(&config, &device));
    assert_status(nccl->open(device, &world, NULL, 60, &comm), CM_UNSUPPORTED, "CUDA streams");
    assert_null(comm);
    device->ops->close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places),
        cmocka_unit_test(addresses),
        cmocka_unit_test(module),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
