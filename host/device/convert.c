/* bf16 to f32 and back. A bf16 is the upper half of an f32. 8-bit floats to f32, by a table. */
#include "host/device/convert.h"

#include <string.h>

#include "clustermark/simd.h"
#include "clustermark/team.h"

/* Elements that are worth another core. */
#define GRAIN 8192

struct job {
    void *to;
    const void *from;
    size_t to_stride, from_stride, columns;
    const float *table; /* of 8-bit floats: what each is */
};

static CM_INLINE void widen_body(float *to, const uint16_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

static CM_INLINE void narrow_body(uint16_t *to, const float *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        /* Half of the last place, a little less where that makes ties go to the even neighbour. */
        uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
        uint32_t quiet = bits >> 16 | 0x40;
        to[i] = (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

static void widen_base(float *to, const uint16_t *from, size_t count)
{
    widen_body(to, from, count);
}

CM_WIDE static void widen_wide(float *to, const uint16_t *from, size_t count)
{
    widen_body(to, from, count);
}

static void narrow_base(uint16_t *to, const float *from, size_t count)
{
    narrow_body(to, from, count);
}

CM_WIDE static void narrow_wide(uint16_t *to, const float *from, size_t count)
{
    narrow_body(to, from, count);
}

static void widen_rows(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    for (uint64_t row = begin; row < end; row++)
        (cm_wide() ? widen_wide : widen_base)((float *)job->to + row * job->to_stride,
                                              (const uint16_t *)job->from + row * job->from_stride,
                                              job->columns);
}

static void narrow_rows(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    for (uint64_t row = begin; row < end; row++)
        (cm_wide() ? narrow_wide : narrow_base)((uint16_t *)job->to + row * job->to_stride,
                                                (const float *)job->from + row * job->from_stride,
                                                job->columns);
}

static uint64_t row_grain(size_t columns)
{
    return columns >= GRAIN ? 1 : GRAIN / (columns > 0 ? columns : 1);
}

void cm_bf16_to_f32(float *to, size_t to_stride, const uint16_t *from, size_t from_stride,
                    size_t rows, size_t columns)
{
    struct job job = {to, from, to_stride, from_stride, columns, NULL};
    cm_team_run(widen_rows, &job, rows, row_grain(columns));
}

void cm_f32_to_bf16(uint16_t *to, size_t to_stride, const float *from, size_t from_stride,
                    size_t rows, size_t columns)
{
    struct job job = {to, from, to_stride, from_stride, columns, NULL};
    cm_team_run(narrow_rows, &job, rows, row_grain(columns));
}

static void look_up_rows(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    for (uint64_t row = begin; row < end; row++) {
        float *to = (float *)job->to + row * job->to_stride;
        const uint8_t *from = (const uint8_t *)job->from + row * job->from_stride;
        for (size_t i = 0; i < job->columns; i++)
            to[i] = job->table[from[i]];
    }
}

void cm_f8_to_f32(float *to, size_t to_stride, const uint8_t *from, size_t from_stride, size_t rows,
                  size_t columns, enum cm_dtype dtype)
{
    float table[256];
    for (unsigned i = 0; i < 256; i++) {
        uint8_t code = (uint8_t)i;
        table[i] = (float)cm_dtype_load(dtype, &code);
    }
    struct job job = {to, from, to_stride, from_stride, columns, table};
    cm_team_run(look_up_rows, &job, rows, row_grain(columns));
}
