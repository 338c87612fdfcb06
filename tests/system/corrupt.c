/*
 * A device that computes wrongly: after each timed part, one byte of one element of a rank's first
 * output is changed. Linked into clustermark-corrupt (--wrap=cm_time_part), never into the program.
 * CM_CORRUPT names the rank; without it nothing is changed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "host/measure/harness.h"

enum cm_status __real_cm_time_part(struct cm_harness *harness, unsigned part,
                                   struct cm_samples *own);
enum cm_status __wrap_cm_time_part(struct cm_harness *harness, unsigned part,
                                   struct cm_samples *own);

enum cm_status __wrap_cm_time_part(struct cm_harness *harness, unsigned part,
                                   struct cm_samples *own)
{
    enum cm_status status = __real_cm_time_part(harness, part, own);
    const char *rank = getenv("CM_CORRUPT");
    if (status != CM_OK || rank == NULL || harness->hidden.output_count == 0 ||
        strtoul(rank, NULL, 10) != harness->context.comm->rank)
        return status;
    const struct cm_output *output = &harness->hidden.outputs[0];
    /* The exponent's byte of an f32, or of every second bf16. */
    size_t place = output->size_bytes < 8 ? 0 : output->size_bytes / 16 * 8 + 3;
    ((unsigned char *)output->memory)[place] ^= 0x41;
    return status;
}
