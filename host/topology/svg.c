/* The topology drawn: a panel per NUMA node with its switches, GPUs and NICs, the table of paths,
 * findings. Colours follow the viewer's light or dark scheme. */
#include <stdio.h>
#include <string.h>

#include "host/topology/internal.h"

#define MARGIN     24
#define GAP        8
#define GPU_HEIGHT 42
#define NIC_HEIGHT 36
#define HEADER     24 /* of a block */
#define CELL       20 /* height of a table row */

static const char style[] =
    "<style>\n"
    "svg{--bg:#fff;--text:#1b2430;--muted:#5d6878;--panel:#f3f5f8;--edge:#d3dae3;--block:#fff;"
    "--gpu:#e2f4e7;--gpu-edge:#58a871;--nic:#e3eefc;--nic-edge:#6a9ad8;--other:#eef0f3;"
    "--nv:#7fcb98;--pix:#bfe6cb;--pxb:#c6e5ee;--phb:#d3ddf3;--node:#f8e6b4;--sys:#f6c6bd;"
    "--bad:#b3261e;--warn:#8a5a00}\n"
    "@media (prefers-color-scheme:dark){svg{--bg:#12161c;--text:#e6eaf0;--muted:#98a4b4;"
    "--panel:#1a2029;--edge:#343d4a;--block:#20272f;--gpu:#1d3a28;--gpu-edge:#4d9a68;"
    "--nic:#1c304a;--nic-edge:#4f80bd;--other:#2a313b;--nv:#2f7d4b;--pix:#25573a;--pxb:#1f4f5c;"
    "--phb:#2c3c60;--node:#5d4d1c;--sys:#6b3129;--bad:#ff8a80;--warn:#f2c14e}}\n"
    ".bg{fill:var(--bg)}.panel{fill:var(--panel);stroke:var(--edge)}"
    ".block{fill:var(--block);stroke:var(--edge)}"
    ".gpu{fill:var(--gpu);stroke:var(--gpu-edge)}.nic{fill:var(--nic);stroke:var(--nic-edge)}"
    ".other{fill:var(--other);stroke:var(--edge)}"
    "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;"
    "fill:var(--text);font-size:12px}"
    ".title{font-size:20px;font-weight:600}.head{font-size:14px;font-weight:600}"
    ".small{font-size:10.5px}.tiny{font-size:9.5px}.muted{fill:var(--muted)}.bold{font-weight:600}"
    ".mid{text-anchor:middle}.end{text-anchor:end}"
    ".NV{fill:var(--nv)}.PIX{fill:var(--pix)}.PXB{fill:var(--pxb)}.PHB{fill:var(--phb)}"
    ".NODE{fill:var(--node)}.SYS{fill:var(--sys)}.X,.UN{fill:var(--other)}"
    ".bad{fill:var(--bad)}.warn{fill:var(--warn)}\n"
    "</style>\n";

struct drawing {
    const struct cm_topology *topology;
    struct cm_str *out;
    int width;
};

/* Text cut to what fits `width` pixels at `size` pixels per em; 0.6 em is a wide average. */
static void text_at(const struct drawing *drawing, int x, int y, const char *class, int width,
                    double size, const char *text)
{
    char cut[400];
    size_t fit = (size_t)(width / (size * 0.6));
    if (fit >= sizeof cut)
        fit = sizeof cut - 1;
    if (fit > 0 && strlen(text) > fit)
        snprintf(cut, sizeof cut, "%.*s.", (int)fit - 1, text);
    else
        snprintf(cut, sizeof cut, "%s", text);
    cm_str_addf(drawing->out, "<text x=\"%d\" y=\"%d\" class=\"%s\">", x, y, class);
    cm_str_add_xml(drawing->out, cut);
    cm_str_add(drawing->out, "</text>\n");
}

static void box(const struct drawing *drawing, int x, int y, int width, int height, int radius,
                const char *class)
{
    cm_str_addf(drawing->out,
                "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"%d\" class=\"%s\"/>\n", x,
                y, width, height, radius, class);
}

static bool belongs(const struct cm_pci_device *device, int numa, int parent)
{
    return device->numa == numa && device->parent_switch == parent;
}

