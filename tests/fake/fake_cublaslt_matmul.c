/*
 * cuBLASLt: a choice of algorithms, and products computed plainly in double, rounded once. What the
 * library refuses on the device that is pretended is refused: types of 8 bits or less in other
 * layouts than A transposed and B not, and scales of blocks before Blackwell.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/dtype.h"
#include "fake/fake_cublaslt.h"

#define ALGO_MARK UINT64_C(0xa160)

enum { ALGORITHMS = 3 };
static const struct {
    uint32_t id, tile, stages, split;
    size_t workspace;
    double speed; /* relative to the card's rate */
} algorithms[ALGORITHMS] = {
    {66, 20, 24, 1, 0, 0.90}, {67, 24, 18, 1, 0, 0.95}, {31, 18, 11, 2, 1 << 20, 0.70}};

static bool dtype_of(cudaDataType type, enum cm_dtype *dtype)
{
    static const struct {
        cudaDataType type;
        enum cm_dtype dtype;
    } rows[] = {{CUDA_R_32F, CM_F32},   {CUDA_R_64F, CM_F64},        {CUDA_R_16F, CM_F16},
                {CUDA_R_16BF, CM_BF16}, {CUDA_R_8F_E4M3, CM_F8E4M3}, {CUDA_R_8F_E5M2, CM_F8E5M2},
                {CUDA_R_8I, CM_I8},     {CUDA_R_32I, CM_I32},        {CUDA_R_4F_E2M1, CM_NVFP4}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].type == type) {
            *dtype = rows[i].dtype;
            return true;
        }
    }
    return false;
}

/* What is multiplied: D (m x n) of op(A) (m x k) and op(B) (k x n). */
struct shape {
    struct fake_product product;
    struct fake_layout a, b, c, d;
    enum cm_dtype a_type, b_type, c_type, d_type;
    uint64_t m, n, k;
};

static uint64_t least_ld(const struct fake_layout *layout)
{
    return layout->order == CUBLASLT_ORDER_ROW ? layout->columns : layout->rows;
}

