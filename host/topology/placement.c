/*
 * Which GPU becomes which rank. All ways to part the devices into groups are tried where there are
 * few enough. Else devices are put into groups one after the other, each the nearest to those
 * already in its group; then pairs of devices of different groups change places while that makes
 * their paths nearer.
 */
#include <string.h>

#include "clustermark/memory.h"
#include "host/topology/internal.h"

/* Places that are filled at most when all ways are tried: enough for a dozen devices. */
#define TRIES_MAX 100000

/* Paths by kind, the farthest kind weighing most; for NVLink, the links that are missing to the
 * most that any pair has. */
struct cost {
    unsigned paths[CM_PATH_COUNT];
};

struct placement {
    unsigned count, group;
    unsigned links; /* the most of a pair */
    struct cm_path *paths;
};

static void add_path(const struct placement *placement, unsigned a, unsigned b, struct cost *cost)
{
    const struct cm_path *path = &placement->paths[a * placement->count + b];
    if (path->kind == CM_PATH_NVLINK)
        cost->paths[path->kind] += placement->links - path->links;
    else
        cost->paths[path->kind]++;
}

/* Below 0: a is nearer. */
static int compare(const struct cost *a, const struct cost *b)
{
    for (int kind = CM_PATH_COUNT - 1; kind > CM_PATH_SELF; kind--) {
        if (a->paths[kind] != b->paths[kind])
            return a->paths[kind] < b->paths[kind] ? -1 : 1;
    }
    return 0;
}

/* The end of the group that begins at `first`. */
static unsigned group_end(const struct placement *placement, unsigned first)
{
    return placement->count - first < placement->group ? placement->count
                                                       : first + placement->group;
}

/* Paths between a device and those at places [first, end), itself left out. */
static void add_paths(const struct placement *placement, const unsigned *order, unsigned device,
                      unsigned first, unsigned end, struct cost *cost)
{
    for (unsigned i = first; i < end; i++) {
        if (order[i] != device)
            add_path(placement, device, order[i], cost);
    }
}

static void exchange(unsigned *order, unsigned a, unsigned b)
{
    unsigned kept = order[a];
    order[a] = order[b];
    order[b] = kept;
}

/* The paths of the devices at two places to the rest of their groups. */
static struct cost cost_of_two(const struct placement *placement, const unsigned *order, unsigned a,
                               unsigned b)
{
    struct cost cost = {{0}};
    unsigned first_a = a - a % placement->group, first_b = b - b % placement->group;
    add_paths(placement, order, order[a], first_a, group_end(placement, first_a), &cost);
    add_paths(placement, order, order[b], first_b, group_end(placement, first_b), &cost);
    return cost;
}

static void improve(const struct placement *placement, unsigned *order)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (unsigned a = 0; a < placement->count; a++) {
            unsigned next = a - a % placement->group + placement->group;
            for (unsigned b = next; b < placement->count; b++) {
                struct cost before = cost_of_two(placement, order, a, b);
                exchange(order, a, b);
                struct cost after = cost_of_two(placement, order, a, b);
                if (compare(&after, &before) < 0)
                    changed = true;
                else
                    exchange(order, a, b);
            }
        }
    }
}

/* The device at place `from` comes to `place` before it; those between move up by one. */
static void bring(unsigned *order, unsigned place, unsigned from)
{
    unsigned device = order[from];
    memmove(order + place + 1, order + place, (from - place) * sizeof *order);
    order[place] = device;
}

/* What `bring` did, undone. */
static void take_back(unsigned *order, unsigned place, unsigned from)
{
    unsigned device = order[place];
    memmove(order + place, order + place + 1, (from - place) * sizeof *order);
    order[from] = device;
}

/* Of the devices at places [place, count), the nearest to those at [first, place) comes to `place`;
 * the rest stays in order. */
static void bring_nearest(const struct placement *placement, unsigned *order, unsigned first,
                          unsigned place)
{
    struct cost least = {{0}};
    unsigned nearest = place;
    for (unsigned i = place; i < placement->count; i++) {
        struct cost cost = {{0}};
        add_paths(placement, order, order[i], first, place, &cost);
        if (i == place || compare(&cost, &least) < 0) {
            least = cost;
            nearest = i;
        }
    }
    bring(order, place, nearest);
}

static void gather(const struct placement *placement, unsigned *order)
{
    for (unsigned place = 0; place < placement->count; place++)
        if (place % placement->group != 0)
            bring_nearest(placement, order, place - place % placement->group, place);
}

struct search {
    const struct placement *placement;
    unsigned *order; /* what is tried: up to `place` decided, ascending from there on */
    unsigned *best;
    struct cost least; /* of `best` */
    unsigned tries;    /* left */
};

/* Groups ascend, and full ones are in the order of their first devices: other orders are the same.
 */
static bool is_new(const struct search *search, unsigned place, unsigned device)
{
    unsigned group = search->placement->group;
    if (place % group != 0)
        return search->order[place - 1] < device;
    bool full = search->placement->count - place >= group;
    return place == 0 || !full || search->order[place - group] < device;
}

