/* JSON helpers and the replacement of files: what is refused and where, numbers and order in what
 * is written, and that a failed write leaves the old file and nothing else. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clustermark/json.h"
#include "clustermark/memory.h"

static enum cm_status parse(const char *text, json_t **value)
{
    return cm_json_parse(text, strlen(text), "f.json", value);
}

static void parsed(void **state)
{
    (void)state;
    json_t *value = NULL;
    assert_ok(parse(" {\"a\": [1, 2.5, \"\\u00e4\", null, true]} \n", &value));
    assert_int_equal(json_array_size(json_object_get(value, "a")), 5);
    json_decref(value);
    assert_ok(cm_json_parse("[1]x", 3, "f.json", &value));
    json_decref(value);
}

static void refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "f.json:1:0: not JSON"},
        {"{\n  \"a\": 1,\n}", "f.json:3:1: not JSON"},
        {"{\"a\": 1, \"a\": 2}", "f.json:1:"},
        {"[1] 2", "f.json:1:"},
        {"5", "f.json:1:"},
        {"[1e999]", "f.json:1:"},
        {"[99999999999999999999]", "f.json:1:"},
        {"[\"\xff\"]", "f.json:1:"},
        {"[\"\\u0000\"]", "f.json:1:"},
        {"[NaN]", "f.json:1:"},
        {"['a']", "f.json:1:"},
    };
    json_t *value = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_status(parse(cases[i][0], &value), CM_USAGE, cases[i][1]);
    assert_null(value);
    assert_status(cm_json_parse("[1,\0]", 5, "f.json", &value), CM_USAGE, "f.json:1:");
}

/* A message goes to a terminal; what a stranger's file says must not. */
static void messages_have_no_control_characters(void **state)
{
    (void)state;
    json_t *value = NULL;
    assert_status(parse("[\x1b[31mred\n\x7f]", &value), CM_USAGE, "not JSON");
    for (const char *letter = cm_error_text(); *letter != '\0'; letter++)
        assert_true((unsigned char)*letter >= 0x20 && *letter != 0x7f);
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    size_t depth = 1000000;
    char *text = malloc(depth);
    assert_non_null(text);
    memset(text, '[', depth);
    json_t *value = NULL;
    assert_status(cm_json_parse(text, depth, "f.json", &value), CM_USAGE, "depth");
    free(text);
}

static void dumped(void **state)
{
    (void)state;
    json_t *object = json_object();
    assert_ok(cm_json_set(object, "zeta", cm_json_real(1.0 / 3)));
    assert_ok(cm_json_set(object, "alpha", json_array()));
    assert_ok(cm_json_append(json_object_get(object, "alpha"), cm_json_real(12345678901.5)));
    assert_ok(cm_json_append(json_object_get(object, "alpha"), cm_json_real((double)NAN)));
    assert_ok(cm_json_append(json_object_get(object, "alpha"), cm_json_real((double)INFINITY)));
    assert_ok(cm_json_append(json_object_get(object, "alpha"), json_integer(INT64_MAX)));
    assert_ok(cm_json_append(json_object_get(object, "alpha"), json_string("\u00e4\n")));
    char *text = NULL;
    assert_ok(cm_json_dump(object, 0, &text));
    assert_string_equal(text, "{\"zeta\":0.333333333,\"alpha\":[1.23456789e10,null,null,"
                              "9223372036854775807,\"\u00e4\\n\"]}");
    cm_free(text);
    assert_ok(cm_json_set(object, "alpha", json_integer(1)));
    assert_ok(cm_json_dump(object, 1, &text));
    assert_string_equal(text, "{\n  \"zeta\": 0.333333333,\n  \"alpha\": 1\n}");
    cm_free(text);
    json_decref(object);
}

