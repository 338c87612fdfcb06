/* The state with which a training step begins. */
#include "host/workload/trainstep_init.h"

#include "clustermark/error.h"
#include "clustermark/kernels.h"
#include "clustermark/memory.h"
#include "clustermark/train_kernels.h"

#define CHUNK_ELEMENTS ((uint64_t)1 << 20)

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What is drawn at once: no more than there is. */
static uint64_t chunk_of(const struct cm_schedule *schedule)
{
    uint64_t largest = 16;
    for (uint32_t i = 0; i < schedule->parameter_count; i++)
        if (schedule->parameters[i].count > largest)
            largest = schedule->parameters[i].count;
    return smaller(largest, CHUNK_ELEMENTS);
}

static uint64_t token_count(const struct cm_schedule *schedule)
{
    return schedule->step.micro_batches * schedule->rows;
}

uint64_t cm_initialiser_bytes(const struct cm_schedule *schedule)
{
    return chunk_of(schedule) * (sizeof(float) + cm_dtype_size(schedule->step.dtype));
}

enum cm_status cm_initialiser_open(struct cm_executor *executor, struct cm_initialiser *initialiser)
{
    struct cm_context *context = executor->context;
    const struct cm_schedule *schedule = executor->schedule;
    void *tokens = NULL;
    initialiser->chunk = chunk_of(schedule);
    enum cm_status status = cm_context_alloc(
        context, CM_MEMORY_DEVICE, initialiser->chunk * sizeof(float), &initialiser->values);
    if (status == CM_OK)
        status = cm_context_alloc(context, CM_MEMORY_DEVICE,
                                  initialiser->chunk * cm_dtype_size(schedule->step.dtype),
                                  &initialiser->rounded);
    if (status == CM_OK)
        status = cm_context_alloc(context, CM_MEMORY_HOST, token_count(schedule) * sizeof(int32_t),
                                  &tokens);
    initialiser->tokens = tokens;
    return status;
}

/* ---- weights ---- */

static enum cm_status zero(struct cm_executor *executor, struct cm_slice slice)
{
    void *memory = cm_executor_at(executor, slice);
    if (memory == NULL || slice.size_bytes == 0)
        return CM_OK;
    return executor->context->device->kernels->write(executor->context->stream, memory, 0,
                                                     slice.size_bytes);
}

/* All that a unit has; what parameters leave out is padding. */
static enum cm_status clear_unit(struct cm_executor *executor, const struct cm_unit *unit)
{
    const struct cm_slice slices[] = {
        unit->weights, unit->weight_shard, unit->master,        unit->m,
        unit->v,       unit->gradients,    unit->gradient_shard};
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < sizeof slices / sizeof *slices && status == CM_OK; i++)
        status = zero(executor, slices[i]);
    return status;
}

/* `count` elements of the whole model's numbering, from `first` on, as F32. */
static enum cm_status draw(struct cm_executor *executor, const struct cm_initialiser *initialiser,
                           const struct cm_parameter *parameter, uint64_t first, uint64_t count)
{
    struct cm_stream *stream = executor->context->stream;
    const struct cm_kernels *kernels = executor->context->device->kernels;
    if (parameter->deviation == 0) {
        union {
            float values[2];
            uint64_t word;
        } pair = {.values = {parameter->constant, parameter->constant}};
        return kernels->write(stream, initialiser->values, pair.word, count * sizeof(float));
    }
    enum cm_status status =
        kernels->fill_normal(stream, initialiser->values, count, CM_F32,
                             cm_random_seed(executor->seed, parameter->name, 0, 0), first);
    return status == CM_OK ? kernels->scale(stream, initialiser->values, initialiser->values,
                                            (double)parameter->deviation, count, CM_F32)
                           : status;
}

/* The part of [at, at + count) of a unit's elements that lies in [begin, end) goes from `from` to
 * the slice, whose first element is number `begin`. */
static enum cm_status put(struct cm_executor *executor, struct cm_slice to, size_t size,
                          uint64_t begin, uint64_t end, const void *from, uint64_t at,
                          uint64_t count)
{
    char *memory = cm_executor_at(executor, to);
    uint64_t low = at > begin ? at : begin, high = smaller(at + count, end);
    if (memory == NULL || low >= high)
        return CM_OK;
    return executor->context->device->ops->copy(
        executor->context->stream, memory + (low - begin) * size,
        (const char *)from + (low - at) * size, (size_t)(high - low) * size);
}

