/* Tables in text. Cells are cut in place: a quoted one only gets shorter. */
#include "host/project/csv.h"

#include <stdbool.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/file.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"

#define CSV_LIMIT ((size_t)64 << 20)

struct reader {
    struct cm_csv *csv;
    char *at;
    size_t line;
};

/* "...": *end is where it ended, behind the quote. */
static enum cm_status read_quoted(struct reader *reader, char **end)
{
    char *to = reader->at, *from = reader->at + 1;
    size_t begun = reader->line;
    for (;; from++) {
        if (*from == '\0')
            return cm_error(CM_USAGE, "%s:%zu: a quote does not end", reader->csv->path, begun);
        if (*from == '"' && from[1] != '"')
            break;
        if (*from == '"')
            from++;
        if (*from == '\n')
            reader->line++;
        *to++ = *from;
    }
    *end = from + 1;
    if (strchr(",\r\n", **end) == NULL)
        return cm_error(CM_USAGE, "%s:%zu: text behind a closing quote; write \"\" for a quote",
                        reader->csv->path, reader->line);
    *to = '\0';
    return CM_OK;
}

/* A cell; *last says whether the row ends with it. */
static enum cm_status read_cell(struct reader *reader, bool *last)
{
    struct cm_csv *csv = reader->csv;
    char *begin = reader->at, *end = begin;
    if (cm_grow(&csv->cells, &csv->cell_capacity, csv->cell_count + 1, sizeof *csv->cells) != 0)
        return CM_NO_MEMORY;
    if (*begin == '"') {
        enum cm_status status = read_quoted(reader, &end);
        if (status != CM_OK)
            return status;
    } else {
        end += strcspn(begin, ",\r\n\"");
        if (*end == '"')
            return cm_error(CM_USAGE, "%s:%zu: a quote within a cell; quote the whole cell",
                            csv->path, reader->line);
    }
    char mark = *end;
    *end = '\0';
    csv->cells[csv->cell_count++] = begin;
    *last = mark != ',';
    reader->at = end + (mark != '\0');
    if (mark == '\r' && *reader->at == '\n')
        reader->at++;
    if (*last)
        reader->line++;
    return CM_OK;
}

static enum cm_status read_row(struct reader *reader)
{
    struct cm_csv *csv = reader->csv;
    size_t first = csv->cell_count, line = reader->line;
    bool last = false;
    while (!last) {
        enum cm_status status = read_cell(reader, &last);
        if (status != CM_OK)
            return status;
    }
    size_t cells = csv->cell_count - first;
    if (csv->column_count == 0) {
        csv->column_count = cells;
        return CM_OK;
    }
    if (cells != csv->column_count)
        return cm_error(CM_USAGE, "%s:%zu: %zu cells, and %zu columns", csv->path, line, cells,
                        csv->column_count);
    if (cm_grow(&csv->rows, &csv->capacity, csv->count + 1, sizeof *csv->rows) != 0)
        return CM_NO_MEMORY;
    csv->rows[csv->count++].line = line;
    return CM_OK;
}

/* Cells move while they grow, so the rows get them at the end. */
static enum cm_status place(struct cm_csv *csv)
{
    csv->columns = csv->cells;
    for (size_t i = 0; i < csv->count; i++)
        csv->rows[i].cells = csv->cells + (i + 1) * csv->column_count;
    for (size_t i = 0; i < csv->column_count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(csv->columns[i], csv->columns[k]) == 0)
                return cm_error(CM_USAGE, "%s:1: column '%.40s' twice", csv->path, csv->columns[i]);
    return CM_OK;
}

static enum cm_status check_text(const char *path, const char *text, size_t length)
{
    size_t good = cm_text_check(text, length), line = 1;
    for (size_t i = 0; i < good; i++)
        line += text[i] == '\n';
    if (good == length)
        return CM_OK;
    return cm_error(CM_USAGE, "%s:%zu: not text (byte 0x%02x); a table is UTF-8", path, line,
                    (unsigned)(unsigned char)text[good]);
}

enum cm_status cm_csv_load(const char *path, struct cm_csv *csv)
{
    struct cm_csv made = {.path = cm_strdup(path)};
    size_t length = 0;
    enum cm_status status =
        made.path == NULL ? CM_NO_MEMORY : cm_file_read(path, CSV_LIMIT, &made.text, &length);
    if (status == CM_OK)
        status = check_text(path, made.text, length);
    if (status == CM_OK && length == 0)
        status = cm_error(CM_USAGE, "%s: empty; its first line should name the columns", path);
    struct reader reader = {.csv = &made, .at = made.text, .line = 1};
    while (status == CM_OK && *reader.at != '\0')
        status = read_row(&reader);
    if (status == CM_OK)
        status = place(&made);
    if (status == CM_OK)
        *csv = made;
    else
        cm_csv_release(&made);
    return status;
}

void cm_csv_release(struct cm_csv *csv)
{
    cm_free(csv->rows);
    cm_free(csv->cells);
    cm_free(csv->text);
    cm_free(csv->path);
    memset(csv, 0, sizeof *csv);
}

int cm_csv_column(const struct cm_csv *csv, const char *name)
{
    for (size_t i = 0; i < csv->column_count; i++)
        if (strcmp(csv->columns[i], name) == 0)
            return (int)i;
    return -1;
}
