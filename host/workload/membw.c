/*
 * membw: memory bandwidth, on every rank at once, each in its own memory.
 *
 * Bytes count as STREAM does: copy and scale 2 per element and type size, add and triad 3, read and
 * write 1; what a cache line costs beyond that (write-allocate) is not counted. `bandwidth` is the
 * sum of what the ranks reach together, each by its own median; `bandwidth_per_rank` is the slowest
 * rank's, `bandwidth.rank<r>` each one's.
 *
 * Arrays of 0 bytes mean four last-level caches each, less where memory is short. Smaller ones
 * rotate, so that they come from memory all the same; rotate = no shows the caches instead.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/model.h"
#include "clustermark/workload.h"

/* Elements looked at together by the check; alignment of arrays and of results in bytes. */
enum { CHUNK = 65536, ALIGNMENT = 4096, RESULT_BYTES = 64 };
#define FACTOR 3.0
/* Less than this, and starting the operation shows in its time. */
#define LEAST_HOST_BYTES   ((uint64_t)64 << 20)
#define LEAST_DEVICE_BYTES ((uint64_t)512 << 20)

enum op { OP_COPY, OP_SCALE, OP_ADD, OP_TRIAD, OP_READ, OP_WRITE };
static const char *const op_choices[] = {"copy", "scale", "add", "triad", "read", "write", NULL};
static const struct {
    unsigned inputs;
    bool output;
} op_shape[] = {{1, true}, {1, true}, {2, true}, {2, true}, {1, false}, {0, true}};
static const char *const dtype_choices[] = {"f32", "f64", NULL};

struct membw_params {
    int op, dtype;
    uint64_t size_bytes;
    bool rotate;
};

/* Values of one chunk in the check. */
struct chunk {
    double a[CHUNK], b[CHUNK], out[CHUNK];
};

struct membw_state {
    struct cm_context *context;
    enum op op;
    enum cm_dtype dtype;
    uint64_t bytes, stride, count; /* of an array, to the next set's, elements */
    unsigned sets;
    char *inputs[2], *out; /* slabs of `sets` arrays */
    char *results;         /* of read: a word for each set */
    uint64_t seeds[2], word;
    char *scratch; /* device: two chunks */
    char *raw;     /* host: three chunks */
    struct chunk *chunk;
};

#define FIELD(name) offsetof(struct membw_params, name)
/* name, type, field, least, most, default, help, choices, capacity, no_list */
static const struct cm_option membw_options[] = {
    {"op", CM_OPTION_CHOICE, FIELD(op), 0, 0, "triad", "what is done with the arrays", op_choices,
     0, false},
    {"size", CM_OPTION_SIZE, FIELD(size_bytes), 0, 0, "0",
     "bytes of each array; 0 for four last-level caches", NULL, 0, false},
    {"dtype", CM_OPTION_CHOICE, FIELD(dtype), 0, 0, "f64", "type of the elements", dtype_choices, 0,
     false},
    {"rotate", CM_OPTION_BOOL, FIELD(rotate), 0, 0, "yes",
     "use further arrays in turn until caches cannot hold them", NULL, 0, false},
    {0},
};

static enum cm_status membw_validate(const void *memory, const char *where)
{
    const struct membw_params *params = memory;
    unsigned element = params->dtype == 0 ? 4 : 8;
    if (params->size_bytes % element != 0)
        return cm_error(CM_USAGE, "%s: size is no multiple of the element's %u bytes", where,
                        element);
    if (params->size_bytes > (uint64_t)1 << 56)
        return cm_error(CM_USAGE, "%s: size is over 2^56 bytes", where);
    return CM_OK;
}

/* The size of an array for size = 0. */
static enum cm_status automatic_size(struct cm_context *context, unsigned arrays, uint64_t *bytes)
{
    uint64_t left, wanted = 4 * context->device->info.cache_bytes;
    enum cm_status status = cm_context_memory_left(context, &left);
    if (status != CM_OK)
        return status;
    uint64_t least = context->device->ops->is_host ? LEAST_HOST_BYTES : LEAST_DEVICE_BYTES;
    wanted = wanted > least ? wanted : least;
    /* An eighth stays free, for the check's chunks among others. */
    uint64_t most = left / 8 * 7 / arrays;
    wanted = wanted < most ? wanted : most;
    wanted = wanted / ALIGNMENT * ALIGNMENT;
    if (wanted == 0)
        return cm_error(CM_NO_MEMORY, "membw: %llu bytes left are too few for %u arrays",
                        (unsigned long long)left, arrays);
    *bytes = wanted;
    return CM_OK;
}

