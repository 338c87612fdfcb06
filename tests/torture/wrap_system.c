/*
 * Allocation, file, process and thread calls of the program's own objects, each of which can be
 * made to fail. The linker sends every call of X here (--wrap=X, see CMakeLists.txt) and calls that
 * the libraries make among themselves stay as they are.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "clustermark/deadline.h"
#include "clustermark/measure.h"
#include "clustermark/result.h"
#include "clustermark/workload.h"
#include "host/measure/channel.h"
#include "host/measure/crew.h"
#include "host/measure/message.h"
#include "torture/fail.h"

/* result __wrap_name(parameters): fails with `error` and `bad` as its result. */
#define WRAP(kind, result, name, bad, error, parameters, arguments)                                \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        if (fail_now(kind, #name)) {                                                               \
            errno = (error);                                                                       \
            return bad;                                                                            \
        }                                                                                          \
        return __real_##name arguments;                                                            \
    }

/* Those return the error number itself. */
#define WRAP_NUMBER(kind, name, error, parameters, arguments)                                      \
    int __real_##name parameters;                                                                  \
    int __wrap_##name parameters;                                                                  \
    int __wrap_##name parameters                                                                   \
    {                                                                                              \
        return fail_now(kind, #name) ? (error) : __real_##name arguments;                          \
    }

WRAP(FAIL_ALLOC, void *, malloc, NULL, ENOMEM, (size_t size), (size))
WRAP(FAIL_ALLOC, void *, calloc, NULL, ENOMEM, (size_t count, size_t size), (count, size))
WRAP(FAIL_ALLOC, void *, realloc, NULL, ENOMEM, (void *block, size_t size), (block, size))
WRAP(FAIL_ALLOC, void *, aligned_alloc, NULL, ENOMEM, (size_t align, size_t size), (align, size))
WRAP_NUMBER(FAIL_ALLOC, posix_memalign, ENOMEM, (void **block, size_t align, size_t size),
            (block, align, size))
WRAP(FAIL_ALLOC, void *, mmap, MAP_FAILED, ENOMEM,
     (void *at, size_t size, int protection, int flags, int file, off_t offset),
     (at, size, protection, flags, file, offset))

WRAP(FAIL_FILE, FILE *, fopen, NULL, EIO, (const char *path, const char *mode), (path, mode))
WRAP(FAIL_FILE, FILE *, fdopen, NULL, ENOMEM, (int file, const char *mode), (file, mode))
WRAP(FAIL_FILE, ssize_t, read, -1, EIO, (int file, void *to, size_t size), (file, to, size))
WRAP(FAIL_FILE, ssize_t, write, -1, ENOSPC, (int file, const void *from, size_t size),
     (file, from, size))
WRAP(FAIL_FILE, size_t, fread, 0, EIO, (void *to, size_t size, size_t count, FILE *file),
     (to, size, count, file))
WRAP(FAIL_FILE, size_t, fwrite, 0, ENOSPC,
     (const void *from, size_t size, size_t count, FILE *file), (from, size, count, file))
WRAP(FAIL_FILE, int, fputs, EOF, ENOSPC, (const char *text, FILE *file), (text, file))
WRAP(FAIL_FILE, int, fflush, EOF, ENOSPC, (FILE * file), (file))
WRAP(FAIL_FILE, int, fsync, -1, EIO, (int file), (file))
WRAP(FAIL_FILE, int, fstat, -1, EIO, (int file, struct stat *status), (file, status))
WRAP(FAIL_FILE, int, stat, -1, EIO, (const char *path, struct stat *status), (path, status))
WRAP(FAIL_FILE, int, fchmod, -1, EPERM, (int file, mode_t mode), (file, mode))
WRAP(FAIL_FILE, int, rename, -1, EIO, (const char *from, const char *to), (from, to))
WRAP(FAIL_FILE, int, mkdir, -1, EACCES, (const char *path, mode_t mode), (path, mode))
WRAP(FAIL_FILE, char *, mkdtemp, NULL, EACCES, (char *template), (template))
WRAP(FAIL_FILE, int, mkstemp, -1, EACCES, (char *template), (template))
WRAP(FAIL_FILE, char *, realpath, NULL, EACCES, (const char *path, char *to), (path, to))
WRAP(FAIL_FILE, ssize_t, readlink, -1, EACCES, (const char *path, char *to, size_t size),
     (path, to, size))
WRAP(FAIL_FILE, DIR *, opendir, NULL, EACCES, (const char *path), (path))
WRAP(FAIL_FILE, int, pipe, -1, EMFILE, (int ends[2]), (ends))
WRAP(FAIL_FILE, int, pipe2, -1, EMFILE, (int ends[2], int flags), (ends, flags))
WRAP(FAIL_FILE, int, dup2, -1, EMFILE, (int from, int to), (from, to))
WRAP(FAIL_FILE, int, socket, -1, EMFILE, (int domain, int type, int protocol),
     (domain, type, protocol))
WRAP(FAIL_FILE, int, bind, -1, EACCES, (int file, const struct sockaddr *address, socklen_t length),
     (file, address, length))
WRAP(FAIL_FILE, int, listen, -1, EACCES, (int file, int backlog), (file, backlog))
WRAP(FAIL_FILE, int, accept4, -1, EMFILE,
     (int file, struct sockaddr *address, socklen_t *length, int flags),
     (file, address, length, flags))
WRAP(FAIL_FILE, int, connect, -1, ECONNREFUSED,
     (int file, const struct sockaddr *address, socklen_t length), (file, address, length))
WRAP(FAIL_FILE, ssize_t, send, -1, EIO, (int file, const void *from, size_t size, int flags),
     (file, from, size, flags))
WRAP(FAIL_FILE, ssize_t, recv, -1, EIO, (int file, void *to, size_t size, int flags),
     (file, to, size, flags))
WRAP(FAIL_FILE, int, poll, -1, EINVAL, (struct pollfd * files, nfds_t count, int timeout_ms),
     (files, count, timeout_ms))
WRAP(FAIL_FILE, pid_t, fork, -1, EAGAIN, (void), ())
WRAP(FAIL_FILE, int, execvpe, -1, EACCES,
     (const char *path, char *const argv[], char *const environment[]), (path, argv, environment))
WRAP(FAIL_FILE, int, access, -1, EACCES, (const char *path, int mode), (path, mode))
WRAP(FAIL_FILE, char *, fgets, NULL, EIO, (char *text, int size, FILE *file), (text, size, file))
WRAP(FAIL_FILE, int, scandir, -1, EACCES,
     (const char *path, struct dirent ***found, int (*wanted)(const struct dirent *),
      int (*order)(const struct dirent **, const struct dirent **)),
     (path, found, wanted, order))
WRAP(FAIL_FILE, ssize_t, getrandom, -1, ENOSYS, (void *to, size_t size, unsigned flags),
     (to, size, flags))
WRAP(FAIL_FILE, int, getsockopt, -1, ENOBUFS,
     (int file, int level, int name, void *value, socklen_t *length),
     (file, level, name, value, length))
WRAP(FAIL_FILE, int, signalfd, -1, EMFILE, (int file, const sigset_t *set, int flags),
     (file, set, flags))
WRAP(FAIL_FILE, int, sched_getaffinity, -1, EINVAL, (pid_t pid, size_t size, cpu_set_t *set),
     (pid, size, set))
WRAP(FAIL_FILE, int, getrlimit, -1, EINVAL, (int what, struct rlimit *limit), (what, limit))
WRAP(FAIL_FILE, int, getrusage, -1, EINVAL, (int who, struct rusage *usage), (who, usage))
WRAP(FAIL_FILE, int, gethostname, -1, ENAMETOOLONG, (char *name, size_t size), (name, size))
WRAP(FAIL_FILE, int, uname, -1, EFAULT, (struct utsname * names), (names))
WRAP(FAIL_FILE, int, setenv, -1, ENOMEM, (const char *name, const char *value, int replace),
     (name, value, replace))

WRAP_NUMBER(FAIL_THREAD, pthread_create, EAGAIN,
            (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *),
             void *argument),
            (thread, attributes, start, argument))

