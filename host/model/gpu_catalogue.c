/* GPUs as their makers describe them, from configs/gpus.ini. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "clustermark/configs.h"
#include "clustermark/cost.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/suite.h"

static const char *const family_names[] = {"volta", "ampere", "hopper", "blackwell", NULL};
const char *const cm_precision_names[] = {"half", "fp8", "mxfp8", "nvfp4", NULL};
const char *const cm_software_names[] = {"fused", "unfused", "eager", "own", NULL};

#define FIELD(name) offsetof(struct cm_gpu_spec, name)
#define RATE(field, least, text)                                                                   \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_REAL, .offset = FIELD(field), .min = (least),            \
        .max = 1e20, .fallback = "0", .help = (text)                                               \
    }
#define TEXT(field, text)                                                                          \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_TEXT, .offset = FIELD(field),                            \
        .capacity = sizeof((struct cm_gpu_spec *)0)->field, .fallback = "", .help = (text),        \
        .no_list = true                                                                            \
    }

const struct cm_option cm_gpu_spec_options[] = {
    {.name = "family",
     .type = CM_OPTION_CHOICE,
     .offset = FIELD(family),
     .fallback = "hopper",
     .choices = family_names,
     .help = "architecture"},
    TEXT(names, "how others write it"),
    RATE(half, 0, "FLOP/s of dense bf16 and f16 products"),
    RATE(fp8, 0, "FLOP/s of dense fp8 products; 0: none"),
    RATE(fp4, 0, "FLOP/s of dense fp4 products; 0: none"),
    RATE(memory_rate, 0, "B/s of the memory"),
    RATE(memory, 0, "bytes of it"),
    RATE(nvlink_rate, 0, "B/s of one direction, to all GPUs in the domain"),
    RATE(network_rate, 0, "B/s of one direction, of a GPU's share of the network cards"),
    {.name = "domain",
     .type = CM_OPTION_COUNT,
     .offset = FIELD(domain),
     .max = 1 << 20,
     .fallback = "8",
     .help = "GPUs that NVLink joins"},
    RATE(power, 0, "W"),
    TEXT(source, "where these figures are from"),
    {.name = NULL},
};

static enum cm_status check_spec(const struct cm_section *section, const struct cm_gpu_spec *spec)
{
    const struct {
        const char *name;
        double value;
    } needed[] = {{"half", spec->half},
                  {"memory_rate", spec->memory_rate},
                  {"memory", spec->memory},
                  {"nvlink_rate", spec->nvlink_rate},
                  {"network_rate", spec->network_rate},
                  {"domain", (double)spec->domain},
                  {"power", spec->power}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!(needed[i].value > 0))
            return cm_error(CM_USAGE, "%s: [%.39s] has no %s", section->where, section->name,
                            needed[i].name);
    return CM_OK;
}

static enum cm_status read_spec(const struct cm_section *section, struct cm_gpu_spec *spec)
{
    if (strlen(section->name) >= sizeof spec->name)
        return cm_error(CM_USAGE, "%s: a GPU's name has at most %zu characters", section->where,
                        sizeof spec->name - 1);
    enum cm_status status = cm_option_defaults(cm_gpu_spec_options, spec);
    snprintf(spec->name, sizeof spec->name, "%s", section->name);
    for (size_t i = 0; status == CM_OK && i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        const struct cm_option *option = cm_option_find(cm_gpu_spec_options, setting->key);
        if (option == NULL)
            return cm_error(CM_USAGE, "%s: a GPU has no '%.60s'", setting->where, setting->key);
        status = cm_option_set(option, setting->value, setting->where, spec);
    }
    return status == CM_OK ? check_spec(section, spec) : status;
}

static enum cm_status read_file(const char *path, struct cm_gpu_catalogue *catalogue)
{
    struct cm_suite file = {.name = NULL};
    enum cm_status status = cm_suite_load(path, &file);
    for (size_t i = 0; status == CM_OK && i < file.section_count; i++) {
        if (cm_grow(&catalogue->specs, &catalogue->capacity, catalogue->count + 1,
                    sizeof *catalogue->specs) != 0)
            status = CM_NO_MEMORY;
        else
            status = read_spec(&file.sections[i], &catalogue->specs[catalogue->count]);
        if (status == CM_OK)
            catalogue->count++;
    }
    cm_suite_release(&file);
    return status;
}

enum cm_status cm_gpu_catalogue_load(struct cm_gpu_catalogue *catalogue)
{
    char *path = NULL;
    struct cm_gpu_catalogue made = {.specs = NULL};
    enum cm_status status = cm_config_find("gpus", "", &path);
    if (status == CM_OK && path == NULL)
        status = cm_error(CM_USAGE, "there is no configs/gpus.ini; it comes with the program");
    if (status == CM_OK)
        status = read_file(path, &made);
    cm_free(path);
    if (status == CM_OK)
        *catalogue = made;
    else
        cm_gpu_catalogue_release(&made);
    return status;
}

void cm_gpu_catalogue_release(struct cm_gpu_catalogue *catalogue)
{
    cm_free(catalogue->specs);
    memset(catalogue, 0, sizeof *catalogue);
}

/* How long the match is: the whole of `known`, at the end of a word of `name`; 0: none. "H100" is
 * part of "H100-SXM-64GB" but not of "H1000". */
static size_t match(const char *known, size_t length, const char *name, size_t name_length)
{
    if (length == 0 || length > name_length || strncasecmp(known, name, length) != 0)
        return 0;
    return length == name_length || strchr("-_ /", name[length]) != NULL ? length : 0;
}

static size_t best_match(const struct cm_gpu_spec *spec, const char *name, size_t length)
{
    size_t best = match(spec->name, strlen(spec->name), name, length);
    for (const char *word = spec->names; *word != '\0';) {
        word += strspn(word, ", ");
        size_t size = strcspn(word, ", "), found = match(word, size, name, length);
        best = found > best ? found : best;
        word += size;
    }
    return best;
}

const struct cm_gpu_spec *cm_gpu_find(const struct cm_gpu_catalogue *catalogue, const char *name)
{
    const struct cm_gpu_spec *found = NULL;
    size_t length = strcspn(name, "("), best = 0;
    while (length > 0 && name[length - 1] == ' ')
        length--;
    for (size_t i = 0; i < catalogue->count; i++) {
        size_t matched = best_match(&catalogue->specs[i], name, length);
        if (matched > best) {
            best = matched;
            found = &catalogue->specs[i];
        }
    }
    /* A card of another form is another GPU. */
    return found != NULL && strcasestr(name + best, "PCI") != NULL ? NULL : found;
}
