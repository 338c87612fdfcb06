/* Clusters, read. */
#include "host/project/cluster.h"

#include <stdio.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/suite.h"

#define FIELD(name) offsetof(struct cm_cluster, name)
#define TEXT(field, text)                                                                          \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_TEXT, .offset = FIELD(field),                            \
        .capacity = sizeof((struct cm_cluster *)0)->field, .fallback = "", .help = (text),         \
        .no_list = true                                                                            \
    }

const struct cm_option cm_cluster_options[] = {
    TEXT(gpu, "of configs/gpus.ini"),
    {.name = "gpus",
     .type = CM_OPTION_COUNT,
     .offset = FIELD(gpus),
     .max = 1e8,
     .fallback = "0",
     .help = "how many there are; 0: as many as are asked for"},
    {.name = "domain",
     .type = CM_OPTION_COUNT,
     .offset = FIELD(domain),
     .max = 1 << 20,
     .fallback = "0",
     .help = "GPUs that NVLink joins; 0: the GPU's usual"},
    {.name = "network_rate",
     .type = CM_OPTION_REAL,
     .offset = FIELD(network_rate),
     .max = 1e15,
     .fallback = "0",
     .help = "B/s of a GPU's share of its node's cards; 0: the GPU's usual"},
    TEXT(source, "where this is from"),
    {.name = NULL},
};

static enum cm_status read_settings(const struct cm_section *section, struct cm_cluster *cluster)
{
    enum cm_status status = cm_option_defaults(cm_cluster_options, cluster);
    for (size_t i = 0; status == CM_OK && i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        const struct cm_option *option = cm_option_find(cm_cluster_options, setting->key);
        if (option == NULL)
            return cm_error(CM_USAGE, "%s: a cluster has no '%.60s'", setting->where, setting->key);
        status = cm_option_set(option, setting->value, setting->where, cluster);
    }
    return status;
}

static enum cm_status read_file(const char *path, const struct cm_gpu_catalogue *catalogue,
                                struct cm_cluster *cluster)
{
    struct cm_suite file = {.name = NULL};
    enum cm_status status = cm_suite_load(path, &file);
    const struct cm_section *section = NULL;
    if (status == CM_OK) {
        section = cm_suite_section(&file, "cluster");
        if (section == NULL)
            status = cm_error(CM_USAGE, "%s: no section [cluster]", path);
    }
    if (status == CM_OK)
        status = read_settings(section, cluster);
    if (status == CM_OK) {
        snprintf(cluster->name, sizeof cluster->name, "%.63s", file.name);
        cluster->spec = cm_gpu_find(catalogue, cluster->gpu);
        const struct cm_setting *setting = cm_section_setting(section, "gpu");
        if (cluster->spec == NULL)
            status = cm_error(CM_USAGE, "%s: GPU '%.40s' is not in configs/gpus.ini",
                              setting != NULL ? setting->where : section->where, cluster->gpu);
    }
    cm_suite_release(&file);
    return status;
}

enum cm_status cm_cluster_load(const char *name, const struct cm_gpu_catalogue *catalogue,
                               struct cm_cluster *cluster)
{
    char *path = NULL;
    struct cm_cluster made;
    memset(&made, 0, sizeof made);
    enum cm_status status = cm_config_find(name, "clusters/", &path);
    if (status == CM_OK && path != NULL) {
        status = read_file(path, catalogue, &made);
    } else if (status == CM_OK) {
        made.spec = cm_gpu_find(catalogue, name);
        snprintf(made.name, sizeof made.name, "%.63s", name);
        if (made.spec == NULL)
            status = cm_error(CM_USAGE,
                              "no cluster '%.60s' in configs/clusters and no such GPU in "
                              "configs/gpus.ini",
                              name);
    }
    cm_free(path);
    if (status == CM_OK)
        *cluster = made;
    return status;
}
