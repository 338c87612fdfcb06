/*
 * price.h: what a machine costs, and figures per money. Private to host/result.
 */
#ifndef CM_RESULT_PRICE_H
#define CM_RESULT_PRICE_H

#include "clustermark/compare.h"
#include "host/result/set.h"

struct cm_price {
    double per_hour; /* of one machine; 0: not known */
    char currency[8];
    char instance[64]; /* "" for a price of the user's own */
    char date[32], source[200];
    unsigned devices; /* of one machine; 0: not known, and then there is one machine */
};

/* "55.04", "55.04USD/h", "55.04 EUR, 2026-07-20, offer of a provider": amount per hour, currency
 * (USD), date and source. `where` begins a message. */
enum cm_status cm_price_parse(const char *text, const char *where, struct cm_price *price);
/* An instance of configs/instances.ini. */
enum cm_status cm_price_find(const char *instance, const char *where, struct cm_price *price);

/* Add to the set, for every metric that counts work, what the work costs: FLOP, bytes all-reduced,
 * tokens. */
enum cm_status cm_price_add(struct cm_set *set, const struct cm_price *price);

#endif
