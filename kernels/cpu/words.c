/* Kernels on 64-bit words: read, which XORs them all, and write; and empty. */
#include <stdatomic.h>
#include <string.h>

#include "clustermark/simd.h"
#include "clustermark/team.h"
#include "kernels/cpu/kernels.h"

#define WORD sizeof(uint64_t)
/* A range that is worth another core, in words. */
#define GRAIN_WORDS 2048

struct job {
    uint64_t *result;
    unsigned char *to;
    const unsigned char *from;
    uint64_t word;
    uint64_t size_bytes;
    _Atomic uint64_t sum;
};

/* Words need not be aligned, so they are copied; compilers make plain loads of it. */
static CM_INLINE uint64_t xor_body(const unsigned char *from, size_t words)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, from + i * WORD, WORD);
        sum ^= word;
    }
    return sum;
}

static CM_INLINE void write_body(unsigned char *to, uint64_t word, size_t words)
{
    for (size_t i = 0; i < words; i++)
        memcpy(to + i * WORD, &word, WORD);
}

static uint64_t xor_base(const unsigned char *from, size_t words)
{
    return xor_body(from, words);
}

CM_WIDE static uint64_t xor_wide(const unsigned char *from, size_t words)
{
    return xor_body(from, words);
}

static void write_base(unsigned char *to, uint64_t word, size_t words)
{
    write_body(to, word, words);
}

CM_WIDE static void write_wide(unsigned char *to, uint64_t word, size_t words)
{
    write_body(to, word, words);
}

static void read_range(void *job_arg, uint64_t begin, uint64_t end)
{
    struct job *job = job_arg;
    uint64_t sum = (cm_wide() ? xor_wide : xor_base)(job->from + begin * WORD, end - begin);
    atomic_fetch_xor(&job->sum, sum);
}

static void write_range(void *job_arg, uint64_t begin, uint64_t end)
{
    struct job *job = job_arg;
    (cm_wide() ? write_wide : write_base)(job->to + begin * WORD, job->word, end - begin);
}

static enum cm_status run_read(const void *args)
{
    struct job job;
    memcpy(&job, args, sizeof job);
    cm_team_run(read_range, &job, job.size_bytes / WORD, GRAIN_WORDS);
    uint64_t rest = 0;
    memcpy(&rest, job.from + job.size_bytes / WORD * WORD, job.size_bytes % WORD);
    *job.result = atomic_load(&job.sum) ^ rest;
    return CM_OK;
}

static enum cm_status run_write(const void *args)
{
    struct job job;
    memcpy(&job, args, sizeof job);
    cm_team_run(write_range, &job, job.size_bytes / WORD, GRAIN_WORDS);
    memcpy(job.to + job.size_bytes / WORD * WORD, &job.word, job.size_bytes % WORD);
    return CM_OK;
}

enum cm_status cm_cpu_read(struct cm_stream *stream, uint64_t *result, const void *from,
                           uint64_t size_bytes)
{
    struct job job = {.result = result, .from = from, .size_bytes = size_bytes};
    return stream->device->ops->call(stream, run_read, &job, sizeof job, "read");
}

enum cm_status cm_cpu_write(struct cm_stream *stream, void *to, uint64_t word, uint64_t size_bytes)
{
    struct job job = {.to = to, .word = word, .size_bytes = size_bytes};
    return stream->device->ops->call(stream, run_write, &job, sizeof job, "write");
}

static enum cm_status run_empty(const void *args)
{
    (void)args;
    return CM_OK;
}

enum cm_status cm_cpu_empty(struct cm_stream *stream)
{
    return stream->device->ops->call(stream, run_empty, NULL, 0, "empty");
}
