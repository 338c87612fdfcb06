/* Fields held against tables of what they must be. */
#include "host/result/shape.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"

/* Cases, runs, sweeps, points: twice the largest plan. */
#define ROWS_MAX 200000

struct checker {
    const char *name;
    char where[240]; /* "cases[3].runs[0].status" */
};

static unsigned shape_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return CM_IS_TEXT;
    case JSON_INTEGER:
        return CM_IS_WHOLE;
    case JSON_REAL:
        return CM_IS_NUMBER;
    case JSON_OBJECT:
        return CM_IS_OBJECT;
    case JSON_ARRAY:
        return CM_IS_ARRAY;
    case JSON_NULL:
        return CM_IS_NOTHING;
    case JSON_TRUE:
    case JSON_FALSE:
        return CM_IS_TRUTH;
    }
    return 0;
}

static const char *shape_name(unsigned shapes)
{
    static const struct {
        unsigned shape;
        const char *name;
    } names[] = {{CM_IS_TEXT, "a text"},          {CM_IS_OBJECT, "an object"},
                 {CM_IS_ARRAY, "an array"},       {CM_IS_NUMBER, "a number"},
                 {CM_IS_WHOLE, "a whole number"}, {CM_IS_TRUTH, "true or false"},
                 {CM_IS_NOTHING, "null"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (shapes & names[i].shape)
            return names[i].name;
    }
    return "something else";
}

/* Extends `where` for the time of a call; the caller cuts it again. */
static size_t enter(struct checker *checker, const char *key, size_t index)
{
    size_t before = strlen(checker->where);
    if (key != NULL)
        snprintf(checker->where + before, sizeof checker->where - before, "%s%.60s",
                 before > 0 ? "." : "", key);
    else
        snprintf(checker->where + before, sizeof checker->where - before, "[%zu]", index);
    return before;
}

static enum cm_status check_shape(const struct checker *checker, const json_t *value,
                                  unsigned shapes)
{
    unsigned shape = shape_of(value);
    if (shape & shapes || (shape == CM_IS_WHOLE && shapes & CM_IS_NUMBER))
        return CM_OK;
    return cm_error(CM_USAGE, "%s: not a result file: %s is %s; it must be %s", checker->name,
                    checker->where, shape_name(shape), shape_name(shapes));
}

/* The rules are a tree of constants, five levels deep, and the recursion follows them, not the
 * file. */
/* NOLINTBEGIN(misc-no-recursion) */
static enum cm_status check_object(struct checker *checker, const struct cm_shape_rule *rules,
                                   const json_t *object);

static enum cm_status check_value(struct checker *checker, const struct cm_shape_rule *rule,
                                  const json_t *value)
{
    enum cm_status status = check_shape(checker, value, rule->each_shapes);
    if (status == CM_OK && rule->inside != NULL && json_is_object(value))
        status = check_object(checker, rule->inside, value);
    return status;
}

static enum cm_status check_each(struct checker *checker, const struct cm_shape_rule *rule,
                                 const json_t *value)
{
    enum cm_status status = CM_OK;
    size_t index, before;
    const char *key;
    json_t *element;
    if (!(rule->each_shapes & CM_IS_NUMBER) && json_array_size(value) > ROWS_MAX)
        return cm_error(CM_USAGE, "%s: not a result file: %s has over %d rows", checker->name,
                        checker->where, ROWS_MAX);
    json_array_foreach(value, index, element)
    {
        /* Samples are many, and nothing is inside them: no path until one is wrong. */
        if (rule->inside == NULL && shape_of(element) & rule->each_shapes)
            continue;
        before = enter(checker, NULL, index);
        status = check_value(checker, rule, element);
        checker->where[before] = '\0';
        if (status != CM_OK)
            return status;
    }
    json_object_foreach((json_t *)value, key, element)
    {
        if (rule->inside == NULL && shape_of(element) & rule->each_shapes)
            continue;
        before = enter(checker, key, 0);
        status = check_value(checker, rule, element);
        checker->where[before] = '\0';
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status check_field(struct checker *checker, const struct cm_shape_rule *rule,
                                  const json_t *object)
{
    const json_t *value = json_object_get(object, rule->key);
    if (value == NULL && !rule->required)
        return CM_OK;
    size_t before = enter(checker, rule->key, 0);
    enum cm_status status = value == NULL
                                ? cm_error(CM_USAGE, "%s: not a result file: %s is missing",
                                           checker->name, checker->where)
                                : check_shape(checker, value, rule->shapes);
    if (status == CM_OK && rule->each)
        status = check_each(checker, rule, value);
    else if (status == CM_OK && rule->inside != NULL && json_is_object(value))
        status = check_object(checker, rule->inside, value);
    checker->where[before] = '\0';
    return status;
}

static enum cm_status check_object(struct checker *checker, const struct cm_shape_rule *rules,
                                   const json_t *object)
{
    for (; rules->key != NULL; rules++) {
        enum cm_status status = check_field(checker, rules, object);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

/* NOLINTEND(misc-no-recursion) */

enum cm_status cm_shape_check(const char *name, const struct cm_shape_rule *rules,
                              const json_t *object)
{
    struct checker checker = {.name = name};
    return check_object(&checker, rules, object);
}
