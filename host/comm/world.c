/* The place in the world as a launcher's environment tells it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/comm.h"
#include "clustermark/error.h"

/* One launcher's variables. The names of a place after the first NULL are other spellings. */
struct launcher {
    const char *name;
    const char *rank, *size, *local_rank[2], *local_size[2];
};

/* These start ranks directly; where several are set they must agree. */
static const struct launcher launchers[] = {
    {"mpirun",
     "OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_SIZE",
     {"OMPI_COMM_WORLD_LOCAL_RANK"},
     {"OMPI_COMM_WORLD_LOCAL_SIZE"}},
    {"mpiexec",
     "PMI_RANK",
     "PMI_SIZE",
     {"MPI_LOCALRANKID", "PMI_LOCAL_RANK"},
     {"MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"}},
    {"torchrun", "RANK", "WORLD_SIZE", {"LOCAL_RANK"}, {"LOCAL_WORLD_SIZE"}},
};
#define LAUNCHER_COUNT (sizeof launchers / sizeof *launchers)

/* Slurm often starts another launcher, whose word then counts. */
static const struct launcher slurm = {
    "srun", "SLURM_PROCID", "SLURM_NTASKS", {"SLURM_LOCALID"}, {NULL}};

/* Launchers whose size cannot be read give themselves away by these. */
static const char *const signs[] = {"PMIX_RANK",          "PALS_RANKID",         "ALPS_APP_PE",
                                    "JSM_NAMESPACE_RANK", "MV2_COMM_WORLD_RANK", "FLUX_TASK_RANK"};

/* An Indexed Job numbers its pods; their count is the user's to give. What the pod starts may have
 * numbers of its own. */
static const struct launcher kubernetes = {
    "kubernetes", "JOB_COMPLETION_INDEX", "WORLD_SIZE", {NULL}, {NULL}};

/* The outer launcher's name, for ranks that carriers started by mpirun. */
#define CARRIED_BY "CLUSTERMARK_LAUNCHER"

/* A variable as a number; *set says whether it is there. */
static enum cm_status read_number(const char *name, bool *set, unsigned *value)
{
    const char *text = name == NULL ? NULL : getenv(name);
    *set = text != NULL;
    if (text == NULL)
        return CM_OK;
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number > 0x7fffffff)
        return cm_error(CM_USAGE, "%s is \"%.40s\" in the environment; it must be a number", name,
                        text);
    *value = (unsigned)number;
    return CM_OK;
}

static enum cm_status read_either(const char *const names[2], bool *set, unsigned *value)
{
    enum cm_status status = read_number(names[0], set, value);
    if (status == CM_OK && !*set)
        status = read_number(names[1], set, value);
    return status;
}

/* "2(x3),1": the tasks on node number `node`. 0 when the text has no such node. */
static unsigned tasks_of_node(const char *text, unsigned node)
{
    while (*text >= '0' && *text <= '9') {
        char *end;
        unsigned long tasks = strtoul(text, &end, 10), times = 1;
        if (strncmp(end, "(x", 2) == 0) {
            times = strtoul(end + 2, &end, 10);
            end += *end == ')';
        }
        if (node < times)
            return tasks <= 0x7fffffff ? (unsigned)tasks : 0;
        node -= (unsigned)times;
        text = *end == ',' ? end + 1 : end;
    }
    return 0;
}

/* Slurm tells the tasks of all nodes in one text. */
static enum cm_status read_slurm_local_size(bool *set, unsigned *value)
{
    unsigned node = 0;
    const char *text = getenv("SLURM_STEP_TASKS_PER_NODE");
    enum cm_status status = read_number("SLURM_NODEID", set, &node);
    if (status != CM_OK || !*set || text == NULL) {
        *set = false;
        return status;
    }
    *value = tasks_of_node(text, node);
    if (*value == 0)
        return cm_error(CM_USAGE,
                        "SLURM_STEP_TASKS_PER_NODE is \"%.40s\" in the environment and tells "
                        "nothing of node %u",
                        text, node);
    return CM_OK;
}

static enum cm_status check_world(const struct launcher *launcher, const struct cm_world *world)
{
    if (world->rank >= world->size)
        return cm_error(CM_USAGE,
                        "%s is %u and %s is %u in the environment; a rank must be below the size",
                        launcher->rank, world->rank, launcher->size, world->size);
    if (world->local_rank >= world->local_size || world->local_size > world->size)
        return cm_error(CM_USAGE,
                        "%s told local rank %u of %u, in a world of %u ranks; that cannot be",
                        launcher->name, world->local_rank, world->local_size, world->size);
    return CM_OK;
}

