/* What surrounds a measurement: the tool, the software below it, the environment by allow-list. */
#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "clustermark/hash.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/version.h"
#include "host/result/record.h"

extern char **environ;

/* What steers the libraries that are measured; the rest of the environment holds secrets. */
static const char *const allowed[] = {"NCCL_", "CUDA_", "OMP_", "FI_", "UCX_", "OMPI_MCA_"};
/* Set by mpirun for its own ranks, addresses and keys of this one job; and how mpirun was to find
 * its nodes, which carriers set. */
static const char *const launchers_own[] = {
    "OMPI_MCA_orte_",        "OMPI_MCA_ess_",      "OMPI_MCA_pmix",
    "OMPI_MCA_initial_wdir", "OMPI_MCA_mpi_yield", "OMPI_MCA_shmem_RUNTIME",
    "OMPI_MCA_plm",          "OMPI_MCA_ras",       "OMPI_MCA_if_base_do_not_resolve"};
/* Their values are host names or addresses. */
static const char *const about_hosts[] = {"NCCL_COMM_ID=", "NCCL_HOSTID="};

static bool begins_with_any(const char *text, const char *const *prefixes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(text, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}
#define BEGINS_WITH_ANY(text, list) begins_with_any(text, list, sizeof(list) / sizeof((list)[0]))

void cm_put_variable(enum cm_status *status, json_t *object, const char *entry, bool show_hosts)
{
    const char *equals = strchr(entry, '=');
    if (equals == NULL || !BEGINS_WITH_ANY(entry, allowed) || BEGINS_WITH_ANY(entry, launchers_own))
        return;
    char hidden[CM_HASH_TEXT_MAX];
    const char *value = equals + 1;
    if (!show_hosts && BEGINS_WITH_ANY(entry, about_hosts))
        value = cm_hash_text(cm_hash(0, value, strlen(value)), hidden);
    char *name = cm_strf("%.*s", (int)(equals - entry), entry);
    json_t *clean = name != NULL ? cm_result_string(name) : NULL;
    if (clean == NULL)
        *status = CM_NO_MEMORY;
    cm_put(status, object, clean != NULL ? json_string_value(clean) : "", cm_result_string(value));
    json_decref(clean);
    cm_free(name);
}

json_t *cm_environment_json(bool show_hosts)
{
    enum cm_status status = CM_OK;
    json_t *object = json_object();
    for (char **entry = environ; object != NULL && entry != NULL && *entry != NULL; entry++)
        cm_put_variable(&status, object, *entry, show_hosts);
    if (status != CM_OK) {
        json_decref(object);
        return NULL;
    }
    return object;
}

json_t *cm_tool_json(void)
{
#ifdef CM_REVISION
    return json_pack("{s:s, s:s, s:s}", "name", "clustermark", "version", cm_version_text(),
                     "revision", CM_REVISION);
#else
    return json_pack("{s:s, s:s, s:n}", "name", "clustermark", "version", cm_version_text(),
                     "revision");
#endif
}

/* PRETTY_NAME of os-release. */
static void system_name(char *buffer, size_t size)
{
    snprintf(buffer, size, "unknown");
    FILE *file = fopen("/etc/os-release", "r");
    if (file == NULL)
        return;
    char line[256];
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "PRETTY_NAME=", 12) != 0)
            continue;
        const char *start = line + 12 + (line[12] == '"');
        snprintf(buffer, size, "%.*s", (int)strcspn(start, "\"\r\n"), start);
        break;
    }
    fclose(file);
}

json_t *cm_stack_json(void)
{
    struct utsname name;
    char distribution[200];
    char kernel[sizeof name.sysname + sizeof name.release + sizeof name.machine] = "unknown";
    if (uname(&name) == 0)
        snprintf(kernel, sizeof kernel, "%s %s %s", name.sysname, name.release, name.machine);
    system_name(distribution, sizeof distribution);
    enum cm_status status = CM_OK;
    json_t *stack = json_object();
    cm_put(&status, stack, "kernel", cm_result_string(kernel));
    cm_put(&status, stack, "system", cm_result_string(distribution));
    cm_put(&status, stack, "libc", json_sprintf("glibc %s", gnu_get_libc_version()));
#ifdef __clang__
    cm_put(&status, stack, "compiler", json_string(__VERSION__));
#else
    cm_put(&status, stack, "compiler", json_string("GCC " __VERSION__));
#endif
    if (status != CM_OK) {
        json_decref(stack);
        return NULL;
    }
    return stack;
}

void cm_put_host(enum cm_status *status, json_t *machine, bool show_hosts)
{
    char host[256] = "";
    char hidden[CM_HASH_TEXT_MAX];
    gethostname(host, sizeof host - 1);
    if (!show_hosts)
        cm_hash_text(cm_hash(0, host, strlen(host)), hidden);
    cm_put(status, machine, "host", cm_result_string(show_hosts ? host : hidden));
    cm_put(status, machine, "host_hashed", json_boolean(!show_hosts));
}
