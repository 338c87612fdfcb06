/* What a workload gets from the harness: memory within its share, and what the ranks agree on. */
#include <math.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/units.h"
#include "host/measure/harness.h"
#include "host/measure/sync.h"

#define ROTATION_MAX 64
/* Where the size of the cache is not known: more than any has. */
#define CACHE_UNKNOWN_BYTES (256u << 20)

static uint64_t bytes_left(const struct cm_context_private *hidden)
{
    return hidden->limit_bytes - hidden->used_bytes;
}

enum cm_status cm_context_alloc(struct cm_context *context, enum cm_memory_kind kind,
                                uint64_t size_bytes, void **memory)
{
    struct cm_context_private *hidden = context->hidden;
    struct cm_device *device = context->device;
    uint64_t left = bytes_left(hidden);
    if (size_bytes > left || size_bytes > SIZE_MAX) {
        char needed[CM_UNITS_TEXT_MAX], have[CM_UNITS_TEXT_MAX], all[CM_UNITS_TEXT_MAX];
        return cm_error(CM_UNSUPPORTED,
                        "needs a buffer of %s; of this rank's %s of memory %s are left",
                        cm_format_size(size_bytes, needed),
                        cm_format_size(hidden->limit_bytes, all), cm_format_size(left, have));
    }
    if (cm_grow(&hidden->blocks, &hidden->block_capacity, hidden->block_count + 1,
                sizeof *hidden->blocks) != 0)
        return CM_NO_MEMORY;
    void *fresh;
    enum cm_status status = device->ops->alloc(device, kind, (size_t)size_bytes, &fresh);
    if (status != CM_OK)
        return status;
    hidden->blocks[hidden->block_count++] =
        (struct cm_block){.kind = kind, .memory = fresh, .size_bytes = size_bytes};
    hidden->used_bytes += size_bytes;
    *memory = fresh;
    return CM_OK;
}

enum cm_status cm_context_output(struct cm_context *context, void *memory, uint64_t size_bytes)
{
    struct cm_context_private *hidden = context->hidden;
    enum cm_memory_kind kind = CM_MEMORY_DEVICE;
    bool known = false;
    for (size_t i = 0; i < hidden->block_count && !known; i++) {
        const struct cm_block *block = &hidden->blocks[i];
        uintptr_t begin = (uintptr_t)block->memory, at = (uintptr_t)memory;
        known = at >= begin && at - begin <= block->size_bytes &&
                size_bytes <= block->size_bytes - (at - begin);
        kind = block->kind;
    }
    if (!known || size_bytes == 0)
        return cm_error(CM_INTERNAL, "an output of %llu bytes is not memory of this case",
                        (unsigned long long)size_bytes);
    if (cm_grow(&hidden->outputs, &hidden->output_capacity, hidden->output_count + 1,
                sizeof *hidden->outputs) != 0)
        return CM_NO_MEMORY;
    hidden->outputs[hidden->output_count++] =
        (struct cm_output){.kind = kind, .memory = memory, .size_bytes = size_bytes};
    return CM_OK;
}

/* The smallest `own` over the ranks. */
static enum cm_status smallest(struct cm_context *context, double own, double *agreed)
{
    struct cm_vote *vote = context->hidden->vote;
    cm_vote_values(vote)[0] = -own;
    enum cm_status status = cm_vote_round(vote, 1);
    if (status != CM_OK)
        return status;
    if (vote->agreed.status != CM_OK)
        return cm_error(vote->agreed.status, "%s", vote->agreed.text);
    if (vote->own.status != CM_OK)
        return cm_error(vote->own.status, "%s", vote->own.text);
    *agreed = -cm_vote_values(vote)[0];
    return CM_OK;
}

enum cm_status cm_context_rotation(struct cm_context *context, uint64_t set_bytes, unsigned *sets)
{
    uint64_t cache_bytes = context->device->info.cache_bytes;
    if (cache_bytes == 0)
        cache_bytes = CACHE_UNKNOWN_BYTES;
    double wanted = 1;
    if (set_bytes > 0) {
        wanted = ceil(2.0 * (double)cache_bytes / (double)set_bytes);
        double room = floor((double)(bytes_left(context->hidden) / 4) / (double)set_bytes);
        wanted = fmax(1, fmin(fmin(wanted, ROTATION_MAX), room));
    }
    double agreed = 0;
    enum cm_status status = smallest(context, wanted, &agreed);
    if (status == CM_OK)
        *sets = (unsigned)agreed;
    return status;
}

enum cm_status cm_context_memory_left(struct cm_context *context, uint64_t *size_bytes)
{
    double agreed = 0;
    enum cm_status status = smallest(context, (double)bytes_left(context->hidden), &agreed);
    if (status == CM_OK)
        *size_bytes = (uint64_t)agreed;
    return status;
}

