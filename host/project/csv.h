/*
 * csv.h: a table in text: RFC 4180, strict. The first line names the columns.
 */
#ifndef HOST_PROJECT_CSV_H
#define HOST_PROJECT_CSV_H

#include <stddef.h>

#include "clustermark/status.h"

struct cm_csv_row {
    char **cells; /* as many as there are columns; "" where nothing stands */
    size_t line;  /* of the file, 1-based */
};
struct cm_csv {
    char *path, *text;
    char **cells; /* of all rows */
    size_t cell_count, cell_capacity;
    char **columns;
    size_t column_count;
    struct cm_csv_row *rows;
    size_t count, capacity;
};

/* At most 64 MiB. CM_USAGE with file:line: no header, a column twice, a row with another number of
 * cells, a quote that does not end or has text behind it. */
enum cm_status cm_csv_load(const char *path, struct cm_csv *csv);
void cm_csv_release(struct cm_csv *csv);
/* The column's place, or -1. */
int cm_csv_column(const struct cm_csv *csv, const char *name);

#endif
