/* The pretend machine: its GPUs as the environment describes them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/fake.h"

/* Few units and small caches, as kernels run on the CPU and buffers rotate through twice the
 * caches' size. The rates are this file's own and owe nothing to host/model/. */
static const struct fake_model models[] = {
    {"H200", "NVIDIA H200 (fake)", 9, 0, 2, 1980000, 3201000, 6016, 64 << 10, 232448, 4.3e12, 52e9,
     400e9, 11e12},
    {"H100", "NVIDIA H100 80GB HBM3 (fake)", 9, 0, 2, 1980000, 2619000, 5120, 64 << 10, 232448,
     3.0e12, 51e9, 390e9, 11e12},
    {"A100", "NVIDIA A100-SXM4-80GB (fake)", 8, 0, 2, 1410000, 1593000, 5120, 64 << 10, 166912,
     1.8e12, 24e9, 240e9, 4e12},
    {"B200", "NVIDIA B200 (fake)", 10, 0, 2, 1965000, 3996000, 8192, 64 << 10, 232448, 7.0e12, 53e9,
     700e9, 22e12},
    {"V100", "Tesla V100-SXM2-16GB (fake)", 7, 0, 2, 1530000, 877000, 4096, 64 << 10, 98304, 0.8e12,
     12e9, 130e9, 2e12},
    /* No real one: links and products so slow that small messages and kernels take their time. */
    {"SLOW", "slow GPU (fake)", 9, 0, 2, 1000000, 1000000, 1024, 64 << 10, 166912, 4.3e12, 52e9,
     1e9, 0.4e12},
};

static struct fake_machine machine;
static bool ready;
static unsigned chosen;

uint64_t fake_setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    char *end = NULL;
    if (text == NULL || text[0] == '\0')
        return otherwise;
    uint64_t value = strtoull(text, &end, 10);
    if (*end != '\0')
        fake_die("%s=%s is no number", name, text);
    return value;
}

static const struct fake_model *find_model(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (strlen(models[i].name) == length && strncmp(models[i].name, name, length) == 0)
            return &models[i];
    }
    fake_die("FAKE_MODELS has an unknown %.*s", (int)length, name);
}

static void choose_models(void)
{
    const char *text = getenv("FAKE_MODELS");
    const struct fake_model *model = &models[0];
    for (unsigned i = 0; i < machine.count; i++) {
        if (text != NULL && text[0] != '\0') {
            size_t length = strcspn(text, ",");
            model = find_model(text, length);
            text += length + (text[length] == ',');
        }
        machine.models[i] = model;
    }
}

const struct fake_machine *fake_machine(void)
{
    if (ready)
        return &machine;
    ready = true;
    machine.count = (unsigned)fake_setting("FAKE_GPUS", 1);
    if (machine.count > FAKE_GPUS_MAX)
        fake_die("FAKE_GPUS is above %d", FAKE_GPUS_MAX);
    machine.memory_bytes = (size_t)fake_setting("FAKE_MEMORY", 256) << 20;
    machine.peers = fake_setting("FAKE_P2P", 1) != 0;
    machine.driver = 13000;
    const char *driver = getenv("FAKE_DRIVER");
    int major, minor;
    if (driver != NULL && strcmp(driver, "none") == 0)
        machine.driver = 0;
    else if (driver != NULL && sscanf(driver, "%d.%d", &major, &minor) == 2)
        machine.driver = 1000 * major + 10 * minor;
    choose_models();
    return &machine;
}

void fake_bus_id(unsigned index, char *text, size_t size)
{
    static const unsigned buses[] = {0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf};
    snprintf(text, size, "%04x:%02x:00.0", index / 8, buses[index % 8]);
}

void fake_uuid(unsigned index, unsigned char bytes[16])
{
    unsigned node = (unsigned)fake_setting("FAKE_NODE", 0);
    for (unsigned i = 0; i < 16; i++)
        bytes[i] = (unsigned char)(0xf0 + index + 17 * i + 31 * node);
}

unsigned fake_device(void)
{
    return chosen;
}

void fake_choose_device(unsigned index)
{
    chosen = index;
}

const struct fake_model *fake_model(void)
{
    return fake_machine()->models[chosen];
}