uint64_t cm_context_memory_used(const struct cm_context *context)
{
    return context->hidden->used_bytes;
}

enum cm_status cm_context_gather(struct cm_context *context, const void *own, size_t size,
                                 const void **all)
{
    /* A rank that has failed is told of in this round, and nobody waits for its bytes. */
    double unused;
    enum cm_status status = smallest(context, 0, &unused);
    return status == CM_OK ? cm_vote_gather(context->hidden->vote, own, size, all) : status;
}

enum cm_status cm_context_stream(struct cm_context *context, int priority,
                                 struct cm_stream **stream)
{
    struct cm_context_private *hidden = context->hidden;
    if (cm_grow(&hidden->streams, &hidden->stream_capacity, hidden->stream_count + 1,
                sizeof(struct cm_stream *)) != 0)
        return CM_NO_MEMORY;
    enum cm_status status = context->device->ops->stream_create(context->device, priority, stream);
    if (status == CM_OK)
        hidden->streams[hidden->stream_count++] = *stream;
    return status;
}

enum cm_status cm_context_split(struct cm_context *context, int color, int key,
                                struct cm_comm **part)
{
    struct cm_context_private *hidden = context->hidden;
    /* Who has failed is told of here, and nobody waits for its split. */
    double unused;
    if (cm_grow(&hidden->parts, &hidden->part_capacity, hidden->part_count + 1,
                sizeof(struct cm_comm *)) != 0)
        cm_vote_note(hidden->vote, CM_NO_MEMORY);
    enum cm_status status = smallest(context, 0, &unused);
    if (status == CM_OK)
        status = context->comm->ops->split(context->comm, color, key, part);
    if (status == CM_OK && *part != NULL)
        hidden->parts[hidden->part_count++] = *part;
    return status;
}

static enum cm_status wait_for(struct cm_context *context, struct cm_stream *stream)
{
    const struct cm_context_private *hidden = context->hidden;
    return cm_sync_parts(context->comm, hidden->parts, hidden->part_count, stream,
                         context->timeout_s);
}

enum cm_status cm_context_wait(struct cm_context *context)
{
    return wait_for(context, context->stream);
}

/* Also after a failure: nothing may be under way afterwards, and the failure of one stream must not
 * surface in a later phase. */
enum cm_status cm_context_sync(struct cm_context *context)
{
    const struct cm_context_private *hidden = context->hidden;
    enum cm_status status = wait_for(context, context->stream);
    for (size_t i = 0; i <= hidden->stream_count && status != CM_TIMEOUT; i++) {
        struct cm_stream *other = i == 0 ? context->side : hidden->streams[i - 1];
        struct cm_error_record first;
        cm_error_save(&first);
        enum cm_status synced = wait_for(context, other);
        if (status == CM_OK || synced == CM_TIMEOUT)
            status = synced;
        else
            cm_error_restore(&first);
    }
    return status;
}

enum cm_status cm_context_finish(struct cm_context *context, enum cm_status status)
{
    if (status != CM_OK)
        cm_vote_note(context->hidden->vote, status);
    enum cm_status synced = cm_context_sync(context);
    return status == CM_OK || synced == CM_TIMEOUT ? synced : status;
}

enum cm_status cm_context_poison(struct cm_context *context)
{
    struct cm_context_private *hidden = context->hidden;
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < hidden->output_count && status == CM_OK; i++) {
        const struct cm_output *output = &hidden->outputs[i];
        /* The device itself may not reach this kind. */
        if (output->kind == CM_MEMORY_PAGEABLE)
            memset(output->memory, 0xff, (size_t)output->size_bytes);
        else
            status = context->device->kernels->write(context->stream, output->memory, UINT64_MAX,
                                                     output->size_bytes);
    }
    return cm_context_finish(context, status);
}

void cm_context_abort(struct cm_context *context)
{
    struct cm_context_private *hidden = context->hidden;
    for (size_t i = hidden->part_count; i-- > 0;)
        hidden->parts[i]->ops->abort(hidden->parts[i]);
    context->comm->ops->abort(context->comm);
}

void cm_context_release(struct cm_context *context)
{
    struct cm_context_private *hidden = context->hidden;
    struct cm_device *device = context->device;
    for (size_t i = hidden->part_count; i-- > 0;)
        hidden->parts[i]->ops->close(hidden->parts[i]);
    for (size_t i = hidden->stream_count; i-- > 0;)
        device->ops->stream_destroy(hidden->streams[i]);
    for (size_t i = hidden->block_count; i-- > 0;)
        device->ops->free(device, hidden->blocks[i].kind, hidden->blocks[i].memory);
    cm_free(hidden->parts);
    cm_free(hidden->streams);
    cm_free(hidden->blocks);
    cm_free(hidden->outputs);
    *hidden = (struct cm_context_private){0};
}
