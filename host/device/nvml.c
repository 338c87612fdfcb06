/*
 * What happened to a GPU while a window was measured, as NVIDIA's management library tells it.
 *
 * The library belongs to the driver and is opened when it is first needed. Its interface is stable,
 * so what is used of it is declared here; a function that a driver lacks leaves its field unknown.
 * A thread reads what changes; none of its calls touches CUDA or the work on the GPU.
 */
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/device/cuda.h"

#define SAMPLE_NS       50000000
#define NVLINKS         18 /* that a GPU can have */
#define NVML_SUCCESS    0
#define CLOCK_SM        1
#define CLOCK_MEMORY    2
#define SENSOR_GPU      0
#define ECC_CORRECTED   0
#define ECC_UNCORRECTED 1
#define ECC_VOLATILE    0 /* since the driver was loaded */

typedef int (*get_unsigned_fn)(void *device, unsigned *value);
typedef int (*get_for_fn)(void *device, unsigned which, unsigned *value);

/* Where a GPU stands in NVLink's fabric, as the library lays it out. */
struct fabric {
    unsigned char cluster[16]; /* zero within a single node */
    int status;
    unsigned clique;
    unsigned char state;
};
#define FABRIC_COMPLETE 3

struct functions {
    int (*init)(void);
    int (*shutdown)(void);
    int (*by_bus_id)(const char *bus_id, void **device);
    get_for_fn clock, temperature, nvlink;
    get_unsigned_fn power, power_limit, pcie_generation, pcie_width, persistence;
    int (*energy)(void *device, unsigned long long *millijoules);
    int (*reasons)(void *device, unsigned long long *reasons);
    int (*ecc)(void *device, unsigned kind, unsigned counter, unsigned long long *count);
    int (*remapped)(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                    unsigned *failed);
    int (*mig)(void *device, unsigned *now, unsigned *pending);
    int (*driver)(char *version, unsigned size);
    int (*fabric)(void *device, struct fabric *fabric);
};

/* What is counted since the driver was loaded, at the beginning of a window. */
struct counters {
    double energy_j, ecc_corrected, ecc_uncorrected;
};

/* Of a window; the thread's while it runs. */
struct readings {
    double power_sum_w, temperature_c, pcie_generation, pcie_width;
    unsigned power_count, reason_count, throttled_count, samples;
    unsigned long long reasons;
};

struct cm_nvml {
    void *library;
    void *device;
    struct functions functions;

    bool shared; /* among MIG instances: what the GPU draws is not this device's alone */
    bool running;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping;
    uint64_t start_ns;
    struct counters before;

    struct cm_samples clocks_hz, memory_clocks_hz;
    struct readings readings;
};

static const struct {
    unsigned long long bit;
    const char *words;
} reason_words[] = {
    {0x2, "clocks set by the user"}, {0x4, "power cap"},
    {0x8, "hardware slowdown"},      {0x10, "sync boost"},
    {0x20, "thermal (software)"},    {0x40, "thermal (hardware)"},
    {0x80, "power brake"},           {0x100, "display clocks"},
};
#define REASON_IDLE     0x1ull
#define REASON_HARDWARE 0x8ull /* set with one of the next two, which say more */
#define REASON_CAUSES   0xc0ull

/* ---- the library ---- */

static void find(void *library, void *function, const char *name, const char *other_name)
{
    void *symbol = dlsym(library, name);
    if (symbol == NULL && other_name != NULL)
        symbol = dlsym(library, other_name);
    memcpy(function, &symbol, sizeof symbol);
}

static void find_functions(void *library, struct functions *functions)
{
    find(library, &functions->init, "nvmlInit_v2", NULL);
    find(library, &functions->shutdown, "nvmlShutdown", NULL);
    find(library, &functions->by_bus_id, "nvmlDeviceGetHandleByPciBusId_v2", NULL);
    find(library, &functions->clock, "nvmlDeviceGetClockInfo", NULL);
    find(library, &functions->temperature, "nvmlDeviceGetTemperature", NULL);
    find(library, &functions->nvlink, "nvmlDeviceGetNvLinkState", NULL);
    find(library, &functions->power, "nvmlDeviceGetPowerUsage", NULL);
    find(library, &functions->power_limit, "nvmlDeviceGetEnforcedPowerLimit", NULL);
    find(library, &functions->pcie_generation, "nvmlDeviceGetCurrPcieLinkGeneration", NULL);
    find(library, &functions->pcie_width, "nvmlDeviceGetCurrPcieLinkWidth", NULL);
    find(library, &functions->persistence, "nvmlDeviceGetPersistenceMode", NULL);
    find(library, &functions->energy, "nvmlDeviceGetTotalEnergyConsumption", NULL);
    find(library, &functions->reasons, "nvmlDeviceGetCurrentClocksEventReasons",
         "nvmlDeviceGetCurrentClocksThrottleReasons");
    find(library, &functions->ecc, "nvmlDeviceGetTotalEccErrors", NULL);
    find(library, &functions->remapped, "nvmlDeviceGetRemappedRows", NULL);
    find(library, &functions->mig, "nvmlDeviceGetMigMode", NULL);
    find(library, &functions->driver, "nvmlSystemGetDriverVersion", NULL);
    find(library, &functions->fabric, "nvmlDeviceGetGpuFabricInfo", NULL);
}

