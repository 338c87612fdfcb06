/*
 * cuBLASLt: scales that blocks of 16 or 32 neighbours along k share, a byte each, as its manual has
 * them: 512 bytes hold those of 128 outer indices and 4 blocks. Here they are read off that picture
 * (32 lines of 16 bytes; a line has outer indices o, o + 32, o + 64, o + 96 one after the other),
 * so that who lays them out otherwise gets another product.
 */
#include <math.h>

#include "clustermark/dtype.h"
#include "fake/fake_cublaslt.h"

unsigned fake_lt_block(int32_t mode)
{
    if (mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3)
        return 16;
    if (mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0)
        return 32;
    if (mode != CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F)
        fake_die("cublasLt: scale mode %d is not faked", (int)mode);
    return 0;
}

/* Chunks of 4 blocks along k. */
static uint64_t chunks(int32_t mode, uint64_t k)
{
    uint64_t elements = 4 * (uint64_t)fake_lt_block(mode);
    return (k + elements - 1) / elements;
}

void fake_lt_check_scales(const void *scales, int32_t mode, uint64_t outer, uint64_t k,
                          const char *call)
{
    uint64_t bytes = (outer + 127) / 128 * chunks(mode, k) * 512;
    if (scales == NULL || (uintptr_t)scales % 16 != 0)
        fake_die("%s: the scales of blocks are at %p, which is not aligned", call, scales);
    if (fake_place_of(scales, bytes, call) < FAKE_DEVICE)
        fake_die("%s: the scales of blocks are not in device memory", call);
}

static double worth(int32_t mode, uint8_t byte)
{
    if (mode == CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0)
        return byte == 0xff ? (double)NAN : ldexp(1, byte - 127);
    byte &= 0x7f;
    return cm_dtype_load(CM_F8E4M3, &byte);
}

void fake_lt_scale(const void *scales, int32_t mode, uint64_t outer, uint64_t k, double *values)
{
    unsigned block = fake_lt_block(mode);
    const uint8_t(*lines)[32][4][4] = scales;
    for (uint64_t o = 0; o < outer; o++) {
        for (uint64_t chunk = 0; chunk < chunks(mode, k); chunk++) {
            const uint8_t *four = lines[o / 128 * chunks(mode, k) + chunk][o % 32][o % 128 / 32];
            for (uint64_t i = 0; i < 4 * (uint64_t)block && chunk * 4 * block + i < k; i++)
                values[o * k + chunk * 4 * block + i] *= worth(mode, four[i / block]);
        }
    }
}
