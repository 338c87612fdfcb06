/* A strict pull parser: see xml.h. */
#include "host/topology/xml.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"

void cm_xml_init(const char *file, const char *text, size_t length, struct cm_xml *xml)
{
    memset(xml, 0, sizeof *xml);
    xml->file = file;
    xml->text = text;
    xml->length = length;
    xml->line = 1;
}

void cm_xml_release(struct cm_xml *xml)
{
    cm_free(xml->values);
    xml->values = NULL;
}

enum cm_status cm_xml_error(const struct cm_xml *xml, const char *format, ...)
{
    char message[CM_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return cm_error(CM_USAGE, "%.200s:%u: %s", xml->file, xml->line, message);
}

const char *cm_xml_shown(const char *value, char *buffer)
{
    size_t used = 0;
    for (; value[used] != '\0' && used < 40; used++)
        buffer[used] = value[used] >= ' ' && value[used] < 127 ? value[used] : '?';
    memcpy(buffer + used, value[used] != '\0' ? "..." : "", value[used] != '\0' ? 4 : 1);
    return buffer;
}

const char *cm_xml_element(const struct cm_xml *xml)
{
    return xml->depth > 0 ? xml->names[xml->depth - 1] : "";
}

const char *cm_xml_attribute(const struct cm_xml *xml, const char *name)
{
    for (unsigned i = 0; i < xml->attribute_count; i++) {
        if (strcmp(xml->attributes[i].name, name) == 0)
            return xml->values + xml->attributes[i].value;
    }
    return NULL;
}

static int peek(const struct cm_xml *xml)
{
    return xml->at < xml->length ? (unsigned char)xml->text[xml->at] : -1;
}

static void advance(struct cm_xml *xml, size_t count)
{
    for (; count > 0 && xml->at < xml->length; count--, xml->at++) {
        if (xml->text[xml->at] == '\n')
            xml->line++;
    }
}

static bool is_space(int c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_name(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == ':';
}

static void skip_space(struct cm_xml *xml)
{
    while (is_space(peek(xml)))
        advance(xml, 1);
}

static bool looking_at(const struct cm_xml *xml, const char *text)
{
    size_t length = strlen(text);
    return xml->length - xml->at >= length && memcmp(xml->text + xml->at, text, length) == 0;
}

/* Skip to just behind `end`; `what` began on the current line. */
static enum cm_status skip_behind(struct cm_xml *xml, const char *end, const char *what)
{
    const char *found = memmem(xml->text + xml->at, xml->length - xml->at, end, strlen(end));
    if (found == NULL)
        return cm_xml_error(xml, "the file ends inside %s that begins here", what);
    advance(xml, (size_t)(found - (xml->text + xml->at)) + strlen(end));
    return CM_OK;
}

static enum cm_status skip_doctype(struct cm_xml *xml)
{
    size_t end = xml->at;
    while (end < xml->length && xml->text[end] != '>') {
        if (xml->text[end] == '[')
            return cm_xml_error(xml, "a DOCTYPE with own definitions; topology files have none");
        end++;
    }
    return skip_behind(xml, ">", "the DOCTYPE");
}

static enum cm_status append(struct cm_xml *xml, char c)
{
    if (cm_grow(&xml->values, &xml->values_capacity, xml->values_length + 1, 1) != 0)
        return CM_NO_MEMORY;
    xml->values[xml->values_length++] = c;
    return CM_OK;
}

static enum cm_status read_name(struct cm_xml *xml, char name[CM_XML_NAME_MAX])
{
    size_t length = 0;
    while (is_name(peek(xml))) {
        if (length == CM_XML_NAME_MAX - 1)
            return cm_xml_error(xml, "a name of more than %d characters", CM_XML_NAME_MAX - 1);
        name[length++] = (char)peek(xml);
        advance(xml, 1);
    }
    name[length] = '\0';
    if (length == 0)
        return cm_xml_error(xml, peek(xml) < 0 ? "the file ends inside an element"
                                               : "a name was expected here");
    return CM_OK;
}

/* "&lt;" and the like, and numbers; what is not ASCII becomes '?'. */
static enum cm_status read_entity(struct cm_xml *xml)
{
    static const struct {
        const char *text;
        char c;
    } known[] = {
        {"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (looking_at(xml, known[i].text)) {
            advance(xml, strlen(known[i].text));
            return append(xml, known[i].c);
        }
    }
    if (!looking_at(xml, "&#"))
        return cm_xml_error(xml, "an entity that is not one of &lt; &gt; &amp; &quot; &apos;");
    char digits[12];
    size_t used = 0, at = xml->at + 2;
    while (at < xml->length && used < sizeof digits - 1 && xml->text[at] != ';')
        digits[used++] = xml->text[at++];
    digits[used] = '\0';
    char *end;
    unsigned long code = digits[0] == 'x' && is_name(digits[1]) ? strtoul(digits + 1, &end, 16)
                                                                : strtoul(digits, &end, 10);
    if (*end != '\0' || !is_name(digits[0]) || at >= xml->length || xml->text[at] != ';' ||
        code == 0 || code > 0x10ffff)
        return cm_xml_error(xml, "a character number that is none");
    advance(xml, at + 1 - xml->at);
    return append(xml, code < 128 ? (char)code : '?');
}

/* Characters up to `end`, entities decoded, into values; `end` itself is left. */
static enum cm_status read_characters(struct cm_xml *xml, char end, const char *what)
{
    size_t begin = xml->values_length;
    for (int c = peek(xml); c != end; c = peek(xml)) {
        enum cm_status status;
        if (c < 0)
            return cm_xml_error(xml, "the file ends inside %s", what);
        if (c == '<' || c == '\0')
            return cm_xml_error(xml, "'%s' inside %s", c == '<' ? "<" : "\\0", what);
        if (xml->values_length - begin >= CM_XML_VALUE_MAX)
            return cm_xml_error(xml, "%s has more than %d characters", what, CM_XML_VALUE_MAX);
        if (c == '&') {
            status = read_entity(xml);
        } else {
            status = append(xml, (char)c);
            advance(xml, 1);
        }
        if (status != CM_OK)
            return status;
    }
    return append(xml, '\0');
}

static enum cm_status read_attribute(struct cm_xml *xml)
{
    if (xml->attribute_count == CM_XML_ATTRIBUTES_MAX)
        return cm_xml_error(xml, "<%s> has more than %d attributes", cm_xml_element(xml),
                            CM_XML_ATTRIBUTES_MAX);
    char *name = xml->attributes[xml->attribute_count].name;
    enum cm_status status = read_name(xml, name);
    if (status != CM_OK)
        return status;
    if (cm_xml_attribute(xml, name) != NULL)
        return cm_xml_error(xml, "<%s> has the attribute %s twice", cm_xml_element(xml), name);
    skip_space(xml);
    if (peek(xml) != '=')
        return cm_xml_error(xml, "the attribute %s of <%s> has no value", name,
                            cm_xml_element(xml));
    advance(xml, 1);
    skip_space(xml);
    int quote = peek(xml);
    if (quote != '"' && quote != '\'')
        return cm_xml_error(xml, "the value of %s of <%s> has no quotes", name,
                            cm_xml_element(xml));
    advance(xml, 1);
    xml->attributes[xml->attribute_count].value = xml->values_length;
    status = read_characters(xml, (char)quote, "an attribute's value");
    if (status != CM_OK)
        return status;
    advance(xml, 1);
    xml->attribute_count++;
    return CM_OK;
}

static enum cm_status read_open(struct cm_xml *xml)
{
    if (xml->depth == CM_XML_DEPTH_MAX)
        return cm_xml_error(xml, "elements are nested deeper than %d", CM_XML_DEPTH_MAX);
    if (xml->depth == 0 && xml->rooted)
        return cm_xml_error(xml, "a second root element");
    advance(xml, 1);
    xml->attribute_count = 0;
    xml->values_length = 0;
    enum cm_status status = read_name(xml, xml->names[xml->depth]);
    if (status != CM_OK)
        return status;
    xml->depth++;
    xml->rooted = true;
    for (;;) {
        bool spaced = is_space(peek(xml));
        skip_space(xml);
        int c = peek(xml);
        if (c == '>') {
            advance(xml, 1);
            return CM_OK;
        }
        if (looking_at(xml, "/>")) {
            advance(xml, 2);
            xml->empty = true;
            return CM_OK;
        }
        if (c < 0)
            return cm_xml_error(xml, "the file ends inside <%s>", cm_xml_element(xml));
        if (!spaced || !is_name(c))
            return cm_xml_error(xml, "<%s> is not well-formed", cm_xml_element(xml));
        status = read_attribute(xml);
        if (status != CM_OK)
            return status;
    }
}

static enum cm_status read_close(struct cm_xml *xml)
{
    char name[CM_XML_NAME_MAX];
    advance(xml, 2);
    enum cm_status status = read_name(xml, name);
    if (status != CM_OK)
        return status;
    skip_space(xml);
    if (xml->depth == 0 || strcmp(name, cm_xml_element(xml)) != 0)
        return cm_xml_error(xml, "</%s> closes what is not open", name);
    if (peek(xml) != '>')
        return cm_xml_error(xml, "</%s> is not well-formed", name);
    advance(xml, 1);
    xml->attribute_count = 0;
    return CM_OK;
}

static enum cm_status read_text(struct cm_xml *xml)
{
    if (xml->depth == 0)
        return cm_xml_error(xml, "text outside of elements; this is no XML file");
    xml->values_length = 0;
    xml->attribute_count = 0;
    return read_characters(xml, '<', "the text of an element");
}

/* Steps over what is no event: blanks, comments, the declaration, the DOCTYPE. */
static enum cm_status skip_noise(struct cm_xml *xml)
{
    enum cm_status status = CM_OK;
    for (bool more = true; more && status == CM_OK;) {
        skip_space(xml);
        if (looking_at(xml, "<!--"))
            status = skip_behind(xml, "-->", "a comment");
        else if (looking_at(xml, "<?xml") && !xml->rooted)
            status = skip_behind(xml, "?>", "the XML declaration");
        else if (looking_at(xml, "<!DOCTYPE") && !xml->rooted)
            status = skip_doctype(xml);
        else
            more = false;
    }
    return status;
}

enum cm_status cm_xml_next(struct cm_xml *xml, enum cm_xml_event *event)
{
    /* A close event keeps its element's name readable until now. */
    if (xml->closed)
        xml->depth--;
    xml->closed = xml->empty;
    if (xml->empty) {
        xml->empty = false;
        xml->attribute_count = 0;
        *event = CM_XML_CLOSE;
        return CM_OK;
    }
    enum cm_status status = skip_noise(xml);
    if (status != CM_OK)
        return status;
    if (peek(xml) < 0) {
        if (xml->depth > 0)
            return cm_xml_error(xml, "the file ends before </%s>", cm_xml_element(xml));
        if (!xml->rooted)
            return cm_xml_error(xml, "no element; this is no XML file");
        *event = CM_XML_END;
        return CM_OK;
    }
    if (looking_at(xml, "</")) {
        status = read_close(xml);
        xml->closed = status == CM_OK;
        *event = CM_XML_CLOSE;
        return status;
    }
    *event = peek(xml) == '<' ? CM_XML_OPEN : CM_XML_TEXT;
    return *event == CM_XML_OPEN ? read_open(xml) : read_text(xml);
}
