/* Numbers with units: what is read, what is refused and how, and that printing agrees. */
#include "test.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "clustermark/units.h"

struct whole_case {
    const char *text;
    uint64_t value;
};

struct real_case {
    const char *text;
    double value;
};

static void sizes(void **state)
{
    (void)state;
    static const struct whole_case cases[] = {
        {"0", 0},
        {"512", 512},
        {"1B", 1},
        {"64KiB", 65536},
        {"64 KiB", 65536},
        {"64K", 65536},
        {"64k", 65536},
        {"64KB", 64000},
        {"64kB", 64000},
        {"1M", 1 << 20},
        {"2MiB", 2 << 20},
        {"1.5MiB", 3 << 19},
        {"1MB", 1000000},
        {"1G", 1 << 30},
        {"3GB", 3000000000},
        {"1TiB", UINT64_C(1) << 40},
        {"1TB", 1000000000000},
        {"1e9", 1000000000},
        {"1E+3", 1000},
        {"25e-1KB", 2500},
        {"0.5KiB", 512},
        {"0.0009765625KiB", 1},
        {"1.000", 1},
        {"0e99999", 0},
        {"0.000e-99999TiB", 0},
        {"007", 7},
        {"9007199254740993", UINT64_C(9007199254740993)}, /* no double */
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775.807kB", INT64_MAX},
        {"8388607TiB", UINT64_C(8388607) << 40},
        {"1000000000000000000000000000000e-30", 1},
        {"0.00000000000000000000000000001e29", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t value = 77;
        assert_ok(cm_parse_size(cases[i].text, &value));
        if (value != cases[i].value)
            fail_msg("%s is %" PRIu64 ", not %" PRIu64, cases[i].text, value, cases[i].value);
    }
}

static void counts(void **state)
{
    (void)state;
    static const struct whole_case cases[] = {
        {"4096", 4096},   {"4k", 4000},  {"4K", 4000},         {"2M", 2000000},
        {"1e6", 1000000}, {"0.5k", 500}, {"1.5G", 1500000000}, {"1T", 1000000000000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t value = 77;
        assert_ok(cm_parse_count(cases[i].text, &value));
        assert_int_equal(value, cases[i].value);
    }
}

/* Exactly the double that the decimal number means: what the compiler makes of it. */
static void reals(void **state)
{
    (void)state;
    static const struct real_case times[] = {
        {"30", 30},           {"30s", 30},       {"5m", 300},     {"5min", 300},
        {"2h", 7200},         {"1.5ms", 1.5e-3}, {"10us", 10e-6}, {"10\u00b5s", 10e-6},
        {"10\u03bcs", 10e-6}, {"250ns", 250e-9}, {"0.3 s", 0.3},  {"1e-3", 1e-3},
        {"12us", 12e-6},      {"0", 0},
    };
    static const struct real_case rates[] = {
        {"1e9", 1e9},        {"3GB/s", 3e9},     {"400Gb/s", 50e9}, {"400Gbit/s", 50e9},
        {"8b/s", 1},         {"1KiB/s", 1024},   {"2.5kB/s", 2500}, {"2 GiB/s", 0x1p31},
        {"1.6TB/s", 1.6e12}, {"100MB/s", 100e6},
    };
    static const struct real_case numbers[] = {
        {"0.05", 0.05}, {"5%", 0.05}, {"7%", 0.07}, {"0.1%", 0.001}, {"3 %", 0.03}, {"1e-9", 1e-9},
    };
    double value;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        assert_ok(cm_parse_time(times[i].text, &value));
        assert_near(value, times[i].value, 0);
    }
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        assert_ok(cm_parse_rate(rates[i].text, &value));
        assert_near(value, rates[i].value, 0);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_ok(cm_parse_real(numbers[i].text, &value));
        assert_near(value, numbers[i].value, 0);
    }
}

