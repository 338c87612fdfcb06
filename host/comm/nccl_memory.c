/* Memory for communication, registered with every communicator. */
#include <stdbool.h>
#include <time.h>

#include "clustermark/memory.h"
#include "host/comm/nccl_private.h"

/* CM_MEMORY_COMM. */
struct cm_nccl_block {
    void *memory;
    size_t size_bytes;
    struct cm_nccl_block *next;
};

/* A block that a communicator knows. */
struct cm_nccl_registration {
    const struct cm_nccl_block *block;
    void *handle;
    struct cm_nccl_registration *next;
};

static enum cm_status register_block(struct cm_nccl_comm *comm, const struct cm_nccl_block *block)
{
    if (comm->handle == NULL)
        return CM_OK;
    struct cm_nccl_registration *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    enum cm_status status =
        NCCL(ncclCommRegister(comm->handle, block->memory, block->size_bytes, &made->handle));
    if (status != CM_OK) {
        cm_free(made);
        return status;
    }
    made->block = block;
    made->next = comm->registrations;
    comm->registrations = made;
    return CM_OK;
}

#define BRIEF_S 1.0

/* After a failed call NCCL may still be at it in the background, and until it is done the
 * communicator takes no other call but an abort. It is given a moment. */
static bool takes_calls(ncclComm_t handle)
{
    for (double begin = cm_nccl_now_s(); cm_nccl_now_s() - begin < BRIEF_S;) {
        ncclResult_t result = ncclInProgress;
        if (ncclCommGetAsyncError(handle, &result) == ncclSuccess && result != ncclInProgress)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return false;
}

/* NULL for all blocks. Where this fails nobody can do anything about it. */
static void forget_block(struct cm_nccl_comm *comm, const struct cm_nccl_block *block)
{
    for (struct cm_nccl_registration **link = &comm->registrations; *link != NULL;) {
        struct cm_nccl_registration *found = *link;
        if (block != NULL && found->block != block) {
            link = &found->next;
            continue;
        }
        *link = found->next;
        if (comm->handle != NULL && !takes_calls(comm->handle)) {
            ncclCommAbort(comm->handle);
            comm->handle = NULL;
        }
        if (comm->handle != NULL)
            ncclCommDeregister(comm->handle, found->handle);
        cm_free(found);
    }
}

enum cm_status cm_nccl_register_all(struct cm_nccl_comm *comm)
{
    enum cm_status status = CM_OK;
    for (const struct cm_nccl_block *block = cm_nccl.blocks; block != NULL && status == CM_OK;
         block = block->next)
        status = register_block(comm, block);
    return status;
}

void cm_nccl_forget_all(struct cm_nccl_comm *comm)
{
    forget_block(comm, NULL);
}

bool cm_nccl_registered(const struct cm_nccl_comm *comm)
{
    return comm->registrations != NULL && comm->registrations->handle != NULL;
}

static void drop_block(struct cm_nccl_block *block)
{
    for (struct cm_nccl_comm *comm = cm_nccl.comms; comm != NULL; comm = comm->next)
        forget_block(comm, block);
    ncclMemFree(block->memory);
    cm_free(block);
}

static enum cm_status memory_alloc(void *impl, size_t size_bytes, void **memory)
{
    (void)impl;
    struct cm_nccl_block *block = cm_alloc(1, sizeof *block);
    if (block == NULL)
        return CM_NO_MEMORY;
    block->size_bytes = size_bytes;
    ncclResult_t result = ncclMemAlloc(&block->memory, size_bytes);
    if (result != ncclSuccess) {
        cm_free(block);
        cm_nccl_status(result, "ncclMemAlloc", __FILE__, __LINE__);
        return cm_error_at(CM_NO_MEMORY, "asked for %zu bytes", size_bytes);
    }
    enum cm_status status = CM_OK;
    for (struct cm_nccl_comm *comm = cm_nccl.comms; comm != NULL && status == CM_OK;
         comm = comm->next)
        status = register_block(comm, block);
    if (status != CM_OK) {
        drop_block(block);
        return status;
    }
    block->next = cm_nccl.blocks;
    cm_nccl.blocks = block;
    *memory = block->memory;
    return CM_OK;
}

static void memory_free(void *impl, void *memory)
{
    (void)impl;
    struct cm_nccl_block **link = &cm_nccl.blocks;
    while (*link != NULL && (*link)->memory != memory)
        link = &(*link)->next;
    struct cm_nccl_block *block = *link;
    if (block == NULL)
        return;
    *link = block->next;
    drop_block(block);
}

const struct cm_comm_memory cm_nccl_memory = {.alloc = memory_alloc, .free = memory_free};