static enum cm_status take(struct membw_state *state, enum cm_memory_kind kind, uint64_t bytes,
                           char **memory)
{
    void *block;
    enum cm_status status = cm_context_alloc(state->context, kind, bytes, &block);
    if (status == CM_OK)
        *memory = block;
    return status;
}

static enum cm_status allocate(struct membw_state *state)
{
    unsigned inputs = op_shape[state->op].inputs;
    uint64_t slab = state->stride * state->sets;
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < inputs && status == CM_OK; i++)
        status = take(state, CM_MEMORY_DEVICE, slab, &state->inputs[i]);
    if (status == CM_OK && op_shape[state->op].output) {
        status = take(state, CM_MEMORY_DEVICE, slab, &state->out);
        if (status == CM_OK)
            status = cm_context_output(state->context, state->out, slab);
    } else if (status == CM_OK) {
        status = take(state, CM_MEMORY_DEVICE, RESULT_BYTES * state->sets, &state->results);
        if (status == CM_OK)
            status = cm_context_output(state->context, state->results, RESULT_BYTES * state->sets);
    }
    uint64_t chunk = CHUNK * cm_dtype_size(state->dtype);
    if (status == CM_OK)
        status = take(state, CM_MEMORY_DEVICE, 2 * chunk, &state->scratch);
    if (status == CM_OK)
        status = take(state, CM_MEMORY_HOST, 3 * chunk, &state->raw);
    return status;
}

static enum cm_status membw_setup(struct cm_context *context, const void *memory, void *space)
{
    struct membw_state *state = space;
    const struct membw_params *params = memory;
    state->context = context;
    state->op = (enum op)params->op;
    state->dtype = params->dtype == 0 ? CM_F32 : CM_F64;
    unsigned inputs = op_shape[state->op].inputs;
    unsigned arrays = inputs + op_shape[state->op].output;
    state->bytes = params->size_bytes;
    enum cm_status status = CM_OK;
    if (state->bytes == 0)
        status = automatic_size(context, arrays, &state->bytes);
    if (status != CM_OK)
        return status;
    state->count = state->bytes / cm_dtype_size(state->dtype);
    state->stride = (state->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    state->sets = 1;
    if (params->rotate)
        status = cm_context_rotation(context, arrays * state->stride, &state->sets);
    if (status == CM_OK)
        status = allocate(state);
    if (status != CM_OK)
        return status;
    state->chunk = cm_alloc(1, sizeof *state->chunk);
    if (state->chunk == NULL)
        return CM_NO_MEMORY;
    uint64_t elements = state->stride * state->sets / cm_dtype_size(state->dtype);
    state->word = cm_random_seed(context->seed, "membw.word", context->comm->rank, 0);
    for (unsigned i = 0; i < inputs && status == CM_OK; i++) {
        state->seeds[i] = cm_random_seed(context->seed, "membw", context->comm->rank, i);
        status = context->device->kernels->fill_normal(context->stream, state->inputs[i], elements,
                                                       state->dtype, state->seeds[i], 0);
    }
    return status == CM_OK ? cm_context_sync(context) : status;
}

static uint64_t *result_of(const struct membw_state *state, uint64_t set)
{
    return (uint64_t *)(void *)(state->results + set * RESULT_BYTES);
}

static enum cm_status membw_enqueue(void *memory, unsigned part, uint64_t iteration)
{
    (void)part;
    const struct membw_state *state = memory;
    const struct cm_kernels *kernels = state->context->device->kernels;
    struct cm_stream *stream = state->context->stream;
    uint64_t offset = iteration % state->sets * state->stride;
    const char *a = state->inputs[0] != NULL ? state->inputs[0] + offset : NULL;
    const char *b = state->inputs[1] != NULL ? state->inputs[1] + offset : NULL;
    char *out = state->out != NULL ? state->out + offset : NULL;
    switch (state->op) {
    case OP_COPY:
        return kernels->copy(stream, out, a, state->count, state->dtype);
    case OP_SCALE:
        return kernels->scale(stream, out, a, FACTOR, state->count, state->dtype);
    case OP_ADD:
        return kernels->add(stream, out, a, b, state->count, state->dtype);
    case OP_TRIAD:
        return kernels->triad(stream, out, a, b, FACTOR, state->count, state->dtype);
    case OP_READ:
        return kernels->read(stream, result_of(state, iteration % state->sets), a, state->bytes);
    case OP_WRITE:
        return kernels->write(stream, out, state->word, state->bytes);
    }
    return cm_error(CM_INTERNAL, "membw: operation %d", (int)state->op);
}

static void membw_work(const void *memory, unsigned part, struct cm_work *work)
{
    (void)part;
    const struct membw_state *state = memory;
    double count = (double)state->count;
    work->bytes = (double)state->bytes *
                  (op_shape[state->op].inputs + (op_shape[state->op].output ? 1u : 0u));
    work->flops = state->op == OP_TRIAD                          ? 2 * count
                  : state->op == OP_SCALE || state->op == OP_ADD ? count
                                                                 : 0;
}

/* Elements first .. first + count of a set: the inputs as they were generated, and the output, as
 * raw bytes on the host. */
static enum cm_status fetch(struct membw_state *state, uint64_t set, uint64_t first, uint64_t count)
{
    struct cm_context *context = state->context;
    const struct cm_device *device = context->device;
    size_t size = cm_dtype_size(state->dtype);
    enum cm_status status = CM_OK;
    for (unsigned i = 0; i < op_shape[state->op].inputs && status == CM_OK; i++) {
        char *scratch = state->scratch + i * CHUNK * size;
        status = device->kernels->fill_normal(context->stream, scratch, count, state->dtype,
                                              state->seeds[i], set * state->stride / size + first);
        if (status == CM_OK)
            status = device->ops->copy(context->stream, state->raw + i * CHUNK * size, scratch,
                                       count * size);
    }
    if (status == CM_OK && state->out != NULL)
        status = device->ops->copy(context->stream, state->raw + 2 * CHUNK * size,
                                   state->out + set * state->stride + first * size, count * size);
    return status == CM_OK ? cm_context_sync(context) : status;
}

/* What the operation makes of the inputs, into a. */
static void expect(enum op op, struct chunk *chunk, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        double a = chunk->a[i], b = chunk->b[i];
        chunk->a[i] = op == OP_SCALE   ? FACTOR * a
                      : op == OP_ADD   ? a + b
                      : op == OP_TRIAD ? a + FACTOR * b
                                       : a;
        /* Two roundings at most, each by half a step of a value no larger than this. */
        chunk->b[i] = op == OP_COPY    ? 0
                      : op == OP_SCALE ? fabs(FACTOR * a)
                                       : fabs(a) + FACTOR * fabs(b);
    }
}

