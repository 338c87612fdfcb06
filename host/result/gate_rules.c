/* What is gated, and how much is tolerated. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/option.h"
#include "clustermark/suite.h"
#include "clustermark/units.h"
#include "host/result/gate.h"
#include "host/result/record.h"

#define MARGIN         "2%"
#define MARGIN_DEFAULT 0.02

struct rule {
    double margin, floor;
    bool optional;
    char metric[300]; /* a pattern; "" in [global] */
};

static const struct cm_option rule_options[] = {
    {.name = "metric",
     .type = CM_OPTION_TEXT,
     .offset = offsetof(struct rule, metric),
     .capacity = 300,
     .fallback = "",
     .help = "case/metric; * and ? match"},
    {.name = "margin",
     .type = CM_OPTION_REAL,
     .offset = offsetof(struct rule, margin),
     .min = 1e-6,
     .max = 1,
     .fallback = MARGIN,
     .help = "what is tolerated, relative"},
    {.name = "floor",
     .type = CM_OPTION_REAL,
     .offset = offsetof(struct rule, floor),
     .min = 0,
     .max = 1e18,
     .fallback = "0",
     .help = "what is tolerated in the metric's own unit"},
    {.name = "optional",
     .type = CM_OPTION_BOOL,
     .offset = offsetof(struct rule, optional),
     .fallback = "no",
     .help = "no verdict where the baseline has no such metric"},
    {.name = NULL},
};

static enum cm_status add_metric(struct cm_gate_rules *rules, const char *key,
                                 const struct rule *rule)
{
    for (size_t i = 0; i < rules->count; i++) {
        if (strcmp(rules->metrics[i].key, key) == 0)
            return CM_OK;
    }
    if (rules->count == CM_GATED_MAX)
        return cm_error(CM_USAGE,
                        "gate: more than %d metrics, of which %.80s is one; gate those that stand "
                        "for the others, which are watched all the same",
                        CM_GATED_MAX, key);
    char *copy = cm_strdup(key);
    if (copy == NULL)
        return CM_NO_MEMORY;
    rules->metrics[rules->count++] =
        (struct cm_gate_metric){.key = copy, .margin = rule->margin, .floor = rule->floor};
    return CM_OK;
}

/* Every metric of a set that a pattern names. */
static enum cm_status add_matches(struct cm_gate_rules *rules, const struct cm_set *set,
                                  const char *pattern, const struct rule *rule, size_t *matches)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < set->series_count; i++) {
        const struct cm_series *series = &set->series[i];
        if (series->better == CM_NEITHER ||
            (strcmp(pattern, series->key) != 0 && fnmatch(pattern, series->key, 0) != 0))
            continue;
        ++*matches;
        status = add_metric(rules, series->key, rule);
    }
    return status;
}

static enum cm_status add_pattern(struct cm_gate_rules *rules, const struct cm_set *base,
                                  const struct cm_set *fresh, const char *pattern,
                                  const struct rule *rule)
{
    size_t matches = 0;
    enum cm_status status = add_matches(rules, base, pattern, rule, &matches);
    if (status == CM_OK && matches == 0 && !rule->optional && fresh != NULL)
        status = add_matches(rules, fresh, pattern, rule, &matches);
    if (status == CM_OK && matches == 0 && !rule->optional)
        status = add_metric(rules, pattern, rule);
    return status;
}