static bool has_gelu(const struct fake_product *product)
{
    return product->epilogue == CUBLASLT_EPILOGUE_GELU_AUX ||
           product->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

static bool types_are_known(const struct shape *s)
{
    bool eight = cm_dtype_bits(s->a_type) <= 8 || cm_dtype_bits(s->b_type) <= 8;
    bool whole = s->a_type == CM_I8;
    enum cm_dtype d = s->d_type;
    bool float_d = d == CM_F32 || d == CM_BF16 || d == CM_F16;
    bool eight_d = eight && !whole && (d == CM_F8E4M3 || d == CM_F8E5M2);
    if (s->a_type != s->b_type && (!eight || whole || s->b_type == CM_I8))
        return false;
    if (eight_d ? s->c_type != CM_BF16 && s->c_type != CM_F16 : s->c_type != d)
        return false;
    switch (s->product.compute) {
    case CUBLAS_COMPUTE_64F:
        return s->a_type == CM_F64 && d == CM_F64 && s->product.scale == CUDA_R_64F;
    case CUBLAS_COMPUTE_32I:
        return whole && d == CM_I32 && s->product.scale == CUDA_R_32I;
    case CUBLAS_COMPUTE_32F_FAST_TF32:
        return s->a_type == CM_F32 && d == CM_F32 && s->product.scale == CUDA_R_32F;
    case CUBLAS_COMPUTE_32F:
        if (s->product.scale != CUDA_R_32F || whole || s->a_type == CM_F64 || !(float_d || eight_d))
            return false;
        if (eight)
            return !(s->a_type == CM_F8E5M2 && s->b_type == CM_F8E5M2);
        return d == CM_F32 || d == s->a_type;
    default:
        return false;
    }
}

/* Both operands have scales of blocks or neither, each type its own. */
static bool scales_are_supported(const struct shape *s, int capability)
{
    const struct fake_product *product = &s->product;
    unsigned block = fake_lt_block(product->mode_a), other = fake_lt_block(product->mode_b);
    if (block != other)
        return false;
    if (s->a_type == CM_NVFP4 ? block != 16 : block == 16)
        return false;
    if (block == 0)
        return true;
    return capability >= 100 && s->a.batch == 1 && s->a_type != CM_I8 && s->a_type != CM_F8E5M2;
}

static bool is_supported(const struct shape *s)
{
    bool eight = cm_dtype_bits(s->a_type) <= 8;
    int capability = fake_model()->major * 10 + fake_model()->minor;
    if (!types_are_known(s))
        return false;
    if (s->a_type == CM_BF16 && capability < 80)
        return false;
    if (has_gelu(&s->product))
        return !eight && s->a.batch == 1 && s->product.beside_ld % 8 == 0 &&
               s->product.beside_ld >= (int64_t)least_ld(&s->d);
    if (!eight)
        return true;
    if (s->a_type != CM_I8 && capability < 89)
        return false;
    if (!scales_are_supported(s, capability))
        return false;
    uint64_t step = s->a_type == CM_I8 ? 4 : s->a_type == CM_NVFP4 ? 32 : 16;
    bool column = s->a.order == CUBLASLT_ORDER_COL && s->b.order == CUBLASLT_ORDER_COL &&
                  s->d.order == CUBLASLT_ORDER_COL;
    return column && s->product.trans_a == CUBLAS_OP_T && s->product.trans_b == CUBLAS_OP_N &&
           (uint64_t)s->a.ld % step == 0 && (uint64_t)s->b.ld % step == 0 &&
           s->m % (step < 16 ? step : 16) == 0 && s->k % step == 0;
}

static cublasStatus_t read_shape(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                 cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                 cublasLtMatrixLayout_t d, struct shape *s)
{
    if (desc == NULL || a == NULL || b == NULL || c == NULL || d == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    s->product = *(struct fake_product *)(void *)desc;
    struct fake_layout *layouts[] = {&s->a, &s->b, &s->c, &s->d};
    const cublasLtMatrixLayout_t given[] = {a, b, c, d};
    enum cm_dtype *types[] = {&s->a_type, &s->b_type, &s->c_type, &s->d_type};
    for (int i = 0; i < 4; i++) {
        *layouts[i] = *(struct fake_layout *)(void *)given[i];
        if (!dtype_of(layouts[i]->type, types[i]) ||
            layouts[i]->ld < (int64_t)least_ld(layouts[i]) || layouts[i]->batch != s->a.batch)
            return CUBLAS_STATUS_INVALID_VALUE;
    }
    bool ta = s->product.trans_a != CUBLAS_OP_N, tb = s->product.trans_b != CUBLAS_OP_N;
    s->m = ta ? s->a.columns : s->a.rows;
    s->k = ta ? s->a.rows : s->a.columns;
    s->n = tb ? s->b.rows : s->b.columns;
    if ((tb ? s->b.columns : s->b.rows) != s->k || s->d.rows != s->m || s->d.columns != s->n)
        return CUBLAS_STATUS_INVALID_VALUE;
    return is_supported(s) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    cublasStatus_t status = fake_lt_enter(__func__);
    struct shape shape;
    if (handle == NULL || *(uint64_t *)(void *)handle != FAKE_LT_MARK)
        fake_die("%s: no handle", __func__);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = read_shape(desc, a, b, c, d, &shape);
    *found = 0;
    uint64_t workspace = preference != NULL ? *(uint64_t *)(void *)preference : 0;
    for (uint64_t i = 0; status == CUBLAS_STATUS_SUCCESS && i < ALGORITHMS && *found < wanted;
         i++) {
        if (algorithms[i].workspace > workspace)
            continue;
        results[(*found)++] =
            (cublasLtMatmulHeuristicResult_t){.algo = {.data = {ALGO_MARK, i}},
                                              .workspaceSize = algorithms[i].workspace,
                                              .state = CUBLAS_STATUS_SUCCESS,
                                              .wavesCount = 1};
    }
    return fake_lt_leave(status);
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void *value, size_t size, size_t *written)
{
    cublasStatus_t status = fake_lt_enter(__func__);
    if (algo->data[0] != ALGO_MARK)
        fake_die("%s: no algorithm", __func__);
    uint64_t index = algo->data[1];
    const struct {
        cublasLtMatmulAlgoConfigAttributes_t attribute;
        uint32_t value;
        size_t size;
    } rows[] = {{CUBLASLT_ALGO_CONFIG_ID, algorithms[index].id, 4},
                {CUBLASLT_ALGO_CONFIG_TILE_ID, algorithms[index].tile, 4},
                {CUBLASLT_ALGO_CONFIG_STAGES_ID, algorithms[index].stages, 4},
                {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, algorithms[index].split, 4},
                {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2, 2}};
    for (size_t i = 0; status == CUBLAS_STATUS_SUCCESS && i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].attribute != attribute)
            continue;
        if (size < rows[i].size)
            return fake_lt_leave(CUBLAS_STATUS_INVALID_VALUE);
        memcpy(value, &rows[i].value, rows[i].size);
        if (written != NULL)
            *written = rows[i].size;
        return fake_lt_leave(CUBLAS_STATUS_SUCCESS);
    }
    return fake_lt_leave(status == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_INVALID_VALUE : status);
}

struct matmul {
    struct fake_work work;
    struct shape shape;
    const void *a, *b, *c;
    void *d;
    double alpha, beta, cost_s;
};

