/* Reading what NCCL writes about itself. */
#include "host/comm/nccl_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"

#define READ_BYTES 16384

/* NCCL's names and ours. */
static const char *const operations[][2] = {
    {"AllReduce", "all_reduce"}, {"ReduceScatter", "reduce_scatter"}, {"AllGather", "all_gather"},
    {"AlltoAll", "all_to_all"},  {"Broadcast", "broadcast"},
};

/* Before 2.24 it printed numbers. */
static const char *const algorithms[] = {"TREE",          "RING", "COLLNET_DIRECT",
                                         "COLLNET_CHAIN", "NVLS", "NVLS_TREE"};
static const char *const protocols[] = {"LL", "LL128", "SIMPLE"};

static void name_number(char *text, size_t size, const char *const *names, size_t count)
{
    if (text[0] >= '0' && (size_t)(text[0] - '0') < count && text[1] == '\0')
        snprintf(text, size, "%s", names[text[0] - '0']);
}

/* "AllReduce: 8388608 Bytes -> Algo RING proto SIMPLE channel{Lo..Hi}={0..15}" */
static bool read_choice(const char *text, struct cm_nccl_choice *choice)
{
    struct cm_nccl_choice read = {.bytes = 0};
    char name[16];
    unsigned low, high;
    if (sscanf(text,
               "%15[A-Za-z]: %" SCNu64 " Bytes -> Algo %15s proto %11s channel{Lo..Hi}={%u..%u}",
               name, &read.bytes, read.algorithm, read.protocol, &low, &high) != 6 ||
        high < low || high - low >= 1024)
        return false;
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        if (strcmp(name, operations[i][0]) == 0)
            snprintf(read.operation, sizeof read.operation, "%s", operations[i][1]);
    }
    name_number(read.algorithm, sizeof read.algorithm, algorithms,
                sizeof algorithms / sizeof algorithms[0]);
    name_number(read.protocol, sizeof read.protocol, protocols,
                sizeof protocols / sizeof protocols[0]);
    read.channels = high - low + 1;
    *choice = read;
    return read.operation[0] != '\0';
}

const struct cm_nccl_choice *cm_nccl_log_find(const struct cm_nccl_log *log, const char *operation,
                                              uint64_t bytes)
{
    for (size_t i = 0; i < log->count; i++) {
        const struct cm_nccl_choice *choice = &log->choices[i];
        if (choice->bytes == bytes && strcmp(choice->operation, operation) == 0)
            return choice;
    }
    return NULL;
}

/* The latest word on an operation replaces an earlier one. */
static void keep(struct cm_nccl_log *log, const struct cm_nccl_choice *choice)
{
    const struct cm_nccl_choice *known = cm_nccl_log_find(log, choice->operation, choice->bytes);
    if (known != NULL) {
        log->choices[known - log->choices] = *choice;
        return;
    }
    log->choices[log->next] = *choice;
    log->next = (log->next + 1) % CM_NCCL_CHOICES_MAX;
    if (log->count < CM_NCCL_CHOICES_MAX)
        log->count += 1;
}

/* One line, zero-terminated: "host:1:1 [0] NCCL INFO ..." */
static void take_line(struct cm_nccl_log *log, const char *line)
{
    struct cm_nccl_choice choice;
    const char *text = strstr(line, "NCCL INFO ");
    if (text == NULL)
        return;
    text += strlen("NCCL INFO ");
    if (read_choice(text, &choice))
        keep(log, &choice);
    else if (strstr(text, "NVLS multicast support is not available") != NULL ||
             strstr(text, "Proceeding without NVLS support") != NULL)
        log->no_nvls = true;
}

size_t cm_nccl_log_take(struct cm_nccl_log *log, const char *text, size_t length)
{
    char line[512];
    size_t taken = 0;
    const char *end;
    while (taken < length && (end = memchr(text + taken, '\n', length - taken)) != NULL) {
        size_t size = (size_t)(end - text) - taken;
        size_t kept = size < sizeof line ? size : sizeof line - 1;
        memcpy(line, text + taken, kept);
        line[kept] = '\0';
        take_line(log, line);
        taken += size + 1;
    }
    return taken;
}

/* A file without a name, and the path by which this process can open it. */
static enum cm_status open_nameless(int *file, char *path, size_t size)
{
    int opened = memfd_create("clustermark-nccl", MFD_CLOEXEC);
    if (opened < 0)
        return cm_error_errno(CM_SYSTEM, "no memory for what NCCL writes: memfd_create");
    snprintf(path, size, "/proc/self/fd/%d", opened);
    *file = opened;
    return CM_OK;
}

enum cm_status cm_nccl_log_open(struct cm_nccl_log *log)
{
    char path[40];
    if (getenv("NCCL_DEBUG") != NULL || getenv("NCCL_DEBUG_FILE") != NULL)
        return CM_OK;
    enum cm_status status = open_nameless(&log->file, path, sizeof path);
    if (status != CM_OK)
        return status;
    setenv("NCCL_DEBUG", "INFO", 1);
    setenv("NCCL_DEBUG_SUBSYS", "INIT,NVLS,TUNING", 1);
    setenv("NCCL_DEBUG_FILE", path, 1);
    return CM_OK;
}

enum cm_status cm_nccl_log_read(struct cm_nccl_log *log)
{
    char text[READ_BYTES];
    off_t begin = log->read;
    while (log->file >= 0) {
        ssize_t count = pread(log->file, text, sizeof text, log->read);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return cm_error_errno(CM_IO, "cannot read what NCCL wrote");
        size_t taken = cm_nccl_log_take(log, text, (size_t)count);
        if (taken == 0 && count == (ssize_t)sizeof text)
            taken = sizeof text; /* no line of ours is that long */
        if (taken == 0)
            break;
        log->read += (off_t)taken;
    }
    /* NCCL goes on at its own place in the file; what is before it need not be kept. A system that
     * cannot punch holes only keeps it. */
    if (log->read > begin)
        (void)fallocate(log->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, log->read);
    return CM_OK;
}

enum cm_status cm_nccl_topology_open(int *file)
{
    char path[40];
    *file = -1;
    if (getenv("NCCL_TOPO_DUMP_FILE") != NULL)
        return CM_OK;
    enum cm_status status = open_nameless(file, path, sizeof path);
    if (status == CM_OK)
        setenv("NCCL_TOPO_DUMP_FILE", path, 1);
    return status;
}

static enum cm_status read_all(int file, char **text)
{
    off_t size = lseek(file, 0, SEEK_END);
    if (size < 0)
        return cm_error_errno(CM_IO, "cannot read NCCL's topology");
    char *read = cm_alloc((size_t)size + 1, 1);
    if (read == NULL)
        return CM_NO_MEMORY;
    off_t done = 0;
    while (done < size) {
        ssize_t count = pread(file, read + done, (size_t)(size - done), done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            cm_free(read);
            return cm_error_errno(CM_IO, "cannot read NCCL's topology");
        }
        done += count;
    }
    *text = read;
    return CM_OK;
}

enum cm_status cm_nccl_topology_take(int file, char **text)
{
    unsetenv("NCCL_TOPO_DUMP_FILE");
    enum cm_status status = read_all(file, text);
    close(file);
    return status;
}
