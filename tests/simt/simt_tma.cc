/* Hopper's mbarriers, and copies of boxes by tensor maps. */
#include <new>

#include "simt_tensor.h"

#define POISON 0xff

/* ---- mbarriers ---- */

/* As it lies in shared memory. */
struct barrier {
    uint64_t expected : 20, pending : 20; /* arrivals of a phase, and those that lack in this one */
    int64_t bytes : 21;                   /* that lack in this one */
    uint64_t phase : 1;
    uint64_t known : 1; /* after fence.mbarrier_init */
    uint64_t valid : 1; /* not zeros; poison is all ones */
};
static_assert(sizeof(struct barrier) == 8, "an mbarrier has 64 bits");

enum { INITS_MAX = 64 };

/* Those that a thread has initialised and not made known. */
struct inits {
    struct barrier *barriers[INITS_MAX];
    unsigned count;
};

static struct inits *own_inits()
{
    static const char key = 0;
    return static_cast<struct inits *>(simt_state(&key, simt_thread(), sizeof(struct inits)));
}

static struct barrier *barrier_at(unsigned block, uint32_t address)
{
    if (address % 8 != 0)
        simt_fail("an mbarrier at %#x, which is no multiple of 8", address);
    return static_cast<struct barrier *>(simt_cluster_pointer(block, address));
}

/* To be used by others than who initialised it. */
static struct barrier *usable_barrier(unsigned block, uint32_t address)
{
    struct barrier *barrier = barrier_at(block, address);
    uint64_t bits;
    memcpy(&bits, barrier, sizeof bits);
    if (!barrier->valid || bits == UINT64_MAX || barrier->expected == 0)
        simt_fail("no mbarrier was initialised at %#x of block %u of the cluster", address, block);
    if (!barrier->known)
        simt_fail("the mbarrier at %#x is used without fence.mbarrier_init after its mbarrier.init",
                  address);
    return barrier;
}

void ptx_barrier_init(uint32_t address, uint32_t arrivals)
{
    struct inits *inits = own_inits();
    if (arrivals == 0 || arrivals >= 1u << 20)
        simt_fail("mbarrier.init for %u arrivals", arrivals);
    if (inits->count == INITS_MAX)
        simt_fail("more than %d mbarriers initialised without a fence", INITS_MAX);
    struct barrier *barrier = barrier_at(simt_cluster_rank(), address);
    *barrier = {};
    barrier->expected = barrier->pending = arrivals & 0xfffff;
    barrier->valid = 1;
    inits->barriers[inits->count++] = barrier;
}

void ptx_barrier_init_fence()
{
    struct inits *inits = own_inits();
    while (inits->count > 0)
        inits->barriers[--inits->count]->known = 1;
}

static void end_phase(struct barrier *barrier)
{
    if (barrier->pending > 0 || barrier->bytes != 0)
        return;
    barrier->phase ^= 1;
    barrier->pending = barrier->expected;
}

static void arrive(struct barrier *barrier, uint32_t address)
{
    if (barrier->pending == 0)
        simt_fail("more arrivals at the mbarrier at %#x than the %u of a phase", address,
                  (unsigned)barrier->expected);
    barrier->pending--;
    end_phase(barrier);
}

void ptx_barrier_expect(uint32_t address, uint32_t size_bytes)
{
    struct barrier *barrier = usable_barrier(simt_cluster_rank(), address);
    if (barrier->bytes + (int64_t)size_bytes >= 1 << 20)
        simt_fail("the mbarrier at %#x cannot expect %u more bytes", address, size_bytes);
    barrier->bytes += size_bytes;
    arrive(barrier, address);
}

void ptx_barrier_arrive(uint32_t address, uint32_t block)
{
    arrive(usable_barrier(block, address), address);
    if (simt_random(4) == 0)
        simt_yield();
}

struct wait {
    const struct barrier *barrier;
    uint32_t parity;
};

static bool phase_is_over(void *arg)
{
    const struct wait *wait = static_cast<struct wait *>(arg);
    return wait->barrier->phase != wait->parity;
}

void ptx_barrier_wait(uint32_t address, uint32_t parity, const char *file, int line)
{
    struct wait wait = {usable_barrier(simt_cluster_rank(), address), parity};
    if (parity > 1)
        simt_fail("parity %u at %s:%d", parity, file, line);
    simt_wait_until(phase_is_over, &wait, "mbarrier.try_wait", file, line);
}

/* ---- Tensor maps: elements of 16 bits, 3 dimensions ---- */

enum { RANK = 3, ELEMENT_BYTES = 2 };

static const char map_mark[8] = "simtmap";

/* In the 128 bytes of a CUtensorMap. */
struct map {
    char mark[8];
    const unsigned char *address;
    uint64_t strides[RANK]; /* bytes */
    uint32_t sizes[RANK], box[RANK];
    uint32_t swizzle_bytes; /* 0 is none */
};
static_assert(sizeof(struct map) <= sizeof(CUtensorMap), "a tensor map has 128 bytes");

static unsigned swizzle_bytes_of(CUtensorMapSwizzle swizzle)
{
    switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_32B:
        return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B:
        return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B:
        return 128;
    default:
        return 0;
    }
}

