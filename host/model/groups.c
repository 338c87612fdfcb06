/* Where a rank stands in a parallel plan, and the communicators it joins. */
#include "clustermark/parallel.h"

#include <stddef.h>

const char *const cm_group_names[] = {
    [CM_GROUP_WORLD] = "world",
    [CM_GROUP_TENSOR] = "tensor",
    [CM_GROUP_CONTEXT] = "context",
    [CM_GROUP_DATA] = "data",
    [CM_GROUP_EXPERT] = "expert",
    [CM_GROUP_EXPERT_DATA] = "expert_data",
    [CM_GROUP_TIED] = "tied",
    [CM_GROUP_FORWARD_OUT] = "forward_out",
    [CM_GROUP_FORWARD_IN] = "forward_in",
    [CM_GROUP_BACKWARD_OUT] = "backward_out",
    [CM_GROUP_BACKWARD_IN] = "backward_in",
    [CM_GROUP_COUNT] = NULL,
};

void cm_parallel_coordinates(const struct cm_parallel *parallel, unsigned rank,
                             struct cm_coordinates *coordinates)
{
    coordinates->tp = rank % parallel->tp;
    rank /= parallel->tp;
    coordinates->cp = rank % parallel->cp;
    rank /= parallel->cp;
    coordinates->dp = rank % parallel->dp;
    coordinates->pp = rank / parallel->dp;
    coordinates->data = coordinates->dp * parallel->cp + coordinates->cp;
    coordinates->ep = coordinates->data % parallel->ep;
    coordinates->expert_data = coordinates->data / parallel->ep;
}

unsigned cm_parallel_rank(const struct cm_parallel *parallel,
                          const struct cm_coordinates *coordinates)
{
    unsigned stage = coordinates->pp * parallel->dp + coordinates->dp;
    return (stage * parallel->cp + coordinates->cp) * parallel->tp + coordinates->tp;
}

/* Edge s leads from stage s to the next; the last one, from the last stage to the first, is there
 * when stages are interleaved. */
static unsigned edges(const struct cm_parallel *parallel)
{
    if (parallel->pp == 1)
        return 0;
    return parallel->vpp > 1 ? parallel->pp : parallel->pp - 1;
}

/* Neighbouring edges share a rank. They take turns; of a ring of odd length the last one has both
 * its neighbours in the two turns and takes a third. */
static unsigned turn(const struct cm_parallel *parallel, unsigned edge)
{
    bool ring = edges(parallel) == parallel->pp;
    return ring && parallel->pp % 2 == 1 && edge == parallel->pp - 1 ? 2 : edge % 2;
}

static unsigned turns(const struct cm_parallel *parallel)
{
    unsigned count = edges(parallel);
    if (count < 2)
        return count;
    return count == parallel->pp && count % 2 == 1 ? 3 : 2;
}

/* The edge on which that stage is the beginning or the end; false: there is none. */
static bool edge_of(const struct cm_parallel *parallel, unsigned stage, bool beginning,
                    unsigned *edge)
{
    unsigned before = stage > 0 ? stage - 1 : parallel->pp - 1;
    *edge = beginning ? stage : before;
    return *edge < edges(parallel);
}

/* Splits of the kinds that are no edges. */
static bool is_split(const struct cm_parallel *parallel, enum cm_group group)
{
    unsigned data = parallel->dp * parallel->cp;
    switch (group) {
    case CM_GROUP_TENSOR:
        return parallel->tp > 1;
    case CM_GROUP_CONTEXT:
        return parallel->cp > 1;
    case CM_GROUP_DATA:
        return data > 1;
    case CM_GROUP_EXPERT:
        return parallel->ep > 1;
    case CM_GROUP_EXPERT_DATA:
        return data / parallel->ep > 1;
    case CM_GROUP_TIED: /* whether or not this model's tables are tied */
        return parallel->pp > 1;
    default: /* the world is there already */
        return false;
    }
}

unsigned cm_parallel_splits(const struct cm_parallel *parallel)
{
    unsigned count = 2 * turns(parallel);
    for (int group = 0; group < CM_GROUP_FORWARD_OUT; group++)
        count += is_split(parallel, (enum cm_group)group) ? 1 : 0;
    return count;
}

/* Number of that rank among those of its stage. */
static unsigned in_stage(const struct cm_parallel *parallel, const struct cm_coordinates *place)
{
    return place->data * parallel->tp + place->tp;
}

