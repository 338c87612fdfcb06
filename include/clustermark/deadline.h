/*
 * deadline.h: an end for calls that may never return.
 */
#ifndef CLUSTERMARK_DEADLINE_H
#define CLUSTERMARK_DEADLINE_H

#include "clustermark/status.h"

struct cm_deadline;

/* Of a program that only asks a device's driver what there is. */
#define CM_DRIVER_S     60.0
#define CM_DRIVER_HANGS "the device's driver did not answer within 60 s: is the device lost?"

/* Unless cm_deadline_end comes within `seconds`, print `text` on stderr and end the process with
 * CM_TIMEOUT's exit code: a foreign call that hangs cannot be undone. No limit when seconds is not
 * positive or not finite; *deadline is then NULL. `text` must stay. */
enum cm_status cm_deadline_begin(double seconds, const char *text, struct cm_deadline **deadline);
/* Accepts NULL. */
void cm_deadline_end(struct cm_deadline *deadline);

#endif
