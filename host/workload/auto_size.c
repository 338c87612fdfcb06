/* Sizes that suit a device. */
#include "host/workload/auto_size.h"

#include "clustermark/model.h"

#define LEAST_SIDE   64
#define LEAST_BYTES  4096
#define HOST_SIDE    1024
#define DEVICE_SIDE  8192
#define PRODUCT_S    0.1
#define HOST_BYTES   ((uint64_t)16 << 20)
#define DEVICE_BYTES ((uint64_t)1 << 30)

uint64_t cm_auto_side(bool is_host, const struct cm_peak *peak, uint64_t left_bytes)
{
    uint64_t side = is_host ? HOST_SIDE : DEVICE_SIDE;
    while (!is_host && peak->value > 0 && side > HOST_SIDE &&
           cm_gemm_flops(side, side, side, 1) > PRODUCT_S * peak->value)
        side /= 2;
    while (side > LEAST_SIDE && 3 * sizeof(double) * side * side > left_bytes / 4)
        side /= 2;
    return side;
}

enum cm_status cm_auto_agree(struct cm_context *context, uint64_t *size)
{
    const void *sizes;
    enum cm_status status = cm_context_gather(context, size, sizeof *size, &sizes);
    for (unsigned rank = 0; status == CM_OK && rank < context->comm->size; rank++) {
        uint64_t other = ((const uint64_t *)sizes)[rank];
        *size = other < *size ? other : *size;
    }
    return status;
}

uint64_t cm_auto_message(bool is_host, uint64_t left_bytes)
{
    uint64_t bytes = is_host ? HOST_BYTES : DEVICE_BYTES;
    while (bytes > LEAST_BYTES && bytes > left_bytes / 8)
        bytes /= 2;
    return bytes;
}
