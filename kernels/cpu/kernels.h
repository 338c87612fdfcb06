/* kernels.h: the reference launchers, as struct cm_kernels documents them. */
#ifndef KERNELS_CPU_KERNELS_H
#define KERNELS_CPU_KERNELS_H

#include "clustermark/kernels.h"

enum cm_status cm_cpu_copy(struct cm_stream *stream, void *to, const void *from, uint64_t count,
                           enum cm_dtype dtype);
enum cm_status cm_cpu_scale(struct cm_stream *stream, void *to, const void *from, double factor,
                            uint64_t count, enum cm_dtype dtype);
enum cm_status cm_cpu_add(struct cm_stream *stream, void *to, const void *a, const void *b,
                          uint64_t count, enum cm_dtype dtype);
enum cm_status cm_cpu_triad(struct cm_stream *stream, void *to, const void *a, const void *b,
                            double factor, uint64_t count, enum cm_dtype dtype);
enum cm_status cm_cpu_read(struct cm_stream *stream, uint64_t *result, const void *from,
                           uint64_t size_bytes);
enum cm_status cm_cpu_write(struct cm_stream *stream, void *to, uint64_t word, uint64_t size_bytes);
enum cm_status cm_cpu_fill_normal(struct cm_stream *stream, void *to, uint64_t count,
                                  enum cm_dtype dtype, uint64_t seed, uint64_t first);
enum cm_status cm_cpu_verify(struct cm_stream *stream, const void *x, const void *y, uint64_t count,
                             enum cm_dtype dtype, double absolute, double relative,
                             struct cm_verify_result *result);
enum cm_status cm_cpu_empty(struct cm_stream *stream);

/* The random 16 bits of elements first ... of sequence `seed`, as cm_random_normal uses them. */
void cm_cpu_random_bits(uint64_t seed, uint64_t first, size_t count, uint16_t *bits);

#endif
