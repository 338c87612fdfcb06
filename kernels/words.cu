/*
 * Kernels on 64-bit words: read, which XORs them all, and write.
 *
 * A word begins wherever the memory does, a vector of 16 bytes at a multiple of 16. Where the two
 * do not fit, byte k of each aligned word belongs to place (k + shift) mod 8 of the sequence's: the
 * same for all words, so that one rotation at the end, or of the word to be written, puts it right.
 */
#include "clustermark/cuda_kernels.h"
#include "kernels/launch.cuh"

typedef cm_vector<uint64_t, 2> vector;

#define TURN 4 /* loads in flight: 64 bytes per thread, as in memory.cu */

struct words_job {
    unsigned char *bytes;
    unsigned head;    /* bytes before the first whole vector */
    unsigned tail;    /* bytes after the last */
    uint64_t vectors; /* between them */
};

static __device__ inline uint64_t rotate_left(uint64_t word, unsigned bits)
{
    return word << bits | word >> (-bits & 63);
}

/* ---- read ---- */

/* What the blocks of a launch have found so far. All zero between launches: the last one to come
 * takes it out. */
struct read_sum {
    unsigned long long sum;
    unsigned arrived;
};
static __device__ struct read_sum read_sums[CM_SLOTS];

static __device__ uint64_t read_bytes(const struct words_job &job)
{
    uint64_t i = cm_grid_thread(), sum = 0;
    if (i < job.head)
        sum ^= (uint64_t)job.bytes[i] << 8 * (i % 8);
    if (i < job.tail) {
        uint64_t at = job.head + job.vectors * sizeof(vector) + i;
        sum ^= (uint64_t)job.bytes[at] << 8 * (at % 8);
    }
    return sum;
}

static __device__ uint64_t read_vectors(const struct words_job &job)
{
    const vector *from = (const vector *)(job.bytes + job.head);
    uint64_t i = cm_grid_thread(), step = cm_grid_threads(), sum = 0;
    for (; i + (TURN - 1) * step < job.vectors; i += TURN * step) {
        vector got[TURN];
#pragma unroll
        for (int k = 0; k < TURN; k++)
            got[k] = from[i + k * step];
#pragma unroll
        for (int k = 0; k < TURN; k++)
            sum ^= got[k].v[0] ^ got[k].v[1];
    }
    for (; i < job.vectors; i += step) {
        vector got = from[i];
        sum ^= got.v[0] ^ got.v[1];
    }
    return rotate_left(sum, 8 * (job.head % 8));
}

static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT)
    read_kernel(struct words_job job, unsigned slot, uint64_t *result)
{
    __shared__ uint64_t parts[CM_THREADS / 32];
    uint64_t sum = read_bytes(job) ^ read_vectors(job);
    for (int lanes = 16; lanes > 0; lanes /= 2)
        sum ^= __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int i = 1; i < CM_THREADS / 32; i++)
        sum ^= parts[i];
    struct read_sum *total = &read_sums[slot];
    atomicXor(&total->sum, (unsigned long long)sum);
    __threadfence();
    if (atomicInc(&total->arrived, gridDim.x - 1) < gridDim.x - 1)
        return;
    __threadfence();
    *result = atomicExch(&total->sum, 0ull);
}

/* ---- write ---- */

static __global__ void __launch_bounds__(CM_THREADS, CM_RESIDENT)
    write_kernel(struct words_job job, uint64_t word)
{
    vector *to = (vector *)(job.bytes + job.head);
    uint64_t i = cm_grid_thread(), step = cm_grid_threads();
    if (i < job.head)
        job.bytes[i] = (unsigned char)(word >> 8 * (i % 8));
    if (i < job.tail) {
        uint64_t at = job.head + job.vectors * sizeof(vector) + i;
        job.bytes[at] = (unsigned char)(word >> 8 * (at % 8));
    }
    uint64_t turned = rotate_left(word, -(8 * job.head) & 63);
    vector both = {{turned, turned}};
#pragma unroll 4
    for (; i < job.vectors; i += step)
        to[i] = both;
}

/* ---- Kernel launchers ---- */

static struct words_job split(const void *bytes, uint64_t size_bytes)
{
    uint64_t head = cm_bytes_to(bytes, sizeof(vector));
    head = head < size_bytes ? head : size_bytes;
    uint64_t left = size_bytes - head;
    struct words_job job = {(unsigned char *)bytes, (unsigned)head,
                            (unsigned)(left % sizeof(vector)), left / sizeof(vector)};
    return job;
}

int cm_cuda_read(cudaStream_t stream, uint64_t *result, const void *from, uint64_t size_bytes)
{
    struct words_job job = split(from, size_bytes);
    unsigned blocks;
    int error = cm_stream_grid(job.vectors, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(read_kernel, blocks, CM_THREADS, 0, stream, job, cm_stream_slot(stream),
                     result);
}

int cm_cuda_write(cudaStream_t stream, void *to, uint64_t word, uint64_t size_bytes)
{
    struct words_job job = split(to, size_bytes);
    unsigned blocks;
    if (size_bytes == 0)
        return cudaSuccess;
    int error = cm_stream_grid(job.vectors, &blocks);
    if (error != cudaSuccess)
        return error;
    return CM_LAUNCH(write_kernel, blocks, CM_THREADS, 0, stream, job, word);
}
