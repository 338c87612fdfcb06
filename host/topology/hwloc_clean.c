/* An hwloc XML file from a stranger, checked and written anew.
 *
 * hwloc has two XML parsers, of which the built-in one takes no comments and both trust numbers.
 * So the file goes through the strict parser first, and hwloc gets only the elements that are used,
 * with sizes and sets within bounds. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/topology/hwloc_private.h"

#define OBJECTS_MAX   200000
#define DISTANCES_MAX 1024 /* objects in a matrix */
#define OS_INDEX_MAX  65535
#define OS_INDEX_NONE 4294967295UL

/* Elements that are kept, and what they are inside of. */
static const struct {
    const char *name, *parents;
} kept_elements[] = {
    {"topology", ""},
    {"object", " topology object "},
    {"info", " topology object "},
    {"distances2", " topology "},
    {"distances2hetero", " topology "},
    {"indexes", " distances2 distances2hetero "},
    {"u64values", " distances2 distances2hetero "},
};

static bool is_kept(const struct cm_xml *xml)
{
    const char *name = cm_xml_element(xml);
    char parent[CM_XML_NAME_MAX + 2];
    snprintf(parent, sizeof parent, " %s ", xml->depth > 1 ? xml->names[xml->depth - 2] : "");
    for (size_t i = 0; i < sizeof kept_elements / sizeof kept_elements[0]; i++) {
        if (strcmp(name, kept_elements[i].name) != 0)
            continue;
        return xml->depth == 1 || strstr(kept_elements[i].parents, parent) != NULL;
    }
    return false;
}

/* hwloc's own parser knows these entities alone. */
static void add_escaped(struct cm_str *out, const char *value)
{
    for (; *value != '\0'; value++) {
        switch (*value) {
        case '&':
            cm_str_add(out, "&amp;");
            break;
        case '<':
            cm_str_add(out, "&lt;");
            break;
        case '>':
            cm_str_add(out, "&gt;");
            break;
        case '"':
            cm_str_add(out, "&quot;");
            break;
        default:
            cm_str_add_bytes(out, *value >= ' ' && *value < 127 ? value : "?", 1);
        }
    }
}

static enum cm_status bad_attribute(const struct cm_xml *xml, const char *name, const char *value,
                                    const char *right)
{
    char shown[CM_XML_SHOWN_MAX];
    return cm_xml_error(xml, "%s=\"%s\" of <%s> must be %s", name, cm_xml_shown(value, shown),
                        cm_xml_element(xml), right);
}

static bool number_up_to(const char *value, unsigned long most)
{
    char *end;
    if (!isdigit((unsigned char)value[0]) || strlen(value) > 12)
        return false;
    return strtoul(value, &end, 10) <= most && *end == '\0';
}

static enum cm_status check_attribute(const struct cm_xml *xml, const char *name, const char *value)
{
    size_t length = strlen(name);
    struct cm_cpuset set;
    if (length > 3 && strcmp(name + length - 3, "set") == 0 && !cm_hwloc_parse_set(value, &set))
        return bad_attribute(xml, name, value, "a finite set like 0x0000ffff");
    if (strcmp(name, "os_index") == 0 && !number_up_to(value, OS_INDEX_MAX) &&
        !number_up_to(value, OS_INDEX_NONE))
        return bad_attribute(xml, name, value, "a number up to 65535");
    if (strcmp(name, "os_index") == 0 && strtoul(value, NULL, 10) > OS_INDEX_MAX &&
        strtoul(value, NULL, 10) != OS_INDEX_NONE)
        return bad_attribute(xml, name, value, "a number up to 65535");
    if (strcmp(name, "nbobjs") == 0 && !number_up_to(value, DISTANCES_MAX))
        return bad_attribute(xml, name, value, "a number up to 1024");
    if (strcmp(name, "length") == 0 && !number_up_to(value, CM_XML_VALUE_MAX))
        return bad_attribute(xml, name, value, "a number up to 65536");
    return CM_OK;
}

static enum cm_status check_version(const struct cm_xml *xml)
{
    const char *version = cm_xml_attribute(xml, "version");
    char shown[CM_XML_SHOWN_MAX];
    if (version == NULL)
        return cm_xml_error(xml, "hwloc 1.x format; export the file anew with hwloc 2");
    if (version[0] != '2' || version[1] != '.')
        return cm_xml_error(xml,
                            "hwloc XML version %s; version 2 is read (hwloc 3: lstopo "
                            "--export-xml-flags v2)",
                            cm_xml_shown(version, shown));
    return CM_OK;
}

