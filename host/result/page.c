/* The HTML report: one file, no network, findings first. */
#include "host/result/page.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/result/chart.h"
#include "host/result/history.h"
#include "host/result/report.h"

#define CHARTS_MAX 24 /* of one kind */
#define TAME_MAX   60

/* Whether a text can neither turn its neighbours round nor outgrow its cell. Most are so, and need
 * no element of their own, which thousands of rows would feel. */
static bool is_tame(const char *text)
{
    size_t length = 0;
    while (text[length] > 0x1f && text[length] < 0x7f && length < TAME_MAX)
        length++;
    return text[length] == '\0';
}

void cm_page_text(struct cm_str *out, const char *text)
{
    bool tame = is_tame(text);
    cm_str_add(out, tame ? "" : "<bdi>");
    cm_str_add_xml(out, text);
    cm_str_add(out, tame ? "" : "</bdi>");
}

void cm_page_cell(struct cm_str *out, const char *class, const char *text)
{
    const char *more = strlen(text) > 300 ? " long" : ""; /* scrolls within its cell */
    if (class[0] == '\0' && more[0] == '\0')
        cm_str_add(out, "<td>");
    else
        cm_str_addf(out, "<td class=\"%s%s\">", class, more);
    if (text[0] != '\0')
        cm_page_text(out, text);
    cm_str_add(out, "</td>");
}

void cm_page_number(struct cm_str *out, double value, const char *text)
{
    if (isfinite(value))
        cm_str_addf(out, "<td class=\"n\" data-v=\"%.9g\">", value);
    else
        cm_str_add(out, "<td class=\"n\">");
    cm_str_add_xml(out, text);
    cm_str_add(out, "</td>");
}

void cm_page_table(struct cm_str *out, const char *caption, const char *const *titles)
{
    cm_str_add(out, "<caption>");
    cm_str_add_xml(out, caption);
    cm_str_add(out, "</caption><thead><tr>");
    for (; *titles != NULL; titles++) {
        cm_str_add(out, "<th scope=\"col\">");
        cm_page_text(out, *titles);
        cm_str_add(out, "</th>");
    }
    cm_str_add(out, "</tr></thead>\n<tbody>\n");
}

static void add_head(struct cm_page *page)
{
    struct cm_str *out = page->out;
    cm_str_add(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    cm_str_addf(out,
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
                "style-src 'unsafe-inline'; script-src '%s'; base-uri 'none'; form-action "
                "'none'\">\n",
                cm_page_script_hash);
    cm_str_add(out, "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                    "<meta name=\"referrer\" content=\"no-referrer\">\n"
                    "<meta name=\"color-scheme\" content=\"light dark\">\n<title>clustermark: ");
    cm_str_add_xml(out, page->book->sides[0].label);
    cm_str_add(out, "</title>\n<style>\n");
    cm_str_add(out, cm_svg_style);
    cm_str_add(out, cm_page_style);
    cm_str_add(out, "</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#findings\">Skip to the "
                    "findings</a>\n");
}

static void add_side(struct cm_str *out, const struct cm_side *side, size_t number)
{
    const json_t *result = cm_side_last(side);
    const json_t *suite = json_object_get(result, "suite");
    struct cm_str machine = CM_STR_INIT;
    cm_machine_text(result, &machine);
    cm_str_add(out, "<li><b>");
    if (number > 0)
        cm_str_addf(out, "%zu: ", number);
    cm_page_text(out, side->label);
    cm_str_addf(out, "</b>, %zu result%s, suite ", json_array_size(side->results),
                json_array_size(side->results) == 1 ? "" : "s");
    cm_page_text(out, cm_get_text(suite, "name"));
    cm_str_add(out, ", ");
    cm_page_text(out, cm_get_text(result, "started"));
    cm_str_add(out, ", ");
    cm_page_text(out, cm_str_text(&machine));
    cm_str_add(out, "</li>\n");
    out->failed = out->failed || machine.failed;
    cm_str_release(&machine);
}

static void add_title(struct cm_page *page)
{
    const struct cm_book *book = page->book;
    struct cm_str *out = page->out;
    cm_str_add(out, "<header class=\"top\">\n<h1>How fast this trains</h1>\n<ul>\n");
    for (size_t i = 0; i < book->count; i++)
        add_side(out, &book->sides[i], book->count > 1 ? i + 1 : 0);
    cm_str_add(out, "</ul>\n</header>\n");
}

static void add_contents(struct cm_page *page, const char *id, const char *title)
{
    cm_str_addf(&page->contents, "<li><a href=\"#%s\">%s</a></li>\n", id, title);
}

static enum cm_status take_chart(void *impl, const struct cm_chart *chart)
{
    struct cm_page *page = impl;
    struct cm_str *out = page->out;
    if (page->charts == CHARTS_MAX) {
        page->left_out++;
        return CM_OK;
    }
    page->charts++;
    cm_str_addf(out, "<figure class=\"%s\"><div class=\"scroll\" tabindex=\"0\">", chart->kind);
    cm_str_add_bytes(out, cm_str_text(chart->svg), chart->svg->length);
    cm_str_add(out, "</div><figcaption><b>");
    cm_page_text(out, chart->title);
    cm_str_add(out, "</b> ");
    cm_str_add_xml(out, chart->note);
    cm_str_add(out, "</figcaption></figure>\n");
    return CM_OK;
}

/* What is shown where a kind has nothing to draw. */
static const char *nothing_of(const char *kind)
{
    static const struct {
        const char *kind, *text;
    } rows[] = {
        {"machine", "These results do not describe the machine as a whole."},
        {"forest", "One side only: give a second file or folder to compare it with."},
        {"sweep", "No sweep with at least two points."},
        {"ranks", "No figure is known rank by rank."},
        {"pairs", "No figure is known pair by pair."},
        {"steps", "No training step was measured."},
        {"strip", "No case has two runs."},
        {"history", "A history needs at least three results."},
        {"telemetry", "No telemetry was recorded."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].kind, kind) == 0)
            return rows[i].text;
    }
    return "";
}