static size_t place(const struct fake_layout *layout, uint64_t row, uint64_t column)
{
    uint64_t ld = (uint64_t)layout->ld;
    return layout->order == CUBLASLT_ORDER_ROW ? row * ld + column : column * ld + row;
}

static double load_element(enum cm_dtype dtype, const void *from, size_t at)
{
    static const double fours[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    const char *bytes = from;
    if (dtype != CM_NVFP4)
        return cm_dtype_load(dtype, bytes + at * cm_dtype_size(dtype));
    unsigned code = (unsigned char)bytes[at / 2];
    code = at % 2 == 0 ? code & 15 : code >> 4;
    return code >= 8 ? -fours[code - 8] : fours[code];
}

/* The numbers of op(A), each row in one piece; of B, each column. */
static double *load(const struct fake_layout *layout, enum cm_dtype dtype, bool flip,
                    const void *from, bool tf32)
{
    uint64_t outer = flip ? layout->columns : layout->rows;
    uint64_t inner = flip ? layout->rows : layout->columns;
    double *values = malloc((outer * inner > 0 ? outer * inner : 1) * sizeof *values);
    if (values == NULL)
        fake_die("no memory for a product");
    for (uint64_t i = 0; i < outer; i++) {
        for (uint64_t j = 0; j < inner; j++) {
            size_t at = flip ? place(layout, j, i) : place(layout, i, j);
            values[i * inner + j] = load_element(tf32 ? CM_TF32 : dtype, from, at);
        }
    }
    return values;
}

static double scale_of(const void *scale, int32_t mode)
{
    return scale != NULL && fake_lt_block(mode) == 0 ? *(const float *)scale : 1;
}

/* ---- GELU in a product, with the matrix beside it: before GELU, or of what the slope is ---- */

/* The layout of the matrix beside D. */
static struct fake_layout beside_of(const struct shape *s)
{
    struct fake_layout layout = s->d;
    layout.ld = s->product.beside_ld;
    return layout;
}

static double gelu(const struct shape *s, uint64_t i, uint64_t j, double sum)
{
    const struct fake_layout layout = beside_of(s);
    char *beside = (char *)s->product.beside + place(&layout, i, j) * cm_dtype_size(s->d_type);
    bool forward = s->product.epilogue == CUBLASLT_EPILOGUE_GELU_AUX;
    double x = forward ? sum : cm_dtype_load(s->d_type, beside), root = sqrt(2 / acos(-1));
    double t = tanh(root * (x + 0.044715 * x * x * x));
    if (forward) {
        cm_dtype_store(s->d_type, sum, beside);
        return 0.5 * x * (1 + t);
    }
    double inner = root * (1 + 3 * 0.044715 * x * x);
    return sum * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner);
}

static void multiply(const struct matmul *p, int32_t batch)
{
    const struct shape *s = &p->shape;
    const struct fake_product *product = &s->product;
    size_t sizes[] = {cm_dtype_size(s->a_type), cm_dtype_size(s->b_type), cm_dtype_size(s->c_type),
                      cm_dtype_size(s->d_type)}; /* blocks have no batches */
    double scale = p->alpha * scale_of(product->scale_a, product->mode_a) *
                   scale_of(product->scale_b, product->mode_b);
    double scale_d = scale_of(product->scale_d, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F);
    bool tf32 = product->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const char *at_a = (const char *)p->a + batch * s->a.stride * (int64_t)sizes[0];
    const char *at_b = (const char *)p->b + batch * s->b.stride * (int64_t)sizes[1];
    const char *at_c = (const char *)p->c + batch * s->c.stride * (int64_t)sizes[2];
    char *at_d = (char *)p->d + batch * s->d.stride * (int64_t)sizes[3];
    double *a = load(&s->a, s->a_type, product->trans_a != CUBLAS_OP_N, at_a, tf32);
    double *b = load(&s->b, s->b_type, product->trans_b == CUBLAS_OP_N, at_b, tf32);
    if (fake_lt_block(product->mode_a) > 0) {
        fake_lt_scale(product->scale_a, product->mode_a, s->m, s->k, a);
        fake_lt_scale(product->scale_b, product->mode_b, s->n, s->k, b);
    }
    for (uint64_t i = 0; i < s->m; i++) {
        for (uint64_t j = 0; j < s->n; j++) {
            const double *row = a + i * s->k, *column = b + j * s->k;
            double sum = 0;
            for (uint64_t l = 0; l < s->k; l++)
                sum += row[l] * column[l];
            sum *= scale;
            if (p->beta != 0)
                sum += p->beta * cm_dtype_load(s->c_type, at_c + place(&s->c, i, j) * sizes[2]);
            if (has_gelu(product))
                sum = gelu(s, i, j, sum);
            cm_dtype_store(s->d_type, sum * scale_d, at_d + place(&s->d, i, j) * sizes[3]);
        }
    }
    free(a);
    free(b);
}

