/*
 * args.h: command lines from tables. One table per subcommand drives parsing and --help.
 *
 * Accepted: --name value, --name=value, -n value, -nvalue, flags without a value, operands in any
 * place, and -- before operands that begin with a dash. -h and --help are always known.
 */
#ifndef CM_CLI_ARGS_H
#define CM_CLI_ARGS_H

#include <stdbool.h>
#include <stdio.h>

#include "clustermark/option.h"
#include "clustermark/strbuf.h"

enum cm_arg_kind {
    CM_ARG_FLAG,  /* bool: set by being there */
    CM_ARG_MAYBE, /* const char *: "" when it stands alone, else what follows "=" */
    CM_ARG_WORD,  /* const char *: points into argv */
    CM_ARG_WORDS, /* struct cm_words: may be given several times */
    CM_ARG_VALUE  /* what option.type says, read by cm_option_set */
};

struct cm_words {
    const char **items; /* point into argv */
    size_t count, capacity;
};
void cm_words_release(struct cm_words *words);

struct cm_arg {
    enum cm_arg_kind kind;
    char letter;             /* 0: long name only */
    const char *value;       /* what the value is called in the help: "FILE" */
    struct cm_option option; /* name without dashes, offset, range, choices, help */
};

struct cm_arg_spec {
    const char *command;        /* "run" */
    const char *operands;       /* "[SUITE]" for the usage line */
    const char *summary;        /* a sentence */
    const char *details;        /* more text below the options, or NULL */
    const struct cm_arg *table; /* ends with a row whose option.name is NULL */
    size_t max_operands;
};

/* Fields that are not named keep what they have. Operands go to *operands, which the caller
 * releases whatever the status. *help is set when --help was seen; then nothing else counts. */
enum cm_status cm_args_parse(const struct cm_arg_spec *spec, int argc, char **argv, void *fields,
                             struct cm_words *operands, bool *help);

/* The --help of a subcommand. */
void cm_args_help(const struct cm_arg_spec *spec, struct cm_str *out);

#endif
