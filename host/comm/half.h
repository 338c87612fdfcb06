/*
 * half.h: reductions of 2-byte floats, which MPI does not know.
 */
#ifndef HOST_COMM_HALF_H
#define HOST_COMM_HALF_H

#include <stddef.h>
#include <stdint.h>

#include "clustermark/comm.h"

/* inout[i] = in[i] (op) inout[i] for BF16 or F16. A sum is computed in f32 and rounded to nearest
 * even; a NAN among the operands makes the sum NAN. max and min compare as floats do. */
void cm_half_reduce(enum cm_dtype dtype, enum cm_reduce reduce, const uint16_t *in, uint16_t *inout,
                    size_t count);

#endif
