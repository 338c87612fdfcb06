/* Choosing a backend. */
#include "clustermark/device.h"

#include <math.h>
#include <string.h>

#include "clustermark/deadline.h"
#include "clustermark/error.h"
#include "clustermark/module.h"

const struct cm_telemetry cm_telemetry_unknown = {
    .clock_hz = NAN,
    .power_w = NAN,
    .energy_j = NAN,
    .temperature_c = NAN,
    .steal_fraction = NAN,
    .switches_per_s = NAN,
    .throttled_fraction = NAN,
    .lowest_clock_hz = NAN,
    .memory_clock_hz = NAN,
    .power_limit_w = NAN,
    .ecc_corrected = NAN,
    .ecc_uncorrected = NAN,
    .remapped_rows = NAN,
    .pcie_generation = NAN,
    .pcie_width = NAN,
    .nvlinks_active = NAN,
    .samples = NAN,
};

static const struct cm_device_row *row_of(const char *name)
{
    for (const struct cm_device_row *row = cm_device_rows; row->name != NULL; row++) {
        if (strcmp(row->name, name) == 0)
            return row;
    }
    return NULL;
}

static const struct cm_device_ops *ops_of(const struct cm_device_row *row)
{
    if (row->ops != NULL)
        return row->ops;
    const struct cm_module *module = cm_module_open(row->module);
    return module != NULL ? module->device : NULL;
}

const struct cm_device_ops *cm_device_find(const char *name)
{
    const struct cm_device_row *row = row_of(name);
    return row != NULL ? ops_of(row) : NULL;
}

const char *cm_device_missing(const char *name)
{
    const struct cm_device_row *row = row_of(name);
    if (row == NULL)
        return "this program has no device of that name";
    return ops_of(row) != NULL ? NULL : row->module->missing;
}

enum cm_status cm_device_ask(const struct cm_device_ops *ops, struct cm_device_probe *probe)
{
    struct cm_deadline *deadline = NULL;
    enum cm_status status =
        ops->is_host ? CM_OK : cm_deadline_begin(CM_DRIVER_S, CM_DRIVER_HANGS, &deadline);
    if (status == CM_OK)
        status = ops->probe(probe);
    cm_deadline_end(deadline);
    return status;
}

const struct cm_device_ops *cm_device_default(void)
{
    const struct cm_device_ops *last = NULL;
    for (const struct cm_device_row *row = cm_device_rows; row->name != NULL; row++) {
        struct cm_device_probe probe = {0};
        const struct cm_device_ops *ops = ops_of(row);
        last = ops != NULL ? ops : last;
        if (ops != NULL && cm_device_ask(ops, &probe) == CM_OK && probe.count > 0)
            break;
    }
    cm_error_clear();
    return last;
}
