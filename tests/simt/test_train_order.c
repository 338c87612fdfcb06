/*
 * The CUDA kernels of a training step that bring an order into things or sum over everything, run
 * by the emulator, against kernels/cpu: embedding, sums, the optimizer, mixture of experts.
 */
#include "simt/trio.h"

#define INTS(array)   ((int32_t *)(void *)(array).at)
#define FLOATS(array) ((float *)(void *)(array).at)

/* ---- Embedding ---- */

struct embed_case {
    struct cm_embed embed;
    int lowest, highest; /* of the tokens, highest excluded */
    bool learned;
};

static void check_embed(const struct embed_case *given)
{
    const struct cm_embed *embed = &given->embed;
    const struct cm_positions *positions = &embed->positions;
    size_t count = embed->rows * embed->columns, length = positions->first[1] + embed->rows;
    struct array tokens = integers(embed->rows, given->lowest, given->highest);
    struct array table = normal(embed->vocabulary_count * embed->columns, embed->dtype, 0, 1);
    struct array learned = normal(length * embed->columns, embed->dtype, 0, 1);
    struct array dout = normal(count, embed->dtype, 0, 1);
    struct array scratch = new_array(cm_embed_scratch_bytes(embed), CM_I8);
    struct trio out = new_trio(count, embed->dtype);
    struct trio dtable = trio_of(normal(table.count, CM_F32, 0, 1));
    struct trio dlearned = trio_of(normal(learned.count, CM_F32, 0, 1));
    for (int run = 0; run < 3; run++) {
        LAUNCH(run, embed, embed, INTS(tokens), table.at, given->learned ? learned.at : NULL,
               out.of[run].at);
        memset(scratch.at, POISON, scratch.size);
        LAUNCH(run, embed_backward, embed, INTS(tokens), dout.at, FLOATS(dtable.of[run]),
               given->learned ? FLOATS(dlearned.of[run]) : NULL, scratch.at);
        check_guards(&scratch);
    }
    check_same(&out, "embed");
    check(&dtable, 1e-6 * (double)embed->rows, 1e-5, "dtable");
    check(&dlearned, 1e-5, 1e-5, "dlearned");
    free_array(&tokens);
    free_array(&table);
    free_array(&learned);
    free_array(&dout);
    free_array(&scratch);
}

static void embeddings(void **state)
{
    (void)state;
    /* rows, columns, lowest and highest token; the table has tokens 20 to 119 */
    static const int shapes[][4] = {{1, 8, 20, 120},     {5, 7, 0, 200},    {33, 40, 30, 33},
                                    {64, 264, 50, 51},   {99, 1, -1, 25},   {130, 520, 100, 140},
                                    {1025, 16, 15, 125}, {1500, 8, 60, 62}, {3001, 9, 0, 140},
                                    {2050, 24, 70, 71},  {40, 8, 120, 130}, {4100, 4, 0, 121}};
    for (size_t s = 0; s < 2 * TYPES * LENGTH(shapes); s++) {
        const int *shape = shapes[s / TYPES / 2];
        uint32_t batch = 1 + below(4), rows = (uint32_t)shape[0] / batch * batch;
        rows = rows == 0 ? batch : rows;
        struct embed_case given = {.embed = {.dtype = step_types[s % TYPES],
                                             .rows = rows,
                                             .columns = (uint64_t)shape[1],
                                             .vocabulary_first = 20,
                                             .vocabulary_count = 100,
                                             .positions = {batch, rows / batch / 2, {2, rows}}},
                                   .lowest = shape[2],
                                   .highest = shape[3],
                                   .learned = s / TYPES % 2};
        check_embed(&given);
    }
}

/* ---- Sums, and the factor that clips ---- */

static const size_t counts[] = {0, 1, 3, 4, 5, 1023, 4096, 4097, 30011, 300007};

