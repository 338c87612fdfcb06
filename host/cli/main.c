/* The program's entry: finds the subcommand. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/measure.h"
#include "host/cli/cli.h"

const struct cm_command cm_commands[] = {
    {"run", "measure a suite on every rank and write a result file", cm_cmd_run},
    {"topo", "map this machine, or a recorded one", cm_cmd_topo},
    {"list", "workloads, devices and suites", cm_cmd_list},
    {"help", "how to use a command, or what a workload's options are", cm_cmd_help},
    {"rank", NULL, cm_rank_main},
    {NULL, NULL, NULL},
};

/* A program that was started with a closed stdin, stdout or stderr must not find its files there.
 * Writes to the stand-in fail, as they would without it. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", O_RDONLY) != fd)
            _exit(cm_status_exit_code(CM_SYSTEM));
    }
}

static enum cm_status unknown_command(const char *word)
{
    const char *names[16] = {NULL};
    size_t count = 0;
    for (const struct cm_command *row = cm_commands; row->name != NULL && count < 15; row++) {
        if (row->summary != NULL)
            names[count++] = row->name;
    }
    const char *nearest = cm_cli_nearest(names, word);
    if (nearest != NULL)
        return cm_error(CM_USAGE, "unknown command '%.60s'; did you mean %s?", word, nearest);
    return cm_error(CM_USAGE, "unknown command '%.60s'; 'clustermark --help' lists them", word);
}

int main(int argc, char **argv)
{
    fill_standard_descriptors();
    signal(SIGPIPE, SIG_IGN);
    cm_json_init();
    if (argc < 2)
        return cm_cli_fail(
            cm_error(CM_USAGE, "no command given; try 'clustermark run' or 'clustermark --help'"));
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return cm_cmd_help(1, argv + 1);
    if (strcmp(word, "--version") == 0)
        return cm_cmd_version();
    for (const struct cm_command *row = cm_commands; row->name != NULL; row++) {
        if (strcmp(row->name, word) == 0)
            return row->run(argc - 1, argv + 1);
    }
    return cm_cli_fail(unknown_command(word));
}
