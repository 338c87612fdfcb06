/* NCCL: what ranks have in common, and operations on it. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/dtype.h"
#include "fake/fake_nccl.h"

#define LATENCY_S 8e-6
enum { CHUNK = 4096 };

static struct fake_shared *map_shared(int file)
{
    struct fake_shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return shared != MAP_FAILED ? shared : NULL;
}

struct fake_shared *fake_shared_make(int *file)
{
    int made = memfd_create("fake NCCL", MFD_CLOEXEC);
    if (made < 0 || ftruncate(made, sizeof(struct fake_shared)) != 0)
        fake_die("no shared memory: %s", strerror(errno));
    *file = made;
    return map_shared(made);
}

struct fake_shared *fake_shared_open(int pid, int file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, file);
    int opened = open(path, O_RDWR | O_CLOEXEC);
    struct fake_shared *shared = opened >= 0 ? map_shared(opened) : NULL;
    if (opened >= 0)
        close(opened);
    return shared;
}

static void meeting_path(uint64_t number, char *path, size_t size)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, size, "%s/fake-nccl-%llx", folder != NULL ? folder : "/tmp",
             (unsigned long long)number);
}

struct fake_shared *fake_shared_meet(uint64_t number)
{
    char path[4096];
    meeting_path(number, path, sizeof path);
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct fake_shared *shared = NULL;
    if (file >= 0 && ftruncate(file, sizeof *shared) == 0)
        shared = map_shared(file);
    if (file >= 0)
        close(file);
    return shared;
}

void fake_shared_forget(uint64_t number)
{
    char path[4096];
    meeting_path(number, path, sizeof path);
    unlink(path);
}

void fake_shared_drop(struct fake_shared *shared)
{
    if (shared != NULL)
        munmap(shared, sizeof *shared);
}

static bool is_alive(int pid)
{
    char path[64], text[256] = "";
    if (kill(pid, 0) != 0 && errno == ESRCH)
        return false;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, text, sizeof text - 1) : 0;
    if (file >= 0)
        close(file);
    const char *state = length > 0 ? strrchr(text, ')') : NULL;
    return state == NULL || (state[2] != 'Z' && state[2] != 'X');
}

/* Asked in each turn of a wait; the system is in every 64th. */
int fake_shared_lost(const struct fake_shared *shared, int size)
{
    static unsigned turn;
    bool ask = turn++ % 64 == 0;
    for (int rank = 0; rank < size; rank++) {
        int pid = atomic_load(&shared->members[rank].pid);
        int gone = atomic_load(&shared->members[rank].gone);
        if (pid != 0 && (gone == FAKE_ABORTED || (gone != FAKE_LEFT && ask && !is_alive(pid))))
            return rank;
    }
    return -1;
}

const unsigned char *fake_shared_memory(const struct fake_offer *offer)
{
    static struct fake_window *windows;
    struct fake_window *window = windows;
    while (window != NULL && (window->pid != offer->pid || window->file != offer->file))
        window = window->next;
    if (window != NULL)
        return window->start + offer->offset;
    char path[64];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", offer->pid, offer->file);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0)
        return NULL;
    void *start = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    window = calloc(1, sizeof *window);
    if (start == MAP_FAILED || window == NULL)
        fake_die("no room for another GPU's memory");
    *window = (struct fake_window){.pid = offer->pid,
                                   .file = offer->file,
                                   .start = start,
                                   .size = (size_t)status.st_size,
                                   .next = windows};
    windows = window;
    return window->start + offer->offset;
}

/* ---- numbers ---- */

static enum cm_dtype dtype_of(ncclDataType_t type)
{
    switch (type) {
    case ncclInt8:
    case ncclUint8:
        return CM_I8;
    case ncclInt32:
        return CM_I32;
    case ncclFloat16:
        return CM_F16;
    case ncclFloat32:
        return CM_F32;
    case ncclFloat64:
        return CM_F64;
    case ncclBfloat16:
        return CM_BF16;
    default:
        fake_die("NCCL's type %d is not faked", (int)type);
    }
}

size_t fake_type_size(ncclDataType_t type)
{
    return cm_dtype_size(dtype_of(type));
}

static double reduce_two(ncclRedOp_t op, double a, double b)
{
    return op == ncclSum ? a + b : op == ncclMax ? fmax(a, b) : fmin(a, b);
}

