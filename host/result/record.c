/*
 * The result file: opened before anything is measured, written anew after each run of a case, so
 * that what finished survives whatever comes after.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "host/result/fold.h"
#include "host/result/placement.h"
#include "host/result/record.h"

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static enum cm_status write_file(struct cm_result *result)
{
    struct cm_str text = CM_STR_INIT;
    enum cm_status status =
        cm_result_text(result->root, result->slots, result->texts, result->plan->count, &text);
    if (status == CM_OK)
        status = cm_file_replace(result->path, cm_str_text(&text), text.length);
    cm_str_release(&text);
    return status;
}

/* A write that fails does not end the run: the next one tries again with everything in it. */
static void write_or_remember(struct cm_result *result)
{
    enum cm_status status = write_file(result);
    if (status != CM_OK && result->write_status == CM_OK)
        cm_warn("%s; measuring goes on, the next write tries again", cm_error_text());
    result->write_status = status;
}

static enum cm_status make_folder(struct cm_result *result)
{
    if (mkdir("results", 0777) == 0)
        result->made_folder = true;
    else if (errno != EEXIST)
        return cm_error_errno(CM_USAGE, "cannot make the folder results; name a file with -o");
    return CM_OK;
}

/* CM_IO: the name is taken. Nobody can know the name yet and read the empty file. */
static enum cm_status reserve(struct cm_result *result)
{
    int fd = open(result->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return errno == EEXIST ? CM_IO : cm_error_errno(CM_USAGE, "cannot write %s", result->path);
    close(fd);
    result->made_file = true;
    return CM_OK;
}

/* results/<UTC time>-<suite>.json, with a number when two runs begin in one second. */
static enum cm_status default_path(struct cm_result *result)
{
    char stamp[CM_STAMP_MAX], suite[64];
    cm_result_stamp(now_s(), true, stamp);
    snprintf(suite, sizeof suite, "%s", result->plan->suite_name);
    for (char *at = suite; *at != '\0'; at++) {
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", *at) == NULL)
            *at = '-';
    }
    enum cm_status status = make_folder(result);
    for (unsigned number = 1; status == CM_OK && number < 1000; number++) {
        char again[16] = "";
        if (number > 1)
            snprintf(again, sizeof again, "-%u", number);
        cm_free(result->path);
        result->path = cm_strf("results/%s-%s%s.json", stamp, suite, again);
        if (result->path == NULL)
            return CM_NO_MEMORY;
        status = reserve(result);
        if (status != CM_IO)
            return status;
        status = CM_OK;
    }
    return status != CM_OK ? status : cm_error(CM_USAGE, "%s is taken; use -o", result->path);
}

/* A file that is there already is overwritten, but not before there is something to replace it
 * with; that its folder takes a new file is tried now. Devices and pipes are written through. */
static enum cm_status given_path(struct cm_result *result, const char *path)
{
    struct stat info;
    result->path = cm_strdup(path);
    if (result->path == NULL)
        return CM_NO_MEMORY;
    if (stat(path, &info) != 0) {
        enum cm_status status = write_file(result);
        result->made_file = status == CM_OK;
        return status;
    }
    if (S_ISDIR(info.st_mode))
        return cm_error(CM_USAGE, "cannot write %s: it is a folder; give the name of a file", path);
    if (access(path, W_OK) != 0)
        return cm_error_errno(CM_USAGE, "cannot write %s", path);
    if (!S_ISREG(info.st_mode))
        return CM_OK;
    const char *slash = strrchr(path, '/');
    char *probe =
        cm_strf("%.*s.clustermark-XXXXXX", slash != NULL ? (int)(slash + 1 - path) : 0, path);
    if (probe == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = CM_OK;
    int fd = mkstemp(probe);
    if (fd < 0) {
        status = cm_error_errno(CM_USAGE, "cannot write %s", path);
    } else {
        close(fd);
        unlink(probe);
    }
    cm_free(probe);
    return status;
}

static json_t *suite_json(const struct cm_plan *plan, const struct cm_result_options *options)
{
    enum cm_status status = CM_OK;
    json_t *suite = json_object();
    cm_put(&status, suite, "name", cm_result_string(plan->suite_name));
    cm_put(&status, suite, "text", cm_result_string(plan->suite_text));
    cm_put(&status, suite, "runs", json_integer((json_int_t)plan->runs));
    cm_put(&status, suite, "seed", json_integer((json_int_t)plan->seed));
    cm_put(&status, suite, "cases", json_integer((json_int_t)plan->count));
    cm_put(&status, suite, "fresh_processes", json_boolean(options->fresh_processes));
    if (options->launcher != NULL && strcmp(options->launcher, "none") != 0)
        cm_put(&status, suite, "launcher", cm_result_string(options->launcher));
    if (options->simulated)
        cm_put(&status, suite, "simulated", json_true());
    double injected = 0;
    for (size_t i = 0; i < plan->count; i++)
        injected =
            plan->cases[i].settings.inject > injected ? plan->cases[i].settings.inject : injected;
    if (injected > 0)
        cm_put(&status, suite, "injected", cm_json_real(injected));
    json_t *command = cm_put_array(&status, suite, "command");
    for (int i = 0; i < options->argc; i++)
        cm_push(&status, command, cm_result_string(options->argv[i]));
    if (status == CM_OK)
        return suite;
    json_decref(suite);
    return NULL;
}

static enum cm_status put_machine(json_t *root, const struct cm_result_options *options)
{
    json_t *machine = NULL;
    enum cm_status status = CM_OK;
    if (options->topology != NULL)
        status = cm_topology_json(options->topology, &machine);
    else
        machine = json_object();
    cm_put(&status, machine, "digest",
           options->topology != NULL ? cm_result_string(options->topology->digest) : json_null());
    cm_put_host(&status, machine, options->show_hosts);
    if (status == CM_OK)
        return cm_json_set(root, "machine", machine);
    json_decref(machine);
    return status;
}

static enum cm_status put_placement(json_t *root, const struct cm_result_options *options)
{
    json_t *placement = NULL;
    enum cm_status status = cm_placement_json("", options->show_hosts, &placement);
    return status == CM_OK ? cm_json_set(root, "placement", placement) : status;
}

/* So that nobody takes a summary for all there was. */
static json_t *folded_json(void)
{
    return json_pack("{s:i, s:i, s:s}", "above", CM_FOLD_ABOVE, "outliers_most", CM_FOLD_OUTLIERS,
                     "outliers",
                     "farther from the median than 5 robust standard deviations (1.4826 times the "
                     "median absolute deviation)");
}

static enum cm_status build_root(struct cm_result *result, const struct cm_result_options *options)
{
    enum cm_status status = CM_OK;
    char stamp[CM_STAMP_MAX];
    json_t *root = result->root = json_object();
    cm_result_stamp(now_s(), false, stamp);
    cm_put(&status, root, "schema", json_string(CM_RESULT_SCHEMA));
    cm_put(&status, root, "version", json_string(CM_RESULT_VERSION));
    cm_put(&status, root, "ending", json_string("running"));
    cm_put(&status, root, "started", json_string(stamp));
    cm_put(&status, root, "device", json_string(options->device->name));
    cm_put(&status, root, "ranks", json_integer(options->ranks));
    if (cm_folds(options->ranks))
        cm_put(&status, root, "folded", folded_json());
    cm_put(&status, root, "tool", cm_tool_json());
    if (status == CM_OK)
        status = put_machine(root, options);
    cm_put(&status, root, "stack", cm_stack_json());
    cm_put(&status, root, "environment", cm_environment_json(options->show_hosts));
    if (options->placement && status == CM_OK)
        status = put_placement(root, options);
    cm_put(&status, root, "suite", suite_json(result->plan, options));
    cm_put(&status, root, "devices", json_array());
    cm_put(&status, root, "cases", json_array());
    cm_put(&status, root, "sweeps", json_array());
    cm_put(&status, root, "suspects", json_array());
    return status;
}

enum cm_status cm_result_create(const struct cm_plan *plan, const struct cm_result_options *options,
                                struct cm_result **result)
{
    struct cm_result *made = cm_alloc(1, sizeof *made);
    if (made == NULL)
        return CM_NO_MEMORY;
    made->plan = plan;
    made->device = options->device;
    made->ranks = options->ranks;
    made->show_hosts = options->show_hosts;
    made->slots = cm_alloc(plan->count, sizeof(void *));
    made->texts = cm_alloc(plan->count, sizeof *made->texts);
    made->figures = cm_alloc(plan->count, sizeof *made->figures);
    bool made_lists = made->slots != NULL && made->texts != NULL && made->figures != NULL;
    enum cm_status status = made_lists ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK)
        status = build_root(made, options);
    if (status == CM_OK)
        status = options->path != NULL ? given_path(made, options->path) : default_path(made);
    if (status == CM_OK && options->path == NULL)
        status = write_file(made);
    if (status != CM_OK) {
        cm_result_free(made);
        return status;
    }
    *result = made;
    return CM_OK;
}

const char *cm_result_path(const struct cm_result *result)
{
    return result->path;
}

const json_t *cm_result_json(const struct cm_result *result)
{
    return result->root;
}

static json_t *case_json(const struct cm_result *result, const struct cm_case *item)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    cm_put(&status, object, "name", cm_result_string(item->name));
    cm_put(&status, object, "section", cm_result_string(item->section));
    cm_put(&status, object, "workload", json_string(item->workload->name));
    cm_put(&status, object, "device", json_string(result->device->name));
    cm_put(&status, object, "ranks", json_integer(result->ranks));
    cm_put(&status, object, "params", cm_params_json(item->workload->options, item->params));
    cm_put(&status, object, "settings", cm_params_json(cm_run_options, &item->settings));
    /* Set first to stand here in the file; cm_case_summarise fills them. */
    static const char *const summaries[] = {"status",   "reason",       "spread",    "metrics",
                                            "ceilings", "spread_ranks", "telemetry", "check"};
    for (size_t i = 0; i < sizeof summaries / sizeof summaries[0]; i++)
        cm_put(&status, object, summaries[i], json_null());
    cm_put(&status, object, "runs", json_array());
    if (status == CM_OK)
        return object;
    json_decref(object);
    return NULL;
}

