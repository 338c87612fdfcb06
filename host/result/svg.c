/* Drawing charts as SVG: elements, scales, axes. */
#include "host/result/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"

const char cm_svg_style[] =
    ".ch{--c-bg:#fff;--c-ink:#1b2430;--c-dim:#566173;--c-grid:#dfe4ea;--c-band:#e4eaf1;"
    "--s0:#0b62a8;--s1:#c4500c;--s2:#23803d;--s3:#8a3ea8;--s4:#7a5c00;--s5:#b3261e;--s6:#00788a;"
    "--s7:#5b6470;--c-good:#1f7a3a;--c-bad:#b3261e;--c-same:#566173;--c-doubt:#8a5a00}\n"
    "@media (prefers-color-scheme:dark){.ch{--c-bg:#12161c;--c-ink:#e6eaf0;--c-dim:#9aa6b6;"
    "--c-grid:#2b333e;--c-band:#232c37;--s0:#6cb2f2;--s1:#f2a065;--s2:#7fd196;--s3:#d39bea;"
    "--s4:#dcc063;--s5:#ff8a80;--s6:#5fd0e0;--s7:#aab4c0;--c-good:#7fd196;--c-bad:#ff8a80;"
    "--c-same:#9aa6b6;--c-doubt:#f2c14e}}\n"
    ".ch{max-width:100%;height:auto;background:var(--c-bg)}"
    ".ch text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;"
    "fill:var(--c-ink);unicode-bidi:isolate}"
    ".ch .t-dim{fill:var(--c-dim)}.ch .t-end{text-anchor:end}.ch .t-mid{text-anchor:middle}"
    ".ch .t-small{font-size:10px}.ch .t-bold{font-weight:600}"
    ".ch .c-grid{stroke:var(--c-grid)}.ch .c-axis{stroke:var(--c-dim)}"
    ".ch .c-dash{stroke-dasharray:5 4}.ch .c-dot{stroke-dasharray:2 3}"
    ".ch .c-margin{fill:var(--c-band)}.ch .c-cell{stroke:var(--c-bg)}"
    ".ch .line{fill:none;stroke-width:1.8}.ch .area{stroke:none;fill-opacity:.18}"
    ".ch .s0{stroke:var(--s0);fill:var(--s0)}.ch .s1{stroke:var(--s1);fill:var(--s1)}"
    ".ch .s2{stroke:var(--s2);fill:var(--s2)}.ch .s3{stroke:var(--s3);fill:var(--s3)}"
    ".ch .s4{stroke:var(--s4);fill:var(--s4)}.ch .s5{stroke:var(--s5);fill:var(--s5)}"
    ".ch .s6{stroke:var(--s6);fill:var(--s6)}.ch .s7{stroke:var(--s7);fill:var(--s7)}"
    ".ch .v-good{stroke:var(--c-good);fill:var(--c-good)}"
    ".ch .v-bad{stroke:var(--c-bad);fill:var(--c-bad)}"
    ".ch .v-same{stroke:var(--c-same);fill:var(--c-same)}"
    ".ch .v-doubt{stroke:var(--c-doubt);fill:var(--c-doubt)}"
    ".ch .hollow{fill:var(--c-bg)}.ch .line{fill:none}.ch .area{stroke:none}\n";

char *cm_svg_cut(const char *text, size_t most, char *buffer)
{
    size_t bytes = 0, letters = 0;
    while (text[bytes] != '\0') {
        size_t step = 1;
        while (((unsigned char)text[bytes + step] & 0xc0) == 0x80)
            step++;
        if (letters == most || bytes + step + 4 > CM_SVG_CUT_MAX) {
            memcpy(buffer, text, bytes);
            memcpy(buffer + bytes, "…", sizeof "…");
            return buffer;
        }
        bytes += step;
        letters++;
    }
    memcpy(buffer, text, bytes + 1);
    return buffer;
}

void cm_svg_begin(struct cm_str *out, double width, double height, const char *title,
                  const char *text)
{
    cm_str_addf(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"ch\" viewBox=\"0 0 %.0f %.0f\" "
                "width=\"%.0f\" height=\"%.0f\" role=\"img\"><title>",
                width, height, width, height);
    cm_str_add_xml(out, title);
    cm_str_add(out, "</title><desc>");
    cm_str_add_xml(out, text);
    cm_str_add(out, "</desc>\n");
}

void cm_svg_end(struct cm_str *out)
{
    cm_str_add(out, "</svg>\n");
}

void cm_svg_text(struct cm_str *out, double x, double y, const char *class, const char *text)
{
    cm_str_addf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    cm_str_add_xml(out, text);
    cm_str_add(out, "</text>\n");
}

