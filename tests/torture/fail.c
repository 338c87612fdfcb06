/* Decides which call fails, and keeps the list of call paths. */
#include "torture/fail.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_DEPTH 16
#define PATHS_MAX  16384
enum { MODULES_MAX = 4, MODULE_SHIFT = 40 };

extern const char __executable_start[], _end[]; /* the linker's */

/* There with AddressSanitizer. */
extern void __lsan_disable(void) __attribute__((weak));
extern void __lsan_enable(void) __attribute__((weak));

static const char *const kind_names[] = {"alloc", "file", "thread", "mpi", "gpu", "hang"};

static struct {
    pthread_mutex_t lock;
    bool ready;
    char process[16];
    bool armed, fired;
    enum fail_kind kind;
    uint64_t path;     /* 0: by number */
    unsigned long nth; /* of the path, or of the kind */
    int log;           /* descriptor, -1 none */
    char failed[4096]; /* the file that the process to fail makes; "" none */
    struct {
        uintptr_t start, end;
    } modules[MODULES_MAX];
    unsigned module_count;
    unsigned long counts[FAIL_KIND_COUNT];
    uint64_t seen[PATHS_MAX]; /* open addressing; 0 is free */
    unsigned long met;        /* calls on the armed path */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .log = -1};

/* The rank comes from the launcher, or from the command: "rank ... --rank N". */
static void find_process(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (rank == NULL)
        rank = getenv("PMI_RANK");
    snprintf(state.process, sizeof state.process, "main");
    if (rank != NULL) {
        snprintf(state.process, sizeof state.process, "rank%.8s", rank);
        return;
    }
    char command[512] = "";
    int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t length = file >= 0 ? read(file, command, sizeof command - 1) : 0;
    if (file >= 0)
        close(file);
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(command + at) + 1) {
        if (strcmp(command + at, "--rank") == 0)
            snprintf(state.process, sizeof state.process, "rank%.8s",
                     command + at + sizeof "--rank");
    }
}

static void arm(const char *text)
{
    char process[16] = "", kind[16] = "", target[64] = "";
    if (sscanf(text, "%15[^:]:%15[^:]:%63s", process, kind, target) != 3 ||
        strcmp(process, state.process) != 0)
        return;
    for (int i = 0; i < FAIL_KIND_COUNT; i++) {
        if (strcmp(kind, kind_names[i]) == 0)
            state.kind = (enum fail_kind)i;
    }
    state.armed = true;
    state.nth = 1;
    if (target[0] == '@') {
        state.nth = strtoul(target + 1, NULL, 10);
        return;
    }
    char *end;
    state.path = strtoull(target, &end, 16);
    if (*end == '#')
        state.nth = strtoul(end + 1, NULL, 10);
}

static void get_ready(void)
{
    state.ready = true;
    find_process();
    const char *text = getenv("CM_FAIL");
    if (text != NULL)
        arm(text);
    const char *folder = getenv("CM_FAIL_LOG");
    if (folder != NULL) {
        char path[4096];
        snprintf(path, sizeof path, "%s/calls", folder);
        snprintf(state.failed, sizeof state.failed, "%s/failed", folder);
        state.log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
}

/* A library's place changes from run to run. */
static uintptr_t stable(uintptr_t address)
{
    uintptr_t start = (uintptr_t)__executable_start;
    if (address >= start && address < (uintptr_t)_end)
        return address - start;
    for (uintptr_t i = 0; i < state.module_count; i++) {
        if (address >= state.modules[i].start && address < state.modules[i].end)
            return ~(address - state.modules[i].start + (i << MODULE_SHIFT));
    }
    return 0;
}

static uint64_t call_path(enum fail_kind kind, const char *name)
{
    void *frames[PATH_DEPTH];
    int depth = backtrace(frames, PATH_DEPTH);
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ kind;
    for (const char *c = name; *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    for (int i = 2; i < depth; i++)
        hash = (hash ^ stable((uintptr_t)frames[i])) * UINT64_C(0x100000001b3);
    return hash ? hash : 1;
}

static bool first_time(uint64_t path)
{
    size_t slot = path % PATHS_MAX;
    for (size_t tries = 0; tries < PATHS_MAX; tries++, slot = (slot + 1) % PATHS_MAX) {
        if (state.seen[slot] == path)
            return false;
        if (state.seen[slot] == 0) {
            state.seen[slot] = path;
            return true;
        }
    }
    return false;
}

/* Where: what addr2line makes functions of, the program's and, with M, a module's and its number.
 */
static void log_frames(void)
{
    void *frames[PATH_DEPTH];
    int depth = backtrace(frames, PATH_DEPTH);
    char line[PATH_DEPTH * 20 + 4] = "AT";
    size_t used = 2;
    for (int i = 3; i < depth; i++) {
        uintptr_t offset = stable((uintptr_t)frames[i]);
        bool in_module = (intptr_t)offset < 0;
        if (offset != 0)
            used +=
                (size_t)snprintf(line + used, sizeof line - used, in_module ? " M%#lx" : " %#lx",
                                 (unsigned long)(in_module ? ~offset : offset));
    }
    dprintf(state.log, "%s\n", line);
}

static bool is_first_to_fail(void)
{
    if (state.failed[0] == '\0')
        return true;
    int file = open(state.failed, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0)
        close(file);
    return file >= 0;
}

bool fail_now(enum fail_kind kind, const char *name)
{
    static _Thread_local bool inside; /* backtrace allocates the first time */
    if (inside)
        return false;
    inside = true;
    int saved = errno;
    pthread_mutex_lock(&state.lock);
    if (!state.ready)
        get_ready();
    uint64_t path = call_path(kind, name);
    unsigned long number = ++state.counts[kind];
    if (state.log >= 0 && first_time(path))
        dprintf(state.log, "%s %s %016llx %lu %s\n", state.process, kind_names[kind],
                (unsigned long long)path, number, name);
    bool fail = false;
    if (state.armed && !state.fired && kind == state.kind) {
        if (state.path == 0)
            fail = number == state.nth;
        else if (state.path == path)
            fail = ++state.met == state.nth;
    }
    if (fail) {
        state.fired = true;
        fail = is_first_to_fail();
        if (fail && state.log >= 0)
            dprintf(state.log, "FAILED %s %s %s\n", state.process, kind_names[kind], name);
        if (fail && state.log >= 0)
            log_frames();
    }
    pthread_mutex_unlock(&state.lock);
    errno = saved;
    inside = false;
    return fail;
}

void fail_module(const char *start, const char *end)
{
    pthread_mutex_lock(&state.lock);
    if (state.module_count < MODULES_MAX) {
        state.modules[state.module_count].start = (uintptr_t)start;
        state.modules[state.module_count++].end = (uintptr_t)end;
    }
    pthread_mutex_unlock(&state.lock);
}

void fail_log(const char *format, ...)
{
    pthread_mutex_lock(&state.lock);
    if (!state.ready)
        get_ready();
    if (state.log >= 0) {
        va_list args;
        va_start(args, format);
        vdprintf(state.log, format, args);
        va_end(args);
    }
    pthread_mutex_unlock(&state.lock);
}

void fail_foreign_begin(void)
{
    if (__lsan_disable != NULL)
        __lsan_disable();
}

void fail_foreign_end(void)
{
    if (__lsan_enable != NULL)
        __lsan_enable();
}
