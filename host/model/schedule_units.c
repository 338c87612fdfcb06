/*
 * Parameters of a rank: which part of each matrix it has, and how they lie in units. Matrices that
 * the tensor group splits come first in a unit, then what all its ranks have.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "host/model/builder.h"

#define DEVIATION 0.02
#define GRAIN     64 /* elements: a shard's size is a multiple */

static uint32_t add_unit(struct cm_builder *b, const char *name, bool experts)
{
    struct cm_schedule *s = b->schedule;
    size_t capacity = s->unit_capacity;
    if (b->status != CM_OK)
        return UINT32_MAX;
    if (cm_grow(&s->units, &capacity, s->unit_count + 1, sizeof *s->units) ||
        cm_grow(&b->work, &b->work_capacity, s->unit_count + 1, sizeof *b->work)) {
        b->status = CM_NO_MEMORY;
        return UINT32_MAX;
    }
    s->unit_capacity = (uint32_t)capacity;
    struct cm_unit *unit = &s->units[s->unit_count];
    struct cm_slice none = cm_no_slice();
    *unit = (struct cm_unit){.experts = experts,
                             .shards = 1,
                             .weights = none,
                             .weight_shard = none,
                             .gradients = none,
                             .gradient_shard = none,
                             .master = none,
                             .m = none,
                             .v = none};
    snprintf(unit->name, sizeof unit->name, "%s", name);
    b->work[s->unit_count] = (struct cm_unit_work){.gathered = CM_NO_EVENT,
                                                   .reduced = CM_NO_EVENT,
                                                   .pending_event = CM_NO_EVENT,
                                                   .weights = none,
                                                   .gradients = none,
                                                   .pending = none};
    return s->unit_count++;
}

/* Appends a parameter to the unit built last. */
static uint32_t add_parameter(struct cm_builder *b, uint32_t unit, const char *name, uint64_t count,
                              float deviation, float constant)
{
    struct cm_schedule *s = b->schedule;
    size_t capacity = s->parameter_capacity;
    if (b->status == CM_OK &&
        cm_grow(&s->parameters, &capacity, s->parameter_count + 1, sizeof *s->parameters))
        b->status = CM_NO_MEMORY;
    if (b->status != CM_OK)
        return UINT32_MAX;
    s->parameter_capacity = (uint32_t)capacity;
    struct cm_parameter *parameter = &s->parameters[s->parameter_count];
    *parameter = (struct cm_parameter){.unit = unit,
                                       .offset = s->units[unit].count,
                                       .count = count,
                                       .deviation = deviation,
                                       .constant = constant};
    if (b->layer >= 0)
        snprintf(parameter->name, sizeof parameter->name, "layer%d.%s", (int)b->layer, name);
    else
        snprintf(parameter->name, sizeof parameter->name, "%s", name);
    s->units[unit].count += count;
    return s->parameter_count++;
}

static void add_piece(struct cm_builder *b, uint32_t index, uint64_t first, uint64_t count)
{
    if (b->status != CM_OK || count == 0)
        return;
    struct cm_parameter *parameter = &b->schedule->parameters[index];
    parameter->pieces[parameter->piece_count++] = (struct cm_piece){first, count};
}

/* Rows [first, first + count) of a matrix of `hidden` columns as the next piece. */
static void add_rows(struct cm_builder *b, uint32_t index, uint64_t first, uint64_t count)
{
    add_piece(b, index, first * b->hidden, count * b->hidden);
}

/* From here on the unit's parameters are on all ranks of the tensor group. */
static void begin_shared(struct cm_builder *b, uint32_t unit)
{
    if (b->status == CM_OK)
        b->work[unit].first_shared = b->work[unit].first_equal = b->schedule->units[unit].count;
}

static uint32_t add_vector(struct cm_builder *b, uint32_t unit, const char *name, float constant)
{
    uint32_t index = add_parameter(b, unit, name, b->hidden, 0, constant);
    add_rows(b, index, 0, 1);
    if (b->status == CM_OK)
        b->schedule->parameters[index].replicated = true;
    return index;
}

