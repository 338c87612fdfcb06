/*
 * The training kernels of every backend that end a step: cross-entropy over a split vocabulary,
 * sums, clipping and AdamW; and those of a mixture of experts. All against formulas written again
 * here.
 */
#include "train_fixture.h"

/* ---- cross-entropy ---- */

/* A vocabulary of `parts` times `words`, rows padded to `columns` elements. */
struct vocabulary {
    enum cm_dtype dtype;
    uint32_t parts, words, columns;
    double deviation;
};

enum { ROWS = 60 };

struct loss_case {
    struct cm_cross_entropy cross[4];
    struct buffer *logits[4], *targets;
};

static struct loss_case new_loss_case(const struct vocabulary *vocabulary)
{
    struct loss_case made = {.targets = NULL};
    int all = (int)(vocabulary->parts * vocabulary->words);
    for (uint32_t p = 0; p < vocabulary->parts; p++) {
        made.cross[p] = (struct cm_cross_entropy){vocabulary->dtype,
                                                  ROWS,
                                                  p * vocabulary->words,
                                                  vocabulary->words,
                                                  vocabulary->columns,
                                                  vocabulary->parts,
                                                  1.0f / 1000};
        made.logits[p] =
            normal(vocabulary->dtype, ROWS * vocabulary->columns, 0, vocabulary->deviation);
        /* Padding that nobody may look at. */
        for (size_t i = 0; i < made.logits[p]->count; i++)
            if (i % vocabulary->columns >= vocabulary->words)
                made.logits[p]->values[i] = (double)NAN;
        give(made.logits[p]);
    }
    made.targets = integers(ROWS, 0, all - 1);
    made.targets->values[0] = 0;
    made.targets->values[1] = all - 1;
    made.targets->values[2] = made.targets->values[ROWS - 1] = -1;
    made.targets->values[3] = vocabulary->words % (uint32_t)all;
    give(made.targets);
    return made;
}

static double logit_of(const struct loss_case *c, size_t row, uint32_t word)
{
    uint32_t words = c->cross[0].vocabulary_count;
    return c->logits[word / words]->values[row * c->cross[0].columns + word % words];
}

static void check_parts(const struct loss_case *c, uint32_t p, const struct buffer *parts)
{
    const struct cm_cross_entropy *cross = &c->cross[p];
    for (size_t row = 0; row < ROWS; row++) {
        double largest = -INFINITY, sum = 0, target = 0;
        for (uint32_t i = 0; i < cross->vocabulary_count; i++) {
            double x = c->logits[p]->values[row * cross->columns + i];
            largest = fmax(largest, x);
            if (cross->vocabulary_first + i == c->targets->values[row])
                target = x;
        }
        for (uint32_t i = 0; i < cross->vocabulary_count; i++)
            sum += exp(c->logits[p]->values[row * cross->columns + i] - largest);
        const double *found = parts->values + (p * ROWS + row) * 3;
        if (found[0] != largest || !(fabs(found[1] - sum) <= 64 * F32_STEP * sum) ||
            found[2] != target)
            fail_msg("row %zu of part %u: max %g, sum %g, target %g, not %g, %g, %g", row, p,
                     found[0], found[1], found[2], largest, sum, target);
    }
}

static void check_gradient(const struct loss_case *c, uint32_t p, const double *lse,
                           struct buffer *gradient)
{
    const struct cm_cross_entropy *cross = &c->cross[p];
    size_t count = c->logits[p]->count;
    double *expected = new_doubles(count), *noise = new_doubles(count);
    double scale = (double)cross->scale;
    for (size_t i = 0; i < count; i++) {
        size_t row = i / cross->columns, column = i % cross->columns;
        double target = c->targets->values[row];
        if (target < 0 || column >= cross->vocabulary_count)
            continue;
        bool hit = (double)(cross->vocabulary_first + column) == target;
        double x = c->logits[p]->values[i], share = exp(x - lse[row]);
        expected[i] = (share - (hit ? 1 : 0)) * scale;
        noise[i] = (8 + fabs(x - lse[row]) + fabs(lse[row])) * 4 * F32_STEP * scale *
                   (share + (hit ? 1 : 0));
    }
    expect(gradient, expected, noise, "gradient of logits");
    free(expected);
    free(noise);
}

