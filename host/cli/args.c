/* Command lines from tables. */
#include "host/cli/args.h"

#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"

#define ARGS_MAX 32

void cm_words_release(struct cm_words *words)
{
    cm_free(words->items);
    *words = (struct cm_words){0};
}

static enum cm_status words_add(struct cm_words *words, const char *text)
{
    if (cm_grow(&words->items, &words->capacity, words->count + 1, sizeof words->items[0]) != 0)
        return CM_NO_MEMORY;
    words->items[words->count++] = text;
    return CM_OK;
}

/* What is left of the command line, and where the current option's value may be. */
struct cursor {
    const struct cm_arg_spec *spec;
    int argc, index;
    char **argv;
    void *fields;
    struct cm_words *operands;
    bool help;
};

static const struct cm_arg *find_long(const struct cm_arg *table, const char *name, size_t length)
{
    for (; table->option.name != NULL; table++) {
        if (strlen(table->option.name) == length && memcmp(table->option.name, name, length) == 0)
            return table;
    }
    return NULL;
}

static const struct cm_arg *find_letter(const struct cm_arg *table, char letter)
{
    for (; table->option.name != NULL; table++) {
        if (table->letter == letter)
            return table;
    }
    return NULL;
}

static enum cm_status unknown(const struct cm_arg_spec *spec, const char *word, int length)
{
    struct cm_option names[ARGS_MAX + 2] = {{.name = "help"}};
    size_t count = 1;
    for (const struct cm_arg *arg = spec->table; arg->option.name != NULL && count <= ARGS_MAX;
         arg++)
        names[count++] = arg->option;
    names[count].name = NULL;
    char bare[64];
    const char *start = word + strspn(word, "-");
    snprintf(bare, sizeof bare, "%.*s", length - (int)(start - word), start);
    const char *nearest = word[1] == '-' ? cm_option_nearest(names, bare) : NULL;
    if (nearest != NULL)
        return cm_error(CM_USAGE, "%s: unknown option %.*s; did you mean --%s?", spec->command,
                        length, word, nearest);
    return cm_error(CM_USAGE, "%s: unknown option %.*s; 'clustermark %s --help' lists them",
                    spec->command, length, word, spec->command);
}

static enum cm_status store(const struct cursor *at, const struct cm_arg *arg, const char *value)
{
    char *field = (char *)at->fields + arg->option.offset;
    char where[64];
    switch (arg->kind) {
    case CM_ARG_FLAG:
        *(bool *)field = true;
        return CM_OK;
    case CM_ARG_MAYBE:
    case CM_ARG_WORD:
        memcpy(field, &value, sizeof value);
        return CM_OK;
    case CM_ARG_WORDS:
        return words_add((struct cm_words *)field, value);
    case CM_ARG_VALUE:
        break;
    }
    snprintf(where, sizeof where, "--%s", arg->option.name);
    return cm_option_set(&arg->option, value, where, at->fields);
}

/* An option's value is what follows it in the same word, or else the next word. */
static enum cm_status take(struct cursor *at, const struct cm_arg *arg, const char *attached)
{
    const char *command = at->spec->command;
    if (arg->kind == CM_ARG_FLAG) {
        if (attached != NULL)
            return cm_error(CM_USAGE, "%s: --%s takes no value", command, arg->option.name);
        return store(at, arg, NULL);
    }
    if (arg->kind == CM_ARG_MAYBE)
        return store(at, arg, attached != NULL ? attached : "");
    const char *value = attached;
    if (value == NULL && at->index + 1 < at->argc)
        value = at->argv[++at->index];
    if (value == NULL || value[0] == '\0')
        return cm_error(CM_USAGE, "%s: --%s needs a value: --%s %s", command, arg->option.name,
                        arg->option.name, arg->value);
    return store(at, arg, value);
}

static enum cm_status take_long(struct cursor *at, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t length = equals != NULL ? (size_t)(equals - word) : strlen(word);
    if (length == 6 && memcmp(word, "--help", 6) == 0) {
        at->help = true;
        return CM_OK;
    }
    const struct cm_arg *arg = find_long(at->spec->table, word + 2, length - 2);
    if (arg == NULL)
        return unknown(at->spec, word, length > 60 ? 60 : (int)length);
    return take(at, arg, equals != NULL ? equals + 1 : NULL);
}

/* "-qv" is "-q -v"; "-ofile" is "-o file". */
static enum cm_status take_letters(struct cursor *at, const char *word)
{
    for (const char *letter = word + 1; *letter != '\0'; letter++) {
        if (*letter == 'h') {
            at->help = true;
            return CM_OK;
        }
        const struct cm_arg *arg = find_letter(at->spec->table, *letter);
        if (arg == NULL)
            return unknown(at->spec, word, strlen(word) > 60 ? 60 : (int)strlen(word));
        if (arg->kind != CM_ARG_FLAG)
            return take(at, arg, letter[1] != '\0' ? letter + 1 : NULL);
        enum cm_status status = take(at, arg, NULL);
        if (status != CM_OK)
            return status;
    }
    return CM_OK;
}

static enum cm_status take_operand(struct cursor *at, const char *word)
{
    if (at->operands->count == at->spec->max_operands)
        return cm_error(CM_USAGE, "%s: unexpected argument '%.60s'; usage: clustermark %s %s",
                        at->spec->command, word, at->spec->command, at->spec->operands);
    return words_add(at->operands, word);
}

enum cm_status cm_args_parse(const struct cm_arg_spec *spec, int argc, char **argv, void *fields,
                             struct cm_words *operands, bool *help)
{
    struct cursor at = {.spec = spec,
                        .argc = argc,
                        .index = 1,
                        .argv = argv,
                        .fields = fields,
                        .operands = operands};
    bool rest = false;
    enum cm_status status = CM_OK;
    for (; status == CM_OK && at.index < argc && !at.help; at.index++) {
        const char *word = argv[at.index];
        if (rest || word[0] != '-' || word[1] == '\0')
            status = take_operand(&at, word);
        else if (strcmp(word, "--") == 0)
            rest = true;
        else if (word[1] == '-')
            status = take_long(&at, word);
        else
            status = take_letters(&at, word);
    }
    if (status == CM_OK)
        *help = at.help;
    return status;
}

static void help_row(struct cm_str *out, char letter, const char *name, const char *value,
                     const char *help)
{
    char left[64];
    char shortened[8] = "    ";
    if (letter != 0)
        snprintf(shortened, sizeof shortened, "-%c, ", letter);
    snprintf(left, sizeof left, "%s--%s%s%s", shortened, name,
             value[0] && value[0] != '[' ? " " : "", value);
    cm_str_addf(out, "  %-30s %s\n", left, help);
}

void cm_args_help(const struct cm_arg_spec *spec, struct cm_str *out)
{
    cm_str_addf(out, "usage: clustermark %s%s%s [options]\n\n%s\n\noptions\n", spec->command,
                spec->operands[0] ? " " : "", spec->operands, spec->summary);
    for (const struct cm_arg *arg = spec->table; arg->option.name != NULL; arg++)
        help_row(out, arg->letter, arg->option.name, arg->value != NULL ? arg->value : "",
                 arg->option.help);
    help_row(out, 'h', "help", "", "this text");
    if (spec->details != NULL)
        cm_str_addf(out, "\n%s\n", spec->details);
}
