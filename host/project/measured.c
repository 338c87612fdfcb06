/* Results of this program as knowledge of a GPU. */
#include "host/project/measured.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/json.h"
#include "clustermark/memory.h"
#include "clustermark/result.h"
#include "host/project/document.h"

/* How far a rate measured alone is from what a training step gets; logarithms. */
#define PRODUCT_DOUBT    0.08
#define MEMORY_DOUBT     0.08
#define ALL_REDUCE_DOUBT 0.15

static double metric(const json_t *entry, const char *name)
{
    const json_t *found = json_object_get(json_object_get(entry, "metrics"), name);
    double value = cm_document_number(found, "value");
    return value > 0 ? value : 0;
}

static int precision_of(const char *dtype)
{
    static const struct {
        const char *dtype;
        enum cm_precision precision;
    } known[] = {{"bf16", CM_PRECISION_HALF},
                 {"f16", CM_PRECISION_HALF},
                 {"f8e4m3", CM_PRECISION_FP8},
                 {"mxfp8", CM_PRECISION_MXFP8},
                 {"nvfp4", CM_PRECISION_NVFP4}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].dtype, dtype) == 0)
            return (int)known[i].precision;
    return -1;
}

static void take_product(const json_t *entry, struct cm_measured *measured)
{
    int which = precision_of(cm_document_text(json_object_get(entry, "params"), "dtype"));
    double sustained = metric(entry, "flop_rate_sustained"), burst = metric(entry, "flop_rate");
    if (which < 0 || (sustained <= 0 && measured->sustained[which]))
        return;
    if (sustained > 0 && !measured->sustained[which])
        measured->products[which] = 0;
    measured->sustained[which] = sustained > 0;
    measured->products[which] = fmax(measured->products[which], sustained > 0 ? sustained : burst);
}

static void take_number(const json_t *params, const char *key, double *value)
{
    double read = cm_document_number(params, key);
    if (read >= 1)
        *value = read;
}

/* A training step of the model that is asked about. */
static enum cm_status take_step(const json_t *entry, const char *model,
                                struct cm_measured *measured)
{
    const json_t *params = json_object_get(entry, "params");
    struct cm_transformer transformer;
    struct cm_parallel plan;
    struct cm_cost_job job;
    double step_s = metric(entry, "step_time"), layers = 0;
    const char *recompute = cm_document_text(params, "recompute");
    if (step_s <= 0 || strcmp(cm_document_text(params, "model"), model) != 0 ||
        strcmp(cm_document_text(params, "dtype"), "bf16") != 0)
        return CM_OK;
    take_number(params, "layers", &layers);
    enum cm_status status = cm_transformer_load(model, (uint64_t)layers, &transformer);
    if (status == CM_OK)
        status = cm_parallel_parse(cm_document_text(params, "plan"), "plan of a result", &plan);
    if (status != CM_OK)
        return status;
    cm_cost_job_from(&transformer, &plan, measured->spec, &job);
    take_number(params, "micro_batches", &job.micro_batches);
    take_number(params, "micro_batch", &job.micro_batch);
    job.recompute = strcmp(recompute, "full") == 0        ? CM_RECOMPUTE_FULL
                    : strcmp(recompute, "selective") == 0 ? CM_RECOMPUTE_SELECTIVE
                                                          : CM_RECOMPUTE_NONE;
    if (cm_grow(&measured->steps, &measured->step_capacity, measured->step_count + 1,
                sizeof *measured->steps) != 0 ||
        cm_grow(&measured->steps_s, &measured->time_capacity, measured->step_count + 1,
                sizeof *measured->steps_s) != 0)
        return CM_NO_MEMORY;
    measured->steps[measured->step_count] = job;
    measured->steps_s[measured->step_count++] = step_s;
    return CM_OK;
}

static enum cm_status take_case(const json_t *entry, const char *model,
                                struct cm_measured *measured)
{
    const char *workload = cm_document_text(entry, "workload");
    const json_t *params = json_object_get(entry, "params");
    double power_w = cm_document_number(json_object_get(entry, "telemetry"), "power");
    if (strcmp(cm_document_text(entry, "status"), "ok") != 0)
        return CM_OK;
    if (strcmp(workload, "trainstep") == 0)
        measured->step_w = fmax(measured->step_w, power_w);
    if (strcmp(workload, "gemm") == 0)
        measured->product_w = fmax(measured->product_w, power_w);
    if (strcmp(workload, "gemm") == 0)
        take_product(entry, measured);
    if (strcmp(workload, "membw") == 0)
        measured->memory_rate = fmax(measured->memory_rate, metric(entry, "bandwidth_per_rank"));
    if (strcmp(workload, "collective") == 0 &&
        strcmp(cm_document_text(params, "op"), "all_reduce") == 0 &&
        cm_document_number(entry, "ranks") > 1)
        measured->all_reduce = fmax(measured->all_reduce, metric(entry, "busbw"));
    return strcmp(workload, "trainstep") == 0 ? take_step(entry, model, measured) : CM_OK;
}

