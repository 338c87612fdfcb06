/*
 * The workload pairs from end to end without a transfer: who meets whom, and what is said of times
 * that a simulated cluster gives. Suspects count when their retest confirms them.
 */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "clustermark/memory.h"
#include "clustermark/stats.h"
#include "host/workload/pairs.h"
#include "host/workload/slow_ranks.h"

enum { AUTO, NODES, RANKS };
#define BYTES 1e6
#define TIMES 60

struct cluster {
    unsigned ranks, per_node;
    bool both;
    double noise, outliers;        /* size; and how often something ten times as large comes */
    double slow[3];                /* the first ranks' share; 0: all of it */
    double slow_sending;           /* of rank 0 alone */
    unsigned cable_from, cable_to; /* at half the rate, where they differ */
    double hiccup;                 /* rank 1's share in the first rounds alone; 0: none */
    double local;                  /* within a node so much faster; 0: as between */
};

static uint64_t seed = 1;

static double normal(void)
{
    return cm_normal_quantile(((double)cm_draw(&seed, (uint64_t)1 << 53) + 0.5) / 0x1p53);
}

static double share(const struct cluster *cluster, unsigned rank, bool sends, bool retest)
{
    double value = rank < 3 && cluster->slow[rank] > 0 ? cluster->slow[rank] : 1;
    if (rank == 0 && sends && cluster->slow_sending > 0)
        value *= cluster->slow_sending;
    if (rank == 1 && !retest && cluster->hiccup > 0)
        value *= cluster->hiccup;
    return value;
}

static double time_of(const struct cluster *cluster, unsigned from, unsigned to, bool retest)
{
    double rate = 1e9 * fmin(share(cluster, from, true, retest), share(cluster, to, false, retest));
    if (cluster->both)
        rate = fmin(rate, 1e9 * fmin(share(cluster, to, true, retest),
                                     share(cluster, from, false, retest)));
    if (cluster->cable_from != cluster->cable_to &&
        ((from == cluster->cable_from && to == cluster->cable_to) ||
         (cluster->both && to == cluster->cable_from && from == cluster->cable_to)))
        rate /= 2;
    if (cluster->local > 0 && from / cluster->per_node == to / cluster->per_node)
        rate *= cluster->local;
    double noise = cluster->noise * normal();
    if ((double)cm_draw(&seed, 1u << 20) / (1u << 20) < cluster->outliers)
        noise = 10 * fabs(noise) + 0.2;
    return BYTES / rate * exp(noise);
}

/* The times of all parts, or of those from `first` on. */
static void play(const struct cluster *cluster, const struct cm_pairs_params *params,
                 const struct cm_pairs_plan *plan, unsigned first, unsigned count,
                 struct cm_part_samples *parts)
{
    for (unsigned p = first; p < count; p++) {
        struct cm_part_samples *part = &parts[p];
        unsigned round = p / cm_pairs_parts(params);
        bool retest = round >= plan->rounds;
        part->rank_count = plan->ranks;
        part->rank_median_s = cm_alloc(plan->ranks, sizeof(double));
        part->median_s = 1e-3;
        for (int i = 0; i < 9; i++)
            assert_ok(cm_samples_add(&part->slowest, 1e-3 * (1 + 0.001 * i)));
        for (unsigned rank = 0; rank < plan->ranks; rank++)
            part->rank_median_s[rank] = (double)NAN;
        for (unsigned rank = 0; rank < plan->ranks; rank++) {
            unsigned partner = plan->partner[(size_t)round * plan->ranks + rank];
            if (partner == CM_NO_PARTNER || !cm_pairs_sends(params, p, rank, partner) ||
                (params->both && partner < rank))
                continue;
            double time_s = time_of(cluster, rank, partner, retest);
            part->rank_median_s[rank] = time_s;
            part->rank_median_s[partner] = 0.99 * time_s;
        }
    }
}

static void release_parts(struct cm_part_samples *parts, unsigned count)
{
    for (unsigned p = 0; p < count; p++) {
        cm_free(parts[p].rank_median_s);
        cm_samples_release(&parts[p].slowest);
        parts[p] = (struct cm_part_samples){.rank_count = 0};
    }
}

