/* Container, Slurm and Kubernetes: what the environment and a few files tell. */
#include "host/result/placement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/hash.h"
#include "clustermark/memory.h"
#include "host/result/record.h"

/* What is taken of a job's environment. Not the account, the user, the job's name or number. */
static const struct variable {
    const char *name, *key;
    bool hosts; /* names of hosts: hashed */
} slurm_variables[] = {
    {"SLURM_CLUSTER_NAME", "cluster", true},
    {"SLURM_JOB_PARTITION", "partition", false},
    {"SLURM_JOB_NUM_NODES", "nodes", false},
    {"SLURM_NTASKS", "tasks", false},
    {"SLURM_NTASKS_PER_NODE", "tasks_per_node", false},
    {"SLURM_CPUS_PER_TASK", "cpus_per_task", false},
    {"SLURM_GPUS_ON_NODE", "gpus_on_node", false},
    {"SLURM_JOB_NODELIST", "node_list", true},
    {"SLURM_TOPOLOGY_ADDR", "topology_address", true},
};

static void put_text(enum cm_status *status, json_t *facts, const char *key, const char *text,
                     bool hide)
{
    char hidden[CM_HASH_TEXT_MAX];
    if (text == NULL || text[0] == '\0')
        return;
    cm_put(status, facts, key,
           cm_result_string(hide ? cm_hash_text(cm_hash(0, text, strlen(text)), hidden) : text));
}

static json_t *slurm_json(enum cm_status *status, bool show_hosts)
{
    if (getenv("SLURM_JOB_ID") == NULL)
        return json_null();
    json_t *facts = json_object();
    for (size_t i = 0; i < sizeof slurm_variables / sizeof slurm_variables[0]; i++) {
        const struct variable *row = &slurm_variables[i];
        put_text(status, facts, row->key, getenv(row->name), row->hosts && !show_hosts);
    }
    return facts;
}

static bool exists(const char *root, const char *path)
{
    char full[400];
    snprintf(full, sizeof full, "%.300s%s", root, path);
    return access(full, F_OK) == 0;
}

/* The rest of the first line that begins with `start`; "" when there is none. */
static void read_line(const char *root, const char *path, const char *start, char *text,
                      size_t size)
{
    char full[400], line[512];
    text[0] = '\0';
    snprintf(full, sizeof full, "%.300s%s", root, path);
    FILE *file = fopen(full, "r");
    while (file != NULL && text[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, start, strlen(start)) != 0)
            continue;
        char *from = line + strlen(start);
        from += *from == '"';
        snprintf(text, size, "%.*s", (int)strcspn(from, "\"\r\n"), from);
    }
    if (file != NULL)
        fclose(file);
}

static json_t *container_json(enum cm_status *status, const char *root)
{
    const char *image = getenv("APPTAINER_CONTAINER");
    const char *own = getenv("container");
    const char *runtime = NULL;
    char text[300];
    image = image != NULL ? image : getenv("SINGULARITY_CONTAINER");
    if (image != NULL) {
        const char *slash = strrchr(image, '/'); /* the folder may be a user's */
        image = slash != NULL ? slash + 1 : image;
        runtime = "apptainer";
    } else if (exists(root, "/run/.containerenv")) {
        read_line(root, "/run/.containerenv", "image=", text, sizeof text);
        image = text;
        runtime = "podman";
    } else if (exists(root, "/.dockerenv")) {
        runtime = "docker";
    } else if (own != NULL && own[0] != '\0') {
        runtime = own;
    }
    if (runtime == NULL)
        return json_null();
    json_t *facts = json_object();
    put_text(status, facts, "runtime", runtime, false);
    put_text(status, facts, "image", image, false);
    return facts;
}

static json_t *kubernetes_json(enum cm_status *status, const char *root, bool show_hosts)
{
    char text[300];
    if (getenv("KUBERNETES_SERVICE_HOST") == NULL)
        return json_null();
    json_t *facts = json_object();
    read_line(root, "/var/run/secrets/kubernetes.io/serviceaccount/namespace", "", text,
              sizeof text);
    put_text(status, facts, "namespace", text, !show_hosts);
    put_text(status, facts, "node", getenv("NODE_NAME"), !show_hosts);
    return facts;
}

enum cm_status cm_placement_json(const char *root, bool show_hosts, json_t **value)
{
    json_t *cloud = NULL, *all = json_object();
    enum cm_status status = cm_cloud_json(&cloud);
    if (status != CM_OK) {
        json_decref(all);
        return status;
    }
    cm_put(&status, all, "cloud", cloud);
    cm_put(&status, all, "container", container_json(&status, root));
    cm_put(&status, all, "slurm", slurm_json(&status, show_hosts));
    cm_put(&status, all, "kubernetes", kubernetes_json(&status, root, show_hosts));
    if (status == CM_OK)
        *value = all;
    else
        json_decref(all);
    return status;
}
