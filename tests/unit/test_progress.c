/* host/measure/progress.c: the line's text, and drawing on a pretended terminal. */
#include "test.h"

#include <fcntl.h>
#include <math.h>
#include <pty.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "host/measure/progress.h"

static struct cm_progress_state example(void)
{
    return (struct cm_progress_state){.finished = 12,
                                      .total = 54,
                                      .run = 2,
                                      .runs = 6,
                                      .name = "allreduce:size=16MiB",
                                      .phase = "measure",
                                      .left_s = 41.2};
}

static void whole_line(void **state)
{
    (void)state;
    char line[200];
    struct cm_progress_state at = example();
    cm_progress_format(&at, 100, line, sizeof line);
    assert_string_equal(line, "[12/54] run 2/6 allreduce:size=16MiB measure  about 41 s left");
    at.finished = 3;
    at.left_s = 600;
    cm_progress_format(&at, 100, line, sizeof line);
    assert_string_equal(line, "[ 3/54] run 2/6 allreduce:size=16MiB measure  about 10 min left");
    at.left_s = 9000;
    cm_progress_format(&at, 100, line, sizeof line);
    assert_non_null(strstr(line, "about 2.5 h left"));
    at.left_s = 0;
    cm_progress_format(&at, 100, line, sizeof line);
    assert_non_null(strstr(line, "about 1 s left"));
    at.left_s = NAN;
    cm_progress_format(&at, 100, line, sizeof line);
    assert_null(strstr(line, "left"));
}

static void never_wider_than_the_terminal(void **state)
{
    (void)state;
    char line[200];
    struct cm_progress_state at = example();
    for (int width = 0; width < 120; width++) {
        memset(line, 'x', sizeof line);
        cm_progress_format(&at, width, line, sizeof line);
        assert_true((int)strlen(line) <= (width > 0 ? width - 1 : 0));
    }
    cm_progress_format(&at, 56, line, sizeof line);
    assert_string_equal(line, "[12/54] run 2/6 allreduce:si.. measure  about 41 s left");
    cm_progress_format(&at, 100, line, 8); /* a small buffer */
    assert_string_equal(line, "[12/54]");
}

static void names_cannot_steer_the_terminal(void **state)
{
    (void)state;
    char line[200];
    struct cm_progress_state at = example();
    at.name = "a\033[2Jb\n\xc3\xa4";
    cm_progress_format(&at, 100, line, sizeof line);
    assert_non_null(strstr(line, "a?[2Jb??? measure"));
}

static size_t read_all(int fd, char *text, size_t size)
{
    ssize_t count = read(fd, text, size - 1);
    size_t length = count > 0 ? (size_t)count : 0;
    text[length] = '\0';
    return length;
}

static void drawing(void **state)
{
    (void)state;
    int master, slave;
    char text[400];
    struct winsize window = {.ws_row = 24, .ws_col = 30};
    if (openpty(&master, &slave, NULL, NULL, &window) != 0)
        skip();
    assert_int_equal(fcntl(master, F_SETFL, O_NONBLOCK), 0);
    struct cm_progress progress;
    struct cm_progress_state at = example();
    cm_progress_open(&progress, true, slave);
    cm_progress_draw(&progress, &at, 100, false);
    assert_true(read_all(master, text, sizeof text) > 0);
    assert_int_equal(text[0], '\r');
    assert_true(strlen(text) <= 1 + 29 + 3);
    assert_non_null(strstr(text, "[12/54]"));
    cm_progress_draw(&progress, &at, 100.3, false); /* too soon */
    assert_int_equal(read_all(master, text, sizeof text), 0);
    cm_progress_draw(&progress, &at, 100.3, true);
    assert_true(read_all(master, text, sizeof text) > 0);
    cm_progress_draw(&progress, &at, 101, false);
    assert_true(read_all(master, text, sizeof text) > 0);
    cm_progress_clear(&progress);
    assert_true(read_all(master, text, sizeof text) > 0);
    assert_string_equal(text, "\r\033[K");
    cm_progress_clear(&progress); /* nothing is there any more */
    assert_int_equal(read_all(master, text, sizeof text), 0);

    cm_progress_open(&progress, false, slave);
    cm_progress_draw(&progress, &at, 200, true);
    assert_int_equal(read_all(master, text, sizeof text), 0);
    close(slave);
    close(master);
}

static void not_a_terminal(void **state)
{
    (void)state;
    int ends[2];
    char text[16];
    struct cm_progress progress;
    struct cm_progress_state at = example();
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    cm_progress_open(&progress, true, ends[1]);
    cm_progress_draw(&progress, &at, 100, true);
    cm_progress_clear(&progress);
    assert_int_equal(read_all(ends[0], text, sizeof text), 0);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_line),
        cmocka_unit_test(never_wider_than_the_terminal),
        cmocka_unit_test(names_cannot_steer_the_terminal),
        cmocka_unit_test(drawing),
        cmocka_unit_test(not_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
