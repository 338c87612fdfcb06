/* The cluster's map in words. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/hash.h"
#include "host/topology/cluster.h"

#define RANGES_MAX 4 /* of names */
#define ODD_MAX    8 /* lines about odd kinds, and about odd memories */

static const char *plural(unsigned long count)
{
    return count == 1 ? "" : "s";
}

/* ---- names ---- */

const char *cm_cluster_name(const struct cm_cluster_node *node, bool show_hosts, char *buffer)
{
    return show_hosts ? node->name
                      : cm_hash_text(cm_hash(0, node->name, strlen(node->name)), buffer);
}

/* Where the number at the end of a name begins; its end when there is none. */
static size_t number_at(const char *name)
{
    size_t at = strlen(name);
    while (at > 0 && name[at - 1] >= '0' && name[at - 1] <= '9')
        at--;
    return at;
}

/* node08 after node07. */
static bool follows(const char *name, const char *before)
{
    size_t at = number_at(name);
    return at == number_at(before) && strncmp(name, before, at) == 0 && name[at] != '\0' &&
           strlen(name) == strlen(before) &&
           strtoull(name + at, NULL, 10) == strtoull(before + at, NULL, 10) + 1;
}

void cm_cluster_names(const struct cm_cluster_map *cluster, uint32_t kind, bool show_hosts,
                      struct cm_str *out)
{
    char buffer[64];
    const char *last = NULL; /* of the range that is open */
    unsigned told = 0, ranges = 0, length = 0, all = 0;
    for (size_t i = 0; i < cluster->count; i++) {
        const struct cm_cluster_node *node = &cluster->nodes[i];
        if (node->kind != kind)
            continue;
        all++;
        if (last != NULL && show_hosts && follows(node->name, last)) {
            last = node->name;
            length++;
            continue;
        }
        if (length > 1)
            cm_str_addf(out, " to %s", last);
        told += length;
        last = NULL;
        length = 0;
        if (ranges == RANGES_MAX)
            continue;
        last = node->name;
        length = 1;
        cm_str_addf(out, ranges++ > 0 ? ", %s" : "%s", cm_cluster_name(node, show_hosts, buffer));
    }
    if (length > 1)
        cm_str_addf(out, " to %s", last);
    told += length;
    if (all > told)
        cm_str_addf(out, " and %u more", all - told);
}

/* ---- a node ---- */

void cm_cluster_write_memory(uint64_t bytes, struct cm_str *out)
{
    double gib = (double)bytes / 0x1p30;
    cm_str_addf(out, gib >= 1000 ? "%.3g TiB" : "%.3g GiB", gib >= 1000 ? gib / 1024 : gib);
}

void cm_cluster_write_memories(uint64_t bytes, uint64_t usual, struct cm_str *out)
{
    cm_cluster_write_memory(bytes, out);
    cm_str_add(out, " of memory against ");
    cm_cluster_write_memory(usual, out);
}

static unsigned gpu_count(const struct cm_node *node)
{
    unsigned count = 0;
    for (unsigned i = 0; i < node->gpu_models; i++)
        count += node->gpus[i].count;
    return count;
}

static void write_gpus(const struct cm_node *node, struct cm_str *out)
{
    for (unsigned i = 0; i < node->gpu_models; i++)
        cm_str_addf(out, "%s%u x %s", i > 0 ? " and " : "", node->gpus[i].count,
                    node->gpus[i].model);
    if (node->gpu_models == 0)
        cm_str_add(out, "no GPU");
}

static double gigabits(double bytes_per_s)
{
    return bytes_per_s * 8e-9;
}

static unsigned nics_described(const struct cm_node *node)
{
    return node->nic_count < CM_NODE_NICS_MAX ? node->nic_count : CM_NODE_NICS_MAX;
}

/* "8 NICs at 400 Gb/s", "no fabric NIC" */
static void write_nics(const struct cm_node *node, struct cm_str *out)
{
    double least = 0, most = 0;
    if (node->nic_count == 0) {
        cm_str_add(out, "no fabric NIC");
        return;
    }
    cm_str_addf(out, "%u NIC%s", node->nic_count, plural(node->nic_count));
    for (unsigned i = 0; i < nics_described(node); i++) {
        double rate = node->nics[i].rate;
        least = i == 0 || rate < least ? rate : least;
        most = rate > most ? rate : most;
    }
    if (most > least)
        cm_str_addf(out, " at %.0f to %.0f Gb/s", gigabits(least), gigabits(most));
    else if (most > 0)
        cm_str_addf(out, " at %.0f Gb/s", gigabits(most));
}

