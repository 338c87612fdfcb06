/*
 * Device memory, and what is known of the host's.
 *
 * A GPU's memory is a file in memory of which another process maps blocks. Here it is mapped whole,
 * not accessible but between fake_memory_open and fake_memory_close, and each block ends at a page
 * that is never accessible. Fresh memory is poisoned; addresses are not used again soon.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake/fake.h"

#define PAGE      ((size_t)4096)
#define ALIGNMENT ((size_t)256)
#define CONTEXT   ((size_t)16 << 20) /* what a context takes of the memory */
#define POISON    0xbd
#define ROOM      4 /* addresses per byte of memory */

struct block {
    unsigned char *base; /* first page */
    size_t pages, offset, size;
    enum fake_place place;
    unsigned number;
    struct block *next; /* by address, of those with the same place */
};

static struct {
    int file;
    unsigned char *start;
    size_t bytes, used;
    unsigned char *next; /* where the next search begins */
    struct block *blocks;
    struct block *others; /* host memory and imports */
    unsigned numbers;
    bool open;
} memory = {.file = -1};

/* The program touched what only the device may: say what. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    unsigned char *at = info->si_addr;
    char text[160];
    if (memory.start != NULL && at >= memory.start && at < memory.start + memory.bytes) {
        int length =
            snprintf(text, sizeof text, "clustermark: fake: %s touches device memory at %p\n",
                     memory.open ? "a kernel past its block" : "the host", info->si_addr);
        if (write(2, text, (size_t)length) < 0)
            _exit(99);
    }
    signal(number, SIG_DFL); /* and again, when this returns */
}

void fake_watch_faults(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
}

static void begin(void)
{
    memory.file = memfd_create("fake GPU", MFD_CLOEXEC);
    memory.bytes = ROOM * fake_machine()->memory_bytes;
    if (memory.file < 0 || ftruncate(memory.file, (off_t)memory.bytes) != 0)
        fake_die("no device memory: %s", strerror(errno));
    memory.start = mmap(NULL, memory.bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, memory.file, 0);
    if (memory.start == MAP_FAILED)
        fake_die("no device memory: %s", strerror(errno));
    memory.next = memory.start;
    fake_watch_faults();
}

static void protect(const struct block *block, int access)
{
    if (mprotect(block->base, block->pages * PAGE, access) != 0)
        fake_die("mprotect: %s", strerror(errno));
}

static void protect_all(int access)
{
    for (const struct block *block = memory.blocks; block != NULL; block = block->next)
        protect(block, access);
    for (const struct block *block = memory.others; block != NULL; block = block->next) {
        if (block->place == FAKE_PEER)
            protect(block, access);
    }
}

void fake_memory_open(void)
{
    if (!memory.open)
        protect_all(PROT_READ | PROT_WRITE);
    memory.open = true;
}

void fake_memory_close(void)
{
    if (memory.open)
        protect_all(PROT_NONE);
    memory.open = false;
}

static bool holds(const struct block *block, const void *at)
{
    const unsigned char *byte = at;
    return byte >= block->base + block->offset && byte < block->base + block->offset + block->size;
}

static struct block *find(struct block *list, const void *at)
{
    while (list != NULL && !holds(list, at))
        list = list->next;
    return list;
}

enum fake_place fake_place_of(const void *at, size_t size, const char *call)
{
    const unsigned char *byte = at;
    struct block *block = find(memory.blocks, at);
    if (block == NULL)
        block = find(memory.others, at);
    if (block == NULL && memory.start != NULL && byte >= memory.start &&
        byte < memory.start + memory.bytes)
        fake_die("%s: %p is device memory that was freed or never was", call, at);
    if (block == NULL)
        return FAKE_PAGEABLE;
    if (size > (size_t)(block->base + block->offset + block->size - byte))
        fake_die("%s: %zu bytes from %p leave their block of %zu", call, size, at, block->size);
    return block->place;
}

/* Where `pages` and one more are free, from `from` on. */
static struct block **find_gap(unsigned char *from, size_t pages, unsigned char **base)
{
    struct block **link = &memory.blocks;
    unsigned char *end = memory.start;
    for (;; link = &(*link)->next) {
        unsigned char *first = end > from ? end : from;
        unsigned char *limit = *link != NULL ? (*link)->base : memory.start + memory.bytes;
        if (first < limit && (size_t)(limit - first) >= (pages + 1) * PAGE) {
            *base = first;
            return link;
        }
        if (*link == NULL)
            return NULL;
        end = (*link)->base + ((*link)->pages + 1) * PAGE;
    }
}

void *fake_device_alloc(size_t size)
{
    if (memory.start == NULL)
        begin();
    if (size > fake_memory_left())
        return NULL;
    size_t rounded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t pages = (rounded + PAGE - 1) / PAGE;
    unsigned char *base = NULL;
    struct block **link = find_gap(memory.next, pages, &base);
    if (link == NULL)
        link = find_gap(memory.start, pages, &base);
    struct block *block = calloc(1, sizeof *block);
    if (link == NULL || block == NULL) {
        free(block);
        return NULL;
    }
    *block = (struct block){.base = base,
                            .pages = pages,
                            .offset = pages * PAGE - rounded,
                            .size = size,
                            .place = FAKE_DEVICE,
                            .number = ++memory.numbers,
                            .next = *link};
    *link = block;
    memory.next = base + (pages + 1) * PAGE;
    memory.used += pages * PAGE;
    protect(block, PROT_READ | PROT_WRITE);
    memset(base, POISON, pages * PAGE);
    if (!memory.open)
        protect(block, PROT_NONE);
    fake_count(FAKE_DEVICE_BLOCKS, 1);
    return base + block->offset;
}

