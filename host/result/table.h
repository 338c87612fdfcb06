/*
 * table.h: tables on a terminal. Private to host/result.
 *
 * Column 0 is the flexible one: it is shortened in the middle when the table would be too wide.
 * Columns without any content are left out; then those of the lowest rank go until the rest fits.
 */
#ifndef CM_RESULT_TABLE_H
#define CM_RESULT_TABLE_H

#include <stddef.h>

#include "clustermark/result.h"
#include "clustermark/strbuf.h"

#define CM_TABLE_COLUMNS_MAX 24
#define CM_CELL_MAX          160

enum cm_tint { CM_PLAIN, CM_GOOD, CM_BAD, CM_DOUBTFUL };

struct cm_column {
    char title[40];
    bool left;
    int rank; /* 0: never left out to save space; else the highest number goes first */
};

struct cm_cell {
    char text[CM_CELL_MAX];
    enum cm_tint tint;
};

struct cm_table {
    const struct cm_report_style *style;
    struct cm_column columns[CM_TABLE_COLUMNS_MAX];
    size_t column_count;
    struct cm_cell *cells;
    size_t rows, capacity;
    bool failed; /* out of memory; asked for at the end, by cm_table_write */
};

/* The column's number. */
size_t cm_table_column(struct cm_table *table, const char *title, bool left, int rank);
void cm_table_row(struct cm_table *table);
/* Into the last row. The text may come from a strange file. */
__attribute__((format(printf, 4, 5))) void cm_table_put(struct cm_table *table, size_t column,
                                                        enum cm_tint tint, const char *format, ...);
/* Write the table and forget its rows and columns. */
enum cm_status cm_table_write(struct cm_table *table, struct cm_str *out);
void cm_table_release(struct cm_table *table);

/* Text from a file for a terminal: control and direction characters become '?', and so does what
 * is not ASCII on a terminal without UTF-8. */
void cm_clean_text(const struct cm_report_style *style, const char *text, char *clean, size_t size);
/* Columns that clean text takes. */
size_t cm_text_width(const char *text);
/* Text in the colour of a status. */
void cm_add_tinted(const struct cm_report_style *style, enum cm_tint tint, const char *text,
                   struct cm_str *out);

#endif
