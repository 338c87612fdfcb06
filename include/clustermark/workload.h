/*
 * workload.h: what is measured. A workload is one file, host/workload/<name>.c, that defines one
 * symbol, `const struct cm_workload cm_workload_<name>`; CMake collects them into cm_workloads[].
 *
 * A workload prepares buffers, queues one iteration, states how much work that is, and checks the
 * timed buffers afterwards. The harness owns everything else: warm-up, barriers, events, the
 * stopping rule, samples, poisoning of outputs, the vote of the ranks, reporting.
 *
 * A workload has one part or several (overlap: compute, comm, both). Each part is timed for itself.
 */
#ifndef CLUSTERMARK_WORKLOAD_H
#define CLUSTERMARK_WORKLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/comm.h"
#include "clustermark/device.h"
#include "clustermark/kernels.h"
#include "clustermark/option.h"
#include "clustermark/stats.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"

struct cm_context_private;

/* What the harness gives to a workload; one per rank and case. */
struct cm_context {
    struct cm_device *device;
    struct cm_comm *comm;     /* all ranks of the case; `self` for one rank */
    struct cm_stream *stream; /* the timed stream */
    struct cm_stream *side;   /* priority 1: for communication beside compute */
    uint64_t seed;            /* the same on every rank, another in every run: cm_random_seed */
    double timeout_s;         /* for a sync of this phase */
    const unsigned *node_of;  /* per rank: 0, 1, ..., in the order of their first ranks */
    struct cm_context_private *hidden;
};

/* Memory of the device that lives until teardown is done; the harness frees it. The message of a
 * failure names the bytes asked for and those that are left. */
enum cm_status cm_context_alloc(struct cm_context *context, enum cm_memory_kind kind,
                                uint64_t size_bytes, void **memory);

/* Declare a buffer from cm_context_alloc as output: before each part the harness fills it with a
 * pattern that is NAN in every floating type, so that what was not written is found by `check`. */
enum cm_status cm_context_output(struct cm_context *context, void *memory, uint64_t size_bytes);

/* How many sets of buffers of `set_bytes` to rotate through, so that together they are at least
 * twice the last-level cache: at least 1, at most 64, and never more than a quarter of the memory
 * left. Iteration i uses set i % sets. Agreed among the ranks (the smallest wins), so every rank
 * must call it. */
enum cm_status cm_context_rotation(struct cm_context *context, uint64_t set_bytes, unsigned *sets);

/* Bytes this rank may still allocate; agreed among the ranks like the rotation. */
enum cm_status cm_context_memory_left(struct cm_context *context, uint64_t *size_bytes);
/* Bytes that this rank has allocated so far. */
uint64_t cm_context_memory_used(const struct cm_context *context);

/* `size` bytes (at most 4096) of each rank, in order, on every rank; every rank must call it. *all
 * is good until the next call of the context. */
enum cm_status cm_context_gather(struct cm_context *context, const void *own, size_t size,
                                 const void **all);

/* A stream beside the timed one, for work that is forked from and joined to it by events. The
 * harness syncs it after the timed one, whatever became of that, and destroys it. */
enum cm_status cm_context_stream(struct cm_context *context, int priority,
                                 struct cm_stream **stream);

/* A part of context->comm, as the communicator's split; every rank must call it. *part is NULL for
 * a rank of color CM_SPLIT_NONE. While the harness waits it looks at the part's health too, and it
 * closes it. */
enum cm_status cm_context_split(struct cm_context *context, int color, int key,
                                struct cm_comm **part);

/* Wait for the timed stream and all others of the case within the phase's deadline. CM_TIMEOUT when
 * some of it is not done, or may never be: a communicator has failed meanwhile. */
enum cm_status cm_context_sync(struct cm_context *context);
/* The same after work that came to `status`: nothing may be under way afterwards, also after a
 * failure, of which nobody else will tell: it is remembered with its message, whatever the wait
 * comes to, and returned where the wait is over. */
enum cm_status cm_context_finish(struct cm_context *context, enum cm_status status);

/* One separately timed piece of a workload. Zero fields mean: as the suite says. */
struct cm_part {
    char name[40];     /* "" when it is the only one */
    double min_time_s; /* a soak: measure at least this long */
    bool fixed_time;   /* stop at min_time_s, not when steady */
    bool live; /* do not queue ahead: each iteration is queued when the one before is done, so
                  the host's queueing and waiting are part of what is timed */
    bool idle; /* this rank has nothing to do in this part (a pair of other ranks); it
                  takes part in the barriers and votes, and its times are not used */
};

/* What one iteration of a part does, on this rank unless said otherwise. */
struct cm_work {
    double flops;
    double bytes;         /* moved to and from memory */
    double message_bytes; /* S of algbw: of the collective as a whole, or of one message */
    double operations;    /* divide the iteration's time by this for one operation; 0 counts as 1 */
};

