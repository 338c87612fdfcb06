/*
 * page.h: the pieces of the HTML report. Private to host/result.
 *
 * Text of results reaches the page through cm_page_text alone, which escapes it and keeps its
 * reading direction to itself.
 */
#ifndef CM_RESULT_PAGE_H
#define CM_RESULT_PAGE_H

#include "clustermark/publish.h"
#include "host/result/book.h"

struct cm_page {
    const struct cm_book *book;
    struct cm_str *out;
    size_t charts, left_out;   /* of the current kind */
    struct cm_str findings[4]; /* by level, the worst first */
    struct cm_str contents;    /* the list of sections */
    struct cm_str not_drawn;   /* kinds that have nothing to draw, and why */
};

/* Style, and the script with its hash as the content security policy wants it. */
extern const char cm_page_style[], cm_page_script[], cm_page_script_hash[];

void cm_page_text(struct cm_str *out, const char *text);
/* A table's cells: text, and a number shown as `text` that sorts by `value`. */
void cm_page_cell(struct cm_str *out, const char *class, const char *text);
void cm_page_number(struct cm_str *out, double value, const char *text);
/* The head of a table that sorts; titles end with NULL. */
void cm_page_table(struct cm_str *out, const char *caption, const char *const *titles);

/* Sections. */
enum cm_status cm_page_findings(struct cm_page *page);
enum cm_status cm_page_figures(struct cm_page *page);
enum cm_status cm_page_changes(struct cm_page *page);
enum cm_status cm_page_provenance(struct cm_page *page);

#endif
