/* PCIe links: what a generation and a width carry, and what sysfs says of a device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/model.h"
#include "host/topology/internal.h"

unsigned cm_link_generation(double gts)
{
    for (unsigned i = 1; cm_link_generation_gts(i) > 0; i++) {
        double exact = cm_link_generation_gts(i);
        if (gts > exact * 0.99 && gts < exact * 1.01)
            return i;
    }
    return 0;
}

double cm_link_parse_gts(const char *text)
{
    char *end;
    double gts = strtod(text, &end);
    if (end == text || strncmp(end, " GT/s", 5) != 0 || !(gts > 0 && gts < 1000))
        return 0;
    return gts;
}

/* The first line of a small file; false when there is none. */
static bool read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool got = fgets(line, size, file) != NULL;
    fclose(file);
    return got;
}

static void read_side(const char *folder, const char *side, double *gts, unsigned *width,
                      double *rate)
{
    char path[320], line[64];
    snprintf(path, sizeof path, "%.240s/%s_link_speed", folder, side);
    *gts = read_line(path, line, sizeof line) ? cm_link_parse_gts(line) : 0;
    snprintf(path, sizeof path, "%.240s/%s_link_width", folder, side);
    unsigned long lanes = read_line(path, line, sizeof line) ? strtoul(line, NULL, 10) : 0;
    *width = lanes <= 64 ? (unsigned)lanes : 0; /* 63 and 255 stand for "unknown" */
    if (*width > 32)
        *width = 0;
    *rate = cm_link_rate(*gts, *width);
}

void cm_link_read(const char *root, const char *port, struct cm_pci_device *device)
{
    char path[256], line[64];
    struct cm_pci_link *link = &device->link, above;
    double rate;
    memset(&above, 0, sizeof above);
    snprintf(path, sizeof path, "%.128s/bus/pci/devices/%s", root, device->bus_id);
    read_side(path, "current", &link->gts, &link->width, &rate);
    if (rate > 0)
        link->current = rate; /* else what hwloc found stays */
    read_side(path, "max", &link->max_gts, &link->max_width, &link->maximum);
    if (port != NULL) {
        snprintf(path, sizeof path, "%.128s/bus/pci/devices/%s", root, port);
        read_side(path, "max", &above.max_gts, &above.max_width, &above.maximum);
    }
    /* A link cannot be better than its other end. A virtual bridge that claims less than what the
     * link already does is not believed. */
    if (above.maximum > 0 && above.maximum < link->maximum && above.maximum >= link->current) {
        link->max_gts = above.max_gts < link->max_gts ? above.max_gts : link->max_gts;
        link->max_width = above.max_width < link->max_width ? above.max_width : link->max_width;
        link->maximum = cm_link_rate(link->max_gts, link->max_width);
    }
    snprintf(path, sizeof path, "%.128s/class/infiniband/%s/ports/1/rate", root, device->os_name);
    if (device->kind == CM_PCI_NIC && device->os_name[0] != '\0' &&
        read_line(path, line, sizeof line) && strstr(line, "Gb/sec") != NULL)
        device->net_bytes_per_s = strtod(line, NULL) * 1e9 / 8;
}

bool cm_link_below_maximum(const struct cm_pci_link *link)
{
    return link->current > 0 && link->maximum > 0 && link->current < link->maximum * 0.99;
}

static void describe(double gts, unsigned width, double rate, char *text, size_t size)
{
    unsigned generation = cm_link_generation(gts);
    if (generation > 0 && width > 0)
        snprintf(text, size, "Gen%u x%u %.1f", generation, width, rate / 1e9);
    else
        snprintf(text, size, "%.1f", rate / 1e9);
}

char *cm_link_text(const struct cm_pci_link *link, char *buffer)
{
    char current[32] = "", maximum[32] = "";
    describe(link->gts, link->width, link->current, current, sizeof current);
    describe(link->max_gts, link->max_width, link->maximum, maximum, sizeof maximum);
    if (link->current > 0 && cm_link_below_maximum(link))
        snprintf(buffer, CM_LINK_TEXT_MAX, "%s of %s GB/s", current, maximum);
    else if (link->current > 0 || link->maximum > 0)
        snprintf(buffer, CM_LINK_TEXT_MAX, "%s GB/s", link->current > 0 ? current : maximum);
    else
        buffer[0] = '\0';
    return buffer;
}
