/* Topologies from the fixtures: counts, paths, findings, and the three ways to show them. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/topology.h"
#include "host/topology/xml.h"

static void load(const char *name, struct cm_topology *topology)
{
    char path[512];
    snprintf(path, sizeof path, "%s/topology/%s", CM_TEST_FIXTURES, name);
    assert_ok(cm_topology_load(path, topology));
}

static void assert_path(const struct cm_topology *topology, const struct cm_pci_device *a,
                        const struct cm_pci_device *b, const char *expected)
{
    char word[8];
    cm_path_word(cm_path_between(topology, a, b), word);
    assert_string_equal(word, expected);
    cm_path_word(cm_path_between(topology, b, a), word);
    assert_string_equal(word, expected);
}

static const struct cm_finding *find(const struct cm_topology *topology, const char *code,
                                     const char *device)
{
    for (size_t i = 0; i < topology->finding_count; i++) {
        if (strcmp(topology->findings[i].code, code) == 0 &&
            strcmp(topology->findings[i].device, device) == 0)
            return &topology->findings[i];
    }
    return NULL;
}

static void test_h100(void **state)
{
    (void)state;
    struct cm_topology machine;
    load("h100x8.hwloc.xml", &machine);
    assert_string_equal(machine.format, "hwloc");
    assert_false(machine.live);
    assert_int_equal(machine.package_count, 2);
    assert_int_equal(machine.packages[0].cores, 4);
    assert_int_equal(machine.packages[0].pus, 8);
    assert_string_equal(machine.packages[1].model, "Intel(R) Xeon(R) Platinum 8480C");
    assert_int_equal(machine.numa_count, 2);
    assert_int_equal(machine.core_count, 8);
    assert_int_equal(machine.gpu_count, 8);
    assert_int_equal(machine.nic_count, 8);
    assert_int_equal(machine.nvswitch_count, 4);
    assert_int_equal(machine.switch_count, 4);
    assert_true(machine.memory_bytes == UINT64_C(2) << 40);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(machine.gpus[i].numa, i / 4);
        assert_int_equal(machine.gpus[i].parent_switch, i / 2);
        assert_int_equal(machine.nics[i].parent_switch, i / 2);
        assert_near(machine.gpus[i].link.current, 63.015385e9, 1e-6);
        assert_string_equal(machine.gpus[i].name, "NVIDIA H100 SXM5 80GB");
    }
    assert_string_equal(machine.gpus[3].bus_id, "0000:34:00.0");
    assert_string_equal(machine.nics[3].os_name, "mlx5_3");
    assert_string_equal(machine.nics[3].name, "ConnectX-7");
    assert_path(&machine, &machine.gpus[0], &machine.gpus[7], "NV18");
    assert_path(&machine, &machine.gpus[0], &machine.gpus[0], "X");
    assert_path(&machine, &machine.gpus[0], &machine.nics[1], "PIX");
    assert_path(&machine, &machine.gpus[0], &machine.nics[2], "NODE");
    assert_path(&machine, &machine.gpus[0], &machine.nics[4], "SYS");
    assert_int_equal(machine.nvlink_count, 8);
    assert_true(machine.nvlinks[0].to_switch);
    assert_near(machine.nvlinks[0].bytes_per_s, 450e9, 1e-9);
    assert_int_equal(machine.finding_count, 0);
    cm_topology_release(&machine);
}

static void test_no_gpu(void **state)
{
    (void)state;
    struct cm_topology machine;
    struct cm_str text = CM_STR_INIT;
    load("no-gpu.hwloc.xml", &machine);
    assert_int_equal(machine.gpu_count, 0);
    assert_int_equal(machine.nic_count, 0);
    assert_int_equal(machine.core_count, 4);
    assert_ok(cm_topology_text(&machine, false, &text));
    assert_non_null(strstr(text.text, "no GPU, no NVSwitch, no fabric NIC"));
    assert_null(strstr(text.text, "\033["));
    cm_str_release(&text);
    cm_topology_release(&machine);
}

static void test_slow_link(void **state)
{
    (void)state;
    struct cm_topology machine;
    load("slow-link.hwloc.xml", &machine);
    assert_int_equal(machine.finding_count, 1);
    const struct cm_finding *finding = find(&machine, "link-below-maximum", "0000:02:00.0");
    assert_non_null(finding);
    assert_int_equal(finding->level, CM_FINDING_WARN);
    assert_non_null(strstr(finding->text, "7.9 of Gen4 x16 31.5 GB/s"));
    assert_path(&machine, &machine.gpus[0], &machine.gpus[1], "PHB");
    cm_topology_release(&machine);
}

static void test_uneven(void **state)
{
    (void)state;
    static const int nodes[] = {0, 0, 0, 1, -1};
    char word[8];
    struct cm_topology machine;
    load("uneven.hwloc.xml", &machine);
    assert_int_equal(machine.gpu_count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(machine.gpus[i].numa, nodes[i]);
    assert_int_equal(cm_cpuset_count(&machine.gpus[4].local_cpus), 0);
    assert_path(&machine, &machine.gpus[0], &machine.gpus[4], "?");
    assert_path(&machine, &machine.gpus[0], &machine.gpus[3], "SYS");
    cm_path_word(cm_path_to_numa(&machine, &machine.gpus[0], 0), word);
    assert_string_equal(word, "PHB");
    cm_path_word(cm_path_to_numa(&machine, &machine.gpus[0], 1), word);
    assert_string_equal(word, "SYS");
    cm_path_word(cm_path_to_numa(&machine, &machine.gpus[4], 1), word);
    assert_string_equal(word, "?");
    /* The slow ConnectX-7 is a management port, the Ethernet ConnectX-6 with verbs is RoCE. */
    assert_int_equal(machine.nic_count, 2);
    assert_string_equal(machine.nics[0].os_name, "mlx5_0");
    assert_int_equal(machine.other_count, 1);
    assert_true(machine.others[0].management);
    assert_string_equal(machine.others[0].os_name, "mlx5_9");
    assert_int_equal(machine.others[0].parent_switch, 0);
    assert_non_null(find(&machine, "management-port", "0000:19:00.0"));
    assert_non_null(find(&machine, "nic-far-from-gpus", "0000:41:00.0"));
    assert_non_null(find(&machine, "gpu-without-local-memory", "0000:21:00.0"));
    assert_non_null(find(&machine, "gpu-without-local-memory", "0000:61:00.0"));
    assert_non_null(find(&machine, "gpus-uneven", ""));
    assert_int_equal(machine.finding_count, 5);
    cm_topology_release(&machine);
}

