/* Binding this process, and reading back what became of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "host/topology/hwloc_private.h"

static hwloc_bitmap_t to_bitmap(const struct cm_cpuset *set)
{
    hwloc_bitmap_t bitmap = hwloc_bitmap_alloc();
    for (unsigned cpu = 0; bitmap != NULL && cpu < CM_CPUS_MAX; cpu++) {
        if (cm_cpuset_has(set, cpu) && hwloc_bitmap_set(bitmap, cpu) != 0) {
            hwloc_bitmap_free(bitmap);
            return NULL;
        }
    }
    return bitmap;
}

static void write_set(hwloc_const_bitmap_t bitmap, struct cm_str *out)
{
    struct cm_cpuset set;
    cm_hwloc_cpuset(bitmap, &set);
    cm_cpuset_write(&set, out);
}

static void bind_cpus(hwloc_topology_t machine, const struct cm_binding *binding,
                      hwloc_bitmap_t wanted, hwloc_bitmap_t got, struct cm_str *text)
{
    const char *refused = NULL;
    if (hwloc_set_cpubind(machine, wanted, HWLOC_CPUBIND_PROCESS) != 0)
        refused = strerror(errno);
    cm_str_add(text, "cpus ");
    if (hwloc_get_cpubind(machine, got, HWLOC_CPUBIND_PROCESS) != 0) {
        cm_str_addf(text, "unknown (%s)", strerror(errno));
    } else {
        write_set(got, text);
        if (!hwloc_bitmap_isequal(got, wanted)) {
            cm_str_add(text, " instead of ");
            cm_cpuset_write(&binding->cpus, text);
        }
    }
    if (refused != NULL)
        cm_str_addf(text, " (refused: %s)", refused);
}

/* Not strict: when a node is full, the next one serves, which is better than a killed rank. */
static void bind_memory(hwloc_topology_t machine, const struct cm_binding *binding,
                        hwloc_bitmap_t wanted, hwloc_bitmap_t got, struct cm_str *text)
{
    const int flags = HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET;
    hwloc_membind_policy_t policy;
    if (cm_cpuset_count(&binding->nodes) == 0)
        return;
    if (hwloc_set_membind(machine, wanted, HWLOC_MEMBIND_BIND, flags) != 0) {
        cm_str_addf(text, " nodes any (memory policy refused: %s)", strerror(errno));
        return;
    }
    if (hwloc_get_membind(machine, got, &policy, flags) != 0) {
        cm_str_addf(text, " nodes unknown (%s)", strerror(errno));
        return;
    }
    cm_str_add(text, " nodes ");
    write_set(got, text);
}

enum cm_status cm_binding_apply(const struct cm_binding *binding, struct cm_str *read_back)
{
    struct cm_str text = CM_STR_INIT;
    hwloc_topology_t machine = NULL;
    hwloc_bitmap_t cpus = to_bitmap(&binding->cpus), nodes = to_bitmap(&binding->nodes);
    hwloc_bitmap_t got = hwloc_bitmap_alloc();
    enum cm_status status = CM_OK;
    if (cpus == NULL || nodes == NULL || got == NULL)
        status = cm_error(CM_NO_MEMORY, "out of memory in hwloc");
    if (status == CM_OK)
        status = cm_hwloc_open(&machine);
    if (status == CM_OK && hwloc_topology_load(machine) != 0)
        status = cm_error_errno(CM_SYSTEM, "hwloc cannot read this machine's topology");
    if (status == CM_OK && !hwloc_topology_is_thissystem(machine)) {
        /* On another machine's topology hwloc's calls return 0 and do nothing. */
        cm_str_add(&text, "not bound: hwloc's environment variables name another machine");
    } else if (status == CM_OK) {
        bind_cpus(machine, binding, cpus, got, &text);
        bind_memory(machine, binding, nodes, got, &text);
    }
    if (machine != NULL)
        hwloc_topology_destroy(machine);
    hwloc_bitmap_free(got);
    hwloc_bitmap_free(nodes);
    hwloc_bitmap_free(cpus);
    if (status == CM_OK)
        status = cm_str_status(&text);
    if (status == CM_OK) {
        cm_str_add(read_back, cm_str_text(&text));
        status = cm_str_status(read_back);
    }
    cm_str_release(&text);
    return status;
}
