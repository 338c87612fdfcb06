/* Memory that the CUDA device uses: its own, the host's near and far, and other processes'. */
#include <errno.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "clustermark/hash.h"
#include "clustermark/memory.h"
#include "host/device/cuda_api.h"

#define PAGE_BYTES 4096
/* Highest NUMA node that a mask of ours can name, plus one. */
#define NODES 1024

enum origin { OWN, OF_COMM, IMPORTED, IMPORTED_HERE };

struct cm_cuda_block {
    void *memory;
    size_t size_bytes;
    enum cm_memory_kind kind;
    enum origin origin;
    struct cm_cuda_block *next;
};

/* What travels in a cm_memory_handle. */
struct export
{
    cudaIpcMemHandle_t handle;
    void *memory;
    uint64_t process;
    char bus_id[24];
};
_Static_assert(sizeof(struct export) <= sizeof(struct cm_memory_handle), "an export must fit");

static bool in_device(enum cm_memory_kind kind)
{
    return kind == CM_MEMORY_DEVICE || kind == CM_MEMORY_COMM;
}

static enum cm_status alloc_device(struct cm_cuda_device *device, struct cm_cuda_block *block)
{
    if (block->kind == CM_MEMORY_COMM && device->comm_memory.alloc != NULL) {
        block->origin = OF_COMM;
        return device->comm_memory.alloc(device->comm_memory.impl, block->size_bytes,
                                         &block->memory);
    }
    return CUDA(device, cudaMalloc(&block->memory, block->size_bytes));
}

static enum cm_status alloc_pageable(struct cm_cuda_block *block)
{
    if (posix_memalign(&block->memory, PAGE_BYTES, block->size_bytes) == 0)
        return CM_OK;
    block->memory = NULL;
    return cm_error(CM_NO_MEMORY, "cuda alloc: the system has no %zu bytes left",
                    block->size_bytes);
}

/* Moves pages that are not touched yet to a node. */
static enum cm_status bind_to_node(const struct cm_cuda_block *block, int node)
{
    enum { WORD_BITS = 8 * sizeof(unsigned long) };
    unsigned long mask[NODES / WORD_BITS] = {0};
    if (node >= NODES)
        return cm_error(CM_UNSUPPORTED, "far memory: NUMA node %d is beyond %d", node, NODES - 1);
    mask[node / WORD_BITS] = 1ul << (node % WORD_BITS);
    if (syscall(SYS_mbind, block->memory, block->size_bytes, MPOL_BIND, mask, NODES + 1ul, 0u) == 0)
        return CM_OK;
    return cm_error_errno(CM_UNSUPPORTED, "far memory: mbind to NUMA node %d", node);
}

