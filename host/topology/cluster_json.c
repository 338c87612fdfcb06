/* The cluster's map as JSON, folded: its size follows the kinds of nodes, not their number. */
#include <string.h>

#include "clustermark/json.h"
#include "host/topology/cluster.h"

#define ODD_MAX 256 /* rows */

static void set(enum cm_status *status, json_t *object, const char *key, json_t *value)
{
    if (*status == CM_OK)
        *status = cm_json_set(object, key, value);
    else
        json_decref(value);
}

static void add(enum cm_status *status, json_t *array, json_t *value)
{
    if (*status == CM_OK)
        *status = cm_json_append(array, value);
    else
        json_decref(value);
}

/* Names from a system may be no UTF-8; ours are printable. */
static json_t *text_json(struct cm_str *text)
{
    json_t *value = cm_str_status(text) == CM_OK ? json_string(cm_str_text(text)) : NULL;
    cm_str_release(text);
    return value;
}

static json_t *known(double value)
{
    return value > 0 ? cm_json_real(value) : json_null();
}

static json_t *word(const char *text)
{
    return text[0] != '\0' ? json_string(text) : json_null();
}

static json_t *kind_json(const struct cm_cluster_map *cluster, uint32_t index, bool show_hosts,
                         enum cm_status *status)
{
    const struct cm_cluster_kind *kind = &cluster->kinds[index];
    const struct cm_node *node = &kind->node;
    struct cm_str names = CM_STR_INIT;
    json_t *object = json_object(), *gpus = json_array(), *nics = json_array();
    cm_cluster_names(cluster, index, show_hosts, &names);
    set(status, object, "count", json_integer(kind->count));
    set(status, object, "nodes", text_json(&names));
    for (unsigned i = 0; i < node->gpu_models; i++)
        add(status, gpus,
            json_pack("{s:s, s:i}", "model", node->gpus[i].model, "count",
                      (int)node->gpus[i].count));
    set(status, object, "gpus", gpus);
    set(status, object, "nvlinks", json_integer(node->nvlinks));
    set(status, object, "nvswitches", json_integer(node->nvswitches));
    for (unsigned i = 0; i < node->nic_count && i < CM_NODE_NICS_MAX; i++)
        add(status, nics,
            json_pack("{s:o, s:s, s:o, s:i}", "name", word(node->nics[i].name), "model",
                      node->nics[i].model, "rate_bytes_per_s", known(node->nics[i].rate), "width",
                      (int)node->nics[i].width));
    set(status, object, "nics", nics);
    set(status, object, "processor", word(node->processor));
    set(status, object, "packages", json_integer(node->packages));
    set(status, object, "cores", json_integer(node->cores));
    set(status, object, "numa_nodes", json_integer(node->numa_nodes));
    set(status, object, "driver", word(node->driver));
    set(status, object, "kernel", word(node->kernel));
    set(status, object, "digest", word(node->digest));
    return object;
}

static void put_odd(const struct cm_cluster_map *cluster, bool show_hosts, json_t *object,
                    enum cm_status *status)
{
    uint32_t measure = cm_cluster_measure(cluster);
    uint64_t memory = 0;
    char buffer[64];
    json_t *rows = json_array();
    if (*status == CM_OK)
        *status = cm_cluster_memory(cluster, &memory);
    for (size_t i = 0; i < cluster->count && json_array_size(rows) < ODD_MAX; i++) {
        const struct cm_cluster_node *node = &cluster->nodes[i];
        struct cm_str text = CM_STR_INIT;
        if (node->kind != measure && node->kind != CM_KIND_UNKNOWN)
            cm_node_differences(&cluster->kinds[node->kind].node, &cluster->kinds[measure].node,
                                cluster->kinds[measure].count, &text);
        if (cm_cluster_memory_odd(node, memory)) {
            cm_str_add(&text, text.length > 0 ? "; " : "");
            cm_cluster_write_memories(node->memory_bytes, memory, &text);
        }
        if (text.length > 0)
            add(status, rows,
                json_pack("{s:s, s:i, s:o}", "node", cm_cluster_name(node, show_hosts, buffer),
                          "first_rank", (int)node->first_rank, "differs", text_json(&text)));
        cm_str_release(&text);
    }
    set(status, object, "odd", rows);
}

static void put_rails(const struct cm_cluster_map *cluster, json_t *object, enum cm_status *status)
{
    struct cm_rail rails[CM_NODE_NICS_MAX];
    unsigned count = cm_cluster_rails(cluster, rails);
    json_t *rows = json_array();
    for (unsigned k = 0; k < count; k++)
        add(status, rows,
            json_pack("{s:o, s:i, s:o, s:o}", "name", word(rails[k].name), "nodes",
                      (int)rails[k].nodes, "slowest_bytes_per_s", known(rails[k].slowest),
                      "fastest_bytes_per_s", known(rails[k].fastest)));
    set(status, object, "rails", rows);
}

static void put_lines(const struct cm_cluster_map *cluster, bool show_hosts, json_t *object,
                      enum cm_status *status)
{
    struct cm_str text = CM_STR_INIT;
    json_t *lines = json_array();
    cm_cluster_text(cluster, show_hosts, &text);
    if (*status == CM_OK)
        *status = cm_str_status(&text);
    for (const char *at = cm_str_text(&text); *at != '\0';) {
        size_t length = strcspn(at, "\n");
        add(status, lines, json_stringn(at, length));
        at += length + (at[length] == '\n');
    }
    cm_str_release(&text);
    set(status, object, "text", lines);
}

enum cm_status cm_cluster_json(const struct cm_cluster_map *cluster, bool show_hosts,
                               json_t **value)
{
    enum cm_status status = CM_OK;
    struct cm_domains domains = {0};
    json_t *object = json_object(), *kinds = json_array();
    set(&status, object, "nodes", json_integer((json_int_t)cluster->count));
    set(&status, object, "ranks", json_integer(cluster->ranks));
    for (uint32_t i = 0; i < cluster->kind_count; i++)
        add(&status, kinds, kind_json(cluster, i, show_hosts, &status));
    set(&status, object, "kinds", kinds);
    put_odd(cluster, show_hosts, object, &status);
    put_rails(cluster, object, &status);
    if (status == CM_OK)
        status = cm_cluster_domains(cluster, &domains);
    set(&status, object, "nvlink_domains",
        json_pack("{s:i, s:i, s:i}", "over_nodes", (int)domains.count, "smallest",
                  (int)domains.smallest, "largest", (int)domains.largest));
    put_lines(cluster, show_hosts, object, &status);
    if (status != CM_OK) {
        json_decref(object);
        return status;
    }
    *value = object;
    return CM_OK;
}
