/*
 * compare.h: results held against results: compare for machines, gate for a machine against its own
 * past. Both give a document (JSON; README.md tells its fields) and a text made from it.
 */
#ifndef CLUSTERMARK_COMPARE_H
#define CLUSTERMARK_COMPARE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/result.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"

struct cm_texts {
    const char *const *items;
    size_t count;
};

struct cm_compare_request {
    struct cm_texts paths;     /* files or folders of repeated runs; the first is the reference */
    struct cm_texts allowed;   /* keys whose mismatch is allowed */
    struct cm_texts prices;    /* "SET=55.04USD/h,2026-07-20,source"; SET is a number or a name */
    struct cm_texts instances; /* "SET=p5.48xlarge" */
    const char *only;          /* shell pattern of "case/metric"; NULL: all */
    double margin;             /* relative; within it counts as the same */
    bool paired;               /* runs of two sets in pairs, in their order */
};
enum cm_status cm_compare(const struct cm_compare_request *request, json_t **document);
/* `all`: also figures with a label, of single ranks and pairs. */
enum cm_status cm_compare_text(const json_t *document, const struct cm_report_style *style,
                               bool all, struct cm_str *out);

struct cm_gate_request {
    struct cm_texts baseline, fresh; /* files or folders */
    struct cm_texts allowed;
    struct cm_texts metrics; /* patterns of "case/metric" to gate; none: those of the rules */
    struct cm_texts margins; /* "2%", or "PATTERN=3%" */
    const char *rules;       /* an INI file or a name; NULL: configs/gate.ini */
    double risk;             /* of any false alarm of the gate; 0: 1 % */
    const char *state;       /* where two looks are kept; NULL: one look */
    bool strict;             /* what is not decided fails */
};
enum cm_status cm_gate(const struct cm_gate_request *request, json_t **document);
enum cm_status cm_gate_text(const json_t *document, const struct cm_report_style *style, bool all,
                            struct cm_str *out);
/* The verdicts for CI: `format` is "junit", "markdown", "annotations" or "bmf" (CM_USAGE
 * otherwise).
 */
enum cm_status cm_gate_export(const json_t *document, const char *format, struct cm_str *out);

struct cm_selftest_request {
    struct cm_gate_request gate; /* equals are drawn from the baseline; `fresh`, if any, was
                                  really slowed down */
    uint64_t trials;             /* gates with nothing slower */
    uint64_t baseline_runs, fresh_runs;
    uint64_t seed;
    const char *draw; /* "runs", "sessions"; NULL: sessions (files) where there are enough */
};
enum cm_status cm_gate_selftest(const struct cm_selftest_request *request, json_t **document);
enum cm_status cm_gate_selftest_text(const json_t *document, const struct cm_report_style *style,
                                     struct cm_str *out);

/* What a document of compare or gate means for the exit code; the message is its last line. */
enum cm_status cm_document_verdict(const json_t *document);

#endif
