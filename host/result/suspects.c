/*
 * Who is slow: from what each run says to one ranked list. A suspect is named when a retest with
 * good partners confirmed it in more than half of the runs; where there is no retest, as every rank
 * worked for itself, when more than half of the runs say so, two at the least.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/hash.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/result/record.h"

#define LIST_MAX 1000

static json_t *host_json(const char *host, bool show_hosts)
{
    char hidden[CM_HASH_TEXT_MAX];
    if (show_hosts)
        return cm_result_string(host);
    return json_string(cm_hash_text(cm_hash(0, host, strlen(host)), hidden));
}

static json_t *suspect_json(const struct cm_suspect *suspect, bool show_hosts)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "host", host_json(suspect->host, show_hosts));
    cm_put(&status, object, "rank", json_integer(suspect->rank));
    if (suspect->peer != CM_NO_PEER) {
        cm_put(&status, object, "peer_host", host_json(suspect->peer_host, show_hosts));
        cm_put(&status, object, "peer", json_integer(suspect->peer));
    }
    cm_put(&status, object, "what", cm_result_string(suspect->what));
    cm_put(&status, object, "effect", cm_json_real(suspect->effect));
    cm_put(&status, object, "low", cm_json_real(suspect->low));
    cm_put(&status, object, "high", cm_json_real(suspect->high));
    cm_put(&status, object, "p", cm_json_real(suspect->p));
    cm_put(&status, object, "partners", cm_result_string(suspect->partners));
    cm_put(&status, object, "retest", cm_json_real(suspect->retest));
    cm_put(&status, object, "confirmed", json_boolean(suspect->confirmed));
    if (status == CM_OK)
        return object;
    json_decref(object);
    return NULL;
}

json_t *cm_suspects_json(const struct cm_suspects *suspects, bool show_hosts)
{
    enum cm_status status = CM_OK;
    json_t *array = json_array();
    for (size_t i = 0; i < suspects->count; i++)
        cm_push(&status, array, suspect_json(&suspects->items[i], show_hosts));
    if (status == CM_OK)
        return array;
    json_decref(array);
    return NULL;
}

/* "3" or, of a pair, "3-7". */
static char *key_of(const json_t *suspect)
{
    double peer = cm_get_number(suspect, "peer");
    if (isfinite(peer))
        return cm_strf("%.0f-%.0f", cm_get_number(suspect, "rank"), peer);
    return cm_strf("%.0f", cm_get_number(suspect, "rank"));
}

/* What the ok runs say of each rank or pair, by its key. */
static json_t *group(const json_t *item, size_t *runs)
{
    enum cm_status status = CM_OK;
    size_t index, place;
    const json_t *run;
    json_t *suspect, *groups = json_object();
    *runs = 0;
    json_array_foreach(json_object_get(item, "runs"), index, run)
    {
        if (strcmp(cm_get_text(run, "status"), cm_case_status_names[CM_CASE_OK]) != 0)
            continue;
        ++*runs;
        json_array_foreach(json_object_get(run, "suspects"), place, suspect)
        {
            char *key = key_of(suspect);
            json_t *list = key != NULL ? json_object_get(groups, key) : NULL;
            if (key == NULL)
                status = CM_NO_MEMORY;
            else if (list == NULL)
                list = cm_put_array(&status, groups, key);
            cm_push(&status, list, json_incref(suspect));
            cm_free(key);
        }
    }
    if (status == CM_OK)
        return groups;
    json_decref(groups);
    return NULL;
}

/* Of the runs in which it was suspected. */
static double median_of(const json_t *list, const char *key)
{
    double values[64];
    size_t count = 0, index;
    const json_t *suspect;
    json_array_foreach(list, index, suspect)
    {
        double value = cm_get_number(suspect, key);
        if (isfinite(value) && count < sizeof values / sizeof *values)
            values[count++] = value;
    }
    return count > 0 ? cm_median(values, count) : (double)NAN;
}

static bool is_named(const json_t *list, size_t runs)
{
    size_t confirmed = 0, retested = 0, index;
    const json_t *suspect;
    json_array_foreach(list, index, suspect)
    {
        confirmed += json_is_true(json_object_get(suspect, "confirmed"));
        retested += isfinite(cm_get_number(suspect, "retest")) ? 1 : 0;
    }
    if (retested > 0)
        return 2 * confirmed > runs;
    return json_array_size(list) >= 2 && 2 * json_array_size(list) > runs;
}