/* A norm's weight, and its bias where it has one. Split sequences give parts of their gradients. */
static void add_norm(struct cm_builder *b, uint32_t unit, const char *name, uint32_t *weight,
                     uint32_t *bias)
{
    char bias_name[40];
    snprintf(bias_name, sizeof bias_name, "%s.bias", name);
    *weight = add_vector(b, unit, name, 1);
    *bias = b->model->norm == CM_NORM_LAYER ? add_vector(b, unit, bias_name, 0) : UINT32_MAX;
    if (b->status == CM_OK && b->parallel->sp != 0)
        b->work[unit].first_equal = b->schedule->units[unit].count;
}

/* A table of the vocabulary: this rank's rows, those beyond the vocabulary stay 0. */
static uint32_t add_table(struct cm_builder *b, uint32_t unit, const char *name)
{
    uint64_t first = b->schedule->place.tp * b->vocabulary_rows;
    uint64_t real = b->model->vocabulary > first ? b->model->vocabulary - first : 0;
    uint32_t index =
        add_parameter(b, unit, name, b->vocabulary_rows * b->hidden, (float)DEVIATION, 0);
    add_rows(b, index, first, real < b->vocabulary_rows ? real : b->vocabulary_rows);
    return index;
}

/* Memory of a finished unit. */
static void finish_unit(struct cm_builder *b, uint32_t index)
{
    if (b->status != CM_OK)
        return;
    struct cm_unit *unit = &b->schedule->units[index];
    const struct cm_coordinates *place = &b->schedule->place;
    enum cm_group group = unit->experts ? CM_GROUP_EXPERT_DATA : CM_GROUP_DATA;
    unsigned ranks = cm_group_size(b, group), zero = b->parallel->zero;
    bool comm = cm_parallel_ranks(b->parallel) > 1, f32 = b->step->dtype == CM_F32;
    if (zero > 0) {
        unit->shards = ranks;
        unit->shard = unit->experts ? place->expert_data : place->data;
    }
    uint64_t grain = (uint64_t)GRAIN * unit->shards;
    unit->count = (unit->count + grain - 1) / grain * grain;
    uint64_t part = unit->count / unit->shards;
    bool split = unit->shards > 1;

    if (zero < 3 || !split) {
        unit->weights = cm_keep(b, unit->name, unit->count * b->size, CM_USE_WEIGHTS, comm);
        unit->weight_shard =
            cm_part_of(unit->weights, unit->shard * part * b->size, part * b->size);
        b->work[index].weights = unit->weights;
        b->work[index].ready = !split;
    } else {
        unit->weight_shard = cm_keep(b, unit->name, part * b->size, CM_USE_WEIGHTS, comm);
    }
    if (zero < 2 || !split) {
        unit->gradients = cm_keep(b, unit->name, unit->count * 4, CM_USE_GRADIENTS, comm);
        b->work[index].gradients = unit->gradients;
    }
    unit->gradient_shard =
        split ? cm_keep(b, unit->name, part * 4, CM_USE_GRADIENTS, comm) : unit->gradients;
    unit->master =
        f32 ? unit->weight_shard : cm_keep(b, unit->name, part * 4, CM_USE_OPTIMIZER, false);
    unit->m = cm_keep(b, unit->name, part * 4, CM_USE_OPTIMIZER, false);
    unit->v = cm_keep(b, unit->name, part * 4, CM_USE_OPTIMIZER, false);
}

static void add_attention(struct cm_builder *b, uint32_t unit, float small,
                          struct cm_block_parameters *p)
{
    const struct cm_transformer *model = b->model;
    uint64_t tp = b->schedule->place.tp, d = b->head_size;
    p->qkv = add_parameter(b, unit, "qkv", b->qkv_columns * b->hidden, (float)DEVIATION, 0);
    add_rows(b, p->qkv, tp * b->q_columns, b->q_columns);
    for (uint64_t i = 0; i < 2; i++)
        add_rows(b, p->qkv, (model->heads + i * model->kv_heads + tp * b->kv_heads) * d,
                 b->kv_heads * d);
    p->out = add_parameter(b, unit, "out", b->q_columns * b->hidden, small, 0);
    add_rows(b, p->out, tp * b->q_columns, b->q_columns);
}

/* The feed-forward matrices of one expert, or of the dense layer. */
static uint32_t add_up(struct cm_builder *b, uint32_t unit, uint64_t expert)
{
    uint64_t tp = b->schedule->place.tp, parts = b->up_columns / b->ffn;
    uint32_t index = add_parameter(b, unit, "up", b->up_columns * b->hidden, (float)DEVIATION, 0);
    for (uint64_t i = 0; i < parts; i++)
        add_rows(b, index, (expert * parts + i) * b->model->ffn + tp * b->ffn, b->ffn);
    return index;
}