/* size 0 when this launcher started nothing. */
static enum cm_status read_launcher(const struct launcher *launcher, struct cm_world *world)
{
    bool has_rank, has_size, has_local_rank, has_local_size;
    struct cm_world found = {0};
    enum cm_status status = read_number(launcher->rank, &has_rank, &found.rank);
    if (status == CM_OK)
        status = read_number(launcher->size, &has_size, &found.size);
    if (status == CM_OK && !has_rank && !has_size)
        return CM_OK;
    if (status == CM_OK && has_rank != has_size)
        return cm_error(CM_USAGE, "%s is in the environment, but %s is not; set both or none",
                        has_rank ? launcher->rank : launcher->size,
                        has_rank ? launcher->size : launcher->rank);
    if (status == CM_OK)
        status = read_either(launcher->local_rank, &has_local_rank, &found.local_rank);
    if (status == CM_OK)
        status = launcher == &slurm
                     ? read_slurm_local_size(&has_local_size, &found.local_size)
                     : read_either(launcher->local_size, &has_local_size, &found.local_size);
    if (status != CM_OK)
        return status;
    if (launcher == &kubernetes) { /* a pod is a node of its own */
        found.local_rank = 0;
        found.local_size = 1;
    } else if (!has_local_rank || !has_local_size) { /* all ranks are taken to be on one node */
        found.local_rank = found.rank;
        found.local_size = found.size;
    }
    snprintf(found.launcher, sizeof found.launcher, "%s", launcher->name);
    status = check_world(launcher, &found);
    if (status == CM_OK)
        *world = found;
    return status;
}

/* srun --mpi=pmi2 sets mpiexec's variables too, without the local ones. */
static bool pmi_of_slurm(void)
{
    return getenv("SLURM_STEP_ID") != NULL && getenv("PMI_JOBID") != NULL &&
           getenv("MPI_LOCALRANKID") == NULL && getenv("PMI_LOCAL_RANK") == NULL;
}

static enum cm_status read_direct(const struct launcher *launcher, struct cm_world *world)
{
    if (strcmp(launcher->rank, "PMI_RANK") == 0 && pmi_of_slurm())
        return CM_OK;
    if (strcmp(launcher->rank, "RANK") == 0 && getenv("RANK") == NULL &&
        getenv(kubernetes.rank) != NULL)
        launcher = &kubernetes;
    return read_launcher(launcher, world);
}

/* A shell under salloc or sbatch has Slurm's variables, but is no rank: only a step has a number.
 */
static enum cm_status read_slurm(struct cm_world *world)
{
    if (getenv("SLURM_STEP_ID") == NULL || getenv("SLURM_PROCID") == NULL)
        return CM_OK;
    return read_launcher(&slurm, world);
}

/* Each task of a step may start ranks of one world, but then that has at least as many. */
static enum cm_status check_step(const struct cm_world *world)
{
    bool set;
    unsigned tasks = 0;
    if (getenv("SLURM_STEP_ID") == NULL || getenv("SLURM_PROCID") == NULL ||
        strcmp(world->launcher, "torchrun") != 0)
        return CM_OK;
    enum cm_status status = read_number(slurm.size, &set, &tasks);
    if (status == CM_OK && tasks > world->size)
        return cm_error(CM_USAGE,
                        "srun started %u tasks, but the environment tells each a world of %u (%s): "
                        "they would be several runs; unset RANK and WORLD_SIZE, or make them those "
                        "of all tasks",
                        tasks, world->size, world->launcher);
    return status;
}

static enum cm_status look_for_signs(void)
{
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (getenv(signs[i]) != NULL)
            return cm_error(CM_USAGE,
                            "%s is in the environment: a launcher started this process as one of "
                            "several, and does not tell of how many; set RANK, WORLD_SIZE, "
                            "LOCAL_RANK and LOCAL_WORLD_SIZE, or unset %s",
                            signs[i], signs[i]);
    }
    return CM_OK;
}

bool cm_world_told_elsewhere(void)
{
    struct cm_world outer = {0};
    for (size_t i = 0; i < LAUNCHER_COUNT; i++) {
        struct cm_world other = {0};
        if (read_direct(&launchers[i], &other) != CM_OK || other.size == 0)
            continue;
        if (outer.size == 0)
            outer = other;
        else if (other.size != outer.size) /* as on all processes that the outer one started */
            return outer.local_rank > 0;
    }
    return false;
}

