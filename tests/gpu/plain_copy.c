/*
 * A plain loop of cudaMemcpyAsync between pinned host memory and the device:
 *   plain_copy h2d|d2h BYTES SECONDS
 * Prints the median bytes per second of single copies timed by events. Two pairs of buffers with
 * random content are used in turn. Nothing here comes from the program it is compared with.
 */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"

enum { PAIRS = 2, BATCH = 8, SAMPLES_MAX = 100000 };

#define TRY(call)                                                                                  \
    do {                                                                                           \
        cudaError_t code_ = (call);                                                                \
        if (code_ != cudaSuccess) {                                                                \
            fprintf(stderr, "plain_copy: %s: %s\n", #call, cudaGetErrorString(code_));             \
            exit(70);                                                                              \
        }                                                                                          \
    } while (0)

int main(int argc, char **argv)
{
    if (argc != 4 || (strcmp(argv[1], "h2d") != 0 && strcmp(argv[1], "d2h") != 0)) {
        fprintf(stderr, "usage: plain_copy h2d|d2h BYTES SECONDS\n");
        return 64;
    }
    static double times[SAMPLES_MAX + BATCH];
    int to_device = argv[1][0] == 'h';
    size_t size = strtoull(argv[2], NULL, 10) / 4 * 4;
    double seconds = atof(argv[3]);
    void *host[PAIRS], *device[PAIRS];
    cudaEvent_t events[BATCH + 1];
    cudaStream_t stream;
    TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int i = 0; i <= BATCH; i++)
        TRY(cudaEventCreate(&events[i]));
    uint64_t state = 1;
    for (int pair = 0; pair < PAIRS; pair++) {
        TRY(cudaHostAlloc(&host[pair], size, cudaHostAllocDefault));
        TRY(cudaMalloc(&device[pair], size));
        for (size_t i = 0; i < size / 4; i++)
            ((float *)host[pair])[i] = bench_random(&state);
        TRY(cudaMemcpy(device[pair], host[pair], size, cudaMemcpyHostToDevice));
    }
    size_t done = 0;
    for (int phase = 0; phase < 2; phase++) { /* the first is the warm-up */
        double start = bench_now_s();
        done = 0;
        while ((bench_now_s() - start < seconds || done == 0) && done < SAMPLES_MAX) {
            TRY(cudaEventRecord(events[0], stream));
            for (int i = 0; i < BATCH; i++) {
                void *from = to_device ? host[i % PAIRS] : device[i % PAIRS];
                void *to = to_device ? device[i % PAIRS] : host[i % PAIRS];
                TRY(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, stream));
                TRY(cudaEventRecord(events[i + 1], stream));
            }
            TRY(cudaStreamSynchronize(stream));
            for (int i = 0; i < BATCH; i++) {
                float ms;
                TRY(cudaEventElapsedTime(&ms, events[i], events[i + 1]));
                times[done++] = (double)ms * 1e-3;
            }
        }
    }
    printf("%.6e\n", (double)size / bench_median(times, done));
    return 0;
}