/* What was drawn, for the elements [at, at + count) of the unit, to where they belong. */
static enum cm_status spread(struct cm_executor *executor, const struct cm_initialiser *initialiser,
                             const struct cm_unit *unit, uint64_t at, uint64_t count)
{
    enum cm_dtype dtype = executor->schedule->step.dtype;
    size_t size = cm_dtype_size(dtype);
    uint64_t part = unit->count / unit->shards, begin = unit->shard * part, end = begin + part;
    const void *rounded = dtype == CM_F32 ? initialiser->values : initialiser->rounded;
    enum cm_status status = CM_OK;
    if (dtype != CM_F32)
        status = executor->context->device->kernels->train->convert(
            executor->context->stream, initialiser->rounded, dtype, initialiser->values, CM_F32,
            count);
    if (status == CM_OK)
        status = put(executor, unit->weights, size, 0, unit->count, rounded, at, count);
    if (status == CM_OK)
        status = put(executor, unit->weight_shard, size, begin, end, rounded, at, count);
    if (status == CM_OK)
        status =
            put(executor, unit->master, sizeof(float), begin, end, initialiser->values, at, count);
    return status;
}

static enum cm_status fill_parameter(struct cm_executor *executor,
                                     const struct cm_initialiser *initialiser,
                                     const struct cm_parameter *parameter)
{
    const struct cm_unit *unit = &executor->schedule->units[parameter->unit];
    uint64_t at = parameter->offset;
    enum cm_status status = CM_OK;
    for (unsigned p = 0; p < parameter->piece_count; p++) {
        const struct cm_piece *piece = &parameter->pieces[p];
        for (uint64_t done = 0; done < piece->count && status == CM_OK;) {
            uint64_t count = smaller(piece->count - done, initialiser->chunk);
            status = draw(executor, initialiser, parameter, piece->first + done, count);
            if (status == CM_OK)
                status = spread(executor, initialiser, unit, at + done, count);
            done += count;
        }
        at += piece->count;
    }
    return status;
}

/* ---- tokens ---- */

/* Where local position `local` stands in the sequence: a rank of a context group has two chunks. */
static uint64_t position_of(const struct cm_schedule *schedule, uint64_t local)
{
    unsigned cp = schedule->step.parallel.cp, own = schedule->place.cp;
    if (cp == 1)
        return local;
    uint64_t chunk = schedule->step.model.sequence / (2 * cp);
    return local < chunk ? own * chunk + local : (2 * cp - 1 - own) * chunk + local - chunk;
}

/* `shift` 0: what is read; 1: what is to be foretold. */
static enum cm_status fill_tokens(struct cm_executor *executor,
                                  const struct cm_initialiser *initialiser, struct cm_slice slice,
                                  uint64_t shift)
{
    const struct cm_schedule *schedule = executor->schedule;
    const struct cm_step *step = &schedule->step;
    void *memory = cm_executor_at(executor, slice);
    uint64_t seed = cm_random_seed(executor->seed, "tokens", 0, 0);
    if (memory == NULL)
        return CM_OK;
    for (uint64_t micro = 0; micro < step->micro_batches; micro++) {
        uint64_t global = schedule->place.dp * step->micro_batches + micro;
        for (uint64_t row = 0; row < schedule->rows; row++) {
            uint64_t sequence = global * step->micro_batch + row % step->micro_batch;
            uint64_t position = position_of(schedule, row / step->micro_batch) + shift;
            uint64_t bits = cm_random_bits(seed, sequence * (step->model.sequence + 1) + position);
            initialiser->tokens[micro * schedule->rows + row] =
                (int32_t)(bits * step->model.vocabulary >> 32);
        }
    }
    enum cm_status status =
        executor->context->device->ops->copy(executor->context->stream, memory, initialiser->tokens,
                                             (size_t)(token_count(schedule) * sizeof(int32_t)));
    return status == CM_OK ? cm_context_sync(executor->context) : status;
}

enum cm_status cm_initialise(struct cm_executor *executor, const struct cm_initialiser *initialiser)
{
    const struct cm_schedule *schedule = executor->schedule;
    enum cm_status status = CM_OK;
    for (uint32_t i = 0; i < schedule->unit_count && status == CM_OK; i++)
        status = clear_unit(executor, &schedule->units[i]);
    for (uint32_t i = 0; i < schedule->parameter_count && status == CM_OK; i++)
        status = fill_parameter(executor, initialiser, &schedule->parameters[i]);
    if (status == CM_OK)
        status = fill_tokens(executor, initialiser, schedule->tokens, 0);
    if (status == CM_OK)
        status = fill_tokens(executor, initialiser, schedule->targets, 1);
    return status == CM_OK ? cm_context_sync(executor->context) : status;
}
