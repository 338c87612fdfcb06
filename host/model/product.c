/*
 * Freivalds' check of a matrix product, in double precision.
 *
 * The columns of C are cut into groups of `width`, and each column gets a random sign x_j = +-1.
 * For a row i and a group, sum_j x_j C_ij must equal sum_l A_il (sum_j x_j B_lj). Preparing the
 * inner sums once for all rows leaves m * k * n / width multiply-adds instead of m * n * k. Every
 * element enters exactly one sum with weight 1 or -1, so a single wrong element shows in full.
 *
 * Tolerance. Let e_ij be the rounding error of an element and |e_ij| <= h_ij. Since the signs are
 * independent of the errors, sum_j x_j e_ij is a Rademacher sum, and Hoeffding's inequality gives
 * P(|sum| > 8 sqrt(sum h^2)) <= 2 exp(-32) = 3e-14: for the 1e5 groups of a large product a false
 * alarm is as good as impossible, whatever structure the errors have. One wrong element is found
 * when it is off by more than twice that.
 *
 * h_ij = u |C_ij|, the rounding to C's type, + 8 u' k / sqrt(2), the accumulation: the partial sum
 * after l random products is of size sqrt(l), each step rounds it by at most u' sqrt(l), and steps
 * err independently: u' sqrt(1 + 2 + ... + k) bounds the deviation; eight times that covers 1e10
 * elements. tf32 rounds each factor by 2^-11 as well: 8 * 2^-10 sqrt(k). Matrix units for narrow
 * types cut off instead of rounding when a sum goes back to f32, every four products or more, which
 * errs to one side: 2^-23 sqrt(l) for l = 4, 8 ... k makes 2^-23 k^1.5 / 6. Those for 8-bit floats
 * keep only some 13 bits below the largest of the products and the sum: 8 * 2^-13 k / 2. What those
 * for blocks keep is not published; they are taken for no better.
 *
 * Sums of integers are exact.
 */
#include "clustermark/product.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clustermark/blocks.h"
#include "clustermark/memory.h"

enum {
    LANES = 8,     /* groups of columns handled together */
    TILE_ROWS = 64 /* rows of A converted together */
};
#define MARGIN 8.0
/* Doubles that the prepared sums may take: 256 MiB. */
#define SUMS_MAX 0x1p25

struct check {
    const struct cm_product *product;
    const char *a, *b, *c;
    uint64_t width, groups, blocks; /* columns of a group, groups, LANES of them */
    double *signs;                  /* [j] */
    double *sums;                   /* [block][l][lane] */
    double *tile;                   /* [row][l] of op(A) */
    double *line;                   /* rows being converted */
    struct cm_product_verdict *verdict;
};

static double random_sign(uint64_t seed, uint64_t column)
{
    uint64_t z = seed + column * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z >> 63 ? 1 : -1;
}

double cm_product_tolerance(const struct cm_product *product, double value)
{
    double k = (double)product->k;
    if (product->out_dtype == CM_I32)
        return 0.5;
    double unit = product->out_dtype == CM_F64 ? 0x1p-53 : 0x1p-24;
    double sum = MARGIN * unit * k * sqrt(0.5);
    if (product->dtype == CM_TF32)
        sum += MARGIN * 0x1p-10 * sqrt(k);
    if (cm_dtype_bits(product->dtype) <= 16 || product->dtype == CM_TF32)
        sum += 0x1p-23 * k * sqrt(k) / 6;
    if (product->dtype == CM_F8E4M3 || product->dtype == CM_F8E5M2 ||
        cm_block_size(product->dtype) > 0)
        sum += MARGIN * 0x1p-13 * k / 2;
    return sum + cm_dtype_step(product->out_dtype) / 2 * fabs(value);
}

/* `count` elements of row `row` of a stored matrix, from column `first`. */
static void load_row(const struct cm_block_matrix *stored, const char *matrix, uint64_t row,
                     uint64_t first, uint64_t count, double *values)
{
    size_t size = cm_dtype_size(stored->dtype);
    if (cm_block_size(stored->dtype) > 0)
        cm_block_load(stored, matrix, row, first, count, values);
    else
        cm_dtype_load_all(stored->dtype, matrix + (row * stored->columns + first) * size, count,
                          values);
}