enum cm_status cm_world_from_environment(struct cm_world *world)
{
    struct cm_world found = {0};
    for (size_t i = 0; i < LAUNCHER_COUNT; i++) {
        struct cm_world other = {0};
        enum cm_status status = read_direct(&launchers[i], &other);
        if (status != CM_OK)
            return status;
        if (other.size != 0 && found.size != 0 &&
            (other.rank != found.rank || other.size != found.size))
            return cm_error(
                CM_USAGE,
                "the environment tells rank %u of %u (%s) and rank %u of %u (%s); unset "
                "the one that did not start this process",
                found.rank, found.size, found.launcher, other.rank, other.size, other.launcher);
        if (found.size == 0)
            found = other;
    }
    if (found.size == 0) {
        enum cm_status status = read_slurm(&found);
        if (status != CM_OK)
            return status;
    }
    enum cm_status status = found.size == 0 ? look_for_signs() : check_step(&found);
    if (status != CM_OK)
        return status;
    const char *carried_by = getenv(CARRIED_BY);
    if (found.size != 0 && carried_by != NULL)
        snprintf(found.launcher, sizeof found.launcher, "%s", carried_by);
    if (found.size == 0)
        found = (struct cm_world){.size = 1, .local_size = 1, .launcher = "none"};
    *world = found;
    return CM_OK;
}

bool cm_world_has_mpi(const struct cm_world *world)
{
    char library[160] = "";
    if (getenv(CARRIED_BY) != NULL || strcmp(world->launcher, "mpirun") == 0 ||
        strcmp(world->launcher, "mpiexec") == 0)
        return true;
    if (strcmp(world->launcher, slurm.name) != 0)
        return false;
    if (getenv("PMIX_NAMESPACE") != NULL)
        return true;
    const struct cm_comm_ops *mpi = getenv("PMI_FD") != NULL ? cm_comm_find("mpi") : NULL;
    return mpi != NULL && mpi->available(library, sizeof library) &&
           strstr(library, "Open MPI") == NULL;
}

static bool starts_with_any(const char *text, const char *const *starts)
{
    for (; *starts != NULL; starts++) {
        if (strncmp(text, *starts, strlen(*starts)) == 0)
            return true;
    }
    return false;
}

/* By name and "=", or by how names begin. */
static bool of_a_launcher(const char *variable)
{
    static const char *const gone[] = {"RANK=",
                                       "WORLD_SIZE=",
                                       "LOCAL_RANK=",
                                       "LOCAL_WORLD_SIZE=",
                                       "GROUP_RANK=",
                                       "GROUP_WORLD_SIZE=",
                                       "ROLE_",
                                       "MASTER_ADDR=",
                                       "MASTER_PORT=",
                                       "TORCHELASTIC_",
                                       "JOB_COMPLETION_INDEX=",
                                       "MPI_LOCAL",
                                       "OMPI_COMM_WORLD_",
                                       "OMPI_UNIVERSE_SIZE=",
                                       "OMPI_APP_CTX",
                                       "OMPI_MCA_orte_",
                                       "OMPI_MCA_ess",
                                       "PMI_",
                                       "PMI2_",
                                       "PMIX_",
                                       "HYDI_",
                                       "SLURM_",
                                       NULL};
    /* What a job is, not what a step's process is: a result may tell of it. */
    static const char *const kept[] = {"SLURM_JOB_",
                                       "SLURM_CLUSTER_NAME=",
                                       "SLURM_NTASKS",
                                       "SLURM_CPUS_PER_TASK=",
                                       "SLURM_GPUS_ON_NODE=",
                                       "SLURM_TOPOLOGY_ADDR=",
                                       NULL};
    return starts_with_any(variable, gone) && !starts_with_any(variable, kept);
}

void cm_world_forget(const struct cm_world *world)
{
    extern char **environ;
    for (size_t i = 0; environ[i] != NULL;) {
        char name[128];
        size_t length = strcspn(environ[i], "=");
        if (!of_a_launcher(environ[i]) || length >= sizeof name) {
            i++;
            continue;
        }
        memcpy(name, environ[i], length);
        name[length] = '\0';
        unsetenv(name); /* the next one takes its place */
    }
    setenv(CARRIED_BY, world->launcher, 1);
}
