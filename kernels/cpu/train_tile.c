/* Products of tiles: a few rows times two vectors are summed in registers. */
#include "kernels/cpu/train_tile.h"

#include "kernels/cpu/train.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef float vector4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float vector8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float vector16 __attribute__((vector_size(64), aligned(4), may_alias));

#define UNROLLED CM_PRAGMA(GCC unroll 8)

/* `height` rows from `row` on, two vectors from `lane` on. */
#define DEFINE_MULTIPLY(name, element, vector, height, MULTIPLY_ADD, attribute)                    \
    attribute static CM_INLINE void name##_block(const struct cm_tile *tile, const element *a,     \
                                                 size_t a_row, size_t a_step, const element *b,    \
                                                 float *c)                                         \
    {                                                                                              \
        vector sum[height][2];                                                                     \
        UNROLLED for (size_t r = 0; r < height; r++)                                               \
        {                                                                                          \
            vector *to = (vector *)(c + r * tile->c_stride);                                       \
            sum[r][0] = tile->add ? to[0] : (vector){0};                                           \
            sum[r][1] = tile->add ? to[1] : (vector){0};                                           \
        }                                                                                          \
        for (size_t step = 0; step < tile->steps; step++) {                                        \
            const vector *line = (const vector *)(b + step * tile->b_stride);                      \
            vector x = line[0], y = line[1];                                                       \
            UNROLLED for (size_t r = 0; r < height; r++)                                           \
            {                                                                                      \
                element factor = a[r * a_row + step * a_step];                                     \
                MULTIPLY_ADD(sum[r][0], factor, x);                                                \
                MULTIPLY_ADD(sum[r][1], factor, y);                                                \
            }                                                                                      \
        }                                                                                          \
        UNROLLED for (size_t r = 0; r < height; r++)                                               \
        {                                                                                          \
            vector *to = (vector *)(c + r * tile->c_stride);                                       \
            to[0] = sum[r][0];                                                                     \
            to[1] = sum[r][1];                                                                     \
        }                                                                                          \
    }                                                                                              \
    attribute static void name(const struct cm_tile *tile)                                         \
    {                                                                                              \
        const size_t width = 2 * sizeof(vector) / sizeof(float), stride = tile->a_stride;          \
        for (size_t lane = 0; lane < tile->lanes; lane += width) {                                 \
            for (size_t row = 0; row < tile->rows; row += height) {                                \
                const element *a = tile->a, *b = (const element *)tile->b + lane;                  \
                float *c = tile->c + row * tile->c_stride + lane;                                  \
                if (tile->a_turned)                                                                \
                    name##_block(tile, a + row, 1, stride, b, c);                                  \
                else                                                                               \
                    name##_block(tile, a + row * stride, stride, 1, b, c);                         \
            }                                                                                      \
        }                                                                                          \
    }

#define PLAIN(sum, factor, x) sum += factor * x

DEFINE_MULTIPLY(multiply_base, float, vector4, 4, PLAIN, )
#if defined(__x86_64__)
DEFINE_MULTIPLY(multiply_avx2, float, vector8, 4, PLAIN, CM_AVX2)
DEFINE_MULTIPLY(multiply_avx512, float, vector16, 8, PLAIN, CM_AVX512)

#define DOT(sum, factor, x)                                                                        \
    sum = (vector16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)factor),        \
                                     (__m512bh)x)
DEFINE_MULTIPLY(multiply_pairs, cm_pair, vector16, 8, DOT,
                __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))))
#endif

bool cm_tile_has_pairs(void)
{
#if defined(__x86_64__)
    return cm_level() == CM_LEVEL_AVX512 && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

void cm_tile_multiply(const struct cm_tile *tile)
{
#if defined(__x86_64__)
    enum cm_level level = cm_level();
    if (tile->pairs)
        multiply_pairs(tile);
    else if (level == CM_LEVEL_AVX512)
        multiply_avx512(tile);
    else if (level == CM_LEVEL_AVX2)
        multiply_avx2(tile);
    else
#endif
        multiply_base(tile);
}
