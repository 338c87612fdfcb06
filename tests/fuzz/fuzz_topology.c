/* Topology files: any bytes are either refused with a message or give a topology that can be shown
 * and bound to. hwloc's XML and NCCL's share the entry, as on the command line. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/topology.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_topology: %s: %s\n", what, cm_error_text());
    abort();
}

static void show(const struct cm_topology *topology)
{
    struct cm_str text = CM_STR_INIT, svg = CM_STR_INIT;
    json_t *value = NULL;
    require(cm_topology_text(topology, true, &text) == CM_OK, "the map failed");
    require(strlen(cm_str_text(&text)) == text.length, "the map has a zero byte");
    require(cm_topology_svg(topology, &svg) == CM_OK, "the drawing failed");
    require(cm_topology_json(topology, &value) == CM_OK, "the JSON failed");
    json_decref(value);
    cm_str_release(&svg);
    cm_str_release(&text);
}

static void bind_ranks(const struct cm_topology *topology)
{
    const char *bus_ids[8];
    unsigned ranks = topology->gpu_count < 8 ? (unsigned)topology->gpu_count : 8;
    struct cm_binding binding;
    for (unsigned rank = 0; rank < ranks; rank++)
        bus_ids[rank] = topology->gpus[rank].bus_id;
    for (unsigned rank = 0; rank < ranks; rank++) {
        if (cm_binding_plan(topology, bus_ids, rank, ranks, &binding) == CM_OK)
            require(cm_cpuset_count(&binding.cpus) > 0, "a rank has no processor");
    }
    if (cm_binding_plan(topology, NULL, 1, 3, &binding) == CM_OK)
        require(cm_cpuset_count(&binding.cpus) > 0, "a CPU rank has no processor");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cm_topology topology;
    char path[64];
    int fd = memfd_create("topology", 0);
    if (fd < 0)
        return 0;
    bool written = write(fd, data, size) == (ssize_t)size;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    cm_error_clear();
    enum cm_status status = written ? cm_topology_load(path, &topology) : CM_USAGE;
    close(fd);
    if (!written)
        return 0;
    if (status != CM_OK) {
        require(status == CM_USAGE, "a bad file is not a usage error");
        require(strchr(cm_error_text(), '\n') == NULL && cm_error_text()[0] != '\0',
                "the message is not one line");
        return 0;
    }
    show(&topology);
    bind_ranks(&topology);
    cm_topology_release(&topology);
    return 0;
}