/* A section of charts; of a kind with nothing to draw the reason, for the end. */
static enum cm_status add_kind(struct cm_page *page, const struct cm_chart_kind *kind)
{
    struct cm_chart_sink sink = {.impl = page, .take = take_chart};
    size_t before = page->out->length;
    page->charts = page->left_out = 0;
    cm_str_addf(page->out,
                "<section id=\"%s\" aria-labelledby=\"h-%s\">\n<h2 id=\"h-%s\">%s</h2>\n",
                kind->name, kind->name, kind->name, kind->title);
    enum cm_status status = kind->each(page->book, &sink);
    if (status == CM_OK && page->charts == 0 && !page->out->failed) {
        page->out->length = before;
        cm_str_addf(&page->not_drawn, "<li>%s: %s</li>\n", kind->title, nothing_of(kind->name));
        return CM_OK;
    }
    add_contents(page, kind->name, kind->title);
    if (page->left_out > 0)
        cm_str_addf(
            page->out,
            "<p class=\"note\">%zu more charts of this kind are left out; <code>clustermark "
            "report --svg %s:NAME</code> draws them.</p>\n",
            page->left_out, kind->name);
    if (status == CM_OK && strcmp(kind->name, "forest") == 0)
        status = cm_page_changes(page);
    cm_str_add(page->out, "</section>\n");
    return status;
}

static void add_end(struct cm_page *page)
{
    cm_str_addf(page->out,
                "</main>\n<footer>clustermark " CM_VERSION ". Rates are decimal (1 GB/s is 10⁹ "
                "bytes a second), sizes binary. A figure is the median over fresh-process runs; "
                "its interval is at least a 95 %% interval of that median. Ceilings: T is "
                "theoretical, A what this run attained elsewhere.</footer>\n<script>");
    cm_str_add(page->out, cm_page_script);
    cm_str_add(page->out, "</script>\n</body>\n</html>\n");
}

static enum cm_status add_sections(struct cm_page *page)
{
    add_contents(page, "findings", "Findings");
    enum cm_status status = cm_page_findings(page);
    for (const struct cm_chart_kind *kind = cm_chart_kinds; kind->name != NULL; kind++) {
        if (status == CM_OK)
            status = add_kind(page, kind);
    }
    add_contents(page, "figures", "Figures");
    if (status == CM_OK)
        status = cm_page_figures(page);
    add_contents(page, "provenance", "Provenance");
    if (status == CM_OK)
        status = cm_page_provenance(page);
    if (page->not_drawn.length > 0)
        cm_str_addf(page->out,
                    "<section aria-labelledby=\"h-missing\"><h2 id=\"h-missing\">Not in this "
                    "report</h2>\n<ul class=\"missing\">\n%s</ul></section>\n",
                    cm_str_text(&page->not_drawn));
    return status;
}

