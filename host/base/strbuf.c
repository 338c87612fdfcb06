/* A string that grows. */
#include "clustermark/strbuf.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"

static bool reserve(struct cm_str *str, size_t extra)
{
    if (str->failed)
        return false;
    size_t needed = str->length + extra + 1;
    if (needed < extra || cm_grow(&str->text, &str->capacity, needed, 1) != 0)
        str->failed = true;
    return !str->failed;
}

void cm_str_add_bytes(struct cm_str *str, const void *bytes, size_t length)
{
    if (!reserve(str, length))
        return;
    memcpy(str->text + str->length, bytes, length);
    str->length += length;
    str->text[str->length] = '\0';
}

void cm_str_add(struct cm_str *str, const char *text)
{
    cm_str_add_bytes(str, text, strlen(text));
}

void cm_str_vaddf(struct cm_str *str, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    if (length < 0)
        str->failed = true;
    else if (reserve(str, (size_t)length)) {
        vsnprintf(str->text + str->length, (size_t)length + 1, format, again);
        str->length += (size_t)length;
    }
    va_end(again);
}

void cm_str_addf(struct cm_str *str, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    cm_str_vaddf(str, format, args);
    va_end(args);
}

void cm_str_add_xml(struct cm_str *str, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            cm_str_add(str, "&amp;");
            break;
        case '<':
            cm_str_add(str, "&lt;");
            break;
        case '>':
            cm_str_add(str, "&gt;");
            break;
        case '"':
            cm_str_add(str, "&quot;");
            break;
        case '\'':
            cm_str_add(str, "&#39;");
            break;
        case '\xef': /* U+FFFE and U+FFFF are no characters of XML */
            if (text[1] == '\xbf' && (text[2] == '\xbe' || text[2] == '\xbf')) {
                cm_str_add(str, "?");
                text += 2;
                break;
            }
            cm_str_add_bytes(str, text, 1);
            break;
        default:
            if ((unsigned char)*text >= 0x20 || *text == '\n' || *text == '\t')
                cm_str_add_bytes(str, text, 1);
        }
    }
}

const char *cm_str_text(const struct cm_str *str)
{
    return str->text != NULL ? str->text : "";
}

enum cm_status cm_str_status(const struct cm_str *str)
{
    if (!str->failed)
        return CM_OK;
    return cm_error(CM_NO_MEMORY, "out of memory: a text of over %zu bytes", str->length);
}

void cm_str_reset(struct cm_str *str)
{
    str->length = 0;
    str->failed = false;
    if (str->text != NULL)
        str->text[0] = '\0';
}

void cm_str_release(struct cm_str *str)
{
    cm_free(str->text);
    *str = (struct cm_str)CM_STR_INIT;
}
