/* probe.h: kernels that are right in one way and wrong in many, for the test of the emulator. */
#ifndef SIMT_PROBE_H
#define SIMT_PROBE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each runs one block, or a few; the first is right, the others must not go unnoticed. */
int probe_sum(const uint32_t *values, uint32_t *sum); /* of 256 */
int probe_missing_barrier(const uint32_t *values, uint32_t *sum);
int probe_lost_update(uint32_t *count); /* 64 threads add one each, and it is no atomic */
int probe_stale_shared(float *value);   /* a variable that nobody wrote */
int probe_divergent_barrier(void);
int probe_deadlock(void);
int probe_absent_lane(void);
int probe_shared_overrun(void);
int probe_misaligned(void);
int probe_crash(void);
int probe_too_large(void); /* the launch's error */
/* Which block came first, of 64. */
int probe_order(uint32_t *first);
unsigned probe_slot(uintptr_t stream);

#ifdef __cplusplus
}
#endif

#endif
