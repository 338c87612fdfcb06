/* Transformers: read, checked, counted. */
#include "clustermark/transformer.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/suite.h"

/* Kernels keep an expert's number in 8 bits, and a row's choices in registers. */
#define EXPERTS_MAX 256
#define TOP_K_MAX   8
/* Rows of activations are read in pieces of 16 bytes. */
#define WIDTH_STEP    8
#define HEAD_SIZE_MAX 256
#define TABLE_STEP    128

static const char *const norm_names[] = {"rms", "layer", NULL};
static const char *const activation_names[] = {"swiglu", "gelu", NULL};
static const char *const position_names[] = {"rope", "learned", NULL};

#define FIELD(name) offsetof(struct cm_transformer, name)
#define COUNT(field, most, default_value, text)                                                    \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_COUNT, .offset = FIELD(field), .max = (most),            \
        .fallback = (default_value), .help = (text)                                                \
    }
#define REAL(field, least, most, default_value, text)                                              \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_REAL, .offset = FIELD(field), .min = (least),            \
        .max = (most), .fallback = (default_value), .help = (text)                                 \
    }

const struct cm_option cm_transformer_options[] = {
    COUNT(layers, 1e5, "0", "blocks"),
    COUNT(hidden, 1 << 20, "0", "width of the residual stream"),
    COUNT(heads, 1 << 16, "0", "query heads"),
    COUNT(kv_heads, 1 << 16, "0", "key and value heads; 0: as many as query heads"),
    COUNT(head_size, HEAD_SIZE_MAX, "0", "width of a head; 0: hidden / heads"),
    COUNT(ffn, 1 << 24, "0", "width of the feed-forward layer, of one expert's"),
    COUNT(vocabulary, 1 << 30, "0", "tokens that exist"),
    COUNT(sequence, 1 << 24, "0", "tokens of a sequence"),
    {.name = "tied",
     .type = CM_OPTION_BOOL,
     .offset = FIELD(tied),
     .fallback = "no",
     .help = "the head's matrix is the embedding's"},
    {.name = "norm",
     .type = CM_OPTION_CHOICE,
     .offset = FIELD(norm),
     .fallback = "rms",
     .choices = norm_names,
     .help = "before attention, feed-forward layer and head"},
    {.name = "activation",
     .type = CM_OPTION_CHOICE,
     .offset = FIELD(activation),
     .fallback = "swiglu",
     .choices = activation_names,
     .help = "of the feed-forward layer"},
    {.name = "positions",
     .type = CM_OPTION_CHOICE,
     .offset = FIELD(positions),
     .fallback = "rope",
     .choices = position_names,
     .help = "how a token learns where it stands"},
    REAL(rope_base, 1, 1e12, "10000", "of rotary positions"),
    REAL(norm_epsilon, 1e-12, 0.1, "1e-5", "added to the variance"),
    COUNT(experts, EXPERTS_MAX, "0", "of a block; 0: a dense feed-forward layer"),
    COUNT(top_k, TOP_K_MAX, "0", "experts of a token"),
    REAL(capacity_factor, 0, EXPERTS_MAX, "0",
         "places of an expert, as a multiple of its fair share; 0: none is ever full"),
    {.name = NULL},
};

struct fault {
    const char *key; /* the option that is to blame, NULL: there is none */
    char text[160];
};

#define FAULT(name, ...)                                                                           \
    do {                                                                                           \
        fault->key = (name);                                                                       \
        snprintf(fault->text, sizeof fault->text, __VA_ARGS__);                                    \
        return;                                                                                    \
    } while (0)

static void check_sizes(const struct cm_transformer *model, struct fault *fault)
{
    const struct {
        const char *key;
        uint64_t value;
    } needed[] = {{"layers", model->layers},         {"hidden", model->hidden},
                  {"heads", model->heads},           {"kv_heads", model->kv_heads},
                  {"head_size", model->head_size},   {"ffn", model->ffn},
                  {"vocabulary", model->vocabulary}, {"sequence", model->sequence}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        const struct cm_option *option = cm_option_find(cm_transformer_options, needed[i].key);
        if (needed[i].value == 0)
            FAULT(needed[i].key, "%s is missing or 0", needed[i].key);
        if ((double)needed[i].value > option->max)
            FAULT(needed[i].key, "%s is %" PRIu64 "; at most %.0f", needed[i].key, needed[i].value,
                  option->max);
    }
    if (model->hidden % WIDTH_STEP != 0)
        FAULT("hidden", "hidden is %" PRIu64 ", no multiple of %d", model->hidden, WIDTH_STEP);
    if (model->ffn % WIDTH_STEP != 0)
        FAULT("ffn", "ffn is %" PRIu64 ", no multiple of %d", model->ffn, WIDTH_STEP);
    if (model->head_size % WIDTH_STEP != 0)
        FAULT("head_size", "head_size is %" PRIu64 ", no multiple of %d", model->head_size,
              WIDTH_STEP);
    if (model->heads % model->kv_heads != 0)
        FAULT("kv_heads", "%" PRIu64 " kv_heads do not divide %" PRIu64 " heads", model->kv_heads,
              model->heads);
}

