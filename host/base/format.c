/* Numbers with units, printed. */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/units.h"

struct step {
    const char *name;
    double factor;
};

/* Ascending; the last row ends the table. */
static const struct step time_steps[] = {
    {"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {NULL, 0}};
static const struct step rate_steps[] = {{"B/s", 1},    {"kB/s", 1e3},  {"MB/s", 1e6},
                                         {"GB/s", 1e9}, {"TB/s", 1e12}, {"PB/s", 1e15},
                                         {NULL, 0}};
static const struct step flops_steps[] = {{"FLOP/s", 1},     {"kFLOP/s", 1e3},  {"MFLOP/s", 1e6},
                                          {"GFLOP/s", 1e9},  {"TFLOP/s", 1e12}, {"PFLOP/s", 1e15},
                                          {"EFLOP/s", 1e18}, {NULL, 0}};
static const struct step hertz_steps[] = {
    {"Hz", 1}, {"kHz", 1e3}, {"MHz", 1e6}, {"GHz", 1e9}, {NULL, 0}};
static const struct step size_steps[] = {{"B", 1},        {"KiB", 0x1p10}, {"MiB", 0x1p20},
                                         {"GiB", 0x1p30}, {"TiB", 0x1p40}, {NULL, 0}};

/* Three digits, whole ones beyond 1000. Magnitudes that no unit covers get an exponent. */
static void three_digits(double value, char *buffer, size_t size)
{
    double magnitude = fabs(value);
    if (!isfinite(value))
        snprintf(buffer, size, "%s", isnan(value) ? "n/a" : value > 0 ? "inf" : "-inf");
    else if (magnitude == 0)
        snprintf(buffer, size, "0");
    else if (magnitude < 0.000995 || magnitude >= 9999999.5)
        snprintf(buffer, size, "%.2e", value);
    else if (magnitude >= 99.95)
        snprintf(buffer, size, "%.0f", value);
    else if (magnitude >= 9.995)
        snprintf(buffer, size, "%.1f", value);
    else if (magnitude >= 0.9995)
        snprintf(buffer, size, "%.2f", value);
    else
        snprintf(buffer, size, "%.3g", value);
}

static char *join(double value, const char *unit, char *buffer)
{
    char digits[16];
    three_digits(value, digits, sizeof digits);
    if (isnan(value) || unit == NULL || *unit == '\0')
        snprintf(buffer, CM_UNITS_TEXT_MAX, "%s", digits);
    else
        snprintf(buffer, CM_UNITS_TEXT_MAX, "%s %.15s", digits, unit);
    return buffer;
}

/* In the largest unit of which there is at least one once rounded: 999.6 us is 1.00 ms. */
static char *in_steps(double value, const struct step *steps, char *buffer)
{
    const struct step *best = steps;
    for (const struct step *step = steps; step->name != NULL; step++) {
        bool whole = step->factor == 1 && (value == 0 || !isfinite(value));
        if (whole || (isfinite(value) && fabs(value) / step->factor >= 0.9995))
            best = step;
    }
    return join(value / best->factor, best->name, buffer);
}

static char *exact_size(uint64_t size_bytes, const char *space, char *buffer)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned step = 0;
    while (step < 4 && size_bytes != 0 && size_bytes % 1024 == 0) {
        size_bytes /= 1024;
        step++;
    }
    snprintf(buffer, CM_UNITS_TEXT_MAX, "%" PRIu64 "%s%s", size_bytes, space, names[step]);
    return buffer;
}

char *cm_format_size(uint64_t size_bytes, char *buffer)
{
    return exact_size(size_bytes, " ", buffer);
}

char *cm_write_size(uint64_t size_bytes, char *buffer)
{
    return exact_size(size_bytes, "", buffer);
}

char *cm_format_time(double seconds, char *buffer)
{
    return in_steps(seconds, time_steps, buffer);
}

char *cm_format_rate(double bytes_per_s, char *buffer)
{
    return in_steps(bytes_per_s, rate_steps, buffer);
}

char *cm_format_flops(double flop_per_s, char *buffer)
{
    return in_steps(flop_per_s, flops_steps, buffer);
}

/* A measured size: exact where that is short, else three digits. */
static char *measured_size(double size_bytes, char *buffer)
{
    if (size_bytes >= 0 && size_bytes < 0x1p63 && size_bytes == floor(size_bytes)) {
        cm_format_size((uint64_t)size_bytes, buffer);
        if (strcspn(buffer, " ") <= 4)
            return buffer;
    }
    return in_steps(size_bytes, size_steps, buffer);
}

char *cm_format_value(double value, const char *unit, char *buffer)
{
    if (strcmp(unit, "s") == 0)
        return cm_format_time(value, buffer);
    if (strcmp(unit, "B/s") == 0)
        return cm_format_rate(value, buffer);
    if (strcmp(unit, "FLOP/s") == 0)
        return cm_format_flops(value, buffer);
    if (strcmp(unit, "Hz") == 0)
        return in_steps(value, hertz_steps, buffer);
    if (strcmp(unit, "B") == 0)
        return measured_size(value, buffer);
    return join(value, strcmp(unit, "1") == 0 ? "" : unit, buffer);
}
