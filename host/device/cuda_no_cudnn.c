/* In place of cuda_cudnn.c where this was built without cuDNN's headers. */
#include "clustermark/train_kernels.h"
#include "host/device/cuda.h"

static enum cm_status prepare(struct cm_device *device, const struct cm_attention *attention,
                              char version[CM_LIBRARY_VERSION_MAX])
{
    (void)device;
    (void)attention;
    (void)version;
    return cm_error(CM_UNSUPPORTED, "this program was built without cuDNN");
}

static void release(struct cm_device *device, const struct cm_attention *attention)
{
    (void)device;
    (void)attention;
}

/* Nothing is ever prepared, so nothing runs. */
const struct cm_attention_library cm_attention_cudnn = {
    .name = "cudnn", .prepare = prepare, .release = release};

void cm_cudnn_close(struct cm_cudnn *cudnn)
{
    (void)cudnn;
}