WRAP_NUMBER(FAIL_THREAD, pthread_mutex_init, EAGAIN,
            (pthread_mutex_t * mutex, const pthread_mutexattr_t *attributes), (mutex, attributes))
WRAP_NUMBER(FAIL_THREAD, pthread_cond_init, EAGAIN,
            (pthread_cond_t * condition, const pthread_condattr_t *attributes),
            (condition, attributes))
WRAP_NUMBER(FAIL_THREAD, pthread_condattr_init, ENOMEM, (pthread_condattr_t * attributes),
            (attributes))
WRAP_NUMBER(FAIL_THREAD, pthread_condattr_setclock, EINVAL,
            (pthread_condattr_t * attributes, clockid_t clock), (attributes, clock))

/* What a file still held is lost, but it is closed. */
int __real_fclose(FILE *file);
int __wrap_fclose(FILE *file);
int __wrap_fclose(FILE *file)
{
    bool fail = fail_now(FAIL_FILE, "fclose");
    int result = __real_fclose(file);
    if (!fail)
        return result;
    errno = ENOSPC;
    return EOF;
}

/* Of another file's absence dlerror tells as well. What the library allocates is its own. */
void *__real_dlopen(const char *path, int flags);
void *__wrap_dlopen(const char *path, int flags);
void *__wrap_dlopen(const char *path, int flags)
{
    const char *opened = fail_now(FAIL_FILE, "dlopen") ? "/absent/library.so" : path;
    fail_foreign_begin();
    void *handle = __real_dlopen(opened, flags);
    fail_foreign_end();
    return handle;
}

