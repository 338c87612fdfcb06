/*
 * The fit of rates between pairs. Its normal equations are those of a sparse graph of which every
 * unit has few neighbours, so they are solved by going round the units (Gauss and Seidel); only the
 * standard errors need an inverse, which for many units follows from the number of partners.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/pairs.h"
#include "clustermark/stats.h"
#include "host/stats/tail.h"

#define HUBER      1.345
#define MAD_NORMAL 0.6744897501960817
/* Of Huber's estimate against the mean, for normal noise. */
#define EFFICIENCY 0.95
/* Of the MAD against the standard deviation: so much fewer are the degrees of freedom. */
#define MAD_EFFICIENCY 0.37
#define SCALE_MIN      1e-9
#define STEADY         1e-12
enum { SWEEPS_MAX = 2000, WEIGHTS_MAX = 200, DENSE_MAX = 400 };

/* Effects stand in one list: of a unit as sender, then as receiver; of symmetric values the two are
 * one. */
struct fit {
    const struct cm_pair_value *values;
    size_t value_count;
    unsigned count, effects; /* `effects` of them: count, or twice that */
    unsigned shift;          /* from a sender's place to the same unit's as receiver */
    size_t *first, *at;      /* at[first[e]] ... : the values in which effect e takes part */
    double *effect, *weight, *residual;
    double *room; /* for medians */
    double *inverse;
};

static unsigned sender(const struct fit *fit, size_t value)
{
    return fit->values[value].from;
}

static unsigned receiver(const struct fit *fit, size_t value)
{
    return fit->values[value].to + fit->shift;
}

static unsigned other_end(const struct fit *fit, size_t value, unsigned effect)
{
    return sender(fit, value) == effect ? receiver(fit, value) : sender(fit, value);
}

static size_t partners(const struct fit *fit, unsigned effect)
{
    return fit->first[effect + 1] - fit->first[effect];
}

static enum cm_status check_values(const struct cm_pair_value *values, size_t value_count,
                                   unsigned count)
{
    for (size_t i = 0; i < value_count; i++) {
        const struct cm_pair_value *value = &values[i];
        if (!isfinite(value->value) || value->from >= count || value->to >= count ||
            value->from == value->to)
            return cm_error(CM_USAGE, "value %zu of a pair fit: %g of units %u and %u of %u", i,
                            value->value, value->from, value->to, count);
    }
    return CM_OK;
}

static void release(struct fit *fit)
{
    cm_free(fit->first);
    cm_free(fit->at);
    cm_free(fit->effect);
    cm_free(fit->weight);
    cm_free(fit->residual);
    cm_free(fit->room);
    cm_free(fit->inverse);
}

/* Which values each effect takes part in, by counting. */
static void index_values(struct fit *fit)
{
    for (size_t i = 0; i < fit->value_count; i++) {
        fit->first[sender(fit, i) + 1]++;
        fit->first[receiver(fit, i) + 1]++;
    }
    for (unsigned e = 0; e < fit->effects; e++)
        fit->first[e + 1] += fit->first[e];
    for (size_t i = fit->value_count; i-- > 0;) {
        unsigned ends[] = {sender(fit, i), receiver(fit, i)};
        for (int k = 0; k < 2; k++)
            fit->at[--fit->first[ends[k] + 1]] = i;
    }
    /* Every begin has slid to the place of the one before it. */
    for (unsigned e = 0; e < fit->effects; e++)
        fit->first[e] = fit->first[e + 1];
    fit->first[fit->effects] = 2 * fit->value_count;
}

static enum cm_status prepare(struct fit *fit)
{
    size_t room = 2 * fit->value_count > fit->effects ? 2 * fit->value_count : fit->effects;
    fit->first = cm_alloc(fit->effects + 1, sizeof *fit->first);
    fit->at = cm_alloc(2 * fit->value_count, sizeof *fit->at);
    fit->effect = cm_alloc(fit->effects, sizeof *fit->effect);
    fit->weight = cm_alloc(fit->value_count, sizeof *fit->weight);
    fit->residual = cm_alloc(fit->value_count, sizeof *fit->residual);
    fit->room = cm_alloc(room, sizeof *fit->room);
    if (fit->first == NULL || fit->at == NULL || fit->effect == NULL || fit->weight == NULL ||
        fit->residual == NULL || fit->room == NULL)
        return CM_NO_MEMORY;
    index_values(fit);
    for (size_t i = 0; i < fit->value_count; i++)
        fit->weight[i] = 1;
    return CM_OK;
}