static enum cm_status alloc_far(struct cm_cuda_device *device, struct cm_cuda_block *block)
{
    if (device->far_node < 0)
        return cm_error(CM_UNSUPPORTED, "far memory: this machine has no NUMA node farther from "
                                        "the GPU than the nearest");
    void *memory =
        mmap(NULL, block->size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return cm_error_errno(CM_NO_MEMORY, "mmap of %zu bytes of far memory", block->size_bytes);
    block->memory = memory;
    enum cm_status status = bind_to_node(block, device->far_node);
    if (status == CM_OK)
        status =
            CUDA(device, cudaHostRegister(memory, block->size_bytes, cudaHostRegisterPortable));
    if (status != CM_OK) {
        munmap(memory, block->size_bytes);
        block->memory = NULL;
    }
    return status;
}

static enum cm_status alloc_kind(struct cm_cuda_device *device, struct cm_cuda_block *block)
{
    switch (block->kind) {
    case CM_MEMORY_HOST:
        return CUDA(device,
                    cudaHostAlloc(&block->memory, block->size_bytes, cudaHostAllocPortable));
    case CM_MEMORY_HOST_FAR:
        return alloc_far(device, block);
    case CM_MEMORY_PAGEABLE:
        return alloc_pageable(block);
    default:
        return alloc_device(device, block);
    }
}

static enum cm_status check_room(const struct cm_cuda_device *device, enum cm_memory_kind kind,
                                 size_t size_bytes)
{
    uint64_t limit = device->device.info.memory_bytes;
    if (size_bytes == 0)
        return cm_error(CM_USAGE, "cuda alloc: size is 0; ask for at least 1 byte");
    if (!in_device(kind) || (size_bytes <= limit && device->used_bytes <= limit - size_bytes))
        return CM_OK;
    return cm_error(
        CM_NO_MEMORY,
        "cuda alloc: asked for %zu bytes of device %d %s; %" PRIu64 " of %" PRIu64 " are in use",
        size_bytes, device->ordinal, device->device.info.bus_id, device->used_bytes, limit);
}

enum cm_status cm_cuda_alloc(struct cm_device *base, enum cm_memory_kind kind, size_t size_bytes,
                             void **memory)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    enum cm_status status = check_room(device, kind, size_bytes);
    if (status == CM_OK)
        status = cm_cuda_enter(device);
    if (status != CM_OK)
        return status;
    struct cm_cuda_block *block = cm_alloc(1, sizeof *block);
    if (block == NULL)
        return CM_NO_MEMORY;
    block->size_bytes = size_bytes;
    block->kind = kind;
    status = alloc_kind(device, block);
    if (status != CM_OK) {
        cm_free(block);
        if (status == CM_NO_MEMORY)
            cm_error_at(status, "asked for %zu bytes of %s, cuda device %d has %" PRIu64 " left",
                        size_bytes, in_device(kind) ? "it" : "the host", device->ordinal,
                        device->device.info.memory_bytes - device->used_bytes);
        return status;
    }
    block->next = device->blocks;
    device->blocks = block;
    if (in_device(kind))
        device->used_bytes += size_bytes;
    *memory = block->memory;
    return CM_OK;
}

/* Takes the block of that memory out of the list; NULL when there is none. */
static struct cm_cuda_block *take_block(struct cm_cuda_device *device, const void *memory,
                                        bool imported)
{
    for (struct cm_cuda_block **link = &device->blocks; *link != NULL; link = &(*link)->next) {
        struct cm_cuda_block *block = *link;
        if (block->memory != memory || (block->origin >= IMPORTED) != imported)
            continue;
        *link = block->next;
        return block;
    }
    return NULL;
}

static void give_back(struct cm_cuda_device *device, const struct cm_cuda_block *block)
{
    cudaError_t code = cudaSuccess;
    switch (block->kind) {
    case CM_MEMORY_HOST:
        code = cudaFreeHost(block->memory);
        break;
    case CM_MEMORY_HOST_FAR:
        code = cudaHostUnregister(block->memory);
        munmap(block->memory, block->size_bytes);
        break;
    case CM_MEMORY_PAGEABLE:
        free(block->memory);
        break;
    default:
        if (block->origin == OF_COMM)
            device->comm_memory.free(device->comm_memory.impl, block->memory);
        else
            code = cudaFree(block->memory);
    }
    if (code != cudaSuccess)
        cudaGetLastError();
}

void cm_cuda_free(struct cm_device *base, enum cm_memory_kind kind, void *memory)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    (void)kind; /* the block knows */
    struct cm_cuda_block *block = memory != NULL ? take_block(device, memory, false) : NULL;
    if (block == NULL)
        return;
    if (in_device(block->kind))
        device->used_bytes -= block->size_bytes;
    /* Work that hangs may still use it, and cudaFree would wait for that work. */
    if (!device->abandoned && cm_cuda_enter(device) == CM_OK)
        give_back(device, block);
    cm_free(block);
}

void cm_cuda_use_comm_memory(struct cm_device *base, const struct cm_comm_memory *memory)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    device->comm_memory = memory != NULL ? *memory : (struct cm_comm_memory){.alloc = NULL};
}

bool cm_cuda_is_pageable(const void *memory)
{
    struct cudaPointerAttributes attributes;
    if (cudaPointerGetAttributes(&attributes, memory) != cudaSuccess) {
        cudaGetLastError();
        return true;
    }
    return attributes.type == cudaMemoryTypeUnregistered;
}

/* ---- between processes ---- */

