/* The small parts of the topology code: processor sets, bus ids, PCIe links, cgroup limits. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/model.h"
#include "clustermark/topology.h"
#include "host/topology/internal.h"

static void test_cpuset(void **state)
{
    (void)state;
    static const char *const good[] = {"", "0", "0-3,8", "63-64", "0,2,4-6,8191"};
    static const char *const bad[] = {"x",    "-1",   "3-1",  "8192", "0-",
                                      "0,,1", "0, 1", "0,1,", "0x3",  "1-2-3"};
    struct cm_cpuset set, other;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct cm_str text = CM_STR_INIT;
        assert_true(cm_cpuset_parse(good[i], &set));
        cm_cpuset_write(&set, &text);
        assert_string_equal(cm_str_text(&text), good[i]);
        cm_str_release(&text);
    }
    assert_true(cm_cpuset_parse("0-3,8\n", &set));
    assert_int_equal(cm_cpuset_count(&set), 5);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(cm_cpuset_parse(bad[i], &set));
    assert_int_equal(cm_cpuset_count(&set), 5);
    assert_true(cm_cpuset_parse("2-9", &other));
    cm_cpuset_and(&other, &set);
    assert_int_equal(cm_cpuset_count(&other), 3);
    cm_cpuset_or(&other, &set);
    assert_int_equal(cm_cpuset_count(&other), 5);
    cm_cpuset_add(&set, CM_CPUS_MAX);
    assert_false(cm_cpuset_has(&set, CM_CPUS_MAX));
    assert_int_equal(cm_cpuset_count(&set), 5);
}

static void test_bus_id(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {"0000:10:1c.0", "0000:10:1c.0"},   {"00000000:10:1C.0", "0000:10:1c.0"},
        {"10:1c.0", "0000:10:1c.0"},        {"1:2:3.4", "0001:02:03.4"},
        {"10000:e1:00.0", "10000:e1:00.0"},
    };
    static const char *const bad[] = {"",
                                      "10",
                                      "10:1c",
                                      "0000:10:20.0",
                                      "0000:100:00.0",
                                      "0000:10:00.8",
                                      "0000:10:00.0 ",
                                      " 0:0:0.0",
                                      "0:0:0:0.0",
                                      "-1:0:0.0",
                                      "123456789:0:0.0"};
    char bus_id[24];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(cm_bus_id_normal(good[i][0], bus_id));
        assert_string_equal(bus_id, good[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(cm_bus_id_normal(bad[i], bus_id));
    assert_true(cm_bus_id_compare("0000:0a:00.0", "0000:10:00.0") < 0);
    assert_true(cm_bus_id_compare("10000:00:00.0", "ffff:00:00.0") > 0);
    assert_int_equal(cm_bus_id_compare("0000:0a:00.1", "0000:0a:00.1"), 0);
}

static void test_link_rates(void **state)
{
    (void)state;
    /* x16: 4, 8, then 128b/130b. */
    static const double right[] = {0, 4, 8, 15.754, 31.508, 63.015, 126.031};
    for (unsigned i = 1; i <= 6; i++) {
        double gts = cm_link_generation_gts(i);
        assert_near(cm_link_rate(gts, 16), right[i] * 1e9, 1e-4);
        assert_int_equal(cm_link_generation(gts), i);
    }
    assert_near(cm_link_parse_gts("16 GT/s"), 16, 1e-12);
    assert_near(cm_link_parse_gts("32.0 GT/s PCIe\n"), 32, 1e-12);
    assert_near(cm_link_parse_gts("32 GT/s PCIe/s"), 32, 1e-12);
    assert_near(cm_link_parse_gts("2.5 GT/s"), 2.5, 1e-12);
    static const char *const nothing[] = {"",        "Unknown",  "Unknown speed", "16",
                                          "-8 GT/s", "nan GT/s", "1e30 GT/s"};
    for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++)
        assert_true(cm_link_parse_gts(nothing[i]) <= 0);
}

static char root[] = "/tmp/cm-parts-XXXXXX";

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command) == 0 ? 0 : -1;
}

/* A file below the pretended root, with its folders. */
static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void put_link(const char *bus_id, const char *speed, const char *width,
                     const char *max_speed, const char *max_width)
{
    const char *const names[] = {"current_link_speed", "current_link_width", "max_link_speed",
                                 "max_link_width"};
    const char *const values[] = {speed, width, max_speed, max_width};
    for (size_t i = 0; i < 4; i++) {
        char path[256];
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", bus_id, names[i]);
        put(path, values[i]);
    }
}