void cm_node_text(const struct cm_node *node, struct cm_str *out)
{
    if (node->gpu_models > 0) {
        write_gpus(node, out);
        cm_str_add(out, ", ");
    }
    write_nics(node, out);
    if (node->packages > 0)
        cm_str_addf(out, ", %u x %s", node->packages, node->processor);
    if (node->cores > 0)
        cm_str_addf(out, ", %u core%s", node->cores, plural(node->cores));
    if (node->numa_nodes > 0)
        cm_str_addf(out, ", %u NUMA node%s", node->numa_nodes, plural(node->numa_nodes));
    if (node->driver[0] != '\0')
        cm_str_addf(out, ", driver %s", node->driver);
    if (node->kernel[0] != '\0')
        cm_str_addf(out, ", kernel %s", node->kernel);
}

/* ---- what a node has otherwise ---- */

struct difference {
    struct cm_str *out;
    size_t begin;
    unsigned others;
};

static void item(const struct difference *difference)
{
    if (difference->out->length > difference->begin)
        cm_str_add(difference->out, "; ");
}

/* "7 GPUs, the other 63 have 8" */
static void count_differs(const struct difference *difference, const char *what, const char *many,
                          unsigned own, unsigned usual)
{
    if (own == usual)
        return;
    item(difference);
    if (own == 0)
        cm_str_addf(difference->out, "no %s", what);
    else
        cm_str_addf(difference->out, "%u %s%s", own, what, own == 1 ? "" : many);
    if (difference->others == 1)
        cm_str_addf(difference->out, ", the other has %u", usual);
    else
        cm_str_addf(difference->out, ", the other %u have %u", difference->others, usual);
}

static void text_differs(const struct difference *difference, const char *what, const char *own,
                         const char *usual)
{
    if (strcmp(own, usual) == 0)
        return;
    item(difference);
    cm_str_addf(difference->out, "%s%s%s against %s", what, what[0] != '\0' ? " " : "",
                own[0] != '\0' ? own : "not known", usual[0] != '\0' ? usual : "not known");
}

static void gpus_differ(const struct difference *difference, const struct cm_node *node,
                        const struct cm_node *usual)
{
    bool same_model = node->gpu_models <= 1 && usual->gpu_models <= 1 &&
                      (node->gpu_models == 0 || usual->gpu_models == 0 ||
                       strcmp(node->gpus[0].model, usual->gpus[0].model) == 0);
    if (same_model) {
        count_differs(difference, "GPU", "s", gpu_count(node), gpu_count(usual));
    } else if (memcmp(node->gpus, usual->gpus, sizeof node->gpus) != 0) {
        item(difference);
        write_gpus(node, difference->out);
        cm_str_add(difference->out, " against ");
        write_gpus(usual, difference->out);
    }
    if (node->gpu_models == 0 || usual->gpu_models == 0)
        return;
    count_differs(difference, "NVLink at its weakest GPU", "", node->nvlinks, usual->nvlinks);
    if (node->gpu_width != usual->gpu_width) {
        item(difference);
        cm_str_addf(difference->out, "a GPU on %u PCIe lanes of %u", node->gpu_width,
                    usual->gpu_width);
    }
}

static const struct cm_node_nic *nic_named(const struct cm_node *node, const char *name)
{
    for (unsigned i = 0; i < nics_described(node); i++) {
        if (name[0] != '\0' && strcmp(node->nics[i].name, name) == 0)
            return &node->nics[i];
    }
    return NULL;
}

static void nic_differs(const struct difference *difference, const char *label,
                        const struct cm_node_nic *own, const struct cm_node_nic *usual)
{
    if (fabs(own->rate - usual->rate) > 1) {
        item(difference);
        cm_str_addf(difference->out, "NIC %s at %.0f %s %.0f Gb/s", label, gigabits(own->rate),
                    own->rate < usual->rate ? "of" : "against", gigabits(usual->rate));
    }
    if (own->width != usual->width) {
        item(difference);
        cm_str_addf(difference->out, "NIC %s on %u PCIe lanes %s %u", label, own->width,
                    own->width < usual->width ? "of" : "against", usual->width);
    }
    if (strcmp(own->model, usual->model) != 0) {
        item(difference);
        cm_str_addf(difference->out, "NIC %s is %s against %s", label, own->model, usual->model);
    }
}

