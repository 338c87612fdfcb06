/*
 * crowd.h: a world of very many ranks in one process, for what the harness and the result cost on
 * the reporting rank.
 *
 * crowd_open gives rank 0 a communicator whose other ranks do what rank 0 does: they give the same
 * bytes to a gathering and the same numbers to a vote. crowd_run makes a finished run of a case as
 * rank 0 has it: times of every rank by its own noise, a few slow ranks, devices, telemetry.
 */
#ifndef TESTS_CROWD_H
#define TESTS_CROWD_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/kernels.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/comm/queue.h"

struct crowd {
    struct cm_queue queue;
    uint64_t votes, gathers; /* collectives of the harness so far */
    uint64_t sent_bytes, received_bytes;
};

static inline enum cm_status crowd_execute(struct cm_queue *queue, struct cm_stream *stream,
                                           const struct cm_comm_op *op)
{
    struct crowd *crowd = (struct crowd *)queue;
    size_t size = op->count * cm_dtype_size(op->dtype);
    (void)stream;
    crowd->sent_bytes += size;
    if (op->kind == CM_COMM_ALL_GATHER) {
        crowd->gathers++;
        crowd->received_bytes += size * queue->comm.size;
        for (unsigned rank = 0; rank < queue->comm.size; rank++)
            memmove((char *)op->recv + rank * size, op->send, size);
        return CM_OK;
    }
    crowd->votes++;
    crowd->received_bytes += size;
    if (op->kind != CM_COMM_BROADCAST && op->recv != op->send)
        memmove(op->recv, op->send, size);
    return CM_OK;
}

static inline void crowd_close(struct cm_comm *comm)
{
    if (comm != NULL && cm_queue_release((struct cm_queue *)comm))
        cm_free(comm);
}

static const struct cm_comm_ops crowd_ops = {
    .name = "crowd",
    .summary = "ranks that do as rank 0 does",
    .close = crowd_close,
    CM_QUEUE_HOOKS,
};

static inline enum cm_status crowd_open(struct cm_device *device, unsigned ranks,
                                        struct cm_comm **comm)
{
    static const struct cm_queue_backend backend = {.execute = crowd_execute};
    struct crowd *crowd = cm_alloc(1, sizeof *crowd);
    if (crowd == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_queue_init(&crowd->queue, &crowd_ops, &backend, device, 0, ranks);
    if (status != CM_OK) {
        cm_free(crowd);
        return status;
    }
    strcpy(crowd->queue.comm.implementation, "Crowd 1");
    *comm = &crowd->queue.comm;
    return CM_OK;
}

/* About normal, deviation 1: a sum of four uniform numbers. */
static inline double crowd_noise(uint64_t *state)
{
    double sum = -2;
    for (int i = 0; i < 4; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*state >> 33) * 0x1p-31;
    }
    return sum * 1.7320508;
}

/* Every rank that this divides is slow. */
#define CROWD_SLOW    2000
#define CROWD_SAMPLES 200

static inline bool crowd_is_slow(unsigned rank)
{
    return rank % CROWD_SLOW == CROWD_SLOW / 2;
}

static inline void crowd_devices(struct cm_case_run *run)
{
    for (unsigned rank = 0; rank < run->rank_count; rank++) {
        struct cm_device_info *info = &run->devices[rank];
        char binding[64];
        snprintf(info->name, sizeof info->name, "NVIDIA H200");
        snprintf(info->kind, sizeof info->kind, "cuda");
        snprintf(info->features, sizeof info->features, "sm_90");
        snprintf(info->bus_id, sizeof info->bus_id, "0000:%02x:00.0", 0x1b + 0x11 * (rank % 8));
        snprintf(info->uuid, sizeof info->uuid, "%012x", rank * 2654435761u);
        info->units = 132;
        info->clock_hz = 1.98e9;
        info->memory_total_bytes = info->memory_bytes = 141u * UINT64_C(1000000000);
        info->cache_bytes = 50 << 20;
        info->memory_rate.value = 4.8e12;
        snprintf(info->memory_rate.source, sizeof info->memory_rate.source, "5120 bits x 3.0 GHz");
        for (int type = 0; type < CM_DTYPE_COUNT; type++) {
            info->flop_rate[type].value = 9.9e14;
            snprintf(info->flop_rate[type].source, sizeof info->flop_rate[type].source,
                     "132 SMs x 4096 FLOP/clock x 1.98 GHz");
        }
        snprintf(binding, sizeof binding, "cpus %u-%u nodes %u", rank % 8 * 12, rank % 8 * 12 + 11,
                 rank % 8 / 4);
        run->bindings[rank] = cm_strdup(binding);
        run->telemetry[rank] = cm_telemetry_unknown;
        run->telemetry[rank].clock_hz = crowd_is_slow(rank) ? 1.2e9 : 1.98e9;
        run->telemetry[rank].power_w = 690 + rank % 11;
        run->telemetry[rank].temperature_c = 55 + rank % 13;
        run->telemetry[rank].throttled_fraction = crowd_is_slow(rank) ? 0.5 : 0;
        if (crowd_is_slow(rank))
            snprintf(run->telemetry[rank].throttle_reasons,
                     sizeof run->telemetry[rank].throttle_reasons, "hw_thermal_slowdown");
        snprintf(run->telemetry[rank].modes, sizeof run->telemetry[rank].modes, "persistence");
    }
}

