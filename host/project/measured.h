/*
 * measured.h: what result files of this program say of a GPU, for the cost model.
 */
#ifndef HOST_PROJECT_MEASURED_H
#define HOST_PROJECT_MEASURED_H

#include "host/project/predict.h"

struct cm_measured {
    char device[80]; /* as the results name it */
    const struct cm_gpu_spec *spec;
    double products[CM_PRECISION_COUNT]; /* FLOP/s of a GPU; 0: not measured */
    bool sustained[CM_PRECISION_COUNT];  /* after minutes, which goes before a burst */
    double memory_rate;                  /* B/s of a GPU */
    double all_reduce;                   /* largest bus bandwidth, B/s */
    double step_w, product_w; /* of a GPU in training steps and in products: the most; 0: unknown */
    struct cm_cost_job *steps; /* training steps of that model */
    double *steps_s;
    size_t step_count, step_capacity, time_capacity;
};

/* From all of the files, which must be of one kind of GPU that is in the catalogue; the steps of
 * `model` alone. CM_USAGE otherwise. */
enum cm_status cm_measured_load(const char *const *paths, size_t count,
                                const struct cm_gpu_catalogue *catalogue, const char *model,
                                struct cm_measured *measured);
void cm_measured_release(struct cm_measured *measured);

/* Move the calibration to what was measured: a mean of both, weighted by how sure they are. */
void cm_measured_apply(const struct cm_measured *measured, struct cm_calibration *calibration);

#endif
