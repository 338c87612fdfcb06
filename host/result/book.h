/*
 * book.h: results side by side, for what is drawn of them. Private to host/result.
 *
 * A side is one machine or revision: a file, or a folder or JSON-lines file of repeated runs. The
 * first side is what the others are held against.
 */
#ifndef CM_RESULT_BOOK_H
#define CM_RESULT_BOOK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "clustermark/stats.h"
#include "clustermark/status.h"

struct cm_side {
    char *label;
    json_t *results; /* by the time they were started */
    json_t *cases;   /* name -> that case in each result that has it */
    json_t *order;   /* the names, in the order of their first appearance */
};

struct cm_book {
    struct cm_side *sides;
    size_t count;
    double margin; /* relative: what is within it counts as the same */
};

/* Append the results of a file, a folder (*.json and *.jsonl in it, strangers with a warning) or a
 * JSON-lines file. */
enum cm_status cm_results_load(const char *path, json_t *results);
/* Order by `started`, those of the same second as they came. */
enum cm_status cm_results_sort(json_t *results);

/* One side per path. `book` is released by cm_book_release whatever the status. */
enum cm_status cm_book_load(const char *const *paths, size_t count, struct cm_book *book);
/* Takes over nothing: a side with these results. */
enum cm_status cm_book_add(struct cm_book *book, const char *label, json_t *results);
void cm_book_release(struct cm_book *book);

/* The newest result of a side; the newest that has a case. */
const json_t *cm_side_last(const struct cm_side *side);
const json_t *cm_side_case(const struct cm_side *side, const char *name);
/* A metric of a side's newest such case; NULL when it has none. */
const json_t *cm_side_metric(const struct cm_side *side, const char *name, const char *metric);

/* The metric's value in every good run of the case; what the case itself says where its runs do not
 * tell. Added to `values`, which is emptied first. */
enum cm_status cm_side_values(const struct cm_side *side, const char *name, const char *metric,
                              struct cm_samples *values);
enum cm_status cm_case_values(const json_t *item, const char *metric, struct cm_samples *values);

#endif