static void test_nccl(void **state)
{
    (void)state;
    struct cm_topology machine;
    load("nvlink-pairs.nccl.xml", &machine);
    assert_string_equal(machine.format, "nccl");
    assert_int_equal(machine.gpu_count, 4);
    assert_int_equal(machine.nic_count, 1); /* the disk is none */
    assert_int_equal(machine.switch_count, 3);
    assert_int_equal(machine.numa_count, 2);
    assert_int_equal(cm_cpuset_count(&machine.allowed), 32);
    assert_true(cm_cpuset_has(&machine.gpus[3].local_cpus, 31));
    assert_false(cm_cpuset_has(&machine.gpus[3].local_cpus, 15));
    assert_string_equal(machine.switches[2].bus_id, "0000:81:00.0");
    assert_int_equal(machine.gpus[0].sm, 80);
    assert_near(machine.nics[0].net_bytes_per_s, 50e9, 1e-9);
    assert_string_equal(machine.nics[0].os_name, "mlx5_0");
    assert_int_equal(machine.nics[0].parent_switch, 0);
    assert_int_equal(machine.gpus[0].parent_switch, 1);
    assert_path(&machine, &machine.gpus[0], &machine.gpus[1], "NV12");
    assert_path(&machine, &machine.gpus[1], &machine.gpus[2], "SYS");
    assert_path(&machine, &machine.gpus[0], &machine.nics[0], "PXB");
    assert_near(machine.nics[0].link.maximum, 63.015385e9, 1e-6);
    assert_near(machine.nvlinks[0].bytes_per_s, 300e9, 1e-9);
    cm_topology_release(&machine);
}

static const char *const fixtures[] = {"h100x8.hwloc.xml", "no-gpu.hwloc.xml",
                                       "slow-link.hwloc.xml", "uneven.hwloc.xml",
                                       "nvlink-pairs.nccl.xml"};
#define FIXTURES (sizeof fixtures / sizeof fixtures[0])

static void test_digest(void **state)
{
    (void)state;
    char digests[FIXTURES][24];
    for (size_t i = 0; i < FIXTURES; i++) {
        struct cm_topology machine;
        load(fixtures[i], &machine);
        memcpy(digests[i], machine.digest, sizeof digests[i]);
        assert_int_equal(strlen(digests[i]), 16);
        cm_topology_release(&machine);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(digests[i], digests[j]);
        load(fixtures[i], &machine);
        assert_string_equal(machine.digest, digests[i]);
        cm_topology_release(&machine);
    }
}

