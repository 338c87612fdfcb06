/*
 * fit.h: the model's parameters from a table of runs.
 */
#ifndef HOST_PROJECT_FIT_H
#define HOST_PROJECT_FIT_H

#include "clustermark/project.h"
#include "host/project/rows.h"

/* Whether the row may be fitted on. */
typedef bool (*cm_run_filter)(const struct cm_run_row *row, const void *context);

/* On the rows that pass, that can be predicted and have a measured step. A row weighs as one of its
 * source, model, GPU and precision, which weigh the same each. */
enum cm_status cm_run_table_fit(const struct cm_run_table *runs, cm_run_filter filter,
                                const void *context, struct cm_calibration *calibration);

#endif
