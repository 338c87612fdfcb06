/*
 * Which rank plays which part of the plan: tensor groups, whose messages are the most frequent, are
 * put on the devices that are nearest to each other. Where devices have no place on a bus (the CPU)
 * or several ranks name the same one (other nodes, simulated ranks), ranks play their own number.
 */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/topology.h"
#include "host/workload/trainstep.h"

/* The order goes around in one gathering of at most 4096 bytes. */
enum { PLACED_MAX = 512 };

struct places {
    unsigned count;
    const char *bus_ids[PLACED_MAX];
    char texts[PLACED_MAX][sizeof((struct cm_device_info *)NULL)->bus_id];
    unsigned order[PLACED_MAX]; /* the rank that plays each part */
};

static bool have_places(const struct places *places)
{
    for (unsigned i = 0; i < places->count; i++) {
        if (places->texts[i][0] == '\0')
            return false;
        for (unsigned k = 0; k < i; k++)
            if (strcmp(places->texts[i], places->texts[k]) == 0)
                return false;
    }
    return true;
}

/* On rank 0, which the others follow: topologies read elsewhere might differ. */
static void find_order(struct places *places, unsigned group)
{
    struct cm_topology topology;
    for (unsigned i = 0; i < places->count; i++)
        places->order[i] = i;
    if (cm_topology_live(&topology) != CM_OK) {
        cm_warn("ranks keep their order: %s", cm_error_text());
        return;
    }
    if (cm_placement_order(&topology, places->bus_ids, places->count, group, places->order) !=
        CM_OK) {
        cm_warn("ranks keep their order: %s", cm_error_text());
        for (unsigned i = 0; i < places->count; i++)
            places->order[i] = i;
    }
    cm_topology_release(&topology);
}

enum cm_status cm_trainstep_place(struct cm_context *context, unsigned group, unsigned *part)
{
    const struct cm_comm *comm = context->comm;
    const void *all;
    *part = comm->rank;
    if (comm->size < 3 || comm->size > PLACED_MAX || group < 2)
        return CM_OK;
    struct places *places = cm_alloc(1, sizeof *places);
    if (places == NULL)
        return CM_NO_MEMORY;
    places->count = comm->size;
    enum cm_status status =
        cm_context_gather(context, context->device->info.bus_id, sizeof places->texts[0], &all);
    if (status == CM_OK)
        memcpy(places->texts, all, (size_t)comm->size * sizeof places->texts[0]);
    for (unsigned i = 0; i < comm->size; i++)
        places->bus_ids[i] = places->texts[i];
    if (status == CM_OK && have_places(places)) {
        if (comm->rank == 0)
            find_order(places, group);
        status =
            cm_context_gather(context, places->order, comm->size * sizeof *places->order, &all);
        for (unsigned i = 0; status == CM_OK && i < comm->size; i++)
            if (((const unsigned *)all)[i] == comm->rank)
                *part = i;
    }
    cm_free(places);
    return status;
}