/* Tells this process from others, also from those in other containers with the same number. */
static uint64_t process_token(void)
{
    static uint64_t token;
    if (token == 0) {
        uint64_t seen[] = {(uint64_t)getpid(), cm_cuda_now_ns()};
        token = cm_hash(0, seen, sizeof seen);
    }
    return token;
}

enum cm_status cm_cuda_export(struct cm_device *base, void *memory, struct cm_memory_handle *handle)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    struct export made = {.memory = memory, .process = process_token()};
    memcpy(made.bus_id, base->info.bus_id, sizeof made.bus_id);
    enum cm_status status = cm_cuda_enter(device);
    if (status == CM_OK)
        status = CUDA(device, cudaIpcGetMemHandle(&made.handle, memory));
    if (status != CM_OK)
        return status;
    memset(handle, 0, sizeof *handle);
    memcpy(handle->bytes, &made, sizeof made);
    return CM_OK;
}

/* CM_UNSUPPORTED with the reason where this device cannot reach that GPU's memory. */
static enum cm_status check_peer(struct cm_cuda_device *device, const char *bus_id)
{
    int peer = -1, reachable = 0;
    if (cudaDeviceGetByPCIBusId(&peer, bus_id) != cudaSuccess) {
        cudaGetLastError();
        return cm_error(CM_UNSUPPORTED,
                        "memory_import: GPU %s is not visible to the process of GPU %s; leave both "
                        "in CUDA_VISIBLE_DEVICES",
                        bus_id, device->device.info.bus_id);
    }
    if (peer == device->ordinal)
        return CM_OK;
    enum cm_status status =
        CUDA(device, cudaDeviceCanAccessPeer(&reachable, device->ordinal, peer));
    if (status == CM_OK && !reachable)
        status = cm_error(CM_UNSUPPORTED, "memory_import: GPU %s has no peer access to GPU %s",
                          device->device.info.bus_id, bus_id);
    return status;
}

/* Memory of this very process needs no import, but access where it is another GPU's. */
static enum cm_status import_here(struct cm_cuda_device *device, const struct export *from,
                                  struct cm_cuda_block *block)
{
    int peer = -1;
    block->origin = IMPORTED_HERE;
    block->memory = from->memory;
    enum cm_status status = CUDA(device, cudaDeviceGetByPCIBusId(&peer, from->bus_id));
    if (status != CM_OK || peer == device->ordinal)
        return status;
    cudaError_t code = cudaDeviceEnablePeerAccess(peer, 0);
    if (code == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
        return CM_OK;
    }
    return cm_cuda_status(device, (int)code, "cudaDeviceEnablePeerAccess", __FILE__, __LINE__);
}

enum cm_status cm_cuda_import(struct cm_device *base, const struct cm_memory_handle *handle,
                              void **memory)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    struct export from;
    memcpy(&from, handle->bytes, sizeof from);
    from.bus_id[sizeof from.bus_id - 1] = '\0';
    enum cm_status status = cm_cuda_enter(device);
    if (status == CM_OK)
        status = check_peer(device, from.bus_id);
    if (status != CM_OK)
        return status;
    struct cm_cuda_block *block = cm_alloc(1, sizeof *block);
    if (block == NULL)
        return CM_NO_MEMORY;
    block->origin = IMPORTED;
    if (from.process == process_token())
        status = import_here(device, &from, block);
    else
        status = CUDA(device, cudaIpcOpenMemHandle(&block->memory, from.handle,
                                                   cudaIpcMemLazyEnablePeerAccess));
    if (status != CM_OK) {
        cm_free(block);
        return status;
    }
    block->next = device->blocks;
    device->blocks = block;
    *memory = block->memory;
    return CM_OK;
}

void cm_cuda_unimport(struct cm_device *base, void *memory)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    struct cm_cuda_block *block = memory != NULL ? take_block(device, memory, true) : NULL;
    if (block == NULL)
        return;
    if (block->origin == IMPORTED && !device->abandoned && cm_cuda_enter(device) == CM_OK &&
        cudaIpcCloseMemHandle(memory) != cudaSuccess)
        cudaGetLastError();
    cm_free(block);
}
