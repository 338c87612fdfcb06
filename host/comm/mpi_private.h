/*
 * mpi_private.h: what the files of the MPI backend share. They are a module (clustermark-mpi.so)
 * that the program opens when ranks are asked for.
 */
#ifndef HOST_COMM_MPI_PRIVATE_H
#define HOST_COMM_MPI_PRIVATE_H

#include <mpi.h>

#include "host/comm/queue.h"

struct cm_mpi_comm {
    struct cm_queue queue;
    MPI_Comm data;    /* for the streams' threads */
    MPI_Comm control; /* for split, beside what is queued */
    struct cm_mpi_comm *next_left;
};

/* The process's one MPI, used by the thread that opens and closes. */
struct cm_mpi_process {
    bool started_here;
    bool running; /* begun and not ended: not every call is allowed before */
    bool ready;   /* the operations below exist */
    unsigned open_comms;
    int rank; /* in the world, for messages */
    MPI_Op half[2][CM_REDUCE_MIN + 1];
    struct cm_mpi_comm *left; /* given up with work queued, and closed: perhaps in use for ever */
};
extern struct cm_mpi_process cm_mpi;

/* mpi_execute.c */

/* The one way to call MPI: yields a status and records what failed, and where. */
#define MPI(call) cm_mpi_status((call), #call, __FILE__, __LINE__)
enum cm_status cm_mpi_status(int code, const char *call, const char *file, int line);

/* Reductions of bf16 and f16, which MPI has not. */
enum cm_status cm_mpi_create_ops(void);

extern const struct cm_queue_backend cm_mpi_backend;

#endif
