/*
 * Random inputs: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * 2011), counted by element index, so that any part of a sequence can be made anywhere. A block of
 * four 32-bit words gives eight elements: word 0's low half first. Each 16-bit half picks one of
 * 65,536 quantiles of the normal distribution.
 */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "clustermark/hash.h"
#include "clustermark/simd.h"
#include "clustermark/team.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/levels.h"

#define MULTIPLIER_0  0xD2511F53u
#define MULTIPLIER_1  0xCD9E8D57u
#define KEY_STEP_0    0x9E3779B9u
#define KEY_STEP_1    0xBB67AE85u
#define PHILOX_ROUNDS 10

#define ENTRIES   65536
#define PER_BLOCK 8  /* elements */
#define LANES     16 /* blocks worked on together */
#define BATCH     (LANES * PER_BLOCK)
/* A range that is worth another core, in elements. */
#define GRAIN (32 * BATCH)

static pthread_once_t quantiles_once = PTHREAD_ONCE_INIT;
static float quantiles[ENTRIES];

/* x > start with upper tail probability `tail`, by Newton's method. The tail is convex there, so
 * from a start below the root it only climbs. */
static double upper_quantile(double tail, double start)
{
    const double root_half = 0.70710678118654752440, density_0 = 0.39894228040143267794;
    double x = start;
    for (int i = 0; i < 60; i++) {
        double excess = 0.5 * erfc(x * root_half) - tail;
        double step = excess / (density_0 * exp(-0.5 * x * x));
        x += step;
        if (fabs(step) < 1e-15 * x)
            break;
    }
    return x;
}

static void make_quantiles(void)
{
    double x = 0;
    for (int i = ENTRIES / 2; i < ENTRIES; i++) {
        x = upper_quantile((ENTRIES - (i + 0.5)) / ENTRIES, x);
        quantiles[i] = (float)x;
        quantiles[ENTRIES - 1 - i] = -(float)x;
    }
}

const float *cm_random_table(void)
{
    pthread_once(&quantiles_once, make_quantiles);
    return quantiles;
}

/* The same quantiles as elements of the narrow types and of i32. */
#define NARROW_LIST(X)                                                                             \
    X(BF16, uint16_t)                                                                              \
    X(F16, uint16_t)                                                                               \
    X(F8E4M3, uint8_t)                                                                             \
    X(F8E5M2, uint8_t)                                                                             \
    X(I32, uint32_t)                                                                               \
    X(I8, uint8_t)