static uint32_t add_down(struct cm_builder *b, uint32_t unit, uint64_t expert, float small)
{
    uint32_t index = add_parameter(b, unit, "down", b->ffn * b->hidden, small, 0);
    add_rows(b, index, expert * b->model->ffn + b->schedule->place.tp * b->ffn, b->ffn);
    return index;
}

static void add_block(struct cm_builder *b, uint64_t local)
{
    char name[24];
    struct cm_block_parameters *p = &b->block_parameters[local];
    float small = (float)(DEVIATION / sqrt(2 * (double)b->model->layers));
    bool experts = b->model->experts > 0;
    snprintf(name, sizeof name, "layer%d", (int)b->layer);
    uint32_t unit = add_unit(b, name, false);
    b->block_units[local] = (struct cm_block_units){unit, UINT32_MAX};
    p->router = UINT32_MAX;
    add_attention(b, unit, small, p);
    if (!experts) {
        p->up = add_up(b, unit, 0);
        p->down = add_down(b, unit, 0, small);
    }
    begin_shared(b, unit);
    if (experts) {
        p->router =
            add_parameter(b, unit, "router", b->model->experts * b->hidden, (float)DEVIATION, 0);
        add_rows(b, p->router, 0, b->model->experts);
        if (b->status == CM_OK) {
            b->schedule->parameters[p->router].replicated = true;
            b->work[unit].first_equal = b->schedule->units[unit].count;
        }
    }
    add_norm(b, unit, "norm1", &p->norm1, &p->norm1_bias);
    add_norm(b, unit, "norm2", &p->norm2, &p->norm2_bias);
    finish_unit(b, unit);
    if (!experts)
        return;
    snprintf(name, sizeof name, "layer%d.experts", (int)b->layer);
    unit = add_unit(b, name, true);
    b->block_units[local].experts = unit;
    uint64_t first = b->schedule->place.ep * b->experts_here;
    for (uint64_t i = 0; i < b->experts_here; i++) {
        uint32_t up = add_up(b, unit, first + i);
        p->up = i == 0 ? up : p->up;
    }
    for (uint64_t i = 0; i < b->experts_here; i++) {
        uint32_t down = add_down(b, unit, first + i, small);
        p->down = i == 0 ? down : p->down;
    }
    begin_shared(b, unit);
    finish_unit(b, unit);
}

static void add_ends(struct cm_builder *b)
{
    b->layer = -1;
    if (b->has_embedding || (b->has_head && b->model->tied)) {
        b->embedding_unit = add_unit(b, "embedding", false);
        b->table = add_table(b, b->embedding_unit, "embedding");
        begin_shared(b, b->embedding_unit);
        finish_unit(b, b->embedding_unit);
        if (b->status == CM_OK)
            b->work[b->embedding_unit].tied_copy = !b->has_embedding;
    }
    if (b->has_embedding && b->model->positions == CM_POSITION_LEARNED) {
        b->position_unit = add_unit(b, "positions", false);
        b->learned = add_parameter(b, b->position_unit, "positions", b->model->sequence * b->hidden,
                                   (float)DEVIATION, 0);
        add_rows(b, b->learned, 0, b->model->sequence);
        if (b->status == CM_OK)
            b->schedule->parameters[b->learned].replicated = true;
        finish_unit(b, b->position_unit);
    }
    if (b->has_head) {
        b->head_unit = add_unit(b, "head", false);
        b->head = b->model->tied ? b->table : add_table(b, b->head_unit, "head");
        begin_shared(b, b->head_unit);
        add_norm(b, b->head_unit, "norm", &b->norm, &b->norm_bias);
        finish_unit(b, b->head_unit);
    }
}

void cm_build_units(struct cm_builder *b)
{
    const struct cm_parallel *parallel = b->parallel;
    add_ends(b);
    for (unsigned chunk = 0; chunk < parallel->vpp && b->status == CM_OK; chunk++) {
        uint64_t first, end;
        cm_parallel_layers(parallel, b->model->layers, b->schedule->place.pp, chunk, &first, &end);
        for (uint64_t layer = first; layer < end && b->status == CM_OK; layer++) {
            b->layer = (int32_t)layer;
            add_block(b, b->chunk_first[chunk] + layer - first);
        }
    }
    b->layer = -1;
}
