/*
 * Products of every backend against sums in double: element types, transposes, batches and
 * accumulation, shapes of one block and of several. The bound is the one that holds for any order
 * of summation: a rounding step per addition, on the sum of the absolute products.
 */
#include "backend.h"

#include <inttypes.h>
#include <math.h>

#include "clustermark/blocks.h"

struct matrices {
    struct cm_gemm_desc desc;
    unsigned char *a, *b, *c, *before; /* on the host */
    double *a_values, *b_values;
    size_t a_bytes, b_bytes, c_bytes;
};

static void *host_alloc(size_t size)
{
    void *memory = malloc(size);
    assert_non_null(memory);
    return memory;
}

/* Values in (-4, 4), or all of a whole type's; the same as doubles to `values` unless NULL. */
static void fill_host(unsigned char *to, size_t count, enum cm_dtype dtype, uint64_t seed,
                      double *values)
{
    double scale = cm_dtype_step(dtype) > 0 ? 0x1p-61 : 0x1p-56;
    for (size_t i = 0; i < count; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        unsigned char *element = to + i * cm_dtype_size(dtype);
        cm_dtype_store(dtype, scale * (double)(int64_t)seed, element);
        if (values != NULL)
            values[i] = cm_dtype_load(dtype, element);
    }
}

/* The same for a matrix of blocks: whose rows and blocks are of different sizes. */
static void fill_blocks(unsigned char *to, const struct cm_block_matrix *matrix, uint64_t seed,
                        double *values)
{
    unsigned size = cm_block_size(matrix->dtype);
    uint64_t count = matrix->rows * matrix->columns;
    float *numbers = host_alloc(count * sizeof *numbers);
    for (uint64_t i = 0; i < count; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        int exponent = (int)(i / matrix->columns * 5 + i / size * 3) % 7 - 3;
        numbers[i] = ldexpf((float)(int64_t)seed, exponent - 63);
    }
    cm_block_quantise(matrix, 0, count / size, numbers, to);
    for (uint64_t row = 0; row < matrix->rows; row++)
        cm_block_load(matrix, to, row, 0, matrix->columns, values + row * matrix->columns);
    free(numbers);
}

static size_t bytes_of(enum cm_dtype dtype, uint64_t rows, uint64_t columns, uint64_t batch)
{
    uint64_t bytes;
    assert_true(cm_matrix_bytes(dtype, rows, columns, &bytes));
    return bytes * batch;
}

static struct matrices make_matrices(const struct cm_gemm_desc *desc)
{
    struct matrices set = {.desc = *desc};
    size_t a = desc->m * desc->k * desc->batch, b = desc->k * desc->n * desc->batch;
    size_t c = desc->m * desc->n * desc->batch;
    const struct cm_block_matrix a_blocks = {desc->dtype, desc->m, desc->k};
    const struct cm_block_matrix b_blocks = {desc->dtype, desc->n, desc->k};
    set.a_bytes = bytes_of(desc->dtype, desc->m, desc->k, desc->batch);
    set.b_bytes = bytes_of(desc->dtype, desc->n, desc->k, desc->batch);
    set.c_bytes = c * cm_dtype_size(desc->out_dtype);
    set.a = host_alloc(set.a_bytes);
    set.b = host_alloc(set.b_bytes);
    set.c = host_alloc(set.c_bytes);
    set.before = host_alloc(set.c_bytes);
    set.a_values = host_alloc(a * sizeof(double));
    set.b_values = host_alloc(b * sizeof(double));
    if (cm_block_size(desc->dtype) > 0) {
        fill_blocks(set.a, &a_blocks, 11, set.a_values);
        fill_blocks(set.b, &b_blocks, 22, set.b_values);
    } else {
        fill_host(set.a, a, desc->dtype, 11, set.a_values);
        fill_host(set.b, b, desc->dtype, 22, set.b_values);
    }
    if (desc->accumulate)
        fill_host(set.before, c, desc->out_dtype, 33, NULL);
    else
        memset(set.before, 0xff, set.c_bytes); /* NAN in every floating type */
    return set;
}

static void free_matrices(struct matrices *set)
{
    free(set->a);
    free(set->b);
    free(set->c);
    free(set->before);
    free(set->a_values);
    free(set->b_values);
}