/* The argument is a number or a pointer, which pass the same way. F_GETFD fails for files that are
 * not open alone. */
int __real_fcntl(int file, int command, ...);
int __wrap_fcntl(int file, int command, ...);
int __wrap_fcntl(int file, int command, ...)
{
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (command != F_GETFD && fail_now(FAIL_FILE, "fcntl")) {
        errno = EBADF;
        return -1;
    }
    return __real_fcntl(file, command, argument);
}

/*
 * A rank that fails says so, waits, and is killed: there is no end at which a sanitizer would look
 * for leaks, so that is done before. Not where a call still runs, which keeps its memory.
 */
extern int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
enum cm_status __real_cm_send_error(struct cm_channel *channel, const struct cm_rank_error *error);
enum cm_status __wrap_cm_send_error(struct cm_channel *channel, const struct cm_rank_error *error);
enum cm_status __wrap_cm_send_error(struct cm_channel *channel, const struct cm_rank_error *error)
{
    if (__lsan_do_recoverable_leak_check != NULL && error->status != CM_TIMEOUT)
        __lsan_do_recoverable_leak_check();
    return __real_cm_send_error(channel, error);
}

/* A call that hangs takes a deadline's time: the long ones are cut. */
static double cut(double seconds)
{
    const char *fail = getenv("CM_FAIL");
    bool hangs = fail != NULL && strstr(fail, ":hang:") != NULL;
    return hangs && seconds > 5 ? 5 : seconds;
}

enum cm_status __real_cm_crew_start(const struct cm_crew_config *config, struct cm_watch *watch,
                                    struct cm_crew *crew);
enum cm_status __wrap_cm_crew_start(const struct cm_crew_config *config, struct cm_watch *watch,
                                    struct cm_crew *crew);
enum cm_status __wrap_cm_crew_start(const struct cm_crew_config *config, struct cm_watch *watch,
                                    struct cm_crew *crew)
{
    struct cm_crew_config copy = *config;
    copy.start_timeout_s = cut(copy.start_timeout_s);
    return __real_cm_crew_start(&copy, watch, crew);
}

enum cm_status __real_cm_deadline_begin(double seconds, const char *text,
                                        struct cm_deadline **deadline);
enum cm_status __wrap_cm_deadline_begin(double seconds, const char *text,
                                        struct cm_deadline **deadline);
enum cm_status __wrap_cm_deadline_begin(double seconds, const char *text,
                                        struct cm_deadline **deadline)
{
    return __real_cm_deadline_begin(cut(seconds), text, deadline);
}

/* A library that is closed stays, so that the sanitizer can tell whose a leak is. */
int dlclose(void *handle)
{
    (void)handle;
    return 0;
}

/* Few buffers: what caches serve does not matter here, and every run is quicker. */
enum cm_status __real_cm_context_rotation(struct cm_context *context, uint64_t set_bytes,
                                          unsigned *sets);
enum cm_status __wrap_cm_context_rotation(struct cm_context *context, uint64_t set_bytes,
                                          unsigned *sets);
enum cm_status __wrap_cm_context_rotation(struct cm_context *context, uint64_t set_bytes,
                                          unsigned *sets)
{
    enum cm_status status = __real_cm_context_rotation(context, set_bytes, sets);
    if (status == CM_OK && *sets > 2)
        *sets = 2;
    return status;
}

/* The results that the supervisor has: none of them may get lost by what fails later. */
enum cm_status __real_cm_result_add(struct cm_result *result, const struct cm_plan *plan,
                                    const struct cm_case_run *run);
enum cm_status __wrap_cm_result_add(struct cm_result *result, const struct cm_plan *plan,
                                    const struct cm_case_run *run);
enum cm_status __wrap_cm_result_add(struct cm_result *result, const struct cm_plan *plan,
                                    const struct cm_case_run *run)
{
    enum cm_status status = __real_cm_result_add(result, plan, run);
    if (status == CM_OK)
        fail_log("ADDED %s %s\n", run->status == CM_CASE_OK ? "ok" : "other",
                 plan->cases[run->case_index].name);
    return status;
}

/* open and openat take the mode as a variable argument. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (fail_now(FAIL_FILE, "open")) {
        errno = EACCES;
        return -1;
    }
    return __real_open(path, flags, mode);
}

int __real_openat(int folder, const char *path, int flags, ...);
int __wrap_openat(int folder, const char *path, int flags, ...);
int __wrap_openat(int folder, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (fail_now(FAIL_FILE, "openat")) {
        errno = EACCES;
        return -1;
    }
    return __real_openat(folder, path, flags, mode);
}
