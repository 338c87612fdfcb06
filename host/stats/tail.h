/* tail.h: the chance of a value of Student's t above `t`, far tails included. */
#ifndef HOST_STATS_TAIL_H
#define HOST_STATS_TAIL_H

double cm_t_above(double t, double freedom);

#endif