static size_t count_of(const struct cm_pci_device *devices, size_t count, int numa, int parent)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += belongs(&devices[i], numa, parent);
    return found;
}

static int rows(size_t count, size_t columns)
{
    return (int)((count + columns - 1) / columns);
}

static void gpu_chip(const struct drawing *drawing, size_t index, int x, int y, int width)
{
    const struct cm_pci_device *gpu = &drawing->topology->gpus[index];
    char text[200], link[CM_LINK_TEXT_MAX];
    box(drawing, x, y, width, GPU_HEIGHT, 5, "gpu");
    const char *name = gpu->name;
    if (strncmp(name, "NVIDIA ", 7) == 0)
        name += 7;
    snprintf(text, sizeof text, "GPU %zu: %s", index, name);
    text_at(drawing, x + 9, y + 17, "bold", width - 14, 12, text);
    unsigned nvlinks = cm_nvlink_count(drawing->topology, index);
    cm_link_text(&gpu->link, link);
    int used =
        snprintf(text, sizeof text, "%s%s%s", gpu->bus_id, link[0] != '\0' ? ", " : "", link);
    if (nvlinks > 0 && used > 0)
        snprintf(text + used, sizeof text - (size_t)used, ", %u NVLinks", nvlinks);
    bool slow = cm_link_below_maximum(&gpu->link);
    text_at(drawing, x + 9, y + 33, slow ? "small warn" : "small muted", width - 14, 10, text);
}

static void nic_chip(const struct drawing *drawing, size_t index, const struct cm_pci_device *nic,
                     int x, int y, int width)
{
    char text[200];
    bool fabric = nic->kind == CM_PCI_NIC;
    box(drawing, x, y, width, NIC_HEIGHT, 5, fabric ? "nic" : "other");
    snprintf(text, sizeof text, "%s %zu: %s",
             fabric            ? "NIC"
             : nic->management ? "mgmt"
                               : "PCI",
             index, strncmp(nic->name, "NIC ", 4) == 0 ? nic->name + 4 : nic->name);
    text_at(drawing, x + 7, y + 15, "small bold", width - 10, 10.5, text);
    snprintf(text, sizeof text, "%s", nic->os_name[0] != '\0' ? nic->os_name : nic->bus_id);
    text_at(drawing, x + 7, y + 29, "small muted", width - 10, 10.5, text);
}

/* What is right below one switch (-1: below none). Returns the height, 0 for nothing; draws only
 * when asked to, so that a panel can be sized first. */
static int block(const struct drawing *drawing, int numa, int parent, int x, int y, int width,
                 bool draw)
{
    const struct cm_topology *topology = drawing->topology;
    size_t gpus = count_of(topology->gpus, topology->gpu_count, numa, parent);
    size_t nics = count_of(topology->nics, topology->nic_count, numa, parent);
    size_t others = count_of(topology->others, topology->other_count, numa, parent);
    size_t nvswitches = count_of(topology->nvswitches, topology->nvswitch_count, numa, parent);
    if (gpus + nics + others + nvswitches == 0)
        return 0;
    int inner = width - 20;
    int gpu_width = (inner - GAP) / 2, nic_width = (inner - 3 * GAP) / 4;
    int height = HEADER + rows(gpus, 2) * (GPU_HEIGHT + GAP) +
                 rows(nics + others, 4) * (NIC_HEIGHT + GAP) + (nvswitches > 0 ? 20 : 0) + 4;
    if (!draw)
        return height;
    char text[96];
    box(drawing, x, y, width, height, 6, "block");
    if (parent >= 0)
        snprintf(text, sizeof text, "PCIe switch %s", topology->switches[parent].bus_id);
    else
        snprintf(text, sizeof text, "no PCIe switch seen");
    text_at(drawing, x + 10, y + 16, "small muted", inner, 10.5, text);
    int top = y + HEADER;
    size_t at = 0;
    for (size_t i = 0; i < topology->gpu_count; i++) {
        if (!belongs(&topology->gpus[i], numa, parent))
            continue;
        gpu_chip(drawing, i, x + 10 + (int)(at % 2) * (gpu_width + GAP),
                 top + (int)(at / 2) * (GPU_HEIGHT + GAP), gpu_width);
        at++;
    }
    top += rows(gpus, 2) * (GPU_HEIGHT + GAP);
    at = 0;
    for (size_t i = 0; i < topology->nic_count + topology->other_count; i++) {
        bool fabric = i < topology->nic_count;
        size_t index = fabric ? i : i - topology->nic_count;
        const struct cm_pci_device *nic =
            fabric ? &topology->nics[index] : &topology->others[index];
        if (!belongs(nic, numa, parent))
            continue;
        nic_chip(drawing, index, nic, x + 10 + (int)(at % 4) * (nic_width + GAP),
                 top + (int)(at / 4) * (NIC_HEIGHT + GAP), nic_width);
        at++;
    }
    top += rows(nics + others, 4) * (NIC_HEIGHT + GAP);
    if (nvswitches > 0) {
        snprintf(text, sizeof text, "%zu NVSwitch%s", nvswitches, nvswitches == 1 ? "" : "es");
        text_at(drawing, x + 10, top + 10, "small", inner, 10.5, text);
    }
    return height;
}

