/*
 * test_attention.c: attention and its gradients (kernels/attention*.cu) in the emulator, held
 * against sums in double precision. Rows are longer than what they hold; the gaps, and what lies
 * around the matrices, are NANs, which must neither be read nor written. Every case runs with
 * several orders of threads, which must give the same bits.
 *
 * What may be wrong with a value follows from the terms of its sum: in bf16 each weight (or its
 * gradient) and the result are rounded, half a step each; f32 sums are wrong in proportion to their
 * terms.
 */
#include "test.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/cuda_train.h"
#include "clustermark/dtype.h"

void simt_seed(uint64_t seed);
unsigned long simt_bank_conflicts(void);

#define GUARD_BYTES 4096 /* before and after a matrix */
#define POISON      0xff
#define F32_STEPS   (64 * 0x1p-23) /* of the terms of a sum */

/* ---- Matrices ---- */

/* `columns` of each row are in use. */
struct matrix {
    enum cm_dtype dtype;
    uint64_t rows, columns, stride;
    size_t all_bytes;
    unsigned char *memory, *data;
    double *values;          /* inputs: what is in it; outputs: what must be */
    double *terms, *rounded; /* outputs: sums of absolute terms: those in f32, those of rounding */
};

static void make_matrix(struct matrix *matrix, enum cm_dtype dtype, uint64_t rows, uint64_t columns,
                        uint64_t stride)
{
    *matrix = (struct matrix){.dtype = dtype, .rows = rows, .columns = columns, .stride = stride};
    matrix->all_bytes = (rows * stride * cm_dtype_size(dtype) + 2 * GUARD_BYTES + 63) / 64 * 64;
    matrix->memory = aligned_alloc(64, matrix->all_bytes);
    matrix->values = calloc(rows * columns, sizeof(double));
    matrix->terms = calloc(rows * columns, sizeof(double));
    matrix->rounded = calloc(rows * columns, sizeof(double));
    assert_non_null(matrix->memory);
    assert_true(matrix->values != NULL && matrix->terms != NULL && matrix->rounded != NULL);
    memset(matrix->memory, POISON, matrix->all_bytes);
    matrix->data = matrix->memory + GUARD_BYTES;
}

static void free_matrix(struct matrix *matrix)
{
    free(matrix->memory);
    free(matrix->values);
    free(matrix->terms);
    free(matrix->rounded);
}

static void *element(const struct matrix *matrix, uint64_t row, uint64_t column)
{
    return matrix->data + (row * matrix->stride + column) * cm_dtype_size(matrix->dtype);
}

static uint64_t random_state;

static double random_uniform(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(random_state >> 33) + 0.5) * 0x1p-31;
}

static double random_normal(void)
{
    return sqrt(-2 * log(random_uniform())) * cos(6.283185307179586 * random_uniform());
}

/* Puts values[] into the matrix, and what was kept of them back. */
static void put_values(struct matrix *matrix)
{
    for (uint64_t i = 0; i < matrix->rows * matrix->columns; i++) {
        void *at = element(matrix, i / matrix->columns, i % matrix->columns);
        cm_dtype_store(matrix->dtype, matrix->values[i], at);
        matrix->values[i] = cm_dtype_load(matrix->dtype, at);
    }
}

static void fill_normal(struct matrix *matrix, double deviation)
{
    for (uint64_t i = 0; i < matrix->rows * matrix->columns; i++)
        matrix->values[i] = deviation * random_normal();
    put_values(matrix);
}

/* All bytes that hold no element. */
static void check_gaps(const char *name, const struct matrix *matrix)
{
    size_t size = cm_dtype_size(matrix->dtype), row_bytes = matrix->stride * size;
    size_t used_bytes = matrix->columns * size;
    for (size_t i = 0; i < matrix->all_bytes; i++) {
        size_t at = i - GUARD_BYTES;
        bool used =
            i >= GUARD_BYTES && at < matrix->rows * row_bytes && at % row_bytes < used_bytes;
        if (!used && matrix->memory[i] != POISON)
            fail_msg("%s: byte %zu of the memory around it was written", name, i);
    }
}

