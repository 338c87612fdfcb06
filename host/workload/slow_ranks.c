/* Ranks that take longer than others for the same work of their own. */
#include "host/workload/slow_ranks.h"

#include <math.h>
#include <stdio.h>

#include "clustermark/memory.h"
#include "clustermark/pairs.h"

#define MEDIAN_ERROR (1.2533 * 1.4826)

static enum cm_status add(const struct cm_pair_effect *effect, double p, double freedom,
                          unsigned rank, const char *what, struct cm_suspects *suspects)
{
    double reach = cm_t_quantile(0.975, freedom) * effect->error;
    struct cm_suspect suspect = {.rank = rank,
                                 .peer = CM_NO_PEER,
                                 .effect = expm1(effect->effect),
                                 .low = expm1(effect->effect - reach),
                                 .high = expm1(effect->effect + reach),
                                 .p = p,
                                 .retest = (double)NAN};
    snprintf(suspect.what, sizeof suspect.what, "%s", what);
    return cm_suspects_add(suspects, &suspect);
}

enum cm_status cm_slow_ranks_find(const struct cm_part_samples *part, const char *what,
                                  struct cm_suspects *suspects)
{
    unsigned ranks = part->rank_count;
    double *rates = cm_alloc(ranks, sizeof *rates), *p = cm_alloc(ranks, sizeof *p);
    struct cm_pair_effect *effects = cm_alloc(ranks, sizeof *effects);
    const struct cm_samples *times = &part->slowest;
    double floor = MEDIAN_ERROR * cm_mad(times->values, times->count) /
                   (part->median_s * sqrt((double)times->count));
    unsigned known = 0;
    enum cm_status status = rates != NULL && p != NULL && effects != NULL ? CM_OK : CM_NO_MEMORY;
    for (unsigned r = 0; status == CM_OK && r < ranks; r++) {
        rates[r] = part->rank_median_s[r] > 0 ? -log(part->rank_median_s[r]) : (double)NAN;
        known += isfinite(rates[r]) ? 1 : 0;
    }
    if (status == CM_OK)
        status = cm_outliers(rates, ranks, CM_SLOW_MARGIN, isfinite(floor) ? floor : 0, effects);
    for (unsigned r = 0; status == CM_OK && r < ranks; r++)
        p[r] = effects[r].p;
    if (status == CM_OK)
        status = cm_holm(p, ranks, p);
    for (unsigned r = 0; status == CM_OK && r < ranks; r++) {
        if (isfinite(rates[r]) && p[r] <= CM_SLOW_RISK)
            status = add(&effects[r], p[r], (double)known - 1, r, what, suspects);
    }
    cm_free(rates);
    cm_free(p);
    cm_free(effects);
    return status;
}
