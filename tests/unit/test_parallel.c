/* Parallel plans: every plan of up to 16 ranks, its splits carried out and held against groups that
 * are found by comparing coordinates; text; refusals. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "clustermark/parallel.h"
#include "clustermark/strbuf.h"

#define MOST 16

static const struct cm_transformer dense = {.name = "dense",
                                            .layers = 12,
                                            .hidden = 64,
                                            .heads = 8,
                                            .kv_heads = 4,
                                            .head_size = 8,
                                            .ffn = 192,
                                            .vocabulary = 300,
                                            .sequence = 96};

/* Calls `check` with every plan of up to MOST ranks. */
static void each_plan(void (*check)(const struct cm_parallel *parallel))
{
    struct cm_parallel p = {.zero = 0};
    for (p.dp = 1; p.dp <= MOST; p.dp++)
        for (p.tp = 1; p.dp * p.tp <= MOST; p.tp++)
            for (p.pp = 1; p.dp * p.tp * p.pp <= MOST; p.pp++)
                for (p.cp = 1; p.dp * p.tp * p.pp * p.cp <= MOST; p.cp++)
                    for (p.ep = 1; p.ep <= p.dp * p.cp; p.ep++)
                        for (p.vpp = 1; p.vpp <= (p.pp > 1 ? 3u : 1u); p.vpp++)
                            if (p.dp * p.cp % p.ep == 0)
                                check(&p);
}

/* ---- coordinates ---- */

static void check_coordinates(const struct cm_parallel *p)
{
    unsigned rank = 0;
    for (unsigned pp = 0; pp < p->pp; pp++)
        for (unsigned dp = 0; dp < p->dp; dp++)
            for (unsigned cp = 0; cp < p->cp; cp++)
                for (unsigned tp = 0; tp < p->tp; tp++, rank++) {
                    struct cm_coordinates place;
                    cm_parallel_coordinates(p, rank, &place);
                    assert_int_equal(place.pp, pp);
                    assert_int_equal(place.dp, dp);
                    assert_int_equal(place.cp, cp);
                    assert_int_equal(place.tp, tp);
                    assert_int_equal(place.data, dp * p->cp + cp);
                    assert_true(place.ep < p->ep);
                    assert_int_equal(place.data, place.expert_data * p->ep + place.ep);
                    assert_int_equal(cm_parallel_rank(p, &place), rank);
                }
    assert_int_equal(rank, cm_parallel_ranks(p));
}

static void test_coordinates(void **state)
{
    (void)state;
    each_plan(check_coordinates);
}

/* ---- splits ---- */

struct members {
    unsigned count, ranks[MOST];
};

/* Whether two ranks belong together in a group that is no edge. */
static bool together(const struct cm_parallel *p, const struct cm_transformer *model,
                     enum cm_group group, const struct cm_coordinates *a,
                     const struct cm_coordinates *b)
{
    bool stage = a->pp == b->pp, tensor = a->tp == b->tp;
    switch (group) {
    case CM_GROUP_WORLD:
        return true;
    case CM_GROUP_TENSOR:
        return stage && a->dp == b->dp && a->cp == b->cp;
    case CM_GROUP_CONTEXT:
        return stage && tensor && a->dp == b->dp;
    case CM_GROUP_DATA:
        return stage && tensor;
    case CM_GROUP_EXPERT:
        return stage && tensor && a->data / p->ep == b->data / p->ep;
    case CM_GROUP_EXPERT_DATA:
        return stage && tensor && a->data % p->ep == b->data % p->ep;
    case CM_GROUP_TIED:
        return model->tied && tensor && a->dp == b->dp && a->cp == b->cp &&
               (stage || (a->pp == 0 && b->pp == p->pp - 1) || (b->pp == 0 && a->pp == p->pp - 1));
    default:
        return false;
    }
}

/* The stage that a rank sends to or hears from; -1 none. */
static int partner_stage(const struct cm_parallel *p, unsigned stage, enum cm_group group)
{
    bool next = group == CM_GROUP_FORWARD_OUT || group == CM_GROUP_BACKWARD_IN;
    int other = (int)stage + (next ? 1 : -1);
    if (other >= 0 && other < (int)p->pp)
        return other;
    return p->vpp > 1 ? (next ? 0 : (int)p->pp - 1) : -1;
}