static enum cm_status take_device(const json_t *result, const char *path,
                                  const struct cm_gpu_catalogue *catalogue,
                                  struct cm_measured *measured)
{
    const json_t *device = json_array_get(json_object_get(result, "devices"), 0);
    const char *name = cm_document_text(device, "name");
    const char *maker = "NVIDIA ";
    if (strncmp(name, maker, strlen(maker)) == 0)
        name += strlen(maker);
    const struct cm_gpu_spec *spec = cm_gpu_find(catalogue, name);
    if (spec == NULL)
        return cm_error(CM_USAGE, "%s: its device '%.60s' is not in configs/gpus.ini", path, name);
    if (measured->spec != NULL && measured->spec != spec)
        return cm_error(CM_USAGE, "%s: of a %s; the results before are of a %s", path, spec->name,
                        measured->spec->name);
    measured->spec = spec;
    snprintf(measured->device, sizeof measured->device, "%.79s", name);
    return CM_OK;
}

static enum cm_status take_file(const char *path, const struct cm_gpu_catalogue *catalogue,
                                const char *model, struct cm_measured *measured)
{
    json_t *result = NULL;
    const json_t *entry;
    size_t index;
    enum cm_status status = cm_result_load_short(path, &result);
    if (status == CM_OK)
        status = take_device(result, path, catalogue, measured);
    json_array_foreach(json_object_get(result, "cases"), index, entry)
    {
        if (status == CM_OK)
            status = take_case(entry, model, measured);
    }
    json_decref(result);
    return status;
}

enum cm_status cm_measured_load(const char *const *paths, size_t count,
                                const struct cm_gpu_catalogue *catalogue, const char *model,
                                struct cm_measured *measured)
{
    enum cm_status status = CM_OK;
    memset(measured, 0, sizeof *measured);
    for (size_t i = 0; status == CM_OK && i < count; i++)
        status = take_file(paths[i], catalogue, model, measured);
    if (status != CM_OK)
        cm_measured_release(measured);
    return status;
}

void cm_measured_release(struct cm_measured *measured)
{
    cm_free(measured->steps);
    cm_free(measured->steps_s);
    memset(measured, 0, sizeof *measured);
}

/* The parameter times `ratio` is what was measured, which is off by `doubt`. */
static void update(struct cm_calibration *calibration, enum cm_cost_parameter which, double ratio,
                   double doubt)
{
    double before = 1 / (calibration->spread[which] * calibration->spread[which]);
    double seen = 1 / (doubt * doubt);
    calibration->value[which] *= pow(ratio, seen / (seen + before));
    calibration->spread[which] = sqrt(1 / (seen + before));
}

void cm_measured_apply(const struct cm_measured *measured, struct cm_calibration *calibration)
{
    static const enum cm_cost_parameter shares[] = {CM_COST_gemm_volta, CM_COST_gemm_ampere,
                                                    CM_COST_gemm_hopper, CM_COST_gemm_blackwell};
    static const enum cm_cost_parameter ratios[CM_PRECISION_COUNT] = {
        [CM_PRECISION_FP8] = CM_COST_ratio_fp8,
        [CM_PRECISION_MXFP8] = CM_COST_ratio_mxfp8,
        [CM_PRECISION_NVFP4] = CM_COST_ratio_nvfp4};
    const struct cm_gpu_spec *spec = measured->spec;
    struct cm_cost_job job = {.gpu = spec};
    for (int i = 0; i < CM_PRECISION_COUNT; i++) {
        job.precision = (enum cm_precision)i;
        double rate = cm_cost_product_rate(&job, calibration->value);
        if (measured->products[i] > 0 && rate > 0)
            update(calibration, i == CM_PRECISION_HALF ? shares[spec->family] : ratios[i],
                   measured->products[i] / rate, PRODUCT_DOUBT);
    }
    if (measured->memory_rate > 0)
        update(calibration, CM_COST_memory_share,
               measured->memory_rate /
                   (spec->memory_rate * calibration->value[CM_COST_memory_share]),
               MEMORY_DOUBT);
    if (measured->all_reduce > 0)
        update(calibration, CM_COST_nvlink_share,
               measured->all_reduce /
                   (spec->nvlink_rate * calibration->value[CM_COST_nvlink_share]),
               ALL_REDUCE_DOUBT);
}
