/* cm_product_check: right products pass, one wrong element is found, whatever the layout. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/product.h"

/* A sum of twelve uniform numbers: near enough to normal, and nothing of what is under test. */
static double normal(uint64_t *state)
{
    double sum = -6;
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*state >> 33) * 0x1p-31;
    }
    return sum;
}

struct matrices {
    struct cm_product product;
    void *a, *b, *c;
};

static size_t at(bool trans, uint64_t row, uint64_t column, uint64_t rows, uint64_t columns)
{
    return trans ? column * rows + row : row * columns + column;
}

/* The product by its definition, summed in f32 as matrix units do (f64 for f64). */
static void make(struct matrices *x)
{
    const struct cm_product *p = &x->product;
    size_t in = cm_dtype_size(p->dtype), out = cm_dtype_size(p->out_dtype);
    uint64_t state = 7;
    x->a = malloc(p->m * p->k * in);
    x->b = malloc(p->k * p->n * in);
    x->c = malloc(p->m * p->n * out);
    assert_true(x->a && x->b && x->c);
    for (uint64_t i = 0; i < p->m * p->k; i++)
        cm_dtype_store(p->dtype, normal(&state), (char *)x->a + i * in);
    for (uint64_t i = 0; i < p->k * p->n; i++)
        cm_dtype_store(p->dtype, normal(&state), (char *)x->b + i * in);
    for (uint64_t i = 0; i < p->m; i++) {
        for (uint64_t j = 0; j < p->n; j++) {
            double exact = 0;
            float rounded = 0;
            for (uint64_t l = 0; l < p->k; l++) {
                const char *a = (char *)x->a + at(p->trans_a, i, l, p->m, p->k) * in;
                const char *b = (char *)x->b + at(p->trans_b, l, j, p->k, p->n) * in;
                double one = cm_dtype_load(p->dtype, a) * cm_dtype_load(p->dtype, b);
                exact += one;
                rounded += (float)one;
            }
            cm_dtype_store(p->out_dtype, p->out_dtype == CM_F64 ? exact : (double)rounded,
                           (char *)x->c + (i * p->n + j) * out);
        }
    }
}

static void drop(struct matrices *x)
{
    free(x->a);
    free(x->b);
    free(x->c);
}

static struct cm_product_verdict check(const struct matrices *x, uint64_t seed, double budget)
{
    struct cm_product_verdict verdict = {0};
    assert_ok(cm_product_check(&x->product, x->a, x->b, x->c, seed, budget, &verdict));
    assert_int_equal(verdict.checked, x->product.m * x->product.n);
    return verdict;
}

static const struct cm_product products[] = {
    {CM_F32, CM_F32, 67, 93, 130, false, false}, {CM_F32, CM_F32, 67, 93, 130, true, false},
    {CM_F32, CM_F32, 67, 93, 130, false, true},  {CM_F32, CM_F32, 67, 93, 130, true, true},
    {CM_F64, CM_F64, 64, 64, 64, false, false},  {CM_BF16, CM_BF16, 65, 130, 96, false, true},
    {CM_BF16, CM_F32, 65, 130, 96, true, false}, {CM_F16, CM_F16, 33, 17, 200, false, false},
    {CM_F32, CM_F32, 1, 1, 1, false, false},     {CM_F32, CM_F32, 1, 300, 2, true, true},
    {CM_I8, CM_I32, 65, 130, 96, false, true},   {CM_F8E4M3, CM_F32, 33, 70, 128, false, true},
};
/* From every element by itself to one group per row. */
static const double budgets[] = {1e12, 4e5, 1e5, 1};

static void test_right_passes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        struct matrices x = {.product = products[i]};
        make(&x);
        for (size_t j = 0; j < sizeof budgets / sizeof *budgets; j++) {
            for (uint64_t seed = 1; seed < 6; seed++) {
                struct cm_product_verdict verdict = check(&x, seed, budgets[j]);
                if (verdict.mismatches > 0)
                    fail_msg("product %zu budget %g: %s", i, budgets[j], verdict.detail);
                assert_true(verdict.worst < 1);
            }
        }
        drop(&x);
    }
}

