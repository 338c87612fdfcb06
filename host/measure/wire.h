/*
 * wire.h: tables of what a case run is made of, as its writer and its reader share them.
 */
#ifndef HOST_MEASURE_WIRE_H
#define HOST_MEASURE_WIRE_H

#include "host/measure/fields.h"

extern const struct cm_field cm_wire_run[];
extern const struct cm_field cm_wire_part[];
extern const struct cm_field cm_wire_median[];
extern const struct cm_field cm_wire_work[];
extern const struct cm_field cm_wire_metric[];
extern const struct cm_field cm_wire_suspect[];
extern const struct cm_field cm_wire_check[];
extern const struct cm_field cm_wire_telemetry[];
extern const struct cm_field cm_wire_device[];
extern const struct cm_field cm_wire_peak[];

#endif
