/* The cluster's map of made-up nodes: folded, odd ones named, rails, NVLink domains. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "clustermark/cluster.h"
#include "clustermark/parallel.h"

/* Eight GPUs and eight NICs, two sockets. */
static struct cm_node full_node(void)
{
    struct cm_node node;
    memset(&node, 0, sizeof node);
    strcpy(node.processor, "AMD EPYC 9654");
    strcpy(node.kernel, "6.8.0");
    strcpy(node.driver, "580.1");
    strcpy(node.digest, "0123456789abcdef");
    node.packages = 2;
    node.cores = 192;
    node.numa_nodes = 2;
    node.gpu_models = 1;
    strcpy(node.gpus[0].model, "NVIDIA H200");
    node.gpus[0].count = 8;
    node.nvlinks = 18;
    node.nvswitches = 4;
    node.gpu_width = 16;
    node.nic_count = 8;
    for (unsigned i = 0; i < 8; i++) {
        snprintf(node.nics[i].name, sizeof node.nics[i].name, "mlx5_%u", i);
        strcpy(node.nics[i].model, "ConnectX-7");
        node.nics[i].rate = 50e9;
        node.nics[i].width = 16;
    }
    return node;
}

static void add(struct cm_cluster_map *cluster, unsigned number, const struct cm_node *node)
{
    struct cm_cluster_node place = {.first_rank = 8 * (unsigned)cluster->count,
                                    .ranks = 8,
                                    .memory_bytes = (2048ull << 30) + ((uint64_t)number << 20)};
    snprintf(place.name, sizeof place.name, "node%04u", number);
    assert_ok(cm_cluster_add(cluster, &place, node));
}

/* What the map says; the caller frees it. */
static char *text_of(const struct cm_cluster_map *cluster)
{
    struct cm_str out = CM_STR_INIT;
    cm_cluster_text(cluster, true, &out);
    assert_ok(cm_str_status(&out));
    return out.text;
}

static void assert_says(const struct cm_cluster_map *cluster, const char *part)
{
    char *text = text_of(cluster);
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" is not in\n%s", part, text);
    free(text);
}

static void assert_silent(const struct cm_cluster_map *cluster, const char *part)
{
    char *text = text_of(cluster);
    if (strstr(text, part) != NULL)
        fail_msg("\"%s\" is in\n%s", part, text);
    free(text);
}

static void test_equal(void **state)
{
    (void)state;
    static const unsigned counts[] = {1, 4, 64, 2048};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct cm_cluster_map cluster = {0};
        struct cm_node node = full_node();
        char line[80];
        for (unsigned k = 0; k < counts[i]; k++)
            add(&cluster, k, &node);
        assert_int_equal(cluster.kind_count, 1);
        assert_int_equal(cluster.kinds[0].count, counts[i]);
        assert_int_equal(cluster.ranks, 8 * counts[i]);
        snprintf(line, sizeof line, "%u ranks on %u node", 8 * counts[i], counts[i]);
        assert_says(&cluster, line);
        assert_says(&cluster,
                    "node: 8 x NVIDIA H200, 8 NICs at 400 Gb/s, 2 x AMD EPYC 9654, 192 cores, 2 "
                    "NUMA nodes, driver 580.1, kernel 6.8.0, 2 TiB\n");
        assert_says(&cluster, counts[i] == 1 ? "NVLink: within the node\n"
                                             : "NVLink: within each node, none between nodes\n");
        if (counts[i] > 1)
            assert_says(&cluster, "8 rails, NIC k of each node (mlx5_0 to mlx5_7)\n");
        assert_silent(&cluster, "odd");
        cm_cluster_release(&cluster);
    }
}

static struct cm_cluster_map with_odd(unsigned count, unsigned which, const struct cm_node *odd)
{
    struct cm_cluster_map cluster = {0};
    struct cm_node node = full_node();
    for (unsigned k = 0; k < count; k++)
        add(&cluster, k, k == which ? odd : &node);
    return cluster;
}

static void test_odd_one(void **state)
{
    (void)state;
    struct cm_node odd = full_node();
    odd.gpus[0].count = 7;
    odd.nics[3].rate = 12.5e9;
    strcpy(odd.driver, "580.2");
    strcpy(odd.digest, "another");
    struct cm_cluster_map cluster = with_odd(64, 7, &odd);
    assert_int_equal(cluster.kind_count, 2);
    assert_says(&cluster, "63 nodes: 8 x NVIDIA H200");
    assert_says(&cluster, "odd: node0007: 7 GPUs, the other 63 have 8; NIC mlx5_3 at 100 of 400 "
                          "Gb/s; driver 580.2 against 580.1\n");
    assert_says(&cluster, "; rail 3 runs at 100 to 400 Gb/s\n");
    cm_cluster_release(&cluster);
    /* The first one too: what is usual is the majority's. */
    cluster = with_odd(2048, 0, &odd);
    assert_says(&cluster, "odd: node0000: 7 GPUs, the other 2047 have 8");
    cm_cluster_release(&cluster);
}