static void try_all(struct search *search, unsigned place, const struct cost *before)
{
    const struct placement *placement = search->placement;
    if (place == placement->count) {
        search->least = *before;
        memcpy(search->best, search->order, place * sizeof *search->best);
        return;
    }
    for (unsigned i = place; i < placement->count && search->tries > 0; i++) {
        struct cost cost = *before;
        if (!is_new(search, place, search->order[i]))
            continue;
        search->tries--;
        add_paths(placement, search->order, search->order[i], place - place % placement->group,
                  place, &cost);
        if (compare(&cost, &search->least) >= 0)
            continue;
        bring(search->order, place, i);
        try_all(search, place + 1, &cost);
        take_back(search->order, place, i);
    }
}

/* Ascending within each group. */
static void sort_groups(const struct placement *placement, unsigned *order)
{
    for (unsigned i = 0; i < placement->count; i++)
        for (unsigned at = i; at % placement->group != 0 && order[at - 1] > order[at]; at--)
            exchange(order, at - 1, at);
}

static void exchange_groups(const struct placement *placement, unsigned *order, unsigned a,
                            unsigned b)
{
    for (unsigned i = 0; i < placement->group && a != b; i++)
        exchange(order, a + i, b + i);
}

/* Full groups: that of the lowest device first, then always the one nearest to the last. */
static void chain_groups(const struct placement *placement, unsigned *order)
{
    unsigned group = placement->group, full = placement->count - placement->count % group;
    for (unsigned place = 0; place < full; place += group) {
        struct cost least = {{0}};
        unsigned nearest = place;
        for (unsigned i = place; i < full; i += group) {
            struct cost cost = {{0}};
            for (unsigned k = 0; k < group && place > 0; k++)
                add_paths(placement, order, order[i + k], place - group, place, &cost);
            int sign = i == place ? -1 : compare(&cost, &least);
            if (sign < 0 || (sign == 0 && order[i] < order[nearest])) {
                least = cost;
                nearest = i;
            }
        }
        exchange_groups(placement, order, place, nearest);
    }
}

static struct cost total(const struct placement *placement, const unsigned *order)
{
    struct cost cost = {{0}};
    for (unsigned i = 0; i < placement->count; i++)
        add_paths(placement, order, order[i], i - i % placement->group, i, &cost);
    return cost;
}

/* `other` is room for an order. */
static void find_groups(const struct placement *placement, unsigned *other, unsigned *order)
{
    const struct cost none = {{0}};
    for (unsigned i = 0; i < placement->count; i++)
        order[i] = other[i] = i;
    struct search search = {.placement = placement,
                            .order = other,
                            .best = order,
                            .least = total(placement, order),
                            .tries = TRIES_MAX};
    try_all(&search, 0, &none);
    if (search.tries > 0)
        return;
    improve(placement, order);
    for (unsigned i = 0; i < placement->count; i++)
        other[i] = i;
    gather(placement, other);
    improve(placement, other);
    struct cost least = total(placement, order), cost = total(placement, other);
    if (compare(&cost, &least) < 0)
        memcpy(order, other, placement->count * sizeof *order);
}

static const struct cm_pci_device *find_gpu(const struct cm_topology *topology, const char *bus_id)
{
    char normal[24];
    if (bus_id == NULL || !cm_bus_id_normal(bus_id, normal))
        return NULL;
    int index = cm_topology_gpu(topology, normal);
    return index >= 0 ? &topology->gpus[index] : NULL;
}

static void fill_paths(const struct cm_topology *topology, const char *const *bus_ids,
                       struct placement *placement)
{
    for (unsigned a = 0; a < placement->count; a++) {
        const struct cm_pci_device *from = find_gpu(topology, bus_ids[a]);
        for (unsigned b = 0; b < placement->count; b++) {
            const struct cm_pci_device *to = find_gpu(topology, bus_ids[b]);
            struct cm_path path = {.kind = CM_PATH_UNKNOWN};
            if (from != NULL && to != NULL)
                path = cm_path_between(topology, from, to);
            placement->paths[a * placement->count + b] = path;
            if (path.kind == CM_PATH_NVLINK && path.links > placement->links)
                placement->links = path.links;
        }
    }
}

enum cm_status cm_placement_order(const struct cm_topology *topology, const char *const *bus_ids,
                                  unsigned count, unsigned group, unsigned *order)
{
    struct placement placement = {.count = count, .group = group > 0 ? group : 1};
    enum cm_status status = CM_NO_MEMORY;
    placement.paths = cm_alloc((size_t)count * count, sizeof *placement.paths);
    unsigned *other = cm_alloc(count, sizeof *other);
    if (placement.paths == NULL || other == NULL)
        goto release;
    fill_paths(topology, bus_ids, &placement);
    find_groups(&placement, other, order);
    sort_groups(&placement, order);
    chain_groups(&placement, order);
    status = CM_OK;
release:
    cm_free(other);
    cm_free(placement.paths);
    return status;
}