/* "oneDNN 2.6.3" of "oneDNN 2.6.3 matmul gemm:jit": a library and its version. Not "RING SIMPLE",
 * which a communication library chose. */
static void note_library(enum cm_status *status, json_t *stack, const char *algorithm)
{
    size_t length = strcspn(algorithm, " ");
    char first = algorithm[length] != '\0' ? algorithm[length + 1] : '\0';
    if (first < '0' || first > '9' || json_object_get(stack, "compute_library") != NULL)
        return;
    length += 1 + strcspn(algorithm + length + 1, " ");
    char *text = cm_strf("%.*s", (int)length, algorithm);
    cm_put(status, stack, "compute_library", text != NULL ? cm_result_string(text) : NULL);
    cm_free(text);
}

/* The libraries are known once ranks ran. */
static void note_ranks(enum cm_status *status, json_t *root, const struct cm_case_run *run)
{
    json_t *stack = json_object_get(root, "stack");
    if (run->devices != NULL && json_array_size(json_object_get(root, "devices")) == 0)
        cm_put(status, root, "devices", cm_devices_json(run->devices, run->rank_count));
    note_library(status, stack, run->algorithm);
    if (run->comm[0] != '\0' && json_object_get(stack, "comm") == NULL) {
        cm_put(status, stack, "comm", cm_result_string(run->comm));
        cm_put(status, stack, "comm_library", cm_result_string(run->comm_library));
    }
}

