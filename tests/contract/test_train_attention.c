/*
 * Attention of every backend against the formulas in double: grouped heads, rows with gaps between
 * them, several sequences, two chunks of a longer sequence; its own kernels, a library's, and each
 * one's gradient of what the other kept. The formulas of the gradient are held against central
 * differences of the forward ones first.
 */
#include "train_fixture.h"

struct shape {
    uint32_t batch, heads, kv_heads, head_size, q_length, k_length;
    uint32_t chunk, first[2];
};

static const struct shape shapes[] = {
    {1, 1, 1, 8, 1, 1, 1, {0, 0}},
    {2, 4, 2, 64, 70, 70, 70, {0, 0}},
    {1, 3, 1, 40, 129, 129, 129, {0, 0}},
    {1, 2, 2, 128, 200, 200, 200, {0, 0}},
    {1, 1, 1, 256, 65, 65, 65, {0, 0}},
    {3, 6, 3, 24, 64, 64, 64, {0, 0}},
    /* Many heads for each kv head. */
    {1, 8, 1, 32, 100, 100, 100, {0, 0}},
    {1, 16, 2, 24, 90, 90, 90, {0, 0}},
    /* The ranks of a sequence that two share, and parts that lie otherwise. */
    {2, 2, 1, 16, 40, 80, 20, {0, 60}},
    {2, 2, 1, 16, 40, 80, 20, {20, 40}},
    {1, 4, 2, 32, 150, 300, 75, {0, 225}},
    {1, 2, 1, 72, 33, 100, 33, {67, 0}},
    {1, 2, 1, 8, 30, 60, 10, {50, 3}},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])
/* Those whose queries are the whole sequence. */
#define LIBRARY_SHAPES 8

/* What goes in and comes out, as doubles: [row][stride] as on the device; o's gaps are NANs. */
struct work {
    struct cm_attention attention;
    size_t q_size, kv_size, o_size, lse_size, dq_size, dkv_size;
    double *q, *k, *v, *dout; /* given */
    double *o, *lse, *dq, *dk, *dv;
    double *o_noise, *dq_noise, *dk_noise, *dv_noise; /* sums of magnitudes */
};

static struct work new_work(const struct shape *shape, enum cm_dtype dtype)
{
    struct work work = {
        .attention = {dtype,
                      shape->batch,
                      shape->heads,
                      shape->kv_heads,
                      shape->head_size,
                      shape->q_length,
                      shape->k_length,
                      {shape->batch, shape->chunk, {shape->first[0], shape->first[1]}},
                      0,
                      0,
                      0,
                      0,
                      0}};
    struct cm_attention *a = &work.attention;
    uint64_t width = a->heads * a->head_size, kv_width = a->kv_heads * a->head_size;
    a->q_stride = width + 2 * kv_width;
    a->kv_stride = kv_width + 24;
    a->o_stride = width + 8;
    a->dq_stride = width + 16;
    a->dkv_stride = kv_width + 40;
    size_t rows = (size_t)a->batch * a->q_length, keys = (size_t)a->batch * a->k_length;
    work.q_size = rows * a->q_stride;
    work.kv_size = keys * a->kv_stride;
    work.o_size = rows * a->o_stride;
    work.lse_size = rows * a->heads;
    work.dq_size = rows * a->dq_stride;
    work.dkv_size = keys * a->dkv_stride;
    work.o = new_doubles(work.o_size);
    work.o_noise = new_doubles(work.o_size);
    work.lse = new_doubles(work.lse_size);
    work.dq = new_doubles(work.dq_size);
    work.dq_noise = new_doubles(work.dq_size);
    work.dk = new_doubles(work.dkv_size);
    work.dk_noise = new_doubles(work.dkv_size);
    work.dv = new_doubles(work.dkv_size);
    work.dv_noise = new_doubles(work.dkv_size);
    return work;
}

static void free_work(struct work *work)
{
    free(work->o);
    free(work->o_noise);
    free(work->lse);
    free(work->dq);
    free(work->dq_noise);
    free(work->dk);
    free(work->dk_noise);
    free(work->dv);
    free(work->dv_noise);
}

/* Where rows of one sequence and head begin. */
struct query {
    size_t row, q, o, dq;
    uint32_t keys; /* that it sees */
    size_t kv, kv_step, dkv, dkv_step;
};