static void split_group(const struct cm_parallel *parallel,
                        const struct cm_transformer *transformer,
                        const struct cm_coordinates *place, enum cm_group group, int *color,
                        int *key)
{
    unsigned data = parallel->dp * parallel->cp;
    unsigned shard = place->pp * parallel->tp + place->tp, which = 0, number = 0;
    switch (group) {
    case CM_GROUP_TENSOR:
        which = place->pp * data + place->data;
        number = place->tp;
        break;
    case CM_GROUP_CONTEXT:
        which = shard * parallel->dp + place->dp;
        number = place->cp;
        break;
    case CM_GROUP_DATA:
        which = shard;
        number = place->data;
        break;
    case CM_GROUP_EXPERT:
        which = shard * (data / parallel->ep) + place->expert_data;
        number = place->ep;
        break;
    case CM_GROUP_EXPERT_DATA:
        which = shard * parallel->ep + place->ep;
        number = place->expert_data;
        break;
    default: /* CM_GROUP_TIED */
        which = in_stage(parallel, place);
        number = place->pp > 0 ? 1 : 0;
        if (!transformer->tied || (place->pp > 0 && place->pp < parallel->pp - 1)) {
            *color = -1;
            *key = 0;
            return;
        }
        break;
    }
    *color = (int)which;
    *key = (int)number;
}

/* Activations go from the beginning of an edge to its end, gradients back. */
static void split_edges(const struct cm_parallel *parallel, const struct cm_coordinates *place,
                        unsigned index, enum cm_group *group, int *color, int *key)
{
    bool forward = index < turns(parallel);
    unsigned now = forward ? index : index - turns(parallel);
    *group = forward ? CM_GROUP_FORWARD_OUT : CM_GROUP_BACKWARD_OUT;
    *color = -1;
    *key = 0;
    for (int end = 0; end < 2; end++) {
        unsigned edge;
        bool sends = forward == (end == 0);
        if (!edge_of(parallel, place->pp, end == 0, &edge) || turn(parallel, edge) != now)
            continue;
        if (forward)
            *group = sends ? CM_GROUP_FORWARD_OUT : CM_GROUP_FORWARD_IN;
        else
            *group = sends ? CM_GROUP_BACKWARD_OUT : CM_GROUP_BACKWARD_IN;
        *color =
            (int)(edge * (cm_parallel_ranks(parallel) / parallel->pp) + in_stage(parallel, place));
        *key = sends ? 0 : 1;
    }
}

void cm_parallel_split(const struct cm_parallel *parallel, const struct cm_transformer *transformer,
                       unsigned rank, unsigned index, enum cm_group *group, int *color, int *key)
{
    struct cm_coordinates place;
    cm_parallel_coordinates(parallel, rank, &place);
    for (int kind = 0; kind < CM_GROUP_FORWARD_OUT; kind++) {
        if (!is_split(parallel, (enum cm_group)kind))
            continue;
        if (index == 0) {
            *group = (enum cm_group)kind;
            split_group(parallel, transformer, &place, *group, color, key);
            return;
        }
        index--;
    }
    split_edges(parallel, &place, index, group, color, key);
}

unsigned cm_parallel_group_size(const struct cm_parallel *parallel,
                                const struct cm_transformer *transformer, unsigned rank,
                                enum cm_group group)
{
    struct cm_coordinates place;
    unsigned edge;
    cm_parallel_coordinates(parallel, rank, &place);
    switch (group) {
    case CM_GROUP_WORLD:
        return cm_parallel_ranks(parallel);
    case CM_GROUP_TENSOR:
        return parallel->tp;
    case CM_GROUP_CONTEXT:
        return parallel->cp;
    case CM_GROUP_DATA:
        return parallel->dp * parallel->cp;
    case CM_GROUP_EXPERT:
        return parallel->ep;
    case CM_GROUP_EXPERT_DATA:
        return parallel->dp * parallel->cp / parallel->ep;
    case CM_GROUP_TIED:
        return transformer->tied && parallel->pp > 1 &&
                       (place.pp == 0 || place.pp == parallel->pp - 1)
                   ? 2
                   : 1;
    case CM_GROUP_FORWARD_OUT:
    case CM_GROUP_BACKWARD_IN:
        return edge_of(parallel, place.pp, true, &edge) ? 2 : 1;
    case CM_GROUP_FORWARD_IN:
    case CM_GROUP_BACKWARD_OUT:
        return edge_of(parallel, place.pp, false, &edge) ? 2 : 1;
    case CM_GROUP_COUNT:
        break;
    }
    return 1;
}

enum cm_group cm_group_other_end(enum cm_group group)
{
    switch (group) {
    case CM_GROUP_FORWARD_OUT:
        return CM_GROUP_FORWARD_IN;
    case CM_GROUP_FORWARD_IN:
        return CM_GROUP_FORWARD_OUT;
    case CM_GROUP_BACKWARD_OUT:
        return CM_GROUP_BACKWARD_IN;
    case CM_GROUP_BACKWARD_IN:
        return CM_GROUP_BACKWARD_OUT;
    default:
        return group;
    }
}
