/* The map for people: what is where, the table of paths, findings. */
#include <stdio.h>
#include <string.h>

#include "host/topology/internal.h"

enum style { PLAIN, BOLD, DIM, GREEN, CYAN, YELLOW, RED, STYLES };
static const char *const codes[STYLES] = {
    "", "\033[1m", "\033[2m", "\033[32m", "\033[36m", "\033[33m", "\033[31m",
};

struct map {
    const struct cm_topology *topology;
    bool color;
    struct cm_str *out;
};

static const char *on(const struct map *map, enum style style)
{
    return map->color ? codes[style] : "";
}

static const char *off(const struct map *map)
{
    return map->color ? "\033[0m" : "";
}

static const char *plural(size_t count)
{
    return count == 1 ? "" : "s";
}

static void add_memory(struct cm_str *out, uint64_t bytes)
{
    double gib = (double)bytes / 0x1p30;
    if (bytes > 0)
        cm_str_addf(out, gib >= 1024 ? "  %.1f TiB" : "  %.1f GiB", gib >= 1024 ? gib / 1024 : gib);
}

static void summary(const struct map *map)
{
    const struct cm_topology *topology = map->topology;
    struct cm_str *out = map->out;
    size_t nodes = 0;
    for (size_t i = 0; i < topology->numa_count; i++)
        nodes += !topology->numa[i].gpu_memory;
    cm_str_addf(out, "%s%s%s  %s, digest %s\n", on(map, BOLD), topology->source, off(map),
                topology->live ? "this machine" : topology->format, topology->digest);
    if (topology->package_count > 0)
        cm_str_addf(out, "%zu package%s, ", topology->package_count,
                    plural(topology->package_count));
    cm_str_addf(out, "%zu NUMA node%s", nodes, plural(nodes));
    if (topology->core_count > 0)
        cm_str_addf(out, ", %zu core%s", topology->core_count, plural(topology->core_count));
    unsigned processors = cm_cpuset_count(&topology->allowed);
    if (processors > 0)
        cm_str_addf(out, ", %u processor%s", processors, plural(processors));
    add_memory(out, topology->memory_bytes);
    struct {
        size_t count;
        const char *what, *many;
    } parts[] = {
        {topology->gpu_count, "GPU", "s"},
        {topology->nvswitch_count, "NVSwitch", "es"},
        {topology->nic_count, "fabric NIC", "s"},
        {topology->switch_count, "PCIe switch", "es"},
    };
    cm_str_add(out, "\n");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        cm_str_addf(out, "%s", i > 0 ? ", " : "");
        if (parts[i].count > 0)
            cm_str_addf(out, "%zu %s%s", parts[i].count, parts[i].what,
                        parts[i].count == 1 ? "" : parts[i].many);
        else
            cm_str_addf(out, "no %s", parts[i].what);
    }
    cm_str_add(out, "\n\n");
}

static void device_line(const struct map *map, int indent, const char *label, size_t index,
                        const struct cm_pci_device *device)
{
    char number[40], link[CM_LINK_TEXT_MAX];
    snprintf(number, sizeof number, "%s %zu", label, index);
    cm_link_text(&device->link, link);
    bool gpu = device->kind == CM_PCI_GPU;
    cm_str_addf(map->out, "%*s%s%-7s%s %s%s%s  %s", indent, "", on(map, gpu ? GREEN : CYAN), number,
                off(map), on(map, DIM), device->bus_id, off(map), device->name);
    if (device->os_name[0] != '\0')
        cm_str_addf(map->out, "  %s", device->os_name);
    if (link[0] != '\0')
        cm_str_addf(map->out, "  %s%s%s",
                    on(map, cm_link_below_maximum(&device->link) ? YELLOW : PLAIN), link, off(map));
    if (device->net_bytes_per_s > 0)
        cm_str_addf(map->out, "  %.0f Gb/s", device->net_bytes_per_s * 8e-9);
    unsigned nvlinks = gpu ? cm_nvlink_count(map->topology, index) : 0;
    if (nvlinks > 0)
        cm_str_addf(map->out, "  %u NVLinks", nvlinks);
    for (size_t i = 0; gpu && i < map->topology->numa_count; i++) {
        const struct cm_numa_node *node = &map->topology->numa[i];
        if (!node->gpu_memory || strcmp(node->gpu, device->bus_id) != 0)
            continue;
        cm_str_addf(map->out, "  memory is NUMA %u", node->os_index);
        add_memory(map->out, node->memory_bytes);
    }
    cm_str_add(map->out, "\n");
}

