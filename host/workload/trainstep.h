/*
 * trainstep.h: what the files trainstep*.c share.
 */
#ifndef HOST_WORKLOAD_TRAINSTEP_H
#define HOST_WORKLOAD_TRAINSTEP_H

#include "clustermark/schedule.h"
#include "clustermark/strbuf.h"
#include "clustermark/workload.h"
#include "host/workload/trainstep_execute.h"
#include "host/workload/trainstep_init.h"

struct cm_trainstep_params {
    char model[64], plan[64], layers[16];
    uint64_t micro_batches, micro_batch, sequence, bucket_bytes;
    int dtype, compute, recompute, gelu, on;
    int attention; /* enum cm_attention_wanted */
    bool overlap, stochastic;
    double learning_rate, clip;
};

enum cm_attention_wanted { CM_ATTENTION_AUTO, CM_ATTENTION_OWN, CM_ATTENTION_CUDNN };

enum cm_trainstep_part { CM_TRAIN_STEP, CM_TRAIN_NO_COMM };

/* Lanes whose waits are told apart, and groups whose communication is: the four edges of a pipeline
 * count as one. */
enum { CM_WAIT_LAYER, CM_WAIT_DATA, CM_WAIT_PIPELINE, CM_WAIT_COUNT };
#define CM_TRAIN_GROUPS (CM_GROUP_FORWARD_OUT + 1)

/* What is observed: of one step, times by events. Means over the ranks unless said otherwise. */
enum cm_trainstep_figure {
    CM_SEEN_TOKENS, /* of a step, over all ranks */
    CM_SEEN_FLOPS_FULL,
    CM_SEEN_FLOPS_CAUSAL, /* of a step, over all ranks */
    CM_SEEN_LAYERS,
    CM_SEEN_BUBBLE_FORMULA,
    CM_SEEN_ATTENTION_OWN_S, /* all of a step's, alone, on the slowest rank; 0: not timed */
    CM_SEEN_ATTENTION_LIBRARY_S,
    CM_SEEN_PREDICTED, /* bytes; the rank that takes most */
    CM_SEEN_PEAK,
    CM_SEEN_CEILING_S, /* the slowest rank's */
    CM_SEEN_QUEUE_S,   /* that the host takes to queue a step; the slowest rank's */
    CM_SEEN_BUSY_WORST_S,
    CM_SEEN_BUSY_MEDIAN_S,
    CM_SEEN_BUSY_RANK,
    CM_SEEN_PROFILE_S, /* of the step that was profiled, on the slowest rank */
    CM_SEEN_BUSY_S,    /* from here on: what a pass of the profile gives */
    CM_SEEN_WAIT_S,
    CM_SEEN_COMM_S = CM_SEEN_WAIT_S + CM_WAIT_COUNT,
    CM_SEEN_PHASE_S = CM_SEEN_COMM_S + CM_TRAIN_GROUPS,
    CM_SEEN_CLASS_S = CM_SEEN_PHASE_S + CM_PHASE_COUNT,
    CM_SEEN_COUNT = CM_SEEN_CLASS_S + CM_CLASS_COUNT
};
_Static_assert(CM_SEEN_COUNT <= CM_OBSERVED_MAX, "the figures must fit");

/* Steps whose loss is kept: the first, and the last ones in turn. */
enum { CM_HISTORY = 64 };
struct cm_step_result {
    float loss, square; /* square of the gradients' norm before clipping */
};

#define CM_STEP_LABEL_MAX 224
struct cm_trainstep_state {
    struct cm_context *context;
    struct cm_step step;
    struct cm_schedule schedule;
    struct cm_executor executor;
    struct cm_initialiser initialiser;
    const struct cm_attention_library *library; /* that attention is by; NULL: own kernels */
    struct cm_step_result *history, *host_history;
    char *meeting; /* a number that all ranks sum, to begin together */
    char label[CM_STEP_LABEL_MAX];
    double observed[CM_SEEN_COUNT];
};

extern const struct cm_option cm_trainstep_options[];

/* Where a step's result is kept. */
size_t cm_trainstep_slot(uint64_t iteration);
/* The state of before the first step, on all ranks: every rank calls it. */
enum cm_status cm_trainstep_restart(struct cm_trainstep_state *state);
/* A step and the keeping of its result. */
enum cm_status cm_trainstep_queue(struct cm_trainstep_state *state, uint64_t iteration,
                                  enum cm_extent extent);

/* ---- trainstep_plan.c: from parameters to a step that fits ---- */

/* The step that the parameters mean for so many ranks; where the suite leaves the plan open, data
 * parallel. `layers` 0: as the parameters say, all where they say "fit". */
enum cm_status cm_trainstep_step(const struct cm_trainstep_params *params, unsigned ranks,
                                 const char *where, struct cm_step *step);
