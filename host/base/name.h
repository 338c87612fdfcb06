/*
 * name.h: names of options, keys and sections.
 */
#ifndef HOST_BASE_NAME_H
#define HOST_BASE_NAME_H

#include <stdbool.h>
#include <stddef.h>

/* Longer names are near to nothing. */
#define CM_NAME_MAX 63

/* Equal, where '-' and '_' count as the same. */
bool cm_name_equal(const char *a, const char *b);

/* The edit distance, with '-' and '_' as the same letter; CM_NAME_MAX + 1 when a name is longer
 * than CM_NAME_MAX. */
size_t cm_name_distance(const char *a, const char *b);

/* Whether b may be what the writer of a meant: at most 3 edits, and fewer than either has
 * letters. */
bool cm_name_near(size_t distance, const char *a, const char *b);

#endif
