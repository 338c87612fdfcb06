/*
 * suite_edit.h: how the sections and settings of a suite come about, shared by the reader and
 * cm_suite_set().
 */
#ifndef HOST_BASE_SUITE_EDIT_H
#define HOST_BASE_SUITE_EDIT_H

#include "clustermark/suite.h"

/* "key = value" as cm_suite_write() writes it must be readable again: inih's lines hold 200 bytes
 * with newline, carriage return and terminating zero. */
#define CM_SUITE_LINE_MAX     197
#define CM_SUITE_SECTIONS_MAX 10000
#define CM_SUITE_SETTINGS_MAX 1000

/* An empty suite: name and path set, [global] without settings. */
enum cm_status cm_suite_init(const char *path, struct cm_suite *suite);

/* Add a section, unless its name is not allowed or taken. [global] may come once too. The pointer
 * is good until the next section is added. */
enum cm_status cm_suite_add_section(struct cm_suite *suite, const char *name, const char *where,
                                    struct cm_section **section);

/* CM_USAGE when key and value cannot stand in a suite; `where` begins the message. */
enum cm_status cm_setting_check(const char *key, const char *value, const char *where);

/* Add a checked setting. CM_USAGE when the section has too many. */
enum cm_status cm_section_add(struct cm_section *section, const char *key, const char *value,
                              const char *where);

#endif
