/*
 * test_own_gemm.c: this project's own matrix product (kernels/gemm*.cu) in the emulator, held
 * against sums in double precision. The inputs are small integers, so that every sum is exact and
 * one product too many or too few shows. C is poisoned and has guards around it, and so have A and
 * B, with NANs; each shape comes in all transposes and with more than one order of threads.
 */
#include "test.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/cuda_kernels.h"

void simt_seed(uint64_t seed);
unsigned long simt_bank_conflicts(void);

#define GUARD_BYTES 4096 /* before and after a matrix */
#define POISON      0xff

struct matrix {
    unsigned char *memory;
    void *data;
    size_t size_bytes;
};

/* `shift_bytes` from a multiple of 64. */
static struct matrix make_matrix(uint64_t count, size_t element_bytes, size_t shift_bytes)
{
    struct matrix matrix;
    matrix.size_bytes = count * element_bytes;
    size_t all_bytes = (matrix.size_bytes + 2 * GUARD_BYTES + 127) / 64 * 64;
    matrix.memory = aligned_alloc(64, all_bytes);
    assert_non_null(matrix.memory);
    memset(matrix.memory, POISON, all_bytes);
    matrix.data = matrix.memory + GUARD_BYTES + shift_bytes;
    return matrix;
}

static void check_guards(const struct matrix *matrix)
{
    const unsigned char *data = matrix->data;
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        if (data[-1 - (ptrdiff_t)i] != POISON)
            fail_msg("byte %zu before C was written", i + 1);
        if (i < GUARD_BYTES - 64 && data[matrix->size_bytes + i] != POISON)
            fail_msg("byte %zu after C was written", i);
    }
}

static uint64_t random_state;

/* -8 to 8 */
static int random_integer(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)(random_state >> 33) % 17 - 8;
}

static uint16_t to_bf16(double value)
{
    float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static double from_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float single;
    memcpy(&single, &wide, sizeof single);
    return (double)single;
}

static void fill_bf16(uint16_t *to, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        to[i] = to_bf16(random_integer());
}

static double get(const struct cm_gemm_desc *desc, const void *c, uint64_t i)
{
    if (desc->out_dtype == CM_BF16)
        return from_bf16(((const uint16_t *)c)[i]);
    return (double)((const float *)c)[i];
}

static void put(const struct cm_gemm_desc *desc, void *c, uint64_t i, double value)
{
    if (desc->out_dtype == CM_BF16)
        ((uint16_t *)c)[i] = to_bf16(value);
    else
        ((float *)c)[i] = (float)value;
}

/* What C must be, in the dtype of C. */
static void reference(const struct cm_gemm_desc *desc, const uint16_t *a, const uint16_t *b,
                      const void *old, void *c)
{
    uint64_t m = desc->m, n = desc->n, k = desc->k;
    for (uint64_t at = 0; at < desc->batch * m * n; at++) {
        uint64_t set = at / (m * n), row = at / n % m, column = at % n;
        const uint16_t *from_a = a + set * m * k, *from_b = b + set * k * n;
        double sum = desc->accumulate ? get(desc, old, at) : 0;
        for (uint64_t i = 0; i < k; i++)
            sum += from_bf16(from_a[desc->trans_a ? i * m + row : row * k + i]) *
                   from_bf16(from_b[desc->trans_b ? column * k + i : i * n + column]);
        put(desc, c, at, sum);
    }
}

/* Also with operands that are as little aligned as bf16 is, when `shifted`. */
static void check_product(const struct cm_own_gemm *gemm, bool shifted)
{
    const struct cm_gemm_desc *desc = &gemm->desc;
    uint64_t c_count = desc->batch * desc->m * desc->n;
    size_t c_bytes = desc->out_dtype == CM_BF16 ? 2 : 4;
    struct matrix a = make_matrix(desc->batch * desc->m * desc->k, 2, shifted ? 2 : 0);
    struct matrix b = make_matrix(desc->batch * desc->k * desc->n, 2, shifted ? 6 : 0);
    struct matrix c = make_matrix(c_count, c_bytes, shifted ? c_bytes : 0);
    struct matrix expected = make_matrix(c_count, c_bytes, 0);
    fill_bf16(a.data, desc->batch * desc->m * desc->k);
    fill_bf16(b.data, desc->batch * desc->k * desc->n);
    for (uint64_t i = 0; desc->accumulate && i < c_count; i++)
        put(desc, c.data, i, random_integer());
    reference(desc, a.data, b.data, c.data, expected.data);
    assert_null(cm_own_gemm_refuses(gemm));
    assert_int_equal(cm_own_gemm_launch(NULL, gemm, a.data, b.data, c.data), 0);
    for (uint64_t i = 0; i < c_count; i++) {
        double got = get(desc, c.data, i), right = get(desc, expected.data, i);
        if (!(got == right))
            fail_msg("%s, %c%c, m=%llu n=%llu k=%llu: element %llu of C is %g, not %g",
                     cm_own_gemm_name(gemm), desc->trans_a ? 't' : 'n', desc->trans_b ? 't' : 'n',
                     (unsigned long long)desc->m, (unsigned long long)desc->n,
                     (unsigned long long)desc->k, (unsigned long long)i, got, right);
    }
    check_guards(&c);
    free(a.memory);
    free(b.memory);
    free(c.memory);
    free(expected.memory);
}

