/*
 * Allocation, file, process and thread calls of the program's own objects, each of which can be
 * made to fail. The linker sends every call of X here (--wrap=X, see CMakeLists.txt) and calls that
 * the libraries make among themselves stay as they are.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

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

WRAP_NUMBER(FAIL_THREAD, pthread_create, EAGAIN,
            (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *),
             void *argument),
            (thread, attributes, start, argument))

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
