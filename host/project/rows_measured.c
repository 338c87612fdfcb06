/* What was measured of runs, and which of them belong together. */
#include <string.h>

#include "clustermark/error.h"
#include "host/project/rows.h"

static const char *measured_cell(const struct cm_run_table *runs, const struct cm_run_row *row,
                                 const char *name, double *value)
{
    int place = cm_csv_column(&runs->csv, name);
    const char *text = place < 0 ? "" : row->cells[place];
    return cm_run_cell(text, value) ? NULL : text;
}

double cm_run_measured(const struct cm_run_table *runs, const struct cm_run_row *row)
{
    double step_s, rate;
    measured_cell(runs, row, "step_time_s", &step_s);
    measured_cell(runs, row, "tokens_per_s", &rate);
    if (step_s > 0)
        return step_s;
    return rate > 0 ? row->batch * row->job.sequence / rate : 0;
}

enum cm_status cm_run_check_measured(const struct cm_run_table *runs, const struct cm_run_row *row)
{
    static const char *const names[] = {"step_time_s", "tokens_per_s"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        double value;
        const char *text = measured_cell(runs, row, names[i], &value);
        if (text != NULL)
            return cm_error(CM_USAGE, "%s:%zu: %s is '%.40s'; a number, or nothing", runs->csv.path,
                            row->line, names[i], text);
    }
    return CM_OK;
}

enum cm_status cm_run_table_check_measured(const struct cm_run_table *runs)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < runs->count; i++)
        status = cm_run_check_measured(runs, &runs->rows[i]);
    return status;
}

bool cm_run_specified(const struct cm_run_row *row)
{
    return row->reason[0] == '\0' && row->assumed == 0;
}

bool cm_run_same_series(const struct cm_run_row *a, const struct cm_run_row *b)
{
    return strcmp(a->release, b->release) == 0 && strcmp(a->model, b->model) == 0 &&
           a->job.gpu == b->job.gpu && a->job.precision == b->job.precision &&
           a->job.recompute == b->job.recompute && a->job.software == b->job.software &&
           a->job.zero == b->job.zero;
}

bool cm_run_equal(const struct cm_run_table *a_of, const struct cm_run_row *a,
                  const struct cm_run_table *b_of, const struct cm_run_row *b)
{
    if (a_of->csv.column_count != b_of->csv.column_count)
        return false;
    for (size_t i = 0; i < a_of->csv.column_count; i++)
        if (strcmp(a->cells[i], b->cells[i]) != 0)
            return false;
    return true;
}
