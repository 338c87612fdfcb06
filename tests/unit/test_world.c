/* The world as launchers' environments tell it, and what contradicts itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clustermark/comm.h"
#include "test.h"

#define PAIRS_MAX 20

static const char *const all_names[] = {"OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_LOCAL_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "MPI_LOCALRANKID",
                                        "MPI_LOCALNRANKS",
                                        "PMI_LOCAL_RANK",
                                        "PMI_LOCAL_SIZE",
                                        "RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_RANK",
                                        "LOCAL_WORLD_SIZE",
                                        "SLURM_PROCID",
                                        "SLURM_NTASKS",
                                        "SLURM_LOCALID",
                                        "SLURM_NODEID",
                                        "SLURM_STEP_ID",
                                        "SLURM_STEP_TASKS_PER_NODE",
                                        "PMIX_RANK",
                                        "FLUX_TASK_RANK",
                                        "JOB_COMPLETION_INDEX",
                                        "PMI_JOBID",
                                        "PMI_FD",
                                        "PMIX_NAMESPACE",
                                        "CLUSTERMARK_LAUNCHER"};

struct sample {
    const char *pairs[PAIRS_MAX]; /* name, value, ... */
    struct cm_world world;        /* where it is sound */
    const char *error;            /* part of the message where it is not */
};

