/* Mixture of experts: which token goes where, and its gradient. */
#include "kernels/cpu/train.h"

/* Rows whose choices are counted together, and the most experts and choices of a row there are
 * (ops.h). */
#define BLOCK_ROWS  128
#define EXPERTS_MAX 256
#define TOP_K_MAX   8

struct job {
    struct cm_route route;
    const float *logits, *weight_in, *dweight;
    const int32_t *expert_in;
    int32_t *slot, *expert;
    float *weight, *dlogits;
    uint32_t *counts;
    uint32_t *before; /* [block][expert]: choices in the block, then in all blocks before */
};

/* The largest logits in order, the lower number first among equals. */
static void choose(const float *logits, uint32_t experts, uint32_t top_k, int32_t *expert,
                   float *logit)
{
    uint32_t have = 0;
    for (uint32_t e = 0; e < experts && top_k > 0; e++) {
        if (have == top_k && !(logits[e] > logit[have - 1]))
            continue;
        uint32_t place = have < top_k ? have++ : have - 1;
        for (; place > 0 && logits[e] > logit[place - 1]; place--) {
            logit[place] = logit[place - 1];
            expert[place] = expert[place - 1];
        }
        logit[place] = logits[e];
        expert[place] = (int32_t)e;
    }
}

static void choose_blocks(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    uint32_t experts = job->route.experts, top_k = job->route.top_k;
    for (uint64_t block = begin; block < end; block++) {
        uint32_t *counts = job->before + block * experts;
        memset(counts, 0, experts * sizeof *counts);
        uint64_t last = (block + 1) * BLOCK_ROWS;
        last = last < job->route.rows ? last : job->route.rows;
        for (uint64_t row = block * BLOCK_ROWS; row < last; row++) {
            int32_t *expert = job->expert + row * top_k;
            float *weight = job->weight + row * top_k, logit[TOP_K_MAX] = {0}, sum = 0;
            choose(job->logits + row * experts, experts, top_k, expert, logit);
            for (uint32_t j = 0; j < top_k; j++) {
                weight[j] = expf(logit[j] - logit[0]);
                sum += weight[j];
                counts[expert[j]]++;
            }
            for (uint32_t j = 0; j < top_k; j++)
                weight[j] /= sum;
        }
    }
}

static void place_blocks(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    uint32_t experts = job->route.experts, top_k = job->route.top_k;
    for (uint64_t block = begin; block < end; block++) {
        uint32_t *next = job->before + block * experts;
        uint64_t last = (block + 1) * BLOCK_ROWS;
        last = last < job->route.rows ? last : job->route.rows;
        for (uint64_t i = block * BLOCK_ROWS * top_k; i < last * top_k; i++) {
            uint64_t expert = (uint64_t)job->expert[i], place = next[expert]++;
            job->slot[i] =
                place < job->route.capacity ? (int32_t)(expert * job->route.capacity + place) : -1;
        }
    }
}

static enum cm_status run_route(const void *args)
{
    struct job job = *(const struct job *)args;
    uint64_t blocks = (job.route.rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    cm_team_run(choose_blocks, &job, blocks, 1);
    for (uint32_t e = 0; e < job.route.experts; e++) {
        uint32_t sum = 0;
        for (uint64_t block = 0; block < blocks; block++) {
            uint32_t *count = &job.before[block * job.route.experts + e], here = *count;
            *count = sum;
            sum += here;
        }
        job.counts[e] = sum;
    }
    cm_team_run(place_blocks, &job, blocks, 1);
    return CM_OK;
}

static enum cm_status check_route(const struct cm_route *route)
{
    bool fits = route->experts <= EXPERTS_MAX && route->top_k >= 1 && route->top_k <= TOP_K_MAX &&
                route->top_k <= route->experts;
    if (fits)
        return CM_OK;
    return cm_error(CM_USAGE, "route: %u of %u experts; at most %d of %d", route->top_k,
                    route->experts, TOP_K_MAX, EXPERTS_MAX);
}

enum cm_status cm_cpu_route(struct cm_stream *stream, const struct cm_route *route,
                            const float *logits, int32_t *slot, int32_t *expert, float *weight,
                            uint32_t *counts, void *scratch)
{
    struct job job = {.route = *route,
                      .logits = logits,
                      .slot = slot,
                      .expert = expert,
                      .weight = weight,
                      .counts = counts,
                      .before = scratch};
    enum cm_status status = check_route(route);
    return status != CM_OK
               ? status
               : stream->device->ops->call(stream, run_route, &job, sizeof job, "route");
}

static void back_rows(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    uint32_t experts = job->route.experts, top_k = job->route.top_k;
    for (uint64_t row = begin; row < end; row++) {
        const int32_t *expert = job->expert_in + row * top_k;
        const float *weight = job->weight_in + row * top_k, *dweight = job->dweight + row * top_k;
        float *dlogits = job->dlogits + row * experts, mean = 0;
        for (uint32_t j = 0; j < top_k; j++)
            mean += weight[j] * dweight[j];
        memset(dlogits, 0, experts * sizeof *dlogits);
        for (uint32_t j = 0; j < top_k; j++)
            dlogits[expert[j]] = weight[j] * (dweight[j] - mean);
    }
}

static enum cm_status run_route_backward(const void *args)
{
    struct job job = *(const struct job *)args;
    cm_team_run(back_rows, &job, job.route.rows, cm_row_grain(job.route.experts));
    return CM_OK;
}

enum cm_status cm_cpu_route_backward(struct cm_stream *stream, const struct cm_route *route,
                                     const int32_t *expert, const float *weight,
                                     const float *dweight, float *dlogits)
{
    struct job job = {.route = *route,
                      .expert_in = expert,
                      .weight_in = weight,
                      .dweight = dweight,
                      .dlogits = dlogits};
    return stream->device->ops->call(stream, run_route_backward, &job, sizeof job,
                                     "route_backward");
}