enum cm_better { CM_LOWER, CM_HIGHER, CM_NEITHER };

#define CM_METRIC_NAME_MAX 56
/* A figure of one run. A label tells several of one kind apart ("bandwidth.0-1" has label "0-1").
 */
struct cm_metric {
    char name[CM_METRIC_NAME_MAX];
    double value;
    char unit[16]; /* SI base: s, B/s, FLOP/s, B, W, J, Hz, or 1 */
    enum cm_better better;
    double ceiling;          /* theoretical, from the device; 0 unknown */
    char ceiling_source[96]; /* or why there is none */
};

struct cm_metrics {
    struct cm_metric *items;
    size_t count, capacity;
    uint32_t *places; /* by name, of a long list: see metrics.c */
    size_t place_count, placed;
};

/* Adds a metric without ceiling and gives it back in *metric (which may be NULL); the pointer is
 * good until the next one is added. */
enum cm_status cm_metrics_add(struct cm_metrics *metrics, const char *name, double value,
                              const char *unit, enum cm_better better, struct cm_metric **metric);
const struct cm_metric *cm_metrics_find(const struct cm_metrics *metrics, const char *name);
void cm_metrics_release(struct cm_metrics *metrics);

/* Most ranks of which every iteration is kept. */
#define CM_RANK_SAMPLES_MAX 16

/* A rank or a pair of ranks that one run found slower than the others, with the evidence. */
#define CM_HOST_MAX 64

struct cm_suspect {
    char what[32]; /* at what: "sending", "receiving", "sending and receiving", ... */
    unsigned rank;
    unsigned peer;                                  /* of a pair, its receiver; else CM_NO_PEER */
    char host[CM_HOST_MAX], peer_host[CM_HOST_MAX]; /* the harness fills them in */
    double effect;     /* of its rate, relative to the others: -0.9 is a tenth of it */
    double low, high;  /* 95 % interval of that */
    double p;          /* of a false alarm, all ranks being looked at */
    char partners[64]; /* ranks that it met in the retest: "0, 3, 7"; "" none */
    double retest;     /* the effect there; NAN: there was no retest */
    bool confirmed;    /* by the retest */
};
#define CM_NO_PEER (-1u)

struct cm_suspects {
    struct cm_suspect *items;
    size_t count, capacity;
};
enum cm_status cm_suspects_add(struct cm_suspects *suspects, const struct cm_suspect *suspect);
void cm_suspects_release(struct cm_suspects *suspects);

/* What was measured of one part. */
struct cm_part_samples {
    struct cm_part part;
    struct cm_work work;       /* of the reporting rank */
    struct cm_samples slowest; /* per iteration, the largest over the ranks that took part */
    struct cm_samples *ranks;  /* per rank, its own iterations; empty for one that did not. NULL for
                                  more than CM_RANK_SAMPLES_MAX ranks: they would be gigabytes */
    unsigned rank_count;
    double median_s;       /* of slowest */
    double *rank_median_s; /* per rank, NAN for one that was idle */
    double *rank_last_s;   /* the same of the last third of its iterations; for `metrics` alone */
    double energy_j;       /* of all ranks that took part; 0 not known */
};

/* Joules of one operation of a part, over all its ranks. Adds nothing where that is not known. */
enum cm_status cm_metrics_add_energy(struct cm_metrics *metrics, const char *name,
                                     const struct cm_part_samples *part);

/* Figures that a workload may take itself, by events of its own within an iteration. */
#define CM_OBSERVED_MAX 64

struct cm_metric_input {
    const void *params;
    const struct cm_device_info *device;
    unsigned ranks;
    const struct cm_part_samples *parts;
    unsigned part_count;
    const struct cm_telemetry *telemetry; /* per rank; NULL not known */
    double observed[CM_OBSERVED_MAX];     /* by `observe`; 0 without it */
};

struct cm_check {
    uint64_t checked; /* values looked at on this rank; 0 is wrong, unless `nothing` says why */
    uint64_t mismatches;
    double worst;     /* largest error in units of the tolerance */
    char nothing[96]; /* why there is nothing to check ("no data moves in launch") */
    char detail[160]; /* of the first mismatch: where, expected, found */
};

/* An iteration as a virtual clock tells it. */
struct cm_machine;
#define CM_SIMULATED_PARTS_MAX 2
struct cm_simulated {
    struct cm_str *explanation, *trace; /* the caller's; NULL where not wanted. For people; JSON for
                                           chrome://tracing */
    struct cm_part parts[CM_SIMULATED_PARTS_MAX];
    double part_s[CM_SIMULATED_PARTS_MAX];
    unsigned part_count;
    struct cm_work work; /* of the first part */
    double observed[CM_OBSERVED_MAX];
    char label[96]; /* as `algorithm` */
};

