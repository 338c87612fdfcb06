/* Tables on a terminal: widths, shortening, colour. */
#include "host/result/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"

#define INDENT     2
#define GAP        2
#define NAME_LEAST 12

/* Reads one character of valid UTF-8. */
static size_t next_code(const unsigned char *text, unsigned long *code)
{
    size_t length = text[0] < 0x80 ? 1 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    *code = text[0] & masks[length];
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) { /* cut or not UTF-8 */
            *code = 0;
            return 1;
        }
        *code = *code << 6 | (text[i] & 0x3fU);
    }
    return length;
}

/* Characters that steer a terminal or turn the reading direction. */
static bool harmless(unsigned long code)
{
    if (code < 0x20 || (code >= 0x7f && code < 0xa0))
        return false;
    if ((code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e))
        return false;
    return !(code >= 0x2060 && code <= 0x206f) && code != 0xfeff;
}

void cm_clean_text(const struct cm_report_style *style, const char *text, char *clean, size_t size)
{
    size_t used = 0;
    while (*text != '\0') {
        unsigned long code;
        size_t length = next_code((const unsigned char *)text, &code);
        bool keep = harmless(code) && (style->utf8 || code < 0x80);
        size_t wanted = keep ? length : 1;
        if (used + wanted + 1 > size)
            break;
        if (keep)
            memcpy(clean + used, text, length);
        else
            clean[used] = '?';
        used += wanted;
        text += length;
    }
    clean[used] = '\0';
}

