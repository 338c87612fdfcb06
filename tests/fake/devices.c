/* The devices of the programs on the fakes; tests that run on each device have the fake alone. */
#include "clustermark/device.h"
#include "clustermark/module.h"

#if !CM_FAKE_ALONE
extern const struct cm_device_ops cm_device_cpu;
#endif

static struct cm_backend fake = {
    .name = "fake", .title = "The fake", .built = true, .remedy = "build all of tests/fake"};

const struct cm_device_row cm_device_rows[] = {
    {.name = "fake", .module = &fake},
#if !CM_FAKE_ALONE
    {.name = "cpu", .ops = &cm_device_cpu},
#endif
    {.name = NULL},
};