static struct cm_block_matrix stored_a(const struct cm_product *p)
{
    return (struct cm_block_matrix){p->dtype, p->trans_a ? p->k : p->m, p->trans_a ? p->m : p->k};
}

static struct cm_block_matrix stored_b(const struct cm_product *p)
{
    return (struct cm_block_matrix){p->dtype, p->trans_b ? p->n : p->k, p->trans_b ? p->k : p->n};
}

/* sums[block][l][lane] = sum over the group's columns of x_j B_lj. */
static void prepare_sums(struct check *check)
{
    const struct cm_product *p = check->product;
    const struct cm_block_matrix b = stored_b(p);
    for (uint64_t l = 0; !p->trans_b && l < p->k; l++) {
        load_row(&b, check->b, l, 0, p->n, check->line);
        for (uint64_t group = 0; group < check->groups; group++) {
            uint64_t first = group * check->width;
            uint64_t end = first + check->width < p->n ? first + check->width : p->n;
            double sum = 0;
            for (uint64_t j = first; j < end; j++)
                sum += check->signs[j] * check->line[j];
            check->sums[(group / LANES * p->k + l) * LANES + group % LANES] = sum;
        }
    }
    for (uint64_t j = 0; p->trans_b && j < p->n; j++) {
        uint64_t group = j / check->width;
        double *sums = check->sums + group / LANES * p->k * LANES + group % LANES;
        load_row(&b, check->b, j, 0, p->k, check->line);
        for (uint64_t l = 0; l < p->k; l++)
            sums[l * LANES] += check->signs[j] * check->line[l];
    }
}

static void load_tile(struct check *check, uint64_t first, uint64_t rows)
{
    const struct cm_product *p = check->product;
    const struct cm_block_matrix a = stored_a(p);
    for (uint64_t r = 0; !p->trans_a && r < rows; r++)
        load_row(&a, check->a, first + r, 0, p->k, check->tile + r * p->k);
    for (uint64_t l = 0; p->trans_a && l < p->k; l++) {
        double part[TILE_ROWS];
        load_row(&a, check->a, l, first, rows, part);
        for (uint64_t r = 0; r < rows; r++)
            check->tile[r * p->k + l] = part[r];
    }
}

/* Two rows of op(A) times one block of sums. The fixed sizes let the compiler keep it in vector
 * registers. */
static void multiply(const double *restrict row0, const double *restrict row1,
                     const double *restrict sums, uint64_t k, double *restrict out)
{
    double acc0[LANES] = {0}, acc1[LANES] = {0};
    for (uint64_t l = 0; l < k; l++) {
        for (int i = 0; i < LANES; i++) {
            acc0[i] += row0[l] * sums[l * LANES + (uint64_t)i];
            acc1[i] += row1[l] * sums[l * LANES + (uint64_t)i];
        }
    }
    memcpy(out, acc0, sizeof acc0);
    memcpy(out + LANES, acc1, sizeof acc1);
}

/* Which element of a group is wrong: each by its own dot product with row `a_row` of op(A). */
static void describe(struct check *check, const double *a_row, const double *c_row, uint64_t row,
                     uint64_t first, uint64_t count)
{
    const struct cm_product *p = check->product;
    const struct cm_block_matrix b = stored_b(p);
    double worst = -1;
    for (uint64_t j = first; j < first + count && worst < (double)INFINITY; j++) {
        double expected = 0;
        for (uint64_t l = 0; l < p->k; l++) {
            double factor;
            load_row(&b, check->b, p->trans_b ? j : l, p->trans_b ? l : j, 1, &factor);
            expected += a_row[l] * factor;
        }
        double error = fabs(c_row[j] - expected) / cm_product_tolerance(p, expected);
        if (isnan(error))
            error = (double)INFINITY;
        if (error <= worst)
            continue;
        worst = error;
        snprintf(check->verdict->detail, sizeof check->verdict->detail,
                 "C[%llu][%llu] is %.9g, should be %.9g", (unsigned long long)row,
                 (unsigned long long)j, c_row[j], expected);
    }
}