static void expect(const struct cm_parallel *p, const struct cm_transformer *model, unsigned rank,
                   enum cm_group group, struct members *out)
{
    struct cm_coordinates own, other;
    cm_parallel_coordinates(p, rank, &own);
    out->count = 0;
    if (group < CM_GROUP_FORWARD_OUT) {
        for (unsigned i = 0; i < cm_parallel_ranks(p); i++) {
            cm_parallel_coordinates(p, i, &other);
            if (together(p, model, group, &own, &other))
                out->ranks[out->count++] = i;
        }
        return;
    }
    int stage = partner_stage(p, own.pp, group);
    if (stage < 0)
        return;
    other = own;
    other.pp = (unsigned)stage;
    bool sends = group == CM_GROUP_FORWARD_OUT || group == CM_GROUP_BACKWARD_OUT;
    out->count = 2;
    out->ranks[sends ? 0 : 1] = rank;
    out->ranks[sends ? 1 : 0] = cm_parallel_rank(p, &other);
}

/* What comm.h's split does: ranks of equal color, ordered by key, then by old rank. */
static void carry_out(const int *colors, const int *keys, unsigned ranks, unsigned rank,
                      struct members *out)
{
    out->count = 0;
    for (unsigned i = 0; i < ranks; i++) {
        unsigned at = out->count;
        if (colors[i] != colors[rank])
            continue;
        for (; at > 0 && keys[out->ranks[at - 1]] > keys[i]; at--)
            out->ranks[at] = out->ranks[at - 1];
        out->ranks[at] = i;
        out->count++;
    }
}

static void check_splits_of(const struct cm_parallel *p, const struct cm_transformer *model)
{
    static struct members got[MOST][CM_GROUP_COUNT];
    unsigned ranks = cm_parallel_ranks(p);
    memset(got, 0, sizeof got);
    for (unsigned index = 0; index < cm_parallel_splits(p); index++) {
        enum cm_group groups[MOST];
        int colors[MOST], keys[MOST];
        for (unsigned i = 0; i < ranks; i++)
            cm_parallel_split(p, model, i, index, &groups[i], &colors[i], &keys[i]);
        for (unsigned i = 0; i < ranks; i++) {
            assert_in_range(groups[i], CM_GROUP_WORLD + 1, CM_GROUP_COUNT - 1);
            if (colors[i] < 0)
                continue;
            struct members *own = &got[i][groups[i]];
            assert_int_equal(own->count, 0); /* a group is made once */
            carry_out(colors, keys, ranks, i, own);
        }
    }
    for (unsigned i = 0; i < ranks; i++)
        for (int group = CM_GROUP_WORLD + 1; group < CM_GROUP_COUNT; group++) {
            struct members expected;
            const struct members *own = &got[i][group];
            unsigned size = cm_parallel_group_size(p, model, i, (enum cm_group)group);
            expect(p, model, i, (enum cm_group)group, &expected);
            if (expected.count < 2) {
                assert_int_equal(own->count, 0);
                assert_int_equal(size, 1);
                continue;
            }
            assert_int_equal(size, expected.count);
            if (own->count != expected.count ||
                memcmp(own->ranks, expected.ranks, own->count * sizeof *own->ranks) != 0)
                fail_msg("dp=%u tp=%u pp=%u cp=%u ep=%u vpp=%u tied=%d: rank %u has another %s "
                         "group",
                         p->dp, p->tp, p->pp, p->cp, p->ep, p->vpp, model->tied, i,
                         cm_group_names[group]);
        }
    assert_int_equal(cm_parallel_group_size(p, model, 0, CM_GROUP_WORLD), ranks);
}

static void check_splits(const struct cm_parallel *p)
{
    struct cm_transformer tied = dense;
    tied.tied = true;
    check_splits_of(p, &dense);
    check_splits_of(p, &tied);
}

static void test_splits(void **state)
{
    (void)state;
    each_plan(check_splits);
}

/* No more splits than needed: each is collective over the world. */
static void test_split_counts(void **state)
{
    (void)state;
    static const struct {
        const char *plan;
        unsigned splits;
    } rows[] = {{"dp=1", 0},       {"dp=4", 2}, /* data; experts would be shared by all of them */
                {"tp=2", 1},       {"pp=2", 3}, /* tied; one edge, there and back */
                {"pp=3", 5},                    /* two edges */
                {"pp=4,vpp=2", 5},              /* an even ring */
                {"pp=3,vpp=2", 7},              /* an odd one */
                {"pp=2,vpp=2", 5}, {"dp=2,cp=2,ep=4", 3}}; /* context, data, expert */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cm_parallel p;
        assert_ok(cm_parallel_parse(rows[i].plan, "test", &p));
        assert_int_equal(cm_parallel_splits(&p), rows[i].splits);
    }
}

