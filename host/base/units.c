/* Numbers with units, read. Sizes and counts are computed in whole numbers, so that every one below
 * 2^63 is exact; the printers are in format.c. */
#include "clustermark/units.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"

struct unit {
    const char *name;
    uint64_t factor;
};

#define KIBI (UINT64_C(1) << 10)
#define MEBI (UINT64_C(1) << 20)
#define GIBI (UINT64_C(1) << 30)
#define TEBI (UINT64_C(1) << 40)
#define KILO UINT64_C(1000)
#define MEGA UINT64_C(1000000)
#define GIGA UINT64_C(1000000000)
#define TERA UINT64_C(1000000000000)

static const struct unit size_units[] = {
    {"", 1},       {"B", 1},     {"K", KIBI},   {"k", KIBI},   {"KiB", KIBI},
    {"M", MEBI},   {"m", MEBI},  {"MiB", MEBI}, {"G", GIBI},   {"g", GIBI},
    {"GiB", GIBI}, {"T", TEBI},  {"t", TEBI},   {"TiB", TEBI}, {"kB", KILO},
    {"KB", KILO},  {"MB", MEGA}, {"GB", GIGA},  {"TB", TERA},  {NULL, 0},
};

static const struct unit count_units[] = {
    {"", 1}, {"k", KILO}, {"K", KILO}, {"M", MEGA}, {"G", GIGA}, {"T", TERA}, {NULL, 0},
};

/* Factors of real numbers. */
struct scale {
    const char *name;
    double factor;
};

static const struct scale time_units[] = {
    {"", 1},           {"s", 1},  {"ms", 1e-3}, {"us", 1e-6}, {"\u00b5s", 1e-6}, {"ns", 1e-9},
    {"\u03bcs", 1e-6}, {"m", 60}, {"min", 60},  {"h", 3600},  {NULL, 0},
};

static const struct scale real_units[] = {{"", 1}, {"%", 1e-2}, {NULL, 0}};

/* A rate's unit is a prefix and one of these. */
static const struct scale rate_prefixes[] = {
    {"", 1},     {"k", 1e3},     {"K", 1e3},     {"M", 1e6},     {"G", 1e9},     {"T", 1e12},
    {"P", 1e15}, {"Ki", 0x1p10}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40}, {NULL, 0},
};
static const struct scale rate_units[] = {{"B/s", 1}, {"b/s", 0.125}, {"bit/s", 0.125}, {NULL, 0}};

/* What stands in a text: a decimal number, digits * 10^exponent, and where its unit begins. */
struct number {
    unsigned __int128 digits;
    int exponent;
    bool exact; /* all digits fitted */
    const char *unit;
};

/* So that digits * (largest factor, 2^40) fits in 128 bits. */
#define DIGITS_MAX   26
#define EXPONENT_MAX 100000

static bool is_digit(char letter)
{
    return letter >= '0' && letter <= '9';
}

/* Zeros are held back until another digit follows, so that 1e25 written out is still short. */
static const char *scan_digits(const char *text, bool fraction, unsigned *zeros, unsigned *count,
                               struct number *number)
{
    for (; is_digit(*text); text++) {
        if (number->exponent > -EXPONENT_MAX && fraction)
            number->exponent--;
        if (*text == '0') {
            if (*count > 0)
                ++*zeros;
            continue;
        }
        if (*count + *zeros + 1 > DIGITS_MAX)
            number->exact = false;
        for (unsigned i = 0; number->exact && i < *zeros; i++)
            number->digits *= 10;
        if (number->exact)
            number->digits = number->digits * 10 + (unsigned)(*text - '0');
        *count += *zeros + 1;
        *zeros = 0;
    }
    return text;
}

/* digits [. digits] [e [sign] digits] [spaces] unit; false when the text does not begin so. */
static bool scan_number(const char *text, struct number *number)
{
    *number = (struct number){.exact = true};
    unsigned zeros = 0, count = 0;
    if (!is_digit(*text))
        return false;
    text = scan_digits(text, false, &zeros, &count, number);
    if (*text == '.') {
        if (!is_digit(text[1]))
            return false;
        text = scan_digits(text + 1, true, &zeros, &count, number);
    }
    number->exponent += zeros < EXPONENT_MAX ? (int)zeros : EXPONENT_MAX;
    if (*text == 'e' || *text == 'E') {
        const char *rest = text + 1;
        bool negative = *rest == '-';
        if (*rest == '-' || *rest == '+')
            rest++;
        if (!is_digit(*rest))
            return false;
        int exponent = 0;
        for (; is_digit(*rest); rest++) {
            if (exponent < EXPONENT_MAX)
                exponent = exponent * 10 + (*rest - '0');
        }
        number->exponent += negative ? -exponent : exponent;
        text = rest;
    }
    const char *unit = text + strspn(text, " ");
    number->unit = *unit != '\0' ? unit : text; /* spaces only before a unit */
    return true;
}

