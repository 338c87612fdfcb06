/* Transformers: published totals, FLOPs of both conventions, files that are refused. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clustermark/transformer.h"

static const char *const models[] = {"gpt2-124m",  "gpt3-175b",   "llama3-8b",
                                     "llama3-70b", "llama3-405b", "mixtral-8x7b",
                                     "tiny",       "tiny-gpt",    "tiny-moe"};

static void load(const char *name, struct cm_transformer *model)
{
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s.ini", CM_TEST_CONFIGS, name);
    assert_ok(cm_transformer_load(path, 0, model));
}

/* ---- totals ---- */

static void test_totals(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double total, active;
    } rows[] = {
        {"llama3-8b", 8030261248, 8030261248},
        {"llama3-70b", 70553706496, 70553706496},
        {"llama3-405b", 405853388800, 405853388800},
        /* The published 46.7 and 12.9 billion. */
        {"mixtral-8x7b", 46702792704, 12879925248},
        /* 124,439,808 are published. The biases of the linear layers, which ours do not have, are
         * 12 * (3 * 768 + 768 + 4 * 768 + 768) of them. */
        {"gpt2-124m", 124439808 - 12 * 9 * 768, 124439808 - 12 * 9 * 768},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cm_transformer model;
        struct cm_parameter_counts counts;
        load(rows[i].name, &model);
        cm_transformer_count(&model, &counts);
        assert_near(counts.total, rows[i].total, 0);
        assert_near(counts.active, rows[i].active, 0);
        assert_near(counts.total,
                    counts.embedding + (double)model.layers * counts.layer + counts.head, 0);
    }
    struct cm_transformer gpt3;
    struct cm_parameter_counts counts;
    load("gpt3-175b", &gpt3);
    cm_transformer_count(&gpt3, &counts);
    assert_near(counts.total, 175e9, 0.005); /* "175.0B" in the paper, with its biases */
}

/* Each part by hand, where every number is another prime times what has to divide. */
static void test_parts(void **state)
{
    (void)state;
    struct cm_transformer model = {.layers = 3,
                                   .hidden = 8 * 5,
                                   .heads = 14,
                                   .kv_heads = 7,
                                   .head_size = 8 * 11,
                                   .ffn = 8 * 13,
                                   .vocabulary = 1009,
                                   .sequence = 17,
                                   .tied = false,
                                   .norm = CM_NORM_RMS,
                                   .activation = CM_ACTIVATION_SWIGLU,
                                   .positions = CM_POSITION_ROPE};
    struct cm_parameter_counts counts;
    const double h = 40, attention = h * 88 * (14 + 2 * 7) + 14 * 88 * h, ffn = 3 * h * 104;
    cm_transformer_count(&model, &counts);
    assert_near(counts.embedding, 1009 * h, 0);
    assert_near(counts.layer, 2 * h + attention + ffn, 0);
    assert_near(counts.head, h + 1009 * h, 0);
    assert_near(counts.active, counts.total, 0);
    assert_near(counts.matmul, 3 * (attention + ffn) + 1009 * h, 0);

    model.tied = true;
    model.norm = CM_NORM_LAYER;
    model.activation = CM_ACTIVATION_GELU;
    model.positions = CM_POSITION_LEARNED;
    cm_transformer_count(&model, &counts);
    assert_near(counts.embedding, 1009 * h + 17 * h, 0);
    assert_near(counts.layer, 4 * h + attention + 2 * h * 104, 0);
    assert_near(counts.head, 2 * h, 0);
    assert_near(counts.matmul, 3 * (attention + 2 * h * 104) + 1009 * h, 0);

    model.experts = 19;
    model.top_k = 2;
    cm_transformer_count(&model, &counts);
    const double all = 4 * h + attention + 19 * h + 19 * 2 * h * 104;
    assert_near(counts.layer, all, 0);
    assert_near(counts.total - counts.active, 3 * 17 * 2 * h * 104, 0);
    assert_near(counts.matmul, 3 * (attention + 19 * h + 2 * 2 * h * 104) + 1009 * h, 0);
}