/* Cases in the plan's order, with what depends on several of them. */
static enum cm_status rebuild(struct cm_result *result)
{
    enum cm_status status = CM_OK;
    json_t *cases = json_object_get(result->root, "cases");
    json_array_clear(cases);
    for (size_t i = 0; i < result->plan->count; i++) {
        if (result->slots[i] != NULL)
            cm_push(&status, cases, json_incref(result->slots[i]));
    }
    if (status == CM_OK)
        status = cm_ceilings_fill(cases);
    if (status == CM_OK)
        status = cm_suspects_fill(cases, json_object_get(result->root, "suspects"));
    if (status == CM_OK)
        status =
            cm_sweeps_fill(result->plan, result->slots, json_object_get(result->root, "sweeps"));
    return status;
}

/* What ranks tell one by one, of which only a summary is written when they are very many. */
static enum cm_status fill_ranks(struct cm_result *result, json_t *item,
                                 const struct cm_case_run *run)
{
    struct cm_rank_figures *figures = &result->figures[run->case_index];
    enum cm_status status = cm_rank_names_note(&result->names, run->devices, run->rank_count);
    if (status == CM_OK && cm_folds(run->rank_count) && run->status == CM_CASE_OK)
        status = cm_rank_figures_add(figures, &run->metrics, run->rank_count);
    return status == CM_OK ? cm_devices_fill(item, &result->names, figures) : status;
}

