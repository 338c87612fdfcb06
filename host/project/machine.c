/* A result of this program as the machine of a virtual clock. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/project.h"
#include "clustermark/roofline.h"
#include "clustermark/virtual_clock.h"
#include "host/project/document.h"

/* Least bytes of one triad: membw counts its own as it does a STREAM kernel's. */
#define TRIAD_ARRAYS 3.0

struct seconds {
    double measured[CM_CLASS_COUNT], modelled[CM_CLASS_COUNT];
};

static double metric(const json_t *entry, const char *name)
{
    double value =
        cm_document_number(json_object_get(json_object_get(entry, "metrics"), name), "value");
    return value > 0 ? value : 0;
}

/* ---- sweeps ---- */

static void take_product(const json_t *entry, struct cm_machine *machine)
{
    const json_t *params = json_object_get(entry, "params");
    const char *dtype = cm_document_text(params, "dtype");
    const char *trans = cm_document_text(params, "trans");
    struct cm_measured_rates *measured = &machine->measured;
    struct cm_measured_product product = {.m = cm_document_number(params, "m"),
                                          .n = cm_document_number(params, "n"),
                                          .k = cm_document_number(params, "k"),
                                          .rate = metric(entry, "flop_rate")};
    bool f32 = strcmp(dtype, "f32") == 0;
    double *peak = f32 ? &machine->f32_rate : &machine->bf16_rate;
    product.dtype = f32 ? CM_F32 : CM_BF16;
    product.trans_a = trans[0] == 't';
    product.trans_b = trans[0] != '\0' && trans[1] == 't';
    if ((!f32 && strcmp(dtype, "bf16") != 0) || !(product.rate > 0) || !(product.m >= 1) ||
        !(product.n >= 1) || !(product.k >= 1) || measured->product_count >= CM_PRODUCTS_MAX)
        return;
    measured->products[measured->product_count++] = product;
    *peak = fmax(*peak, product.rate);
}

static void take_memory(const json_t *entry, struct cm_machine *machine)
{
    const json_t *params = json_object_get(entry, "params");
    double size = cm_document_number(params, "size"), rate = metric(entry, "bandwidth_per_rank");
    if (!(size > 0))
        size = metric(entry, "size");
    if (!(rate > 0))
        return;
    machine->memory_rate = fmax(machine->memory_rate, rate);
    if (size > 0)
        cm_curve_add(&machine->measured.memory, TRIAD_ARRAYS * size, rate);
}

static void take_collective(const json_t *entry, struct cm_machine *machine)
{
    const json_t *params = json_object_get(entry, "params");
    double size = cm_document_number(params, "size"), rate = metric(entry, "busbw");
    for (int i = 0; i < CM_COLLECTIVE_COUNT && size > 0 && rate > 0; i++)
        if (strcmp(cm_collective_names[i], cm_document_text(params, "op")) == 0)
            cm_curve_add(&machine->measured.busbw[i], size, rate);
}

static void take_sweeps(const json_t *entry, struct cm_machine *machine)
{
    const char *workload = cm_document_text(entry, "workload");
    struct cm_measured_rates *measured = &machine->measured;
    if (strcmp(workload, "gemm") == 0)
        take_product(entry, machine);
    if (strcmp(workload, "membw") == 0)
        take_memory(entry, machine);
    if (strcmp(workload, "collective") == 0)
        take_collective(entry, machine);
    if (strcmp(workload, "launch") == 0)
        machine->launch_s = metric(entry, "time.device");
    if (strcmp(workload, "sendrecv") == 0) {
        measured->pair_rate = metric(entry, "bandwidth");
        measured->pair_latency_s = metric(entry, "latency");
    }
}

/* A collective that was not swept goes as fast as an all-reduce moves its bytes. */
static void complete(struct cm_machine *machine)
{
    struct cm_measured_rates *measured = &machine->measured;
    const struct cm_curve *known = &measured->busbw[CM_ALL_REDUCE];
    for (int i = 0; i < CM_COLLECTIVE_COUNT; i++)
        if (measured->busbw[i].count == 0)
            measured->busbw[i] = *known;
    for (unsigned i = 0; i < known->count; i++)
        machine->domain_rate = fmax(machine->domain_rate, known->value[i]);
    machine->network_rate = machine->domain_rate;
    machine->flop_efficiency = machine->memory_efficiency = 1;
}

/* ---- training steps ---- */

static void take_number(const json_t *params, const char *key, uint64_t *value)
{
    double read = cm_document_number(params, key);
    if (read >= 1 && read < 1e15)
        *value = (uint64_t)read;
}

static enum cm_status step_of(const json_t *entry, struct cm_step *step)
{
    const json_t *params = json_object_get(entry, "params");
    const char *recompute = cm_document_text(params, "recompute");
    const char *plan = cm_document_text(params, "plan");
    double layers = metric(entry, "layers");
    cm_step_defaults(step);
    enum cm_status status =
        cm_transformer_load(cm_document_text(params, "model"), (uint64_t)layers, &step->model);
    if (status == CM_OK)
        status = cm_parallel_parse(plan, "plan of a result", &step->parallel);
    if (status != CM_OK)
        return status;
    step->micro_batches = step->micro_batch = 1;
    take_number(params, "micro_batches", &step->micro_batches);
    take_number(params, "micro_batch", &step->micro_batch);
    take_number(params, "sequence", &step->model.sequence);
    take_number(params, "bucket", &step->bucket_bytes);
    step->overlap = json_is_true(json_object_get(params, "overlap"));
    step->dtype = strcmp(cm_document_text(params, "dtype"), "f32") == 0 ? CM_F32 : CM_BF16;
    step->recompute = strcmp(recompute, "full") == 0        ? CM_RECOMPUTE_FULL
                      : strcmp(recompute, "selective") == 0 ? CM_RECOMPUTE_SELECTIVE
                                                            : CM_RECOMPUTE_NONE;
    return CM_OK;
}

