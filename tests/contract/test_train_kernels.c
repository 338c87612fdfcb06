/*
 * The training kernels of every backend that work row by row or element by element: embedding,
 * norm, rotary positions, activation, and what moves data. Forward passes are held against the
 * formulas written again in double, backward passes against central differences of those.
 */
#include "train_fixture.h"

/* ---- embedding ---- */

static uint64_t position_of(const struct cm_positions *positions, uint64_t row)
{
    uint64_t local = row / positions->batch;
    return local < positions->chunk ? positions->first[0] + local
                                    : positions->first[1] + local - positions->chunk;
}

/* Rows of tokens, of which this rank has 10 to 10 + 57 of 90, at two chunks of the sequence. */
static void check_embed(enum cm_dtype dtype, uint64_t columns, bool with_learned)
{
    enum { BATCH = 3, LENGTH = 14, ROWS = BATCH * LENGTH, WORDS = 57, POSITIONS = 40 };
    struct cm_embed embed = {dtype, ROWS, columns, 10, WORDS, {BATCH, 5, {4, 30}}};
    struct buffer *tokens = integers(ROWS, 0, 89), *table = normal(dtype, WORDS * columns, 0, 1);
    struct buffer *learned = with_learned ? normal(dtype, POSITIONS * columns, 0, 1) : NULL;
    struct buffer *out = new_buffer(dtype, ROWS * columns),
                  *dout = normal(dtype, ROWS * columns, 0, 1);
    struct buffer *dtable = normal(CM_F32, WORDS * columns, 0, 1);
    struct buffer *dlearned = with_learned ? normal(CM_F32, POSITIONS * columns, 0, 1) : NULL;
    struct buffer *room = scratch(cm_embed_scratch_bytes(&embed));
    tokens->values[0] = tokens->values[1] = tokens->values[ROWS - 1] =
        10; /* one token three times */
    tokens->values[2] = 9;
    tokens->values[3] = 10 + WORDS;
    tokens->values[4] = 10 + WORDS - 1;
    give(tokens);
    double *expected = new_doubles(ROWS * columns), *noise = new_doubles(WORDS * columns);
    double *sum = new_doubles(WORDS * columns), *learned_sum = new_doubles(POSITIONS * columns);
    double *learned_noise = new_doubles(POSITIONS * columns);
    memcpy(sum, dtable->values, WORDS * columns * sizeof *sum);
    if (with_learned)
        memcpy(learned_sum, dlearned->values, POSITIONS * columns * sizeof *sum);
    for (size_t i = 0; i < ROWS * columns; i++) {
        uint64_t row = i / columns, column = i % columns;
        double word = tokens->values[row] - 10;
        if (word >= 0 && word < WORDS) {
            size_t place = (size_t)word * columns + column;
            expected[i] = table->values[place];
            sum[place] += dout->values[i];
            noise[place] += 4 * F32_STEP * (fabs(dout->values[i]) + fabs(sum[place]));
        }
        if (with_learned) {
            size_t place = position_of(&embed.positions, row) * columns + column;
            expected[i] += learned->values[place];
            learned_sum[place] += dout->values[i];
            learned_noise[place] +=
                4 * F32_STEP * (fabs(dout->values[i]) + fabs(learned_sum[place]));
        }
    }
    assert_ok(kernels()->embed(bench.stream, &embed, at(tokens), at(table), at(learned), at(out)));
    expect(out, expected, NULL, "embed");
    assert_ok(kernels()->embed_backward(bench.stream, &embed, at(tokens), at(dout), at(dtable),
                                        at(dlearned), at(room)));
    expect(dtable, sum, noise, "dtable");
    if (with_learned)
        expect(dlearned, learned_sum, learned_noise, "dlearned");
    fetch_scratch(room);
    free(expected);
    free(noise);
    free(sum);
    free(learned_sum);
    free(learned_noise);
    free_buffers();
}

static void embedding_is_right(void **state)
{
    (void)state;
    static const uint64_t columns[] = {1, 8, 65, 200, 1032};
    for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++)
        for (size_t d = 0; d < 2; d++)
            for (int learned = 0; learned < 2; learned++)
                check_embed(step_types[d], columns[c], learned);
}

/* ---- norm ---- */

