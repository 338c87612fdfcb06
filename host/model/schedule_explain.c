/* A schedule as text, for people. */
#include <inttypes.h>

#include "clustermark/schedule.h"
#include "clustermark/units.h"

static const char kind_letters[] = "WGOALSD"; /* of cm_buffer_use */

static void write_slice(const struct cm_schedule *schedule, const struct cm_slice *slice, char role,
                        struct cm_str *out)
{
    if (slice->buffer == CM_NO_BUFFER) {
        cm_str_add(out, " -");
        return;
    }
    const struct cm_buffer *buffer = &schedule->buffers[slice->buffer];
    const char *mark = role == 'w' || role == 'W' ? ">" : role == 'u' || role == 'U' ? "+" : "";
    cm_str_addf(out, " %s%c%" PRIu32, mark, kind_letters[buffer->use], slice->buffer);
    if (slice->offset_bytes != 0)
        cm_str_addf(out, "@%" PRIu64, slice->offset_bytes);
}

static void write_shape(const struct cm_op *op, struct cm_str *out)
{
    switch (op->kind) {
    case CM_OP_GEMM:
    case CM_OP_GEMM_GELU:
    case CM_OP_GEMM_SCALED:
    case CM_OP_GEMM_GELU_BACKWARD: {
        const struct cm_gemm_desc *d = &op->u.gemm;
        cm_str_addf(out, " %" PRIu64 "x%" PRIu64 "x%" PRIu64, d->m, d->n, d->k);
        if (d->batch > 1)
            cm_str_addf(out, "x%" PRIu64, d->batch);
        cm_str_addf(out, " %c%c %s->%s%s", d->trans_a ? 't' : 'n', d->trans_b ? 't' : 'n',
                    cm_dtype_name(d->dtype), cm_dtype_name(d->out_dtype),
                    d->accumulate ? " added" : "");
        break;
    }
    case CM_OP_QUANTISE:
        cm_str_addf(out, " %" PRIu64 "x%" PRIu64 "%s to %s", op->u.quantise.rows,
                    op->u.quantise.columns, op->u.quantise.transpose ? " transposed" : "",
                    cm_dtype_name(op->u.quantise.to));
        break;
    case CM_OP_ATTENTION:
    case CM_OP_ATTENTION_BACKWARD:
        cm_str_addf(out, " %u of %u positions, %u/%u heads of %u", op->u.attention.q_length,
                    op->u.attention.k_length, op->u.attention.heads, op->u.attention.kv_heads,
                    op->u.attention.head_size);
        break;
    case CM_OP_RECORD:
    case CM_OP_WAIT:
        cm_str_addf(out, " event %" PRIu32, op->event);
        break;
    default:
        if (cm_op_infos[op->kind].class == CM_CLASS_COMM)
            cm_str_addf(out, " %s %" PRIu64 " %s", cm_group_names[op->u.comm.group],
                        op->u.comm.count, cm_dtype_name(op->u.comm.dtype));
        break;
    }
}

void cm_op_write(const struct cm_schedule *schedule, const struct cm_op *op, struct cm_str *out)
{
    const struct cm_op_info *info = &cm_op_infos[op->kind];
    cm_str_addf(out, "%-12s %-9s", cm_lane_names[op->lane], cm_phase_names[op->phase]);
    if (op->micro >= 0)
        cm_str_addf(out, " m%" PRId32, op->micro);
    if (op->chunk > 0)
        cm_str_addf(out, " c%" PRId32, op->chunk);
    if (op->layer >= 0)
        cm_str_addf(out, " layer%" PRId32, op->layer);
    cm_str_addf(out, " %s", info->name);
    write_shape(op, out);
    for (unsigned i = 0; info->roles[i] != '\0'; i++)
        write_slice(schedule, &op->slices[i], info->roles[i], out);
}

static void write_buffers(const struct cm_schedule *schedule, struct cm_str *out)
{
    char text[CM_UNITS_TEXT_MAX];
    uint64_t bytes[CM_USE_COUNT], total;
    cm_schedule_memory(schedule, bytes, &total);
    cm_format_value((double)total, "B", text);
    cm_str_addf(out, "memory %s:", text);
    for (int use = 0; use < CM_USE_COUNT; use++) {
        cm_format_value((double)bytes[use], "B", text);
        cm_str_addf(out, " %s %s%s", cm_buffer_use_names[use], text,
                    use + 1 < CM_USE_COUNT ? "," : "\n");
    }
    for (uint32_t i = 0; i < schedule->buffer_count; i++) {
        const struct cm_buffer *buffer = &schedule->buffers[i];
        cm_format_value((double)buffer->size_bytes, "B", text);
        cm_str_addf(out, "  %c%-5" PRIu32 " %-10s %s%s\n", kind_letters[buffer->use], i, text,
                    buffer->name, buffer->comm ? ", for communication" : "");
    }
}

void cm_schedule_explain(const struct cm_schedule *schedule, struct cm_str *out)
{
    char label[96];
    struct cm_str plan = CM_STR_INIT;
    cm_transformer_label(&schedule->step.model, label, sizeof label);
    cm_parallel_write(&schedule->step.parallel, &plan);
    cm_str_addf(out,
                "%s, %s, rank %u (pp %u, dp %u, cp %u, tp %u): %" PRIu64
                " micro-batches of %" PRIu64 ", %s\n",
                label, cm_str_text(&plan), schedule->rank, schedule->place.pp, schedule->place.dp,
                schedule->place.cp, schedule->place.tp, schedule->step.micro_batches,
                schedule->step.micro_batch, cm_dtype_name(schedule->step.dtype));
    cm_str_release(&plan);
    write_buffers(schedule, out);
    cm_str_addf(out,
                "operations %" PRIu32 ", events %" PRIu32
                " (> written, + read and written, @ offset in bytes):\n",
                schedule->op_count, schedule->event_count);
    for (uint32_t i = 0; i < schedule->op_count; i++) {
        cm_str_addf(out, "%6" PRIu32 " ", i);
        cm_op_write(schedule, &schedule->ops[i], out);
        cm_str_add(out, "\n");
    }
}