static struct cm_pci_device read_link(const char *bus_id, const char *port)
{
    char sys[64];
    struct cm_pci_device device = {.kind = CM_PCI_NIC, .os_name = "mlx5_0"};
    snprintf(sys, sizeof sys, "%s/sys", root);
    snprintf(device.bus_id, sizeof device.bus_id, "%s", bus_id);
    cm_link_read(sys, port, &device);
    return device;
}

static void test_link_sysfs(void **state)
{
    (void)state;
    char text[CM_LINK_TEXT_MAX];
    put_link("0000:01:00.0", "2.5 GT/s PCIe\n", "16\n", "32.0 GT/s PCIe\n", "16\n");
    struct cm_pci_device idle = read_link("0000:01:00.0", NULL);
    assert_string_equal(cm_link_text(&idle.link, text), "Gen1 x16 4.0 of Gen5 x16 63.0 GB/s");
    assert_true(cm_link_below_maximum(&idle.link));
    /* The slot is Gen4 only: no better is possible. */
    put_link("0000:00:01.0", "16.0 GT/s PCIe\n", "16\n", "16.0 GT/s PCIe\n", "16\n");
    put_link("0000:02:00.0", "16.0 GT/s PCIe\n", "16\n", "32.0 GT/s PCIe\n", "16\n");
    struct cm_pci_device slot = read_link("0000:02:00.0", "0000:00:01.0");
    assert_string_equal(cm_link_text(&slot.link, text), "Gen4 x16 31.5 GB/s");
    assert_false(cm_link_below_maximum(&slot.link));
    /* A virtual bridge claims less than what the link does: not believed. */
    put_link("0000:00:02.0", "2.5 GT/s\n", "1\n", "2.5 GT/s\n", "1\n");
    struct cm_pci_device virtual = read_link("0000:02:00.0", "0000:00:02.0");
    assert_near(virtual.link.maximum, 63.015e9, 1e-4);
    put_link("0000:03:00.0", "Unknown\n", "63\n", "Unknown\n", "255\n");
    struct cm_pci_device hidden = read_link("0000:03:00.0", NULL);
    assert_string_equal(cm_link_text(&hidden.link, text), "");
    put("/sys/class/infiniband/mlx5_0/ports/1/rate", "400 Gb/sec (4X NDR)\n");
    struct cm_pci_device nic = read_link("0000:09:00.0", NULL);
    assert_near(nic.net_bytes_per_s, 50e9, 1e-12);
}

static void test_limits_v2(void **state)
{
    (void)state;
    struct cm_limits limits = {.known = false};
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/devices/system/cpu/online", "0-7\n");
    put("/sys/fs/cgroup/a/cpu.max", "250000 100000\n"); /* the parent is stricter */
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/b/memory.max", "1073741824\n");
    put("/sys/fs/cgroup/a/memory.max", "max\n");
    cm_limits_read(root, &limits);
    assert_true(limits.known);
    assert_near(limits.cpu_quota, 2.5, 1e-12);
    assert_true(limits.memory_limit_bytes == 1073741824);
    assert_int_equal(limits.cpus_online, 8);
    assert_false(limits.container);
    /* Inside a container the path is the host's and not there. */
    put("/proc/self/cgroup", "0::/docker/x\n");
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n");
    put("/run/.containerenv", "");
    memset(&limits, 0, sizeof limits);
    cm_limits_read(root, &limits);
    assert_near(limits.cpu_quota, 1, 1e-12);
    assert_true(limits.memory_limit_bytes == 0);
    assert_true(limits.container);
}

static void test_limits_v1(void **state)
{
    (void)state;
    struct cm_limits limits = {.known = false};
    char path[64];
    snprintf(path, sizeof path, "%s/sys/fs/cgroup/cpu.max", root);
    unlink(path);
    put("/proc/self/cgroup", "5:cpu,cpuacct:/j\n4:memory:/m/n\n0::/\n");
    put("/sys/fs/cgroup/cpu/j/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu/j/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/m/n/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "4096000\n");
    cm_limits_read(root, &limits);
    assert_near(limits.cpu_quota, 0.5, 1e-12);
    assert_true(limits.memory_limit_bytes == 4096000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpuset),     cmocka_unit_test(test_bus_id),
        cmocka_unit_test(test_link_rates), cmocka_unit_test(test_link_sysfs),
        cmocka_unit_test(test_limits_v2),  cmocka_unit_test(test_limits_v1),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