/* By name where the system gives names, else by number. */
static void nics_differ(const struct difference *difference, const struct cm_node *node,
                        const struct cm_node *usual)
{
    count_differs(difference, "NIC", "s", node->nic_count, usual->nic_count);
    for (unsigned i = 0; i < nics_described(usual); i++) {
        const struct cm_node_nic *other = &usual->nics[i], *own = nic_named(node, other->name);
        char label[32];
        snprintf(label, sizeof label, "%u", i);
        if (own == NULL && i < node->nic_count && node->nic_count == usual->nic_count) {
            own = &node->nics[i];
            if (strcmp(own->name, other->name) != 0)
                text_differs(difference, "NIC", own->name, other->name);
        }
        const char *name = other->name[0] != '\0' ? other->name : label;
        if (own != NULL)
            nic_differs(difference, name, own, other);
        else if (other->name[0] != '\0' && node->nic_count < usual->nic_count)
            cm_str_addf(difference->out, " (%s is missing)", other->name);
    }
}

void cm_node_differences(const struct cm_node *node, const struct cm_node *usual, unsigned others,
                         struct cm_str *out)
{
    struct difference difference = {out, out->length, others};
    gpus_differ(&difference, node, usual);
    count_differs(&difference, "NVSwitch", "es", node->nvswitches, usual->nvswitches);
    nics_differ(&difference, node, usual);
    text_differs(&difference, "driver", node->driver, usual->driver);
    text_differs(&difference, "kernel", node->kernel, usual->kernel);
    text_differs(&difference, "", node->processor, usual->processor);
    count_differs(&difference, "package", "s", node->packages, usual->packages);
    count_differs(&difference, "core", "s", node->cores, usual->cores);
    count_differs(&difference, "NUMA node", "s", node->numa_nodes, usual->numa_nodes);
    if (out->length == difference.begin && strcmp(node->digest, usual->digest) != 0)
        cm_str_addf(out, "another topology (%s against %s); see clustermark topo there",
                    node->digest, usual->digest);
}

/* ---- the map ---- */

static void write_size(const struct cm_cluster_map *cluster, struct cm_str *out)
{
    uint32_t least = UINT32_MAX, most = 0;
    for (size_t i = 0; i < cluster->count; i++) {
        uint32_t ranks = cluster->nodes[i].ranks;
        least = ranks < least ? ranks : least;
        most = ranks > most ? ranks : most;
    }
    cm_str_addf(out, "%u rank%s on %zu node%s", cluster->ranks, plural(cluster->ranks),
                cluster->count, plural(cluster->count));
    if (cluster->count > 1 && least == most)
        cm_str_addf(out, ", %u on each", most);
    else if (cluster->count > 1)
        cm_str_addf(out, ", unevenly: %u to %u on each", least, most);
    cm_str_add(out, "\n");
}

static void write_kinds(const struct cm_cluster_map *cluster, bool show_hosts, uint64_t memory,
                        struct cm_str *out)
{
    uint32_t usual = cm_cluster_usual(cluster);
    for (uint32_t i = 0; i < cluster->kind_count && i < ODD_MAX; i++) {
        if (usual != CM_KIND_UNKNOWN && i != usual)
            continue;
        unsigned count = cluster->kinds[i].count;
        if (count == cluster->count)
            cm_str_add(out, count == 1 ? "the node: " : "each node: ");
        else
            cm_str_addf(out, "%u node%s: ", count, plural(count));
        cm_node_text(&cluster->kinds[i].node, out);
        if (memory > 0) {
            cm_str_add(out, ", ");
            cm_cluster_write_memory(memory, out);
        }
        if (count < cluster->count && usual == CM_KIND_UNKNOWN) {
            cm_str_add(out, " (");
            cm_cluster_names(cluster, i, show_hosts, out);
            cm_str_add(out, ")");
        }
        cm_str_add(out, "\n");
    }
    if (usual == CM_KIND_UNKNOWN && cluster->kind_count > ODD_MAX)
        cm_str_addf(out, "%zu more kinds of node\n", cluster->kind_count - ODD_MAX);
    unsigned unknown = 0;
    for (size_t i = 0; i < cluster->count; i++)
        unknown += cluster->nodes[i].kind == CM_KIND_UNKNOWN;
    if (unknown > 0)
        cm_str_addf(out, "%u node%s not described: more than %d kinds\n", unknown,
                    unknown == 1 ? " is" : "s are", CM_KINDS_MAX);
}

