/* Many result files at once: reading and checking takes all of the time, so the cores share it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "host/result/set.h"

#define THREADS_MAX 16

struct outcome {
    json_t *result;
    enum cm_status status;
    char text[CM_ERROR_TEXT_MAX]; /* messages belong to the thread */
};

struct work {
    char *const *paths;
    size_t count;
    struct outcome *outcomes;
    atomic_size_t next;
};

static void *read_some(void *arg)
{
    struct work *work = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&work->next, 1);
        if (i >= work->count)
            return NULL;
        struct outcome *outcome = &work->outcomes[i];
        outcome->status = cm_result_load_short(work->paths[i], &outcome->result);
        if (outcome->status != CM_OK)
            snprintf(outcome->text, sizeof outcome->text, "%s", cm_error_text());
    }
}

/* The caller reads too; threads that cannot be had are done without. */
static void read_all(struct work *work)
{
    pthread_t threads[THREADS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t started = 0;
    size_t wanted = cores > THREADS_MAX ? THREADS_MAX : cores > 1 ? (size_t)cores : 1;
    wanted = wanted < work->count ? wanted : work->count;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, read_some, work) == 0)
        started++;
    read_some(work);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

enum cm_status cm_results_read(char *const *paths, size_t count, json_t **results)
{
    struct work work = {.paths = paths, .count = count};
    enum cm_status status = CM_OK;
    work.outcomes = cm_alloc(count, sizeof *work.outcomes);
    if (work.outcomes == NULL)
        return CM_NO_MEMORY;
    read_all(&work);
    for (size_t i = 0; i < count; i++) {
        if (status == CM_OK && work.outcomes[i].status != CM_OK)
            status = cm_error(work.outcomes[i].status, "%s", work.outcomes[i].text);
    }
    for (size_t i = 0; i < count; i++) {
        if (status == CM_OK)
            results[i] = work.outcomes[i].result;
        else
            json_decref(work.outcomes[i].result);
    }
    cm_free(work.outcomes);
    return status;
}
