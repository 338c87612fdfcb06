/*
 * The CUDA device under the name "fake", so that no result of it passes as one of a GPU.
 *
 * FAKE_DROP_WAIT=P leaves out every wait for an event on streams of priority P, as if the program
 * had forgotten it: what is measured must then come out wrong.
 */
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/device.h"
#include "clustermark/module.h"

extern const struct cm_device_ops cm_device_cuda;

static struct cm_device_ops fake;

static enum cm_status open_fake(const struct cm_device_config *config, struct cm_device **device)
{
    struct cm_device *made = NULL;
    enum cm_status status = cm_device_cuda.open(config, &made);
    if (status != CM_OK)
        return status;
    made->ops = &fake;
    snprintf(made->info.kind, sizeof made->info.kind, "fake");
    *device = made;
    return CM_OK;
}

static enum cm_status drop_wait(struct cm_stream *stream, struct cm_event *event)
{
    if (stream->priority == atoi(getenv("FAKE_DROP_WAIT")))
        return CM_OK;
    return cm_device_cuda.stream_wait(stream, event);
}

__attribute__((constructor)) static void copy_hooks(void)
{
    fake = cm_device_cuda;
    fake.name = "fake";
    fake.summary = "pretend GPUs, for tests";
    fake.open = open_fake;
    if (getenv("FAKE_DROP_WAIT") != NULL)
        fake.stream_wait = drop_wait;
}

extern const struct cm_module cm_module_fake;
__attribute__((visibility("default")))
const struct cm_module cm_module_fake = {.version = CM_VERSION, .device = &fake};
