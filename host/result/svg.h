/*
 * svg.h: drawing charts as SVG. Private to host/result.
 *
 * Colours are classes that follow the viewer's light or dark scheme; a chart within the page and
 * one in a file of its own differ in who brings the style. Text is escaped here, whatever it holds.
 */
#ifndef CM_RESULT_SVG_H
#define CM_RESULT_SVG_H

#include <stdbool.h>
#include <stddef.h>

#include "clustermark/strbuf.h"

/* Rules for everything drawn here, with the colours' names. */
extern const char cm_svg_style[];

/* The series that colours and markers tell apart. */
#define CM_SVG_SERIES 8

/* A drawing of `width` times `height` units; `title` and `text` are what a screen reader says. */
void cm_svg_begin(struct cm_str *out, double width, double height, const char *title,
                  const char *text);
void cm_svg_end(struct cm_str *out);

/* `class` also takes several words: "t-end t-muted". */
void cm_svg_text(struct cm_str *out, double x, double y, const char *class, const char *text);
__attribute__((format(printf, 5, 6))) void cm_svg_textf(struct cm_str *out, double x, double y,
                                                        const char *class, const char *format, ...);
/* `tip` is shown when the pointer rests there; NULL for none. */
void cm_svg_rect(struct cm_str *out, double x, double y, double width, double height,
                 const char *class, const char *tip);
void cm_svg_line(struct cm_str *out, double x1, double y1, double x2, double y2, const char *class);
/* The marker of a series: circle, square, diamond, triangle, in turn; hollow where it is unsure. */
void cm_svg_mark(struct cm_str *out, double x, double y, unsigned series, bool hollow,
                 const char *tip);
/* A line through points; those that are not finite break it. */
void cm_svg_path(struct cm_str *out, const double *x, const double *y, size_t count,
                 const char *class);
/* The area between two lines over the same x. */
void cm_svg_band(struct cm_str *out, const double *x, const double *low, const double *high,
                 size_t count, const char *class);

/* From values to places. */
struct cm_scale {
    double low, high; /* values at the ends */
    double from, to;  /* their places */
    bool log;
};
double cm_scale_at(const struct cm_scale *scale, double value);
/* Widen to cover a value; low > high is an empty scale. */
void cm_scale_cover(struct cm_scale *scale, double value);
/* Round the ends outward to whole steps; an empty scale becomes 0 to 1. */
void cm_scale_round(struct cm_scale *scale);
/* Places for marks, ascending, at most `most`. */
#define CM_TICKS_MAX 16
size_t cm_scale_ticks(const struct cm_scale *scale, size_t most, double *ticks);

/* Axes with grid lines; values in `unit` as cm_format_value prints them. */
void cm_svg_axis_x(struct cm_str *out, const struct cm_scale *scale, double top, double bottom,
                   const char *unit, const char *title);
void cm_svg_axis_y(struct cm_str *out, const struct cm_scale *scale, double left, double right,
                   const char *unit, const char *title);

/* `text` cut to `most` characters, the rest said by "…"; whole characters only. */
#define CM_SVG_CUT_MAX 512
char *cm_svg_cut(const char *text, size_t most, char *buffer);

#endif