/* Where to begin: each effect the median of what its values leave for it, twice around. */
static void polish(struct fit *fit)
{
    for (size_t i = 0; i < fit->value_count; i++)
        fit->room[i] = fit->values[i].value;
    double half = cm_median(fit->room, fit->value_count) / 2;
    for (unsigned e = 0; e < fit->effects; e++)
        fit->effect[e] = half;
    for (unsigned i = 0; i < 2 * fit->effects; i++) {
        unsigned e = i % fit->effects;
        size_t count = partners(fit, e);
        for (size_t k = 0; k < count; k++) {
            size_t value = fit->at[fit->first[e] + k];
            fit->room[k] = fit->values[value].value - fit->effect[other_end(fit, value, e)];
        }
        if (count > 0)
            fit->effect[e] = cm_median(fit->room, count);
    }
}

/* Least squares with the weights, by going round. */
static void solve(struct fit *fit)
{
    double moved = INFINITY;
    for (unsigned sweep = 0; sweep < SWEEPS_MAX && moved > STEADY; sweep++) {
        moved = 0;
        for (unsigned e = 0; e < fit->effects; e++) {
            double sum = 0, weights = 0;
            for (size_t k = fit->first[e]; k < fit->first[e + 1]; k++) {
                size_t value = fit->at[k];
                sum += fit->weight[value] *
                       (fit->values[value].value - fit->effect[other_end(fit, value, e)]);
                weights += fit->weight[value];
            }
            if (!(weights > 0))
                continue;
            moved = fmax(moved, fabs(sum / weights - fit->effect[e]));
            fit->effect[e] = sum / weights;
        }
    }
}

static void take_residuals(struct fit *fit)
{
    for (size_t i = 0; i < fit->value_count; i++)
        fit->residual[i] =
            fit->values[i].value - fit->effect[sender(fit, i)] - fit->effect[receiver(fit, i)];
}

static double mad_scale(struct fit *fit)
{
    for (size_t i = 0; i < fit->value_count; i++)
        fit->room[i] = fabs(fit->residual[i]);
    return cm_median(fit->room, fit->value_count) / MAD_NORMAL;
}

static void iterate(struct fit *fit, double floor)
{
    double moved = INFINITY;
    polish(fit);
    take_residuals(fit);
    for (unsigned i = 0; i < WEIGHTS_MAX && moved > 1e-10; i++) {
        double scale = fmax(mad_scale(fit), floor);
        for (size_t k = 0; k < fit->value_count; k++) {
            double size = fabs(fit->residual[k]) / scale;
            fit->weight[k] = size > HUBER ? HUBER / size : 1;
            fit->room[k] = fit->residual[k];
        }
        solve(fit);
        take_residuals(fit);
        moved = 0;
        for (size_t k = 0; k < fit->value_count; k++)
            moved = fmax(moved, fabs(fit->residual[k] - fit->room[k]));
    }
}

static int descending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a > b ? -1 : a < b;
}

/* A fit brings as many residuals near nothing as it has effects: those are not looked at. */
static double scale_of(struct fit *fit, double freedom)
{
    size_t left = freedom >= 1 ? (size_t)freedom : 0;
    for (size_t i = 0; i < fit->value_count; i++)
        fit->room[i] = fabs(fit->residual[i]);
    qsort(fit->room, fit->value_count, sizeof *fit->room, descending);
    return left > 0 ? cm_median(fit->room, left) / MAD_NORMAL : 0;
}

/* The inverse of the normal equations without weights, by Cholesky. Senders' effects can all be
 * raised and receivers' lowered: what says that their sums are alike takes that freedom away, and
 * does not matter for the difference between two of a kind. NULL where they do not have one. */
static enum cm_status invert(struct fit *fit, bool *known)
{
    size_t n = fit->effects;
    double *m = cm_alloc(n * n, sizeof *m), *inverse = cm_alloc(n * n, sizeof *inverse);
    fit->inverse = inverse;
    *known = false;
    if (m == NULL || inverse == NULL) {
        cm_free(m);
        return CM_NO_MEMORY;
    }
    for (size_t i = 0; i < n && fit->shift > 0; i++) {
        for (size_t k = 0; k < n; k++)
            m[i * n + k] = ((i < fit->count) == (k < fit->count) ? 1.0 : -1.0) / (double)n;
    }
    for (size_t i = 0; i < fit->value_count; i++) {
        size_t a = sender(fit, i), b = receiver(fit, i);
        m[a * n + a] += 1;
        m[b * n + b] += 1;
        m[a * n + b] += 1;
        m[b * n + a] += 1;
    }
    bool positive = true;
    for (size_t k = 0; k < n && positive; k++) {
        for (size_t i = k; i < n; i++) {
            double sum = m[i * n + k];
            for (size_t j = 0; j < k; j++)
                sum -= m[i * n + j] * m[k * n + j];
            if (i == k && !(sum > 1e-9))
                positive = false;
            m[i * n + k] = i == k ? sqrt(sum) : sum / m[k * n + k];
        }
    }
    for (size_t c = 0; c < n && positive; c++) {
        double *x = inverse + c * n;
        for (size_t i = 0; i < n; i++) {
            double sum = i == c ? 1 : 0;
            for (size_t j = 0; j < i; j++)
                sum -= m[i * n + j] * x[j];
            x[i] = sum / m[i * n + i];
        }
        for (size_t i = n; i-- > 0;) {
            for (size_t j = i + 1; j < n; j++)
                x[i] -= m[j * n + i] * x[j];
            x[i] /= m[i * n + i];
        }
    }
    cm_free(m);
    *known = positive;
    return CM_OK;
}

