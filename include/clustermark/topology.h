/*
 * topology.h: the machine as seen: packages, NUMA nodes, cores, PCIe, GPUs, NICs, NVLink.
 *
 * The structure is plain data, filled by host/topology/hwloc.c (live, or hwloc v2 XML) or
 * host/topology/nccl_xml.c (NCCL topology XML). Paths, findings, binding, the map, JSON and SVG are
 * pure functions of it, so a recorded machine tests them without hardware. Everything is keyed by
 * PCI bus id.
 */
#ifndef CLUSTERMARK_TOPOLOGY_H
#define CLUSTERMARK_TOPOLOGY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"
#include "clustermark/strbuf.h"

/* A set of processor numbers as the operating system counts them. */
#define CM_CPUS_MAX 8192
struct cm_cpuset {
    uint64_t bits[CM_CPUS_MAX / 64];
};
void cm_cpuset_add(struct cm_cpuset *set, unsigned cpu);
bool cm_cpuset_has(const struct cm_cpuset *set, unsigned cpu);
unsigned cm_cpuset_count(const struct cm_cpuset *set);
void cm_cpuset_and(struct cm_cpuset *set, const struct cm_cpuset *other);
void cm_cpuset_or(struct cm_cpuset *set, const struct cm_cpuset *other);
/* "0-3,8": as in /sys and taskset. */
void cm_cpuset_write(const struct cm_cpuset *set, struct cm_str *out);
bool cm_cpuset_parse(const char *text, struct cm_cpuset *set);

/* How two devices reach each other, in NCCL's words; nearest first. */
#define CM_PATH_LIST(X)                                                                            \
    X(SELF, "X", "the device itself")                                                              \
    X(NVLINK, "NV", "NVLink (NVn: n links)")                                                       \
    X(PIX, "PIX", "at most one PCIe bridge")                                                       \
    X(PXB, "PXB", "several PCIe bridges, not the host bridge")                                     \
    X(PHB, "PHB", "a PCIe host bridge of one NUMA node")                                           \
    X(NODE, "NODE", "between host bridges of one NUMA node")                                       \
    X(SYS, "SYS", "the link between NUMA nodes")                                                   \
    X(UNKNOWN, "?", "not known")
enum cm_path_kind {
#define CM_PATH_ENUM(name, word, text) CM_PATH_##name,
    CM_PATH_LIST(CM_PATH_ENUM)
#undef CM_PATH_ENUM
        CM_PATH_COUNT
};
struct cm_path {
    enum cm_path_kind kind;
    unsigned links; /* NVLinks */
};

/* PCIe link speed in bytes/s per direction; 0 when not known. */
struct cm_pci_link {
    double current, maximum;
    unsigned width, max_width;
    double gts, max_gts; /* GT/s per lane */
};

enum cm_pci_kind { CM_PCI_GPU, CM_PCI_NIC, CM_PCI_NVSWITCH, CM_PCI_SWITCH, CM_PCI_OTHER };

/* A GPU, fabric NIC, NVSwitch, PCIe switch (upstream port), or what might be one of them: a
 * management port that looks like a NIC, a device whose class the file leaves out. */
struct cm_pci_device {
    enum cm_pci_kind kind;
    char bus_id[24]; /* lower case, "0000:10:1c.0" */
    uint16_t vendor_id, device_id;
    uint16_t class_id;           /* 0x0302 ... */
    char name[96];               /* "NVIDIA H200", "EFA"; from the file, the ids, or the class */
    char os_name[64];            /* "mlx5_0", "rdmap85s0", "cuda0"; "" when not known */
    int numa;                    /* index into numa[], -1 not known */
    struct cm_cpuset local_cpus; /* empty when not known */
    struct cm_pci_link link;
    int parent_switch; /* index into switches[] of the nearest one above, -1 none */
    /* The bridges above, from the device up: ids unique in the machine; the last is the host
     * bridge. A switch's list begins with itself. What the path words are computed from. */
    uint32_t *bridges;
    unsigned bridge_count;
    unsigned sm;            /* compute capability * 10 where the file has it, else 0 */
    double net_bytes_per_s; /* NICs: line rate where known, else 0 */
    bool management;        /* CM_PCI_OTHER: a NIC that serves management, not the fabric */
};

struct cm_numa_node {
    unsigned os_index;
    int package;           /* index, -1 not known */
    struct cm_cpuset cpus; /* empty for memory-only nodes */
    uint64_t memory_bytes;
    bool gpu_memory; /* a GPU's own memory (Grace, POWER9): never bind host data there */
    char gpu[24];    /* whose memory, "" when not known */
    char model[96];  /* the processor, where a file says it per node and not per package */
};

struct cm_package {
    unsigned os_index;
    char model[96];
    char vendor[32];
    unsigned cores, pus;
    struct cm_cpuset cpus;
};

struct cm_core {
    int package, numa;
    struct cm_cpuset pus;
};

struct cm_nvlink {
    int gpu;      /* index into gpus[] */
    int peer_gpu; /* index, -1 for a switch, the CPU or a GPU that is not there; `gpu` itself when
                     the file says how many links there are but not to whom */
    bool to_switch, to_cpu;
    unsigned count;
    double bytes_per_s; /* per direction, all links; 0 not known */
};

