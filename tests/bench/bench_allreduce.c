/*
 * A plain loop of MPI_Allreduce of floats:
 *   mpirun -n 2 bench_allreduce BYTES SETS SECONDS [multiple]
 * Rank 0 prints the median over iterations of the slowest rank's time, in seconds. Pairs of buffers
 * are used in turn; 1 for the same hot pair again and again. Buffers of a kind lie one after the
 * other (apart by odd pages they are a third slower). Iterations run back to back in series of up
 * to 256 that begin with a barrier. `multiple` starts MPI for calls from several threads, which
 * changes what each of them costs.
 */
#include <mpi.h>
#include <stdbool.h>
#include <string.h>

#include "tests/bench/bench.h"

enum { SETS_MAX = 64, SERIES = 256, SAMPLES_MAX = 1000000 };

static float *send_buffers[SETS_MAX], *recv_buffers[SETS_MAX];
static double times[SAMPLES_MAX + SERIES], slowest[SAMPLES_MAX + SERIES];

/* Returns how many iterations ran. */
static size_t run_series(int count, unsigned sets, size_t first, size_t length)
{
    MPI_Barrier(MPI_COMM_WORLD);
    for (size_t i = first; i < first + length; i++) {
        double start = bench_now_s();
        MPI_Allreduce(send_buffers[i % sets], recv_buffers[i % sets], count, MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
        times[i] = bench_now_s() - start;
    }
    return length;
}

/* All ranks go on as long as rank 0 says. */
static int go_on(double start, double seconds)
{
    int more = bench_now_s() - start < seconds;
    MPI_Bcast(&more, 1, MPI_INT, 0, MPI_COMM_WORLD);
    return more;
}

int main(int argc, char **argv)
{
    bool multiple = argc == 5 && strcmp(argv[4], "multiple") == 0;
    int level;
    MPI_Init_thread(&argc, &argv, multiple ? MPI_THREAD_MULTIPLE : MPI_THREAD_SINGLE, &level);
    if (argc != 4 && !multiple) {
        fprintf(stderr, "usage: mpirun -n 2 bench_allreduce BYTES SETS SECONDS [multiple]\n");
        MPI_Abort(MPI_COMM_WORLD, 64);
    }
    int rank, count = atoi(argv[1]) / 4;
    unsigned sets = (unsigned)atoi(argv[2]);
    double seconds = atof(argv[3]);
    if (count < 1 || sets < 1 || sets > SETS_MAX)
        MPI_Abort(MPI_COMM_WORLD, 64);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    uint64_t state = (uint64_t)rank + 1;
    float *send = bench_alloc((size_t)count * 4 * sets),
          *recv = bench_alloc((size_t)count * 4 * sets);
    for (unsigned set = 0; set < sets; set++) {
        send_buffers[set] = send + (size_t)count * set;
        recv_buffers[set] = recv + (size_t)count * set;
        for (int i = 0; i < count; i++) {
            send_buffers[set][i] = bench_random(&state);
            recv_buffers[set][i] = 0;
        }
    }
    double start = bench_now_s();
    while (go_on(start, seconds / 5))
        run_series(count, sets, 0, 16);
    size_t done = 0;
    start = bench_now_s();
    while (done < SAMPLES_MAX && go_on(start, seconds))
        done += run_series(count, sets, done, count > 1000000 ? 16 : SERIES);
    MPI_Reduce(times, slowest, (int)done, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (rank == 0)
        printf("%.6e\n", bench_median(slowest, done));
    MPI_Finalize();
    return 0;
}
