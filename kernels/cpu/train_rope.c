/* Rotary positions: pairs of elements turn by an angle that grows with the position. */
#include "kernels/cpu/train.h"

/* Pairs of a head that are worked on together. */
#define PAIRS 128

struct job {
    struct cm_rope rope;
    void *rows;
};

/* sin and cos of angle, which may be large: turned back to within an eighth of a circle in double,
 * then by polynomials (Cephes' single precision ones). */
static CM_INLINE void turn_of(double angle, float *sine, float *cosine)
{
    double shifted = angle * 0.63661977236758134308 + 0x1.8p52;
    double quarters = shifted - 0x1.8p52;
    float x = (float)(angle - quarters * 1.57079632679489661923);
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    uint32_t quarter = (uint32_t)bits;
    float z = x * x;
    float s = x + x * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
    float c =
        1 - 0.5f * z +
        z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
    float first = (quarter & 1) != 0 ? c : s, second = (quarter & 1) != 0 ? s : c;
    *sine = (quarter & 2) != 0 ? -first : first;
    *cosine = ((quarter + 1) & 2) != 0 ? -second : second;
}

static CM_INLINE void turn_pairs(enum cm_dtype dtype, void *rows, uint64_t low, uint64_t high,
                                 size_t count, const float *sine, const float *cosine)
{
    char *x = cm_at(dtype, rows, low), *y = cm_at(dtype, rows, high);
    CM_INDEPENDENT for (size_t i = 0; i < count; i++)
    {
        float a = cm_get(dtype, x, i), b = cm_get(dtype, y, i);
        cm_put(dtype, x, i, a * cosine[i] - b * sine[i]);
        cm_put(dtype, y, i, b * cosine[i] + a * sine[i]);
    }
}

/* Pairs first ... of every head, at one local position. */
static CM_INLINE void turn_position(const struct job *job, uint64_t local, uint64_t first,
                                    size_t count, const double *rates, enum cm_dtype dtype)
{
    const struct cm_rope *rope = &job->rope;
    float sine[PAIRS], cosine[PAIRS];
    double position = (double)cm_position(&rope->positions, local);
    position = rope->backward ? -position : position;
    CM_INDEPENDENT for (size_t i = 0; i < count; i++)
        turn_of(position * rates[i], &sine[i], &cosine[i]);
    uint64_t half = rope->head_size / 2, batch = rope->positions.batch;
    uint64_t last = (local + 1) * batch < rope->rows ? (local + 1) * batch : rope->rows;
    for (uint64_t row = local * batch; row < last; row++) {
        for (uint32_t head = 0; head < rope->heads; head++) {
            uint64_t low = row * rope->stride + (uint64_t)head * rope->head_size + first;
            turn_pairs(dtype, job->rows, low, low + half, count, sine, cosine);
        }
    }
}

static CM_INLINE void turn_positions_body(const struct job *job, uint64_t begin, uint64_t end,
                                          enum cm_dtype dtype)
{
    const struct cm_rope *rope = &job->rope;
    double rates[PAIRS];
    for (uint64_t first = 0; first < rope->head_size / 2; first += PAIRS) {
        uint64_t left = rope->head_size / 2 - first;
        size_t count = left < PAIRS ? (size_t)left : PAIRS;
        for (size_t i = 0; i < count; i++)
            rates[i] = pow((double)rope->base, -2 * (double)(first + i) / (double)rope->head_size);
        for (uint64_t local = begin; local < end; local++)
            turn_position(job, local, first, count, rates, dtype);
    }
}
CM_TYPED_LEVELS(turn_positions, struct job, rope.dtype)

static enum cm_status run_rope(const void *args)
{
    struct job job = *(const struct job *)args;
    uint64_t batch = job.rope.positions.batch;
    uint64_t width = (uint64_t)job.rope.heads * job.rope.head_size * batch;
    cm_team_run(turn_positions, &job, (job.rope.rows + batch - 1) / batch, cm_row_grain(width));
    return CM_OK;
}

enum cm_status cm_cpu_rope(struct cm_stream *stream, const struct cm_rope *rope, void *rows)
{
    struct job job = {*rope, rows};
    return stream->device->ops->call(stream, run_rope, &job, sizeof job, "rope");
}
