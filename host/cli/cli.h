/*
 * cli.h: what the subcommands share.
 *
 * A subcommand gets argv with its own name as argv[0] and returns the exit code of the program.
 * Data goes to stdout, everything else to stderr. An error is one line, written by cm_cli_fail.
 */
#ifndef CM_CLI_CLI_H
#define CM_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "clustermark/result.h"
#include "clustermark/status.h"
#include "clustermark/strbuf.h"
#include "host/cli/args.h"

struct cm_command {
    const char *name;
    const char *summary; /* NULL: not for users, left out of the help */
    int (*run)(int argc, char **argv);
};
/* Ends with a row whose name is NULL. */
extern const struct cm_command cm_commands[];
/* Records that there is no such subcommand, and which one may be meant. */
enum cm_status cm_unknown_command(const char *word);

int cm_cmd_run(int argc, char **argv);
int cm_cmd_topo(int argc, char **argv);
int cm_cmd_compare(int argc, char **argv);
int cm_cmd_gate(int argc, char **argv);
int cm_cmd_list(int argc, char **argv);
int cm_cmd_report(int argc, char **argv);
int cm_cmd_history(int argc, char **argv);
int cm_cmd_export(int argc, char **argv);
int cm_cmd_import(int argc, char **argv);
int cm_cmd_project(int argc, char **argv);
int cm_cmd_help(int argc, char **argv);
int cm_cmd_version(void);

/* Write the recorded error of `status` as "clustermark: ..." on stderr; its exit code. */
int cm_cli_fail(enum cm_status status);

/* Write data to stdout and make sure that it got there: a full disk or a closed pipe is CM_IO. */
enum cm_status cm_cli_write(const char *text, size_t length);
enum cm_status cm_cli_write_str(const struct cm_str *text);

/* Write a whole file, or stdout for NULL and "-". */
enum cm_status cm_cli_output(const char *path, const struct cm_str *text);

/* A JSON document, indented: into `out`, or written. */
enum cm_status cm_cli_add_document(const json_t *document, struct cm_str *out);
enum cm_status cm_cli_write_document(const json_t *document);

/* Write a subcommand's --help. */
enum cm_status cm_cli_help(const struct cm_arg_spec *spec);

/* A subcommand from its command line to its exit code: `act` gets the fields, which begin as they
 * are, and the operands; what was allocated for either is released. --help and errors are dealt
 * with here. */
int cm_cli_command(const struct cm_arg_spec *spec, int argc, char **argv, void *fields,
                   enum cm_status (*act)(const void *fields, const struct cm_words *operands));

/* --color: whether to colour what goes to `stream`. `never`, or `auto` with NO_COLOR set, with
 * TERM=dumb or without a terminal: no. */
enum cm_color { CM_COLOR_AUTO, CM_COLOR_ALWAYS, CM_COLOR_NEVER };
extern const char *const cm_color_names[];
bool cm_cli_color(int when, FILE *stream);
/* The row of --color in a table of arguments; `at` gives the offset of its int. */
#define CM_COLOR_ARG(at)                                                                           \
    {                                                                                              \
        .kind = CM_ARG_VALUE, .value = "WHEN", .option = {                                         \
            .name = "color",                                                                       \
            .type = CM_OPTION_CHOICE,                                                              \
            at,                                                                                    \
            .choices = cm_color_names,                                                             \
            .help = "auto, always or never"                                                        \
        }                                                                                          \
    }

/* Whether the locale's characters are UTF-8; how many columns stdout has (100 when it is not a
 * terminal and COLUMNS says nothing). */
bool cm_cli_utf8(void);
int cm_cli_width(void);
/* All three, for what goes to stdout. */
struct cm_report_style cm_cli_style(int color);

/* The name nearest to a misspelt one in a list of names that ends with NULL; NULL when none is
 * near. */
const char *cm_cli_nearest(const char *const *names, const char *name);

#endif