/* What classes took, as shares of the step without communication, or of their sum where that is
 * less: events, and other work on the machine, only ever slow. */
static void add_measured(const json_t *entry, struct seconds *seconds)
{
    double seen[CM_CLASS_COUNT], sum = 0, alone = metric(entry, "time.no_comm");
    for (int i = 0; i < CM_CLASS_COUNT; i++) {
        char name[64];
        snprintf(name, sizeof name, "op_time.%s", cm_op_class_names[i]);
        seen[i] = metric(entry, name);
        sum += seen[i];
    }
    if (!(alone > 0))
        alone = metric(entry, "step_time");
    alone = fmin(alone, sum);
    for (int i = 0; i < CM_CLASS_COUNT && sum > 0; i++)
        seconds->measured[i] += seen[i] * alone / sum;
}

static enum cm_status add_step(const json_t *entry, const struct cm_machine *machine,
                               struct seconds *seconds)
{
    const struct cm_virtual_times times = {.time_s = cm_roofline_time, .impl = machine};
    struct cm_virtual *program = NULL;
    struct cm_virtual_result result;
    struct cm_step step;
    enum cm_status status = step_of(entry, &step);
    if (status == CM_OK && !((step.dtype == CM_F32 ? machine->f32_rate : machine->bf16_rate) > 0))
        return CM_OK;
    if (status == CM_OK)
        status = cm_virtual_open(&step, &program);
    if (status == CM_OK)
        status = cm_virtual_execute(program, &times, NULL, &result);
    if (status == CM_OK) {
        for (unsigned i = 0; i < result.stage_count; i++)
            for (int k = 0; k < CM_CLASS_COUNT; k++)
                seconds->modelled[k] += result.stages[i].class_s[k] / result.stage_count;
        add_measured(entry, seconds);
        cm_virtual_result_release(&result);
    }
    cm_virtual_close(program);
    return status;
}

/* ---- the result ---- */

static enum cm_status take_cases(const json_t *cases, struct cm_machine *machine)
{
    struct seconds seconds = {.measured = {0}};
    enum cm_status status = CM_OK;
    const json_t *entry;
    size_t index;
    json_array_foreach(cases, index, entry)
    {
        if (strcmp(cm_document_text(entry, "status"), "ok") == 0)
            take_sweeps(entry, machine);
    }
    complete(machine);
    json_array_foreach(cases, index, entry)
    {
        if (status == CM_OK && strcmp(cm_document_text(entry, "status"), "ok") == 0 &&
            strcmp(cm_document_text(entry, "workload"), "trainstep") == 0)
            status = add_step(entry, machine, &seconds);
    }
    for (int i = 0; i < CM_CLASS_COUNT; i++)
        if (seconds.measured[i] > 0 && seconds.modelled[i] > 0)
            machine->measured.factor[i] = seconds.measured[i] / seconds.modelled[i];
    return status;
}

static enum cm_status count_ranks(const json_t *cases, const char *path, struct cm_machine *machine)
{
    const json_t *entry;
    size_t index;
    json_array_foreach(cases, index, entry)
    {
        double ranks = cm_document_number(entry, "ranks");
        if (!(ranks >= 1 && ranks < 1 << 20))
            continue;
        if (machine->domain != 0 && machine->domain != (uint64_t)ranks)
            return cm_error(CM_USAGE,
                            "%s: cases of %.0f ranks and of %u; a machine is of one "
                            "number of them",
                            path, ranks, (unsigned)machine->domain);
        machine->domain = (uint64_t)ranks;
    }
    return CM_OK;
}

enum cm_status cm_project_machine(const char *path, struct cm_machine *machine)
{
    json_t *result = NULL;
    struct cm_machine *made = cm_alloc(1, sizeof *made);
    enum cm_status status = made != NULL ? cm_result_load_short(path, &result) : CM_NO_MEMORY;
    const json_t *cases = json_object_get(result, "cases");
    if (status == CM_OK)
        status = count_ranks(cases, path, made);
    if (status == CM_OK)
        status = take_cases(cases, made);
    if (status == CM_OK && (made->measured.product_count == 0 || !(made->memory_rate > 0) ||
                            (made->domain > 1 && !(made->domain_rate > 0))))
        status = cm_error(CM_USAGE,
                          "%s: a machine needs cases of gemm (f32 or bf16, with m, n and "
                          "k), membw and, of several ranks, collective",
                          path);
    if (status == CM_OK) {
        const char *name = strrchr(path, '/');
        snprintf(made->name, sizeof made->name, "%.47s", name != NULL ? name + 1 : path);
        *machine = *made;
    }
    json_decref(result);
    cm_free(made);
    return status;
}