/* Every kind of wrong value, at the first, the last and a middle place. */
static void test_one_wrong_is_found(void **state)
{
    (void)state;
    const double wrong[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, 1e30, 0, -1};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        struct matrices x = {.product = products[i]};
        const struct cm_product *p = &x.product;
        make(&x);
        size_t out = cm_dtype_size(p->out_dtype);
        const uint64_t places[] = {0, p->m * p->n - 1, p->m * p->n / 2};
        for (size_t j = 0; j < 3; j++) {
            char *element = (char *)x.c + places[j] * out;
            double right = cm_dtype_load(p->out_dtype, element);
            for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
                /* 0 stands for the opposite sign, -1 for an error of 2 sqrt(k). */
                double value = wrong[w] == 0    ? -right
                               : wrong[w] == -1 ? right + 2 * sqrt((double)p->k)
                                                : wrong[w];
                /* A small value of the other sign may be as near as rounding. */
                if (wrong[w] == 0 && fabs(right) < 0.5 * sqrt((double)p->k))
                    continue;
                if (p->out_dtype == CM_I32 && !isfinite(wrong[w]))
                    continue;
                cm_dtype_store(p->out_dtype, value, element);
                for (size_t b = 0; b < 2; b++) {
                    struct cm_product_verdict verdict = check(&x, 3, budgets[b]);
                    if (verdict.mismatches != 1 || !(verdict.worst > 1))
                        fail_msg("product %zu place %zu value %g: not found", i, j, value);
                    char place[64];
                    snprintf(place, sizeof place, "C[%llu][%llu]",
                             (unsigned long long)(places[j] / p->n),
                             (unsigned long long)(places[j] % p->n));
                    assert_non_null(strstr(verdict.detail, place));
                }
                cm_dtype_store(p->out_dtype, right, element);
            }
        }
        drop(&x);
    }
}

/* f32 sums are exact enough for one group per row to show a change of 1 % of the deviation. */
static void test_small_error_in_f32(void **state)
{
    (void)state;
    struct matrices x = {.product = products[0]};
    make(&x);
    ((float *)x.c)[93 * 40 + 17] += 0.01f * sqrtf(130);
    struct cm_product_verdict verdict = check(&x, 9, 1);
    assert_int_equal(verdict.mismatches, 1);
    assert_non_null(strstr(verdict.detail, "C[40][17]"));
    drop(&x);
}

/* Integers are exact: one off by one shows in a group as wide as the matrix. */
static void test_off_by_one_in_i32(void **state)
{
    (void)state;
    struct matrices x = {.product = {CM_I8, CM_I32, 20, 4000, 30, false, false}};
    make(&x);
    ((int32_t *)x.c)[4000 * 7 + 1234] += 1;
    struct cm_product_verdict verdict = check(&x, 9, 1);
    assert_int_equal(verdict.mismatches, 1);
    assert_non_null(strstr(verdict.detail, "C[7][1234]"));
    drop(&x);
}

/* What units for 8-bit floats do to a sum passes: terms cut off 13 bits below the sum. */
static void test_short_sums_of_f8(void **state)
{
    (void)state;
    struct matrices x = {.product = {CM_F8E5M2, CM_F32, 16, 64, 4096, false, true}};
    const struct cm_product *p = &x.product;
    make(&x);
    for (uint64_t i = 0; i < p->m * p->n; i++) {
        const char *a = (char *)x.a + i / p->n * p->k, *b = (char *)x.b + i % p->n * p->k;
        double sum = 0;
        for (uint64_t first = 0; first < p->k; first += 32) {
            double terms[33] = {[32] = sum}, most = fabs(sum);
            for (int l = 0; l < 32; l++) {
                terms[l] =
                    cm_dtype_load(p->dtype, a + first + l) * cm_dtype_load(p->dtype, b + first + l);
                most = fmax(most, fabs(terms[l]));
            }
            double unit = exp2(floor(log2(most)) - 13);
            sum = 0;
            for (int l = 0; l < 33; l++)
                sum += trunc(terms[l] / unit) * unit;
        }
        ((float *)x.c)[i] = (float)sum;
    }
    for (size_t j = 0; j < sizeof budgets / sizeof *budgets; j++) {
        struct cm_product_verdict verdict = check(&x, 4, budgets[j]);
        if (verdict.mismatches > 0)
            fail_msg("budget %g: %s", budgets[j], verdict.detail);
    }
    drop(&x);
}

/* Elements exchanged within a row leave their sum as it is: the signs tell. */
static void test_swapped_elements(void **state)
{
    (void)state;
    struct matrices x = {.product = products[0]};
    make(&x);
    float *c = x.c;
    float first = c[5];
    c[5] = c[6];
    c[6] = first;
    unsigned found = 0;
    for (uint64_t seed = 0; seed < 40; seed++)
        found += check(&x, seed, 1).mismatches > 0;
    assert_true(found > 8); /* one half is expected when both are in a group */
    assert_int_equal(check(&x, 1, 1e12).mismatches, 2);
    drop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_passes),       cmocka_unit_test(test_one_wrong_is_found),
        cmocka_unit_test(test_small_error_in_f32), cmocka_unit_test(test_swapped_elements),
        cmocka_unit_test(test_off_by_one_in_i32),  cmocka_unit_test(test_short_sums_of_f8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
