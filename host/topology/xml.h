/*
 * xml.h: a strict pull parser for the XML that topology files are made of.
 *
 * Elements, attributes, text, comments, the predefined and numeric entities, an XML declaration and
 * a DOCTYPE without a subset. Everything else (CDATA, own entities, processing instructions) is
 * refused: no topology writer makes it. Size, depth, attributes and lengths are bounded. An error
 * is CM_USAGE with "file:line: ".
 */
#ifndef CM_TOPOLOGY_XML_H
#define CM_TOPOLOGY_XML_H

#include <stdbool.h>
#include <stddef.h>

#include "clustermark/status.h"

#define CM_XML_DEPTH_MAX      128
#define CM_XML_NAME_MAX       64
#define CM_XML_ATTRIBUTES_MAX 64
#define CM_XML_VALUE_MAX      65536

enum cm_xml_event { CM_XML_OPEN, CM_XML_TEXT, CM_XML_CLOSE, CM_XML_END };

struct cm_xml {
    const char *file; /* for messages */
    const char *text;
    size_t length, at;
    unsigned line;
    unsigned depth; /* of open elements, the current one included */
    bool empty;     /* "<x/>": its close event comes next */
    bool closed;    /* the close event was given; the element leaves with the next call */
    bool rooted;    /* the root element was seen */
    char names[CM_XML_DEPTH_MAX][CM_XML_NAME_MAX];
    unsigned attribute_count;
    struct {
        char name[CM_XML_NAME_MAX];
        size_t value; /* offset into values */
    } attributes[CM_XML_ATTRIBUTES_MAX];
    char *values; /* decoded, zero-terminated attribute values of this element, or its text */
    size_t values_length, values_capacity;
};

/* Borrows `file` and `text` until the release. The structure is large: keep it on the heap. */
void cm_xml_init(const char *file, const char *text, size_t length, struct cm_xml *xml);
void cm_xml_release(struct cm_xml *xml);

/* The next event. OPEN and CLOSE have the element's name in cm_xml_element; TEXT (never blank) has
 * it in xml->values; END comes once, after the root's close. */
enum cm_status cm_xml_next(struct cm_xml *xml, enum cm_xml_event *event);
const char *cm_xml_element(const struct cm_xml *xml);
/* The value of an attribute of the element just opened, NULL when it is not there. */
const char *cm_xml_attribute(const struct cm_xml *xml, const char *name);

/* CM_USAGE with "file:line: " in front. */
enum cm_status cm_xml_error(const struct cm_xml *xml, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A value as it may stand in a message: at most 40 characters, none of them strange. */
#define CM_XML_SHOWN_MAX 48
const char *cm_xml_shown(const char *value, char *buffer);

#endif
