/* From a suite to cases: option tables applied, sweeps expanded, every name and value checked. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/memory.h"
#include "host/measure/sweep.h"

/* One section while it is interpreted. */
struct section_plan {
    const struct cm_suite *suite;
    const struct cm_section *section;
    const struct cm_workload *workload;
    struct cm_run_settings settings;
    void *params;         /* the defaults */
    struct cm_axis *axes; /* one per key of the workload that is set, in the suite's order */
    size_t axis_count, axis_capacity;
    size_t points;
};

struct builder {
    const struct cm_suite *suite;
    uint64_t runs; /* 0: as the suite says */
    struct cm_plan plan;
    size_t capacity;
};

const struct cm_workload *cm_workload_find(const char *name)
{
    for (size_t i = 0; cm_workloads[i] != NULL; i++) {
        if (strcmp(cm_workloads[i]->name, name) == 0)
            return cm_workloads[i];
    }
    return NULL;
}

static void case_release(struct cm_case *item)
{
    cm_free(item->name);
    cm_free(item->section);
    cm_free(item->params);
    cm_free(item->where);
    *item = (struct cm_case){0};
}

void cm_plan_release(struct cm_plan *plan)
{
    if (plan == NULL)
        return;
    for (size_t i = 0; i < plan->count; i++)
        case_release(&plan->cases[i]);
    cm_free(plan->cases);
    cm_free(plan->suite_name);
    cm_free(plan->suite_text);
    *plan = (struct cm_plan){0};
}

/* ", did you mean gemm?" into `text`, or nothing when no name is near. */
#define HINT_MAX 96
static void hint(const char *nearest, char *text)
{
    text[0] = '\0';
    if (nearest != NULL)
        snprintf(text, HINT_MAX, "; did you mean %s?", nearest);
}

