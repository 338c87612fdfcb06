/* Goodput by events: the same rules as the closed form, played out. */
#include <math.h>

#include "clustermark/goodput.h"
#include "clustermark/memory.h"
#include "clustermark/stats.h"

#define MANTISSA (UINT64_C(1) << 53)
#define BATCHES  32 /* whose spread gives the standard error */

double cm_draw_uniform(uint64_t *seed)
{
    return (double)cm_draw(seed, MANTISSA) / (double)MANTISSA;
}

double cm_draw_normal(uint64_t *seed)
{
    double radius = sqrt(-2 * log(1 - cm_draw_uniform(seed)));
    return radius * cos(2 * acos(-1.0) * cm_draw_uniform(seed));
}

struct play {
    const struct cm_failing_job *job;
    double work_s;   /* between checkpoints */
    double backlog;  /* of standing still */
    double progress; /* since the last checkpoint, it included */
    double *away;    /* of each replica, running time to come */
    size_t replicas;
};

/* What the running time trains, without a failure in it. */
static double run_synchronous(struct play *play, double seconds)
{
    double whole = play->work_s + play->job->checkpoint_s;
    if (whole <= 0)
        return seconds;
    double done = floor((play->progress + seconds) / whole);
    play->progress += seconds - done * whole;
    return done * play->work_s;
}

static double run_replicas(struct play *play, double seconds)
{
    double trained = 0;
    for (size_t i = 0; i < play->replicas; i++) {
        double missing = fmin(play->away[i], seconds);
        play->away[i] -= missing;
        trained += seconds - missing;
    }
    return trained / (double)play->replicas;
}

static double to_next_failure(struct play *play, uint64_t *seed, double *wall_s)
{
    const struct cm_failing_job *job = play->job;
    double until = -job->mtbf_s * log(1 - cm_draw_uniform(seed));
    double stand = fmin(play->backlog, until), running = until - stand, trained = 0;
    *wall_s += until;
    play->backlog -= stand;
    if (running > 0)
        trained = play->replicas > 0 ? run_replicas(play, running) : run_synchronous(play, running);
    if (play->replicas > 0) {
        double stall_s = fmin(job->stall_s, job->restart_s);
        play->backlog += stall_s;
        play->away[cm_draw(seed, play->replicas)] += job->restart_s - stall_s;
    } else {
        play->backlog += job->restart_s;
        play->progress = 0;
    }
    return trained;
}

enum cm_status cm_goodput_simulate(const struct cm_failing_job *job, uint64_t failures,
                                   uint64_t seed, double *effective, double *error)
{
    double shares[BATCHES], mean = 0, squares = 0;
    struct cm_goodput closed;
    struct play play = {.job = job, .replicas = (size_t)ceil(job->replicas)};
    cm_goodput(job, &closed);
    play.work_s = closed.interval_s;
    play.away = cm_alloc(play.replicas, sizeof *play.away);
    if (play.away == NULL)
        return CM_NO_MEMORY;
    for (int i = 0; i < BATCHES; i++) {
        double trained = 0, wall_s = 0;
        for (uint64_t n = 0; n < failures / BATCHES + 1; n++)
            trained += to_next_failure(&play, &seed, &wall_s);
        shares[i] = trained / wall_s;
        mean += shares[i] / BATCHES;
    }
    cm_free(play.away);
    for (int i = 0; i < BATCHES; i++)
        squares += (shares[i] - mean) * (shares[i] - mean);
    *effective = mean;
    *error = sqrt(squares / (BATCHES - 1) / BATCHES);
    return CM_OK;
}
