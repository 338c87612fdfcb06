/* Suite files, read. inih splits lines into key and value; this file hands it the lines one by one,
 * because inih itself tells neither the line of a key nor that a section begins, and cuts what is
 * too long for it without a word. */
#include "clustermark/suite.h"

#include <ini.h>
#include <stdbool.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/file.h"
#include "clustermark/memory.h"
#include "host/base/suite_edit.h"

#define SUITE_FILE_MAX ((size_t)1 << 20)

struct reader {
    const char *path;
    const char *text, *end; /* what is left */
    unsigned line;
    struct cm_suite *suite;
    struct cm_section *section; /* NULL before the first */
    bool global;                /* has been */
    enum cm_status status;      /* reading stops at the first error */
};

static bool is_blank(char letter)
{
    return letter == ' ' || letter == '\t' || letter == '\r';
}

/* As inih understands it: from a ; after a blank, or # or ; at the beginning. */
static size_t length_without_comment(const char *line, size_t length)
{
    if (length > 0 && line[0] == '#')
        return 0;
    for (size_t i = 0; i < length; i++) {
        if (line[i] == ';' && (i == 0 || is_blank(line[i - 1])))
            length = i;
    }
    while (length > 0 && is_blank(line[length - 1]))
        length--;
    return length;
}

static enum cm_status open_global(struct reader *reader, const char *where)
{
    struct cm_section *global = &reader->suite->global;
    if (reader->global)
        return cm_error(CM_USAGE, "%s: section [global] stands already at %s", where,
                        global->where);
    char *copy = cm_strdup(where);
    if (copy == NULL)
        return CM_NO_MEMORY;
    cm_free(global->where);
    global->where = copy;
    reader->global = true;
    reader->section = global;
    return CM_OK;
}

static enum cm_status open_section(struct reader *reader, char *line, size_t length,
                                   const char *where)
{
    if (line[length - 1] != ']')
        return cm_error(CM_USAGE,
                        "%s: write [name] alone on the line; a comment begins with \" ;\"", where);
    line[length - 1] = '\0';
    enum cm_status status;
    if (strcmp(line + 1, "global") == 0)
        status = open_global(reader, where);
    else
        status = cm_suite_add_section(reader->suite, line + 1, where, &reader->section);
    line[length - 1] = ']';
    return status;
}

static enum cm_status check_line(struct reader *reader, char *line, size_t length)
{
    if (length == 0)
        return CM_OK;
    char *where = cm_strf("%s:%u", reader->path, reader->line);
    if (where == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = CM_OK;
    /* inih would take "key: value" as well, and so misread "a:b = c". */
    if (line[0] == '[')
        status = open_section(reader, line, length, where);
    else if (line[strcspn(line, "=:")] != '=')
        status =
            cm_error(CM_USAGE, "%s: \"%.60s\" is neither [section] nor key = value", where, line);
    else if (reader->section == NULL)
        status =
            cm_error(CM_USAGE, "%s: a key before the first section; begin with [global]", where);
    cm_free(where);
    return status;
}

/* inih's fgets: the next line, without indentation (which would make it a continuation), comment
 * and newline. */
static char *next_line(char *buffer, int size, void *stream)
{
    struct reader *reader = stream;
    if (reader->status != CM_OK || reader->text == reader->end)
        return NULL;
    const char *line = reader->text;
    const char *newline = memchr(line, '\n', (size_t)(reader->end - line));
    const char *line_end = newline != NULL ? newline : reader->end;
    reader->text = newline != NULL ? newline + 1 : reader->end;
    reader->line++;
    while (line < line_end && is_blank(*line))
        line++;
    size_t length = length_without_comment(line, (size_t)(line_end - line));
    if (length > CM_SUITE_LINE_MAX || length >= (size_t)size) {
        reader->status = cm_error(CM_USAGE,
                                  "%s:%u: line over %d characters; use a second section for the "
                                  "rest of a long list",
                                  reader->path, reader->line, CM_SUITE_LINE_MAX);
        return NULL;
    }
    memcpy(buffer, line, length);
    buffer[length] = '\0';
    reader->status = check_line(reader, buffer, length);
    return reader->status == CM_OK ? buffer : NULL;
}

static enum cm_status add_setting(struct reader *reader, const char *key, const char *value,
                                  const char *where)
{
    const struct cm_setting *same = cm_section_setting(reader->section, key);
    if (same != NULL)
        return cm_error(CM_USAGE, "%s: %s stands already at %s; write a list, or a second section",
                        where, key, same->where);
    enum cm_status status = cm_setting_check(key, value, where);
    return status == CM_OK ? cm_section_add(reader->section, key, value, where) : status;
}

/* inih's handler. Its section name is cut at 49 bytes, so the reader keeps track itself. */
static int handle(void *user, const char *section, const char *key, const char *value)
{
    (void)section;
    struct reader *reader = user;
    char *where = cm_strf("%s:%u", reader->path, reader->line);
    reader->status = where != NULL ? add_setting(reader, key, value, where) : CM_NO_MEMORY;
    cm_free(where);
    return reader->status == CM_OK;
}

static enum cm_status check_text(const char *text, size_t length, const char *path)
{
    if (length > SUITE_FILE_MAX)
        return cm_error(CM_USAGE, "%s: longer than %zu bytes", path, SUITE_FILE_MAX);
    size_t good = cm_text_check(text, length);
    if (good == length)
        return CM_OK;
    unsigned line = 1;
    for (size_t i = 0; i < good; i++)
        line += text[i] == '\n';
    return cm_error(CM_USAGE, "%s:%u: not text (byte 0x%02x); a suite is an INI file in UTF-8",
                    path, line, (unsigned)(unsigned char)text[good]);
}

static enum cm_status parse(const char *text, size_t length, const char *path,
                            struct cm_suite *suite)
{
    enum cm_status status = check_text(text, length, path);
    if (status != CM_OK)
        return status;
    struct cm_suite fresh = {0};
    status = cm_suite_init(path, &fresh);
    if (status != CM_OK)
        return status;
    size_t mark = length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    struct reader reader = {
        .path = path, .text = text + mark, .end = text + length, .suite = &fresh};
    int result = ini_parse_stream(next_line, &reader, handle, &reader);
    if (reader.status == CM_OK && result != 0)
        reader.status = cm_error(result < 0 ? CM_NO_MEMORY : CM_USAGE,
                                 "%s:%d: neither [section] nor key = value", path, result);
    if (reader.status == CM_OK && fresh.section_count == 0)
        reader.status = cm_error(CM_USAGE, "%s: no section; add one such as [gemm]", path);
    if (reader.status != CM_OK) {
        cm_suite_release(&fresh);
        return reader.status;
    }
    *suite = fresh;
    return CM_OK;
}

enum cm_status cm_suite_load(const char *path, struct cm_suite *suite)
{
    char *text = NULL;
    size_t length;
    enum cm_status status = cm_file_read(path, SUITE_FILE_MAX, &text, &length);
    if (status == CM_OK)
        status = parse(text, length, path, suite);
    cm_free(text);
    return status;
}

enum cm_status cm_suite_parse(const char *text, const char *path, struct cm_suite *suite)
{
    return parse(text, strlen(text), path, suite);
}
