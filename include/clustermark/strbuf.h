/*
 * strbuf.h: a string that grows.
 *
 * Appending never fails visibly in the middle: the first allocation that fails marks the string as
 * failed, later appends do nothing, and the user asks once at the end with cm_str_status().
 */
#ifndef CLUSTERMARK_STRBUF_H
#define CLUSTERMARK_STRBUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "clustermark/status.h"

struct cm_str {
    char *text; /* NULL until the first append, zero-terminated then */
    size_t length;
    size_t capacity;
    bool failed;
};

#define CM_STR_INIT                                                                                \
    {                                                                                              \
        .text = NULL                                                                               \
    }

void cm_str_add(struct cm_str *str, const char *text);
void cm_str_add_bytes(struct cm_str *str, const void *bytes, size_t length);
__attribute__((format(printf, 2, 3))) void cm_str_addf(struct cm_str *str, const char *format, ...);
void cm_str_vaddf(struct cm_str *str, const char *format, va_list args);

/* `text`, with &, <, >, " and ' written as entities and control characters dropped;
 * what XML knows as no character becomes '?'. */
void cm_str_add_xml(struct cm_str *str, const char *text);

/* The content, "" when nothing was added. */
const char *cm_str_text(const struct cm_str *str);

/* CM_OK, or CM_NO_MEMORY (recorded again for the calling thread) after a failed append. */
enum cm_status cm_str_status(const struct cm_str *str);

/* Empty the string but keep its memory. Forgets a failure. */
void cm_str_reset(struct cm_str *str);
/* Free the content; the string is as after CM_STR_INIT. */
void cm_str_release(struct cm_str *str);

#endif
