/*
 * simt_tensor.h: the instructions of kernels/ptx.cuh, for the emulator: tensor cores, asynchronous
 * copies, mbarriers, clusters.
 *
 * What is asynchronous on a device is late here: a copy's target is full of NANs until it is waited
 * for (or some random time before), accumulators are NANs until wgmma.wait_group, and what wgmma
 * reads is read at some time up to then, so that a stage that is given back too early shows. Wrong
 * use aborts with the place: a product without wgmma.fence, an mbarrier that was not initialised or
 * made known, arrivals too many, descriptors that differ between the warps of a group.
 */
#ifndef SIMT_TENSOR_H
#define SIMT_TENSOR_H

#include <cuda.h>

#include "simt.h"

/* How often the rows that ldmatrix reads at a time met in a bank of shared memory. */
extern "C" unsigned long simt_bank_conflicts(void);

/* What cuTensorMapEncodeTiled does, in a format of its own: holds the arguments against the
 * driver's rules. */
extern "C" CUresult simt_encode_tiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                      void *address, const cuuint64_t *sizes,
                                      const cuuint64_t *strides, const cuuint32_t *box,
                                      const cuuint32_t *element_strides,
                                      CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                      CUtensorMapL2promotion promotion,
                                      CUtensorMapFloatOOBfill fill);

static inline uint32_t ptx_shared_address(const void *pointer)
{
    return simt_shared_address(pointer);
}

uint32_t ptx_pack_bf16(float low, float high);
static inline float ptx_exp2(float x)
{
    return exp2f(x);
}
void ptx_store_shared(uint32_t to, const uint32_t (&words)[4]);

void ptx_copy_async(uint32_t to, const void *from, bool valid);
void ptx_copy_commit();
void simt_copy_wait(unsigned pending);
template <int PENDING> static inline void ptx_copy_wait()
{
    simt_copy_wait(PENDING);
}

void simt_load_matrix(bool transposed, uint32_t *to, uint32_t from, const char *file, int line);
template <bool TRANSPOSED>
static inline void ptx_load_matrix(uint32_t (&to)[4], uint32_t from, SIMT_SITE)
{
    simt_load_matrix(TRANSPOSED, to, from, file, line);
}
void ptx_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, SIMT_SITE);

void ptx_barrier_init(uint32_t barrier, uint32_t arrivals);
void ptx_barrier_init_fence();
void ptx_barrier_expect(uint32_t barrier, uint32_t size_bytes);
void ptx_barrier_arrive(uint32_t barrier, uint32_t block);
void ptx_barrier_wait(uint32_t barrier, uint32_t parity, SIMT_SITE);

static inline uint32_t ptx_cluster_rank()
{
    return simt_cluster_rank();
}
static inline void ptx_cluster_sync(SIMT_SITE)
{
    simt_cluster_barrier(file, line);
}

void ptx_load_box(uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t barrier);
void ptx_load_box_multicast(uint32_t to, const CUtensorMap *map, int x, int y, int z,
                            uint32_t barrier, uint16_t blocks);
void ptx_prefetch_map(const CUtensorMap *map);

void simt_set_registers(int count, const char *file, int line);
template <int REGISTERS> static inline void ptx_registers_less(SIMT_SITE)
{
    simt_set_registers(REGISTERS, file, line);
}
template <int REGISTERS> static inline void ptx_registers_more(SIMT_SITE)
{
    simt_set_registers(REGISTERS, file, line);
}

void ptx_wgmma_fence(SIMT_SITE);
void ptx_wgmma_commit(SIMT_SITE);
void simt_wgmma_wait(unsigned pending, const float *d, const char *file, int line);
template <int PENDING> static inline void ptx_wgmma_wait(SIMT_SITE)
{
    simt_wgmma_wait(PENDING, nullptr, file, line);
}
static inline void ptx_wgmma_finish(float (&d)[128], SIMT_SITE)
{
    simt_wgmma_wait(0, d, file, line);
}
template <int PENDING, int TILES>
static inline void ptx_wgmma_finish(float (&d)[TILES][4], SIMT_SITE)
{
    simt_wgmma_wait(PENDING, d[0], file, line);
}
/* a_words: the first operand, which then has no descriptor; else NULL. */
void simt_wgmma(unsigned n, bool a_mn, bool b_mn, float *d, uint64_t a, const uint32_t *a_words,
                uint64_t b, bool add, const char *file, int line);
template <bool A_MN, bool B_MN>
static inline void ptx_wgmma(float (&d)[128], uint64_t a, uint64_t b, bool add, SIMT_SITE)
{
    simt_wgmma(256, A_MN, B_MN, d, a, nullptr, b, add, file, line);
}
template <int TILES>
static inline void ptx_wgmma_rows(float (&d)[TILES][4], uint64_t a, uint64_t b, bool add, SIMT_SITE)
{
    simt_wgmma(8 * TILES, false, false, d[0], a, nullptr, b, add, file, line);
}
template <int TILES>
static inline void ptx_wgmma_registers(float (&d)[TILES][4], const uint32_t (&a)[4], uint64_t b,
                                       SIMT_SITE)
{
    simt_wgmma(8 * TILES, false, true, d[0], 0, a, b, true, file, line);
}

#endif
