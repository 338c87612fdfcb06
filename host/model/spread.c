/* Which groups of a plan stay within a node. */
#include <stdlib.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/parallel.h"

/* An axis of a plan: ranks that differ in it alone are a group. */
struct axis {
    const char *groups;
    unsigned size;
    void (*place)(struct cm_coordinates *coordinates, const struct cm_parallel *parallel,
                  unsigned number);
};

static void place_tensor(struct cm_coordinates *coordinates, const struct cm_parallel *parallel,
                         unsigned number)
{
    (void)parallel;
    coordinates->tp = number;
}

static void place_context(struct cm_coordinates *coordinates, const struct cm_parallel *parallel,
                          unsigned number)
{
    (void)parallel;
    coordinates->cp = number;
}

/* Expert groups are consecutive ones of the data group. */
static void place_expert(struct cm_coordinates *coordinates, const struct cm_parallel *parallel,
                         unsigned number)
{
    unsigned data = coordinates->dp * parallel->cp + coordinates->cp;
    data = data / parallel->ep * parallel->ep + number;
    coordinates->dp = data / parallel->cp;
    coordinates->cp = data % parallel->cp;
}

static void place_stage(struct cm_coordinates *coordinates, const struct cm_parallel *parallel,
                        unsigned number)
{
    (void)parallel;
    coordinates->pp = number;
}

static void place_data(struct cm_coordinates *coordinates, const struct cm_parallel *parallel,
                       unsigned number)
{
    coordinates->dp = number / parallel->cp;
    coordinates->cp = number % parallel->cp;
}

/* The fewest and the most nodes that a group of this axis is on. */
static void count_nodes(const struct cm_parallel *parallel, const struct axis *axis,
                        const unsigned *node_of, unsigned *seen, unsigned *least, unsigned *most)
{
    unsigned ranks = cm_parallel_ranks(parallel);
    memset(seen, 0, ranks * sizeof *seen);
    *least = ranks;
    *most = 0;
    for (unsigned rank = 0; rank < ranks; rank++) {
        struct cm_coordinates coordinates;
        unsigned nodes = 0;
        cm_parallel_coordinates(parallel, rank, &coordinates);
        axis->place(&coordinates, parallel, 0);
        if (cm_parallel_rank(parallel, &coordinates) != rank)
            continue; /* not the first of its group */
        for (unsigned number = 0; number < axis->size; number++) {
            axis->place(&coordinates, parallel, number);
            unsigned node = node_of[cm_parallel_rank(parallel, &coordinates)];
            nodes += seen[node] != rank + 1;
            seen[node] = rank + 1;
        }
        *least = nodes < *least ? nodes : *least;
        *most = nodes > *most ? nodes : *most;
    }
}

enum cm_status cm_parallel_spread(const struct cm_parallel *parallel, const unsigned *node_of,
                                  struct cm_str *out)
{
    const struct axis axes[] = {
        {"tensor groups", parallel->tp, place_tensor},
        {"context groups", parallel->cp, place_context},
        {"expert groups", parallel->ep, place_expert},
        {"pipelines", parallel->pp, place_stage},
        {"data groups", parallel->dp * parallel->cp, place_data},
    };
    bool any = false;
    unsigned *seen = cm_alloc(cm_parallel_ranks(parallel), sizeof *seen);
    if (seen == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < sizeof axes / sizeof axes[0]; i++) {
        unsigned least, most;
        if (axes[i].size < 2)
            continue;
        count_nodes(parallel, &axes[i], node_of, seen, &least, &most);
        cm_str_add(out, any ? "; " : "");
        cm_str_addf(out, "%s of %u", axes[i].groups, axes[i].size);
        if (most == 1)
            cm_str_add(out, " within a node");
        else if (least == most)
            cm_str_addf(out, " across %u nodes", most);
        else
            cm_str_addf(out, " across %u to %u nodes", least, most);
        any = true;
    }
    if (!any)
        cm_str_add(out, "one rank");
    cm_free(seen);
    return cm_str_status(out);
}
