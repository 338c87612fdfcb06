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
    double work_s;                    /* between checkpoints */
    double backlog;                   /* of standing still */
    double progress;                  /* since the last checkpoint, it included */
    double wall_s, running_s, kept_s; /* so far; what was kept of the running time, synchronous */
    double away_s;                    /* that replicas have to be away, all of them so far */
    double *back_at;                  /* running time at which each replica is back */
    size_t replicas;
};

/* Running time without a failure in it. */
static void run(struct play *play, double seconds)
{
    double whole = play->work_s + play->job->checkpoint_s;
    play->running_s += seconds;
    if (whole <= 0) {
        play->kept_s += seconds;
        return;
    }
    double done = floor((play->progress + seconds) / whole);
    play->progress += seconds - done * whole;
    play->kept_s += done * play->work_s;
}

static void fail(struct play *play, uint64_t *seed)
{
    const struct cm_failing_job *job = play->job;
    if (play->replicas == 0) {
        play->backlog += job->restart_s;
        play->progress = 0;
        return;
    }
    double stall_s = fmin(job->stall_s, job->restart_s), away_s = job->restart_s - stall_s;
    double *back_at = &play->back_at[cm_draw(seed, play->replicas)];
    play->backlog += stall_s;
    play->away_s += away_s;
    *back_at = fmax(*back_at, play->running_s) + away_s;
}

static void to_next_failure(struct play *play, uint64_t *seed)
{
    double until = -play->job->mtbf_s * log(1 - cm_draw_uniform(seed));
    double stand = fmin(play->backlog, until);
    play->wall_s += until;
    play->backlog -= stand;
    run(play, until - stand);
    fail(play, seed);
}

/* Seconds so far that the whole job trained. */
static double trained_s(const struct play *play)
{
    double away = play->away_s;
    if (play->replicas == 0)
        return play->kept_s;
    for (size_t i = 0; i < play->replicas; i++)
        away -= fmax(0, play->back_at[i] - play->running_s);
    return play->running_s - away / (double)play->replicas;
}

enum cm_status cm_goodput_simulate(const struct cm_failing_job *job, uint64_t failures,
                                   uint64_t seed, double *effective, double *error)
{
    double shares[BATCHES], mean = 0, squares = 0;
    struct cm_goodput closed;
    struct play play = {.job = job, .replicas = (size_t)ceil(job->replicas)};
    cm_goodput(job, &closed);
    play.work_s = closed.interval_s;
    play.back_at = cm_alloc(play.replicas, sizeof *play.back_at);
    if (play.back_at == NULL)
        return CM_NO_MEMORY;
    for (int i = 0; i < BATCHES; i++) {
        double trained = trained_s(&play), wall = play.wall_s;
        for (uint64_t n = 0; n < failures / BATCHES + 1; n++)
            to_next_failure(&play, &seed);
        shares[i] = (trained_s(&play) - trained) / (play.wall_s - wall);
        mean += shares[i] / BATCHES;
    }
    cm_free(play.back_at);
    for (int i = 0; i < BATCHES; i++)
        squares += (shares[i] - mean) * (shares[i] - mean);
    *effective = mean;
    *error = sqrt(squares / (BATCHES - 1) / BATCHES);
    return CM_OK;
}