static void test_flops(void **state)
{
    (void)state;
    struct cm_transformer model;
    struct cm_token_flops flops;
    load("llama3-8b", &model);
    assert_int_equal(model.sequence, 8192);
    cm_transformer_flops(&model, &flops);
    assert_near(flops.full, 57.9e9, 0.001);
    assert_near(flops.causal, 51.5e9, 0.001);
    /* The formula of PaLM's kind: 12 L h^2 (1 + kv/heads + s/h) + 18 L ffn h + 6 V h. */
    const double h = 4096, layers = 32;
    assert_near(flops.full,
                12 * layers * h * h * (1 + 0.25 + 8192 / h) + 18 * layers * 14336 * h +
                    6 * 128256 * h,
                1e-12);
    assert_near(flops.full - flops.causal, 6 * layers * h * 8192, 1e-12);
    assert_near(flops.matmul + flops.attention_full, flops.full, 1e-15);
}

static void test_slices(void **state)
{
    (void)state;
    struct cm_transformer whole, part;
    struct cm_parameter_counts all, some;
    char label[80];
    load("llama3-8b", &whole);
    assert_string_equal(whole.name, "llama3-8b");
    assert_int_equal(whole.real_layers, 32);
    cm_transformer_label(&whole, label, sizeof label);
    assert_string_equal(label, "llama3-8b");
    assert_ok(cm_transformer_load(CM_TEST_CONFIGS "/models/llama3-8b.ini", 4, &part));
    assert_int_equal(part.layers, 4);
    assert_int_equal(part.real_layers, 32);
    cm_transformer_label(&part, label, sizeof label);
    assert_string_equal(label, "llama3-8b, 4 of 32 layers");
    cm_transformer_count(&whole, &all);
    cm_transformer_count(&part, &some);
    assert_near(all.total - some.total, 28 * all.layer, 0);
    part.name[0] = 'x';
    assert_status(cm_transformer_load(CM_TEST_CONFIGS "/models/llama3-8b.ini", 33, &part), CM_USAGE,
                  "models/llama3-8b.ini: llama3-8b has 32 layers; 33 of them were asked for");
    assert_int_equal(part.name[0], 'x');
}

static void test_padding(void **state)
{
    (void)state;
    struct cm_transformer model = {.vocabulary = 50257};
    assert_int_equal(cm_padded_vocabulary(&model, 1), 50304);
    assert_int_equal(cm_padded_vocabulary(&model, 2), 50432);
    model.vocabulary = 128256;
    assert_int_equal(cm_padded_vocabulary(&model, 1), 128256);
    assert_int_equal(cm_padded_vocabulary(&model, 4), 128512);
}

/* ---- files ---- */

/* By name as well: all have their folder in common. */
static void test_all_load(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct cm_transformer by_path, by_name;
        load(models[i], &by_path);
        assert_ok(cm_transformer_load(models[i], 0, &by_name));
        assert_memory_equal(&by_path, &by_name, sizeof by_name);
        assert_ok(cm_transformer_validate(&by_name, "test"));
    }
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

#define SOUND "layers = 2\nhidden = 64\nheads = 4\nffn = 128\nvocabulary = 256\nsequence = 64\n"

static void test_defaults(void **state)
{
    (void)state;
    char folder[] = "/tmp/cm-model-XXXXXX", path[64];
    struct cm_transformer model;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/mine.ini", folder);
    write_file(path, "[model]\n" SOUND);
    assert_ok(cm_transformer_load(path, 0, &model));
    assert_string_equal(model.name, "mine");
    assert_int_equal(model.kv_heads, 4);
    assert_int_equal(model.head_size, 16);
    assert_int_equal(model.norm, CM_NORM_RMS);
    assert_int_equal(model.activation, CM_ACTIVATION_SWIGLU);
    assert_int_equal(model.positions, CM_POSITION_ROPE);
    assert_false(model.tied);
    assert_near(model.rope_base, 10000, 0);
    assert_near(model.norm_epsilon, 1e-5, 0);
    unlink(path);
    rmdir(folder);
}

