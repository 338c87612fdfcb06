/* Tournaments: who meets whom in which round. Whole numbers only, so that every rank comes to the
 * same. */
#include <string.h>

#include "clustermark/error.h"
#include "clustermark/memory.h"
#include "clustermark/pairs.h"
#include "clustermark/stats.h"

#define LEAST_ROUNDS 6
/* Draws of a tournament before one that does not tie all units together is taken as it is. */
#define TRIES 100

/* Rounds until every partner was met. */
static unsigned full_rounds(unsigned count)
{
    return count % 2 == 0 ? count - 1 : count;
}

unsigned cm_pairing_rounds(unsigned count)
{
    unsigned rounds = 3;
    if (count < 3)
        return count < 2 ? 0 : 1;
    for (unsigned reach = 1; reach < count; reach *= 2)
        rounds++;
    if (rounds > full_rounds(count))
        rounds = full_rounds(count);
    while (rounds < LEAST_ROUNDS)
        rounds += full_rounds(count);
    return rounds;
}

static void shuffle(unsigned *items, unsigned count, uint64_t *seed)
{
    for (unsigned i = count; i > 1; i--) {
        unsigned other = (unsigned)cm_draw(seed, i), kept = items[i - 1];
        items[i - 1] = items[other];
        items[other] = kept;
    }
}

static unsigned *numbers(unsigned count)
{
    unsigned *items = cm_alloc(count, sizeof *items);
    for (unsigned i = 0; items != NULL && i < count; i++)
        items[i] = i;
    return items;
}

static enum cm_status make_room(unsigned count, unsigned rounds, struct cm_pairing *pairing)
{
    unsigned *partner = cm_alloc((size_t)count * rounds, sizeof *partner);
    if (partner == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < (size_t)count * rounds; i++)
        partner[i] = CM_NO_PARTNER;
    *pairing = (struct cm_pairing){.count = count, .rounds = rounds, .partner = partner};
    return CM_OK;
}

static void meet(struct cm_pairing *pairing, unsigned round, unsigned a, unsigned b)
{
    unsigned *row = pairing->partner + (size_t)round * pairing->count;
    row[a] = b;
    row[b] = a;
}

/* The circle: one place stays, the others turn around it. The place beyond an odd number is nobody.
 */
static void fill_round(struct cm_pairing *pairing, unsigned round, unsigned turn,
                       const unsigned *order)
{
    unsigned count = pairing->count, circle = full_rounds(count);
    for (unsigned k = 0; k <= circle / 2 && circle > 0; k++) {
        unsigned a = k == 0 ? circle : (turn + k) % circle;
        unsigned b = (turn + circle - k) % circle;
        if (a < count && b < count)
            meet(pairing, round, order[a], order[b]);
    }
}

static unsigned root_of(unsigned *parents, unsigned item)
{
    while (parents[item] != item) {
        parents[item] = parents[parents[item]];
        item = parents[item];
    }
    return item;
}

/* Every unit as sender and every unit as receiver hang together: then effects of both ends, or of
 * units where both send, follow from the rates. */
static enum cm_status tied_together(const struct cm_pairing *pairing, bool *tied)
{
    unsigned count = pairing->count, groups = 2 * count;
    unsigned *parents = numbers(2 * count);
    if (parents == NULL)
        return CM_NO_MEMORY;
    for (size_t i = 0; i < (size_t)count * pairing->rounds; i++) {
        if (pairing->partner[i] == CM_NO_PARTNER)
            continue;
        unsigned a = root_of(parents, (unsigned)(i % count));
        unsigned b = root_of(parents, count + pairing->partner[i]);
        groups -= a != b;
        parents[a] = b;
    }
    cm_free(parents);
    *tied = groups == 1;
    return CM_OK;
}

static enum cm_status draw(struct cm_pairing *pairing, uint64_t *seed)
{
    unsigned full = full_rounds(pairing->count);
    if (full == 0) /* nobody to meet */
        return CM_OK;
    unsigned *order = numbers(pairing->count), *turns = numbers(full);
    enum cm_status status = order != NULL && turns != NULL ? CM_OK : CM_NO_MEMORY;
    if (status == CM_OK) {
        shuffle(order, pairing->count, seed);
        shuffle(turns, full, seed);
    }
    for (unsigned round = 0, turn = 0; status == CM_OK && round < pairing->rounds; round++) {
        fill_round(pairing, round, turns[turn], order);
        turn = turn + 1 < full ? turn + 1 : 0;
    }
    cm_free(order);
    cm_free(turns);
    return status;
}

