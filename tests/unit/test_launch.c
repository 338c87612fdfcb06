/* The launch command: where the launcher is found and what it is told; the tables of backends; the
 * end of a foreign call that hangs. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/comm.h"
#include "clustermark/deadline.h"
#include "clustermark/device.h"
#include "clustermark/module.h"
#include "host/comm/module.h"
#include "test.h"

static char folder[] = "/tmp/clustermark-launch-XXXXXX";

static void make_file(const char *name, mode_t mode)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

static void remove_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    remove(path);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    remove_file("mpiexec");
    remove_file("mpirun");
    remove_file("copy");
    remove_file("clustermark-mpi.so");
    return rmdir(folder);
}

static const char *value_of(const struct cm_launch *launch, const char *name)
{
    for (size_t i = 0; launch->environment[i] != NULL; i += 2)
        if (strcmp(launch->environment[i], name) == 0)
            return launch->environment[i + 1];
    return NULL;
}

static void test_command(void **state)
{
    (void)state;
    struct cm_launch launch;
    char path[256], expected[128];
    make_file("mpiexec", 0755);
    make_file("mpirun", 0644); /* not executable: passed over */
    snprintf(path, sizeof path, ":/nonexistent:%s:/usr/bin", folder);
    setenv("PATH", folder, 1);
    assert_ok(cm_launch_command(12, &launch));
    snprintf(expected, sizeof expected, "%s/mpiexec", folder);
    assert_string_equal(launch.argv[0], expected);
    assert_string_equal(launch.argv[1], "-n");
    assert_string_equal(launch.argv[2], "12");
    assert_null(launch.argv[3]);
    make_file("mpirun", 0755);
    setenv("PATH", path, 1);
    assert_ok(cm_launch_command(1, &launch));
    snprintf(expected, sizeof expected, "%s/mpirun", folder);
    assert_string_equal(launch.argv[0], expected);
    assert_string_equal(launch.argv[2], "1");
    assert_status(cm_launch_command(0, &launch), CM_USAGE, "at least 1");
}

/* Over nodes, by a remote shell of the caller's. */
static void test_nodes(void **state)
{
    (void)state;
    struct cm_launch launch;
    const struct cm_launch_nodes nodes = {
        .hosts = "a:2,b:1", .agent_program = "/opt/clustermark", .agent_words = "carry-start x"};
    make_file("mpirun", 0755);
    setenv("PATH", folder, 1);
    setenv("OMPI_MCA_plm", "slurm", 1); /* the user's, which would lead elsewhere */
    assert_ok(cm_launch_command_on(3, &nodes, &launch));
    unsetenv("OMPI_MCA_plm");
    assert_string_equal(launch.argv[1], "-host");
    assert_string_equal(launch.argv[2], "a:2,b:1");
    assert_string_equal(launch.argv[3], "-n");
    assert_string_equal(launch.argv[4], "3");
    assert_null(launch.argv[5]);
    assert_string_equal(value_of(&launch, "OMPI_MCA_plm"), "rsh");
    assert_string_equal(value_of(&launch, "OMPI_MCA_plm_rsh_agent"),
                        "/opt/clustermark carry-start x");
    assert_string_equal(value_of(&launch, "HYDRA_LAUNCHER_EXEC"), "/opt/clustermark");
    assert_string_equal(value_of(&launch, "HYDRA_LAUNCHER_EXTRA_ARGS"), "carry-start x");
    assert_null(value_of(&launch, "OMPI_MCA_mpi_yield_when_idle"));
}

/* Open MPI takes a launcher in /bin for one whose parts lie in the root folder. */
static void test_linked_folder(void **state)
{
    (void)state;
    struct cm_launch launch;
    char link[256], expected[128];
    make_file("mpirun", 0755);
    snprintf(link, sizeof link, "%s/link", folder);
    assert_int_equal(symlink(folder, link), 0);
    setenv("PATH", link, 1);
    enum cm_status status = cm_launch_command(1, &launch);
    unlink(link);
    assert_ok(status);
    snprintf(expected, sizeof expected, "%s/mpirun", folder);
    assert_string_equal(launch.argv[0], expected);
}