/* Devices right below a switch (or below none, switch -1) on a node (-1: unknown). */
static void devices_of(const struct map *map, int numa, int parent, int indent)
{
    const struct cm_topology *topology = map->topology;
    struct {
        const struct cm_pci_device *devices;
        size_t count;
        const char *label;
    } lists[] = {
        {topology->gpus, topology->gpu_count, "GPU"},
        {topology->nics, topology->nic_count, "NIC"},
        {topology->others, topology->other_count, "PCI"},
    };
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t j = 0; j < lists[i].count; j++) {
            const struct cm_pci_device *device = &lists[i].devices[j];
            if (device->numa == numa && device->parent_switch == parent)
                device_line(map, indent, device->management ? "mgmt" : lists[i].label, j, device);
        }
    }
    size_t nvswitches = 0;
    const char *first = "", *last = "";
    for (size_t i = 0; i < topology->nvswitch_count; i++) {
        const struct cm_pci_device *device = &topology->nvswitches[i];
        if (device->numa != numa || device->parent_switch != parent)
            continue;
        first = nvswitches++ == 0 ? device->bus_id : first;
        last = device->bus_id;
    }
    if (nvswitches == 1)
        cm_str_addf(map->out, "%*s%sNVSwitch%s  %s\n", indent, "", on(map, CYAN), off(map), first);
    else if (nvswitches > 1)
        cm_str_addf(map->out, "%*s%s%zu NVSwitches%s  %s to %s\n", indent, "", on(map, CYAN),
                    nvswitches, off(map), first, last);
}

/* Whether anything worth a line hangs somewhere below a switch. */
static bool interesting(const struct cm_topology *topology, int index)
{
    struct {
        const struct cm_pci_device *devices;
        size_t count;
    } lists[] = {
        {topology->gpus, topology->gpu_count},
        {topology->nics, topology->nic_count},
        {topology->nvswitches, topology->nvswitch_count},
        {topology->others, topology->other_count},
    };
    uint32_t id = topology->switches[index].bridges[0];
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t j = 0; j < lists[i].count; j++) {
            for (unsigned k = 0; k < lists[i].devices[j].bridge_count; k++) {
                if (lists[i].devices[j].bridges[k] == id)
                    return true;
            }
        }
    }
    return false;
}

static void switches_of(const struct map *map, int numa, int parent, int indent)
{
    const struct cm_topology *topology = map->topology;
    for (size_t i = 0; i < topology->switch_count; i++) {
        const struct cm_pci_device *device = &topology->switches[i];
        if (device->numa != numa || device->parent_switch != parent ||
            !interesting(topology, (int)i))
            continue;
        cm_str_addf(map->out, "%*sPCIe switch  %s%s%s\n", indent, "", on(map, DIM), device->bus_id,
                    off(map));
        devices_of(map, numa, (int)i, indent + 2);
        /* A switch is always deeper than its parent, so this ends. */
        if (indent < 40)
            switches_of(map, numa, (int)i, indent + 2);
    }
}

