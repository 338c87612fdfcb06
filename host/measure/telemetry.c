/* One account of several windows of telemetry. */
#include "host/measure/telemetry.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum how { MEAN, SUM, LEAST, MOST };

static const struct {
    size_t offset;
    enum how how;
} fields[] = {
#define FIELD(name, how)                                                                           \
    {                                                                                              \
        offsetof(struct cm_telemetry, name), how                                                   \
    }
    FIELD(clock_hz, MEAN),         FIELD(power_w, MEAN),
    FIELD(energy_j, SUM),          FIELD(temperature_c, MOST),
    FIELD(steal_fraction, MEAN),   FIELD(switches_per_s, MEAN),
    FIELD(lowest_clock_hz, LEAST), FIELD(throttled_fraction, MEAN),
    FIELD(memory_clock_hz, MEAN),  FIELD(power_limit_w, LEAST),
    FIELD(ecc_corrected, SUM),     FIELD(ecc_uncorrected, SUM),
    FIELD(remapped_rows, MOST),    FIELD(pcie_generation, MOST),
    FIELD(pcie_width, MOST),       FIELD(nvlinks_active, LEAST),
    FIELD(samples, SUM),
#undef FIELD
};

static double merged(enum how how, double before, double window, double share)
{
    if (isnan(before) || isnan(window))
        return isnan(before) ? window : before;
    switch (how) {
    case MEAN:
        return before + share * (window - before);
    case SUM:
        return before + window;
    case LEAST:
        return fmin(before, window);
    case MOST:
        return fmax(before, window);
    }
    return (double)NAN;
}

void cm_telemetry_merge(struct cm_telemetry *telemetry, const struct cm_telemetry *window,
                        double share)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        double value, *to = (double *)(void *)((char *)telemetry + fields[i].offset);
        memcpy(&value, (const char *)window + fields[i].offset, sizeof value);
        *to = merged(fields[i].how, *to, value, share);
    }
    /* Of the window that has any. */
    if (window->throttle_reasons[0] != '\0')
        memcpy(telemetry->throttle_reasons, window->throttle_reasons,
               sizeof telemetry->throttle_reasons);
    if (window->modes[0] != '\0')
        memcpy(telemetry->modes, window->modes, sizeof telemetry->modes);
}