bool cm_trainstep_fits(const struct cm_trainstep_params *params); /* layers = fit */
enum cm_status cm_trainstep_validate(const void *params, const char *where);

/* Build the schedule of this rank, of as many layers as there is memory for where the parameters
 * say so. CM_NO_MEMORY with what would fit where it does not. */
enum cm_status cm_trainstep_build(struct cm_context *context,
                                  const struct cm_trainstep_params *params, struct cm_step *step,
                                  struct cm_schedule *schedule);
/* trainstep_gelu.c: whether GELU is computed within products: as the user says, or as is faster.
 * Every rank calls it. Models without GELU, and experts, have nothing to choose. */
enum cm_gelu_way { CM_GELU_AUTO, CM_GELU_KERNEL, CM_GELU_FUSED };
enum cm_status cm_trainstep_choose_gelu(struct cm_context *context, enum cm_gelu_way way,
                                        struct cm_step *step);
/* trainstep_place.c: the part of the plan that this rank plays, so that groups of `group` parts are
 * near to each other. Every rank calls it. */
enum cm_status cm_trainstep_place(struct cm_context *context, unsigned group, unsigned *part);
enum cm_status cm_trainstep_spread(const void *params, bool host, unsigned ranks,
                                   const unsigned *node_of, struct cm_str *out);
enum cm_status cm_trainstep_explain(const void *params, unsigned ranks, unsigned rank,
                                    struct cm_str *out);

/* ---- trainstep_attention.c ---- */

/* Lets attention be by the device's library where that is faster, on all ranks or none, and adds to
 * the label which it is by. Every rank calls it; the numbers in memory are void afterwards.
 * CM_UNSUPPORTED with the reason where the library is asked for and not there. */
enum cm_status cm_trainstep_choose_attention(struct cm_trainstep_state *state,
                                             enum cm_attention_wanted wanted);
/* Gives back what that took; all streams must be synced. */
void cm_trainstep_release_attention(struct cm_trainstep_state *state);

/* Of several ranks' two parts. */
void cm_trainstep_name_part(unsigned index, struct cm_part *part);
/* trainstep_simulate.c */
enum cm_status cm_trainstep_simulate(const void *params, unsigned ranks,
                                     const struct cm_machine *machine,
                                     struct cm_simulated *simulated);
/* "llama3-8b, 4 of 32 layers; dp=2,tp=2" */
void cm_trainstep_label(const struct cm_step *step, char *label, size_t size);
/* ---- trainstep_offer.c: what fits the memory ---- */

extern const char *const cm_trainstep_recompute[]; /* enum cm_recompute in words */
/* Bytes of that rank's step, UINT64_MAX where there is no such step. */
uint64_t cm_trainstep_bytes(const struct cm_step *step, unsigned rank,
                            uint64_t by_use[CM_USE_COUNT]);
/* The most layers whose step fits into `left` bytes of that rank; 0: none do. */
uint64_t cm_trainstep_most_layers(struct cm_step step, unsigned rank, uint64_t left);
/* `as`, with a message of what the step needs and what would fit. */
enum cm_status cm_trainstep_refuse(enum cm_status as, const struct cm_step *step, uint64_t needed,
                                   uint64_t left, const uint64_t by_use[CM_USE_COUNT]);

/* ---- trainstep_check.c, trainstep_profile.c, trainstep_ceiling.c, trainstep_metrics.c ---- */

enum cm_status cm_trainstep_check(void *state, unsigned part, uint64_t iterations,
                                  struct cm_check *check);

/* How long the host takes to queue a step, while the device waits. Every rank calls it. */
enum cm_status cm_trainstep_time_queueing(struct cm_trainstep_state *state, uint32_t step,
                                          double *seconds);
/* Where a step's time goes: figures from CM_SEEN_BUSY_S on, of this rank. Every rank calls it. */
enum cm_status cm_trainstep_profile(struct cm_trainstep_state *state, uint32_t step,
                                    double figures[CM_SEEN_COUNT]);
/* The time of a step on this rank if all that it does went as fast as alone: products and
 * attention, other kernels' bytes as fast as a copy, collectives inside blocks, and a pipeline's
 * filling. Every rank calls it; the numbers in memory are void afterwards. */
enum cm_status cm_trainstep_ceiling(struct cm_trainstep_state *state, double *seconds);
/* What follows from the step alone, into figures. */
void cm_trainstep_count(const struct cm_step *step, double figures[CM_SEEN_COUNT]);
/* Both, agreed among the ranks, into state->observed. */
enum cm_status cm_trainstep_observe(struct cm_trainstep_state *state, uint32_t step);

enum cm_status cm_trainstep_metrics(const struct cm_metric_input *input,
                                    struct cm_metrics *metrics);

#endif