/* One row's output. */
static void norm_row(const struct cm_norm *norm, const double *x, const double *weight,
                     const double *bias, double *out, double *mean, double *scale)
{
    double n = (double)norm->columns, total = 0, squares = 0;
    for (uint64_t i = 0; i < norm->columns; i++)
        total += x[i];
    *mean = norm->layer ? total / n : 0;
    for (uint64_t i = 0; i < norm->columns; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *scale = 1 / sqrt(squares / n + (double)norm->epsilon);
    for (uint64_t i = 0; i < norm->columns; i++)
        out[i] = (x[i] - *mean) * *scale * weight[i] + (bias != NULL ? bias[i] : 0);
}

struct norm_case {
    struct cm_norm norm;
    struct buffer *x, *weight, *bias;
    size_t total;
};

static struct norm_case new_norm_case(enum cm_dtype dtype, bool layer, uint64_t rows,
                                      uint64_t columns)
{
    struct norm_case made = {.norm = {dtype, layer, 1e-5f, rows, columns}};
    made.total = rows * columns;
    made.x = normal(dtype, made.total, layer ? 1.5 : 0.3, 1);
    made.weight = normal(dtype, columns, 1, 0.3);
    made.bias = layer ? normal(dtype, columns, 0, 1) : NULL;
    return made;
}

/* kind: 0 no delta and no sum; 1 delta, sum apart; 2 delta, sum in place; 3 no delta, but a sum. */
static void check_norm(enum cm_dtype dtype, bool layer, uint64_t rows, uint64_t columns, int kind)
{
    struct norm_case c = new_norm_case(dtype, layer, rows, columns);
    struct buffer *delta = kind == 1 || kind == 2 ? normal(dtype, c.total, 0, 1) : NULL;
    struct buffer *sum = kind == 0 ? NULL : kind == 2 ? c.x : new_buffer(dtype, c.total);
    struct buffer *out = new_buffer(dtype, c.total), *stats = new_buffer(CM_F32, 2 * rows);
    double *x = new_doubles(c.total), *expected = new_doubles(c.total);
    double *expected_stats = new_doubles(2 * rows), *noise = new_doubles(c.total + 2 * rows);
    for (size_t i = 0; i < c.total; i++)
        x[i] = c.x->values[i] + (delta != NULL ? delta->values[i] : 0);
    assert_ok(kernels()->norm(bench.stream, &c.norm, at(c.x), at(delta), at(c.weight), at(c.bias),
                              at(sum), at(out), at(stats)));
    if (sum != NULL) {
        expect(sum, x, NULL, "sum");
        memcpy(x, sum->values, c.total * sizeof *x);
    }
    for (uint64_t row = 0; row < rows; row++)
        norm_row(&c.norm, x + row * columns, c.weight->values,
                 c.bias != NULL ? c.bias->values : NULL, expected + row * columns,
                 &expected_stats[row], &expected_stats[rows + row]);
    /* The sum may be used before it was rounded. */
    double rounding = kind == 1 || kind == 2 ? cm_dtype_step(dtype) : 0;
    for (size_t i = 0; i < c.total; i++)
        noise[i] = (16 * F32_STEP + rounding) * (4 + fabs(expected[i]));
    expect(out, expected, noise, "norm");
    for (size_t i = 0; i < 2 * rows; i++)
        noise[i] = (16 * F32_STEP + rounding) * 4;
    expect(stats, expected_stats, noise, "stats");
    free(x);
    free(expected);
    free(expected_stats);
    free(noise);
    free_buffers();
}

static void norm_is_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][2] = {{1, 1},     {3, 7},     {5, 64},
                                         {37, 1031}, {130, 264}, {2, 5000}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t d = 0; d < 2; d++)
            for (int layer = 0; layer < 2; layer++)
                for (int kind = 0; kind < 4; kind++)
                    check_norm(step_types[d], layer, shapes[s][0], shapes[s][1], kind);
}

/* The derivative of sum(dout * norm(x)) by each x, as central differences of the formula. */
static void differences(const struct norm_case *c, const double *dout, double *dx)
{
    uint64_t columns = c->norm.columns;
    double *x = new_doubles(columns), *out = new_doubles(columns), mean, scale, side[2];
    const double reach = 1e-5;
    for (size_t i = 0; i < c->total; i++) {
        const double *row = c->x->values + i / columns * columns;
        memcpy(x, row, columns * sizeof *x);
        for (int s = 0; s < 2; s++) {
            x[i % columns] = row[i % columns] + (s == 0 ? -reach : reach);
            norm_row(&c->norm, x, c->weight->values, NULL, out, &mean, &scale);
            side[s] = 0;
            for (uint64_t j = 0; j < columns; j++)
                side[s] += out[j] * dout[i / columns * columns + j];
        }
        dx[i] = (side[1] - side[0]) / (2 * reach);
    }
    free(x);
    free(out);
}