static void test_environment(void **state)
{
    (void)state;
    struct cm_launch launch;
    make_file("mpirun", 0755);
    setenv("PATH", folder, 1);
    unsetenv("OMPI_MCA_hwloc_base_binding_policy");
    unsetenv("OMPI_MCA_mpi_yield_when_idle");
    unsetenv("OMPI_ALLOW_RUN_AS_ROOT");
    assert_ok(cm_launch_command(100000, &launch));
    assert_string_equal(value_of(&launch, "OMPI_MCA_hwloc_base_binding_policy"), "none");
    assert_string_equal(value_of(&launch, "OMPI_MCA_rmaps_base_oversubscribe"), "1");
    assert_string_equal(value_of(&launch, "PRTE_MCA_rmaps_default_mapping_policy"),
                        ":oversubscribe");
    assert_string_equal(value_of(&launch, "OMPI_MCA_mpi_yield_when_idle"), "1");
    assert_int_equal(value_of(&launch, "OMPI_ALLOW_RUN_AS_ROOT") != NULL, geteuid() == 0);
    /* One rank has a core of its own. */
    assert_ok(cm_launch_command(1, &launch));
    assert_null(value_of(&launch, "OMPI_MCA_mpi_yield_when_idle"));
    /* The user's word stays. */
    setenv("OMPI_MCA_hwloc_base_binding_policy", "core", 1);
    assert_ok(cm_launch_command(1, &launch));
    assert_null(value_of(&launch, "OMPI_MCA_hwloc_base_binding_policy"));
}

static void test_library_name(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4",
         "Open MPI 4.1.4"},
        {"Open MPI v5.0.3", "Open MPI 5.0.3"},
        {"MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7", "MPICH 4.0.2"},
        {"MPICH Version:      4.2.0\n", "MPICH 4.2.0"},
        {"Intel(R) MPI Library 2021.8 for Linux* OS\n", "Intel(R) MPI Library 2021.8"},
        {"MVAPICH2 Version      :\t2.3.7\n", "MVAPICH2 2.3.7"},
        {"something vague", "something vague"},
        {"", ""},
    };
    char name[64];
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        cm_mpi_library_name(pairs[i][0], name, sizeof name);
        assert_string_equal(name, pairs[i][1]);
    }
    cm_mpi_library_name(pairs[0][0], name, 6);
    assert_string_equal(name, "Open");
}

static void test_backends(void **state)
{
    (void)state;
    static const struct cm_device_ops cpu = {.name = "cpu", .comm = "mpi"},
                                      cuda = {.name = "cuda", .comm = "nccl"};
    assert_string_equal(cm_comm_default(&cpu, 1), "self");
    assert_string_equal(cm_comm_default(&cuda, 1), "self");
    assert_string_equal(cm_comm_default(&cpu, 2), "mpi");
    assert_string_equal(cm_comm_default(&cuda, 8), "nccl");
    for (size_t i = 0; cm_comm_names[i] != NULL; i++) {
        const struct cm_comm_ops *ops = cm_comm_find(cm_comm_names[i]);
        assert_int_equal(ops == NULL, cm_comm_missing(cm_comm_names[i]) != NULL);
        if (ops != NULL)
            assert_string_equal(ops->name, cm_comm_names[i]);
    }
    assert_null(cm_comm_find("telepathy"));
    assert_non_null(strstr(cm_comm_missing("telepathy"), "no backend of that name"));
}

/* A copy of this program, beside a file that is no module. */
static void test_bad_module(void **state)
{
    (void)state;
    char command[512], text[512] = "";
    make_file("clustermark-mpi.so", 0644);
    snprintf(command, sizeof command, "cp /proc/%d/exe %s/copy && %s/copy missing", (int)getpid(),
             folder, folder);
    setenv("PATH", "/usr/bin:/bin", 1);
    FILE *output = popen(command, "r");
    assert_non_null(output);
    assert_true(fread(text, 1, sizeof text - 1, output) > 0);
    assert_int_equal(pclose(output), 0);
    if (cm_comm_find("mpi") == NULL) /* a build without it says so whatever lies there */
        assert_string_equal(text, cm_comm_missing("mpi"));
    else if (strstr(text, "MPI cannot be used: ") == NULL || strstr(text, folder) == NULL ||
             strchr(text, '\n') != NULL)
        fail_msg("\"%s\"", text);
}

static void test_deadline(void **state)
{
    (void)state;
    struct cm_deadline *deadline;
    assert_ok(cm_deadline_begin(60, "never seen", &deadline));
    assert_non_null(deadline);
    cm_deadline_end(deadline);
    assert_ok(cm_deadline_begin(0, "never seen", &deadline));
    assert_null(deadline);
    cm_deadline_end(deadline);

    int output[2], status = 0;
    assert_int_equal(pipe(output), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(output[1], STDERR_FILENO);
        if (cm_deadline_begin(0.01, "it took too long", &deadline) == CM_OK)
            pause();
        _exit(0);
    }
    close(output[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), cm_status_exit_code(CM_TIMEOUT));
    char text[64] = "";
    assert_true(read(output[0], text, sizeof text - 1) > 0);
    assert_string_equal(text, "clustermark: it took too long\n");
    close(output[0]);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "missing") == 0) {
        fputs(cm_comm_missing("mpi"), stdout);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command),       cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_linked_folder), cmocka_unit_test(test_environment),
        cmocka_unit_test(test_library_name),  cmocka_unit_test(test_backends),
        cmocka_unit_test(test_bad_module),    cmocka_unit_test(test_deadline),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
