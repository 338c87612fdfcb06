/* Suites and values from a stranger: a suite's text, then, each after a zero byte, assignments as
 * for --set. What is read must come back the same from what is written, and every value goes
 * through the parsers of numbers and options. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "clustermark/dtype.h"
#include "clustermark/error.h"
#include "clustermark/option.h"
#include "clustermark/suite.h"
#include "clustermark/units.h"
#include "fuzz/fuzz.h"

struct fields {
    bool flag;
    uint64_t count, size;
    double time, real;
    int dtype;
    char text[24];
};

#define FIELD(name) offsetof(struct fields, name)

static const struct cm_option table[] = {
    {"flag", CM_OPTION_BOOL, FIELD(flag), .fallback = "no", .help = ""},
    {"count", CM_OPTION_COUNT, FIELD(count), 1, 1e12, .fallback = "1", .help = ""},
    {"size", CM_OPTION_SIZE, FIELD(size), 0, 0, .fallback = "0", .help = ""},
    {"time", CM_OPTION_TIME, FIELD(time), 0, 0, .fallback = "0", .help = ""},
    {"real", CM_OPTION_REAL, FIELD(real), 0, 1, .fallback = "0", .help = ""},
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), .fallback = "f32", .help = "",
     .choices = cm_dtype_names},
    {"text", CM_OPTION_TEXT, FIELD(text), .fallback = "", .help = "", .capacity = 24},
    {0},
};

static void check_numbers(const char *value)
{
    char buffer[CM_UNITS_TEXT_MAX];
    uint64_t whole, back;
    if (cm_parse_size(value, &whole) == CM_OK) {
        REQUIRE(whole >> 63 == 0);
        REQUIRE(cm_parse_size(cm_write_size(whole, buffer), &back) == CM_OK && back == whole);
        REQUIRE(cm_parse_size(cm_format_size(whole, buffer), &back) == CM_OK && back == whole);
    }
    if (cm_parse_count(value, &whole) == CM_OK)
        REQUIRE(whole >> 63 == 0);
    double real;
    if (cm_parse_time(value, &real) == CM_OK) {
        REQUIRE(isfinite(real) && real >= 0);
        REQUIRE(strlen(cm_format_time(real, buffer)) < sizeof buffer);
    }
    if (cm_parse_rate(value, &real) == CM_OK) {
        REQUIRE(isfinite(real) && real >= 0);
        REQUIRE(strlen(cm_format_rate(real, buffer)) < sizeof buffer);
    }
    if (cm_parse_real(value, &real) == CM_OK)
        REQUIRE(isfinite(real) && real >= 0);
}

/* A value that is taken reads back from what is written; one that is not leaves the field. */
static void check_options(const char *value)
{
    for (const struct cm_option *option = table; option->name != NULL; option++) {
        struct fields fields, before, back;
        memset(&fields, 0, sizeof fields);
        REQUIRE(cm_option_defaults(table, &fields) == CM_OK);
        before = back = fields;
        if (cm_option_set(option, value, "s.ini:1", &fields) != CM_OK) {
            REQUIRE(*cm_error_text() != '\0' && strchr(cm_error_text(), '\n') == NULL);
            REQUIRE(memcmp(&fields, &before, sizeof fields) == 0);
            continue;
        }
        struct cm_str text = CM_STR_INIT;
        cm_option_write(option, &fields, &text);
        REQUIRE(cm_option_set(option, cm_str_text(&text), "again", &back) == CM_OK);
        if (option->type != CM_OPTION_TEXT)
            REQUIRE(memcmp(&fields, &back, sizeof fields) == 0);
        else
            REQUIRE(strcmp(fields.text, back.text) == 0);
        cm_str_release(&text);
    }
}

static void check_section(const struct cm_section *a, const struct cm_section *b)
{
    REQUIRE(strcmp(a->name, b->name) == 0);
    REQUIRE(a->setting_count == b->setting_count);
    for (size_t i = 0; i < a->setting_count; i++) {
        REQUIRE(strcmp(a->settings[i].key, b->settings[i].key) == 0);
        REQUIRE(strcmp(a->settings[i].value, b->settings[i].value) == 0);
        REQUIRE(cm_section_setting(a, a->settings[i].key) == &a->settings[i]);
        const char *nearest = cm_option_nearest(table, a->settings[i].key);
        REQUIRE(nearest == NULL || cm_option_find(table, nearest) != NULL);
    }
}

static void check_round_trip(const struct cm_suite *suite)
{
    struct cm_str text = CM_STR_INIT;
    cm_suite_write(suite, &text);
    struct cm_suite back = {0};
    REQUIRE(cm_str_status(&text) == CM_OK);
    if (text.length <= 1 << 20) { /* as written it may have grown over the limit */
        REQUIRE(cm_suite_parse(cm_str_text(&text), "back.ini", &back) == CM_OK);
        check_section(&suite->global, &back.global);
        REQUIRE(suite->section_count == back.section_count);
        for (size_t i = 0; i < suite->section_count; i++)
            check_section(&suite->sections[i], &back.sections[i]);
        cm_suite_release(&back);
    }
    cm_str_release(&text);
}

static void check_values(const struct cm_section *section)
{
    for (size_t i = 0; i < section->setting_count; i++) {
        check_numbers(section->settings[i].value);
        check_options(section->settings[i].value);
    }
}

static void assign(struct cm_suite *suite, const char *text, const char *end)
{
    for (; text < end; text += strlen(text) + 1) {
        cm_error_clear();
        if (cm_suite_set(suite, text) != CM_OK)
            REQUIRE(*cm_error_text() != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    REQUIRE(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    struct cm_suite suite = {0};
    cm_error_clear();
    if (cm_suite_parse(text, "s.ini", &suite) == CM_OK) {
        check_round_trip(&suite);
        assign(&suite, text + strlen(text) + 1, text + size);
        check_round_trip(&suite);
        check_values(&suite.global);
        for (size_t i = 0; i < suite.section_count; i++)
            check_values(&suite.sections[i]);
    } else {
        REQUIRE(strncmp(cm_error_text(), "s.ini:", 6) == 0);
        REQUIRE(suite.sections == NULL && suite.name == NULL);
    }
    cm_suite_release(&suite);
    free(text);
    return 0;
}