size_t cm_text_width(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

void cm_add_tinted(const struct cm_report_style *style, enum cm_tint tint, const char *text,
                   struct cm_str *out)
{
    static const char *const codes[] = {
        [CM_PLAIN] = "", [CM_GOOD] = "32", [CM_BAD] = "1;31", [CM_DOUBTFUL] = "33"};
    if (style->color && tint != CM_PLAIN)
        cm_str_addf(out, "\033[%sm%s\033[0m", codes[tint], text);
    else
        cm_str_add(out, text);
}

size_t cm_table_column(struct cm_table *table, const char *title, bool left, int rank)
{
    if (table->column_count == CM_TABLE_COLUMNS_MAX)
        return CM_TABLE_COLUMNS_MAX - 1;
    struct cm_column *column = &table->columns[table->column_count];
    cm_clean_text(table->style, title, column->title, sizeof column->title);
    column->left = left;
    column->rank = rank;
    return table->column_count++;
}

static struct cm_cell *cell_at(const struct cm_table *table, size_t row, size_t column)
{
    return &table->cells[row * table->column_count + column];
}

void cm_table_row(struct cm_table *table)
{
    size_t used = table->rows * table->column_count;
    if (table->failed || cm_grow(&table->cells, &table->capacity, used + table->column_count,
                                 sizeof table->cells[0]) != 0) {
        table->failed = true;
        return;
    }
    memset(&table->cells[used], 0, table->column_count * sizeof table->cells[0]);
    table->rows++;
}

void cm_table_put(struct cm_table *table, size_t column, enum cm_tint tint, const char *format, ...)
{
    if (table->failed || table->rows == 0)
        return;
    char text[CM_CELL_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct cm_cell *cell = cell_at(table, table->rows - 1, column);
    cm_clean_text(table->style, text, cell->text, sizeof cell->text);
    cell->tint = tint;
}

struct layout {
    size_t widths[CM_TABLE_COLUMNS_MAX]; /* 0: left out */
};

static size_t total_width(const struct cm_table *table, const struct layout *layout)
{
    size_t total = INDENT, shown = 0;
    for (size_t i = 0; i < table->column_count; i++) {
        total += layout->widths[i];
        shown += layout->widths[i] > 0;
    }
    return total + (shown > 1 ? (shown - 1) * GAP : 0);
}

static void lay_out(const struct cm_table *table, struct layout *layout)
{
    size_t limit = table->style->width > 0 ? (size_t)table->style->width : 80;
    for (size_t i = 0; i < table->column_count; i++) {
        layout->widths[i] = 0;
        for (size_t row = 0; row < table->rows; row++) {
            size_t width = cm_text_width(cell_at(table, row, i)->text);
            if (width > layout->widths[i])
                layout->widths[i] = width;
        }
        size_t title = cm_text_width(table->columns[i].title);
        if (layout->widths[i] > 0 && layout->widths[i] < title)
            layout->widths[i] = title;
    }
    for (;;) {
        size_t total = total_width(table, layout), dropped = 0;
        if (total <= limit)
            return;
        size_t spare = layout->widths[0] > NAME_LEAST ? layout->widths[0] - NAME_LEAST : 0;
        if (spare >= total - limit) {
            layout->widths[0] -= total - limit;
            return;
        }
        for (size_t i = 1; i < table->column_count; i++) {
            if (layout->widths[i] > 0 && table->columns[i].rank > table->columns[dropped].rank)
                dropped = i;
        }
        if (dropped == 0) { /* nothing may go: the terminal is too narrow */
            layout->widths[0] -= spare;
            return;
        }
        layout->widths[dropped] = 0;
    }
}

/* Copies `count` characters of clean text. */
static const char *add_characters(const char *text, size_t count, struct cm_str *out)
{
    const char *end = text;
    for (; count > 0 && *end != '\0'; count--) {
        end++;
        while (((unsigned char)*end & 0xc0) == 0x80)
            end++;
    }
    cm_str_add_bytes(out, text, (size_t)(end - text));
    return end;
}

/* What is too long loses its middle: names differ at their ends. */
static void add_shortened(const struct cm_table *table, const char *text, size_t width,
                          struct cm_str *out)
{
    size_t has = cm_text_width(text);
    const char *mark = table->style->utf8 ? "…" : "..";
    size_t mark_width = cm_text_width(mark);
    if (has <= width || width <= mark_width) {
        add_characters(text, width, out);
        return;
    }
    size_t head = (width - mark_width) / 2, tail = width - mark_width - head;
    add_characters(text, head, out);
    cm_str_add(out, mark);
    const char *rest = text;
    for (size_t skip = has - tail; skip > 0; skip--) {
        rest++;
        while (((unsigned char)*rest & 0xc0) == 0x80)
            rest++;
    }
    cm_str_add(out, rest);
}

static void add_cell(const struct cm_table *table, size_t column, const char *text,
                     enum cm_tint tint, size_t width, bool last, struct cm_str *out)
{
    size_t has = cm_text_width(text);
    size_t pad = has < width ? width - has : 0;
    if (!table->columns[column].left)
        cm_str_addf(out, "%*s", (int)pad, "");
    if (has > width)
        add_shortened(table, text, width, out);
    else
        cm_add_tinted(table->style, has > 0 ? tint : CM_PLAIN, text, out);
    if (table->columns[column].left && !last)
        cm_str_addf(out, "%*s", (int)pad, "");
}

/* row -1 is the titles. */
static void add_row(const struct cm_table *table, const struct layout *layout, size_t row,
                    bool titles, struct cm_str *out)
{
    size_t last = table->column_count;
    while (last > 1 && (layout->widths[last - 1] == 0 ||
                        (!titles && cell_at(table, row, last - 1)->text[0] == '\0')))
        last--;
    cm_str_addf(out, "%*s", INDENT, "");
    for (size_t i = 0; i < last; i++) {
        if (layout->widths[i] == 0)
            continue;
        const struct cm_cell *cell = titles ? NULL : cell_at(table, row, i);
        add_cell(table, i, titles ? table->columns[i].title : cell->text,
                 titles ? CM_PLAIN : cell->tint, layout->widths[i], i + 1 == last, out);
        if (i + 1 < last)
            cm_str_addf(out, "%*s", GAP, "");
    }
    cm_str_add(out, "\n");
}

static void add_rule(const struct cm_table *table, const struct layout *layout, struct cm_str *out)
{
    size_t total = total_width(table, layout);
    cm_str_addf(out, "%*s", INDENT, "");
    for (size_t i = INDENT; i < total; i++)
        cm_str_add(out, table->style->utf8 ? "─" : "-");
    cm_str_add(out, "\n");
}

enum cm_status cm_table_write(struct cm_table *table, struct cm_str *out)
{
    struct layout layout = {{0}};
    bool failed = table->failed;
    if (!failed && table->rows > 0) {
        lay_out(table, &layout);
        add_row(table, &layout, 0, true, out);
        add_rule(table, &layout, out);
        for (size_t row = 0; row < table->rows; row++)
            add_row(table, &layout, row, false, out);
    }
    table->rows = table->column_count = 0;
    table->failed = false;
    return failed ? CM_NO_MEMORY : CM_OK;
}

void cm_table_release(struct cm_table *table)
{
    cm_free(table->cells);
    table->cells = NULL;
    table->capacity = table->rows = 0;
}
