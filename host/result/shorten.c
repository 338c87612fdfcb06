/*
 * Result files without most of their samples, before they are parsed: thousands of files are then
 * read in the time of a few. The text of a list is cut, never anything else: inside a JSON string
 * no quote stands without a backslash, so the key that begins a list is found by its bytes.
 */
#include <stdio.h>
#include <string.h>

#include "clustermark/result.h"
#include "host/result/record.h"

static const char samples_key[] = "\"samples_s\":";
static const char ranks_key[] = "\"rank_samples_s\":";
/* Room for what says how many are gone; so many must go, or nothing is won. */
#define NOTE_MAX 48

/* What may stand between the brackets and commas: numbers, null, space. */
static const bool plain[256] = {
    ['0'] = true, ['1'] = true,  ['2'] = true,  ['3'] = true,  ['4'] = true, ['5'] = true,
    ['6'] = true, ['7'] = true,  ['8'] = true,  ['9'] = true,  ['+'] = true, ['-'] = true,
    ['.'] = true, ['e'] = true,  ['E'] = true,  ['n'] = true,  ['u'] = true, ['l'] = true,
    [' '] = true, ['\t'] = true, ['\r'] = true, ['\n'] = true,
};

/* The end of a list of numbers (one past its bracket), and how many there are; NULL where it is
 * something else. Lists of lists have `depth` 2. */
static const char *list_end(const char *at, const char *end, int depth, size_t *count,
                            const char **after_kept)
{
    int open = 0;
    *count = 0;
    *after_kept = NULL;
    for (; at < end; at++) {
        if (plain[(unsigned char)*at])
            continue;
        if (*at == ',') {
            if (++*count == CM_SAMPLES_KEPT)
                *after_kept = at;
        } else if (*at == ']') {
            if (--open == 0) {
                ++*count;
                return at + 1;
            }
        } else if (*at != '[' || ++open > depth) {
            return NULL;
        }
    }
    return NULL;
}

static bool begins(const char *at, const char *end, const char *key, size_t length)
{
    return (size_t)(end - at) > length && memcmp(at, key, length) == 0;
}

size_t cm_samples_shorten(char *text, size_t length)
{
    const char *end = text + length, *from = text;
    char *to = text;
    while (from < end) {
        const char *quote = memchr(from, '"', (size_t)(end - from));
        const char *stop = quote != NULL ? quote : end;
        memmove(to, from, (size_t)(stop - from));
        to += stop - from;
        from = stop;
        if (quote == NULL)
            break;
        bool ranks = begins(from, end, ranks_key, sizeof ranks_key - 1);
        size_t key = ranks ? sizeof ranks_key - 1
                     : begins(from, end, samples_key, sizeof samples_key - 1)
                         ? sizeof samples_key - 1
                         : 0;
        size_t count, copied = 1;
        const char *kept, *list = from + key + (key > 0 && from[key] == ' ');
        const char *after = key > 0 && list < end && *list == '['
                                ? list_end(list, end, ranks ? 2 : 1, &count, &kept)
                                : NULL;
        if (after != NULL && ranks) {
            memcpy(to, ranks_key, key);
            to[key] = '[';
            to[key + 1] = ']';
            to += key + 2;
            from = after;
            continue;
        }
        if (after != NULL && kept != NULL && after - kept > NOTE_MAX) {
            copied = (size_t)(kept - from);
            memmove(to, from, copied);
            to += copied;
            /* Shorter than what it stands for, so that it cannot run into what is yet to come. */
            to += snprintf(to, NOTE_MAX, "],\"samples_left_out\":%zu", count - CM_SAMPLES_KEPT);
            from = after;
            continue;
        }
        memmove(to, from, copied);
        to += copied;
        from += copied;
    }
    return (size_t)(to - text);
}