static void sums(void **state)
{
    (void)state;
    for (size_t c = 0; c < 4 * LENGTH(counts); c++) {
        size_t count = counts[c / 4];
        struct array x = normal(count, CM_F32, 0.1, 1);
        struct array scratch = new_array(cm_sum_scratch_bytes(count), CM_I8);
        struct trio sum = trio_of(normal(1, CM_F32, 0, 1));
        for (int run = 0; run < 3; run++) {
            memset(scratch.at, POISON, scratch.size);
            LAUNCH(run, sum, FLOATS(x), count, c & 1, 0.5f, c & 2, FLOATS(sum.of[run]), scratch.at);
            check_guards(&scratch);
        }
        check(&sum, 1e-5 * sqrt((double)count), 3e-6, "sum");
        free_array(&x);
        free_array(&scratch);
    }
}

static void clip_factors(void **state)
{
    (void)state;
    static const float given[][2] = {{4, 1}, {4, 2}, {4, 3}, {0, 1}, {100, 0}, {2, 1}, {1e30f, 1}};
    for (size_t i = 0; i < LENGTH(given); i++) {
        struct array squares = new_array(1, CM_F32);
        struct trio factor = new_trio(1, CM_F32);
        set(&squares, 0, (double)given[i][0]);
        for (int run = 0; run < 3; run++)
            LAUNCH(run, clip_factor, FLOATS(squares), given[i][1], FLOATS(factor.of[run]));
        check(&factor, 0, 0, "clip_factor");
        free_array(&squares);
    }
}

/* ---- Optimizer ---- */

static void check_adamw(const struct cm_adamw *adamw, bool in_master)
{
    struct array gradient = normal(adamw->count, CM_F32, 0, 1), factor = normal(1, CM_F32, 0.7, 0);
    struct array squares = normal(adamw->count, CM_F32, 0, 1);
    struct trio master = trio_of(normal(adamw->count, CM_F32, 0, 0.1));
    struct trio m = trio_of(normal(adamw->count, CM_F32, 0, 1));
    struct trio weights = new_trio(adamw->count, adamw->dtype);
    for (size_t i = 0; i < adamw->count; i++)
        set(&squares, i, element(&squares, i) * element(&squares, i));
    struct trio v = trio_of(squares);
    for (int run = 0; run < 3; run++)
        LAUNCH(run, adamw, adamw, FLOATS(gradient), FLOATS(factor), FLOATS(master.of[run]),
               FLOATS(m.of[run]), FLOATS(v.of[run]),
               in_master ? master.of[run].at : weights.of[run].at);
    /* A last bit of the master decides on the rounding only where there is a step at all. */
    if (adamw->learning_rate == 0) {
        check_same(&weights, "weights");
        check_same(&master, "master");
    } else {
        check(&weights, 1e-7, 1e-6, "weights");
        check(&master, 1e-7, 1e-6, "master");
    }
    check(&m, 1e-7, 1e-6, "m");
    check(&v, 1e-7, 1e-6, "v");
    free_array(&gradient);
    free_array(&factor);
}

static void optimizer_steps(void **state)
{
    (void)state;
    static const uint64_t firsts[] = {0, 3, 4, 6, 8, (UINT64_C(1) << 35) - 5};
    for (size_t c = 0; c < 6 * LENGTH(counts) * LENGTH(firsts); c++) {
        unsigned kind = (unsigned)(c % 3);
        struct cm_adamw adamw = {.dtype = kind == 0 ? CM_F32 : CM_BF16,
                                 .count = counts[c / 6 % LENGTH(counts)],
                                 .learning_rate = c / 3 % 2 == 0 ? 0 : 0.01f,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.95f,
                                 .epsilon = 1e-8f,
                                 .weight_decay = 0.1f,
                                 .step = 1 + below(1000),
                                 .seed = next_random(),
                                 .first = firsts[c / 6 / LENGTH(counts)],
                                 .stochastic = kind == 2};
        if (adamw.count > (adamw.first == 3 ? 30011 : 4097))
            continue;
        check_adamw(&adamw, kind == 0 && c / 6 % 2 == 0);
    }
}

