/* What else happened on the CPU while a window was measured. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "clustermark/error.h"
#include "host/device/cpu.h"

/* Fields of a cpu line of /proc/stat: user nice system idle iowait irq softirq steal. */
#define STAT_FIELDS 8
#define STAT_STEAL  7

/* Ticks of this rank's cores since the machine started, all and those the hypervisor took. */
static void read_ticks(uint64_t *steal, uint64_t *total)
{
    cpu_set_t set;
    *steal = *total = 0;
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL)
        return;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        CPU_ZERO(&set);
    char line[512];
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned cpu;
        unsigned long long ticks[STAT_FIELDS];
        if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &ticks[0],
                   &ticks[1], &ticks[2], &ticks[3], &ticks[4], &ticks[5], &ticks[6],
                   &ticks[7]) != STAT_FIELDS + 1)
            continue;
        if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &set))
            continue;
        for (int i = 0; i < STAT_FIELDS; i++)
            *total += ticks[i];
        *steal += ticks[STAT_STEAL];
    }
    fclose(file);
}

static double scaled_clock_hz(unsigned cpu)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cpufreq/scaling_cur_freq", cpu);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return (double)NAN;
    double khz;
    bool found = fscanf(file, "%lf", &khz) == 1;
    fclose(file);
    return found ? khz * 1e3 : (double)NAN;
}

double cm_cpu_clock_hz(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return (double)NAN;
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL)
        return (double)NAN;
    char line[4096];
    double sum = 0;
    unsigned cpu = CPU_SETSIZE, count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        double mhz = 0;
        if (sscanf(line, "processor : %u", &cpu) == 1 && cpu < CPU_SETSIZE && CPU_ISSET(cpu, &set))
            mhz = scaled_clock_hz(cpu) * 1e-6;
        else if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &set) ||
                 sscanf(line, "cpu MHz : %lf", &mhz) != 1)
            continue;
        if (mhz > 0) {
            sum += mhz * 1e6;
            count++;
            cpu = CPU_SETSIZE; /* one value per core */
        }
    }
    fclose(file);
    return count > 0 ? sum / count : (double)NAN;
}

enum cm_status cm_cpu_telemetry_begin(struct cm_device *base)
{
    struct cm_cpu_window *window = &((struct cm_cpu_device *)base)->window;
    if (window->open)
        return cm_error(CM_USAGE, "telemetry_begin: a window is open; end it first");
    struct rusage usage;
    window->open = true;
    window->clock_hz = cm_cpu_clock_hz();
    read_ticks(&window->steal_ticks, &window->total_ticks);
    window->switches = getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : -1;
    window->start_ns = cm_cpu_now_ns();
    return CM_OK;
}

enum cm_status cm_cpu_telemetry_end(struct cm_device *base, struct cm_telemetry *telemetry)
{
    struct cm_cpu_window *window = &((struct cm_cpu_device *)base)->window;
    if (!window->open)
        return cm_error(CM_USAGE, "telemetry_end: no window is open; begin one first");
    window->open = false;
    struct cm_telemetry seen = cm_telemetry_unknown;
    double seconds = (double)(cm_cpu_now_ns() - window->start_ns) * 1e-9;
    struct rusage usage;
    if (window->switches >= 0 && seconds > 0 && getrusage(RUSAGE_SELF, &usage) == 0)
        seen.switches_per_s = (double)(usage.ru_nivcsw - window->switches) / seconds;
    uint64_t steal, total;
    read_ticks(&steal, &total);
    if (total > window->total_ticks && steal >= window->steal_ticks)
        seen.steal_fraction =
            (double)(steal - window->steal_ticks) / (double)(total - window->total_ticks);
    /* Two looks, at both ends: their mean is their median. */
    seen.clock_hz = (window->clock_hz + cm_cpu_clock_hz()) / 2;
    *telemetry = seen;
    return CM_OK;
}
