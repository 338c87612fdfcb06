/* Status names and the one error path. */
#include "clustermark/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[CM_ERROR_TEXT_MAX];
static _Thread_local enum cm_status cause;

static const struct {
    const char *name;
    int exit_code;
    const char *text;
} statuses[] = {
#define CM_STATUS_ROW(name, code, text) {"CM_" #name, code, text},
    CM_STATUS_LIST(CM_STATUS_ROW)
#undef CM_STATUS_ROW
};

const char *cm_status_name(enum cm_status status)
{
    return (unsigned)status < CM_STATUS_COUNT ? statuses[status].name : "CM_?";
}

const char *cm_status_text(enum cm_status status)
{
    return (unsigned)status < CM_STATUS_COUNT ? statuses[status].text : "unknown status";
}

int cm_status_exit_code(enum cm_status status)
{
    return (unsigned)status < CM_STATUS_COUNT ? statuses[status].exit_code
                                              : statuses[CM_INTERNAL].exit_code;
}

enum cm_status cm_error(enum cm_status status, const char *format, ...)
{
    /* The arguments may point into the old message. */
    char text[CM_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof message);
    cause = status;
    return status;
}

enum cm_status cm_error_errno(enum cm_status status, const char *format, ...)
{
    int number = errno;
    char text[CM_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, ": %s", strerror(number));
    memcpy(message, text, sizeof message);
    cause = status;
    errno = number;
    return status;
}

enum cm_status cm_error_at(enum cm_status status, const char *format, ...)
{
    char text[CM_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, "%s",
             message[0] ? message : cm_status_text(status));
    cause = message[0] ? cause : status;
    memcpy(message, text, sizeof message);
    return status;
}

const char *cm_error_text(void)
{
    return message;
}

enum cm_status cm_error_cause(void)
{
    return cause;
}

void cm_error_clear(void)
{
    message[0] = '\0';
    cause = CM_OK;
}

void cm_error_save(struct cm_error_record *record)
{
    record->cause = cause;
    memcpy(record->text, message, strnlen(message, sizeof message - 1) + 1);
}

void cm_error_restore(const struct cm_error_record *record)
{
    cause = record->cause;
    memcpy(message, record->text, strnlen(record->text, sizeof message - 1) + 1);
}

void cm_warn(const char *format, ...)
{
    char text[CM_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "clustermark: warning: %s\n", text);
}
