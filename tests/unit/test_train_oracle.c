/* The files that training steps are held against: that they are of the models which the program
 * has, and begin with the same weights and tokens. */
#include "train_oracle.h"

#include "clustermark/schedule.h"
#include "clustermark/transformer.h"

static const char *const models[] = {"tiny", "tiny-gpt", "tiny-moe"};

static void test_same_weights(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        struct oracle oracle;
        struct cm_transformer model;
        struct cm_parameter_counts counts;
        double total = 0, squares = 0;
        oracle_load(models[m], &oracle);
        assert_ok(cm_transformer_load(models[m], 0, &model));
        cm_transformer_count(&model, &counts);
        for (size_t i = 0; i < oracle.parameter_count; i++) {
            const struct oracle_parameter *row = &oracle.parameters[i];
            assert_ptr_equal(oracle_find(&oracle, row->name), row);
            total += (double)row->count;
            squares += row->squares;
            const uint64_t places[] = {0, 1, row->count - 1};
            for (size_t k = 0; k < 3; k++)
                assert_true((double)oracle_initial(&oracle, row, places[k]) == row->initial[k]);
        }
        assert_near(total, counts.total, 0);
        assert_near(squares, oracle.squares, 1e-9);
        oracle_release(&oracle);
    }
}

static void test_same_tokens(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        struct oracle oracle;
        struct cm_transformer model;
        oracle_load(models[m], &oracle);
        assert_ok(cm_transformer_load(models[m], 0, &model));
        uint64_t last = oracle.micro_batches * oracle.micro_batch - 1;
        for (uint64_t i = 0; i < 8; i++)
            assert_int_equal(oracle_token(&oracle, model.sequence, model.vocabulary, 0, i),
                             oracle.tokens[i]);
        assert_int_equal(
            oracle_token(&oracle, model.sequence, model.vocabulary, last, model.sequence),
            oracle.tokens[8]);
        oracle_release(&oracle);
    }
}

/* Each element of it is in the schedule once, maybe in several parameters: experts are one each. */
static void check_parameter(const struct cm_schedule *schedule, const struct oracle_parameter *row)
{
    unsigned char *seen = calloc(row->count, 1);
    assert_non_null(seen);
    for (uint32_t i = 0; i < schedule->parameter_count; i++) {
        const struct cm_parameter *own = &schedule->parameters[i];
        if (strcmp(own->name, row->name) != 0)
            continue;
        assert_near((double)own->deviation, row->deviation, 1e-6);
        assert_near((double)own->constant, row->constant, 0);
        for (unsigned k = 0; k < own->piece_count; k++) {
            assert_true(own->pieces[k].first + own->pieces[k].count <= row->count);
            for (uint64_t j = 0; j < own->pieces[k].count; j++)
                seen[own->pieces[k].first + j]++;
        }
    }
    for (uint64_t j = 0; j < row->count; j++)
        if (seen[j] != 1)
            fail_msg("%s: element %u is there %u times", row->name, (unsigned)j, seen[j]);
    free(seen);
}

/* The parameters of a schedule have the same names, sizes and initial values. */
static void test_same_parameters(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        struct oracle oracle;
        struct cm_step step;
        struct cm_schedule schedule;
        oracle_load(models[m], &oracle);
        memset(&step, 0, sizeof step);
        cm_step_defaults(&step);
        assert_ok(cm_transformer_load(models[m], 0, &step.model));
        assert_ok(cm_parallel_parse("dp=1", "test", &step.parallel));
        step.micro_batches = oracle.micro_batches;
        step.micro_batch = oracle.micro_batch;
        assert_ok(cm_schedule_build(&step, 0, &schedule));
        for (size_t i = 0; i < oracle.parameter_count; i++)
            check_parameter(&schedule, &oracle.parameters[i]);
        for (uint32_t i = 0; i < schedule.parameter_count; i++)
            assert_non_null(oracle_find(&oracle, schedule.parameters[i].name));
        cm_schedule_release(&schedule);
        oracle_release(&oracle);
    }
}

/* What any right answer must be: a model that knows nothing is wrong by the logarithm of its
 * vocabulary, a step makes it better, gradients of what was never seen are 0. */
static void test_plausible(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        struct oracle oracle;
        struct cm_transformer model;
        oracle_load(models[m], &oracle);
        assert_ok(cm_transformer_load(models[m], 0, &model));
        assert_near(oracle.losses[0], log((double)model.vocabulary), 0.01);
        for (size_t i = 1; i < ORACLE_STEPS; i++)
            assert_true(oracle.losses[i] < oracle.losses[i - 1]);
        assert_true(sqrt(oracle.squares) > oracle.clip); /* so that clipping does something */
        oracle_release(&oracle);
    }
}

/* The comparison itself: pieces, their places, what is no number. */
static void test_error(void **state)
{
    (void)state;
    double values[] = {1, -1, 1, -1};
    const struct oracle_parameter row = {
        .count = 10, .stride = 3, .value_count = 4, .values = values, .squares = 40};
    float whole[10] = {1, 9, 9, -1, 9, 9, 1, 9, 9, -1};
    assert_near(oracle_error(&row, 0, 10, whole), 0, 0);
    assert_near(oracle_error(&row, 2, 5, whole + 2), 0, 0);
    assert_near(oracle_error(&row, 4, 2, whole + 4), 0, 0); /* none of them is in the file */
    whole[6] = 1.5;
    assert_near(oracle_error(&row, 0, 10, whole), 0.25, 1e-12);
    assert_near(oracle_error(&row, 6, 1, whole + 6), 0.25, 1e-12);
    assert_near(oracle_error(&row, 7, 3, whole + 7), 0, 0);
    whole[3] = (float)NAN;
    assert_true(isnan(oracle_error(&row, 1, 9, whole + 1)));
    assert_true(isnan(oracle_total_error(&row, whole)));

    const struct oracle_parameter sums = {.count = 4, .sum = 2, .squares = 4};
    float four[4] = {1, 1, 1, -1};
    assert_near(oracle_total_error(&sums, four), 0, 0);
    four[0] = -1;
    assert_near(oracle_total_error(&sums, four), 1, 1e-12); /* the sum is 2 less */
    four[0] = 2;
    four[1] = 0;
    assert_near(oracle_total_error(&sums, four), 0.5, 1e-12); /* the squares are 6 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_weights),    cmocka_unit_test(test_same_tokens),
        cmocka_unit_test(test_same_parameters), cmocka_unit_test(test_plausible),
        cmocka_unit_test(test_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
