/* The digest of a machine: equal for machines of one kind, so that results of different machines
 * of that kind may be compared. Bus numbers, names, serials and current link speeds stay out. */
#include <stdio.h>
#include <string.h>

#include "clustermark/hash.h"
#include "host/topology/internal.h"

static void add_text(uint64_t *hash, const char *text)
{
    *hash = cm_hash(*hash, text, strlen(text) + 1);
}

static void add_number(uint64_t *hash, const char *what, long number)
{
    char text[48];
    snprintf(text, sizeof text, "%s=%ld", what, number);
    add_text(hash, text);
}

static void add_processors(uint64_t *hash, const struct cm_topology *topology)
{
    add_number(hash, "packages", (long)topology->package_count);
    for (size_t i = 0; i < topology->package_count; i++) {
        add_text(hash, topology->packages[i].model);
        add_number(hash, "cores", topology->packages[i].cores);
        add_number(hash, "pus", topology->packages[i].pus);
    }
    add_number(hash, "nodes", (long)topology->numa_count);
    for (size_t i = 0; i < topology->numa_count; i++) {
        add_text(hash, topology->numa[i].model);
        add_number(hash, "pus", cm_cpuset_count(&topology->numa[i].cpus));
        add_number(hash, "package", topology->numa[i].package);
        add_number(hash, "gpu", topology->numa[i].gpu_memory);
    }
}

static void add_devices(uint64_t *hash, const char *what, const struct cm_pci_device *devices,
                        size_t count)
{
    add_number(hash, what, (long)count);
    for (size_t i = 0; i < count; i++) {
        add_number(hash, "vendor", devices[i].vendor_id);
        add_number(hash, "device", devices[i].device_id);
        add_number(hash, "class", devices[i].class_id);
        add_number(hash, "node", devices[i].numa);
    }
}

static void add_path(uint64_t *hash, const struct cm_topology *topology,
                     const struct cm_pci_device *a, const struct cm_pci_device *b)
{
    char word[8];
    cm_path_word(cm_path_between(topology, a, b), word);
    add_text(hash, word);
}

void cm_topology_digest(struct cm_topology *topology)
{
    uint64_t hash = 0;
    char text[CM_HASH_TEXT_MAX];
    add_processors(&hash, topology);
    add_devices(&hash, "gpus", topology->gpus, topology->gpu_count);
    add_devices(&hash, "nics", topology->nics, topology->nic_count);
    add_devices(&hash, "nvswitches", topology->nvswitches, topology->nvswitch_count);
    add_devices(&hash, "others", topology->others, topology->other_count);
    for (size_t i = 0; i < topology->gpu_count; i++) {
        for (size_t j = 0; j < topology->gpu_count; j++)
            add_path(&hash, topology, &topology->gpus[i], &topology->gpus[j]);
        for (size_t j = 0; j < topology->nic_count; j++)
            add_path(&hash, topology, &topology->gpus[i], &topology->nics[j]);
        add_number(&hash, "nvlinks", (long)cm_nvlink_count(topology, i));
    }
    snprintf(topology->digest, sizeof topology->digest, "%s", cm_hash_text(hash, text));
}