/* A whole run: rounds, a judgement, the retest where somebody is suspected, the judgement. */
static struct cm_pairs_verdict run(const struct cluster *cluster, int between)
{
    static struct cm_part_samples parts[200];
    struct cm_pairs_params params = {.retests = 3, .margin = 0.05, .risk = 0.01};
    struct cm_pairs_plan plan;
    struct cm_pairs_verdict verdict = {0};
    unsigned nodes[256];
    params.both = cluster->both;
    for (unsigned r = 0; r < cluster->ranks; r++)
        nodes[r] = r / cluster->per_node;
    assert_ok(
        cm_pairs_plan_make(cluster->ranks, nodes, between, 0, cm_draw(&seed, 1u << 30), &plan));
    unsigned count = plan.rounds * cm_pairs_parts(&params);
    play(cluster, &params, &plan, 0, count, parts);
    assert_ok(cm_pairs_judge(&params, &plan, BYTES, parts, &verdict));
    if (verdict.suspects.count > 0) {
        assert_ok(
            cm_pairs_plan_retest(&plan, verdict.states, verdict.pairs, verdict.pair_count, 3, 5));
        cm_pairs_verdict_release(&verdict);
        unsigned all = (plan.rounds + plan.retests) * cm_pairs_parts(&params);
        play(cluster, &params, &plan, count, all, parts);
        assert_ok(cm_pairs_judge(&params, &plan, BYTES, parts, &verdict));
        count = all;
    }
    release_parts(parts, count);
    cm_pairs_plan_release(&plan);
    return verdict;
}

/* How often who is confirmed: of single ranks, pairs as from * 100 + to + 1000. */
struct tally {
    unsigned by_rank[64], pairs, right_pairs, first_right;
};

static struct tally repeat(const struct cluster *cluster, int between)
{
    struct tally tally = {.pairs = 0};
    for (unsigned i = 0; i < TIMES; i++) {
        struct cm_pairs_verdict verdict = run(cluster, between);
        bool first = true;
        for (size_t k = 0; k < verdict.suspects.count; k++) {
            const struct cm_suspect *suspect = &verdict.suspects.items[k];
            if (!suspect->confirmed)
                continue;
            if (suspect->peer == CM_NO_PEER) {
                tally.by_rank[suspect->rank]++;
                tally.first_right += first && suspect->rank == 0;
            } else {
                bool right =
                    (suspect->rank == cluster->cable_from && suspect->peer == cluster->cable_to) ||
                    (cluster->both && suspect->rank == cluster->cable_to &&
                     suspect->peer == cluster->cable_from);
                tally.pairs += !right;
                tally.right_pairs += right;
            }
            first = false;
        }
        cm_pairs_verdict_release(&verdict);
    }
    if (getenv("CM_PAIRS_VERBOSE") != NULL)
        printf("%u ranks %u a node %s: %u %u %u %u ..., pairs %u, right ones %u\n", cluster->ranks,
               cluster->per_node, cluster->both ? "both" : "one way", tally.by_rank[0],
               tally.by_rank[1], tally.by_rank[2], tally.by_rank[3], tally.pairs,
               tally.right_pairs);
    return tally;
}

static unsigned others(const struct tally *tally, unsigned from)
{
    unsigned sum = tally->pairs;
    for (unsigned r = from; r < 64; r++)
        sum += tally->by_rank[r];
    return sum;
}

/* The retest takes away what one measurement alone cannot tell: a transfer that was late. */
static void test_nobody(void **state)
{
    (void)state;
    static const unsigned sizes[][2] = {{3, 1}, {4, 1}, {8, 1}, {9, 3}, {8, 4}, {33, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int both = 0; both < 2; both++) {
            struct cluster cluster = {
                .ranks = sizes[i][0], .per_node = sizes[i][1], .both = both, .local = 5};
            unsigned named = 0;
            for (cluster.noise = 0.01; cluster.noise < 0.5; cluster.noise *= 5) {
                cluster.outliers = 0.05;
                struct tally tally = repeat(&cluster, AUTO);
                named += others(&tally, 0);
            }
            struct cm_interval interval = cm_binomial_interval(named, 3 * TIMES, 0.9998);
            if (interval.low > 0.01)
                fail_msg("%u ranks: %u of %u false alarms", cluster.ranks, named, 3 * TIMES);
        }
    }
}

