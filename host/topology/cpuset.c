/* Sets of processor numbers. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/topology.h"

#define WORDS (CM_CPUS_MAX / 64)

void cm_cpuset_add(struct cm_cpuset *set, unsigned cpu)
{
    if (cpu < CM_CPUS_MAX)
        set->bits[cpu / 64] |= UINT64_C(1) << (cpu % 64);
}

bool cm_cpuset_has(const struct cm_cpuset *set, unsigned cpu)
{
    return cpu < CM_CPUS_MAX && (set->bits[cpu / 64] >> (cpu % 64) & 1) != 0;
}

unsigned cm_cpuset_count(const struct cm_cpuset *set)
{
    unsigned count = 0;
    for (size_t i = 0; i < WORDS; i++)
        count += (unsigned)__builtin_popcountll(set->bits[i]);
    return count;
}

void cm_cpuset_and(struct cm_cpuset *set, const struct cm_cpuset *other)
{
    for (size_t i = 0; i < WORDS; i++)
        set->bits[i] &= other->bits[i];
}

void cm_cpuset_or(struct cm_cpuset *set, const struct cm_cpuset *other)
{
    for (size_t i = 0; i < WORDS; i++)
        set->bits[i] |= other->bits[i];
}

void cm_cpuset_write(const struct cm_cpuset *set, struct cm_str *out)
{
    const char *separator = "";
    for (unsigned first = 0; first < CM_CPUS_MAX; first++) {
        if (!cm_cpuset_has(set, first))
            continue;
        unsigned last = first;
        while (cm_cpuset_has(set, last + 1))
            last++;
        if (last == first)
            cm_str_addf(out, "%s%u", separator, first);
        else
            cm_str_addf(out, "%s%u-%u", separator, first, last);
        separator = ",";
        first = last;
    }
}

static bool parse_number(const char **text, unsigned *number)
{
    char *end;
    if (!isdigit((unsigned char)**text))
        return false;
    unsigned long value = strtoul(*text, &end, 10);
    if (value >= CM_CPUS_MAX)
        return false;
    *text = end;
    *number = (unsigned)value;
    return true;
}

bool cm_cpuset_parse(const char *text, struct cm_cpuset *set)
{
    struct cm_cpuset parsed;
    memset(&parsed, 0, sizeof parsed);
    text += strspn(text, " \t");
    while (*text != '\0' && *text != '\n') {
        unsigned first, last;
        if (!parse_number(&text, &first))
            return false;
        last = first;
        if (*text == '-') {
            text++;
            if (!parse_number(&text, &last) || last < first)
                return false;
        }
        for (unsigned cpu = first; cpu <= last; cpu++)
            cm_cpuset_add(&parsed, cpu);
        if (*text == ',' && isdigit((unsigned char)text[1]))
            text++;
        else if (*text != '\0' && *text != '\n')
            return false;
    }
    *set = parsed;
    return true;
}