static struct query query_at(const struct cm_attention *a, uint32_t sequence, uint32_t head,
                             uint32_t local)
{
    const struct cm_positions *positions = &a->positions;
    uint32_t position = local < positions->chunk ? positions->first[0] + local
                                                 : positions->first[1] + local - positions->chunk;
    size_t row = (size_t)local * a->batch + sequence, offset = head * a->head_size;
    size_t kv_offset = head * a->kv_heads / a->heads * a->head_size;
    return (struct query){row,
                          row * a->q_stride + offset,
                          row * a->o_stride + offset,
                          row * a->dq_stride + offset,
                          position + 1,
                          sequence * a->kv_stride + kv_offset,
                          a->batch * a->kv_stride,
                          sequence * a->dkv_stride + kv_offset,
                          a->batch * a->dkv_stride};
}

static double product(const double *x, const double *y, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += x[i] * y[i];
    return sum;
}

/* weights: of the keys that the query sees. */
static void forward_query(struct work *work, const struct query *query, uint32_t head,
                          double *weights)
{
    const struct cm_attention *a = &work->attention;
    double largest = -INFINITY, sum = 0;
    for (uint32_t key = 0; key < query->keys; key++) {
        weights[key] =
            product(work->q + query->q, work->k + query->kv + key * query->kv_step, a->head_size) /
            sqrt(a->head_size);
        largest = fmax(largest, weights[key]);
    }
    for (uint32_t key = 0; key < query->keys; key++)
        sum += weights[key] = exp(weights[key] - largest);
    work->lse[query->row * a->heads + head] = largest + log(sum);
    for (size_t i = 0; i < a->head_size; i++)
        work->o[query->o + i] = work->o_noise[query->o + i] = 0;
    for (uint32_t key = 0; key < query->keys; key++) {
        weights[key] /= sum;
        for (size_t i = 0; i < a->head_size; i++) {
            double part = weights[key] * work->v[query->kv + key * query->kv_step + i];
            work->o[query->o + i] += part;
            work->o_noise[query->o + i] += fabs(part);
        }
    }
}

static void backward_query(struct work *work, const struct query *query, const double *weights)
{
    const struct cm_attention *a = &work->attention;
    const double *dout = work->dout + query->o, *q = work->q + query->q;
    double scale = 1 / sqrt(a->head_size), size = 0;
    double delta = product(dout, work->o + query->o, a->head_size);
    for (size_t i = 0; i < a->head_size; i++)
        size += fabs(dout[i]) * work->o_noise[query->o + i];
    for (uint32_t key = 0; key < query->keys; key++) {
        const double *k = work->k + query->kv + key * query->kv_step;
        const double *v = work->v + query->kv + key * query->kv_step;
        size_t dkv = query->dkv + key * query->dkv_step;
        double dweight = product(dout, v, a->head_size), plain = 0;
        for (size_t i = 0; i < a->head_size; i++)
            plain += fabs(dout[i] * v[i]);
        double dscore = weights[key] * (dweight - delta) * scale;
        double error = weights[key] * (plain + size) * scale;
        for (size_t i = 0; i < a->head_size; i++) {
            work->dq[query->dq + i] += dscore * k[i];
            work->dq_noise[query->dq + i] += error * fabs(k[i]);
            work->dk[dkv + i] += dscore * q[i];
            work->dk_noise[dkv + i] += error * fabs(q[i]);
            work->dv[dkv + i] += weights[key] * dout[i];
            work->dv_noise[dkv + i] += weights[key] * fabs(dout[i]);
        }
    }
}

/* Gaps of the outputs become NANs: nobody writes there. */
static void mark_gaps(double *values, size_t size, uint64_t stride, uint64_t width)
{
    for (size_t i = 0; i < size; i++)
        values[i] = i % stride < width ? values[i] : (double)NAN;
}

static void calculate(struct work *work, bool backward)
{
    const struct cm_attention *a = &work->attention;
    double *weights = new_doubles(a->k_length);
    for (uint32_t sequence = 0; sequence < a->batch; sequence++) {
        for (uint32_t head = 0; head < a->heads; head++) {
            for (uint32_t local = 0; local < a->q_length; local++) {
                struct query query = query_at(a, sequence, head, local);
                forward_query(work, &query, head, weights);
                if (backward)
                    backward_query(work, &query, weights);
            }
        }
    }
    free(weights);
    uint64_t width = a->heads * a->head_size, kv_width = a->kv_heads * a->head_size;
    mark_gaps(work->o, work->o_size, a->o_stride, width);
    mark_gaps(work->dq, work->dq_size, a->dq_stride, width);
    mark_gaps(work->dk, work->dkv_size, a->dkv_stride, kv_width);
    mark_gaps(work->dv, work->dkv_size, a->dkv_stride, kv_width);
}