CUresult simt_encode_tiled(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank,
                           void *address, const cuuint64_t *sizes, const cuuint64_t *strides,
                           const cuuint32_t *box, const cuuint32_t *element_strides,
                           CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                           CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    (void)promotion;
    struct map map = {};
    map.swizzle_bytes = swizzle_bytes_of(swizzle);
    if (reinterpret_cast<uintptr_t>(out) % 64 != 0 || type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 ||
        rank != RANK || reinterpret_cast<uintptr_t>(address) % 16 != 0 ||
        interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
        return CUDA_ERROR_INVALID_VALUE;
    if (box[0] * ELEMENT_BYTES % 16 != 0 ||
        (map.swizzle_bytes != 0 && box[0] * ELEMENT_BYTES > map.swizzle_bytes))
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t stride = ELEMENT_BYTES;
    for (unsigned i = 0; i < RANK; i++) {
        if (sizes[i] == 0 || sizes[i] > UINT64_C(1) << 32 || box[i] == 0 || box[i] > 256 ||
            element_strides[i] != 1)
            return CUDA_ERROR_INVALID_VALUE;
        if (i > 0) {
            stride = strides[i - 1];
            if (stride % 16 != 0 || stride >= UINT64_C(1) << 40 ||
                stride < sizes[i - 1] * map.strides[i - 1])
                return CUDA_ERROR_INVALID_VALUE;
        }
        map.strides[i] = stride;
        map.sizes[i] = (uint32_t)sizes[i];
        map.box[i] = box[i];
    }
    memcpy(map.mark, map_mark, sizeof map.mark);
    map.address = static_cast<const unsigned char *>(address);
    *out = {};
    memcpy(static_cast<void *>(out), &map, sizeof map);
    return CUDA_SUCCESS;
}

static const struct map *map_of(const CUtensorMap *map)
{
    const struct map *found = reinterpret_cast<const struct map *>(map);
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0)
        simt_fail("a tensor map at %p, which is no multiple of 64", static_cast<const void *>(map));
    if (memcmp(found->mark, map_mark, sizeof found->mark) != 0)
        simt_fail("no tensor map at %p", static_cast<const void *>(map));
    return found;
}

void ptx_prefetch_map(const CUtensorMap *map)
{
    map_of(map);
}

/* ---- Copies ---- */

/* Of one box into one block. */
struct copy {
    struct map map;
    int at[RANK];
    uint32_t to; /* its address; where it lies is `memory` */
    unsigned char *memory;
    struct barrier *barrier;
};

static uint32_t box_bytes(const struct map *map)
{
    return map->box[0] * map->box[1] * map->box[2] * ELEMENT_BYTES;
}

/* The 16-byte chunks of a row change places with the bits of the address that count its rows. */
static uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes)
{
    if (swizzle_bytes == 0)
        return address;
    return address ^ (address >> 7 & (swizzle_bytes / 16 - 1)) << 4;
}

static bool inside(const struct map *map, const int64_t *at)
{
    for (unsigned i = 0; i < RANK; i++) {
        if (at[i] < 0 || at[i] >= map->sizes[i])
            return false;
    }
    return true;
}

static void run_copy(void *arg)
{
    struct copy *copy = static_cast<struct copy *>(arg);
    const struct map *map = &copy->map;
    uint32_t offset = 0;
    for (uint32_t z = 0; z < map->box[2]; z++) {
        for (uint32_t y = 0; y < map->box[1]; y++) {
            for (uint32_t x = 0; x < map->box[0]; x++, offset += ELEMENT_BYTES) {
                int64_t at[RANK] = {(int64_t)copy->at[0] + x, (int64_t)copy->at[1] + y,
                                    (int64_t)copy->at[2] + z};
                uint16_t element = 0;
                if (inside(map, at)) {
                    uint64_t from = 0;
                    for (unsigned i = 0; i < RANK; i++)
                        from += (uint64_t)at[i] * map->strides[i];
                    memcpy(&element, map->address + from, sizeof element);
                }
                uint32_t to = swizzled(copy->to + offset, map->swizzle_bytes) - copy->to;
                memcpy(copy->memory + to, &element, sizeof element);
            }
        }
    }
    copy->barrier->bytes -= box_bytes(map);
    end_phase(copy->barrier);
    delete copy;
}

static void load(uint32_t to, const CUtensorMap *opaque, const int *at, uint32_t barrier,
                 unsigned block)
{
    const struct map *map = map_of(opaque);
    uint32_t alignment = map->swizzle_bytes == 0 ? 128 : map->swizzle_bytes * 8;
    if (to % alignment != 0)
        simt_fail("a box goes to %#x, which is no multiple of %u", to, alignment);
    unsigned char *memory = static_cast<unsigned char *>(simt_cluster_pointer(block, to));
    simt_cluster_pointer(block, to + box_bytes(map));
    memset(memory, POISON, box_bytes(map));
    simt_defer(nullptr, run_copy,
               new copy{*map, {at[0], at[1], at[2]}, to, memory, usable_barrier(block, barrier)});
}

void ptx_load_box(uint32_t to, const CUtensorMap *map, int x, int y, int z, uint32_t barrier)
{
    const int at[RANK] = {x, y, z};
    load(to, map, at, barrier, simt_cluster_rank());
}

void ptx_load_box_multicast(uint32_t to, const CUtensorMap *map, int x, int y, int z,
                            uint32_t barrier, uint16_t blocks)
{
    const int at[RANK] = {x, y, z};
    if (blocks == 0 || blocks >> simt_cluster_blocks() != 0)
        simt_fail("a copy to the blocks %#x of a cluster of %u", blocks, simt_cluster_blocks());
    for (unsigned block = 0; block < simt_cluster_blocks(); block++) {
        if (blocks >> block & 1)
            load(to, map, at, barrier, block);
    }
}
