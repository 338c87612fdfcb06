/* Which machine this is. */
#include "host/measure/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/hash.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

static const char *named(void)
{
    const char *name = getenv("NCCL_HOSTID");
    return name != NULL && name[0] != '\0' ? name : NULL;
}

void cm_host_name(char *name, size_t size)
{
    char text[256] = "";
    if (named() != NULL)
        snprintf(text, sizeof text, "%.200s", named());
    else if (gethostname(text, sizeof text - 1) != 0 || text[0] == '\0')
        snprintf(text, sizeof text, "unnamed");
    for (char *at = text; *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~')
            *at = '?';
    }
    snprintf(name, size, "%s", text);
}

uint64_t cm_host_id(void)
{
    char text[256] = "";
    if (named() != NULL)
        return cm_hash(0, named(), strlen(named()));
    gethostname(text, sizeof text - 1);
    uint64_t id = cm_hash(0, text, strlen(text));
    FILE *file = fopen(BOOT_ID, "re");
    if (file != NULL && fgets(text, sizeof text, file) != NULL)
        id = cm_hash(id, text, strlen(text));
    if (file != NULL)
        fclose(file);
    return id;
}
