/*
 * energy_cost.h: what GPUs at work draw, and what their time costs. Pure: numbers in, numbers out.
 */
#ifndef CLUSTERMARK_ENERGY_COST_H
#define CLUSTERMARK_ENERGY_COST_H

/* Watts of one GPU's share. */
struct cm_watts {
    double gpu_w;         /* of the GPU: measured in training, or as it is sold */
    double node_ratio;    /* the node's mains power of that share over it: host, fans, supplies */
    double network_ratio; /* switches and optics, over the node's */
    double pue;           /* of the site over all that computes; 1 or more */
};
double cm_watts_node(const struct cm_watts *watts);      /* at the node's plug */
double cm_watts_computing(const struct cm_watts *watts); /* with the network */
double cm_watts_site(const struct cm_watts *watts);      /* with cooling and conversion */

/* Money for a number of GPUs over some years, of which they are not there for the first months. */
struct cm_deal {
    double usd, years;
    double delay_months; /* less than the years have */
    double gpus;
};
double cm_deal_usd_per_gpu_hour(const struct cm_deal *deal);

/* Of a token that counts, when `gpus` train `tokens_per_s` of them. */
double cm_token_usd(double usd_per_gpu_hour, double gpus, double tokens_per_s);
double cm_token_j(double site_w, double gpus, double tokens_per_s);

#endif