/* The mean of many roundings is the number itself, and what is no number stays so. */
static void stochastic_rounding_is_fair(void **state)
{
    (void)state;
    const size_t count = 40000;
    const double value = 1 + 0.3 / 128;
    struct cm_adamw adamw = {.dtype = CM_BF16,
                             .count = count,
                             .step = 1,
                             .seed = next_random(),
                             .stochastic = true,
                             .epsilon = 1,
                             .beta1 = 0.9f,
                             .beta2 = 0.9f};
    struct array zeros = normal(count, CM_F32, 0, 0), master = normal(count, CM_F32, value, 0);
    struct array m = normal(count, CM_F32, 0, 0), v = normal(count, CM_F32, 0, 0);
    struct array weights = new_array(count, CM_BF16);
    set(&master, 0, INFINITY);
    set(&master, 1, NAN);
    adamw.weight_decay = 0;
    assert_int_equal(cm_cuda_adamw(NULL, &adamw, FLOATS(zeros), FLOATS(zeros), FLOATS(master),
                                   FLOATS(m), FLOATS(v), weights.at),
                     0);
    double sum = 0, deviation = sqrt(0.3 * 0.7 / (double)count) / 128;
    for (size_t i = 2; i < count; i++) {
        double found = element(&weights, i);
        assert_true(found == 1 || found == 1 + 1.0 / 128);
        sum += found;
    }
    assert_true(fabs(sum / (double)(count - 2) - value) < 5 * deviation);
    assert_true(isnan(element(&weights, 0)) && isnan(element(&weights, 1)));
    free_array(&zeros);
    free_array(&master);
    free_array(&m);
    free_array(&v);
    free_array(&weights);
}

/* ---- Mixture of experts ---- */

static void check_moves(const struct cm_route *route, const struct array *slot,
                        const struct array *weight, const struct array *scratch)
{
    size_t rows = route->rows * route->columns, choices = route->rows * route->top_k;
    size_t places = route->experts * route->capacity * route->columns;
    struct array x = normal(rows, route->dtype, 0, 1), slots = normal(places, route->dtype, 0, 1);
    struct trio out = new_trio(places, route->dtype), back = new_trio(rows, route->dtype);
    struct trio plain = new_trio(rows, route->dtype), dslots = new_trio(places, route->dtype);
    struct trio dweight = new_trio(choices, CM_F32);
    for (int run = 0; run < 3; run++) {
        memset(scratch->at, POISON, scratch->size);
        LAUNCH(run, permute, route, x.at, INTS(*slot), out.of[run].at, scratch->at);
        LAUNCH(run, unpermute, route, slots.at, INTS(*slot), FLOATS(*weight), back.of[run].at);
        LAUNCH(run, unpermute, route, slots.at, INTS(*slot), NULL, plain.of[run].at);
        memset(scratch->at, POISON, scratch->size);
        LAUNCH(run, unpermute_backward, route, x.at, slots.at, INTS(*slot), FLOATS(*weight),
               dslots.of[run].at, FLOATS(dweight.of[run]), scratch->at);
        check_guards(scratch);
    }
    check_same(&out, "permute");
    check(&back, 1e-6, 1e-6, "unpermute");
    check(&plain, 1e-6, 1e-6, "unpermute without weights");
    check(&dslots, 1e-7, 1e-6, "dslots");
    check(&dweight, 1e-5 * sqrt((double)route->columns), 1e-5, "dweight");
    free_array(&x);
    free_array(&slots);
}