static void check_values(const char *name, const struct matrix *matrix)
{
    double half_step = matrix->dtype == CM_BF16 ? cm_dtype_step(CM_BF16) / 2 : 0;
    for (uint64_t i = 0; i < matrix->rows * matrix->columns; i++) {
        uint64_t row = i / matrix->columns, column = i % matrix->columns;
        double got = cm_dtype_load(matrix->dtype, element(matrix, row, column));
        double right = matrix->values[i];
        double error =
            F32_STEPS * matrix->terms[i] + half_step * (matrix->rounded[i] + fabs(right)) * 1.02;
        if (!(fabs(got - right) <= error))
            fail_msg("%s: row %llu, column %llu is %g, not %g within %g", name,
                     (unsigned long long)row, (unsigned long long)column, got, right, error);
    }
    check_gaps(name, matrix);
}

/* ---- Cases ---- */

struct shape {
    enum cm_dtype dtype;
    int capability;
    uint32_t batch, heads, kv_heads, head_size;
    uint32_t q_length, k_length;
    uint32_t chunk, first[2]; /* 0, 0, 0: the whole sequence */
    uint32_t gap;             /* elements between rows, at least */
    double deviation;         /* of q */
};

/* The backward pass is given o and lse of the reference. */
enum { Q, K, V, DOUT, GIVEN_O, GIVEN_LSE, O, LSE, DQ, DK, DV, MATRICES };
static const char *const names[] = {"q", "k",   "v",  "dout", "the given o", "the given lse",
                                    "o", "lse", "dq", "dk",   "dv"};

struct problem {
    struct cm_attention attention;
    struct matrix matrices[MATRICES];
    void *scratch;
    size_t scratch_bytes;
};

static void make_problem(struct problem *problem, const struct shape *shape)
{
    struct cm_attention *attention = &problem->attention;
    uint64_t heads = (uint64_t)shape->heads * shape->head_size;
    uint64_t kv_heads = (uint64_t)shape->kv_heads * shape->head_size;
    *attention = (struct cm_attention){
        .dtype = shape->dtype,
        .batch = shape->batch,
        .heads = shape->heads,
        .kv_heads = shape->kv_heads,
        .head_size = shape->head_size,
        .q_length = shape->q_length,
        .k_length = shape->k_length,
        .positions = {.batch = shape->batch,
                      .chunk = shape->chunk == 0 ? shape->q_length : shape->chunk,
                      .first = {shape->first[0], shape->first[1]}},
        .q_stride = heads + shape->gap,
        .kv_stride = kv_heads + 2 * shape->gap,
        .o_stride = heads + 3 * shape->gap,
        .dq_stride = heads + 4 * shape->gap,
        .dkv_stride = kv_heads + 5 * shape->gap,
    };
    uint64_t q_rows = (uint64_t)shape->q_length * shape->batch;
    uint64_t k_rows = (uint64_t)shape->k_length * shape->batch;
    struct matrix *m = problem->matrices;
    make_matrix(&m[Q], shape->dtype, q_rows, heads, attention->q_stride);
    make_matrix(&m[K], shape->dtype, k_rows, kv_heads, attention->kv_stride);
    make_matrix(&m[V], shape->dtype, k_rows, kv_heads, attention->kv_stride);
    make_matrix(&m[O], shape->dtype, q_rows, heads, attention->o_stride);
    make_matrix(&m[LSE], CM_F32, q_rows, shape->heads, shape->heads);
    make_matrix(&m[GIVEN_O], shape->dtype, q_rows, heads, attention->o_stride);
    make_matrix(&m[GIVEN_LSE], CM_F32, q_rows, shape->heads, shape->heads);
    make_matrix(&m[DOUT], shape->dtype, q_rows, heads, attention->o_stride);
    make_matrix(&m[DQ], shape->dtype, q_rows, heads, attention->dq_stride);
    make_matrix(&m[DK], shape->dtype, k_rows, kv_heads, attention->dkv_stride);
    make_matrix(&m[DV], shape->dtype, k_rows, kv_heads, attention->dkv_stride);
    /* No more than cm_attention_scratch_bytes promises. */
    problem->scratch_bytes =
        (q_rows * shape->heads * (1 + shape->head_size) * sizeof(float) + 63) / 64 * 64;
    problem->scratch = aligned_alloc(64, problem->scratch_bytes);
    assert_non_null(problem->scratch);
    fill_normal(&m[Q], shape->deviation);
    fill_normal(&m[K], 1);
    fill_normal(&m[V], 1);
    fill_normal(&m[DOUT], 1);
}

