/*
 * suite.h: a suite file, read but not yet interpreted. INI in the manner of fio: [global], then a
 * section per case; a comma list in a value makes a sweep.
 *
 *     [global]
 *     runs = 6
 *     [gemm]
 *     workload = gemm        ; a section without it takes its own name
 *     dtype = f32,bf16
 *
 * Indentation means nothing, a comment begins with ; or # at the start of a line or with " ;" in
 * it, and - and _ in a key are the same. Which keys exist is decided later, by the option tables. A
 * suite owns all its strings.
 */
#ifndef CLUSTERMARK_SUITE_H
#define CLUSTERMARK_SUITE_H

#include <stddef.h>

#include "clustermark/status.h"
#include "clustermark/strbuf.h"

struct cm_setting {
    char *key;
    char *value;
    char *where; /* "configs/quick.ini:12" or "--set gemm.m=64": for messages */
};

struct cm_section {
    char *name;
    char *where; /* of the section's own line */
    struct cm_setting *settings;
    size_t setting_count, setting_capacity;
};

struct cm_suite {
    char *name; /* the file's name without folder and ending */
    char *path;
    struct cm_section global;
    struct cm_section *sections; /* in the file's order */
    size_t section_count, section_capacity;
};

/* Read a suite. Errors (CM_USAGE with file:line): no such file, a folder, not text, a line that is
 * neither section nor key=value, a key twice in one section, a section twice, a key before the
 * first section, no section but [global], over 1 MiB, 10,000 sections, 1,000 keys in a section or
 * 197 characters in a line. */
enum cm_status cm_suite_load(const char *path, struct cm_suite *suite);
/* The same from memory; `path` serves for the name and messages only. */
enum cm_status cm_suite_parse(const char *text, const char *path, struct cm_suite *suite);
void cm_suite_release(struct cm_suite *suite);

/* "CASE.KEY=VALUE", where CASE is a section's name, `global`, or `*` for every section. Replaces or
 * adds the setting; after CM_NO_MEMORY only some of the sections may have it. */
enum cm_status cm_suite_set(struct cm_suite *suite, const char *assignment);

/* NULL when there is none. */
const struct cm_section *cm_suite_section(const struct cm_suite *suite, const char *name);
const struct cm_setting *cm_section_setting(const struct cm_section *section, const char *key);

/* The suite as INI text, settings made by cm_suite_set included: what a result file records. */
void cm_suite_write(const struct cm_suite *suite, struct cm_str *out);

#endif