struct shape {
    uint64_t m, n, k, batch;
    int multiprocessors;
    bool shifted;
    const char *name; /* of the kernel, when no operand is transposed */
};

static void check_shape(const struct shape *shape, int capability, unsigned seeds)
{
    static unsigned count;
    for (int transposed = 0; transposed < 4; transposed++) {
        struct cm_own_gemm gemm = {
            .desc = {.dtype = CM_BF16,
                     .m = shape->m,
                     .n = shape->n,
                     .k = shape->k,
                     .batch = shape->batch,
                     .trans_a = (transposed & 1) != 0,
                     .trans_b = (transposed & 2) != 0,
                     .impl = CM_GEMM_OWN},
            .capability = capability,
            .multiprocessors = shape->multiprocessors,
        };
        if (transposed == 0)
            assert_string_equal(cm_own_gemm_name(&gemm), shape->name);
        for (unsigned i = 0; i < seeds; i++, count++) {
            /* Every pair of these goes round over the seeds and transposes. */
            gemm.desc.out_dtype = count % 2 == 0 ? CM_F32 : CM_BF16;
            gemm.desc.accumulate = count / 2 % 2 == 1;
            simt_seed(count);
            random_state = count;
            check_product(&gemm, shape->shifted);
        }
    }
}

static void test_mma(void **state)
{
    static const char large[] = "own mma.sync 256x128x32", small[] = "own mma.sync 128x128x32",
                      odd[] = "own mma.sync 128x128x32, rows not 16-byte aligned";
    static const struct shape shapes[] = {
        {128, 128, 32, 1, 8, false, small},  {16, 8, 16, 1, 8, false, small},
        {136, 264, 168, 1, 8, false, small}, {200, 72, 40, 3, 8, false, small},
        {512, 128, 64, 1, 1, false, large},  {440, 72, 136, 1, 1, false, large},
        {1, 1, 1, 1, 8, false, odd},         {7, 5, 3, 2, 8, false, odd},
        {129, 131, 67, 2, 8, false, odd},    {96, 80, 64, 1, 8, true, small},
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_shape(&shapes[i], 80, 3);
    assert_int_equal(simt_bank_conflicts(), 0);
}

static void test_hopper(void **state)
{
    static const char name[] = "own wgmma 128x256x64";
    static const struct shape shapes[] = {
        {256, 256, 64, 1, 2, false, name},  {8, 8, 8, 1, 132, false, name},
        {136, 520, 200, 1, 2, false, name}, {520, 264, 328, 1, 4, false, name},
        {72, 40, 648, 3, 2, false, name},
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_shape(&shapes[i], 90, 3);
}

/* Shapes and addresses that the copy engine cannot take go the other way. */
static void test_hopper_falls_back(void **state)
{
    static const struct shape odd_rows = {
        130, 35, 20, 1, 132, false, "own mma.sync 128x128x32, rows not 16-byte aligned"};
    static const struct shape odd_address = {64, 64, 64, 1, 132, true, "own wgmma 128x256x64"};
    (void)state;
    check_shape(&odd_rows, 90, 1);
    check_shape(&odd_address, 90, 1);
}

static void test_refusals(void **state)
{
    (void)state;
    const struct cm_own_gemm good = {
        .desc = {.dtype = CM_BF16, .out_dtype = CM_F32, .m = 64, .n = 64, .k = 64, .batch = 1},
        .capability = 120,
        .multiprocessors = 100};
    assert_null(cm_own_gemm_refuses(&good));
    assert_string_equal(cm_own_gemm_name(&good), "own mma.sync 128x128x32");
    struct cm_own_gemm gemm = good;
    gemm.desc.dtype = CM_F32;
    assert_non_null(strstr(cm_own_gemm_refuses(&gemm), "bf16 only"));
    assert_int_not_equal(cm_own_gemm_launch(NULL, &gemm, NULL, NULL, NULL), 0);
    gemm = good;
    gemm.desc.out_dtype = CM_F64;
    assert_non_null(strstr(cm_own_gemm_refuses(&gemm), "bf16 or f32"));
    gemm = good;
    gemm.capability = 75;
    assert_non_null(strstr(cm_own_gemm_refuses(&gemm), "8.0"));
    gemm = good;
    gemm.desc.k = 0;
    assert_non_null(strstr(cm_own_gemm_refuses(&gemm), "1 or more"));
    gemm = good;
    gemm.desc.n = UINT64_C(1) << 31;
    assert_non_null(strstr(cm_own_gemm_refuses(&gemm), "2^30"));
    gemm = good;
    gemm.desc.batch = UINT64_C(1) << 31;
    assert_non_null(strstr(cm_own_gemm_refuses(&gemm), "tiles"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_mma),
        cmocka_unit_test(test_hopper),
        cmocka_unit_test(test_hopper_falls_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
