/*
 * roofline.h: the plainest cost model: an operation takes as long as its FLOPs or its bytes at the
 * rates of one record, whichever is longer, and a message its bytes and its hops. For the virtual
 * clock where no better model is at hand.
 */
#ifndef CLUSTERMARK_ROOFLINE_H
#define CLUSTERMARK_ROOFLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "clustermark/model.h"
#include "clustermark/option.h"
#include "clustermark/schedule.h"
#include "clustermark/status.h"

/* What was measured of a machine, in the place of single rates. Each rank's, with all at work. */
#define CM_CURVE_MAX    48
#define CM_PRODUCTS_MAX 256
struct cm_curve { /* ascending sizes; between them straight on logarithms, beyond them as at the end
                   */
    double size[CM_CURVE_MAX], value[CM_CURVE_MAX];
    unsigned count;
};
/* Keeps it ascending; of two values for a size the larger. Sizes beyond CM_CURVE_MAX are dropped.
 */
void cm_curve_add(struct cm_curve *curve, double size, double value);
double cm_curve_at(const struct cm_curve *curve, double size); /* 0 for an empty one */

struct cm_measured_product {
    enum cm_dtype dtype;
    bool trans_a, trans_b;
    double m, n, k, rate; /* FLOP/s */
};
struct cm_measured_rates {
    struct cm_measured_product products[CM_PRODUCTS_MAX];
    unsigned product_count;
    struct cm_curve memory;                     /* bytes moved: B/s */
    struct cm_curve busbw[CM_COLLECTIVE_COUNT]; /* whole buffer, bytes: B/s, over all ranks */
    double pair_rate, pair_latency_s;           /* between two ranks; 0: not measured */
    /* What a class of operations takes in a step, over what these rates say; 0: not known, as 1. */
    double factor[CM_CLASS_COUNT];
};

/* Many equal devices in domains of fast links, joined by a network with a port for each device. */
struct cm_machine {
    char name[48];
    double bf16_rate, f32_rate; /* FLOP/s, dense products */
    double flop_efficiency;     /* share of it that products and attention reach */
    double memory_rate, memory_efficiency;
    double launch_s; /* of each operation */
    uint64_t memory_bytes;
    uint64_t domain; /* devices */
    /* busbw as cm_bus_factor defines it, and a hop */
    double domain_rate, domain_latency_s;
    double network_rate, network_latency_s; /* of one port */
    double host_spread; /* standard deviation of what domains take, over their mean */
    struct cm_measured_rates measured; /* empty: none */
};

/* Of struct cm_machine: drives the INI files and help. */
extern const struct cm_option cm_machine_options[];

/* From configs/machines/<name>.ini, section [machine], or the file of that path. CM_USAGE with file
 * and line. */
enum cm_status cm_machine_load(const char *name, struct cm_machine *machine);

/* A cm_op_time_fn (virtual_clock.h); `machine` is a struct cm_machine.
 *
 *   launch + max(flops / (rate * efficiency), bytes / (memory_rate * memory_efficiency))
 *   launch + hops + bytes * bus factor / bandwidth
 *
 * Ranks fill domains in order of their numbers. A group within a domain has domain_rate; one that
 * has k members in each domain k ports, at most domain_rate. Hops are those of trees: log2 of the
 * members in a domain, and of the domains; an all-reduce goes there and back.
 *
 * What was measured goes before that: of products the rates of the nearest shapes (logarithms of m,
 * n, k, and who lies transposed; means weighted by the inverse square of the distance), of kernels
 * the memory's curve at their bytes, of collectives within a domain busbw at theirs, each times its
 * class's factor. */
double cm_roofline_time(const void *machine, const struct cm_step *step, unsigned rank,
                        const struct cm_op *op);

#endif