static void failures_take_the_value(void **state)
{
    (void)state;
    json_t *object = json_object(), *array = json_array();
    assert_status(cm_json_set(object, "key", NULL), CM_NO_MEMORY, "\"key\"");
    assert_status(cm_json_append(array, NULL), CM_NO_MEMORY, "out of memory");
    json_t *value = json_incref(json_integer(1));
    assert_status(cm_json_set(array, "key", value), CM_INTERNAL, "\"key\"");
    assert_int_equal(value->refcount, 1);
    json_incref(value);
    assert_status(cm_json_append(object, value), CM_INTERNAL, "cannot be appended");
    assert_int_equal(value->refcount, 1);
    json_decref(value);
    json_decref(array);
    json_decref(object);
}

/* A folder of its own for each test of files. */
static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/cm-json-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof *paths, "%s/%s", folder, name);
    return path;
}

static void check_content(const char *path, const char *expected)
{
    char text[256] = "";
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(text, expected);
}

static unsigned count_files(void)
{
    char command[128], number[16] = "";
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(number, sizeof number, pipe));
    pclose(pipe);
    return (unsigned)atoi(number);
}

static void loaded(void **state)
{
    (void)state;
    json_t *value = NULL;
    const char *path = in_folder("a.json");
    assert_status(cm_json_load(path, &value), CM_USAGE, "a.json: No such file or directory");
    assert_status(cm_json_load(folder, &value), CM_USAGE, "is a folder");
    assert_ok(cm_file_replace(path, "{\"a\":\n1x}", 9));
    assert_status(cm_json_load(path, &value), CM_USAGE, "a.json:2:2: not JSON");
    assert_ok(cm_file_replace(path, "{\"a\":1}", 7));
    assert_ok(cm_json_load(path, &value));
    assert_int_equal(json_integer_value(json_object_get(value, "a")), 1);
    json_decref(value);
    assert_int_equal(truncate(path, (256 << 20) + 1), 0);
    assert_status(cm_json_load(path, &value), CM_USAGE, "longer than 268435456 bytes");
}

static void replaced(void **state)
{
    (void)state;
    struct stat stat_;
    const char *path = in_folder("out.json");
    mode_t mask = umask(027);
    assert_ok(cm_file_replace(path, "one", 3));
    umask(mask);
    check_content(path, "one");
    assert_int_equal(stat(path, &stat_), 0);
    assert_int_equal(stat_.st_mode & 07777, 0640);
    assert_int_equal(chmod(path, 0604), 0);
    assert_ok(cm_file_replace(path, "three", 5));
    check_content(path, "three");
    assert_int_equal(stat(path, &stat_), 0);
    assert_int_equal(stat_.st_mode & 07777, 0604);
    assert_ok(cm_file_replace(path, "", 0));
    check_content(path, "");
    assert_int_equal(count_files(), 1);
}

static void relative_paths(void **state)
{
    (void)state;
    char old[4096];
    assert_non_null(getcwd(old, sizeof old));
    assert_int_equal(chdir(folder), 0);
    assert_ok(cm_file_replace("plain", "x", 1));
    check_content("plain", "x");
    assert_int_equal(chdir(old), 0);
    assert_int_equal(count_files(), 1);
    /* A name so long that nothing can be added to it. */
    char name[256];
    memset(name, 'n', 255);
    name[255] = '\0';
    const char *path = in_folder("sub");
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(chdir(path), 0);
    assert_ok(cm_file_replace(name, "y", 1));
    check_content(name, "y");
    assert_int_equal(chdir(old), 0);
}

static void links_stay_links(void **state)
{
    (void)state;
    struct stat stat_;
    assert_int_equal(mkdir(in_folder("sub"), 0777), 0);
    assert_int_equal(symlink("sub/second", in_folder("first")), 0);
    assert_int_equal(symlink("target", in_folder("sub/second")), 0);
    for (int i = 0; i < 2; i++) { /* the target is new, then old */
        assert_ok(cm_file_replace(in_folder("first"), i ? "b" : "a", 1));
        check_content(in_folder("sub/target"), i ? "b" : "a");
        assert_int_equal(lstat(in_folder("first"), &stat_), 0);
        assert_true(S_ISLNK(stat_.st_mode));
        assert_int_equal(lstat(in_folder("sub/second"), &stat_), 0);
        assert_true(S_ISLNK(stat_.st_mode));
    }
    assert_int_equal(count_files(), 2);
    assert_int_equal(symlink("loop", in_folder("loop")), 0);
    assert_status(cm_file_replace(in_folder("loop"), "a", 1), CM_USAGE, "symbolic links");
}