static enum cm_status apply(const struct cm_section *section, struct rule *rule)
{
    for (size_t i = 0; i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        const struct cm_option *option = cm_option_find(rule_options, setting->key);
        if (option == NULL)
            return cm_error(CM_USAGE, "%s: unknown key %.40s; metric, margin, floor or optional",
                            setting->where, setting->key);
        enum cm_status status = cm_option_set(option, setting->value, setting->where, rule);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status from_file(const struct cm_suite *file, const struct cm_set *base,
                                const struct cm_set *fresh, struct cm_gate_rules *rules)
{
    struct rule common;
    enum cm_status status = cm_option_defaults(rule_options, &common);
    if (status == CM_OK)
        status = apply(&file->global, &common);
    rules->advisory_margin = common.margin;
    for (size_t i = 0; status == CM_OK && i < file->section_count; i++) {
        struct rule own = common;
        status = apply(&file->sections[i], &own);
        if (status == CM_OK && own.metric[0] == '\0')
            status = cm_error(CM_USAGE, "%s: [%s] names no metric; write metric = case/metric",
                              file->sections[i].where, file->sections[i].name);
        if (status == CM_OK)
            status = add_pattern(rules, base, fresh, own.metric, &own);
    }
    return status;
}

static enum cm_status load_rules(const char *name, const struct cm_set *base,
                                 const struct cm_set *fresh, struct cm_gate_rules *rules)
{
    char *path = NULL;
    struct cm_suite file = {.name = NULL};
    enum cm_status status = cm_config_find(name, "", &path);
    if (status == CM_OK && path == NULL)
        status = cm_error(CM_USAGE, "gate: no rules '%.60s'; give a file, or --metric", name);
    if (status == CM_OK)
        status = cm_suite_load(path, &file);
    if (status == CM_OK)
        status = from_file(&file, base, fresh, rules);
    cm_suite_release(&file);
    cm_free(path);
    return status;
}

/* Whether a series is what a case declares: its own figure, or one of a sweep that it is part of.
 */
static bool is_declared(const json_t *result, const struct cm_series *series, const char *name,
                        const char *figure)
{
    return series->better != CM_NEITHER && strcmp(series->metric, figure) == 0 &&
           cm_gate_is_subject(result, series, name);
}

/* What the suite of a set's newest result declares with `gate`. A figure that neither set has stays
 * as CASE/FIGURE, and is missing. */
static enum cm_status from_suite(const struct cm_set *set, const struct cm_set *const *sets,
                                 struct cm_gate_rules *rules)
{
    enum cm_status status = CM_OK;
    size_t index;
    const json_t *item,
        *result = set->file_count > 0 ? set->files[set->file_count - 1].result : NULL;
    json_array_foreach(json_object_get(result, "cases"), index, item)
    {
        const json_t *settings = json_object_get(item, "settings");
        const char *figure = cm_get_text(settings, "gate"), *name = cm_get_text(item, "name");
        double margin = cm_get_number(settings, "gate_margin");
        struct rule rule = {.margin = margin > 0 && margin <= 1 ? margin : MARGIN_DEFAULT};
        size_t matches = 0;
        if (figure[0] == '\0')
            continue;
        for (size_t s = 0; s < 2 && sets[s] != NULL; s++) {
            for (size_t i = 0; status == CM_OK && i < sets[s]->series_count; i++) {
                const struct cm_series *series = &sets[s]->series[i];
                if (!is_declared(result, series, name, figure))
                    continue;
                matches++;
                status = add_metric(rules, series->key, &rule);
            }
        }
        char *key = matches == 0 ? cm_strf("%s/%s", name, figure) : NULL;
        if (status == CM_OK && matches == 0)
            status = key != NULL ? add_metric(rules, key, &rule) : CM_NO_MEMORY;
        cm_free(key);
    }
    return status;
}

/* The baseline's declarations first, so that new results cannot drop one. */
static enum cm_status from_suites(const struct cm_set *base, const struct cm_set *fresh,
                                  struct cm_gate_rules *rules)
{
    const struct cm_set *const sets[] = {base, fresh};
    enum cm_status status = from_suite(base, sets, rules);
    if (status == CM_OK && fresh != NULL)
        status = from_suite(fresh, sets, rules);
    return status;
}

/* "3%" for all, "PATTERN=3%" for some; a pattern may have '=' in it, so the last one counts. */
static enum cm_status set_margin(struct cm_gate_rules *rules, const char *text)
{
    const char *equals = strrchr(text, '=');
    double margin = 0;
    size_t matches = 0;
    enum cm_status status = cm_parse_real(equals != NULL ? equals + 1 : text, &margin);
    if (status != CM_OK || !(margin >= 1e-6 && margin <= 1))
        return cm_error(CM_USAGE, "--margin '%.80s': give a share like 3%%, or PATTERN=3%%", text);
    char *pattern =
        cm_strf("%.*s", equals != NULL ? (int)(equals - text) : 1, equals != NULL ? text : "*");
    if (pattern == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < rules->count; i++) {
        const char *key = rules->metrics[i].key;
        if (strcmp(pattern, key) == 0 || fnmatch(pattern, key, 0) == 0) {
            rules->metrics[i].margin = margin;
            matches++;
        }
    }
    if (equals == NULL)
        rules->advisory_margin = margin;
    else if (matches == 0)
        status = cm_error(CM_USAGE, "--margin: no gated metric '%.80s'", pattern);
    cm_free(pattern);
    return status;
}

enum cm_status cm_gate_rules_make(const struct cm_gate_request *request, const struct cm_set *base,
                                  const struct cm_set *fresh, struct cm_gate_rules *rules)
{
    struct rule plain;
    enum cm_status status = cm_option_defaults(rule_options, &plain);
    rules->risk = request->risk > 0 ? request->risk : CM_GATE_RISK;
    rules->advisory_margin = plain.margin;
    for (size_t i = 0; status == CM_OK && i < request->metrics.count; i++)
        status = add_pattern(rules, base, fresh, request->metrics.items[i], &plain);
    if (status == CM_OK && request->metrics.count == 0 && request->rules == NULL)
        status = from_suites(base, fresh, rules);
    if (status == CM_OK && (rules->count == 0 || request->rules != NULL))
        status = load_rules(request->rules != NULL ? request->rules : "gate", base, fresh, rules);
    /* Those for all first, so that one for some holds whatever the order. */
    for (size_t pass = 0; pass < 2; pass++) {
        for (size_t i = 0; status == CM_OK && i < request->margins.count; i++) {
            const char *text = request->margins.items[i];
            if ((strchr(text, '=') != NULL) == (pass == 1))
                status = set_margin(rules, text);
        }
    }
    return status;
}

void cm_gate_rules_release(struct cm_gate_rules *rules)
{
    for (size_t i = 0; i < rules->count; i++)
        cm_free(rules->metrics[i].key);
    rules->count = 0;
}
