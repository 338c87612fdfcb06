/* trainstep: figures of one run, named as in README.md. */
#include <stdio.h>

#include "host/workload/trainstep.h"

#define CEILING_HOLDS "products, attention, a copy, block collectives alone; pipeline filling"

static const enum cm_dtype dtypes[] = {CM_BF16, CM_F32};

struct row {
    const char *name;
    double value;
    const char *unit;
    enum cm_better better;
};

static enum cm_status add_rows(struct cm_metrics *metrics, const struct row *rows, size_t count)
{
    enum cm_status status = CM_OK;
    for (size_t i = 0; i < count && status == CM_OK; i++)
        status = cm_metrics_add(metrics, rows[i].name, rows[i].value, rows[i].unit, rows[i].better,
                                NULL);
    return status;
}

/* "kind.label", where there is something to tell. */
static enum cm_status add_labelled(struct cm_metrics *metrics, const char *kind, const char *label,
                                   double seconds)
{
    char name[CM_METRIC_NAME_MAX];
    if (!(seconds > 0))
        return CM_OK;
    snprintf(name, sizeof name, "%s.%.30s", kind, label);
    return cm_metrics_add(metrics, name, seconds, "s", CM_LOWER, NULL);
}

/* Rates against the device's peak, which is of dense products; without one there is no MFU. */
static enum cm_status add_rates(const struct cm_metric_input *input, double step_s,
                                struct cm_metrics *metrics)
{
    const struct cm_trainstep_params *params = input->params;
    static const struct cm_peak mixed = {.source = "fp8 and bf16 products have peaks of their own"};
    const struct cm_peak *peak =
        params->compute != 0 ? &mixed : &input->device->flop_rate[dtypes[params->dtype]];
    double full = input->observed[CM_SEEN_FLOPS_FULL] / input->ranks / step_s;
    double causal = input->observed[CM_SEEN_FLOPS_CAUSAL] / input->ranks / step_s;
    struct cm_metric *metric = NULL;
    enum cm_status status =
        cm_metrics_add(metrics, "model_flop_rate", full, "FLOP/s", CM_HIGHER, &metric);
    if (status != CM_OK)
        return status;
    metric->ceiling = peak->value;
    if (peak->value > 0)
        snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "%s", peak->source);
    else
        snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "no MFU: %.80s",
                 peak->source[0] ? peak->source : "the peak is not known");
    const struct {
        const char *name;
        double rate;
    } rows[] = {{"mfu_full", full}, {"mfu_causal", causal}};
    for (size_t i = 0; i < 2 && status == CM_OK && peak->value > 0; i++) {
        status = cm_metrics_add(metrics, rows[i].name, rows[i].rate / peak->value, "1", CM_HIGHER,
                                &metric);
        if (status != CM_OK)
            return status;
        metric->ceiling = 1;
        snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "%s", peak->source);
    }
    return status;
}

static enum cm_status add_ceiling(const struct cm_metric_input *input, double step_s,
                                  struct cm_metrics *metrics)
{
    double ceiling_s = input->observed[CM_SEEN_CEILING_S];
    struct cm_metric *metric;
    if (!(ceiling_s > 0))
        return CM_OK;
    enum cm_status status =
        cm_metrics_add(metrics, "ceiling_fraction", ceiling_s / step_s, "1", CM_HIGHER, &metric);
    if (status != CM_OK)
        return status;
    metric->ceiling = 1;
    snprintf(metric->ceiling_source, sizeof metric->ceiling_source, "%s", CEILING_HOLDS);
    return cm_metrics_add(metrics, "ceiling_time", ceiling_s, "s", CM_NEITHER, NULL);
}

static enum cm_status add_groups(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    const double *seen = input->observed;
    double comm_s = 0;
    for (unsigned group = 0; group < CM_TRAIN_GROUPS; group++)
        comm_s += seen[CM_SEEN_COMM_S + group];
    enum cm_status status = cm_metrics_add(metrics, "comm_time", comm_s, "s", CM_LOWER, NULL);
    for (unsigned group = 0; group < CM_TRAIN_GROUPS && status == CM_OK; group++)
        status = add_labelled(metrics, "comm_time",
                              group < CM_GROUP_FORWARD_OUT ? cm_group_names[group] : "pipeline",
                              seen[CM_SEEN_COMM_S + group]);
    double exposed_s =
        input->parts[CM_TRAIN_STEP].median_s - input->parts[CM_TRAIN_NO_COMM].median_s;
    if (status == CM_OK && comm_s > 0)
        status = cm_metrics_add(metrics, "hidden_fraction", 1 - exposed_s / comm_s, "1", CM_HIGHER,
                                NULL);
    return status;
}

