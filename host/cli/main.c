/* The program's entry: finds the subcommand. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "host/cli/cli.h"

/* A program that was started with a closed stdin, stdout or stderr must not find its files there.
 * Writes to the stand-in fail, as they would without it. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", O_RDONLY) != fd)
            _exit(cm_status_exit_code(CM_SYSTEM));
    }
}

int main(int argc, char **argv)
{
    fill_standard_descriptors();
    /* A reader that left and a file size limit are errors of the write, not the program's end. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
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
    return cm_cli_fail(cm_unknown_command(word));
}
