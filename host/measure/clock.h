/* clock.h: the host's steady clock, for deadlines and budgets; never for samples. */
#ifndef HOST_MEASURE_CLOCK_H
#define HOST_MEASURE_CLOCK_H

#include <time.h>

static inline double cm_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Seconds since 1970. */
static inline double cm_clock_unix_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
