/* Energy and money. */
#include "clustermark/energy_cost.h"

#define YEAR_HOURS  8760.0
#define YEAR_MONTHS 12.0
#define HOUR_S      3600.0

double cm_watts_node(const struct cm_watts *watts)
{
    return watts->gpu_w * watts->node_ratio;
}

double cm_watts_computing(const struct cm_watts *watts)
{
    return cm_watts_node(watts) * (1 + watts->network_ratio);
}

double cm_watts_site(const struct cm_watts *watts)
{
    return cm_watts_computing(watts) * watts->pue;
}

double cm_deal_usd_per_gpu_hour(const struct cm_deal *deal)
{
    double years = deal->years - deal->delay_months / YEAR_MONTHS;
    return deal->usd / (deal->gpus * years * YEAR_HOURS);
}

double cm_token_usd(double usd_per_gpu_hour, double gpus, double tokens_per_s)
{
    return usd_per_gpu_hour * gpus / HOUR_S / tokens_per_s;
}

double cm_token_j(double site_w, double gpus, double tokens_per_s)
{
    return site_w * gpus / tokens_per_s;
}