/* kind: 0 no residual; 1 residual; 2 dx is the residual; 3 dx is dout. */
static void check_norm_backward(enum cm_dtype dtype, bool layer, uint64_t rows, uint64_t columns,
                                int kind)
{
    struct norm_case c = new_norm_case(dtype, layer, rows, columns);
    struct buffer *dout = normal(dtype, c.total, 0, 1), *stats = new_buffer(CM_F32, 2 * rows);
    struct buffer *residual = kind == 0 ? NULL : normal(dtype, c.total, 0, 1);
    struct buffer *dx = kind == 2 ? residual : kind == 3 ? dout : new_buffer(dtype, c.total);
    struct buffer *dweight = normal(CM_F32, columns, 0, 1);
    struct buffer *dbias = layer ? normal(CM_F32, columns, 0, 1) : NULL;
    struct buffer *room = scratch(cm_norm_scratch_bytes(&c.norm));
    double *expected = new_doubles(c.total), *noise = new_doubles(c.total);
    double *out = new_doubles(columns), *plain = new_doubles(columns);
    double *weight_sum = new_doubles(columns), *bias_sum = new_doubles(columns);
    for (uint64_t row = 0; row < rows; row++)
        norm_row(&c.norm, c.x->values + row * columns, c.weight->values, NULL, out,
                 &stats->values[row], &stats->values[rows + row]);
    give(stats);
    differences(&c, dout->values, expected);
    for (size_t i = 0; i < c.total; i++) {
        double unit =
            (c.x->values[i] - stats->values[i / columns]) * stats->values[rows + i / columns];
        weight_sum[i % columns] += dout->values[i] * unit;
        bias_sum[i % columns] += dout->values[i];
        plain[i % columns] += fabs(dout->values[i]) * (1 + fabs(unit));
        noise[i] = 64 * F32_STEP * stats->values[rows + i / columns] * (8 + fabs(unit)) + 1e-8;
        expected[i] += residual != NULL ? residual->values[i] : 0;
    }
    for (uint64_t i = 0; i < columns; i++) {
        weight_sum[i] += dweight->values[i];
        bias_sum[i] += layer ? dbias->values[i] : 0;
        plain[i] = 8 * F32_STEP * (4 + plain[i]);
    }
    assert_ok(kernels()->norm_backward(bench.stream, &c.norm, at(dout), at(c.x), at(c.weight),
                                       at(stats), at(residual), at(dx), at(dweight), at(dbias),
                                       at(room)));
    expect(dx, expected, noise, "norm dx");
    expect(dweight, weight_sum, plain, "dweight");
    if (layer)
        expect(dbias, bias_sum, plain, "dbias");
    fetch_scratch(room);
    free(expected);
    free(noise);
    free(out);
    free(plain);
    free(weight_sum);
    free(bias_sum);
    free_buffers();
}

static void norm_gradient_is_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][2] = {{1, 2}, {3, 9}, {17, 64}, {150, 130}, {2, 1100}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t d = 0; d < 2; d++)
            for (int layer = 0; layer < 2; layer++)
                for (int kind = 0; kind < 4; kind++)
                    check_norm_backward(step_types[d], layer, shapes[s][0], shapes[s][1], kind);
}

/* ---- rotary positions ---- */