static void test_json(void **state)
{
    (void)state;
    static const char *const keys[] = {"packages", "numa_nodes", "gpus",  "nics",
                                       "switches", "nvlinks",    "paths", "findings"};
    for (size_t i = 0; i < FIXTURES; i++) {
        struct cm_topology machine;
        json_t *value = NULL;
        char *text = NULL;
        load(fixtures[i], &machine);
        assert_ok(cm_topology_json(&machine, &value));
        for (size_t j = 0; j < sizeof keys / sizeof keys[0]; j++)
            assert_non_null(json_object_get(value, keys[j]));
        assert_int_equal(json_array_size(json_object_get(value, "gpus")), machine.gpu_count);
        assert_int_equal(json_array_size(json_object_get(value, "cores")), machine.core_count);
        const json_t *paths = json_object_get(value, "paths");
        const json_t *rows = json_object_get(paths, "gpu_nic");
        assert_int_equal(json_array_size(rows), machine.gpu_count);
        if (machine.gpu_count > 0)
            assert_int_equal(json_array_size(json_array_get(rows, 0)), machine.nic_count);
        assert_ok(cm_json_dump(value, 1, &text));
        cm_free(text);
        json_decref(value);
        cm_topology_release(&machine);
    }
}

static void test_json_shared(void **state)
{
    (void)state;
    struct cm_topology machine;
    json_t *value = NULL;
    load("h100x8.hwloc.xml", &machine);
    assert_ok(cm_topology_json(&machine, &value));
    const json_t *shared = json_object_get(value, "shared_switches");
    assert_int_equal(json_array_size(shared), 4);
    const json_t *second = json_array_get(shared, 1);
    assert_string_equal(json_string_value(json_object_get(second, "bus_id")), "0000:31:00.0");
    assert_int_equal(json_integer_value(json_array_get(json_object_get(second, "gpus"), 1)), 3);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(second, "nics"), 0)), 2);
    json_decref(value);
    cm_topology_release(&machine);
}

/* The drawing is well-formed, and every GPU and NIC is on it. */
static void test_svg(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIXTURES; i++) {
        struct cm_topology machine;
        struct cm_str svg = CM_STR_INIT;
        enum cm_xml_event event = CM_XML_OPEN;
        size_t devices = 0;
        load(fixtures[i], &machine);
        assert_ok(cm_topology_svg(&machine, &svg));
        struct cm_xml *xml = cm_alloc(1, sizeof *xml);
        cm_xml_init("svg", svg.text, svg.length, xml);
        while (event != CM_XML_END) {
            assert_ok(cm_xml_next(xml, &event));
            const char *class = event == CM_XML_OPEN ? cm_xml_attribute(xml, "class") : NULL;
            devices += class != NULL && (strcmp(class, "gpu") == 0 || strcmp(class, "nic") == 0);
        }
        assert_int_equal(devices, machine.gpu_count + machine.nic_count);
        assert_non_null(strstr(svg.text, "prefers-color-scheme"));
        cm_xml_release(xml);
        cm_free(xml);
        cm_str_release(&svg);
        cm_topology_release(&machine);
    }
}

static void test_text(void **state)
{
    (void)state;
    struct cm_topology machine;
    struct cm_str text = CM_STR_INIT;
    load("h100x8.hwloc.xml", &machine);
    assert_ok(cm_topology_text(&machine, false, &text));
    assert_non_null(strstr(text.text, "8 GPUs, 4 NVSwitches, 8 fabric NICs, 4 PCIe switches"));
    assert_non_null(strstr(text.text, "GPU 2 3: NIC 2 3, on one PCIe switch (PIX)"));
    assert_non_null(strstr(text.text, "GPU7  NV18  NV18"));
    assert_null(strstr(text.text, " \n"));
    size_t plain = text.length;
    cm_str_reset(&text);
    assert_ok(cm_topology_text(&machine, true, &text));
    assert_non_null(strstr(text.text, "\033[32m"));
    assert_true(text.length > plain);
    cm_str_release(&text);
    cm_topology_release(&machine);
}

static void test_live(void **state)
{
    (void)state;
    struct cm_topology machine;
    struct cm_str text = CM_STR_INIT;
    json_t *value = NULL;
    assert_ok(cm_topology_live(&machine));
    assert_true(machine.live);
    assert_true(machine.core_count > 0);
    assert_true(cm_cpuset_count(&machine.allowed) > 0);
    assert_true(machine.memory_bytes > 0);
    assert_int_equal(machine.limits.cpus_allowed, cm_cpuset_count(&machine.allowed));
    assert_ok(cm_topology_text(&machine, true, &text));
    assert_ok(cm_topology_svg(&machine, &text));
    assert_ok(cm_topology_json(&machine, &value));
    json_decref(value);
    cm_str_release(&text);
    cm_topology_release(&machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h100),      cmocka_unit_test(test_no_gpu),
        cmocka_unit_test(test_slow_link), cmocka_unit_test(test_uneven),
        cmocka_unit_test(test_nccl),      cmocka_unit_test(test_digest),
        cmocka_unit_test(test_json),      cmocka_unit_test(test_json_shared),
        cmocka_unit_test(test_svg),       cmocka_unit_test(test_text),
        cmocka_unit_test(test_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
