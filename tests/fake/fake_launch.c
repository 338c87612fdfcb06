/* Kernels: what the emulator hands over, and what the model says that it takes. */
#include <stdlib.h>

#include <cuda_runtime_api.h>

#include "fake/fake.h"

#define LAUNCH_S 2.0e-6 /* of the least kernel */

struct launch {
    struct fake_work work;
    struct fake_hint hint;
    double first_s; /* when it began to wait, by the wall clock */
    void (*run)(void *arg);
    void (*drop)(void *arg);
    void *arg;
};

static struct fake_hint next;

void fake_hint(const struct fake_hint *hint)
{
    next = *hint;
}

double fake_cost_s(double bytes, double flops)
{
    const struct fake_model *model = fake_model();
    double memory_s = bytes / model->memory_rate, compute_s = flops / model->flop_rate;
    return LAUNCH_S + (memory_s > compute_s ? memory_s : compute_s);
}

/* Whether the flag is there, or the wait over. */
static bool may_start(struct launch *launch)
{
    const struct fake_hint *hint = &launch->hint;
    if (hint->flag == NULL ||
        (int32_t)(__atomic_load_n(hint->flag, __ATOMIC_ACQUIRE) - hint->until) >= 0)
        return true;
    double now_s = fake_wall_s();
    if (launch->first_s == 0)
        launch->first_s = now_s;
    return now_s - launch->first_s > (double)hint->timeout_ns * 1e-9;
}

static enum fake_outcome run_launch(struct fake_work *work, double start_s, double *end_s)
{
    struct launch *launch = (struct launch *)work;
    if (!may_start(launch))
        return FAKE_LATER;
    fake_memory_open();
    launch->run(launch->arg);
    if (launch->hint.flag != NULL && fake_now_s > start_s)
        start_s = fake_now_s;
    *end_s = start_s + fake_cost_s(launch->hint.bytes, launch->hint.flops);
    return FAKE_DONE;
}

static void drop_launch(struct fake_work *work)
{
    struct launch *launch = (struct launch *)work;
    launch->drop(launch->arg);
    free(launch);
}

int fake_cuda_launch(struct CUstream_st *stream, void (*run)(void *arg), void *arg,
                     void (*drop)(void *arg))
{
    int error = fake_cuda_enter("kernel launch");
    struct launch *launch = error == 0 ? calloc(1, sizeof *launch) : NULL;
    if (error == 0) {
        fake_check_stream(stream, "kernel launch");
        if (launch == NULL)
            fake_die("no memory for a launch");
        *launch = (struct launch){.work = {.run = run_launch, .drop = drop_launch},
                                  .hint = next,
                                  .run = run,
                                  .drop = drop,
                                  .arg = arg};
        launch->work.spins = next.flag != NULL;
        fake_queue(stream, &launch->work, "kernel launch");
    } else {
        drop(arg);
    }
    next = (struct fake_hint){0};
    return fake_cuda_leave(error);
}
