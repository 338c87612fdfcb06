/* The cost model's parameters from measured steps: Levenberg and Marquardt's method. */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/model/cost_private.h"

#define N          CM_COST_PARAMETER_COUNT
#define ROUNDS     60
#define DIFFERENCE 1e-4
/* A row's own spread, and where the loss flattens, in such spreads. */
#define ROW_SPREAD 0.06
#define KNEE       3.0
/* Rows of a source that was not fitted on differ by this much more than those that were. */
#define STRANGER         1.3
#define STRANGER_EXPERTS 2.2
/* The spread of a parameter that stays as it is. */
#define HELD   1e-6
#define ENOUGH 1e-5 /* relative gain of a round that ends the fit */

struct fit {
    const struct cm_cost_sample *samples;
    size_t count;
    const struct cm_calibration *before;
    double (*slopes)[N]; /* of each row's residual */
    double *residuals;
};

static double residual(const struct cm_cost_sample *sample, const double *value)
{
    struct cm_step_cost cost;
    cm_step_cost(&sample->job, value, &cost);
    double off = log(cost.step / sample->step_s) / ROW_SPREAD;
    return sqrt(sample->weight) * KNEE * atan(off / KNEE);
}

static double sum_of_squares(const struct fit *fit, const double *logs)
{
    double value[N], sum = 0;
    for (size_t i = 0; i < N; i++) {
        double away = (logs[i] - log(fit->before->value[i])) / fit->before->spread[i];
        value[i] = exp(logs[i]);
        sum += away * away;
    }
    for (size_t i = 0; i < fit->count; i++) {
        double off = residual(&fit->samples[i], value);
        sum += off * off;
    }
    return sum;
}

static void linearise(struct fit *fit, const double *logs)
{
    double value[N], moved[N];
    for (size_t j = 0; j < N; j++)
        value[j] = exp(logs[j]);
    memcpy(moved, value, sizeof moved);
    for (size_t i = 0; i < fit->count; i++)
        fit->residuals[i] = residual(&fit->samples[i], value);
    for (size_t j = 0; j < N; j++) {
        moved[j] = value[j] * exp(DIFFERENCE);
        for (size_t i = 0; i < fit->count; i++)
            fit->slopes[i][j] =
                (residual(&fit->samples[i], moved) - fit->residuals[i]) / DIFFERENCE;
        moved[j] = value[j];
    }
}

/* Normal equations, first guesses as further rows. */
static void gather(const struct fit *fit, const double *logs, double a[N][N], double b[N])
{
    memset(a, 0, sizeof(double[N][N]));
    for (size_t j = 0; j < N; j++) {
        double square = fit->before->spread[j] * fit->before->spread[j];
        a[j][j] = 1 / square;
        b[j] = -(logs[j] - log(fit->before->value[j])) / square;
    }
    for (size_t i = 0; i < fit->count; i++)
        for (size_t j = 0; j < N; j++) {
            double slope = fit->slopes[i][j];
            if (slope == 0)
                continue;
            b[j] -= slope * fit->residuals[i];
            for (size_t k = 0; k <= j; k++)
                a[j][k] += slope * fit->slopes[i][k];
        }
}

/* Cholesky's factor in the lower half of a. False: a is not positive. */
static bool factorise(double a[N][N])
{
    for (size_t j = 0; j < N; j++) {
        for (size_t k = 0; k < j; k++)
            a[j][j] -= a[j][k] * a[j][k];
        if (!(a[j][j] > 0))
            return false;
        a[j][j] = sqrt(a[j][j]);
        for (size_t i = j + 1; i < N; i++) {
            for (size_t k = 0; k < j; k++)
                a[i][j] -= a[i][k] * a[j][k];
            a[i][j] /= a[j][j];
        }
    }
    return true;
}

static void solve(double a[N][N], double b[N])
{
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < i; k++)
            b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    for (size_t i = N; i-- > 0;) {
        for (size_t k = i + 1; k < N; k++)
            b[i] -= a[k][i] * b[k];
        b[i] /= a[i][i];
    }
}