void cm_svg_textf(struct cm_str *out, double x, double y, const char *class, const char *format,
                  ...)
{
    struct cm_str text = CM_STR_INIT;
    va_list args;
    va_start(args, format);
    cm_str_vaddf(&text, format, args);
    va_end(args);
    cm_svg_text(out, x, y, class, cm_str_text(&text));
    out->failed = out->failed || text.failed;
    cm_str_release(&text);
}

/* Ends an element that was begun without its ">". */
static void add_tip(struct cm_str *out, const char *name, const char *tip)
{
    if (tip == NULL) {
        cm_str_add(out, "/>\n");
        return;
    }
    cm_str_add(out, "><title>");
    cm_str_add_xml(out, tip);
    cm_str_addf(out, "</title></%s>\n", name);
}

void cm_svg_rect(struct cm_str *out, double x, double y, double width, double height,
                 const char *class, const char *tip)
{
    cm_str_addf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"%s\"", x,
                y, fmax(width, 0), fmax(height, 0), class);
    add_tip(out, "rect", tip);
}

void cm_svg_line(struct cm_str *out, double x1, double y1, double x2, double y2, const char *class)
{
    cm_str_addf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1,
                y1, x2, y2, class);
}

void cm_svg_mark(struct cm_str *out, double x, double y, unsigned series, bool hollow,
                 const char *tip)
{
    static const char *const shapes[] = {"m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "m-3.5-3.5h7v7h-7z",
                                         "m0-5l5 5l-5 5l-5-5z", "m0-4.5l4.5 8h-9z"};
    cm_str_addf(out, "<path d=\"M%.1f %.1f%s\" class=\"s%u%s\"", x, y, shapes[series % 4],
                series % CM_SVG_SERIES, hollow ? " hollow" : "");
    add_tip(out, "path", tip);
}

void cm_svg_path(struct cm_str *out, const double *x, const double *y, size_t count,
                 const char *class)
{
    bool drawn = false;
    cm_str_add(out, "<path d=\"");
    for (size_t i = 0; i < count; i++) {
        bool known = isfinite(x[i]) && isfinite(y[i]);
        if (known)
            cm_str_addf(out, "%c%.1f %.1f", drawn ? 'L' : 'M', x[i], y[i]);
        drawn = known;
    }
    cm_str_addf(out, "\" class=\"%s\"/>\n", class);
}

void cm_svg_band(struct cm_str *out, const double *x, const double *low, const double *high,
                 size_t count, const char *class)
{
    for (size_t begin = 0, end; begin < count; begin = end + 1) {
        end = begin;
        while (end < count && isfinite(x[end]) && isfinite(low[end]) && isfinite(high[end]))
            end++;
        if (end < begin + 2)
            continue;
        cm_str_add(out, "<path d=\"");
        for (size_t i = begin; i < end; i++)
            cm_str_addf(out, "%c%.1f %.1f", i == begin ? 'M' : 'L', x[i], high[i]);
        for (size_t i = end; i-- > begin;)
            cm_str_addf(out, "L%.1f %.1f", x[i], low[i]);
        cm_str_addf(out, "z\" class=\"%s\"/>\n", class);
    }
}

double cm_scale_at(const struct cm_scale *scale, double value)
{
    if (!isfinite(value) || (scale->log && !(value > 0)))
        return NAN;
    double share = scale->log ? log(value / scale->low) / log(scale->high / scale->low)
                              : (value - scale->low) / (scale->high - scale->low);
    return scale->from + share * (scale->to - scale->from);
}

void cm_scale_cover(struct cm_scale *scale, double value)
{
    if (!isfinite(value) || fabs(value) > 1e200 || (scale->log && !(value > 1e-200)))
        return;
    bool empty = scale->low > scale->high;
    scale->low = empty ? value : fmin(scale->low, value);
    scale->high = empty ? value : fmax(scale->high, value);
}

/* 1, 2 or 5 times a power of ten, so that `range` has at most `most` of them. */
static double step_of(double range, double most)
{
    static const double steps[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(range / most)));
    for (size_t i = 0; i < 4; i++) {
        if (range / (steps[i] * power) <= most)
            return steps[i] * power;
    }
    return 10 * power;
}

