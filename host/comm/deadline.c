/* A thread that ends the process at a deadline. */
#include "clustermark/deadline.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"

struct cm_deadline {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over;
    struct timespec end;
    const char *text;
};

static void *wait_for_end(void *arg)
{
    struct cm_deadline *deadline = arg;
    int result = 0;
    pthread_mutex_lock(&deadline->lock);
    while (!deadline->over && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&deadline->changed, &deadline->lock, &deadline->end);
    if (!deadline->over) {
        fprintf(stderr, "clustermark: %s\n", deadline->text);
        _exit(cm_status_exit_code(CM_TIMEOUT));
    }
    pthread_mutex_unlock(&deadline->lock);
    return NULL;
}

/* Waiting on the monotonic clock needs an attribute. */
static int init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    int result = pthread_condattr_init(&attributes);
    if (result != 0)
        return result;
    result = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (result == 0)
        result = pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return result;
}

enum cm_status cm_deadline_begin(double seconds, const char *text, struct cm_deadline **deadline)
{
    *deadline = NULL;
    if (!(seconds > 0) || seconds > 1e9)
        return CM_OK;
    struct cm_deadline *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    double whole = floor(seconds);
    clock_gettime(CLOCK_MONOTONIC, &made->end);
    made->end.tv_sec += (time_t)whole;
    made->end.tv_nsec += (long)((seconds - whole) * 1e9);
    if (made->end.tv_nsec >= 1000000000) {
        made->end.tv_nsec -= 1000000000;
        made->end.tv_sec += 1;
    }
    made->text = text;
    if (pthread_mutex_init(&made->lock, NULL) != 0)
        goto free_made;
    if (init_condition(&made->changed) != 0)
        goto destroy_lock;
    if (pthread_create(&made->thread, NULL, wait_for_end, made) != 0)
        goto destroy_condition;
    *deadline = made;
    return CM_OK;

destroy_condition:
    pthread_cond_destroy(&made->changed);
destroy_lock:
    pthread_mutex_destroy(&made->lock);
free_made:
    cm_free(made);
    return cm_error(CM_SYSTEM, "no thread to be had for a deadline of %g s", seconds);
}

void cm_deadline_end(struct cm_deadline *deadline)
{
    if (deadline == NULL)
        return;
    pthread_mutex_lock(&deadline->lock);
    deadline->over = true;
    pthread_cond_signal(&deadline->changed);
    pthread_mutex_unlock(&deadline->lock);
    pthread_join(deadline->thread, NULL);
    pthread_cond_destroy(&deadline->changed);
    pthread_mutex_destroy(&deadline->lock);
    cm_free(deadline);
}
