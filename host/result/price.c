/* What a machine costs, and what its work costs then. */
#include "host/result/price.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/suite.h"
#include "host/result/record.h"

static const char *skip_spaces(const char *text)
{
    return text + strspn(text, " \t");
}

/* Up to a comma, without the spaces around. */
static const char *take_field(const char *text, char *field, size_t size)
{
    text = skip_spaces(text);
    size_t length = strcspn(text, ","), kept = length;
    while (kept > 0 && isspace((unsigned char)text[kept - 1]))
        kept--;
    snprintf(field, size, "%.*s", (int)(kept < size ? kept : size - 1), text);
    return text + length + (text[length] == ',');
}

static enum cm_status parse_amount(const char *text, const char *where, struct cm_price *price)
{
    char *end;
    double amount = strtod(text, &end);
    if (end == text || !(amount > 0) || !(amount < 1e9))
        return cm_error(CM_USAGE, "%s: '%.40s' is no price; give it like 55.04USD/h", where, text);
    const char *word = skip_spaces(end);
    size_t length = strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    const char *rest = skip_spaces(word + length);
    bool hourly = rest[0] == '\0' || strcmp(rest, "/h") == 0 || strcmp(rest, "/hour") == 0;
    if ((length != 0 && length != 3) || !hourly)
        return cm_error(CM_USAGE,
                        "%s: '%.40s' is no price per hour; give it like 55.04USD/h, the currency "
                        "in three capitals",
                        where, text);
    snprintf(price->currency, sizeof price->currency, "%.3s", length > 0 ? word : "USD");
    price->per_hour = amount;
    return CM_OK;
}

enum cm_status cm_price_parse(const char *text, const char *where, struct cm_price *price)
{
    struct cm_price made = {.per_hour = 0};
    char amount[64];
    const char *rest = take_field(text, amount, sizeof amount);
    enum cm_status status = parse_amount(amount, where, &made);
    if (status != CM_OK)
        return status;
    rest = take_field(rest, made.date, sizeof made.date);
    snprintf(made.source, sizeof made.source, "%.199s",
             rest[0] != '\0' ? skip_spaces(rest) : "--price");
    *price = made;
    return CM_OK;
}

static const char *setting(const struct cm_section *section, const char *key)
{
    const struct cm_setting *found = cm_section_setting(section, key);
    return found != NULL ? found->value : "";
}

static enum cm_status price_of(const struct cm_section *section, struct cm_price *price)
{
    struct cm_price made = {.per_hour = 0};
    char amount[64];
    snprintf(amount, sizeof amount, "%.40s %.8s", setting(section, "price"),
             setting(section, "currency"));
    enum cm_status status = parse_amount(amount, section->where, &made);
    if (status != CM_OK)
        return status;
    unsigned long devices = strtoul(setting(section, "gpus"), NULL, 10);
    made.devices = devices < 100000 ? (unsigned)devices : 0;
    snprintf(made.instance, sizeof made.instance, "%.63s", section->name);
    snprintf(made.date, sizeof made.date, "%.31s", setting(section, "date"));
    snprintf(made.source, sizeof made.source, "%.140s%s%.50s", setting(section, "source"),
             setting(section, "region")[0] != '\0' ? ", " : "", setting(section, "region"));
    *price = made;
    return CM_OK;
}

enum cm_status cm_price_find(const char *instance, const char *where, struct cm_price *price)
{
    char *path = NULL;
    struct cm_suite table = {.name = NULL};
    enum cm_status status = cm_config_find("instances", "", &path);
    if (status == CM_OK && path == NULL)
        status = cm_error(CM_USAGE, "%s: there is no configs/instances.ini; use --price", where);
    if (status == CM_OK)
        status = cm_suite_load(path, &table);
    if (status == CM_OK) {
        const struct cm_section *section = cm_suite_section(&table, instance);
        if (section != NULL)
            status = price_of(section, price);
        else
            status = cm_error(CM_USAGE, "%s: no instance '%.60s' in %s; use --price", where,
                              instance, path);
    }
    cm_suite_release(&table);
    cm_free(path);
    return status;
}

/* Work that is paid for. */
static const struct work {
    const char *workload, *metric, *per; /* "PFLOP" */
    double size;                         /* of it in units of the metric times seconds */
    bool each_rank;                      /* the metric is one rank's */
    const char *op;                      /* of a collective; NULL for any */
} works[] = {
    {"gemm", "flop_rate", "PFLOP", 1e15, true, NULL},
    {"gemm", "flop_rate_sustained", "PFLOP", 1e15, true, NULL},
    {"collective", "algbw", "TB", 1e12, false, "all_reduce"},
    {"trainstep", "tokens_per_s", "Mtoken", 1e6, false, NULL},
};

static const json_t *case_of(const struct cm_set *set, const char *name)
{
    size_t index;
    const json_t *item;
    json_array_foreach(json_object_get(set->files[0].result, "cases"), index, item)
    {
        if (strcmp(cm_get_text(item, "name"), name) == 0)
            return item;
    }
    return NULL;
}

static bool counts(const struct work *work, const struct cm_set *set,
                   const struct cm_series *series)
{
    if (series->of_sweep || strcmp(series->workload, work->workload) != 0 ||
        strcmp(series->metric, work->metric) != 0)
        return false;
    const json_t *params = json_object_get(case_of(set, series->subject), "params");
    return work->op == NULL || strcmp(cm_get_text(params, "op"), work->op) == 0;
}

enum cm_status cm_price_add(struct cm_set *set, const struct cm_price *price)
{
    double ranks = cm_get_number(set->files[0].result, "ranks");
    double machines = price->devices > 0 ? ceil(ranks / price->devices) : 1;
    size_t count = set->series_count;
    for (size_t i = 0; i < count; i++) {
        for (size_t w = 0; w < sizeof works / sizeof *works; w++) {
            const struct work *work = &works[w];
            if (!counts(work, set, &set->series[i]))
                continue;
            char name[96], unit[32];
            double per_second = price->per_hour * machines / 3600;
            snprintf(name, sizeof name, "%s.cost", work->metric);
            snprintf(unit, sizeof unit, "%s/%s", price->currency, work->per);
            enum cm_status status = cm_set_derive(
                set, i, name, unit, per_second * work->size / (work->each_rank ? ranks : 1));
            if (status != CM_OK)
                return status;
        }
    }
    return CM_OK;
}
