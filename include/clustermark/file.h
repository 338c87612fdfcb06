/*
 * file.h: whole files read, and what counts as text. (Writing: cm_file_replace in json.h.)
 */
#ifndef CLUSTERMARK_FILE_H
#define CLUSTERMARK_FILE_H

#include <stddef.h>

#include "clustermark/status.h"

/* Read a file, pipe or device of at most `limit` bytes. CM_USAGE when there is no such file, it is
 * a folder or longer. A zero byte follows the text; the caller owns *text and calls cm_free. */
enum cm_status cm_file_read(const char *path, size_t limit, char **text, size_t *length);

/* The offset of the first byte that does not belong into a text: not UTF-8, a control character
 * other than tab and newline, a carriage return without newline. `length` when there is none. */
size_t cm_text_check(const char *text, size_t length);

#endif
