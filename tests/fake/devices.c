/* The devices of the programs on the fakes. */
#include "clustermark/device.h"
#include "clustermark/module.h"

extern const struct cm_device_ops cm_device_cpu;

static struct cm_backend fake = {
    .name = "fake", .title = "The fake", .built = true, .remedy = "build all of tests/fake"};

const struct cm_device_row cm_device_rows[] = {
    {.name = "fake", .module = &fake},
    {.name = "cpu", .ops = &cm_device_cpu},
    {.name = NULL},
};