/* C on the device `rounds` times over, each from the same start unless it accumulates. */
static void run_gemm(struct matrices *set, struct cm_gemm *gemm, int rounds)
{
    unsigned char *a = device_alloc(set->a_bytes), *b = device_alloc(set->b_bytes);
    unsigned char *c = device_alloc(set->c_bytes);
    assert_ok(bench.ops->copy(bench.stream, a, set->a, set->a_bytes));
    assert_ok(bench.ops->copy(bench.stream, b, set->b, set->b_bytes));
    assert_ok(bench.ops->copy(bench.stream, c, set->before, set->c_bytes));
    for (int i = 0; i < rounds; i++)
        assert_ok(bench.device->kernels->gemm(bench.stream, gemm, a, b, c));
    assert_ok(bench.ops->copy(bench.stream, set->c, c, set->c_bytes));
    sync_stream(bench.stream);
    device_free(a);
    device_free(b);
    device_free(c);
}

static double at(const unsigned char *matrix, enum cm_dtype dtype, size_t index)
{
    return cm_dtype_load(dtype, matrix + index * cm_dtype_size(dtype));
}

/* One element by the definition, times `rounds`; *size is the sum of the absolute products. */
static double reference(const struct matrices *set, size_t batch, size_t i, size_t j, int rounds,
                        double *size)
{
    const struct cm_gemm_desc *desc = &set->desc;
    double sum = 0, absolute = 0;
    for (size_t p = 0; p < desc->k; p++) {
        size_t in_a = desc->trans_a ? p * desc->m + i : i * desc->k + p;
        size_t in_b = desc->trans_b ? j * desc->k + p : p * desc->n + j;
        double product = set->a_values[batch * desc->m * desc->k + in_a] *
                         set->b_values[batch * desc->k * desc->n + in_b];
        sum += product;
        absolute += fabs(product);
    }
    double before = 0;
    if (desc->accumulate)
        before = at(set->before, desc->out_dtype, (batch * desc->m + i) * desc->n + j);
    int times = desc->accumulate ? rounds : 1;
    *size = times * absolute + fabs(before);
    return times * sum + before;
}

/* Every `stride`th element. */
static void check_product(const struct matrices *set, int rounds, size_t stride)
{
    const struct cm_gemm_desc *desc = &set->desc;
    bool whole = cm_dtype_step(desc->dtype) == 0;
    size_t count = desc->m * desc->n * desc->batch;
    for (size_t index = 0; index < count; index += stride) {
        size_t batch = index / (desc->m * desc->n), i = index / desc->n % desc->m;
        double size, exact = reference(set, batch, i, index % desc->n, rounds, &size);
        double found = at(set->c, desc->out_dtype, index);
        double step = whole ? 0 : desc->dtype == CM_F64 ? 0x1p-52 : 0x1p-23;
        double tolerance = step * (double)(desc->k + 4) * size +
                           0.51 * rounds * cm_dtype_step(desc->out_dtype) * (fabs(exact) + size) +
                           (whole ? 1e-6 * fabs(exact) : 0);
        if (!(fabs(found - exact) <= tolerance))
            fail_msg("%s -> %s m=%" PRIu64 " n=%" PRIu64 " k=%" PRIu64 " batch %zu%s%s%s: (%zu, "
                     "%zu) is %.9g, not %.9g",
                     cm_dtype_name(desc->dtype), cm_dtype_name(desc->out_dtype), desc->m, desc->n,
                     desc->k, batch, desc->trans_a ? " ta" : "", desc->trans_b ? " tb" : "",
                     desc->accumulate ? " acc" : "", i, index % desc->n, found, exact);
    }
}

/* False where the backend has no such product and says so. */
static bool try_product(const struct cm_gemm_desc *desc, int rounds, size_t stride)
{
    struct cm_gemm *gemm = NULL;
    cm_error_clear();
    enum cm_status status = bench.device->kernels->gemm_plan(bench.device, desc, &gemm);
    if (status == CM_UNSUPPORTED) {
        assert_null(gemm);
        assert_non_null(strstr(cm_error_text(), cm_dtype_name(desc->dtype)));
        return false;
    }
    if (status != CM_OK)
        fail_msg("gemm_plan: %s", cm_error_text());
    assert_true(gemm->algorithm[0] != '\0');
    assert_memory_equal(&gemm->desc, desc, sizeof *desc);
    struct matrices set = make_matrices(desc);
    run_gemm(&set, gemm, rounds);
    check_product(&set, rounds, stride);
    free_matrices(&set);
    bench.device->kernels->gemm_free(gemm);
    return true;
}