/* Each kind of oddness by itself. */
static void test_differences(void **state)
{
    (void)state;
    struct cm_node odd = full_node();
    struct cm_cluster_map cluster;
#define CHECK(words)                                                                               \
    cluster = with_odd(4, 2, &odd);                                                                \
    assert_says(&cluster, "odd: node0002: " words "\n");                                           \
    cm_cluster_release(&cluster);                                                                  \
    odd = full_node()
    odd.nic_count = 7;
    memmove(&odd.nics[5], &odd.nics[6], 2 * sizeof odd.nics[0]);
    memset(&odd.nics[7], 0, sizeof odd.nics[0]);
    CHECK("7 NICs, the other 3 have 8 (mlx5_5 is missing)");
    odd.nics[6].width = 8;
    CHECK("NIC mlx5_6 on 8 PCIe lanes of 16");
    odd.gpu_width = 8;
    CHECK("a GPU on 8 PCIe lanes of 16");
    odd.nvlinks = 17;
    CHECK("17 NVLink at its weakest GPU, the other 3 have 18");
    strcpy(odd.kernel, "6.5.0");
    CHECK("kernel 6.5.0 against 6.8.0");
    odd.driver[0] = '\0';
    CHECK("driver not known against 580.1");
    strcpy(odd.gpus[0].model, "NVIDIA H100");
    CHECK("8 x NVIDIA H100 against 8 x NVIDIA H200");
    odd.gpus[0].count = 7;
    odd.gpu_models = 2;
    strcpy(odd.gpus[1].model, "NVIDIA H100");
    odd.gpus[1].count = 1;
    CHECK("7 x NVIDIA H200 and 1 x NVIDIA H100 against 8 x NVIDIA H200");
    odd.gpu_models = 0;
    memset(odd.gpus, 0, sizeof odd.gpus);
    odd.nvlinks = odd.gpu_width = 0;
    CHECK("no GPU, the other 3 have 8");
    odd.cores = 96;
    odd.packages = 1;
    CHECK("1 package, the other 3 have 2; 96 cores, the other 3 have 192");
    strcpy(odd.digest, "other");
    CHECK("another topology (other against 0123456789abcdef); see clustermark topo there");
#undef CHECK
}

static void test_two_kinds(void **state)
{
    (void)state;
    struct cm_cluster_map cluster = {0};
    struct cm_node node = full_node(), old = full_node();
    strcpy(old.gpus[0].model, "NVIDIA A100");
    old.nic_count = 4;
    memset(&old.nics[4], 0, 4 * sizeof old.nics[0]);
    for (unsigned k = 0; k < 64; k++)
        add(&cluster, k, k < 32 ? &node : &old);
    assert_int_equal(cm_cluster_usual(&cluster), CM_KIND_UNKNOWN);
    assert_says(&cluster, "32 nodes: 8 x NVIDIA H200");
    assert_says(&cluster, "(node0000 to node0031)\n");
    assert_says(&cluster, "32 nodes: 8 x NVIDIA A100");
    assert_says(&cluster, "odd: node0032 to node0063: 8 x NVIDIA A100 against 8 x NVIDIA H200; 4 "
                          "NICs, the other 32 have 8 (mlx5_4 is missing)");
    assert_says(&cluster, "8 rails, NIC k of each node (mlx5_0 to mlx5_7); rail 4 has 32 of 64");
    cm_cluster_release(&cluster);
}

static void test_memory(void **state)
{
    (void)state;
    struct cm_cluster_map cluster = {0};
    struct cm_node node = full_node();
    for (unsigned k = 0; k < 8; k++)
        add(&cluster, k, &node);
    assert_int_equal(cluster.kind_count, 1);
    assert_silent(&cluster, "odd");
    cluster.nodes[5].memory_bytes = 1024ull << 30;
    assert_says(&cluster, "odd: node0005: 1 TiB of memory against 2 TiB\n");
    cm_cluster_release(&cluster);
}

static void test_domains(void **state)
{
    (void)state;
    struct cm_cluster_map cluster = {0};
    struct cm_node node = full_node();
    for (unsigned k = 0; k < 36; k++)
        add(&cluster, k, &node);
    for (unsigned k = 0; k < 36; k++)
        cluster.nodes[k].fabric = 1 + k / 18;
    assert_says(&cluster, "NVLink: 2 domains over nodes, of 18 nodes each\n");
    cluster.nodes[35].fabric = 0;
    assert_says(&cluster, "NVLink: 2 domains over nodes, of 17 to 18 nodes each; 1 node is in "
                          "none\n");
    cm_cluster_release(&cluster);
}

static void test_uneven(void **state)
{
    (void)state;
    struct cm_cluster_map cluster = {0};
    struct cm_node node = full_node();
    for (unsigned k = 0; k < 3; k++)
        add(&cluster, k, &node);
    cluster.nodes[1].ranks = 4;
    assert_says(&cluster, "unevenly: 4 to 8 on each");
    cm_cluster_release(&cluster);
}