/* `count` elements from element `first` of every rank's buffer, rounded once. */
static void reduce(const unsigned char *const *from, int ranks, size_t first, size_t count,
                   const struct fake_op *op, unsigned char *to)
{
    enum cm_dtype dtype = dtype_of(op->type);
    size_t size = cm_dtype_size(dtype);
    double sum[CHUNK], next[CHUNK];
    for (size_t done = 0; done < count; done += CHUNK) {
        size_t now = count - done < CHUNK ? count - done : CHUNK;
        cm_dtype_load_all(dtype, from[0] + (first + done) * size, now, sum);
        for (int rank = 1; rank < ranks; rank++) {
            cm_dtype_load_all(dtype, from[rank] + (first + done) * size, now, next);
            for (size_t i = 0; i < now; i++)
                sum[i] = reduce_two(op->reduce, sum[i], next[i]);
        }
        for (size_t i = 0; i < now; i++)
            cm_dtype_store(dtype, sum[i], to + (done + i) * size);
    }
}

/* ---- collectives ---- */

static size_t result_count(const struct ncclComm *comm, const struct fake_op *op)
{
    bool all = op->kind == FAKE_ALL_GATHER || op->kind == FAKE_ALL_TO_ALL;
    return all ? op->count * (size_t)comm->size : op->count;
}

static struct fake_offer make_offer(const struct fake_op *op, double start_s)
{
    struct fake_export export;
    struct fake_offer offer = {.kind = op->kind,
                               .type = op->type,
                               .reduce = op->reduce,
                               .root = op->peer,
                               .count = op->count,
                               .time_s = start_s};
    if (op->send != NULL && fake_export(op->send, &export)) {
        offer.pid = export.pid;
        offer.file = export.fd;
        offer.offset = fake_offset(op->send);
    }
    return offer;
}

/* All ranks must do the same; the real one hangs, or worse. */
static bool agree(const struct ncclComm *comm, const struct fake_offer *const *offers)
{
    for (int rank = 1; rank < comm->size; rank++) {
        const struct fake_offer *a = offers[0], *b = offers[rank];
        if (a->kind != b->kind || a->type != b->type || a->count != b->count ||
            a->reduce != b->reduce || a->root != b->root) {
            const char *way = getenv("FAKE_NCCL_MISMATCH");
            if (way != NULL && strcmp(way, "hang") == 0)
                return false;
            fake_die("NCCL: rank 0 does collective %d of %zu, rank %d does %d of %zu", a->kind,
                     a->count, rank, b->kind, b->count);
        }
    }
    return true;
}

/* This rank's result, apart from where it goes: others may still read that. */
static void compute(const struct ncclComm *comm, struct fake_op *op,
                    const struct fake_offer *const *offers)
{
    const unsigned char *from[RANKS_MAX] = {NULL};
    size_t bytes = op->count * fake_type_size(op->type);
    op->result = malloc(result_count(comm, op) * fake_type_size(op->type) + 1);
    if (op->result == NULL)
        fake_die("NCCL: no memory for a result");
    for (int rank = 0; rank < comm->size; rank++) {
        if (op->kind == FAKE_BROADCAST && rank != op->peer)
            continue;
        from[rank] = rank == comm->rank ? op->send : fake_shared_memory(offers[rank]);
        if (from[rank] == NULL) /* it died; its death is noticed elsewhere */
            return;
    }
    if (op->kind == FAKE_ALL_REDUCE)
        reduce(from, comm->size, 0, op->count, op, op->result);
    else if (op->kind == FAKE_REDUCE_SCATTER)
        reduce(from, comm->size, op->count * (size_t)comm->rank, op->count, op, op->result);
    else if (op->kind == FAKE_BROADCAST)
        memcpy(op->result, from[op->peer], bytes);
    for (int rank = 0; rank < comm->size; rank++) {
        size_t at = (size_t)rank * bytes;
        if (op->kind == FAKE_ALL_GATHER)
            memcpy(op->result + at, from[rank], bytes);
        else if (op->kind == FAKE_ALL_TO_ALL)
            memcpy(op->result + at, from[rank] + (size_t)comm->rank * bytes, bytes);
    }
}

static double collective_s(const struct ncclComm *comm, const struct fake_op *op)
{
    double bytes = (double)(op->count * fake_type_size(op->type));
    double parts = comm->size, share = (parts - 1) / parts;
    double moved = op->kind == FAKE_ALL_REDUCE  ? 2 * share * bytes
                   : op->kind == FAKE_BROADCAST ? share * bytes
                                                : (parts - 1) * bytes;
    if (comm->size == 1)
        return fake_cost_s(2 * bytes, 0);
    return LATENCY_S + 1e-6 * parts + moved / fake_model()->link_rate;
}

