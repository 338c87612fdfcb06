/*
 * product.h: is C = op(A) op(B)? A check of every element that costs far less than the product.
 */
#ifndef CLUSTERMARK_PRODUCT_H
#define CLUSTERMARK_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/dtype.h"
#include "clustermark/status.h"

/* Row-major and dense, as in ops.h: A is stored k x m when trans_a, B n x k when trans_b; with
 * their scales (blocks.h) where the type is one of blocks. */
struct cm_product {
    enum cm_dtype dtype;     /* of A and B */
    enum cm_dtype out_dtype; /* of C */
    uint64_t m, n, k;
    bool trans_a, trans_b;
};

struct cm_product_verdict {
    uint64_t checked; /* elements of C that the check covered: m * n */
    uint64_t
        mismatches;   /* groups of elements that cannot be right; at least one is wrong in each */
    double worst;     /* largest error in units of its tolerance; INFINITY for NAN */
    char detail[160]; /* of the first mismatch: which element, what it is and should be */
};

/* What rounding may do to one element of C whose inputs are random normal with deviation 1: `value`
 * is the element. The sum over k is taken to be kept in f32 (f64 for F64), and by the matrix units
 * of 8-bit floats in less; sums in I32 are exact, whatever the inputs. */
double cm_product_tolerance(const struct cm_product *product, double value);

/* A, B and C are in host memory; A and B random normal with deviation 1. `seed` must not be known
 * to whoever computed C. About `budget` multiply-adds are spent (at least m * k): the more, the
 * smaller an error of one element is found. Verdicts add up: *verdict starts zeroed. */
enum cm_status cm_product_check(const struct cm_product *product, const void *a, const void *b,
                                const void *c, uint64_t seed, double budget,
                                struct cm_product_verdict *verdict);

#endif
