/*
 * telemetry.h: one account of several windows. Pure.
 */
#ifndef HOST_MEASURE_TELEMETRY_H
#define HOST_MEASURE_TELEMETRY_H

#include "clustermark/device.h"

/* Adds a window to what is known of those before it. `share` is its part of the time of all: rates,
 * clocks and power are means over time, energy and counts sums, the rest extremes. Fields that one
 * of the two does not know are the other's. */
void cm_telemetry_merge(struct cm_telemetry *telemetry, const struct cm_telemetry *window,
                        double share);

#endif
