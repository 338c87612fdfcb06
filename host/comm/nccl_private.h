/*
 * nccl_private.h: what the files of the NCCL backend share. They are a module
 * (clustermark-nccl.so), reach streams by the device's native_stream, and need the CUDA runtime's
 * types only.
 */
#ifndef HOST_COMM_NCCL_PRIVATE_H
#define HOST_COMM_NCCL_PRIVATE_H

#include <nccl.h>

#include "host/comm/nccl_log.h"
#include "host/comm/queue.h"

struct cm_nccl_block;
struct cm_nccl_registration;

struct cm_nccl_comm {
    struct cm_queue queue;
    ncclComm_t handle;  /* NULL after an abort */
    ncclComm_t pending; /* where a split puts its part, however late */
    double timeout_s;
    bool world; /* it brought the device's CM_MEMORY_COMM along */
    struct cm_nccl_registration *registrations;
    struct cm_nccl_comm *next;
    char chosen[96];
};

/* The process's one NCCL, used by the thread that uses the device. */
struct cm_nccl_process {
    int version;
    unsigned rank;   /* in the world, for messages */
    char device[48]; /* "cuda device 0000:1b:00.0", too */
    struct cm_nccl_comm *comms;
    struct cm_nccl_block *blocks;
    bool log_tried;
    struct cm_nccl_log log;
    uint64_t operations; /* queued */
    char *topology;
};
extern struct cm_nccl_process cm_nccl;

/* nccl_execute.c */

/* The one way to call NCCL: yields a status and records what failed, and where. What goes on in the
 * background is no failure: see cm_nccl_settle. */
#define NCCL(call) cm_nccl_status((call), #call, __FILE__, __LINE__)
enum cm_status cm_nccl_status(ncclResult_t result, const char *call, const char *file, int line);

/* Wait until NCCL has finished what it does in the background. After timeout_s CM_TIMEOUT says that
 * `what` failed, because `late`. */
enum cm_status cm_nccl_settle(ncclComm_t handle, double timeout_s, const char *what,
                              const char *late);

double cm_nccl_now_s(void);

extern const struct cm_queue_backend cm_nccl_backend;

/* nccl_memory.c: CM_MEMORY_COMM is NCCL's own memory, known to every communicator of the process,
 * so that it need not copy through buffers in between. NCCL_LOCAL_REGISTER=0 turns that off within
 * NCCL. */
extern const struct cm_comm_memory cm_nccl_memory;
enum cm_status cm_nccl_register_all(struct cm_nccl_comm *comm);
void cm_nccl_forget_all(struct cm_nccl_comm *comm);
bool cm_nccl_registered(const struct cm_nccl_comm *comm);

#endif