/* The median of the other units is uncertain too: as a mean, times pi / 2. */
static double with_median(double variance, double units)
{
    return variance * (1 + acos(-1) / 2 / fmax(units - 1, 1));
}

/* Of two effects, each apart from what all of its kind share: their covariance in units of a
 * value's variance. */
static double exact_covariance(const struct fit *fit, unsigned one, unsigned other)
{
    size_t n = fit->effects, first = one < fit->count ? 0 : fit->count;
    size_t second = other < fit->count ? 0 : fit->count;
    double row = 0, column = 0, all = 0, count = fit->count;
    for (size_t i = 0; i < fit->count; i++) {
        row += fit->inverse[one * n + second + i];
        column += fit->inverse[(first + i) * n + other];
        for (size_t k = 0; k < fit->count; k++)
            all += fit->inverse[(first + i) * n + second + k];
    }
    double against_means =
        fit->inverse[one * n + other] - (row + column) / count + all / (count * count);
    return against_means * count / (count - 1);
}

/* In a large graph drawn at random, seen from one unit, there are hardly any circles: it is a tree
 * with r branches everywhere, and there the inverse is (r - 1) / (r (r - 2)). */
static double tree_variance(size_t r)
{
    return r > 2 ? ((double)r - 1) / ((double)r * ((double)r - 2)) : 2;
}

static double p_below(double margin, double effect, double error, double freedom)
{
    double limit = log1p(-margin);
    return freedom > 0 && error > 0 ? cm_t_above((limit - effect) / error, freedom) : 1;
}

struct inference {
    double margin, scale, freedom;
    bool dense;
};

static double p_of(const struct inference *by, const struct cm_pair_effect *effect)
{
    if (by->freedom < 1)
        return 1;
    return p_below(by->margin, effect->effect, effect->error, MAD_EFFICIENCY * by->freedom);
}

static double variance_of(const struct fit *fit, const struct inference *by, unsigned effect)
{
    return by->dense ? exact_covariance(fit, effect, effect) : tree_variance(partners(fit, effect));
}

/* Of the mean of a unit's two; seen from one of them, the other is far away in a large graph. */
static double mean_variance(const struct fit *fit, const struct inference *by, unsigned unit)
{
    unsigned from = unit, to = unit + fit->shift;
    double both = by->dense ? exact_covariance(fit, from, to) : 0;
    return (variance_of(fit, by, from) + variance_of(fit, by, to) + 2 * both) / 4;
}

/* What unit `unit` has of a kind; NAN for one that met nobody. */
typedef double (*estimate_fn)(const struct fit *fit, unsigned unit);

static double as_sender(const struct fit *fit, unsigned unit)
{
    return partners(fit, unit) > 0 ? fit->effect[unit] : (double)NAN;
}

static double as_receiver(const struct fit *fit, unsigned unit)
{
    return as_sender(fit, unit + fit->shift);
}

static double as_both(const struct fit *fit, unsigned unit)
{
    return (as_sender(fit, unit) + as_receiver(fit, unit)) / 2;
}

static double judge_effects(struct fit *fit, const struct inference *by, estimate_fn estimate,
                            struct cm_pair_effect *effects)
{
    size_t known = 0;
    for (unsigned i = 0; i < fit->count; i++) {
        double value = estimate(fit, i);
        if (isfinite(value))
            fit->room[known++] = value;
    }
    double center = cm_median(fit->room, known);
    for (unsigned i = 0; i < fit->count; i++) {
        struct cm_pair_effect *effect = &effects[i];
        double value = estimate(fit, i);
        *effect = (struct cm_pair_effect){(double)NAN, (double)NAN, 1};
        if (!isfinite(value))
            continue;
        double variance = estimate == as_both     ? mean_variance(fit, by, i)
                          : estimate == as_sender ? variance_of(fit, by, i)
                                                  : variance_of(fit, by, i + fit->shift);
        effect->effect = value - center;
        effect->error = by->scale * sqrt(with_median(variance, fit->count) / EFFICIENCY);
        effect->p = p_of(by, effect);
    }
    return center;
}

