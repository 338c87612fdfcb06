/* Assumptions, read and drawn. */
#include "host/project/assume.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/units.h"

#define P90_DEVIATE 1.2815515655446004 /* of a standard normal variable */

#define INFO(name_, value_, low_, high_, least_, unit_, source_)                                   \
    [CM_ASSUME_##name_] = {.name = #name_,                                                         \
                           .least = (least_),                                                      \
                           .unit = (unit_),                                                        \
                           .usual = {(value_), (low_), (high_), source_}},
const struct cm_assumption_info cm_assumption_infos[CM_ASSUME_COUNT] = {CM_ASSUMPTIONS(INFO)};

void cm_assumptions_usual(struct cm_assumption *assumptions)
{
    for (int i = 0; i < CM_ASSUME_COUNT; i++)
        assumptions[i] = cm_assumption_infos[i].usual;
}

static enum cm_status set_number(const struct cm_assumption_info *info, const char *key,
                                 const char *text, const char *where, double *field)
{
    double number = 0;
    enum cm_status status = cm_parse_real(text, &number);
    bool money = info == &cm_assumption_infos[CM_ASSUME_price];
    if (status != CM_OK || number < info->least || (number <= 0 && !money))
        return cm_error(CM_USAGE, "%s: %s '%.40s' (%s) is no number %s", where, key, text,
                        info->unit,
                        info->least >= 1 ? "of 1 or more"
                        : money          ? "of 0 or more"
                                         : "above 0");
    *field = number;
    return CM_OK;
}

enum cm_status cm_assumption_set(struct cm_assumption *assumptions, const char *key,
                                 const char *value, const char *where, bool *known)
{
    *known = true;
    for (int i = 0; i < CM_ASSUME_COUNT; i++) {
        const struct cm_assumption_info *info = &cm_assumption_infos[i];
        struct cm_assumption *one = &assumptions[i];
        size_t length = strlen(info->name);
        const char *rest = key + length;
        if (strncmp(key, info->name, length) != 0)
            continue;
        if (strcmp(rest, "_source") == 0) {
            if (strlen(value) >= sizeof one->source)
                return cm_error(CM_USAGE, "%s: %s has over %zu characters", where, key,
                                sizeof one->source - 1);
            snprintf(one->source, sizeof one->source, "%s", value);
            return CM_OK;
        }
        if (strcmp(rest, "_low") == 0)
            return set_number(info, key, value, where, &one->low);
        if (strcmp(rest, "_high") == 0)
            return set_number(info, key, value, where, &one->high);
        if (*rest != '\0')
            continue;
        enum cm_status status = set_number(info, key, value, where, &one->value);
        if (status == CM_OK) {
            one->low = one->high = one->value;
            snprintf(one->source, sizeof one->source, "%.199s", where);
        }
        return status;
    }
    *known = false;
    return CM_OK;
}

enum cm_status cm_assumptions_check(const struct cm_assumption *assumptions, const char *where)
{
    for (int i = 0; i < CM_ASSUME_COUNT; i++) {
        const struct cm_assumption *one = &assumptions[i];
        if (!(one->low <= one->value && one->value <= one->high))
            return cm_error(CM_USAGE, "%s: %s %g is not within its range %g .. %g", where,
                            cm_assumption_infos[i].name, one->value, one->low, one->high);
    }
    return CM_OK;
}

double cm_assumption_at(const struct cm_assumption *assumption, double deviate)
{
    double end = deviate > 0 ? assumption->high : assumption->low;
    if (!(assumption->value > 0) || !(end > 0))
        return assumption->value;
    return assumption->value * pow(end / assumption->value, fabs(deviate) / P90_DEVIATE);
}
