/* What the page says first: what is wrong, what changed, what is odd, what cannot be told. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/result/chart.h"
#include "host/result/facts.h"
#include "host/result/page.h"
#include "host/result/report.h"

#define LINES_MAX 12 /* of one kind of finding */
#define THROTTLED 0.01
#define BEHIND    0.05 /* of the median: a rank that is worth a word */
#define NOISY     0.10

enum level { BAD, WARNING, GOOD, NOTE };
static const char *const level_classes[] = {"bad", "warning", "good", "note"};

/* A line of the list of its level. `format` makes the text, which is escaped here. */
__attribute__((format(printf, 3, 4))) static void add(struct cm_page *page, enum level level,
                                                      const char *format, ...)
{
    struct cm_str text = CM_STR_INIT;
    va_list args;
    va_start(args, format);
    cm_str_vaddf(&text, format, args);
    va_end(args);
    struct cm_str *out = &page->findings[level];
    cm_str_addf(out, "<li class=\"f-%s\"><strong>%s</strong> ", level_classes[level],
                level_classes[level]);
    cm_page_text(out, cm_str_text(&text));
    cm_str_add(out, "</li>\n");
    out->failed = out->failed || text.failed;
    cm_str_release(&text);
}

/* Names are cut here; the tables have them whole. */
static const char *name_of(const json_t *item, char *buffer)
{
    return cm_svg_cut(cm_get_text(item, "name"), 120, buffer);
}

static void add_bad_cases(struct cm_page *page, const struct cm_side *side)
{
    static const char *const statuses[] = {"wrong", "failed"};
    size_t index, count = 0;
    const json_t *item;
    for (int i = 0; i < 2; i++) {
        json_array_foreach(json_object_get(cm_side_last(side), "cases"), index, item)
        {
            char name[CM_SVG_CUT_MAX], reason[CM_SVG_CUT_MAX];
            if (strcmp(cm_get_text(item, "status"), statuses[i]) != 0 || ++count > LINES_MAX)
                continue;
            add(page, BAD, "%s %s: %s", name_of(item, name), statuses[i],
                cm_svg_cut(cm_get_text(item, "reason"), 300, reason));
        }
    }
    if (count > LINES_MAX)
        add(page, BAD, "%zu more cases failed or were wrong", count - LINES_MAX);
}

/* Who is slow. */
static void add_suspects(struct cm_page *page, const struct cm_side *side)
{
    const json_t *suspects = json_object_get(cm_side_last(side), "suspects");
    size_t index;
    const json_t *entry;
    json_array_foreach(suspects, index, entry)
    {
        struct cm_str line = CM_STR_INIT;
        if (index >= LINES_MAX)
            break;
        cm_suspect_text(entry, &line);
        add(page, WARNING, "slow: %s", cm_str_text(&line));
        cm_str_release(&line);
    }
    if (json_array_size(suspects) > LINES_MAX)
        add(page, WARNING, "%zu more are slow", json_array_size(suspects) - LINES_MAX);
}

static void add_result(struct cm_page *page, const struct cm_side *side)
{
    const json_t *result = cm_side_last(side);
    const json_t *suite = json_object_get(result, "suite");
    const char *ending = cm_get_text(result, "ending");
    size_t index, skipped = 0;
    const json_t *item;
    if (json_is_true(json_object_get(suite, "simulated")))
        add(page, BAD, "simulated: the ranks shared devices; no time here means anything");
    if (strcmp(cm_get_text(result, "device"), "sim") == 0)
        add(page, WARNING, "%s is of a virtual clock: nothing ran, times are modelled",
            side->label);
    if (strcmp(ending, "complete") != 0)
        add(page, WARNING, "%s ended early: %s", side->label, ending);
    if (json_is_false(json_object_get(suite, "fresh_processes")))
        add(page, WARNING, "the runs of %s are not fresh processes: their spread is too small",
            side->label);
    json_array_foreach(json_object_get(result, "cases"), index, item) skipped +=
        strcmp(cm_get_text(item, "status"), "skipped") == 0;
    if (skipped > 0)
        add(page, NOTE, "%zu of %zu cases were skipped; the tables say why", skipped,
            json_array_size(json_object_get(result, "cases")));
}