static void free_problem(struct problem *problem)
{
    for (int i = 0; i < MATRICES; i++)
        free_matrix(&problem->matrices[i]);
    free(problem->scratch);
}

/* ---- Reference ---- */

/* One query of one head: where its row and those of a key begin in the arrays of values. */
struct query {
    uint32_t count;   /* of keys that it sees */
    uint64_t lse, at; /* in LSE; in Q, O, DOUT, DQ */
    uint64_t kv_first, kv_step;
};

static struct query query_of(const struct cm_attention *attention, uint64_t row, uint64_t head)
{
    const struct cm_positions *positions = &attention->positions;
    uint64_t local = row / attention->batch, sequence = row % attention->batch;
    uint64_t kv_head = head * attention->kv_heads / attention->heads, index;
    index = row * attention->heads + head;
    uint64_t position = local < positions->chunk ? positions->first[0] + local
                                                 : positions->first[1] + local - positions->chunk;
    return (struct query){
        .count = (uint32_t)position + 1,
        .lse = index,
        .at = index * attention->head_size,
        .kv_first = (sequence * attention->kv_heads + kv_head) * attention->head_size,
        .kv_step = (uint64_t)attention->batch * attention->kv_heads * attention->head_size,
    };
}

static double dot(const double *x, const double *y, uint32_t count, double *terms)
{
    double sum = 0;
    *terms = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += x[i] * y[i];
        *terms += fabs(x[i] * y[i]);
    }
    return sum;
}

static void add(struct matrix *matrix, uint64_t at, double term, double f32_term)
{
    matrix->values[at] += term;
    matrix->rounded[at] += fabs(term);
    matrix->terms[at] += fabs(f32_term);
}

/* The weights and lse. `terms` is of how much, at most, an exponent is the sum. */
static double weigh(const struct problem *problem, const struct query *query, double *p,
                    double *terms)
{
    const struct matrix *m = problem->matrices;
    uint32_t size = problem->attention.head_size;
    double scale = 1 / sqrt((double)size), most = -INFINITY, sum = 0, own_terms;
    *terms = 1;
    for (uint32_t j = 0; j < query->count; j++) {
        const double *k = m[K].values + query->kv_first + j * query->kv_step;
        p[j] = scale * dot(m[Q].values + query->at, k, size, &own_terms);
        most = fmax(most, p[j]);
        *terms = fmax(*terms, scale * own_terms);
    }
    for (uint32_t j = 0; j < query->count; j++)
        sum += exp(p[j] - most);
    for (uint32_t j = 0; j < query->count; j++)
        p[j] = exp(p[j] - most) / sum;
    return most + log(sum);
}

static void refer_forward(struct problem *problem, const struct query *query, double *p)
{
    struct matrix *m = problem->matrices;
    double exponent_terms;
    m[LSE].values[query->lse] = weigh(problem, query, p, &exponent_terms);
    m[LSE].terms[query->lse] = exponent_terms;
    for (uint32_t j = 0; j < query->count; j++) {
        for (uint32_t i = 0; i < problem->attention.head_size; i++) {
            double term = p[j] * m[V].values[query->kv_first + j * query->kv_step + i];
            add(&m[O], query->at + i, term, term * exponent_terms);
        }
    }
}

static void refer_backward(struct problem *problem, const struct query *query, double *p)
{
    struct matrix *m = problem->matrices;
    uint32_t size = problem->attention.head_size;
    const double *dout = m[DOUT].values + query->at;
    double scale = 1 / sqrt((double)size), shift_terms, terms, exponent_terms;
    double shift = dot(dout, m[GIVEN_O].values + query->at, size, &shift_terms);
    weigh(problem, query, p, &exponent_terms);
    for (uint32_t j = 0; j < query->count; j++) {
        uint64_t kv = query->kv_first + j * query->kv_step;
        double ds = p[j] * (dot(dout, m[V].values + kv, size, &terms) - shift) * scale;
        double ds_terms = p[j] * (terms + shift_terms) * scale * exponent_terms;
        for (uint32_t i = 0; i < size; i++) {
            double q = m[Q].values[query->at + i], k = m[K].values[kv + i];
            add(&m[DQ], query->at + i, ds * k, ds_terms * k);
            add(&m[DK], kv + i, ds * q, ds_terms * q);
            add(&m[DV], kv + i, p[j] * dout[i], p[j] * dout[i] * exponent_terms);
        }
    }
}