static void compare(struct membw_state *state, uint64_t first, uint64_t count,
                    struct cm_check *check)
{
    struct chunk *chunk = state->chunk;
    size_t size = cm_dtype_size(state->dtype), inputs = op_shape[state->op].inputs;
    double step = cm_dtype_step(state->dtype);
    memset(chunk->b, 0, sizeof chunk->b);
    for (size_t i = 0; i < inputs; i++)
        cm_dtype_load_all(state->dtype, state->raw + i * CHUNK * size, count,
                          i == 0 ? chunk->a : chunk->b);
    cm_dtype_load_all(state->dtype, state->raw + 2 * CHUNK * size, count, chunk->out);
    expect(state->op, chunk, count);
    check->checked += count;
    for (uint64_t i = 0; i < count; i++) {
        double error = fabs(chunk->out[i] - chunk->a[i]), tolerance = step * chunk->b[i];
        if (error <= tolerance) {
            if (error > check->worst * tolerance)
                check->worst = error / tolerance;
            continue;
        }
        check->worst =
            tolerance > 0 && error < (double)INFINITY ? error / tolerance : (double)INFINITY;
        if (check->mismatches++ == 0)
            snprintf(check->detail, sizeof check->detail, "element %llu is %.17g, should be %.17g",
                     (unsigned long long)(first + i), chunk->out[i], chunk->a[i]);
    }
}

/* write: every word of the array. */
static void compare_words(struct membw_state *state, uint64_t first, uint64_t count,
                          struct cm_check *check)
{
    size_t size = cm_dtype_size(state->dtype);
    const char *raw = state->raw + 2 * CHUNK * size;
    check->checked += count;
    for (uint64_t i = 0; i < count; i++) {
        /* An array of f32 may end on half a word: chunks begin on whole ones. */
        const char *expected = (const char *)&state->word + i * size % sizeof state->word;
        if (memcmp(raw + i * size, expected, size) == 0)
            continue;
        check->worst = (double)INFINITY;
        if (check->mismatches++ == 0)
            snprintf(check->detail, sizeof check->detail, "element %llu is not the word written",
                     (unsigned long long)(first + i));
    }
}