/* ---- layers ---- */

static void check_layers(const struct cm_parallel *p)
{
    unsigned parts = p->pp * p->vpp;
    for (uint64_t layers = parts; layers < parts + 5u + 3u * p->vpp; layers++) {
        uint64_t next = 0, before = UINT64_MAX, largest = 0, least = UINT64_MAX;
        for (unsigned chunk = 0; chunk < p->vpp; chunk++)
            for (unsigned stage = 0; stage < p->pp; stage++) {
                uint64_t first, end;
                cm_parallel_layers(p, layers, stage, chunk, &first, &end);
                assert_int_equal(first, next);
                assert_true(end > first && end - first <= before);
                before = end - first;
                largest = before > largest ? before : largest;
                least = before < least ? before : least;
                next = end;
            }
        assert_int_equal(next, layers);
        assert_true(largest - least <= 1);
    }
}

static void test_layers(void **state)
{
    (void)state;
    each_plan(check_layers);
}

/* ---- text ---- */

static void check_text(const struct cm_parallel *given)
{
    for (unsigned zero = 0; zero < 4; zero++) {
        struct cm_parallel plan = *given, back;
        struct cm_str text = CM_STR_INIT;
        plan.zero = zero;
        plan.sp = zero % 2;
        cm_parallel_write(&plan, &text);
        assert_ok(cm_parallel_parse(cm_str_text(&text), "test", &back));
        assert_memory_equal(&plan, &back, sizeof plan);
        cm_str_release(&text);
    }
}

static void test_text(void **state)
{
    (void)state;
    each_plan(check_text);
    static const char *const same[][2] = {
        {"dp=2,tp=2,pp=2,cp=1,ep=1,zero=1,sp=1,vpp=1", "dp=2,tp=2,pp=2,zero=1,sp=1"},
        {"tp=1", "dp=1"},
        {" pp = 4 , dp=1", NULL},
        {"vpp=2, pp=2", "pp=2,vpp=2"},
        {"zero=0,cp=3", "cp=3"}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct cm_parallel plan;
        struct cm_str text = CM_STR_INIT;
        if (same[i][1] == NULL) {
            assert_status(cm_parallel_parse(same[i][0], "test", &plan), CM_USAGE, "'pp '");
            continue;
        }
        assert_ok(cm_parallel_parse(same[i][0], "test", &plan));
        cm_parallel_write(&plan, &text);
        assert_string_equal(cm_str_text(&text), same[i][1]);
        cm_str_release(&text);
    }
}

static void test_text_refused(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", "quick.ini:3: \"\" is no part of a plan; write one as dp=2,tp=2"},
        {"dp=2,", "\"\" is no part"},
        {"dp", "\"dp\" is no part"},
        {"dp=2;tp=2", "dp: "},
        {"dp=two", "quick.ini:3: dp: "},
        {"dp=-1", "dp: "},
        {"dp=", "dp: "},
        {"dp=0", "quick.ini:3: dp is 0; from 1 to 1048576"},
        {"zero=4", "zero is 4; from 0 to 3"},
        {"sp=2", "sp is 2; from 0 to 1"},
        {"dp=1e18", "dp is 1000000000000000000; from 1"},
        {"dp=2,dp=2", "a plan has dp twice"},
        {"fsdp=2", "a plan has no 'fsdp'; it has dp, tp, pp, cp, ep, zero, sp and vpp"},
        {"dp=1024,tp=1024,pp=2", "dp * tp * pp * cp is 2097152 ranks; at most 1048576"},
        {"dp=1048576,tp=1048576,pp=1048576,cp=1048576", "ranks; at most"},
        {"dp=1000000000000000000000000000000000000000000000", "is no part"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cm_parallel plan = {.dp = 77};
        assert_status(cm_parallel_parse(rows[i][0], "quick.ini:3", &plan), CM_USAGE, rows[i][1]);
        assert_int_equal(plan.dp, 77);
    }
}

/* ---- against a model ---- */