/* No two nodes are alike: memory stays bounded, and so do the lines. */
static void test_all_odd(void **state)
{
    (void)state;
    struct cm_cluster_map cluster = {0};
    for (unsigned k = 0; k < 2048; k++) {
        struct cm_node node = full_node();
        node.cores = 1 + k;
        add(&cluster, k, &node);
    }
    assert_int_equal(cluster.kind_count, CM_KINDS_MAX);
    assert_says(&cluster, "56 more kinds of node\n");
    assert_says(&cluster, "1984 nodes are not described: more than 64 kinds\n");
    char *text = text_of(&cluster);
    assert_true(strlen(text) < 8192);
    free(text);
    json_t *value = NULL;
    assert_ok(cm_cluster_json(&cluster, false, &value));
    assert_int_equal(json_array_size(json_object_get(value, "kinds")), CM_KINDS_MAX);
    assert_true(json_array_size(json_object_get(value, "odd")) <= 256);
    json_decref(value);
    cm_cluster_release(&cluster);
}

static void test_json(void **state)
{
    (void)state;
    struct cm_node odd = full_node();
    odd.gpus[0].count = 7;
    struct cm_cluster_map cluster = with_odd(64, 7, &odd);
    json_t *value = NULL;
    assert_ok(cm_cluster_json(&cluster, true, &value));
    json_t *row = json_array_get(json_object_get(value, "odd"), 0);
    assert_int_equal(json_array_size(json_object_get(value, "odd")), 1);
    assert_string_equal(json_string_value(json_object_get(row, "node")), "node0007");
    assert_int_equal(json_integer_value(json_object_get(row, "first_rank")), 56);
    assert_int_equal(json_array_size(json_object_get(value, "rails")), 8);
    row = json_array_get(json_object_get(value, "kinds"), 0);
    assert_string_equal(json_string_value(json_object_get(row, "nodes")),
                        "node0000 to node0006, node0008 to node0063");
    json_decref(value);
    /* No name of a node is in it unless it is asked for. */
    assert_ok(cm_cluster_json(&cluster, false, &value));
    char *text = json_dumps(value, 0);
    assert_null(strstr(text, "node0"));
    free(text);
    json_decref(value);
    cm_cluster_release(&cluster);
}

/* A node from what is known of it: a device that the topology does not see is told all the same. */
static void test_describe(void **state)
{
    (void)state;
    struct cm_topology topology = {.gpu_count = 0};
    struct cm_device_info info = {
        .name = "NVIDIA H200", .bus_id = "0000:1b:00.0", .driver = "580.1", .nvlinks = 18};
    struct cm_node node, again;
    cm_node_describe(&topology, &info, 4, &node);
    assert_int_equal(node.gpu_models, 1);
    assert_int_equal(node.gpus[0].count, 4);
    assert_int_equal(node.nvlinks, 18);
    assert_string_equal(node.driver, "580.1");
    cm_node_describe(NULL, NULL, 0, &again);
    assert_int_equal(again.gpu_models, 0);
    /* Two descriptions of one machine are equal in all bytes. */
    memset(&again, 0x55, sizeof again);
    cm_node_describe(&topology, &info, 4, &again);
    assert_memory_equal(&node, &again, sizeof node);
}

static void spread(const char *plan, unsigned per_node, const char *expected)
{
    struct cm_parallel parallel;
    struct cm_str out = CM_STR_INIT;
    unsigned node_of[64];
    assert_ok(cm_parallel_parse(plan, "test", &parallel));
    for (unsigned rank = 0; rank < cm_parallel_ranks(&parallel); rank++)
        node_of[rank] = rank / per_node;
    assert_ok(cm_parallel_spread(&parallel, node_of, &out));
    assert_string_equal(cm_str_text(&out), expected);
    cm_str_release(&out);
}

static void test_placement(void **state)
{
    (void)state;
    spread("dp=4,tp=8,pp=2", 8,
           "tensor groups of 8 within a node; pipelines of 2 across 2 nodes; data groups of 4 "
           "across 4 nodes");
    spread("dp=4,tp=4", 8, "tensor groups of 4 within a node; data groups of 4 across 2 nodes");
    spread("tp=16", 8, "tensor groups of 16 across 2 nodes");
    spread("dp=2,tp=6", 8,
           "tensor groups of 6 across 1 to 2 nodes; data groups of 2 across 1 to 2 nodes");
    spread("dp=8", 8, "data groups of 8 within a node");
    spread("dp=8,cp=2,ep=4", 4,
           "context groups of 2 within a node; expert groups of 4 within a node; data groups of 16 "
           "across 4 nodes");
    spread("dp=1", 8, "one rank");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),       cmocka_unit_test(test_odd_one),
        cmocka_unit_test(test_differences), cmocka_unit_test(test_two_kinds),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_domains),
        cmocka_unit_test(test_uneven),      cmocka_unit_test(test_all_odd),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_placement),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