static void check_cross_entropy(const struct vocabulary *vocabulary)
{
    struct loss_case c = new_loss_case(vocabulary);
    uint32_t count = vocabulary->parts, words = count * vocabulary->words;
    struct buffer *parts = new_buffer(CM_F32, (size_t)count * ROWS * 3);
    struct cm_softmax_part *device = at(parts);
    double lse[ROWS], loss[ROWS], noise[ROWS];
    for (size_t row = 0; row < ROWS; row++) {
        double largest = -INFINITY, sum = 0, target = c.targets->values[row];
        for (uint32_t i = 0; i < words; i++)
            largest = fmax(largest, logit_of(&c, row, i));
        for (uint32_t i = 0; i < words; i++)
            sum += exp(logit_of(&c, row, i) - largest);
        lse[row] = largest + log(sum);
        loss[row] = target < 0 ? 0 : lse[row] - logit_of(&c, row, (uint32_t)target);
        noise[row] = 16 * F32_STEP * (1 + fabs(lse[row]));
    }
    for (uint32_t p = 0; p < count; p++)
        assert_ok(kernels()->softmax_parts(bench.stream, &c.cross[p], at(c.logits[p]),
                                           at(c.targets), device + p * ROWS));
    fetch(parts);
    for (uint32_t p = 0; p < count; p++)
        check_parts(&c, p, parts);
    for (uint32_t p = 0; p < count; p++) {
        struct buffer *gradient = new_buffer(vocabulary->dtype, c.logits[p]->count);
        struct buffer *losses = new_buffer(CM_F32, ROWS);
        memcpy(gradient->values, c.logits[p]->values, gradient->count * sizeof(double));
        give(gradient);
        assert_ok(kernels()->cross_entropy(bench.stream, &c.cross[p], at(gradient), at(c.targets),
                                           at(parts), at(losses)));
        expect(losses, loss, noise, "loss");
        check_gradient(&c, p, lse, gradient);
    }
    free_buffers();
}

static void cross_entropy_is_right(void **state)
{
    (void)state;
    for (size_t d = 0; d < 2; d++) {
        enum cm_dtype dtype = step_types[d];
        check_cross_entropy(&(struct vocabulary){dtype, 1, 1, 8, 1});
        check_cross_entropy(&(struct vocabulary){dtype, 1, 130, 136, 1});
        check_cross_entropy(&(struct vocabulary){dtype, 3, 500, 512, 5});
        check_cross_entropy(&(struct vocabulary){dtype, 2, 1031, 1031, 40});
        check_cross_entropy(&(struct vocabulary){dtype, 1, 5000, 5120, 5});
    }
}

/* ---- sum, clip_factor ---- */

static void check_sum(size_t count, bool squares, bool accumulate)
{
    struct buffer *x = normal(CM_F32, count, 0.1, 1), *sum = normal(CM_F32, 1, 0, 1);
    struct buffer *room = scratch(cm_sum_scratch_bytes(count));
    double expected = 0, size = 0, factor = 0.37f;
    for (size_t i = 0; i < count; i++) {
        double term = squares ? x->values[i] * x->values[i] : x->values[i];
        expected += factor * term;
        size += factor * fabs(term);
    }
    double before = accumulate ? sum->values[0] : 0;
    expected += before;
    size = 16 * F32_STEP * (size + fabs(before));
    assert_ok(
        kernels()->sum(bench.stream, at(x), count, squares, 0.37f, accumulate, at(sum), at(room)));
    expect(sum, &expected, &size, "sum");
    fetch_scratch(room);
    free_buffers();
}

static void sums_are_right(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 7, 1000, 16385, 40001, 200003};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++)
        for (int squares = 0; squares < 2; squares++)
            for (int accumulate = 0; accumulate < 2; accumulate++)
                check_sum(counts[c], squares, accumulate);
}

static void clip_factor_is_right(void **state)
{
    (void)state;
    static const struct {
        float squares, limit;
        double factor;
    } cases[] = {{16, 1, 0.25}, {16, 4, 1}, {16, 5, 1}, {0, 1, 1}, {100, 0, 1}, {9, 0.5f, 1.0 / 6}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buffer *squares = new_buffer(CM_F32, 1), *factor = new_buffer(CM_F32, 1);
        squares->values[0] = (double)cases[i].squares;
        give(squares);
        assert_ok(kernels()->clip_factor(bench.stream, at(squares), cases[i].limit, at(factor)));
        expect(factor, &cases[i].factor, NULL, "clip_factor");
        free_buffers();
    }
}

/* ---- AdamW ---- */

enum rounding { NEAREST, STOCHASTIC, IN_PLACE, APART };

