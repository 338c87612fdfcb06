/* The figures of one run: a growing list with unique names. */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/memory.h"
#include "clustermark/workload.h"

#define PLACED_FROM 64

/* Where the item of that name is in the table, or would be: an index of `places`. */
static size_t place_of(const struct cm_metrics *metrics, const char *name)
{
    size_t at = cm_hash(0, name, strlen(name)) % metrics->place_count;
    while (metrics->places[at] != 0 &&
           strcmp(metrics->items[metrics->places[at] - 1].name, name) != 0)
        at = (at + 1) % metrics->place_count;
    return at;
}

const struct cm_metric *cm_metrics_find(const struct cm_metrics *metrics, const char *name)
{
    if (metrics->places != NULL && metrics->placed == metrics->count) {
        uint32_t found = metrics->places[place_of(metrics, name)];
        return found > 0 ? &metrics->items[found - 1] : NULL;
    }
    for (size_t i = 0; i < metrics->count; i++) {
        if (strcmp(metrics->items[i].name, name) == 0)
            return &metrics->items[i];
    }
    return NULL;
}

/* A figure for each of thousands of ranks would be looked for among all before it: a table with
 * room to spare, from some number on. */
static enum cm_status place_all(struct cm_metrics *metrics)
{
    if (metrics->count < PLACED_FROM)
        return CM_OK;
    if (metrics->place_count < 2 * metrics->count) {
        size_t wanted = 4 * metrics->count;
        uint32_t *places = cm_alloc(wanted, sizeof *places);
        if (places == NULL)
            return CM_NO_MEMORY;
        cm_free(metrics->places);
        metrics->places = places;
        metrics->place_count = wanted;
        metrics->placed = 0;
    }
    for (; metrics->placed < metrics->count; metrics->placed++)
        metrics->places[place_of(metrics, metrics->items[metrics->placed].name)] =
            (uint32_t)metrics->placed + 1;
    return CM_OK;
}

enum cm_status cm_metrics_add(struct cm_metrics *metrics, const char *name, double value,
                              const char *unit, enum cm_better better, struct cm_metric **metric)
{
    struct cm_metric added = {.value = value, .better = better};
    if (name[0] == '\0' || strlen(name) >= sizeof added.name)
        return cm_error(CM_INTERNAL, "metric \"%s\": a name has 1 to %zu characters", name,
                        sizeof added.name - 1);
    if (strlen(unit) >= sizeof added.unit)
        return cm_error(CM_INTERNAL, "metric %s: unit \"%s\" is over %zu characters", name, unit,
                        sizeof added.unit - 1);
    if (cm_metrics_find(metrics, name) != NULL)
        return cm_error(CM_INTERNAL, "metric %s is given twice", name);
    if (cm_grow(&metrics->items, &metrics->capacity, metrics->count + 1, sizeof added) != 0)
        return CM_NO_MEMORY;
    snprintf(added.name, sizeof added.name, "%s", name);
    snprintf(added.unit, sizeof added.unit, "%s", unit);
    metrics->items[metrics->count] = added;
    if (metric != NULL)
        *metric = &metrics->items[metrics->count];
    metrics->count++;
    return place_all(metrics);
}

enum cm_status cm_metrics_add_energy(struct cm_metrics *metrics, const char *name,
                                     const struct cm_part_samples *part)
{
    if (!(part->energy_j > 0) || part->slowest.count == 0)
        return CM_OK;
    double operations = (double)part->slowest.count * part->work.operations;
    return cm_metrics_add(metrics, name, part->energy_j / operations, "J", CM_LOWER, NULL);
}

void cm_metrics_release(struct cm_metrics *metrics)
{
    cm_free(metrics->items);
    cm_free(metrics->places);
    *metrics = (struct cm_metrics){0};
}

enum cm_status cm_suspects_add(struct cm_suspects *suspects, const struct cm_suspect *suspect)
{
    if (cm_grow(&suspects->items, &suspects->capacity, suspects->count + 1,
                sizeof *suspects->items) != 0)
        return CM_NO_MEMORY;
    suspects->items[suspects->count++] = *suspect;
    return CM_OK;
}

void cm_suspects_release(struct cm_suspects *suspects)
{
    cm_free(suspects->items);
    *suspects = (struct cm_suspects){0};
}
