/* Whether the objects of an hwloc file form a machine that hwloc can take.
 *
 * hwloc trusts its own files: a missing or contradictory set makes it crash. So each object's kind,
 * place and sets are checked on the way in, parent by parent. */
#include <stdlib.h>
#include <string.h>

#include "host/topology/hwloc_private.h"

static const struct {
    const char *type;
    enum cm_hwloc_class class;
} types[] = {
    {"Machine", CM_HWLOC_MACHINE},   {"Package", CM_HWLOC_NORMAL},  {"Die", CM_HWLOC_NORMAL},
    {"Group", CM_HWLOC_NORMAL},      {"Core", CM_HWLOC_NORMAL},     {"L1Cache", CM_HWLOC_NORMAL},
    {"L2Cache", CM_HWLOC_NORMAL},    {"L3Cache", CM_HWLOC_NORMAL},  {"L4Cache", CM_HWLOC_NORMAL},
    {"L5Cache", CM_HWLOC_NORMAL},    {"L1iCache", CM_HWLOC_NORMAL}, {"L2iCache", CM_HWLOC_NORMAL},
    {"L3iCache", CM_HWLOC_NORMAL},   {"PU", CM_HWLOC_PU},           {"MemCache", CM_HWLOC_MEMCACHE},
    {"NUMANode", CM_HWLOC_NUMANODE}, {"Bridge", CM_HWLOC_BRIDGE},   {"PCIDev", CM_HWLOC_PCIDEV},
    {"OSDev", CM_HWLOC_OSDEV},
};

/* What may be inside what, by class; CM_HWLOC_NONE stands for the file itself. */
static const unsigned parents[] = {
    [CM_HWLOC_MACHINE] = 1u << CM_HWLOC_NONE,
    [CM_HWLOC_NORMAL] = 1u << CM_HWLOC_MACHINE | 1u << CM_HWLOC_NORMAL,
    [CM_HWLOC_PU] = 1u << CM_HWLOC_MACHINE | 1u << CM_HWLOC_NORMAL,
    [CM_HWLOC_MEMCACHE] = 1u << CM_HWLOC_MACHINE | 1u << CM_HWLOC_NORMAL | 1u << CM_HWLOC_MEMCACHE,
    [CM_HWLOC_NUMANODE] = 1u << CM_HWLOC_MACHINE | 1u << CM_HWLOC_NORMAL | 1u << CM_HWLOC_MEMCACHE,
    [CM_HWLOC_BRIDGE] = 1u << CM_HWLOC_MACHINE | 1u << CM_HWLOC_NORMAL | 1u << CM_HWLOC_BRIDGE,
    [CM_HWLOC_PCIDEV] = 1u << CM_HWLOC_MACHINE | 1u << CM_HWLOC_NORMAL | 1u << CM_HWLOC_BRIDGE,
    [CM_HWLOC_OSDEV] = 1u << CM_HWLOC_MACHINE | 1u << CM_HWLOC_NORMAL | 1u << CM_HWLOC_BRIDGE |
                       1u << CM_HWLOC_PCIDEV | 1u << CM_HWLOC_OSDEV,
};

static const char *const set_names[CM_HWLOC_SETS] = {"cpuset", "nodeset", "complete_cpuset",
                                                     "complete_nodeset"};

/* "0x000000ff,0xffff0000,,0x1": words of 32 bits, the highest first. */
bool cm_hwloc_parse_set(const char *text, struct cm_cpuset *set)
{
    size_t words = 1;
    memset(set, 0, sizeof *set);
    for (const char *c = text; *c != '\0'; c++)
        words += *c == ',';
    for (size_t word = words; word-- > 0;) {
        char *end = NULL;
        size_t length = strcspn(text, ",");
        if (length > 0) {
            if (length > 10 || strspn(text, "0123456789abcdefxABCDEFX") < length)
                return false;
            uint64_t value = strtoul(text, &end, 16);
            if (end != text + length || value > UINT32_MAX || word >= CM_CPUS_MAX / 32)
                return false;
            set->bits[word / 2] |= value << (word % 2 * 32);
        }
        text += length + 1;
    }
    return true;
}