/* Nothing of these is a number of any kind; the output stays as it was. */
static void refused_by_all(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",       " ",     " 1",
        "1 ",     "-1",    "+1",
        ".5",     "5.",    "1..2",
        "1.2.3",  "0x10",  "0x1p3",
        "inf",    "nan",   "INF",
        "infs",   "1e",    "1e+",
        "1ee3",   "1e3e3", "1,5",
        "1_000",  "1'000", "1\n",
        "1\t",    "1s s",  "abc",
        "\u0661", "1k1",   "--1",
        "1 0",    "1e 3",  "1e999999999999999999999q",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t whole = 77;
        double real = 7.5;
        assert_status(cm_parse_size(cases[i], &whole), CM_USAGE, "such as 64MiB");
        assert_status(cm_parse_count(cases[i], &whole), CM_USAGE, "such as 4096");
        assert_status(cm_parse_time(cases[i], &real), CM_USAGE, "such as 1.5ms");
        assert_status(cm_parse_rate(cases[i], &real), CM_USAGE, "such as 3GB/s");
        assert_status(cm_parse_real(cases[i], &real), CM_USAGE, "such as 0.05");
        assert_int_equal(whole, 77);
        assert_true(real == 7.5);
    }
}

static void refused_with_reason(void **state)
{
    (void)state;
    uint64_t whole = 77;
    double real = 7.5;
    assert_status(cm_parse_size("64Kb", &whole), CM_USAGE, "unknown unit");
    assert_status(cm_parse_size("64MIB", &whole), CM_USAGE, "unknown unit");
    assert_status(cm_parse_size("64KiB/s", &whole), CM_USAGE, "unknown unit");
    assert_status(cm_parse_size("1.5", &whole), CM_USAGE, "not whole");
    assert_status(cm_parse_size("0.1KiB", &whole), CM_USAGE, "not whole");
    assert_status(cm_parse_size("1e-1", &whole), CM_USAGE, "not whole");
    assert_status(cm_parse_size("1e-99999999999", &whole), CM_USAGE, "not whole");
    assert_status(cm_parse_size("9223372036854775808", &whole), CM_USAGE, "below 2^63");
    assert_status(cm_parse_size("8388608TiB", &whole), CM_USAGE, "below 2^63");
    assert_status(cm_parse_size("1e99999999999", &whole), CM_USAGE, "below 2^63");
    assert_status(cm_parse_size("18446744073709551617", &whole), CM_USAGE, "below 2^63");
    assert_status(cm_parse_size("123456789012345678901234567890", &whole), CM_USAGE, "digits");
    assert_status(cm_parse_count("4Ki", &whole), CM_USAGE, "unknown unit");
    assert_status(cm_parse_count("5m", &whole), CM_USAGE, "unknown unit");
    assert_status(cm_parse_count("2.5", &whole), CM_USAGE, "not whole");
    assert_status(cm_parse_time("5M", &real), CM_USAGE, "unknown unit");
    assert_status(cm_parse_time("5sec", &real), CM_USAGE, "unknown unit");
    assert_status(cm_parse_time("1e309", &real), CM_USAGE, "too large");
    assert_status(cm_parse_time("1e308h", &real), CM_USAGE, "too large");
    assert_status(cm_parse_rate("3GB", &real), CM_USAGE, "unknown unit");
    assert_status(cm_parse_rate("3gb/s", &real), CM_USAGE, "unknown unit");
    assert_status(cm_parse_rate("3Kib/sx", &real), CM_USAGE, "unknown unit");
    assert_status(cm_parse_real("5s", &real), CM_USAGE, "unknown unit");
    assert_int_equal(whole, 77);
    assert_true(real == 7.5);
}

