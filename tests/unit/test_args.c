/* Command lines from tables: every form that is accepted, every mistake and its message. */
#include <stdio.h>

#include "clustermark/memory.h"
#include "host/cli/args.h"
#include "test.h"

static const char *const whens[] = {"auto", "always", "never", NULL};

struct fields {
    bool json, quiet;
    const char *device, *explain;
    struct cm_words set;
    uint64_t ranks;
    double budget_s;
    int color;
};

#define AT(field) .offset = offsetof(struct fields, field)

static const struct cm_arg table[] = {
    {.kind = CM_ARG_FLAG, .option = {.name = "json", AT(json), .help = "as JSON"}},
    {.kind = CM_ARG_FLAG, .letter = 'q', .option = {.name = "quiet", AT(quiet), .help = "less"}},
    {.kind = CM_ARG_WORD,
     .letter = 'd',
     .value = "NAME",
     .option = {.name = "device", AT(device), .help = "where"}},
    {.kind = CM_ARG_MAYBE,
     .value = "[=N]",
     .option = {.name = "explain", AT(explain), .help = "which"}},
    {.kind = CM_ARG_WORDS, .value = "K=V", .option = {.name = "set", AT(set), .help = "change"}},
    {.kind = CM_ARG_VALUE,
     .value = "N",
     .option = {.name = "ranks",
                .type = CM_OPTION_COUNT,
                AT(ranks),
                .min = 1,
                .max = 64,
                .help = "how many"}},
    {.kind = CM_ARG_VALUE,
     .value = "TIME",
     .option = {.name = "budget",
                .type = CM_OPTION_TIME,
                AT(budget_s),
                .min = 1,
                .max = 1e6,
                .help = "until"}},
    {.kind = CM_ARG_VALUE,
     .value = "WHEN",
     .option =
         {.name = "color", .type = CM_OPTION_CHOICE, AT(color), .choices = whens, .help = "when"}},
    {.option = {.name = NULL}},
};

static const struct cm_arg_spec spec = {
    .command = "try", .operands = "[FILE]", .summary = "Tries.", .table = table, .max_operands = 1};

struct parsed {
    struct fields fields;
    struct cm_words operands;
    bool help;
    enum cm_status status;
};

/* Words separated by spaces; "''" is an empty word. */
static struct parsed parse(const char *line)
{
    static char copy[512];
    char *argv[32] = {(char[]){"try"}};
    int argc = 1;
    struct parsed parsed = {.help = false};
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word != NULL && argc < 31; word = strtok(NULL, " "))
        argv[argc++] = strcmp(word, "''") == 0 ? (word[0] = '\0', word) : word;
    cm_error_clear();
    parsed.status =
        cm_args_parse(&spec, argc, argv, &parsed.fields, &parsed.operands, &parsed.help);
    return parsed;
}

static void release(struct parsed *parsed)
{
    cm_words_release(&parsed->operands);
    cm_words_release(&parsed->fields.set);
}

static void test_forms(void **state)
{
    (void)state;
    struct parsed it = parse("--ranks 4 --json quick.ini --device=cpu --budget 5m --color=never");
    assert_ok(it.status);
    assert_int_equal(it.fields.ranks, 4);
    assert_true(it.fields.json);
    assert_false(it.fields.quiet);
    assert_string_equal(it.fields.device, "cpu");
    assert_near(it.fields.budget_s, 300.0, 0);
    assert_int_equal(it.fields.color, 2);
    assert_int_equal(it.operands.count, 1);
    assert_string_equal(it.operands.items[0], "quick.ini");
    release(&it);
    it = parse("-qdcpu --set a.b=1 --set=c.d=2 -- -odd");
    assert_ok(it.status);
    assert_true(it.fields.quiet);
    assert_string_equal(it.fields.device, "cpu");
    assert_int_equal(it.fields.set.count, 2);
    assert_string_equal(it.fields.set.items[0], "a.b=1");
    assert_string_equal(it.fields.set.items[1], "c.d=2");
    assert_string_equal(it.operands.items[0], "-odd");
    release(&it);
    it = parse("--explain 3");
    assert_ok(it.status);
    assert_string_equal(it.fields.explain, "");
    assert_string_equal(it.operands.items[0], "3");
    release(&it);
    it = parse("--explain=3");
    assert_ok(it.status);
    assert_string_equal(it.fields.explain, "3");
    assert_int_equal(it.operands.count, 0);
    release(&it);
    it = parse("-d cuda -");
    assert_ok(it.status);
    assert_string_equal(it.fields.device, "cuda");
    assert_string_equal(it.operands.items[0], "-");
    release(&it);
}

static void test_mistakes(void **state)
{
    (void)state;
    static const struct {
        const char *line, *part;
    } rows[] = {
        {"--rank 4", "did you mean --ranks?"},
        {"--nothing-like-it", "unknown option --nothing-like-it; 'clustermark try --help'"},
        {"--rank=4", "unknown option --rank;"},
        {"-x", "unknown option -x"},
        {"-qx", "unknown option -qx"},
        {"--ranks", "--ranks needs a value: --ranks N"},
        {"--device ''", "--device needs a value"},
        {"--device=", "--device needs a value"},
        {"-d", "--device needs a value"},
        {"--json=yes", "--json takes no value"},
        {"--ranks 0", "--ranks"},
        {"--ranks -1", "--ranks"},
        {"--ranks abc", "--ranks"},
        {"--ranks 1e9", "--ranks"},
        {"--budget abc", "--budget"},
        {"--color sometimes", "--color"},
        {"a b", "unexpected argument 'b'; usage: clustermark try [FILE]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct parsed it = parse(rows[i].line);
        if (it.status != CM_USAGE || strstr(cm_error_text(), rows[i].part) == NULL)
            fail_msg("%s: %s: %s", rows[i].line, cm_status_name(it.status), cm_error_text());
        release(&it);
    }
}

/* Help is given even beside mistakes that come later. */
static void test_help(void **state)
{
    (void)state;
    static const char *const lines[] = {"--help", "-h", "-qh", "--json --help --nonsense"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct parsed it = parse(lines[i]);
        assert_ok(it.status);
        assert_true(it.help);
        release(&it);
    }
    struct cm_str out = CM_STR_INIT;
    cm_args_help(&spec, &out);
    for (const struct cm_arg *arg = table; arg->option.name != NULL; arg++) {
        assert_non_null(strstr(cm_str_text(&out), arg->option.name));
        assert_non_null(strstr(cm_str_text(&out), arg->option.help));
    }
    assert_non_null(strstr(cm_str_text(&out), "-d, --device NAME"));
    cm_str_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
