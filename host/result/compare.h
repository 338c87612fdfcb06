/*
 * compare.h: what compare and gate share. Private to host/result.
 */
#ifndef CM_RESULT_COMPARE_H
#define CM_RESULT_COMPARE_H

#include "clustermark/compare.h"
#include "host/result/facts.h"
#include "host/result/pair.h"
#include "host/result/set.h"
#include "host/result/table.h"

/* The runs of a metric that are looked at, the last in the order of their files. */
#define CM_RUNS_LIMIT 150

/* The runs that it takes to see a shift of `distance`, and the time for them: {"more_runs",
 * "more_s"} put into `row`, null where no number of runs would do. */
struct cm_more {
    double risk, distance;
    bool both; /* both sets grow; else the other alone */
};
enum cm_status cm_put_more(const struct cm_pair *pair, const struct cm_more *more, json_t *row);

/* Where the variance of a run comes from, in "variance_shares". */
#define CM_LEVELS 4
extern const char *const cm_level_names[CM_LEVELS];

/* {"name", "files", ...} of a set. */
json_t *cm_set_json(const struct cm_set *set);

/* The table of differences in words, and how many were forbidden. */
void cm_add_differences(const struct cm_report_style *style, const json_t *differences,
                        struct cm_str *out);
/* "+1.2 %", "-0.03": a relative change, or one of a value. */
void cm_change_text(double change, bool relative, char *text, size_t size);
/* "12 more runs, about 4 min". */
void cm_more_text(const json_t *row, char *text, size_t size);

#endif