static void test_one_host(void **state)
{
    (void)state;
    for (int both = 0; both < 2; both++) {
        struct cluster cluster = {.ranks = 4, .per_node = 1, .both = both, .noise = 0.01};
        static const double shares[] = {0.1, 0.8};
        for (int i = 0; i < 2; i++) {
            cluster.slow[0] = shares[i];
            struct tally tally = repeat(&cluster, AUTO);
            assert_in_range(tally.by_rank[0], TIMES - 3, TIMES);
            assert_int_equal(tally.first_right, tally.by_rank[0]);
            assert_in_range(others(&tally, 1), 0, 2);
        }
    }
}

/* Noise puts one of the few that are sound below the margin now and then; it is a partner still. */
static void test_noisy_host(void **state)
{
    (void)state;
    struct cluster cluster = {.ranks = 4, .per_node = 1, .noise = 0.09};
    cluster.slow[0] = 0.1;
    struct tally tally = repeat(&cluster, AUTO);
    assert_in_range(tally.by_rank[0], TIMES - 2, TIMES);
    assert_in_range(others(&tally, 1), 0, 2);
}

/* Between nodes: one network card of many; in a lane of its own. */
static void test_one_card(void **state)
{
    (void)state;
    struct cluster cluster = {.ranks = 32, .per_node = 4, .noise = 0.01};
    cluster.slow[0] = 0.7;
    struct tally tally = repeat(&cluster, AUTO);
    assert_in_range(tally.by_rank[0], TIMES - 3, TIMES);
    assert_in_range(others(&tally, 1), 0, 2);
    /* On two nodes all ranks meet; links within a node are faster, and nobody's fault. */
    struct cluster two = {.ranks = 16, .per_node = 8, .noise = 0.01, .local = 8};
    two.slow[0] = 0.7;
    tally = repeat(&two, AUTO);
    assert_in_range(tally.by_rank[0], TIMES - 6, TIMES);
    assert_in_range(others(&tally, 1), 0, 2);
}

static void test_direction(void **state)
{
    (void)state;
    struct cluster cluster = {.ranks = 8, .per_node = 1, .noise = 0.01, .slow_sending = 0.5};
    struct cm_pairs_verdict verdict = run(&cluster, AUTO);
    assert_in_range(verdict.suspects.count, 1, 2);
    const struct cm_suspect *suspect = &verdict.suspects.items[0];
    assert_string_equal(suspect->what, "sending");
    assert_int_equal(suspect->rank, 0);
    assert_true(suspect->confirmed && suspect->low <= suspect->effect);
    assert_true(suspect->effect <= suspect->high && fabs(suspect->effect + 0.5) < 0.05);
    assert_true(fabs(suspect->retest + 0.5) < 0.05 && suspect->partners[0] != '\0');
    cm_pairs_verdict_release(&verdict);
}

static void test_two_hosts(void **state)
{
    (void)state;
    struct cluster cluster = {.ranks = 16, .per_node = 1, .noise = 0.01};
    cluster.slow[0] = 0.1;
    cluster.slow[1] = 0.7;
    struct tally tally = repeat(&cluster, AUTO);
    assert_in_range(tally.by_rank[0], TIMES - 3, TIMES);
    assert_in_range(tally.by_rank[1], TIMES - 3, TIMES);
    assert_int_equal(tally.first_right, tally.by_rank[0]);
    assert_in_range(others(&tally, 2), 0, 2);
}

/* A cable is its pair's; 7 of 11 partners are met. */
static void test_cable(void **state)
{
    (void)state;
    for (int both = 0; both < 2; both++) {
        struct cluster cluster = {.ranks = 12,
                                  .per_node = 1,
                                  .both = both,
                                  .noise = 0.01,
                                  .cable_from = 10,
                                  .cable_to = 4};
        struct tally tally = repeat(&cluster, AUTO);
        assert_in_range(tally.right_pairs, TIMES / 3, TIMES);
        assert_in_range(others(&tally, 0), 0, 2);
    }
}

