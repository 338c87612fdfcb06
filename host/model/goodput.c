/* Goodput in closed form. */
#include "clustermark/goodput.h"

#include <math.h>

#define DAY_S 86400.0
/* Checkpoints that take more than this share of F are placed by Daly's higher order. */
#define YOUNG_MOST 0.1

double cm_job_mtbf_s(double mtbf_gpu_days, double gpus)
{
    return mtbf_gpu_days * DAY_S / gpus;
}

double cm_mtbf_gpu_days(double failures_per_1000_node_days)
{
    return CM_NODE_GPUS * 1000 / failures_per_1000_node_days;
}

double cm_checkpoint_young_s(double checkpoint_s, double mtbf_s)
{
    return sqrt(2 * checkpoint_s * mtbf_s);
}

double cm_checkpoint_daly_s(double checkpoint_s, double mtbf_s)
{
    double half = checkpoint_s / (2 * mtbf_s);
    if (half >= 1)
        return mtbf_s;
    return cm_checkpoint_young_s(checkpoint_s, mtbf_s) * (1 + sqrt(half) / 3 + half / 9) -
           checkpoint_s;
}

double cm_checkpoint_interval_s(double checkpoint_s, double mtbf_s)
{
    return checkpoint_s > YOUNG_MOST * mtbf_s ? cm_checkpoint_daly_s(checkpoint_s, mtbf_s)
                                              : cm_checkpoint_young_s(checkpoint_s, mtbf_s);
}

static void synchronous(const struct cm_failing_job *job, struct cm_goodput *goodput)
{
    double stalled = fmin(1, job->restart_s / job->mtbf_s), running = 1 - stalled;
    double work = job->interval_s, whole;
    if (work <= 0)
        work = cm_checkpoint_interval_s(job->checkpoint_s, job->mtbf_s);
    goodput->stalled = stalled;
    goodput->interval_s = work;
    goodput->effective = running;
    if (work <= 0)
        return;
    /* Running time that one interval and its checkpoint take, with all that is thrown away. */
    whole = job->mtbf_s * expm1((work + job->checkpoint_s) / job->mtbf_s);
    goodput->effective = running * work / whole;
    goodput->checkpoint = running * job->checkpoint_s / whole;
    goodput->lost = running - goodput->effective - goodput->checkpoint;
}

static void by_replicas(const struct cm_failing_job *job, struct cm_goodput *goodput)
{
    double stall_s = fmin(job->stall_s, job->restart_s);
    double away_s = job->restart_s - stall_s;
    goodput->stalled = fmin(1, stall_s / job->mtbf_s);
    goodput->away = fmin(1 - goodput->stalled, away_s / (job->mtbf_s * job->replicas));
    goodput->effective = 1 - goodput->stalled - goodput->away;
}

void cm_goodput(const struct cm_failing_job *job, struct cm_goodput *goodput)
{
    *goodput = (struct cm_goodput){.effective = 0};
    if (job->replicas > 0)
        by_replicas(job, goodput);
    else
        synchronous(job, goodput);
}

double cm_gpus_out(double gpus, double mtbf_gpu_days, double blast_gpus, double repair_hours)
{
    return fmin(gpus, gpus / mtbf_gpu_days * repair_hours / 24 * blast_gpus);
}

double cm_poisson_quantile(double mean, double p)
{
    /* Terms by their logarithms: exp(-mean) alone would be 0 for large means. */
    double count = 0, term = -mean, below = exp(term), most = mean + 40 * sqrt(mean) + 40;
    while (below < p && count < most) {
        count++;
        term += log(mean / count);
        below += exp(term);
    }
    return count;
}
