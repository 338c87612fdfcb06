/* Order statistics by radix selection: the bits of a double, taken as a whole number, order as the
 * doubles do. Each pass counts how the values that are left spread over the next bits and keeps the
 * one bucket that holds the rank. A few passes, no memory, no bad case. */
#include "host/stats/order.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SMALL     64
#define PASS_BITS 11
#define BUCKETS   (1 << PASS_BITS)
#define SIGN      (UINT64_C(1) << 63)

static uint64_t key_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & SIGN ? ~bits : bits | SIGN;
}

static double value_of(uint64_t key)
{
    uint64_t bits = key & SIGN ? key ^ SIGN : ~key;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t key_at(const struct cm_series *series, size_t i)
{
    double value = series->values[i];
    return key_of(series->distances ? fabs(value - series->center) : value);
}

/* The rank among the at most SMALL keys that begin with `prefix`. */
static double finish(const struct cm_series *series, uint64_t prefix, uint64_t mask, size_t rank)
{
    uint64_t sorted[SMALL];
    size_t count = 0;
    for (size_t i = 0; i < series->count; i++) {
        uint64_t key = key_at(series, i);
        if ((key & mask) != prefix)
            continue;
        size_t place = count++;
        for (; place > 0 && sorted[place - 1] > key; place--)
            sorted[place] = sorted[place - 1];
        sorted[place] = key;
    }
    return value_of(sorted[rank]);
}

double cm_order_statistic(const struct cm_series *series, size_t rank)
{
    uint64_t prefix = 0, mask = 0;
    size_t left = series->count;
    unsigned shift = 64;
    while (left > SMALL) {
        if (shift == 0)
            return value_of(prefix); /* all that are left are equal */
        unsigned bits = shift < PASS_BITS ? shift : PASS_BITS;
        shift -= bits;
        uint64_t digits = (UINT64_C(1) << bits) - 1;
        size_t buckets[BUCKETS] = {0};
        for (size_t i = 0; i < series->count; i++) {
            uint64_t key = key_at(series, i);
            if ((key & mask) == prefix)
                buckets[key >> shift & digits]++;
        }
        size_t bucket = 0;
        for (; rank >= buckets[bucket]; bucket++)
            rank -= buckets[bucket];
        left = buckets[bucket];
        prefix |= (uint64_t)bucket << shift;
        mask |= digits << shift;
    }
    return finish(series, prefix, mask, rank);
}

double cm_series_quantile(const struct cm_series *series, double q)
{
    if (series->count == 0)
        return (double)NAN;
    double place = (double)(series->count - 1) * fmin(fmax(q, 0), 1);
    size_t rank = (size_t)place;
    double part = place - (double)rank;
    double low = cm_order_statistic(series, rank);
    if (part == 0)
        return low;
    double high = cm_order_statistic(series, rank + 1);
    return low + part * (high - low);
}
