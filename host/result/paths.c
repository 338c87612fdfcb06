/* From what a user names to results: files, folders of them, JSON-lines files. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "host/result/book.h"
#include "host/result/set.h"

#define RESULTS_MAX 20000

struct paths {
    char **items;
    size_t count, capacity;
};

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), most = strlen(end);
    return length >= most && strcmp(text + length - most, end) == 0;
}

static bool has_lines(const char *path)
{
    return ends_with(path, ".jsonl");
}

static void release_paths(struct paths *paths)
{
    for (size_t i = 0; i < paths->count; i++)
        cm_free(paths->items[i]);
    cm_free(paths->items);
}

/* Takes over `path`; NULL is a failed allocation. */
static enum cm_status add_path(struct paths *paths, char *path)
{
    if (path == NULL ||
        cm_grow(&paths->items, &paths->capacity, paths->count + 1, sizeof *paths->items) != 0) {
        cm_free(path);
        return CM_NO_MEMORY;
    }
    paths->items[paths->count++] = path;
    return CM_OK;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static enum cm_status list_folder(const char *path, struct paths *paths)
{
    struct dirent **entries = NULL;
    enum cm_status status = CM_OK;
    size_t before = paths->count;
    int count = scandir(path, &entries, NULL, by_name);
    if (count < 0)
        return cm_error_errno(CM_USAGE, "cannot read the folder %.300s", path);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        if (status == CM_OK && name[0] != '.' && (ends_with(name, ".json") || has_lines(name)))
            status = add_path(paths, cm_strf("%s/%s", path, name));
        free(entries[i]); /* scandir's own */
    }
    free(entries);
    if (status == CM_OK && paths->count == before)
        return cm_error(CM_USAGE, "%.300s: no result in this folder (*.json, *.jsonl)", path);
    return status;
}

/* What a path stands for; *folder says whether it is one. */
static enum cm_status list_path(const char *path, struct paths *paths, bool *folder)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return cm_error_errno(CM_USAGE, "cannot read %.300s", path);
    *folder = S_ISDIR(info.st_mode);
    return *folder ? list_folder(path, paths) : add_path(paths, cm_strdup(path));
}

/* A result per line; empty lines are passed over. */
static enum cm_status load_lines(const char *path, json_t *results)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return cm_error_errno(CM_USAGE, "cannot open %.300s", path);
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t length;
    enum cm_status status = CM_OK;
    while (status == CM_OK && (length = getline(&line, &capacity, file)) >= 0) {
        number++;
        if (line[strspn(line, " \t\r\n")] == '\0')
            continue;
        char name[400];
        snprintf(name, sizeof name, "%.300s:%zu", path, number);
        json_t *value = NULL;
        status = cm_result_parse(line, (size_t)length, name, &value);
        if (status == CM_OK)
            status = cm_json_append(results, value);
    }
    if (status == CM_OK && ferror(file))
        status = cm_error_errno(CM_IO, "cannot read %.300s", path);
    free(line); /* getline's own */
    fclose(file);
    return status;
}

static enum cm_status load_file(const char *path, json_t *results)
{
    json_t *value = NULL;
    if (has_lines(path))
        return load_lines(path, results);
    enum cm_status status = cm_result_load(path, &value);
    return status == CM_OK ? cm_json_append(results, value) : status;
}

/* ---- for what is drawn ---- */

enum cm_status cm_results_load(const char *path, json_t *results)
{
    struct paths paths = {.items = NULL};
    bool folder = false;
    size_t before = json_array_size(results);
    enum cm_status status = list_path(path, &paths, &folder);
    for (size_t i = 0; status == CM_OK && i < paths.count; i++) {
        status = load_file(paths.items[i], results);
        if (status == CM_USAGE && folder) {
            cm_warn("left out: %s", cm_error_text());
            status = CM_OK;
        }
    }
    release_paths(&paths);
    if (status == CM_OK && json_array_size(results) == before)
        return cm_error(CM_USAGE, "%.300s: no result in %s", path,
                        folder ? "this folder" : "this file");
    if (status == CM_OK && json_array_size(results) > RESULTS_MAX)
        return cm_error(CM_USAGE, "%.300s: over %d results", path, RESULTS_MAX);
    return status;
}

/* ---- for what is decided: no stranger is passed over ---- */

/* Files read at once: what is kept of each is small, what is read of it is not. */
#define BATCH 64

static enum cm_status add_batch(struct cm_set *set, char *const *paths, size_t count)
{
    json_t *results[BATCH];
    enum cm_status status = cm_results_read(paths, count, results);
    if (status != CM_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        if (status == CM_OK)
            status = cm_set_add_result(set, paths[i], results[i]);
        else
            json_decref(results[i]);
    }
    return status;
}

static enum cm_status add_lines(struct cm_set *set, const char *path)
{
    json_t *results = json_array(), *result;
    size_t index;
    enum cm_status status = results != NULL ? load_lines(path, results) : CM_NO_MEMORY;
    if (status == CM_OK && json_array_size(results) == 0)
        status = cm_error(CM_USAGE, "%.300s: no result in this file", path);
    json_array_foreach(results, index, result)
    {
        char *name = cm_strf("%.300s, result %zu", path, index + 1);
        if (status == CM_OK)
            status =
                name != NULL ? cm_set_add_result(set, name, json_incref(result)) : CM_NO_MEMORY;
        cm_free(name);
    }
    json_decref(results);
    return status;
}

static enum cm_status add_files(struct cm_set *set, const struct paths *paths)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0, next; status == CM_OK && i < paths->count; i = next) {
        next = i + 1;
        if (has_lines(paths->items[i])) {
            status = add_lines(set, paths->items[i]);
            continue;
        }
        while (next < paths->count && next - i < BATCH && !has_lines(paths->items[next]))
            next++;
        status = add_batch(set, paths->items + i, next - i);
    }
    return status;
}

/* "results/a.json" and "runs/a/" are both "a". */
static char *name_of(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    static const char *const endings[] = {".json", ".jsonl"};
    for (size_t i = 0; i < 2; i++) {
        size_t length = strlen(endings[i]);
        if (end - start > length && strncmp(path + end - length, endings[i], length) == 0)
            end -= length;
    }
    return cm_strf("%.*s", (int)(end - start), path + start);
}

enum cm_status cm_set_add_paths(struct cm_set *set, const char *const *operands, size_t count)
{
    struct paths paths = {.items = NULL};
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < count; i++) {
        bool folder;
        if (set->name == NULL && (set->name = name_of(operands[i])) == NULL)
            status = CM_NO_MEMORY;
        else
            status = list_path(operands[i], &paths, &folder);
    }
    if (status == CM_OK)
        status = add_files(set, &paths);
    release_paths(&paths);
    return status;
}
