/* Communication: rates of groups of GPUs, and messages between stages. */
#include <math.h>

#include "host/model/cost_private.h"

/* A hop of a ring over the network (NCCL's tuning, Simple protocol), and what one message between
 * two nodes takes beside its bytes. */
#define NETWORK_HOP_S   1.4e-5
#define STAGE_MESSAGE_S 2e-5

static double domain(const struct cm_cost_job *job)
{
    return job->domain > 0 ? job->domain : (double)job->gpu->domain;
}

static double network_rate(const struct cm_cost_job *job)
{
    return job->network_rate > 0 ? job->network_rate : job->gpu->network_rate;
}

/* Members of the group that sit in one NVLink domain. */
static double members(const struct cm_cost_job *job, double ranks, double stride)
{
    double here = floor(domain(job) / stride);
    return fmax(1, fmin(ranks, here));
}

double cm_group_rate(const struct cm_cost_job *job, const double *v, double ranks, double stride,
                     double bytes)
{
    double inside = job->gpu->nvlink_rate * v[CM_COST_nvlink_share];
    double here = members(job, ranks, stride);
    if (here >= ranks)
        return inside;
    double each = bytes * here / ranks; /* bytes per node */
    double reached = v[CM_COST_network_share] * each / (each + v[CM_COST_network_half]);
    return fmin(inside, here * network_rate(job) * reached);
}

double cm_overlap_tax(const struct cm_cost_job *job, const double *v, double ranks, double stride)
{
    return v[members(job, ranks, stride) >= ranks ? CM_COST_tax_nvlink : CM_COST_tax_network];
}

double cm_group_latency(const struct cm_cost_job *job, double ranks, double stride)
{
    double here = members(job, ranks, stride);
    return here >= ranks ? 0 : NETWORK_HOP_S * ranks / here;
}

double cm_tree_latency(const struct cm_cost_job *job, double ranks)
{
    return 2 * NETWORK_HOP_S * ceil(log2(fmax(1, ranks / members(job, ranks, 1))));
}

double cm_stage_message(const struct cm_cost_job *job)
{
    return CM_ACTIVATION_BYTES * job->micro_batch * job->sequence * job->hidden /
           (job->cp * job->tp);
}

double cm_stage_time(const struct cm_cost_job *job, const double *v, double bytes)
{
    const struct cm_gpu_spec *gpu = job->gpu;
    double rate = cm_cost_gpus(job) <= domain(job) ? gpu->nvlink_rate * v[CM_COST_nvlink_share]
                                                   : network_rate(job) * v[CM_COST_network_share];
    return bytes / rate + STAGE_MESSAGE_S;
}

/* Both directions, of every chunk, for one micro-batch. */
double cm_stage_cost(const struct cm_cost_job *job, const double *v)
{
    if (job->pp <= 1)
        return 0;
    return v[CM_COST_stage_visible] * 2 * job->vpp * cm_stage_time(job, v, cm_stage_message(job));
}
