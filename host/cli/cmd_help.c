/* clustermark help, --help, --version. */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/measure.h"
#include "clustermark/workload.h"
#include "host/cli/cli.h"

#ifdef CM_REVISION
#define VERSION_TEXT "clustermark " CM_VERSION " (" CM_REVISION ")\n"
#else
#define VERSION_TEXT "clustermark " CM_VERSION "\n"
#endif

int cm_cmd_version(void)
{
    enum cm_status status = cm_cli_write(VERSION_TEXT, strlen(VERSION_TEXT));
    return status == CM_OK ? 0 : cm_cli_fail(status);
}

static void overview(struct cm_str *out)
{
    cm_str_add(out, "clustermark tells how fast this machine, or cluster, trains.\n\n"
                    "usage: clustermark COMMAND [options]\n\ncommands\n");
    for (const struct cm_command *row = cm_commands; row->name != NULL; row++) {
        if (row->summary != NULL)
            cm_str_addf(out, "  %-8s %s\n", row->name, row->summary);
    }
    cm_str_add(out, "\n'clustermark help COMMAND' shows a command's options, 'clustermark help "
                    "WORKLOAD' a\nworkload's. 'clustermark run' alone measures the suite "
                    "\"quick\".\n\nworkloads\n");
    for (const struct cm_workload *const *row = cm_workloads; *row != NULL; row++)
        cm_str_addf(out, "  %-11s %s\n", (*row)->name, (*row)->summary);
    cm_str_add(out,
               "\nexit codes\n"
               "  0 fine, 1 regression, 3 not decided (--strict), 4 not comparable,\n"
               "  5 a case failed or was wrong, 6 a metric is missing, 64 usage or bad input,\n"
               "  70 internal, 77 the asked-for device is absent, 130 interrupted\n");
}

static void workload_help(const struct cm_workload *workload, struct cm_str *out)
{
    cm_str_addf(out, "%s: %s\n\nkeys of a section with workload = %s\n", workload->name,
                workload->summary, workload->name);
    cm_option_help(workload->options, out);
    cm_str_add(out, "\nkeys of every section and of [global]\n");
    cm_option_help(cm_run_options, out);
    cm_str_addf(out,
                "\nA comma list in a value makes a sweep: a case per value. For sizes and counts, "
                "8..16MiB\nstands for 8, 16, 32 ... up to 16 MiB, and 8..16MiB*4 for 8, 32, "
                "128 ....\n");
    if (workload->needs & CM_NEEDS_PEERS)
        cm_str_add(out, "Needs at least two ranks; with one it is skipped.\n");
}

static enum cm_status unknown_topic(const char *word)
{
    const char *names[64] = {NULL};
    size_t count = 0;
    for (const struct cm_command *row = cm_commands; row->name != NULL && count < 63; row++) {
        if (row->summary != NULL)
            names[count++] = row->name;
    }
    for (size_t i = 0; cm_workloads[i] != NULL && count < 63; i++)
        names[count++] = cm_workloads[i]->name;
    const char *nearest = cm_cli_nearest(names, word);
    if (nearest != NULL)
        return cm_error(CM_USAGE, "no command or workload '%.60s'; did you mean %s?", word,
                        nearest);
    return cm_error(CM_USAGE, "no command or workload '%.60s'; 'clustermark --help' lists them",
                    word);
}

int cm_cmd_help(int argc, char **argv)
{
    struct cm_str out = CM_STR_INIT;
    const char *topic = argc > 1 ? argv[1] : NULL;
    if (argc > 2)
        return cm_cli_fail(cm_error(CM_USAGE, "help: one topic at a time"));
    if (topic == NULL || strcmp(topic, "help") == 0 || topic[0] == '-') {
        overview(&out);
    } else {
        char *arguments[] = {argv[1], (char[]){"--help"}, NULL};
        for (const struct cm_command *row = cm_commands; row->name != NULL; row++) {
            if (row->summary != NULL && strcmp(row->name, topic) == 0)
                return row->run(2, arguments);
        }
        const struct cm_workload *workload = cm_workload_find(topic);
        if (workload == NULL)
            return cm_cli_fail(unknown_topic(topic));
        workload_help(workload, &out);
    }
    enum cm_status status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status == CM_OK ? 0 : cm_cli_fail(status);
}