static void check_experts(const struct cm_transformer *model, struct fault *fault)
{
    if (model->experts > EXPERTS_MAX)
        FAULT("experts", "experts is %" PRIu64 "; at most %d", model->experts, EXPERTS_MAX);
    if (model->experts == 0 && model->top_k != 0)
        FAULT("top_k", "top_k without experts");
    if (model->experts == 0 && model->capacity_factor != 0)
        FAULT("capacity_factor", "capacity_factor without experts");
    if (model->experts != 0 && model->top_k == 0)
        FAULT("experts", "experts without top_k; say how many of them a token has");
    if (model->top_k > model->experts)
        FAULT("top_k", "top_k is %" PRIu64 " of %" PRIu64 " experts", model->top_k, model->experts);
    if (model->top_k > TOP_K_MAX)
        FAULT("top_k", "top_k is %" PRIu64 "; at most %d", model->top_k, TOP_K_MAX);
    if (!(model->capacity_factor >= 0 && model->capacity_factor <= EXPERTS_MAX))
        FAULT("capacity_factor", "capacity_factor is %g; 0 to %d", model->capacity_factor,
              EXPERTS_MAX);
}

static void check_kinds(const struct cm_transformer *model, struct fault *fault)
{
    if (model->norm != CM_NORM_RMS && model->norm != CM_NORM_LAYER)
        FAULT("norm", "norm is none of rms, layer");
    if (model->activation != CM_ACTIVATION_SWIGLU && model->activation != CM_ACTIVATION_GELU)
        FAULT("activation", "activation is none of swiglu, gelu");
    if (model->positions != CM_POSITION_ROPE && model->positions != CM_POSITION_LEARNED)
        FAULT("positions", "positions is none of rope, learned");
    if (!(model->rope_base >= 1 && model->rope_base <= 1e12))
        FAULT("rope_base", "rope_base is %g; 1 to 1e12", model->rope_base);
    if (!(model->norm_epsilon > 0 && model->norm_epsilon <= 0.1))
        FAULT("norm_epsilon", "norm_epsilon is %g; above 0, at most 0.1", model->norm_epsilon);
}

static void find_fault(const struct cm_transformer *model, struct fault *fault)
{
    fault->key = NULL;
    check_sizes(model, fault);
    if (fault->key == NULL)
        check_experts(model, fault);
    if (fault->key == NULL)
        check_kinds(model, fault);
}

enum cm_status cm_transformer_validate(const struct cm_transformer *transformer, const char *where)
{
    struct fault fault;
    find_fault(transformer, &fault);
    return fault.key == NULL ? CM_OK : cm_error(CM_USAGE, "%s: %s", where, fault.text);
}

/* It stands in labels, results and file names. */
static enum cm_status take_name(const struct cm_suite *file, struct cm_transformer *model)
{
    size_t length = strlen(file->name);
    if (length >= sizeof model->name)
        return cm_error(CM_USAGE, "%s: a model's name has at most %zu characters", file->path,
                        sizeof model->name - 1);
    for (size_t i = 0; i < length; i++)
        if (file->name[i] <= ' ' || file->name[i] > '~')
            return cm_error(CM_USAGE, "%s: a model's name has letters, digits and marks only",
                            file->path);
    memcpy(model->name, file->name, length + 1);
    return CM_OK;
}

static enum cm_status check_sections(const struct cm_suite *file)
{
    if (file->global.setting_count > 0)
        return cm_error(CM_USAGE, "%s: a model has no [global]; write [model]",
                        file->global.settings[0].where);
    for (size_t i = 0; i < file->section_count; i++)
        if (strcmp(file->sections[i].name, "model") != 0)
            return cm_error(CM_USAGE, "%s: section [%.60s] in a model's file; only [model] is read",
                            file->sections[i].where, file->sections[i].name);
    return CM_OK;
}

