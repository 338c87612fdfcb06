/* Which cores a rank gets, on fixtures; and that a live binding is what the system reads back. */
#include "test.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/topology.h"
#include "host/measure/bind.h"

static void load(const char *name, struct cm_topology *topology)
{
    char path[512];
    snprintf(path, sizeof path, "%s/topology/%s", CM_TEST_FIXTURES, name);
    assert_ok(cm_topology_load(path, topology));
}

static void assert_plan(const struct cm_topology *topology, const char *const *bus_ids,
                        unsigned rank, unsigned size, const char *cpus, const char *nodes)
{
    struct cm_binding binding;
    struct cm_str text = CM_STR_INIT;
    assert_ok(cm_binding_plan(topology, bus_ids, rank, size, &binding));
    cm_cpuset_write(&binding.cpus, &text);
    assert_string_equal(cm_str_text(&text), cpus);
    cm_str_reset(&text);
    cm_cpuset_write(&binding.nodes, &text);
    assert_string_equal(cm_str_text(&text), nodes);
    cm_str_release(&text);
}

static void test_gpu_ranks(void **state)
{
    (void)state;
    static const char *const cpus[] = {"0,8",  "1,9",  "2,10", "3,11",
                                       "4,12", "5,13", "6,14", "7,15"};
    struct cm_topology machine;
    const char *bus_ids[8];
    load("h100x8.hwloc.xml", &machine);
    for (unsigned i = 0; i < 8; i++)
        bus_ids[i] = machine.gpus[i].bus_id;
    for (unsigned i = 0; i < 8; i++)
        assert_plan(&machine, bus_ids, i, 8, cpus[i], i < 4 ? "0" : "1");
    /* Four ranks on the second socket's GPUs, spelt as CUDA and NVML do. */
    const char *spelt[] = {"0000:93:00.0", "00000000:94:00.0", "0000:B3:00.0", "0000:b4:00.0"};
    for (unsigned i = 0; i < 4; i++)
        assert_plan(&machine, spelt, i, 4, cpus[4 + i], "1");
    /* Two ranks, one per socket: all cores of each. */
    const char *two[] = {"0000:13:00.0", "0000:93:00.0"};
    assert_plan(&machine, two, 0, 2, "0-3,8-11", "0");
    assert_plan(&machine, two, 1, 2, "4-7,12-15", "1");
    cm_topology_release(&machine);
}

static void assert_far(const struct cm_topology *topology, const char *bus_id, int far)
{
    struct cm_binding binding;
    assert_ok(cm_binding_plan(topology, bus_id != NULL ? &bus_id : NULL, 0, 1, &binding));
    assert_int_equal(cm_binding_far_node(topology, &binding), far);
}

static void test_far_node(void **state)
{
    (void)state;
    struct cm_topology machine;
    load("h100x8.hwloc.xml", &machine);
    assert_far(&machine, "0000:13:00.0", 1);
    assert_far(&machine, "0000:93:00.0", 0);
    assert_far(&machine, NULL, -1); /* all of the machine is near */
    /* A GPU's own memory is no place for the host's, and neither is a node without any. */
    machine.numa[1].gpu_memory = true;
    assert_far(&machine, "0000:13:00.0", -1);
    machine.numa[1].gpu_memory = false;
    machine.numa[1].memory_bytes = 0;
    assert_far(&machine, "0000:13:00.0", -1);
    cm_topology_release(&machine);

    /* Nodes 0 and 1 (without memory), then 2 and 3 in another package. */
    load("uneven.hwloc.xml", &machine);
    assert_far(&machine, machine.gpus[0].bus_id, 2);
    struct cm_binding binding = {.cores = 0};
    cm_cpuset_add(&binding.nodes, 3);
    assert_int_equal(cm_binding_far_node(&machine, &binding), 0);
    /* The package's other node where the other package may not be used. */
    for (unsigned cpu = 0; cpu < 8; cpu++)
        machine.allowed.bits[0] &= ~((uint64_t)1 << cpu);
    assert_int_equal(cm_binding_far_node(&machine, &binding), 2);
    cm_topology_release(&machine);

    load("no-gpu.hwloc.xml", &machine);
    assert_far(&machine, NULL, -1);
    cm_topology_release(&machine);
}