static inline enum cm_status crowd_part(struct cm_part_samples *part, unsigned ranks,
                                        uint64_t *state)
{
    double base_s = 1e-3;
    part->rank_count = ranks;
    part->rank_median_s = cm_alloc(ranks, sizeof *part->rank_median_s);
    part->rank_last_s = cm_alloc(ranks, sizeof *part->rank_last_s);
    if (part->rank_median_s == NULL || part->rank_last_s == NULL)
        return CM_NO_MEMORY;
    for (unsigned rank = 0; rank < ranks; rank++) {
        double slow = crowd_is_slow(rank) ? 1.25 : 1;
        part->rank_median_s[rank] = base_s * slow * (1 + 0.01 * crowd_noise(state));
        part->rank_last_s[rank] = part->rank_median_s[rank];
    }
    enum cm_status status = CM_OK;
    for (int i = 0; i < CROWD_SAMPLES && status == CM_OK; i++)
        status =
            cm_samples_add(&part->slowest, base_s * 1.3 * (1 + 0.01 * fabs(crowd_noise(state))));
    part->median_s = cm_median(part->slowest.values, part->slowest.count);
    part->work =
        (struct cm_work){.flops = 1e12, .bytes = 3e9, .message_bytes = 1 << 20, .operations = 1};
    return status;
}

/* The figures by the workload's own hook where it wants no more than this. */
static inline enum cm_status crowd_figures(const struct cm_case *item, struct cm_case_run *run)
{
    static const char *const whole[] = {"gemm", "membw", "collective"};
    const struct cm_workload *workload = item->workload;
    struct cm_metric_input input = {.params = item->params,
                                    .device = &run->devices[0],
                                    .ranks = run->rank_count,
                                    .parts = run->parts,
                                    .part_count = run->part_count,
                                    .telemetry = run->telemetry};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        if (strcmp(workload->name, whole[i]) == 0)
            return workload->metrics(&input, &run->metrics);
    }
    return cm_metrics_add(&run->metrics, workload->headline, 1 / run->parts[0].median_s, "1/s",
                          CM_HIGHER, NULL);
}

/* Of a suite's case among so many ranks; release it with cm_case_run_release. */
static inline enum cm_status crowd_run(const struct cm_plan *plan, size_t index, uint64_t number,
                                       unsigned ranks, struct cm_case_run *run)
{
    const struct cm_case *item = &plan->cases[index];
    uint64_t state = index * 1000 + number + 1;
    *run = (struct cm_case_run){.case_index = index,
                                .run = number,
                                .stop_reason = "steady",
                                .started_unix_s = 1772600000 + 60 * (double)(number + 1),
                                .wall_s = 60,
                                .check = {.checked = 1000, .worst = 0.5},
                                .comm = "nccl",
                                .comm_library = "NCCL 2.28.9",
                                .part_count = strstr(item->section, "soak") != NULL ? 2 : 1,
                                .rank_count = ranks};
    run->devices = cm_alloc(ranks, sizeof *run->devices);
    run->bindings = cm_alloc(ranks, sizeof(char *));
    run->telemetry = cm_alloc(ranks, sizeof *run->telemetry);
    run->parts = cm_alloc(run->part_count, sizeof *run->parts);
    if (run->devices == NULL || run->bindings == NULL || run->telemetry == NULL ||
        run->parts == NULL)
        return CM_NO_MEMORY;
    crowd_devices(run);
    if (strcmp(item->workload->name, "sendrecv") == 0 || strcmp(item->workload->name, "p2p") == 0) {
        run->status = CM_CASE_SKIPPED;
        snprintf(run->reason, sizeof run->reason, "%s has too many pairs", item->workload->name);
        return CM_OK;
    }
    enum cm_status status = CM_OK;
    for (unsigned part = 0; part < run->part_count && status == CM_OK; part++)
        status = crowd_part(&run->parts[part], ranks, &state);
    return status == CM_OK ? crowd_figures(item, run) : status;
}

#endif
