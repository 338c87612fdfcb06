/* Device memory in shared memory objects, one for each block, by name. */
#include "contract/like_gpu.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/error.h"

struct block {
    void *memory;
    size_t size_bytes;
    char name[64]; /* "" for one that was imported */
    struct block *next;
};

static const struct cm_device_ops *real;
static struct block *blocks;
static unsigned counter;
static bool hidden;
unsigned like_gpu_imports;

void like_gpu_hide(int rank, int own_rank)
{
    hidden = rank == own_rank;
}

static enum cm_status keep(void *memory, size_t size_bytes, const char *name, void **out)
{
    struct block *block = calloc(1, sizeof *block);
    if (block == NULL || memory == MAP_FAILED) {
        free(block);
        return cm_error(CM_NO_MEMORY, "like_gpu: no shared memory");
    }
    block->memory = memory;
    block->size_bytes = size_bytes;
    snprintf(block->name, sizeof block->name, "%s", name);
    block->next = blocks;
    blocks = block;
    *out = memory;
    return CM_OK;
}

static enum cm_status alloc_shared(struct cm_device *device, enum cm_memory_kind kind,
                                   size_t size_bytes, void **memory)
{
    if (kind != CM_MEMORY_DEVICE)
        return real->alloc(device, kind, size_bytes, memory);
    char name[64];
    snprintf(name, sizeof name, "/clustermark-test-%ld-%u", (long)getpid(), counter++);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) != 0)
        return cm_error_errno(CM_NO_MEMORY, "like_gpu: shared memory of %zu bytes", size_bytes);
    void *block = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return keep(block, size_bytes, name, memory);
}

static struct block *find(const void *memory)
{
    struct block *block = blocks;
    while (block != NULL && block->memory != memory)
        block = block->next;
    return block;
}

static void drop(struct block *block)
{
    struct block **link = &blocks;
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    munmap(block->memory, block->size_bytes);
    if (block->name[0] != '\0')
        shm_unlink(block->name);
    free(block);
}

static void free_shared(struct cm_device *device, enum cm_memory_kind kind, void *memory)
{
    if (kind != CM_MEMORY_DEVICE)
        real->free(device, kind, memory);
    else
        drop(find(memory));
}

static enum cm_status export_block(struct cm_device *device, void *memory,
                                   struct cm_memory_handle *handle)
{
    (void)device;
    const struct block *block = find(memory);
    if (block == NULL)
        return cm_error(CM_USAGE, "like_gpu: no block begins there");
    memset(handle, 0, sizeof *handle);
    snprintf((char *)handle->bytes, sizeof handle->bytes, "%s", hidden ? "hidden" : block->name);
    return CM_OK;
}

static enum cm_status import_block(struct cm_device *device, const struct cm_memory_handle *handle,
                                   void **memory)
{
    (void)device;
    const char *name = (const char *)handle->bytes;
    if (strcmp(name, "hidden") == 0)
        return cm_error(CM_UNSUPPORTED, "there is no link to it");
    struct stat info;
    int fd = shm_open(name, O_RDWR, 0);
    if (fd < 0 || fstat(fd, &info) != 0)
        return cm_error_errno(CM_DEVICE, "like_gpu: import of %s", name);
    void *block = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    enum cm_status status = keep(block, (size_t)info.st_size, "", memory);
    like_gpu_imports += status == CM_OK;
    return status;
}

static void unimport_block(struct cm_device *device, void *memory)
{
    (void)device;
    if (memory == NULL)
        return;
    drop(find(memory));
    like_gpu_imports--;
}

const struct cm_device_ops *like_gpu(const struct cm_device_ops *device)
{
    static struct cm_device_ops ops;
    real = device;
    ops = *device;
    ops.is_host = false;
    ops.alloc = alloc_shared;
    ops.free = free_shared;
    ops.memory_export = export_block;
    ops.memory_import = import_block;
    ops.memory_unimport = unimport_block;
    return &ops;
}