static void check_rope(enum cm_dtype dtype, uint32_t heads, uint32_t head_size, bool backward,
                       uint32_t batch, uint32_t length)
{
    uint64_t width = (uint64_t)heads * head_size, stride = width + 24, rows = batch * length;
    struct cm_rope rope = {dtype,  rows,  heads,    head_size,
                           stride, 10000, backward, {batch, length / 3, {17, 100000}}};
    struct buffer *x = normal(dtype, rows * stride, 0, 1);
    double *expected = new_doubles(rows * stride), *noise = new_doubles(rows * stride);
    memcpy(expected, x->values, rows * stride * sizeof *expected);
    for (uint64_t row = 0; row < rows; row++) {
        for (uint64_t pair = 0; pair < width / 2; pair++) {
            uint32_t half = head_size / 2;
            uint64_t low = row * stride + pair / half * head_size + pair % half;
            double angle = (double)position_of(&rope.positions, row) *
                           pow(10000, -2 * (double)(pair % half) / head_size);
            angle = backward ? -angle : angle;
            double a = x->values[low], b = x->values[low + half];
            expected[low] = a * cos(angle) - b * sin(angle);
            expected[low + half] = a * sin(angle) + b * cos(angle);
            noise[low] = noise[low + half] = 8 * F32_STEP * (fabs(a) + fabs(b));
        }
    }
    assert_ok(kernels()->rope(bench.stream, &rope, at(x)));
    expect(x, expected, noise, backward ? "rope backward" : "rope");
    free(expected);
    free(noise);
    free_buffers();
}

static void rotary_positions_are_right(void **state)
{
    (void)state;
    for (size_t d = 0; d < 2; d++) {
        for (int backward = 0; backward < 2; backward++) {
            check_rope(step_types[d], 1, 2, backward, 1, 1);
            check_rope(step_types[d], 3, 64, backward, 2, 50);
            check_rope(step_types[d], 5, 40, backward, 3, 31);
            check_rope(step_types[d], 2, 320, backward, 1, 70);
        }
    }
}

/* ---- activation ---- */

static double activate(bool gated, double gate, double value)
{
    if (gated)
        return gate / (1 + exp(-gate)) * value;
    return 0.5 * gate * (1 + tanh(0.79788456080286535588 * (gate + 0.044715 * gate * gate * gate)));
}

static double slope(bool gated, double gate, double value, bool by_value)
{
    const double reach = 1e-5;
    double to_gate = by_value ? 0 : reach, to_value = by_value ? reach : 0;
    return (activate(gated, gate + to_gate, value + to_value) -
            activate(gated, gate - to_gate, value - to_value)) /
           (2 * reach);
}

static void check_activation(enum cm_dtype dtype, bool gated, uint64_t rows, uint64_t columns,
                             bool in_place)
{
    struct cm_activation activation = {dtype, gated, rows, columns};
    uint64_t width = gated ? 2 * columns : columns;
    struct buffer *in = normal(dtype, rows * width, 0, 3), *out = new_buffer(dtype, rows * columns);
    struct buffer *dout = normal(dtype, rows * columns, 0, 1);
    struct buffer *din = in_place ? in : new_buffer(dtype, rows * width);
    double *expected = new_doubles(rows * columns), *gradient = new_doubles(rows * width);
    double *noise = new_doubles(rows * columns), *dnoise = new_doubles(rows * width);
    in->values[0] = -100; /* exp of it is beyond f32 */
    give(in);
    for (size_t i = 0; i < rows * columns; i++) {
        size_t place = i / columns * width + i % columns;
        double gate = in->values[place], value = gated ? in->values[place + columns] : 1;
        double d = dout->values[i];
        expected[i] = activate(gated, gate, value);
        gradient[place] = d * slope(gated, gate, value, false);
        noise[i] = 8 * F32_STEP * (1 + fabs(gate * value));
        dnoise[place] = 16 * F32_STEP * (1 + fabs(d) * (2 + fabs(gate) * (1 + fabs(value))));
        if (gated) {
            gradient[place + columns] = d * slope(gated, gate, value, true);
            dnoise[place + columns] = 16 * F32_STEP * (1 + fabs(d * gate));
        }
    }
    assert_ok(kernels()->activation(bench.stream, &activation, at(in), at(out)));
    expect(out, expected, noise, "activation");
    assert_ok(kernels()->activation_backward(bench.stream, &activation, at(in), at(dout), at(din)));
    expect(din, gradient, dnoise, "activation_backward");
    free(expected);
    free(gradient);
    free(noise);
    free(dnoise);
    free_buffers();
}

static void activation_is_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][2] = {{1, 1}, {3, 7}, {5, 1032}, {41, 520}, {1, 20000}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t d = 0; d < 2; d++)
            for (int gated = 0; gated < 2; gated++)
                for (int in_place = 0; in_place < 2; in_place++)
                    check_activation(step_types[d], gated, shapes[s][0], shapes[s][1], in_place);
}

