/* A run predicted. With anchors, the model's parts (micro-batches, the pipeline's idle time, what
 * comes once a step, what grows with the hosts) are scaled so that it passes the measured runs as
 * near as their noise and the model's own doubt allow. */
#include "host/project/predict.h"

#include <math.h>
#include <string.h>

#include "clustermark/memory.h"

/* The 90th percentile of a normal distribution. */
#define Z90 1.2815515655
/* What the model may be off by, before a run of the series was seen: of what is done in each
 * micro-batch, once per step, and of the spread of hosts; logarithms. */
#define MICRO_DOUBT 0.25
#define IDLE_DOUBT  0.3
#define ONCE_DOUBT  1.3
/* Hosts of one system differ more than all sources' do on average, which the calibration has. */
#define HOSTS_GUESS 1.6
#define HOSTS_DOUBT 1.0
/* Of a measured run from the model of its series, of anchors with the same layout and depth and
 * with others; and of the run that is predicted. */
#define ANCHOR_NOISE 0.010
#define LAYOUT_NOISE 0.015
#define RUN_NOISE    0.004
/* The line through two anchors and the model see different things; a mean of both errs less. */
#define LINE_SHARE            0.4
#define ANCHORS_MOST          64
#define PARTS                 4
#define STEPS                 12
#define LOG2_OF_GROWTH_SPREAD 0.006 /* for every doubling of GPUs beyond the largest anchor */

void cm_anchors_release(struct cm_anchors *anchors)
{
    cm_free(anchors->jobs);
    cm_free(anchors->steps_s);
    memset(anchors, 0, sizeof *anchors);
}

enum cm_status cm_anchors_add(struct cm_anchors *anchors, const struct cm_cost_job *job,
                              double step_s)
{
    size_t capacity = anchors->capacity;
    if (cm_grow(&anchors->jobs, &capacity, anchors->count + 1, sizeof *anchors->jobs) != 0)
        return CM_NO_MEMORY;
    if (cm_grow(&anchors->steps_s, &anchors->capacity, anchors->count + 1,
                sizeof *anchors->steps_s) != 0)
        return CM_NO_MEMORY;
    anchors->jobs[anchors->count] = job;
    anchors->steps_s[anchors->count++] = step_s;
    return CM_OK;
}