/* What must match before sides are compared, and does not. */
static enum cm_status add_mismatches(struct cm_page *page, const struct cm_side *side)
{
    json_t *base = cm_facts(cm_side_last(&page->book->sides[0]));
    json_t *other = cm_facts(cm_side_last(side));
    enum cm_status status = base != NULL && other != NULL ? CM_OK : CM_NO_MEMORY;
    size_t told = 0;
    const char *key;
    json_t *value;
    json_object_foreach(base, key, value)
    {
        const char *left = json_string_value(value), *right = cm_get_text(other, key);
        char name[CM_SVG_CUT_MAX], old[CM_SVG_CUT_MAX], new[CM_SVG_CUT_MAX];
        /* A case that only one side has is no mismatch. */
        if (strcmp(left, right) == 0 || (strchr(key, ':') != NULL && right[0] == '\0'))
            continue;
        const struct cm_fact_rule *rule = cm_fact_rule(key);
        if (rule->roles[CM_USE_COMPARE] != CM_MUST_MATCH || ++told > LINES_MAX)
            continue;
        add(page, BAD, "not comparable: %s is %s, and %s in %.100s: %s", cm_svg_cut(key, 100, name),
            cm_svg_cut(left, 60, old), right[0] != '\0' ? cm_svg_cut(right, 60, new) : "not there",
            side->label, rule->why);
    }
    if (told > LINES_MAX)
        add(page, BAD, "%zu more such differences", told - LINES_MAX);
    json_decref(base);
    json_decref(other);
    return status;
}

static void add_changes(struct cm_page *page, const struct cm_change *changes, size_t count)
{
    size_t told = 0, unknown = 0;
    for (size_t i = 0; i < count; i++) {
        const struct cm_change *change = &changes[i];
        char name[CM_SVG_CUT_MAX], label[CM_SVG_CUT_MAX];
        bool worse = change->verdict == CM_CHANGE_WORSE;
        unknown += change->verdict == CM_CHANGE_UNKNOWN;
        if ((!worse && change->verdict != CM_CHANGE_BETTER) || ++told > LINES_MAX)
            continue;
        add(page, worse ? BAD : GOOD, "%s %.60s is %s in %s: %+.1f %% (%+.1f to %+.1f)",
            cm_svg_cut(change->name, 120, name), change->metric, cm_change_words[change->verdict],
            cm_svg_cut(page->book->sides[change->side].label, 60, label), change->estimate * 100,
            change->low * 100, change->high * 100);
    }
    if (told > LINES_MAX)
        add(page, NOTE, "%zu more cases changed; see the comparison", told - LINES_MAX);
    if (page->book->count > 1 && told == 0 && count > unknown)
        add(page, GOOD, "no case changed by more than the margin of ±%.3g %%",
            page->book->margin * 100);
    if (unknown > 0)
        add(page, NOTE, "%zu of %zu compared cases cannot be told: more runs are needed", unknown,
            count);
}

static void add_devices(struct cm_page *page, const struct cm_side *side)
{
    size_t index, told = 0;
    const json_t *item;
    json_array_foreach(json_object_get(cm_side_last(side), "cases"), index, item)
    {
        char name[CM_SVG_CUT_MAX], value[CM_UNITS_TEXT_MAX], middle[CM_UNITS_TEXT_MAX];
        const char *metric;
        json_t *spread;
        json_object_foreach(json_object_get(item, "spread_ranks"), metric, spread)
        {
            const json_t *worst = json_object_get(spread, "worst");
            double median = cm_get_number(spread, "median");
            double behind = fabs(cm_get_number(worst, "value") / median - 1);
            const char *unit =
                cm_get_text(json_object_get(json_object_get(item, "metrics"), metric), "unit");
            if (!(behind > BEHIND) || ++told > LINES_MAX)
                continue;
            add(page, WARNING,
                "%s: rank %.0f %.30s is %.0f %% behind the median in %.60s, %s to %s",
                name_of(item, name), cm_get_number(worst, "rank"), cm_get_text(worst, "bus_id"),
                behind * 100, metric, cm_format_value(cm_get_number(worst, "value"), unit, value),
                cm_format_value(median, unit, middle));
        }
    }
}

