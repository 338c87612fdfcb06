/* What a container or cgroup takes away: processor time, memory. Versions 1 and 2. */
#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/topology/internal.h"

static bool read_text(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t length = fread(text, 1, size - 1, file);
    bool ok = ferror(file) == 0;
    fclose(file);
    text[length] = '\0';
    return ok;
}

/* The smaller limit wins; 0 is none. */
static void lower(double *limit, double value)
{
    if (value > 0 && (*limit <= 0 || value < *limit))
        *limit = value;
}

static double number_in(const char *folder, const char *file)
{
    char path[PATH_MAX], text[64];
    snprintf(path, sizeof path, "%.3000s/%s", folder, file);
    return read_text(path, text, sizeof text) && isdigit((unsigned char)text[0])
               ? strtod(text, NULL)
               : 0;
}

static void read_v2(const char *folder, double *quota, double *memory)
{
    char path[PATH_MAX], text[64];
    double time, period;
    snprintf(path, sizeof path, "%.3000s/cpu.max", folder);
    if (read_text(path, text, sizeof text) && sscanf(text, "%lf %lf", &time, &period) == 2 &&
        period > 0)
        lower(quota, time / period);
    lower(memory, number_in(folder, "memory.max"));
}

static void read_v1(const char *folder, double *quota, double *memory)
{
    double time = number_in(folder, "cpu.cfs_quota_us");
    double period = number_in(folder, "cpu.cfs_period_us");
    if (period > 0)
        lower(quota, time / period);
    /* "No limit" is the largest page-rounded number, just below 2^63. */
    double bytes = number_in(folder, "memory.limit_in_bytes");
    if (bytes < 0x1p62)
        lower(memory, bytes);
}

/* A group's limit holds for all groups below it: look at every folder from the process's own up to
 * the mount's. Inside a container the path may be the host's, which is not there: only the mount's
 * own folder then answers. */
static void walk(const char *mount, const char *group,
                 void (*reader)(const char *, double *, double *), double *quota, double *memory)
{
    char folder[PATH_MAX];
    int length = snprintf(folder, sizeof folder, "%.1500s%.1500s", mount, group);
    size_t top = strlen(mount) < 1500 ? strlen(mount) : 1500;
    for (size_t end = length > 0 ? (size_t)length : 0; end >= top; end--) {
        if (folder[end] != '\0' && folder[end] != '/')
            continue;
        folder[end] = '\0';
        reader(folder, quota, memory);
        if (end == 0)
            break;
    }
}

/* The process's group in a hierarchy: "4:memory:/x", "0::/x". */
static bool group_of(const char *groups, const char *controller, char *group, size_t size)
{
    for (const char *line = groups; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        const char *names = memchr(line, ':', length);
        const char *path =
            names != NULL ? memchr(names + 1, ':', length - (size_t)(names + 1 - line)) : NULL;
        if (path != NULL) {
            char list[128];
            snprintf(list, sizeof list, ",%.*s,", (int)(path - names - 1), names + 1);
            char wanted[32];
            snprintf(wanted, sizeof wanted, ",%s,", controller);
            if (strstr(list, wanted) != NULL) {
                size_t used = length - (size_t)(path + 1 - line);
                snprintf(group, size, "%.*s", (int)(used < size ? used : size - 1), path + 1);
                if (strcmp(group, "/") == 0)
                    group[0] = '\0';
                return true;
            }
        }
        line += length + (line[length] == '\n');
    }
    return false;
}

static void read_groups(const char *root, struct cm_limits *limits, double *memory)
{
    static const struct {
        const char *controller, *mount;
        void (*reader)(const char *, double *, double *);
    } places[] = {
        {"", "/sys/fs/cgroup", read_v2},
        {"", "/sys/fs/cgroup/unified", read_v2},
        {"cpu", "/sys/fs/cgroup/cpu", read_v1},
        {"cpu", "/sys/fs/cgroup/cpu,cpuacct", read_v1},
        {"memory", "/sys/fs/cgroup/memory", read_v1},
    };
    char path[PATH_MAX], groups[4096], group[1024];
    snprintf(path, sizeof path, "%.1000s/proc/self/cgroup", root);
    if (!read_text(path, groups, sizeof groups))
        return;
    limits->known = true;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!group_of(groups, places[i].controller, group, sizeof group))
            continue;
        snprintf(path, sizeof path, "%.1000s%s", root, places[i].mount);
        walk(path, group, places[i].reader, &limits->cpu_quota, memory);
    }
}

static bool in_container(const char *root)
{
    static const char *const signs[] = {"/.dockerenv", "/run/.containerenv",
                                        "/run/systemd/container"};
    char path[PATH_MAX], text[4096];
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        snprintf(path, sizeof path, "%.1000s%s", root, signs[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    snprintf(path, sizeof path, "%.1000s/proc/1/cgroup", root);
    if (!read_text(path, text, sizeof text))
        return false;
    return strstr(text, "docker") != NULL || strstr(text, "kubepods") != NULL ||
           strstr(text, "containerd") != NULL || strstr(text, "/lxc") != NULL;
}

void cm_limits_read(const char *root, struct cm_limits *limits)
{
    char path[PATH_MAX], text[1024];
    double memory = 0;
    read_groups(root, limits, &memory);
    limits->memory_limit_bytes = memory < 0x1p62 ? (uint64_t)memory : 0;
    limits->container = in_container(root);
    snprintf(path, sizeof path, "%.1000s/sys/devices/system/cpu/online", root);
    struct cm_cpuset online;
    if (read_text(path, text, sizeof text) && cm_cpuset_parse(text, &online))
        limits->cpus_online = cm_cpuset_count(&online);
}