/* "8 rails, one NIC of each node (mlx5_0 to mlx5_7), 400 Gb/s" and those that are not whole. */
static void write_rails(const struct cm_cluster_map *cluster, struct cm_str *out)
{
    struct cm_rail rails[CM_NODE_NICS_MAX];
    unsigned count = cm_cluster_rails(cluster, rails), told = 0;
    if (cluster->count < 2 || count == 0)
        return;
    cm_str_addf(out, "%u rail%s, NIC k of each node", count, plural(count));
    if (rails[0].name[0] != '\0')
        cm_str_addf(out, count > 1 ? " (%s to %s)" : " (%s)", rails[0].name, rails[count - 1].name);
    for (unsigned k = 0; k < count; k++) {
        bool whole = rails[k].nodes == cluster->count, even = rails[k].fastest <= rails[k].slowest;
        if ((whole && even) || told++ == ODD_MAX)
            continue;
        cm_str_addf(out, "; rail %u", k);
        if (!whole)
            cm_str_addf(out, " has %u of %zu nodes", rails[k].nodes, cluster->count);
        if (!even)
            cm_str_addf(out, "%s runs at %.0f to %.0f Gb/s", whole ? "" : " and",
                        gigabits(rails[k].slowest), gigabits(rails[k].fastest));
    }
    cm_str_add(out, "\n");
}

static void write_domains(const struct cm_cluster_map *cluster, struct cm_str *out)
{
    struct cm_domains domains = {0};
    unsigned linked = 0, gpus = 0;
    if (cm_cluster_domains(cluster, &domains) != CM_OK)
        return;
    for (size_t i = 0; i < cluster->kind_count; i++) {
        const struct cm_cluster_kind *kind = &cluster->kinds[i];
        gpus += kind->node.gpu_models > 0 ? kind->count : 0;
        linked += kind->node.nvlinks > 0 || kind->node.nvswitches > 0 ? kind->count : 0;
    }
    if (gpus == 0)
        return;
    if (domains.count > 0) {
        cm_str_addf(out, "NVLink: %u domain%s over nodes, of %u", domains.count,
                    plural(domains.count), domains.smallest);
        if (domains.largest > domains.smallest)
            cm_str_addf(out, " to %u", domains.largest);
        cm_str_add(out, domains.count > 1 ? " nodes each" : " nodes");
        if (domains.outside > 0)
            cm_str_addf(out, "; %u node%s in none", domains.outside,
                        domains.outside == 1 ? " is" : "s are");
        cm_str_add(out, "\n");
    } else if (linked > 0) {
        cm_str_add(out, cluster->count > 1 ? "NVLink: within each node, none between nodes"
                                           : "NVLink: within the node");
        if (linked < gpus)
            cm_str_addf(out, "; %u node%s no NVLink", gpus - linked,
                        gpus - linked == 1 ? " has" : "s have");
        cm_str_add(out, "\n");
    }
}

static void write_odd(const struct cm_cluster_map *cluster, bool show_hosts, uint64_t memory,
                      struct cm_str *out)
{
    uint32_t measure = cm_cluster_measure(cluster);
    unsigned told = 0;
    char buffer[64];
    for (uint32_t i = 0; i < cluster->kind_count; i++) {
        if (i == measure || told++ >= ODD_MAX)
            continue;
        cm_str_add(out, "odd: ");
        cm_cluster_names(cluster, i, show_hosts, out);
        cm_str_add(out, ": ");
        cm_node_differences(&cluster->kinds[i].node, &cluster->kinds[measure].node,
                            cluster->kinds[measure].count, out);
        cm_str_add(out, "\n");
    }
    if (told > ODD_MAX)
        cm_str_addf(out, "odd: %u more kinds of node\n", told - ODD_MAX);
    told = 0;
    for (size_t i = 0; i < cluster->count; i++) {
        const struct cm_cluster_node *node = &cluster->nodes[i];
        if (!cm_cluster_memory_odd(node, memory) || told++ >= ODD_MAX)
            continue;
        cm_str_addf(out, "odd: %s: ", cm_cluster_name(node, show_hosts, buffer));
        cm_cluster_write_memories(node->memory_bytes, memory, out);
        cm_str_add(out, "\n");
    }
    if (told > ODD_MAX)
        cm_str_addf(out, "odd: %u more nodes with other memory\n", told - ODD_MAX);
}

void cm_cluster_text(const struct cm_cluster_map *cluster, bool show_hosts, struct cm_str *out)
{
    uint64_t memory = 0;
    if (cm_cluster_memory(cluster, &memory) != CM_OK)
        memory = 0;
    write_size(cluster, out);
    write_kinds(cluster, show_hosts, memory, out);
    write_rails(cluster, out);
    write_domains(cluster, out);
    write_odd(cluster, show_hosts, memory, out);
}
