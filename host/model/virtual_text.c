/* What a virtual clock showed: as text for people, as a trace for a browser. */
#include <inttypes.h>

#include "clustermark/units.h"
#include "host/model/virtual_program.h"

const char *const cm_virtual_group_names[CM_VIRTUAL_GROUPS] = {
    [CM_GROUP_WORLD] = "world",     [CM_GROUP_TENSOR] = "tensor",
    [CM_GROUP_CONTEXT] = "context", [CM_GROUP_DATA] = "data",
    [CM_GROUP_EXPERT] = "expert",   [CM_GROUP_EXPERT_DATA] = "expert_data",
    [CM_GROUP_TIED] = "tied",       [CM_GROUP_FORWARD_OUT] = "pipeline",
};

/* ---- text ---- */

static void add_time(struct cm_str *out, int width, double seconds)
{
    char text[CM_UNITS_TEXT_MAX];
    cm_str_addf(out, " %*s", width, seconds > 0 ? cm_format_value(seconds, "s", text) : "-");
}

static void write_stages(const struct cm_virtual *program, const struct cm_virtual_result *result,
                         struct cm_str *out)
{
    char text[CM_UNITS_TEXT_MAX];
    cm_str_add(out, "  stage    rank     compute   waits for: layer        data    pipeline"
                    "      memory\n");
    for (unsigned i = 0; i < result->stage_count; i++) {
        const struct cm_virtual_stage *stage = &result->stages[i];
        cm_str_addf(out, "  %5u %7u", i, program->stages[i].rank);
        add_time(out, 11, stage->lanes[CM_LANE_COMPUTE].busy_s);
        add_time(out, 18, stage->wait_s[CM_VIRTUAL_WAIT_LAYER]);
        add_time(out, 11, stage->wait_s[CM_VIRTUAL_WAIT_DATA]);
        add_time(out, 11, stage->wait_s[CM_VIRTUAL_WAIT_PIPELINE]);
        cm_str_addf(out, " %11s\n", cm_format_value((double)stage->memory_bytes, "B", text));
    }
}

/* Means over the stages, which have as many ranks each. */
static void write_groups(const struct cm_virtual_result *result, struct cm_str *out)
{
    cm_str_add(out, "  communication of a rank   in all   waiting for others\n");
    for (unsigned group = 0; group < CM_VIRTUAL_GROUPS; group++) {
        double all_s = 0, transfer_s = 0;
        for (unsigned i = 0; i < result->stage_count; i++) {
            all_s += result->stages[i].comm_s[group] / result->stage_count;
            transfer_s += result->stages[i].transfer_s[group] / result->stage_count;
        }
        if (!(all_s > 0))
            continue;
        cm_str_addf(out, "  %-22s", cm_virtual_group_names[group]);
        add_time(out, 9, all_s);
        /* What rounding leaves is no waiting. */
        add_time(out, 20, all_s - transfer_s > 1e-9 * all_s ? all_s - transfer_s : 0);
        cm_str_add(out, "\n");
    }
}

static void write_share(const struct cm_virtual_result *result, const char *name, double seconds,
                        struct cm_str *out)
{
    if (!(seconds > 0))
        return;
    cm_str_addf(out, "  %-22s", name);
    add_time(out, 9, seconds);
    cm_str_addf(out, "  %5.1f %%\n", 100 * seconds / result->step_s);
}

void cm_virtual_write(const struct cm_virtual *program, const struct cm_virtual_result *result,
                      struct cm_str *out)
{
    cm_str_addf(out,
                "virtual clock: %" PRIu64 " operations; a rank of each stage stands for %u ranks\n",
                result->operations, cm_parallel_ranks(&program->step.parallel));
    cm_str_add(out, "  step                  ");
    add_time(out, 9, result->step_s);
    cm_str_add(out, "\n  without communication ");
    add_time(out, 9, result->no_comm_s);
    cm_str_add(out, "\n");
    write_stages(program, result, out);
    write_groups(result, out);
    cm_str_add(out, "  the longest chain        takes\n");
    for (int class = 0; class < CM_CLASS_COUNT; class ++)
        write_share(result, cm_op_class_names[class], result->path.class_s[class], out);
    for (int group = 0; group < CM_VIRTUAL_GROUPS; group++)
        write_share(result, cm_virtual_group_names[group], result->path.group_s[group], out);
    write_share(result, "stragglers", result->path.late_s, out);
}

/* ---- trace ---- */

struct tracer {
    const struct cm_virtual *program;
    struct cm_str *out;
};

static void add_interval(void *impl, const struct cm_virtual_interval *interval)
{
    const struct tracer *tracer = impl;
    struct cm_str *out = tracer->out;
    const struct cm_op *op = interval->op;
    cm_str_addf(out,
                ",\n{\"ph\":\"X\",\"pid\":%u,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"name\":\"%s%s\","
                "\"cat\":\"%s\",\"args\":{",
                interval->stage, (int)interval->lane, interval->start_s * 1e6,
                (interval->end_s - interval->start_s) * 1e6, op == NULL ? "wait: " : "",
                op == NULL ? cm_lane_names[interval->lane_for] : cm_op_infos[op->kind].name,
                op == NULL ? "wait" : cm_op_class_names[cm_op_infos[op->kind].class]);
    const char *separator = "";
    const struct {
        const char *name;
        int32_t value;
    } places[] = {
        {"micro", interval->micro}, {"chunk", interval->chunk}, {"layer", interval->layer}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (places[i].value < 0)
            continue;
        cm_str_addf(out, "%s\"%s\":%" PRId32, separator, places[i].name, places[i].value);
        separator = ",";
    }
    if (op != NULL) {
        cm_str_addf(out, "%s\"phase\":\"%s\"", separator, cm_phase_names[op->phase]);
        if (op->flops > 0)
            cm_str_addf(out, ",\"flops\":%.0f", op->flops);
        cm_str_addf(out, ",\"bytes\":%.0f", op->bytes);
    }
    cm_str_add(out, "}}");
}

static void add_names(const struct cm_virtual *program, struct cm_str *out)
{
    for (unsigned stage = 0; stage < program->stage_count; stage++) {
        cm_str_addf(out,
                    "%s\n{\"ph\":\"M\",\"pid\":%u,\"name\":\"process_name\",\"args\":{\"name\":"
                    "\"stage %u, rank %u\"}}",
                    stage == 0 ? "" : ",", stage, stage, program->stages[stage].rank);
        for (int lane = 0; lane < CM_LANE_COUNT; lane++)
            if (program->stages[stage].lanes[lane].count > 0)
                cm_str_addf(out,
                            ",\n{\"ph\":\"M\",\"pid\":%u,\"tid\":%d,\"name\":\"thread_name\","
                            "\"args\":{\"name\":\"%s\"}}",
                            stage, lane, cm_lane_names[lane]);
    }
}

enum cm_status cm_virtual_trace(const struct cm_virtual *program,
                                const struct cm_virtual_times *times, struct cm_str *out)
{
    struct tracer tracer = {program, out};
    const struct cm_virtual_observer observer = {add_interval, &tracer};
    struct cm_virtual_result result = {.stages = NULL};
    cm_str_add(out, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
    add_names(program, out);
    enum cm_status status = cm_virtual_execute(program, times, &observer, &result);
    cm_virtual_result_release(&result);
    cm_str_add(out, "\n]}\n");
    return status == CM_OK ? cm_str_status(out) : status;
}
