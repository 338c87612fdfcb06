/* What a run of very many ranks tells of them: figures, times, telemetry and bindings, folded. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/result/fold.h"
#include "host/result/record.h"

/* Runs over which a rank's median is taken. */
#define RUNS_MAX 1024

size_t cm_rank_label(const char *name, unsigned *rank)
{
    const char *dot = strrchr(name, '.');
    if (dot == NULL || dot == name || strncmp(dot, ".rank", 5) != 0 || dot[5] < '0' || dot[5] > '9')
        return 0;
    char *end;
    unsigned long number = strtoul(dot + 5, &end, 10);
    if (*end != '\0' || number > UINT32_MAX)
        return 0;
    *rank = (unsigned)number;
    return (size_t)(dot - name);
}

/* Of that name, made if need be; NULL when out of memory. */
static struct cm_rank_figure *figure_of(struct cm_rank_figures *figures,
                                        const struct cm_metric *metric, size_t length)
{
    for (size_t i = figures->count; i-- > 0;) {
        const char *name = figures->items[i].name;
        if (strncmp(name, metric->name, length) == 0 && name[length] == '\0')
            return &figures->items[i];
    }
    if (cm_grow(&figures->items, &figures->capacity, figures->count + 1, sizeof *figures->items) !=
        0)
        return NULL;
    struct cm_rank_figure *made = &figures->items[figures->count++];
    *made = (struct cm_rank_figure){.better = metric->better};
    snprintf(made->name, sizeof made->name, "%.*s", (int)length, metric->name);
    snprintf(made->unit, sizeof made->unit, "%s", metric->unit);
    return made;
}

/* A row for run `index`, and for those before it that had no such figure. */
static enum cm_status make_row(struct cm_rank_figure *figure, unsigned ranks, size_t index)
{
    if (figure->runs > index)
        return CM_OK;
    size_t from = figure->runs * ranks, to = (index + 1) * ranks;
    if (cm_grow(&figure->values, &figure->capacity, to, sizeof *figure->values) != 0)
        return CM_NO_MEMORY;
    for (size_t i = from; i < to; i++)
        figure->values[i] = NAN;
    figure->runs = index + 1;
    return CM_OK;
}

enum cm_status cm_rank_figures_add(struct cm_rank_figures *figures,
                                   const struct cm_metrics *metrics, unsigned ranks)
{
    size_t index = 0;
    if (figures->count > 0 && ranks != figures->ranks)
        return cm_error(CM_INTERNAL, "a run of %u ranks after one of %u", ranks, figures->ranks);
    figures->ranks = ranks;
    for (size_t i = 0; i < figures->count; i++)
        index = figures->items[i].runs > index ? figures->items[i].runs : index;
    for (size_t i = 0; i < metrics->count && index < RUNS_MAX; i++) {
        unsigned rank;
        size_t length = cm_rank_label(metrics->items[i].name, &rank);
        if (length == 0 || rank >= ranks)
            continue;
        struct cm_rank_figure *figure = figure_of(figures, &metrics->items[i], length);
        if (figure == NULL || make_row(figure, ranks, index) != CM_OK)
            return CM_NO_MEMORY;
        figure->values[index * ranks + rank] = metrics->items[i].value;
    }
    return CM_OK;
}

void cm_rank_figure_medians(const struct cm_rank_figures *figures, size_t index, double *medians)
{
    const struct cm_rank_figure *figure = &figures->items[index];
    double own[RUNS_MAX];
    for (unsigned rank = 0; rank < figures->ranks; rank++) {
        size_t count = 0;
        for (size_t run = 0; run < figure->runs; run++) {
            double value = figure->values[run * figures->ranks + rank];
            if (isfinite(value))
                own[count++] = value;
        }
        medians[rank] = cm_median(own, count);
    }
}

void cm_rank_figures_release(struct cm_rank_figures *figures)
{
    for (size_t i = 0; i < figures->count; i++)
        cm_free(figures->items[i].values);
    cm_free(figures->items);
    *figures = (struct cm_rank_figures){0};
}

