/* Parameters from measured runs. */
#include "host/project/fit.h"

#include <math.h>
#include <string.h>

#include "clustermark/memory.h"

/* A row speaks of a parameter when 1 % more of that moves its step by this share. */
#define SPEAKS 1e-5

static bool takes_part(const struct cm_run_table *runs, const struct cm_run_row *row,
                       cm_run_filter filter, const void *context)
{
    return row->reason[0] == '\0' && cm_run_measured(runs, row) > 0 &&
           (filter == NULL || filter(row, context));
}

static bool same_group(const struct cm_run_row *a, const struct cm_run_row *b)
{
    return strcmp(a->release, b->release) == 0 && strcmp(a->model, b->model) == 0 &&
           a->job.gpu == b->job.gpu && a->job.precision == b->job.precision;
}

static size_t take_samples(const struct cm_run_table *runs, const bool *taken,
                           struct cm_cost_sample *samples)
{
    size_t count = 0;
    for (size_t i = 0; i < runs->count; i++) {
        const struct cm_run_row *row = &runs->rows[i];
        double alike = 0;
        for (size_t k = 0; taken[i] && k < runs->count; k++)
            alike += taken[k] && same_group(row, &runs->rows[k]);
        if (taken[i])
            samples[count++] = (struct cm_cost_sample){
                .job = row->job, .step_s = cm_run_measured(runs, row), .weight = 1 / alike};
    }
    return count;
}

enum cm_status cm_run_table_fit(const struct cm_run_table *runs, cm_run_filter filter,
                                const void *context, struct cm_calibration *calibration)
{
    enum cm_status status = cm_run_table_check_measured(runs);
    if (status != CM_OK)
        return status;
    status = CM_NO_MEMORY;
    struct cm_cost_sample *samples = cm_alloc(runs->count, sizeof *samples);
    bool *taken = cm_alloc(runs->count, sizeof *taken);
    if (samples != NULL && taken != NULL) {
        for (size_t i = 0; i < runs->count; i++)
            taken[i] = takes_part(runs, &runs->rows[i], filter, context);
        status = cm_cost_fit_all(samples, take_samples(runs, taken, samples), calibration);
    }
    cm_free(samples);
    cm_free(taken);
    return status;
}

static bool speaks_of(const struct cm_run_row *row, const struct cm_calibration *calibration,
                      size_t parameter)
{
    struct cm_step_cost cost;
    double value[CM_COST_PARAMETER_COUNT];
    memcpy(value, calibration->value, sizeof value);
    cm_step_cost(&row->job, value, &cost);
    double base = cost.step;
    value[parameter] *= 1.01;
    cm_step_cost(&row->job, value, &cost);
    return fabs(cost.step / base - 1) > SPEAKS;
}

/* A line for each source with rows that pass. */
static size_t list_sources(const struct cm_run_table *runs,
                           const struct cm_calibration *calibration, int parameter,
                           struct cm_str *out)
{
    size_t listed = 0;
    for (size_t i = 0; i < runs->count; i++) {
        const char *release = runs->rows[i].release;
        size_t rows = 0, before = 0;
        for (size_t k = 0; k < runs->count; k++) {
            const struct cm_run_row *row = &runs->rows[k];
            if (strcmp(row->release, release) != 0 || !takes_part(runs, row, NULL, NULL) ||
                (parameter >= 0 && !speaks_of(row, calibration, (size_t)parameter)))
                continue;
            rows++;
            before += k < i;
        }
        if (rows > 0 && before == 0 && takes_part(runs, &runs->rows[i], NULL, NULL) &&
            (parameter < 0 || speaks_of(&runs->rows[i], calibration, (size_t)parameter))) {
            listed++;
            if (parameter < 0)
                cm_str_addf(out, "source_%zu = ", listed);
            else
                cm_str_add(out, ";   ");
            cm_str_addf(out, "%s: %zu\n", release, rows);
        }
    }
    return listed;
}

enum cm_status cm_project_fit(const char *path, struct cm_str *out)
{
    struct cm_gpu_catalogue catalogue = {.specs = NULL};
    struct cm_run_table runs = {.rows = NULL};
    struct cm_calibration calibration;
    enum cm_status status = cm_gpu_catalogue_load(&catalogue);
    if (status == CM_OK)
        status = cm_run_table_load(path, &catalogue, &runs);
    if (status == CM_OK)
        status = cm_run_table_fit(&runs, NULL, NULL, &calibration);
    if (status == CM_OK) {
        cm_calibration_write(&calibration, out);
        list_sources(&runs, &calibration, -1, out);
        cm_str_add(out, "\n; the rows that speak of each parameter\n");
        for (int i = 0; i < CM_COST_PARAMETER_COUNT; i++) {
            cm_str_addf(out, "; %s:\n", cm_cost_parameter_infos[i].name);
            if (list_sources(&runs, &calibration, i, out) == 0)
                cm_str_add(out, ";   none\n");
        }
        status = cm_str_status(out);
    }
    cm_run_table_release(&runs);
    cm_gpu_catalogue_release(&catalogue);
    return status;
}
