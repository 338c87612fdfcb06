/*
 * chart.h: the kinds of charts, each in a file of its own. Private to host/result.
 *
 * A kind gives the charts that a book of results has to a sink, one by one: the page takes all, a
 * command for a single one the one it asked for.
 */
#ifndef CM_RESULT_CHART_H
#define CM_RESULT_CHART_H

#include "host/result/book.h"
#include "host/result/svg.h"

struct cm_chart {
    const char *kind, *name; /* "sweep", "all_reduce busbw" */
    const char *title;       /* in words */
    const char *note;        /* how to read it; "" for nothing more */
    const struct cm_str *svg;
};

struct cm_chart_sink {
    void *impl;
    enum cm_status (*take)(void *impl, const struct cm_chart *chart);
    size_t taken;
};

struct cm_chart_kind {
    const char *name, *title;
    enum cm_status (*each)(const struct cm_book *book, struct cm_chart_sink *sink);
};
/* In the order of the page; ends with a row without a name. */
extern const struct cm_chart_kind cm_chart_kinds[];

enum cm_status cm_chart_machine(const struct cm_book *book, struct cm_chart_sink *sink);
enum cm_status cm_chart_forest(const struct cm_book *book, struct cm_chart_sink *sink);
enum cm_status cm_chart_sweep(const struct cm_book *book, struct cm_chart_sink *sink);
enum cm_status cm_chart_ranks(const struct cm_book *book, struct cm_chart_sink *sink);
/* Those of over CM_FOLD_ABOVE ranks, which are not in the result one by one. */
enum cm_status cm_chart_many_ranks(const struct cm_side *side, struct cm_chart_sink *sink);
enum cm_status cm_chart_pairs(const struct cm_book *book, struct cm_chart_sink *sink);
enum cm_status cm_chart_steps(const struct cm_book *book, struct cm_chart_sink *sink);
enum cm_status cm_chart_strip(const struct cm_book *book, struct cm_chart_sink *sink);
enum cm_status cm_chart_history(const struct cm_book *book, struct cm_chart_sink *sink);
enum cm_status cm_chart_telemetry(const struct cm_book *book, struct cm_chart_sink *sink);

/* Give a drawn chart to the sink and release the drawing, whatever `status` was before. */
enum cm_status cm_chart_give(struct cm_chart_sink *sink, const char *kind, const char *name,
                             const char *title, const char *note, enum cm_status status,
                             struct cm_str *svg);

/* A line of markers with the sides' labels, from x on. */
void cm_chart_legend(const struct cm_book *book, double x, double y, struct cm_str *svg);

/* One figure held against the same of another side. */
enum cm_change_verdict { CM_CHANGE_BETTER, CM_CHANGE_WORSE, CM_CHANGE_SAME, CM_CHANGE_UNKNOWN };
struct cm_change {
    const char *name, *metric; /* borrowed from the book */
    size_t side;
    double estimate, low, high; /* relative, better above 0; low and high NAN without an interval */
    size_t runs[2];
    enum cm_change_verdict verdict;
};
extern const char *const cm_change_words[];
/* Every case's headline of each further side against the first, what matters most first. The
 * caller frees *changes. */
enum cm_status cm_changes(const struct cm_book *book, struct cm_change **changes, size_t *count);

#endif
