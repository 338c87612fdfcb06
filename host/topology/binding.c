/* Which cores each rank of a node gets: pure. */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/topology/internal.h"

#define NOBODY UINT32_MAX

/* What is shared out: whole cores, NUMA node by NUMA node. */
struct unit {
    struct cm_cpuset cpus;
    int numa;
    uint32_t owner;   /* rank */
    unsigned choices; /* ranks that may have it */
};

struct plan {
    const struct cm_topology *topology;
    struct unit *units;
    size_t unit_count;
    struct cm_cpuset *local; /* per rank: where it may be */
    unsigned *wanted;        /* per rank: units it gets */
    bool *fallback;          /* per rank */
    bool *inside;            /* per unit and rank: whether the rank may have it */
    unsigned ranks;
};

static bool set_empty(const struct cm_cpuset *set)
{
    return cm_cpuset_count(set) == 0;
}

static bool set_equal(const struct cm_cpuset *a, const struct cm_cpuset *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static bool unit_in(const struct unit *unit, const struct cm_cpuset *set)
{
    struct cm_cpuset both = unit->cpus;
    cm_cpuset_and(&both, set);
    return !set_empty(&both);
}

static enum cm_status add_unit(struct plan *plan, const struct cm_cpuset *cpus, int numa)
{
    struct unit *unit = cm_topology_push(&plan->units, &plan->unit_count, sizeof *unit);
    if (unit == NULL)
        return CM_NO_MEMORY;
    unit->cpus = *cpus;
    cm_cpuset_and(&unit->cpus, &plan->topology->allowed);
    unit->numa = numa;
    unit->owner = NOBODY;
    if (set_empty(&unit->cpus))
        plan->unit_count--;
    return CM_OK;
}

static int numa_of(const struct cm_topology *topology, unsigned cpu)
{
    for (size_t i = 0; i < topology->numa_count; i++) {
        if (cm_cpuset_has(&topology->numa[i].cpus, cpu))
            return (int)i;
    }
    return -1;
}

/* Cores, or single processors where the topology has no cores (NCCL's files). */
static enum cm_status collect_units(struct plan *plan)
{
    const struct cm_topology *topology = plan->topology;
    enum cm_status status = CM_OK;
    for (int numa = -1; numa < (int)topology->numa_count && status == CM_OK; numa++) {
        for (size_t i = 0; i < topology->core_count && status == CM_OK; i++) {
            if (topology->cores[i].numa == numa)
                status = add_unit(plan, &topology->cores[i].pus, numa);
        }
        for (unsigned cpu = 0; topology->core_count == 0 && cpu < CM_CPUS_MAX; cpu++) {
            if (status != CM_OK || !cm_cpuset_has(&topology->allowed, cpu) ||
                numa_of(topology, cpu) != numa)
                continue;
            struct cm_cpuset one;
            memset(&one, 0, sizeof one);
            cm_cpuset_add(&one, cpu);
            status = add_unit(plan, &one, numa);
        }
    }
    if (status == CM_OK && plan->unit_count == 0)
        status = cm_error(CM_UNSUPPORTED, "the topology '%.200s' lists no usable processors",
                          topology->source);
    return status;
}

static const struct cm_pci_device *find_device(const struct cm_topology *topology,
                                               const char *bus_id)
{
    char normal[24];
    struct {
        const struct cm_pci_device *devices;
        size_t count;
    } lists[] = {
        {topology->gpus, topology->gpu_count},
        {topology->nics, topology->nic_count},
        {topology->others, topology->other_count},
    };
    if (bus_id == NULL || !cm_bus_id_normal(bus_id, normal))
        return NULL;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t j = 0; j < lists[i].count; j++) {
            if (strcmp(lists[i].devices[j].bus_id, normal) == 0)
                return &lists[i].devices[j];
        }
    }
    return NULL;
}

static void find_locality(struct plan *plan, const char *const *bus_ids)
{
    for (unsigned rank = 0; rank < plan->ranks; rank++) {
        const struct cm_pci_device *device = find_device(plan->topology, bus_ids[rank]);
        if (device != NULL)
            plan->local[rank] = device->local_cpus;
        cm_cpuset_and(&plan->local[rank], &plan->topology->allowed);
        if (set_empty(&plan->local[rank])) {
            plan->local[rank] = plan->topology->allowed;
            plan->fallback[rank] = true;
        }
    }
}

