/*
 * The CUDA kernels of a training step that work row by row or element by element, run by the
 * emulator, against kernels/cpu: activations, norms, rotary positions, cross-entropy, conversions,
 * moved blocks.
 */
#include "simt/trio.h"

/* ---- Activations ---- */

static void check_activation(enum cm_dtype dtype, bool gated, uint64_t rows, uint64_t columns)
{
    struct cm_activation shape = {dtype, gated, rows, columns};
    size_t outputs = rows * columns, inputs = gated ? 2 * outputs : outputs;
    struct array in = normal(inputs, dtype, 0, 3), dout = normal(outputs, dtype, 0, 1);
    struct trio out = new_trio(outputs, dtype), din = new_trio(inputs, dtype);
    struct trio place = trio_of(normal(inputs, dtype, 0, 3));
    for (int run = 0; run < 3; run++) {
        LAUNCH(run, activation, &shape, in.at, out.of[run].at);
        LAUNCH(run, activation_backward, &shape, in.at, dout.at, din.of[run].at);
        LAUNCH(run, activation_backward, &shape, place.of[run].at, dout.at, place.of[run].at);
    }
    check(&out, 1e-6, 3e-6, "activation");
    check(&din, 2e-6, 4e-6, "activation_backward");
    check(&place, 2e-6, 4e-6, "activation_backward in place");
    free_array(&in);
    free_array(&dout);
}

static void activations(void **state)
{
    (void)state;
    static const uint64_t shapes[][2] = {{1, 1},  {1, 8},   {3, 16},   {5, 7},    {37, 24},
                                         {1, 12}, {9, 264}, {2, 4100}, {300, 32}, {65, 1000}};
    for (size_t s = 0; s < LENGTH(shapes); s++)
        for (int t = 0; t < 2 * TYPES; t++)
            check_activation(step_types[t / 2], t % 2, shapes[s][0], shapes[s][1]);
}

/* ---- Sums and conversions ---- */

static const size_t counts[] = {1, 2, 3, 7, 8, 9, 31, 64, 257, 4099, 25001};

static void sums_of_two(void **state)
{
    (void)state;
    for (size_t c = 0; c < 4 * TYPES * LENGTH(counts); c++) {
        enum cm_dtype dtype = step_types[c % TYPES];
        size_t count = counts[c / TYPES / 4], same = c / TYPES % 4;
        struct array b = normal(count, dtype, 0, 1);
        struct trio out = trio_of(normal(count, dtype, 0, 1)),
                    a = trio_of(normal(count, dtype, 0, 1));
        for (int run = 0; run < 3; run++) {
            void *to = out.of[run].at;
            LAUNCH(run, add_to, to, same & 1 ? to : a.of[run].at, same & 2 ? to : b.at, count,
                   dtype);
        }
        check_same(&out, "add_to");
        check_same(&a, "add_to's input");
        free_array(&b);
    }
}

static void conversions(void **state)
{
    (void)state;
    for (size_t c = 0; c < TYPES * TYPES * LENGTH(counts); c++) {
        enum cm_dtype from_type = step_types[c % 2], to_type = step_types[c / 2 % 2];
        size_t count = counts[c / 4];
        struct array from = normal(count, from_type, 0, 1);
        const float odd[] = {INFINITY, -INFINITY, 0x1.fffffep127f, 0x1p-140f, -0.0f, NAN};
        for (size_t i = 0; i < count && i < LENGTH(odd) && count > 30; i++)
            set(&from, i, (double)odd[i]);
        struct trio to = new_trio(count, to_type);
        for (int run = 0; run < 3; run++)
            LAUNCH(run, convert, to.of[run].at, to_type, from.at, from_type, count);
        check_same(&to, "convert");
        free_array(&from);
    }
    struct array a = new_array(8, CM_F64);
    assert_int_not_equal(cm_cuda_convert(NULL, a.at, CM_F64, a.at, CM_F32, 1), 0);
    assert_int_not_equal(cm_cuda_add_to(NULL, a.at, a.at, a.at, 1, CM_F16), 0);
    free_array(&a);
}

