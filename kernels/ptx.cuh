/*
 * ptx.cuh: the PTX instructions that the matrix products are made of, one small function each, so
 * that the emulator of tests/simt/ can stand in for them. Shared memory is named by its 32-bit
 * address.
 */
#ifndef CLUSTERMARK_PTX_CUH
#define CLUSTERMARK_PTX_CUH

#include <cuda.h>
#include <stdint.h>

#include "kernels/launch.cuh"

#ifdef CM_SIMT
#include "simt_tensor.h" /* the emulator is where the compiler looks */
#else

#define PTX static __device__ __forceinline__

PTX uint32_t ptx_shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* Two floats as two bf16, rounded to nearest even; `low` lies first in memory. */
PTX uint32_t ptx_pack_bf16(float low, float high)
{
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

/* 2^x to about 22 bits, 0 for -inf. */
PTX float ptx_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

PTX void ptx_store_shared(uint32_t to, const uint32_t (&words)[4])
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(words[0]), "r"(words[1]),
                 "r"(words[2]), "r"(words[3])
                 : "memory");
}

/* 16 bytes, or zeros when not `valid`; nothing is read then. */
PTX void ptx_copy_async(uint32_t to, const void *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

PTX void ptx_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most PENDING groups of this thread are under way. */
template <int PENDING> PTX void ptx_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8. */
template <bool TRANSPOSED> PTX void ptx_load_matrix(uint32_t (&to)[4], uint32_t from)
{
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(from)
                     : "memory");
}

/* d (16x8) += a (16x16) * b (16x8). */
PTX void ptx_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Hopper: mbarriers. */

PTX void ptx_barrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

/* Makes what was initialised known to the cluster and to the copy engine. */
PTX void ptx_barrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* Arrives, and expects so many more bytes in this phase. */
PTX void ptx_barrier_expect(uint32_t barrier, uint32_t size_bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
                 "r"(size_bytes)
                 : "memory");
}

/* At the barrier that lies at the same address in another block of the cluster. */
PTX void ptx_barrier_arrive(uint32_t barrier, uint32_t block)
{
    asm volatile("{\n"
                 ".reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
                 "}" ::"r"(barrier),
                 "r"(block)
                 : "memory");
}

/* Until the phase of this parity is over. */
PTX void ptx_barrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* Hopper: clusters. */

PTX uint32_t ptx_cluster_rank()
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

PTX void ptx_cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* Hopper: copies of boxes; they count their bytes at `barrier`, in every block they go to. */

PTX void ptx_load_box(uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
                 : "memory");
}

/* Into each block of the cluster whose bit is set in `blocks`, at the same address. */
PTX void ptx_load_box_multicast(uint32_t to, const CUtensorMap *map, int x, int y, int z,
                                uint32_t barrier, uint16_t blocks)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier), "h"(blocks)
                 : "memory");
}

PTX void ptx_prefetch_map(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Hopper: products of a warpgroup. */

template <int REGISTERS> PTX void ptx_registers_less()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <int REGISTERS> PTX void ptx_registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

PTX void ptx_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

PTX void ptx_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int PENDING> PTX void ptx_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#define PTX_4(d, i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PTX_16(d, i) PTX_4(d, i), PTX_4(d, i + 4), PTX_4(d, i + 8), PTX_4(d, i + 12)
#define PTX_64(d, i) PTX_16(d, i), PTX_16(d, i + 16), PTX_16(d, i + 32), PTX_16(d, i + 48)

/* Until all is done; `d` may be read only after it, which the operands tell the compiler. */
PTX void ptx_wgmma_finish(float (&d)[128])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" : PTX_64(d, 0), PTX_64(d, 64) : : "memory");
}

/* d (64x256) = a (64x16) * b (16x256), plus d when `add`. A_MN: a lies in shared memory with m
 * contiguous, else k; likewise b. */
template <bool A_MN, bool B_MN>
PTX void ptx_wgmma(float (&d)[128], uint64_t a, uint64_t b, bool add)
{
    asm volatile(
        "{\n"
        ".reg .pred add;\n"
        "setp.ne.b32 add, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
        "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, "
        "%124, %125, %126, %127}, %128, %129, add, 1, 1, %131, %132;\n"
        "}"
        : PTX_64(d, 0), PTX_64(d, 64)
        : "l"(a), "l"(b), "r"((int)add), "n"(A_MN ? 1 : 0), "n"(B_MN ? 1 : 0));
}

/* The same with fewer columns, as tiles of 8: d[i][0..3] are this lane's of tile i. */

#define PTX_TILES_4(d, i) PTX_4(d[i], 0), PTX_4(d[i + 1], 0), PTX_4(d[i + 2], 0), PTX_4(d[i + 3], 0)
#define PTX_TILES_8(d)    PTX_TILES_4(d, 0), PTX_TILES_4(d, 4)
#define PTX_TILES_16(d)   PTX_TILES_8(d), PTX_TILES_4(d, 8), PTX_TILES_4(d, 12)

/* Until at most PENDING groups are under way, none of them into `d`, which may be read then. */
template <int PENDING> PTX void ptx_wgmma_finish(float (&d)[8][4])
{
    asm volatile("wgmma.wait_group.sync.aligned %32;" : PTX_TILES_8(d) : "n"(PENDING) : "memory");
}

template <int PENDING> PTX void ptx_wgmma_finish(float (&d)[16][4])
{
    asm volatile("wgmma.wait_group.sync.aligned %64;" : PTX_TILES_16(d) : "n"(PENDING) : "memory");
}

#define PTX_NAMES_32                                                                               \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PTX_NAMES_64                                                                               \
    PTX_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, "   \
                 "%47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "     \
                 "%62, %63"

/* d (64x64 or 64x128) = a (64x16) * b, plus d when `add`; both in shared memory with k contiguous.
 */
PTX void ptx_wgmma_rows(float (&d)[8][4], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" PTX_NAMES_32
                 "}, %32, %33, add, 1, 1, 0, 0;\n"
                 "}"
                 : PTX_TILES_8(d)
                 : "l"(a), "l"(b), "r"((int)add));
}

PTX void ptx_wgmma_rows(float (&d)[16][4], uint64_t a, uint64_t b, bool add)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" PTX_NAMES_64
                 "}, %64, %65, add, 1, 1, 0, 0;\n"
                 "}"
                 : PTX_TILES_16(d)
                 : "l"(a), "l"(b), "r"((int)add));
}

/* d (64x64 or 64x128) += a (64x16, in registers as mma.sync has it) * b, which lies in shared
 * memory with n contiguous. */
PTX void ptx_wgmma_registers(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.eq.u32 add, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" PTX_NAMES_32
                 "}, {%32, %33, %34, %35}, %36, add, 1, 1, 1;\n"
                 "}"
                 : PTX_TILES_8(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

PTX void ptx_wgmma_registers(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.eq.u32 add, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" PTX_NAMES_64
                 "}, {%64, %65, %66, %67}, %68, add, 1, 1, 1;\n"
                 "}"
                 : PTX_TILES_16(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef PTX
#undef PTX_TILES_4
#undef PTX_TILES_8
#undef PTX_TILES_16
#undef PTX_NAMES_32
#undef PTX_NAMES_64
#undef PTX_4
#undef PTX_16
#undef PTX_64

#endif
#endif
