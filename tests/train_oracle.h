/*
 * train_oracle.h: what an independent framework says about a training step of the tiny models:
 * tests/fixtures/train/<model>.json, which make.py beside them writes. Needs CM_TEST_FIXTURES,
 * which an environment variable of that name goes before.
 *
 *     struct oracle oracle;
 *     oracle_load("tiny", &oracle);
 *     const struct oracle_parameter *wanted = oracle_find(&oracle, "layer0.qkv");
 *     assert_true(oracle_error(wanted, piece.first, piece.count, gradient) < 1e-4);
 */
#ifndef TESTS_TRAIN_ORACLE_H
#define TESTS_TRAIN_ORACLE_H

#include "test.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/kernels.h"

#define ORACLE_STEPS 3

struct oracle_parameter {
    const char *name;
    uint64_t shape[3]; /* row-major; 1 where it has fewer dimensions */
    uint64_t count;
    double deviation, constant; /* of the initial values; deviation 0: all are `constant` */
    double initial[3];          /* of elements 0, 1 and the last */
    uint64_t stride;            /* values[i] is the gradient of element i * stride */
    size_t value_count;
    double *values;
    double sum, squares; /* of the whole gradient */
};

struct oracle {
    json_t *file; /* owns the texts */
    const char *model;
    uint64_t base_seed;                  /* cm_random_seed(base_seed, name, 0, 0) */
    uint64_t micro_batches, micro_batch; /* of all data-parallel ranks together */
    double learning_rate, beta1, beta2, epsilon, weight_decay, clip;
    double
        losses[ORACLE_STEPS]; /* of AdamW steps on one and the same batch; all parameters decay */
    double squares;           /* of all gradients of the first step, before clipping */
    int tokens[9];            /* the first sequence's first eight, and the last one's last */
    struct oracle_parameter *parameters;
    size_t parameter_count;
};

static inline void oracle_read_parameter(const json_t *row, struct oracle_parameter *out)
{
    json_t *shape, *initial, *values, *item;
    json_int_t stride;
    size_t i;
    assert_int_equal(json_unpack((json_t *)row, "{s:s, s:o, s:F, s:F, s:o, s:I, s:F, s:F, s:o}",
                                 "name", &out->name, "shape", &shape, "deviation", &out->deviation,
                                 "constant", &out->constant, "initial", &initial, "stride", &stride,
                                 "sum", &out->sum, "squares", &out->squares, "values", &values),
                     0);
    out->stride = (uint64_t)stride;
    out->count = 1;
    for (i = 0; i < 3; i++) {
        item = json_array_get(shape, i);
        out->shape[i] = item != NULL ? (uint64_t)json_integer_value(item) : 1;
        out->count *= out->shape[i];
        out->initial[i] = json_real_value(json_array_get(initial, i));
    }
    out->value_count = json_array_size(values);
    assert_int_equal(out->value_count, (out->count + out->stride - 1) / out->stride);
    out->values = calloc(out->value_count, sizeof *out->values);
    assert_non_null(out->values);
    json_array_foreach(values, i, item)
    {
        assert_true(json_is_real(item));
        out->values[i] = json_real_value(item);
    }
}

