/*
 * What runs like these can show, from what they are: samples are drawn from them again and again,
 * and each says which shift it would have taken to be found. Nothing is assumed of the shape of the
 * noise.
 */
#include <math.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/stats/rank_sum.h"
#include "host/stats/sessions.h"
#include "host/stats/shift.h"

/* Samples are drawn so often, fewer of large ones: their quantile is then sharper anyway. */
#define DRAWS_MAX  400
#define DRAWS_MIN  150
#define DRAWS_COST 1000000 /* differences, over all */
#define LEAST      3       /* runs that tell of a noise */

uint64_t cm_draw(uint64_t *seed, uint64_t limit)
{
    uint64_t z = *seed += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (z ^ z >> 31) % limit;
}

struct resample {
    const struct cm_runs *x, *y;
    const struct cm_power *power;
    uint64_t seed;
    struct cm_rank_tail tail;
    struct cm_session_model model;
    double reach;
    struct cm_variance_run *rows;                 /* x as drawn; sessions numbered */
    double *deviations, *pool, *luck, *from, *to; /* to: y as drawn */
    double *differences;
};

static double any(struct resample *resample)
{
    return resample->pool[cm_draw(&resample->seed, resample->x->count)];
}

/* Each session's luck and each run's own, drawn alike and weighed so that the variance, and the
 * part of it that is the session's, are those of the runs. */
static void draw_runs(struct resample *resample, const struct cm_runs *like, double *values)
{
    double session = sqrt(resample->model.share), own = sqrt(1 - resample->model.share);
    for (size_t i = 0; i < like->count; i++) {
        size_t first = 0;
        while (like->sessions[first] != like->sessions[i])
            first++;
        if (first == i)
            resample->luck[i] = any(resample);
        values[i] = session * resample->luck[first] + own * any(resample);
    }
}

/* The shift that a draw would have needed. What is drawn from is itself a draw of the runs, since
 * they know the noise no better than that. */
static enum cm_status shift_needed(struct resample *resample, double *needed)
{
    const struct cm_runs *x = resample->x, *y = resample->y;
    struct cm_session_model model;
    struct cm_shift shift;
    for (size_t i = 0; i < x->count; i++)
        resample->pool[i] = resample->deviations[cm_draw(&resample->seed, x->count)];
    draw_runs(resample, x, resample->from);
    draw_runs(resample, y, resample->to);
    for (size_t i = 0; i < x->count; i++)
        resample->rows[i].value = resample->from[i];
    enum cm_status status = cm_session_model_of(resample->rows, x->count, &model);
    if (status != CM_OK)
        return status;
    cm_shift_find(resample->from, x->count, resample->to, y->count, &resample->tail,
                  resample->differences, &shift);
    *needed = resample->power->margin - shift.interval.low +
              cm_session_widen(&shift, model.deviation, resample->reach);
    return CM_OK;
}

static enum cm_status prepare(struct resample *resample)
{
    const struct cm_runs *x = resample->x;
    size_t room = x->count > resample->y->count ? x->count : resample->y->count;
    double **const arrays[] = {&resample->deviations, &resample->pool, &resample->luck,
                               &resample->from, &resample->to};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        *arrays[i] = cm_alloc(room, sizeof **arrays[i]);
        if (*arrays[i] == NULL)
            return CM_NO_MEMORY;
    }
    resample->rows = cm_alloc(room, sizeof *resample->rows);
    resample->differences = cm_alloc(x->count * resample->y->count, sizeof(double));
    if (resample->rows == NULL || resample->differences == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_session_model_make(x, resample->rows, &resample->model);
    /* Draws of n values have (n - 1) / n of their variance; these are drawn of twice. */
    double centre = cm_median(x->values, x->count), n = (double)x->count;
    for (size_t i = 0; i < x->count; i++)
        resample->deviations[i] = (x->values[i] - centre) * n / (n - 1);
    resample->reach =
        cm_session_reach(x, resample->y, resample->model.count, resample->power->risk);
    return status;
}

static enum cm_status draw_all(struct resample *resample, double *shift)
{
    size_t size = resample->x->count * resample->y->count;
    size_t draws = DRAWS_COST / size < DRAWS_MAX ? DRAWS_COST / size : DRAWS_MAX;
    draws = draws < DRAWS_MIN ? DRAWS_MIN : draws;
    double needed[DRAWS_MAX];
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < draws; i++)
        status = shift_needed(resample, &needed[i]);
    if (status == CM_OK)
        *shift = cm_quantile(needed, draws, resample->power->power);
    return status;
}

enum cm_status cm_resampled_shift(const struct cm_runs *x, const struct cm_runs *y,
                                  const struct cm_power *power, double *shift)
{
    struct resample resample = {.x = x, .y = y, .power = power, .seed = 1};
    enum cm_status status = cm_rank_sum_tail(x->count, y->count, power->risk, &resample.tail);
    if (status != CM_OK)
        return status;
    if (x->count < LEAST || resample.tail.ranks == 0) {
        *shift = x->count < LEAST ? (double)NAN : (double)INFINITY;
        return CM_OK;
    }
    status = prepare(&resample);
    if (status == CM_OK)
        status = draw_all(&resample, shift);
    double *const arrays[] = {resample.deviations, resample.pool, resample.luck,
                              resample.from,       resample.to,   resample.differences};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        cm_free(arrays[i]);
    cm_free(resample.rows);
    return status;
}
