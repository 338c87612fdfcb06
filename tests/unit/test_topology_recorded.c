/* Recorded machines: what each is known to be, and the binding of every rank on it. The files are
 * data beside the project; without them this test is skipped. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clustermark/topology.h"

#define PAIRS 6
struct pair {
    const char *a, *b; /* "gpu0", "nic3", "numa1"; NULL ends */
    const char *word;
};

struct machine {
    const char *file;
    size_t packages, nodes, cores, processors, gpus, nics, nvswitches, switches, others;
    const char *gpu_name;  /* NULL: no GPU */
    const char *gpu_nodes; /* the NUMA node's OS index of each GPU, space-separated */
    unsigned nvlinks;      /* of each GPU */
    struct pair pairs[PAIRS];
    const char *finding; /* one of its codes, or NULL */
};

static const struct machine machines[] = {
    {"aws/p4d.24xlarge.hwloc.xml",
     2,
     2,
     48,
     96,
     8,
     4,
     6,
     0,
     0,
     "NVIDIA A100 SXM4 40GB",
     "0 0 0 0 1 1 1 1",
     0,
     {{"gpu0", "gpu1", "PHB"},
      {"gpu0", "gpu2", "NODE"},
      {"gpu0", "gpu7", "SYS"},
      {"gpu1", "nic0", "PHB"},
      {"gpu0", "nic1", "NODE"},
      {"gpu4", "numa1", "PHB"}},
     "nvlink-not-recorded"},
    {"aws/p5en.48xlarge.hwloc.xml",
     2,
     2,
     96,
     192,
     8,
     16,
     4,
     5,
     0,
     "NVIDIA H200 SXM5 141GB",
     "0 0 0 0 1 1 1 1",
     0,
     {{"gpu0", "gpu1", "PIX"},
      {"gpu0", "gpu2", "NODE"},
      {"gpu0", "gpu4", "SYS"},
      {"gpu0", "nic3", "PIX"},
      {"gpu0", "nic4", "NODE"},
      {"gpu7", "nic15", "PIX"}},
     "nvlink-not-recorded"},
    {"aws/p6-b200.48xlarge.hwloc.xml",
     2,
     2,
     96,
     192,
     8,
     8,
     0,
     4,
     2,
     "NVIDIA B200",
     "0 0 0 0 1 1 1 1",
     0,
     {{"gpu0", "gpu1", "PIX"},
      {"gpu4", "nic4", "PIX"},
      {"gpu4", "nic6", "NODE"},
      {"gpu4", "nic0", "SYS"}},
     "management-port"},
    {"aws/p6e-gb200.36xlarge.hwloc.xml",
     2,
     2,
     144,
     144,
     4,
     16,
     0,
     8,
     0,
     "NVIDIA GB200",
     "0 0 1 1",
     0,
     {{"gpu0", "gpu1", "NODE"},
      {"gpu0", "gpu2", "SYS"},
      {"gpu0", "nic1", "PIX"},
      {"gpu0", "nic2", "NODE"},
      {"gpu3", "nic13", "PIX"}},
     "nic-far-from-gpus"},
    {"hwloc/nvidiaDGX2.xml",
     2,
     2,
     4,
     4,
     16,
     0,
     12,
     14,
     0,
     "NVIDIA Tesla V100-SXM3-32GB-H",
     "0 0 0 0 0 0 0 0 1 1 1 1 1 1 1 1",
     6,
     {{"gpu0", "gpu1", "NV6"}, {"gpu0", "gpu15", "NV6"}, {"gpu0", "numa0", "PHB"}},
     NULL},
    {"hwloc/power8gpudistances.xml",
     2,
     2,
     8,
     16,
     4,
     0,
     0,
     0,
     0,
     "NVIDIA Tesla P100-SXM2-16GB",
     "0 0 1 1",
     4,
     {{"gpu0", "gpu1", "NV2"},
      {"gpu2", "gpu3", "NV2"},
      {"gpu0", "gpu2", "SYS"},
      {"gpu0", "numa0", "NV2"},
      {"gpu0", "numa1", "SYS"}},
     "only-numa-known"},
    {"hwloc/power9-v100-gpu-numa-kept.derived.xml",
     2,
     8,
     8,
     32,
     6,
     0,
     0,
     0,
     0,
     "NVIDIA GPU",
     "0 0 0 8 8 8",
     0,
     {{"gpu0", "gpu1", "NODE"}, {"gpu0", "gpu3", "SYS"}},
     "only-numa-known"},
    {"hwloc/32em64t-2n8c2t-pci-wholeio.xml",
     2,
     2,
     16,
     32,
     3,
     1,
     0,
     0,
     0,
     "NVIDIA Tesla M2075 Dual-Slot Computing Processor Module",
     "0 1 1",
     0,
     {{"gpu0", "gpu1", "SYS"}, {"gpu1", "gpu2", "PHB"}, {"gpu2", "nic0", "PIX"}},
     "gpus-uneven"},
    {"hwloc/24em64t-2n6c2t-pci.xml",
     2,
     2,
     12,
     24,
     3,
     1,
     0,
     0,
     0,
     "NVIDIA Tesla M2070",
     "0 1 1",
     0,
     {{"gpu0", "gpu1", "SYS"}, {"gpu1", "gpu2", "PHB"}, {"gpu0", "nic0", "PHB"}},
     "link-below-maximum"},
    {"aws/p4d-24xl-topo.xml",
     0,
     2,
     0,
     96,
     8,
     4,
     0,
     4,
     0,
     "NVIDIA A100 SXM4 40GB",
     "0 0 0 0 1 1 1 1",
     0,
     {{"gpu0", "gpu1", "PIX"},
      {"gpu0", "gpu2", "PHB"},
      {"gpu0", "gpu4", "SYS"},
      {"gpu0", "nic0", "PIX"},
      {"gpu7", "nic3", "PIX"}},
     NULL},
    {"aws/p5.48xl-topo.xml",
     0,
     2,
     0,
     0,
     0,
     32,
     0,
     8,
     0,
     NULL,
     "",
     0,
     {{NULL, NULL, NULL}},
     "class-missing"},
    {"aws/g5.48xl-topo.xml",
     0,
     2,
     0,
     0,
     0,
     0,
     0,
     0,
     9,
     NULL,
     "",
     0,
     {{NULL, NULL, NULL}},
     "class-missing"},
    {"azure/ndv4-topo.xml",
     0,
     4,
     0,
     96,
     8,
     8,
     0,
     4,
     0,
     "GPU",
     "1 1 0 0 3 3 2 2",
     0,
     {{"gpu0", "gpu1", "PIX"},
      {"gpu0", "gpu2", "SYS"},
      {"gpu0", "nic0", "PIX"},
      {"gpu7", "nic7", "PIX"},
      {"gpu7", "nic5", "SYS"}},
     NULL},
    {"azure/ncv4-topo.xml",
     0,
     4,
     0,
     96,
     4,
     0,
     0,
     0,
     0,
     "NVIDIA A100 PCIe 80GB",
     "0 1 2 3",
     12,
     {{"gpu0", "gpu1", "SYS"}, {"gpu3", "numa3", "PHB"}},
     "nvlink-partner-unknown"},
};
#define MACHINES (sizeof machines / sizeof machines[0])