static void products_are_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][4] = {
        {1, 1, 1, 1}, {3, 5, 7, 1}, {33, 17, 65, 1}, {5, 9, 31, 4}, {40, 1, 20, 2},
    };
    static const enum cm_dtype types[][2] = {
        {CM_F32, CM_F32},    {CM_BF16, CM_BF16}, {CM_BF16, CM_F32}, {CM_F64, CM_F64},
        {CM_F16, CM_F16},    {CM_F16, CM_F32},   {CM_TF32, CM_F32}, {CM_F8E4M3, CM_F32},
        {CM_F8E5M2, CM_F32}, {CM_I8, CM_I32},    {CM_I8, CM_F32},
    };
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            for (unsigned flags = 0; flags < 8; flags++) {
                /* memset, so that the description can be compared as bytes. */
                struct cm_gemm_desc desc;
                memset(&desc, 0, sizeof desc);
                desc.dtype = types[t][0];
                desc.out_dtype = types[t][1];
                desc.m = shapes[s][0];
                desc.n = shapes[s][1];
                desc.k = shapes[s][2];
                desc.batch = shapes[s][3];
                desc.trans_a = flags & 1;
                desc.trans_b = flags & 2;
                desc.accumulate = flags & 4;
                bool has = try_product(&desc, desc.accumulate ? 1 : 2, 1);
                assert_true(has || (types[t][0] != CM_F32 && types[t][0] != CM_BF16));
            }
        }
    }
}

/* Larger than a block in each direction in turn, for backends that work in blocks. */
static void large_products_are_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][3] = {{2100, 8, 12}, {12, 2100, 8}, {8, 12, 4100}};
    for (size_t s = 0; s < 3; s++) {
        for (unsigned flags = 0; flags < 8; flags++) {
            for (int out = 0; out < 2; out++) {
                struct cm_gemm_desc desc;
                memset(&desc, 0, sizeof desc);
                desc.dtype = CM_BF16;
                desc.out_dtype = out ? CM_F32 : CM_BF16;
                desc.m = shapes[s][0];
                desc.n = shapes[s][1];
                desc.k = shapes[s][2];
                desc.batch = 1;
                desc.trans_a = flags & 1;
                desc.trans_b = flags & 2;
                desc.accumulate = flags & 4;
                assert_true(try_product(&desc, 1, 31));
            }
        }
    }
}

/* Several tiles of scales in each direction, none of them whole. */
static void products_of_blocks_are_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][3] = {{16, 16, 32}, {144, 272, 320}, {400, 16, 96}};
    static const enum cm_dtype dtypes[] = {CM_MXFP8, CM_NVFP4}, outs[] = {CM_F32, CM_BF16};
    for (int t = 0; t < 4; t++) {
        bool has = false;
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            struct cm_gemm_desc desc;
            memset(&desc, 0, sizeof desc);
            desc.dtype = dtypes[t / 2];
            desc.out_dtype = outs[t % 2];
            desc.m = shapes[s][0];
            desc.n = shapes[s][1];
            desc.k = shapes[s][2];
            desc.batch = 1;
            desc.trans_b = true;
            bool now = try_product(&desc, 2, 7);
            assert_true(s == 0 || now == has);
            has = now;
            desc.trans_b = false;
            assert_false(try_product(&desc, 1, 1));
        }
    }
}

/* ---- GELU in a product ---- */

#define ROOT 0.79788456080286535588
#define CUBE 0.044715

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(ROOT * (x + CUBE * x * x * x)));
}