static void give(struct matrix *to, const struct matrix *from)
{
    memcpy(to->values, from->values, from->rows * from->columns * sizeof(double));
    put_values(to);
}

static void refer(struct problem *problem)
{
    const struct cm_attention *attention = &problem->attention;
    struct matrix *m = problem->matrices;
    double *p = malloc(attention->k_length * sizeof(double));
    assert_non_null(p);
    for (int backward = 0; backward < 2; backward++) {
        for (uint64_t row = 0; row < m[LSE].rows; row++) {
            for (uint32_t head = 0; head < attention->heads; head++) {
                struct query query = query_of(attention, row, head);
                (backward ? refer_backward : refer_forward)(problem, &query, p);
            }
        }
        give(&m[GIVEN_O], &m[O]);
        give(&m[GIVEN_LSE], &m[LSE]);
    }
    free(p);
}

/* ---- Tests ---- */

/* Everything is poisoned, then made by both passes. */
static void compute(struct problem *problem, int capability, uint64_t seed)
{
    const struct cm_attention *attention = &problem->attention;
    struct matrix *m = problem->matrices;
    for (int i = O; i < MATRICES; i++)
        memset(m[i].memory, POISON, m[i].all_bytes);
    memset(problem->scratch, POISON, problem->scratch_bytes);
    simt_seed(seed);
    assert_int_equal(cm_cuda_attention(NULL, attention, m[Q].data, m[K].data, m[V].data, m[O].data,
                                       (float *)(void *)m[LSE].data, capability),
                     0);
    assert_int_equal(cm_cuda_attention_backward(
                         NULL, attention, m[Q].data, m[K].data, m[V].data, m[GIVEN_O].data,
                         (const float *)(const void *)m[GIVEN_LSE].data, m[DOUT].data, m[DQ].data,
                         m[DK].data, m[DV].data, problem->scratch, capability),
                     0);
}

static void check_shape(const struct shape *shape, unsigned orders)
{
    static uint64_t seed;
    struct problem problem;
    random_state = ++seed;
    make_problem(&problem, shape);
    refer(&problem);
    unsigned char *before[MATRICES];
    for (unsigned order = 0; order < orders; order++) {
        compute(&problem, shape->capability, ++seed);
        for (int i = 0; i < MATRICES; i++) {
            const struct matrix *matrix = &problem.matrices[i];
            char name[160];
            snprintf(name, sizeof name, "%s of %s, %ux%u heads of %u, %u queries, %u keys",
                     names[i], cm_dtype_name(shape->dtype), shape->heads, shape->kv_heads,
                     shape->head_size, shape->q_length, shape->k_length);
            if (i >= O)
                check_values(name, matrix);
            check_gaps(name, matrix);
            if (order == 0) {
                before[i] = malloc(matrix->all_bytes);
                assert_non_null(before[i]);
                memcpy(before[i], matrix->memory, matrix->all_bytes);
            }
            assert_memory_equal(before[i], matrix->memory, matrix->all_bytes);
        }
    }
    for (int i = 0; i < MATRICES; i++)
        free(before[i]);
    free_problem(&problem);
}

/* With the instructions of Hopper, where they are used, and without. */
static void check_shapes(const struct shape *shapes, size_t count)
{
    static const int capabilities[] = {80, 90};
    for (size_t i = 0; i < 2 * count; i++) {
        struct shape shape = shapes[i / 2];
        if (shape.dtype == CM_BF16)
            shape.capability = capabilities[i % 2];
        else if (i % 2 == 1)
            continue;
        check_shape(&shape, 3);
    }
}