/* ---- moving ---- */

static const size_t counts[] = {1, 7, 8, 33, 1000, 4099, 50001};
#define COUNTS (sizeof counts / sizeof counts[0])

/* kind: 0 apart, 1 into a, 2 into b, 3 all the same. */
static void check_add(enum cm_dtype dtype, size_t count, int kind)
{
    struct buffer *a = normal(dtype, count, 0, 1);
    struct buffer *b = kind == 3 ? a : normal(dtype, count, 0, 1);
    struct buffer *out = kind == 0 ? new_buffer(dtype, count) : kind == 1 ? a : b;
    double *expected = new_doubles(count);
    for (size_t i = 0; i < count; i++)
        expected[i] = a->values[i] + b->values[i];
    assert_ok(kernels()->add_to(bench.stream, at(out), at(a), at(b), count, dtype));
    expect(out, expected, NULL, "add_to");
    free(expected);
    free_buffers();
}

static void add_to_is_right(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++)
        for (size_t d = 0; d < 2; d++)
            for (int kind = 0; kind < 4; kind++)
                check_add(step_types[d], counts[c], kind);
}

/* Every rounding there is: all upper halves, each with the lower halves about its middle. */
static void convert_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const uint32_t lower[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { LOWER = sizeof lower / sizeof lower[0], COUNT = 65536 * LOWER };
    struct buffer *from = new_buffer(CM_F32, COUNT), *to = new_buffer(CM_BF16, COUNT);
    struct buffer *back = new_buffer(CM_F32, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t bits = i / LOWER << 16 | lower[i % LOWER];
        memcpy(host_of(&from->array) + i * sizeof bits, &bits, sizeof bits);
    }
    upload(&from->array);
    read_values(from);
    assert_ok(kernels()->convert(bench.stream, at(to), CM_BF16, at(from), CM_F32, COUNT));
    assert_ok(kernels()->convert(bench.stream, at(back), CM_F32, at(to), CM_BF16, COUNT));
    fetch(to);
    fetch(back);
    for (size_t i = 0; i < COUNT; i++) {
        uint16_t exact, found;
        cm_dtype_store(CM_BF16, from->values[i], &exact);
        memcpy(&found, host_of(&to->array) + 2 * i, sizeof found);
        bool same = isnan(from->values[i]) ? isnan(to->values[i]) : found == exact;
        if (!same || (!isnan(to->values[i]) && back->values[i] != to->values[i]))
            fail_msg("%a became %a, and then %a", from->values[i], to->values[i], back->values[i]);
    }
    free_buffers();
}

static void convert_takes_every_count(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        struct buffer *from = normal(CM_F32, counts[c], 0, 1);
        struct buffer *to = new_buffer(CM_BF16, counts[c]), *back = new_buffer(CM_F32, counts[c]);
        assert_ok(kernels()->convert(bench.stream, at(to), CM_BF16, at(from), CM_F32, counts[c]));
        expect(to, from->values, NULL, "convert");
        assert_ok(kernels()->convert(bench.stream, at(back), CM_F32, at(to), CM_BF16, counts[c]));
        fetch(back);
        assert_memory_equal(back->values, to->values, counts[c] * sizeof(double));
        free_buffers();
    }
}

/* ---- 8-bit floats with a scale ---- */

static void check_quantise(const struct cm_quantise *q, double deviation)
{
    size_t each = q->rows * q->columns, count = each * q->batch;
    struct buffer *from = normal(q->from, count, 0, deviation);
    struct buffer *to = new_buffer(q->to, count), *known = new_buffer(CM_F32, 2);
    float most = q->to == CM_F8E4M3 ? 448 : 57344, largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmaxf(largest, (float)fabs(from->values[i]));
    bool none = largest < 0x1p-100f;
    float factor = none ? 1 : most / largest;
    assert_ok(kernels()->quantise(bench.stream, q, at(from), at(to), at(known)));
    fetch(to);
    fetch(known);
    assert_true((float)known->values[1] == largest);
    assert_true((float)known->values[0] == (none ? 1 : largest / most));
    for (size_t i = 0; i < count; i++) {
        size_t row = i % each / q->columns, column = i % q->columns;
        size_t place = q->transpose ? i / each * each + column * q->rows + row : i;
        uint8_t exact, found;
        cm_dtype_store(q->to, (double)((float)from->values[i] * factor), &exact);
        memcpy(&found, host_of(&to->array) + place, sizeof found);
        if (found != exact)
            fail_msg("%s to %s, %zu x %zu x %zu%s: element %zu, %a times %a, is %#x, not %#x",
                     cm_dtype_name(q->from), cm_dtype_name(q->to), (size_t)q->rows,
                     (size_t)q->columns, (size_t)q->batch, q->transpose ? " transposed" : "", i,
                     from->values[i], (double)factor, found, exact);
    }
    free_buffers();
}