/* With deadlines on the monotonic clock. Nothing in it fails on Linux. */
static void init_monotonic(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

static struct cm_nvml *open_library(const char *bus_id)
{
    struct functions functions;
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return NULL;
    find_functions(library, &functions);
    void *device = NULL;
    bool usable =
        functions.init != NULL && functions.by_bus_id != NULL && functions.init() == NVML_SUCCESS;
    struct cm_nvml *nvml = NULL;
    if (usable && functions.by_bus_id(bus_id, &device) == NVML_SUCCESS)
        nvml = cm_alloc(1, sizeof *nvml);
    if (nvml == NULL) {
        if (usable && functions.shutdown != NULL)
            functions.shutdown();
        dlclose(library);
        return NULL;
    }
    nvml->library = library;
    nvml->device = device;
    nvml->functions = functions;
    nvml->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    init_monotonic(&nvml->changed);
    return nvml;
}

static void stop_thread(struct cm_nvml *nvml)
{
    if (!nvml->running)
        return;
    pthread_mutex_lock(&nvml->lock);
    nvml->stopping = true;
    pthread_cond_signal(&nvml->changed);
    pthread_mutex_unlock(&nvml->lock);
    pthread_join(nvml->thread, NULL);
    nvml->running = false;
}

void cm_nvml_close(struct cm_nvml *nvml)
{
    if (nvml == NULL)
        return;
    stop_thread(nvml);
    if (nvml->functions.shutdown != NULL)
        nvml->functions.shutdown();
    dlclose(nvml->library);
    cm_samples_release(&nvml->clocks_hz);
    cm_samples_release(&nvml->memory_clocks_hz);
    pthread_cond_destroy(&nvml->changed);
    pthread_mutex_destroy(&nvml->lock);
    cm_free(nvml);
}

/* ---- reading ---- */

static bool get(const struct cm_nvml *nvml, get_unsigned_fn function, unsigned *value)
{
    return function != NULL && function(nvml->device, value) == NVML_SUCCESS;
}

static bool get_for(const struct cm_nvml *nvml, get_for_fn function, unsigned which,
                    unsigned *value)
{
    return function != NULL && function(nvml->device, which, value) == NVML_SUCCESS;
}

static double ecc_count(const struct cm_nvml *nvml, unsigned kind)
{
    unsigned long long count;
    if (nvml->functions.ecc == NULL ||
        nvml->functions.ecc(nvml->device, kind, ECC_VOLATILE, &count) != NVML_SUCCESS)
        return (double)NAN;
    return (double)count;
}

/* How many links are up; false where the library does not tell. */
static bool count_links(const struct cm_nvml *nvml, unsigned *active)
{
    unsigned known = 0, on;
    *active = 0;
    for (unsigned link = 0; link < NVLINKS; link++) {
        if (get_for(nvml, nvml->functions.nvlink, link, &on)) {
            known++;
            *active += on != 0;
        }
    }
    return known > 0;
}

static struct counters read_counters(const struct cm_nvml *nvml)
{
    unsigned long long millijoules;
    struct counters counters = {
        .energy_j = (double)NAN,
        .ecc_corrected = ecc_count(nvml, ECC_CORRECTED),
        .ecc_uncorrected = ecc_count(nvml, ECC_UNCORRECTED),
    };
    if (nvml->functions.energy != NULL &&
        nvml->functions.energy(nvml->device, &millijoules) == NVML_SUCCESS)
        counters.energy_j = (double)millijoules * 1e-3;
    return counters;
}

static void sample(struct cm_nvml *nvml)
{
    const struct functions *functions = &nvml->functions;
    struct readings *readings = &nvml->readings;
    unsigned value;
    unsigned long long reasons;
    /* A reading that finds no memory is left out. */
    if (get_for(nvml, functions->clock, CLOCK_SM, &value))
        cm_samples_add(&nvml->clocks_hz, value * 1e6);
    if (get_for(nvml, functions->clock, CLOCK_MEMORY, &value))
        cm_samples_add(&nvml->memory_clocks_hz, value * 1e6);
    if (get_for(nvml, functions->temperature, SENSOR_GPU, &value))
        readings->temperature_c = fmax(readings->temperature_c, value);
    if (get(nvml, functions->pcie_generation, &value))
        readings->pcie_generation = fmax(readings->pcie_generation, value);
    if (get(nvml, functions->pcie_width, &value))
        readings->pcie_width = fmax(readings->pcie_width, value);
    if (get(nvml, functions->power, &value)) {
        readings->power_sum_w += value * 1e-3;
        readings->power_count++;
    }
    if (functions->reasons != NULL && functions->reasons(nvml->device, &reasons) == NVML_SUCCESS) {
        readings->reason_count++;
        readings->throttled_count += (reasons & ~REASON_IDLE) != 0;
        readings->reasons |= reasons;
    }
    readings->samples++;
}

static void *thread_main(void *arg)
{
    struct cm_nvml *nvml = arg;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    pthread_mutex_lock(&nvml->lock);
    while (!nvml->stopping) {
        pthread_mutex_unlock(&nvml->lock);
        sample(nvml);
        next.tv_nsec += SAMPLE_NS;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        pthread_mutex_lock(&nvml->lock);
        while (!nvml->stopping &&
               pthread_cond_timedwait(&nvml->changed, &nvml->lock, &next) != ETIMEDOUT)
            continue;
    }
    pthread_mutex_unlock(&nvml->lock);
    return NULL;
}

/* Without the thread the window has the readings at its end. */
static void start_thread(struct cm_nvml *nvml)
{
    sigset_t all, old;
    sigfillset(&all);
    nvml->stopping = false;
    /* Signals belong to the thread that uses the device. */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    nvml->running = pthread_create(&nvml->thread, NULL, thread_main, nvml) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- windows ---- */

static struct cm_nvml *open_once(struct cm_cuda_device *device)
{
    if (!device->nvml_tried)
        device->nvml = open_library(device->device.info.bus_id);
    device->nvml_tried = true;
    return device->nvml;
}

/* A domain that reaches beyond the node has a name of its own; its parts are numbered. */
static void describe_fabric(const struct cm_nvml *nvml, struct cm_device_info *info)
{
    static const unsigned char within_node[sizeof((struct fabric *)NULL)->cluster];
    struct fabric fabric;
    memset(&fabric, 0, sizeof fabric);
    if (nvml->functions.fabric == NULL ||
        nvml->functions.fabric(nvml->device, &fabric) != NVML_SUCCESS ||
        fabric.state != FABRIC_COMPLETE || fabric.status != NVML_SUCCESS ||
        memcmp(fabric.cluster, within_node, sizeof within_node) == 0)
        return;
    size_t length = 0;
    for (size_t i = 0; i < sizeof fabric.cluster; i++)
        length += (size_t)snprintf(info->fabric + length, sizeof info->fabric - length, "%02x",
                                   fabric.cluster[i]);
    snprintf(info->fabric + length, sizeof info->fabric - length, ".%u", fabric.clique);
}

void cm_nvml_survey(struct cm_device *base)
{
    struct cm_device_info *info = &base->info;
    const struct cm_nvml *nvml = open_once((struct cm_cuda_device *)base);
    if (nvml == NULL)
        return;
    if (nvml->functions.driver == NULL ||
        nvml->functions.driver(info->driver, sizeof info->driver) != NVML_SUCCESS)
        info->driver[0] = '\0';
    info->driver[sizeof info->driver - 1] = '\0';
    if (!count_links(nvml, &info->nvlinks))
        info->nvlinks = 0;
    describe_fabric(nvml, info);
}

enum cm_status cm_nvml_telemetry_begin(struct cm_device *base)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    unsigned mig = 0, pending;
    if (device->window)
        return cm_error(CM_USAGE, "telemetry_begin: a window is open; end it first");
    device->window = true;
    struct cm_nvml *nvml = open_once(device);
    if (nvml == NULL)
        return CM_OK;
    nvml->shared = nvml->functions.mig != NULL &&
                   nvml->functions.mig(nvml->device, &mig, &pending) == NVML_SUCCESS && mig != 0;
    cm_samples_clear(&nvml->clocks_hz);
    cm_samples_clear(&nvml->memory_clocks_hz);
    nvml->readings = (struct readings){.samples = 0};
    nvml->before = read_counters(nvml);
    nvml->start_ns = cm_cuda_now_ns();
    start_thread(nvml);
    return CM_OK;
}

static void fill_clocks(const struct cm_nvml *nvml, struct cm_telemetry *seen)
{
    const struct cm_samples *clocks = &nvml->clocks_hz, *memory = &nvml->memory_clocks_hz;
    if (clocks->count > 0) {
        seen->clock_hz = cm_median(clocks->values, clocks->count);
        seen->lowest_clock_hz = cm_quantile(clocks->values, clocks->count, 0);
    }
    if (memory->count > 0)
        seen->memory_clock_hz = cm_median(memory->values, memory->count);
}

static void fill_power(const struct cm_nvml *nvml, const struct counters *now, double seconds,
                       struct cm_telemetry *seen)
{
    unsigned value;
    if (get(nvml, nvml->functions.power_limit, &value))
        seen->power_limit_w = value * 1e-3;
    if (nvml->shared)
        return;
    if (nvml->readings.power_count > 0)
        seen->power_w = nvml->readings.power_sum_w / nvml->readings.power_count;
    /* The counter moves in steps of some 20 to 100 ms, so it says little of a short window. */
    double energy_j = now->energy_j - nvml->before.energy_j;
    seen->energy_j = energy_j > 0 && seconds >= 0.5 ? energy_j : seen->power_w * seconds;
}

static void fill_reasons(const struct readings *readings, struct cm_telemetry *seen)
{
    if (readings->reason_count == 0)
        return;
    unsigned long long reasons = readings->reasons;
    if ((reasons & REASON_CAUSES) != 0)
        reasons &= ~REASON_HARDWARE;
    seen->throttled_fraction = (double)readings->throttled_count / readings->reason_count;
    size_t length = 0;
    for (size_t i = 0; i < sizeof reason_words / sizeof reason_words[0]; i++) {
        if ((reasons & reason_words[i].bit) == 0 || length >= sizeof seen->throttle_reasons)
            continue;
        length += (size_t)snprintf(seen->throttle_reasons + length,
                                   sizeof seen->throttle_reasons - length, "%s%s",
                                   length > 0 ? ", " : "", reason_words[i].words);
    }
}

static void fill_health(const struct cm_nvml *nvml, const struct counters *now,
                        struct cm_telemetry *seen)
{
    const struct functions *functions = &nvml->functions;
    unsigned corrected, uncorrected, pending, failed, on;
    seen->ecc_corrected = now->ecc_corrected - nvml->before.ecc_corrected;
    seen->ecc_uncorrected = now->ecc_uncorrected - nvml->before.ecc_uncorrected;
    if (functions->remapped != NULL && functions->remapped(nvml->device, &corrected, &uncorrected,
                                                           &pending, &failed) == NVML_SUCCESS)
        seen->remapped_rows = (double)corrected + uncorrected;
    unsigned active;
    if (count_links(nvml, &active))
        seen->nvlinks_active = active;
    bool persistent = get(nvml, functions->persistence, &on) && on != 0;
    snprintf(seen->modes, sizeof seen->modes, "%s%s%s", persistent ? "persistence" : "",
             persistent && nvml->shared ? ", " : "", nvml->shared ? "MIG" : "");
}

enum cm_status cm_nvml_telemetry_end(struct cm_device *base, struct cm_telemetry *telemetry)
{
    struct cm_cuda_device *device = (struct cm_cuda_device *)base;
    struct cm_nvml *nvml = device->nvml;
    if (!device->window)
        return cm_error(CM_USAGE, "telemetry_end: no window is open; begin one first");
    device->window = false;
    struct cm_telemetry seen = cm_telemetry_unknown;
    if (nvml != NULL) {
        double seconds = (double)(cm_cuda_now_ns() - nvml->start_ns) * 1e-9;
        struct counters now = read_counters(nvml);
        stop_thread(nvml);
        sample(nvml);
        fill_clocks(nvml, &seen);
        fill_power(nvml, &now, seconds, &seen);
        fill_reasons(&nvml->readings, &seen);
        fill_health(nvml, &now, &seen);
        const struct readings *readings = &nvml->readings;
        seen.samples = readings->samples;
        if (readings->temperature_c > 0)
            seen.temperature_c = readings->temperature_c;
        if (readings->pcie_generation > 0)
            seen.pcie_generation = readings->pcie_generation;
        if (readings->pcie_width > 0)
            seen.pcie_width = readings->pcie_width;
    }
    *telemetry = seen;
    return CM_OK;
}