static double gelu_slope(double x)
{
    double t = tanh(ROOT * (x + CUBE * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * CUBE * x * x);
}

/* C and the matrix beside it, which the backward product reads and leaves as it is. */
static void check_gelu(const struct matrices *set, const unsigned char *beside,
                       const unsigned char *beside_before)
{
    const struct cm_gemm_desc *desc = &set->desc;
    bool forward = desc->epilogue == CM_EPILOGUE_GELU;
    double step = cm_dtype_step(desc->out_dtype);
    for (size_t index = 0; index < desc->m * desc->n; index++) {
        double size, x = reference(set, 0, index / desc->n, index % desc->n, 1, &size);
        double noise = 0x1p-23 * (double)(desc->k + 4) * size;
        double found = at(set->c, desc->out_dtype, index);
        double kept = at(beside, desc->out_dtype, index);
        double other = forward ? x : at(beside_before, desc->out_dtype, index);
        double exact = forward ? gelu(x) : x * gelu_slope(other);
        /* No slope is above 1.13. The hardware's tanh is good to 2^-10 or so. */
        double tolerance = 1.2 * noise + 0.51 * step * fabs(exact) + 0x1p-9 * fabs(x) + 0x1p-20;
        if (!(fabs(found - exact) <= tolerance))
            fail_msg("%s gelu%s m=%" PRIu64 " n=%" PRIu64 " k=%" PRIu64 ": element %zu of %.9g "
                     "is %.9g, not %.9g",
                     cm_dtype_name(desc->out_dtype), forward ? "" : " backward", desc->m, desc->n,
                     desc->k, index, other, found, exact);
        if (!(fabs(kept - other) <= (forward ? noise + 0.51 * step * fabs(x) : 0)))
            fail_msg("%s gelu%s: beside element %zu is %.9g, not %.9g",
                     cm_dtype_name(desc->out_dtype), forward ? "" : " backward", index, kept,
                     other);
    }
}

static bool try_gelu(enum cm_dtype dtype, const uint64_t shape[3], enum cm_epilogue epilogue)
{
    struct cm_gemm_desc desc = {.dtype = dtype,
                                .out_dtype = dtype,
                                .m = shape[0],
                                .n = shape[1],
                                .k = shape[2],
                                .batch = 1,
                                .trans_b = true,
                                .epilogue = epilogue};
    struct cm_gemm *gemm = NULL;
    cm_error_clear();
    enum cm_status status = bench.device->kernels->gemm_plan(bench.device, &desc, &gemm);
    if (status == CM_UNSUPPORTED) {
        assert_null(gemm);
        assert_non_null(strstr(cm_error_text(), cm_dtype_name(dtype)));
        return false;
    }
    assert_ok(status);
    struct matrices set = make_matrices(&desc);
    unsigned char *before = host_alloc(set.c_bytes), *after = host_alloc(set.c_bytes);
    fill_host(before, desc.m * desc.n, dtype, 44, NULL);
    unsigned char *a = device_alloc(set.a_bytes), *b = device_alloc(set.b_bytes);
    unsigned char *c = device_alloc(set.c_bytes), *beside = device_alloc(set.c_bytes);
    assert_ok(bench.ops->copy(bench.stream, a, set.a, set.a_bytes));
    assert_ok(bench.ops->copy(bench.stream, b, set.b, set.b_bytes));
    assert_ok(bench.ops->copy(bench.stream, c, set.before, set.c_bytes));
    assert_ok(bench.ops->copy(bench.stream, beside, before, set.c_bytes));
    assert_ok(bench.device->kernels->gemm_with(bench.stream, gemm, a, b, c,
                                               &(struct cm_gemm_extras){.beside = beside}));
    assert_ok(bench.ops->copy(bench.stream, set.c, c, set.c_bytes));
    assert_ok(bench.ops->copy(bench.stream, after, beside, set.c_bytes));
    sync_stream(bench.stream);
    check_gelu(&set, after, before);
    unsigned char *memory[] = {a, b, c, beside};
    for (size_t i = 0; i < 4; i++)
        device_free(memory[i]);
    free(before);
    free(after);
    free_matrices(&set);
    bench.device->kernels->gemm_free(gemm);
    return true;
}

static void products_with_gelu_are_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][3] = {{16, 8, 32}, {40, 72, 24}, {1, 64, 130}};
    static const enum cm_dtype dtypes[] = {CM_BF16, CM_F32};
    for (size_t d = 0; d < 2; d++) {
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            bool forward = try_gelu(dtypes[d], shapes[s], CM_EPILOGUE_GELU);
            bool backward = try_gelu(dtypes[d], shapes[s], CM_EPILOGUE_GELU_BACKWARD);
            /* A GPU that multiplies bf16 has both. */
            assert_true(bench.ops->is_host || dtypes[d] == CM_F32 || (forward && backward));
        }
    }
    const uint64_t odd[] = {16, 9, 32};
    assert_false(try_gelu(CM_BF16, odd, CM_EPILOGUE_GELU));
}

/* ---- 8-bit floats with scales ---- */