static void progress_collective(struct fake_batch *batch, struct fake_op *op, double start_s)
{
    struct ncclComm *comm = batch->comm;
    const struct fake_offer *offers[RANKS_MAX];
    if (op->stage == FAKE_NEW) {
        op->number = ++comm->collectives;
        struct fake_slot *own = &comm->shared->slots[comm->rank][op->number % 2];
        own->offer = make_offer(op, start_s);
        atomic_store(&own->posted, op->number);
        op->stage = FAKE_POSTED;
    }
    struct fake_slot *own = &comm->shared->slots[comm->rank][op->number % 2];
    double latest_s = start_s;
    for (int rank = 0; rank < comm->size; rank++) {
        struct fake_slot *slot = &comm->shared->slots[rank][op->number % 2];
        if (atomic_load(&slot->posted) != op->number)
            return;
        offers[rank] = &slot->offer;
        latest_s = fmax(latest_s, slot->offer.time_s);
    }
    if (op->stage == FAKE_POSTED) {
        if (!agree(comm, offers))
            return;
        fake_memory_open();
        compute(comm, op, offers);
        atomic_store(&own->read, op->number);
        op->stage = FAKE_READ;
    }
    for (int rank = 0; rank < comm->size; rank++) {
        if (atomic_load(&comm->shared->slots[rank][op->number % 2].read) != op->number)
            return;
    }
    fake_memory_open();
    if (op->kind != FAKE_BROADCAST || op->recv != op->send || comm->rank != op->peer)
        memcpy(op->recv, op->result, result_count(comm, op) * fake_type_size(op->type));
    batch->end_s = fmax(batch->end_s, latest_s + collective_s(comm, op));
    op->stage = FAKE_OVER;
}

/* ---- messages ---- */

static void progress_send(struct fake_batch *batch, struct fake_op *op, double start_s)
{
    struct ncclComm *comm = batch->comm;
    struct fake_mail *mail = &comm->shared->mail[comm->rank][op->peer];
    if (op->stage == FAKE_NEW) {
        op->number = ++comm->sent[op->peer];
        mail->offer = make_offer(op, start_s);
        atomic_store(&mail->posted, op->number);
        op->stage = FAKE_POSTED;
    }
    if (atomic_load(&mail->taken) != op->number)
        return;
    batch->end_s = fmax(batch->end_s, mail->end_s);
    op->stage = FAKE_OVER;
}

static void progress_recv(struct fake_batch *batch, struct fake_op *op, double start_s)
{
    struct ncclComm *comm = batch->comm;
    struct fake_mail *mail = &comm->shared->mail[op->peer][comm->rank];
    if (op->stage == FAKE_NEW) {
        op->number = ++comm->received[op->peer];
        op->stage = FAKE_POSTED;
    }
    if (atomic_load(&mail->posted) != op->number)
        return;
    size_t bytes = op->count * fake_type_size(op->type);
    if (mail->offer.count * fake_type_size(mail->offer.type) != bytes)
        fake_die("NCCL: rank %d receives %zu bytes from rank %d, which sends %zu", comm->rank,
                 bytes, op->peer, mail->offer.count * fake_type_size(mail->offer.type));
    fake_memory_open();
    const unsigned char *from = fake_shared_memory(&mail->offer);
    if (from == NULL)
        return;
    memmove(op->recv, from, bytes);
    mail->end_s =
        fmax(start_s, mail->offer.time_s) + LATENCY_S + (double)bytes / fake_model()->link_rate;
    batch->end_s = fmax(batch->end_s, mail->end_s);
    atomic_store(&mail->taken, op->number);
    op->stage = FAKE_OVER;
}

/* Whether `op` may begin: what came before it in the same queue of its batch is over. */
static bool is_next(const struct fake_batch *batch, const struct fake_op *op)
{
    bool message = op->kind >= FAKE_SEND;
    for (const struct fake_op *before = batch->ops; before < op; before++) {
        bool same = message ? before->kind == op->kind && before->peer == op->peer
                            : before->kind < FAKE_SEND;
        if (same && before->stage != FAKE_OVER)
            return false;
    }
    return true;
}

bool fake_batch_progress(struct fake_batch *batch, double start_s)
{
    size_t over = 0;
    batch->end_s = fmax(batch->end_s, start_s);
    for (struct fake_op *op = batch->ops; op < batch->ops + batch->count; op++) {
        if (op->stage != FAKE_OVER && is_next(batch, op)) {
            if (op->kind == FAKE_SEND)
                progress_send(batch, op, start_s);
            else if (op->kind == FAKE_RECV)
                progress_recv(batch, op, start_s);
            else
                progress_collective(batch, op, start_s);
        }
        over += op->stage == FAKE_OVER;
    }
    return over == batch->count;
}
