/*
 * sweep.h: the same plan on more and more GPUs.
 */
#ifndef HOST_PROJECT_SWEEP_H
#define HOST_PROJECT_SWEEP_H

#include "host/project/question.h"

/* Adds "weak" (the batch grows with the GPUs) and "strong" (it does not) to the document: an entry
 * for every doubling within options->sweep, "8..262144". CM_USAGE: no range, or one without a
 * point. */
enum cm_status cm_sweep_write(const struct cm_question *q, json_t *document);

#endif
