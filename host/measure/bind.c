/* Cores and memory of a rank: the node is shared out evenly. */
#include "host/measure/bind.h"

#include <sched.h>
#include <stdio.h>

#include "clustermark/deadline.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/topology.h"

#define MEMORY_SHARE 0.8 /* of what is free when the rank starts */

/* Bytes that can be had without swapping, as the kernel estimates it; 0 when it does not say. */
static uint64_t available_memory(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (kib == 0 && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
            kib = 0;
    }
    fclose(file);
    return (uint64_t)kib * 1024;
}

static uint64_t memory_share(const struct cm_topology *topology, unsigned local_size)
{
    uint64_t memory = available_memory();
    if (memory == 0 || (topology->memory_bytes > 0 && topology->memory_bytes < memory))
        memory = topology->memory_bytes;
    uint64_t limit = topology->limits.memory_limit_bytes;
    if (limit > 0 && limit < memory)
        memory = limit;
    return (uint64_t)(MEMORY_SHARE * (double)memory) / (local_size > 0 ? local_size : 1);
}

void cm_bus_ids_free(char **bus_ids, unsigned count)
{
    for (unsigned i = 0; bus_ids != NULL && i < count; i++)
        cm_free(bus_ids[i]);
    cm_free(bus_ids);
}

static enum cm_status locate(const struct cm_device_ops *device, unsigned devices, unsigned count,
                             char **bus_ids)
{
    char text[sizeof((struct cm_device_info *)NULL)->bus_id];
    for (unsigned i = 0; i < count; i++) {
        enum cm_status status = device->locate(devices > 0 ? i % devices : i, text, sizeof text);
        if (status != CM_OK)
            return status;
        bus_ids[i] = cm_strdup(text);
        if (bus_ids[i] == NULL)
            return CM_NO_MEMORY;
    }
    return CM_OK;
}

char **cm_bus_ids_locate(const struct cm_device_ops *device, unsigned devices, unsigned count)
{
    if (device->locate == NULL)
        return NULL;
    struct cm_deadline *deadline = NULL;
    char **bus_ids = cm_alloc(count, sizeof *bus_ids);
    enum cm_status status = bus_ids != NULL ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK)
        status = cm_deadline_begin(CM_DRIVER_S, CM_DRIVER_HANGS, &deadline);
    if (status == CM_OK)
        status = locate(device, devices, count, bus_ids);
    cm_deadline_end(deadline);
    if (status == CM_OK)
        return bus_ids;
    cm_warn("ranks are not bound near their devices: %s", cm_error_text());
    cm_bus_ids_free(bus_ids, count);
    return NULL;
}

/* Where ranks share cores, who wakes up must not push aside who woke it: Open MPI 4 spins, without
 * yielding, until the thread that told it of a message's end has let go of it, which takes to the
 * end of a time slice when that thread waits for the same core. A policy that the user chose stays.
 */
static enum cm_status take_turns(struct cm_str *read_back)
{
    const struct sched_param none = {0};
    if (sched_getscheduler(0) == SCHED_OTHER && sched_setscheduler(0, SCHED_BATCH, &none) == 0)
        cm_str_add(read_back, " batch");
    return cm_str_status(read_back);
}

enum cm_status cm_bind_rank(const struct cm_world *world, const char *const *bus_ids,
                            struct cm_str *read_back, struct cm_device_config *config)
{
    struct cm_topology topology;
    struct cm_binding binding;
    config->far_node = -1;
    enum cm_status status = cm_topology_live(&topology);
    if (status != CM_OK)
        return status;
    status = cm_binding_plan(&topology, bus_ids, world->local_rank, world->local_size, &binding);
    if (status == CM_OK)
        status = cm_binding_apply(&binding, read_back);
    if (status == CM_OK && binding.oversubscribed)
        status = take_turns(read_back);
    if (status == CM_OK) {
        config->threads = binding.cores;
        config->memory_bytes = memory_share(&topology, world->local_size);
        config->far_node = cm_binding_far_node(&topology, &binding);
    }
    cm_topology_release(&topology);
    return status;
}
