/*
 * The random sequence: Philox 4x32-10 by its published answer, the table of quantiles against the
 * normal distribution, and what a sequence promises: any part alone, other seeds independent.
 */
#include "clustermark/kernels.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>

static double normal_below(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0));
}

/* Place of a value in the table; its entries rise strictly. */
static unsigned place_of(float value)
{
    const float *table = cm_random_table();
    unsigned low = 0, high = 65535;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (table[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    assert_true(table[low] == value);
    return low;
}

static void words_of(uint64_t seed, uint64_t block, uint32_t words[4])
{
    for (uint64_t w = 0; w < 4; w++)
        words[w] = place_of(cm_random_normal(seed, 8 * block + 2 * w)) |
                   place_of(cm_random_normal(seed, 8 * block + 2 * w + 1)) << 16;
}

static void philox_gives_its_published_answers(void **state)
{
    (void)state;
    uint32_t words[4];
    words_of(0, 0, words);
    assert_int_equal(words[0], 0x6627e8d5);
    assert_int_equal(words[1], 0xe169c58d);
    assert_int_equal(words[2], 0xbc57ac4c);
    assert_int_equal(words[3], 0x9b00dbd8);
}

static void words_are_those_of_the_elements(void **state)
{
    (void)state;
    static const uint64_t seeds[] = {0, 0xfedcba9876543210};
    for (size_t s = 0; s < 2; s++)
        for (uint64_t block = 0; block < 4; block++) {
            uint32_t words[4];
            words_of(seeds[s], block, words);
            for (unsigned w = 0; w < 4; w++)
                assert_int_equal(cm_random_bits(seeds[s], 4 * block + w), words[w]);
        }
    assert_int_equal(cm_random_bits(0, 3), 0x9b00dbd8);
}

/* Philox again, as its paper writes it, for counters and keys that the published answers leave out.
 */
static void philox_plain(uint64_t key, uint64_t counter, uint32_t x[4])
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    x[0] = (uint32_t)counter;
    x[1] = (uint32_t)(counter >> 32);
    x[2] = x[3] = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)x[0] * 0xD2511F53, q = (uint64_t)x[2] * 0xCD9E8D57;
        uint32_t y[4] = {(uint32_t)(q >> 32) ^ x[1] ^ k0, (uint32_t)q,
                         (uint32_t)(p >> 32) ^ x[3] ^ k1, (uint32_t)p};
        memcpy(x, y, sizeof y);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
}

static void counters_and_keys_are_64_bits(void **state)
{
    (void)state;
    static const uint64_t keys[] = {0, 1, UINT64_C(1) << 32, UINT64_MAX,
                                    UINT64_C(0x123456789abcdef)};
    static const uint64_t blocks[] = {0, 1, 15, 16, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX / 8};
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++) {
            uint32_t words[4], expected[4];
            words_of(keys[k], blocks[b], words);
            philox_plain(keys[k], blocks[b], expected);
            assert_memory_equal(words, expected, sizeof words);
        }
    }
}

static void the_table_holds_the_quantiles(void **state)
{
    (void)state;
    const float *table = cm_random_table();
    for (int i = 0; i < 65536; i++) {
        double p = (i + 0.5) / 65536, x = (double)table[i];
        /* A float is half a step off at most; what that is in probability is the density's. */
        double density = exp(-x * x / 2) / sqrt(2 * M_PI);
        assert_true(fabs(normal_below(x) - p) <= 0x1p-24 * fabs(x) * density * 1.01 + 1e-15);
        assert_true(table[i] == -table[65535 - i]);
        assert_true(i == 0 || table[i] > table[i - 1]);
    }
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void values_are_normal(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    float *values = malloc(COUNT * sizeof *values);
    assert_non_null(values);
    double moments[5] = {0};
    for (int i = 0; i < COUNT; i++) {
        values[i] = cm_random_normal(2024, (uint64_t)i);
        double power = 1;
        for (int m = 1; m < 5; m++)
            moments[m] += (power *= (double)values[i]) / COUNT;
    }
    /* Five standard errors each. */
    double error = 5 / sqrt(COUNT);
    assert_true(fabs(moments[1]) < error);
    assert_true(fabs(moments[2] - 1) < error * sqrt(2));
    assert_true(fabs(moments[3]) < error * sqrt(15));
    assert_true(fabs(moments[4] - 3) < error * sqrt(96));
    /* Kolmogorov and Smirnov: 1.95 is the 0.1 % point. */
    qsort(values, COUNT, sizeof *values, compare_floats);
    double distance = 0;
    for (int i = 0; i < COUNT; i++) {
        double p = normal_below((double)values[i]);
        distance = fmax(distance, fmax(p - (double)i / COUNT, (i + 1.0) / COUNT - p));
    }
    assert_true(distance < 1.95 / sqrt(COUNT) + 1.0 / 65536);
    free(values);
}

/* Correlation of two sequences, in standard errors. */
static double correlation(uint64_t seed_a, uint64_t first_a, uint64_t seed_b, uint64_t first_b)
{
    enum { COUNT = 20000 };
    double sum = 0;
    for (uint64_t i = 0; i < COUNT; i++)
        sum += (double)cm_random_normal(seed_a, first_a + i) *
               (double)cm_random_normal(seed_b, first_b + i);
    return sum / sqrt(COUNT);
}

static void sequences_are_independent(void **state)
{
    (void)state;
    assert_true(fabs(correlation(1, 0, 2, 0)) < 5);
    assert_true(fabs(correlation(0, 0, UINT64_C(1) << 32, 0)) < 5);
    for (uint64_t lag = 1; lag < 10; lag++)
        assert_true(fabs(correlation(7, 0, 7, lag)) < 5);
    assert_true(correlation(7, 0, 7, 0) > 100);
}

static void seeds_differ_in_each_part(void **state)
{
    (void)state;
    uint64_t seeds[] = {
        cm_random_seed(1, "gemm a", 0, 0), cm_random_seed(2, "gemm a", 0, 0),
        cm_random_seed(1, "gemm b", 0, 0), cm_random_seed(1, "gemm a", 1, 0),
        cm_random_seed(1, "gemm a", 0, 1), cm_random_seed(0, "gemm a", 1, 0),
        cm_random_seed(0, "gemm a", 0, 1), cm_random_seed(1, "", 0, 0),
    };
    size_t count = sizeof seeds / sizeof seeds[0];
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(seeds[i] != seeds[j]);
    assert_true(seeds[0] == cm_random_seed(1, "gemm a", 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_its_published_answers),
        cmocka_unit_test(words_are_those_of_the_elements),
        cmocka_unit_test(counters_and_keys_are_64_bits),
        cmocka_unit_test(the_table_holds_the_quantiles),
        cmocka_unit_test(values_are_normal),
        cmocka_unit_test(sequences_are_independent),
        cmocka_unit_test(seeds_differ_in_each_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
