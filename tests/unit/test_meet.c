/* host/measure/meet.c, address.c, roster.c: where the ranks of an outside launcher meet, and that
 * they do; carry.c: on which nodes they are; and NCCL's module, as far as it goes without a GPU. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/device.h"
#include "clustermark/memory.h"
#include "host/measure/address.h"
#include "host/measure/carry.h"
#include "host/measure/meet.h"
#include "host/measure/roster.h"

static void forget_environment(void)
{
    static const char *const names[] = {"NCCL_COMM_ID",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "SLURM_STEP_NODELIST",
                                        "SLURM_LAUNCH_NODE_IPADDR",
                                        "SLURM_JOB_ID",
                                        "SLURM_STEP_ID",
                                        "PMIX_NAMESPACE",
                                        "PMI_FD",
                                        "SLURM_NODEID",
                                        "GROUP_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
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

static enum cm_meeting_place place(const char *launcher)
{
    struct cm_world world = world_of(launcher);
    bool needed = true;
    enum cm_meeting_place found = cm_meeting_place(&world);
    if (found == CM_MEET_NOWHERE)
        assert_status(ask(launcher, &needed), CM_USAGE, "set MASTER_ADDR");
    else
        assert_ok(ask(launcher, &needed));
    assert_int_equal(needed, found == CM_MEET_BY_MPI || found == CM_MEET_BY_TCP);
    return found;
}

static void places(void **state)
{
    (void)state;
    bool needed = true;
    forget_environment();
    assert_int_equal(place("mpirun"), CM_MEET_BY_MPI);
    assert_int_equal(place("mpiexec"), CM_MEET_BY_MPI);
    assert_int_equal(place("torchrun"), CM_MEET_NOWHERE);
    assert_int_equal(place("kubernetes"), CM_MEET_NOWHERE);
    assert_int_equal(place("srun"), CM_MEET_NOWHERE);
    setenv("SLURM_STEP_NODELIST", "node[3-4]", 1);
    assert_int_equal(place("srun"), CM_MEET_BY_TCP);
    assert_int_equal(place("torchrun"), CM_MEET_NOWHERE);
    if (cm_comm_find("mpi") != NULL) {
        setenv("PMIX_NAMESPACE", "slurm.pmix.7.0", 1);
        assert_int_equal(place("srun"), CM_MEET_BY_MPI);
        unsetenv("PMIX_NAMESPACE");
    }
    setenv("MASTER_ADDR", "10.0.0.1", 1);
    assert_int_equal(place("mpirun"), CM_MEET_BY_MPI);
    assert_int_equal(place("torchrun"), CM_MEET_BY_TCP);
    assert_int_equal(place("kubernetes"), CM_MEET_BY_TCP);
    /* What is set stays, whatever the launcher. */
    setenv("NCCL_COMM_ID", "elsewhere:1", 1);
    assert_int_equal(place("torchrun"), CM_MEET_BY_NCCL);
    assert_int_equal(place("mpirun"), CM_MEET_BY_NCCL);
    assert_string_equal(getenv("NCCL_COMM_ID"), "elsewhere:1");
    forget_environment();
    /* Other libraries bring their ranks together themselves. */
    struct cm_world world = world_of("torchrun");
    struct cm_meeting meeting;
    needed = true;
    assert_ok(cm_meeting_outside(&world, "mpi", &meeting, &needed));
    assert_false(needed);
}

