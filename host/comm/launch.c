/* The command that starts ranks on this machine. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"

#define AGENT_MAX 2048 /* program and words of a remote shell */

static const char *const launcher_names[] = {"mpirun", "mpiexec", "orterun"};

static bool executable(const char *path)
{
    struct stat info;
    return access(path, X_OK) == 0 && stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static bool find_on_path(const char *name, char *path, size_t size)
{
    const char *folders = getenv("PATH");
    while (folders != NULL && *folders != '\0') {
        size_t length = strcspn(folders, ":");
        int written = snprintf(path, size, "%.*s/%s", (int)length, folders, name);
        if (length > 0 && written < (int)size && executable(path))
            return true;
        folders += length;
        folders += *folders == ':';
    }
    return false;
}

/* The folder's own name: where /bin is a link to /usr/bin, Open MPI looks for its parts beside the
 * path that it was started by. */
static void resolve_folder(const char *name, char *path, size_t size)
{
    char folder[PATH_MAX], whole[PATH_MAX + 16];
    char *slash = strrchr(path, '/');
    *slash = '\0';
    bool known = realpath(path, folder) != NULL;
    *slash = '/';
    int length = known ? snprintf(whole, sizeof whole, "%s/%s", folder, name) : -1;
    if (length > 0 && (size_t)length < size && (size_t)length < sizeof whole)
        memcpy(path, whole, (size_t)length + 1);
}

static enum cm_status find_launcher(char *path, size_t size)
{
    for (size_t i = 0; i < sizeof launcher_names / sizeof *launcher_names; i++)
        if (find_on_path(launcher_names[i], path, size)) {
            resolve_folder(launcher_names[i], path, size);
            return CM_OK;
        }
    int length = snprintf(path, size, "%s", CM_MPIEXEC);
    if (length > 0 && length < (int)size && executable(path))
        return CM_OK;
    return cm_error(CM_USAGE, "no mpirun, mpiexec or orterun on PATH; install openmpi-bin, or give "
                              "--ranks 1");
}

static bool folder_has_entries(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        return false;
    bool found = false;
    for (const struct dirent *entry; !found && (entry = readdir(folder)) != NULL;)
        found = entry->d_name[0] != '.';
    closedir(folder);
    return found;
}

/* Whether there is a network for which Open MPI has something better than its own shared memory
 * and TCP. InfiniBand, RoCE, EFA and Omni-Path all show under infiniband. */
static bool has_fabric(void)
{
    return folder_has_entries("/sys/class/infiniband") || folder_has_entries("/sys/class/cxi");
}

/* Whether the kernel, or a container's filter, forbids reading another process's memory outright.
 * Open MPI 4 would find out in the middle of a message. */
static bool copy_forbidden(void)
{
    char from = 1, to = 0;
    struct iovec local = {&to, 1}, remote = {&from, 1};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != 1;
}

static unsigned usable_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

/* What the user set stays. */
static void set(struct cm_launch *launch, size_t *count, bool wanted, const char *name,
                const char *value)
{
    if (!wanted || getenv(name) != NULL)
        return;
    launch->environment[(*count)++] = name;
    launch->environment[(*count)++] = value;
}

static void force(struct cm_launch *launch, size_t *count, const char *name, const char *value)
{
    launch->environment[(*count)++] = name;
    launch->environment[(*count)++] = value;
}

static const char batch_systems[] = "^slurm,gridengine,tm,lsf,pbs,alps,loadleveler";

/* This machine only, also within a batch job that has several. */
static void stay_here(struct cm_launch *launch, size_t *count)
{
    set(launch, count, true, "OMPI_MCA_ras", batch_systems);
    set(launch, count, true, "PRTE_MCA_ras", batch_systems);
    set(launch, count, true, "OMPI_MCA_plm", "isolated");
    set(launch, count, true, "HYDRA_LAUNCHER", "fork");
    set(launch, count, true, "HYDRA_RMK", "user");
}

/* Over the nodes that are named, by the agent alone; their names need no address. */
static void go_out(const struct cm_launch_nodes *nodes, struct cm_launch *launch, size_t *count)
{
    size_t used = strlen(launch->storage) + 1;
    char *agent = launch->storage + used + 16;
    snprintf(agent, sizeof launch->storage - used - 16, "%s %s", nodes->agent_program,
             nodes->agent_words);
    force(launch, count, "OMPI_MCA_ras", batch_systems);
    force(launch, count, "OMPI_MCA_plm", "rsh");
    force(launch, count, "OMPI_MCA_plm_rsh_agent", agent);
    force(launch, count, "OMPI_MCA_plm_rsh_no_tree_spawn", "1");
    force(launch, count, "OMPI_MCA_orte_leave_session_attached", "1");
    force(launch, count, "OMPI_MCA_if_base_do_not_resolve", "1");
    /* It would tell of every failure what the ranks have told already. */
    set(launch, count, true, "OMPI_MCA_orte_execute_quiet", "1");
    force(launch, count, "PRTE_MCA_ras", batch_systems);
    force(launch, count, "PRTE_MCA_plm", "ssh");
    force(launch, count, "PRTE_MCA_plm_ssh_agent", agent);
    force(launch, count, "PRTE_MCA_plm_ssh_no_tree_spawn", "1");
    force(launch, count, "PRTE_MCA_prte_leave_session_attached", "1");
    force(launch, count, "PRTE_MCA_prte_if_do_not_resolve", "1");
    force(launch, count, "HYDRA_LAUNCHER", "rsh");
    force(launch, count, "HYDRA_LAUNCHER_EXEC", nodes->agent_program);
    force(launch, count, "HYDRA_LAUNCHER_EXTRA_ARGS", nodes->agent_words);
    force(launch, count, "HYDRA_RMK", "user");
}

/* Variables of Open MPI 4 (OMPI), of Open MPI 5 (PRTE), of MPICH (HYDRA) and of Intel MPI. A
 * launcher ignores those of the others. */
static void set_environment(unsigned ranks, const struct cm_launch_nodes *nodes,
                            struct cm_launch *launch)
{
    size_t count = 0;
    bool root = geteuid() == 0;
    set(launch, &count, root, "OMPI_ALLOW_RUN_AS_ROOT", "1");
    set(launch, &count, root, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    if (nodes == NULL)
        stay_here(launch, &count);
    else
        go_out(nodes, launch, &count);
    /* Ranks bind themselves, and there may be more of them than cores. */
    set(launch, &count, true, "OMPI_MCA_hwloc_base_binding_policy", "none");
    set(launch, &count, true, "PRTE_MCA_hwloc_default_binding_policy", "none");
    set(launch, &count, true, "I_MPI_PIN", "off");
    set(launch, &count, true, "OMPI_MCA_rmaps_base_oversubscribe", "1");
    set(launch, &count, true, "PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
    /* Ranks that share cores must not spin while they wait for each other. */
    bool crowded = nodes == NULL ? ranks > usable_cpus() : nodes->crowded;
    set(launch, &count, crowded, "OMPI_MCA_mpi_yield_when_idle", "1");
    /* Without a fabric Open MPI takes ob1 in the end; saying so spares it the loading of libfabric
     * and UCX, which is more than half of its start. */
    set(launch, &count, !has_fabric(), "OMPI_MCA_pml", "ob1");
    set(launch, &count, copy_forbidden(), "OMPI_MCA_btl_vader_single_copy_mechanism", "none");
}

static enum cm_status make_command(unsigned ranks, const struct cm_launch_nodes *nodes,
                                   struct cm_launch *launch)
{
    struct cm_launch made = {0};
    char number[16], path[sizeof made.storage - sizeof number - AGENT_MAX];
    size_t used = 0;
    if (ranks == 0)
        return cm_error(CM_USAGE, "0 ranks cannot be started; give at least 1");
    enum cm_status status = find_launcher(path, sizeof path);
    if (status != CM_OK)
        return status;
    *launch = made;
    int length = snprintf(launch->storage, sizeof launch->storage, "%s", path);
    char *count = launch->storage + length + 1;
    snprintf(count, sizeof number, "%u", ranks);
    launch->argv[used++] = launch->storage;
    if (nodes != NULL) {
        launch->argv[used++] = "-host";
        launch->argv[used++] = nodes->hosts;
    }
    launch->argv[used++] = "-n";
    launch->argv[used++] = count;
    set_environment(ranks, nodes, launch);
    return CM_OK;
}

enum cm_status cm_launch_command(unsigned ranks, struct cm_launch *launch)
{
    return make_command(ranks, NULL, launch);
}

enum cm_status cm_launch_command_on(unsigned ranks, const struct cm_launch_nodes *nodes,
                                    struct cm_launch *launch)
{
    return make_command(ranks, nodes, launch);
}