static void load(const char *file, struct cm_topology *topology)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", CM_TEST_RECORDED, file);
    assert_ok(cm_topology_load(path, topology));
}

static const struct cm_pci_device *device(const struct cm_topology *topology, const char *name)
{
    size_t index = strtoul(name + 3, NULL, 10);
    bool gpu = strncmp(name, "gpu", 3) == 0;
    assert_true(index < (gpu ? topology->gpu_count : topology->nic_count));
    return gpu ? &topology->gpus[index] : &topology->nics[index];
}

static void check_pairs(const struct machine *expected, const struct cm_topology *topology)
{
    char word[8];
    for (size_t i = 0; i < PAIRS && expected->pairs[i].a != NULL; i++) {
        const struct pair *pair = &expected->pairs[i];
        struct cm_path path;
        if (strncmp(pair->b, "numa", 4) == 0)
            path = cm_path_to_numa(topology, device(topology, pair->a),
                                   strtoul(pair->b + 4, NULL, 10));
        else
            path = cm_path_between(topology, device(topology, pair->a), device(topology, pair->b));
        cm_path_word(path, word);
        if (strcmp(word, pair->word) != 0)
            fail_msg("%s: %s to %s is %s, not %s", expected->file, pair->a, pair->b, word,
                     pair->word);
    }
}