static inline void oracle_load(const char *model, struct oracle *oracle)
{
    char path[512];
    json_error_t error;
    json_t *losses, *tokens, *parameters;
    json_int_t seed, micro_batches, micro_batch;
    const char *elsewhere = getenv("CM_TEST_FIXTURES");
    snprintf(path, sizeof path, "%s/train/%s.json",
             elsewhere != NULL ? elsewhere : CM_TEST_FIXTURES, model);
    memset(oracle, 0, sizeof *oracle);
    oracle->file = json_load_file(path, 0, &error);
    if (oracle->file == NULL)
        fail_msg("%s:%d: %s", path, error.line, error.text);
    int read = json_unpack_ex(
        oracle->file, &error, 0,
        "{s:s, s:I, s:I, s:I, s:{s:F, s:F, s:F, s:F, s:F, s:F}, s:o, s:F, s:o, s:o}", "model",
        &oracle->model, "base_seed", &seed, "micro_batches", &micro_batches, "micro_batch",
        &micro_batch, "adamw", "learning_rate", &oracle->learning_rate, "beta1", &oracle->beta1,
        "beta2", &oracle->beta2, "epsilon", &oracle->epsilon, "weight_decay", &oracle->weight_decay,
        "clip", &oracle->clip, "losses", &losses, "squares", &oracle->squares, "tokens", &tokens,
        "parameters", &parameters);
    if (read != 0)
        fail_msg("%s: %s", path, error.text);
    oracle->base_seed = (uint64_t)seed;
    oracle->micro_batches = (uint64_t)micro_batches;
    oracle->micro_batch = (uint64_t)micro_batch;
    assert_int_equal(json_array_size(losses), ORACLE_STEPS);
    for (size_t i = 0; i < ORACLE_STEPS; i++)
        oracle->losses[i] = json_real_value(json_array_get(losses, i));
    assert_int_equal(json_array_size(tokens), 9);
    for (size_t i = 0; i < 9; i++)
        oracle->tokens[i] = (int)json_integer_value(json_array_get(tokens, i));
    oracle->parameter_count = json_array_size(parameters);
    oracle->parameters = calloc(oracle->parameter_count, sizeof *oracle->parameters);
    assert_non_null(oracle->parameters);
    for (size_t i = 0; i < oracle->parameter_count; i++)
        oracle_read_parameter(json_array_get(parameters, i), &oracle->parameters[i]);
}

static inline void oracle_release(struct oracle *oracle)
{
    for (size_t i = 0; i < oracle->parameter_count; i++)
        free(oracle->parameters[i].values);
    free(oracle->parameters);
    json_decref(oracle->file);
}

static inline const struct oracle_parameter *oracle_find(const struct oracle *oracle,
                                                         const char *name)
{
    for (size_t i = 0; i < oracle->parameter_count; i++)
        if (strcmp(oracle->parameters[i].name, name) == 0)
            return &oracle->parameters[i];
    fail_msg("no gradient of %s for %s", name, oracle->model);
    return NULL;
}

/* Element `index` of a parameter before the first step. */
static inline float oracle_initial(const struct oracle *oracle,
                                   const struct oracle_parameter *parameter, uint64_t index)
{
    uint64_t seed = cm_random_seed(oracle->base_seed, parameter->name, 0, 0);
    if (parameter->deviation == 0)
        return (float)parameter->constant;
    return (float)parameter->deviation * cm_random_normal(seed, index);
}

/* Token `position` (0 to the sequence's length, which is the last target) of a sequence; sequence b
 * of micro-batch g, counted over all data-parallel ranks, is g * micro_batch + b. */
static inline int oracle_token(const struct oracle *oracle, uint64_t length, uint64_t vocabulary,
                               uint64_t sequence, uint64_t position)
{
    uint64_t seed = cm_random_seed(oracle->base_seed, "tokens", 0, 0);
    uint64_t bits = cm_random_bits(seed, sequence * (length + 1) + position);
    return (int)(bits * vocabulary >> 32);
}

/* The largest difference among those of elements [first, first + count) that the file has, in units
 * of the root mean square of the parameter's whole gradient; NAN for what is not a number. */
static inline double oracle_error(const struct oracle_parameter *parameter, uint64_t first,
                                  uint64_t count, const float *gradient)
{
    double scale = sqrt(parameter->squares / (double)parameter->count), worst = 0;
    uint64_t index = (first + parameter->stride - 1) / parameter->stride;
    for (; index * parameter->stride < first + count; index++) {
        double got = (double)gradient[index * parameter->stride - first];
        double error = fabs(got - parameter->values[index]) / scale;
        worst = error > worst || isnan(error) ? error : worst;
        if (isnan(worst))
            break;
    }
    return worst;
}

/* Of a whole gradient, also of what the file leaves out: the larger of the relative error of its
 * squares' sum and the error of its sum in units of the square root of that. */
static inline double oracle_total_error(const struct oracle_parameter *parameter,
                                        const float *gradient)
{
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < parameter->count; i++) {
        sum += (double)gradient[i];
        squares += (double)gradient[i] * (double)gradient[i];
    }
    double error = fabs(sum - parameter->sum) / sqrt(parameter->squares);
    double other = fabs(squares - parameter->squares) / parameter->squares;
    return isnan(error) || error > other ? error : other;
}

#endif