static const struct sample samples[] = {
    {{NULL}, {0, 1, 0, 1, "none", false}, NULL},
    {{"OMPI_COMM_WORLD_RANK", "5", "OMPI_COMM_WORLD_SIZE", "8", "OMPI_COMM_WORLD_LOCAL_RANK", "1",
      "OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
     {5, 8, 1, 4, "mpirun", false},
     NULL},
    {{"PMI_RANK", "3", "PMI_SIZE", "4", "MPI_LOCALRANKID", "1", "MPI_LOCALNRANKS", "2"},
     {3, 4, 1, 2, "mpiexec", false},
     NULL},
    {{"PMI_RANK", "3", "PMI_SIZE", "4", "PMI_LOCAL_RANK", "0", "PMI_LOCAL_SIZE", "1"},
     {3, 4, 0, 1, "mpiexec", false},
     NULL},
    {{"RANK", "9", "WORLD_SIZE", "16", "LOCAL_RANK", "1", "LOCAL_WORLD_SIZE", "8"},
     {9, 16, 1, 8, "torchrun", false},
     NULL},
    /* Not told where: one node. */
    {{"RANK", "2", "WORLD_SIZE", "3"}, {2, 3, 2, 3, "torchrun", false}, NULL},
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "6", "SLURM_NTASKS", "7", "SLURM_LOCALID", "0",
      "SLURM_NODEID", "3", "SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
     {6, 7, 0, 1, "srun", false},
     NULL},
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "3", "SLURM_NTASKS", "7", "SLURM_LOCALID", "1",
      "SLURM_NODEID", "1", "SLURM_STEP_TASKS_PER_NODE", "2(x3),1"},
     {3, 7, 1, 2, "srun", false},
     NULL},
    /* A shell in an allocation, and a batch script, are no ranks. */
    {{"SLURM_NTASKS", "4"}, {0, 1, 0, 1, "none", false}, NULL},
    {{"SLURM_NTASKS", "4", "SLURM_PROCID", "0", "SLURM_LOCALID", "0"},
     {0, 1, 0, 1, "none", false},
     NULL},
    {{"SLURM_NTASKS", "4", "SLURM_STEP_ID", "0"}, {0, 1, 0, 1, "none", false}, NULL},
    /* Slurm started what started this process. */
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "1", "SLURM_NTASKS", "2", "RANK", "3", "WORLD_SIZE",
      "4"},
     {3, 4, 3, 4, "torchrun", false},
     NULL},
    {{"PMIX_RANK", "1", "OMPI_COMM_WORLD_RANK", "1", "OMPI_COMM_WORLD_SIZE", "2"},
     {1, 2, 1, 2, "mpirun", false},
     NULL},
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "1", "SLURM_NTASKS", "2", "OMPI_COMM_WORLD_RANK", "3",
      "OMPI_COMM_WORLD_SIZE", "4"},
     {3, 4, 3, 4, "mpirun", false},
     NULL},
    /* Two that agree. */
    {{"OMPI_COMM_WORLD_RANK", "1", "OMPI_COMM_WORLD_SIZE", "2", "RANK", "1", "WORLD_SIZE", "2"},
     {1, 2, 1, 2, "mpirun", false},
     NULL},

    /* A pod of an Indexed Job is a node; what it starts may be numbered anew. */
    {{"JOB_COMPLETION_INDEX", "3", "WORLD_SIZE", "4"}, {3, 4, 0, 1, "kubernetes", false}, NULL},
    {{"JOB_COMPLETION_INDEX", "1", "RANK", "9", "WORLD_SIZE", "16", "LOCAL_RANK", "1",
      "LOCAL_WORLD_SIZE", "8"},
     {9, 16, 1, 8, "torchrun", false},
     NULL},
    {{"JOB_COMPLETION_INDEX", "1", "OMPI_COMM_WORLD_RANK", "0", "OMPI_COMM_WORLD_SIZE", "2"},
     {0},
     "JOB_COMPLETION_INDEX is in the environment, but WORLD_SIZE is not"},
    /* srun --mpi=pmi2 tells the place in Slurm's words alone; mpiexec within srun is mpiexec. */
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "3", "SLURM_NTASKS", "4", "SLURM_LOCALID", "1",
      "SLURM_NODEID", "1", "SLURM_STEP_TASKS_PER_NODE", "2(x2)", "PMI_RANK", "3", "PMI_SIZE", "4",
      "PMI_JOBID", "7.0"},
     {3, 4, 1, 2, "srun", false},
     NULL},
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "1", "SLURM_NTASKS", "2", "PMI_RANK", "3", "PMI_SIZE",
      "4", "MPI_LOCALRANKID", "1", "MPI_LOCALNRANKS", "2"},
     {3, 4, 1, 2, "mpiexec", false},
     NULL},
    /* Carried: mpirun's place, the outer launcher's name. */
    {{"OMPI_COMM_WORLD_RANK", "5", "OMPI_COMM_WORLD_SIZE", "8", "OMPI_COMM_WORLD_LOCAL_RANK", "1",
      "OMPI_COMM_WORLD_LOCAL_SIZE", "4", "CLUSTERMARK_LAUNCHER", "srun"},
     {5, 8, 1, 4, "srun", false},
     NULL},
    {{"CLUSTERMARK_LAUNCHER", "srun"}, {0, 1, 0, 1, "none", false}, NULL},

    {{"OMPI_COMM_WORLD_RANK", "4", "OMPI_COMM_WORLD_SIZE", "4"},
     {0},
     "OMPI_COMM_WORLD_RANK is 4 and OMPI_COMM_WORLD_SIZE is 4"},
    {{"RANK", "0", "WORLD_SIZE", "0"}, {0}, "WORLD_SIZE is 0"},
    {{"RANK", "one", "WORLD_SIZE", "2"}, {0}, "RANK is \"one\""},
    {{"RANK", "1 ", "WORLD_SIZE", "2"}, {0}, "must be a number"},
    {{"RANK", "", "WORLD_SIZE", "2"}, {0}, "RANK is \"\""},
    {{"RANK", "-1", "WORLD_SIZE", "2"}, {0}, "RANK is \"-1\""},
    {{"RANK", "1", "WORLD_SIZE", "99999999999999999999"}, {0}, "WORLD_SIZE is \"999"},
    {{"PMI_RANK", "1"}, {0}, "PMI_RANK is in the environment, but PMI_SIZE is not"},
    {{"PMI_SIZE", "2"}, {0}, "PMI_SIZE is in the environment, but PMI_RANK is not"},
    {{"RANK", "1", "WORLD_SIZE", "2", "LOCAL_RANK", "2", "LOCAL_WORLD_SIZE", "2"},
     {0},
     "local rank 2 of 2"},
    {{"RANK", "1", "WORLD_SIZE", "2", "LOCAL_RANK", "2", "LOCAL_WORLD_SIZE", "4"},
     {0},
     "in a world of 2 ranks"},
    {{"RANK", "1", "WORLD_SIZE", "2", "LOCAL_RANK", "x"}, {0}, "LOCAL_RANK is \"x\""},
    {{"RANK", "1", "WORLD_SIZE", "2", "OMPI_COMM_WORLD_RANK", "1", "OMPI_COMM_WORLD_SIZE", "4"},
     {0},
     "rank 1 of 4 (mpirun) and rank 1 of 2 (torchrun)"},
    {{"PMI_RANK", "0", "PMI_SIZE", "2", "OMPI_COMM_WORLD_RANK", "1", "OMPI_COMM_WORLD_SIZE", "2"},
     {0},
     "rank 1 of 2 (mpirun) and rank 0 of 2 (mpiexec)"},
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "1"}, {0}, "SLURM_NTASKS is not"},
    /* Several runs of fewer ranks than were started, each as if it were all. */
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "1", "SLURM_NTASKS", "4", "RANK", "0", "WORLD_SIZE",
      "1"},
     {0},
     "srun started 4 tasks, but the environment tells each a world of 1 (torchrun)"},
    {{"PMIX_RANK", "1"}, {0}, "PMIX_RANK is in the environment"},
    {{"FLUX_TASK_RANK", "0", "SLURM_NTASKS", "4"}, {0}, "FLUX_TASK_RANK is in the environment"},
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "1", "SLURM_NTASKS", "4", "SLURM_LOCALID", "0",
      "SLURM_NODEID", "5", "SLURM_STEP_TASKS_PER_NODE", "2(x2)"},
     {0},
     "tells nothing of node 5"},
    {{"SLURM_STEP_ID", "0", "SLURM_PROCID", "1", "SLURM_NTASKS", "4", "SLURM_LOCALID", "0",
      "SLURM_NODEID", "0", "SLURM_STEP_TASKS_PER_NODE", "junk"},
     {0},
     "\"junk\""},
};

