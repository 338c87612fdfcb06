/* convert.h: bf16 to f32 and back, and 8-bit floats to f32, rows of a matrix at a time. */
#ifndef HOST_DEVICE_CONVERT_H
#define HOST_DEVICE_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "clustermark/dtype.h"

/* rows x columns elements; a stride is the distance of two rows in elements. Shared out among the
 * calling thread's team. Rounding is to nearest even; NAN stays NAN. */
void cm_bf16_to_f32(float *to, size_t to_stride, const uint16_t *from, size_t from_stride,
                    size_t rows, size_t columns);
void cm_f32_to_bf16(uint16_t *to, size_t to_stride, const float *from, size_t from_stride,
                    size_t rows, size_t columns);
/* `dtype` is F8E4M3 or F8E5M2. */
void cm_f8_to_f32(float *to, size_t to_stride, const uint8_t *from, size_t from_stride, size_t rows,
                  size_t columns, enum cm_dtype dtype);

#endif