#define NARROW_TABLE(name, type)                                                                   \
    static pthread_once_t name##_once = PTHREAD_ONCE_INIT;                                         \
    static type name##_entries[ENTRIES];                                                           \
    static void make_##name(void)                                                                  \
    {                                                                                              \
        const float *table = cm_random_table();                                                    \
        double scale = cm_dtype_step(CM_##name) > 0 ? 1 : 32;                                      \
        for (size_t i = 0; i < ENTRIES; i++)                                                       \
            cm_dtype_store(CM_##name, scale *(double)table[i], &name##_entries[i]);                \
    }
NARROW_LIST(NARROW_TABLE)

static const void *table_for(enum cm_dtype dtype)
{
    switch (dtype) {
#define NARROW_CASE(name, type)                                                                    \
    case CM_##name:                                                                                \
        pthread_once(&name##_once, make_##name);                                                   \
        return name##_entries;
        NARROW_LIST(NARROW_CASE)
#undef NARROW_CASE
    default:
        return cm_random_table();
    }
}

/* Blocks `block` ... `block` + LANES - 1: words[w][lane] is word w of one of them. */
static CM_INLINE void philox_lanes(uint64_t seed, uint64_t block, uint32_t words[4][LANES])
{
    uint32_t key_0 = (uint32_t)seed, key_1 = (uint32_t)(seed >> 32);
    uint32_t x0[LANES], x1[LANES], x2[LANES], x3[LANES];
    for (int i = 0; i < LANES; i++) {
        x0[i] = (uint32_t)(block + (uint64_t)i);
        x1[i] = (uint32_t)((block + (uint64_t)i) >> 32);
        x2[i] = x3[i] = 0;
    }
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        for (int i = 0; i < LANES; i++) {
            uint64_t product_0 = (uint64_t)MULTIPLIER_0 * x0[i];
            uint64_t product_1 = (uint64_t)MULTIPLIER_1 * x2[i];
            x0[i] = (uint32_t)(product_1 >> 32) ^ x1[i] ^ key_0;
            x2[i] = (uint32_t)(product_0 >> 32) ^ x3[i] ^ key_1;
            x1[i] = (uint32_t)product_1;
            x3[i] = (uint32_t)product_0;
        }
        key_0 += KEY_STEP_0;
        key_1 += KEY_STEP_1;
    }
    memcpy(words[0], x0, sizeof x0);
    memcpy(words[1], x1, sizeof x1);
    memcpy(words[2], x2, sizeof x2);
    memcpy(words[3], x3, sizeof x3);
}

static void words_base(uint64_t seed, uint64_t block, uint32_t words[4][LANES])
{
    philox_lanes(seed, block, words);
}

CM_AVX2 static void words_avx2(uint64_t seed, uint64_t block, uint32_t words[4][LANES])
{
    philox_lanes(seed, block, words);
}

CM_AVX512 static void words_avx512(uint64_t seed, uint64_t block, uint32_t words[4][LANES])
{
    philox_lanes(seed, block, words);
}

static void make_words(uint64_t seed, uint64_t block, uint32_t words[4][LANES])
{
    enum cm_level level = cm_level();
    (level == CM_LEVEL_AVX512 ? words_avx512
     : level == CM_LEVEL_AVX2 ? words_avx2
                              : words_base)(seed, block, words);
}

/* Elements first + begin ... of the sequence to to[begin ...]. Whole batches go straight to the
 * memory; the batches that a range begins or ends within go through a buffer. */
#define DEFINE_FILL(name, type, entry)                                                             \
    static void emit_##name(const uint32_t words[4][LANES], const entry *table, type *to)          \
    {                                                                                              \
        for (int lane = 0; lane < LANES; lane++) {                                                 \
            for (int w = 0; w < 4; w++) {                                                          \
                uint32_t word = words[w][lane];                                                    \
                to[PER_BLOCK * lane + 2 * w] = (type)table[word & 0xffff];                         \
                to[PER_BLOCK * lane + 2 * w + 1] = (type)table[word >> 16];                        \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    static void fill_##name(const struct job *job, uint64_t begin, uint64_t end)                   \
    {                                                                                              \
        type *to = (type *)job->to + begin, batch[BATCH];                                          \
        uint64_t index = job->first + begin, count = end - begin;                                  \
        uint32_t words[4][LANES];                                                                  \
        while (count > 0) {                                                                        \
            size_t skip = (size_t)(index % PER_BLOCK);                                             \
            size_t take = count < BATCH - skip ? (size_t)count : BATCH - skip;                     \
            make_words(job->seed, index / PER_BLOCK, words);                                       \
            if (take == BATCH) {                                                                   \
                emit_##name((const uint32_t(*)[LANES])words, job->table, to);                      \
            } else {                                                                               \
                emit_##name((const uint32_t(*)[LANES])words, job->table, batch);                   \
                memcpy(to, batch + skip, take * sizeof(type));                                     \
            }                                                                                      \
            to += take;                                                                            \
            index += take;                                                                         \
            count -= take;                                                                         \
        }                                                                                          \
    }

struct job {
    void *to;
    const void *table;
    uint64_t count, seed, first;
    enum cm_dtype dtype;
};

DEFINE_FILL(f64, double, float)
DEFINE_FILL(f32, float, float)
DEFINE_FILL(four, uint32_t, uint32_t)
DEFINE_FILL(two, uint16_t, uint16_t)
DEFINE_FILL(one, uint8_t, uint8_t)

static void fill_range(void *job_arg, uint64_t begin, uint64_t end)
{
    const struct job *job = job_arg;
    if (job->dtype == CM_F64)
        fill_f64(job, begin, end);
    else if (job->dtype == CM_F32 || job->dtype == CM_TF32)
        fill_f32(job, begin, end);
    else if (cm_dtype_size(job->dtype) == 4)
        fill_four(job, begin, end);
    else if (cm_dtype_size(job->dtype) == 2)
        fill_two(job, begin, end);
    else
        fill_one(job, begin, end);
}

static enum cm_status run_fill(const void *args)
{
    struct job job = *(const struct job *)args;
    job.table = table_for(job.dtype);
    cm_team_run(fill_range, &job, job.count, GRAIN);
    return CM_OK;
}

enum cm_status cm_cpu_fill_normal(struct cm_stream *stream, void *to, uint64_t count,
                                  enum cm_dtype dtype, uint64_t seed, uint64_t first)
{
    struct job job = {.to = to, .count = count, .seed = seed, .first = first, .dtype = dtype};
    return stream->device->ops->call(stream, run_fill, &job, sizeof job, "fill_normal");
}

/* A block's words in order are its elements in order, where the low half lies first. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "halves of words are taken from memory");

void cm_cpu_random_bits(uint64_t seed, uint64_t first, size_t count, uint16_t *bits)
{
    uint32_t words[4][LANES], batch[LANES][4];
    for (size_t done = 0; done < count;) {
        uint64_t index = first + done;
        size_t skip = (size_t)(index % PER_BLOCK);
        size_t take = count - done < BATCH - skip ? count - done : BATCH - skip;
        make_words(seed, index / PER_BLOCK, words);
        for (int lane = 0; lane < LANES; lane++)
            for (int w = 0; w < 4; w++)
                batch[lane][w] = words[w][lane];
        memcpy(bits + done, (const uint16_t *)(const void *)batch + skip, take * sizeof *bits);
        done += take;
    }
}

uint32_t cm_random_bits(uint64_t seed, uint64_t index)
{
    uint32_t words[4][LANES];
    words_base(seed, index / 4, words);
    return words[index % 4][0];
}

float cm_random_normal(uint64_t seed, uint64_t index)
{
    uint32_t word = cm_random_bits(seed, index / 2);
    return cm_random_table()[index % 2 == 0 ? word & 0xffff : word >> 16];
}

uint64_t cm_random_seed(uint64_t base, const char *purpose, uint64_t rank, uint64_t index)
{
    uint64_t numbers[] = {base, rank, index};
    return cm_hash(cm_hash(0, numbers, sizeof numbers), purpose, strlen(purpose));
}