static void put_metrics(enum cm_status *status, json_t *folded, const struct cm_case_run *run)
{
    struct cm_rank_figures figures = {0};
    if (*status == CM_OK)
        *status = cm_rank_figures_add(&figures, &run->metrics, run->rank_count);
    json_t *all = figures.count > 0 ? cm_put_object(status, folded, "metrics") : NULL;
    for (size_t i = 0; i < figures.count && *status == CM_OK; i++) {
        const struct cm_rank_figure *figure = &figures.items[i];
        json_t *row = cm_put_object(status, all, figure->name);
        cm_put(status, row, "unit", cm_result_string(figure->unit));
        cm_put(status, row, "better", json_string(cm_better_name(figure->better)));
        cm_fold_put(status, row, figure->values, run->rank_count, figure->better);
    }
    cm_rank_figures_release(&figures);
}

/* What an operator looks for; the others tell the same of every rank, or nothing. */
static const struct {
    const char *name;
    size_t offset;
    enum cm_better better;
} fields[] = {
#define FIELD(name, field, better)                                                                 \
    {                                                                                              \
        name, offsetof(struct cm_telemetry, field), better                                         \
    }
    FIELD("clock", clock_hz, CM_HIGHER),
    FIELD("lowest_clock", lowest_clock_hz, CM_HIGHER),
    FIELD("memory_clock", memory_clock_hz, CM_HIGHER),
    FIELD("power", power_w, CM_NEITHER),
    FIELD("power_limit", power_limit_w, CM_HIGHER),
    FIELD("energy", energy_j, CM_NEITHER),
    FIELD("temperature_c", temperature_c, CM_LOWER),
    FIELD("steal_fraction", steal_fraction, CM_LOWER),
    FIELD("switches_per_s", switches_per_s, CM_LOWER),
    FIELD("throttled_fraction", throttled_fraction, CM_LOWER),
    FIELD("ecc_corrected", ecc_corrected, CM_LOWER),
    FIELD("ecc_uncorrected", ecc_uncorrected, CM_LOWER),
    FIELD("remapped_rows", remapped_rows, CM_LOWER),
    FIELD("pcie_generation", pcie_generation, CM_HIGHER),
    FIELD("pcie_width", pcie_width, CM_HIGHER),
    FIELD("nvlinks_active", nvlinks_active, CM_HIGHER),
    FIELD("samples", samples, CM_NEITHER),
#undef FIELD
};

static const char *reasons_of(const void *items, unsigned rank)
{
    return ((const struct cm_telemetry *)items)[rank].throttle_reasons;
}

static const char *modes_of(const void *items, unsigned rank)
{
    return ((const struct cm_telemetry *)items)[rank].modes;
}

static const char *binding_of(const void *items, unsigned rank)
{
    return ((char *const *)items)[rank];
}

static void put_texts(enum cm_status *status, json_t *object, const char *key, json_t *texts)
{
    if (json_is_array(texts) && json_array_size(texts) == 0)
        json_decref(texts);
    else
        cm_put(status, object, key, texts);
}

static void put_telemetry(enum cm_status *status, json_t *folded, const struct cm_case_run *run)
{
    double *values = cm_alloc(run->rank_count, sizeof *values);
    if (values == NULL)
        *status = CM_NO_MEMORY;
    json_t *telemetry = cm_put_object(status, folded, "telemetry");
    for (size_t i = 0; i < sizeof fields / sizeof *fields && *status == CM_OK; i++) {
        for (unsigned rank = 0; rank < run->rank_count; rank++)
            memcpy(&values[rank], (const char *)&run->telemetry[rank] + fields[i].offset,
                   sizeof *values);
        json_t *row = cm_fold_json(values, run->rank_count, fields[i].better);
        if (row != NULL && json_is_null(row))
            json_decref(row);
        else
            cm_put(status, telemetry, fields[i].name, row);
    }
    put_texts(status, telemetry, "throttle_reasons",
              cm_fold_texts_json(reasons_of, run->telemetry, run->rank_count));
    put_texts(status, telemetry, "modes",
              cm_fold_texts_json(modes_of, run->telemetry, run->rank_count));
    cm_free(values);
}

void cm_fold_run(enum cm_status *status, json_t *run, const struct cm_case_run *made)
{
    if (!cm_folds(made->rank_count))
        return;
    json_t *folded = json_object_get(run, "folded");
    if (folded == NULL)
        folded = cm_put_object(status, run, "folded");
    cm_put(status, folded, "ranks", json_integer(made->rank_count));
    put_metrics(status, folded, made);
    if (made->telemetry != NULL)
        put_telemetry(status, folded, made);
    if (made->bindings != NULL)
        put_texts(status, folded, "bindings",
                  cm_fold_texts_json(binding_of, made->bindings, made->rank_count));
}
