/* Which GPU becomes which rank: a fixture with islands of mixed numbers, recorded machines, and
 * machines made at random, held against the best of all orders. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clustermark/topology.h"

#define MOST 16

static void load(const char *folder, const char *file, struct cm_topology *topology)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    assert_ok(cm_topology_load(path, topology));
}

/* All GPUs of the machine. */
static void order_of(const struct cm_topology *topology, unsigned group, unsigned *order)
{
    const char *bus_ids[MOST];
    for (size_t i = 0; i < topology->gpu_count; i++)
        bus_ids[i] = topology->gpus[i].bus_id;
    assert_ok(cm_placement_order(topology, bus_ids, (unsigned)topology->gpu_count, group, order));
}

static void assert_order(const struct cm_topology *topology, unsigned group, const char *expected)
{
    unsigned order[MOST];
    char text[128] = "";
    order_of(topology, group, order);
    for (size_t i = 0; i < topology->gpu_count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%u", i > 0 ? " " : "",
                 order[i]);
    assert_string_equal(text, expected);
}

static void test_islands(void **state)
{
    (void)state;
    struct cm_topology machine;
    load(CM_TEST_FIXTURES "/topology", "islands.nccl.xml", &machine);
    assert_int_equal(machine.gpu_count, 8);
    assert_order(&machine, 4, "0 2 5 7 1 3 4 6");
    /* Pairs of one island follow on each other; then the one with the shorter way over. */
    assert_order(&machine, 2, "0 2 5 7 4 6 1 3");
    assert_order(&machine, 8, "0 1 2 3 4 5 6 7");
    assert_order(&machine, 16, "0 1 2 3 4 5 6 7");
    /* A smaller group at the end. */
    assert_order(&machine, 3, "0 2 5 1 3 4 6 7");
    cm_topology_release(&machine);
}

/* Devices as they were chosen by the user, in another order, spelt otherwise, or not there. */
static void test_chosen_devices(void **state)
{
    (void)state;
    struct cm_topology machine;
    unsigned order[6];
    const char *bus_ids[] = {"00000000:81:00.0", "0000:11:00.0", "0000:71:00.0",
                             "0000:21:00.0",     "no bus id",    "0000:31:00.0"};
    load(CM_TEST_FIXTURES "/topology", "islands.nccl.xml", &machine);
    /* They are GPUs 7, 0, 6, 1, none, 2. */
    assert_ok(cm_placement_order(&machine, bus_ids, 4, 2, order));
    const unsigned four[] = {0, 1, 2, 3};
    assert_memory_equal(order, four, sizeof four);
    assert_ok(cm_placement_order(&machine, bus_ids, 6, 3, order));
    const unsigned six[] = {0, 1, 5, 2, 3, 4};
    assert_memory_equal(order, six, sizeof six);
    bus_ids[5] = NULL;
    assert_ok(cm_placement_order(&machine, bus_ids + 4, 2, 1, order));
    assert_int_equal(order[0], 0);
    assert_ok(cm_placement_order(&machine, bus_ids, 0, 2, order));
    cm_topology_release(&machine);
}

/* What cloud machines are like: numbers follow the wiring, so that nothing is to be moved. */
static void test_recorded(void **state)
{
    (void)state;
    static const char *const files[] = {"aws/p4d.24xlarge.hwloc.xml",
                                        "aws/p5en.48xlarge.hwloc.xml",
                                        "aws/p6-b200.48xlarge.hwloc.xml",
                                        "aws/p6e-gb200.36xlarge.hwloc.xml",
                                        "aws/p4d-24xl-topo.xml",
                                        "azure/ndv4-topo.xml",
                                        "azure/ncv4-topo.xml",
                                        "hwloc/nvidiaDGX2.xml"};
    if (access(CM_TEST_RECORDED, R_OK) != 0) {
        print_message("no recorded machines in %s\n", CM_TEST_RECORDED);
        skip();
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct cm_topology machine;
        load(CM_TEST_RECORDED, files[i], &machine);
        assert_in_range(machine.gpu_count, 4, MOST);
        for (unsigned group = 1; group <= machine.gpu_count; group *= 2) {
            unsigned order[MOST];
            order_of(&machine, group, order);
            for (unsigned k = 0; k < machine.gpu_count; k++)
                if (order[k] != k)
                    fail_msg("%s, groups of %u: rank %u has device %u", files[i], group, k,
                             order[k]);
        }
        cm_topology_release(&machine);
    }
}

/* ---- machines made at random ---- */

struct made {
    struct cm_topology topology;
    struct cm_pci_device gpus[MOST];
    uint32_t bridges[MOST][3];
    struct cm_nvlink links[MOST * MOST];
};

static unsigned draw(unsigned below)
{
    static uint64_t state = 88172645463325252;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 33) % below;
}

/* NUMA nodes with switches; NVLinks from none to everywhere, in islands. */
static void make(unsigned count, struct made *made)
{
    memset(made, 0, sizeof *made);
    unsigned nodes = 1 + draw(3), islands = draw(4), island[MOST], links = 1 + draw(3);
    for (unsigned i = 0; i < count; i++) {
        struct cm_pci_device *gpu = &made->gpus[i];
        unsigned node = draw(nodes), port = draw(2);
        snprintf(gpu->bus_id, sizeof gpu->bus_id, "0000:%02x:00.0", i + 1);
        gpu->kind = CM_PCI_GPU;
        gpu->numa = (int)node;
        made->bridges[i][0] = 1000 + i;
        made->bridges[i][1] = 100 + 2 * node + port;
        made->bridges[i][2] = node;
        gpu->bridges = made->bridges[i];
        gpu->bridge_count = 3;
        island[i] = islands > 0 ? draw(islands) : i;
        for (unsigned k = 0; k < i; k++)
            if (island[k] == island[i])
                made->links[made->topology.nvlink_count++] =
                    (struct cm_nvlink){.gpu = (int)i, .peer_gpu = (int)k, .count = links};
    }
    made->topology.gpus = made->gpus;
    made->topology.gpu_count = count;
    made->topology.nvlinks = made->links;
}