static bool inside(const struct plan *plan, size_t unit, unsigned rank)
{
    return plan->inside[unit * plan->ranks + rank];
}

/* Which unit may go to which rank, and how many ranks may have each. */
static void find_choices(struct plan *plan)
{
    for (size_t i = 0; i < plan->unit_count; i++) {
        for (unsigned rank = 0; rank < plan->ranks; rank++) {
            bool in = unit_in(&plan->units[i], &plan->local[rank]);
            plan->inside[i * plan->ranks + rank] = in;
            plan->units[i].choices += in;
        }
    }
}

/* One free unit for a rank, of those that the fewest ranks may have; false when there is none. */
static bool take_one(struct plan *plan, unsigned rank)
{
    struct unit *best = NULL;
    for (size_t i = 0; i < plan->unit_count; i++) {
        struct unit *unit = &plan->units[i];
        if (unit->owner == NOBODY && inside(plan, i, rank) &&
            (best == NULL || unit->choices < best->choices))
            best = unit;
    }
    if (best == NULL)
        return false;
    best->owner = rank;
    plan->wanted[rank]++;
    return true;
}

/* Ranks with the same locality got their units in turns; give each a contiguous piece instead. */
static void make_contiguous(struct plan *plan)
{
    for (unsigned rank = 0; rank < plan->ranks; rank++) {
        bool first = true;
        for (unsigned other = 0; other < rank && first; other++)
            first = !set_equal(&plan->local[other], &plan->local[rank]);
        if (!first)
            continue;
        unsigned taker = rank, taken = 0;
        for (size_t i = 0; i < plan->unit_count; i++) {
            uint32_t owner = plan->units[i].owner;
            if (owner == NOBODY || !set_equal(&plan->local[owner], &plan->local[rank]))
                continue;
            while (taken == plan->wanted[taker] ||
                   !set_equal(&plan->local[taker], &plan->local[rank])) {
                taker++;
                taken = 0;
            }
            plan->units[i].owner = taker;
            taken++;
        }
    }
}

/* In rounds, so that the counts are as even as the localities allow. */
static void share_out_by_device(struct plan *plan)
{
    bool more = true;
    find_choices(plan);
    while (more) {
        more = false;
        for (unsigned rank = 0; rank < plan->ranks; rank++)
            more |= take_one(plan, rank);
    }
    make_contiguous(plan);
}

/* Ranks without devices: the boundary between two NUMA nodes is a boundary between ranks, as long
 * as there are ranks enough; else each rank gets whole nodes. */
static void share_out_evenly(struct plan *plan)
{
    size_t nodes = 1, node = 0, total = plan->unit_count;
    for (size_t i = 1; i < total; i++)
        nodes += plan->units[i].numa != plan->units[i - 1].numa;
    for (size_t begin = 0; begin < total; node++) {
        size_t end = begin + 1;
        while (end < total && plan->units[end].numa == plan->units[begin].numa)
            end++;
        size_t first = (2 * plan->ranks * begin + total) / (2 * total);
        size_t last = (2 * plan->ranks * end + total) / (2 * total);
        if (plan->ranks < nodes) {
            first = node * plan->ranks / nodes;
            last = first + 1;
        }
        for (size_t i = begin; i < end && last > first; i++)
            plan->units[i].owner = (uint32_t)(first + (i - begin) * (last - first) / (end - begin));
        begin = end;
    }
}

static void fill(const struct plan *plan, unsigned rank, struct cm_binding *binding)
{
    for (size_t i = 0; i < plan->unit_count; i++) {
        if (plan->units[i].owner != rank)
            continue;
        cm_cpuset_or(&binding->cpus, &plan->units[i].cpus);
        binding->cores++;
    }
}

/* A rank that got nothing shares a core of its locality with others. */
static void squeeze_in(const struct plan *plan, unsigned rank, struct cm_binding *binding)
{
    size_t choices = 0, chosen;
    for (size_t i = 0; i < plan->unit_count; i++)
        choices += unit_in(&plan->units[i], &plan->local[rank]);
    chosen = choices > 0 ? rank % choices : 0;
    for (size_t i = 0; i < plan->unit_count; i++) {
        if (unit_in(&plan->units[i], &plan->local[rank]) && chosen-- == 0) {
            cm_cpuset_or(&binding->cpus, &plan->units[i].cpus);
            binding->cores = 1;
            return;
        }
    }
}

