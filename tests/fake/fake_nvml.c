/*
 * NVML: the library that the product opens by name is this file (loader.c). There is no header for
 * it in the toolkit, so the types are those of NVML's documentation.
 *
 * FAKE_NVML is "none" (no such library), or readings in place of the usual ones: "clock=1200,
 * reasons=4,lacks=nvmlDeviceGetTotalEccErrors" (that symbol is missing).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/fake.h"
#include "fake/loader.h"

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, UNKNOWN = 999 };

static char devices[FAKE_GPUS_MAX];

/* A reading by its name, `usual` where FAKE_NVML does not have it. */
static unsigned reading(const char *name, unsigned usual)
{
    const char *text = getenv("FAKE_NVML");
    size_t length = strlen(name);
    for (; text != NULL; text = strchr(text, ',') != NULL ? strchr(text, ',') + 1 : NULL) {
        if (strncmp(text, name, length) == 0 && text[length] == '=')
            return (unsigned)strtoul(text + length + 1, NULL, 0);
    }
    return usual;
}

static const struct fake_model *model_of(const void *device, const char *call)
{
    const char *at = device;
    if (at < devices || at >= devices + fake_machine()->count)
        fake_die("%s: %p is no device", call, device);
    return fake_machine()->models[at - devices];
}

/* A call that gives one number of a device. */
static int give(const char *call, const void *device, unsigned value, unsigned *result)
{
    int error = fake_enter(call, UNKNOWN);
    model_of(device, call);
    if (error == SUCCESS)
        *result = value;
    fake_leave();
    return error;
}

static int nvmlInit_v2(void)
{
    int error = fake_enter(__func__, UNKNOWN);
    fake_leave();
    return error;
}

static int nvmlShutdown(void)
{
    int error = fake_enter(__func__, UNKNOWN);
    fake_leave();
    return error;
}

static int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **device)
{
    int error = fake_enter(__func__, UNKNOWN);
    if (error == SUCCESS)
        error = NOT_FOUND;
    for (unsigned i = 0; error == NOT_FOUND && i < fake_machine()->count; i++) {
        char own[24];
        fake_bus_id(i, own, sizeof own);
        if (strcmp(own, bus_id) == 0) {
            *device = &devices[i];
            error = SUCCESS;
        }
    }
    fake_leave();
    return error;
}

static int nvmlDeviceGetClockInfo(void *device, unsigned which, unsigned *mhz)
{
    const struct fake_model *model = model_of(device, __func__);
    if (which != 1 && which != 2)
        return INVALID_ARGUMENT;
    return which == 1
               ? give(__func__, device, reading("clock", (unsigned)model->clock_khz / 1000), mhz)
               : give(__func__, device,
                      reading("memory_clock", (unsigned)model->memory_clock_khz / 1000), mhz);
}

static int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius)
{
    return sensor == 0 ? give(__func__, device, reading("temperature", 61), celsius)
                       : INVALID_ARGUMENT;
}

static int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *active)
{
    return link < reading("nvlinks", 18) ? give(__func__, device, 1, active) : NOT_SUPPORTED;
}

static int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts)
{
    return give(__func__, device, reading("power", 612000), milliwatts);
}

static int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts)
{
    return give(__func__, device, reading("limit", 700000), milliwatts);
}

static int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *generation)
{
    return give(__func__, device, reading("pcie", 5), generation);
}

static int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *width)
{
    return give(__func__, device, reading("width", 16), width);
}

static int nvmlDeviceGetPersistenceMode(void *device, unsigned *on)
{
    return give(__func__, device, reading("persistence", 1), on);
}

static int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules)
{
    unsigned milliwatts = 0;
    int error = give(__func__, device, reading("power", 612000), &milliwatts);
    if (error == SUCCESS)
        *millijoules = (unsigned long long)(fake_wall_s() * milliwatts);
    return error;
}

static int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons)
{
    unsigned value = 0;
    int error = give(__func__, device, reading("reasons", 0), &value);
    if (error == SUCCESS)
        *reasons = value;
    return error;
}

static int nvmlDeviceGetTotalEccErrors(void *device, unsigned kind, unsigned counter,
                                       unsigned long long *count)
{
    unsigned value = 0;
    if (kind > 1 || counter > 1)
        return INVALID_ARGUMENT;
    int error = give(__func__, device, reading(kind == 0 ? "corrected" : "uncorrected", 0), &value);
    if (error == SUCCESS)
        *count = value;
    return error;
}

static int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected,
                                     unsigned *pending, unsigned *failed)
{
    *uncorrected = *pending = *failed = 0;
    return give(__func__, device, reading("remapped", 0), corrected);
}

static int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending)
{
    *pending = 0;
    return give(__func__, device, reading("mig", 0), now);
}

static int nvmlSystemGetDriverVersion(char *version, unsigned size)
{
    int error = fake_enter(__func__, UNKNOWN);
    if (error == SUCCESS)
        snprintf(version, size, "580.%u", reading("driver", 65));
    fake_leave();
    return error;
}

struct fabric {
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
};

static int nvmlDeviceGetGpuFabricInfo(void *device, struct fabric *fabric)
{
    unsigned domain = 0;
    int error = give(__func__, device, reading("fabric", 0), &domain);
    if (error != SUCCESS)
        return error;
    *fabric = (struct fabric){.clique = 1, .state = 3};
    fabric->cluster[0] = (unsigned char)domain; /* 0: within the node */
    return SUCCESS;
}

static const struct fake_symbol symbols[] = {
    FAKE_SYMBOL(nvmlInit_v2),
    FAKE_SYMBOL(nvmlShutdown),
    FAKE_SYMBOL(nvmlDeviceGetHandleByPciBusId_v2),
    FAKE_SYMBOL(nvmlDeviceGetClockInfo),
    FAKE_SYMBOL(nvmlDeviceGetTemperature),
    FAKE_SYMBOL(nvmlDeviceGetNvLinkState),
    FAKE_SYMBOL(nvmlDeviceGetPowerUsage),
    FAKE_SYMBOL(nvmlDeviceGetEnforcedPowerLimit),
    FAKE_SYMBOL(nvmlDeviceGetCurrPcieLinkGeneration),
    FAKE_SYMBOL(nvmlDeviceGetCurrPcieLinkWidth),
    FAKE_SYMBOL(nvmlDeviceGetPersistenceMode),
    FAKE_SYMBOL(nvmlDeviceGetTotalEnergyConsumption),
    FAKE_SYMBOL(nvmlDeviceGetCurrentClocksEventReasons),
    FAKE_SYMBOL(nvmlDeviceGetTotalEccErrors),
    FAKE_SYMBOL(nvmlDeviceGetRemappedRows),
    FAKE_SYMBOL(nvmlDeviceGetMigMode),
    FAKE_SYMBOL(nvmlSystemGetDriverVersion),
    FAKE_SYMBOL(nvmlDeviceGetGpuFabricInfo),
};

const struct fake_library fake_nvml = {"libnvidia-ml.so.1", "FAKE_NVML", symbols,
                                       sizeof symbols / sizeof *symbols};