static void quantise_is_right(void **state)
{
    (void)state;
    static const uint64_t shapes[][3] = {{1, 1, 1},    {3, 7, 2},    {16, 64, 1},  {64, 64, 3},
                                         {80, 136, 2}, {65, 200, 1}, {130, 67, 1}, {48, 1032, 1}};
    static const double deviations[] = {1, 1e-6, 1e4, 0};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (unsigned flags = 0; flags < 8; flags++)
            check_quantise(&(struct cm_quantise){.from = step_types[flags & 1],
                                                 .to = flags & 2 ? CM_F8E5M2 : CM_F8E4M3,
                                                 .rows = shapes[s][0],
                                                 .columns = shapes[s][1],
                                                 .batch = shapes[s][2],
                                                 .transpose = flags & 4},
                           deviations[(s + flags) % 4]);
}

/* What is no number shows in the scale, and so in all that is multiplied by it. */
static void quantise_keeps_nans(void **state)
{
    (void)state;
    const struct cm_quantise q = {CM_F32, CM_F8E4M3, 16, 16, 1, false};
    struct buffer *from = normal(CM_F32, 256, 0, 1), *to = new_buffer(CM_F8E4M3, 256);
    struct buffer *known = new_buffer(CM_F32, 2);
    from->values[100] = (double)NAN;
    give(from);
    assert_ok(kernels()->quantise(bench.stream, &q, at(from), at(to), at(known)));
    download(&known->array);
    read_values(known);
    assert_true(isnan(known->values[0]));
    free_buffers();
}

static uint64_t reordered(const struct cm_reorder *reorder, uint64_t from)
{
    uint64_t rows = reorder->rows, columns = reorder->columns;
    if (reorder->kind == CM_REORDER_TRANSPOSE)
        return from % columns * rows + from / columns;
    if (reorder->kind == CM_REORDER_ZIGZAG)
        return from % 2 == 0 ? from / 2 : 2 * rows - 1 - from / 2;
    return from < rows ? 2 * from : 2 * (2 * rows - 1 - from) + 1;
}

static void reorder_moves_blocks(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {16, 48, 4112, 100000};
    for (int kind = CM_REORDER_TRANSPOSE; kind <= CM_REORDER_UNZIGZAG; kind++) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            uint32_t columns = kind == CM_REORDER_TRANSPOSE ? 5 : 2;
            struct cm_reorder reorder = {(enum cm_reorder_kind)kind, 3, columns, sizes[s]};
            size_t total = 3 * columns * sizes[s];
            struct buffer *from = integers(total / 4, 0, 1 << 30),
                          *to = new_buffer(CM_I32, total / 4);
            assert_ok(kernels()->reorder(bench.stream, &reorder, at(from), at(to)));
            fetch(to);
            for (uint64_t block = 0; block < 3 * columns; block++)
                assert_memory_equal(host_of(&from->array) + block * sizes[s],
                                    host_of(&to->array) + reordered(&reorder, block) * sizes[s],
                                    sizes[s]);
            free_buffers();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fetched_anew),
        cmocka_unit_test(embedding_is_right),
        cmocka_unit_test(norm_is_right),
        cmocka_unit_test(norm_gradient_is_right),
        cmocka_unit_test(rotary_positions_are_right),
        cmocka_unit_test(activation_is_right),
        cmocka_unit_test(add_to_is_right),
        cmocka_unit_test(convert_rounds_to_nearest_even),
        cmocka_unit_test(convert_takes_every_count),
        cmocka_unit_test(quantise_is_right),
        cmocka_unit_test(quantise_keeps_nans),
        cmocka_unit_test(reorder_moves_blocks),
    };
    return cm_test_backends(tests, ((const unsigned[]){1, 2, 0}));
}
