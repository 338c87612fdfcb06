/*
 * Two looks at one question. The risk is shared between them, and what was seen at the first is
 * written down, so that a second look can only add runs: no retry until it passes.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/hash.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/gate.h"
#include "host/result/record.h"

#define SCHEMA "clustermark.gate-state"

static json_t *digests(const struct cm_set *set)
{
    enum cm_status status = CM_OK;
    json_t *array = json_array();
    for (size_t i = 0; i < set->file_count; i++) {
        char text[CM_HASH_TEXT_MAX];
        cm_push(&status, array, json_string(cm_hash_text(set->files[i].digest, text)));
    }
    return array;
}

static json_t *rules_json(const struct cm_gate_rules *rules)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "risk", cm_json_real(rules->risk));
    for (size_t i = 0; i < rules->count; i++)
        cm_put(&status, object, rules->metrics[i].key,
               json_pack("[f, f]", rules->metrics[i].margin, rules->metrics[i].floor));
    return object;
}

static bool has(const json_t *array, const json_t *value)
{
    size_t index;
    const json_t *other;
    json_array_foreach(array, index, other)
    {
        if (json_equal((json_t *)value, (json_t *)other))
            return true;
    }
    return false;
}

static bool has_all(const json_t *array, const json_t *wanted)
{
    size_t index;
    const json_t *value;
    json_array_foreach(wanted, index, value)
    {
        if (!has(array, value))
            return false;
    }
    return json_is_array(wanted);
}

/* Held against the first look; the three values are this look's. */
static enum cm_status check(const char *path, const json_t *state, const json_t *base,
                            const json_t *fresh, const json_t *rules)
{
    const json_t *first_base = json_object_get(state, "baseline");
    const json_t *first_fresh = json_object_get(state, "fresh");
    json_int_t look = json_integer_value(json_object_get(state, "look"));
    if (strcmp(cm_get_text(state, "schema"), SCHEMA) != 0 || look < 1)
        return cm_error(CM_USAGE, "%s: not the state of a gate; name a file that is not there",
                        path);
    if (look >= 2)
        return cm_error(CM_USAGE,
                        "%s: both looks were had (the second: %.40s); a third would find what it "
                        "looks for",
                        path, cm_get_text(state, "outcome"));
    if (strcmp(cm_get_text(state, "outcome"), "inconclusive") != 0)
        return cm_error(CM_USAGE, "%s: the first look has decided: %.40s", path,
                        cm_get_text(state, "outcome"));
    if (!json_equal((json_t *)rules, json_object_get(state, "rules")))
        return cm_error(CM_USAGE,
                        "%s: metrics, margins or the risk are not those of the first look", path);
    if (!has_all(base, first_base) || json_array_size(base) != json_array_size(first_base))
        return cm_error(CM_USAGE, "%s: the baseline is not that of the first look", path);
    if (!has_all(fresh, first_fresh))
        return cm_error(CM_USAGE,
                        "%s: results of the first look are missing; a second look adds runs and "
                        "leaves none out",
                        path);
    if (json_array_size(fresh) == json_array_size(first_fresh))
        return cm_error(CM_USAGE, "%s: no results but those of the first look; add some", path);
    return CM_OK;
}

enum cm_status cm_gate_look(const char *path, const struct cm_set *base, const struct cm_set *fresh,
                            const struct cm_gate_rules *rules, unsigned *look)
{
    if (access(path, F_OK) != 0) {
        *look = 1;
        return CM_OK;
    }
    json_t *state = NULL;
    json_t *now[] = {digests(base), digests(fresh), rules_json(rules)};
    enum cm_status status = cm_json_load(path, &state);
    if (status == CM_OK)
        status = check(path, state, now[0], now[1], now[2]);
    if (status == CM_OK)
        *look = 2;
    json_decref(state);
    for (size_t i = 0; i < 3; i++)
        json_decref(now[i]);
    return status;
}

enum cm_status cm_gate_look_done(const char *path, const struct cm_set *base,
                                 const struct cm_set *fresh, const struct cm_gate_rules *rules,
                                 unsigned look, const char *outcome)
{
    enum cm_status status = CM_OK;
    char *text = NULL;
    json_t *state = json_object();
    cm_put(&status, state, "schema", json_string(SCHEMA));
    cm_put(&status, state, "version", json_string("1.0"));
    cm_put(&status, state, "looks", json_integer(2));
    cm_put(&status, state, "look", json_integer(look));
    cm_put(&status, state, "outcome", json_string(outcome));
    cm_put(&status, state, "rules", rules_json(rules));
    cm_put(&status, state, "baseline", digests(base));
    cm_put(&status, state, "fresh", digests(fresh));
    if (status == CM_OK)
        status = cm_json_dump(state, 1, &text);
    json_decref(state);
    if (status == CM_OK)
        status = cm_file_replace(path, text, strlen(text));
    cm_free(text);
    return status;
}
