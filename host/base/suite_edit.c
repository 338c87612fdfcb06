/* Sections and settings of a suite: added, found, replaced, written. Reading is in suite.c. */
#include "host/base/suite_edit.h"

#include <stdbool.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/file.h"
#include "clustermark/memory.h"
#include "host/base/name.h"

static bool is_alphanumeric(char letter)
{
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9');
}

/* Whether a name is made of letters, digits and `more` characters. */
static bool is_name(const char *text, const char *more)
{
    size_t length = 0;
    for (; text[length] != '\0'; length++) {
        if (!is_alphanumeric(text[length]) && strchr(more, text[length]) == NULL)
            return false;
    }
    return length > 0 && length <= CM_NAME_MAX;
}

static void release_setting(struct cm_setting *setting)
{
    cm_free(setting->key);
    cm_free(setting->value);
    cm_free(setting->where);
}

static void release_section(struct cm_section *section)
{
    for (size_t i = 0; i < section->setting_count; i++)
        release_setting(&section->settings[i]);
    cm_free(section->settings);
    cm_free(section->name);
    cm_free(section->where);
}

void cm_suite_release(struct cm_suite *suite)
{
    for (size_t i = 0; i < suite->section_count; i++)
        release_section(&suite->sections[i]);
    cm_free(suite->sections);
    release_section(&suite->global);
    cm_free(suite->name);
    cm_free(suite->path);
    *suite = (struct cm_suite){0};
}

static enum cm_status init_section(const char *name, const char *where, struct cm_section *section)
{
    *section = (struct cm_section){.name = cm_strdup(name), .where = cm_strdup(where)};
    if (section->name != NULL && section->where != NULL)
        return CM_OK;
    release_section(section);
    *section = (struct cm_section){0};
    return CM_NO_MEMORY;
}

/* The file's name without folder and ending. */
static char *suite_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    int length = (int)(dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base));
    return cm_strf("%.*s", length, base);
}

enum cm_status cm_suite_init(const char *path, struct cm_suite *suite)
{
    struct cm_suite fresh = {.name = suite_name(path), .path = cm_strdup(path)};
    if (fresh.name == NULL || fresh.path == NULL ||
        init_section("global", path, &fresh.global) != CM_OK) {
        cm_suite_release(&fresh);
        return CM_NO_MEMORY;
    }
    *suite = fresh;
    return CM_OK;
}

const struct cm_section *cm_suite_section(const struct cm_suite *suite, const char *name)
{
    for (size_t i = 0; i < suite->section_count; i++) {
        if (strcmp(suite->sections[i].name, name) == 0)
            return &suite->sections[i];
    }
    return NULL;
}

static struct cm_setting *find_setting(const struct cm_section *section, const char *key)
{
    for (size_t i = 0; i < section->setting_count; i++) {
        if (cm_name_equal(section->settings[i].key, key))
            return &section->settings[i];
    }
    return NULL;
}

const struct cm_setting *cm_section_setting(const struct cm_section *section, const char *key)
{
    return find_setting(section, key);
}

enum cm_status cm_suite_add_section(struct cm_suite *suite, const char *name, const char *where,
                                    struct cm_section **section)
{
    if (!is_name(name, "_-.+"))
        return cm_error(CM_USAGE,
                        "%s: [%.80s] is no section name; write 1 to %d letters, digits, _ - . +",
                        where, name, CM_NAME_MAX);
    const struct cm_section *same = cm_suite_section(suite, name);
    if (same != NULL)
        return cm_error(CM_USAGE,
                        "%s: section [%s] stands already at %s; give it another name and write "
                        "workload = %s",
                        where, name, same->where, name);
    if (suite->section_count == CM_SUITE_SECTIONS_MAX)
        return cm_error(CM_USAGE, "%s: over %d sections", where, CM_SUITE_SECTIONS_MAX);
    if (cm_grow(&suite->sections, &suite->section_capacity, suite->section_count + 1,
                sizeof *suite->sections) != 0)
        return CM_NO_MEMORY;
    enum cm_status status = init_section(name, where, &suite->sections[suite->section_count]);
    if (status == CM_OK)
        *section = &suite->sections[suite->section_count++];
    return status;
}

enum cm_status cm_setting_check(const char *key, const char *value, const char *where)
{
    if (!is_name(key, "_-"))
        return cm_error(CM_USAGE, "%s: \"%.80s\" is no key; write 1 to %d letters, digits, _ -",
                        where, key, CM_NAME_MAX);
    size_t length = strlen(value);
    if (cm_text_check(value, length) != length || strpbrk(value, "\r\n") != NULL)
        return cm_error(CM_USAGE, "%s: %s: the value is not a line of text", where, key);
    const char *comment = strchr(value, ';');
    while (comment != NULL && comment != value && comment[-1] != ' ' && comment[-1] != '\t')
        comment = strchr(comment + 1, ';');
    if (comment != NULL)
        return cm_error(CM_USAGE, "%s: %s: a value cannot hold \" ;\", which begins a comment",
                        where, key);
    if (strlen(key) + strlen(" = ") + length > CM_SUITE_LINE_MAX)
        return cm_error(CM_USAGE, "%s: %s: line over %d characters; use a second section", where,
                        key, CM_SUITE_LINE_MAX);
    return CM_OK;
}

