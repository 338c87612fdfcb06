/*
 * option.h: option tables. One table drives INI files, --set, --help and the tests.
 *
 * A table describes the fields of a plain structure that owns no memory: it may be copied with
 * memcpy and needs no release. The C type of a field follows from the option's type.
 */
#ifndef CLUSTERMARK_OPTION_H
#define CLUSTERMARK_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"
#include "clustermark/strbuf.h"

enum cm_option_type {
    CM_OPTION_BOOL,   /* bool: yes/no, on/off, true/false, 1/0 */
    CM_OPTION_COUNT,  /* uint64_t, cm_parse_count */
    CM_OPTION_SIZE,   /* uint64_t bytes, cm_parse_size */
    CM_OPTION_TIME,   /* double seconds, cm_parse_time */
    CM_OPTION_REAL,   /* double, cm_parse_real */
    CM_OPTION_CHOICE, /* int, index into `choices` */
    CM_OPTION_TEXT    /* char[capacity], zero-terminated */
};

struct cm_option {
    const char *name; /* as in a suite; '-' and '_' are the same when read */
    enum cm_option_type type;
    size_t offset;              /* of the field */
    double min, max;            /* inclusive range of a number; max 0 with min 0 means no limit, a
                                 * max below min no upper one */
    const char *fallback;       /* the default, in the suite's spelling; never NULL */
    const char *help;           /* one line, no full stop */
    const char *const *choices; /* CM_OPTION_CHOICE: NULL-terminated names */
    size_t capacity;            /* CM_OPTION_TEXT: bytes of the field */
    bool no_list;               /* commas belong to the value; it cannot be swept */
};

/* A table ends with a row whose name is NULL. */

/* The row of that name, or NULL. */
const struct cm_option *cm_option_find(const struct cm_option *table, const char *name);

/* The name nearest to a misspelt one (edit distance at most 3), or NULL: "did you mean". */
const char *cm_option_nearest(const struct cm_option *table, const char *name);

/* Set every field to its default. A default that does not parse is CM_INTERNAL. */
enum cm_status cm_option_defaults(const struct cm_option *table, void *fields);

/* Parse one value into its field. `where` ("quick.ini:12", "--set") begins the message of an
 * error. On failure the field keeps its value. */
enum cm_status cm_option_set(const struct cm_option *option, const char *value, const char *where,
                             void *fields);

/* The field in the suite's spelling, which cm_option_set reads back to the same value. */
void cm_option_write(const struct cm_option *option, const void *fields, struct cm_str *out);

/* "name=value" of every row that differs from its default, separated by `separator`. */
void cm_option_write_all(const struct cm_option *table, const void *fields, const char *separator,
                         struct cm_str *out);

/* A help line per row: name, type or choices, default, help. */
void cm_option_help(const struct cm_option *table, struct cm_str *out);

#endif