static double scaled_output(struct work *work)
{
    calculate(work, false);
    double sum = 0;
    for (size_t i = 0; i < work->o_size; i++)
        sum += isnan(work->o[i]) ? 0 : work->o[i] * work->dout[i];
    return sum;
}

/* Each derivative by values[...] against a difference; rows have `stride`, the gradient's
 * `dstride`.
 */
static void check_differences(struct work *work, double *values, size_t rows, uint64_t stride,
                              const double *gradient, uint64_t dstride, uint64_t width)
{
    const double reach = 1e-5;
    for (size_t i = 0; i < rows * width; i++) {
        double *value = &values[i / width * stride + i % width], kept = *value;
        *value = kept + reach;
        double above = scaled_output(work);
        *value = kept - reach;
        double below = scaled_output(work);
        *value = kept;
        double found = (above - below) / (2 * reach);
        double exact = gradient[i / width * dstride + i % width];
        if (!(fabs(found - exact) <= 1e-7 * (1 + fabs(exact))))
            fail_msg("derivative %zu: %.12g by difference, %.12g by formula", i, found, exact);
    }
}

static void formulas_are_derivatives(void **state)
{
    (void)state;
    static const struct shape small = {2, 4, 2, 8, 6, 9, 3, {0, 6}};
    struct work work = new_work(&small, CM_F32);
    const struct cm_attention *a = &work.attention;
    work.q = normal(CM_F32, work.q_size, 0, 1)->values;
    work.k = normal(CM_F32, work.kv_size, 0, 1)->values;
    work.v = normal(CM_F32, work.kv_size, 0, 1)->values;
    work.dout = normal(CM_F32, work.o_size, 0, 1)->values;
    calculate(&work, true);
    size_t rows = a->batch * a->q_length, keys = a->batch * a->k_length;
    uint64_t width = a->heads * a->head_size, kv_width = a->kv_heads * a->head_size;
    check_differences(&work, work.q, rows, a->q_stride, work.dq, a->dq_stride, width);
    check_differences(&work, work.k, keys, a->kv_stride, work.dk, a->dkv_stride, kv_width);
    check_differences(&work, work.v, keys, a->kv_stride, work.dv, a->dkv_stride, kv_width);
    free_work(&work);
    free_buffers();
}

/* A backend may round weights and what is made of them to the type of the step. Errors of a weight
 * grow as the score does. */
static void scale_noise(double *noise, size_t count, enum cm_dtype dtype, double deviation)
{
    double factor = dtype == CM_F32 ? 32 * F32_STEP * deviation : cm_dtype_step(dtype);
    for (size_t i = 0; i < count; i++)
        noise[i] = noise[i] * factor + 1e-6 * factor;
}

/* Which of the device's two attentions each direction is by. */
struct by {
    bool cudnn_forward, cudnn_backward;
};

static void run_forward(struct by by, const struct work *work, const struct buffer *q,
                        const struct buffer *k, const struct buffer *v, const struct buffer *o,
                        const struct buffer *lse)
{
    const struct cm_train_kernels *table = kernels();
    assert_ok((by.cudnn_forward ? table->attention_library->attention : table->attention)(
        bench.stream, &work->attention, at(q), at(k), at(v), at(o), at(lse)));
}

static void check_attention(const struct shape *shape, enum cm_dtype dtype, double deviation,
                            struct by by)
{
    struct work work = new_work(shape, dtype);
    struct buffer *q = normal(dtype, work.q_size, 0, deviation);
    struct buffer *k = normal(dtype, work.kv_size, 0, 1), *v = normal(dtype, work.kv_size, 0, 1);
    struct buffer *dout = normal(dtype, work.o_size, 0, 1), *o = new_buffer(dtype, work.o_size);
    struct buffer *lse = new_buffer(CM_F32, work.lse_size), *dq = new_buffer(dtype, work.dq_size);
    struct buffer *dk = new_buffer(dtype, work.dkv_size), *dv = new_buffer(dtype, work.dkv_size);
    struct buffer *room = scratch(cm_attention_scratch_bytes(&work.attention));
    work.q = q->values;
    work.k = k->values;
    work.v = v->values;
    work.dout = dout->values;
    calculate(&work, true);
    scale_noise(work.o_noise, work.o_size, dtype, deviation);
    scale_noise(work.dq_noise, work.dq_size, dtype, deviation);
    scale_noise(work.dk_noise, work.dkv_size, dtype, deviation);
    scale_noise(work.dv_noise, work.dkv_size, dtype, deviation);
    double *lse_noise = new_doubles(work.lse_size);
    for (size_t i = 0; i < work.lse_size; i++)
        lse_noise[i] = 64 * F32_STEP * deviation;
    run_forward(by, &work, q, k, v, o, lse);
    expect(o, work.o, work.o_noise, "attention");
    expect(lse, work.lse, lse_noise, "lse");
    const struct cm_train_kernels *table = kernels();
    assert_ok((by.cudnn_backward ? table->attention_library->attention_backward
                                 : table->attention_backward)(
        bench.stream, &work.attention, at(q), at(k), at(v), at(o), at(lse), at(dout), at(dq),
        at(dk), at(dv), at(room)));
    expect(dq, work.dq, work.dq_noise, "dq");
    expect(dk, work.dk, work.dk_noise, "dk");
    expect(dv, work.dv, work.dv_noise, "dv");
    fetch_scratch(room);
    free(lse_noise);
    free_work(&work);
    free_buffers();
}