static int panel(const struct drawing *drawing, int numa, int x, int y, int width, bool draw)
{
    const struct cm_topology *topology = drawing->topology;
    const struct cm_numa_node *node = numa >= 0 ? &topology->numa[numa] : NULL;
    int height = 46;
    for (int parent = -1; parent < (int)topology->switch_count; parent++) {
        int used = block(drawing, numa, parent, x + 12, y + height, width - 24, draw);
        height += used > 0 ? used + 10 : 0;
    }
    if (!draw)
        return height + 4;
    char text[200] = "NUMA node not known";
    if (node != NULL && node->package >= 0)
        snprintf(text, sizeof text, "Package %u, NUMA %u",
                 topology->packages[node->package].os_index, node->os_index);
    else if (node != NULL)
        snprintf(text, sizeof text, "NUMA %u", node->os_index);
    text_at(drawing, x + 14, y + 20, "head", width - 28, 14, text);
    if (node == NULL)
        return height + 4;
    struct cm_str cpus = CM_STR_INIT;
    cm_cpuset_write(&node->cpus, &cpus);
    const char *model = node->package >= 0 ? topology->packages[node->package].model : node->model;
    int used = snprintf(text, sizeof text, "%s", model);
    if (node->memory_bytes > 0)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%.0f GiB",
                         used > 0 ? ", " : "", (double)node->memory_bytes / 0x1p30);
    if (cpus.length > 0)
        snprintf(text + used, sizeof text - (size_t)used, "%scpus %.60s", used > 0 ? ", " : "",
                 cm_str_text(&cpus));
    if (cpus.failed)
        drawing->out->failed = true;
    cm_str_release(&cpus);
    text_at(drawing, x + 14, y + 37, "small muted", width - 28, 10.5, text);
    return height + 4;
}

/* Panels side by side in two columns, each row as high as its higher one. */
static int panels(const struct drawing *drawing, int top)
{
    const struct cm_topology *topology = drawing->topology;
    int shown[256];
    int count = 0;
    for (int i = -1; i < (int)topology->numa_count && count < 256; i++) {
        bool empty = i < 0;
        for (int parent = -1; empty && parent < (int)topology->switch_count; parent++)
            empty = block(drawing, i, parent, 0, 0, 500, false) == 0;
        if (!empty && (i < 0 || !topology->numa[i].gpu_memory))
            shown[count++] = i;
    }
    int columns = count > 1 ? 2 : 1;
    int width = (drawing->width - 2 * MARGIN - (columns - 1) * 16) / columns;
    for (int i = 0; i < count; i += columns) {
        int height = 0;
        for (int j = i; j < i + columns && j < count; j++) {
            int own = panel(drawing, shown[j], 0, 0, width, false);
            height = own > height ? own : height;
        }
        for (int j = i; j < i + columns && j < count; j++) {
            int x = MARGIN + (j - i) * (width + 16);
            box(drawing, x, top, width, height, 8, "panel");
            panel(drawing, shown[j], x, top, width, true);
        }
        top += height + 14;
    }
    return top;
}