static void check_route(const struct cm_route *route, bool ties)
{
    size_t choices = route->rows * route->top_k, logit_count = route->rows * route->experts;
    struct array logits = ties ? integers(logit_count, -2, 2) : new_array(0, CM_I32);
    struct array values = normal(logit_count, CM_F32, 0, 2);
    for (size_t i = 0; ties && i < logit_count; i++)
        set(&values, i, element(&logits, i));
    struct array scratch = new_array(cm_route_scratch_bytes(route), CM_I8);
    struct array dweight = normal(choices, CM_F32, 0, 1);
    struct trio slot = new_trio(choices, CM_I32), expert = new_trio(choices, CM_I32);
    struct trio weight = new_trio(choices, CM_F32), wanted = new_trio(route->experts, CM_I32);
    struct trio dlogits = new_trio(logit_count, CM_F32);
    for (int run = 0; run < 3; run++) {
        memset(scratch.at, POISON, scratch.size);
        LAUNCH(run, route, route, FLOATS(values), INTS(slot.of[run]), INTS(expert.of[run]),
               FLOATS(weight.of[run]), (uint32_t *)(void *)wanted.of[run].at, scratch.at);
        LAUNCH(run, route_backward, route, INTS(expert.of[2 * (run == 2)]),
               FLOATS(weight.of[2 * (run == 2)]), FLOATS(dweight), FLOATS(dlogits.of[run]));
        check_guards(&scratch);
    }
    check_moves(route, &slot.of[2], &weight.of[2], &scratch);
    check_same(&slot, "slot");
    check_same(&expert, "expert");
    check_same(&wanted, "counts");
    check(&weight, 0, 3e-6, "weight");
    check(&dlogits, 2e-6, 1e-5, "dlogits");
    free_array(&logits);
    free_array(&values);
    free_array(&scratch);
    free_array(&dweight);
}

static void experts(void **state)
{
    (void)state;
    /* rows, columns, experts, top_k, capacity */
    static const uint32_t shapes[][5] = {
        {1, 8, 1, 1, 1},      {5, 7, 3, 2, 3},      {128, 16, 8, 2, 32},   {129, 72, 64, 8, 10},
        {300, 24, 256, 5, 9}, {1000, 8, 4, 1, 300}, {2100, 4, 33, 3, 190}, {40, 600, 8, 8, 40}};
    for (size_t s = 0; s < 2 * TYPES * LENGTH(shapes); s++) {
        const uint32_t *shape = shapes[s / TYPES / 2];
        struct cm_route route = {
            step_types[s % TYPES], shape[0], shape[1], shape[2], shape[3], shape[4]};
        check_route(&route, s / TYPES % 2);
    }
    struct cm_route many = {CM_F32, 1, 8, 257, 1, 1};
    assert_int_not_equal(cm_cuda_route(NULL, &many, NULL, NULL, NULL, NULL, NULL, NULL), 0);
}

/* What is not a number never wins, and does no harm. */
static void experts_of_nans(void **state)
{
    (void)state;
    struct cm_route route = {CM_F32, 3, 8, 40, 2, 5};
    struct array logits = new_array(120, CM_F32), scratch = new_array(4096, CM_I8);
    struct array slot = new_array(6, CM_I32), expert = new_array(6, CM_I32);
    struct array weight = new_array(6, CM_F32), wanted = new_array(40, CM_I32);
    for (size_t i = 0; i < 120; i++)
        set(&logits, i, i == 37 ? 5 : i == 2 ? -5 : NAN);
    assert_int_equal(cm_cuda_route(NULL, &route, FLOATS(logits), INTS(slot), INTS(expert),
                                   FLOATS(weight), (uint32_t *)(void *)wanted.at, scratch.at),
                     0);
    static const double expected[] = {37, 2, 0, 1, 0, 1};
    for (size_t i = 0; i < 6; i++)
        assert_true(element(&expert, i) == expected[i]);
    free_array(&logits);
    free_array(&scratch);
    free_array(&slot);
    free_array(&expert);
    free_array(&weight);
    free_array(&wanted);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings),
        cmocka_unit_test(sums),
        cmocka_unit_test(clip_factors),
        cmocka_unit_test(optimizer_steps),
        cmocka_unit_test(stochastic_rounding_is_fair),
        cmocka_unit_test(experts),
        cmocka_unit_test(experts_of_nans),
    };
    draw_inputs();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