/* Tiles are 128 or 64 rows, and 128, 64, 48, 32 or 16 columns. */
static void test_tensor_cores(void **state)
{
    static const struct shape shapes[] = {
        {CM_BF16, 0, 1, 1, 1, 128, 256, 256, 0, {0, 0}, 0, 1},
        {CM_BF16, 0, 3, 4, 1, 64, 75, 75, 0, {0, 0}, 0, 2},
        {CM_BF16, 0, 1, 8, 1, 128, 40, 40, 0, {0, 0}, 8, 1},
        {CM_BF16, 0, 1, 2, 2, 8, 129, 129, 0, {0, 0}, 8, 1},
        {CM_BF16, 0, 1, 2, 1, 80, 131, 131, 0, {0, 0}, 16, 1},
        {CM_BF16, 0, 1, 1, 1, 256, 90, 90, 0, {0, 0}, 0, 1},
        {CM_BF16, 0, 1, 1, 1, 168, 70, 70, 0, {0, 0}, 8, 3},
        {CM_BF16, 0, 1, 1, 1, 64, 1, 1, 0, {0, 0}, 0, 1},
    };
    (void)state;
    check_shapes(shapes, sizeof shapes / sizeof shapes[0]);
    assert_int_equal(simt_bank_conflicts(), 0);
}

/* Of context parallelism: two chunks of queries, in a longer sequence of keys. */
static void test_chunks(void **state)
{
    static const struct shape shapes[] = {
        {CM_BF16, 0, 1, 2, 1, 64, 150, 300, 75, {0, 225}, 8, 1},
        {CM_BF16, 0, 1, 1, 1, 128, 150, 300, 75, {75, 150}, 0, 1},
        {CM_BF16, 0, 3, 1, 1, 64, 40, 270, 20, {230, 10}, 0, 1},
        {CM_BF16, 0, 1, 1, 1, 64, 33, 200, 33, {100, 0}, 0, 1},
        {CM_BF16, 0, 1, 1, 1, 64, 32, 180, 10, {150, 50}, 0, 1},
        /* A tile's first query sees all of a tile of keys but the last. */
        {CM_BF16, 0, 1, 1, 1, 64, 60, 200, 20, {62, 100}, 0, 1},
        {CM_BF16, 0, 1, 1, 1, 128, 60, 200, 20, {30, 100}, 0, 1},
        {CM_BF16, 0, 1, 1, 1, 256, 30, 80, 10, {14, 50}, 0, 1},
        {CM_BF16, 0, 1, 1, 1, 64, 30, 200, 30, {126, 0}, 0, 1},
        /* Many tiles of keys, and one of queries. */
        {CM_BF16, 0, 1, 1, 1, 128, 20, 800, 20, {780, 0}, 0, 1},
        {CM_F32, 80, 1, 2, 1, 16, 100, 200, 50, {0, 150}, 0, 1},
        {CM_F32, 80, 3, 1, 1, 16, 30, 90, 15, {60, 15}, 3, 1},
    };
    (void)state;
    check_shapes(shapes, sizeof shapes / sizeof shapes[0]);
}

/* F32; bf16 without tensor cores for it; bf16 in rows that are not aligned. */
static void test_plain(void **state)
{
    static const struct shape shapes[] = {
        {CM_F32, 90, 1, 4, 1, 64, 75, 75, 0, {0, 0}, 0, 1},
        {CM_F32, 80, 1, 1, 1, 24, 33, 33, 0, {0, 0}, 0, 1},
        {CM_F32, 75, 3, 2, 2, 8, 41, 41, 0, {0, 0}, 5, 2},
        {CM_F32, 80, 1, 1, 1, 80, 70, 70, 0, {0, 0}, 4, 1},
        {CM_F32, 80, 1, 2, 1, 256, 37, 37, 0, {0, 0}, 0, 3},
        {CM_BF16, 75, 1, 8, 1, 128, 40, 40, 0, {0, 0}, 0, 1},
        {CM_BF16, 90, 3, 2, 1, 136, 20, 20, 0, {0, 0}, 1, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_shape(&shapes[i], 3);
}

static void test_refusals(void **state)
{
    const struct cm_attention good = {.dtype = CM_BF16,
                                      .batch = 1,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .head_size = 64,
                                      .q_length = 1,
                                      .k_length = 1};
    struct cm_attention bad[] = {good, good, good, good, good};
    (void)state;
    bad[0].dtype = CM_F16;
    bad[1].kv_heads = 3;
    bad[2].head_size = 12;
    bad[3].head_size = 264;
    bad[4].q_length = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_not_equal(cm_cuda_attention(NULL, &bad[i], NULL, NULL, NULL, NULL, NULL, 90), 0);
        assert_int_not_equal(cm_cuda_attention_backward(NULL, &bad[i], NULL, NULL, NULL, NULL, NULL,
                                                        NULL, NULL, NULL, NULL, NULL, 90),
                             0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_tensor_cores),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