static void test_uneven(void **state)
{
    (void)state;
    struct cm_topology machine;
    struct cm_binding binding;
    const char *bus_ids[5];
    load("uneven.hwloc.xml", &machine);
    for (unsigned i = 0; i < 5; i++)
        bus_ids[i] = machine.gpus[i].bus_id;
    /* Three GPUs share six cores; one has two; the fifth, of unknown place, gets what is free. */
    assert_plan(&machine, bus_ids, 0, 5, "0-1", "0");
    assert_plan(&machine, bus_ids, 1, 5, "2-3", "0");
    assert_plan(&machine, bus_ids, 2, 5, "4-5", "0");
    assert_plan(&machine, bus_ids, 3, 5, "6-7", "1");
    assert_ok(cm_binding_plan(&machine, bus_ids, 4, 5, &binding));
    assert_true(binding.fallback);
    assert_int_equal(binding.cores, 8);
    assert_plan(&machine, bus_ids, 4, 5, "8-15", "2-3");
    /* CPU ranks: no rank straddles nodes when there are ranks enough. */
    assert_plan(&machine, NULL, 0, 4, "0-2", "0");
    assert_plan(&machine, NULL, 1, 4, "3-5", "0");
    assert_plan(&machine, NULL, 0, 2, "0-7", "0-1");
    assert_plan(&machine, NULL, 1, 2, "8-15", "2-3");
    assert_plan(&machine, NULL, 0, 1, "0-15", "0-3");
    for (unsigned i = 0; i < 16; i++) {
        char cpu[8];
        snprintf(cpu, sizeof cpu, "%u", i);
        assert_plan(&machine, NULL, i, 16, cpu, i < 6 ? "0" : i < 8 ? "1" : i < 12 ? "2" : "3");
    }
    cm_topology_release(&machine);
}

static void test_crowded(void **state)
{
    (void)state;
    struct cm_topology machine;
    struct cm_binding binding;
    const char *bus_ids[12];
    load("uneven.hwloc.xml", &machine);
    for (unsigned i = 0; i < 40; i++) {
        assert_ok(cm_binding_plan(&machine, NULL, i, 40, &binding));
        assert_true(binding.oversubscribed);
        assert_int_equal(binding.cores, 1);
        assert_true(cm_cpuset_has(&binding.cpus, i % 16));
    }
    /* Twelve ranks on GPUs of the node with two cores, and none elsewhere. */
    for (unsigned i = 0; i < 12; i++)
        bus_ids[i] = machine.gpus[3].bus_id;
    for (unsigned i = 0; i < 12; i++) {
        assert_ok(cm_binding_plan(&machine, bus_ids, i, 12, &binding));
        assert_true(binding.oversubscribed);
        assert_false(binding.fallback);
        assert_true(cm_cpuset_has(&binding.cpus, 6) != cm_cpuset_has(&binding.cpus, 7));
        assert_true(cm_cpuset_has(&binding.nodes, 1));
    }
    cm_topology_release(&machine);
}

static void test_unknown_device(void **state)
{
    (void)state;
    struct cm_topology machine;
    struct cm_binding binding;
    const char *bus_ids[] = {"0000:ff:00.0", "not a bus id"};
    load("h100x8.hwloc.xml", &machine);
    for (unsigned i = 0; i < 2; i++) {
        assert_ok(cm_binding_plan(&machine, bus_ids, i, 2, &binding));
        assert_true(binding.fallback);
        assert_int_equal(binding.cores, 4);
    }
    assert_status(cm_binding_plan(&machine, NULL, 2, 2, &binding), CM_INTERNAL, "rank 2 of 2");
    cm_topology_release(&machine);
}

/* Cores that the cgroup does not allow go to nobody. */
static void test_allowed(void **state)
{
    (void)state;
    struct cm_topology machine;
    struct cm_binding binding;
    load("h100x8.hwloc.xml", &machine);
    const char *bus_ids[] = {machine.gpus[0].bus_id, machine.gpus[4].bus_id};
    assert_true(cm_cpuset_parse("2,8-11", &machine.allowed));
    assert_plan(&machine, bus_ids, 0, 2, "8-9", "0");
    /* The second GPU's socket is closed to us. */
    assert_ok(cm_binding_plan(&machine, bus_ids, 1, 2, &binding));
    assert_true(binding.fallback);
    assert_plan(&machine, bus_ids, 1, 2, "2,10-11", "0");
    memset(&machine.allowed, 0, sizeof machine.allowed);
    assert_status(cm_binding_plan(&machine, NULL, 0, 1, &binding), CM_UNSUPPORTED, "no usable");
    cm_topology_release(&machine);
}

