/* Whole files, read and replaced. */
#include "clustermark/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"

/* Whether an errno of opening or naming a file is the fault of the path that the user gave. */
static bool is_users_fault(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
    case ENAMETOOLONG:
    case ENXIO:
        return true;
    default:
        return false;
    }
}

static enum cm_status failed(const char *action, const char *path)
{
    if (*path == '\0')
        return cm_error(CM_USAGE, "cannot %s a file without a name", action);
    return cm_error_errno(is_users_fault(errno) ? CM_USAGE : CM_IO, "cannot %s %.300s", action,
                          path);
}

static enum cm_status read_all(int file, const char *path, size_t limit, char **text,
                               size_t *length)
{
    char *block = NULL;
    size_t count = 0, capacity = 0;
    for (;;) {
        /* Room for one byte more than was read, always: the zero at the end. */
        if (cm_grow(&block, &capacity, count + 4096, 1) != 0) {
            cm_free(block);
            return CM_NO_MEMORY;
        }
        ssize_t got = read(file, block + count, capacity - count - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            enum cm_status status = cm_error_errno(CM_IO, "cannot read %.300s", path);
            cm_free(block);
            return status;
        }
        if (got == 0)
            break;
        count += (size_t)got;
        if (count > limit) {
            cm_free(block);
            return cm_error(CM_USAGE, "%s: longer than %zu bytes", path, limit);
        }
    }
    block[count] = '\0';
    *text = block;
    *length = count;
    return CM_OK;
}

enum cm_status cm_file_read(const char *path, size_t limit, char **text, size_t *length)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return failed("open", path);
    struct stat stat;
    enum cm_status status;
    if (fstat(file, &stat) != 0)
        status = cm_error_errno(CM_IO, "cannot read %.300s", path);
    else if (S_ISDIR(stat.st_mode))
        status = cm_error(CM_USAGE, "%s is a folder; give a file", path);
    else
        status = read_all(file, path, limit, text, length);
    close(file);
    return status;
}

/* The bytes of the character at `text`, 0 when it is none: Unicode's table 3-7. */
static size_t character_length(const unsigned char *text, size_t left)
{
    unsigned first = text[0];
    if (first < 0x20)
        return first == '\t' || first == '\n' || (first == '\r' && left > 1 && text[1] == '\n');
    if (first < 0x80)
        return first != 0x7f;
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || left < length)
        return 0;
    unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    return length;
}

size_t cm_text_check(const char *text, size_t length)
{
    size_t offset = 0;
    while (offset < length) {
        size_t step = character_length((const unsigned char *)text + offset, length - offset);
        if (step == 0)
            break;
        offset += step;
    }
    return offset;
}

/* Follow links by name, so that the file they lead to is replaced and not the link. The last one
 * may lead to a file that is not there yet. `target` has PATH_MAX bytes. */
static enum cm_status follow_links(const char *path, char *target)
{
    if (snprintf(target, PATH_MAX, "%s", path) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return failed("write", path);
    }
    for (int hops = 0; hops < 40; hops++) {
        char link[PATH_MAX];
        ssize_t length = readlink(target, link, sizeof link - 1);
        if (length < 0)
            return CM_OK; /* not a link, or nothing there */
        link[length] = '\0';
        char *slash = strrchr(target, '/');
        size_t folder = link[0] == '/' || slash == NULL ? 0 : (size_t)(slash + 1 - target);
        if (folder + (size_t)length >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return failed("write", path);
        }
        memcpy(target + folder, link, (size_t)length + 1);
    }
    errno = ELOOP;
    return failed("write", path);
}

static int write_all(int file, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(file, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        text += written;
        length -= (size_t)written;
    }
    return 0;
}

/* For what cannot be replaced: devices, pipes, and the process's own descriptors. */
static enum cm_status write_through(const char *path, const char *text, size_t length)
{
    int file = open(path, O_WRONLY | O_TRUNC | O_NOCTTY | O_CLOEXEC);
    if (file < 0)
        return failed("write", path);
    enum cm_status status = CM_OK;
    if (write_all(file, text, length) != 0)
        status = cm_error_errno(CM_IO, "cannot write %.300s", path);
    if (close(file) != 0 && status == CM_OK)
        status = cm_error_errno(CM_IO, "cannot write %.300s", path);
    return status;
}

/* A new file in the folder of `target`. Its name does not grow with the target's. */
static int open_beside(const char *target, char *name)
{
    static atomic_uint counter;
    const char *slash = strrchr(target, '/');
    int folder = slash == NULL ? 0 : (int)(slash + 1 - target);
    for (int tries = 0; tries < 1000; tries++) {
        int length = snprintf(name, PATH_MAX, "%.*s.clustermark-%ld-%u.tmp", folder, target,
                              (long)getpid(), atomic_fetch_add(&counter, 1));
        if (length >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int file = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0 || errno != EEXIST)
            return file;
    }
    return -1;
}

/* So that the new name survives a power failure. Not every file system can do it. */
static void sync_folder(const char *target)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(target, '/');
    if (slash == NULL)
        strcpy(folder, ".");
    else
        snprintf(folder, sizeof folder, "%.*s", (int)(slash + 1 - target), target);
    int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return;
    fsync(file);
    close(file);
}

static enum cm_status replace(const char *path, const char *target, const struct stat *old,
                              const char *text, size_t length)
{
    char name[PATH_MAX];
    int file = open_beside(target, name);
    if (file < 0)
        return failed("write", path);
    int failure = write_all(file, text, length);
    if (failure == 0 && old != NULL)
        failure = fchmod(file, old->st_mode & 07777);
    if (failure == 0)
        failure = fsync(file);
    int number = errno;
    if (close(file) != 0 && failure == 0) {
        failure = -1;
        number = errno;
    }
    if (failure == 0 && rename(name, target) != 0) {
        failure = -1;
        number = errno;
    }
    if (failure != 0) {
        unlink(name);
        errno = number;
        return cm_error_errno(CM_IO, "cannot write %.300s", path);
    }
    sync_folder(target);
    return CM_OK;
}

enum cm_status cm_file_replace(const char *path, const char *text, size_t length)
{
    struct stat old;
    bool exists = stat(path, &old) == 0;
    if (*path == '\0' || (!exists && errno != ENOENT))
        return failed("write", path);
    if (exists && S_ISDIR(old.st_mode))
        return cm_error(CM_USAGE, "cannot write %s: it is a folder; give a file", path);
    /* /dev/stdout may lead to an ordinary file, but only the open descriptor counts then. */
    bool own = strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
    if (exists && (own || !S_ISREG(old.st_mode)))
        return write_through(path, text, length);
    /* A rename would replace even a file that is write-protected. */
    if (exists && access(path, W_OK) != 0)
        return failed("write", path);
    char target[PATH_MAX];
    enum cm_status status = follow_links(path, target);
    if (status != CM_OK)
        return status;
    return replace(path, target, exists ? &old : NULL, text, length);
}
