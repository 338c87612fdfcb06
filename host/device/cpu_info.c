/* What the CPU device is: name, cores, caches, memory, and what its figures are held against. */
#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "host/device/cpu.h"
#include "host/device/onednn.h"

unsigned cm_cpu_affinity_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    /* More CPUs than the set can hold. */
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

/* First line of a small file without its end; false when it cannot be read. */
static bool read_line(const char *path, char *line, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool found = fgets(line, (int)size, file) != NULL;
    fclose(file);
    if (found)
        line[strcspn(line, "\n")] = '\0';
    return found;
}

/* The number after `key` in a file of "key: number" lines. */
static bool read_field(const char *path, const char *key, uint64_t *value)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    char line[256];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        size_t length = strlen(key);
        if (strncmp(line, key, length) == 0 && line[length] == ':')
            found = sscanf(line + length + 1, "%" SCNu64, value) == 1;
    }
    fclose(file);
    return found;
}

void cm_cpu_name(char *name, size_t size)
{
    name[0] = '\0';
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL)
        return;
    char line[512];
    while (name[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        bool named = strncmp(line, "model name", 10) == 0 || strncmp(line, "Model\t", 6) == 0;
        if (colon == NULL || !named)
            continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(name, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
    }
    fclose(file);
}

static unsigned first_cpu(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (CPU_ISSET(cpu, &set))
                return cpu;
        }
    }
    return 0;
}

static double highest_clock_hz(void)
{
    char path[96], line[64];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cpufreq/cpuinfo_max_freq",
             first_cpu());
    return read_line(path, line, sizeof line) ? strtod(line, NULL) * 1e3 : 0;
}

/* The cache of the highest level that the rank's first core has. */
static uint64_t cache_bytes(void)
{
    uint64_t found = 0;
    long highest = 0;
    for (int index = 0; index < 16; index++) {
        char path[96], line[64];
        unsigned cpu = first_cpu();
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cache/index%d/level", cpu,
                 index);
        if (!read_line(path, line, sizeof line))
            break;
        long level = strtol(line, NULL, 10);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cache/index%d/size", cpu, index);
        if (level <= highest || !read_line(path, line, sizeof line))
            continue;
        char *unit;
        uint64_t size = strtoull(line, &unit, 10);
        found = *unit == 'M' ? size << 20 : *unit == 'K' ? size << 10 : size;
        highest = level;
    }
    return found;
}

/* What a control group leaves: its limit less its use. UINT64_MAX where there is no limit. */
static uint64_t group_left(const char *limit_path, const char *use_path)
{
    char line[64];
    uint64_t limit, used = 0;
    if (!read_line(limit_path, line, sizeof line) || !isdigit((unsigned char)line[0]))
        return UINT64_MAX;
    limit = strtoull(line, NULL, 10);
    if (read_line(use_path, line, sizeof line))
        used = strtoull(line, NULL, 10);
    return limit > used ? limit - used : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The limit of this process's own control group, version 2 or 1. In a container the group's files
 * are at the mount's root. */
static uint64_t control_group_left(void)
{
    static const char v2[] = "/sys/fs/cgroup", v1[] = "/sys/fs/cgroup/memory";
    uint64_t left = UINT64_MAX;
    char line[512], limit[640], use[640];
    left = smaller(left, group_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"));
    left = smaller(left, group_left("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                    "/sys/fs/cgroup/memory/memory.usage_in_bytes"));
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return left;
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = '\0';
        if (controllers[1] == '\0') {
            snprintf(limit, sizeof limit, "%s%s/memory.max", v2, path);
            snprintf(use, sizeof use, "%s%s/memory.current", v2, path);
        } else if (strstr(controllers + 1, "memory") != NULL) {
            snprintf(limit, sizeof limit, "%s%s/memory.limit_in_bytes", v1, path);
            snprintf(use, sizeof use, "%s%s/memory.usage_in_bytes", v1, path);
        } else {
            continue;
        }
        left = smaller(left, group_left(limit, use));
    }
    fclose(file);
    return left;
}

static uint64_t memory_bytes(const struct cm_device_config *config)
{
    uint64_t kib, bytes = UINT64_MAX;
    if (read_field("/proc/meminfo", "MemAvailable", &kib))
        bytes = kib << 10;
    bytes = smaller(bytes, control_group_left());
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        bytes = smaller(bytes, limit.rlim_cur);
    if (config->memory_bytes > 0)
        bytes = smaller(bytes, config->memory_bytes);
    return bytes == UINT64_MAX ? 0 : bytes;
}

static void describe_features(char *text, size_t size)
{
    text[0] = '\0';
#if defined(__x86_64__)
    const struct {
        const char *name;
        bool has;
    } features[] = {
        {"avx2", __builtin_cpu_supports("avx2")},
        {"fma", __builtin_cpu_supports("fma")},
        {"avx512f", __builtin_cpu_supports("avx512f")},
        {"avx512_bf16", __builtin_cpu_supports("avx512bf16")},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof features / sizeof features[0] && used < size; i++) {
        if (features[i].has)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "",
                                     features[i].name);
    }
    /* The compilers at hand cannot ask for matrix tiles; leaf 7 says it in edx. */
    unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (edx & 1u << 22 && used < size)
        snprintf(text + used, size - used, "%samx_bf16", used ? " " : "");
#elif defined(__aarch64__)
    snprintf(text, size, "neon");
#endif
}

static void set_peak(struct cm_peak *peak, double one_core, unsigned cores)
{
    peak->value = one_core * cores;
    peak->measured = one_core > 0;
    if (one_core > 0)
        snprintf(peak->source, sizeof peak->source, "fused multiply-add loop on one core, times %u",
                 cores);
    else
        snprintf(peak->source, sizeof peak->source, "no fused multiply-add on this CPU");
}

static void describe_peaks(struct cm_device_info *info)
{
    for (int i = 0; i < CM_DTYPE_COUNT; i++)
        snprintf(info->flop_rate[i].source, sizeof info->flop_rate[i].source,
                 "no register loop for %s", cm_dtype_name((enum cm_dtype)i));
    set_peak(&info->flop_rate[CM_F64], cm_cpu_peak_f64(), info->units);
    set_peak(&info->flop_rate[CM_F32], cm_cpu_peak_f32(), info->units);
    struct cm_peak *bf16 = &info->flop_rate[CM_BF16];
    if (cm_onednn_native(CM_BF16)) {
        snprintf(bf16->source, sizeof bf16->source, "no register loop for bf16 instructions");
    } else {
        *bf16 = info->flop_rate[CM_F32];
        snprintf(bf16->source, sizeof bf16->source,
                 "f32 peak, since bf16 runs through f32: loop on one core, times %u", info->units);
    }
    snprintf(info->memory_rate.source, sizeof info->memory_rate.source,
             "a program cannot read the memory's channels and clock");
}

void cm_cpu_describe(const struct cm_device_config *config, struct cm_device_info *info)
{
    snprintf(info->kind, sizeof info->kind, "cpu");
    cm_cpu_name(info->name, sizeof info->name);
    if (info->name[0] == '\0')
        snprintf(info->name, sizeof info->name, "CPU");
    describe_features(info->features, sizeof info->features);
    cm_onednn_version(info->software, sizeof info->software);
    info->clock_hz = highest_clock_hz();
    info->memory_bytes = memory_bytes(config);
    if (read_field("/proc/meminfo", "MemTotal", &info->memory_total_bytes))
        info->memory_total_bytes <<= 10;
    info->cache_bytes = cache_bytes();
    describe_peaks(info);
}
