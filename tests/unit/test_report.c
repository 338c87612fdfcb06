/*
 * The report: a golden text of a file that has everything, on terminals with and without UTF-8 and
 * of different widths; strange characters; tables. After a wanted change, run the test with
 * CM_TEST_UPDATE=1 and read the difference.
 */
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "host/result/table.h"
#include "test.h"

static const char *const fixture = CM_TEST_FIXTURES "/results/mixed.json";

static char *report_of(const char *path, const struct cm_report_style *style)
{
    json_t *result = NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_ok(cm_result_load(path, &result));
    assert_ok(cm_report_text(result, style, out));
    assert_int_equal(fclose(out), 0);
    json_decref(result);
    return text;
}

static char *report(const struct cm_report_style *style)
{
    return report_of(fixture, style);
}

static char *read_text(const char *path)
{
    char *text = calloc(1, 65536);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        assert_true(fread(text, 1, 65535, file) < 65535);
        fclose(file);
    }
    return text;
}

static void check_golden(const char *result, const struct cm_report_style *style, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/results/%s", CM_TEST_FIXTURES, name);
    char *text = report_of(result, style);
    if (getenv("CM_TEST_UPDATE") != NULL) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(text, file);
        fclose(file);
    }
    char *golden = read_text(path);
    assert_string_equal(text, golden);
    free(golden);
    free(text);
}

static void test_golden_utf8(void **state)
{
    (void)state;
    check_golden(fixture, &(struct cm_report_style){.utf8 = true, .width = 80},
                 "mixed.80.utf8.txt");
}

static void test_golden_ascii(void **state)
{
    (void)state;
    check_golden(fixture, &(struct cm_report_style){.utf8 = false, .width = 80},
                 "mixed.80.ascii.txt");
}

/* Devices of their own: two models, how far apart they are, telemetry, a throttled one, pairs out
 * of reach, our own kernel against the library's. */
static void test_golden_gpus(void **state)
{
    (void)state;
    check_golden(CM_TEST_FIXTURES "/results/gpus.json",
                 &(struct cm_report_style){.utf8 = true, .width = 100}, "gpus.100.utf8.txt");
}

/* No line is wider than the terminal, as long as the terminal is not absurdly narrow. */
static void test_width(void **state)
{
    (void)state;
    static const int widths[] = {76, 80, 100, 132, 200};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        char *text = report(&(struct cm_report_style){.utf8 = true, .width = widths[i]});
        for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            if (cm_text_width(line) > (size_t)widths[i])
                fail_msg("width %d: %s", widths[i], line);
        }
        free(text);
    }
}

/* A file must not steer the terminal: no control character passes, and colour is ours alone. */
static void test_strange_text(void **state)
{
    (void)state;
    char *plain = report(&(struct cm_report_style){.utf8 = true, .width = 80});
    assert_null(strchr(plain, '\033'));
    assert_null(strstr(plain, "\xe2\x80\xae")); /* right-to-left override */
    assert_non_null(strstr(plain, "odd?[31m?name"));
    free(plain);
    char *ascii = report(&(struct cm_report_style){.utf8 = false, .width = 80});
    for (const char *at = ascii; *at != '\0'; at++)
        assert_true((unsigned char)*at < 0x80);
    free(ascii);
}

/* Colour marks statuses and the verdict; without the codes the text is the same. */
static void test_color(void **state)
{
    (void)state;
    char *plain = report(&(struct cm_report_style){.utf8 = true, .width = 80});
    char *color = report(&(struct cm_report_style){.utf8 = true, .width = 80, .color = true});
    assert_non_null(strstr(color, "\033[32mok\033[0m"));
    assert_non_null(strstr(color, "\033[1;31mwrong\033[0m"));
    char *to = color;
    for (char *from = color; *from != '\0';) {
        if (*from == '\033')
            from += strcspn(from, "m") + 1;
        else
            *to++ = *from++;
    }
    *to = '\0';
    assert_string_equal(plain, color);
    free(color);
    free(plain);
}

static void test_brief(void **state)
{
    (void)state;
    char *text = report(&(struct cm_report_style){.width = 80, .brief = true});
    assert_string_equal(text, "verdict: not fine; 9 ok, 1 failed, 1 wrong, 1 skipped; ended early: "
                              "budget\n");
    free(text);
}

