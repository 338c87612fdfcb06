/* One function for each kind of operation of a schedule: from a bound operation to a launcher. */
#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/kernels.h"
#include "clustermark/train_kernels.h"
#include "host/workload/trainstep_execute.h"

/* A kind whose launcher takes the operation's shape and then its slices, in order. */
#define AT(i)  bound->at[i]
#define AT2    AT(0), AT(1)
#define AT4    AT2, AT(2), AT(3)
#define AT5    AT4, AT(4)
#define AT6    AT5, AT(5)
#define AT7    AT6, AT(6)
#define AT9    AT7, AT(7), AT(8)
#define AT3    AT2, AT(2)
#define AT10   AT9, AT(9)
#define UNUSED (void)moment

#define DEFINE(name, launcher, shape, ...)                                                         \
    static enum cm_status queue_##name(const struct cm_bound_op *bound,                            \
                                       const struct cm_moment *moment)                             \
    {                                                                                              \
        UNUSED;                                                                                    \
        return bound->kernels->train->launcher(bound->stream, &bound->op->u.shape, __VA_ARGS__);   \
    }

DEFINE(EMBED, embed, embed, AT4)
DEFINE(EMBED_BACKWARD, embed_backward, embed, AT5)
DEFINE(NORM, norm, norm, AT7)
DEFINE(NORM_BACKWARD, norm_backward, norm, AT9)
DEFINE(ROPE, rope, rope, AT(0))
DEFINE(ACTIVATION, activation, activation, AT2)
DEFINE(ACTIVATION_BACKWARD, activation_backward, activation, AT3)
DEFINE(SOFTMAX_PARTS, softmax_parts, cross_entropy, AT3)
DEFINE(CROSS_ENTROPY, cross_entropy, cross_entropy, AT4)
DEFINE(ROUTE, route, route, AT6)
DEFINE(ROUTE_BACKWARD, route_backward, route, AT4)
DEFINE(PERMUTE, permute, route, AT4)
DEFINE(UNPERMUTE, unpermute, route, AT4)
DEFINE(UNPERMUTE_BACKWARD, unpermute_backward, route, AT7)
DEFINE(REORDER, reorder, reorder, AT2)
DEFINE(QUANTISE, quantise, quantise, AT3)

static enum cm_status queue_ATTENTION(const struct cm_bound_op *bound,
                                      const struct cm_moment *moment)
{
    UNUSED;
    return (bound->u.by != NULL ? bound->u.by->attention : bound->kernels->train->attention)(
        bound->stream, &bound->op->u.attention, AT5);
}

static enum cm_status queue_ATTENTION_BACKWARD(const struct cm_bound_op *bound,
                                               const struct cm_moment *moment)
{
    UNUSED;
    return (bound->u.by != NULL ? bound->u.by->attention_backward
                                : bound->kernels->train->attention_backward)(
        bound->stream, &bound->op->u.attention, AT10);
}

static enum cm_status queue_RECORD(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    return bound->stream->device->ops->event_record(bound->u.event, bound->stream);
}

static enum cm_status queue_WAIT(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    return bound->stream->device->ops->stream_wait(bound->stream, bound->u.event);
}

static enum cm_status queue_GEMM(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    return bound->kernels->gemm(bound->stream, bound->u.gemm, AT3);
}

static enum cm_status queue_GEMM_GELU(const struct cm_bound_op *bound,
                                      const struct cm_moment *moment)
{
    UNUSED;
    return bound->kernels->gemm_with(bound->stream, bound->u.gemm, AT3,
                                     &(const struct cm_gemm_extras){.beside = AT(3)});
}

static enum cm_status queue_GEMM_GELU_BACKWARD(const struct cm_bound_op *bound,
                                               const struct cm_moment *moment)
{
    return queue_GEMM_GELU(bound, moment);
}

static enum cm_status queue_GEMM_SCALED(const struct cm_bound_op *bound,
                                        const struct cm_moment *moment)
{
    UNUSED;
    return bound->kernels->gemm_with(
        bound->stream, bound->u.gemm, AT3,
        &(const struct cm_gemm_extras){.scale_a = AT(3), .scale_b = AT(4)});
}

