/* A training step in a test. */
#include "contract/step_fixture.h"

#include <math.h>
#include <stdlib.h>

#include "clustermark/kernels.h"
#include "test.h"

#define LIMIT_BYTES ((uint64_t)1 << 30)

void open_ground(struct cm_device *device, struct cm_comm *comm, uint64_t seed,
                 struct ground *ground)
{
    *ground = (struct ground){.hidden = {.limit_bytes = LIMIT_BYTES}};
    struct cm_context *context = &ground->context;
    *context = (struct cm_context){
        .device = device, .comm = comm, .seed = seed, .timeout_s = 60, .hidden = &ground->hidden};
    ground->hidden.vote = &ground->vote;
    assert_ok(device->ops->stream_create(device, 0, &context->stream));
    assert_ok(device->ops->stream_create(device, 1, &context->side));
    assert_ok(cm_vote_open(device, comm, context->stream, context->timeout_s, &ground->vote));
}

void close_ground(struct ground *ground)
{
    const struct cm_device_ops *device = ground->context.device->ops;
    cm_context_release(&ground->context);
    cm_vote_close(&ground->vote);
    device->stream_destroy(ground->context.side);
    device->stream_destroy(ground->context.stream);
}

void make_bed(struct ground *ground, const struct cm_step *step, struct bed *bed)
{
    struct cm_context *context = &ground->context;
    memset(bed, 0, sizeof *bed);
    bed->ground = ground;
    assert_ok(cm_schedule_build(step, context->comm->rank, &bed->schedule));
    assert_ok(cm_executor_open(context, &bed->schedule, context->seed, &bed->executor));
    for (uint32_t i = 0; i < bed->schedule.buffer_count; i++) {
        if (bed->schedule.buffers[i].size_bytes > 0)
            assert_ok(cm_context_output(context, bed->executor.buffers[i],
                                        bed->schedule.buffers[i].size_bytes));
    }
    assert_ok(cm_initialiser_open(&bed->executor, &bed->initialiser));
    restart(bed);
}

/* Everything is poisoned: what a step reads it has written itself, or the initialiser has. */
void restart(struct bed *bed)
{
    assert_ok(cm_context_poison(&bed->ground->context));
    assert_ok(cm_initialise(&bed->executor, &bed->initialiser));
}

void drop_bed(struct bed *bed)
{
    struct cm_vote *vote = &bed->ground->vote;
    uint64_t limit = bed->ground->hidden.limit_bytes;
    assert_ok(cm_context_sync(&bed->ground->context));
    cm_executor_close(&bed->executor);
    cm_schedule_release(&bed->schedule);
    cm_context_release(&bed->ground->context);
    bed->ground->hidden.vote = vote;
    bed->ground->hidden.limit_bytes = limit;
}

static void fetch(struct bed *bed, struct cm_slice from, void *to)
{
    const struct cm_context *context = &bed->ground->context;
    assert_ok(context->device->ops->copy(context->stream, to, cm_executor_at(&bed->executor, from),
                                         from.size_bytes));
    assert_ok(cm_context_sync(&bed->ground->context));
}

struct outcome run_step(struct bed *bed, uint32_t step, enum cm_extent extent)
{
    struct outcome outcome = {0};
    assert_ok(cm_executor_enqueue(&bed->executor, step, extent));
    assert_ok(cm_context_sync(&bed->ground->context));
    fetch(bed, bed->schedule.loss, &outcome.loss);
    fetch(bed, bed->schedule.gradient_norm, &outcome.square);
    return outcome;
}

/* ---- gradients ---- */

/* The part of a piece, which begins at element `at` of the unit, that lies in the unit's shard. */
static void give_run(const struct cm_parameter *parameter, const struct cm_piece *piece,
                     uint64_t at, uint64_t begin, uint64_t end, const float *shard, run_fn function,
                     void *arg)
{
    uint64_t low = at > begin ? at : begin;
    uint64_t high = at + piece->count < end ? at + piece->count : end;
    if (low < high)
        function(arg, parameter, piece->first + (low - at), shard + (low - begin), high - low);
}

static void each_in_unit(struct bed *bed, uint32_t index, const float *shard, run_fn function,
                         void *arg)
{
    const struct cm_unit *unit = &bed->schedule.units[index];
    uint64_t part = unit->count / unit->shards, begin = unit->shard * part;
    for (uint32_t i = 0; i < bed->schedule.parameter_count; i++) {
        const struct cm_parameter *parameter = &bed->schedule.parameters[i];
        uint64_t at = parameter->offset;
        for (unsigned p = 0; parameter->unit == index && p < parameter->piece_count; p++) {
            give_run(parameter, &parameter->pieces[p], at, begin, begin + part, shard, function,
                     arg);
            at += parameter->pieces[p].count;
        }
    }
}

void each_gradient(struct bed *bed, run_fn function, void *arg)
{
    for (uint32_t i = 0; i < bed->schedule.unit_count; i++) {
        struct cm_slice slice = bed->schedule.units[i].gradient_shard;
        float *shard = malloc(slice.size_bytes);
        assert_non_null(shard);
        fetch(bed, slice, shard);
        each_in_unit(bed, i, shard, function, arg);
        free(shard);
    }
}

static struct table *table_of(struct tables *tables, const struct cm_parameter *parameter,
                              uint64_t count)
{
    for (size_t i = 0; i < tables->count; i++) {
        struct table *table = &tables->items[i];
        if (strcmp(table->name, parameter->name) != 0)
            continue;
        if (count > table->count) {
            table->values = realloc(table->values, count * sizeof(float));
            assert_non_null(table->values);
            table->count = count;
        }
        return table;
    }
    tables->items = realloc(tables->items, (tables->count + 1) * sizeof *tables->items);
    assert_non_null(tables->items);
    struct table *table = &tables->items[tables->count++];
    *table = (struct table){.count = count, .values = malloc(count * sizeof(float))};
    assert_non_null(table->values);
    memcpy(table->name, parameter->name, sizeof table->name);
    return table;
}

static void store_run(void *arg, const struct cm_parameter *parameter, uint64_t first,
                      const float *values, uint64_t count)
{
    struct table *table = table_of(arg, parameter, first + count);
    memcpy(table->values + first, values, count * sizeof *values);
}

void collect_gradients(struct bed *bed, struct tables *tables)
{
    *tables = (struct tables){0};
    each_gradient(bed, store_run, tables);
}

void drop_tables(struct tables *tables)
{
    for (size_t i = 0; i < tables->count; i++)
        free(tables->items[i].values);
    free(tables->items);
    *tables = (struct tables){0};
}

const struct table *find_table(const struct tables *tables, const char *name)
{
    for (size_t i = 0; i < tables->count; i++) {
        if (strcmp(tables->items[i].name, name) == 0)
            return &tables->items[i];
    }
    return NULL;
}

double norm_of(const struct table *table)
{
    double sum = 0;
    for (uint64_t i = 0; i < table->count; i++)
        sum += (double)table->values[i] * (double)table->values[i];
    return sqrt(sum);
}
