/*
 * set.h: the repeated runs of one machine: from result files to a value per fresh-process run.
 * Private to host/result.
 */
#ifndef CM_RESULT_SET_H
#define CM_RESULT_SET_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"
#include "clustermark/workload.h"

/* A metric of one run. */
struct cm_point {
    double value;
    size_t file;  /* index into the set's files */
    uint64_t run; /* its number in that file */
    /* Of the logarithms of the run's iterations, where the metric is a time or a rate of them; NAN
     * elsewhere. */
    double iteration_variance;
    double wall_s;     /* that the run of the case took; NAN where not known */
    double iterations; /* effective: fewer than there are when neighbours are alike */
};

/* A metric of a case, or of a sweep, over all good runs of all files. */
struct cm_series {
    char *key;            /* "all_reduce:size=1KiB/busbw": case or sweep, then the metric */
    char *subject;        /* "all_reduce:size=1KiB" */
    const char *metric;   /* "busbw"; within key */
    const char *workload; /* borrowed from a file's result */
    char *unit;           /* the first file's */
    enum cm_better better;
    bool of_sweep;
    bool conflict; /* the files disagree on unit or direction */
    struct cm_point *points;
    size_t count, capacity;
};

struct cm_set_file {
    char *path;
    json_t *result;  /* without the runs of its cases, which are in the series */
    json_t *facts;   /* what surrounds it: facts.h */
    double run_s;    /* how long one run of all its cases takes; NAN where not known */
    uint64_t digest; /* of the whole result: tells a file that was given twice */
};

struct cm_set {
    char *name; /* the operand without folder and ending */
    struct cm_set_file *files;
    size_t file_count, file_capacity;
    struct cm_series *series; /* in the order in which the files name them */
    size_t series_count, series_capacity;
    bool trimmed;  /* earlier runs than those in the series were left out */
    json_t *index; /* key -> place in series */
};

/* Read result files, JSON-lines files, and of folders every *.json and *.jsonl in the order of
 * their names. CM_USAGE: no such file, a folder without results, a file that is none. A set begins
 * zeroed; more can be added to it. After an error the set is still to be released. */
enum cm_status cm_set_add_paths(struct cm_set *set, const char *const *paths, size_t count);
/* Load and check files, on several cores; all or none. */
enum cm_status cm_results_read(char *const *paths, size_t count, json_t **results);
/* Add a checked result; takes over the reference, whatever the status, and removes the runs of its
 * cases. */
enum cm_status cm_set_add_result(struct cm_set *set, const char *path, json_t *result);
/* NULL when there is none. */
const struct cm_series *cm_set_find(const struct cm_set *set, const char *key);
/* The values alone, `series->count` of them; the caller frees them. NULL when out of memory. */
double *cm_series_values(const struct cm_series *series);
/* Add a metric of the same subject, lower being better: `scale` over the values of a series. */
enum cm_status cm_set_derive(struct cm_set *set, size_t series, const char *metric,
                             const char *unit, double scale);
/* Keep the last `runs` of each series, in the order of the files. */
void cm_set_trim(struct cm_set *set, size_t runs);
void cm_set_release(struct cm_set *set);

#endif
