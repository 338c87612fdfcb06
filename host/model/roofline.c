/* Times of operations from the rates of one record. */
#include "clustermark/roofline.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/configs.h"
#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/model.h"
#include "clustermark/suite.h"

/* ---- the record ---- */

#define FIELD(name) offsetof(struct cm_machine, name)
#define RATE(field, text)                                                                          \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_REAL, .offset = FIELD(field), .min = 0, .max = 1e18,     \
        .fallback = "0", .help = (text)                                                            \
    }
#define SHARE(field, text)                                                                         \
    {                                                                                              \
        .name = #field, .type = CM_OPTION_REAL, .offset = FIELD(field), .min = 0.001, .max = 1,    \
        .fallback = "1", .help = (text)                                                            \
    }
#define TIME(text_name, field, text)                                                               \
    {                                                                                              \
        .name = (text_name), .type = CM_OPTION_TIME, .offset = FIELD(field), .min = 0, .max = 1,   \
        .fallback = "0s", .help = (text)                                                           \
    }
const struct cm_option cm_machine_options[] = {
    RATE(bf16_rate, "FLOP/s of dense bf16 products"),
    RATE(f32_rate, "FLOP/s of dense f32 products"),
    SHARE(flop_efficiency, "share of it that products and attention reach"),
    RATE(memory_rate, "B/s of a device's memory"),
    SHARE(memory_efficiency, "share of it that other kernels reach"),
    TIME("launch", launch_s, "of each operation"),
    {.name = "memory",
     .type = CM_OPTION_SIZE,
     .offset = FIELD(memory_bytes),
     .fallback = "0",
     .help = "of a device, for a step; 0 for no limit"},
    {.name = "domain",
     .type = CM_OPTION_COUNT,
     .offset = FIELD(domain),
     .min = 1,
     .max = 1 << 20,
     .fallback = "1",
     .help = "devices joined by fast links"},
    RATE(domain_rate, "B/s of a device within its domain, as busbw"),
    TIME("domain_latency", domain_latency_s, "of a hop within a domain"),
    RATE(network_rate, "B/s of a device's port to other domains, as busbw"),
    TIME("network_latency", network_latency_s, "of a hop between domains"),
    {.name = "host_spread",
     .type = CM_OPTION_REAL,
     .offset = FIELD(host_spread),
     .max = 1,
     .fallback = "0",
     .help = "standard deviation of what domains take for the same work, over their mean"},
    {.name = NULL},
};