static enum cm_status unknown_workload(const char *name, const char *where)
{
    size_t count = 0;
    while (cm_workloads[count] != NULL)
        count++;
    /* The search for a near name works on option tables. */
    struct cm_option *names = cm_alloc(count + 1, sizeof *names);
    if (names == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        names[i].name = cm_workloads[i]->name;
    char text[HINT_MAX];
    hint(cm_option_nearest(names, name), text);
    cm_free(names);
    return cm_error(CM_USAGE, "%s: no workload \"%s\"%s", where, name,
                    text[0] ? text : "; `clustermark list workloads` names them");
}

static enum cm_status unknown_key(const struct cm_setting *setting, const char *whose,
                                  const struct cm_option *options)
{
    const char *nearest = options != NULL ? cm_option_nearest(options, setting->key) : NULL;
    char text[HINT_MAX];
    hint(nearest != NULL ? nearest : cm_option_nearest(cm_run_options, setting->key), text);
    return cm_error(CM_USAGE, "%s: unknown key \"%s\" for %s%s", setting->where, setting->key,
                    whose, text);
}

/* The setting of a section that means this option ('-' and '_' are the same). */
static const struct cm_setting *setting_of(const struct cm_section *section,
                                           const struct cm_option *table,
                                           const struct cm_option *option)
{
    for (size_t i = 0; i < section->setting_count; i++) {
        if (cm_option_find(table, section->settings[i].key) == option)
            return &section->settings[i];
    }
    return NULL;
}

static enum cm_status set_run_option(const struct cm_option *option,
                                     const struct cm_setting *setting,
                                     struct cm_run_settings *settings)
{
    if (strchr(setting->value, ',') != NULL)
        return cm_error(CM_USAGE, "%s: %s says how to measure and takes one value, not a list",
                        setting->where, option->name);
    return cm_option_set(option, setting->value, setting->where, settings);
}

static enum cm_status add_axis(struct section_plan *plan, const struct cm_option *option,
                               const struct cm_setting *setting)
{
    if (cm_grow(&plan->axes, &plan->axis_capacity, plan->axis_count + 1, sizeof *plan->axes) != 0)
        return CM_NO_MEMORY;
    void *scratch = cm_alloc(1, plan->workload->params_size);
    if (scratch == NULL)
        return CM_NO_MEMORY;
    struct cm_axis *axis = &plan->axes[plan->axis_count++];
    enum cm_status status = cm_axis_read(option, setting, scratch, axis);
    cm_free(scratch);
    if (status == CM_OK && axis->count > CM_PLAN_POINTS_MAX / plan->points)
        return cm_error(CM_USAGE, "%s: with %s the sweep of [%s] has over %d points",
                        setting->where, option->name, plan->section->name, CM_PLAN_POINTS_MAX);
    if (status == CM_OK)
        plan->points *= axis->count;
    return status;
}

/* A key of `from`, which is the section itself or [global]. */
static enum cm_status apply_setting(struct section_plan *plan, const struct cm_section *from,
                                    const struct cm_setting *setting)
{
    bool own = from == plan->section;
    if (strcmp(setting->key, "workload") == 0)
        return own ? CM_OK
                   : cm_error(CM_USAGE, "%s: workload belongs in the section of a case",
                              setting->where);
    const struct cm_option *table = cm_run_options;
    const struct cm_option *option = cm_option_find(table, setting->key);
    if (option == NULL) {
        table = plan->workload->options;
        option = cm_option_find(table, setting->key);
    }
    if (option == NULL)
        return own ? unknown_key(setting, plan->workload->name, table) : CM_OK;
    if (table == cm_run_options)
        return set_run_option(option, setting, &plan->settings);
    if (!own && setting_of(plan->section, table, option) != NULL)
        return CM_OK;
    return add_axis(plan, option, setting);
}

static bool given(const struct section_plan *plan, const char *name)
{
    const struct cm_option *option = cm_option_find(cm_run_options, name);
    return setting_of(plan->section, cm_run_options, option) != NULL ||
           setting_of(&plan->suite->global, cm_run_options, option) != NULL;
}

/* A default gives way to the limit that was set; two limits that were set must fit. */
static enum cm_status settle_limits(struct section_plan *plan)
{
    struct cm_run_settings *settings = &plan->settings;
    if (settings->min_time_s > settings->max_time_s) {
        if (given(plan, "min_time") && given(plan, "max_time"))
            return cm_error(CM_USAGE, "%s: [%s]: min_time %gs is longer than max_time %gs",
                            plan->section->where, plan->section->name, settings->min_time_s,
                            settings->max_time_s);
        if (given(plan, "min_time"))
            settings->max_time_s = settings->min_time_s;
        else
            settings->min_time_s = settings->max_time_s;
    }
    if (settings->min_iterations > settings->max_iterations) {
        if (given(plan, "min_iterations") && given(plan, "max_iterations"))
            return cm_error(CM_USAGE, "%s: [%s]: min_iterations %llu is over max_iterations %llu",
                            plan->section->where, plan->section->name,
                            (unsigned long long)settings->min_iterations,
                            (unsigned long long)settings->max_iterations);
        if (given(plan, "min_iterations"))
            settings->max_iterations = settings->min_iterations;
        else
            settings->min_iterations = settings->max_iterations;
    }
    return CM_OK;
}

static enum cm_status name_case(const struct section_plan *plan, const size_t *index, char **name)
{
    struct cm_str text = CM_STR_INIT;
    cm_str_add(&text, plan->section->name);
    char separator = ':';
    for (size_t a = 0; a < plan->axis_count; a++) {
        const struct cm_axis *axis = &plan->axes[a];
        if (axis->count < 2)
            continue;
        cm_str_addf(&text, "%c%s=%s", separator, axis->option->name, axis->values[index[a]]);
        separator = ',';
    }
    enum cm_status status = cm_str_status(&text);
    if (status == CM_OK)
        *name = text.text;
    else
        cm_str_release(&text);
    return status;
}

/* The point of the sweep that `index` names, one number per axis. */
static enum cm_status make_case(const struct section_plan *plan, const size_t *index,
                                struct cm_case *item)
{
    const struct cm_workload *workload = plan->workload;
    item->workload = workload;
    item->settings = plan->settings;
    item->section = cm_strdup(plan->section->name);
    item->where = cm_strdup(plan->section->where);
    item->params = cm_alloc(1, workload->params_size);
    if (item->section == NULL || item->where == NULL || item->params == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = name_case(plan, index, &item->name);
    if (status != CM_OK)
        return status;
    memcpy(item->params, plan->params, workload->params_size);
    for (size_t a = 0; a < plan->axis_count && status == CM_OK; a++)
        status = cm_option_set(plan->axes[a].option, plan->axes[a].values[index[a]],
                               plan->axes[a].setting->where, item->params);
    if (status != CM_OK || workload->validate == NULL)
        return status;
    char *where = cm_strf("%s: %s", item->where, item->name);
    if (where == NULL)
        return CM_NO_MEMORY;
    status = workload->validate(item->params, where);
    cm_free(where);
    return status;
}

/* All points, the last key fastest. */
static enum cm_status expand(struct builder *builder, const struct section_plan *plan)
{
    struct cm_plan *out = &builder->plan;
    if (plan->points > CM_PLAN_POINTS_MAX - out->count)
        return cm_error(CM_USAGE, "%s: with [%s] the suite has over %d cases", plan->section->where,
                        plan->section->name, CM_PLAN_POINTS_MAX);
    if (cm_grow(&out->cases, &builder->capacity, out->count + plan->points, sizeof *out->cases) !=
        0)
        return CM_NO_MEMORY;
    size_t *index = cm_alloc(plan->axis_count, sizeof *index);
    if (index == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = CM_OK;
    for (size_t point = 0; point < plan->points && status == CM_OK; point++) {
        size_t rest = point;
        for (size_t a = plan->axis_count; a-- > 0;) {
            index[a] = rest % plan->axes[a].count;
            rest /= plan->axes[a].count;
        }
        struct cm_case *item = &out->cases[out->count++];
        *item = (struct cm_case){0};
        status = make_case(plan, index, item);
    }
    cm_free(index);
    return status;
}

static enum cm_status interpret(struct builder *builder, struct section_plan *plan)
{
    const struct cm_section *section = plan->section, *global = &builder->suite->global;
    const struct cm_setting *named = cm_section_setting(section, "workload");
    const char *name = named != NULL ? named->value : section->name;
    plan->workload = cm_workload_find(name);
    if (plan->workload == NULL)
        return unknown_workload(name, named != NULL ? named->where : section->where);
    plan->params = cm_alloc(1, plan->workload->params_size);
    if (plan->params == NULL)
        return CM_NO_MEMORY;
    enum cm_status status = cm_option_defaults(plan->workload->options, plan->params);
    if (status == CM_OK)
        status = cm_option_defaults(cm_run_options, &plan->settings);
    for (size_t i = 0; i < global->setting_count && status == CM_OK; i++)
        status = apply_setting(plan, global, &global->settings[i]);
    for (size_t i = 0; i < section->setting_count && status == CM_OK; i++)
        status = apply_setting(plan, section, &section->settings[i]);
    if (status == CM_OK)
        status = settle_limits(plan);
    if (builder->runs > 0)
        plan->settings.runs = builder->runs;
    return status == CM_OK ? expand(builder, plan) : status;
}

static enum cm_status add_section(struct builder *builder, const struct cm_section *section)
{
    struct section_plan plan = {.suite = builder->suite, .section = section, .points = 1};
    enum cm_status status = interpret(builder, &plan);
    for (size_t a = 0; a < plan.axis_count; a++)
        cm_axis_release(&plan.axes[a]);
    cm_free(plan.axes);
    cm_free(plan.params);
    return status;
}

/* A key of [global] must mean something to at least one section. */
static enum cm_status check_global(const struct cm_suite *suite)
{
    for (size_t i = 0; i < suite->global.setting_count; i++) {
        const struct cm_setting *setting = &suite->global.settings[i];
        bool known = cm_option_find(cm_run_options, setting->key) != NULL;
        for (size_t s = 0; s < suite->section_count && !known; s++) {
            const struct cm_section *section = &suite->sections[s];
            const struct cm_setting *named = cm_section_setting(section, "workload");
            const struct cm_workload *workload =
                cm_workload_find(named != NULL ? named->value : section->name);
            known = workload != NULL && cm_option_find(workload->options, setting->key) != NULL;
        }
        if (!known)
            return unknown_key(setting, "any section of this suite", NULL);
    }
    return CM_OK;
}

static enum cm_status no_case_left(const struct cm_suite *suite, const char *only)
{
    struct cm_option *names = cm_alloc(suite->section_count + 1, sizeof *names);
    if (names == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < suite->section_count; i++)
        names[i].name = suite->sections[i].name;
    char text[HINT_MAX];
    hint(cm_option_nearest(names, only), text);
    cm_free(names);
    if (text[0] == '\0')
        snprintf(text, sizeof text, "; its first section is %.60s", suite->sections[0].name);
    return cm_error(CM_USAGE, "--only %s: no case of the suite %s has that name%s", only,
                    suite->name, text);
}

/* Keep what `only` names: a section, a case, or a pattern for either. */
static enum cm_status select_cases(struct builder *builder, const char *only)
{
    struct cm_plan *plan = &builder->plan;
    size_t kept = 0;
    for (size_t i = 0; i < plan->count; i++) {
        struct cm_case *item = &plan->cases[i];
        if (strcmp(only, item->section) == 0 || strcmp(only, item->name) == 0 ||
            fnmatch(only, item->section, 0) == 0 || fnmatch(only, item->name, 0) == 0) {
            struct cm_case swap = plan->cases[kept];
            plan->cases[kept++] = *item;
            if (kept - 1 != i)
                *item = swap;
        }
    }
    for (size_t i = kept; i < plan->count; i++)
        case_release(&plan->cases[i]);
    plan->count = kept;
    return kept > 0 ? CM_OK : no_case_left(builder->suite, only);
}

/* What belongs to the plan as a whole. */
static enum cm_status finish(struct builder *builder)
{
    struct cm_plan *plan = &builder->plan;
    const struct cm_suite *suite = builder->suite;
    struct cm_run_settings settings;
    enum cm_status status = cm_option_defaults(cm_run_options, &settings);
    const struct cm_option *seed = cm_option_find(cm_run_options, "seed");
    const struct cm_setting *setting = setting_of(&suite->global, cm_run_options, seed);
    if (status == CM_OK && setting != NULL)
        status = set_run_option(seed, setting, &settings);
    if (status != CM_OK)
        return status;
    plan->seed = settings.seed;
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->cases[i].settings.runs > plan->runs)
            plan->runs = plan->cases[i].settings.runs;
    }
    plan->suite_name = cm_strdup(suite->name);
    struct cm_str text = CM_STR_INIT;
    cm_suite_write(suite, &text);
    status = cm_str_status(&text);
    if (status == CM_OK)
        plan->suite_text = cm_strdup(cm_str_text(&text));
    cm_str_release(&text);
    if (status == CM_OK && (plan->suite_name == NULL || plan->suite_text == NULL))
        status = CM_NO_MEMORY;
    return status;
}

enum cm_status cm_plan_build(const struct cm_suite *suite, const char *only, uint64_t runs,
                             struct cm_plan *plan)
{
    struct builder builder = {.suite = suite, .runs = runs};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < suite->section_count && status == CM_OK; i++)
        status = add_section(&builder, &suite->sections[i]);
    if (status == CM_OK)
        status = check_global(suite);
    if (status == CM_OK && builder.plan.count == 0)
        status = cm_error(CM_USAGE, "%s: the suite has no section", suite->path);
    if (status == CM_OK && only != NULL)
        status = select_cases(&builder, only);
    if (status == CM_OK)
        status = finish(&builder);
    if (status == CM_OK)
        *plan = builder.plan;
    else
        cm_plan_release(&builder.plan);
    return status;
}
