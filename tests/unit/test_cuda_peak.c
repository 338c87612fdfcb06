/*
 * Theoretical peaks of GPUs against what their makers published: units and clock of a part must
 * give the figure of its data sheet, whichever architecture and element type.
 */
#include "test.h"

#include <math.h>

#include "host/device/cuda.h"

struct published {
    const char *name;
    int capability;
    unsigned units;
    double clock_ghz; /* at which the figure holds */
    enum cm_dtype dtype;
    double tera; /* dense, sums in f32 or i32 */
};

/* Figures and clocks: NVIDIA's data sheets and architecture papers of the parts, where nothing else
 * is said. Structured sparsity doubles what they print in large; these are the dense ones. */
static const struct published parts[] = {
    /* V100 SXM2: Volta paper, boost clock 1530 MHz */
    {"Tesla V100-SXM2-32GB", 70, 80, 1.53, CM_F64, 7.8},
    {"Tesla V100-SXM2-32GB", 70, 80, 1.53, CM_F32, 15.7},
    {"Tesla V100-SXM2-32GB", 70, 80, 1.53, CM_F16, 125},
    /* T4: Turing paper, boost clock 1590 MHz */
    {"Tesla T4", 75, 40, 1.59, CM_F16, 65},
    {"Tesla T4", 75, 40, 1.59, CM_I8, 130},
    /* A100: Ampere paper, boost clock 1410 MHz; f64 by its matrix unit */
    {"NVIDIA A100-SXM4-80GB", 80, 108, 1.41, CM_F64, 19.5},
    {"NVIDIA A100-SXM4-80GB", 80, 108, 1.41, CM_F32, 19.5},
    {"NVIDIA A100-SXM4-80GB", 80, 108, 1.41, CM_TF32, 156},
    {"NVIDIA A100-SXM4-80GB", 80, 108, 1.41, CM_BF16, 312},
    {"NVIDIA A100-SXM4-80GB", 80, 108, 1.41, CM_F16, 312},
    {"NVIDIA A100-SXM4-80GB", 80, 108, 1.41, CM_I8, 624},
    /* A10G, half of an A10 in its matrix units: its sheet, boost clock 1710 MHz */
    {"NVIDIA A10G", 86, 80, 1.71, CM_TF32, 35},
    {"NVIDIA A10G", 86, 80, 1.71, CM_BF16, 70},
    {"NVIDIA A10G", 86, 80, 1.71, CM_I8, 140},
    /* A10: its sheet, boost clock 1695 MHz */
    {"NVIDIA A10", 86, 72, 1.695, CM_F32, 31.2},
    {"NVIDIA A10", 86, 72, 1.695, CM_TF32, 62.5},
    {"NVIDIA A10", 86, 72, 1.695, CM_BF16, 125},
    {"NVIDIA A10", 86, 72, 1.695, CM_I8, 250},
    /* RTX 3090: GA102 paper, boost clock 1695 MHz; with f32 sums half of what f16 sums give */
    {"NVIDIA GeForce RTX 3090", 86, 82, 1.695, CM_F32, 35.6},
    {"NVIDIA GeForce RTX 3090", 86, 82, 1.695, CM_F16, 71},
    {"NVIDIA GeForce RTX 3090", 86, 82, 1.695, CM_I8, 284},
    /* L4: its sheet, boost clock 2040 MHz */
    {"NVIDIA L4", 89, 58, 2.04, CM_F32, 30.3},
    {"NVIDIA L4", 89, 58, 2.04, CM_TF32, 60},
    {"NVIDIA L4", 89, 58, 2.04, CM_BF16, 121},
    {"NVIDIA L4", 89, 58, 2.04, CM_F8E4M3, 242.5},
    {"NVIDIA L4", 89, 58, 2.04, CM_I8, 242.5},
    /* L40S: its sheet, boost clock 2520 MHz */
    {"NVIDIA L40S", 89, 142, 2.52, CM_F32, 91.6},
    {"NVIDIA L40S", 89, 142, 2.52, CM_TF32, 183},
    {"NVIDIA L40S", 89, 142, 2.52, CM_BF16, 362},
    {"NVIDIA L40S", 89, 142, 2.52, CM_F8E5M2, 733},
    {"NVIDIA L40S", 89, 142, 2.52, CM_I8, 733},
    /* RTX 4090: Ada paper, boost clock 2520 MHz */
    {"NVIDIA GeForce RTX 4090", 89, 128, 2.52, CM_F64, 1.29},
    {"NVIDIA GeForce RTX 4090", 89, 128, 2.52, CM_F32, 82.6},
    {"NVIDIA GeForce RTX 4090", 89, 128, 2.52, CM_TF32, 82.6},
    {"NVIDIA GeForce RTX 4090", 89, 128, 2.52, CM_F16, 165.2},
    {"NVIDIA GeForce RTX 4090", 89, 128, 2.52, CM_F8E4M3, 330.3},
    {"NVIDIA GeForce RTX 4090", 89, 128, 2.52, CM_I8, 660.6},
    /* H100 SXM, H200, GH200: Hopper paper; matrix units at 1830 MHz, the ordinary ones at 1980 */
    {"NVIDIA H100 80GB HBM3", 90, 132, 1.98, CM_F64, 66.9},
    {"NVIDIA H100 80GB HBM3", 90, 132, 1.98, CM_F32, 66.9},
    {"NVIDIA H100 80GB HBM3", 90, 132, 1.83, CM_TF32, 494.7},
    {"NVIDIA H100 80GB HBM3", 90, 132, 1.83, CM_BF16, 989.4},
    {"NVIDIA H100 80GB HBM3", 90, 132, 1.83, CM_F16, 989.4},
    {"NVIDIA H100 80GB HBM3", 90, 132, 1.83, CM_F8E4M3, 1978.9},
    {"NVIDIA H100 80GB HBM3", 90, 132, 1.83, CM_I8, 1978.9},
    /* H100 PCIe: Hopper paper; matrix units at 1620 MHz, the ordinary ones at 1755 */
    {"NVIDIA H100 PCIe", 90, 114, 1.755, CM_F32, 51.2},
    {"NVIDIA H100 PCIe", 90, 114, 1.62, CM_TF32, 378},
    {"NVIDIA H100 PCIe", 90, 114, 1.62, CM_BF16, 756},
    {"NVIDIA H100 PCIe", 90, 114, 1.62, CM_F8E4M3, 1513},
    /* B200: HGX table; no source names the clock of the matrix units, so it is what bf16 implies */
    {"NVIDIA B200", 100, 148, 1.98, CM_F32, 75},
    {"NVIDIA B200", 100, 148, 1.965, CM_F64, 37},
    {"NVIDIA B200", 100, 148, 1.856, CM_TF32, 1125},
    {"NVIDIA B200", 100, 148, 1.856, CM_BF16, 2250},
    {"NVIDIA B200", 100, 148, 1.856, CM_F8E4M3, 4500},
    {"NVIDIA B200", 100, 148, 1.856, CM_I8, 4500},
    {"NVIDIA B200", 100, 148, 1.856, CM_MXFP8, 4500},
    {"NVIDIA B200", 100, 148, 1.856, CM_NVFP4, 9000},
    /* GB200: the superchip's table, halved; highest clock 2062 MHz, matrix units as above */
    {"NVIDIA GB200", 100, 152, 2.062, CM_F32, 80},
    {"NVIDIA GB200", 100, 152, 2.062, CM_F64, 40},
    {"NVIDIA GB200", 100, 152, 2.008, CM_BF16, 2500},
    {"NVIDIA GB200", 100, 152, 2.008, CM_F8E4M3, 5000},
    {"NVIDIA GB200", 100, 152, 2.008, CM_NVFP4, 10000},
    /* B300: HGX table; int8 by units of Ampere's size. Its f64, 1.2 or 1.25 or 1.3 depending on who
     * rounds, is a 64th of its f32. */
    {"NVIDIA B300 SXM6 AC", 103, 148, 1.98, CM_F32, 75},
    {"NVIDIA B300 SXM6 AC", 103, 148, 1.98, CM_F64, 75.0 / 64},
    {"NVIDIA B300 SXM6 AC", 103, 148, 1.856, CM_BF16, 2250},
    {"NVIDIA B300 SXM6 AC", 103, 148, 1.856, CM_F8E4M3, 4500},
    {"NVIDIA B300 SXM6 AC", 103, 148, 1.98, CM_I8, 150},
    /* RTX 5090: Blackwell paper, boost clock 2407 MHz */
    {"NVIDIA GeForce RTX 5090", 120, 170, 2.407, CM_F32, 104.8},
    {"NVIDIA GeForce RTX 5090", 120, 170, 2.407, CM_TF32, 104.8},
    {"NVIDIA GeForce RTX 5090", 120, 170, 2.407, CM_BF16, 209.5},
    {"NVIDIA GeForce RTX 5090", 120, 170, 2.407, CM_F8E4M3, 419},
    {"NVIDIA GeForce RTX 5090", 120, 170, 2.407, CM_I8, 838},
    {"NVIDIA GeForce RTX 5090", 120, 170, 2.407, CM_NVFP4, 1676},
    /* RTX PRO 6000: its sheet, boost clock 2617 MHz */
    {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 120, 188, 2.617, CM_F32, 126},
    {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 120, 188, 2.617, CM_TF32, 252},
    {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 120, 188, 2.617, CM_BF16, 503.8},
    {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 120, 188, 2.617, CM_F8E4M3, 1007.6},
    {"NVIDIA RTX PRO 6000 Blackwell Server Edition", 120, 188, 2.617, CM_NVFP4, 2015},
};