static enum fake_outcome run_matmul(struct fake_work *work, double start_s, double *end_s)
{
    const struct matmul *matmul = (struct matmul *)work;
    fake_memory_open();
    for (int32_t batch = 0; batch < matmul->shape.a.batch; batch++)
        multiply(matmul, batch);
    *end_s = start_s + matmul->cost_s;
    return FAKE_DONE;
}

static void drop_matmul(struct fake_work *work)
{
    free(work);
}

static double factor(const struct shape *shape, const void *value)
{
    if (shape->product.scale == CUDA_R_64F)
        return *(const double *)value;
    if (shape->product.scale == CUDA_R_32I)
        return *(const int32_t *)value;
    return *(const float *)value;
}

static void check_matrix(const void *at, const struct fake_layout *layout, enum cm_dtype dtype,
                         const char *call)
{
    uint64_t lines = layout->order == CUBLASLT_ORDER_ROW ? layout->rows : layout->columns;
    uint64_t elements = (lines - 1) * (uint64_t)layout->ld + least_ld(layout) +
                        (uint64_t)(layout->batch - 1) * (uint64_t)layout->stride;
    if (fake_place_of(at, (elements * cm_dtype_bits(dtype) + 7) / 8, call) < FAKE_DEVICE)
        fake_die("%s: a matrix is not in device memory", call);
    if ((uintptr_t)at % 16 != 0)
        fake_die("%s: a matrix is not aligned", call);
}

static double cost_s(const struct shape *s, double speed)
{
    double flops = 2.0 * (double)s->m * (double)s->n * (double)s->k * s->a.batch;
    double bytes =
        (double)s->a.batch * ((double)(s->m * s->k + s->n * s->k) * cm_dtype_bits(s->a_type) / 8 +
                              (double)(s->m * s->n) * (double)cm_dtype_size(s->d_type));
    double relative =
        s->a_type == CM_F64 || (s->a_type == CM_F32 && s->product.compute == CUBLAS_COMPUTE_32F)
            ? 0.07
            : 16.0 / cm_dtype_bits(s->a_type);
    return fake_cost_s(bytes, flops / (speed * relative));
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_size, cudaStream_t stream)
{
    cublasStatus_t status = fake_lt_enter(__func__);
    struct shape shape;
    if (handle == NULL || *(uint64_t *)(void *)handle != FAKE_LT_MARK)
        fake_die("%s: no handle", __func__);
    fake_check_stream(stream, __func__);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = read_shape(desc, a_layout, b_layout, c_layout, d_layout, &shape);
    if (status != CUBLAS_STATUS_SUCCESS)
        return fake_lt_leave(status);
    if (algo == NULL || algo->data[0] != ALGO_MARK || algo->data[1] >= ALGORITHMS)
        fake_die("%s: no algorithm", __func__);
    size_t needed = algorithms[algo->data[1]].workspace;
    if (needed > workspace_size ||
        (needed > 0 && fake_place_of(workspace, needed, __func__) != FAKE_DEVICE))
        fake_die("%s: the workspace is not %zu bytes of device memory", __func__, needed);
    if (fake_lt_block(shape.product.mode_a) > 0) {
        const struct fake_product *product = &shape.product;
        fake_lt_check_scales(product->scale_a, product->mode_a, shape.m, shape.k, __func__);
        fake_lt_check_scales(product->scale_b, product->mode_b, shape.n, shape.k, __func__);
    }
    check_matrix(a, &shape.a, shape.a_type, __func__);
    check_matrix(b, &shape.b, shape.b_type, __func__);
    check_matrix(c, &shape.c, shape.c_type, __func__);
    check_matrix(d, &shape.d, shape.d_type, __func__);
    const struct fake_layout beside = beside_of(&shape);
    if (has_gelu(&shape.product))
        check_matrix(shape.product.beside, &beside, shape.d_type, __func__);
    struct matmul *matmul = calloc(1, sizeof *matmul);
    if (matmul == NULL)
        return fake_lt_leave(CUBLAS_STATUS_ALLOC_FAILED);
    *matmul = (struct matmul){.work = {.run = run_matmul, .drop = drop_matmul},
                              .shape = shape,
                              .a = a,
                              .b = b,
                              .c = c,
                              .d = d,
                              .alpha = factor(&shape, alpha),
                              .beta = factor(&shape, beta),
                              .cost_s = cost_s(&shape, algorithms[algo->data[1]].speed)};
    fake_queue(stream, &matmul->work, __func__);
    return fake_lt_leave(CUBLAS_STATUS_SUCCESS);
}
