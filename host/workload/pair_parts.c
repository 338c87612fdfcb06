/* Copies and messages of two sizes between pairs: sizes, what came, figures. */
#include "host/workload/pair_parts.h"

#include <math.h>
#include <stdio.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"

enum cm_status cm_two_sizes_check(uint64_t size_bytes, uint64_t latency_bytes, const char *where)
{
    const uint64_t sizes[] = {size_bytes, latency_bytes};
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "size" : "latency_size";
        if (sizes[i] % 4 != 0)
            return cm_error(CM_USAGE, "%s: %s is no multiple of 4 bytes", where, name);
        if (sizes[i] > (uint64_t)1 << 56)
            return cm_error(CM_USAGE, "%s: %s is over 2^56 bytes", where, name);
    }
    return CM_OK;
}

enum cm_status cm_take_bytes(struct cm_context *context, enum cm_memory_kind kind, uint64_t bytes,
                             char **memory)
{
    void *block;
    enum cm_status status = cm_context_alloc(context, kind, bytes, &block);
    if (status == CM_OK)
        *memory = block;
    return status;
}

enum cm_status cm_pair_exchange(struct cm_comm *comm, struct cm_stream *stream, const void *send,
                                void *recv, uint64_t count, unsigned peer)
{
    enum cm_status status = comm->ops->group_begin(comm);
    if (status != CM_OK)
        return status;
    status = comm->ops->send(comm, stream, send, count, CM_F32, peer);
    if (status == CM_OK)
        status = comm->ops->recv(comm, stream, recv, count, CM_F32, peer);
    enum cm_status ended = comm->ops->group_end(comm);
    return status != CM_OK ? status : ended;
}

enum cm_status cm_arrival_check(struct cm_context *context, const struct cm_arrival *arrival,
                                struct cm_check *check)
{
    const struct cm_kernels *kernels = context->device->kernels;
    struct cm_verify_result *verdict = arrival->verdict;
    enum cm_status status = kernels->fill_normal(context->stream, arrival->scratch, arrival->count,
                                                 CM_F32, arrival->seed, arrival->first);
    if (status == CM_OK)
        status = kernels->verify(context->stream, arrival->memory, arrival->scratch, arrival->count,
                                 CM_F32, 0, 0, verdict);
    if (status == CM_OK)
        status = cm_context_sync(context);
    if (status != CM_OK)
        return status;
    check->checked += verdict->checked;
    if (verdict->mismatches == 0)
        return CM_OK;
    if (check->mismatches == 0)
        snprintf(check->detail, sizeof check->detail,
                 "rank %u set %u: element %llu is not what rank %u %s", context->comm->rank,
                 arrival->set, (unsigned long long)verdict->first_index, arrival->sender,
                 arrival->did);
    check->mismatches += verdict->mismatches;
    check->worst = (double)INFINITY;
    return CM_OK;
}

static enum cm_status add(struct cm_metrics *metrics, const char *name, bool rate, double value,
                          const char *ends)
{
    struct cm_metric *metric;
    enum cm_status status = cm_metrics_add(metrics, name, value, rate ? "B/s" : "s",
                                           rate ? CM_HIGHER : CM_LOWER, &metric);
    if (status == CM_OK)
        snprintf(metric->ceiling_source, sizeof metric->ceiling_source,
                 "not known: the rate of the link between %s", ends);
    return status;
}

/* A part's name is that of its metric. */
static double value_of(const struct cm_part_samples *part, bool rate)
{
    double operations = part->work.operations > 0 ? part->work.operations : 1;
    return rate ? part->work.message_bytes / part->median_s : part->median_s / operations;
}

enum cm_status cm_pair_figures(const struct cm_metric_input *input, const char *ends,
                               struct cm_metrics *metrics)
{
    unsigned pairs = input->part_count / 2;
    double *values = cm_alloc(pairs, sizeof *values);
    enum cm_status status = values != NULL ? CM_OK : CM_NO_MEMORY;
    for (unsigned kind = 2; kind-- > 0 && status == CM_OK;) {
        bool rate = cm_part_is_bandwidth(kind);
        for (unsigned pair = 0; pair < pairs; pair++)
            values[pair] = value_of(&input->parts[2 * pair + kind], rate);
        status = add(metrics, rate ? "bandwidth" : "latency", rate, cm_median(values, pairs), ends);
        for (unsigned pair = 0; pair < pairs && pairs > 1 && status == CM_OK; pair++)
            status =
                add(metrics, input->parts[2 * pair + kind].part.name, rate, values[pair], ends);
    }
    cm_free(values);
    return status;
}
