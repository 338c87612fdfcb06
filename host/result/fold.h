/*
 * fold.h: figures of very many ranks, as a distribution and the ranks that stand out. Up to
 * CM_FOLD_ABOVE ranks each has an entry of its own in a result; of more, this is what is written.
 *
 * A distribution: {"ranks": how many have a value, "minimum", "p01", "p25", "median", "p75", "p99",
 * "maximum", "outliers": [{"rank", "value"}], "outliers_total"}. A rank stands out when it is
 * farther from the median than CM_FOLD_DEVIATIONS robust standard deviations (1.4826 times the
 * median absolute deviation). Of those, at most CM_FOLD_OUTLIERS are listed: the worse side first,
 * the farthest first; where neither side is worse, the farthest of both.
 */
#ifndef HOST_RESULT_FOLD_H
#define HOST_RESULT_FOLD_H

#include <jansson.h>
#include <stdbool.h>

#include "clustermark/measure.h"
#include "clustermark/status.h"

#define CM_FOLD_ABOVE      64
#define CM_FOLD_OUTLIERS   32
#define CM_FOLD_DEVIATIONS 5.0
/* Distinct texts that are listed. */
#define CM_FOLD_TEXTS 32

bool cm_folds(unsigned ranks);

/* Values that are not finite are those of ranks that have none. Of none at all: null. NULL when out
 * of memory. */
json_t *cm_fold_json(const double *values, unsigned ranks, enum cm_better better);
/* The same put into `object`. */
void cm_fold_put(enum cm_status *status, json_t *object, const double *values, unsigned ranks,
                 enum cm_better better);

/* [{"text", "count", "ranks": "0-7,16"}], the most frequent first; of more than CM_FOLD_TEXTS the
 * rest is {"text": null, "count"}. `text` gives a rank's, "" for none: it is not listed. */
json_t *cm_fold_texts_json(const char *(*text)(const void *items, unsigned rank), const void *items,
                           unsigned ranks);

/* Ranks of a group as text: "0-7,16,24-31", cut short with "..." . */
struct cm_ranges {
    char text[120];
    unsigned first, last; /* of the range that is still open */
    bool open, full;
};
void cm_ranges_add(struct cm_ranges *ranges, unsigned rank); /* ascending */
const char *cm_ranges_end(struct cm_ranges *ranges);

/* Values rank by rank of the figures whose names end with ".rank<r>", over runs. */
struct cm_rank_figure {
    char name[CM_METRIC_NAME_MAX]; /* without the rank */
    char unit[16];
    enum cm_better better;
    double *values; /* of run i and rank r: values[i * ranks + r]; NAN for none */
    size_t runs, capacity;
};
struct cm_rank_figures {
    unsigned ranks;
    struct cm_rank_figure *items;
    size_t count, capacity;
};
/* The length of "flop_rate" in "flop_rate.rank3", and the 3; 0 for another name. */
size_t cm_rank_label(const char *name, unsigned *rank);
/* Add a run, which has at least one metric. */
enum cm_status cm_rank_figures_add(struct cm_rank_figures *figures,
                                   const struct cm_metrics *metrics, unsigned ranks);
/* Each rank's median over the runs, into `medians`. */
void cm_rank_figure_medians(const struct cm_rank_figures *figures, size_t index, double *medians);
void cm_rank_figures_release(struct cm_rank_figures *figures);

/* A run's `folded`, from what cm_run_json leaves out; nothing for few ranks. */
void cm_fold_run(enum cm_status *status, json_t *run, const struct cm_case_run *made);

#endif
