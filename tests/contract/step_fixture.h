/*
 * step_fixture.h: a training step in a test: its schedule on a device, what came of it, and the
 * gradients that a rank holds, by their place in the whole model.
 */
#ifndef TESTS_CONTRACT_STEP_FIXTURE_H
#define TESTS_CONTRACT_STEP_FIXTURE_H

#include "clustermark/schedule.h"
#include "host/measure/harness.h"
#include "host/workload/trainstep_execute.h"
#include "host/workload/trainstep_init.h"

/* Where steps run: what the harness gives to a workload. */
struct ground {
    struct cm_context context;
    struct cm_context_private hidden;
    struct cm_vote vote;
};
void open_ground(struct cm_device *device, struct cm_comm *comm, uint64_t seed,
                 struct ground *ground);
void close_ground(struct ground *ground);

/* A step, ready to run. */
struct bed {
    struct ground *ground;
    struct cm_schedule schedule;
    struct cm_executor executor;
    struct cm_initialiser initialiser;
};
void make_bed(struct ground *ground, const struct cm_step *step, struct bed *bed);
void drop_bed(struct bed *bed);
/* Back to before the first step. */
void restart(struct bed *bed);

struct outcome {
    float loss, square;
};
struct outcome run_step(struct bed *bed, uint32_t step, enum cm_extent extent);

/* Values of a parameter, of the whole model's elements [0, count). */
struct table {
    char name[40];
    float *values;
    uint64_t count;
};
struct tables {
    struct table *items;
    size_t count;
};
void drop_tables(struct tables *tables);
const struct table *find_table(const struct tables *tables, const char *name);
double norm_of(const struct table *table);

/* The gradients of one rank's schedule that has all of the model. */
void collect_gradients(struct bed *bed, struct tables *tables);

/* Runs of elements that a rank has: `values[i]` is element first + i of the parameter. */
typedef void (*run_fn)(void *arg, const struct cm_parameter *parameter, uint64_t first,
                       const float *values, uint64_t count);
void each_gradient(struct bed *bed, run_fn function, void *arg);

#endif
