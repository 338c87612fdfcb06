/*
 * status.h: how a function says that it failed.
 *
 * Every function that can fail returns `enum cm_status`. The function that decides which error it
 * is records the message (error.h); its callers only pass the status on. Outputs are set on
 * success alone.
 */
#ifndef CLUSTERMARK_STATUS_H
#define CLUSTERMARK_STATUS_H

/* X(NAME, exit code of the program, message). One list gives the enum, the names, the texts and
 * the exit codes. */
#define CM_STATUS_LIST(X)                                                                          \
    X(OK, 0, "fine")                                                                               \
    X(USAGE, 64, "usage or bad input")                                                             \
    X(NO_MEMORY, 70, "out of memory")                                                              \
    X(IO, 70, "a file or pipe operation failed")                                                   \
    X(SYSTEM, 70, "a system call failed")                                                          \
    X(INTERNAL, 70, "internal error")                                                              \
    X(UNSUPPORTED, 77, "not possible on this device or in this build")                             \
    X(NO_DEVICE, 77, "the asked-for device is absent")                                             \
    X(DEVICE, 5, "a device call failed")                                                           \
    X(COMM, 5, "a communication call failed")                                                      \
    X(TIMEOUT, 5, "a deadline passed")                                                             \
    X(WRONG, 5, "a result was wrong")                                                              \
    X(LOST, 5, "a rank died or is missing")                                                        \
    X(REGRESSION, 1, "slower than the baseline")                                                   \
    X(INCONCLUSIVE, 3, "not decided")                                                              \
    X(NOT_COMPARABLE, 4, "results that cannot be compared")                                        \
    X(MISSING, 6, "no baseline, or a metric is missing")                                           \
    X(INTERRUPTED, 130, "interrupted")

enum cm_status {
#define CM_STATUS_ENUM(name, code, text) CM_##name,
    CM_STATUS_LIST(CM_STATUS_ENUM)
#undef CM_STATUS_ENUM
        CM_STATUS_COUNT
};

/* "CM_USAGE" and the like; "CM_?" for a value outside the list. */
const char *cm_status_name(enum cm_status status);

/* The general text of a status, for when nothing more exact was recorded. */
const char *cm_status_text(enum cm_status status);

/* The exit code of the program that ends with this status. Never 2: make(1) turns every failure
 * into 2, so a caller could not tell them apart. */
int cm_status_exit_code(enum cm_status status);

#endif
