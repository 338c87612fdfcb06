/*
 * facts.h: what surrounds a result, and whether two results may be compared. Private to
 * host/result.
 */
#ifndef CM_RESULT_FACTS_H
#define CM_RESULT_FACTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "host/result/set.h"

enum cm_role {
    CM_RECORD,    /* told, never in the way */
    CM_SUBJECT,   /* what a comparison is about: may differ between sets, not within one */
    CM_MUST_MATCH /* a difference ends the comparison unless it is allowed by name */
};

enum cm_use { CM_USE_COMPARE, CM_USE_GATE, CM_USES };

/* A row of the table of facts. `key` is a shell pattern of keys as cm_facts makes them. */
struct cm_fact_rule {
    const char *key;
    enum cm_role roles[CM_USES];
    const char *why; /* what a difference of it does to the figures */
};
/* The first row that matches a key counts; the last matches every key. */
extern const struct cm_fact_rule cm_fact_rules[];
const struct cm_fact_rule *cm_fact_rule(const char *key);

/* Key -> text, of a whole result (with its runs): "ranks" -> "8", "environment.NCCL_ALGO" ->
 * "Ring", "params:gemm.m" -> "4096". NULL when out of memory. */
json_t *cm_facts(const json_t *result);

/* A fact that is not the same in two places. */
struct cm_difference {
    const char *key;                /* borrowed from the sets, like the other texts */
    const char *left, *right;       /* NULL: not there */
    const char *left_in, *right_in; /* name of the set; of the file, within one set */
    enum cm_role role;
    bool within; /* between files of one set */
    bool allowed;
};
struct cm_differences {
    struct cm_difference *rows;
    size_t count, capacity;
    size_t forbidden; /* must match, do not, and are not allowed */
};

/* Hold every set against the first, and every file of a set against its first. `allowed` are keys,
 * or the part of a key before its first '.' or ':'. Each key once per pair of sets. */
enum cm_status cm_differences_find(const struct cm_set *sets, size_t count, enum cm_use use,
                                   const char *const *allowed, size_t allowed_count,
                                   struct cm_differences *differences);
void cm_differences_release(struct cm_differences *differences);
/* Rows of {key, role, left, right, ..., allowed}. */
enum cm_status cm_differences_json(const struct cm_differences *differences, json_t **array);

#endif