/* ---- Norms ---- */

struct norm_case {
    struct cm_norm norm;
    bool delta, in_place; /* in_place: sum is x, dx is one of what it is made from */
};

static void check_norm(const struct norm_case *given)
{
    const struct cm_norm *norm = &given->norm;
    enum cm_dtype dtype = norm->dtype;
    size_t count = norm->rows * norm->columns;
    struct array weight = normal(norm->columns, dtype, 1, 0.3);
    struct array bias = normal(norm->columns, dtype, 0, 0.3), delta = normal(count, dtype, 0, 1);
    struct trio x = trio_of(normal(count, dtype, 0.5, 2)), out = new_trio(count, dtype);
    struct trio sum = new_trio(count, dtype), stats = new_trio(2 * norm->rows, CM_F32);
    for (int run = 0; run < 3; run++)
        LAUNCH(run, norm, norm, x.of[run].at, given->delta ? delta.at : NULL, weight.at,
               norm->layer ? bias.at : NULL,
               given->in_place ? x.of[run].at
               : given->delta  ? sum.of[run].at
                               : NULL,
               out.of[run].at, (float *)(void *)stats.of[run].at);
    check(&out, 1e-5, 1e-5, "norm");
    check(&stats, 1e-5, 1e-5, "statistics of norm");
    check_same(&sum, "sum of norm");
    check_same(&x, "x of norm");
    free_array(&weight);
    free_array(&bias);
    free_array(&delta);
}

static void check_norm_backward(const struct norm_case *given)
{
    const struct cm_norm *norm = &given->norm;
    enum cm_dtype dtype = norm->dtype;
    size_t count = norm->rows * norm->columns;
    bool in_dout = given->in_place && !given->delta;
    struct array weight = normal(norm->columns, dtype, 1, 0.3), x = normal(count, dtype, 0.5, 2);
    struct array stats = normal(2 * norm->rows, CM_F32, 0.5, 0.01);
    struct array scratch = new_array(cm_norm_scratch_bytes(norm), CM_I8);
    struct trio dout = trio_of(normal(count, dtype, 0, 1));
    struct trio residual = trio_of(normal(count, dtype, 0, 1)), dx = new_trio(count, dtype);
    struct trio dweight = trio_of(normal(norm->columns, CM_F32, 0, 1));
    struct trio dbias = trio_of(normal(norm->columns, CM_F32, 0, 1));
    for (size_t i = 0; i < norm->rows && !norm->layer; i++)
        set(&stats, i, 0); /* RMSNorm has no means */
    for (int run = 0; run < 3; run++) {
        void *to = !given->in_place ? dx.of[run].at
                   : in_dout        ? dout.of[run].at
                                    : residual.of[run].at;
        LAUNCH(run, norm_backward, norm, dout.of[run].at, x.at, weight.at,
               (float *)(void *)stats.at, given->delta ? residual.of[run].at : NULL, to,
               (float *)(void *)dweight.of[run].at,
               norm->layer ? (float *)(void *)dbias.of[run].at : NULL, scratch.at);
        check_guards(&scratch);
    }
    double terms = sqrt((double)norm->rows) * 4e-6;
    check(&dx, 2e-5, 1e-5, "norm_backward");
    check(&dout, 2e-5, 1e-5, "norm_backward in dout");
    check(&residual, 2e-5, 1e-5, "norm_backward in dresidual");
    check(&dweight, terms, 1e-5, "dweight of norm");
    check(&dbias, terms, 1e-5, "dbias of norm");
    free_array(&weight);
    free_array(&x);
    free_array(&stats);
    free_array(&scratch);
}

static const uint64_t norm_shapes[][2] = {
    {1, 8},    {3, 7},    {41, 64},  {5, 100},   {19, 264},  {9, 768},   {3, 1028}, {2, 2056},
    {3, 4096}, {2, 4100}, {2, 8200}, {1, 12296}, {2, 16388}, {1, 16392}, {1, 33000}};

