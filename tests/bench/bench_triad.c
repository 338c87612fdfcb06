/*
 * A plain triad in the manner of STREAM on all threads of OpenMP:
 *   bench_triad BYTES SECONDS      BYTES of each of the three arrays, all threads together
 * Prints the median bytes per second, three arrays counted. Each thread first touches its share.
 */
#include <omp.h>

#include "tests/bench/bench.h"

enum { SAMPLES_MAX = 100000 };

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bench_triad BYTES SECONDS\n");
        return 64;
    }
    static double times[SAMPLES_MAX];
    long count = atol(argv[1]) / (long)sizeof(double);
    double seconds = atof(argv[2]);
    if (count < 1)
        return 64;
    size_t size = (size_t)count * sizeof(double);
    double *restrict a = bench_alloc(size), *restrict b = bench_alloc(size);
    double *restrict c = bench_alloc(size);
    double factor = 3.0;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < count; i++) {
        uint64_t state = (uint64_t)i * 2654435761u;
        a[i] = 0;
        b[i] = (double)bench_random(&state);
        c[i] = (double)bench_random(&state);
    }
    size_t done = 0;
    double start = 0;
    for (int phase = 0; phase < 2; phase++) { /* the first is the warm-up */
        start = bench_now_s();
        done = 0;
        while (done < 6 || (bench_now_s() - start < (phase == 0 ? seconds / 5 : seconds) &&
                            done < SAMPLES_MAX)) {
            double began = omp_get_wtime();
#pragma omp parallel for schedule(static)
            for (long i = 0; i < count; i++)
                a[i] = b[i] + factor * c[i];
            times[done++] = omp_get_wtime() - began;
        }
    }
    printf("%.6e\n", 3.0 * (double)size / bench_median(times, done));
    return a[count / 2] > 1e30;
}
