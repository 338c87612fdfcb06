/* Mixtures of experts, read. */
#include "host/project/mixtures.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/suite.h"

#define NUMBER(field, text)                                                                        \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_REAL, .offset = offsetof(struct cm_mixture, field),      \
        .max = 1e12, .fallback = "0", .help = (text)                                               \
    }

static const struct cm_option options[] = {
    NUMBER(experts, "of a layer"),
    NUMBER(top_k, "experts of a token"),
    NUMBER(shared, "experts that every token passes"),
    NUMBER(ffn, "width of an expert"),
    NUMBER(kv_heads, "key and value heads"),
    NUMBER(head_size, "width of a head"),
    NUMBER(projection, "parameters of a layer's attention products; 0: by its heads"),
    {.name = "source",
     .type = CM_OPTION_TEXT,
     .offset = offsetof(struct cm_mixture, source),
     .capacity = sizeof((struct cm_mixture *)0)->source,
     .fallback = "",
     .help = "where these figures are from",
     .no_list = true},
    {.name = NULL},
};

static enum cm_status read_mixture(const struct cm_section *section, struct cm_mixture *mixture)
{
    enum cm_status status = cm_option_defaults(options, mixture);
    snprintf(mixture->name, sizeof mixture->name, "%.63s", section->name);
    for (size_t i = 0; status == CM_OK && i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        const struct cm_option *option = cm_option_find(options, setting->key);
        if (option == NULL)
            return cm_error(CM_USAGE, "%s: a mixture has no '%.60s'", setting->where, setting->key);
        status = cm_option_set(option, setting->value, setting->where, mixture);
    }
    if (status == CM_OK && !(mixture->experts >= 1 && mixture->top_k >= 1 && mixture->ffn > 0 &&
                             mixture->kv_heads > 0 && mixture->head_size > 0))
        status = cm_error(CM_USAGE, "%s: [%.60s] needs experts, top_k, ffn, kv_heads and head_size",
                          section->where, section->name);
    return status;
}

enum cm_status cm_mixtures_load(struct cm_mixtures *mixtures)
{
    char *path = NULL;
    struct cm_suite file = {.name = NULL};
    struct cm_mixtures made = {.items = NULL};
    enum cm_status status = cm_config_find("mixtures", "", &path);
    if (status == CM_OK && path == NULL)
        status = cm_error(CM_USAGE, "there is no configs/mixtures.ini; it comes with the program");
    if (status == CM_OK)
        status = cm_suite_load(path, &file);
    for (size_t i = 0; status == CM_OK && i < file.section_count; i++) {
        if (cm_grow(&made.items, &made.capacity, made.count + 1, sizeof *made.items) != 0)
            status = CM_NO_MEMORY;
        else
            status = read_mixture(&file.sections[i], &made.items[made.count++]);
    }
    cm_suite_release(&file);
    cm_free(path);
    if (status == CM_OK)
        *mixtures = made;
    else
        cm_mixtures_release(&made);
    return status;
}

void cm_mixtures_release(struct cm_mixtures *mixtures)
{
    cm_free(mixtures->items);
    memset(mixtures, 0, sizeof *mixtures);
}

const struct cm_mixture *cm_mixture_find(const struct cm_mixtures *mixtures, const char *name)
{
    for (size_t i = 0; i < mixtures->count; i++)
        if (strcmp(mixtures->items[i].name, name) == 0)
            return &mixtures->items[i];
    return NULL;
}
