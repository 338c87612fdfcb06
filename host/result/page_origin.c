/* Where the results come from, and in what they differ. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/memory.h"
#include "host/result/page.h"
#include "host/result/report.h"

#define SIDES_MAX 12
#define DEPTH_MAX 4

/* Fields whose leaves are told; the rest is figures, or drawn elsewhere. */
static const char *const told[] = {"tool", "stack", "placement", "environment", "suite", NULL};

static void leaf_text(const json_t *value, struct cm_str *text)
{
    if (json_is_string(value))
        cm_str_add(text, json_string_value(value));
    else if (json_is_number(value))
        cm_str_addf(text, "%.9g", json_number_value(value));
    else if (json_is_boolean(value))
        cm_str_add(text, json_is_true(value) ? "yes" : "no");
}

/* An array of leaves becomes one text: a command line. */
static enum cm_status put_leaf(json_t *rows, const char *path, const json_t *value)
{
    enum cm_status status = CM_OK;
    struct cm_str text = CM_STR_INIT;
    size_t index;
    const json_t *element;
    leaf_text(value, &text);
    json_array_foreach(value, index, element)
    {
        if (index > 0)
            cm_str_add(&text, " ");
        leaf_text(element, &text);
    }
    status = cm_str_status(&text);
    cm_put(&status, rows, path, json_string(cm_str_text(&text)));
    cm_str_release(&text);
    return status;
}

/* The depth is bounded. */
/* NOLINTNEXTLINE(misc-no-recursion) */
static enum cm_status flatten(json_t *rows, const char *path, const json_t *object, int depth)
{
    enum cm_status status = CM_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        char *name = status == CM_OK ? cm_strf("%s.%s", path, key) : NULL;
        if (name == NULL)
            return status != CM_OK ? status : CM_NO_MEMORY;
        if (json_is_object(value) && depth < DEPTH_MAX)
            status = flatten(rows, name, value, depth + 1);
        else if (!json_is_object(value) && strcmp(name, "suite.text") != 0)
            status = put_leaf(rows, name, value);
        cm_free(name);
    }
    return status;
}

/* key -> text, of the newest result of a side. */
static enum cm_status read_side(const struct cm_side *side, json_t *rows)
{
    static const char *const plain[] = {"started", "finished", "ending", "device", "ranks"};
    const json_t *result = cm_side_last(side), *machine = json_object_get(result, "machine");
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0] && status == CM_OK; i++)
        status = put_leaf(rows, plain[i], json_object_get(result, plain[i]));
    cm_put(&status, rows, "machine.digest", json_string(cm_get_text(machine, "digest")));
    cm_put(&status, rows, "machine.host", json_string(cm_get_text(machine, "host")));
    for (size_t i = 0; told[i] != NULL && status == CM_OK; i++)
        status = flatten(rows, told[i], json_object_get(result, told[i]), 0);
    return status;
}

static bool differs(json_t *const *sides, size_t count, const char *key)
{
    for (size_t i = 1; i < count; i++) {
        if (strcmp(cm_get_text(sides[i], key), cm_get_text(sides[0], key)) != 0)
            return true;
    }
    return false;
}

static void add_rows(struct cm_page *page, const json_t *keys, json_t *const *sides, size_t count,
                     bool different)
{
    size_t index;
    const json_t *entry;
    json_array_foreach(keys, index, entry)
    {
        const char *key = json_string_value(entry);
        if (differs(sides, count, key) != different)
            continue;
        cm_str_add(page->out, different ? "<tr class=\"differs\">" : "<tr>");
        cm_page_cell(page->out, "k", key);
        for (size_t i = 0; i < count; i++)
            cm_page_cell(page->out, "k", cm_get_text(sides[i], key));
        if (count > 1)
            cm_page_cell(page->out, "", different ? "differs" : "");
        cm_str_add(page->out, "</tr>\n");
    }
}

static void add_table(struct cm_page *page, const json_t *keys, json_t *const *sides, size_t count)
{
    const char *titles[SIDES_MAX + 3] = {"what"};
    for (size_t i = 0; i < count; i++)
        titles[i + 1] = page->book->sides[i].label;
    if (count > 1)
        titles[count + 1] = "the same?";
    cm_str_add(page->out, "<div class=\"scroll\" tabindex=\"0\"><table class=\"sorts origin\">");
    cm_page_table(page->out,
                  count > 1 ? "what differs comes first" : "as recorded when it was measured",
                  titles);
    add_rows(page, keys, sides, count, true);
    add_rows(page, keys, sides, count, false);
    cm_str_add(page->out, "</tbody></table></div>\n");
}

static void add_suites(struct cm_page *page)
{
    for (size_t i = 0; i < page->book->count && i < SIDES_MAX; i++) {
        const json_t *suite = json_object_get(cm_side_last(&page->book->sides[i]), "suite");
        const char *text = cm_get_text(suite, "text");
        if (text[0] == '\0')
            continue;
        cm_str_add(page->out, "<details><summary>The suite of ");
        cm_page_text(page->out, page->book->sides[i].label);
        cm_str_add(page->out, "</summary><pre>");
        cm_page_text(page->out, text);
        cm_str_add(page->out, "</pre></details>\n");
    }
}

enum cm_status cm_page_provenance(struct cm_page *page)
{
    size_t count = page->book->count < SIDES_MAX ? page->book->count : SIDES_MAX;
    json_t *sides[SIDES_MAX] = {NULL}, *keys = json_array(), *seen = json_object();
    enum cm_status status = keys != NULL && seen != NULL ? CM_OK : CM_NO_MEMORY;
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        const char *key;
        json_t *value;
        sides[i] = json_object();
        status = sides[i] != NULL ? read_side(&page->book->sides[i], sides[i]) : CM_NO_MEMORY;
        json_object_foreach(sides[i], key, value)
        {
            if (json_object_get(seen, key) != NULL)
                continue;
            cm_put(&status, seen, key, json_true());
            cm_push(&status, keys, json_string(key));
        }
    }
    cm_str_add(page->out, "<section id=\"provenance\" aria-labelledby=\"h-provenance\">\n"
                          "<h2 id=\"h-provenance\">Provenance</h2>\n");
    if (status == CM_OK)
        add_table(page, keys, sides, count);
    add_suites(page);
    cm_str_add(page->out, "</section>\n");
    for (size_t i = 0; i < count; i++)
        json_decref(sides[i]);
    json_decref(keys);
    json_decref(seen);
    return status;
}
