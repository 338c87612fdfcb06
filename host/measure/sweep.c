/* From "8..16MiB,f32" to the values of a sweep, each checked by its option. */
#include "host/measure/sweep.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/units.h"

void cm_axis_release(struct cm_axis *axis)
{
    for (size_t i = 0; i < axis->count; i++)
        cm_free(axis->values[i]);
    cm_free(axis->values);
    *axis = (struct cm_axis){0};
}

/* Take the field's value, which has just been set in `scratch`. */
static enum cm_status add_value(struct cm_axis *axis, const void *scratch)
{
    if (axis->count >= CM_PLAN_POINTS_MAX)
        return cm_error(CM_USAGE, "%s: %s has over %d values", axis->setting->where,
                        axis->option->name, CM_PLAN_POINTS_MAX);
    if (cm_grow(&axis->values, &axis->capacity, axis->count + 1, sizeof *axis->values) != 0)
        return CM_NO_MEMORY;
    struct cm_str text = CM_STR_INIT;
    cm_option_write(axis->option, scratch, &text);
    enum cm_status status = cm_str_status(&text);
    if (status == CM_OK) {
        axis->values[axis->count] = cm_strdup(cm_str_text(&text));
        if (axis->values[axis->count] == NULL)
            status = CM_NO_MEMORY;
        else
            axis->count++;
    }
    cm_str_release(&text);
    return status;
}

static enum cm_status add_text(struct cm_axis *axis, const char *text, void *scratch)
{
    enum cm_status status = cm_option_set(axis->option, text, axis->setting->where, scratch);
    return status == CM_OK ? add_value(axis, scratch) : status;
}

static uint64_t *number_field(const struct cm_axis *axis, void *scratch)
{
    return (uint64_t *)((char *)scratch + axis->option->offset);
}

/* `text` is "from..to" or "from..to*factor", `dots` its "..". Cuts the text in place. */
static enum cm_status add_range(struct cm_axis *axis, char *text, char *dots, void *scratch)
{
    const char *where = axis->setting->where;
    uint64_t factor = 2;
    char *star = strchr(dots, '*');
    if (star != NULL) {
        *star = '\0';
        if (cm_parse_count(star + 1, &factor) != CM_OK)
            return cm_error_at(CM_USAGE, "%s: %s: factor of the range: ", where,
                               axis->option->name);
    }
    *dots = '\0';
    enum cm_status status = cm_option_set(axis->option, dots + 2, where, scratch);
    if (status != CM_OK)
        return status;
    uint64_t last = *number_field(axis, scratch);
    status = cm_option_set(axis->option, text, where, scratch);
    if (status != CM_OK)
        return status;
    uint64_t value = *number_field(axis, scratch);
    if (value == 0 || value > last || factor < 2)
        return cm_error(CM_USAGE,
                        "%s: %s: a range goes up from at least 1 by a factor of at least 2, as in "
                        "8..16MiB or 8..16MiB*4",
                        where, axis->option->name);
    for (;;) {
        *number_field(axis, scratch) = value;
        status = add_value(axis, scratch);
        if (status != CM_OK || value > last / factor)
            return status;
        value *= factor;
    }
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = '\0';
    return text;
}

static enum cm_status add_list(struct cm_axis *axis, char *list, void *scratch)
{
    bool number = axis->option->type == CM_OPTION_SIZE || axis->option->type == CM_OPTION_COUNT;
    enum cm_status status = CM_OK;
    char *next = list;
    while (status == CM_OK && next != NULL) {
        char *item = next;
        next = strchr(item, ',');
        if (next != NULL)
            *next++ = '\0';
        item = trim(item);
        char *dots = number ? strstr(item, "..") : NULL;
        if (*item == '\0')
            status = cm_error(CM_USAGE, "%s: %s: an empty value in the list", axis->setting->where,
                              axis->option->name);
        else if (dots != NULL)
            status = add_range(axis, item, dots, scratch);
        else
            status = add_text(axis, item, scratch);
    }
    return status;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Two points of one name could not be told apart in a result. */
static enum cm_status refuse_doubles(const struct cm_axis *axis)
{
    char **sorted = cm_alloc(axis->count, sizeof *sorted);
    if (sorted == NULL)
        return CM_NO_MEMORY;
    memcpy(sorted, axis->values, axis->count * sizeof *sorted);
    qsort(sorted, axis->count, sizeof *sorted, compare_texts);
    enum cm_status status = CM_OK;
    for (size_t i = 1; i < axis->count && status == CM_OK; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            status = cm_error(CM_USAGE, "%s: %s: the value %s is in the list twice",
                              axis->setting->where, axis->option->name, sorted[i]);
    }
    cm_free(sorted);
    return status;
}

enum cm_status cm_axis_read(const struct cm_option *option, const struct cm_setting *setting,
                            void *scratch, struct cm_axis *axis)
{
    *axis = (struct cm_axis){.option = option, .setting = setting};
    if (option->no_list)
        return add_text(axis, setting->value, scratch);
    char *list = cm_strdup(setting->value);
    if (list == NULL)
        return CM_NO_MEMORY;
    /* An empty text is a value of its own; an empty number is refused by its parser. */
    enum cm_status status =
        *trim(list) == '\0' ? add_text(axis, "", scratch) : add_list(axis, list, scratch);
    cm_free(list);
    return status == CM_OK && axis->count > 1 ? refuse_doubles(axis) : status;
}
