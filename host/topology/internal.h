/*
 * internal.h: what the files of host/topology/ share.
 */
#ifndef CM_TOPOLOGY_INTERNAL_H
#define CM_TOPOLOGY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/topology.h"

/* Larger files are no topology: those of the largest recorded machines have a few MB. */
#define CM_TOPOLOGY_FILE_MAX ((size_t)16 << 20)

/* One more zeroed element at the end of a growing array; NULL with CM_NO_MEMORY recorded. `array`
 * is the address of the array's pointer. */
void *cm_topology_push(void *array, size_t *count, size_t size);

/* Copy text from a file: printable ASCII stays, anything else becomes '?'; too long is cut. */
void cm_topology_copy(char *to, size_t size, const char *from);

__attribute__((format(printf, 5, 6))) enum cm_status
cm_finding_add(struct cm_topology *topology, enum cm_finding_level level, const char *code,
               const char *device, const char *format, ...);

/* Readers. `text` is the content of the file `name`. All leave a partly filled topology on failure;
 * the caller releases it. */
enum cm_status cm_hwloc_read_live(struct cm_topology *topology);
enum cm_status cm_hwloc_read_xml(const char *name, const char *text, size_t length,
                                 struct cm_topology *topology);
enum cm_status cm_nccl_read(const char *name, const char *text, size_t length,
                            struct cm_topology *topology);

/* Devices by bus id, the management ports taken out of the NICs, each device's nearest switch.
 * Readers call it before they add NVLinks, which hold indices. */
enum cm_status cm_topology_arrange(struct cm_topology *topology);
/* Index of the GPU with this bus id, -1 for none. */
int cm_topology_gpu(const struct cm_topology *topology, const char *bus_id);

/* pci_ids.c: what is known of PCI devices by number. */
struct cm_gpu_model {
    uint16_t device_id;
    const char *name;
    unsigned pcie_generation; /* of its x16 link */
    unsigned nvlinks;         /* 0: none, or not known */
    double nvlink_bytes_per_s;
};
const struct cm_gpu_model *cm_gpu_model(uint16_t vendor_id, uint16_t device_id);
bool cm_is_nvidia_gpu(uint16_t vendor_id, uint16_t class_id);
bool cm_is_nvswitch(uint16_t vendor_id, uint16_t class_id);
bool cm_is_fabric_nic(uint16_t vendor_id, uint16_t device_id, uint16_t class_id, bool verbs);
/* The device's name from its ids, or in general words. */
void cm_pci_name(struct cm_pci_device *device);

/* Lower case and a domain of at least four digits, from any spelling of the bus id ("10:1C.0",
 * "00000000:10:1c.0"). False when it is none. */
bool cm_bus_id_normal(const char *text, char bus_id[24]);
/* For sorting: domain, bus, device, function. */
int cm_bus_id_compare(const char *a, const char *b);

/* link.c: PCIe links. */
unsigned cm_link_generation(double gts); /* 1 to 6, 0 when not known */
/* "16 GT/s", "32.0 GT/s PCIe", "32 GT/s PCIe/s"; 0 for what says nothing ("", "Unknown"). */
double cm_link_parse_gts(const char *text);
/* From <root>/bus/pci/devices/<bus id>/, and a NIC's rate from <root>/class/infiniband/<name>;
 * `root` is "/sys" but in tests. `port` is the bus id of the bridge above, or NULL. */
void cm_link_read(const char *root, const char *port, struct cm_pci_device *device);
/* "Gen5 x16 63.0 GB/s"; "Gen1 x16 4.0 of Gen5 x16 63.0 GB/s"; "63.0 GB/s"; "". */
#define CM_LINK_TEXT_MAX 80
char *cm_link_text(const struct cm_pci_link *link, char *buffer);
bool cm_link_below_maximum(const struct cm_pci_link *link);

/* limits.c: container and cgroup; `root` is "" but in tests. Leaves cpus_allowed. */
void cm_limits_read(const char *root, struct cm_limits *limits);

/* findings.c, digest.c: computed from the rest, at the end of loading. */
enum cm_status cm_topology_findings(struct cm_topology *topology);
void cm_topology_digest(struct cm_topology *topology);

/* NVLinks of a GPU, of all kinds. */
unsigned cm_nvlink_count(const struct cm_topology *topology, size_t gpu);

#endif