static void bad_paths(void **state)
{
    (void)state;
    assert_status(cm_file_replace(in_folder("none/out"), "a", 1), CM_USAGE,
                  "none/out: No such file or directory");
    assert_status(cm_file_replace(folder, "a", 1), CM_USAGE, "it is a folder");
    assert_status(cm_file_replace("", "a", 1), CM_USAGE, "without a name");
    assert_ok(cm_file_replace(in_folder("file"), "a", 1));
    assert_status(cm_file_replace(in_folder("file/out"), "a", 1), CM_USAGE, "Not a directory");
    char name[5000];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_status(cm_file_replace(name, "a", 1), CM_USAGE, "File name too long");
    assert_int_equal(count_files(), 1);
}

/* The disk is full: here, the process may not write more than so many bytes to a file. */
static void failed_write_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = in_folder("out.json");
    assert_ok(cm_file_replace(path, "old", 3));
    char *text = malloc(100000);
    assert_non_null(text);
    memset(text, 'x', 100000);
    struct rlimit old, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 50000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cm_error_clear();
    enum cm_status status = cm_file_replace(path, text, 100000);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    free(text);
    assert_int_equal(status, CM_IO);
    assert_non_null(strstr(cm_error_text(), path));
    assert_non_null(strstr(cm_error_text(), strerror(EFBIG)));
    check_content(path, "old");
    assert_int_equal(count_files(), 1);
    assert_status(cm_file_replace("/dev/full", "a", 1), CM_IO, "No space left");
}

static void what_is_no_file_is_written_through(void **state)
{
    (void)state;
    const char *path = in_folder("pipe");
    assert_int_equal(mkfifo(path, 0666), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_ok(cm_file_replace(path, "through", 7));
    char text[16] = "";
    assert_int_equal(read(reader, text, sizeof text), 7);
    assert_string_equal(text, "through");
    close(reader);
    assert_ok(cm_file_replace("/dev/null", "a", 1));
    struct stat stat_;
    assert_int_equal(stat("/dev/null", &stat_), 0);
    assert_true(S_ISCHR(stat_.st_mode));
    /* A descriptor of the process itself, behind which there is an ordinary file. */
    int file = open(in_folder("own"), O_WRONLY | O_CREAT, 0666);
    assert_true(file >= 0);
    char own[32];
    snprintf(own, sizeof own, "/dev/fd/%d", file);
    assert_ok(cm_file_replace(own, "same file", 9));
    assert_int_equal(fstat(file, &stat_), 0);
    assert_int_equal(stat_.st_nlink, 1);
    assert_int_equal(stat_.st_size, 9);
    close(file);
}

/* As another user, because root may write anything. */
static void write_protected(void **state)
{
    (void)state;
    const char *path = in_folder("baseline");
    assert_ok(cm_file_replace(path, "old", 3));
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(folder, 0777), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(2);
        enum cm_status status = cm_file_replace(path, "new", 3);
        _exit(status == CM_USAGE && strstr(cm_error_text(), "Permission denied") ? 0 : 1);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    check_content(path, "old");
}

#define file_test(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    cm_json_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parsed),
        cmocka_unit_test(refused),
        cmocka_unit_test(messages_have_no_control_characters),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(dumped),
        cmocka_unit_test(failures_take_the_value),
        file_test(loaded),
        file_test(replaced),
        file_test(relative_paths),
        file_test(links_stay_links),
        file_test(bad_paths),
        file_test(failed_write_keeps_the_old_file),
        file_test(what_is_no_file_is_written_through),
        file_test(write_protected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
