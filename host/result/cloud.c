/* What the metadata services of four clouds tell about the machine, and nothing about its owner. */
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "host/result/placement.h"
#include "host/result/record.h"

#define TEXT_MAX 160

/* The body of an answer 200; NULL with CM_OK for another answer. */
static enum cm_status ask(const char *method, const char *path, const char *header, char **body)
{
    int code = 0;
    char *text = NULL;
    *body = NULL;
    enum cm_status status = cm_http_call(method, path, header, &code, &text);
    if (status != CM_OK)
        return status;
    if (code == 200)
        *body = text;
    else
        cm_free(text);
    return CM_OK;
}

/* A short printable text, or nothing. */
static void put_fact(enum cm_status *status, json_t *facts, const char *key, const char *text)
{
    char clean[TEXT_MAX];
    size_t used = 0;
    for (; text != NULL && *text != '\0' && used < sizeof clean - 1; text++)
        clean[used++] = *text >= ' ' && *text < 0x7f ? *text : '?';
    clean[used] = '\0';
    if (used > 0)
        cm_put(status, facts, key, json_string(clean));
}

/* "a3-highgpu-8g" of "projects/123/machineTypes/a3-highgpu-8g": the number is an account's. */
static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

struct fact {
    const char *key, *path;
};

/* A request per fact; those that are not there are left out. */
static enum cm_status ask_all(const struct fact *rows, size_t count, const char *base,
                              const char *header, json_t *facts)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < count && status == CM_OK; i++) {
        char path[200], *body = NULL;
        snprintf(path, sizeof path, "%s%s", base, rows[i].path);
        status = ask("GET", path, header, &body);
        if (body != NULL)
            put_fact(&status, facts, rows[i].key, last_part(body));
        cm_free(body);
    }
    return status;
}

static enum cm_status ask_aws(json_t *facts, bool *found)
{
    static const struct fact rows[] = {
        {"instance_type", "instance-type"},
        {"zone", "placement/availability-zone"},
        {"zone_id", "placement/availability-zone-id"},
        {"region", "placement/region"},
        {"image", "ami-id"},
        {"life_cycle", "instance-life-cycle"},
        {"placement_group", "placement/group-name"},
        {"placement_partition", "placement/partition-number"},
    };
    char *token = NULL, header[400];
    enum cm_status status =
        ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60", &token);
    *found = token != NULL && token[0] != '\0' && strlen(token) < 300 &&
             token[strcspn(token, " \r\n{<")] == '\0';
    if (*found) {
        snprintf(header, sizeof header, "X-aws-ec2-metadata-token: %s", token);
        status = ask_all(rows, sizeof rows / sizeof rows[0], "/latest/meta-data/", header, facts);
    }
    cm_free(token);
    return status;
}

static enum cm_status ask_gcp(json_t *facts, bool *found)
{
    static const struct fact rows[] = {
        {"instance_type", "machine-type"},
        {"zone", "zone"},
        {"image", "image"},
        {"preemptible", "scheduling/preemptible"},
    };
    static const char base[] = "/computeMetadata/v1/instance/",
                      header[] = "Metadata-Flavor: Google";
    char path[80], *type = NULL;
    snprintf(path, sizeof path, "%s%s", base, rows[0].path);
    enum cm_status status = ask("GET", path, header, &type);
    *found = type != NULL && strstr(type, "/machineTypes/") != NULL;
    cm_free(type);
    return *found ? ask_all(rows, sizeof rows / sizeof rows[0], base, header, facts) : status;
}

/* A whole document, of which a few texts are taken; an answer that is none is nobody's. */
static enum cm_status ask_document(const char *path, const char *header, json_t **document)
{
    char *body = NULL;
    json_error_t error;
    *document = NULL;
    enum cm_status status = ask("GET", path, header, &body);
    if (body != NULL)
        *document = json_loads(body, 0, &error);
    cm_free(body);
    return status;
}

static enum cm_status ask_azure(json_t *facts, bool *found)
{
    json_t *all = NULL;
    enum cm_status status = ask_document(
        "/metadata/instance/compute?api-version=2021-02-01&format=json", "Metadata: true", &all);
    *found = cm_get_text(all, "vmSize")[0] != '\0';
    if (*found) {
        const json_t *image =
            json_object_get(json_object_get(all, "storageProfile"), "imageReference");
        char text[400];
        snprintf(text, sizeof text, "%.90s:%.90s:%.90s:%.90s", cm_get_text(image, "publisher"),
                 cm_get_text(image, "offer"), cm_get_text(image, "sku"),
                 cm_get_text(image, "version"));
        put_fact(&status, facts, "instance_type", cm_get_text(all, "vmSize"));
        put_fact(&status, facts, "region", cm_get_text(all, "location"));
        put_fact(&status, facts, "zone", cm_get_text(all, "zone"));
        put_fact(&status, facts, "image", strlen(text) > 3 ? text : "");
        put_fact(&status, facts, "life_cycle", cm_get_text(all, "priority"));
        put_fact(&status, facts, "placement_group", cm_get_text(all, "placementGroupId"));
    }
    json_decref(all);
    return status;
}

static enum cm_status ask_oci(json_t *facts, bool *found)
{
    json_t *all = NULL;
    enum cm_status status = ask_document("/opc/v2/instance/", "Authorization: Bearer Oracle", &all);
    *found = cm_get_text(all, "shape")[0] != '\0';
    if (*found) {
        put_fact(&status, facts, "instance_type", cm_get_text(all, "shape"));
        put_fact(&status, facts, "zone", cm_get_text(all, "availabilityDomain"));
        put_fact(&status, facts, "fault_domain", cm_get_text(all, "faultDomain"));
        put_fact(&status, facts, "region", cm_get_text(all, "canonicalRegionName"));
        put_fact(&status, facts, "image", cm_get_text(all, "image"));
    }
    json_decref(all);
    return status;
}

/* All share one address: when nobody answers the first, nobody is there. */
enum cm_status cm_cloud_json(json_t **value)
{
    static const struct {
        const char *name;
        enum cm_status (*ask)(json_t *facts, bool *found);
    } providers[] = {{"aws", ask_aws}, {"gcp", ask_gcp}, {"azure", ask_azure}, {"oci", ask_oci}};
    const char *reason = "no known metadata service";
    char text[CM_ERROR_TEXT_MAX];
    for (size_t i = 0; i < sizeof providers / sizeof providers[0]; i++) {
        bool found = false;
        json_t *facts = json_object();
        enum cm_status status = facts != NULL ? CM_OK : CM_NO_MEMORY;
        cm_put(&status, facts, "provider", json_string(providers[i].name));
        json_t *own = json_object();
        if (status == CM_OK)
            status = own != NULL ? providers[i].ask(own, &found) : CM_NO_MEMORY;
        if (found && json_object_update(facts, own) != 0)
            status = CM_NO_MEMORY;
        json_decref(own);
        if (found && status == CM_OK) {
            *value = facts;
            return CM_OK;
        }
        json_decref(facts);
        if (status == CM_NO_MEMORY)
            return status;
        if (status == CM_IO) {
            snprintf(text, sizeof text, "%s", cm_error_text());
            reason = text;
            break;
        }
    }
    *value = json_pack("{s:n, s:s}", "provider", "reason", reason);
    return *value != NULL ? CM_OK : cm_error(CM_NO_MEMORY, "out of memory for the cloud's facts");
}
