/*
 * team.h: a few threads that share out one loop: what a CPU rank with several cores computes with.
 *
 * A team belongs to a device. Each thread that runs queued work names the team it uses once;
 * kernels then call cm_team_run without knowing whether there is one.
 */
#ifndef CLUSTERMARK_TEAM_H
#define CLUSTERMARK_TEAM_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/status.h"

struct cm_team;

/* `threads` counts the caller of cm_team_run, so 1 starts no thread. `spin`: idle threads may wait
 * busily for a moment, because each has a core of its own. */
enum cm_status cm_team_create(unsigned threads, bool spin, struct cm_team **team);
/* Accepts NULL. Nobody may use the team any more. */
void cm_team_free(struct cm_team *team);

/* The calling thread's team from now on; NULL for none. */
void cm_team_use(struct cm_team *team);

/* body(job, begin, end) for consecutive ranges that make up [0, count), at the same time on the
 * threads of the calling thread's team; returns when all are done. Every range but the last is a
 * multiple of `grain`, and no thread is used for less than one. The same count and grain are always
 * split alike. Runs inline where there is one range or no team. */
void cm_team_run(void (*body)(void *job, uint64_t begin, uint64_t end), void *job, uint64_t count,
                 uint64_t grain);

#endif