/* The report of the fixture with an interval of the first case's flop_rate from low * value to
 * high * value. */
static char *report_with_interval(double low, double high)
{
    json_t *result = NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_ok(cm_result_load(fixture, &result));
    json_t *item = json_array_get(json_object_get(result, "cases"), 0);
    json_t *metric = json_object_get(json_object_get(item, "metrics"), "flop_rate");
    double value = json_real_value(json_object_get(metric, "value"));
    assert_true(value > 0);
    json_object_set_new(
        metric, "interval",
        json_pack("{s:f,s:f,s:f}", "low", low * value, "high", high * value, "coverage", 0.97));
    assert_ok(cm_report_text(result, &(struct cm_report_style){.width = 80, .brief = true}, out));
    assert_int_equal(fclose(out), 0);
    json_decref(result);
    return text;
}

static void test_noise(void **state)
{
    (void)state;
    char *calm = report_with_interval(0.95, 1.05);
    assert_null(strstr(calm, "noisy"));
    free(calm);
    char *noisy = report_with_interval(0.85, 1.01);
    assert_non_null(strstr(noisy, "noisy: 1 of "));
    free(noisy);
}

/* A text that cannot be written is an error. */
static void test_full_disk(void **state)
{
    (void)state;
    json_t *result = NULL;
    FILE *out = fopen("/dev/full", "w");
    if (out == NULL)
        skip();
    setvbuf(out, NULL, _IONBF, 0);
    assert_ok(cm_result_load(fixture, &result));
    assert_status(cm_report_text(result, &(struct cm_report_style){.width = 80}, out), CM_IO,
                  "cannot write the report");
    fclose(out);
    json_decref(result);
}

/* Columns without content vanish, then those that may; the first is shortened in its middle. */
static void test_table(void **state)
{
    (void)state;
    struct cm_report_style style = {.width = 40};
    struct cm_table table = {.style = &style};
    struct cm_str out = CM_STR_INIT;
    cm_table_column(&table, "name", true, 0);
    cm_table_column(&table, "empty", false, 0);
    size_t value = cm_table_column(&table, "value", false, 0);
    size_t extra = cm_table_column(&table, "extra", false, 1);
    cm_table_row(&table);
    cm_table_put(&table, 0, CM_PLAIN, "the quick brown fox jumps over the lazy dog");
    cm_table_put(&table, value, CM_PLAIN, "%d", 42);
    cm_table_put(&table, extra, CM_PLAIN, "something long enough to go");
    assert_ok(cm_table_write(&table, &out));
    assert_string_equal(cm_str_text(&out), "  name                             value\n"
                                           "  --------------------------------------\n"
                                           "  the quick brow..er the lazy dog     42\n");
    cm_str_release(&out);
    cm_table_release(&table);
}

/* Control characters, cut characters, and space for whole ones only. */
static void test_clean_text(void **state)
{
    (void)state;
    struct cm_report_style style = {.utf8 = true};
    char clean[16];
    cm_clean_text(&style, "a\tb\x7f\xc2\x9bz", clean, sizeof clean);
    assert_string_equal(clean, "a?b??z");
    cm_clean_text(&style, "\xe2\x82", clean, sizeof clean); /* cut */
    assert_string_equal(clean, "??");
    cm_clean_text(&style, "0123456789012345", clean, sizeof clean);
    assert_string_equal(clean, "012345678901234");
    cm_clean_text(&style, "01234567890123\xe2\x82\xac", clean, sizeof clean);
    assert_string_equal(clean, "01234567890123");
    assert_int_equal(cm_text_width("\xe2\x82\xac!"), 2);
}

int main(void)
{
    cm_json_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_utf8), cmocka_unit_test(test_golden_ascii),
        cmocka_unit_test(test_width),       cmocka_unit_test(test_strange_text),
        cmocka_unit_test(test_color),       cmocka_unit_test(test_brief),
        cmocka_unit_test(test_full_disk),   cmocka_unit_test(test_table),
        cmocka_unit_test(test_clean_text),  cmocka_unit_test(test_noise),
        cmocka_unit_test(test_golden_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
