/* What the subcommands share: errors, output, the terminal. */
#include "host/cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/option.h"

const char *const cm_color_names[] = {"auto", "always", "never", NULL};

int cm_cli_fail(enum cm_status status)
{
    char line[CM_ERROR_TEXT_MAX];
    const char *text = cm_error_text();
    snprintf(line, sizeof line, "%s", text[0] != '\0' ? text : cm_status_text(status));
    for (char *at = line; *at != '\0'; at++) { /* it may quote a strange file */
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    }
    fprintf(stderr, "clustermark: %s\n", line);
    return cm_status_exit_code(status);
}

enum cm_status cm_cli_write(const char *text, size_t length)
{
    errno = 0;
    if (fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0 || ferror(stdout))
        return cm_error_errno(CM_IO, "cannot write to standard output");
    return CM_OK;
}

enum cm_status cm_cli_write_str(const struct cm_str *text)
{
    enum cm_status status = cm_str_status(text);
    return status != CM_OK ? status : cm_cli_write(cm_str_text(text), text->length);
}

enum cm_status cm_cli_add_document(const json_t *document, struct cm_str *out)
{
    char *text = NULL;
    enum cm_status status = cm_json_dump(document, 1, &text);
    if (status != CM_OK)
        return status;
    size_t length = strlen(text);
    cm_str_addf(out, "%s%s", text, length > 0 && text[length - 1] == '\n' ? "" : "\n");
    cm_free(text);
    return cm_str_status(out);
}

enum cm_status cm_cli_write_document(const json_t *document)
{
    struct cm_str out = CM_STR_INIT;
    enum cm_status status = cm_cli_add_document(document, &out);
    if (status == CM_OK)
        status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

enum cm_status cm_cli_output(const char *path, const struct cm_str *text)
{
    enum cm_status status = cm_str_status(text);
    if (status != CM_OK)
        return status;
    if (path == NULL || strcmp(path, "-") == 0)
        return cm_cli_write_str(text);
    return cm_file_replace(path, cm_str_text(text), text->length);
}

enum cm_status cm_cli_help(const struct cm_arg_spec *spec)
{
    struct cm_str out = CM_STR_INIT;
    cm_args_help(spec, &out);
    enum cm_status status = cm_cli_write_str(&out);
    cm_str_release(&out);
    return status;
}

int cm_cli_command(const struct cm_arg_spec *spec, int argc, char **argv, void *fields,
                   enum cm_status (*act)(const void *fields, const struct cm_words *operands))
{
    struct cm_words operands = {.items = NULL};
    bool help = false;
    enum cm_status status = cm_args_parse(spec, argc, argv, fields, &operands, &help);
    if (status == CM_OK)
        status = help ? cm_cli_help(spec) : act(fields, &operands);
    int code = status == CM_OK ? 0 : cm_cli_fail(status);
    for (const struct cm_arg *arg = spec->table; arg->option.name != NULL; arg++) {
        if (arg->kind == CM_ARG_WORDS)
            cm_words_release((struct cm_words *)((char *)fields + arg->option.offset));
    }
    cm_words_release(&operands);
    return code;
}

bool cm_cli_color(int when, FILE *stream)
{
    if (when != CM_COLOR_AUTO)
        return when == CM_COLOR_ALWAYS;
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    if (no_color != NULL && no_color[0] != '\0')
        return false;
    if (term != NULL && strcmp(term, "dumb") == 0)
        return false;
    return isatty(fileno(stream)) != 0;
}

bool cm_cli_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0')
            return strcasestr(value, "utf-8") != NULL || strcasestr(value, "utf8") != NULL;
    }
    return false;
}

int cm_cli_width(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize window;
    long width = 0;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0)
        width = window.ws_col;
    if (width == 0 && columns != NULL)
        width = strtol(columns, NULL, 10);
    return width >= 40 && width <= 500 ? (int)width : 100;
}

struct cm_report_style cm_cli_style(int color)
{
    return (struct cm_report_style){
        .color = cm_cli_color(color, stdout), .utf8 = cm_cli_utf8(), .width = cm_cli_width()};
}

const char *cm_cli_nearest(const char *const *names, const char *name)
{
    struct cm_option rows[65] = {{.name = NULL}};
    for (size_t i = 0; i < 64 && names[i] != NULL; i++)
        rows[i].name = names[i];
    return cm_option_nearest(rows, name);
}
