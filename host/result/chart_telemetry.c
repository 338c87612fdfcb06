/* What the devices' telemetry told run by run, over the time of the day. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/record.h"

#define WIDTH     900.0
#define LEFT      90.0
#define RIGHT     870.0
#define PANEL     110.0
#define TOP       30.0
#define RANKS_MAX 8 /* with a line of their own */
#define RUNS_MAX  20000
#define MARKS_MAX 400 /* of a panel: of more, every so many runs are shown */

static const struct field {
    const char *name, *title, *unit;
} fields[] = {
    {"clock", "clock", "Hz"},
    {"power", "power", "W"},
    {"temperature_c", "temperature, °C", ""},
    {"throttled_fraction", "throttled share", "1"},
};
#define FIELDS (sizeof fields / sizeof fields[0])

/* Of very many ranks, three values of their distribution stand for all. */
static const char *const folded[] = {"minimum", "median", "maximum"};
#define FOLDED (sizeof folded / sizeof *folded)

struct reading {
    double time_s;
    const json_t *telemetry; /* per rank; an object when they are folded */
};

static size_t values_of(const struct reading *reading)
{
    return json_is_object(reading->telemetry) ? FOLDED : json_array_size(reading->telemetry);
}

static double value_of(const struct reading *reading, size_t index, const char *name)
{
    if (json_is_object(reading->telemetry))
        return cm_get_number(json_object_get(reading->telemetry, name), folded[index]);
    return cm_get_number(json_array_get(reading->telemetry, index), name);
}

static double unix_time(const char *stamp)
{
    struct tm parts = {.tm_isdst = 0};
    const char *end = strptime(stamp, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return end != NULL && *end == '\0' ? (double)timegm(&parts) : NAN;
}

static size_t read_readings(const struct cm_side *side, struct reading *readings)
{
    size_t count = 0, index, inner, ranks = 1, shown = 0;
    const json_t *item, *run;
    json_array_foreach(json_object_get(cm_side_last(side), "cases"), index, item)
    {
        json_array_foreach(json_object_get(item, "runs"), inner, run)
        {
            struct reading reading = {unix_time(cm_get_text(run, "started")),
                                      json_object_get(run, "telemetry")};
            if (json_array_size(reading.telemetry) == 0)
                reading.telemetry = json_object_get(json_object_get(run, "folded"), "telemetry");
            if (values_of(&reading) > 0 && isfinite(reading.time_s) && count < RUNS_MAX)
                readings[count++] = reading;
            if (values_of(&reading) > ranks)
                ranks = values_of(&reading);
        }
    }
    size_t step = 1 + count * ranks / MARKS_MAX;
    for (size_t i = 0; i < count; i += step)
        readings[shown++] = readings[i];
    return shown;
}

static bool has_field(const struct reading *readings, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t rank = 0; rank < values_of(&readings[i]); rank++) {
            if (isfinite(value_of(&readings[i], rank, name)))
                return true;
        }
    }
    return false;
}

static void draw_panel(const struct reading *readings, size_t count, const struct field *field,
                       const struct cm_scale *x, double top, struct cm_str *svg)
{
    struct cm_scale y = {1, 0, top + PANEL - 30, top, false};
    for (size_t i = 0; i < count; i++) {
        for (size_t rank = 0; rank < values_of(&readings[i]); rank++)
            cm_scale_cover(&y, value_of(&readings[i], rank, field->name));
    }
    cm_scale_round(&y);
    cm_svg_axis_y(svg, &y, LEFT, RIGHT, field->unit, "");
    cm_svg_text(svg, LEFT, top - 8, "t-bold", field->title);
    for (size_t i = 0; i < count; i++) {
        size_t ranks = values_of(&readings[i]);
        for (size_t rank = 0; rank < ranks; rank++) {
            double value = value_of(&readings[i], rank, field->name);
            if (!isfinite(value))
                continue;
            char tip[120], text[CM_UNITS_TEXT_MAX], who[40];
            if (json_is_object(readings[i].telemetry))
                snprintf(who, sizeof who, "%s of all ranks", folded[rank]);
            else
                snprintf(who, sizeof who, "rank %zu", rank);
            snprintf(tip, sizeof tip, "%s, after %.0f s: %s", who, readings[i].time_s - x->low,
                     cm_format_value(value, field->unit, text));
            cm_svg_mark(svg, cm_scale_at(x, readings[i].time_s), cm_scale_at(&y, value),
                        (unsigned)(ranks <= RANKS_MAX ? rank : 0), true, tip);
        }
    }
}

static enum cm_status draw(const struct cm_side *side, const struct reading *readings, size_t count,
                           struct cm_chart_sink *sink)
{
    struct cm_str svg = CM_STR_INIT;
    char label[CM_SVG_CUT_MAX], title[CM_SVG_CUT_MAX + 60];
    struct cm_scale x = {1, 0, LEFT, RIGHT, false};
    size_t shown = 0;
    for (size_t i = 0; i < FIELDS; i++)
        shown += has_field(readings, count, fields[i].name);
    if (shown == 0)
        return CM_OK;
    for (size_t i = 0; i < count; i++)
        cm_scale_cover(&x, readings[i].time_s);
    if (!(x.high > x.low))
        x.high = x.low + 1;
    struct cm_scale axis = {0, x.high - x.low, LEFT, RIGHT, false};
    double bottom = TOP + PANEL * (double)shown;
    cm_svg_cut(side->label, 60, label);
    snprintf(title, sizeof title, "Telemetry of every run, %s", label);
    cm_svg_begin(&svg, WIDTH, bottom + 30, title, "clock, power, temperature and throttling");
    double top = TOP;
    for (size_t i = 0; i < FIELDS; i++) {
        if (!has_field(readings, count, fields[i].name))
            continue;
        draw_panel(readings, count, &fields[i], &x, top, &svg);
        top += PANEL;
    }
    cm_svg_axis_x(&svg, &axis, bottom - 12, bottom - 12, "s", "since the first run");
    cm_svg_end(&svg);
    return cm_chart_give(sink, "telemetry", label, title,
                         "A mark per run and rank, of very many a part; up to eight ranks have a "
                         "colour and a shape of their own. Of over 64 ranks the least, the median "
                         "and the largest.",
                         CM_OK, &svg);
}

enum cm_status cm_chart_telemetry(const struct cm_book *book, struct cm_chart_sink *sink)
{
    enum cm_status status = CM_OK;
    struct reading *readings = cm_alloc(RUNS_MAX, sizeof *readings);
    if (readings == NULL)
        return CM_NO_MEMORY;
    for (size_t side = 0; side < book->count && status == CM_OK; side++) {
        size_t count = read_readings(&book->sides[side], readings);
        if (count > 0)
            status = draw(&book->sides[side], readings, count, sink);
    }
    cm_free(readings);
    return status;
}