static struct cm_peak peak_of(const char *name, int capability, unsigned units, double clock_ghz,
                              enum cm_dtype dtype)
{
    struct cm_cuda_gpu gpu = {name, capability, units, clock_ghz * 1e9};
    struct cm_peak peak;
    memset(&peak, 0xff, sizeof peak);
    cm_cuda_peak(&gpu, dtype, &peak);
    assert_non_null(memchr(peak.source, '\0', sizeof peak.source));
    assert_false(peak.measured);
    return peak;
}

static void peaks_are_the_published_ones(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const struct published *part = &parts[i];
        double found =
            peak_of(part->name, part->capability, part->units, part->clock_ghz, part->dtype).value *
            1e-12;
        if (!(fabs(found - part->tera) <= 0.03 * part->tera))
            fail_msg("%s %s: %.4g T, published are %.4g T", part->name, cm_dtype_name(part->dtype),
                     found, part->tera);
    }
}

static void a_peak_says_where_it_comes_from(void **state)
{
    (void)state;
    assert_string_equal(peak_of("NVIDIA A100-SXM4-80GB", 80, 108, 1.41, CM_BF16).source,
                        "108 SMs x 2048 FLOP/clock x 1.41 GHz, the highest clock");
    /* Where a data sheet is read beside it, the other clock is named. */
    assert_string_equal(
        peak_of("NVIDIA H200", 90, 132, 1.98, CM_BF16).source,
        "132 SMs x 4096 FLOP/clock x 1.98 GHz, the highest clock (data sheets: at 1.83)");
    assert_string_equal(peak_of("NVIDIA H200", 90, 132, 1.98, CM_F32).source,
                        "132 SMs x 256 FLOP/clock x 1.98 GHz, the highest clock");
    assert_string_equal(peak_of("NVIDIA H100 PCIe", 90, 114, 1.755, CM_BF16).source,
                        "114 SMs x 4096 FLOP/clock x 1.755 GHz, the highest clock");
}

