/* SwiGLU and GELU, forward and backward. */
#include "kernels/cpu/train.h"

/* GELU in its tanh form: x * sigmoid(2 * ROOT * (x + CUBE * x^3)), since (1 + tanh(y)) / 2 is
 * sigmoid(2 y). */
#define ROOT 0.79788456080286535588f
#define CUBE 0.044715f

struct job {
    struct cm_activation activation;
    const void *in, *dout;
    void *out;
    uint64_t blocks; /* of a row */
};

static CM_INLINE float gelu(float x)
{
    return x * cm_sigmoid(2 * ROOT * (x + CUBE * x * x * x));
}

static CM_INLINE float gelu_slope(float x)
{
    float s = cm_sigmoid(2 * ROOT * (x + CUBE * x * x * x));
    return s + x * s * (1 - s) * 2 * ROOT * (1 + 3 * CUBE * x * x);
}

/* A block of a row: its first column, and where rows of the input and of the output begin. */
struct place {
    uint64_t column, in, out;
    size_t count;
};

static CM_INLINE struct place place_of(const struct job *job, uint64_t unit)
{
    uint64_t columns = job->activation.columns, row = unit / job->blocks;
    uint64_t column = unit % job->blocks * CM_BLOCK;
    return (struct place){column, row * columns * (job->activation.gated ? 2 : 1) + column,
                          row * columns + column, cm_block_at(column, columns)};
}

static CM_INLINE void forward_body(const struct job *job, uint64_t begin, uint64_t end)
{
    enum cm_dtype dtype = job->activation.dtype;
    float in_buffer[CM_BUFFER], value_buffer[CM_BUFFER], out_buffer[CM_BUFFER];
    for (uint64_t unit = begin; unit < end; unit++) {
        struct place place = place_of(job, unit);
        const float *in = cm_view(dtype, job->in, place.in, place.count, in_buffer);
        float *out = cm_place(dtype, job->out, place.out, out_buffer);
        if (job->activation.gated) {
            const float *value = cm_view(dtype, job->in, place.in + job->activation.columns,
                                         place.count, value_buffer);
            CM_INDEPENDENT for (size_t i = 0; i < place.count; i++) out[i] =
                in[i] * cm_sigmoid(in[i]) * value[i];
        } else {
            CM_INDEPENDENT for (size_t i = 0; i < place.count; i++) out[i] = gelu(in[i]);
        }
        cm_keep(dtype, job->out, place.out, place.count, out);
    }
}
CM_LEVELS(forward, struct job)

static CM_INLINE void backward_gated(const struct job *job, struct place place, const float *dout)
{
    enum cm_dtype dtype = job->activation.dtype;
    float gate_buffer[CM_BUFFER], value_buffer[CM_BUFFER], dgate_buffer[CM_BUFFER],
        dvalue_buffer[CM_BUFFER];
    uint64_t value_at = place.in + job->activation.columns;
    const float *gate = cm_view(dtype, job->in, place.in, place.count, gate_buffer);
    const float *value = cm_view(dtype, job->in, value_at, place.count, value_buffer);
    float *dgate = cm_place(dtype, job->out, place.in, dgate_buffer);
    float *dvalue = cm_place(dtype, job->out, value_at, dvalue_buffer);
    CM_INDEPENDENT for (size_t i = 0; i < place.count; i++)
    {
        float g = gate[i], s = cm_sigmoid(g), d = dout[i], v = value[i];
        dgate[i] = d * v * s * (1 + g * (1 - s));
        dvalue[i] = d * g * s;
    }
    cm_keep(dtype, job->out, place.in, place.count, dgate);
    cm_keep(dtype, job->out, value_at, place.count, dvalue);
}

static CM_INLINE void backward_body(const struct job *job, uint64_t begin, uint64_t end)
{
    enum cm_dtype dtype = job->activation.dtype;
    float dout_buffer[CM_BUFFER], in_buffer[CM_BUFFER], din_buffer[CM_BUFFER];
    for (uint64_t unit = begin; unit < end; unit++) {
        struct place place = place_of(job, unit);
        const float *dout = cm_view(dtype, job->dout, place.out, place.count, dout_buffer);
        if (job->activation.gated) {
            backward_gated(job, place, dout);
            continue;
        }
        const float *in = cm_view(dtype, job->in, place.in, place.count, in_buffer);
        float *din = cm_place(dtype, job->out, place.in, din_buffer);
        CM_INDEPENDENT for (size_t i = 0; i < place.count; i++) din[i] =
            dout[i] * gelu_slope(in[i]);
        cm_keep(dtype, job->out, place.in, place.count, din);
    }
}
CM_LEVELS(backward, struct job)

static enum cm_status run(void (*range)(void *, uint64_t, uint64_t), const void *args)
{
    struct job job = *(const struct job *)args;
    job.blocks = cm_row_blocks(job.activation.columns);
    uint64_t columns = job.activation.columns;
    uint64_t grain = cm_row_grain(columns < CM_BLOCK ? columns : CM_BLOCK);
    cm_team_run(range, &job, job.activation.rows * job.blocks, grain);
    return CM_OK;
}

static enum cm_status run_forward(const void *args)
{
    return run(forward, args);
}

static enum cm_status run_backward(const void *args)
{
    return run(backward, args);
}

enum cm_status cm_cpu_activation(struct cm_stream *stream, const struct cm_activation *activation,
                                 const void *in, void *out)
{
    struct job job = {.activation = *activation, .in = in, .out = out};
    return stream->device->ops->call(stream, run_forward, &job, sizeof job, "activation");
}

enum cm_status cm_cpu_activation_backward(struct cm_stream *stream,
                                          const struct cm_activation *activation, const void *in,
                                          const void *dout, void *din)
{
    struct job job = {.activation = *activation, .in = in, .dout = dout, .out = din};
    return stream->device->ops->call(stream, run_backward, &job, sizeof job, "activation_backward");
}