static void judge_rest(struct fit *fit, const struct inference *by, struct cm_pair_effect *rest)
{
    size_t n = fit->effects;
    for (size_t i = 0; i < fit->value_count; i++) {
        size_t a = sender(fit, i), b = receiver(fit, i);
        double leverage = by->dense ? fit->inverse[a * n + a] + fit->inverse[b * n + b] +
                                          2 * fit->inverse[a * n + b]
                                    : (double)n / (double)fit->value_count;
        double left = fmax(1 - leverage, 0);
        rest[i].effect = fit->residual[i];
        rest[i].error = by->scale * sqrt(left);
        /* What lies wholly in the effects cannot show in the rest. */
        rest[i].p = left > 0.1 ? p_of(by, &rest[i]) : 1;
    }
}

static enum cm_status judge(struct fit *fit, const struct cm_pair_options *options,
                            struct cm_pair_fit *out)
{
    unsigned used = 0;
    for (unsigned e = 0; e < fit->effects; e++)
        used += partners(fit, e) > 0;
    struct inference by = {.margin = options->margin,
                           .freedom = (double)fit->value_count - used + (fit->shift > 0 ? 1 : 0)};
    enum cm_status status = CM_OK;
    if (used == fit->effects && fit->effects <= DENSE_MAX) {
        status = invert(fit, &by.dense);
        if (!by.dense)
            by.freedom = 0; /* the units do not hang together */
    }
    if (status != CM_OK)
        return status;
    by.scale = fmax(scale_of(fit, by.freedom), options->floor);
    out->mean = 2 * judge_effects(fit, &by, as_sender, out->from);
    if (fit->shift > 0) {
        out->mean /= 2;
        out->mean += judge_effects(fit, &by, as_receiver, out->to);
        judge_effects(fit, &by, as_both, out->both);
    }
    judge_rest(fit, &by, out->rest);
    out->scale = by.scale;
    out->freedom = by.freedom;
    return CM_OK;
}

enum cm_status cm_pair_fit_make(const struct cm_pair_value *values, size_t value_count,
                                unsigned count, const struct cm_pair_options *options,
                                struct cm_pair_fit *out)
{
    struct fit fit = {.values = values,
                      .value_count = value_count,
                      .count = count,
                      .effects = options->symmetric ? count : 2 * count,
                      .shift = options->symmetric ? 0 : count};
    struct cm_pair_fit made = {.count = count};
    struct cm_pair_options sane = *options;
    sane.floor = fmax(sane.floor, SCALE_MIN);
    enum cm_status status = check_values(values, value_count, count);
    if (status != CM_OK)
        return status;
    status = prepare(&fit);
    made.from = cm_alloc(count, sizeof *made.from);
    made.to = options->symmetric ? made.from : cm_alloc(count, sizeof *made.to);
    made.both = options->symmetric ? made.from : cm_alloc(count, sizeof *made.both);
    made.rest = cm_alloc(value_count, sizeof *made.rest);
    if (made.from == NULL || made.to == NULL || made.both == NULL || made.rest == NULL)
        status = CM_NO_MEMORY;
    if (status == CM_OK) {
        iterate(&fit, sane.floor);
        status = judge(&fit, &sane, &made);
    }
    release(&fit);
    if (status == CM_OK)
        *out = made;
    else
        cm_pair_fit_release(&made);
    return status;
}

void cm_pair_fit_release(struct cm_pair_fit *fit)
{
    if (fit->to != fit->from)
        cm_free(fit->to);
    if (fit->both != fit->from)
        cm_free(fit->both);
    cm_free(fit->from);
    cm_free(fit->rest);
    *fit = (struct cm_pair_fit){0};
}

enum cm_status cm_outliers(const double *values, size_t count, double margin, double floor,
                           struct cm_pair_effect *effects)
{
    double *room = cm_alloc(count, sizeof *room);
    size_t known = 0;
    if (room == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(values[i]))
            room[known++] = values[i];
    }
    double center = cm_median(room, known);
    /* Of the distances to the median one is nothing, of an even number two are alike. */
    for (size_t i = 0; i < known; i++)
        room[i] = fabs(room[i] - center);
    qsort(room, known, sizeof *room, descending);
    double freedom = known >= 3 ? (double)known - 1 : 0;
    double scale = known >= 3 ? cm_median(room, known - 1) / MAD_NORMAL : 0;
    scale = fmax(fmax(scale, floor), SCALE_MIN);
    scale *= sqrt(with_median(1, (double)known));
    for (size_t i = 0; i < count; i++) {
        double effect = values[i] - center;
        effects[i] = (struct cm_pair_effect){effect, scale, 1};
        if (isfinite(values[i]))
            effects[i].p = p_below(margin, effect, scale, freedom);
    }
    cm_free(room);
    return CM_OK;
}
