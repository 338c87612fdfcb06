/*
 * trainstep: whether it trained. Loss and gradient norm of every step are numbers, the same in bits
 * on all ranks; the first loss is that of a model that knows nothing; the batch is learnt; and the
 * first step, made again, gives the same.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/kernels.h"
#include "host/workload/trainstep.h"

/* Where a library may sum in another order each time. */
#define OTHER_ORDER 1e-3
/* Weights of the tables have this deviation, and the head's input is normal: what it adds to the
 * loss of a uniform guess is half the logits' variance. */
#define DEVIATION    0.02
#define NEAR         0.1
#define LEARNT_AFTER 3

static void mismatch(struct cm_check *check, unsigned rank, const char *what, double found,
                     double expected)
{
    check->worst = (double)INFINITY;
    if (check->mismatches++ == 0)
        snprintf(check->detail, sizeof check->detail, "rank %u: %s is %.9g, should be %.9g", rank,
                 what, found, expected);
}

static enum cm_status fetch_history(struct cm_trainstep_state *state)
{
    enum cm_status status =
        state->context->device->ops->copy(state->context->stream, state->host_history,
                                          state->history, CM_HISTORY * sizeof *state->history);
    return status == CM_OK ? cm_context_sync(state->executor.context) : status;
}

/* Every step that was kept, on this rank. */
static void check_numbers(const struct cm_trainstep_state *state, size_t count,
                          struct cm_check *check)
{
    unsigned rank = state->context->comm->rank;
    for (size_t i = 0; i < count; i++) {
        struct cm_step_result result = state->host_history[i];
        check->checked += 2;
        if (!isfinite(result.loss) || result.loss < 0)
            mismatch(check, rank, "a step's loss", (double)result.loss, 0);
        if (!isfinite(result.square) || result.square < 0)
            mismatch(check, rank, "a gradient norm's square", (double)result.square, 0);
    }
}

static enum cm_status check_same(const struct cm_trainstep_state *state, size_t count,
                                 struct cm_check *check)
{
    uint64_t own = cm_hash(0, state->host_history, count * sizeof *state->host_history);
    const void *all;
    enum cm_status status = cm_context_gather(state->context, &own, sizeof own, &all);
    if (status != CM_OK || own == ((const uint64_t *)all)[0])
        return status;
    check->worst = (double)INFINITY;
    if (check->mismatches++ == 0)
        snprintf(check->detail, sizeof check->detail,
                 "rank %u: losses or gradient norms are not those of rank 0; its first loss is "
                 "%.9g, the last %.9g",
                 state->context->comm->rank, (double)state->host_history[0].loss,
                 (double)state->host_history[count - 1].loss);
    return CM_OK;
}

static void check_learning(const struct cm_trainstep_state *state, uint64_t iterations,
                           struct cm_check *check)
{
    unsigned rank = state->context->comm->rank;
    const struct cm_transformer *model = &state->step.model;
    double first = (double)state->host_history[0].loss;
    double last = (double)state->host_history[cm_trainstep_slot(iterations - 1)].loss;
    double guess = log((double)model->vocabulary);
    double variance = (double)model->hidden * DEVIATION * DEVIATION;
    check->checked += 2;
    if (!(first > (1 - NEAR) * guess && first < (1 + NEAR) * (guess + variance / 2)))
        mismatch(check, rank, "the first loss", first, guess + variance / 2);
    if (iterations >= LEARNT_AFTER && !(last < first))
        mismatch(check, rank, "the last loss, which should be below the first,", last, first);
}

static bool agrees(float found, float expected, bool in_bits)
{
    if (in_bits)
        return found == expected && signbit(found) == signbit(expected);
    return fabs((double)found - (double)expected) <= OTHER_ORDER * fabs((double)expected);
}

/* The first step again. Libraries other than MPI on the CPU may sum in another order, and one that
 * attention is by. */
static enum cm_status check_again(struct cm_trainstep_state *state, struct cm_check *check)
{
    const struct cm_comm *comm = state->context->comm;
    bool in_bits =
        state->library == NULL && (comm->size == 1 || strcmp(comm->ops->name, "nccl") != 0);
    struct cm_step_result first = state->host_history[0];
    enum cm_status status = cm_trainstep_restart(state);
    if (status == CM_OK)
        status = cm_trainstep_queue(state, 0, CM_EXTENT_STEP);
    if (status == CM_OK)
        status = fetch_history(state);
    if (status != CM_OK)
        return status;
    struct cm_step_result again = state->host_history[0];
    check->checked += 2;
    if (!agrees(again.loss, first.loss, in_bits))
        mismatch(check, comm->rank, "the first step's loss, made again,", (double)again.loss,
                 (double)first.loss);
    if (!agrees(again.square, first.square, in_bits))
        mismatch(check, comm->rank, "its gradient norm's square, made again,", (double)again.square,
                 (double)first.square);
    return CM_OK;
}

enum cm_status cm_trainstep_check(void *memory, unsigned part, uint64_t iterations,
                                  struct cm_check *check)
{
    struct cm_trainstep_state *state = memory;
    if (part == CM_TRAIN_NO_COMM) {
        snprintf(check->nothing, sizeof check->nothing,
                 "without communication the numbers mean nothing");
        return cm_context_sync(state->executor.context);
    }
    size_t count = iterations < CM_HISTORY ? (size_t)iterations : CM_HISTORY;
    enum cm_status status = fetch_history(state);
    if (status != CM_OK)
        return status;
    check_numbers(state, count, check);
    status = check_same(state, count, check);
    check_learning(state, iterations, check);
    if (status == CM_OK)
        status = check_again(state, check);
    return status == CM_OK ? cm_trainstep_observe(state, 2) : status;
}