enum cm_status cm_pairing_make(unsigned count, unsigned rounds, uint64_t seed,
                               struct cm_pairing *pairing)
{
    struct cm_pairing made = {.count = count};
    rounds = count < 2 ? 0 : rounds > 0 ? rounds : cm_pairing_rounds(count);
    enum cm_status status = make_room(count, rounds, &made);
    bool tied = false;
    for (unsigned attempt = 0; status == CM_OK && rounds > 0 && !tied && attempt < TRIES;
         attempt++) {
        for (size_t i = 0; i < (size_t)count * rounds; i++)
            made.partner[i] = CM_NO_PARTNER;
        status = draw(&made, &seed);
        if (status == CM_OK)
            status = tied_together(&made, &tied);
    }
    if (status == CM_OK)
        *pairing = made;
    else
        cm_pairing_release(&made);
    return status;
}

void cm_pairing_release(struct cm_pairing *pairing)
{
    cm_free(pairing->partner);
    *pairing = (struct cm_pairing){0};
}

/* Suspects take their partners from the good ones in a drawn order, each round further along. */
static void fill_retest(struct cm_pairing *pairing, unsigned round, const unsigned *suspects,
                        unsigned suspect_count, const unsigned *good, unsigned good_count)
{
    const unsigned *row = pairing->partner + (size_t)round * pairing->count;
    unsigned tested = suspect_count < good_count ? suspect_count : good_count;
    for (unsigned k = 0; k < tested; k++) {
        for (unsigned step = 0; step < good_count; step++) {
            unsigned partner = good[(k + round * tested + step) % good_count];
            if (row[partner] != CM_NO_PARTNER)
                continue;
            meet(pairing, round, suspects[k], partner);
            break;
        }
    }
}

static void fill_controls(struct cm_pairing *pairing, unsigned round, const unsigned *good,
                          unsigned good_count)
{
    const unsigned *row = pairing->partner + (size_t)round * pairing->count;
    unsigned waiting = CM_NO_PARTNER;
    for (unsigned i = 0; i < good_count; i++) {
        unsigned unit = good[(i + round) % good_count];
        if (row[unit] != CM_NO_PARTNER)
            continue;
        if (waiting == CM_NO_PARTNER) {
            waiting = unit;
            continue;
        }
        meet(pairing, round, waiting, unit);
        waiting = CM_NO_PARTNER;
    }
}

enum cm_status cm_pairing_retest(unsigned count, const unsigned char *states,
                                 const struct cm_pair_of *pairs, size_t pair_count, unsigned rounds,
                                 uint64_t seed, struct cm_pairing *pairing)
{
    struct cm_pairing made = {.count = count};
    unsigned *good = numbers(count), *suspects = numbers(count);
    unsigned good_count = 0, suspect_count = 0;
    enum cm_status status = make_room(count, rounds, &made);
    if (good == NULL || suspects == NULL)
        status = CM_NO_MEMORY;
    for (unsigned i = 0; status == CM_OK && i < count; i++) {
        if (states[i] == CM_UNIT_GOOD)
            good[good_count++] = i;
        else if (states[i] == CM_UNIT_SUSPECT)
            suspects[suspect_count++] = i;
    }
    if (status == CM_OK)
        shuffle(good, good_count, &seed);
    for (unsigned round = 0; status == CM_OK && round < rounds; round++) {
        const unsigned *row = made.partner + (size_t)round * count;
        for (size_t i = 0; i < pair_count; i++) {
            bool free =
                states[pairs[i].from] == CM_UNIT_GOOD && row[pairs[i].from] == CM_NO_PARTNER;
            if (free && states[pairs[i].to] == CM_UNIT_GOOD && row[pairs[i].to] == CM_NO_PARTNER)
                meet(&made, round, pairs[i].from, pairs[i].to);
        }
        fill_retest(&made, round, suspects, suspect_count, good, good_count);
        fill_controls(&made, round, good, good_count);
    }
    cm_free(good);
    cm_free(suspects);
    if (status == CM_OK)
        *pairing = made;
    else
        cm_pairing_release(&made);
    return status;
}