/* Numbers of that type, as fill_host has them, as doubles times the scale too. */
static void fill_scaled(unsigned char *to, size_t count, bool wide, uint64_t seed, double scale,
                        double *values)
{
    fill_host(to, count, wide ? CM_F8E5M2 : CM_F8E4M3, seed, values);
    for (size_t i = 0; i < count; i++)
        values[i] *= scale;
}

static void check_scaled(const struct cm_gemm_desc *desc)
{
    const float scales[] = {0.37F, 1.9e-4F};
    struct cm_gemm *gemm = NULL;
    enum cm_status status = bench.device->kernels->gemm_plan(bench.device, desc, &gemm);
    if (status == CM_UNSUPPORTED) { /* an old GPU */
        assert_non_null(strstr(cm_error_text(), "f8e4m3"));
        assert_false(bench.ops->is_host);
        return;
    }
    assert_ok(status);
    struct matrices set = make_matrices(desc);
    fill_scaled(set.a, set.a_bytes, desc->wide_a, 5, (double)scales[0], set.a_values);
    fill_scaled(set.b, set.b_bytes, desc->wide_b, 6, (double)scales[1], set.b_values);
    const unsigned char *hosts[] = {set.a, set.b, set.before, (const unsigned char *)&scales[0],
                                    (const unsigned char *)&scales[1]};
    const size_t sizes[] = {set.a_bytes, set.b_bytes, set.c_bytes, sizeof(float), sizeof(float)};
    unsigned char *memory[5];
    for (size_t i = 0; i < 5; i++) {
        memory[i] = device_alloc(sizes[i]);
        assert_ok(bench.ops->copy(bench.stream, memory[i], hosts[i], sizes[i]));
    }
    assert_ok(bench.device->kernels->gemm_with(
        bench.stream, gemm, memory[0], memory[1], memory[2],
        &(struct cm_gemm_extras){.scale_a = (const float *)(const void *)memory[3],
                                 .scale_b = (const float *)(const void *)memory[4]}));
    assert_ok(bench.ops->copy(bench.stream, set.c, memory[2], set.c_bytes));
    sync_stream(bench.stream);
    check_product(&set, 1, 1);
    for (size_t i = 0; i < 5; i++)
        device_free(memory[i]);
    free_matrices(&set);
    bench.device->kernels->gemm_free(gemm);
}

static void scaled_products_are_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][4] = {{16, 16, 16, 1}, {48, 80, 112, 1}, {32, 16, 64, 3}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (unsigned flags = 0; flags < 12; flags++)
            check_scaled(&(struct cm_gemm_desc){.dtype = CM_F8E4M3,
                                                .out_dtype = flags & 1 ? CM_F32 : CM_BF16,
                                                .m = shapes[s][0],
                                                .n = shapes[s][1],
                                                .k = shapes[s][2],
                                                .batch = shapes[s][3],
                                                .trans_b = true,
                                                .accumulate = flags & 2,
                                                .scaled = true,
                                                .wide_a = flags / 4 == 1,
                                                .wide_b = flags / 4 == 2});
}

static void bad_shapes_are_refused(void **state)
{
    (void)state;
    static const uint64_t shapes[][4] = {
        {0, 4, 4, 1},
        {4, 0, 4, 1},
        {4, 4, 0, 1},
        {4, 4, 4, 0},
        {UINT64_C(1) << 40, UINT64_C(1) << 40, 1, 1},
        {UINT64_C(1) << 32, 1, UINT64_C(1) << 32, 1},
        {4, 4, 4, UINT64_C(1) << 62},
        {UINT64_C(1) << 31, UINT64_C(1) << 31, 1, 1},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        struct cm_gemm_desc desc = {.dtype = CM_F32,
                                    .out_dtype = CM_F32,
                                    .m = shapes[s][0],
                                    .n = shapes[s][1],
                                    .k = shapes[s][2],
                                    .batch = shapes[s][3]};
        struct cm_gemm *gemm = NULL;
        assert_status(bench.device->kernels->gemm_plan(bench.device, &desc, &gemm), CM_USAGE,
                      "gemm: m=");
        assert_null(gemm);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_right),
        cmocka_unit_test(large_products_are_right),
        cmocka_unit_test(products_of_blocks_are_right),
        cmocka_unit_test(products_with_gelu_are_right),
        cmocka_unit_test(scaled_products_are_right),
        cmocka_unit_test(bad_shapes_are_refused),
    };
    static const unsigned threads[] = {1, 2, 0};
    return cm_test_backends(tests, threads);
}