static bool is_part(const struct cm_cpuset *part, const struct cm_cpuset *whole)
{
    struct cm_cpuset both = *part;
    cm_cpuset_and(&both, whole);
    return memcmp(&both, part, sizeof both) == 0;
}

static bool is_only(const struct cm_cpuset *set, unsigned index)
{
    return cm_cpuset_count(set) == 1 && cm_cpuset_has(set, index);
}

static enum cm_hwloc_class class_of(const char *type)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].type, type) == 0)
            return types[i].class;
    }
    return CM_HWLOC_NONE;
}

static enum cm_status read_sets(const struct cm_xml *xml, const struct cm_hwloc_level *above,
                                struct cm_hwloc_level *level)
{
    for (unsigned i = 0; i < CM_HWLOC_SETS; i++) {
        const char *text = cm_xml_attribute(xml, set_names[i]);
        if (text == NULL)
            return cm_xml_error(xml, "an object without %s", set_names[i]);
        if (!cm_hwloc_parse_set(text, &level->sets[i]))
            return cm_xml_error(xml, "%s is no set like 0x0000ffff, below %d", set_names[i],
                                CM_CPUS_MAX);
        if (above != NULL && !is_part(&level->sets[i], &above->sets[i]))
            return cm_xml_error(xml, "the %s goes beyond that of the object around it",
                                set_names[i]);
    }
    if (!is_part(&level->sets[0], &level->sets[2]) || !is_part(&level->sets[1], &level->sets[3]))
        return cm_xml_error(xml, "a set goes beyond the complete set of the same object");
    return CM_OK;
}

/* A processor or NUMA node: its number is its set, and nobody else has it. */
static enum cm_status read_number(const struct cm_xml *xml, const struct cm_cpuset *own,
                                  struct cm_cpuset *seen)
{
    const char *text = cm_xml_attribute(xml, "os_index");
    unsigned long index = text != NULL ? strtoul(text, NULL, 10) : CM_CPUS_MAX;
    if (index >= CM_CPUS_MAX || !is_only(own, (unsigned)index))
        return cm_xml_error(xml, "the set of a processor or NUMA node must be its os_index");
    if (cm_cpuset_has(seen, (unsigned)index))
        return cm_xml_error(xml, "os_index %lu appears twice", index);
    cm_cpuset_add(seen, (unsigned)index);
    return CM_OK;
}

enum cm_status cm_hwloc_check_object(const struct cm_xml *xml, struct cm_hwloc_checker *checker)
{
    const char *type = cm_xml_attribute(xml, "type");
    char shown[CM_XML_SHOWN_MAX];
    struct cm_hwloc_level *level = &checker->levels[xml->depth - 1];
    const struct cm_hwloc_level *above = xml->depth > 2 ? level - 1 : NULL;
    level->class = class_of(type != NULL ? type : "");
    if (level->class == CM_HWLOC_NONE)
        return cm_xml_error(xml, "an object of type \"%s\", which hwloc 2 does not have",
                            cm_xml_shown(type != NULL ? type : "", shown));
    enum cm_hwloc_class parent = above != NULL ? above->class : CM_HWLOC_NONE;
    if ((parents[level->class] >> parent & 1) == 0)
        return cm_xml_error(xml, "a %s in a place where none can be", type);
    if (level->class == CM_HWLOC_MACHINE && checker->machine)
        return cm_xml_error(xml, "a second Machine");
    checker->machine |= level->class == CM_HWLOC_MACHINE;
    if (level->class >= CM_HWLOC_BRIDGE)
        return CM_OK;
    enum cm_status status = read_sets(xml, above, level);
    if (status == CM_OK && level->class == CM_HWLOC_PU)
        status = read_number(xml, &level->sets[0], &checker->processors);
    if (status == CM_OK && level->class == CM_HWLOC_NUMANODE)
        status = read_number(xml, &level->sets[1], &checker->nodes);
    return status;
}