static void forget_all(void)
{
    for (size_t k = 0; k < sizeof all_names / sizeof *all_names; k++)
        unsetenv(all_names[k]);
}

static void test_environments(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const struct sample *sample = &samples[i];
        forget_all();
        for (size_t k = 0; k < PAIRS_MAX && sample->pairs[k] != NULL; k += 2)
            setenv(sample->pairs[k], sample->pairs[k + 1], 1);
        struct cm_world world = {.rank = 77, .launcher = "untouched"};
        if (sample->error != NULL) {
            assert_status(cm_world_from_environment(&world), CM_USAGE, sample->error);
            assert_int_equal(world.rank, 77);
            assert_string_equal(world.launcher, "untouched");
            continue;
        }
        assert_ok(cm_world_from_environment(&world));
        if (world.rank != sample->world.rank || world.size != sample->world.size ||
            world.local_rank != sample->world.local_rank ||
            world.local_size != sample->world.local_size)
            fail_msg("row %zu: rank %u of %u, local %u of %u", i, world.rank, world.size,
                     world.local_rank, world.local_size);
        assert_string_equal(world.launcher, sample->world.launcher);
    }
}

/* Who keeps silent because another process of its node fails alike. */
static void test_told_elsewhere(void **state)
{
    (void)state;
    static const struct {
        const char *rank, *inner_rank, *inner_size;
        bool elsewhere;
    } rows[] = {
        {"0", "0", "1", false}, /* this one tells it */
        {"1", "0", "1", true},
        {"1", "0", "4", false}, /* the first one may be well */
        {"1", "x", "4", false},
    };
    forget_all();
    assert_false(cm_world_told_elsewhere());
    setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cm_world world;
        setenv("OMPI_COMM_WORLD_RANK", rows[i].rank, 1);
        setenv("RANK", rows[i].inner_rank, 1);
        setenv("WORLD_SIZE", rows[i].inner_size, 1);
        assert_int_equal(cm_world_from_environment(&world), CM_USAGE);
        assert_int_equal(cm_world_told_elsewhere(), rows[i].elsewhere);
    }
}

/* Which launchers let MPI find its world. */
static void test_mpi(void **state)
{
    (void)state;
    static const struct {
        const char *launcher, *variable;
        bool has;
    } rows[] = {
        {"mpirun", NULL, true},
        {"mpiexec", NULL, true},
        {"torchrun", NULL, false},
        {"kubernetes", NULL, false},
        {"srun", NULL, false},
        {"srun", "PMIX_NAMESPACE", true},
        {"torchrun", "PMIX_NAMESPACE", false},
        {"torchrun", "CLUSTERMARK_LAUNCHER", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cm_world world = {.size = 2};
        snprintf(world.launcher, sizeof world.launcher, "%s", rows[i].launcher);
        forget_all();
        if (rows[i].variable != NULL)
            setenv(rows[i].variable, "x", 1);
        assert_int_equal(cm_world_has_mpi(&world), rows[i].has);
    }
    /* PMI: not where the library is Open MPI. */
    char library[160] = "";
    struct cm_world world = {.size = 2, .launcher = "srun"};
    const struct cm_comm_ops *mpi = cm_comm_find("mpi");
    forget_all();
    setenv("PMI_FD", "11", 1);
    bool other = mpi != NULL && mpi->available(library, sizeof library) &&
                 strncmp(library, "Open MPI", 8) != 0;
    assert_int_equal(cm_world_has_mpi(&world), other);
}

static void test_forget(void **state)
{
    (void)state;
    static const char *const gone[] = {
        "RANK",           "WORLD_SIZE",     "MASTER_ADDR", "SLURM_PROCID",         "SLURM_STEP_ID",
        "SLURM_NODELIST", "PMIX_NAMESPACE", "PMI_FD",      "JOB_COMPLETION_INDEX", "OMPI_MCA_ess"};
    static const char *const kept[] = {"OMPI_MCA_btl", "SLURM_JOB_ID", "SLURM_CPUS_PER_TASK",
                                       "RANKS",        "PATH",         "NCCL_DEBUG"};
    struct cm_world world = {.rank = 1, .size = 2, .launcher = "torchrun"};
    forget_all();
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++)
        setenv(gone[i], "1", 1);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        setenv(kept[i], "1", 1);
    cm_world_forget(&world);
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++)
        assert_null(getenv(gone[i]));
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        assert_string_equal(getenv(kept[i]), "1");
    assert_string_equal(getenv("CLUSTERMARK_LAUNCHER"), "torchrun");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_environments),
                                       cmocka_unit_test(test_told_elsewhere),
                                       cmocka_unit_test(test_mpi), cmocka_unit_test(test_forget)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