static uint64_t xor_words(const char *raw, uint64_t bytes)
{
    uint64_t sum = 0, word;
    for (; bytes >= sizeof word; bytes -= sizeof word, raw += sizeof word) {
        memcpy(&word, raw, sizeof word);
        sum ^= word;
    }
    word = 0;
    memcpy(&word, raw, bytes);
    return sum ^ word;
}

/* read: the one result stands for all words of its set. */
static enum cm_status check_read(struct membw_state *state, uint64_t set, struct cm_check *check)
{
    struct cm_context *context = state->context;
    uint64_t expected = 0, found;
    enum cm_status status;
    for (uint64_t first = 0; first < state->count; first += CHUNK) {
        uint64_t count = state->count - first < CHUNK ? state->count - first : CHUNK;
        status = fetch(state, set, first, count);
        if (status != CM_OK)
            return status;
        expected ^= xor_words(state->raw, count * cm_dtype_size(state->dtype));
    }
    status = context->device->ops->copy(context->stream, state->raw, result_of(state, set),
                                        sizeof found);
    if (status == CM_OK)
        status = cm_context_sync(context);
    if (status != CM_OK)
        return status;
    memcpy(&found, state->raw, sizeof found);
    check->checked += state->count;
    if (found == expected)
        return CM_OK;
    check->worst = (double)INFINITY;
    if (check->mismatches++ == 0)
        snprintf(check->detail, sizeof check->detail,
                 "XOR of the words of set %u is %016llx, should be %016llx", (unsigned)set,
                 (unsigned long long)found, (unsigned long long)expected);
    return CM_OK;
}

/* Every element of one set's output. */
static enum cm_status check_set(struct membw_state *state, uint64_t set, struct cm_check *check)
{
    for (uint64_t first = 0; first < state->count; first += CHUNK) {
        uint64_t count = state->count - first < CHUNK ? state->count - first : CHUNK;
        enum cm_status status = fetch(state, set, first, count);
        if (status != CM_OK)
            return status;
        if (state->op == OP_WRITE)
            compare_words(state, first, count, check);
        else
            compare(state, first, count, check);
    }
    return CM_OK;
}

static enum cm_status membw_check(void *memory, unsigned part, uint64_t iterations,
                                  struct cm_check *check)
{
    (void)part;
    struct membw_state *state = memory;
    uint64_t used = iterations < state->sets ? iterations : state->sets;
    enum cm_status status = CM_OK;
    for (uint64_t set = 0; set < used && status == CM_OK; set++)
        status =
            state->op == OP_READ ? check_read(state, set, check) : check_set(state, set, check);
    return status;
}

static void membw_teardown(void *memory)
{
    struct membw_state *state = memory;
    cm_free(state->chunk);
    state->chunk = NULL;
}

static enum cm_status add_rate(struct cm_metrics *metrics, const char *name, double rate,
                               const struct cm_peak *peak, double share)
{
    struct cm_metric *metric;
    enum cm_status status = cm_metrics_add(metrics, name, rate, "B/s", CM_HIGHER, &metric);
    if (status != CM_OK)
        return status;
    metric->ceiling = peak->value * share;
    snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "%s", peak->source);
    return CM_OK;
}

static enum cm_status membw_metrics(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    const struct cm_part_samples *part = &input->parts[0];
    const struct cm_peak *peak = &input->device->memory_rate;
    double sum = 0, least = (double)INFINITY;
    for (unsigned rank = 0; rank < part->rank_count; rank++) {
        double rate = part->work.bytes / part->rank_median_s[rank];
        sum += rate;
        least = rate < least ? rate : least;
    }
    enum cm_status status = add_rate(metrics, "bandwidth", sum, peak, input->ranks);
    if (status == CM_OK)
        status = add_rate(metrics, "bandwidth_per_rank", least, peak, 1);
    for (unsigned rank = 0; rank < part->rank_count && part->rank_count > 1 && status == CM_OK;
         rank++) {
        char name[CM_METRIC_NAME_MAX];
        snprintf(name, sizeof name, "bandwidth.rank%u", rank);
        status = add_rate(metrics, name, part->work.bytes / part->rank_median_s[rank], peak, 1);
    }
    return status;
}

const struct cm_workload cm_workload_membw = {
    .name = "membw",
    .summary = "memory bandwidth of every rank at once, as STREAM counts it",
    .options = membw_options,
    .params_size = sizeof(struct membw_params),
    .state_size = sizeof(struct membw_state),
    .headline = "bandwidth",
    .validate = membw_validate,
    .setup = membw_setup,
    .enqueue = membw_enqueue,
    .work = membw_work,
    .check = membw_check,
    .teardown = membw_teardown,
    .metrics = membw_metrics,
};