static void set_nodes(const struct cm_topology *topology, struct cm_binding *binding)
{
    for (size_t i = 0; i < topology->numa_count; i++) {
        struct cm_cpuset both = topology->numa[i].cpus;
        cm_cpuset_and(&both, &binding->cpus);
        if (!topology->numa[i].gpu_memory && !set_empty(&both))
            cm_cpuset_add(&binding->nodes, topology->numa[i].os_index);
    }
}

static void decide(struct plan *plan, bool by_device, unsigned local_rank,
                   struct cm_binding *binding)
{
    memset(binding, 0, sizeof *binding);
    if (by_device)
        share_out_by_device(plan);
    else if (plan->unit_count >= plan->ranks)
        share_out_evenly(plan);
    fill(plan, local_rank, binding);
    bool squeezed = binding->cores == 0;
    if (squeezed)
        squeeze_in(plan, local_rank, binding);
    /* The ranks that have to share, and those they share with. */
    binding->oversubscribed = squeezed;
    for (unsigned rank = 0; rank < plan->ranks && !binding->oversubscribed; rank++) {
        struct cm_binding other;
        memset(&other, 0, sizeof other);
        fill(plan, rank, &other);
        if (other.cores > 0)
            continue;
        squeeze_in(plan, rank, &other);
        cm_cpuset_and(&other.cpus, &binding->cpus);
        binding->oversubscribed = !set_empty(&other.cpus);
    }
    binding->fallback = plan->fallback[local_rank];
    set_nodes(plan->topology, binding);
}

enum cm_status cm_binding_plan(const struct cm_topology *topology, const char *const *bus_ids,
                               unsigned local_rank, unsigned local_size, struct cm_binding *binding)
{
    struct plan plan = {.topology = topology, .ranks = local_size};
    if (local_rank >= local_size || local_size > CM_CPUS_MAX)
        return cm_error(CM_INTERNAL, "binding: rank %u of %u on this node", local_rank, local_size);
    enum cm_status status = CM_NO_MEMORY;
    plan.local = cm_alloc(local_size, sizeof *plan.local);
    plan.wanted = cm_alloc(local_size, sizeof *plan.wanted);
    plan.fallback = cm_alloc(local_size, sizeof *plan.fallback);
    if (plan.local != NULL && plan.wanted != NULL && plan.fallback != NULL)
        status = collect_units(&plan);
    if (status == CM_OK) {
        plan.inside = cm_alloc(plan.unit_count, local_size);
        status = plan.inside != NULL ? CM_OK : CM_NO_MEMORY;
    }
    if (status == CM_OK) {
        for (unsigned rank = 0; rank < local_size; rank++) {
            if (bus_ids == NULL)
                plan.local[rank] = topology->allowed;
        }
        if (bus_ids != NULL)
            find_locality(&plan, bus_ids);
        decide(&plan, bus_ids != NULL, local_rank, binding);
    }
    cm_free(plan.units);
    cm_free(plan.inside);
    cm_free(plan.local);
    cm_free(plan.wanted);
    cm_free(plan.fallback);
    return status;
}

int cm_binding_far_node(const struct cm_topology *topology, const struct cm_binding *binding)
{
    int package = -1, far = -1;
    bool other_package = false;
    for (size_t i = 0; i < topology->numa_count && package < 0; i++) {
        if (cm_cpuset_has(&binding->nodes, topology->numa[i].os_index))
            package = topology->numa[i].package;
    }
    for (size_t i = 0; i < topology->numa_count; i++) {
        const struct cm_numa_node *node = &topology->numa[i];
        struct cm_cpuset usable = node->cpus;
        cm_cpuset_and(&usable, &topology->allowed);
        if (node->gpu_memory || node->memory_bytes == 0 || set_empty(&usable) ||
            cm_cpuset_has(&binding->nodes, node->os_index))
            continue;
        bool other = package >= 0 && node->package >= 0 && node->package != package;
        if (far < 0 || (other && !other_package)) {
            far = (int)node->os_index;
            other_package = other;
        }
    }
    return far;
}