static enum cm_status find(const struct cm_run_table *from, const struct cm_run_table *of,
                           const struct cm_run_row *row, bool same_variant,
                           struct cm_anchors *anchors)
{
    for (size_t i = 0; i < from->count; i++) {
        const struct cm_run_row *other = &from->rows[i];
        if (other->reason[0] != '\0' || row->reason[0] != '\0' || !cm_run_same_series(other, row) ||
            cm_run_equal(from, other, of, row) ||
            (same_variant && strcmp(other->variant, row->variant) != 0))
            continue;
        double step_s = cm_run_measured(from, other);
        enum cm_status status = step_s > 0 ? cm_anchors_add(anchors, &other->job, step_s) : CM_OK;
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

enum cm_status cm_anchors_find(const struct cm_run_table *from, const struct cm_run_table *of,
                               const struct cm_run_row *row, struct cm_anchors *anchors)
{
    anchors->count = 0;
    enum cm_status status = find(from, of, row, true, anchors);
    if (status == CM_OK && anchors->count == 0)
        status = find(from, of, row, false, anchors);
    return status;
}

/* ---- simple rules ---- */

static double tokens(const struct cm_cost_job *job)
{
    return job->dp * job->micro_batches * job->micro_batch * job->sequence;
}

static double slots(const struct cm_cost_job *job)
{
    return job->micro_batch * (job->micro_batches + (job->pp - 1) / job->vpp);
}

/* Of equal layout and depth: u then means the same work. */
static bool alike(const struct cm_cost_job *a, const struct cm_cost_job *b)
{
    return a->tp == b->tp && a->cp == b->cp && a->pp == b->pp && a->vpp == b->vpp &&
           a->layers == b->layers && a->sequence == b->sequence;
}

static void two_anchors(const struct cm_cost_job *job, const struct cm_anchors *anchors,
                        size_t smallest, struct cm_baselines *baselines)
{
    size_t next = anchors->count;
    for (size_t i = 0; i < anchors->count; i++) {
        const struct cm_cost_job *other = anchors->jobs[i];
        if (i == smallest || !alike(other, job) || slots(other) == slots(anchors->jobs[smallest]))
            continue;
        if (next == anchors->count || cm_cost_gpus(other) < cm_cost_gpus(anchors->jobs[next]))
            next = i;
    }
    if (next == anchors->count || !alike(anchors->jobs[smallest], job))
        return;
    double u = slots(anchors->jobs[smallest]), t = anchors->steps_s[smallest];
    double slope = (anchors->steps_s[next] - t) / (slots(anchors->jobs[next]) - u);
    double step = t + slope * (slots(job) - u);
    if (!(slope > 0 && step > 0))
        return;
    baselines->two_anchor_s = step;
    baselines->gpus[1] = cm_cost_gpus(anchors->jobs[next]);
}

/* Per token and GPU, scaled by the layers that a GPU has to do for a token. */
void cm_simple_rules(const struct cm_cost_job *job, const struct cm_anchors *anchors,
                     struct cm_baselines *baselines)
{
    size_t smallest = anchors->count;
    for (size_t i = 0; i < anchors->count; i++) {
        bool better = smallest == anchors->count ||
                      (alike(anchors->jobs[i], job) && !alike(anchors->jobs[smallest], job));
        bool worse = smallest < anchors->count && !alike(anchors->jobs[i], job) &&
                     alike(anchors->jobs[smallest], job);
        if (better ||
            (!worse && cm_cost_gpus(anchors->jobs[i]) < cm_cost_gpus(anchors->jobs[smallest])))
            smallest = i;
    }
    if (smallest == anchors->count)
        return;
    const struct cm_cost_job *base = anchors->jobs[smallest];
    double work = tokens(job) / cm_cost_gpus(job) * job->layers;
    double base_work = tokens(base) / cm_cost_gpus(base) * base->layers;
    double idle = slots(job) / (job->micro_batch * job->micro_batches);
    double base_idle = slots(base) / (base->micro_batch * base->micro_batches);
    baselines->null_s = anchors->steps_s[smallest] * work / base_work;
    baselines->bubble_s = baselines->null_s * idle / base_idle;
    baselines->gpus[0] = cm_cost_gpus(base);
    two_anchors(job, anchors, smallest, baselines);
}

/* ---- the model, moved ---- */

struct moved {
    double step, slope[PARTS]; /* of the step's logarithm by each scale's */
};

static void move(const struct cm_step_cost *cost, const double logs[PARTS], struct moved *moved)
{
    double without = cost->step - cost->straggler;
    double once = cost->data + cost->optimizer + cost->fixed;
    double parts[] = {without - once - cost->bubble, cost->bubble, once};
    double sum = 0, hosts = HOSTS_GUESS * cost->straggler / without * exp(logs[3]);
    for (int i = 0; i < 3; i++)
        sum += parts[i] *= exp(logs[i]);
    for (int i = 0; i < 3; i++)
        moved->slope[i] = parts[i] / sum;
    moved->slope[3] = hosts / (1 + hosts);
    moved->step = sum * (1 + hosts);
}

static const double doubts[PARTS] = {MICRO_DOUBT, IDLE_DOUBT, ONCE_DOUBT, HOSTS_DOUBT};

/* Gauss and Jordan's method; a is positive, so that no row has to be exchanged. */
static void invert(double a[PARTS][PARTS], double inverse[PARTS][PARTS])
{
    for (int i = 0; i < PARTS; i++)
        for (int j = 0; j < PARTS; j++)
            inverse[i][j] = i == j;
    for (int i = 0; i < PARTS; i++) {
        double pivot = a[i][i];
        for (int j = 0; j < PARTS; j++) {
            a[i][j] /= pivot;
            inverse[i][j] /= pivot;
        }
        for (int k = 0; k < PARTS; k++) {
            double factor = a[k][i];
            for (int j = 0; k != i && j < PARTS; j++) {
                a[k][j] -= factor * a[i][j];
                inverse[k][j] -= factor * inverse[i][j];
            }
        }
    }
}

/* The scales of the parts that fit the anchors best, and how sure they are. */
static void fit_scales(const struct cm_cost_job *job, const struct cm_calibration *calibration,
                       const struct cm_anchors *anchors, double logs[PARTS],
                       double covariance[PARTS][PARTS])
{
    struct moved moved;
    struct cm_step_cost cost;
    memset(logs, 0, sizeof(double[PARTS]));
    for (int round = 0; round < STEPS; round++) {
        double a[PARTS][PARTS] = {{0}}, b[PARTS] = {0};
        for (int k = 0; k < PARTS; k++) {
            a[k][k] = 1 / (doubts[k] * doubts[k]);
            b[k] = -logs[k] / (doubts[k] * doubts[k]);
        }
        for (size_t i = 0; i < anchors->count; i++) {
            const struct cm_cost_job *other = anchors->jobs[i];
            double noise = alike(other, job) ? ANCHOR_NOISE : LAYOUT_NOISE;
            cm_step_cost(other, calibration->value, &cost);
            move(&cost, logs, &moved);
            double off = log(anchors->steps_s[i] / moved.step);
            for (int k = 0; k < PARTS; k++) {
                b[k] += moved.slope[k] * off / (noise * noise);
                for (int l = 0; l < PARTS; l++)
                    a[k][l] += moved.slope[k] * moved.slope[l] / (noise * noise);
            }
        }
        invert(a, covariance);
        for (int k = 0; k < PARTS; k++)
            for (int l = 0; l < PARTS; l++)
                logs[k] += covariance[k][l] * b[l];
    }
}

/* What the line through two anchors says, with what the model says of such a line's own error. */
static void correct(const struct cm_cost_job *job, const struct cm_calibration *calibration,
                    const struct cm_anchors *anchors, const double logs[PARTS],
                    struct cm_prediction *prediction)
{
    struct cm_anchors modelled = *anchors;
    struct cm_baselines line = {.null_s = 0};
    double steps_s[ANCHORS_MOST];
    if (prediction->baselines.two_anchor_s <= 0 || anchors->count > ANCHORS_MOST)
        return;
    for (size_t i = 0; i < anchors->count; i++) {
        struct cm_step_cost cost;
        struct moved moved;
        cm_step_cost(anchors->jobs[i], calibration->value, &cost);
        move(&cost, logs, &moved);
        steps_s[i] = moved.step;
    }
    modelled.steps_s = steps_s;
    cm_simple_rules(job, &modelled, &line);
    if (line.two_anchor_s <= 0)
        return;
    double corrected = prediction->baselines.two_anchor_s * prediction->step_s / line.two_anchor_s;
    prediction->step_s = pow(prediction->step_s, 1 - LINE_SHARE) * pow(corrected, LINE_SHARE);
}

static void follow_anchors(const struct cm_cost_job *job, const struct cm_calibration *calibration,
                           const struct cm_anchors *anchors, struct cm_prediction *prediction)
{
    double logs[PARTS], covariance[PARTS][PARTS], largest = 1;
    struct moved moved;
    bool same = false;
    fit_scales(job, calibration, anchors, logs, covariance);
    move(&prediction->cost, logs, &moved);
    for (size_t i = 0; i < anchors->count; i++) {
        same = same || alike(anchors->jobs[i], job);
        largest = fmax(largest, cm_cost_gpus(anchors->jobs[i]));
    }
    double noise = same ? RUN_NOISE : LAYOUT_NOISE;
    double growth = fmax(0, log2(cm_cost_gpus(job) / largest)) * LOG2_OF_GROWTH_SPREAD;
    double variance = noise * noise + growth * growth;
    for (int k = 0; k < PARTS; k++)
        for (int l = 0; l < PARTS; l++)
            variance += moved.slope[k] * covariance[k][l] * moved.slope[l];
    prediction->step_s = moved.step;
    prediction->spread = sqrt(variance);
    prediction->anchors = anchors->count;
    cm_simple_rules(job, anchors, &prediction->baselines);
    correct(job, calibration, anchors, logs, prediction);
}

void cm_predict(const struct cm_cost_job *job, const struct cm_calibration *calibration,
                unsigned assumed, const struct cm_anchors *anchors,
                struct cm_prediction *prediction)
{
    memset(prediction, 0, sizeof *prediction);
    cm_step_cost(job, calibration->value, &prediction->cost);
    prediction->step_s = prediction->cost.step;
    if (anchors != NULL && anchors->count > 0)
        follow_anchors(job, calibration, anchors, prediction);
    else
        prediction->spread = cm_cost_spread(job, calibration, assumed);
    prediction->p10_s = prediction->step_s * exp(-Z90 * prediction->spread);
    prediction->p90_s = prediction->step_s * exp(Z90 * prediction->spread);
}
