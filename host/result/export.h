/*
 * export.h: the formats of other tools. Private to host/result.
 */
#ifndef CM_RESULT_EXPORT_H
#define CM_RESULT_EXPORT_H

#include "host/result/book.h"
#include "host/result/history.h"
#include "host/result/report.h"

enum cm_status cm_export_junit(const struct cm_side *side, struct cm_str *out);
enum cm_status cm_export_markdown(const struct cm_side *side, struct cm_str *out);
enum cm_status cm_export_annotations(const struct cm_side *side, struct cm_str *out);
enum cm_status cm_export_bmf(const struct cm_side *side, struct cm_str *out);
enum cm_status cm_export_go(const struct cm_side *side, struct cm_str *out);
enum cm_status cm_export_google(const struct cm_side *side, struct cm_str *out);
enum cm_status cm_export_openmetrics(const struct cm_side *side, struct cm_str *out);
enum cm_status cm_export_csv(const struct cm_side *side, struct cm_str *out);

/* Whether a figure is told to other tools: measured, and of the case as a whole. */
bool cm_is_told(const char *name, const json_t *metric);

/* name="value" after a space, escaped. */
void cm_add_attribute(struct cm_str *out, const char *name, const char *value);
/* Text that Markdown leaves as it is: what could mean something becomes an entity. */
void cm_add_markdown(struct cm_str *out, const char *text);
/* A workflow command of GitHub: kind is error, warning or notice. */
void cm_annotate(struct cm_str *out, const char *kind, const char *title, const char *text);

/* Dump into `out`, indented, with a newline at its end. */
enum cm_status cm_export_json(const json_t *value, struct cm_str *out);

#endif