static void addresses(void **state)
{
    (void)state;
    static const struct {
        const char *host, *port; /* MASTER_ADDR and _PORT */
        const char *found;       /* NULL: refused */
        unsigned found_port;
    } rows[] = {
        {"node-7", "1", "node-7", 2},
        {"fe80::1", "8000", "fe80::1", 8001},
        {"[fe80::1]", NULL, "fe80::1", 29501},
        {"a", "65534", "a", 65535},
        {"a", "65535", NULL, 0},
        {"a", "0", NULL, 0},
        {"a", "", NULL, 0},
        {"a", "80x", NULL, 0},
        {"a", "-1", NULL, 0},
        {"", "80", NULL, 0},
    };
    struct cm_world world = world_of("torchrun");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cm_address address = {.port = 7};
        bool known = false;
        forget_environment();
        setenv("MASTER_ADDR", rows[i].host, 1);
        if (rows[i].port != NULL)
            setenv("MASTER_PORT", rows[i].port, 1);
        if (rows[i].found == NULL) {
            assert_status(cm_address_find(&world, &address, &known), CM_USAGE, "MASTER_");
            assert_int_equal(address.port, 7);
            continue;
        }
        assert_ok(cm_address_find(&world, &address, &known));
        assert_true(known);
        assert_string_equal(address.hosts[0], rows[i].found);
        assert_string_equal(address.hosts[1], "");
        assert_int_equal(address.port, rows[i].found_port);
    }
    forget_environment();
}

static void slurm_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *list, *first;
    } rows[] = {
        {"node7", "node7"},    {"node[003-008,11]", "node003"},
        {"a-[2,4],b7", "a-2"}, {"rack[1-2]n[5-9]", "rack1n5"},
        {"x,y", "x"},          {"[7-9].cluster", "7.cluster"},
        {"open[3", "open3"},   {"", ""},
    };
    char host[CM_ADDRESS_HOST_MAX];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cm_address_first_host(rows[i].list, host, sizeof host);
        assert_string_equal(host, rows[i].first);
    }
    cm_address_first_host("abcdefgh", host, 4);
    assert_string_equal(host, "abc");

    struct cm_world world = world_of("srun");
    struct cm_address address, other;
    bool known = true;
    forget_environment();
    assert_ok(cm_address_find(&world, &address, &known));
    assert_false(known);
    setenv("SLURM_LAUNCH_NODE_IPADDR", "10.1.1.1", 1);
    setenv("SLURM_JOB_ID", "4711", 1);
    setenv("SLURM_STEP_ID", "0", 1);
    assert_ok(cm_address_find(&world, &address, &known));
    assert_true(known);
    assert_string_equal(address.hosts[0], "10.1.1.1");
    assert_string_equal(address.hosts[1], "");
    setenv("SLURM_STEP_NODELIST", "node[3-4]", 1);
    setenv("SLURM_STEP_ID", "1", 1);
    assert_ok(cm_address_find(&world, &other, &known));
    assert_string_equal(other.hosts[0], "node3");
    assert_string_equal(other.hosts[1], "10.1.1.1");
    /* Steps have ports of their own, below those that systems give away. */
    assert_int_not_equal(address.port, other.port);
    assert_in_range(other.port, 20000, 31999);
    setenv("MASTER_PORT", "4000", 1);
    assert_ok(cm_address_find(&world, &other, &known));
    assert_int_equal(other.port, 4001);
    setenv("MASTER_ADDR", "here", 1);
    unsetenv("MASTER_PORT");
    assert_ok(cm_address_find(&world, &other, &known));
    assert_string_equal(other.hosts[0], "here");
    assert_string_equal(other.hosts[1], "");
    assert_int_equal(other.port, 29501);
    forget_environment();
}

/* Four processes, over TCP on this machine, get rank 0's bytes; one that is missing is named. */
static enum cm_status share_as(unsigned rank, unsigned size, unsigned char bytes[64])
{
    struct cm_world world = {
        .rank = rank, .size = size, .local_rank = rank, .local_size = size, .launcher = "torchrun"};
    struct cm_meeting meeting;
    bool needed = false;
    enum cm_status status = cm_meeting_outside(&world, "nccl", &meeting, &needed);
    return status == CM_OK && needed ? meeting.share(meeting.impl, bytes, 64, size > 4 ? 0.5 : 30)
                                     : CM_INTERNAL;
}