static void test_files_refused(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"[model]\n" SOUND "hiden = 3\n",
         "bad.ini:8: a model has no 'hiden'; did you mean 'hidden'?"},
        {"[model]\n" SOUND "colour = 3\n", "bad.ini:8: a model has no 'colour'"},
        {"[model]\nlayers = 2\nhidden = 64\n", "bad.ini:1: heads is missing or 0"},
        {"[model]\nlayers = 0\n", "bad.ini:2: layers is missing or 0"},
        {"[model]\nlayers = two\n", "bad.ini:2: layers: "},
        {"[model]\nlayers = 1,2\n", "bad.ini:2: layers: "},
        {"[model]\nhead_size = 264\n", "bad.ini:2: head_size: 264 is outside 0 to 256"},
        {"[model]\nnorm = batch\n", "bad.ini:2: norm: \"batch\" is none of rms, layer"},
        {"[model]\n" SOUND "kv_heads = 3\n", "bad.ini:8: 3 kv_heads do not divide 4 heads"},
        {"[model]\n" SOUND "head_size = 12\n", "bad.ini:8: head_size is 12, no multiple of 8"},
        {"[model]\nlayers = 2\nhidden = 64\nheads = 3\n",
         "bad.ini:4: 3 heads do not divide hidden, 64; give head_size"},
        {"[model]\nhidden = 60\nlayers = 2\nheads = 4\nhead_size = 8\nffn = 128\n"
         "vocabulary = 256\nsequence = 64\n",
         "bad.ini:2: hidden is 60, no multiple of 8"},
        {"[model]\n" SOUND "top_k = 2\n", "bad.ini:8: top_k without experts"},
        {"[model]\n" SOUND "capacity_factor = 2\n", "bad.ini:8: capacity_factor without experts"},
        {"[model]\n" SOUND "experts = 4\n", "bad.ini:8: experts without top_k"},
        {"[model]\n" SOUND "experts = 4\ntop_k = 5\n", "bad.ini:9: top_k is 5 of 4 experts"},
        {"[model]\n" SOUND "experts = 300\n", "bad.ini:8: experts: 300 is outside 0 to 256"},
        {"[model]\n" SOUND "norm_epsilon = 0\n", "bad.ini:8: norm_epsilon: 0 is outside"},
        {"[modell]\n" SOUND, "bad.ini:1: section [modell] in a model's file; only [model] is read"},
        {"[model]\n" SOUND "[gemm]\nm = 1\n", "bad.ini:8: section [gemm]"},
        {"[global]\nlayers = 2\n[model]\n" SOUND, "bad.ini:2: a model has no [global]"},
        {"[global]\nlayers = 2\n", "bad.ini: no section"},
        {"", "bad.ini: no section"},
    };
    char folder[] = "/tmp/cm-model-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/bad.ini", folder);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cm_transformer model = {.layers = 77};
        write_file(path, rows[i][0]);
        assert_status(cm_transformer_load(path, 0, &model), CM_USAGE, rows[i][1]);
        assert_int_equal(model.layers, 77);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/a b.ini", folder);
    write_file(path, "[model]\n" SOUND);
    struct cm_transformer model;
    assert_status(cm_transformer_load(path, 0, &model), CM_USAGE, "letters, digits and marks");
    unlink(path);
    assert_status(cm_transformer_load(path, 0, &model), CM_USAGE, "a b.ini");
    assert_status(cm_transformer_load("no-such-model", 0, &model), CM_USAGE,
                  "no model 'no-such-model': not a file, not in ./configs/models");
    rmdir(folder);
}

/* What no file can say, but a program. */
static void test_numbers_refused(void **state)
{
    (void)state;
    struct cm_transformer sound, model;
    load("tiny-moe", &sound);
#define REFUSED(change, reason)                                                                    \
    do {                                                                                           \
        model = sound;                                                                             \
        change;                                                                                    \
        assert_status(cm_transformer_validate(&model, "here"), CM_USAGE, "here: " reason);         \
    } while (0)
    REFUSED(model.kv_heads = 0, "kv_heads is missing or 0");
    REFUSED(model.head_size = 512, "head_size is 512; at most 256");
    REFUSED(model.vocabulary = UINT64_MAX, "vocabulary is 18446744073709551615; at most");
    REFUSED(model.experts = 257, "experts is 257; at most 256");
    REFUSED((model.experts = 16, model.top_k = 9), "top_k is 9; at most 8");
    REFUSED(model.capacity_factor = (double)NAN, "capacity_factor is nan");
    REFUSED(model.capacity_factor = -1, "capacity_factor is -1");
    REFUSED(model.rope_base = 0, "rope_base is 0");
    REFUSED(model.norm_epsilon = 0, "norm_epsilon is 0");
    REFUSED(model.ffn = 100, "ffn is 100, no multiple of 8");
    REFUSED(model.norm = 2, "norm is none");
    REFUSED(model.activation = -1, "activation is none");
    REFUSED(model.positions = 9, "positions is none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_totals),          cmocka_unit_test(test_parts),
        cmocka_unit_test(test_flops),           cmocka_unit_test(test_slices),
        cmocka_unit_test(test_padding),         cmocka_unit_test(test_all_load),
        cmocka_unit_test(test_defaults),        cmocka_unit_test(test_files_refused),
        cmocka_unit_test(test_numbers_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