/* What lies around a block in its pages is still poison. */
static void check_edges(const struct block *block, const char *call)
{
    const unsigned char *first = block->base + block->offset, *end = first + block->size;
    for (size_t i = 0; i < block->offset; i++) {
        if (block->base[i] != POISON)
            fake_die("%s: something wrote %zu bytes before a block of %zu", call, block->offset - i,
                     block->size);
    }
    for (const unsigned char *at = end; at < block->base + block->pages * PAGE; at++) {
        if (*at != POISON)
            fake_die("%s: something wrote %td bytes behind a block of %zu", call, at - end,
                     block->size);
    }
}

static struct block *take(struct block **list, const void *start, enum fake_place place)
{
    for (struct block **link = list; *link != NULL; link = &(*link)->next) {
        struct block *block = *link;
        if (block->base + block->offset == start && block->place == place) {
            *link = block->next;
            return block;
        }
    }
    return NULL;
}

void fake_device_free(void *start, const char *call)
{
    struct block *block = take(&memory.blocks, start, FAKE_DEVICE);
    if (block == NULL)
        fake_die("%s: %p is no block of device memory", call, start);
    protect(block, PROT_READ);
    check_edges(block, call);
    protect(block, PROT_NONE);
    if (fallocate(memory.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  block->base - memory.start, (off_t)(block->pages * PAGE)) != 0)
        fake_die("fallocate: %s", strerror(errno));
    memory.used -= block->pages * PAGE;
    free(block);
    fake_count(FAKE_DEVICE_BLOCKS, -1);
}

size_t fake_memory_left(void)
{
    size_t all = fake_machine()->memory_bytes;
    return memory.used + CONTEXT < all ? all - CONTEXT - memory.used : 0;
}

static bool add_other(void *base, size_t pages, size_t offset, size_t size, enum fake_place place)
{
    struct block *block = calloc(1, sizeof *block);
    if (block == NULL)
        return false;
    *block = (struct block){.base = base,
                            .pages = pages,
                            .offset = offset,
                            .size = size,
                            .place = place,
                            .next = memory.others};
    memory.others = block;
    return true;
}

void *fake_host_alloc(size_t size)
{
    size_t pages = (size + PAGE - 1) / PAGE;
    void *base = pages < SIZE_MAX / PAGE / 2 ? mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                                             : MAP_FAILED;
    if (base == MAP_FAILED)
        return NULL;
    if (!add_other(base, pages, 0, size, FAKE_PINNED)) {
        munmap(base, pages * PAGE);
        return NULL;
    }
    memset(base, POISON, pages * PAGE);
    fake_count(FAKE_HOST_BLOCKS, 1);
    return base;
}

void fake_host_free(void *start, const char *call)
{
    struct block *block = take(&memory.others, start, FAKE_PINNED);
    if (block == NULL || block->pages == 0)
        fake_die("%s: %p is no block of pinned memory", call, start);
    munmap(block->base, block->pages * PAGE);
    free(block);
    fake_count(FAKE_HOST_BLOCKS, -1);
}

/* Memory that somebody else made has no pages here. */
bool fake_host_register(void *start, size_t size)
{
    if (find(memory.others, start) != NULL || !add_other(start, 0, 0, size, FAKE_PINNED))
        return false;
    fake_count(FAKE_HOST_BLOCKS, 1);
    return true;
}

void fake_host_unregister(void *start, const char *call)
{
    struct block *block = take(&memory.others, start, FAKE_PINNED);
    if (block == NULL || block->pages != 0)
        fake_die("%s: %p is not registered", call, start);
    free(block);
    fake_count(FAKE_HOST_BLOCKS, -1);
}

bool fake_export(const void *at, struct fake_export *export)
{
    const struct block *block = find(memory.blocks, at);
    if (block == NULL)
        return false;
    *export = (struct fake_export){.pid = getpid(),
                                   .fd = memory.file,
                                   .device = fake_device(),
                                   .number = block->number,
                                   .offset = (size_t)(block->base - memory.start) + block->offset,
                                   .size = block->size};
    return true;
}

size_t fake_offset(const void *at)
{
    return (size_t)((const unsigned char *)at - memory.start);
}

void *fake_import(const struct fake_export *export)
{
    char path[64];
    size_t first = export->offset / PAGE * PAGE, offset = export->offset - first;
    size_t pages = (offset + export->size + PAGE - 1) / PAGE;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", export->pid, export->fd);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return NULL;
    int access = memory.open ? PROT_READ | PROT_WRITE : PROT_NONE;
    unsigned char *base = mmap(NULL, pages * PAGE, access, MAP_SHARED, file, (off_t)first);
    close(file);
    if (base == MAP_FAILED)
        return NULL;
    if (!add_other(base, pages, offset, export->size, FAKE_PEER)) {
        munmap(base, pages * PAGE);
        return NULL;
    }
    return base + offset;
}

bool fake_unimport(void *start)
{
    struct block *block = take(&memory.others, start, FAKE_PEER);
    if (block == NULL)
        return false;
    munmap(block->base, block->pages * PAGE);
    free(block);
    return true;
}
