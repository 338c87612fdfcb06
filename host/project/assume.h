/*
 * assume.h: what is assumed of a cluster beside its machines: failures, power, money. Each with a
 * range and its source, which are printed beside what rests on it.
 */
#ifndef HOST_PROJECT_ASSUME_H
#define HOST_PROJECT_ASSUME_H

#include <stdbool.h>

#include "clustermark/option.h"

/* X(name, value, P10, P90, least, unit, source): a price of 0 is one that is not known.
 * The source of a mean of rates is the geometric mean. */
#define CM_ASSUMPTIONS(X)                                                                          \
    X(mtbf_gpu_days, 2051, 1231, 3419, 0, "GPU-days between failures of one GPU",                  \
      "mean of RSC-1 and RSC-2 (arXiv 2410.21680), 6.50 and 2.34 failures per 1000 node-days; "    \
      "Llama 3's (2407.21783) were 3.79")                                                          \
    X(blast_gpus, 8, 8, 8, 0, "GPUs that a failure takes out of service",                          \
      "a node of 8 is repaired as a whole")                                                        \
    X(repair_hours, 12, 2, 24, 0, "hours until they are back",                                     \
      "assumed; third parties tell of 1 to 4 for a tray and 8 to 24 for a backplane")              \
    X(restart_s, 600, 300, 900, 0, "s that a failure stops a job: found, replaced, running",       \
      "FT-HSDP (arXiv 2602.00277): 10 minutes; MegaScale (NSDI'24): found in under 10; range "     \
      "assumed")                                                                                   \
    X(stall_s, 180, 120, 300, 0, "s that it stops all, where only a replica restarts",             \
      "FT-HSDP (arXiv 2602.00277): 3 minutes; range assumed")                                      \
    X(replica_gpus, 8192, 4096, 16384, 1, "GPUs of a replica that restarts alone",                 \
      "assumed; with it the formula gives FT-HSDP's 80 %")                                         \
    X(checkpoint_s, 2, 0.5, 10, 0, "s that a checkpoint stops a job",                              \
      "assumed: state copied to host memory, written while the job runs")                          \
    X(node_ratio, 1.234, 1.1, 1.384, 0,                                                            \
      "mains power of a GPU's share of its node, over the GPU's",                                  \
      "mean of Patterson (arXiv 2104.10350), 330 W of a 300 W V100, and Newkirk (2506.14551), "    \
      "76 % of 10.2 kW for 8 x 700 W")                                                             \
    X(network_ratio, 0.136, 0.05, 0.2, 0, "power of switches and optics, over the nodes'",         \
      "MLPerf v4.0 power run: 59.6 kW estimated for 64 nodes of 6.85; range assumed")              \
    X(pue, 1.15, 1.08, 1.25, 1, "power of the site over what computes",                            \
      "AWS 2024; 1.08 its new design, 1.25 public clouds on average (IDC)")                        \
    X(price, 0, 0, 0, 0, "USD per GPU-hour", "not known")

enum cm_assumption_name {
#define CM_ASSUME_ENUM(name, value, low, high, least, unit, source) CM_ASSUME_##name,
    CM_ASSUMPTIONS(CM_ASSUME_ENUM)
#undef CM_ASSUME_ENUM
        CM_ASSUME_COUNT
};

struct cm_assumption {
    double value, low, high; /* P10 and P90; a value without them is taken for sure */
    char source[200];
};
struct cm_assumption_info {
    const char *name;
    double least;
    const char *unit;
    struct cm_assumption usual;
};
extern const struct cm_assumption_info cm_assumption_infos[CM_ASSUME_COUNT];

void cm_assumptions_usual(struct cm_assumption *assumptions);
/* NAME, NAME_low, NAME_high or NAME_source; a value that is set takes its range and source away.
 * *known tells whether that is such a key. CM_USAGE: a value that cannot be. */
enum cm_status cm_assumption_set(struct cm_assumption *assumptions, const char *key,
                                 const char *value, const char *where, bool *known);
/* CM_USAGE: a range that its value is not in. */
enum cm_status cm_assumptions_check(const struct cm_assumption *assumptions, const char *where);

/* With a standard normal deviate: value at 0, P10 and P90 where they are of that. */
double cm_assumption_at(const struct cm_assumption *assumption, double deviate);

#endif