/* The contents come before the sections that they list. */
static enum cm_status add_all(struct cm_page *page)
{
    struct cm_str sections = CM_STR_INIT, *out = page->out;
    page->out = &sections;
    enum cm_status status = add_sections(page);
    page->out = out;
    add_head(page);
    add_title(page);
    cm_str_addf(out, "<nav class=\"top\" aria-label=\"Sections\"><ul>\n%s</ul></nav>\n<main>\n",
                cm_str_text(&page->contents));
    cm_str_add_bytes(out, cm_str_text(&sections), sections.length);
    add_end(page);
    out->failed = out->failed || sections.failed || page->contents.failed || page->not_drawn.failed;
    cm_str_release(&sections);
    cm_str_release(&page->contents);
    cm_str_release(&page->not_drawn);
    return status != CM_OK ? status : cm_str_status(out);
}

static enum cm_status open_book(const char *const *paths, size_t count, double margin,
                                struct cm_book *book)
{
    *book = (struct cm_book){.margin = margin};
    if (count == 0)
        return cm_error(CM_USAGE, "no result given");
    return cm_book_load(paths, count, book);
}

enum cm_status cm_page_write(const char *const *paths, size_t count, double margin,
                             struct cm_str *out)
{
    struct cm_book book;
    struct cm_page page = {.book = &book, .out = out};
    enum cm_status status = open_book(paths, count, margin, &book);
    if (status == CM_OK)
        status = add_all(&page);
    cm_book_release(&book);
    return status;
}

/* One chart out of those of a kind. */
struct choice {
    const char *wanted; /* part of its name, "" for any */
    struct cm_str *out;
    bool found;
    struct cm_str names;
};

static enum cm_status choose(void *impl, const struct cm_chart *chart)
{
    struct choice *choice = impl;
    if (choice->names.length < 300)
        cm_str_addf(&choice->names, "%s%s:%.60s", choice->names.length > 0 ? ", " : "", chart->kind,
                    chart->name);
    if (choice->found || strstr(chart->name, choice->wanted) == NULL)
        return CM_OK;
    choice->found = true;
    const char *text = cm_str_text(chart->svg), *body = strstr(text, "</desc>");
    if (body == NULL || strcmp(chart->kind, "machine") == 0) { /* has a style of its own */
        cm_str_add_bytes(choice->out, text, chart->svg->length);
        return CM_OK;
    }
    body += strlen("</desc>");
    cm_str_add_bytes(choice->out, text, (size_t)(body - text));
    cm_str_addf(choice->out, "\n<style>\n%s</style>", cm_svg_style);
    cm_str_add(choice->out, body);
    return CM_OK;
}

static enum cm_status unknown_kind(const char *chart)
{
    struct cm_str names = CM_STR_INIT;
    for (const struct cm_chart_kind *kind = cm_chart_kinds; kind->name != NULL; kind++)
        cm_str_addf(&names, "%s%s", kind == cm_chart_kinds ? "" : ", ", kind->name);
    enum cm_status status =
        cm_error(CM_USAGE, "no chart '%.60s'; there are %s", chart, cm_str_text(&names));
    cm_str_release(&names);
    return status;
}

enum cm_status cm_page_chart(const char *const *paths, size_t count, double margin,
                             const char *chart, struct cm_str *out)
{
    struct cm_book book;
    const char *colon = strchr(chart, ':');
    size_t length = colon != NULL ? (size_t)(colon - chart) : strlen(chart);
    struct choice choice = {.wanted = colon != NULL ? colon + 1 : "", .out = out};
    struct cm_chart_sink sink = {.impl = &choice, .take = choose};
    const struct cm_chart_kind *kind = cm_chart_kinds;
    while (kind->name != NULL &&
           (strlen(kind->name) != length || strncmp(kind->name, chart, length) != 0))
        kind++;
    if (kind->name == NULL)
        return unknown_kind(chart);
    enum cm_status status = open_book(paths, count, margin, &book);
    if (status == CM_OK)
        status = kind->each(&book, &sink);
    if (status == CM_OK && !choice.found)
        status = choice.names.length > 0 ? cm_error(CM_USAGE, "no chart '%.60s'; there are %s",
                                                    chart, cm_str_text(&choice.names))
                                         : cm_error(CM_USAGE, "nothing to draw for '%.60s': %s",
                                                    chart, nothing_of(kind->name));
    cm_str_release(&choice.names);
    cm_book_release(&book);
    return status != CM_OK ? status : cm_str_status(out);
}