/* number * factor as a whole number below 2^63; NULL, or what is wrong with it. */
static const char *whole(const struct number *number, uint64_t factor, uint64_t *value)
{
    if (!number->exact)
        return "has too many digits";
    unsigned __int128 product = number->digits * factor;
    int exponent = number->exponent;
    for (; product != 0 && exponent < 0; exponent++) {
        if (product % 10 != 0)
            return "is not whole";
        product /= 10;
    }
    for (; product >> 63 == 0 && product != 0 && exponent > 0; exponent--)
        product *= 10;
    if (product >> 63 != 0)
        return "is not below 2^63";
    *value = (uint64_t)product;
    return NULL;
}

static enum cm_status parse_whole(const char *text, const struct unit *units, const char *kind,
                                  const char *right, uint64_t *value)
{
    struct number number;
    if (!scan_number(text, &number))
        return cm_error(CM_USAGE, "\"%.60s\" is not a %s; write %s", text, kind, right);
    for (; units->name != NULL; units++) {
        if (strcmp(units->name, number.unit) != 0)
            continue;
        const char *wrong = whole(&number, units->factor, value);
        if (wrong != NULL)
            return cm_error(CM_USAGE, "%s \"%.60s\" %s; write %s", kind, text, wrong, right);
        return CM_OK;
    }
    return cm_error(CM_USAGE, "%s \"%.60s\" has an unknown unit; write %s", kind, text, right);
}

enum cm_status cm_parse_size(const char *text, uint64_t *size_bytes)
{
    return parse_whole(text, size_units, "size",
                       "bytes with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, such as 64MiB",
                       size_bytes);
}

enum cm_status cm_parse_count(const char *text, uint64_t *count)
{
    return parse_whole(text, count_units, "count",
                       "a whole number with k, M, G or T (decimal), such as 4096 or 1e6", count);
}

/* The factor of a unit, 0 when there is none such. */
static double find_scale(const struct scale *scales, const char *name)
{
    while (scales->name != NULL && strcmp(scales->name, name) != 0)
        scales++;
    return scales->factor;
}

/* The text begins with a number as scan_number() found it, so strtod reads just that. */
static enum cm_status scaled(const char *text, double factor, const char *kind, const char *right,
                             double *value)
{
    if (factor == 0)
        return cm_error(CM_USAGE, "%s \"%.60s\" has an unknown unit; write %s", kind, text, right);
    /* Division keeps 5% and 12us the doubles nearest to what is written. */
    double number = strtod(text, NULL);
    number = factor < 1 ? number / rint(1 / factor) : number * factor;
    if (!isfinite(number))
        return cm_error(CM_USAGE, "%s \"%.60s\" is too large", kind, text);
    *value = number;
    return CM_OK;
}

enum cm_status cm_parse_time(const char *text, double *seconds)
{
    static const char right[] = "a number with ns, us, ms, s, m (minutes) or h, such as 1.5ms";
    struct number number;
    if (!scan_number(text, &number))
        return cm_error(CM_USAGE, "\"%.60s\" is not a time; write %s", text, right);
    return scaled(text, find_scale(time_units, number.unit), "time", right, seconds);
}

enum cm_status cm_parse_real(const char *text, double *value)
{
    static const char right[] = "a number or a percentage, such as 0.05 or 5%";
    struct number number;
    if (!scan_number(text, &number))
        return cm_error(CM_USAGE, "\"%.60s\" is not a number; write %s", text, right);
    return scaled(text, find_scale(real_units, number.unit), "number", right, value);
}

enum cm_status cm_parse_rate(const char *text, double *bytes_per_s)
{
    static const char right[] =
        "a number with B/s, kB/s, MB/s, GB/s, TB/s, MiB/s, or Gb/s for bits, such as 3GB/s";
    struct number number;
    if (!scan_number(text, &number))
        return cm_error(CM_USAGE, "\"%.60s\" is not a rate; write %s", text, right);
    double factor = *number.unit == '\0' ? 1 : 0;
    for (const struct scale *prefix = rate_prefixes; prefix->name != NULL && factor == 0;
         prefix++) {
        size_t length = strlen(prefix->name);
        if (strncmp(number.unit, prefix->name, length) == 0)
            factor = prefix->factor * find_scale(rate_units, number.unit + length);
    }
    return scaled(text, factor, "rate", right, bytes_per_s);
}