static enum cm_status copy_open(const struct cm_xml *xml, struct cm_str *out)
{
    enum cm_status status = xml->depth == 1 ? check_version(xml) : CM_OK;
    cm_str_addf(out, "<%s", cm_xml_element(xml));
    for (unsigned i = 0; status == CM_OK && i < xml->attribute_count; i++) {
        const char *name = xml->attributes[i].name;
        const char *value = xml->values + xml->attributes[i].value;
        status = check_attribute(xml, name, value);
        cm_str_addf(out, " %s=\"", name);
        add_escaped(out, value);
        cm_str_add(out, "\"");
    }
    cm_str_add(out, ">\n");
    return status;
}

/* The content of <indexes> and <u64values>; its length stands in an attribute. */
static enum cm_status copy_text(const struct cm_xml *xml, struct cm_str *out)
{
    const char *name = cm_xml_element(xml);
    if (strcmp(name, "indexes") != 0 && strcmp(name, "u64values") != 0)
        return cm_xml_error(xml, "text inside <%s>; hwloc's format has none", name);
    /* "<indexes length=...>\n" was written; text follows directly. */
    out->length--;
    add_escaped(out, xml->values);
    return CM_OK;
}

struct cleaner {
    struct cm_xml *xml;
    size_t objects;
    unsigned skip; /* depth of the element that is left out with all it holds; 0 none */
    struct cm_hwloc_checker *checker;
};

static enum cm_status clean_event(struct cleaner *cleaner, enum cm_xml_event event,
                                  struct cm_str *out)
{
    struct cm_xml *xml = cleaner->xml;
    const char *name = cm_xml_element(xml);
    if (event == CM_XML_OPEN && cleaner->skip == 0 && !is_kept(xml))
        cleaner->skip = xml->depth;
    if (cleaner->skip != 0) {
        if (event == CM_XML_CLOSE && xml->depth == cleaner->skip)
            cleaner->skip = 0;
        return CM_OK;
    }
    if (event == CM_XML_OPEN && strcmp(name, "object") == 0) {
        if (cleaner->objects++ == OBJECTS_MAX)
            return cm_xml_error(xml, "more than %d objects", OBJECTS_MAX);
        enum cm_status status = cm_hwloc_check_object(xml, cleaner->checker);
        if (status != CM_OK)
            return status;
    }
    if (event == CM_XML_OPEN)
        return copy_open(xml, out);
    if (event == CM_XML_TEXT)
        return copy_text(xml, out);
    cm_str_addf(out, "</%s>\n", name);
    return CM_OK;
}

static enum cm_status check_whole(const char *name, const struct cm_hwloc_checker *checker)
{
    if (!checker->machine)
        return cm_error(CM_USAGE, "%.200s: <topology> has no Machine object; this is no topology",
                        name);
    if (cm_cpuset_count(&checker->processors) == 0 || cm_cpuset_count(&checker->nodes) == 0)
        return cm_error(CM_USAGE, "%.200s: the Machine has no %s; this is no topology", name,
                        cm_cpuset_count(&checker->nodes) == 0 ? "NUMA node" : "processor");
    return CM_OK;
}

enum cm_status cm_hwloc_clean(const char *name, const char *text, size_t length,
                              struct cm_str *clean)
{
    struct cleaner cleaner = {.xml = cm_alloc(1, sizeof *cleaner.xml),
                              .checker = cm_alloc(1, sizeof *cleaner.checker)};
    enum cm_xml_event event = CM_XML_OPEN;
    enum cm_status status = CM_NO_MEMORY;
    if (cleaner.xml == NULL || cleaner.checker == NULL)
        goto free_parts;
    cm_xml_init(name, text, length, cleaner.xml);
    cm_str_add(clean, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                      "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n");
    for (status = CM_OK; status == CM_OK;) {
        status = cm_xml_next(cleaner.xml, &event);
        if (status != CM_OK || event == CM_XML_END)
            break;
        status = clean_event(&cleaner, event, clean);
    }
    if (status == CM_OK)
        status = check_whole(name, cleaner.checker);
    if (status == CM_OK)
        status = cm_str_status(clean);
    cm_xml_release(cleaner.xml);
free_parts:
    cm_free(cleaner.checker);
    cm_free(cleaner.xml);
    return status;
}