static enum cm_status queue_ADD(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_elements *elements = &bound->op->u.elements;
    return bound->kernels->train->add_to(bound->stream, AT3, elements->count, elements->dtype);
}

static enum cm_status queue_CONVERT(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_elements *elements = &bound->op->u.elements;
    return bound->kernels->train->convert(bound->stream, AT(0), elements->dtype, AT(1),
                                          elements->from_dtype, elements->count);
}

static enum cm_status queue_ZERO(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    return bound->kernels->write(bound->stream, AT(0), 0, bound->op->slices[0].size_bytes);
}

static enum cm_status queue_COPY(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    return bound->stream->device->ops->copy(bound->stream, AT(0), AT(1),
                                            bound->op->slices[0].size_bytes);
}

static enum cm_status queue_SUM(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_sum *sum = &bound->op->u.sum;
    return bound->kernels->train->sum(bound->stream, AT(0), sum->count, sum->squares, sum->factor,
                                      sum->accumulate, AT(1), AT(2));
}

static enum cm_status queue_CLIP_FACTOR(const struct cm_bound_op *bound,
                                        const struct cm_moment *moment)
{
    UNUSED;
    return bound->kernels->train->clip_factor(bound->stream, AT(0), bound->op->u.clip, AT(1));
}

/* Ranks that have the same elements of a unit round them alike. */
static enum cm_status queue_ADAMW(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    struct cm_adamw adamw = bound->op->u.adamw;
    adamw.step = moment->step;
    adamw.seed = cm_random_seed(moment->seed, "adamw", bound->u.purpose, moment->step);
    return bound->kernels->train->adamw(bound->stream, &adamw, AT6);
}

/* ---- communication ---- */

static enum cm_status queue_ALL_REDUCE(const struct cm_bound_op *bound,
                                       const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_comm_op *comm = &bound->op->u.comm;
    return bound->u.comm->ops->all_reduce(bound->u.comm, bound->stream, AT2, comm->count,
                                          comm->dtype, comm->max ? CM_REDUCE_MAX : CM_REDUCE_SUM);
}

static enum cm_status queue_REDUCE_SCATTER(const struct cm_bound_op *bound,
                                           const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_comm_op *comm = &bound->op->u.comm;
    return bound->u.comm->ops->reduce_scatter(bound->u.comm, bound->stream, AT2, comm->count,
                                              comm->dtype,
                                              comm->max ? CM_REDUCE_MAX : CM_REDUCE_SUM);
}

static enum cm_status queue_ALL_GATHER(const struct cm_bound_op *bound,
                                       const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_comm_op *comm = &bound->op->u.comm;
    return bound->u.comm->ops->all_gather(bound->u.comm, bound->stream, AT2, comm->count,
                                          comm->dtype);
}

static enum cm_status queue_ALL_TO_ALL(const struct cm_bound_op *bound,
                                       const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_comm_op *comm = &bound->op->u.comm;
    return bound->u.comm->ops->all_to_all(bound->u.comm, bound->stream, AT2, comm->count,
                                          comm->dtype);
}

/* In a pair the sender is rank 0. */
static enum cm_status queue_SEND(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_comm_op *comm = &bound->op->u.comm;
    return bound->u.comm->ops->send(bound->u.comm, bound->stream, AT(0), comm->count, comm->dtype,
                                    1);
}

static enum cm_status queue_RECV(const struct cm_bound_op *bound, const struct cm_moment *moment)
{
    UNUSED;
    const struct cm_comm_op *comm = &bound->op->u.comm;
    return bound->u.comm->ops->recv(bound->u.comm, bound->stream, AT(0), comm->count, comm->dtype,
                                    0);
}

cm_op_fn cm_op_function(enum cm_op_kind kind)
{
    static const cm_op_fn functions[] = {
#define ROW(name, text, class, roles) [CM_OP_##name] = queue_##name,
        CM_OP_LIST(ROW)
#undef ROW
    };
    return functions[kind];
}
