/*
 * json.h: small helpers around jansson, for files and messages.
 *
 * Every file that is read is untrusted: cm_json_load bounds size and depth and reports file, line
 * and column.
 */
#ifndef CLUSTERMARK_JSON_H
#define CLUSTERMARK_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "clustermark/status.h"

/* Route jansson's allocations through memory.h. Call once before any other JSON call. */
void cm_json_init(void);

/* Read a file of at most 256 MiB: an object or array, no key twice in an object. The caller owns
 * *value and calls json_decref. */
enum cm_status cm_json_load(const char *path, json_t **value);
/* The same of a text that `edit` has made shorter, in place: it returns the new length. */
enum cm_status cm_json_load_edited(const char *path, size_t (*edit)(char *text, size_t length),
                                   json_t **value);
enum cm_status cm_json_parse(const char *text, size_t length, const char *name, json_t **value);

/* Whether jansson has asked in vain for memory since this thread's last call of a function of this
 * file: its own messages do not tell. */
bool cm_json_starved(void);

/* Compact or indented text, numbers with 9 significant digits, keys in the order they were set.
 * The caller owns *text and calls cm_free. */
enum cm_status cm_json_dump(const json_t *value, int indented, char **text);

/* object[key] = value, taking over the reference to value even on failure (a NULL value counts as a
 * failed allocation). */
enum cm_status cm_json_set(json_t *object, const char *key, json_t *value);
enum cm_status cm_json_append(json_t *array, json_t *value);

/* A JSON real, or null where the number is not finite. New reference, NULL when out of memory. */
json_t *cm_json_real(double value);

/* Write `text` to `path` so that a reader always sees either the old or the new whole file: a
 * temporary file beside it, flushed to disk, renamed. On failure the old file is untouched and the
 * temporary one is gone. A link is followed; the mode of an existing file is kept. What is no
 * ordinary file (/dev/stdout, a pipe) is written through instead. CM_USAGE when the path cannot be
 * right (no such folder, a folder itself, not writable), CM_IO when writing fails. */
enum cm_status cm_file_replace(const char *path, const char *text, size_t length);

#endif
