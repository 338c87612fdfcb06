/* Choosing a backend. */
#include "clustermark/device.h"

#include <string.h>

const struct cm_device_ops *cm_device_find(const char *name)
{
    for (size_t i = 0; cm_devices[i] != NULL; i++) {
        if (strcmp(cm_devices[i]->name, name) == 0)
            return cm_devices[i];
    }
    return NULL;
}

const struct cm_device_ops *cm_device_default(void)
{
    const struct cm_device_ops *last = NULL;
    for (size_t i = 0; cm_devices[i] != NULL; i++) {
        struct cm_device_probe probe = {0};
        last = cm_devices[i];
        if (last->probe(&probe) == CM_OK && probe.count > 0)
            break;
    }
    return last;
}