static json_t *entry_json(const json_t *item, const json_t *list, size_t runs)
{
    static const char *const copied[] = {"host", "peer_host", "peer", "what", "partners"};
    static const char *const medians[] = {"effect", "low", "high", "p", "retest"};
    enum cm_status status = CM_OK;
    const json_t *first = json_array_get(list, 0);
    json_t *entry = json_object();
    cm_put(&status, entry, "case", cm_result_string(cm_get_text(item, "name")));
    cm_put(&status, entry, "workload", cm_result_string(cm_get_text(item, "workload")));
    json_t *ranks = cm_put_array(&status, entry, "ranks");
    cm_push(&status, ranks, json_incref(json_object_get(first, "rank")));
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        json_t *value = json_object_get(first, copied[i]);
        if (value != NULL)
            cm_put(&status, entry, copied[i], json_incref(value));
    }
    for (size_t i = 0; i < sizeof medians / sizeof *medians; i++)
        cm_put(&status, entry, medians[i], cm_json_real(median_of(list, medians[i])));
    cm_put(&status, entry, "seen", json_integer((json_int_t)json_array_size(list)));
    cm_put(&status, entry, "runs", json_integer((json_int_t)runs));
    cm_put(&status, entry, "named", json_boolean(is_named(list, runs)));
    if (status == CM_OK)
        return entry;
    json_decref(entry);
    return NULL;
}

static int by_effect(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left, *b = *(json_t *const *)right;
    double first = cm_get_number(a, "effect"), second = cm_get_number(b, "effect");
    if (first != second)
        return first < second ? -1 : 1;
    double rank = json_number_value(json_array_get(json_object_get(a, "ranks"), 0));
    double other = json_number_value(json_array_get(json_object_get(b, "ranks"), 0));
    return rank < other ? -1 : rank > other;
}

/* The slowest first. */
static enum cm_status sort(json_t *array)
{
    size_t count = json_array_size(array);
    json_t **items = cm_alloc(count, sizeof(json_t *));
    if (items == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        items[i] = json_incref(json_array_get(array, i));
    qsort(items, count, sizeof(json_t *), by_effect);
    json_array_clear(array);
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < count; i++)
        cm_push(&status, array, items[i]);
    cm_free(items);
    return status;
}

/* A host whose ranks are slow alike is one entry, that of its slowest rank. `array` is sorted. */
static json_t *same_host(const json_t *array, const json_t *entry)
{
    static const char *const keys[] = {"case", "host", "what"};
    size_t index;
    json_t *other;
    if (json_object_get(entry, "peer") != NULL)
        return NULL;
    json_array_foreach(array, index, other)
    {
        bool same = json_object_get(other, "peer") == NULL;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            same = same && strcmp(cm_get_text(other, keys[i]), cm_get_text(entry, keys[i])) == 0;
        if (same)
            return other;
    }
    return NULL;
}

static enum cm_status name_suspects(const json_t *list, json_t *top)
{
    enum cm_status status = CM_OK;
    size_t index;
    json_t *entry;
    json_array_foreach(list, index, entry)
    {
        if (!json_is_true(json_object_get(entry, "named")) || json_array_size(top) >= LIST_MAX)
            continue;
        json_t *host = same_host(top, entry);
        if (host != NULL)
            cm_push(&status, json_object_get(host, "ranks"),
                    json_incref(json_array_get(json_object_get(entry, "ranks"), 0)));
        else
            cm_push(&status, top, json_deep_copy(entry));
    }
    return status;
}

static enum cm_status fill_case(json_t *item, json_t *top)
{
    size_t runs;
    const char *key;
    json_t *list, *groups = group(item, &runs);
    enum cm_status status = groups != NULL ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK && json_object_size(groups) > 0) {
        json_t *all = cm_put_array(&status, item, "suspects");
        json_object_foreach(groups, key, list) cm_push(&status, all, entry_json(item, list, runs));
        if (status == CM_OK)
            status = sort(all);
        if (status == CM_OK)
            status = name_suspects(all, top);
    } else if (groups != NULL) {
        json_object_del(item, "suspects");
    }
    json_decref(groups);
    return status;
}

enum cm_status cm_suspects_fill(json_t *cases, json_t *suspects)
{
    enum cm_status status = CM_OK;
    size_t index;
    json_t *item;
    json_array_clear(suspects);
    json_array_foreach(cases, index, item)
    {
        if (status == CM_OK)
            status = fill_case(item, suspects);
    }
    return status == CM_OK ? sort(suspects) : status;
}