static const struct by own = {false, false};

static void attention_is_right(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++)
        for (size_t d = 0; d < 2; d++)
            check_attention(&shapes[s], step_types[d], 1, own);
}

/* ---- a library's ---- */

static const struct cm_attention_library *library(void)
{
    return kernels()->attention_library;
}

/* Whether the library has that shape; says which version it is, or why it has not. */
static bool is_prepared(const struct cm_attention *attention)
{
    char version[CM_LIBRARY_VERSION_MAX] = "";
    enum cm_status status = library()->prepare(bench.device, attention, version);
    printf("%s: %u heads of %u, %u keys, %s: %s\n", library()->name, attention->heads,
           attention->head_size, attention->k_length, cm_dtype_name(attention->dtype),
           status == CM_OK ? version : cm_error_text());
    if (status != CM_OK)
        assert_int_equal(status, CM_UNSUPPORTED);
    else
        assert_true(version[0] != '\0');
    return status == CM_OK;
}

/* One forward alone, as it fails. */
static enum cm_status try_forward(const struct work *work)
{
    struct buffer *q = normal(CM_BF16, work->q_size, 0, 1),
                  *k = normal(CM_BF16, work->kv_size, 0, 1);
    struct buffer *o = new_buffer(CM_BF16, work->o_size), *lse = new_buffer(CM_F32, work->lse_size);
    enum cm_status status =
        library()->attention(bench.stream, &work->attention, at(q), at(k), at(k), at(o), at(lse));
    sync_stream(bench.stream);
    free_buffers();
    return status;
}

static void library_is_right(void **state)
{
    (void)state;
    static const struct by ways[] = {{true, true}, {true, false}, {false, true}};
    size_t there = 0; /* shapes */
    if (library() == NULL)
        return;
    for (size_t s = 0; s < SHAPES; s++) {
        struct work work = new_work(&shapes[s], CM_BF16);
        bool whole = shapes[s].q_length == shapes[s].k_length;
        bool prepared = is_prepared(&work.attention);
        assert_true(whole || !prepared);
        for (size_t way = 0; prepared && way < sizeof ways / sizeof *ways; way++) {
            any_bits = true;
            check_attention(&shapes[s], CM_BF16, 1, ways[way]);
            any_bits = false;
        }
        there += prepared;
        library()->release(bench.device, &work.attention);
        if (prepared)
            assert_int_equal(try_forward(&work), CM_USAGE);
        free_work(&work);
    }
    printf("%s: %zu of %zu shapes\n", library()->name, there, SHAPES);
#if CM_HAVE_CUDNN /* with the pretend GPUs, whose library is known */
    if (strcmp(bench.ops->name, "fake") == 0)
        assert_int_equal(there, LIBRARY_SHAPES);
#endif
}

static void library_has_no_f32(void **state)
{
    (void)state;
    if (library() == NULL)
        return;
    struct work work = new_work(&shapes[1], CM_F32);
    assert_false(is_prepared(&work.attention));
    free_work(&work);
}

/* Scores far apart: exp of them is beyond f32, and the largest one is found late. */
static void large_scores_are_right(void **state)
{
    (void)state;
    check_attention(&shapes[3], CM_F32, 40, own);
    check_attention(&shapes[8], CM_F32, 40, own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fetched_anew),       cmocka_unit_test(formulas_are_derivatives),
        cmocka_unit_test(attention_is_right), cmocka_unit_test(large_scores_are_right),
        cmocka_unit_test(library_is_right),   cmocka_unit_test(library_has_no_f32),
    };
    return cm_test_backends(tests, ((const unsigned[]){1, 2, 0}));
}
