/* Clusters, read. */
#include "host/project/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/project.h"
#include "clustermark/suite.h"
#include "clustermark/units.h"

#define FIELD(name) offsetof(struct cm_cluster, name)
#define TEXT(field, text)                                                                          \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_TEXT, .offset = FIELD(field),                            \
        .capacity = sizeof((struct cm_cluster *)0)->field, .fallback = "", .help = (text),         \
        .no_list = true                                                                            \
    }

#define AMOUNT(field, text)                                                                        \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_REAL, .offset = FIELD(field), .max = 1e18,               \
        .fallback = "0", .help = (text)                                                            \
    }

#define SHARE(field, text)                                                                         \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_REAL, .offset = FIELD(field), .max = 1, .fallback = "0", \
        .help = (text)                                                                             \
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
    SHARE(host_spread, "standard deviation of what hosts take; 0: the calibration's"),
    SHARE(slow_by, "by which a slow host takes longer than others"),
    SHARE(slow_share, "of hosts that are slow"),
    TEXT(source, "where this is from"),
    TEXT(model, "that it is asked about where no other is named"),
    {.name = "job_gpus",
     .type = CM_OPTION_COUNT,
     .offset = FIELD(job_gpus),
     .max = 1e8,
     .fallback = "0",
     .help = "GPUs of one of several jobs; 0: all are one job"},
    TEXT(sizes, "GPUs that are answered where none are asked for"),
    AMOUNT(run_tokens, "tokens of a training run that is timed; 0: none"),
    AMOUNT(deal_usd, "USD for all GPUs; 0: see price"),
    AMOUNT(deal_years, "years that the money is for"),
    AMOUNT(delay_months, "months of them before a GPU is there"),
    {.name = NULL},
};

static enum cm_status set_key(const char *key, const char *value, const char *where,
                              struct cm_cluster *cluster)
{
    bool known = false;
    const struct cm_option *option = cm_option_find(cm_cluster_options, key);
    if (option != NULL)
        return cm_option_set(option, value, where, cluster);
    enum cm_status status = cm_assumption_set(cluster->assumptions, key, value, where, &known);
    if (!known)
        return cm_error(CM_USAGE, "%s: a cluster has no '%.60s'", where, key);
    return status;
}

static enum cm_status read_settings(const struct cm_section *section, struct cm_cluster *cluster)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        status = set_key(setting->key, setting->value, setting->where, cluster);
    }
    return status;
}

static enum cm_status set_words(const char *const *sets, size_t count, struct cm_cluster *cluster)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; status == CM_OK && i < count; i++) {
        char key[64];
        const char *equal = strchr(sets[i], '=');
        if (equal == NULL || equal == sets[i] || (size_t)(equal - sets[i]) >= sizeof key)
            return cm_error(CM_USAGE, "--set: '%.60s'; KEY=VALUE of a cluster, as pue=1.1",
                            sets[i]);
        snprintf(key, sizeof key, "%.*s", (int)(equal - sets[i]), sets[i]);
        if (strcmp(key, "gpu") == 0)
            return cm_error(CM_USAGE, "--set: another gpu is another cluster; see --cluster");
        status = set_key(key, equal + 1, "--set", cluster);
    }
    return status;
}

enum cm_status cm_cluster_next_size(const struct cm_cluster *cluster, const char **at,
                                    uint64_t *gpus)
{
    char text[32];
    const char *from = *at == NULL ? cluster->sizes : *at;
    from += strspn(from, ", ");
    size_t length = strcspn(from, ", ");
    *at = from + length;
    *gpus = 0;
    if (length == 0)
        return CM_OK;
    snprintf(text, sizeof text, "%.*s", (int)(length < 31 ? length : 31), from);
    enum cm_status status = cm_parse_count(text, gpus);
    if (status != CM_OK || *gpus == 0 || *gpus > 10000000)
        return cm_error(CM_USAGE, "cluster %s: sizes has '%s'; numbers of GPUs with commas",
                        cluster->name, text);
    return CM_OK;
}

static enum cm_status check_cluster(const struct cm_cluster *cluster)
{
    const char *at = NULL;
    uint64_t gpus = 1;
    enum cm_status status = cm_assumptions_check(cluster->assumptions, cluster->name);
    while (status == CM_OK && gpus != 0)
        status = cm_cluster_next_size(cluster, &at, &gpus);
    if (status != CM_OK)
        return status;
    if ((cluster->deal_usd > 0) != (cluster->deal_years > 0))
        return cm_error(CM_USAGE, "%s: deal_usd and deal_years go together", cluster->name);
    if (cluster->delay_months > 0 && !(cluster->deal_usd > 0))
        return cm_error(CM_USAGE,
                        "%s: delay_months are of a deal's time; give deal_usd, deal_years",
                        cluster->name);
    if (cluster->delay_months > 0 && cluster->delay_months >= cluster->deal_years * 12)
        return cm_error(CM_USAGE, "%s: delay_months %g leave nothing of the deal's %g years",
                        cluster->name, cluster->delay_months, cluster->deal_years);
    if (cluster->sizes[0] != '\0' && cluster->job_gpus == 0)
        return cm_error(CM_USAGE, "%s: sizes need job_gpus", cluster->name);
    return CM_OK;
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
    if (status == CM_OK && section != NULL)
        status = read_settings(section, cluster);
    if (status == CM_OK && section != NULL) {
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

enum cm_status cm_cluster_load(const char *name, const char *const *sets, size_t set_count,
                               const struct cm_gpu_catalogue *catalogue, struct cm_cluster *cluster)
{
    char *path = NULL;
    struct cm_cluster made;
    memset(&made, 0, sizeof made);
    cm_assumptions_usual(made.assumptions);
    enum cm_status status = cm_option_defaults(cm_cluster_options, &made);
    if (status == CM_OK)
        status = cm_config_find(name, "clusters/", &path);
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
        status = set_words(sets, set_count, &made);
    if (status == CM_OK)
        status = check_cluster(&made);
    if (status == CM_OK)
        *cluster = made;
    return status;
}

enum cm_status cm_project_cluster_summary(const char *name,
                                          const struct cm_gpu_catalogue *catalogue, char *text,
                                          size_t size)
{
    struct cm_cluster cluster;
    enum cm_status status = cm_cluster_load(name, NULL, 0, catalogue, &cluster);
    if (status != CM_OK)
        return status;
    const struct cm_gpu_spec *gpu = cluster.spec;
    double rate = cluster.network_rate > 0 ? cluster.network_rate : gpu->network_rate;
    uint64_t domain = cluster.domain > 0 ? cluster.domain : gpu->domain;
    const char *sizes = cluster.sizes;
    snprintf(text, size, "%s, %" PRIu64 " to a domain, %.0f Gb/s of each to others%s%s%s",
             gpu->name, domain, rate * 8 / 1e9, sizes[0] != '\0' ? "; " : "", sizes,
             sizes[0] != '\0' ? " of them" : "");
    return CM_OK;
}