/* The groups of one block in one row of C against what they should sum to. */
static void compare(struct check *check, const double *a_row, const double *c_row, uint64_t row,
                    uint64_t block, const double *expected)
{
    const struct cm_product *p = check->product;
    struct cm_product_verdict *verdict = check->verdict;
    double noise = cm_product_tolerance(p, 0), unit = cm_dtype_step(p->out_dtype) / 2;
    for (uint64_t lane = 0; lane < LANES && block * LANES + lane < check->groups; lane++) {
        uint64_t first = (block * LANES + lane) * check->width;
        uint64_t count = p->n - first < check->width ? p->n - first : check->width;
        double sum = 0, squares = 0;
        for (uint64_t j = first; j < first + count; j++) {
            double bound = noise + unit * fabs(c_row[j]);
            sum += check->signs[j] * c_row[j];
            squares += bound * bound;
        }
        /* A single element needs no margin for its company. */
        double tolerance = (count == 1 ? 1 : MARGIN) * sqrt(squares);
        if (p->out_dtype == CM_I32)
            tolerance = noise;
        double error = fabs(sum - expected[lane]) / tolerance;
        if (!isfinite(squares) || isnan(error))
            error = (double)INFINITY;
        verdict->checked += count;
        if (error > verdict->worst)
            verdict->worst = error;
        if (error > 1 && verdict->mismatches++ == 0)
            describe(check, a_row, c_row, row, first, count);
    }
}

static void check_rows(struct check *check, uint64_t first, uint64_t rows)
{
    const struct cm_product *p = check->product;
    const struct cm_block_matrix c = {p->out_dtype, p->m, p->n};
    load_tile(check, first, rows);
    for (uint64_t r = 0; r < rows; r += 2) {
        bool pair = r + 1 < rows;
        const double *row0 = check->tile + r * p->k, *row1 = pair ? row0 + p->k : row0;
        double *c0 = check->line, *c1 = check->line + p->n;
        load_row(&c, check->c, first + r, 0, p->n, c0);
        if (pair)
            load_row(&c, check->c, first + r + 1, 0, p->n, c1);
        for (uint64_t block = 0; block < check->blocks; block++) {
            double expected[2 * LANES];
            multiply(row0, row1, check->sums + block * p->k * LANES, p->k, expected);
            compare(check, row0, c0, first + r, block, expected);
            if (pair)
                compare(check, row1, c1, first + r + 1, block, expected + LANES);
        }
    }
}

/* The narrowest groups, as a power of two, that time and memory allow. */
static uint64_t choose_width(const struct cm_product *p, double budget)
{
    double sums = (double)p->k * (double)p->n;
    uint64_t width = 1;
    while (width < p->n &&
           (sums / (double)width * (double)p->m > budget || sums / (double)width > SUMS_MAX))
        width *= 2;
    return width;
}

enum cm_status cm_product_check(const struct cm_product *product, const void *a, const void *b,
                                const void *c, uint64_t seed, double budget,
                                struct cm_product_verdict *verdict)
{
    struct check check = {.product = product, .a = a, .b = b, .c = c, .verdict = verdict};
    check.width = choose_width(product, budget);
    check.groups = (product->n + check.width - 1) / check.width;
    check.blocks = (check.groups + LANES - 1) / LANES;
    uint64_t line = 2 * product->n > product->k ? 2 * product->n : product->k;
    enum cm_status status = CM_NO_MEMORY;
    check.signs = cm_alloc(product->n, sizeof *check.signs);
    check.sums = cm_alloc(check.blocks * product->k, LANES * sizeof *check.sums);
    check.tile = cm_alloc(product->k, TILE_ROWS * sizeof *check.tile);
    check.line = cm_alloc(line, sizeof *check.line);
    if (!check.signs || !check.sums || !check.tile || !check.line)
        goto free_all;
    for (uint64_t j = 0; j < product->n; j++)
        check.signs[j] = random_sign(seed, j);
    prepare_sums(&check);
    for (uint64_t row = 0; row < product->m; row += TILE_ROWS)
        check_rows(&check, row, product->m - row < TILE_ROWS ? product->m - row : TILE_ROWS);
    status = CM_OK;
free_all:
    cm_free(check.line);
    cm_free(check.tile);
    cm_free(check.sums);
    cm_free(check.signs);
    return status;
}