static void check_gpus(const struct machine *expected, const struct cm_topology *topology)
{
    char nodes[256] = "";
    for (size_t i = 0; i < topology->gpu_count; i++) {
        const struct cm_pci_device *gpu = &topology->gpus[i];
        unsigned nvlinks = 0;
        assert_in_range(gpu->numa, 0, topology->numa_count - 1);
        size_t used = strlen(nodes);
        snprintf(nodes + used, sizeof nodes - used, "%s%u", i > 0 ? " " : "",
                 topology->numa[gpu->numa].os_index);
        assert_false(topology->numa[gpu->numa].gpu_memory);
        for (size_t j = 0; j < topology->nvlink_count; j++)
            nvlinks += topology->nvlinks[j].gpu == (int)i ? topology->nvlinks[j].count : 0;
        assert_int_equal(nvlinks, expected->nvlinks);
    }
    assert_string_equal(nodes, expected->gpu_nodes);
    if (expected->gpu_name != NULL)
        assert_string_equal(topology->gpus[0].name, expected->gpu_name);
}

static void test_facts(void **state)
{
    (void)state;
    for (size_t i = 0; i < MACHINES; i++) {
        const struct machine *expected = &machines[i];
        struct cm_topology topology;
        load(expected->file, &topology);
        const struct {
            const char *what;
            size_t is, right;
        } counts[] = {
            {"packages", topology.package_count, expected->packages},
            {"NUMA nodes", topology.numa_count, expected->nodes},
            {"cores", topology.core_count, expected->cores},
            {"processors", cm_cpuset_count(&topology.allowed), expected->processors},
            {"GPUs", topology.gpu_count, expected->gpus},
            {"NICs", topology.nic_count, expected->nics},
            {"NVSwitches", topology.nvswitch_count, expected->nvswitches},
            {"PCIe switches", topology.switch_count, expected->switches},
            {"others", topology.other_count, expected->others},
        };
        for (size_t j = 0; j < sizeof counts / sizeof counts[0]; j++) {
            if (counts[j].is != counts[j].right)
                fail_msg("%s: %zu %s, not %zu", expected->file, counts[j].is, counts[j].what,
                         counts[j].right);
        }
        check_gpus(expected, &topology);
        check_pairs(expected, &topology);
        bool found = expected->finding == NULL;
        for (size_t j = 0; j < topology.finding_count && !found; j++)
            found = strcmp(topology.findings[j].code, expected->finding) == 0;
        if (!found)
            fail_msg("%s lacks the finding %s", expected->file, expected->finding);
        cm_topology_release(&topology);
    }
}

/* GPU memory of POWER9 is told apart and given to its GPU. */
static void test_gpu_memory(void **state)
{
    (void)state;
    struct cm_topology topology;
    load("hwloc/power9-v100-gpu-numa-kept.derived.xml", &topology);
    size_t nodes = 0, owned = 0;
    for (size_t i = 0; i < topology.numa_count; i++) {
        nodes += topology.numa[i].gpu_memory;
        for (size_t j = 0; j < topology.gpu_count; j++)
            owned += strcmp(topology.numa[i].gpu, topology.gpus[j].bus_id) == 0;
    }
    assert_int_equal(nodes, 6);
    assert_int_equal(owned, 6);
    cm_topology_release(&topology);
}