static void test_accepted(void **state)
{
    (void)state;
    static const char *const plans[] = {
        "dp=1",        "dp=8,zero=3",    "tp=4,sp=1",
        "pp=12",       "pp=3,vpp=4",     "pp=6,vpp=2",
        "cp=3,zero=1", "cp=4,tp=4,sp=1", "dp=2,tp=2,pp=2,cp=2,zero=2,sp=1"};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        struct cm_parallel plan;
        assert_ok(cm_parallel_parse(plans[i], "test", &plan));
        assert_ok(cm_parallel_check(&plan, &dense, 6, 1, "test"));
    }
    struct cm_transformer moe = dense;
    struct cm_parallel plan;
    moe.experts = 6;
    moe.top_k = 2;
    assert_ok(cm_parallel_parse("dp=2,cp=3,ep=6", "test", &plan));
    assert_ok(cm_parallel_check(&plan, &moe, 1, 1, "test"));
}

static void refuse(const char *text, const struct cm_transformer *model, uint64_t micro_batches,
                   uint64_t micro_batch, const char *reason)
{
    struct cm_parallel plan;
    assert_ok(cm_parallel_parse(text, "test", &plan));
    assert_status(cm_parallel_check(&plan, model, micro_batches, micro_batch, "here"), CM_USAGE,
                  "here: ");
    assert_status(cm_parallel_check(&plan, model, micro_batches, micro_batch, "here"), CM_USAGE,
                  reason);
}

static void test_refused(void **state)
{
    (void)state;
    struct cm_transformer moe = dense, odd = dense;
    moe.experts = 6;
    moe.top_k = 2;
    odd.kv_heads = 8;
    odd.ffn = 96 + 8;
    refuse("tp=3", &dense, 1, 1, "tp=3 does not divide 8 heads of dense");
    refuse("tp=8", &dense, 1, 1, "tp=8 does not divide 4 kv heads of dense");
    refuse("tp=2", &odd, 1, 1, "tp=2 does not divide ffn=104 of dense into multiples of 8");
    refuse("sp=1", &dense, 1, 1, "sp=1 without tp");
    refuse("cp=5", &dense, 1, 1, "cp=5 gives each rank two equal chunks of the sequence, but 96");
    refuse("cp=32", &dense, 1, 1, "no multiple of 64");
    refuse("cp=16,tp=4,sp=1", &dense, 1, 1, "a rank's 6 positions into tp=4 parts");
    refuse("pp=13", &dense, 1, 1, "12 layers of dense are fewer than pp * vpp, 13");
    refuse("pp=4,vpp=4", &dense, 4, 1, "fewer than pp * vpp, 16");
    refuse("vpp=2", &dense, 2, 1, "vpp=2 without pp");
    refuse("pp=2,vpp=2", &dense, 3, 1, "micro_batches to be a multiple of pp=2, not 3");
    refuse("zero=1", &dense, 1, 1, "zero=1 shards over dp * cp, which is one rank");
    refuse("zero=3,tp=2", &dense, 1, 1, "zero=3 shards");
    refuse("dp=2,ep=2", &dense, 1, 1, "ep=2, but dense has no experts");
    refuse("ep=2", &moe, 1, 1, "ep=2 does not divide dp * cp, 1");
    refuse("dp=3,ep=2", &moe, 1, 1, "ep=2 does not divide dp * cp, 3");
    refuse("dp=4,ep=4", &moe, 1, 1, "ep=4 does not divide 6 experts of dense");
    refuse("dp=1", &dense, 0, 1, "at least 1");
    refuse("dp=1", &dense, 1, 0, "at least 1");
    refuse("dp=1", &dense, 1, 1 << 26, "a micro-batch of 67108864 sequences of 96 tokens");
    refuse("dp=1", &moe, 1, 1 << 22, "too large; make it smaller and micro_batches larger");

    /* A structure that no text makes. */
    struct cm_parallel none = {.dp = 1, .tp = 0, .pp = 1, .cp = 1, .ep = 1, .vpp = 1};
    assert_status(cm_parallel_check(&none, &dense, 1, 1, "here"), CM_USAGE, "here: tp is 0");
}

static void test_names(void **state)
{
    (void)state;
    for (int i = 0; i < CM_GROUP_COUNT; i++) {
        assert_true(strlen(cm_group_names[i]) > 3);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(cm_group_names[i], cm_group_names[j]);
    }
    assert_null(cm_group_names[CM_GROUP_COUNT]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coordinates),  cmocka_unit_test(test_splits),
        cmocka_unit_test(test_split_counts), cmocka_unit_test(test_layers),
        cmocka_unit_test(test_text),         cmocka_unit_test(test_text_refused),
        cmocka_unit_test(test_accepted),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
