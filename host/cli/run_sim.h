/* run_sim.h: what `run --device sim` does in place of a run. */
#ifndef HOST_CLI_RUN_SIM_H
#define HOST_CLI_RUN_SIM_H

#include "clustermark/measure.h"
#include "clustermark/roofline.h"

/* The request of a virtual clock: its device and machine are set. Ranks and runs are as asked for,
 * 0 where they are not. */
enum cm_status cm_sim_request(const char *machine_name, uint64_t ranks, uint64_t runs,
                              struct cm_machine *machine, struct cm_run_request *request);

/* --explain: where each step's time goes. */
enum cm_status cm_sim_explain(const struct cm_plan *plan, const struct cm_run_request *request);
/* --trace: the one step of the plan, as a file for chrome://tracing. */
enum cm_status cm_sim_trace(const struct cm_plan *plan, const struct cm_run_request *request,
                            const char *path);

#endif
