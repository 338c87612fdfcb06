/* A process that does not get on is killed by its own timer. */
#include <math.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "host/measure/watcher.h"

void cm_last_resort_open(struct cm_last_resort *last)
{
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGKILL; /* nothing else reaches a process that is stopped */
    last->there = timer_create(CLOCK_MONOTONIC, &event, &last->timer) == 0;
}

void cm_last_resort_arm(const struct cm_last_resort *last, double seconds)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)floor(seconds)}};
    when.it_value.tv_nsec = (long)((seconds - floor(seconds)) * 1e9);
    if (last->there)
        timer_settime(last->timer, 0, &when, NULL);
}

void cm_last_resort_close(struct cm_last_resort *last)
{
    if (last->there)
        timer_delete(last->timer);
    last->there = false;
}