/* NCCL's files have processors but no cores. */
static void test_nccl(void **state)
{
    (void)state;
    struct cm_topology machine;
    load("nvlink-pairs.nccl.xml", &machine);
    const char *bus_ids[] = {machine.gpus[0].bus_id, machine.gpus[1].bus_id, machine.gpus[2].bus_id,
                             machine.gpus[3].bus_id};
    assert_plan(&machine, bus_ids, 0, 4, "0-7", "0");
    assert_plan(&machine, bus_ids, 3, 4, "24-31", "1");
    cm_topology_release(&machine);
}

/* In a child, so that the other tests stay unbound. Exit 0: bound, and read back as planned. */
static int bind_child(const struct cm_topology *machine)
{
    struct cm_binding binding;
    struct cm_str text = CM_STR_INIT, cpus = CM_STR_INIT;
    cpu_set_t kernel;
    unsigned size = (unsigned)machine->core_count;
    if (cm_binding_plan(machine, NULL, size - 1, size, &binding) != CM_OK ||
        cm_binding_apply(&binding, &text) != CM_OK)
        return 1;
    if (sched_getaffinity(0, sizeof kernel, &kernel) != 0)
        return 2;
    cm_cpuset_write(&binding.cpus, &cpus);
    char expected[4096];
    snprintf(expected, sizeof expected, "cpus %s", cm_str_text(&cpus));
    if (strstr(text.text, "refused") != NULL && strstr(text.text, "instead of") != NULL)
        return 0; /* a system that refuses says so */
    if (strncmp(text.text, expected, strlen(expected)) != 0)
        return 3;
    if (strstr(text.text, " nodes ") == NULL)
        return 4;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if ((CPU_ISSET(cpu, &kernel) != 0) != cm_cpuset_has(&binding.cpus, cpu))
            return 5;
    }
    cm_str_release(&cpus);
    cm_str_release(&text);
    return 0;
}

static void test_apply(void **state)
{
    (void)state;
    struct cm_topology machine;
    int result = -1;
    assert_ok(cm_topology_live(&machine));
    pid_t child = fork();
    if (child == 0)
        _exit(bind_child(&machine));
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    cm_topology_release(&machine);
}

/* In a child too: its policy once it is bound as one of `ranks`, -1 where it was told otherwise. */
static int policy_of_child(int policy, unsigned ranks)
{
    const struct cm_world world = {.local_size = ranks};
    const struct sched_param none = {0};
    struct cm_device_config config = {0};
    struct cm_str text = CM_STR_INIT;
    if (sched_setscheduler(0, policy, &none) != 0 ||
        cm_bind_rank(&world, NULL, &text, &config) != CM_OK)
        return -1;
    int now = sched_getscheduler(0);
    bool told = strstr(text.text, " batch") != NULL;
    cm_str_release(&text);
    return told == (now != policy) ? now : -1;
}

static void assert_policy(int policy, unsigned ranks, int expected)
{
    int result = -1;
    pid_t child = fork();
    if (child == 0)
        _exit(policy_of_child(policy, ranks) & 0xff);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), expected);
}

static void test_policy(void **state)
{
    (void)state;
    struct cm_topology machine;
    assert_ok(cm_topology_live(&machine));
    unsigned cores = (unsigned)machine.core_count;
    cm_topology_release(&machine);
    assert_policy(SCHED_OTHER, cores, SCHED_OTHER);
    assert_policy(SCHED_OTHER, cores + 1, SCHED_BATCH);
    assert_policy(SCHED_IDLE, cores + 1, SCHED_IDLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpu_ranks),      cmocka_unit_test(test_far_node),
        cmocka_unit_test(test_uneven),         cmocka_unit_test(test_crowded),
        cmocka_unit_test(test_unknown_device), cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_nccl),           cmocka_unit_test(test_apply),
        cmocka_unit_test(test_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