static void node_of(const struct map *map, size_t index, int indent)
{
    const struct cm_numa_node *node = &map->topology->numa[index];
    if (node->gpu_memory && node->gpu[0] != '\0')
        return; /* shown with its GPU */
    cm_str_addf(map->out, "%*s%sNUMA %u%s", indent, "", on(map, BOLD), node->os_index, off(map));
    if (node->gpu_memory)
        cm_str_add(map->out, "  a GPU's memory");
    if (node->model[0] != '\0')
        cm_str_addf(map->out, "  %s", node->model);
    add_memory(map->out, node->memory_bytes);
    if (cm_cpuset_count(&node->cpus) > 0) {
        cm_str_add(map->out, "  cpus ");
        cm_cpuset_write(&node->cpus, map->out);
    }
    cm_str_add(map->out, "\n");
    switches_of(map, (int)index, -1, indent + 2);
    devices_of(map, (int)index, -1, indent + 2);
}

static void tree(const struct map *map)
{
    const struct cm_topology *topology = map->topology;
    for (size_t i = 0; i < topology->package_count; i++) {
        const struct cm_package *package = &topology->packages[i];
        cm_str_addf(map->out, "%sPackage %u%s  %s  %u core%s, %u processor%s\n", on(map, BOLD),
                    package->os_index, off(map), package->model, package->cores,
                    plural(package->cores), package->pus, plural(package->pus));
        for (size_t j = 0; j < topology->numa_count; j++) {
            if (topology->numa[j].package == (int)i)
                node_of(map, j, 2);
        }
    }
    for (size_t j = 0; j < topology->numa_count; j++) {
        if (topology->numa[j].package < 0)
            node_of(map, j, 0);
    }
    bool unknown = false;
    for (size_t i = 0; i < topology->gpu_count; i++)
        unknown |= topology->gpus[i].numa < 0;
    for (size_t i = 0; i < topology->nic_count; i++)
        unknown |= topology->nics[i].numa < 0;
    for (size_t i = 0; i < topology->other_count; i++)
        unknown |= topology->others[i].numa < 0;
    if (unknown)
        cm_str_addf(map->out, "%sNUMA node not known%s\n", on(map, BOLD), off(map));
    switches_of(map, -1, -1, 2);
    devices_of(map, -1, -1, 2);
    cm_str_add(map->out, "\n");
}

static enum style path_style(enum cm_path_kind kind)
{
    static const enum style styles[CM_PATH_COUNT] = {
        [CM_PATH_SELF] = DIM, [CM_PATH_NVLINK] = GREEN, [CM_PATH_PIX] = GREEN,
        [CM_PATH_PXB] = CYAN, [CM_PATH_PHB] = CYAN,     [CM_PATH_NODE] = YELLOW,
        [CM_PATH_SYS] = RED,  [CM_PATH_UNKNOWN] = DIM,
    };
    return styles[kind];
}

static enum cm_path_kind path_to_nic(const struct cm_topology *topology, size_t gpu, size_t nic)
{
    return cm_path_between(topology, &topology->gpus[gpu], &topology->nics[nic]).kind;
}

static enum cm_path_kind nearest_nic(const struct cm_topology *topology, size_t gpu)
{
    enum cm_path_kind best = CM_PATH_UNKNOWN;
    for (size_t i = 0; i < topology->nic_count; i++) {
        enum cm_path_kind kind = path_to_nic(topology, gpu, i);
        best = kind < best ? kind : best;
    }
    return best;
}

/* Whether two GPUs have the same nearest NICs. */
static bool same_nics(const struct cm_topology *topology, size_t a, size_t b)
{
    enum cm_path_kind best = nearest_nic(topology, a);
    if (nearest_nic(topology, b) != best)
        return false;
    for (size_t i = 0; i < topology->nic_count; i++) {
        if ((path_to_nic(topology, a, i) == best) != (path_to_nic(topology, b, i) == best))
            return false;
    }
    return true;
}

