/* Schedules: from (model, plan, rank) to buffers and operations; what every part shares. */
#include "clustermark/schedule.h"

#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/model/builder.h"

const struct cm_op_info cm_op_infos[CM_OP_KIND_COUNT] = {
#define CM_OP_ROW(name, text, class, roles) [CM_OP_##name] = {text, CM_CLASS_##class, roles},
    CM_OP_LIST(CM_OP_ROW)
#undef CM_OP_ROW
};
const char *const cm_buffer_use_names[] = {"weights", "gradients", "optimizer", "activations",
                                           "logits",  "workspace", "data",      NULL};
const char *const cm_lane_names[] = {"compute",    "layer",        "data",        "forward out",
                                     "forward in", "backward out", "backward in", NULL};
const char *const cm_phase_names[] = {"forward", "backward", "recompute", "optimizer", NULL};
const char *const cm_op_class_names[] = {
    "sync",       "gemm", "cast",    "embedding", "norm",      "rope", "attention",
    "activation", "loss", "experts", "memory",    "optimizer", "comm", NULL};

void cm_step_defaults(struct cm_step *step)
{
    *step = (struct cm_step){.parallel = {.dp = 1, .tp = 1, .pp = 1, .cp = 1, .ep = 1, .vpp = 1},
                             .micro_batches = 1,
                             .micro_batch = 1,
                             .dtype = CM_BF16,
                             .overlap = true,
                             .bucket_bytes = 40000000,
                             .learning_rate = 3e-4F,
                             .beta1 = 0.9F,
                             .beta2 = 0.95F,
                             .epsilon = 1e-8F,
                             .weight_decay = 0.1F,
                             .clip = 1,
                             .stochastic = true};
}

static void set_sizes(struct cm_builder *b)
{
    const struct cm_step *step = b->step;
    const struct cm_transformer *m = b->model;
    const struct cm_parallel *p = b->parallel;
    const struct cm_coordinates *place = &b->schedule->place;
    b->tp = p->tp;
    b->cp = p->cp;
    b->ep = p->ep;
    b->size = cm_dtype_size(step->dtype);
    b->hidden = m->hidden;
    b->heads = m->heads / p->tp;
    b->kv_heads = m->kv_heads / p->tp;
    b->head_size = m->head_size;
    b->q_columns = b->heads * b->head_size;
    b->kv_columns = 2 * b->kv_heads * b->head_size;
    b->qkv_columns = b->q_columns + b->kv_columns;
    b->ffn = m->ffn / p->tp;
    b->up_columns = m->activation == CM_ACTIVATION_SWIGLU ? 2 * b->ffn : b->ffn;
    b->vocabulary_rows = cm_padded_vocabulary(m, p->tp) / p->tp;
    b->rows = m->sequence / p->cp * step->micro_batch;
    b->split_rows = p->sp != 0 ? b->rows / p->tp : b->rows;
    b->has_embedding = place->pp == 0;
    b->has_head = place->pp == p->pp - 1;
    if (m->experts > 0) {
        double wanted = m->capacity_factor * (double)b->rows * (double)m->top_k;
        b->capacity = (uint64_t)(wanted / (double)m->experts) + 1;
        if (m->capacity_factor <= 0 || b->capacity > b->rows)
            b->capacity = b->rows;
        b->capacity = (b->capacity + 7) / 8 * 8;
        b->experts_here = m->experts / p->ep;
    }
    /* Two chunks of the sequence, one early and one late, so that each rank attends to as much. */
    uint32_t chunk = (uint32_t)(m->sequence / (p->cp > 1 ? 2 * p->cp : 1));
    b->positions = (struct cm_positions){.batch = (uint32_t)step->micro_batch, .chunk = chunk};
    if (p->cp > 1) {
        b->positions.first[0] = place->cp * chunk;
        b->positions.first[1] = (2 * p->cp - 1 - place->cp) * chunk;
    }
    b->schedule->rows = b->rows;
}