static enum cm_status take_settings(const struct cm_section *section, struct cm_transformer *model)
{
    enum cm_status status = cm_option_defaults(cm_transformer_options, model);
    for (size_t i = 0; status == CM_OK && i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        const struct cm_option *option = cm_option_find(cm_transformer_options, setting->key);
        const char *nearest = cm_option_nearest(cm_transformer_options, setting->key);
        if (option == NULL)
            return cm_error(CM_USAGE, "%s: a model has no '%.60s'%s%s%s", setting->where,
                            setting->key, nearest != NULL ? "; did you mean '" : "",
                            nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
        status = cm_option_set(option, setting->value, setting->where, model);
    }
    return status;
}

/* What a file leaves to us. */
static enum cm_status fill_in(const struct cm_section *section, struct cm_transformer *model)
{
    if (model->kv_heads == 0)
        model->kv_heads = model->heads;
    if (model->head_size != 0 || model->heads == 0)
        return CM_OK;
    if (model->hidden % model->heads != 0)
        return cm_error(CM_USAGE,
                        "%s: %" PRIu64 " heads do not divide hidden, %" PRIu64 "; give head_size",
                        cm_section_setting(section, "heads")->where, model->heads, model->hidden);
    model->head_size = model->hidden / model->heads;
    return CM_OK;
}

static enum cm_status check_file(const struct cm_section *section,
                                 const struct cm_transformer *model)
{
    struct fault fault;
    find_fault(model, &fault);
    if (fault.key == NULL)
        return CM_OK;
    const struct cm_setting *setting = cm_section_setting(section, fault.key);
    return cm_error(CM_USAGE, "%s: %s", setting != NULL ? setting->where : section->where,
                    fault.text);
}

static enum cm_status cut(const char *path, uint64_t layers, struct cm_transformer *model)
{
    model->real_layers = model->layers;
    if (layers > model->layers)
        return cm_error(CM_USAGE,
                        "%s: %s has %" PRIu64 " layers; %" PRIu64 " of them were asked for", path,
                        model->name, model->layers, layers);
    if (layers != 0)
        model->layers = layers;
    return CM_OK;
}

enum cm_status cm_transformer_load(const char *name, uint64_t layers,
                                   struct cm_transformer *transformer)
{
    char *path;
    struct cm_suite file;
    struct cm_transformer model;
    memset(&model, 0, sizeof model);
    enum cm_status status = cm_config_find(name, "models/", &path);
    if (status != CM_OK)
        return status;
    if (path == NULL)
        return cm_error(CM_USAGE,
                        "no model '%.60s': not a file, not in ./configs/models, not one of the "
                        "program's own",
                        name);
    status = cm_suite_load(path, &file);
    if (status != CM_OK)
        goto free_path;
    status = check_sections(&file);
    if (status == CM_OK)
        status = take_name(&file, &model);
    if (status == CM_OK)
        status = take_settings(&file.sections[0], &model);
    if (status == CM_OK)
        status = fill_in(&file.sections[0], &model);
    if (status == CM_OK)
        status = check_file(&file.sections[0], &model);
    if (status == CM_OK)
        status = cut(path, layers, &model);
    if (status == CM_OK)
        *transformer = model;
    cm_suite_release(&file);
free_path:
    cm_free(path);
    return status;
}

uint64_t cm_padded_vocabulary(const struct cm_transformer *transformer, unsigned parts)
{
    uint64_t step = (uint64_t)TABLE_STEP * parts;
    return (transformer->vocabulary + step - 1) / step * step;
}

void cm_transformer_count(const struct cm_transformer *transformer,
                          struct cm_parameter_counts *counts)
{
    double hidden = (double)transformer->hidden, layers = (double)transformer->layers;
    double head_size = (double)transformer->head_size;
    double table = (double)transformer->vocabulary * hidden;
    double norm = transformer->norm == CM_NORM_LAYER ? 2 * hidden : hidden;
    double attention =
        hidden * head_size * 2 * (double)(transformer->heads + transformer->kv_heads);
    double expert = hidden * (double)transformer->ffn *
                    (transformer->activation == CM_ACTIVATION_SWIGLU ? 3 : 2);
    double router = hidden * (double)transformer->experts;
    double all = transformer->experts == 0 ? 1 : (double)transformer->experts;
    double used = transformer->experts == 0 ? 1 : (double)transformer->top_k;

    counts->embedding = table;
    if (transformer->positions == CM_POSITION_LEARNED)
        counts->embedding += (double)transformer->sequence * hidden;
    counts->layer = 2 * norm + attention + router + all * expert;
    counts->head = norm + (transformer->tied ? 0 : table);
    counts->total = counts->embedding + layers * counts->layer + counts->head;
    counts->active = counts->total - layers * (all - used) * expert;
    counts->matmul = layers * (attention + router + used * expert) + table;
}

void cm_transformer_flops(const struct cm_transformer *transformer, struct cm_token_flops *flops)
{
    struct cm_parameter_counts counts;
    cm_transformer_count(transformer, &counts);
    flops->matmul = 6 * counts.matmul;
    flops->attention_full = 12 * (double)transformer->layers * (double)transformer->heads *
                            (double)transformer->head_size * (double)transformer->sequence;
    flops->full = flops->matmul + flops->attention_full;
    flops->causal = flops->matmul + flops->attention_full / 2;
}

void cm_transformer_label(const struct cm_transformer *transformer, char *label, size_t size)
{
    if (transformer->real_layers > transformer->layers)
        snprintf(label, size, "%s, %" PRIu64 " of %" PRIu64 " layers", transformer->name,
                 transformer->layers, transformer->real_layers);
    else
        snprintf(label, size, "%s", transformer->name);
}
