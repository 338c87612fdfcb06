/* In what sets of results differ, and whether that forbids to compare them. */
#include <fnmatch.h>
#include <string.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/facts.h"
#include "host/result/record.h"

/* Two results, and how a difference between them counts. */
struct pair {
    const struct cm_set_file *left, *right;
    const char *left_in, *right_in;
    bool within;
    enum cm_use use;
    const char *const *allowed;
    size_t allowed_count;
    json_t *seen; /* keys that were reported between these sets */
};

/* "environment" allows "environment.NCCL_ALGO", and "params" "params:gemm.m". */
static bool is_allowed(const struct pair *pair, const char *key)
{
    for (size_t i = 0; i < pair->allowed_count; i++) {
        size_t length = strlen(pair->allowed[i]);
        if (strncmp(pair->allowed[i], key, length) == 0 && strchr(".:", key[length]) != NULL)
            return true;
    }
    return false;
}

/* A case, or a size that it chose, that only one side has is a metric that is missing, not a
 * difference of what both did. */
static bool only_here(const char *key)
{
    return strchr(key, ':') != NULL && fnmatch("environment.*", key, 0) != 0;
}

static enum cm_status add(struct cm_differences *differences, const struct pair *pair,
                          const char *key, const json_t *left, const json_t *right)
{
    enum cm_role role = cm_fact_rule(key)->roles[pair->use];
    if (pair->within && role == CM_RECORD)
        return CM_OK; /* repeated runs begin at different times */
    /* A set is the runs of one machine. The baseline of a gate may span software. */
    if (pair->within && role == CM_SUBJECT && pair->use == CM_USE_COMPARE)
        role = CM_MUST_MATCH;
    if (json_object_get(pair->seen, key) != NULL)
        return CM_OK;
    enum cm_status status = cm_json_set(pair->seen, key, json_true());
    if (status != CM_OK)
        return status;
    if (cm_grow(&differences->rows, &differences->capacity, differences->count + 1,
                sizeof *differences->rows) != 0)
        return CM_NO_MEMORY;
    bool allowed = role == CM_MUST_MATCH && is_allowed(pair, key);
    differences->forbidden += role == CM_MUST_MATCH && !allowed;
    differences->rows[differences->count++] =
        (struct cm_difference){.key = key,
                               .left = json_string_value(left),
                               .right = json_string_value(right),
                               .left_in = pair->left_in,
                               .right_in = pair->right_in,
                               .role = role,
                               .within = pair->within,
                               .allowed = allowed};
    return CM_OK;
}

static enum cm_status hold_against(struct cm_differences *differences, const struct pair *pair)
{
    enum cm_status status = CM_OK;
    const char *key;
    json_t *value;
    json_object_foreach(pair->left->facts, key, value)
    {
        const json_t *other = json_object_get(pair->right->facts, key);
        if (status != CM_OK || (other == NULL && only_here(key)) ||
            (other != NULL && strcmp(json_string_value(value), json_string_value(other)) == 0))
            continue;
        status = add(differences, pair, key, value, other);
    }
    json_object_foreach(pair->right->facts, key, value)
    {
        if (status == CM_OK && json_object_get(pair->left->facts, key) == NULL && !only_here(key))
            status = add(differences, pair, key, NULL, value);
    }
    return status;
}

enum cm_status cm_differences_find(const struct cm_set *sets, size_t count, enum cm_use use,
                                   const char *const *allowed, size_t allowed_count,
                                   struct cm_differences *differences)
{
    enum cm_status status = CM_OK;
    for (size_t s = 0; s < count; s++) {
        struct pair pair = {.left = &sets[0].files[0],
                            .right = &sets[s].files[0],
                            .left_in = sets[0].name,
                            .right_in = sets[s].name,
                            .use = use,
                            .allowed = allowed,
                            .allowed_count = allowed_count,
                            .seen = json_object()};
        if (pair.seen == NULL)
            return CM_NO_MEMORY;
        if (s > 0)
            status = hold_against(differences, &pair);
        json_object_clear(pair.seen);
        pair.within = true;
        pair.left = pair.right;
        pair.left_in = sets[s].files[0].path;
        for (size_t f = 1; status == CM_OK && f < sets[s].file_count; f++) {
            pair.right = &sets[s].files[f];
            pair.right_in = sets[s].files[f].path;
            status = hold_against(differences, &pair);
        }
        json_decref(pair.seen);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

void cm_differences_release(struct cm_differences *differences)
{
    cm_free(differences->rows);
    *differences = (struct cm_differences){.rows = NULL};
}

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

enum cm_status cm_differences_json(const struct cm_differences *differences, json_t **array)
{
    static const char *const roles[] = {"record", "subject", "must match"};
    enum cm_status status = CM_OK;
    json_t *rows = json_array();
    for (size_t i = 0; i < differences->count; i++) {
        const struct cm_difference *row = &differences->rows[i];
        json_t *object = json_object();
        cm_put(&status, object, "key", json_string(row->key));
        cm_put(&status, object, "role", json_string(roles[row->role]));
        cm_put(&status, object, "within_a_set", json_boolean(row->within));
        cm_put(&status, object, "left_in", json_string(row->left_in));
        cm_put(&status, object, "left", text_or_null(row->left));
        cm_put(&status, object, "right_in", json_string(row->right_in));
        cm_put(&status, object, "right", text_or_null(row->right));
        cm_put(&status, object, "allowed", json_boolean(row->allowed));
        cm_push(&status, rows, object);
    }
    if (status != CM_OK) {
        json_decref(rows);
        return status;
    }
    *array = rows;
    return CM_OK;
}