/* Which GPUs share a switch with which NICs; where none do, what is nearest. */
static void nearest_nics(const struct map *map)
{
    static const char *const places[CM_PATH_COUNT] = {
        [CM_PATH_PIX] = "on one PCIe switch",     [CM_PATH_PXB] = "behind several PCIe switches",
        [CM_PATH_PHB] = "behind one host bridge", [CM_PATH_NODE] = "on one NUMA node",
        [CM_PATH_SYS] = "on another NUMA node",   [CM_PATH_UNKNOWN] = "where is not known",
    };
    const struct cm_topology *topology = map->topology;
    char word[8];
    if (topology->gpu_count == 0 || topology->nic_count == 0)
        return;
    cm_str_addf(map->out, "%sNearest NICs%s\n", on(map, BOLD), off(map));
    for (size_t i = 0; i < topology->gpu_count; i++) {
        bool told = false;
        for (size_t j = 0; j < i && !told; j++)
            told = same_nics(topology, i, j);
        if (told)
            continue;
        enum cm_path_kind best = nearest_nic(topology, i);
        cm_str_add(map->out, "  GPU");
        for (size_t j = i; j < topology->gpu_count; j++) {
            if (same_nics(topology, i, j))
                cm_str_addf(map->out, " %zu", j);
        }
        cm_str_add(map->out, ": NIC");
        for (size_t j = 0; j < topology->nic_count; j++) {
            if (path_to_nic(topology, i, j) == best)
                cm_str_addf(map->out, " %zu", j);
        }
        cm_path_word((struct cm_path){.kind = best}, word);
        cm_str_addf(map->out, ", %s (%s%s%s)\n", places[best] != NULL ? places[best] : "",
                    on(map, path_style(best)), word, off(map));
    }
    cm_str_add(map->out, "\n");
}

/* A column of the table: a GPU, a NUMA node or a NIC. */
struct column {
    char title[32];
    const struct cm_pci_device *device;
    size_t numa;
};

static struct cm_path path_at(const struct cm_topology *topology, size_t gpu,
                              const struct column *column)
{
    return column->device != NULL ? cm_path_between(topology, &topology->gpus[gpu], column->device)
                                  : cm_path_to_numa(topology, &topology->gpus[gpu], column->numa);
}

#define TABLE_WIDTH 118
static void table_part(const struct map *map, const struct column *columns, size_t count,
                       bool *used)
{
    const struct cm_topology *topology = map->topology;
    char word[8], title[32];
    if (count == 0)
        return;
    cm_str_addf(map->out, "%7s", "");
    for (size_t i = 0; i < count; i++)
        cm_str_addf(map->out, " %s%*s%s", on(map, BOLD), i + 1 < count ? -5 : 0, columns[i].title,
                    off(map));
    cm_str_add(map->out, "\n");
    for (size_t row = 0; row < topology->gpu_count; row++) {
        snprintf(title, sizeof title, "GPU%zu", row);
        cm_str_addf(map->out, "  %s%-5s%s", on(map, BOLD), title, off(map));
        for (size_t i = 0; i < count; i++) {
            struct cm_path path = path_at(topology, row, &columns[i]);
            used[path.kind] = true;
            cm_path_word(path, word);
            cm_str_addf(map->out, " %s%*s%s", on(map, path_style(path.kind)),
                        i + 1 < count ? -5 : 0, word, off(map));
        }
        cm_str_add(map->out, "\n");
    }
    cm_str_add(map->out, "\n");
}

static void legend(const struct map *map, const bool *used)
{
    static const char *const texts[CM_PATH_COUNT] = {
#define PATH_TEXT(name, word, text) [CM_PATH_##name] = text,
        CM_PATH_LIST(PATH_TEXT)
#undef PATH_TEXT
    };
    char word[8];
    for (int kind = CM_PATH_NVLINK; kind < CM_PATH_COUNT; kind++) {
        if (!used[kind])
            continue;
        cm_path_word((struct cm_path){.kind = (enum cm_path_kind)kind}, word);
        cm_str_addf(map->out, "  %s%-5s%s %s\n", on(map, DIM),
                    kind == CM_PATH_NVLINK ? "NVn" : word, off(map), texts[kind]);
    }
    cm_str_add(map->out, "\n");
}