static const char *path_class(enum cm_path_kind kind)
{
    static const char *const names[CM_PATH_COUNT] = {
        [CM_PATH_SELF] = "X",  [CM_PATH_NVLINK] = "NV",  [CM_PATH_PIX] = "PIX",
        [CM_PATH_PXB] = "PXB", [CM_PATH_PHB] = "PHB",    [CM_PATH_NODE] = "NODE",
        [CM_PATH_SYS] = "SYS", [CM_PATH_UNKNOWN] = "UN",
    };
    return names[kind];
}

struct column {
    char title[32];
    const struct cm_pci_device *device;
    size_t numa;
};

/* Column `index` of the table; false for one that is left out. */
static bool column_at(const struct cm_topology *topology, size_t index, struct column *column)
{
    memset(column, 0, sizeof *column);
    if (index < topology->gpu_count) {
        column->device = &topology->gpus[index];
        snprintf(column->title, sizeof column->title, "GPU%zu", index);
        return true;
    }
    index -= topology->gpu_count;
    if (index < topology->nic_count) {
        column->device = &topology->nics[index];
        snprintf(column->title, sizeof column->title, "NIC%zu", index);
        return true;
    }
    column->numa = index - topology->nic_count;
    snprintf(column->title, sizeof column->title, "NUMA%u", topology->numa[column->numa].os_index);
    return !topology->numa[column->numa].gpu_memory;
}

static size_t column_count(const struct cm_topology *topology)
{
    return topology->gpu_count + topology->nic_count + topology->numa_count;
}

static int table(const struct drawing *drawing, int top)
{
    const struct cm_topology *topology = drawing->topology;
    size_t total = column_count(topology);
    struct column column;
    char word[8];
    if (topology->gpu_count == 0)
        return top;
    text_at(drawing, MARGIN, top + 14, "head", 800, 14, "How GPUs reach GPUs, NICs and NUMA nodes");
    top += 26;
    int left = MARGIN + 46;
    int width = (drawing->width - MARGIN - left) / (int)total;
    width = width > 52 ? 52 : width;
    int x = left;
    for (size_t i = 0; i < total; i++) {
        if (!column_at(topology, i, &column))
            continue;
        text_at(drawing, x + width / 2, top + 13, "tiny muted mid", 60, 9.5, column.title);
        x += width;
    }
    top += 18;
    for (size_t row = 0; row < topology->gpu_count; row++, top += CELL) {
        snprintf(word, sizeof word, "GPU%zu", row % 1000);
        text_at(drawing, left - 8, top + 14, "small muted end", 60, 10.5, word);
        x = left;
        for (size_t i = 0; i < total; i++) {
            if (!column_at(topology, i, &column))
                continue;
            struct cm_path path =
                column.device != NULL
                    ? cm_path_between(topology, &topology->gpus[row], column.device)
                    : cm_path_to_numa(topology, &topology->gpus[row], column.numa);
            cm_path_word(path, word);
            box(drawing, x + 1, top + 1, width - 2, CELL - 2, 3, path_class(path.kind));
            text_at(drawing, x + width / 2, top + 14, "small mid", 60, 10.5, word);
            x += width;
        }
    }
    return top + 10;
}

static int legend(const struct drawing *drawing, int top)
{
    static const struct {
        enum cm_path_kind kind;
        const char *text;
        int width;
    } entries[] = {
        {CM_PATH_NVLINK, "NVn: n NVLinks", 120},    {CM_PATH_PIX, "PIX: one PCIe switch", 152},
        {CM_PATH_PXB, "PXB: several", 108},         {CM_PATH_PHB, "PHB: host bridge", 130},
        {CM_PATH_NODE, "NODE: one NUMA node", 158}, {CM_PATH_SYS, "SYS: between NUMA nodes", 180},
    };
    int x = MARGIN;
    if (drawing->topology->gpu_count == 0)
        return top;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        box(drawing, x, top, 14, 14, 3, path_class(entries[i].kind));
        text_at(drawing, x + 20, top + 11, "small muted", entries[i].width, 10.5, entries[i].text);
        x += entries[i].width + 14;
    }
    return top + 30;
}

