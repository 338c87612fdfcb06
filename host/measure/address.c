/* Where rank 0 listens: MASTER_ADDR and MASTER_PORT, or what Slurm tells of the step. */
#include "host/measure/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/error.h"

#define DEFAULT_MASTER_PORT 29500 /* torchrun's */
/* Below the ports that systems give away themselves. */
#define SLURM_PORT_BASE  20000
#define SLURM_PORT_COUNT 12000

static enum cm_status master_port(unsigned *port)
{
    const char *text = getenv("MASTER_PORT");
    char *end;
    if (text == NULL)
        return CM_OK;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || number == 0 || number > 65534)
        return cm_error(CM_USAGE,
                        "MASTER_PORT is \"%.20s\" in the environment; it must be a port whose "
                        "successor is free for this program",
                        text);
    *port = (unsigned)number + 1;
    return CM_OK;
}

static enum cm_status set_host(const char *text, char *host)
{
    size_t length = strlen(text);
    /* "[fe80::1]" is an address in the manner of URLs. */
    bool bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
    if (length == 0 || length >= CM_ADDRESS_HOST_MAX)
        return cm_error(CM_USAGE,
                        "MASTER_ADDR is \"%.40s\" in the environment; it must be the name "
                        "or address of rank 0's node",
                        text);
    snprintf(host, CM_ADDRESS_HOST_MAX, "%.*s", (int)(bracketed ? length - 2 : length),
             text + (bracketed ? 1 : 0));
    return CM_OK;
}

void cm_address_first_host(const char *list, char *host, unsigned size)
{
    size_t used = 0;
    for (const char *c = list; *c != '\0' && *c != ',' && used + 1 < size;) {
        if (*c != '[') {
            host[used++] = *c++;
            continue;
        }
        /* The first of "[1-4,7]"; what follows the bracket belongs to the name. */
        size_t first = strspn(c + 1, "0123456789");
        for (size_t i = 0; i < first && used + 1 < size; i++)
            host[used++] = c[1 + i];
        c += strcspn(c, "]");
        c += *c == ']';
    }
    host[used] = '\0';
}

/* Steps of one job, and neighbouring jobs, get ports of their own. */
static unsigned slurm_port(void)
{
    const char *job = getenv("SLURM_JOB_ID"), *step = getenv("SLURM_STEP_ID");
    unsigned long number = (job != NULL ? strtoul(job, NULL, 10) : 0) * 16 +
                           (step != NULL ? strtoul(step, NULL, 10) : 0);
    return SLURM_PORT_BASE + (unsigned)(number % SLURM_PORT_COUNT);
}

static void slurm_hosts(struct cm_address *address)
{
    const char *list = getenv("SLURM_STEP_NODELIST"),
               *launcher = getenv("SLURM_LAUNCH_NODE_IPADDR");
    unsigned used = 0;
    if (list != NULL)
        cm_address_first_host(list, address->hosts[used], CM_ADDRESS_HOST_MAX);
    used += address->hosts[used][0] != '\0' ? 1 : 0;
    if (launcher != NULL)
        snprintf(address->hosts[used], CM_ADDRESS_HOST_MAX, "%s", launcher);
}

enum cm_status cm_address_find(const struct cm_world *world, struct cm_address *address,
                               bool *known)
{
    struct cm_address found = {.port = 0};
    const char *master = getenv("MASTER_ADDR");
    bool slurm = strcmp(world->launcher, "srun") == 0;
    enum cm_status status = CM_OK;
    if (master != NULL)
        status = set_host(master, found.hosts[0]);
    else if (slurm)
        slurm_hosts(&found);
    if (status == CM_OK)
        status = master_port(&found.port);
    if (status != CM_OK)
        return status;
    if (found.port == 0)
        found.port = master == NULL && slurm ? slurm_port() : DEFAULT_MASTER_PORT + 1;
    *known = found.hosts[0][0] != '\0';
    *address = found;
    return CM_OK;
}