/* Columns in parts that fit a terminal; NICs begin a part of their own when not all fit in one. */
struct parts {
    const struct map *map;
    struct column columns[(TABLE_WIDTH - 7) / 6];
    size_t count;
    bool used[CM_PATH_COUNT];
};
#define COLUMNS_MAX (sizeof((struct parts *)NULL)->columns / sizeof(struct column))

static void flush_columns(struct parts *parts)
{
    table_part(parts->map, parts->columns, parts->count, parts->used);
    parts->count = 0;
}

static void add_column(struct parts *parts, const char *label, size_t number,
                       const struct cm_pci_device *device, size_t numa)
{
    if (parts->count == COLUMNS_MAX)
        flush_columns(parts);
    struct column *column = &parts->columns[parts->count++];
    snprintf(column->title, sizeof column->title, "%s%zu", label, number);
    column->device = device;
    column->numa = numa;
}

static void table(const struct map *map)
{
    const struct cm_topology *topology = map->topology;
    struct parts parts = {.map = map};
    if (topology->gpu_count == 0)
        return;
    cm_str_addf(map->out, "%sHow GPUs reach GPUs, NUMA nodes and NICs%s\n", on(map, BOLD),
                off(map));
    for (size_t i = 0; i < topology->gpu_count; i++)
        add_column(&parts, "GPU", i, &topology->gpus[i], 0);
    for (size_t i = 0; i < topology->numa_count; i++) {
        if (!topology->numa[i].gpu_memory)
            add_column(&parts, "NUMA", topology->numa[i].os_index, NULL, i);
    }
    if (parts.count + topology->nic_count > COLUMNS_MAX)
        flush_columns(&parts);
    for (size_t i = 0; i < topology->nic_count; i++)
        add_column(&parts, "NIC", i, &topology->nics[i], 0);
    flush_columns(&parts);
    legend(map, parts.used);
}

/* Words in lines of at most 98 characters, the following ones indented. */
static void wrapped(struct cm_str *out, const char *text, size_t indent)
{
    size_t at = indent;
    while (*text != '\0') {
        size_t length = strcspn(text, " ");
        if (at > indent && at + 1 + length > 98) {
            cm_str_addf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (at > indent) {
            cm_str_add(out, " ");
            at++;
        }
        cm_str_add_bytes(out, text, length);
        at += length;
        text += length;
        text += strspn(text, " ");
    }
    cm_str_add(out, "\n");
}

static void findings(const struct map *map)
{
    static const struct {
        const char *word;
        enum style style;
    } levels[] = {
        [CM_FINDING_INFO] = {"note", DIM},
        [CM_FINDING_WARN] = {"warning", YELLOW},
        [CM_FINDING_BAD] = {"bad", RED},
    };
    const struct cm_topology *topology = map->topology;
    cm_str_addf(map->out, "%sFindings%s\n", on(map, BOLD), off(map));
    if (topology->finding_count == 0)
        cm_str_add(map->out, "  none\n");
    for (int level = CM_FINDING_BAD; level >= CM_FINDING_INFO; level--) {
        for (size_t i = 0; i < topology->finding_count; i++) {
            if ((int)topology->findings[i].level != level)
                continue;
            cm_str_addf(map->out, "  %s%-7s%s  ", on(map, levels[level].style), levels[level].word,
                        off(map));
            wrapped(map->out, topology->findings[i].text, 11);
        }
    }
}

enum cm_status cm_topology_text(const struct cm_topology *topology, bool color, struct cm_str *out)
{
    struct map map = {topology, color, out};
    summary(&map);
    tree(&map);
    nearest_nics(&map);
    table(&map);
    findings(&map);
    return cm_str_status(out);
}