static void sharing(void **state)
{
    (void)state;
    char port[16];
    pid_t pids[4];
    snprintf(port, sizeof port, "%ld", 10000 + (long)getpid() % 10000);
    forget_environment();
    setenv("MASTER_ADDR", "localhost", 1);
    setenv("MASTER_PORT", port, 1);
    for (unsigned size = 4; size <= 5; size++) {
        unsigned char bytes[64] = {0};
        for (unsigned rank = 1; rank < 4; rank++) {
            pids[rank] = fork();
            if (pids[rank] == 0) {
                enum cm_status status = share_as(rank, size, bytes);
                bool same = true;
                for (unsigned i = 0; i < 64; i++)
                    same = same && bytes[i] == (unsigned char)(i * 37);
                _exit(status == CM_OK ? !same : 10 + (int)status);
            }
        }
        for (unsigned i = 0; i < 64; i++)
            bytes[i] = (unsigned char)(i * 37);
        enum cm_status status = share_as(0, size, bytes);
        for (unsigned rank = 1; rank < 4; rank++) {
            int ended = 0;
            assert_int_equal(waitpid(pids[rank], &ended, 0), pids[rank]);
            assert_true(WIFEXITED(ended));
            assert_int_equal(WEXITSTATUS(ended), size == 4 ? 0 : 10 + CM_USAGE);
        }
        assert_int_equal(status, size == 4 ? CM_OK : CM_USAGE);
        assert_non_null(strstr(cm_error_text(), size == 4 ? "" : "4 came; missing: 4"));
    }
    forget_environment();
}

static void cpu_sets(void **state)
{
    (void)state;
    char text[CM_CPUS_TEXT_MAX];
    cpu_set_t set, again;
    CPU_ZERO(&set);
    cm_cpus_write(&set, text);
    assert_string_equal(text, "");
    CPU_SET(0, &set);
    CPU_SET(5, &set);
    CPU_SET(7, &set);
    cm_cpus_write(&set, text);
    assert_string_equal(text, "1a");
    CPU_SET(CPU_SETSIZE - 1, &set);
    cm_cpus_write(&set, text);
    cm_cpus_read(text, &again);
    assert_true(CPU_EQUAL(&set, &again));
}

/* Nodes of a roster: "host node local" of each rank; expected "name:slots@first". */
static void nodes(void **state)
{
    (void)state;
    static const struct {
        const char *members[6], *nodes[6];
    } rows[] = {
        {{"a - 0", "a - 1", "b - 0", "b - 1"}, {"a:2@0", "b:2@2"}},
        /* As srun --distribution=cyclic numbers them. */
        {{"a 0 0", "b 1 0", "a 0 1", "b 1 1", "b 1 2"}, {"a:2@0", "b:3@1"}},
        /* The launcher's word counts more than names. */
        {{"x 0 0", "x 1 0", "x 1 1"}, {"x:1@0", "x-cm1:2@1"}},
        /* Containers on one machine; names without what follows a dot. */
        {{"a.b.c - 0", "a.b.c - 0", "a.x - 0"}, {"a:1@0", "a-cm1:1@1", "a-cm2:1@2"}},
        {{"a - 0", "a - 1", "a - 2"}, {"a:3@0"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cm_member members[6] = {0};
        struct cm_roster roster = {.members = members};
        struct cm_carry_node *made = NULL;
        unsigned count = 0, wanted = 0;
        while (roster.size < 6 && rows[i].members[roster.size] != NULL) {
            struct cm_member *member = &members[roster.size];
            assert_int_equal(sscanf(rows[i].members[roster.size], "%60s %60s %u", member->host,
                                    member->node, &member->local_rank),
                             3);
            CPU_SET(roster.size, &member->cpus);
            roster.size++;
        }
        while (wanted < 6 && rows[i].nodes[wanted] != NULL)
            wanted++;
        assert_ok(cm_carry_nodes(&roster, &made, &count));
        assert_int_equal(count, wanted);
        for (unsigned k = 0; k < count; k++) {
            char text[160];
            snprintf(text, sizeof text, "%s:%u@%u", made[k].name, made[k].slots, made[k].first);
            assert_string_equal(text, rows[i].nodes[k]);
            assert_int_equal(CPU_COUNT(&made[k].cpus), made[k].slots);
        }
        cm_free(made);
    }
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
        cmocka_unit_test(places),  cmocka_unit_test(addresses), cmocka_unit_test(slurm_addresses),
        cmocka_unit_test(sharing), cmocka_unit_test(cpu_sets),  cmocka_unit_test(nodes),
        cmocka_unit_test(module),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
