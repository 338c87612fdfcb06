/*
 * sweep.h: the values that one key of a section takes.
 */
#ifndef HOST_MEASURE_SWEEP_H
#define HOST_MEASURE_SWEEP_H

#include <stddef.h>

#include "clustermark/option.h"
#include "clustermark/suite.h"

/* Most points of a plan, and so of one key. */
#define CM_PLAN_POINTS_MAX 100000

struct cm_axis {
    const struct cm_option *option;
    const struct cm_setting *setting;
    char **values; /* in the suite's spelling, as cm_option_write has it; no two alike */
    size_t count, capacity;
};

/* Read "a,b,c", and for sizes and counts also "a..b" (a, 2a, 4a ... up to b) and "a..b*f" (factor
 * f). `scratch` is memory of the option's structure; it is written to. Errors begin with the
 * setting's place. On failure the axis is to be released like any other. */
enum cm_status cm_axis_read(const struct cm_option *option, const struct cm_setting *setting,
                            void *scratch, struct cm_axis *axis);
void cm_axis_release(struct cm_axis *axis);

#endif