static void norms(void **state)
{
    (void)state;
    for (size_t s = 0; s < LENGTH(norm_shapes); s++) {
        for (unsigned bits = 0; bits < 16; bits++) {
            struct norm_case given = {.norm = {.dtype = step_types[bits & 1],
                                               .layer = bits & 2,
                                               .epsilon = 1e-5f,
                                               .rows = norm_shapes[s][0],
                                               .columns = norm_shapes[s][1]},
                                      .delta = bits & 4,
                                      .in_place = bits & 8};
            if (given.norm.columns > 4000 && bits / 4 != s % 4)
                continue;
            check_norm(&given);
            check_norm_backward(&given);
        }
    }
}

/* Long rows of short numbers: the sums of a block's many rows stay apart. */
static void norms_of_many_rows(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 4; bits++) {
        struct norm_case given = {.norm = {.dtype = step_types[bits & 1],
                                           .layer = bits & 2,
                                           .epsilon = 1e-5f,
                                           .rows = 533,
                                           .columns = 24}};
        check_norm(&given);
        check_norm_backward(&given);
        given.norm.columns = 25;
        check_norm_backward(&given);
    }
}

/* ---- Rotary positions ---- */

static void check_rope(const struct cm_rope *rope)
{
    /* An angle is off by 2^-24 of a turn, the reference's too. */
    size_t count = (rope->rows - 1) * rope->stride + rope->heads * rope->head_size;
    struct trio rows = trio_of(normal(count, rope->dtype, 0, 1));
    for (int run = 0; run < 3; run++)
        LAUNCH(run, rope, rope, rows.of[run].at);
    check(&rows, 4e-6, 0, "rope");
}

static void rotary_positions(void **state)
{
    (void)state;
    static const uint32_t shapes[][3] = {{1, 2, 2},     {3, 6, 25},   {5, 16, 80},   {9, 64, 640},
                                         {2, 128, 384}, {4, 32, 136}, {1, 512, 512}, {6, 16, 101}};
    for (size_t s = 0; s < 2 * TYPES * LENGTH(shapes); s++) {
        const uint32_t *shape = shapes[s / TYPES / 2];
        struct cm_rope rope = {.dtype = step_types[s % TYPES],
                               .rows = 36,
                               .heads = shape[0],
                               .head_size = shape[1],
                               .stride = shape[2],
                               .base = s % 3 == 0 ? 500000 : 10000,
                               .backward = s / TYPES % 2,
                               .positions = {3, 5, {below(1000), 100000 + below(100000)}}};
        check_rope(&rope);
    }
    struct cm_rope wide = {.dtype = CM_F32, .rows = 1, .heads = 1, .head_size = 514, .stride = 514};
    assert_int_not_equal(cm_cuda_rope(NULL, &wide, NULL), 0);
}

/* ---- Cross-entropy ---- */

/* The vocabulary is split evenly; each part's logits are in rows of `columns`. */
static void check_cross_entropy(enum cm_dtype dtype, size_t rows, unsigned parts, uint32_t share,
                                uint32_t columns)
{
    struct array targets = integers(rows, -1, (int)(parts * share));
    struct trio found = new_trio(3 * rows * parts, CM_F32), logits[3], loss[3];
    struct cm_cross_entropy cross = {dtype, rows, 0, share, columns, parts, 0.125f};
    for (unsigned p = 0; p < parts; p++) {
        logits[p] = trio_of(normal(rows * columns, dtype, 3, 4));
        loss[p] = new_trio(rows, CM_F32);
        cross.vocabulary_first = p * share;
        for (int run = 0; run < 3; run++)
            LAUNCH(run, softmax_parts, &cross, logits[p].of[run].at, (int32_t *)(void *)targets.at,
                   (struct cm_softmax_part *)(void *)found.of[run].at + p * rows);
    }
    for (unsigned p = 0; p < parts; p++) {
        cross.vocabulary_first = p * share;
        for (int run = 0; run < 3; run++)
            LAUNCH(run, cross_entropy, &cross, logits[p].of[run].at, (int32_t *)(void *)targets.at,
                   (struct cm_softmax_part *)(void *)found.of[run].at,
                   (float *)(void *)loss[p].of[run].at);
        for (size_t i = 0; i < rows; i++) {
            if (element(&targets, i) < 0)
                assert_true(element(&loss[p].of[0], i) == 0);
            for (size_t c = share; c < columns; c++)
                assert_true(element(&logits[p].of[0], i * columns + c) == 0);
        }
        check(&logits[p], 3e-7, 1e-5, "gradient of the logits");
        check(&loss[p], 4e-6, 2e-6, "loss");
    }
    check(&found, 0, 1e-5, "parts");
    free_array(&targets);
}

