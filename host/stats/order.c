/* Order statistics by radix selection: the bits of a double, taken as a whole number, order as the
 * doubles do. Beginning with the first bit in which they differ, each pass counts how the values
 * that are left spread over the next bits and keeps the one bucket that holds the rank. A few
 * passes, no memory, no bad case. */
#include "host/stats/order.h"

#include <math.h>
#include <string.h>

/* So few are sorted. */
#define SMALL 64
#define SIGN  (UINT64_C(1) << 63)

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

static uint64_t key_at(const struct cm_order *order, size_t i)
{
    double value = order->values[i];
    return key_of(order->distances ? fabs(value - order->center) : value);
}

static unsigned bits_of_pass(unsigned shift)
{
    return shift < 11 ? shift : 11;
}

/* How the keys that begin with `prefix` spread over the next bits below `shift`. */
static void count_keys(const struct cm_order *order, uint64_t prefix, uint64_t mask, unsigned shift,
                       size_t *buckets)
{
    unsigned bits = bits_of_pass(shift);
    uint64_t digits = (UINT64_C(1) << bits) - 1;
    memset(buckets, 0, CM_ORDER_BUCKETS * sizeof *buckets);
    for (size_t i = 0; i < order->count; i++) {
        uint64_t key = key_at(order, i);
        if ((key & mask) == prefix)
            buckets[key >> (shift - bits) & digits]++;
    }
}

static void begin(struct cm_order *order)
{
    if (order->count <= SMALL)
        return;
    uint64_t first = key_at(order, 0), differences = 0;
    for (size_t i = 1; i < order->count; i++)
        differences |= key_at(order, i) ^ first;
    order->shift = differences != 0 ? 64 - (unsigned)__builtin_clzll(differences) : 0;
    order->mask = order->shift < 64 ? ~UINT64_C(0) << order->shift : 0;
    order->prefix = first & order->mask;
    count_keys(order, order->prefix, order->mask, order->shift, order->buckets);
}

void cm_order_begin(const double *values, size_t count, struct cm_order *order)
{
    *order = (struct cm_order){.values = values, .count = count};
    begin(order);
}

void cm_order_begin_distances(const double *values, size_t count, double center,
                              struct cm_order *order)
{
    *order =
        (struct cm_order){.values = values, .count = count, .distances = true, .center = center};
    begin(order);
}

/* The rank among the at most SMALL keys that begin with `prefix`. */
static double sort_rest(const struct cm_order *order, uint64_t prefix, uint64_t mask, size_t rank)
{
    uint64_t sorted[SMALL];
    size_t count = 0;
    for (size_t i = 0; i < order->count; i++) {
        uint64_t key = key_at(order, i);
        if ((key & mask) != prefix)
            continue;
        size_t place = count++;
        for (; place > 0 && sorted[place - 1] > key; place--)
            sorted[place] = sorted[place - 1];
        sorted[place] = key;
    }
    return value_of(sorted[rank]);
}

double cm_order_statistic(const struct cm_order *order, size_t rank)
{
    uint64_t prefix = order->prefix, mask = order->mask;
    unsigned shift = order->shift;
    size_t left = order->count;
    size_t counted[CM_ORDER_BUCKETS];
    const size_t *buckets = order->buckets;
    while (left > SMALL && shift > 0) {
        if (shift < order->shift) {
            count_keys(order, prefix, mask, shift, counted);
            buckets = counted;
        }
        unsigned bits = bits_of_pass(shift);
        shift -= bits;
        size_t bucket = 0;
        for (; rank >= buckets[bucket]; bucket++)
            rank -= buckets[bucket];
        left = buckets[bucket];
        prefix |= (uint64_t)bucket << shift;
        mask |= ((UINT64_C(1) << bits) - 1) << shift;
    }
    if (left > SMALL)
        return value_of(prefix); /* all that are left are equal */
    return sort_rest(order, prefix, mask, rank);
}

double cm_order_quantile(const struct cm_order *order, double q)
{
    if (order->count == 0)
        return (double)NAN;
    double place = (double)(order->count - 1) * fmin(fmax(q, 0), 1);
    size_t rank = (size_t)place;
    double part = place - (double)rank;
    double low = cm_order_statistic(order, rank);
    if (part == 0)
        return low;
    double high = cm_order_statistic(order, rank + 1);
    return low + part * (high - low);
}