/* As a number whose digits are the paths of each kind, the farthest first. */
static double cost_of(const struct cm_topology *topology, const unsigned *order, unsigned group)
{
    double cost = 0;
    for (unsigned i = 0; i < topology->gpu_count; i++)
        for (unsigned k = i - i % group; k < i; k++) {
            struct cm_path path =
                cm_path_between(topology, &topology->gpus[order[i]], &topology->gpus[order[k]]);
            double weight = 1;
            for (int kind = CM_PATH_NVLINK; kind < (int)path.kind; kind++)
                weight *= 512;
            cost += path.kind == CM_PATH_NVLINK ? 16 - path.links : weight;
        }
    return cost;
}

static double least_cost(const struct cm_topology *topology, unsigned *order, unsigned place,
                         unsigned group)
{
    unsigned count = (unsigned)topology->gpu_count;
    if (place == count)
        return cost_of(topology, order, group);
    double least = 1e300;
    for (unsigned i = place; i < count; i++) {
        unsigned kept = order[place];
        order[place] = order[i];
        order[i] = kept;
        /* Ascending in each group: the other orders are the same. */
        if (place % group == 0 || order[place - 1] < order[place]) {
            double cost = least_cost(topology, order, place + 1, group);
            least = cost < least ? cost : least;
        }
        order[i] = order[place];
        order[place] = kept;
    }
    return least;
}

static void check_made(struct made *made, unsigned group)
{
    unsigned order[MOST], any[MOST], seen = 0, count = (unsigned)made->topology.gpu_count;
    order_of(&made->topology, group, order);
    for (unsigned i = 0; i < count; i++) {
        seen |= 1u << order[i];
        any[i] = i;
    }
    assert_int_equal(seen, (1u << count) - 1);
    double as_given = cost_of(&made->topology, any, group);
    double least = least_cost(&made->topology, any, 0, group);
    double cost = cost_of(&made->topology, order, group);
    if (cost > least)
        fail_msg("%u GPUs in groups of %u: %.17g, could be %.17g (as given: %.17g)", count, group,
                 cost, least, as_given);
}

static void test_best_of_all(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 150; round++) {
        struct made made;
        make(round % 3 == 0 ? 7 : 8, &made);
        check_made(&made, 2);
        check_made(&made, 4);
        if (round % 3 == 0)
            check_made(&made, 3);
    }
}

/* The first DGX: 1 or 2 NVLinks to four of the seven others, SYS to the rest of the other half. */
static void test_cube_mesh(void **state)
{
    (void)state;
    static const unsigned mesh[][3] = {
        {0, 1, 1}, {0, 2, 1}, {0, 3, 2}, {0, 4, 2}, {1, 2, 2}, {1, 3, 1}, {1, 5, 2}, {2, 3, 2},
        {2, 6, 1}, {3, 7, 1}, {4, 5, 1}, {4, 6, 1}, {4, 7, 2}, {5, 6, 2}, {5, 7, 1}, {6, 7, 2}};
    struct made made;
    make(8, &made);
    made.topology.nvlink_count = sizeof mesh / sizeof *mesh;
    for (unsigned i = 0; i < 8; i++)
        made.gpus[i].numa = (int)i / 4;
    for (size_t i = 0; i < made.topology.nvlink_count; i++)
        made.links[i] = (struct cm_nvlink){
            .gpu = (int)mesh[i][0], .peer_gpu = (int)mesh[i][1], .count = mesh[i][2]};
    check_made(&made, 2);
    check_made(&made, 4);
    assert_order(&made.topology, 4, "0 1 2 3 4 5 6 7");
}

/* More than all ways can be tried of: four NUMA nodes of four GPUs, all numbers mixed. */
static void test_many(void **state)
{
    (void)state;
    struct made made;
    make(MOST, &made);
    made.topology.nvlink_count = 0;
    for (unsigned i = 0; i < MOST; i++) {
        unsigned node = 7 * i % 16 / 4;
        made.gpus[i].numa = (int)node;
        made.bridges[i][1] = 100 + node;
        made.bridges[i][2] = node;
    }
    for (unsigned group = 2; group <= 8; group *= 2) {
        unsigned order[MOST], seen = 0, nodes = 0;
        order_of(&made.topology, group, order);
        for (unsigned i = 0; i < MOST; i++) {
            seen |= 1u << order[i];
            nodes |= 1u << made.gpus[order[i]].numa;
            /* Nodes follow on each other whole, also where groups are pairs. */
            if (i % 4 == 3 && group <= 4) {
                assert_int_equal(__builtin_popcount(nodes), 1);
                nodes = 0;
            }
            if (i % 8 == 7 && group == 8) {
                assert_int_equal(__builtin_popcount(nodes), 2);
                nodes = 0;
            }
        }
        assert_int_equal(seen, 0xffff);
    }
    for (unsigned i = 0; i < MOST; i++) { /* all equal */
        made.gpus[i].numa = 0;
        made.bridges[i][1] = 100 + i;
        made.bridges[i][2] = 0;
    }
    assert_order(&made.topology, 4, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15");
    assert_order(&made.topology, 2, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15");
    assert_order(&made.topology, 1, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_islands),   cmocka_unit_test(test_chosen_devices),
        cmocka_unit_test(test_recorded),  cmocka_unit_test(test_best_of_all),
        cmocka_unit_test(test_cube_mesh), cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