static uint64_t largest_scratch(const struct cm_builder *b)
{
    uint64_t largest = cm_sum_scratch_bytes(1), bytes;
    const struct cm_norm norm = {.dtype = b->step->dtype,
                                 .layer = b->model->norm == CM_NORM_LAYER,
                                 .rows = b->split_rows,
                                 .columns = b->hidden};
    const struct cm_embed embed = {.dtype = b->step->dtype,
                                   .rows = b->rows,
                                   .columns = b->hidden,
                                   .vocabulary_count = (uint32_t)b->vocabulary_rows,
                                   .positions = b->positions};
    const struct cm_attention attention = {.dtype = b->step->dtype,
                                           .batch = b->positions.batch,
                                           .heads = (uint32_t)b->heads,
                                           .kv_heads = (uint32_t)b->kv_heads,
                                           .head_size = (uint32_t)b->head_size,
                                           .q_length = (uint32_t)(b->rows / b->positions.batch),
                                           .k_length = (uint32_t)b->model->sequence};
    const struct cm_route route = {.dtype = b->step->dtype,
                                   .rows = b->rows,
                                   .columns = b->hidden,
                                   .experts = (uint32_t)b->model->experts,
                                   .top_k = (uint32_t)b->model->top_k,
                                   .capacity = b->capacity};
    bytes = cm_norm_scratch_bytes(&norm);
    largest = bytes > largest ? bytes : largest;
    bytes = cm_embed_scratch_bytes(&embed);
    largest = b->has_embedding && bytes > largest ? bytes : largest;
    bytes = cm_attention_scratch_bytes(&attention);
    largest = bytes > largest ? bytes : largest;
    bytes = b->model->experts > 0 ? cm_route_scratch_bytes(&route) : 0;
    largest = bytes > largest ? bytes : largest;
    for (uint32_t i = 0; b->status == CM_OK && i < b->schedule->unit_count; i++) {
        bytes = cm_sum_scratch_bytes(b->schedule->units[i].count);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static enum cm_status allocate(struct cm_builder *b)
{
    const struct cm_parallel *p = b->parallel;
    uint64_t layers = 0;
    b->chunk_first = cm_alloc(p->vpp + 1, sizeof *b->chunk_first);
    if (b->chunk_first == NULL)
        return CM_NO_MEMORY;
    for (unsigned chunk = 0; chunk < p->vpp; chunk++) {
        uint64_t first, end;
        cm_parallel_layers(p, b->model->layers, b->schedule->place.pp, chunk, &first, &end);
        b->chunk_first[chunk] = layers;
        layers += end - first;
    }
    b->chunk_first[p->vpp] = layers;
    b->block_units = cm_alloc(layers, sizeof *b->block_units);
    b->block_parameters = cm_alloc(layers, sizeof *b->block_parameters);
    b->passages = cm_alloc(p->vpp * b->step->micro_batches, sizeof *b->passages);
    if (b->block_units == NULL || b->block_parameters == NULL || b->passages == NULL)
        return CM_NO_MEMORY;
    return CM_OK;
}

static void release_builder(struct cm_builder *b)
{
    for (uint64_t i = 0; b->passages != NULL && i < b->parallel->vpp * b->step->micro_batches; i++)
        cm_free(b->passages[i].layers);
    void *blocks[] = {b->idle,        b->free_events, b->work,
                      b->block_units, b->chunk_first, b->block_parameters,
                      b->passages,    b->uses,        b->waiting};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        cm_free(blocks[i]);
}

static void keep_data(struct cm_builder *b)
{
    struct cm_schedule *s = b->schedule;
    uint64_t bytes = b->step->micro_batches * b->rows * 4;
    s->tokens = s->targets = cm_no_slice();
    if (b->has_embedding)
        s->tokens = cm_keep(b, "tokens", bytes, CM_USE_DATA, false);
    if (b->has_head)
        s->targets = cm_keep(b, "targets", bytes, CM_USE_DATA, false);
    b->flying = cm_no_slice();
    b->scalars = cm_keep(b, "scalars", 16, CM_USE_DATA, cm_parallel_ranks(b->parallel) > 1);
    s->loss = cm_part_of(b->scalars, CM_SCALAR_LOSS, 4);
    s->gradient_norm = cm_part_of(b->scalars, CM_SCALAR_NORM, 4);
    b->scratch = cm_keep(b, "scratch", largest_scratch(b), CM_USE_WORKSPACE, false);
}

/* The step ends when every lane has. */
static void join_lanes(struct cm_builder *b)
{
    for (int lane = 1; lane < CM_LANE_COUNT; lane++)
        if ((b->lanes_used >> lane & 1) != 0)
            cm_order(b, (enum cm_lane)lane, CM_LANE_COMPUTE);
}

enum cm_status cm_schedule_stream(const struct cm_step *step, unsigned rank,
                                  const struct cm_op_sink *sink, struct cm_schedule *schedule)
{
    *schedule = (struct cm_schedule){.step = *step, .rank = rank};
    enum cm_status status = cm_transformer_validate(&step->model, "trainstep");
    if (status == CM_OK)
        status = cm_parallel_check(&step->parallel, &step->model, step->micro_batches,
                                   step->micro_batch, "trainstep");
    if (status != CM_OK)
        return status;
    struct cm_builder b = {.schedule = schedule,
                           .sink = sink,
                           .step = &schedule->step,
                           .model = &schedule->step.model,
                           .parallel = &schedule->step.parallel,
                           .layer = -1,
                           .micro = -1,
                           .chunk = -1,
                           .embedding_unit = UINT32_MAX,
                           .position_unit = UINT32_MAX,
                           .head_unit = UINT32_MAX,
                           .table = UINT32_MAX,
                           .learned = UINT32_MAX,
                           .norm = UINT32_MAX,
                           .norm_bias = UINT32_MAX,
                           .head = UINT32_MAX};
    cm_parallel_coordinates(b.parallel, rank, &schedule->place);
    set_sizes(&b);
    b.status = allocate(&b);
    if (b.status == CM_OK) {
        cm_build_units(&b);
        keep_data(&b);
        cm_emit_zero(&b, b.scalars);
        cm_emit_pipeline(&b);
        cm_emit_optimizer(&b);
        join_lanes(&b);
        cm_emit_end(&b);
    }
    status = b.status;
    release_builder(&b);
    if (status != CM_OK)
        cm_schedule_release(schedule);
    return status;
}

enum cm_status cm_schedule_build(const struct cm_step *step, unsigned rank,
                                 struct cm_schedule *schedule)
{
    return cm_schedule_stream(step, rank, NULL, schedule);
}

void cm_schedule_release(struct cm_schedule *schedule)
{
    cm_free(schedule->buffers);
    cm_free(schedule->units);
    cm_free(schedule->parameters);
    cm_free(schedule->ops);
    *schedule = (struct cm_schedule){.buffers = NULL};
}

void cm_schedule_memory(const struct cm_schedule *schedule, uint64_t bytes[CM_USE_COUNT],
                        uint64_t *total)
{
    memset(bytes, 0, CM_USE_COUNT * sizeof *bytes);
    *total = 0;
    for (uint32_t i = 0; i < schedule->buffer_count; i++) {
        bytes[schedule->buffers[i].use] += schedule->buffers[i].size_bytes;
        *total += schedule->buffers[i].size_bytes;
    }
}