/* One rank per GPU: cores are disjoint, local to the GPU, shared out fully and evenly. */
static void test_gpu_binding(void **state)
{
    (void)state;
    for (size_t i = 0; i < MACHINES; i++) {
        struct cm_topology topology;
        const char *bus_ids[16];
        struct cm_cpuset taken;
        memset(&taken, 0, sizeof taken);
        load(machines[i].file, &topology);
        unsigned ranks = (unsigned)topology.gpu_count;
        for (unsigned rank = 0; rank < ranks; rank++)
            bus_ids[rank] = topology.gpus[rank].bus_id;
        for (unsigned rank = 0; rank < ranks; rank++) {
            struct cm_binding binding;
            const struct cm_pci_device *gpu = &topology.gpus[rank];
            assert_ok(cm_binding_plan(&topology, bus_ids, rank, ranks, &binding));
            struct cm_cpuset local = binding.cpus, both = binding.cpus;
            cm_cpuset_and(&local, &gpu->local_cpus);
            assert_memory_equal(&local, &binding.cpus, sizeof local);
            assert_false(binding.fallback);
            assert_int_equal(cm_cpuset_count(&binding.nodes), 1);
            assert_true(cm_cpuset_has(&binding.nodes, topology.numa[gpu->numa].os_index));
            /* The recorded DGX-2 was cut to two cores per socket. */
            bool crowded = strstr(machines[i].file, "DGX2") != NULL;
            assert_int_equal(binding.oversubscribed, crowded);
            cm_cpuset_and(&both, &taken);
            if (!crowded)
                assert_int_equal(cm_cpuset_count(&both), 0);
            cm_cpuset_or(&taken, &binding.cpus);
        }
        if (ranks > 0 && machines[i].gpus % 2 == 0)
            assert_memory_equal(&taken, &topology.allowed, sizeof taken);
        cm_topology_release(&topology);
    }
}

static void test_p4d_binding(void **state)
{
    (void)state;
    static const char *const right[] = {"0-5,48-53",   "6-11,54-59",  "12-17,60-65", "18-23,66-71",
                                        "24-29,72-77", "30-35,78-83", "36-41,84-89", "42-47,90-95"};
    struct cm_topology topology;
    const char *bus_ids[8];
    load("aws/p4d.24xlarge.hwloc.xml", &topology);
    for (unsigned rank = 0; rank < 8; rank++)
        bus_ids[rank] = topology.gpus[rank].bus_id;
    for (unsigned rank = 0; rank < 8; rank++) {
        struct cm_binding binding;
        struct cm_str text = CM_STR_INIT;
        assert_ok(cm_binding_plan(&topology, bus_ids, rank, 8, &binding));
        cm_cpuset_write(&binding.cpus, &text);
        assert_string_equal(cm_str_text(&text), right[rank]);
        assert_int_equal(binding.cores, 6);
        cm_str_release(&text);
    }
    cm_topology_release(&topology);
}

/* CPU ranks on every machine: disjoint, whole cores, within one node when there are enough. */
static void test_cpu_binding(void **state)
{
    (void)state;
    static const unsigned sizes[] = {1, 2, 3, 4, 8};
    for (size_t i = 0; i < MACHINES; i++) {
        struct cm_topology topology;
        load(machines[i].file, &topology);
        for (size_t j = 0; j < sizeof sizes / sizeof sizes[0]; j++) {
            struct cm_cpuset taken;
            unsigned cores = 0;
            memset(&taken, 0, sizeof taken);
            for (unsigned rank = 0; rank < sizes[j]; rank++) {
                struct cm_binding binding;
                if (cm_cpuset_count(&topology.allowed) == 0) {
                    assert_status(cm_binding_plan(&topology, NULL, rank, sizes[j], &binding),
                                  CM_UNSUPPORTED, "no usable processors");
                    continue;
                }
                assert_ok(cm_binding_plan(&topology, NULL, rank, sizes[j], &binding));
                if (binding.oversubscribed)
                    continue;
                struct cm_cpuset both = binding.cpus;
                cm_cpuset_and(&both, &taken);
                assert_int_equal(cm_cpuset_count(&both), 0);
                assert_true(cm_cpuset_count(&binding.cpus) > 0);
                if (sizes[j] == 8)
                    assert_int_equal(cm_cpuset_count(&binding.nodes), 1);
                cm_cpuset_or(&taken, &binding.cpus);
                cores += binding.cores;
            }
            if (cores > 0)
                assert_memory_equal(&taken, &topology.allowed, sizeof taken);
        }
        cm_topology_release(&topology);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),       cmocka_unit_test(test_gpu_memory),
        cmocka_unit_test(test_gpu_binding), cmocka_unit_test(test_p4d_binding),
        cmocka_unit_test(test_cpu_binding),
    };
    if (access(CM_TEST_RECORDED, R_OK) != 0) {
        printf("skipped: the recorded topologies are not at %s\n", CM_TEST_RECORDED);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
