/*
 * goodput.h: how much of its time a job trains when parts of the cluster fail. Pure: numbers in,
 * numbers out.
 *
 * Failures come at random (Poisson) in wall time, on average every F seconds. After each of them
 * the job stands still for u seconds, until what failed is found and replaced and the job runs
 * again; failures that come meanwhile are served one after the other, so that the job runs for
 * 1 - u / F of the time (the idle share of a queue). This is the convention of the published
 * figures: Kokolis et al. (2410.21680), FT-HSDP (2602.00277). Did a failure begin the restart of
 * the one before it anew, for both at once, the share would be exp(-u / F): 57 % where Meta had 44
 * %.
 *
 * Synchronous: a failure also throws away what was done since the last checkpoint. With D seconds
 * of work between checkpoints that stop the job for w, and F without memory, the running time
 * yields D / (F (exp((D + w) / F) - 1)) (Daly 2006). To first order this is Kokolis's
 * (1 - (u + D / 2) / F) / (1 + w / D).
 *
 * Replicas: the job is R data-parallel replicas; only the one that failed restarts, all stand still
 * for s < u, and the failed one is away for another u - s of running time. Its state comes from the
 * others, so nothing is thrown away: 1 - s / F - (u - s) / (F R).
 */
#ifndef CLUSTERMARK_GOODPUT_H
#define CLUSTERMARK_GOODPUT_H

#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"

#define CM_NODE_GPUS 8 /* of the nodes in "failures per node-day", as papers count them */

/* Seconds between failures of a job, from GPU-days between failures of one GPU. */
double cm_job_mtbf_s(double mtbf_gpu_days, double gpus);
/* GPU-days between failures of one GPU, from failures per 1000 node-days. */
double cm_mtbf_gpu_days(double failures_per_1000_node_days);

/* Work between checkpoints, seconds: Young (1974), and Daly's higher order (2006), which holds
 * where checkpoints take no small part of F. The last takes Daly's where w / F > 0.1. */
double cm_checkpoint_young_s(double checkpoint_s, double mtbf_s);
double cm_checkpoint_daly_s(double checkpoint_s, double mtbf_s);
double cm_checkpoint_interval_s(double checkpoint_s, double mtbf_s);

struct cm_failing_job {
    double mtbf_s;       /* F */
    double restart_s;    /* u: found, replaced, running again */
    double checkpoint_s; /* w: that a checkpoint stops the job; 0: nothing, and nothing is lost */
    double interval_s;   /* D; 0: the best, as above */
    double replicas;     /* R; 0: synchronous recovery */
    double stall_s;      /* s; of replicas alone; u where it is more */
};
/* Shares of the job's time; they add up to 1. */
struct cm_goodput {
    double effective;  /* training that counts */
    double stalled;    /* standing still after failures */
    double lost;       /* done again */
    double checkpoint; /* stopped for checkpoints */
    double away;       /* replicas that restart while others train */
    double interval_s; /* between checkpoints */
};
void cm_goodput(const struct cm_failing_job *job, struct cm_goodput *goodput);

/* The same by events: `failures` of them at random, the share of the time that trained, and its
 * standard error. Equal seeds give equal answers. */
enum cm_status cm_goodput_simulate(const struct cm_failing_job *job, uint64_t failures,
                                   uint64_t seed, double *effective, double *error);

/* GPUs out of service on average: each failure takes `blast_gpus` (8 of a node, 72 of a rack) for
 * the repair. */
double cm_gpus_out(double gpus, double mtbf_gpu_days, double blast_gpus, double repair_hours);
/* The least count that a Poisson variable of that mean does not exceed with probability p. */
double cm_poisson_quantile(double mean, double p);

/* One of 0 <= x < 1, and one of a normal distribution: what follows *seed (splitmix64). */
double cm_draw_uniform(uint64_t *seed);
double cm_draw_normal(uint64_t *seed);

#endif