static enum cm_status take_settings(const struct cm_section *section, struct cm_machine *machine)
{
    static const char *const needed[] = {"bf16_rate", "f32_rate", "memory_rate", "domain_rate",
                                         "network_rate"};
    enum cm_status status = cm_option_defaults(cm_machine_options, machine);
    for (size_t i = 0; status == CM_OK && i < section->setting_count; i++) {
        const struct cm_setting *setting = &section->settings[i];
        const struct cm_option *option = cm_option_find(cm_machine_options, setting->key);
        const char *nearest = cm_option_nearest(cm_machine_options, setting->key);
        if (option == NULL)
            return cm_error(CM_USAGE, "%s: a machine has no '%.60s'%s%s%s", setting->where,
                            setting->key, nearest != NULL ? "; did you mean '" : "",
                            nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
        status = cm_option_set(option, setting->value, setting->where, machine);
    }
    const double values[] = {machine->bf16_rate, machine->f32_rate, machine->memory_rate,
                             machine->domain_rate, machine->network_rate};
    for (size_t i = 0; status == CM_OK && i < sizeof needed / sizeof *needed; i++)
        if (!(values[i] > 0))
            return cm_error(CM_USAGE, "%s: %s is missing or 0", section->where, needed[i]);
    return status;
}

enum cm_status cm_machine_load(const char *name, struct cm_machine *machine)
{
    char *path;
    struct cm_suite file;
    struct cm_machine made;
    memset(&made, 0, sizeof made);
    enum cm_status status = cm_config_find(name, "machines/", &path);
    if (status != CM_OK)
        return status;
    if (path == NULL)
        return cm_error(CM_USAGE,
                        "no machine '%.60s': not a file, not in ./configs/machines, not one of the "
                        "program's own",
                        name);
    status = cm_suite_load(path, &file);
    cm_free(path);
    if (status != CM_OK)
        return status;
    snprintf(made.name, sizeof made.name, "%.47s", file.name);
    if (file.global.setting_count > 0 || file.section_count != 1 ||
        strcmp(file.sections[0].name, "machine") != 0)
        status = cm_error(CM_USAGE, "%s: a machine's file has one section, [machine]", file.path);
    else
        status = take_settings(&file.sections[0], &made);
    cm_suite_release(&file);
    if (status == CM_OK)
        *machine = made;
    return status;
}

/* ---- what was measured ---- */

void cm_curve_add(struct cm_curve *curve, double size, double value)
{
    unsigned at = 0;
    while (at < curve->count && curve->size[at] < size)
        at++;
    if (at < curve->count && curve->size[at] == size) {
        curve->value[at] = fmax(curve->value[at], value);
        return;
    }
    if (curve->count >= CM_CURVE_MAX)
        return;
    for (unsigned i = curve->count++; i > at; i--) {
        curve->size[i] = curve->size[i - 1];
        curve->value[i] = curve->value[i - 1];
    }
    curve->size[at] = size;
    curve->value[at] = value;
}

double cm_curve_at(const struct cm_curve *curve, double size)
{
    unsigned last = curve->count - 1, at = 1;
    if (curve->count == 0)
        return 0;
    if (size <= curve->size[0])
        return curve->value[0];
    if (size >= curve->size[last])
        return curve->value[last];
    while (curve->size[at] < size)
        at++;
    double share = log(size / curve->size[at - 1]) / log(curve->size[at] / curve->size[at - 1]);
    return curve->value[at - 1] * pow(curve->value[at] / curve->value[at - 1], share);
}

/* A matrix that lies transposed is as far as a side of 1.4 times the length, squared. */
#define OTHER_LAYOUT 0.25

/* FLOP/s of a product by those of shapes near to it; 0: none of its type was measured. */
static double rate_of_shape(const struct cm_measured_rates *measured, enum cm_dtype dtype,
                            const struct cm_gemm_desc *gemm)
{
    double sum = 0, weights = 0;
    for (unsigned i = 0; i < measured->product_count; i++) {
        const struct cm_measured_product *known = &measured->products[i];
        if (known->dtype != dtype)
            continue;
        double m = log2((double)gemm->m / known->m), n = log2((double)gemm->n / known->n);
        double k = log2((double)gemm->k / known->k), square = m * m + n * n + k * k;
        square +=
            OTHER_LAYOUT * ((gemm->trans_a != known->trans_a) + (gemm->trans_b != known->trans_b));
        double weight = 1 / (square * square + 1e-6);
        sum += weight * log(known->rate);
        weights += weight;
    }
    return weights > 0 ? exp(sum / weights) : 0;
}

static double factor_of(const struct cm_machine *machine, const struct cm_op *op)
{
    double factor = machine->measured.factor[cm_op_infos[op->kind].class];
    return factor > 0 ? factor : 1;
}

/* ---- groups ---- */

/* Ranks between neighbours of a group. */
static unsigned stride_of(const struct cm_parallel *parallel, enum cm_group group)
{
    switch (group) {
    case CM_GROUP_WORLD:
    case CM_GROUP_TENSOR:
        return 1;
    case CM_GROUP_CONTEXT:
    case CM_GROUP_DATA:
    case CM_GROUP_EXPERT:
        return parallel->tp;
    case CM_GROUP_EXPERT_DATA:
        return parallel->tp * parallel->ep;
    case CM_GROUP_TIED:
        return parallel->tp * parallel->cp * parallel->dp * (parallel->pp - 1);
    default:
        return parallel->tp * parallel->cp * parallel->dp;
    }
}

static double message_time(const struct cm_machine *machine, const struct cm_step *step,
                           unsigned rank, const struct cm_op *op)
{
    static const enum cm_collective collectives[] = {
        [CM_OP_ALL_REDUCE] = CM_ALL_REDUCE,
        [CM_OP_REDUCE_SCATTER] = CM_REDUCE_SCATTER,
        [CM_OP_ALL_GATHER] = CM_ALL_GATHER,
        [CM_OP_ALL_TO_ALL] = CM_ALL_TO_ALL,
    };
    enum cm_group group = op->u.comm.group;
    unsigned size = cm_parallel_group_size(&step->parallel, &step->model, rank, group);
    double stride = stride_of(&step->parallel, group);
    bool pair = op->kind == CM_OP_SEND || op->kind == CM_OP_RECV;
    double near = fmin(fmax(floor((double)machine->domain / stride), 1), size);
    double far = ceil(size / near); /* domains */
    double bytes = op->bytes * (pair ? 1 : cm_bus_factor(collectives[op->kind], size));
    const struct cm_curve *curve = pair ? NULL : &machine->measured.busbw[collectives[op->kind]];
    if (pair && machine->measured.pair_rate > 0 && far <= 1)
        return machine->measured.pair_latency_s + bytes / machine->measured.pair_rate;
    if (!pair && curve->count > 0 && far <= 1)
        return bytes / cm_curve_at(curve, op->bytes);
    double hops_s =
        ceil(log2(near)) * machine->domain_latency_s + ceil(log2(far)) * machine->network_latency_s;
    double rate = machine->domain_rate;
    if (far > 1) /* all members of a domain send at once; in an all-to-all each for itself */
        rate = fmin(rate, machine->network_rate * (op->kind == CM_OP_ALL_TO_ALL ? 1 : near));
    if (op->kind == CM_OP_ALL_TO_ALL && far > 1) /* what stays in the domain is the lesser part */
        bytes *= (size - near) / (size - 1);
    return machine->launch_s + hops_s * (op->kind == CM_OP_ALL_REDUCE ? 2 : 1) + bytes / rate;
}

double cm_roofline_time(const void *impl, const struct cm_step *step, unsigned rank,
                        const struct cm_op *op)
{
    const struct cm_machine *machine = impl;
    if (cm_op_infos[op->kind].class == CM_CLASS_COMM)
        return message_time(machine, step, rank, op);
    double rate = step->dtype == CM_F32 ? machine->f32_rate : machine->bf16_rate;
    double memory_rate = machine->memory_rate * machine->memory_efficiency;
    rate *= machine->flop_efficiency;
    if (machine->measured.memory.count > 0)
        memory_rate = cm_curve_at(&machine->measured.memory, op->bytes);
    if (cm_op_infos[op->kind].class == CM_CLASS_GEMM && machine->measured.product_count > 0)
        return machine->launch_s + factor_of(machine, op) * op->flops /
                                       rate_of_shape(&machine->measured, step->dtype, &op->u.gemm);
    return machine->launch_s +
           factor_of(machine, op) * fmax(op->flops / rate, op->bytes / memory_rate);
}