static void cross_entropies(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1},       {7, 8},       {8, 8},
                                         {50, 56},     {50, 51},     {300, 320},
                                         {2051, 2056}, {8200, 8200}, {9001, 9003}};
    for (size_t s = 0; s < LENGTH(shapes); s++) {
        for (unsigned t = 0; t < 2 * TYPES; t++)
            check_cross_entropy(step_types[t % 2], 5, t < 2 ? 1 : 3, shapes[s][0], shapes[s][1]);
    }
}

/* Numbers whose exponentials have no room in f32. */
static void cross_entropy_of_large_logits(void **state)
{
    (void)state;
    struct cm_cross_entropy cross = {CM_F32, 1, 0, 4, 4, 1, 1};
    static const float given[4] = {-30000, 30000, 29999, -INFINITY};
    struct array logits = new_array(4, CM_F32), parts = new_array(3, CM_F32);
    struct array loss = new_array(1, CM_F32), target = integers(1, 2, 3);
    memcpy(logits.at, given, sizeof given);
    struct cm_softmax_part *part = (struct cm_softmax_part *)(void *)parts.at;
    const int32_t *token = (const int32_t *)(const void *)target.at;
    assert_int_equal(cm_cuda_softmax_parts(NULL, &cross, logits.at, token, part), 0);
    assert_int_equal(
        cm_cuda_cross_entropy(NULL, &cross, logits.at, token, part, (float *)(void *)loss.at), 0);
    double rest = 1 / (1 + exp(1.0));
    assert_true(fabs(element(&loss, 0) - 1.3132617) < 0.004); /* 30000 has 0.002 to a step */
    assert_true(element(&logits, 0) == 0 && element(&logits, 3) == 0);
    assert_true(fabs(element(&logits, 1) - (1 - rest)) < 0.004);
    assert_true(fabs(element(&logits, 2) - (rest - 1)) < 0.004);
    free_array(&logits);
    free_array(&parts);
    free_array(&loss);
    free_array(&target);
}

/* ---- Moved blocks ---- */

static void moved_blocks(void **state)
{
    (void)state;
    static const uint32_t shapes[][2] = {{1, 1}, {1, 7}, {5, 3}, {16, 4}, {9, 33}};
    static const uint64_t bytes[] = {16, 48, 1024, 4112};
    for (size_t s = 0; s < 3 * LENGTH(shapes) * LENGTH(bytes); s++) {
        const uint32_t *shape = shapes[s / 3 % LENGTH(shapes)];
        enum cm_reorder_kind kind = (enum cm_reorder_kind)(s % 3);
        struct cm_reorder reorder = {kind, shape[0], kind == CM_REORDER_TRANSPOSE ? shape[1] : 2,
                                     bytes[s / 3 / LENGTH(shapes)]};
        size_t count = reorder.rows * reorder.columns * reorder.block_bytes / 4;
        struct array from = integers(count, 0, 1 << 30);
        struct trio to = new_trio(count, CM_I32);
        for (int run = 0; run < 3; run++)
            LAUNCH(run, reorder, &reorder, from.at, to.of[run].at);
        check_same(&to, "reorder");
        free_array(&from);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations),        cmocka_unit_test(sums_of_two),
        cmocka_unit_test(conversions),        cmocka_unit_test(norms),
        cmocka_unit_test(norms_of_many_rows), cmocka_unit_test(rotary_positions),
        cmocka_unit_test(cross_entropies),    cmocka_unit_test(cross_entropy_of_large_logits),
        cmocka_unit_test(moved_blocks),
    };
    draw_inputs();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