static void add_telemetry(struct cm_page *page, const struct cm_side *side)
{
    size_t index, throttled = 0, errors = 0;
    double most = 0;
    const json_t *item, *worst = NULL;
    json_array_foreach(json_object_get(cm_side_last(side), "cases"), index, item)
    {
        const json_t *telemetry = json_object_get(item, "telemetry");
        double share = cm_get_number(telemetry, "throttled_fraction");
        if (cm_get_number(telemetry, "ecc_uncorrected") > 0)
            errors++;
        if (share > THROTTLED)
            throttled++;
        if (share > THROTTLED && share > most) {
            most = share;
            worst = item;
        }
    }
    char name[CM_SVG_CUT_MAX];
    if (worst != NULL)
        add(page, WARNING, "throttled in %zu cases, most in %s: %.0f %% of the time (%.90s)",
            throttled, name_of(worst, name), most * 100,
            cm_get_text(json_object_get(worst, "telemetry"), "throttle_reasons"));
    if (errors > 0)
        add(page, BAD, "memory errors that ECC could not correct in %zu case%s", errors,
            errors == 1 ? "" : "s");
}

static void add_noise(struct cm_page *page, const struct cm_side *side)
{
    size_t index, wide = 0, intervals = 0;
    const json_t *item;
    json_array_foreach(json_object_get(cm_side_last(side), "cases"), index, item)
    {
        const char *metric = cm_headline_metric(item);
        if (metric == NULL)
            continue;
        double half =
            cm_relative_uncertainty(json_object_get(json_object_get(item, "metrics"), metric));
        intervals += isfinite(half) ? 1 : 0;
        wide += half > NOISY;
    }
    if (wide > 0)
        add(page, WARNING, "noisy: %zu of %zu intervals of %s are wider than ±10 %%", wide,
            intervals, side->label);
}

/* What the topology found, bad things and warnings. */
static void add_machine(struct cm_page *page, const struct cm_side *side)
{
    const json_t *machine = json_object_get(cm_side_last(side), "machine");
    size_t index, told = 0;
    const json_t *finding;
    json_array_foreach(json_object_get(machine, "findings"), index, finding)
    {
        const char *level = cm_get_text(finding, "level");
        bool bad = strcmp(level, "bad") == 0;
        if ((bad || strcmp(level, "warning") == 0) && ++told <= LINES_MAX)
            add(page, bad ? BAD : WARNING, "%.30s %.320s", cm_get_text(finding, "device"),
                cm_get_text(finding, "text"));
    }
}

enum cm_status cm_page_findings(struct cm_page *page)
{
    struct cm_change *changes = NULL;
    size_t count = 0;
    enum cm_status status = cm_changes(page->book, &changes, &count);
    if (status != CM_OK)
        return status;
    cm_str_add(page->out, "<section id=\"findings\" aria-labelledby=\"h-findings\">\n"
                          "<h2 id=\"h-findings\">Findings</h2>\n<ul class=\"findings\">\n");
    for (size_t i = 0; i < page->book->count; i++) {
        add_bad_cases(page, &page->book->sides[i]);
        add_suspects(page, &page->book->sides[i]);
    }
    for (size_t i = 1; i < page->book->count && status == CM_OK; i++)
        status = add_mismatches(page, &page->book->sides[i]);
    add_changes(page, changes, count);
    for (size_t i = 0; i < page->book->count; i++) {
        const struct cm_side *side = &page->book->sides[i];
        add_result(page, side);
        add_machine(page, side);
        add_telemetry(page, side);
        add_devices(page, side);
        add_noise(page, side);
    }
    if (page->findings[BAD].length + page->findings[WARNING].length == 0)
        add(page, GOOD, "nothing to object to");
    for (int level = BAD; level <= NOTE; level++) {
        cm_str_add(page->out, cm_str_text(&page->findings[level]));
        page->out->failed = page->out->failed || page->findings[level].failed;
        cm_str_release(&page->findings[level]);
    }
    cm_str_add(page->out, "</ul>\n</section>\n");
    cm_free(changes);
    return status;
}
