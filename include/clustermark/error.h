/*
 * error.h: the one error path.
 *
 * The first function that knows what went wrong records a message for its thread and returns the
 * status:
 *
 *     if (size_bytes == 0)
 *         return cm_error(CM_USAGE, "%s:%d: size is 0; give at least 1 element", file, line);
 *
 * Whoever shows or stores the failure (main, the harness, the supervisor) reads cm_error_text().
 * A message is one line without a trailing newline: what failed, where, and what would be right.
 */
#ifndef CLUSTERMARK_ERROR_H
#define CLUSTERMARK_ERROR_H

#include "clustermark/status.h"

/* Longest message kept, with its terminating zero; longer ones are cut. */
#define CM_ERROR_TEXT_MAX 512

/* Record a message for the calling thread, replacing an earlier one, and return `status`. Never
 * allocates, so it works when memory is out. */
__attribute__((format(printf, 2, 3))) enum cm_status cm_error(enum cm_status status,
                                                              const char *format, ...);

/* As cm_error, and appends ": " and the text of errno as it was on entry. */
__attribute__((format(printf, 2, 3))) enum cm_status cm_error_errno(enum cm_status status,
                                                                    const char *format, ...);

/* Put words in front of the recorded message ("case gemm: ..."), for a caller that knows the place
 * but did not decide the error. Returns `status` unchanged. */
__attribute__((format(printf, 2, 3))) enum cm_status cm_error_at(enum cm_status status,
                                                                 const char *format, ...);

/* The calling thread's last message, "" when none. The memory belongs to the thread; it is valid
 * until the thread's next cm_error call. */
const char *cm_error_text(void);

/* The status that cm_error was given with that message, CM_OK when there is none: the failure's
 * own, where a caller that put words in front returns another. */
enum cm_status cm_error_cause(void);

/* Forget the calling thread's message. */
void cm_error_clear(void);

/* The calling thread's message with its status, to be put back: around work whose own messages say
 * nothing about the failure that is told. */
struct cm_error_record {
    enum cm_status cause;
    char text[CM_ERROR_TEXT_MAX];
};
void cm_error_save(struct cm_error_record *record);
void cm_error_restore(const struct cm_error_record *record);

/* One line of chatter on stderr, "clustermark: warning: ...". Not an error: work goes on. */
__attribute__((format(printf, 1, 2))) void cm_warn(const char *format, ...);

#endif
