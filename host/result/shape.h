/*
 * shape.h: whether JSON from a stranger has the fields that will be used, each of its kind, by
 * tables. Private to host/result.
 */
#ifndef HOST_RESULT_SHAPE_H
#define HOST_RESULT_SHAPE_H

#include <jansson.h>
#include <stdbool.h>

#include "clustermark/status.h"

enum cm_shape {
    CM_IS_TEXT = 1,
    CM_IS_NUMBER = 2,
    CM_IS_WHOLE = 4,
    CM_IS_OBJECT = 8,
    CM_IS_ARRAY = 16,
    CM_IS_NOTHING = 32,
    CM_IS_TRUTH = 64
};

/* What a field must be, and what is checked inside it: a table for an object, for each element of
 * an array (`each`), or for each value of an object whose keys are free (`each` too). */
struct cm_shape_rule {
    const char *key;
    unsigned shapes;
    bool required;
    const struct cm_shape_rule *inside;
    bool each;
    unsigned each_shapes;
};

/* CM_USAGE, naming the field ("cases[3].runs[0].status") of `name`, when the object breaks a rule.
 */
enum cm_status cm_shape_check(const char *name, const struct cm_shape_rule *rules,
                              const json_t *object);

#endif