/* One round: a step that lowers the sum, at more and more damping. The new sum. */
static double improve(struct fit *fit, double *logs, double sum, double *damping)
{
    double a[N][N], b[N], damped[N][N], step[N], tried[N];
    linearise(fit, logs);
    gather(fit, logs, a, b);
    for (int attempt = 0; attempt < 12; attempt++, *damping *= 4) {
        memcpy(damped, a, sizeof damped);
        memcpy(step, b, sizeof step);
        for (size_t j = 0; j < N; j++)
            damped[j][j] *= 1 + *damping;
        if (!factorise(damped))
            continue;
        solve(damped, step);
        for (size_t j = 0; j < N; j++)
            tried[j] = logs[j] + step[j];
        double now = sum_of_squares(fit, tried);
        if (now < sum) {
            memcpy(logs, tried, sizeof tried);
            *damping /= 8;
            return now;
        }
    }
    return sum;
}

/* Marginal spreads from the inverse of the normal equations, and what rows differ by: the middle
 * 80 % of them, as a normal distribution's. */
static double finish(struct fit *fit, const double *logs, struct cm_calibration *after)
{
    double a[N][N], b[N], square = 0, weight = 0;
    linearise(fit, logs);
    gather(fit, logs, a, b);
    for (size_t i = 0; i < fit->count; i++) {
        square += fit->residuals[i] * fit->residuals[i];
        weight += fit->samples[i].weight;
    }
    for (size_t j = 0; j < N; j++)
        after->value[j] = exp(logs[j]);
    if (factorise(a)) {
        for (size_t j = 0; j < N; j++) {
            double unit[N] = {0};
            unit[j] = 1;
            solve(a, unit);
            after->spread[j] = sqrt(unit[j]);
        }
    }
    return sqrt(square / fmax(weight, 1e-9));
}

enum cm_status cm_cost_fit(const struct cm_cost_sample *samples, size_t count,
                           struct cm_calibration *calibration, double *residual_spread)
{
    double logs[N], damping = 1e-3;
    struct cm_calibration before = *calibration;
    struct fit fit = {.samples = samples, .count = count, .before = &before};
    if (count == 0)
        return cm_error(CM_USAGE, "no row to fit the model on");
    fit.slopes = cm_alloc(count, sizeof *fit.slopes);
    fit.residuals = cm_alloc(count, sizeof *fit.residuals);
    if (fit.slopes == NULL || fit.residuals == NULL) {
        cm_free(fit.slopes);
        cm_free(fit.residuals);
        return CM_NO_MEMORY;
    }
    for (size_t j = 0; j < N; j++)
        logs[j] = log(before.value[j]);
    double sum = sum_of_squares(&fit, logs);
    for (int round = 0; round < ROUNDS; round++) {
        double now = improve(&fit, logs, sum, &damping);
        bool done = sum - now <= ENOUGH * sum;
        sum = now;
        if (done)
            break;
    }
    *residual_spread = ROW_SPREAD * finish(&fit, logs, calibration);
    cm_free(fit.slopes);
    cm_free(fit.residuals);
    return CM_OK;
}

static bool is_of_experts(int parameter)
{
    return parameter == CM_COST_progress_experts || parameter == CM_COST_expert_half ||
           parameter == CM_COST_bytes_experts || parameter == CM_COST_host_experts ||
           parameter == CM_COST_expert_visible;
}

/* Those parameters from mixtures, what the others say held. */
static enum cm_status fit_experts(const struct cm_cost_sample *samples, size_t count,
                                  struct cm_calibration *calibration)
{
    struct cm_calibration held = *calibration;
    for (int j = 0; j < N; j++)
        if (!is_of_experts(j))
            held.spread[j] = HELD;
    enum cm_status status = cm_cost_fit(samples, count, &held, &calibration->residual_experts);
    for (int j = 0; status == CM_OK && j < N; j++)
        if (is_of_experts(j)) {
            calibration->value[j] = held.value[j];
            calibration->spread[j] = held.spread[j];
        }
    return status;
}

enum cm_status cm_cost_fit_all(const struct cm_cost_sample *samples, size_t count,
                               struct cm_calibration *calibration)
{
    size_t dense = 0, mixtures = 0;
    struct cm_cost_sample *sorted = cm_alloc(count, sizeof *sorted);
    if (sorted == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        if (samples[i].job.experts <= 0)
            sorted[dense++] = samples[i];
        else
            sorted[count - ++mixtures] = samples[i];
    cm_calibration_guess(calibration);
    enum cm_status status = cm_cost_fit(sorted, dense, calibration, &calibration->residual);
    calibration->residual *= STRANGER;
    if (status == CM_OK && mixtures > 0) {
        status = fit_experts(sorted + dense, mixtures, calibration);
        calibration->residual_experts *= STRANGER_EXPERTS;
    }
    calibration->rows = count;
    cm_free(sorted);
    return status;
}
