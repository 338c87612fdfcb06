/*
 * placement.h: where a run took place: cloud, container, Slurm, Kubernetes. Private to host/result.
 *
 * Asked for by name only (run --cloud): it opens connections. Nothing about an account is taken:
 * no account, project or subscription, no user data, no address, no key.
 */
#ifndef CM_RESULT_PLACEMENT_H
#define CM_RESULT_PLACEMENT_H

#include <jansson.h>
#include <stdbool.h>

#include "clustermark/status.h"

/* {"cloud", "container", "slurm", "kubernetes"}; null for what is not there. `root` is "" but in
 * tests. Names of hosts are hashed unless `show_hosts`. */
enum cm_status cm_placement_json(const char *root, bool show_hosts, json_t **value);

/* What the metadata service of the machine says: {"provider", "instance_type", "zone", "region",
 * "image", "life_cycle", ...}, or {"provider": null, "reason"}. Each answer is waited for at most a
 * second. */
enum cm_status cm_cloud_json(json_t **value);

/* http.c: one request to a metadata service on this link: no names, no proxy, no TLS. `header` is a
 * further line or NULL. At most 64 KiB in one second. CM_IO when there is nobody to answer,
 * CM_USAGE when the answer is no HTTP; else *code is HTTP's, and *body the caller's to free. */
enum cm_status cm_http_call(const char *method, const char *path, const char *header, int *code,
                            char **body);

#endif
