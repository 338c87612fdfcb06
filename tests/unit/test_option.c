/* Option tables: values of every type set, refused with the place and the range, written so that
 * they read back, defaults, near names, help. */
#include "test.h"

#include <stdio.h>

#include "clustermark/dtype.h"
#include "clustermark/option.h"

enum shape { SQUARE, TALL, WIDE_AND_FLAT };
static const char *const shapes[] = {"square", "tall", "wide_and_flat", NULL};

struct fields {
    bool check;
    uint64_t batch, size, unbounded;
    double time, share;
    int dtype, shape;
    char note[8];
};

#define FIELD(name) offsetof(struct fields, name)

static const struct cm_option table[] = {
    {"check", CM_OPTION_BOOL, FIELD(check), .fallback = "yes", .help = "Check the outputs"},
    {"batch", CM_OPTION_COUNT, FIELD(batch), 1, 1e6, .fallback = "1", .help = "Products"},
    {"size", CM_OPTION_SIZE, FIELD(size), 1024, 0x1p30, .fallback = "64KiB", .help = "Bytes"},
    {"max_bytes", CM_OPTION_COUNT, FIELD(unbounded), .min = 3, .fallback = "3", .help = "Most"},
    {"warmup_time", CM_OPTION_TIME, FIELD(time), 1e-3, 60, .fallback = "0.1s", .help = "Warm-up"},
    {"share", CM_OPTION_REAL, FIELD(share), 0, 1, .fallback = "5%", .help = "A share"},
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), .fallback = "f32", .help = "Element type",
     .choices = cm_dtype_names},
    {"shape", CM_OPTION_CHOICE, FIELD(shape), .fallback = "tall", .help = "Form",
     .choices = shapes},
    {"note", CM_OPTION_TEXT, FIELD(note), .fallback = "", .help = "A note", .capacity = 8},
    {0},
};

static enum cm_status set(const char *name, const char *value, struct fields *fields)
{
    const struct cm_option *option = cm_option_find(table, name);
    assert_non_null(option);
    return cm_option_set(option, value, "quick.ini:12", fields);
}

static void defaults(void **state)
{
    (void)state;
    struct fields fields;
    memset(&fields, 0xa5, sizeof fields);
    assert_ok(cm_option_defaults(table, &fields));
    assert_true(fields.check);
    assert_int_equal(fields.batch, 1);
    assert_int_equal(fields.size, 65536);
    assert_int_equal(fields.unbounded, 3);
    assert_true(fields.time == 0.1);
    assert_true(fields.share == 0.05);
    assert_int_equal(fields.dtype, CM_F32);
    assert_int_equal(fields.shape, TALL);
    assert_string_equal(fields.note, "");

    static const struct cm_option broken[] = {
        {"batch", CM_OPTION_COUNT, FIELD(batch), 1, 10, .fallback = "11", .help = "Products"}, {0}};
    assert_status(cm_option_defaults(broken, &fields), CM_INTERNAL, "default: batch: 11");
}

static void values(void **state)
{
    (void)state;
    struct fields fields = {0};
    static const char *const yes[] = {"yes", "on", "true", "1", "YES", "True"};
    static const char *const no[] = {"no", "off", "false", "0", "NO", "oFF"};
    for (size_t i = 0; i < 6; i++) {
        assert_ok(set("check", yes[i], &fields));
        assert_true(fields.check);
        assert_ok(set("check", no[i], &fields));
        assert_false(fields.check);
    }
    assert_ok(set("batch", "1e6", &fields));
    assert_int_equal(fields.batch, 1000000);
    assert_ok(set("size", "1KiB", &fields));
    assert_int_equal(fields.size, 1024);
    assert_ok(set("size", "1G", &fields));
    assert_ok(set("max-bytes", "9223372036854775807", &fields));
    assert_int_equal(fields.unbounded, INT64_MAX);
    assert_ok(set("warmup-time", "1m", &fields));
    assert_true(fields.time == 60);
    assert_ok(set("share", "100%", &fields));
    assert_true(fields.share == 1);
    assert_ok(set("shape", "wide-and-flat", &fields));
    assert_int_equal(fields.shape, WIDE_AND_FLAT);
    assert_ok(set("note", "a=b, c", &fields));
    assert_string_equal(fields.note, "a=b, c");
    assert_ok(set("note", "1234567", &fields));
}

static void element_types_have_aliases(void **state)
{
    (void)state;
    struct fields fields = {0};
    assert_ok(set("dtype", "bfloat16", &fields));
    assert_int_equal(fields.dtype, CM_BF16);
    assert_ok(set("dtype", "FP16", &fields));
    assert_int_equal(fields.dtype, CM_F16);
    assert_ok(set("dtype", "f64", &fields));
    assert_int_equal(fields.dtype, CM_F64);
    assert_status(set("shape", "fp16", &fields), CM_USAGE,
                  "quick.ini:12: shape: \"fp16\" is none of square, tall, wide_and_flat");
}