static void long_text_is_cut_in_the_message(void **state)
{
    (void)state;
    char text[5000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    uint64_t value;
    assert_status(cm_parse_size(text, &value), CM_USAGE, "such as 64MiB");
    memset(text, '1', sizeof text - 1);
    assert_status(cm_parse_size(text, &value), CM_USAGE, "too many digits");
    memset(text, '0', sizeof text - 1);
    text[0] = '1';
    assert_status(cm_parse_size(text, &value), CM_USAGE, "below 2^63");
}

static void printed(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *unit, *text;
    } cases[] = {
        {0, "s", "0 s"},
        {1, "s", "1.00 s"},
        {12.34e-6, "s", "12.3 us"},
        {999.6e-6, "s", "1.00 ms"},
        {999.4e-6, "s", "999 us"},
        {99.96e-6, "s", "100 us"},
        {9.996e-6, "s", "10.0 us"},
        {5e-10, "s", "0.5 ns"},
        {-3e-3, "s", "-3.00 ms"},
        {300, "s", "300 s"},
        {86400, "s", "86400 s"},
        {1e-20, "s", "1.00e-11 ns"},
        {12.3e9, "B/s", "12.3 GB/s"},
        {999.9e9, "B/s", "1.00 TB/s"},
        {0.25, "B/s", "0.25 B/s"},
        {1.234e12, "FLOP/s", "1.23 TFLOP/s"},
        {4.5e18, "FLOP/s", "4.50 EFLOP/s"},
        {1.98e9, "Hz", "1.98 GHz"},
        {64.0 * (1 << 20), "B", "64 MiB"},
        {1000, "B", "1000 B"},
        {123456789, "B", "118 MiB"},
        {183942.4, "B", "180 KiB"},
        {0, "B", "0 B"},
        {1e30, "B", "9.09e+17 TiB"},
        {0.934, "1", "0.934"},
        {0.9925, "1", "0.993"},
        {0.9996, "1", "1.00"},
        {42, "", "42.0"},
        {351.26, "W", "351 W"},
        {123456, "tokens/s", "123456 tokens/s"},
        {1e12, "tokens/s", "1.00e+12 tokens/s"},
        {(double)NAN, "s", "n/a"},
        {(double)INFINITY, "s", "inf s"},
        {-(double)INFINITY, "W", "-inf W"},
        {-DBL_MAX, "a very long unit indeed", "-1.80e+308 a very long uni"},
    };
    char buffer[CM_UNITS_TEXT_MAX];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(cm_format_value(cases[i].value, cases[i].unit, buffer), cases[i].text);
    assert_string_equal(cm_format_size(1536, buffer), "1536 B");
    assert_string_equal(cm_format_size(1536 * 1024, buffer), "1536 KiB");
    assert_string_equal(cm_format_size(UINT64_MAX, buffer), "18446744073709551615 B");
    assert_string_equal(cm_write_size(UINT64_C(5) << 40, buffer), "5TiB");
    assert_string_equal(cm_format_time(2e-3, buffer), "2.00 ms");
    assert_string_equal(cm_format_rate(2e15, buffer), "2.00 PB/s");
    assert_string_equal(cm_format_flops(2e3, buffer), "2.00 kFLOP/s");
}

/* What is written reads back to the same number, with and without the space. */
static void round_trip(void **state)
{
    (void)state;
    uint64_t seed = 1;
    char buffer[CM_UNITS_TEXT_MAX];
    for (int i = 0; i < 20000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        uint64_t value = seed >> 1 >> (i % 63) << (i % 7 * 10) & INT64_MAX, back;
        assert_ok(cm_parse_size(cm_write_size(value, buffer), &back));
        assert_int_equal(back, value);
        assert_ok(cm_parse_size(cm_format_size(value, buffer), &back));
        assert_int_equal(back, value);
        snprintf(buffer, sizeof buffer, "%" PRIu64, value);
        assert_ok(cm_parse_count(buffer, &back));
        assert_int_equal(back, value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(counts),
        cmocka_unit_test(reals),
        cmocka_unit_test(refused_by_all),
        cmocka_unit_test(refused_with_reason),
        cmocka_unit_test(long_text_is_cut_in_the_message),
        cmocka_unit_test(printed),
        cmocka_unit_test(round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
