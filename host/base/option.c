/* Option tables: values read, checked, written and explained. */
#include "clustermark/option.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "clustermark/dtype.h"
#include "clustermark/error.h"
#include "clustermark/units.h"
#include "host/base/name.h"

static const char *const type_names[] = {
    [CM_OPTION_BOOL] = "yes|no", [CM_OPTION_COUNT] = "count", [CM_OPTION_SIZE] = "size",
    [CM_OPTION_TIME] = "time",   [CM_OPTION_REAL] = "number", [CM_OPTION_CHOICE] = "choice",
    [CM_OPTION_TEXT] = "text",
};

/* A parsed value that is not a text. */
union value {
    bool flag;
    uint64_t count;
    double real;
    int choice;
};

static const size_t value_sizes[] = {
    [CM_OPTION_BOOL] = sizeof(bool),
    [CM_OPTION_COUNT] = sizeof(uint64_t),
    [CM_OPTION_SIZE] = sizeof(uint64_t),
    [CM_OPTION_TIME] = sizeof(double),
    [CM_OPTION_REAL] = sizeof(double),
    [CM_OPTION_CHOICE] = sizeof(int),
    [CM_OPTION_TEXT] = 0,
};

const struct cm_option *cm_option_find(const struct cm_option *table, const char *name)
{
    for (; table->name != NULL; table++) {
        if (cm_name_equal(table->name, name))
            return table;
    }
    return NULL;
}

const char *cm_option_nearest(const struct cm_option *table, const char *name)
{
    const char *nearest = NULL;
    size_t least = CM_NAME_MAX;
    for (; table->name != NULL; table++) {
        size_t distance = cm_name_distance(table->name, name);
        if (distance < least && cm_name_near(distance, table->name, name)) {
            nearest = table->name;
            least = distance;
        }
    }
    return nearest;
}

/* A short decimal text that reads back to the same number. */
static const char *write_real(double number, const char *unit, char *buffer)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buffer, CM_UNITS_TEXT_MAX, "%.*g", digits, number);
        if (strtod(buffer, NULL) == number)
            break;
    }
    size_t length = strlen(buffer);
    snprintf(buffer + length, CM_UNITS_TEXT_MAX - length, "%s", unit);
    return buffer;
}

/* A number of the option's kind in the suite's spelling. */
static const char *write_number(enum cm_option_type type, double number, char *buffer)
{
    if (type == CM_OPTION_SIZE && number >= 0 && number < 0x1p63)
        return cm_write_size((uint64_t)number, buffer);
    if (type == CM_OPTION_COUNT && number < 1e15) {
        snprintf(buffer, CM_UNITS_TEXT_MAX, "%.0f", number);
        return buffer;
    }
    return write_real(number, type == CM_OPTION_TIME ? "s" : "", buffer);
}

static enum cm_status check_range(const struct cm_option *option, const char *text, double number)
{
    bool bounded = option->max > option->min || (option->max == option->min && option->max != 0);
    if (number >= option->min && (!bounded || number <= option->max))
        return CM_OK;
    char low[CM_UNITS_TEXT_MAX], high[CM_UNITS_TEXT_MAX];
    write_number(option->type, option->min, low);
    if (!bounded)
        return cm_error(CM_USAGE, "%.60s is below %s", text, low);
    write_number(option->type, option->max, high);
    return cm_error(CM_USAGE, "%.60s is outside %s to %s", text, low, high);
}

static enum cm_status parse_flag(const char *text, bool *flag)
{
    static const char *const words[] = {"no", "yes", "off", "on", "false", "true", "0", "1"};
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *flag = i % 2;
            return CM_OK;
        }
    }
    return cm_error(CM_USAGE, "\"%.60s\" is neither yes nor no", text);
}

/* "a, b, c" of all choices, cut to what a message can hold. */
static void list_choices(const struct cm_option *option, size_t size, char *list)
{
    size_t length = 0;
    list[0] = '\0';
    for (const char *const *choice = option->choices; *choice != NULL && length < size; choice++)
        length += (size_t)snprintf(list + length, size - length, "%s%s",
                                   choice == option->choices ? "" : ", ", *choice);
}

static enum cm_status parse_choice(const struct cm_option *option, const char *text, int *choice)
{
    for (int i = 0; option->choices[i] != NULL; i++) {
        if (cm_name_equal(option->choices[i], text)) {
            *choice = i;
            return CM_OK;
        }
    }
    enum cm_dtype dtype;
    if (option->choices == cm_dtype_names && cm_dtype_parse(text, &dtype)) {
        *choice = (int)dtype;
        return CM_OK;
    }
    char list[300];
    list_choices(option, sizeof list, list);
    return cm_error(CM_USAGE, "\"%.60s\" is none of %s", text, list);
}