static void what_is_not_known_has_no_value(void **state)
{
    (void)state;
    struct {
        struct cm_peak peak;
        const char *source;
    } rows[] = {
        {peak_of("NVIDIA X1", 201, 100, 2, CM_BF16), "no peak known for sm_201"},
        {peak_of("NVIDIA A100", 80, 108, 1.41, CM_F8E4M3),
         "sm_80 has no unit for products of f8e4m3"},
        {peak_of("Tesla V100", 70, 80, 1.53, CM_BF16), "sm_70 has no unit for products of bf16"},
        {peak_of("NVIDIA A100", 80, 108, 1.41, CM_I32), "sm_80 has no unit for products of i32"},
        {peak_of("NVIDIA H200", 90, 132, 1.98, CM_NVFP4),
         "sm_90 has no unit for products of nvfp4"},
        {peak_of("NVIDIA B300", 103, 148, 1.98, CM_NVFP4),
         "no peak known for nvfp4 on sm_103: what is published does not agree"},
        {peak_of("NVIDIA A100", 80, 108, 0, CM_BF16), "not known: CUDA does not tell the clock"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_true(rows[i].peak.value == 0);
        assert_string_equal(rows[i].peak.source, rows[i].source);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(peaks_are_the_published_ones),
        cmocka_unit_test(a_peak_says_where_it_comes_from),
        cmocka_unit_test(what_is_not_known_has_no_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
