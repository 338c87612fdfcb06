/* How many ranks a request means on this machine. */
#include <string.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/topology.h"

static enum cm_status count_cores(unsigned *cores)
{
    struct cm_topology topology;
    enum cm_status status = cm_topology_live(&topology);
    if (status != CM_OK)
        return status;
    unsigned count = 0;
    for (size_t i = 0; i < topology.core_count; i++) {
        struct cm_cpuset usable = topology.cores[i].pus;
        cm_cpuset_and(&usable, &topology.allowed);
        count += cm_cpuset_count(&usable) > 0 ? 1 : 0;
    }
    cm_topology_release(&topology);
    *cores = count > 0 ? count : 1;
    return CM_OK;
}

/* Whether several CPU ranks can be started; else CM_USAGE says what is missing. */
static enum cm_status need_mpi(unsigned ranks)
{
    char reason[160];
    struct cm_launch launch;
    const struct cm_comm_ops *mpi = cm_comm_find("mpi");
    if (mpi == NULL || !mpi->available(reason, sizeof reason))
        return cm_error(CM_USAGE, "%u ranks on the CPU need MPI: %s; or use --ranks 1", ranks,
                        mpi == NULL ? cm_comm_missing("mpi") : reason);
    return cm_launch_command(ranks, &launch);
}

static enum cm_status cpu_ranks(unsigned asked, unsigned *ranks)
{
    unsigned cores, chosen = 1;
    enum cm_status status = asked > 1 ? need_mpi(asked) : CM_OK;
    if (status != CM_OK || asked > 0) {
        if (status == CM_OK)
            *ranks = asked;
        return status;
    }
    status = count_cores(&cores);
    if (status != CM_OK)
        return status;
    if (cores < 2)
        cm_warn("1 rank only, because there is one core: nothing is communicated");
    else if (need_mpi(2) != CM_OK)
        cm_warn("1 rank only, so nothing is communicated: %s", cm_error_text());
    else
        chosen = 2;
    cm_error_clear();
    *ranks = chosen;
    return CM_OK;
}

enum cm_status cm_request_ranks(const struct cm_run_request *request, unsigned *ranks)
{
    const struct cm_device_ops *device = request->device;
    struct cm_device_probe probe;
    if (device->is_host)
        return cpu_ranks(request->ranks, ranks);
    enum cm_status status = cm_device_ask(device, &probe);
    if (status != CM_OK)
        return status;
    if (probe.count == 0)
        return cm_error(CM_NO_DEVICE, "no %s device: %s", device->name, probe.reason);
    if (request->ranks > probe.count && !request->simulate)
        return cm_error(CM_USAGE,
                        "%u ranks need as many %s devices, and this machine has %u (%.100s); give "
                        "--ranks %u or less, or --simulate to share them for a test of "
                        "correctness",
                        request->ranks, device->name, probe.count, probe.reason, probe.count);
    *ranks = request->ranks > 0 ? request->ranks : probe.count;
    return CM_OK;
}

unsigned cm_request_devices(const struct cm_run_request *request)
{
    const struct cm_device_ops *device = request->device;
    struct cm_device_probe probe = {.count = 0};
    if (device->is_host || device->probe == NULL || cm_device_ask(device, &probe) != CM_OK)
        return 0;
    return probe.count;
}