enum cm_finding_level { CM_FINDING_INFO, CM_FINDING_WARN, CM_FINDING_BAD };
struct cm_finding {
    enum cm_finding_level level;
    char code[32];   /* "link-below-maximum": stable, for tools */
    char device[32]; /* bus id or "" */
    char text[320];  /* plain words: what, why it matters, what to do */
};

/* What a container or cgroup takes away. Live machines only. */
struct cm_limits {
    bool known;
    unsigned cpus_online, cpus_allowed;
    double cpu_quota;            /* CPUs' worth of time, 0 no quota */
    uint64_t memory_limit_bytes; /* 0 no limit */
    bool container;
};

struct cm_topology {
    char source[256]; /* "live", or the file */
    char format[24];  /* "hwloc", "nccl" */
    bool live;
    uint64_t memory_bytes;
    struct cm_package *packages;
    struct cm_numa_node *numa;
    struct cm_core *cores;
    struct cm_pci_device *gpus, *nics, *nvswitches, *switches, *others; /* by bus id */
    struct cm_nvlink *nvlinks;
    struct cm_finding *findings;
    size_t package_count, numa_count, core_count, gpu_count, nic_count, nvswitch_count,
        switch_count, other_count, nvlink_count, finding_count;
    struct cm_cpuset allowed; /* usable processors; empty when the file lists none */
    struct cm_limits limits;
    char digest[24]; /* hash, hex, of what must match before two results are compared: models and
                        structure, not names, bus numbers or serials */
};

/* This machine. */
enum cm_status cm_topology_live(struct cm_topology *topology);
/* A recorded machine, hwloc v2 XML or NCCL topology XML, told apart by its content. Untrusted:
 * truncated, oversized or strange files are CM_USAGE with file (and line where there is one). */
enum cm_status cm_topology_load(const char *path, struct cm_topology *topology);
void cm_topology_release(struct cm_topology *topology);

struct cm_path cm_path_between(const struct cm_topology *topology, const struct cm_pci_device *a,
                               const struct cm_pci_device *b);
struct cm_path cm_path_to_numa(const struct cm_topology *topology,
                               const struct cm_pci_device *device, size_t numa);
/* "PIX", "NV18" into `word` (at least 8 bytes). */
void cm_path_word(struct cm_path path, char *word);

/* The map and the relation matrix for people; JSON with the keys of design §6; SVG. */
enum cm_status cm_topology_text(const struct cm_topology *topology, bool color, struct cm_str *out);
enum cm_status cm_topology_json(const struct cm_topology *topology, json_t **value);
/* Back from its JSON, as a result file holds it: enough to draw it; the cores are left out.
 * Untrusted. CM_UNSUPPORTED when it is not whole (an older or a foreign file). */
enum cm_status cm_topology_from_json(const json_t *value, struct cm_topology *topology);
enum cm_status cm_topology_svg(const struct cm_topology *topology, struct cm_str *out);

/* In what order `count` GPUs, given by bus id, should become ranks when consecutive groups of
 * `group` ranks talk most (the tensor groups of a plan): order[i] is the device of rank i. Within
 * groups, there are as few paths of the farthest kind as can be, then of the next nearer, and where
 * all is NVLink, as many links. Groups that are near to each other follow on each other. Devices
 * stay in order as far as nothing is gained by moving them; where all paths are equal, nothing is
 * moved. A device that the topology does not have is equally far from all. The rest of a count that
 * `group` does not divide is a smaller group at the end. Pure. */
enum cm_status cm_placement_order(const struct cm_topology *topology, const char *const *bus_ids,
                                  unsigned count, unsigned group, unsigned *order);

/* Which processors rank `local_rank` of `local_size` on this node gets: pure. `bus_ids` holds one
 * device per rank of the node (NULL for CPU ranks: the machine is shared out, whole cores, NUMA
 * node by NUMA node). Ranks whose devices share a locality split its cores. With more ranks than
 * cores, cores are shared and `oversubscribed` is set. A topology that lists no processors is
 * CM_UNSUPPORTED. */
struct cm_binding {
    struct cm_cpuset cpus;
    struct cm_cpuset nodes; /* NUMA nodes by OS index, GPU memory left out */
    unsigned cores;
    bool oversubscribed;
    bool fallback; /* the device's locality is unknown or not allowed: all cores taken */
};
enum cm_status cm_binding_plan(const struct cm_topology *topology, const char *const *bus_ids,
                               unsigned local_rank, unsigned local_size,
                               struct cm_binding *binding);

/* The NUMA node, by OS index, that is farthest from what `binding` binds to: of another package
 * where there is one. It is allowed and has memory of its own, not a GPU's. -1 when there is none.
 * Pure. */
int cm_binding_far_node(const struct cm_topology *topology, const struct cm_binding *binding);

/* Bind this process (before it makes threads) and read back what the system made of it, as
 * "cpus 0-3 nodes 0". A system that refuses is not an error: the text says so. */
enum cm_status cm_binding_apply(const struct cm_binding *binding, struct cm_str *read_back);

#endif