static enum cm_status init_setting(const char *key, const char *value, const char *where,
                                   struct cm_setting *setting)
{
    struct cm_setting fresh = {cm_strdup(key), cm_strdup(value), cm_strdup(where)};
    if (fresh.key == NULL || fresh.value == NULL || fresh.where == NULL) {
        release_setting(&fresh);
        return CM_NO_MEMORY;
    }
    *setting = fresh;
    return CM_OK;
}

enum cm_status cm_section_add(struct cm_section *section, const char *key, const char *value,
                              const char *where)
{
    if (section->setting_count == CM_SUITE_SETTINGS_MAX)
        return cm_error(CM_USAGE, "%s: over %d keys in [%s]", where, CM_SUITE_SETTINGS_MAX,
                        section->name);
    if (cm_grow(&section->settings, &section->setting_capacity, section->setting_count + 1,
                sizeof *section->settings) != 0)
        return CM_NO_MEMORY;
    enum cm_status status =
        init_setting(key, value, where, &section->settings[section->setting_count]);
    if (status == CM_OK)
        section->setting_count++;
    return status;
}

static enum cm_status assign(struct cm_section *section, const char *key, const char *value,
                             const char *where)
{
    struct cm_setting *setting = find_setting(section, key);
    if (setting == NULL)
        return cm_section_add(section, key, value, where);
    struct cm_setting fresh;
    enum cm_status status = init_setting(key, value, where, &fresh);
    if (status != CM_OK)
        return status;
    release_setting(setting);
    *setting = fresh;
    return CM_OK;
}

static enum cm_status no_section(const struct cm_suite *suite, const char *name, const char *where)
{
    const char *nearest = NULL;
    size_t least = CM_NAME_MAX;
    for (size_t i = 0; i < suite->section_count; i++) {
        const char *other = suite->sections[i].name;
        size_t distance = cm_name_distance(name, other);
        if (distance < least && cm_name_near(distance, name, other)) {
            nearest = other;
            least = distance;
        }
    }
    if (nearest != NULL)
        return cm_error(CM_USAGE, "%s: no section [%.80s] in %s; did you mean [%s]?", where, name,
                        suite->path, nearest);
    return cm_error(CM_USAGE, "%s: no section [%.80s] in %s; its first is [%s], * means all", where,
                    name, suite->path, suite->section_count ? suite->sections[0].name : "global");
}

static enum cm_status assign_in(struct cm_suite *suite, const char *name, const char *key,
                                const char *value, const char *where)
{
    enum cm_status status = cm_setting_check(key, value, where);
    if (status != CM_OK)
        return status;
    if (strcmp(name, "global") == 0)
        return assign(&suite->global, key, value, where);
    bool found = false;
    for (size_t i = 0; i < suite->section_count && status == CM_OK; i++) {
        struct cm_section *section = &suite->sections[i];
        if (strcmp(name, "*") != 0 && strcmp(name, section->name) != 0)
            continue;
        found = true;
        status = assign(section, key, value, where);
    }
    return status == CM_OK && !found ? no_section(suite, name, where) : status;
}

/* `length` bytes without the spaces at both ends; the caller frees. */
static char *trimmed(const char *text, size_t length)
{
    while (length > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        length--;
    }
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        length--;
    char *copy = cm_alloc(length + 1, 1);
    if (copy != NULL)
        memcpy(copy, text, length);
    return copy;
}

enum cm_status cm_suite_set(struct cm_suite *suite, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    const char *dot =
        equals != NULL ? memrchr(assignment, '.', (size_t)(equals - assignment)) : NULL;
    if (dot == NULL)
        return cm_error(CM_USAGE, "--set %.80s: write CASE.KEY=VALUE, such as gemm.m=4096",
                        assignment);
    char *name = trimmed(assignment, (size_t)(dot - assignment));
    char *key = trimmed(dot + 1, (size_t)(equals - dot - 1));
    char *value = trimmed(equals + 1, strlen(equals + 1));
    char *where = cm_strf("--set %s", assignment);
    enum cm_status status = CM_NO_MEMORY;
    if (name != NULL && key != NULL && value != NULL && where != NULL)
        status = assign_in(suite, name, key, value, where);
    cm_free(where);
    cm_free(value);
    cm_free(key);
    cm_free(name);
    return status;
}

static void write_section(const struct cm_section *section, struct cm_str *out)
{
    cm_str_addf(out, "%s[%s]\n", out->length > 0 ? "\n" : "", section->name);
    for (size_t i = 0; i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        cm_str_addf(out, "%s =%s%s\n", setting->key, *setting->value != '\0' ? " " : "",
                    setting->value);
    }
}

void cm_suite_write(const struct cm_suite *suite, struct cm_str *out)
{
    if (suite->global.setting_count > 0)
        write_section(&suite->global, out);
    for (size_t i = 0; i < suite->section_count; i++)
        write_section(&suite->sections[i], out);
}