static enum cm_status parse_value(const struct cm_option *option, const char *text,
                                  union value *value)
{
    enum cm_status status;
    switch (option->type) {
    case CM_OPTION_BOOL:
        return parse_flag(text, &value->flag);
    case CM_OPTION_CHOICE:
        return parse_choice(option, text, &value->choice);
    case CM_OPTION_COUNT:
        status = cm_parse_count(text, &value->count);
        return status != CM_OK ? status : check_range(option, text, (double)value->count);
    case CM_OPTION_SIZE:
        status = cm_parse_size(text, &value->count);
        return status != CM_OK ? status : check_range(option, text, (double)value->count);
    case CM_OPTION_TIME:
        status = cm_parse_time(text, &value->real);
        return status != CM_OK ? status : check_range(option, text, value->real);
    case CM_OPTION_REAL:
        status = cm_parse_real(text, &value->real);
        return status != CM_OK ? status : check_range(option, text, value->real);
    case CM_OPTION_TEXT:
        if (strlen(text) < option->capacity)
            return CM_OK;
        return cm_error(CM_USAGE, "\"%.60s...\" is longer than %zu characters", text,
                        option->capacity - 1);
    }
    return cm_error(CM_INTERNAL, "option %s is of no known type", option->name);
}

enum cm_status cm_option_set(const struct cm_option *option, const char *value, const char *where,
                             void *fields)
{
    union value parsed;
    enum cm_status status = parse_value(option, value, &parsed);
    if (status != CM_OK)
        return cm_error_at(status, "%s: %s: ", where, option->name);
    char *field = (char *)fields + option->offset;
    if (option->type == CM_OPTION_TEXT)
        memcpy(field, value, strlen(value) + 1);
    else
        memcpy(field, &parsed, value_sizes[option->type]);
    return CM_OK;
}

enum cm_status cm_option_defaults(const struct cm_option *table, void *fields)
{
    for (; table->name != NULL; table++) {
        enum cm_status status = cm_option_set(table, table->fallback, "default", fields);
        if (status != CM_OK)
            return CM_INTERNAL;
    }
    return CM_OK;
}

void cm_option_write(const struct cm_option *option, const void *fields, struct cm_str *out)
{
    const char *field = (const char *)fields + option->offset;
    union value value = {0};
    memcpy(&value, field, value_sizes[option->type]);
    char buffer[CM_UNITS_TEXT_MAX];
    switch (option->type) {
    case CM_OPTION_BOOL:
        cm_str_add(out, value.flag ? "yes" : "no");
        break;
    case CM_OPTION_COUNT:
        cm_str_addf(out, "%" PRIu64, value.count);
        break;
    case CM_OPTION_SIZE:
        cm_str_add(out, cm_write_size(value.count, buffer));
        break;
    case CM_OPTION_TIME:
    case CM_OPTION_REAL:
        cm_str_add(out, write_number(option->type, value.real, buffer));
        break;
    case CM_OPTION_CHOICE:
        cm_str_add(out, option->choices[value.choice]);
        break;
    case CM_OPTION_TEXT:
        cm_str_add(out, field);
        break;
    }
}

static bool is_default(const struct cm_option *option, const void *fields)
{
    const char *field = (const char *)fields + option->offset;
    if (option->type == CM_OPTION_TEXT)
        return strcmp(field, option->fallback) == 0;
    union value value;
    if (parse_value(option, option->fallback, &value) != CM_OK)
        return false;
    return memcmp(field, &value, value_sizes[option->type]) == 0;
}

void cm_option_write_all(const struct cm_option *table, const void *fields, const char *separator,
                         struct cm_str *out)
{
    bool first = true;
    for (; table->name != NULL; table++) {
        if (is_default(table, fields))
            continue;
        cm_str_addf(out, "%s%s=", first ? "" : separator, table->name);
        cm_option_write(table, fields, out);
        first = false;
    }
}

void cm_option_help(const struct cm_option *table, struct cm_str *out)
{
    for (; table->name != NULL; table++) {
        cm_str_addf(out, "  %-18s %-7s %s", table->name, type_names[table->type], table->help);
        if (table->type == CM_OPTION_CHOICE) {
            for (const char *const *choice = table->choices; *choice != NULL; choice++)
                cm_str_addf(out, "%s%s", choice == table->choices ? ": " : ", ", *choice);
        }
        cm_str_addf(out, " (default %s)\n", *table->fallback != '\0' ? table->fallback : "none");
    }
}
