/*
 * rows.h: measured training runs from a table, as jobs of the cost model. Columns are those of
 * tests/fixtures/project/published-runs.csv.
 *
 * A row's measured columns (step_time_s, tokens_per_s, tflops_per_gpu, mfu_pct) are no part of it:
 * who may look at them asks cm_run_measured.
 */
#ifndef HOST_PROJECT_ROWS_H
#define HOST_PROJECT_ROWS_H

#include "clustermark/cost.h"
#include "host/project/csv.h"

struct cm_run_row {
    size_t line; /* of the file */
    const char *source, *model, *notes;
    char release[80];  /* the source up to its colon */
    char family[80];   /* that without a version at its end */
    char half[2];      /* "0" or "1": families in the table's order, every second one */
    char variant[160]; /* what the notes say of the software: their clauses without a digit */
    struct cm_cost_job job;
    bool mixture; /* of experts, whose numbers are configs/mixtures.ini's */
    double batch; /* sequences of a step */
    unsigned assumed;
    char assumptions[96]; /* "micro_batch=1" */
    char reason[120];     /* why it cannot be predicted; "" when it can */
    const char *const *cells;
};
struct cm_run_table {
    struct cm_csv csv;
    struct cm_run_row *rows;
    size_t count;
};

/* CM_USAGE with file and line: a column is missing, a cell is no number. A row that lacks something
 * else than that has a reason. Rows point into *runs and *catalogue. */
enum cm_status cm_run_table_load(const char *path, const struct cm_gpu_catalogue *catalogue,
                                 struct cm_run_table *runs);
void cm_run_table_release(struct cm_run_table *runs);

/* A cell: a decimal number, not negative; NAN where nothing stands. False: something else does. */
bool cm_run_cell(const char *text, double *value);
/* The measured step in seconds, from its time or its rate of tokens; 0 when there is none. */
double cm_run_measured(const struct cm_run_table *runs, const struct cm_run_row *row);
/* CM_USAGE with file and line: what stands in those columns is no number. */
enum cm_status cm_run_check_measured(const struct cm_run_table *runs, const struct cm_run_row *row);
enum cm_status cm_run_table_check_measured(const struct cm_run_table *runs);
/* Everything in the table is there but for what has one meaning when it is not (cp, vpp, ep,
 * recompute, seq_parallel). */
bool cm_run_specified(const struct cm_run_row *row);
/* Rows that differ in scale, batch or layout alone; their variants may still. */
bool cm_run_same_series(const struct cm_run_row *a, const struct cm_run_row *b);
/* The very same row. */
bool cm_run_equal(const struct cm_run_table *a_of, const struct cm_run_row *a,
                  const struct cm_run_table *b_of, const struct cm_run_row *b);

#endif
