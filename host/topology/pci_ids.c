/* PCI devices by number: which ones matter, and what they are called. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/topology/internal.h"

enum { NVIDIA = 0x10de, MELLANOX = 0x15b3, AMAZON = 0x1d0f };

/* PCIe generation and NVLinks (per direction) by data sheet. NVLink 0: none, or links that differ
 * from board to board. */
static const struct cm_gpu_model gpu_models[] = {
    {0x06d2, "NVIDIA Tesla M2070", 2, 0, 0},
    {0x1023, "NVIDIA Tesla K40m", 3, 0, 0},
    {0x15f7, "NVIDIA P100 PCIe 12GB", 3, 0, 0},
    {0x15f8, "NVIDIA P100 PCIe 16GB", 3, 0, 0},
    {0x15f9, "NVIDIA P100 SXM2 16GB", 3, 4, 20e9},
    {0x1db1, "NVIDIA V100 SXM2 16GB", 3, 6, 25e9},
    {0x1db4, "NVIDIA V100 PCIe 16GB", 3, 0, 0},
    {0x1db5, "NVIDIA V100 SXM2 32GB", 3, 6, 25e9},
    {0x1db6, "NVIDIA V100 PCIe 32GB", 3, 0, 0},
    {0x1db8, "NVIDIA V100 SXM3 32GB", 3, 6, 25e9},
    {0x1df6, "NVIDIA V100S PCIe 32GB", 3, 0, 0},
    {0x1eb8, "NVIDIA T4", 3, 0, 0},
    {0x20b0, "NVIDIA A100 SXM4 40GB", 4, 12, 25e9},
    {0x20b2, "NVIDIA A100 SXM4 80GB", 4, 12, 25e9},
    {0x20b5, "NVIDIA A100 PCIe 80GB", 4, 12, 25e9},
    {0x20b7, "NVIDIA A30", 4, 4, 25e9},
    {0x20f1, "NVIDIA A100 PCIe 40GB", 4, 12, 25e9},
    {0x20f3, "NVIDIA A800 SXM4 80GB", 4, 8, 25e9},
    {0x2230, "NVIDIA RTX A6000", 4, 0, 0},
    {0x2235, "NVIDIA A40", 4, 0, 0},
    {0x2236, "NVIDIA A10", 4, 0, 0},
    {0x2237, "NVIDIA A10G", 4, 0, 0},
    {0x2321, "NVIDIA H100 NVL", 5, 12, 25e9},
    {0x2324, "NVIDIA H800", 5, 8, 25e9},
    {0x2330, "NVIDIA H100 SXM5 80GB", 5, 18, 25e9},
    {0x2331, "NVIDIA H100 PCIe", 5, 12, 25e9},
    {0x2335, "NVIDIA H200 SXM5 141GB", 5, 18, 25e9},
    {0x2342, "NVIDIA GH200", 5, 18, 25e9},
    {0x2348, "NVIDIA GH200 144GB", 5, 18, 25e9},
    {0x2684, "NVIDIA GeForce RTX 4090", 4, 0, 0},
    {0x26b5, "NVIDIA L40", 4, 0, 0},
    {0x26b9, "NVIDIA L40S", 4, 0, 0},
    {0x27b8, "NVIDIA L4", 4, 0, 0},
    {0x2901, "NVIDIA B200", 5, 18, 50e9},
    {0x2941, "NVIDIA GB200", 5, 18, 50e9},
    {0x2b85, "NVIDIA GeForce RTX 5090", 5, 0, 0},
    {0x2bb1, "NVIDIA RTX PRO 6000 Blackwell", 5, 0, 0},
    {0x3182, "NVIDIA B300", 6, 18, 50e9},
};

static const struct {
    uint16_t device_id;
    const char *name;
} mellanox_names[] = {
    {0x1013, "ConnectX-4"},       {0x1014, "ConnectX-4 VF"},    {0x1015, "ConnectX-4 Lx"},
    {0x1016, "ConnectX-4 Lx VF"}, {0x1017, "ConnectX-5"},       {0x1018, "ConnectX-5 VF"},
    {0x1019, "ConnectX-5 Ex"},    {0x101a, "ConnectX-5 Ex VF"}, {0x101b, "ConnectX-6"},
    {0x101c, "ConnectX-6 VF"},    {0x101d, "ConnectX-6 Dx"},    {0x101e, "ConnectX VF"},
    {0x1021, "ConnectX-7"},       {0x1023, "ConnectX-8"},       {0xa2dc, "BlueField-3"},
};

