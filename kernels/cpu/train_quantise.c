/* Numbers in 8 bits with one scale for all of them: the largest magnitude first, then each number
 * over it. */
#include "kernels/cpu/train.h"

/* Below it, all counts as 0. */
#define LEAST 0x1p-100f

struct job {
    struct cm_quantise quantise;
    const void *from;
    uint8_t *to;
    struct cm_quantised *known;
    uint32_t largest; /* bits of the largest magnitude: those of a NAN are larger than all */
    float factor;
};

static void find_largest(void *job_arg, uint64_t begin, uint64_t end)
{
    struct job *job = job_arg;
    float buffer[CM_BUFFER];
    uint32_t largest = 0;
    for (uint64_t at = begin; at < end; at += CM_BLOCK) {
        size_t count = cm_block_at(at, end);
        const float *from = cm_view(job->quantise.from, job->from, at, count, buffer);
        for (size_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, &from[i], sizeof bits);
            bits &= 0x7fffffffu;
            largest = bits > largest ? bits : largest;
        }
    }
    uint32_t seen = __atomic_load_n(&job->largest, __ATOMIC_RELAXED);
    while (seen < largest && !__atomic_compare_exchange_n(&job->largest, &seen, largest, false,
                                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

/* To nearest even, in a format of so many mantissa bits; `top` is the code of its largest. */
static CM_INLINE uint8_t round_to(float value, unsigned mantissa, unsigned bias, uint32_t top)
{
    const unsigned dropped = 23 - mantissa;
    uint32_t bits, code;
    memcpy(&bits, &value, sizeof bits);
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude >= (128 - bias) << 23) {
        uint32_t half = (1u << (dropped - 1)) - 1 + (magnitude >> dropped & 1);
        code = ((magnitude + half) >> dropped) - ((127 - bias) << mantissa);
    } else { /* subnormal: a number whose last bit is one step rounds the sum */
        const uint32_t large_bits = (151 - bias - mantissa) << 23;
        float small, large, sum;
        memcpy(&small, &magnitude, sizeof small);
        memcpy(&large, &large_bits, sizeof large);
        sum = small + large;
        memcpy(&code, &sum, sizeof code);
        code -= large_bits;
    }
    code = code < top ? code : top;
    return (uint8_t)(bits >> 31 ? code | 0x80 : code);
}

static CM_INLINE uint8_t narrow(enum cm_dtype to, float value)
{
    return to == CM_F8E4M3 ? round_to(value, 3, 7, 0x7e) : round_to(value, 2, 15, 0x7b);
}

/* Rows of all matrices. */
static void narrow_rows(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    const struct cm_quantise *q = &job->quantise;
    float buffer[CM_BUFFER];
    for (uint64_t row = begin; row < end; row++) {
        uint8_t *matrix = job->to + row / q->rows * q->rows * q->columns;
        uint64_t r = row % q->rows;
        for (uint64_t at = 0; at < q->columns; at += CM_BLOCK) {
            size_t count = cm_block_at(at, q->columns);
            const float *from = cm_view(q->from, job->from, row * q->columns + at, count, buffer);
            for (size_t i = 0; i < count; i++) {
                uint64_t c = at + i;
                matrix[q->transpose ? c * q->rows + r : r * q->columns + c] =
                    narrow(q->to, from[i] * job->factor);
            }
        }
    }
}

static enum cm_status run_quantise(const void *args)
{
    struct job job = *(const struct job *)args;
    const struct cm_quantise *q = &job.quantise;
    float most = q->to == CM_F8E4M3 ? 448 : 57344, largest, scale = 1;
    cm_team_run(find_largest, &job, q->rows * q->columns * q->batch, CM_GRAIN);
    memcpy(&largest, &job.largest, sizeof largest);
    job.factor = 1;
    if (!(largest < LEAST)) {
        job.factor = most / largest;
        scale = largest / most;
    }
    cm_team_run(narrow_rows, &job, q->rows * q->batch, cm_row_grain(q->columns));
    *job.known = (struct cm_quantised){scale, largest};
    return CM_OK;
}

enum cm_status cm_cpu_quantise(struct cm_stream *stream, const struct cm_quantise *quantise,
                               const void *from, void *to, struct cm_quantised *known)
{
    struct job job = {.quantise = *quantise, .from = from, .to = to, .known = known};
    if (quantise->to != CM_F8E4M3 && quantise->to != CM_F8E5M2)
        return cm_error(CM_UNSUPPORTED, "quantise to %s: only f8e4m3 and f8e5m2",
                        cm_dtype_name(quantise->to));
    return stream->device->ops->call(stream, run_quantise, &job, sizeof job, "quantise");
}