static void refused(void **state)
{
    (void)state;
    struct fields before, fields;
    memset(&before, 0, sizeof before);
    assert_ok(cm_option_defaults(table, &before));
    fields = before;
    assert_status(set("check", "maybe", &fields), CM_USAGE,
                  "quick.ini:12: check: \"maybe\" is neither yes nor no");
    assert_status(set("batch", "0", &fields), CM_USAGE,
                  "quick.ini:12: batch: 0 is outside 1 to 1000000");
    assert_status(set("batch", "1000001", &fields), CM_USAGE, "outside 1 to 1000000");
    assert_status(set("batch", "two", &fields), CM_USAGE,
                  "quick.ini:12: batch: \"two\" is not a count");
    assert_status(set("size", "1023", &fields), CM_USAGE, "1023 is outside 1KiB to 1GiB");
    assert_status(set("size", "2GiB", &fields), CM_USAGE, "2GiB is outside 1KiB to 1GiB");
    assert_status(set("max_bytes", "2", &fields), CM_USAGE, "2 is below 3");
    assert_status(set("warmup_time", "0", &fields), CM_USAGE, "0 is outside 0.001s to 60s");
    assert_status(set("warmup_time", "2h", &fields), CM_USAGE, "2h is outside 0.001s to 60s");
    assert_status(set("share", "101%", &fields), CM_USAGE, "101% is outside 0 to 1");
    assert_status(set("dtype", "f31", &fields), CM_USAGE, "\"f31\" is none of f64, f32, tf32");
    assert_status(set("dtype", "", &fields), CM_USAGE, "none of");
    assert_status(set("note", "12345678", &fields), CM_USAGE, "longer than 7 characters");
    assert_memory_equal(&fields, &before, sizeof fields);
}

static void found(void **state)
{
    (void)state;
    assert_ptr_equal(cm_option_find(table, "max-bytes"), cm_option_find(table, "max_bytes"));
    assert_null(cm_option_find(table, "max_byte"));
    assert_null(cm_option_find(table, "max_bytess"));
    assert_null(cm_option_find(table, "Batch"));
    assert_string_equal(cm_option_nearest(table, "sze"), "size");
    assert_string_equal(cm_option_nearest(table, "batches"), "batch");
    assert_string_equal(cm_option_nearest(table, "warmup-tme"), "warmup_time");
    assert_string_equal(cm_option_nearest(table, "shap"), "shape"); /* not share */
    assert_null(cm_option_nearest(table, "workload"));
    assert_null(cm_option_nearest(table, "m"));
    assert_null(cm_option_nearest(table, ""));
    /* Names of one letter are near to anything short. */
    static const struct cm_option letters[] = {{.name = "m"}, {.name = "kk"}, {0}};
    assert_null(cm_option_nearest(letters, "mx"));
    assert_null(cm_option_nearest(letters, "k"));
    assert_string_equal(cm_option_nearest(letters, "kx"), "kk");
    char name[300];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_null(cm_option_nearest(table, name));
}

/* Written values of every option read back to the same bits. */
static void written(void **state)
{
    (void)state;
    static const char *const given[][2] = {
        {"check", "no"},
        {"batch", "1e6"},
        {"size", "1536KiB"},
        {"size", "1025"},
        {"max_bytes", "9007199254740993"},
        {"warmup_time", "1.1ms"},
        {"warmup_time", "59.999999999999996"},
        {"share", "33.3333333333333333%"},
        {"share", "0.1"},
        {"dtype", "fp8_e5m2"},
        {"shape", "wide-and-flat"},
        {"note", "x y,z"},
    };
    struct cm_str text = CM_STR_INIT;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        struct fields fields, back;
        memset(&fields, 0, sizeof fields);
        assert_ok(cm_option_defaults(table, &fields));
        back = fields;
        assert_ok(set(given[i][0], given[i][1], &fields));
        cm_str_reset(&text);
        cm_option_write(cm_option_find(table, given[i][0]), &fields, &text);
        assert_ok(cm_str_status(&text));
        assert_ok(set(given[i][0], cm_str_text(&text), &back));
        assert_memory_equal(&back, &fields, sizeof fields);
    }
    cm_str_release(&text);
}

static void only_what_differs_is_written(void **state)
{
    (void)state;
    struct fields fields;
    assert_ok(cm_option_defaults(table, &fields));
    struct cm_str text = CM_STR_INIT;
    cm_option_write_all(table, &fields, ",", &text);
    assert_string_equal(cm_str_text(&text), "");
    assert_ok(set("check", "off", &fields));
    assert_ok(set("size", "65536", &fields)); /* the default in other words */
    assert_ok(set("warmup_time", "250ms", &fields));
    assert_ok(set("dtype", "bf16", &fields));
    assert_ok(set("note", "n", &fields));
    cm_option_write_all(table, &fields, ",", &text);
    assert_string_equal(cm_str_text(&text), "check=no,warmup_time=0.25s,dtype=bf16,note=n");
    cm_str_release(&text);
}

static void help(void **state)
{
    (void)state;
    struct cm_str text = CM_STR_INIT;
    cm_option_help(table, &text);
    assert_ok(cm_str_status(&text));
    for (const struct cm_option *option = table; option->name != NULL; option++) {
        assert_non_null(strstr(cm_str_text(&text), option->name));
        assert_non_null(strstr(cm_str_text(&text), option->help));
    }
    assert_non_null(strstr(cm_str_text(&text), "Form: square, tall, wide_and_flat (default tall)"));
    assert_non_null(strstr(cm_str_text(&text), "A note (default none)\n"));
    cm_str_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(values),
        cmocka_unit_test(element_types_have_aliases),
        cmocka_unit_test(refused),
        cmocka_unit_test(found),
        cmocka_unit_test(written),
        cmocka_unit_test(only_what_differs_is_written),
        cmocka_unit_test(help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