/* One point of a sweep, in ascending order of the swept option. */
struct cm_sweep_point {
    const void *params;
    const struct cm_metrics *metrics;
};

enum cm_workload_needs {
    CM_NEEDS_PEERS = 1, /* at least two ranks; else the case is skipped */
};

struct cm_workload {
    const char *name;
    const char *summary;             /* one line for `list workloads` and --help */
    const struct cm_option *options; /* of its parameters */
    size_t params_size;              /* plain memory, set by the option table */
    size_t state_size;               /* zeroed before setup */
    unsigned needs;                  /* enum cm_workload_needs */
    const char *headline;            /* the metric that the report's verdict is about */

    /* Optional: refuse parameters that cannot be right together, before anything runs. `where`
     * begins the message. Also called by the plan on a machine without the device. */
    enum cm_status (*validate)(const void *params, const char *where);
    /* Optional: what rank `rank` of so many would do, line by line; without a device. */
    enum cm_status (*explain)(const void *params, unsigned ranks, unsigned rank,
                              struct cm_str *out);
    /* Optional: which of its groups of ranks stay within a node, in one line; nothing where it
     * would not run with so many ranks, or on a device of that kind (`host`: the CPU).
     * node_of[rank] is the number of its node. */
    enum cm_status (*spread)(const void *params, bool host, unsigned ranks, const unsigned *node_of,
                             struct cm_str *out);
    /* Optional: an iteration of so many ranks on that machine (roofline.h), on a virtual clock and
     * without a device. CM_UNSUPPORTED with a reason makes the case skipped. */
    enum cm_status (*simulate)(const void *params, unsigned ranks, const struct cm_machine *machine,
                               struct cm_simulated *simulated);

    /* Allocate and fill. CM_UNSUPPORTED with a reason makes the case skipped. What it took besides
     * context memory is given back by teardown, which runs even after a failed setup. */
    enum cm_status (*setup)(struct cm_context *context, const void *params, void *state);
    /* Optional: one unnamed part when NULL. */
    unsigned (*part_count)(const void *state);
    void (*part)(const void *state, unsigned index, struct cm_part *part);

    /* Optional: bring the state to where a part's timed series is to begin, the outputs being
     * poisoned by then. Not timed; it may wait, and all ranks call it. */
    enum cm_status (*begin)(void *state, unsigned part);

    /* Queue one iteration of a part, and nothing else: no allocation, no waiting. Work on other
     * streams must be forked from and joined to context->stream by events. `iteration` counts up
     * from 0 within a part's timed or warm-up series. */
    enum cm_status (*enqueue)(void *state, unsigned part, uint64_t iteration);
    void (*work)(const void *state, unsigned part, struct cm_work *work);

    /* Look at the outputs after `iterations` timed iterations of a part. All ranks call it, so it
     * may communicate on context->comm (not through the buffers under test). CM_OK with
     * mismatches > 0 says wrong; another status says that the check itself failed. */
    enum cm_status (*check)(void *state, unsigned part, uint64_t iterations,
                            struct cm_check *check);
    /* Optional: parts that depend on what the ones before them took. All ranks call it when those
     * are done, so it may communicate; it raises *part_count, or leaves it where there are no more.
     * Medians of all ranks (`rank_median_s`) are known on the reporting rank alone. */
    enum cm_status (*extend)(void *state, const struct cm_part_samples *parts,
                             unsigned *part_count);
    /* Optional: who is slower than the others, after the last check and on the reporting rank.
     * Metrics may be added that take the state; `metrics` adds the others behind them. */
    enum cm_status (*find)(const void *state, const struct cm_part_samples *parts,
                           unsigned part_count, struct cm_suspects *suspects,
                           struct cm_metrics *metrics);
    /* Optional: what the library chose for this case, "" when nothing; read after the check. */
    const char *(*algorithm)(const void *state);
    /* Optional: what it timed itself, for `metrics`; read after the last check, on the reporting
     * rank. */
    void (*observe)(const void *state, double observed[CM_OBSERVED_MAX]);
    void (*teardown)(void *state);

    /* From one run's samples to its figures; on the reporting rank only, pure. The harness adds
     * `energy_per_operation` to them where the device tells its energy: of the one part, or of
     * several by their names. */
    enum cm_status (*metrics)(const struct cm_metric_input *input, struct cm_metrics *metrics);

    /* Optional: figures over a sweep of the option `sweep` (a size), from the points of one run
     * that differ in it alone. Pure. */
    const char *sweep;
    enum cm_status (*summarise)(const struct cm_sweep_point *points, size_t count, unsigned ranks,
                                struct cm_metrics *metrics);
};

/* All workloads, NULL-terminated, by name (generated from host/workload/). */
extern const struct cm_workload *const cm_workloads[];
const struct cm_workload *cm_workload_find(const char *name);

#endif
