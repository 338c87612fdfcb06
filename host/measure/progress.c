/* The progress line. */
#include "host/measure/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REDRAW_S       0.5
#define LINE_MAX_BYTES 512

/* Rounded as one would say it. */
static void format_left(double left_s, char *text, size_t size)
{
    if (!isfinite(left_s))
        text[0] = '\0';
    else if (left_s < 90)
        snprintf(text, size, "  about %.0f s left", fmax(1, left_s));
    else if (left_s < 5400)
        snprintf(text, size, "  about %.0f min left", left_s / 60);
    else
        snprintf(text, size, "  about %.1f h left", left_s / 3600);
}

/* The name of a case may hold what a user typed: nothing in it may steer the terminal. */
static void copy_plain(const char *from, size_t length, char *to)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)from[i];
        to[i] = c < 0x20 || c >= 0x7f ? '?' : (char)c;
    }
    to[length] = '\0';
}

void cm_progress_format(const struct cm_progress_state *state, int width, char *line, size_t size)
{
    char count[64], left[40], digits[24], name[128];
    int places = snprintf(digits, sizeof digits, "%zu", state->total);
    format_left(state->left_s, left, sizeof left);
    snprintf(count, sizeof count, "[%*zu/%zu] run %llu/%llu", places, state->finished, state->total,
             (unsigned long long)state->run, (unsigned long long)state->runs);

    size_t columns = width > 1 ? (size_t)width - 1 : 0;
    size_t others = strlen(count) + strlen(state->phase) + strlen(left) + 2;
    size_t room = columns > others ? columns - others : 0;
    size_t length = strlen(state->name);
    if (room > sizeof name - 1)
        room = sizeof name - 1;
    copy_plain(state->name, length < room ? length : room, name);
    if (length > room && room >= 3)
        name[room - 2] = name[room - 1] = '.';
    snprintf(line, size, "%s%s%s %s%s", count, name[0] ? " " : "", name, state->phase, left);
    if (columns < size)
        line[columns] = '\0';
}

void cm_progress_open(struct cm_progress *progress, bool wanted, int fd)
{
    *progress = (struct cm_progress){.fd = wanted && isatty(fd) ? fd : -1};
}

static void put(int fd, const char *text, size_t length)
{
    /* A terminal that went away is no reason to stop measuring. */
    if (write(fd, text, length) < 0)
        return;
}

void cm_progress_draw(struct cm_progress *progress, const struct cm_progress_state *state,
                      double now_s, bool force)
{
    struct winsize window;
    char line[LINE_MAX_BYTES], all[LINE_MAX_BYTES + 8];
    if (progress->fd < 0 || (!force && now_s < progress->next_s))
        return;
    bool known = ioctl(progress->fd, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
    cm_progress_format(state, known ? window.ws_col : 80, line, sizeof line);
    /* One write, the rest of the old line cleared after the new text: no flicker. */
    int length = snprintf(all, sizeof all, "\r%s\033[K", line);
    put(progress->fd, all, (size_t)length);
    progress->drawn = true;
    progress->next_s = now_s + REDRAW_S;
}

void cm_progress_clear(struct cm_progress *progress)
{
    if (progress->fd >= 0 && progress->drawn)
        put(progress->fd, "\r\033[K", 4);
    progress->drawn = false;
    progress->next_s = 0;
}
