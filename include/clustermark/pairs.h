/*
 * pairs.h: finding the slow one by transfers between pairs. Pure.
 *
 * Units (hosts, NICs, GPUs) meet in rounds as in a tournament: every unit has one partner at a
 * time, all pairs at once, and another partner in each round. A number of rounds that grows with
 * the logarithm of the units is enough to tell a slow unit from a slow partner.
 */
#ifndef CLUSTERMARK_PAIRS_H
#define CLUSTERMARK_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clustermark/status.h"

/* Has no partner in this round. */
#define CM_NO_PARTNER UINT32_MAX

struct cm_pairing {
    unsigned count, rounds;
    unsigned *partner; /* of unit i in round r: partner[r * count + i] */
};

/* Rounds that are enough for so many units: 3 and the logarithm to base 2, at most every partner
 * once; with few units again and again, so that there are at least 6. */
unsigned cm_pairing_rounds(unsigned count);

/* A tournament of `rounds` rounds (0: cm_pairing_rounds) in an order that follows from the seed.
 * Every round is a perfect matching; of an odd number one sits out, each another time. Partners are
 * distinct until all were met (count - 1 rounds, count of an odd number), then they come again.
 * From 3 rounds and 3 units on, the pairs tie all units together in such a way that each one's
 * share in a rate can be told. Less than 2 units: no rounds. */
enum cm_status cm_pairing_make(unsigned count, unsigned rounds, uint64_t seed,
                               struct cm_pairing *pairing);
void cm_pairing_release(struct cm_pairing *pairing);

/* What is known of a unit before a retest. */
enum cm_unit_state {
    CM_UNIT_GOOD,    /* is a partner of those that are suspected, or a control */
    CM_UNIT_SUSPECT, /* meets good partners only */
    CM_UNIT_APART,   /* rests: neither sound enough for a partner nor tested again */
};
struct cm_pair_of {
    unsigned from, to;
};
/* A retest: in each round every suspect has a good partner, another one each time as long as there
 * are enough; suspected pairs of good units meet; the good units that are left meet each other.
 * Suspects for which no partner is left rest. `states` has `count`. */
enum cm_status cm_pairing_retest(unsigned count, const unsigned char *states,
                                 const struct cm_pair_of *pairs, size_t pair_count, unsigned rounds,
                                 uint64_t seed, struct cm_pairing *pairing);

/* The fit: log rate of a transfer = mean + sender's effect + receiver's effect + noise; where both
 * ends send at once, both have the one effect (`symmetric`). Huber's M-estimate (1.345, scale by
 * the MAD), so that a bad cable between two units, or a partner that is slow too, does not rub off.
 */
struct cm_pair_value {
    unsigned from, to;
    double value; /* a logarithm */
};
struct cm_pair_options {
    bool symmetric;
    double margin; /* slower by this share is still fine: 0.05 */
    double floor;  /* the scale is at least this: what a single value is uncertain by */
};
struct cm_pair_effect {
    double effect; /* against the median unit, a logarithm; NAN for one that met nobody */
    double error;  /* standard error */
    double p;      /* one-sided, of an effect that is within the margin after all; not adjusted */
};
struct cm_pair_fit {
    unsigned count;
    double mean;    /* the log rate between two median units */
    double scale;   /* of the noise of one value */
    double freedom; /* degrees; below 1 nothing can be told, and each p is 1 */
    /* Per unit: as sender, as receiver, and the mean of the two, which tells more of one that is
     * slow at both. The same array where symmetric. */
    struct cm_pair_effect *from, *to, *both;
    struct cm_pair_effect *rest; /* per value: its residual, and the test of that */
};
/* Values are finite, of two different units below `count` each (CM_USAGE otherwise). */
enum cm_status cm_pair_fit_make(const struct cm_pair_value *values, size_t value_count,
                                unsigned count, const struct cm_pair_options *options,
                                struct cm_pair_fit *fit);
void cm_pair_fit_release(struct cm_pair_fit *fit);

/* Of values that should be alike (logarithms of the rates at which the units do the same work), the
 * same test: against the median, by the scale of the others. NAN: a unit without a value. With
 * fewer than 3 each p is 1. `floor` as above. */
enum cm_status cm_outliers(const double *values, size_t count, double margin, double floor,
                           struct cm_pair_effect *effects);

#endif
