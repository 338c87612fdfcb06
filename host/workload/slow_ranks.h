/*
 * slow_ranks.h: of a part in which every rank does the same work for itself, the ranks that take
 * longer for it. Other runs confirm them, or do not: there is no partner that could be to blame.
 */
#ifndef HOST_WORKLOAD_SLOW_RANKS_H
#define HOST_WORKLOAD_SLOW_RANKS_H

#include "clustermark/workload.h"

/* By less than this they are not named; and nobody is named by chance in more runs than this. */
#define CM_SLOW_MARGIN 0.05
#define CM_SLOW_RISK   0.01

enum cm_status cm_slow_ranks_find(const struct cm_part_samples *part, const char *what,
                                  struct cm_suspects *suspects);

#endif