/* One finding, wrapped by words. */
static int finding(const struct drawing *drawing, const struct cm_finding *what, int top)
{
    static const char *const levels[] = {
        [CM_FINDING_INFO] = "muted",
        [CM_FINDING_WARN] = "warn bold",
        [CM_FINDING_BAD] = "bad bold",
    };
    static const char *const words[] = {
        [CM_FINDING_INFO] = "note",
        [CM_FINDING_WARN] = "warning",
        [CM_FINDING_BAD] = "bad",
    };
    const size_t fit = (size_t)((drawing->width - 2 * MARGIN - 76) / (12 * 0.6));
    char line[400];
    const char *text = what->text;
    text_at(drawing, MARGIN, top + 12, levels[what->level], 80, 12, words[what->level]);
    while (*text != '\0') {
        size_t length = strlen(text);
        if (length > fit) {
            length = fit;
            while (length > 1 && text[length] != ' ')
                length--;
        }
        snprintf(line, sizeof line, "%.*s", (int)length, text);
        text_at(drawing, MARGIN + 70, top + 12, "body", drawing->width, 12, line);
        top += 17;
        text += length;
        text += strspn(text, " ");
    }
    return top + 4;
}

static int findings(const struct drawing *drawing, int top)
{
    const struct cm_topology *topology = drawing->topology;
    text_at(drawing, MARGIN, top + 14, "head", 200, 14, "Findings");
    top += 24;
    if (topology->finding_count == 0) {
        text_at(drawing, MARGIN, top + 12, "muted", 200, 12, "none");
        top += 20;
    }
    for (int level = CM_FINDING_BAD; level >= CM_FINDING_INFO; level--) {
        for (size_t i = 0; i < topology->finding_count; i++) {
            if ((int)topology->findings[i].level == level)
                top = finding(drawing, &topology->findings[i], top);
        }
    }
    return top;
}

static int title(const struct drawing *drawing)
{
    const struct cm_topology *topology = drawing->topology;
    char text[200];
    const char *slash = strrchr(topology->source, '/');
    text_at(drawing, MARGIN, 38, "title", drawing->width - 2 * MARGIN, 20,
            topology->live  ? "This machine"
            : slash != NULL ? slash + 1
                            : topology->source);
    snprintf(text, sizeof text,
             "%zu GPU%s, %zu fabric NIC%s, %zu NVSwitch%s, %zu PCIe switch%s, %u processors, "
             "digest %s",
             topology->gpu_count, topology->gpu_count == 1 ? "" : "s", topology->nic_count,
             topology->nic_count == 1 ? "" : "s", topology->nvswitch_count,
             topology->nvswitch_count == 1 ? "" : "es", topology->switch_count,
             topology->switch_count == 1 ? "" : "es", cm_cpuset_count(&topology->allowed),
             topology->digest);
    text_at(drawing, MARGIN, 60, "muted", drawing->width - 2 * MARGIN, 12, text);
    return 78;
}

enum cm_status cm_topology_svg(const struct cm_topology *topology, struct cm_str *out)
{
    struct cm_str body = CM_STR_INIT;
    struct drawing drawing = {topology, &body, 1180};
    int needed = 2 * MARGIN + 46 + 34 * (int)column_count(topology);
    if (topology->gpu_count > 0 && needed > drawing.width)
        drawing.width = needed;
    int top = title(&drawing);
    top = panels(&drawing, top);
    top = table(&drawing, top + 8);
    top = legend(&drawing, top);
    top = findings(&drawing, top) + 16;
    cm_str_addf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
                "height=\"%d\" role=\"img\">\n<title>",
                drawing.width, top, drawing.width, top);
    cm_str_addf(out, "Topology %s</title>\n%s", topology->digest, style);
    cm_str_addf(out, "<rect width=\"%d\" height=\"%d\" class=\"bg\"/>\n", drawing.width, top);
    cm_str_add(out, cm_str_text(&body));
    cm_str_add(out, "</svg>\n");
    enum cm_status status = cm_str_status(&body);
    cm_str_release(&body);
    return status != CM_OK ? status : cm_str_status(out);
}