/* What is gone when it is looked at again is not told as sure. */
static void test_hiccup(void **state)
{
    (void)state;
    struct cluster cluster = {.ranks = 8, .per_node = 1, .noise = 0.01, .hiccup = 0.5};
    struct cm_pairs_verdict verdict = run(&cluster, AUTO);
    assert_in_range(verdict.suspects.count, 1, 3);
    assert_int_equal(verdict.suspects.items[0].rank, 1);
    for (size_t i = 0; i < verdict.suspects.count; i++)
        assert_false(verdict.suspects.items[i].confirmed);
    cm_pairs_verdict_release(&verdict);
}

static void test_lanes(void **state)
{
    (void)state;
    const unsigned nodes[] = {0, 0, 1, 1, 2, 2, 2, 3};
    struct cm_pairs_plan plan;
    assert_ok(cm_pairs_plan_make(8, nodes, AUTO, 0, 3, &plan));
    assert_true(plan.between_nodes);
    assert_int_equal(plan.lanes, 3);
    for (unsigned i = 0; i < plan.rounds * 8; i++) {
        unsigned rank = i % 8, partner = plan.partner[i];
        if (partner == CM_NO_PARTNER)
            continue;
        assert_int_equal(plan.lane_of[rank], plan.lane_of[partner]);
        assert_int_not_equal(nodes[rank], nodes[partner]);
        assert_int_equal(plan.partner[i - rank + partner], rank);
    }
    for (unsigned round = 0; round < plan.rounds; round++) /* the third rank of its node */
        assert_int_equal(plan.partner[round * 8 + 6], CM_NO_PARTNER);
    cm_pairs_plan_release(&plan);
    /* One node, or nodes not known: any rank meets any. */
    assert_ok(cm_pairs_plan_make(8, NULL, NODES, 0, 3, &plan));
    assert_true(plan.lanes == 1 && !plan.between_nodes);
    cm_pairs_plan_release(&plan);
    assert_ok(cm_pairs_plan_make(8, nodes, RANKS, 4, 3, &plan));
    assert_true(plan.lanes == 1 && plan.rounds == 4);
    cm_pairs_plan_release(&plan);
}

/* Ranks that work for themselves. */
static void test_slow_ranks(void **state)
{
    (void)state;
    struct cm_part_samples part = {.rank_count = 8, .median_s = 1.3};
    struct cm_suspects suspects = {.items = NULL};
    double medians[8];
    part.rank_median_s = medians;
    for (int i = 0; i < 20; i++)
        assert_ok(cm_samples_add(&part.slowest, 1.3 + 0.001 * i));
    for (unsigned r = 0; r < 8; r++)
        medians[r] = 1 + 0.005 * (r % 3);
    medians[7] = (double)NAN;
    assert_ok(cm_slow_ranks_find(&part, "products", &suspects));
    assert_int_equal(suspects.count, 0);
    medians[5] = 1.3;
    assert_ok(cm_slow_ranks_find(&part, "products", &suspects));
    assert_int_equal(suspects.count, 1);
    const struct cm_suspect *suspect = &suspects.items[0];
    assert_string_equal(suspect->what, "products");
    assert_int_equal(suspect->rank, 5);
    assert_int_equal(suspect->peer, CM_NO_PEER);
    assert_true(fabs(suspect->effect + 0.23) < 0.01 && suspect->p <= CM_SLOW_RISK);
    assert_true(suspect->low < suspect->effect && suspect->effect < suspect->high);
    assert_true(isnan(suspect->retest) && !suspect->confirmed);
    cm_suspects_release(&suspects);
    cm_samples_release(&part.slowest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes),      cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_one_host),   cmocka_unit_test(test_one_card),
        cmocka_unit_test(test_direction),  cmocka_unit_test(test_two_hosts),
        cmocka_unit_test(test_cable),      cmocka_unit_test(test_hiccup),
        cmocka_unit_test(test_slow_ranks), cmocka_unit_test(test_noisy_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