enum cm_status cm_result_add(struct cm_result *result, const struct cm_plan *plan,
                             const struct cm_case_run *run)
{
    if (plan != result->plan || run->case_index >= plan->count)
        return cm_error(CM_INTERNAL, "a run of case %zu, but the plan has %zu", run->case_index,
                        result->plan->count);
    json_t **slot = &result->slots[run->case_index];
    if (*slot == NULL)
        *slot = case_json(result, &plan->cases[run->case_index]);
    enum cm_status status = CM_OK;
    if (*slot == NULL)
        return cm_error(CM_NO_MEMORY, "out of memory: the result of a case");
    json_t *added = cm_run_json(run);
    if (run->suspects.count > 0)
        cm_put(&status, added, "suspects", cm_suspects_json(&run->suspects, result->show_hosts));
    cm_push(&status, json_object_get(*slot, "runs"), added);
    if (status == CM_OK)
        status = cm_run_texts_add(&result->texts[run->case_index], added);
    if (status == CM_OK)
        status = cm_case_summarise(*slot);
    note_ranks(&status, result->root, run);
    if (status == CM_OK)
        status = fill_ranks(result, *slot, run);
    if (status == CM_OK)
        status = rebuild(result);
    if (status == CM_OK) {
        result->keep = true;
        write_or_remember(result);
    }
    return status;
}

/* A case that is ok with fewer runs than asked for says so. */
static enum cm_status note_missing_runs(json_t *item, uint64_t wanted, const char *ending)
{
    size_t have = json_array_size(json_object_get(item, "runs"));
    if (have >= wanted || cm_get_text(item, "reason")[0] != '\0')
        return CM_OK;
    return cm_json_set(item, "reason",
                       json_sprintf("%zu of %llu runs: the run ended before the others (%s)", have,
                                    (unsigned long long)wanted, ending));
}

enum cm_status cm_result_cluster(struct cm_result *result, const struct cm_cluster_map *cluster,
                                 const char *placement)
{
    json_t *value = NULL;
    enum cm_status status = cm_cluster_json(cluster, result->show_hosts, &value);
    json_t *lines = status == CM_OK ? cm_put_array(&status, value, "placement") : NULL;
    while (status == CM_OK && *placement != '\0') {
        size_t length = strcspn(placement, "\n");
        cm_push(&status, lines, json_stringn(placement, length));
        placement += length + (placement[length] == '\n');
    }
    if (status == CM_OK)
        return cm_json_set(json_object_get(result->root, "machine"), "cluster", value);
    json_decref(value);
    return status;
}

/* What was planned and never came is said, not left out. */
static enum cm_status add_missing(struct cm_result *result, const char *ending)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < result->plan->count; i++) {
        if (result->slots[i] != NULL) {
            status =
                note_missing_runs(result->slots[i], result->plan->cases[i].settings.runs, ending);
            continue;
        }
        json_t *item = result->slots[i] = case_json(result, &result->plan->cases[i]);
        if (item == NULL)
            return cm_error(CM_NO_MEMORY, "out of memory: the result of a case");
        status = cm_case_summarise(item);
        if (status == CM_OK)
            status = cm_devices_fill(item, &result->names, &result->figures[i]);
        cm_put(&status, item, "reason",
               json_sprintf("not reached: the run ended before it (%s)", ending));
    }
    return status == CM_OK ? rebuild(result) : status;
}

enum cm_status cm_result_finish(struct cm_result *result, const char *ending)
{
    char stamp[CM_STAMP_MAX];
    cm_result_stamp(now_s(), false, stamp);
    enum cm_status status = add_missing(result, ending);
    cm_put(&status, result->root, "ending", json_string(ending));
    cm_put(&status, result->root, "finished", json_string(stamp));
    result->keep = true;
    if (status != CM_OK)
        return status;
    status = write_file(result);
    return status == CM_OK ? CM_OK : cm_error_at(status, "the result is not saved: ");
}

void cm_result_free(struct cm_result *result)
{
    if (result == NULL)
        return;
    if (!result->keep && result->made_file)
        unlink(result->path);
    if (!result->keep && result->made_folder)
        rmdir("results");
    for (size_t i = 0; result->slots != NULL && i < result->plan->count; i++)
        json_decref(result->slots[i]);
    for (size_t i = 0; result->texts != NULL && i < result->plan->count; i++)
        cm_run_texts_release(&result->texts[i]);
    for (size_t i = 0; result->figures != NULL && i < result->plan->count; i++)
        cm_rank_figures_release(&result->figures[i]);
    cm_free(result->slots);
    cm_free(result->texts);
    cm_free(result->figures);
    cm_free(result->names.items);
    json_decref(result->root);
    cm_free(result->path);
    cm_free(result);
}