void cm_scale_round(struct cm_scale *scale)
{
    if (scale->low > scale->high) {
        scale->low = scale->log ? 1 : 0;
        scale->high = scale->log ? 10 : 1;
    }
    if (scale->log) {
        if (scale->high < scale->low * 1.0001) {
            scale->low /= 2;
            scale->high *= 2;
        }
        return;
    }
    if (!(scale->high - scale->low > fabs(scale->high) * 1e-9)) {
        double half = scale->high != 0 ? fabs(scale->high) * 0.05 : 0.5;
        scale->low -= half;
        scale->high += half;
    }
    double step = step_of(scale->high - scale->low, 6);
    scale->low = floor(scale->low / step + 1e-9) * step;
    scale->high = ceil(scale->high / step - 1e-9) * step;
}

/* Powers of two where the scale looks like sizes are the caller's affair: powers of ten here, or of
 * four where those are too few. */
static size_t log_ticks(const struct cm_scale *scale, size_t most, double *ticks)
{
    double decades = log10(scale->high / scale->low);
    double factor = decades < 2 ? 2 : 10;
    while (log(scale->high / scale->low) / log(factor) > (double)most - 1)
        factor *= factor < 10 ? 2 : 10;
    size_t count = 0;
    double first = ceil(log(scale->low) / log(factor) - 1e-9);
    while (count < most && pow(factor, first + (double)count) <= scale->high * (1 + 1e-9)) {
        ticks[count] = pow(factor, first + (double)count);
        count++;
    }
    return count;
}

size_t cm_scale_ticks(const struct cm_scale *scale, size_t most, double *ticks)
{
    most = most < CM_TICKS_MAX ? most : CM_TICKS_MAX;
    if (scale->log)
        return log_ticks(scale, most, ticks);
    size_t count = 0;
    double step = step_of(scale->high - scale->low, (double)most - 1);
    double first = ceil(scale->low / step - 1e-9);
    for (; count < most && (first + (double)count) * step <= scale->high + step * 1e-6; count++)
        ticks[count] = (first + (double)count) * step;
    return count;
}

/* For sizes, marks at powers of two. */
static size_t size_ticks(const struct cm_scale *scale, double *ticks)
{
    int first = (int)ceil(log2(scale->low) - 1e-9), last = (int)floor(log2(scale->high) + 1e-9);
    int step = 1 + (last - first) / 9;
    size_t count = 0;
    for (int at = first; at <= last && count < CM_TICKS_MAX; at += step)
        ticks[count++] = ldexp(1, at);
    return count;
}

static const char *tick_text(double value, const char *unit, char *text)
{
    if (strcmp(unit, "%") == 0) {
        snprintf(text, CM_UNITS_TEXT_MAX, "%+.3g %%", value);
        return fabs(value) < 1e-9 ? "0 %" : text;
    }
    if (value == 0)
        return "0";
    return cm_format_value(value, unit, text);
}

void cm_svg_axis_x(struct cm_str *out, const struct cm_scale *scale, double top, double bottom,
                   const char *unit, const char *title)
{
    double ticks[CM_TICKS_MAX];
    char text[CM_UNITS_TEXT_MAX];
    size_t most = (size_t)fmax(2, fabs(scale->to - scale->from) / 80);
    size_t count = scale->log && strcmp(unit, "B") == 0 ? size_ticks(scale, ticks)
                                                        : cm_scale_ticks(scale, most, ticks);
    for (size_t i = 0; i < count; i++) {
        double x = cm_scale_at(scale, ticks[i]);
        cm_svg_line(out, x, top, x, bottom, "c-grid");
        cm_svg_text(out, x, bottom + 15, "t-mid t-dim", tick_text(ticks[i], unit, text));
    }
    cm_svg_line(out, scale->from, bottom, scale->to, bottom, "c-axis");
    cm_svg_text(out, (scale->from + scale->to) / 2, bottom + 32, "t-mid", title);
}

void cm_svg_axis_y(struct cm_str *out, const struct cm_scale *scale, double left, double right,
                   const char *unit, const char *title)
{
    double ticks[CM_TICKS_MAX];
    char text[CM_UNITS_TEXT_MAX];
    size_t most = (size_t)fmax(2, fabs(scale->to - scale->from) / 36);
    size_t count = cm_scale_ticks(scale, most, ticks);
    for (size_t i = 0; i < count; i++) {
        double y = cm_scale_at(scale, ticks[i]);
        cm_svg_line(out, left, y, right, y, "c-grid");
        cm_svg_text(out, left - 6, y + 4, "t-end t-dim", tick_text(ticks[i], unit, text));
    }
    cm_svg_line(out, left, fmin(scale->from, scale->to), left, fmax(scale->from, scale->to),
                "c-axis");
    cm_svg_text(out, left, fmin(scale->from, scale->to) - 8, "t-end", title);
}