const struct cm_gpu_model *cm_gpu_model(uint16_t vendor_id, uint16_t device_id)
{
    for (size_t i = 0; i < sizeof gpu_models / sizeof gpu_models[0]; i++) {
        if (vendor_id == NVIDIA && gpu_models[i].device_id == device_id)
            return &gpu_models[i];
    }
    return NULL;
}

bool cm_is_nvidia_gpu(uint16_t vendor_id, uint16_t class_id)
{
    return vendor_id == NVIDIA && class_id >> 8 == 0x03;
}

bool cm_is_nvswitch(uint16_t vendor_id, uint16_t class_id)
{
    return vendor_id == NVIDIA && class_id == 0x0680;
}

static bool is_efa(uint16_t vendor_id, uint16_t device_id)
{
    return vendor_id == AMAZON && device_id >> 4 == 0xefa;
}

bool cm_is_fabric_nic(uint16_t vendor_id, uint16_t device_id, uint16_t class_id, bool verbs)
{
    if (is_efa(vendor_id, device_id))
        return true;
    if (class_id == 0x0207 || class_id == 0x0c06) /* InfiniBand, new and old class */
        return true;
    return class_id >> 8 == 0x02 && (verbs || vendor_id == MELLANOX);
}

static const char *mellanox_name(uint16_t device_id)
{
    for (size_t i = 0; i < sizeof mellanox_names / sizeof mellanox_names[0]; i++) {
        if (mellanox_names[i].device_id == device_id)
            return mellanox_names[i].name;
    }
    return NULL;
}

static const char *general_name(const struct cm_pci_device *device)
{
    switch (device->kind) {
    case CM_PCI_GPU:
        return device->vendor_id == NVIDIA ? "NVIDIA GPU" : "GPU";
    case CM_PCI_NVSWITCH:
        return "NVSwitch";
    case CM_PCI_SWITCH:
        return "PCIe switch";
    case CM_PCI_OTHER:
        return "PCI device";
    case CM_PCI_NIC:
        break;
    }
    if (is_efa(device->vendor_id, device->device_id))
        return "EFA";
    return device->class_id == 0x0207 || device->class_id == 0x0c06 ? "InfiniBand HCA" : "NIC";
}

void cm_pci_name(struct cm_pci_device *device)
{
    const struct cm_gpu_model *model = cm_gpu_model(device->vendor_id, device->device_id);
    const char *name = model != NULL ? model->name : NULL;
    if (name == NULL && device->vendor_id == MELLANOX)
        name = mellanox_name(device->device_id);
    const char *general = general_name(device);
    bool numbered = device->vendor_id != 0 && device->vendor_id != 0xffff;
    if (name != NULL)
        snprintf(device->name, sizeof device->name, "%s", name);
    else if (numbered && device->kind != CM_PCI_SWITCH && device->kind != CM_PCI_NVSWITCH &&
             !is_efa(device->vendor_id, device->device_id))
        snprintf(device->name, sizeof device->name, "%s %04x:%04x", general, device->vendor_id,
                 device->device_id);
    else
        snprintf(device->name, sizeof device->name, "%s", general);
}

static bool read_hex(const char **text, unsigned long most, unsigned long *value)
{
    char *end;
    if (!isxdigit((unsigned char)**text))
        return false;
    *value = strtoul(*text, &end, 16);
    bool fits = *value <= most && end - *text <= 8;
    *text = end;
    return fits;
}

/* domain, bus, device, function; the domain may be left out. */
static bool split(const char *text, unsigned long parts[4])
{
    const char *colon = strchr(text, ':');
    parts[0] = 0;
    if (colon != NULL && strchr(colon + 1, ':') != NULL) {
        if (!read_hex(&text, 0xffffffffUL, &parts[0]) || *text++ != ':')
            return false;
    }
    return read_hex(&text, 0xff, &parts[1]) && *text++ == ':' && read_hex(&text, 0x1f, &parts[2]) &&
           *text++ == '.' && read_hex(&text, 7, &parts[3]) && *text == '\0';
}

bool cm_bus_id_normal(const char *text, char bus_id[24])
{
    unsigned long parts[4];
    if (!split(text, parts))
        return false;
    snprintf(bus_id, 24, "%04lx:%02lx:%02lx.%lx", parts[0], parts[1], parts[2], parts[3]);
    return true;
}

int cm_bus_id_compare(const char *a, const char *b)
{
    unsigned long x[4], y[4];
    if (!split(a, x) || !split(b, y))
        return strcmp(a, b);
    for (size_t i = 0; i < 4; i++) {
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}
