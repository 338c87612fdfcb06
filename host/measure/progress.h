/*
 * progress.h: one line on the terminal, redrawn in place, gone at the end.
 */
#ifndef HOST_MEASURE_PROGRESS_H
#define HOST_MEASURE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm_progress_state {
    size_t finished, total; /* case runs */
    uint64_t run, runs;     /* run counts from 1 */
    const char *name;       /* of the case; "" while processes start */
    const char *phase;
    double left_s; /* estimate; NAN for none */
};

/* "[ 12/54] run 2/6 allreduce:size=16MiB measure  about 41 s left", at most width - 1 columns: the
 * name is shortened first. `line` gets at most `size` bytes. */
void cm_progress_format(const struct cm_progress_state *state, int width, char *line, size_t size);

struct cm_progress {
    int fd; /* -1: draws nothing */
    bool drawn;
    double next_s;
};

/* Draws on `fd` when it is a terminal and `wanted`. */
void cm_progress_open(struct cm_progress *progress, bool wanted, int fd);
/* At most twice a second, unless `force`. */
void cm_progress_draw(struct cm_progress *progress, const struct cm_progress_state *state,
                      double now_s, bool force);
/* Take the line away: before anything else is printed, and at the end. */
void cm_progress_clear(struct cm_progress *progress);

#endif