/* What communication costs: by leaving it out, and by the waits of the compute lane. */
static enum cm_status add_comm(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    static const char *const waits[CM_WAIT_COUNT] = {"waits_layer", "waits_data", "waits_pipeline"};
    const double *seen = input->observed;
    double step_s = input->parts[CM_TRAIN_STEP].median_s;
    double waits_s = 0;
    if (input->part_count < 2)
        return CM_OK;
    for (unsigned i = 0; i < CM_WAIT_COUNT; i++)
        waits_s += seen[CM_SEEN_WAIT_S + i];
    const struct row rows[] = {
        {"exposed_comm_time", step_s - input->parts[CM_TRAIN_NO_COMM].median_s, "s", CM_LOWER},
        {"exposed_comm_time.waits", waits_s, "s", CM_LOWER},
        {"time.no_comm", input->parts[CM_TRAIN_NO_COMM].median_s, "s", CM_LOWER},
        {"straggler", seen[CM_SEEN_BUSY_WORST_S] / seen[CM_SEEN_BUSY_MEDIAN_S], "1", CM_LOWER},
        {"straggler.rank", seen[CM_SEEN_BUSY_RANK], "1", CM_NEITHER},
    };
    enum cm_status status = add_rows(metrics, rows, sizeof rows / sizeof *rows);
    for (unsigned i = 0; i < CM_WAIT_COUNT && status == CM_OK; i++)
        status = add_labelled(metrics, "exposed_comm_time", waits[i], seen[CM_SEEN_WAIT_S + i]);
    if (status == CM_OK)
        status = add_groups(input, metrics);
    if (status != CM_OK || !(seen[CM_SEEN_BUBBLE_FORMULA] > 0))
        return status;
    const struct row bubble[] = {
        {"bubble_fraction", seen[CM_SEEN_WAIT_S + CM_WAIT_PIPELINE] / seen[CM_SEEN_PROFILE_S], "1",
         CM_LOWER},
        {"bubble_fraction.formula", seen[CM_SEEN_BUBBLE_FORMULA], "1", CM_NEITHER},
    };
    return add_rows(metrics, bubble, 2);
}

static enum cm_status add_parts_of_time(const struct cm_metric_input *input,
                                        struct cm_metrics *metrics)
{
    const double *seen = input->observed;
    enum cm_status status = CM_OK;
    for (unsigned phase = 0; phase < CM_PHASE_COUNT && status == CM_OK; phase++)
        status = add_labelled(metrics, "phase_time", cm_phase_names[phase],
                              seen[CM_SEEN_PHASE_S + phase]);
    if (status == CM_OK)
        status = add_labelled(metrics, "attention_time", "own", seen[CM_SEEN_ATTENTION_OWN_S]);
    if (status == CM_OK)
        status =
            add_labelled(metrics, "attention_time", "cudnn", seen[CM_SEEN_ATTENTION_LIBRARY_S]);
    for (unsigned class = 0; class < CM_CLASS_COUNT && status == CM_OK; class ++)
        status = add_labelled(metrics, "op_time", cm_op_class_names[class],
                              seen[CM_SEEN_CLASS_S + class]);
    return status;
}

enum cm_status cm_trainstep_metrics(const struct cm_metric_input *input, struct cm_metrics *metrics)
{
    const struct cm_part_samples *step = &input->parts[CM_TRAIN_STEP];
    const double *seen = input->observed;
    double tokens = seen[CM_SEEN_TOKENS], step_s = step->median_s;
    const struct row rows[] = {
        {"step_time", step_s, "s", CM_LOWER},
        {"tokens_per_s", tokens / step_s, "1/s", CM_HIGHER},
        {"tokens_per_s_per_gpu", tokens / step_s / input->ranks, "1/s", CM_HIGHER},
        {"tokens", tokens, "1", CM_NEITHER},
        {"layers", seen[CM_SEEN_LAYERS], "1", CM_NEITHER},
        {"memory_predicted", seen[CM_SEEN_PREDICTED], "B", CM_NEITHER},
        {"queue_time", seen[CM_SEEN_QUEUE_S], "s", CM_LOWER},
        {"time.profiled", seen[CM_SEEN_PROFILE_S], "s", CM_NEITHER},
    };
    enum cm_status status = add_rows(metrics, rows, sizeof rows / sizeof *rows);
    if (status == CM_OK && seen[CM_SEEN_PEAK] > 0) /* a virtual clock takes no memory */
        status = cm_metrics_add(metrics, "peak_memory", seen[CM_SEEN_PEAK], "B", CM_LOWER, NULL);
    if (status == CM_OK)
        status = add_rates(input, step_s, metrics);
    if (status == CM_OK)
        status = add_ceiling(input, step_s, metrics);
    if (status == CM_OK)
        status = add_comm(input, metrics);
    if (status == CM_OK)
        status = add_parts_of_time(input, metrics);
    if (status == CM_OK && step->energy_j > 0 && step->slowest.count > 0)
        status = cm_metrics_add(metrics, "energy_per_token",
                                step->energy_j / ((double)step->slowest.count * tokens), "J",
                                CM_LOWER, NULL);
    return status;
}