/* The 16 random bits of an element: where its value stands in the table of quantiles. */
static uint32_t random_bits(uint64_t seed, uint64_t index)
{
    const float *table = cm_random_table();
    float value = cm_random_normal(seed, index);
    uint32_t low = 0, high = 65535;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (table[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void check_weights(const struct cm_adamw *adamw, const struct buffer *master,
                          const struct buffer *weights)
{
    for (size_t i = 0; i < adamw->count; i++) {
        float value = (float)master->values[i];
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        double expected = master->values[i];
        uint16_t half;
        if (adamw->stochastic)
            half = (uint16_t)((bits + random_bits(adamw->seed, adamw->first + i)) >> 16);
        else
            cm_dtype_store(CM_BF16, expected, &half);
        if (adamw->dtype == CM_BF16)
            expected = cm_dtype_load(CM_BF16, &half);
        if (weights->values[i] != expected)
            fail_msg("weight %zu of master %a is %a, not %a", i, master->values[i],
                     weights->values[i], expected);
    }
}

static void check_adamw(size_t count, enum rounding rounding, uint32_t step, uint64_t first)
{
    enum cm_dtype dtype = rounding == NEAREST || rounding == STOCHASTIC ? CM_BF16 : CM_F32;
    struct cm_adamw adamw = {
        dtype, count, 3e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, step, 77, first, rounding == STOCHASTIC};
    struct buffer *gradient = normal(CM_F32, count, 0, 0.1), *factor = normal(CM_F32, 1, 1, 0.1);
    struct buffer *master = normal(CM_F32, count, 0, 0.5), *m = normal(CM_F32, count, 0, 0.05);
    struct buffer *v = normal(CM_F32, count, 0, 1);
    struct buffer *weights = rounding == IN_PLACE ? master : new_buffer(dtype, count);
    double *exact[3], *noise[3];
    for (int i = 0; i < 3; i++) {
        exact[i] = new_doubles(count);
        noise[i] = new_doubles(count);
    }
    double b1 = (double)adamw.beta1, b2 = (double)adamw.beta2, rate = (double)adamw.learning_rate;
    for (size_t i = 0; i < count; i++) {
        v->values[i] = i % 10 == 0 ? 0 : 0.01 * v->values[i] * v->values[i];
        gradient->values[i] = i % 10 == 0 ? 0 : gradient->values[i];
    }
    give(v);
    give(gradient);
    for (size_t i = 0; i < count; i++) {
        double g = gradient->values[i] * factor->values[0], old = master->values[i];
        exact[0][i] = b1 * m->values[i] + (1 - b1) * g;
        exact[1][i] = b2 * v->values[i] + (1 - b2) * g * g;
        double mean = exact[0][i] / (1 - pow(b1, step)),
               mean_size = (fabs(b1 * m->values[i]) + fabs((1 - b1) * g)) / (1 - pow(b1, step));
        double root = sqrt(exact[1][i] / (1 - pow(b2, step))) + (double)adamw.epsilon;
        exact[2][i] = old - rate * (mean / root + (double)adamw.weight_decay * old);
        noise[0][i] = 4 * F32_STEP * (fabs(b1 * m->values[i]) + fabs(g));
        noise[1][i] = 4 * F32_STEP * exact[1][i];
        noise[2][i] = 16 * F32_STEP * (fabs(old) + rate * mean_size / root);
    }
    assert_ok(kernels()->adamw(bench.stream, &adamw, at(gradient), at(factor), at(master), at(m),
                               at(v), at(weights)));
    expect(m, exact[0], noise[0], "m");
    expect(v, exact[1], noise[1], "v");
    expect(master, exact[2], noise[2], "master");
    fetch(weights);
    check_weights(&adamw, master, weights);
    for (int i = 0; i < 3; i++) {
        free(exact[i]);
        free(noise[i]);
    }
    free_buffers();
}

static void adamw_is_right(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 7, 1000, 1025, 20001};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        for (int rounding = NEAREST; rounding <= APART; rounding++) {
            check_adamw(counts[c], (enum rounding)rounding, 1, 0);
            check_adamw(counts[c], (enum rounding)rounding, 1000, 12345);
        }
    }
}

/* ---- mixture of experts ---- */

struct experts_case {
    struct cm_route route;
    size_t choices, slots;
    struct buffer *logits, *slot, *expert, *weight, *counts, *room;
};

/* Logits in steps of `step`, so that many are equal; 0: all different. */
static struct experts_case new_experts(enum cm_dtype dtype, uint64_t rows, uint64_t columns,
                                       uint32_t experts, uint32_t top_k, uint64_t capacity,
                                       double step)
{
    struct experts_case made = {.route = {dtype, rows, columns, experts, top_k, capacity}};
    made.choices = rows * top_k;
    made.slots = experts * capacity;
    made.logits = normal(CM_F32, rows * experts, 0, 1);
    for (size_t i = 0; step > 0 && i < made.logits->count; i++)
        made.logits->values[i] = step * round(made.logits->values[i] / step);
    give(made.logits);
    made.slot = new_buffer(CM_I32, made.choices);
    made.expert = new_buffer(CM_I32, made.choices);
    made.weight = new_buffer(CM_F32, made.choices);
    made.counts = new_buffer(CM_I32, experts);
    made.room = scratch(cm_route_scratch_bytes(&made.route));
    assert_ok(kernels()->route(bench.stream, &made.route, at(made.logits), at(made.slot),
                               at(made.expert), at(made.weight), at(made.counts), at(made.room)));
    fetch_scratch(made.room);
    return made;
}

/* How many experts of a row come before expert `e`. */
static uint32_t rank_of(const double *logits, uint32_t experts, uint32_t e)
{
    uint32_t rank = 0;
    for (uint32_t other = 0; other < experts; other++)
        rank += logits[other] > logits[e] || (logits[other] == logits[e] && other < e);
    return rank;
}

static void check_route(struct experts_case *c)
{
    uint32_t experts = c->route.experts, top_k = c->route.top_k;
    double *slot = new_doubles(c->choices), *expert = new_doubles(c->choices);
    double *weight = new_doubles(c->choices), *counts = new_doubles(experts);
    for (uint64_t row = 0; row < c->route.rows; row++) {
        const double *logits = c->logits->values + row * experts;
        double sum = 0;
        for (uint32_t e = 0; e < experts; e++) {
            size_t place = row * top_k + rank_of(logits, experts, e);
            if (place >= (row + 1) * top_k)
                continue;
            expert[place] = e;
            sum += weight[place] = exp(logits[e]);
            slot[place] = counts[e] < (double)c->route.capacity
                              ? (double)e * (double)c->route.capacity + counts[e]
                              : -1;
            counts[e]++;
        }
        for (size_t i = row * top_k; i < (row + 1) * top_k; i++)
            weight[i] /= sum;
    }
    expect(c->expert, expert, NULL, "expert");
    expect(c->slot, slot, NULL, "slot");
    expect(c->weight, weight, NULL, "weight");
    expect(c->counts, counts, NULL, "counts");
    free(slot);
    free(expert);
    free(weight);
    free(counts);
}

/* The derivative of sum(dweight * weight), by central differences of the softmax of those chosen.
 */
static void check_route_backward(struct experts_case *c)
{
    uint32_t experts = c->route.experts, top_k = c->route.top_k;
    struct buffer *dweight = normal(CM_F32, c->choices, 0, 1);
    struct buffer *dlogits = new_buffer(CM_F32, c->route.rows * experts);
    double *expected = new_doubles(dlogits->count), *noise = new_doubles(dlogits->count);
    const double reach = 1e-5;
    for (size_t i = 0; i < c->choices; i++) {
        size_t row = i / top_k, place = row * experts + (size_t)c->expert->values[i];
        double side[2];
        for (int s = 0; s < 2; s++) {
            double sum = 0, total = 0;
            for (size_t j = row * top_k; j < (row + 1) * top_k; j++) {
                double logit = c->logits->values[row * experts + (size_t)c->expert->values[j]];
                double power = exp(logit + (j != i ? 0 : s == 0 ? -reach : reach));
                sum += power;
                total += power * dweight->values[j];
            }
            side[s] = total / sum;
        }
        expected[place] = (side[1] - side[0]) / (2 * reach);
        noise[place] = 64 * F32_STEP;
    }
    assert_ok(kernels()->route_backward(bench.stream, &c->route, at(c->expert), at(c->weight),
                                        at(dweight), at(dlogits)));
    expect(dlogits, expected, noise, "route_backward");
    free(expected);
    free(noise);
}

static void check_permute(struct experts_case *c)
{
    uint64_t columns = c->route.columns;
    struct buffer *x = normal(c->route.dtype, c->route.rows * columns, 0, 1);
    struct buffer *out = new_buffer(c->route.dtype, c->slots * columns);
    double *expected = new_doubles(out->count);
    for (size_t i = 0; i < c->choices; i++)
        if (c->slot->values[i] >= 0)
            memcpy(expected + (size_t)c->slot->values[i] * columns,
                   x->values + i / c->route.top_k * columns, columns * sizeof *expected);
    assert_ok(
        kernels()->permute(bench.stream, &c->route, at(x), at(c->slot), at(out), at(c->room)));
    expect(out, expected, NULL, "permute");
    fetch_scratch(c->room);
    free(expected);
}

static void check_unpermute(struct experts_case *c, bool weighted)
{
    uint64_t columns = c->route.columns;
    struct buffer *slots = normal(c->route.dtype, c->slots * columns, 0, 1);
    struct buffer *out = new_buffer(c->route.dtype, c->route.rows * columns);
    double *expected = new_doubles(out->count), *noise = new_doubles(out->count);
    for (size_t i = 0; i < c->choices * columns; i++) {
        size_t choice = i / columns, place = choice / c->route.top_k * columns + i % columns;
        if (c->slot->values[choice] < 0)
            continue;
        double term = slots->values[(size_t)c->slot->values[choice] * columns + i % columns] *
                      (weighted ? c->weight->values[choice] : 1);
        expected[place] += term;
        noise[place] += 8 * F32_STEP * fabs(term);
    }
    assert_ok(kernels()->unpermute(bench.stream, &c->route, at(slots), at(c->slot),
                                   weighted ? at(c->weight) : NULL, at(out)));
    expect(out, expected, noise, "unpermute");
    free(expected);
    free(noise);
}

static void check_unpermute_backward(struct experts_case *c)
{
    uint64_t columns = c->route.columns;
    enum cm_dtype dtype = c->route.dtype;
    struct buffer *slots = normal(dtype, c->slots * columns, 0, 1);
    struct buffer *dout = normal(dtype, c->route.rows * columns, 0, 1);
    struct buffer *dslots = new_buffer(dtype, c->slots * columns);
    struct buffer *dweight = new_buffer(CM_F32, c->choices);
    double *expected = new_doubles(dslots->count), *sums = new_doubles(c->choices);
    double *noise = new_doubles(c->choices);
    for (size_t i = 0; i < c->choices * columns; i++) {
        size_t choice = i / columns;
        if (c->slot->values[choice] < 0)
            continue;
        size_t place = (size_t)c->slot->values[choice] * columns + i % columns;
        double d = dout->values[choice / c->route.top_k * columns + i % columns];
        expected[place] = d * c->weight->values[choice];
        sums[choice] += d * slots->values[place];
        noise[choice] += 8 * F32_STEP * fabs(d * slots->values[place]);
    }
    assert_ok(kernels()->unpermute_backward(bench.stream, &c->route, at(dout), at(slots),
                                            at(c->slot), at(c->weight), at(dslots), at(dweight),
                                            at(c->room)));
    expect(dslots, expected, NULL, "dslots");
    expect(dweight, sums, noise, "dweight");
    fetch_scratch(c->room);
    free(expected);
    free(sums);
    free(noise);
}

static void check_experts(struct experts_case c)
{
    check_route(&c);
    check_route_backward(&c);
    check_permute(&c);
    check_unpermute(&c, true);
    check_unpermute(&c, false);
    check_unpermute_backward(&c);
    free_buffers();
}

static void experts_are_right(void **state)
{
    (void)state;
    for (size_t d = 0; d < 2; d++) {
        enum cm_dtype dtype = step_types[d];
        check_experts(new_experts(dtype, 1, 1, 1, 1, 1, 0));
        check_experts(new_experts(dtype, 50, 24, 8, 2, 50, 0));    /* none is dropped */
        check_experts(new_experts(dtype, 300, 72, 8, 2, 60, 0.5)); /* some are */
        check_experts(new_experts(dtype, 1000, 33, 16, 3, 40, 1)); /* most are */
        check_experts(new_experts(dtype, 129, 1032, 256, 8, 3, 0.25));
        check_experts(new_experts(dtype, 70, 8, 5, 5, 100, 0)); /* all experts for all */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fetched_anew),   cmocka_unit_test(cross_entropy_is_right),
        cmocka_unit_test(sums_are_right), cmocka_unit_test(clip_factor_is_right),
        cmocka_unit_test(adamw_is_right), cmocka_unit_test(experts_are_right),
    };
    return cm_test_backends(tests, ((const unsigned[]){1, 2, 0}));
}
